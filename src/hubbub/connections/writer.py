"""The only writer to one socket: at once while it takes what is written, else through a bounded outbox.

Theory of operation. While the socket takes what is written, there is no outbox and no task: a write is one call down
to the transport. Once it does not, frames wait in the outbox and a task drains it, until it is empty. A send of the
handler goes straight to the server when nothing waits, else it takes its turn in the outbox and the handler waits for
it: Starlette's own backpressure. Nothing else ever waits.

Invariant: the transport is *held*, and refuses, while a drain or a handler's send is under way and after the end. So
the fan-out may write to the transports of many members without asking their writers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sized
from typing import NamedTuple, Protocol

from ..tasks import Tasks
from .backpressure import Patience
from .outbox import DIRECT, Lane, Outbox
from .transports import Event, Transport

_CHUNK_BYTES = 64 * 1024


class Socket(Protocol):
    """What a writer needs of the socket that it writes to: bounds, and an ear for what it finds out."""

    @property
    def tasks(self) -> Tasks: ...

    @property
    def max_outbox_bytes(self) -> int: ...

    def lost(self) -> None:
        """The socket is gone."""

    def overflowed(self, queued_bytes: int) -> None:
        """The outbox is full of what may not be dropped."""

    def dropped(self, frames: int) -> None:
        """An overflow policy dropped frames."""

    def missed(self, room: str, count: int) -> bytes | None:
        """The peer has caught up, and missed so many messages of a room: gives the frame that says so, if any."""


class _Turn(NamedTuple):
    """A send of the handler that waits in the outbox."""

    event: Event
    sent: asyncio.Future[None]


class Writer:
    """Writes to one socket.

    Args:
        socket: The socket.
        transport: How to get there.
    """

    __slots__ = (
        "_drain_task",
        "_drained",
        "_in_hand",
        "_moved_at",
        "_outbox",
        "_own_bytes",
        "_patience",
        "_seen",
        "_sending",
        "_sent",
        "_socket",
        "ended",
        "transport",
    )

    def __init__(self, socket: Socket, transport: Transport) -> None:
        self.transport: Transport = transport
        self.ended: bool = False
        self._socket = socket
        self._outbox: Outbox[_Turn] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._drain_task: asyncio.Task[None] | None = None
        self._sending = False
        self._sent = 0
        self._moved_at = 0.0
        self._patience: Patience | None = None
        self._seen = 0, 0
        self._in_hand = 0
        self._own_bytes = 0

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait here: in the outbox, and in the hand of the drain."""
        return self._in_hand if self._outbox is None else self._outbox.bytes + self._in_hand

    @property
    def waiting_bytes(self) -> int:
        """Bytes that count against the outbox's bound: those that wait here, and in the transport's own buffer."""
        return self.queued_bytes + self._buffered_by_us

    @property
    def congested(self) -> bool:
        """Whether more than a quarter of the outbox is in use: the time to pause a burst, and to page a replay."""
        return self.waiting_bytes > self._socket.max_outbox_bytes // 4

    async def uncongested(self) -> None:
        """Waits until nothing waits here and the socket takes more. Returns too when it is gone."""
        await self.drained()
        await self.transport.ready()

    def write(self, data: bytes, lane: Lane = DIRECT, key: str | None = None) -> bool:
        """Writes a frame, or queues it, without waiting.

        Args:
            data: The frame; in a lane that loses nothing, whole frames in one piece.
            lane: Where it comes by.
            key: What ``overflow="latest"`` replaces by.

        Returns:
            False where the peer is gone or the frame was dropped.
        """
        if self.transport.write(data):
            return True
        return not self.ended and self._queue(data, lane, key)

    def _queue(self, data: bytes, lane: Lane, key: str | None) -> bool:
        if self.transport.closing:
            self._socket.lost()
            return False
        outbox = self._opened_outbox()
        before = outbox.dropped_frames
        outcome = outbox.push(data, lane, key, buffered=self._in_hand + self._buffered_by_us)
        if outbox.dropped_frames != before:
            self._socket.dropped(outbox.dropped_frames - before)
        if outcome == "overflow":
            self._socket.overflowed(outbox.bytes)
            return False
        self._drain_soon()
        return outcome == "queued"

    async def pace(self) -> None:
        """Lets a burst to this one connection be read."""
        if self.congested:
            if self._patience is None:
                self._patience = Patience()
            await self._patience.pause_for([self])

    async def send(self, event: Event) -> None:
        """A send of the handler: in its turn, and with the server's own backpressure.

        Raises:
            OSError: The socket is gone.
        """
        if self._drain_task is not None or self._sending:
            sent = asyncio.get_running_loop().create_future()
            self._opened_outbox().push_turn(_Turn(event, sent))
            self._drain_soon()
            await sent
            return
        self._own_bytes = _size(event)
        self._sending = True
        self.transport.hold(True)
        try:
            await self.transport.send(event)
        finally:
            self._sending = False
            self._sent += 1
            self._idle()

    def end(self, *, discard: bool) -> None:
        """Takes no more. What is queued still goes out, unless it is discarded."""
        self.ended = True
        self.transport.hold(True)
        if discard and self._outbox is not None:
            _give_up(self._outbox)

    def abandon(self) -> None:
        """Gives up what has not gone out. For when the handler has ended: a server may keep the socket for long."""
        self.end(discard=True)
        if self._drain_task is not None:
            self._drain_task.cancel()

    async def drained(self) -> None:
        """Waits until nothing is queued and no send is under way. Returns too when the socket is gone."""
        while self._drain_task is not None or self._sending:
            if self._drained is None:
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._drained)

    def _idle(self) -> None:
        """A drain or a send has ended: begins the next drain, or wakes who waits for there to be none."""
        self._drain_soon()
        if self._drain_task is None and self._drained is not None:
            if not self._drained.done():
                self._drained.set_result(None)
            self._drained = None

    @property
    def _buffered_by_us(self) -> int:
        """What waits in the transport, less a large message that the handler sent by itself, as Starlette lets it."""
        return max(0, self.transport.buffered - self._own_bytes)

    def stalled_for(self, now: float) -> float:
        """Seconds that nothing has moved of what waits, whoever wrote it; 0 where nothing waits. Call it regularly."""
        buffered = self.transport.buffered
        seen = buffered, self._sent
        if not buffered and self._drain_task is None and not self._outbox:
            self._seen = seen
            return 0.0
        if seen != self._seen:
            self._seen = seen
            self._moved_at = now
        return now - self._moved_at

    def _opened_outbox(self) -> Outbox[_Turn]:
        if self._outbox is None:
            self._outbox = Outbox(self._socket.max_outbox_bytes)
            self._moved_at = asyncio.get_running_loop().time()
        return self._outbox

    def _drain_soon(self) -> None:
        if self._drain_task is None and not self._sending and self._outbox:
            task = self._socket.tasks.spawn(self._drain(self._outbox), "drain")
            if not task.done():  # an eager task may have ended by now
                self._drain_task = task
                task.add_done_callback(self._never_began)
        self.transport.hold(self.ended or self._sending or self._drain_task is not None)

    async def _drain(self, outbox: Outbox[_Turn]) -> None:
        try:
            while True:
                await self.transport.ready()  # before the take: what waits is shared with others, what is taken is not
                item = outbox.take(_CHUNK_BYTES)
                if item is None:
                    notices = outbox.take_dropped()
                    if not notices:
                        break
                    for room, count in notices.items():
                        notice = self._socket.missed(room, count)
                        if notice is not None:
                            outbox.push(notice, DIRECT)
                elif isinstance(item, bytes):
                    self._in_hand = len(item)
                    await self.transport.write_soon(item)
                    self._in_hand = self._own_bytes = 0
                else:
                    await self._perform(item)
                self._moved_at = asyncio.get_running_loop().time()
        except OSError:
            self._socket.lost()
        finally:
            self._drain_is_over(outbox)

    def _never_began(self, task: asyncio.Task[None]) -> None:
        """A drain that is cancelled before its first step does not get to its end."""
        if self._drain_task is task and self._outbox is not None:
            self._drain_is_over(self._outbox)

    def _drain_is_over(self, outbox: Outbox[_Turn]) -> None:
        self._in_hand = 0
        self._drain_task = None
        self._outbox = None
        _give_up(outbox)
        self._idle()

    async def _perform(self, turn: _Turn) -> None:
        if turn.sent.done():
            return  # the handler no longer waits
        self._own_bytes = _size(turn.event)
        try:
            await self.transport.send(turn.event)
        except BaseException as error:
            known = isinstance(error, Exception)
            if not turn.sent.done():
                turn.sent.set_exception(error if known else ConnectionResetError("the socket is gone"))
            if isinstance(error, OSError) or not known:
                raise
        else:
            if not turn.sent.done():
                turn.sent.set_result(None)


def _size(event: Event) -> int:
    message = event.get("bytes") or event.get("text")
    return len(message) if isinstance(message, Sized) else 0  # the server says what is wrong with any other


def _give_up(outbox: Outbox[_Turn]) -> None:
    """Drops what is queued; the sends that wait in it fail."""
    for turn in outbox.clear():
        if not turn.sent.done():
            turn.sent.set_exception(ConnectionResetError("the socket is gone"))
