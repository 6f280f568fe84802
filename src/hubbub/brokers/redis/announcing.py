"""Prepares announcements that a user or an anonymous connection joined or left a room. A script publishes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

from ...options import RoomTable
from .channel import Keys, Sender, pack_announcement

Prepared: TypeAlias = tuple[str, bytes]
"""The arguments with which a script announces: the channel, and the beginning of the message."""

SILENCE: Final[Prepared] = ("", b"")


class Announcer:
    """Prepares the announcements of one worker.

    Args:
        keys: The names of the channels.
        sender: Stamps the announcements.
        rooms: The options of the rooms, which say whether a room announces.
    """

    def __init__(self, keys: Keys, sender: Sender, rooms: RoomTable) -> None:
        self._keys = keys
        self._sender = sender
        self._rooms = rooms

    def prepare(self, kind: Literal["joined", "left"], room: str, user: str | None) -> Prepared:
        """Prepares an announcement for a script, which publishes it only if the presence really starts or ends.

        The stamp takes the next sequence number, so the script has to be sent before anything stamped later.
        """
        if not self._rooms(room).announce:
            return SILENCE
        stamp = self._sender.stamp(scripted=True)
        return self._keys.channel(room), pack_announcement(kind, user, datetime.now(UTC), stamp)
