"""One socket under the middleware: what the app sends and receives passes here, and its end is seen to.

All managers of an app share it, and the handler's own ``websocket.send_*`` go through it, so that there is one order
and one outbox per socket (`hubbub.writer`). Messages come in within the limits (`hubbub.guard`). However the socket
ends, it ends here, once: with a Close frame behind what is queued, or by an abort where the peer does not read.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from time import monotonic, time
from typing import Any, NamedTuple, Protocol, TypeAlias

from starlette.exceptions import HTTPException, WebSocketException
from starlette.websockets import WebSocketDisconnect

from .addresses import network_of
from .close import CloseCode, reason_text, sendable
from .errors import InvalidName, counted, shown
from .guard import Complaint, Guard
from .options import Limits, RefuseWith
from .protocols import ClientProtocol
from .read_ahead import ReadAhead
from .stats import Counters
from .subprotocols import answer_to
from .tasks import Tasks
from .transports import AsgiTransport, Event, Question, ServerSend, transport_for
from .writer import Writer

logger = logging.getLogger("hubbub")

Receive: TypeAlias = Callable[[], Awaitable[Event]]


class Manager(Protocol):
    """What a wire needs of a manager."""

    limits: Limits
    counters: Counters
    tasks: Tasks
    protocol: ClientProtocol
    refuse_with: RefuseWith

    @property
    def draining(self) -> bool:
        """Whether clients are sent away."""

    def watch(self, wire: Wire) -> None:
        """Checks the socket once a second from here on."""

    def unwatch(self, wire: Wire) -> None:
        """Checks the socket no more."""

    def release(self, wire: Wire) -> None:
        """The socket's handler has ended."""


class Connection(Protocol):
    """What a wire needs of a connection on it."""

    @property
    def id(self) -> str: ...

    def flush(self) -> None:
        """Writes what is pending for it."""

    def gone(self, *, grace: bool) -> None:
        """Takes it out of everything."""


def answer(error: BaseException | None) -> Closed | None:
    """The close code and reason for an exception that an app raises to refuse a client; None for any other."""
    if isinstance(error, WebSocketException):
        return Closed(error.code, reason_text(error.reason))
    if isinstance(error, HTTPException):
        cause = CloseCode.UNAUTHORIZED if error.status_code < 500 else CloseCode.INTERNAL_ERROR
        return Closed(cause.code, reason_text(error.detail) or cause.reason)
    if isinstance(error, InvalidName):
        return Closed(CloseCode.INVALID_NAME.code, reason_text(f"{error.argument}: {error.problem}"))
    return None


class Gone(WebSocketDisconnect, ConnectionError):
    """The client is gone, as an ASGI ``send`` reports it: with an ``OSError``.

    Starlette turns it into its own WebSocketDisconnect and marks the socket as disconnected. From ``accept`` it reaches
    the application as it is, so it is a WebSocketDisconnect too.
    """


class Closed(NamedTuple):
    """How a socket ended."""

    code: int
    reason: str


