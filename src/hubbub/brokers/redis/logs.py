"""What Redis keeps of rooms with positions: their numbering, and their last messages."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from ...envelope import Entry, Page
from ...options import RoomTable
from ...positions import Position, new_epoch
from .channel import Keys, Stamp, unpack_message
from .commands import position_in, ttl_ms
from .link import Link
from .scripts import HEAD, READ, RENUMBER
from .subscription import Read

_AT_ONCE: Final = 128
"""How many messages are read at once by who catches up."""


class Logs:
    """Reads the rooms' numberings and messages. Publishing writes them (`publishing`).

    Args:
        link: Where to.
        keys: How the keys are called.
        rooms: The options of the rooms.
    """

    def __init__(self, link: Link, keys: Keys, rooms: RoomTable) -> None:
        self._link = link
        self._keys = keys
        self._rooms = rooms

    async def position(self, room: str) -> Position:
        """The room's position, for a room that has members: a numbering begins where there is none, and lives on."""
        keys = self._keys.head(room), self._keys.log(room)
        return position_in(await self._link.run(HEAD, keys, new_epoch(), ttl_ms(self._rooms(room))))

    async def known_position(self, room: str) -> Position | None:
        """The room's position, if it has a numbering. Writes nothing."""
        epoch, offset = await self._link.call("HMGET", self._keys.head(room), "e", "o")
        return None if epoch is None else Position(epoch.decode(), int(offset))

    async def page(self, room: str, after: Position | None, limit: int | None) -> Page:
        """What is kept after a position, for whoever asks for history. Writes nothing."""
        head, whole, _, found = await self._read(room, after, limit or 0, b"")
        if head is None:
            return Page([], None, whole=False)
        entries = [_entry(Position(head.epoch, offset), packed, time_ms) for offset, packed, time_ms in found]
        return Page(entries, head, whole)

    async def missed(self, room: str, after: Position | None, stamp: Stamp | None) -> Read:
        """What is kept after the position up to which a worker has delivered.

        Args:
            room: The room.
            after: That position.
            stamp: That of the message that was delivered there.
        """
        head, whole, same, found = await self._read(room, after, _AT_ONCE, stamp.packed() if stamp else b"")
        if head is None:  # lost, while the room has members
            return Read(await self.position(room), whole=False, same=True, arrivals=[])
        arrivals = [unpack_message(packed, 0, Position(head.epoch, offset)) for offset, packed, _ in found]
        return Read(head, whole, same, arrivals)

    async def renumber(self, room: str, epoch: str) -> None:
        """Begins a new epoch and tells all workers of it, unless the room is no longer in the one that is named."""
        await self._link.run(RENUMBER, (self._keys.head(room),), self._keys.channel(room), epoch, new_epoch())

    async def _read(
        self, room: str, after: Position | None, limit: int, stamp: bytes
    ) -> tuple[Position | None, bool, bool, Iterable[tuple[int, bytes, int]]]:
        epoch, offset = after or ("", 0)
        keys = self._keys.head(room), self._keys.log(room)
        answer: Any = await self._link.run(READ, keys, ttl_ms(self._rooms(room)), epoch, offset, limit, stamp)
        return position_in(answer) if answer[0] else None, bool(answer[2]), bool(answer[3]), answer[4]


def _entry(position: Position, packed: bytes, time_ms: int) -> Entry:
    return Entry(unpack_message(packed, 0, position).envelope, datetime.fromtimestamp(time_ms / 1000, UTC))
