"""Reads what Redis keeps of rooms with positions: their numberings, and their newest messages."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from ...envelope import Entry, Page
from ...options import RoomTable
from ...positions import Position, new_epoch
from ..base import MAX_SILENT
from .channel import Arrival, Keys, Stamp, unpack_message
from .commands import position_in, ttl_ms
from .foreign import Foreign
from .link import Link
from .scripts import HEAD, READ, RENUMBER
from .subscription import Read

_AT_ONCE: Final = 128
"""Maximum number of messages that a worker reads at once while it catches up."""


class _Found(NamedTuple):
    """The part of a log after a position. As `Read`, but each message comes with its time in ms."""

    head: Position
    known: bool
    whole: bool
    same: bool
    found: list[tuple[Arrival, int]]


class Logs:
    """Reads the rooms' numberings and messages. Publishing writes them (`publishing`).

    Args:
        link: The connection to Redis.
        keys: The names of the keys.
        rooms: The options of the rooms.
        foreign: Counts entries that can't be read.
    """

    def __init__(self, link: Link, keys: Keys, rooms: RoomTable, foreign: Foreign) -> None:
        self._foreign = foreign
        self._link = link
        self._keys = keys
        self._rooms = rooms

    async def position(self, room: str) -> Position:
        """Returns the position of a room that has members. Begins a numbering if needed, and extends its lifetime."""
        keys = self._keys.head(room), self._keys.log(room), self._keys.silent
        ttl, names = ttl_ms(self._rooms(room)), (room, self._keys.room_prefix, self._keys.channel_prefix)
        return position_in(await self._link.run(HEAD, keys, new_epoch(), ttl, *names, MAX_SILENT))

    async def known_position(self, room: str) -> Position | None:
        """Returns the room's position; None if it has no numbering. Writes nothing."""
        epoch, offset = await self._link.call("HMGET", self._keys.head(room), "e", "o")
        return None if epoch is None else Position(epoch.decode(), int(offset))

    async def page(self, room: str, after: Position | None, limit: int | None) -> Page:
        """Returns the kept messages after a position, for a request for history. Writes nothing."""
        read = await self._read(room, after, limit or 0, b"")
        if read is None:
            return Page([], None, whole=False)
        entries = [
            Entry(arrival.envelope, datetime.fromtimestamp(time_ms / 1000, UTC)) for arrival, time_ms in read.found
        ]
        return Page(entries, read.head, read.whole)

    async def missed(self, room: str, after: Position | None, stamp: Stamp | None) -> Read:
        """Returns the kept messages after the position up to which a worker has delivered.

        Args:
            room: The room.
            after: The position.
            stamp: The stamp of the message delivered at that position; None if it is unknown.
        """
        read = await self._read(room, after, _AT_ONCE, stamp.packed() if stamp else b"")
        if read is None:  # Redis has lost the numbering of a room with members
            return Read(await self.position(room), known=False, whole=False, same=True, arrivals=[])
        return Read(read.head, read.known, read.whole, read.same, [arrival for arrival, _ in read.found])

    async def renumber(self, room: str, epoch: str) -> None:
        """Begins a new epoch and announces it to all workers, unless the room has left the given epoch."""
        await self._link.run(RENUMBER, (self._keys.head(room),), self._keys.channel(room), epoch, new_epoch())

    async def _read(self, room: str, after: Position | None, limit: int, stamp: bytes) -> _Found | None:
        """Reads a log. Returns None if the room has no numbering."""
        epoch, offset = after or ("", 0)
        keys = self._keys.head(room), self._keys.log(room)
        answer: Any = await self._link.run(READ, keys, ttl_ms(self._rooms(room)), epoch, offset, limit, stamp)
        if not answer[0]:
            return None
        head, known, whole, same = position_in(answer), bool(answer[2]), bool(answer[3]), bool(answer[4])
        if answer[6]:
            self._foreign.skip("an entry", self._keys.log(room), "other fields", times=answer[6])
        found = []
        for place, packed, time_ms in answer[5]:
            try:
                found.append((unpack_message(packed, 0, Position(head.epoch, place)), time_ms))
            except ValueError as error:
                self._foreign.skip("a message", self._keys.log(room), error)
                whole = False
        return _Found(head, known, whole, same, found)
