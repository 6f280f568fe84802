"""Announcements of who joins and leaves a room, published by the script that changes the presence, in the same step."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

from ...options import RoomTable
from .channel import Keys, Sender, pack_announcement

Prepared: TypeAlias = tuple[str, bytes]
"""What a script needs to announce: the channel, and the beginning of the message."""

SILENCE: Final[Prepared] = ("", b"")


class Announcer:
    """Prepares the announcements of one worker.

    Args:
        keys: The names of the channels.
        sender: Stamps the messages.
        rooms: The options of the rooms: which announce.
    """

    def __init__(self, keys: Keys, sender: Sender, rooms: RoomTable) -> None:
        self._keys = keys
        self._sender = sender
        self._rooms = rooms

    def prepare(self, kind: Literal["joined", "left"], room: str, user: str) -> Prepared:
        """Prepares an announcement, in case the script makes it true. Its stamp fixes when it has to be sent."""
        if not self._rooms(room).announce:
            return SILENCE
        stamp = self._sender.stamp(scripted=True)
        return self._keys.channel(room), pack_announcement(kind, user, datetime.now(UTC), stamp)
