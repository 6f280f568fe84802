"""A tick's frames to writes: one write per connection, room and pass of the event loop.

Theory of operation. A publish puts one frame into its room's ``pending`` and marks the room as dirty. At the end of the
pass (a callback of the loop, or `flush_interval_s` later) each dirty room's frames are joined once, and the same bytes
go to every member. Under load the batches grow by themselves.

What keeps order: a leave, and anything that is written to one connection directly, first flushes the rooms concerned;
who joins while something is pending gets only what comes after. Members are a snapshot of the flush, which is one
synchronous step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from .pace import Patience
from .room import Outgoing, Room, RoomMember

FLUSH_BYTES = 64 * 1024
"""Pending bytes past which a publish flushes and yields."""

_PACE_S = 0.001


class Fanout:
    """Writes what rooms have pending. Bound to the running loop from `start` to `stop`.

    Args:
        flush_interval_s: How long a message may wait for others to share a write with. 0 is the end of the pass.
    """

    def __init__(self, flush_interval_s: float = 0.0) -> None:
        self._flush_interval_s = flush_interval_s
        self._dirty: dict[Room, None] = {}
        self._pending_bytes = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handle: asyncio.Handle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def stop(self) -> None:
        """Writes what is pending, and ends."""
        self.flush_all()
        self._loop = None

    def add(self, room: Room, outgoing: Outgoing) -> None:
        """Gives a frame to a room's members at the end of the pass."""
        room.pending.append(outgoing)
        self._pending_bytes += len(outgoing.data)
        self._dirty[room] = None
        if self._handle is None and self._loop is not None:
            if self._flush_interval_s:
                self._handle = self._loop.call_later(self._flush_interval_s, self.flush_all)
            else:
                self._handle = self._loop.call_soon(self.flush_all)

    def flush_all(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._pending_bytes = 0
        while self._dirty:
            self.flush(next(iter(self._dirty)))

    def flush_of(self, rooms: Iterable[Room]) -> None:
        """Writes what is pending in some rooms, before something else is written."""
        if self._dirty:
            for room in tuple(rooms):  # a write may find that a peer is gone, which takes it out of its rooms
                self.flush(room)

    def flush(self, room: Room) -> None:
        """Writes what is pending in a room."""
        self._dirty.pop(room, None)
        batch, room.pending = room.pending, []
        if not batch:
            return
        members, newcomers = tuple(room.members.values()), tuple(room.newcomers.values())
        room.settle()
        if any(outgoing.exclude for outgoing in batch):
            for member in members:
                _write_each(member, batch, room)
        else:
            data = batch[0].data if len(batch) == 1 else b"".join([outgoing.data for outgoing in batch])
            for member in members:
                writer = member.writer
                if writer.write_now(data):
                    continue
                if room.overflow == "close":
                    writer.write(data, room)
                else:
                    _write_each(member, batch, room)
        for member, since in newcomers:
            _write_each(member, batch[since:], room)

    async def pace(self, room: Room) -> None:
        """Flushes and lets the loop turn, when a publisher has filled what is pending.

        Args:
            room: Where it published, whose patience it is.
        """
        if self._pending_bytes < FLUSH_BYTES:
            return
        rooms = tuple(self._dirty)
        self.flush_all()
        await asyncio.sleep(_PACE_S)
        if room.patience is None:
            room.patience = Patience()
        await room.patience.pause_for({member.writer for each in rooms for member in each.members.values()})


def _write_each(member: RoomMember, batch: Iterable[Outgoing], room: Room) -> None:
    """Message by message: what may be dropped, is dropped and counted as such."""
    for outgoing in batch:
        frame = outgoing.frame_for(member)
        if frame is not None:
            member.writer.write(frame, room, outgoing.key)
