"""One socket under the middleware: the only writer to it, and the guard of what comes in.

All managers of an app share it, and the handler's own ``websocket.send_*`` go through it, so that there is one order
and one outbox per socket.

Theory of operation. While the socket takes what is written, there is no outbox and no task: `write` is one call down to
the transport. Once it does not, frames wait in the outbox and a task drains it, until it is empty. A send of the
handler goes straight to the server when nothing waits, else it takes its turn in the outbox and the handler waits for
it: Starlette's own backpressure. Nothing else ever waits.

Invariant: the transport is written to by `write` only while neither a drain nor a handler's send is under way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import orjson
from starlette.websockets import WebSocketDisconnect

from .close import CloseCode
from .codec import dumps
from .errors import shown
from .frames import Opcode, frame
from .guard import Complaint, Guard
from .options import Limits
from .outbox import DIRECT, Lane, Outbox
from .transports import Event, ServerSend, transport_for

if TYPE_CHECKING:
    from .stats import Counters
    from .tasks import Tasks

logger = logging.getLogger("hubbub")

Receive: TypeAlias = Callable[[], Awaitable[Event]]

_CHUNK_BYTES = 64 * 1024
_MAX_PING_CHARS = 64
_PONG = frame(Opcode.TEXT, b'{"type":"pong"}')


class Owner(Protocol):
    """What a wire needs of a manager."""

    limits: Limits
    counters: Counters
    tasks: Tasks
    app_ping: bool


class Peer(Protocol):
    """What a wire needs of a connection."""

    def flush(self) -> None:
        """Writes what is pending for it."""

    def gone(self, *, grace: bool) -> None:
        """Takes it out of everything."""


class Closed(NamedTuple):
    """How a socket ended."""

    code: int
    reason: str


class _Turn(NamedTuple):
    """A send of the handler that waits in the outbox."""

    event: Event
    sent: asyncio.Future[None]


class Wire:
    """One WebSocket, from the handshake to the end of its handler.

    Args:
        owners: The managers of the app. The limits of the first one hold, and once one connects, of that one.
        receive: The server's.
        send: The server's.
        address: The client's, for limits.
        where: What log lines call it: the path.
        offered: The subprotocols that the client offered.
    """

    __slots__ = (
        "_buffered",
        "_closing",
        "_drained",
        "_draining",
        "_moved_at",
        "_outbox",
        "_receive",
        "_sending",
        "_subprotocol",
        "accepted",
        "address",
        "cancelled",
        "closed",
        "connections",
        "expires_at",
        "fallback_reason",
        "gone_at",
        "guard",
        "limits",
        "offered",
        "owner",
        "owners",
        "task",
        "told",
        "transport",
        "where",
    )

    def __init__(
        self,
        owners: list[Owner],
        receive: Receive,
        send: ServerSend,
        *,
        address: str | None,
        where: str,
        offered: list[str],
    ) -> None:
        self.owner = owners[0]
        self.owners = owners
        self.limits = self.owner.limits
        self.guard = Guard(self.limits, asyncio.get_running_loop().time())
        self.address = address
        self.where = where
        self.offered = offered
        self.connections: list[Peer] = []
        self.task = asyncio.current_task()
        self.accepted = False
        self.closed: Closed | None = None
        self.told = False
        self.cancelled = False
        self.gone_at: float | None = None
        self.expires_at: float | None = None
        self.transport, self.fallback_reason = transport_for(send, self._end_task)
        self._receive = receive
        self._subprotocol: str | None = None
        self._outbox: Outbox[_Turn] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._draining = False
        self._sending = False
        self._closing: asyncio.Task[None] | None = None
        self._moved_at = 0.0
        self._buffered = 0

    def adopt(self, owner: Owner) -> None:
        """The first manager that connects says which limits hold."""
        if not self.connections:
            self.owner = owner
            self.limits = self.guard.limits = owner.limits

    # What an auth dependency tells

    def grant(self, *, subprotocol: str | None, expires_at: float | None) -> None:
        """Takes what an auth dependency learnt.

        Args:
            subprotocol: What to answer at accept, whoever accepts.
            expires_at: When the token ends, in seconds since the epoch.
        """
        self._subprotocol = subprotocol
        self.expires_at = expires_at

    def count_refused(self, reason: str) -> None:
        """Counts a refusal, with every manager of the app."""
        for owner in self.owners:
            owner.counters.refused[reason] += 1

    # Out

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait in the outbox."""
        return 0 if self._outbox is None else self._outbox.bytes

    @property
    def congested(self) -> bool:
        """Whether more than a quarter of the outbox is in use: the time to page a replay."""
        return self.queued_bytes > self.limits.max_outbox_bytes // 4

    def write(self, data: bytes, lane: Lane = DIRECT, key: str | None = None) -> bool:
        """Writes a frame, or queues it, without waiting.

        Returns:
            False where the peer is gone or the frame was dropped.
        """
        if self.write_now(data):
            return True
        return self.closed is None and self._queue(data, lane, key)

    def write_now(self, data: bytes) -> bool:
        """Writes a frame if nothing waits and the socket takes it; else does nothing."""
        if self.closed is not None or self._draining or self._sending:
            return False
        return self.transport.write(data)

    def _queue(self, data: bytes, lane: Lane, key: str | None) -> bool:
        if self.transport.closing:
            self.lost()
            return False
        outbox = self._opened_outbox()
        if not outbox:
            self._moved_at = asyncio.get_running_loop().time()
        before = outbox.dropped_frames
        outcome = outbox.push(data, lane, key, buffered=self.transport.buffered)
        self.owner.counters.dropped += outbox.dropped_frames - before
        if outcome == "overflow":
            logger.info("closing a slow connection on %s: %d bytes wait", self.where, outbox.bytes)
            self.owner.counters.slow += 1
            self.close_soon(CloseCode.SLOW_CONSUMER, discard=True)
            return False
        self._drain_soon()
        return outcome == "queued"

    def _opened_outbox(self) -> Outbox[_Turn]:
        if self._outbox is None:
            self._outbox = Outbox(self.limits.max_outbox_bytes)
        return self._outbox

    def _drain_soon(self) -> None:
        if not self._draining and not self._sending and self._outbox:
            self._draining = True
            self.owner.tasks.spawn(self._drain(self._outbox), "drain")

    async def _drain(self, outbox: Outbox[_Turn]) -> None:
        try:
            while True:
                item = outbox.take(_CHUNK_BYTES)
                if item is None:
                    notices = outbox.take_dropped()
                    if not notices:
                        break
                    for room, count in notices.items():
                        outbox.push(_control(type="dropped", room=room, count=count), DIRECT)
                elif isinstance(item, bytes):
                    await self.transport.write_soon(item)
                else:
                    await self._perform(item)
                self._moved_at = asyncio.get_running_loop().time()
        except OSError:
            self.lost()
        finally:
            self._draining = False
            self._outbox = None
            if self._drained is not None and not self._drained.done():
                self._drained.set_result(None)
            self._drained = None

    async def _perform(self, turn: _Turn) -> None:
        if turn.sent.done():
            return  # the handler no longer waits
        try:
            await self.transport.send(turn.event)
        except Exception as error:
            if not turn.sent.done():
                turn.sent.set_exception(error)
            if isinstance(error, OSError):
                raise
        else:
            if not turn.sent.done():
                turn.sent.set_result(None)

    async def drained(self) -> None:
        """Waits until nothing is queued. Returns too when the socket is gone."""
        while self._draining:
            if self._drained is None:
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._drained)

    async def send(self, event: Event) -> None:
        """The ASGI ``send`` that the app gets."""
        kind = event["type"]
        if kind == "websocket.send":
            await self._send_in_order(event)
        elif kind == "websocket.close":
            if self.accepted:
                await self.close(event.get("code", 1000), event.get("reason") or "")
            else:
                self.closed = Closed(event.get("code", 1000), event.get("reason") or "")
                await self.transport.send(event)
        elif kind == "websocket.accept":
            if event.get("subprotocol") is None and self._subprotocol in self.offered:
                event = {**event, "subprotocol": self._subprotocol}
            try:
                await self.transport.send(event)
            except OSError:
                self.lost()
                raise WebSocketDisconnect(1006) from None
            self.accepted = True
        elif self.accepted:
            # An HTTPException after accept: Starlette answers it with an HTTP response, which is too late here.
            if kind == "websocket.http.response.start":
                denied = event["status"] < 500
                await self.close(*_code(CloseCode.UNAUTHORIZED if denied else CloseCode.INTERNAL_ERROR))
        else:
            if kind == "websocket.http.response.body" and not event.get("more_body"):
                self.closed = Closed(1006, "")
            await self.transport.send(event)

    async def _send_in_order(self, event: Event) -> None:
        self._flush()
        if self.closed is not None:
            self.told = True
            raise WebSocketDisconnect(*self.closed)
        try:
            if self._draining or self._sending or self._outbox:
                sent = asyncio.get_running_loop().create_future()
                self._opened_outbox().push_turn(_Turn(event, sent))
                self._drain_soon()
                await sent
            else:
                self._sending = True
                try:
                    await self.transport.send(event)
                finally:
                    self._sending = False
                    self._drain_soon()
        except OSError:
            self.lost()
            self.told = True
            raise WebSocketDisconnect(*(self.closed or Closed(1006, ""))) from None

    # In

    async def receive(self) -> Event:
        """The ASGI ``receive`` that the app gets: messages within the limits, and the disconnect."""
        while True:
            event = await self._receive()
            kind = event["type"]
            if kind == "websocket.receive":
                if self._admit(event):
                    return event
            elif kind == "websocket.disconnect":
                self.told = True
                self.lost(event.get("code", 1005), event.get("reason") or "")
                return event
            else:
                return event

    def _admit(self, event: Event) -> bool:
        owner, text = self.owner, event.get("text")
        owner.counters.received += 1
        complaint = self.guard.judge(text, event.get("bytes"), asyncio.get_running_loop().time())
        if complaint is not None:
            self.complain(complaint)
            return False
        if owner.app_ping and text is not None and len(text) < _MAX_PING_CHARS and _is_ping(text):
            self.write(_PONG)
            return False
        return True

    def complain(self, complaint: Complaint) -> None:
        """Tells the client what is wrong with its message; closes after too many."""
        if self.closed is not None:
            return
        code, problem, then = complaint
        self.owner.counters.errors[code] += 1
        self.write(_control(type="error", code=code, message=problem))
        if self.guard.too_many():
            logger.info("closing a connection on %s after %d bad messages: %s", self.where, self.guard.errors, problem)
            self.owner.counters.refused[then.name.lower()] += 1
            self.close_soon(then)

    # The end

    async def close(self, code: int, reason: str, *, discard: bool = False, grace: bool = True) -> None:
        """Closes with a Close frame, behind what is queued; aborts a peer that does not take it in time.

        Args:
            code: The close code.
            reason: The reason; what is over 123 bytes (RFC 6455 section 5.5) is cut off.
            discard: Drop what is queued instead.
            grace: Whether the user stays present for the rooms' grace.
        """
        if not discard:
            self._flush()
        if self.closed is None:
            self._end(code, reason, discard=discard, grace=grace)
            await self._finish(code, reason)
        elif self._closing is not None:
            await asyncio.shield(self._closing)

    def close_soon(self, cause: CloseCode | Closed, *, discard: bool = False, grace: bool = True) -> None:
        """Closes like `close`, without waiting. Idempotent."""
        if not discard:
            self._flush()
        if self.closed is None:
            code, reason = _code(cause) if isinstance(cause, CloseCode) else cause
            self._end(code, reason, discard=discard, grace=grace)
            self._closing = self.owner.tasks.spawn(self._finish(code, reason), "close")

    def lost(self, code: int = 1006, reason: str = "") -> None:
        """The peer is gone. Idempotent."""
        if self.closed is None:
            self._end(code, reason, discard=True, grace=True)

    def _flush(self) -> None:
        """Writes what was published before. It may turn out by it that the peer is gone."""
        for connection in tuple(self.connections):
            connection.flush()

    def _end(self, code: int, reason: str, *, discard: bool, grace: bool) -> None:
        self.closed = Closed(code, reason)
        self.gone_at = asyncio.get_running_loop().time()
        if discard and self._outbox is not None:
            for turn in self._outbox.clear():
                if not turn.sent.done():
                    turn.sent.set_exception(WebSocketDisconnect(code, reason))
        for connection in tuple(self.connections):
            connection.gone(grace=grace)

    async def _finish(self, code: int, reason: str) -> None:
        event = {"type": "websocket.close", "code": code, "reason": reason.encode()[:123].decode(errors="ignore")}
        try:
            async with asyncio.timeout(self.limits.close_timeout_s):
                await self.drained()
                await self.transport.send(event)
        except TimeoutError:
            self.owner.counters.stalled += 1
            logger.info("aborting a connection on %s: it did not take its close", self.where)
            self.transport.abort()
        except Exception as error:  # servers differ in what they raise when the peer is gone
            logger.debug("the close of %s did not go out: %s", self.where, shown(error))

    def check(self, now: float) -> None:
        """Once a second: is the peer still there, does it read, and does the handler know?

        Args:
            now: The loop's time.
        """
        if self.closed is None:
            if self.transport.closing:
                self.lost()
            elif self._outbox:
                self._check_stall(now)
        elif self.gone_at is not None:
            patience_s = self.limits.handler_timeout_s
            if not self.told and patience_s is not None and now - self.gone_at >= patience_s:
                self._end_task()
            if now - self.gone_at >= self.limits.close_timeout_s and self.transport.buffered:
                self.transport.abort()  # a transport that is closed flushes first, which may never end

    def _check_stall(self, now: float) -> None:
        buffered = self.transport.buffered
        if buffered != self._buffered:
            self._buffered = buffered
            self._moved_at = now
        elif now - self._moved_at >= self.limits.stall_timeout_s:
            logger.info("aborting a connection on %s: it has not read for %g s", self.where, now - self._moved_at)
            self.owner.counters.stalled += 1
            self.lost()
            self.transport.abort()

    def _end_task(self) -> None:
        """Cancels the handler; the middleware takes the cancellation for what it is."""
        if self.task is not None and not self.task.done() and not self.cancelled:
            logger.info("ending the handler of %s: its client is gone and it does not receive", self.where)
            self.cancelled = True
            self.task.cancel("the client is gone")


def _control(**fields: Any) -> bytes:
    return frame(Opcode.TEXT, dumps(fields))


def _code(cause: CloseCode) -> Closed:
    return Closed(cause.code, cause.reason)


def _is_ping(text: str) -> bool:
    if '"ping"' not in text:
        return False
    try:
        return bool(orjson.loads(text) == {"type": "ping"})
    except ValueError:
        return False
