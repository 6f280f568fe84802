"""How rooms are told who comes and goes: by the script that makes it so, in the same step."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from ...codec import Kind, Payload
from ...envelope import Envelope
from ...options import RoomTable
from ...presence import announcement
from .channel import Keys, Sender, pack

Told: TypeAlias = tuple[str, bytes, bytes]
"""What a script is given to announce: the channel, and what it publishes before and after the info and the count."""

Tells: TypeAlias = Literal["user_joined", "user_left"]

SILENCE: Final[Told] = ("", b"", b"")


class Announcer:
    """Makes the announcements of one worker.

    Args:
        keys: How the channels are called.
        sender: Who announces.
        rooms: The options of the rooms: which are told.
    """

    def __init__(self, keys: Keys, sender: Sender, rooms: RoomTable) -> None:
        self._keys = keys
        self._sender = sender
        self._rooms = rooms

    def tell(self, kind: Tells, room: str, user: str) -> Told:
        """What is told, if it turns out to be so. It is stamped: it is to be sent before what is stamped later."""
        if not self._rooms(room).announce:
            return SILENCE
        told = announcement(kind, room, user)
        stamp = self._sender.stamp(scripted=True)
        head = pack(Envelope(Payload(Kind.JSON, told.head)), stamp)  # the payload is last, and goes on
        return self._keys.channel(room), head, told.tail
