"""Writes messages to the members of rooms: one write per connection, room and pass of the event loop.

Theory of operation. A publish appends a message to its room's ``pending`` and marks the room as dirty. At the end of
the pass (a callback of the loop, or ``flush_interval_s`` later) the frames of each dirty room are joined once, and the
same bytes are written to every member. Under load the batches grow by themselves.

The joined batch and the members that have not received it are a *flight*. A flight to very many members takes several
slices of `SLICE_S`. Between them the loop runs, and other rooms take their turns. Messages that are published meanwhile
wait for the next flight.

Order: before anything is written to one member directly, and before a member leaves, its pending messages are *flushed*
to it alone, so it is ahead of the other members. A member that joins while messages are pending counts as ahead too. So
no member waits for the rest of a room, and the batch of the others stays whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from math import inf

from ..connections.pacing import Patience
from .audience import Audience, Flight, Outgoing, RoomMember

FLUSH_BYTES = 64 * 1024
"""The high-water mark: above so many pending bytes, publishers are paced."""

SLICE_S = 0.004
"""The duration of one slice, during which the loop runs nothing else."""

_STRIDE = 32
"""The number of members between two looks at the clock."""

_PACE_S = 0.001


class Fanout:
    """Writes the pending messages of rooms. Bound to an event loop from `start` to `stop`.

    Args:
        flush_interval_s: Seconds that a message may wait to share a write with others. 0 is until the end of the pass.
    """

    def __init__(self, flush_interval_s: float = 0.0) -> None:
        self._flush_interval_s = flush_interval_s
        self._dirty: dict[Audience, None] = {}  # rooms with pending messages or a flight, in the order of their turns
        self._pending_bytes = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handle: asyncio.Handle | None = None
        self._delayed = False  # whether the handle is for the end of the interval, not for this pass

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Binds the fan-out to a loop."""
        self._loop = loop
        self._dirty.clear()
        self._pending_bytes = 0

    def stop(self) -> None:
        """Writes all pending messages, and unbinds the fan-out."""
        self.flush_all()
        self._loop = None

    def add(self, room: Audience, outgoing: Outgoing) -> None:
        """Adds a message to those that are written to the room's members at the end of the pass."""
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
        """Whether any message is pending or in flight."""
        return bool(self._dirty)

    def flush(self, member: RoomMember, rooms: Iterable[Audience]) -> None:
        """Writes the pending messages of some rooms to one member, ahead of the other members."""
        for room in rooms:
            if room.flight is not None or room.pending:
                self.flush_room(room, member)

    def flush_room(self, room: Audience, member: RoomMember) -> None:
        """Writes the pending messages of one room to one member, ahead of the other members."""
        flight, pending = room.flight, room.pending
        if flight is not None and flight.take(member.id) is not None:
            _queue(member, flight, room)
        if pending and member.id in room.members:
            since = room.ahead.get(member.id, 0)
            room.ahead[member.id] = len(pending)
            _write_each(member, pending[since:], room)

    def flush_all(self) -> None:
        """Writes all pending messages of all rooms in one slice."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._slice(inf)

    @property
    def crowded(self) -> bool:
        """Whether pending messages are above the high-water mark, so that publishers must be paced."""
        return self._pending_bytes >= FLUSH_BYTES

    async def pace(self, room: Audience) -> None:
        """Holds a publisher until pending messages are below the high-water mark, and members could read.

        Args:
            room: The room to which it published. The room's patience bounds the wait.
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
        """Writes until the deadline, room by room. A room that is not done moves to the end of the queue."""
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
        """Writes the pending message of a small room in which all members receive it. Most rooms are like that.

        Returns:
            False if the room is not like that. Nothing was written then.
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
        """Begins a flight of the pending messages. Writes to the members that do not receive exactly those."""
        flight, exceptions = room.launch()
        self._pending_bytes -= sum([outgoing.size for outgoing in flight.batch])
        for member, batch in exceptions:
            _write_each(member, batch, room)
        return flight

    def _fly(self, flight: Flight, room: Audience, deadline: float) -> bool:
        """Writes a flight to the remaining members, until the deadline. Returns whether all have it."""
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
    """Writes a flight to one member, or queues it.

    If the room must not lose messages, all slow members share the bytes of the batch. If its overflow policy may drop
    messages, each one is queued by itself.
    """
    if room.overflow == "close":
        member.writer.write(flight.data(member.protocol), room)
    else:
        _write_each(member, flight.batch, room)


def _write_each(member: RoomMember, batch: Iterable[Outgoing], room: Audience) -> None:
    """Writes or queues messages one by one, so that a message that is dropped is counted as one."""
    for outgoing in batch:
        frame = outgoing.frame_for(member)
        if frame:
            member.writer.write(frame, room, outgoing.key)
