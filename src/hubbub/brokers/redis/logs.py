"""What Redis keeps of rooms with positions: their numbering, and their last messages."""

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
"""How many messages are read at once by who catches up."""


class _Found(NamedTuple):
    """What a log has after a position; the messages with their times in ms. See `Read` for the rest."""

    head: Position
    known: bool
    whole: bool
    same: bool
    found: list[tuple[Arrival, int]]


class Logs:
    """Reads the rooms' numberings and messages. Publishing writes them (`publishing`).

    Args:
        link: Where to.
        keys: How the keys are called.
        rooms: The options of the rooms.
        foreign: Counts what can't be read.
    """

    def __init__(self, link: Link, keys: Keys, rooms: RoomTable, foreign: Foreign) -> None:
        self._foreign = foreign
        self._link = link
        self._keys = keys
        self._rooms = rooms

    async def position(self, room: str) -> Position:
        """The room's position, for a room that has members: a numbering begins where there is none, and lives on."""
        keys = self._keys.head(room), self._keys.log(room), self._keys.silent
        ttl, names = ttl_ms(self._rooms(room)), (room, self._keys.room_prefix, self._keys.channel_prefix)
        return position_in(await self._link.run(HEAD, keys, new_epoch(), ttl, *names, MAX_SILENT))

    async def known_position(self, room: str) -> Position | None:
        """The room's position, if it has a numbering. Writes nothing."""
        epoch, offset = await self._link.call("HMGET", self._keys.head(room), "e", "o")
        return None if epoch is None else Position(epoch.decode(), int(offset))

    async def page(self, room: str, after: Position | None, limit: int | None) -> Page:
        """What is kept after a position, for whoever asks for history. Writes nothing."""
        read = await self._read(room, after, limit or 0, b"")
        if read is None:
            return Page([], None, whole=False)
        entries = [
            Entry(arrival.envelope, datetime.fromtimestamp(time_ms / 1000, UTC)) for arrival, time_ms in read.found
        ]
        return Page(entries, read.head, read.whole)

    async def missed(self, room: str, after: Position | None, stamp: Stamp | None) -> Read:
        """What is kept after the position up to which a worker has delivered.

        Args:
            room: The room.
            after: That position.
            stamp: That of the message that was delivered there.
        """
        read = await self._read(room, after, _AT_ONCE, stamp.packed() if stamp else b"")
        if read is None:  # lost, while the room has members
            return Read(await self.position(room), known=False, whole=False, same=True, arrivals=[])
        return Read(read.head, read.known, read.whole, read.same, [arrival for arrival, _ in read.found])

    async def renumber(self, room: str, epoch: str) -> None:
        """Begins a new numbering and tells all workers of it, unless the room is no longer in the epoch."""
        await self._link.run(RENUMBER, (self._keys.head(room),), self._keys.channel(room), epoch, new_epoch())

    async def _read(self, room: str, after: Position | None, limit: int, stamp: bytes) -> _Found | None:
        """Reads a log; None where the room has no numbering."""
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
