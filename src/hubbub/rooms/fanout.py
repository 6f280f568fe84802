"""A tick's frames to writes: one write per connection, room and pass of the event loop.

Theory of operation. A publish puts one frame into its room's ``pending`` and marks the room as dirty. At the end of the
pass (a callback of the loop, or `flush_interval_s` later) each dirty room's frames are joined once, and the same bytes
go to every member. Under load the batches grow by themselves.

That is a *flight*: the joined batch, and the members that have not got it yet. A flight to very many members takes
several slices of `SLICE_S`, between which the loop turns and other rooms have their turn. What is published meanwhile
waits for the next flight.

What keeps order: before anything is written to one member directly, or it leaves, it is *given* what is pending for it,
ahead of the others, and only it. Who joins while something is pending counts as ahead too. So nobody waits for the
rest of a room, and the others' batch stays whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from math import inf

from ..connections.backpressure import Patience
from .audience import Audience, Flight, Outgoing, RoomMember

FLUSH_BYTES = 64 * 1024
"""Pending bytes past which a publish waits for its turn."""

SLICE_S = 0.004
"""How long the loop is kept by one slice."""

_STRIDE = 32
"""Members between two looks at the clock."""

_PACE_S = 0.001


class Fanout:
    """Writes what rooms have pending. Bound to the running loop from `start` to `stop`.

    Args:
        flush_interval_s: How long a message may wait for others to share a write with. 0 is the end of the pass.
    """

    def __init__(self, flush_interval_s: float = 0.0) -> None:
        self._flush_interval_s = flush_interval_s
        self._dirty: dict[Audience, None] = {}  # with something pending or in flight, in the order of their turns
        self._pending_bytes = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handle: asyncio.Handle | None = None
        self._delayed = False  # whether the handle is for the end of the interval, and not for this pass

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._dirty.clear()
        self._pending_bytes = 0

    def stop(self) -> None:
        """Writes what is pending, and ends."""
        self.flush_all()
        self._loop = None

    def add(self, room: Audience, outgoing: Outgoing) -> None:
        """Gives a frame to a room's members at the end of the pass."""
        room.pending.append(outgoing)
        self._pending_bytes += outgoing.size
        self._dirty[room] = None
        if self._handle is None and self._loop is not None:
            if self._flush_interval_s:
                self._handle = self._loop.call_later(self._flush_interval_s, self._run)
                self._delayed = True
            else:
                self._handle = self._loop.call_soon(self._run)

    @property
    def busy(self) -> bool:
        """Whether anything is pending or in flight."""
        return bool(self._dirty)

    def give(self, member: RoomMember, rooms: Iterable[Audience]) -> None:
        """Writes what is pending in some rooms for one member, before something else is written to it."""
        for room in rooms:
            if room.flight is not None or room.pending:
                self.give_of(room, member)

    def give_of(self, room: Audience, member: RoomMember) -> None:
        """`give`, of one room."""
        flight, pending = room.flight, room.pending
        if flight is not None and flight.take(member.id) is not None:
            _queue(member, flight, room)
        if pending and member.id in room.members:
            since = room.ahead.get(member.id, 0)
            room.ahead[member.id] = len(pending)
            _write_each(member, pending[since:], room)

    def flush_all(self) -> None:
        """Writes all that is pending, in one go."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._slice(inf)

    @property
    def crowded(self) -> bool:
        """Whether so much is pending that who publishes is to be paced."""
        return self._pending_bytes >= FLUSH_BYTES

    async def pace(self, room: Audience) -> None:
        """Holds a publisher that has filled what is pending until it is on its way, and the loop has turned.

        Args:
            room: Where it published, whose patience it is.
        """
        while self.crowded and self._loop is not None:
            if self._delayed and self._handle is not None:
                self._delayed = False
                self._handle.cancel()
                self._handle = self._loop.call_soon(self._run)
            await asyncio.sleep(0)
        await asyncio.sleep(_PACE_S)
        if room.patience is None:
            room.patience = Patience()
        await room.patience.pause_for([member.writer for member in room.members.values()])

    def _run(self) -> None:
        self._handle, self._delayed = None, False
        if self._loop is not None:
            self._slice(self._loop.time() + SLICE_S)
            if self._dirty:
                self._handle = self._loop.call_soon(self._run)

    def _slice(self, deadline: float) -> None:
        """Writes until the deadline: room by room, one that is not done goes to the end of the queue."""
        while self._dirty:
            room = next(iter(self._dirty))
            del self._dirty[room]
            if room.flight is not None or not self._flush_small(room):
                flight = room.flight or self._launch(room)
                if self._fly(flight, room, deadline):
                    room.flight = None
                if room.flight is not None or room.pending:
                    self._dirty[room] = None
            if self._past(deadline):
                return

    def _flush_small(self, room: Audience) -> bool:
        """Writes what is pending in a room that is done in one stride, where all get the same: most rooms are so.

        Returns:
            False where it is not such a room: nothing was written.
        """
        batch = room.pending
        if len(room.members) > _STRIDE or room.ahead or len(batch) != 1 or batch[0].exclude:
            return False
        room.pending = []
        outgoing = batch[0]
        self._pending_bytes -= outgoing.size
        roster = room.roster
        for protocol, first, end in roster.runs:
            data = outgoing.frame(protocol)
            if data:
                for place, target in enumerate(roster.targets[first:end], first):
                    if not target.write(data):
                        _queue(roster.members[place], Flight(batch, roster), room)
        return True

    def _launch(self, room: Audience) -> Flight:
        """What is pending goes on its way; those who do not get just that get theirs now."""
        flight, apart = room.launch()
        self._pending_bytes -= sum([outgoing.size for outgoing in flight.batch])
        for member, batch in apart:
            _write_each(member, batch, room)
        return flight

    def _fly(self, flight: Flight, room: Audience, deadline: float) -> bool:
        """Writes to those who wait, until the deadline. Whether all have it."""
        targets = flight.targets
        for protocol, _, end in flight.runs:
            if flight.at >= end:
                continue
            data = flight.data(protocol)
            if not data:
                flight.at = end
            while flight.at < end:
                first = flight.at
                flight.at = last = min(first + _STRIDE, end)
                for target in targets[first:last]:
                    if not target.write(data):
                        _queue(flight.members[targets.index(target, first, last)], flight, room)
                if self._past(deadline):
                    return flight.at == len(targets)
        return True

    def _past(self, deadline: float) -> bool:
        return self._loop is not None and self._loop.time() >= deadline


def _queue(member: RoomMember, flight: Flight, room: Audience) -> None:
    """Writes to one member, or queues.

    Where nothing may be lost, all slow members share the batch; where something may, each message counts.
    """
    if room.overflow == "close":
        member.writer.write(flight.data(member.protocol), room)
    else:
        _write_each(member, flight.batch, room)


def _write_each(member: RoomMember, batch: Iterable[Outgoing], room: Audience) -> None:
    """Message by message: what may be dropped, is dropped and counted as such."""
    for outgoing in batch:
        frame = outgoing.frame_for(member)
        if frame:
            member.writer.write(frame, room, outgoing.key)