class Wire:
    """One WebSocket, from the handshake to the end of its handler.

    Args:
        managers: The managers of the app. The limits of the first one hold, and once one connects, of that one.
        receive: The server's.
        send: The server's.
        address: The client's, as the server has it.
        where: What log lines call it: the path.
        offered: The subprotocols that the client offered.
    """

    __slots__ = (
        "_aborted",
        "_ahead",
        "_assembling_at",
        "_closed_by_handler",
        "_closed_here",
        "_closing",
        "_heard",
        "_heard_at",
        "_ignored_at",
        "_reader",
        "_receive",
        "_received",
        "_receiving",
        "_refused",
        "_server_receive",
        "_subprotocol",
        "accepted",
        "address",
        "answered_at",
        "cancelled",
        "closed",
        "connections",
        "detour",
        "expires_at",
        "former_ids",
        "gone_at",
        "guard",
        "limits",
        "manager",
        "managers",
        "network",
        "offered",
        "protocol",
        "refuse_with",
        "scope",
        "speaks_its_own",
        "task",
        "told",
        "transport",
        "where",
        "writer",
    )

    def __init__(
        self,
        managers: Sequence[Manager],
        receive: Receive,
        send: ServerSend,
        *,
        address: str | None,
        where: str,
        offered: Sequence[str],
    ) -> None:
        self.manager = managers[0]
        self.managers = managers
        self.limits = self.manager.limits
        self.guard = Guard(self.limits)
        self.address = address
        self.network = None if address is None else network_of(address)
        self.where = where
        self.offered = offered
        self.scope: Mapping[str, Any] = {}
        self.refuse_with: RefuseWith | None = None
        self.connections: list[Connection] = []
        self.former_ids: tuple[str, ...] = ()
        self.protocol = self.manager.protocol
        self.speaks_its_own = False
        self.task = asyncio.current_task()
        self.accepted = False
        self.closed: Closed | None = None
        self.told = False
        self._ignored_at: float | None = None
        self.cancelled = False
        self.gone_at: float | None = None
        self.expires_at: float | None = None
        self.answered_at = -inf
        self.transport, self.detour = transport_for(send, self._end_task)
        self.transport.watch(self._admits_frame)
        self.transport.bound_inbound(self.limits.max_message_bytes)
        self.writer = Writer(self, self.transport)
        self._ahead: ReadAhead | None = None
        self._receiving = False
        self._received = True
        self._heard = True
        self._heard_at = 0.0
        self._server_receive = receive
        self._receive = (
            self._interruptible if isinstance(self.transport, AsgiTransport) else self.transport.receiving(receive)
        )
        self._reader: asyncio.Task[Any] | None = None
        self._subprotocol: str | None = None
        self._refused = False
        self._aborted = False
        self._closed_here = False
        self._closed_by_handler = False
        self._closing: asyncio.Task[None] | None = None
        self._assembling_at: float | None = None

    def adopt(self, manager: Manager) -> None:
        """The first manager that connects says which limits hold."""
        if not self.connections:
            self.manager.unwatch(self)
            self.manager = manager
            self.limits = self.guard.limits = manager.limits
            if not self.speaks_its_own:
                self.protocol = manager.protocol
            self.transport.bound(manager.limits.max_outbox_bytes // 4)  # so that whoever is congested can wait for it
            self.transport.bound_inbound(manager.limits.max_message_bytes)

    def speak(self, protocol: ClientProtocol) -> None:
        """Sets the protocol of this client, in place of the manager's. To be called before a manager connects it."""
        self.protocol = protocol
        self.speaks_its_own = True

    # What an auth dependency tells

    def grant(self, *, subprotocol: str | None, expires_at: float | None) -> None:
        """Takes what an auth dependency learnt. Of several dependencies the earliest end holds.

        Args:
            subprotocol: What to answer at accept, whoever accepts.
            expires_at: When the token ends, in seconds since the epoch.
        """
        if subprotocol is not None:
            self._subprotocol = subprotocol
        self.end_by(expires_at)

    def end_by(self, expires_at: float | None) -> None:
        """Closes the socket at a time, in seconds since the epoch, or earlier; None changes nothing."""
        if expires_at is not None:
            self.expires_at = expires_at if self.expires_at is None else min(self.expires_at, expires_at)

    @property
    def expired(self) -> bool:
        """Whether it is over with the token."""
        return self.expires_at is not None and self.expires_at <= time()

    def refuse_over_http(self) -> None:
        """Answers a refusal of the handshake with its HTTP response, whatever the manager's option says."""
        self.refuse_with = "http"

    def count_refused(self, reason: str) -> None:
        """Counts a refusal, with every manager of the app."""
        self._refused = True
        for manager in self.managers:
            manager.counters.refused[reason] += 1

    # Out

    def overflowed(self, queued_bytes: int) -> None:
        """The peer is too slow for what may not be dropped: it is closed, and may come back and recover."""
        logger.info("closing a slow connection on %s: %d bytes wait", self.where, queued_bytes)
        self.manager.counters.slow += 1
        self.close_soon(CloseCode.SLOW_CONSUMER, discard=True)

    def dropped(self, frames: int) -> None:
        """Counts what an overflow policy dropped."""
        self.manager.counters.dropped += frames

    def missed(self, room: str, count: int) -> bytes | None:
        """The frame that tells a client that has caught up what was dropped; None where the app wants none."""
        logger.debug(
            "a slow client on %s has caught up: %s of %s dropped", self.where, counted(count, "messages"), shown(room)
        )
        return self.protocol.dropped(room, count)

    @property
    def tasks(self) -> Tasks:
        """Who owns the writer's drain."""
        return self.manager.tasks

    @property
    def max_outbox_bytes(self) -> int:
        """The outbox's bound."""
        return self.limits.max_outbox_bytes

    async def send(self, event: Event) -> None:
        """The ASGI ``send`` that the app gets."""
        kind = event["type"]
        if kind == "websocket.send":
            await self._send_in_order(event)
        elif kind == "websocket.close":
            closed = Closed(event.get("code", 1000), reason_text(event.get("reason")))
            if self.accepted:
                await self.close(*closed)
            else:
                await self._refuse(closed, event)
        elif kind == "websocket.accept":
            if event.get("subprotocol") is None and self._subprotocol in self.offered:
                event = {**event, "subprotocol": self._subprotocol}
            await self._accept(event)
        elif self.accepted:
            # An HTTPException after accept: Starlette answers it with an HTTP response, which is too late here.
            if kind == "websocket.http.response.start":
                cause = CloseCode.UNAUTHORIZED if event["status"] < 500 else CloseCode.INTERNAL_ERROR
                await self.close(*(answer(sys.exc_info()[1]) or _code(cause)))
        elif kind == "websocket.http.response.start":
            error = sys.exc_info()[1]  # the one that Starlette is answering; any other response is the app's own choice
            await self._refuse(answer(error) if isinstance(error, HTTPException) else None, event)
        else:
            if kind == "websocket.http.response.body" and not event.get("more_body"):
                self.closed = Closed(1006, "")
            await self._deny(event)

    async def turn_away(self, cause: CloseCode, closed: Closed) -> None:
        """Closes for what the client asked for, or refuses its handshake: counted, and with a line in the log."""
        logger.warning("turned away a client on %s: %s", self.where, shown(closed.reason, limit=200))
        self.count_refused(cause.name.lower())
        if self.closed is not None:
            return
        if self.accepted:
            await self.close(*closed)
        else:
            await self._refuse(closed, {"type": "websocket.close", "code": closed.code, "reason": closed.reason})

    async def _accept(self, event: Event) -> None:
        try:
            await self.transport.send(event)
        except OSError:
            self.lost()
            raise Gone(1006) from None
        self.accepted = True
        if self.manager.draining:
            self.close_soon(CloseCode.SERVICE_RESTART)

    async def _refuse(self, closed: Closed | None, event: Event) -> None:
        """Refuses the handshake for the app: accepts and closes, so that a page can read why, or passes its answer on.

        Starlette calls this while it handles what the app raised.

        Args:
            closed: What to tell the client; None where the app sends an HTTP response of its own making.
            event: The app's answer: a close, or the start of an HTTP response.
        """
        closes = event["type"] == "websocket.close"
        routed = not closes or self._routed(event)
        if routed and not self._refused:
            why = f"HTTP {event['status']}" if closed is None else f"{closed.code} {shown(closed.reason)}"
            logger.info("the app refused a WebSocket on %s: %s", self.where, why)
            self.count_refused("app")
        if not routed or closed is None or (self.refuse_with or self.manager.refuse_with) == "http":
            if closes:
                self.closed = closed
            await self._deny(event)
            return
        subprotocol = self._subprotocol if self._subprotocol in self.offered else answer_to(self.offered)
        with suppress(Gone):
            await self._accept({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
            await self.close(*closed)

    def _routed(self, event: Event) -> bool:
        """Whether a route refuses, and not a router that has none for the path, which closes without a word."""
        endpoint = self.scope.get("endpoint")
        while isinstance(endpoint, partial):
            endpoint = endpoint.func
        return inspect.isroutine(endpoint) or inspect.isclass(endpoint) or event.get("code", 1000) != 1000

    async def deny(self, cause: CloseCode) -> None:
        """Refuses the handshake: the server answers it with 403."""
        self.closed = _code(cause)
        await self._deny({"type": "websocket.close", "code": cause.code, "reason": cause.reason})

    async def _deny(self, event: Event) -> None:
        """Passes on what refuses a handshake. Whom it is for may be gone, which is no error."""
        try:
            await self.transport.send(event)
        except OSError:
            self.lost()

    async def _send_in_order(self, event: Event) -> None:
        self.flush()
        if self.closed is None:
            try:
                await self.writer.send(event)
                return
            except OSError:
                self.lost()
        if self.told and self._ignored_at is None:
            self._ignored_at = asyncio.get_running_loop().time()
        self.told = True
        raise Gone(*(self.closed or Closed(1006, "")))

    # In

    async def receive(self) -> Event:
        """The ASGI ``receive`` that the app gets: messages within the limits, and the disconnect."""
        if self._ahead is not None:
            event = await self._ahead.get()
        else:
            self._receiving = True
            receive = self._receive
            try:
                while True:
                    event = await receive()
                    if event["type"] == "websocket.receive":
                        if self._admit(event):
                            return event
                    elif self._passes(event):
                        break
            finally:
                self._receiving = False
                self._received = True
        if event["type"] == "websocket.disconnect":
            self.told = True
        return event

    async def _next(self) -> Event:
        """The next event, for who reads ahead."""
        while True:
            event = await self._receive()
            if self._passes(event):
                return event

    def _passes(self, event: Event) -> bool:
        """Whether an event goes on to the app."""
        kind = event["type"]
        if kind == "websocket.receive":
            return self._admit(event)
        if kind == "websocket.disconnect":
            if self.closed is None and self.transport.outgrown:
                self._refused_message(CloseCode.MESSAGE_TOO_BIG)
            self.lost()
            if not self._closed_here:
                self.closed = Closed(event.get("code", 1005), event.get("reason") or "")
        return True

    async def _interruptible(self) -> Event:
        """The server's receive, which a close ends: a server may send none while one is waited for (granian)."""
        self._reader = task = asyncio.current_task()
        try:
            return await self._server_receive()
        except asyncio.CancelledError:
            if not self._closed_here or task is None or self._reader is not None or task.uncancel():
                raise
            code, reason = self.closed or Closed(1006, "")
            return {"type": "websocket.disconnect", "code": code, "reason": reason}
        finally:
            self._reader = None

    async def _interrupt(self) -> None:
        """Ends the receive that is waited for, if there is one."""
        task, self._reader = self._reader, None
        if task is not None:
            task.cancel()
            await asyncio.sleep(0)

    def _admit(self, event: Event) -> bool:
        if self._closed_here:
            return False  # what it had sent before it heard: whoever was sent away has no last word
        manager, text = self.manager, event.get("text")
        manager.counters.received += 1
        self._assembling_at = None
        self._heard = True
        complaint = self.guard.judge(text, event.get("bytes"), monotonic())
        if complaint is not None:
            self.complain(complaint)
            return False
        reply = self.protocol.reply(text, event.get("bytes"))
        if reply is not None:
            self.writer.write(reply)
            return False
        return True

    def _admits_frame(self) -> bool:
        """Counts a control frame or a fragment, which never gets to the handler."""
        if self.closed is not None:
            return False
        complaint = self.guard.judge_frame(monotonic())
        if complaint is not None:
            self.complain(complaint)
        return complaint is None

    def _refused_message(self, cause: CloseCode) -> None:
        logger.info("closing a connection on %s: %s", self.where, cause.reason)
        self.manager.counters.refused[cause.name.lower()] += 1

    def complain(self, complaint: Complaint) -> None:
        """Tells the client what is wrong with its message, unless the app wants no frames; closes after too many."""
        if self.closed is not None:
            return
        code, problem, then = complaint
        self.manager.counters.errors[code] += 1
        logger.debug("refused a message on %s: %s", self.where, problem)
        if not self.accepted:  # there is no way yet to tell it
            self.lost()
            self._abort("it sends too much before it is accepted")
            return
        told = self.protocol.error(code, problem)
        if told is not None:
            self.writer.write(told)
        if self.guard.too_many():
            logger.info(
                "closing a connection on %s after %s: %s",
                self.where,
                counted(self.guard.errors, "bad messages"),
                problem,
            )
            self.manager.counters.refused[then.name.lower()] += 1
            self.close_soon(then)

    # The end

    async def close(self, code: int, reason: str, *, discard: bool = False, grace: bool = True) -> None:
        """Closes with a Close frame, behind what is queued; aborts a peer that does not take it in time.

        *Cancellation*: ends the waiting, not the closing.

        Args:
            code: The close code.
            reason: The reason; what is over 123 bytes (RFC 6455 section 5.5) is cut off.
            discard: Drop what is queued instead.
            grace: Whether the user stays present for the rooms' grace.
        """
        self.close_soon(Closed(code, reason), discard=discard, grace=grace)
        self._closed_by_handler |= asyncio.current_task() is self.task
        if self._closing is not None:
            await asyncio.shield(self._closing)

    def close_soon(self, cause: CloseCode | Closed, *, discard: bool = False, grace: bool = True) -> None:
        """Closes like `close`, without waiting. Idempotent."""
        if not discard:
            self.flush()
        if self.closed is None:
            self._closed_here = True
            self.transport.hush()
            code, reason = _code(cause) if isinstance(cause, CloseCode) else cause
            self._end(code, reason, discard=discard, grace=grace)
            # A task, for a close that somebody waits for too: who waits may be cancelled, the Close frame may not.
            self._closing = self.manager.tasks.spawn(self._finish(code, reason), "close")

    def lost(self) -> None:
        """The peer is gone; why, the server says later or never. Idempotent."""
        if self.closed is None:
            self._end(1006, "", discard=True, grace=True)

    def flush(self) -> None:
        """Writes what was published before. It may turn out by it that the peer is gone."""
        for connection in tuple(self.connections):
            connection.flush()

    def _end(self, code: int, reason: str, *, discard: bool, grace: bool) -> None:
        self.closed = Closed(code, reason)
        self.gone_at = asyncio.get_running_loop().time()
        self.writer.end(discard=discard)
        for connection in tuple(self.connections):
            connection.gone(grace=grace)

    async def _finish(self, code: int, reason: str) -> None:
        event = {"type": "websocket.close", "code": sendable(code), "reason": reason_text(reason)}
        try:
            async with asyncio.timeout(self.limits.close_timeout_s):
                await self.writer.drained()
                await self._interrupt()
                await self.transport.send(event)
        except TimeoutError:
            self._abort("it did not take its close")
        except Exception as error:  # servers differ in what they raise when the peer is gone
            logger.debug("the close of %s did not go out: %s", self.where, shown(error))

    def check(self, now: float) -> None:
        """Once a second: is the peer still there, does it read, may it still, and does the handler know?

        A handler that knows has all the time it needs to clean up; one that then sends again has not listened.

        Args:
            now: The loop's time.
        """
        if self.closed is None:
            if self._received or self._receiving or not self.accepted:
                self._received = False
            elif self._ahead is None:
                self._ahead = ReadAhead(self._next, self.manager.tasks)
            if self.transport.closing:
                self.lost()
            elif self.writer.stalled_for(now) >= self.limits.stall_timeout_s:
                self.lost()
                self._abort("it does not read")
            elif self.accepted and self.expired:
                self.manager.counters.refused[CloseCode.TOKEN_EXPIRED.name.lower()] += 1
                self.close_soon(CloseCode.TOKEN_EXPIRED, grace=False)
            elif self._assembling_for(now) >= (self.limits.message_timeout_s or inf):
                self._refused_message(CloseCode.MESSAGE_TOO_SLOW)
                self.close_soon(CloseCode.MESSAGE_TOO_SLOW)
            elif self._silent_for(now) >= (self.limits.idle_timeout_s or inf):
                logger.info("closing a connection on %s: no message in %g s", self.where, self.limits.idle_timeout_s)
                self.manager.counters.refused[CloseCode.IDLE.name.lower()] += 1
                self.close_soon(CloseCode.IDLE)
            else:
                self.transport.tend()
        elif self.gone_at is not None:
            shutdown = self.transport.restarting or self.closed.code == CloseCode.SERVICE_RESTART.code
            patience_s = self.limits.shutdown_timeout_s if shutdown else self.limits.handler_timeout_s
            knows = self.told or self._closed_by_handler
            since = self._ignored_at if knows else self.gone_at
            if since is not None and patience_s is not None and now - since >= patience_s:
                self._end_task()
            if now - self.gone_at >= self.limits.close_timeout_s and (self.transport.buffered or self.transport.deaf):
                self._abort("it did not take its close")  # a transport that is closed flushes first: maybe never

    def _assembling_for(self, now: float) -> float:
        """Seconds since a message began that has not ended. To be asked once a second."""
        if not self.transport.assembling:
            self._assembling_at = None
        elif self._assembling_at is None:
            self._assembling_at = now
        return 0.0 if self._assembling_at is None else now - self._assembling_at

    def ask(self, heard: Callable[[], None]) -> Question | None:
        """Asks the peer for a sign of life; None where it can't be asked, or its silence would say nothing."""
        if self.transport.closing:
            self.lost()
        if self.closed is not None or self.writer.queued_bytes:
            return None  # a peer that does not read what waits for it is the business of the stall timeout
        return self.transport.ask(heard)

    def vanished(self) -> None:
        """The peer gave no sign of life when it was asked."""
        if self.closed is None:
            self.lost()
            self.manager.counters.vanished += 1
            logger.info("aborting a connection on %s: it did not answer a ping, and a limit was reached", self.where)
            self.transport.abort()

    def _silent_for(self, now: float) -> float:
        """Seconds since accept without a message, while messages are read. To be asked once a second."""
        if self._heard or not self.accepted or (self._ahead is not None and self._ahead.full):
            self._heard = False
            self._heard_at = now
        return now - self._heard_at

    def _abort(self, why: str) -> None:
        """Ends a socket whose peer takes nothing."""
        if not self._aborted:
            self._aborted = True
            self.manager.counters.stalled += 1
            logger.info("aborting a connection on %s: %s", self.where, why)
        self.transport.abort()

    def ended(self) -> None:
        """The handler has ended, and with it the socket."""
        self.task = None
        self.scope = {}  # which holds this wire
        self.stop_reading()
        self.writer.abandon()

    def stop_reading(self) -> None:
        """Ends what reads for a handler that does not."""
        if self._ahead is not None:
            self._ahead.stop()

    def _end_task(self) -> None:
        """Cancels the handler; the middleware takes the cancellation for what it is."""
        if self.task is not None and not self.task.done() and not self.cancelled:
            logger.info("ending the handler of %s: its client is gone and it does not receive", self.where)
            self.cancelled = True
            self.task.cancel("the client is gone")


def _code(cause: CloseCode) -> Closed:
    return Closed(cause.code, cause.reason)
