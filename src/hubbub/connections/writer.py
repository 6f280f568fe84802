"""Writes to one socket: directly while the socket takes data, otherwise through a bounded outbox.

Theory of operation. While the socket takes data, there is no outbox and no task: a write is one call to the transport.
Once the socket takes no more, frames wait in the outbox, and a task, the *pump*, sends them until the outbox is empty.
A send of the handler goes directly to the server if nothing waits. Otherwise it takes its turn in the outbox and the
handler waits for it, which is Starlette's own backpressure. No other caller ever waits.

Invariant: the transport is *held* (it refuses writes) while the pump or a send of the handler runs, and after the end.
So the fan-out may write to the transports of many members directly, without asking their writers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sized
from typing import NamedTuple, Protocol

from ..tasks import Tasks
from .outbox import DIRECT, Lane, Outbox
from .pacing import Patience
from .transports import Event, Transport

_CHUNK_BYTES = 64 * 1024


class Socket(Protocol):
    """The part of a socket that its writer uses: its bounds, and the callbacks for what the writer finds out."""

    @property
    def tasks(self) -> Tasks: ...

    @property
    def max_outbox_bytes(self) -> int: ...

    def on_lost(self) -> None:
        """Records that the client is gone."""

    def on_overflow(self, queued_bytes: int) -> None:
        """Closes the socket, because the outbox is full of frames that may not be dropped."""

    def on_dropped(self, frames: int) -> None:
        """Counts the frames that an overflow policy dropped."""

    def on_caught_up(self, dropped: int) -> None:
        """Handles that the client has read everything that was queued, and that frames were dropped meanwhile."""


class _Turn(NamedTuple):
    """A queued send of the handler."""

    event: Event
    sent: asyncio.Future[None]


class Writer:
    """Writes to one socket.

    Args:
        socket: The socket.
        transport: The transport of the socket.
    """

    __slots__ = (
        "_corked",
        "_emptied",
        "_in_flight",
        "_moved_at",
        "_outbox",
        "_own_bytes",
        "_patience",
        "_pump_task",
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
        self._emptied: asyncio.Future[None] | None = None
        self._pump_task: asyncio.Task[None] | None = None
        self._sending = False
        self._corked = False
        self._sent = 0
        self._moved_at = 0.0
        self._patience: Patience | None = None
        self._seen = 0, 0
        self._in_flight = 0
        self._own_bytes = 0

    @property
    def queued_bytes(self) -> int:
        """Bytes in the outbox, and those that the pump is sending."""
        return self._in_flight if self._outbox is None else self._outbox.bytes + self._in_flight

    @property
    def waiting_bytes(self) -> int:
        """Bytes that count against the outbox's bound: the queued ones, and those in the transport's own buffer."""
        return self.queued_bytes + self._buffered_by_us

    @property
    def congested(self) -> bool:
        """Whether over a quarter of the outbox is in use. Then bursts pause, and replays delay their next page."""
        return self.waiting_bytes > self._socket.max_outbox_bytes // 4

    async def uncongested(self) -> None:
        """Waits until nothing is queued and the socket takes more. Also returns if the client is gone."""
        await self.emptied()
        await self.transport.ready()

    def write(self, data: bytes, lane: Lane = DIRECT, key: str | None = None) -> bool:
        """Writes a frame, or queues it, without waiting.

        Args:
            data: The frame. In a lane that drops nothing, several whole frames are allowed.
            lane: The lane of the frame.
            key: The key by which ``overflow="latest"`` replaces frames.

        Returns:
            False if the client is gone or the frame was dropped.
        """
        if self.transport.write(data):
            return True
        return not self.ended and self._queue(data, lane, key)

    def cork(self) -> None:
        """Queues all frames until `uncork`, so that one frame can go ahead of them. The bounds of the outbox hold."""
        self._corked = True
        self.transport.hold(True)

    def uncork(self, first: bytes = b"") -> None:
        """Sends the frames that were queued since `cork`.

        Args:
            first: A frame to send ahead of them.
        """
        self._corked = False
        if first and not self.ended:
            if self._outbox:
                self._outbox.push_first(first)
            else:
                self.transport.hold(False)
                self.write(first)
        self._idle()

    def _queue(self, data: bytes, lane: Lane, key: str | None) -> bool:
        if self.transport.closing:
            self._socket.on_lost()
            return False
        outbox = self._opened_outbox()
        before = outbox.dropped_frames
        outcome = outbox.push(data, lane, key, buffered=self._in_flight + self._buffered_by_us)
        if outbox.dropped_frames != before:
            self._socket.on_dropped(outbox.dropped_frames - before)
        if outcome == "overflow":
            self._socket.on_overflow(outbox.bytes)
            return False
        self._start_pump()
        return outcome == "queued"

    async def pace(self) -> None:
        """Pauses a sender in a burst, so that the client has time to read."""
        if self.congested:
            if self._patience is None:
                self._patience = Patience()
            await self._patience.pause_for([self])

    async def send(self, event: Event) -> None:
        """Sends an event of the handler after everything that is queued, with the server's own backpressure.

        Raises:
            OSError: The client is gone.
        """
        if self._pump_task is not None or self._sending:
            sent = asyncio.get_running_loop().create_future()
            self._opened_outbox().push_turn(_Turn(event, sent))
            self._start_pump()
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
        """Refuses further writes. Queued frames are still sent, unless they are discarded, or wait for `uncork`."""
        self.ended = True
        self.transport.hold(True)
        if (discard or self._corked) and self._outbox is not None:
            _discard(self._outbox)
        if self._corked:
            self._corked = False
            self._idle()

    def stop(self) -> None:
        """Discards everything queued and stops the pump. For the end of the handler: the socket may outlive it."""
        self.end(discard=True)
        if self._pump_task is not None:
            self._pump_task.cancel()

    async def emptied(self) -> None:
        """Waits until nothing is queued or corked, and no send is running. Also returns if the client is gone."""
        while self._pump_task is not None or self._sending or self._corked:
            if self._emptied is None:
                self._emptied = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._emptied)

    def _idle(self) -> None:
        """Restarts the pump if something is queued; otherwise wakes the waiters of `emptied`."""
        self._start_pump()
        if self._pump_task is None and self._emptied is not None:
            if not self._emptied.done():
                self._emptied.set_result(None)
            self._emptied = None

    @property
    def _buffered_by_us(self) -> int:
        """Bytes in the transport's buffer, without the message that the handler sent itself, however large it is."""
        return max(0, self.transport.buffered - self._own_bytes)

    def stalled_for(self, now: float) -> float:
        """Returns the seconds without progress while data waits; 0 if none waits. Must be called regularly."""
        buffered = self.transport.buffered
        seen = buffered, self._sent
        if not buffered and self._pump_task is None and (self._corked or not self._outbox):
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

    def _start_pump(self) -> None:
        if self._pump_task is None and not self._sending and self._outbox and not self._corked:
            task = self._socket.tasks.spawn(self._pump(self._outbox), "write queued frames")
            if not task.done():  # an eager task may already be done
                self._pump_task = task
                task.add_done_callback(self._pump_done)
        self.transport.hold(self.ended or self._sending or self._corked or self._pump_task is not None)

    async def _pump(self, outbox: Outbox[_Turn]) -> None:
        try:
            while True:
                await self.transport.ready()  # before `take`: overflow policies apply only to what is in the outbox
                item = outbox.take(_CHUNK_BYTES)
                if item is None:
                    if outbox.dropped_frames:
                        self._socket.on_caught_up(outbox.dropped_frames)
                    break
                if isinstance(item, bytes):
                    self._in_flight = len(item)
                    await self.transport.write_soon(item)
                    self._in_flight = self._own_bytes = 0
                else:
                    await self._perform(item)
                self._moved_at = asyncio.get_running_loop().time()
        except OSError:
            self._socket.on_lost()
        finally:
            self._pump_ended(outbox)

    def _pump_done(self, task: asyncio.Task[None]) -> None:
        """Cleans up after a pump that was cancelled before its first step, and so never ran its ``finally``."""
        if self._pump_task is task and self._outbox is not None:
            self._pump_ended(self._outbox)

    def _pump_ended(self, outbox: Outbox[_Turn]) -> None:
        self._in_flight = 0
        self._pump_task = None
        self._outbox = None
        _discard(outbox)
        self._idle()

    async def _perform(self, turn: _Turn) -> None:
        if turn.sent.done():
            return  # the handler's send was cancelled
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
    return len(message) if isinstance(message, Sized) else 0  # the server reports a message of the wrong type


def _discard(outbox: Outbox[_Turn]) -> None:
    """Discards everything queued. The handler's sends in it fail."""
    for turn in outbox.clear():
        if not turn.sent.done():
            turn.sent.set_exception(ConnectionResetError("the socket is gone"))
