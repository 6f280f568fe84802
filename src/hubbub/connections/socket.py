"""One WebSocket between the server and the app. Everything the app sends and receives passes through it.

All managers of an app share the socket, and so do the handler's own ``websocket.send_*`` calls. So there is one order
and one outbox per socket (`hubbub.connections.writer`). Incoming messages are read by `hubbub.connections.reader` and
checked against the limits (`hubbub.connections.inbound_limits`).

The life of a socket is a `State`. `TRANSITIONS` lists the allowed transitions:

    HANDSHAKE ─┬─► REFUSED
               ├─► FAILED ──────┐
               └─► OPEN ─┬─► CLOSING ─┬─► ABORTED
                         └─► LOST ────┘

Every socket ends here, exactly once. One word for each way:

* *refuse*: the handshake is answered with a refusal.
* *close*: we send a Close frame, after everything that is queued.
* *lost*: the client is gone, or has closed the socket itself.
* *abort*: we reset the connection, because the client does not read.
* *end*: any of these. The sessions of a socket end with it.

Whether the handler knows of the end is a state of its own (`hubbub.connections.handler`).
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from math import inf
from time import monotonic, time
from typing import Final, Protocol, TypeAlias

from ..addresses import network_of
from ..close import CloseCode, Closed, reason_text, sendable
from ..errors import counted, shown
from ..metrics.counters import Counters
from ..options import Limits, RefuseWith
from ..protocols import ClientProtocol
from ..tasks import Tasks
from .handler import Handler
from .handshake import Gone, Handshake, answer
from .inbound_limits import Complaint, Guard
from .reader import Reader, Receive
from .transports import Detour, Event, OpenPing, ServerSend, Transport, transport_for
from .writer import Writer

logger: Final = logging.getLogger("hubbub")


class State(Enum):
    """The state of a socket."""

    HANDSHAKE = "the app has not answered the handshake yet"
    REFUSED = "the handshake was answered with a refusal"
    FAILED = "the client left during the handshake, or we closed the socket before the app answered"
    OPEN = "the app accepted the socket"
    CLOSING = "we close the socket: a Close frame follows everything that is queued"
    LOST = "the client is gone, or has closed the socket"
    ABORTED = "the client did not read, so we reset the connection"


TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    State.HANDSHAKE: frozenset({State.REFUSED, State.FAILED, State.OPEN}),
    State.REFUSED: frozenset(),
    State.FAILED: frozenset({State.ABORTED}),
    State.OPEN: frozenset({State.CLOSING, State.LOST}),
    State.CLOSING: frozenset({State.ABORTED}),
    State.LOST: frozenset({State.ABORTED}),
    State.ABORTED: frozenset(),
}
"""The allowed transitions from each state."""


class Sweeper(Protocol):
    """The part of a sweeper that a socket uses."""

    def watch(self, socket: Socket) -> None:
        """Starts to check a socket."""

    def unwatch(self, socket: Socket) -> None:
        """Stops checking a socket."""

    def release(self, socket: Socket) -> None:
        """Stops checking a socket whose handler has ended."""


class Manager(Protocol):
    """The part of a manager that a socket uses."""

    limits: Limits
    counters: Counters
    tasks: Tasks
    protocol: ClientProtocol
    refuse_with: RefuseWith

    @property
    def draining(self) -> bool:
        """Whether the manager closes its connections for a shutdown."""

    @property
    def sweeper(self) -> Sweeper: ...


class Listener(Protocol):
    """The handler of a client whose protocol has its own pings and timeouts."""

    def check(self, now: float) -> None:
        """Handles everything that is due. Called once a second.

        Args:
            now: The loop's time.
        """


MakeTransport: TypeAlias = Callable[[ServerSend, Callable[[], None]], tuple[Transport, Detour | None]]
"""Makes the transport of a socket, of the server's ``send`` and a function that ends the app's task."""


class Session(Protocol):
    """The part of a session that its socket uses."""

    @property
    def id(self) -> str: ...

    def flush(self) -> None:
        """Writes the pending messages of its rooms."""

    def end(self, *, grace: bool) -> None:
        """Ends the session: removes it from the registry and its rooms."""


class Socket:
    """One WebSocket, from the handshake to the end of its handler.

    Args:
        managers: The managers of the app. The limits of the first one apply until one connects the socket.
        receive: The server's ASGI ``receive``.
        send: The server's ASGI ``send``.
        address: The client's address, as the server reports it.
        where: The path, escaped for log lines.
        offered: The subprotocols that the client offered.
        make_transport: Makes the transport. By default, it is one for a WebSocket.

    Attributes:
        state: The state of the socket.
        closed: The close code and reason; None during the handshake and while the socket is open.
        ended_at: When the socket ended, on the loop's clock; infinity before that, and after a refused handshake.
        answered_at: When the client last answered a ping of ours.
        only_reads: Whether the client can't send anything, so that its silence means nothing.
        was_connected: Whether a manager has connected the socket, even if it has disconnected it since.
    """

    __slots__ = (
        "_closing",
        "address",
        "answered_at",
        "closed",
        "detour",
        "ended_at",
        "expires_at",
        "guard",
        "handler",
        "handshake",
        "has_own_protocol",
        "limits",
        "listener",
        "manager",
        "managers",
        "network",
        "only_reads",
        "protocol",
        "reader",
        "receive",
        "sessions",
        "state",
        "transport",
        "was_connected",
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
        make_transport: MakeTransport = transport_for,
    ) -> None:
        self.manager: Manager = managers[0]
        self.managers: Sequence[Manager] = managers
        self.limits: Limits = self.manager.limits
        self.guard: Guard = Guard(self.limits)
        self.address: str | None = address
        self.network: str | None = None if address is None else network_of(address)
        self.where: str = where
        self.handshake: Handshake = Handshake(self, offered)
        self.handler: Handler = Handler()
        self.sessions: list[Session] = []
        self.was_connected: bool = False
        self.protocol: ClientProtocol = self.manager.protocol
        self.has_own_protocol: bool = False
        self.only_reads: bool = False
        self.listener: Listener | None = None
        self.state: State = State.HANDSHAKE
        self.closed: Closed | None = None
        self.ended_at: float = inf
        self.expires_at: float | None = None
        self.answered_at: float = -inf
        self.transport: Transport
        self.detour: Detour | None
        self.transport, self.detour = make_transport(send, self.cancel_handler)
        self.transport.watch(self._admits_frame)
        self.transport.limit_message_size(self.limits.max_message_bytes)
        self.writer: Writer = Writer(self, self.transport)
        self.reader: Reader = Reader(self, receive)
        self.receive: Receive = self.reader.receive
        self._closing: asyncio.Task[None] | None = None

    @property
    def accepted(self) -> bool:
        """Whether the app accepted the socket, even if it has ended since. Also true if it was aborted before that."""
        state = self.state
        return state is not State.HANDSHAKE and state is not State.REFUSED and state is not State.FAILED

    def _enter(self, state: State) -> None:
        assert state in TRANSITIONS[self.state], f"a socket can't go from {self.state} to {state}"
        self.state = state

    def adopt(self, manager: Manager) -> None:
        """Applies the limits and the protocol of the first manager that connects the socket."""
        if not self.sessions:
            self.manager.sweeper.unwatch(self)
            self.manager = manager
            self.limits = self.guard.limits = manager.limits
            if not self.has_own_protocol:
                self.protocol = manager.protocol
            self.transport.set_high_water(manager.limits.max_outbox_bytes // 4)  # where `Writer.congested` begins
            self.transport.limit_message_size(manager.limits.max_message_bytes)

    def speak(self, protocol: ClientProtocol) -> None:
        """Sets the protocol of this client, instead of the manager's. Must be called before a manager connects it."""
        self.protocol = protocol
        self.has_own_protocol = True

    # Authentication

    def grant(self, *, subprotocol: str | None, expires_at: float | None) -> None:
        """Applies the result of an auth dependency. With several dependencies, the earliest expiry applies.

        Args:
            subprotocol: The subprotocol to answer with, unless the app names another.
            expires_at: When the token expires, in seconds since the epoch.
        """
        if subprotocol is not None:
            self.handshake.subprotocol = subprotocol
        self.expire_at(expires_at)

    def expire_at(self, expires_at: float | None) -> None:
        """Sets when the token expires, in seconds since the epoch, unless it expires earlier already. None: never."""
        if expires_at is not None:
            self.expires_at = expires_at if self.expires_at is None else min(self.expires_at, expires_at)

    @property
    def expired(self) -> bool:
        """Whether the token has expired."""
        return self.expires_at is not None and self.expires_at <= time()

    def refuse_over_http(self) -> None:
        """Answers a refused handshake with its HTTP response, whatever the manager's option says."""
        self.handshake.refuse_with = "http"

    def count_refused(self, reason: str) -> None:
        """Counts a refusal in every manager of the app."""
        self.handshake.counted = True
        for manager in self.managers:
            manager.counters.refused[reason] += 1

    # Outgoing

    def on_overflow(self, queued_bytes: int) -> None:
        """Closes a client that is too slow for messages that may not be dropped. It can reconnect and recover."""
        logger.info("closing a slow connection on %s: %d bytes are queued", self.where, queued_bytes)
        self.manager.counters.slow += 1
        self.close_soon(CloseCode.SLOW_CONSUMER, discard=True)

    def on_dropped(self, frames: int) -> None:
        """Counts the frames that an overflow policy dropped."""
        self.manager.counters.dropped += frames

    def on_caught_up(self, dropped: int) -> None:
        """Logs that a slow client has read what was queued, and that messages were dropped meanwhile."""
        logger.debug("a slow client on %s reads again: %s dropped", self.where, counted(dropped, "messages"))

    @property
    def tasks(self) -> Tasks:
        """The owner of the writer's pump."""
        return self.manager.tasks

    @property
    def max_outbox_bytes(self) -> int:
        """The bound of the outbox, in bytes."""
        return self.limits.max_outbox_bytes

    async def send(self, event: Event) -> None:
        """The app's ASGI ``send``."""
        kind = event["type"]
        if kind == "websocket.send":
            await self._send_in_order(event)
        elif not self.accepted or kind == "websocket.accept":
            await self.handshake.send(event)
        elif kind == "websocket.close":
            await self.close(event.get("code", 1000), reason_text(event.get("reason")))
        elif kind == "websocket.http.response.start":
            # Starlette answers an HTTPException with an HTTP response. After accept, only a close is possible.
            cause = CloseCode.UNAUTHORIZED if event["status"] < 500 else CloseCode.INTERNAL_ERROR
            await self.close(*(answer(sys.exc_info()[1]) or _code(cause)))

    async def reject(self, cause: CloseCode, closed: Closed) -> None:
        """Closes the socket because of an invalid request, or refuses the handshake. Counts and logs it."""
        logger.warning("rejected a client on %s: %s", self.where, shown(closed.reason, limit=200))
        self.count_refused(cause.name.lower())
        if self.closed is not None:
            return
        if self.accepted:
            await self.close(*closed)
        else:
            await self.handshake.refuse(closed)

    async def deny(self, cause: CloseCode) -> None:
        """Refuses the handshake with 403."""
        await self.handshake.deny(_code(cause))

    @property
    def refuse_with(self) -> RefuseWith:
        """The manager's option for refused handshakes."""
        return self.manager.refuse_with

    def on_accept(self) -> None:
        """Records that the socket is accepted. Closes it if the manager is shutting down."""
        if self.state is State.HANDSHAKE:
            self._enter(State.OPEN)
        if self.manager.draining:
            self.close_soon(CloseCode.SERVICE_RESTART)

    def on_refuse(self, closed: Closed) -> None:
        """Records that the handshake is answered with a refusal."""
        if self.closed is None:
            self._enter(State.REFUSED)
            self.closed = closed

    async def _send_in_order(self, event: Event) -> None:
        self.flush()
        if self.closed is None:
            try:
                await self.writer.send(event)
                return
            except OSError:
                self.on_lost()
        self.handler.on_failed_send(asyncio.get_running_loop().time())
        raise Gone(*(self.closed or Closed(1006, "")))

    # Incoming

    def admit(self, event: Event) -> bool:
        """Whether a message may reach the handler: it is within the limits, and the protocol does not answer it."""
        if self._closing is not None:
            return False  # sent before the client saw our Close frame
        manager, text = self.manager, event.get("text")
        manager.counters.received += 1
        complaint = self.guard.check(text, event.get("bytes"), monotonic())
        if complaint is not None:
            self.complain(complaint)
            return False
        reply = self.protocol.reply(text, event.get("bytes"))
        if reply is not None:
            self.writer.write(reply)
            return False
        return True

    def _admits_frame(self) -> bool:
        """Checks the rate of control frames and fragments, which never reach the handler."""
        return self.admits(1)

    def admits(self, count: int) -> bool:
        """Counts messages that `admit` has not seen, such as the further ones of a frame, and checks their rate."""
        if self.closed is not None:
            return False
        complaint = self.guard.check_frame(monotonic(), count)
        if complaint is not None:
            self.complain(complaint)
        return complaint is None

    def on_disconnect(self, code: int, reason: str) -> None:
        """Records that the server reports the disconnect. The client's own code and reason replace 1006."""
        if self.closed is None and self.transport.message_too_big:
            self.record_limit(CloseCode.MESSAGE_TOO_BIG)
        self.on_lost()
        if self._closing is None:
            self.closed = Closed(code, reason)

    def record_limit(self, cause: CloseCode) -> None:
        """Counts and logs that a limit on messages closes the socket."""
        logger.info("closing a connection on %s: %s", self.where, cause.reason)
        self.manager.counters.refused[cause.name.lower()] += 1

    def complain(self, complaint: Complaint) -> None:
        """Reports a bad message to the client, if its protocol has a frame for that. Closes after too many."""
        if self.closed is not None:
            return
        code, problem, then = complaint
        self.manager.counters.errors[code] += 1
        logger.debug("refused a message on %s: %s", self.where, problem)
        if not self.accepted:  # no frame can be sent before accept
            self.on_lost()
            self.abort("the client sent too much before accept")
            return
        error = self.protocol.error(code, problem)
        if error is not None:
            self.writer.write(error)
        if self.guard.too_many() or self.has_own_protocol:  # no command of a client is dropped without a word
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
        """Sends a Close frame after everything queued, and waits. Aborts a client that does not read it in time.

        *Cancellation*: the caller stops waiting; the close continues.

        Args:
            code: The close code.
            reason: The reason. It is cut after 123 bytes (RFC 6455 section 5.5).
            discard: Discard queued frames instead of sending them first.
            grace: Whether the user stays present for the grace period of each room.
        """
        self.close_soon(Closed(code, reason), discard=discard, grace=grace)
        self.handler.on_close()
        if self._closing is not None:
            await asyncio.shield(self._closing)

    def close_soon(self, cause: CloseCode | Closed, *, discard: bool = False, grace: bool = True) -> None:
        """Closes like `close`, without waiting. Idempotent."""
        if not discard:
            self.flush()
        if self.closed is None:
            self.transport.stop_reading()
            closed = self.protocol.closed(*(_code(cause) if isinstance(cause, CloseCode) else cause))
            self._end(State.CLOSING, closed, discard=discard, grace=grace)
            # Always a task: if the caller of `close` is cancelled, the Close frame must still be sent.
            self._closing = self.manager.tasks.spawn(self._finish(closed), "close")

    def on_lost(self) -> None:
        """Records that the client is gone. The server may report the close code later, or never. Idempotent."""
        if self.closed is None:
            self._end(State.LOST, Closed(1006, ""), discard=True, grace=True)

    def flush(self) -> None:
        """Writes the pending messages of all sessions. A failed write may reveal that the client is gone."""
        for session in tuple(self.sessions):
            session.flush()

    def _end(self, state: State, closed: Closed, *, discard: bool, grace: bool) -> None:
        self._enter(state if self.state is State.OPEN else State.FAILED)
        self.closed = closed
        self.ended_at = asyncio.get_running_loop().time()
        self.writer.end(discard=discard)
        for session in tuple(self.sessions):
            session.end(grace=grace)

    async def _finish(self, closed: Closed) -> None:
        event = {"type": "websocket.close", "code": sendable(closed.code), "reason": reason_text(closed.reason)}
        try:
            async with asyncio.timeout(self.limits.close_timeout_s):
                await self.writer.emptied()
                await self.reader.interrupt()
                await self.transport.send(event)
        except TimeoutError:
            self.abort("the client did not read its Close frame")
        except Exception as error:  # servers raise different exceptions when the client is gone
            logger.debug("could not send the Close frame on %s: %s", self.where, shown(error))

    def ping(self, on_data: Callable[[], None]) -> OpenPing | None:
        """Pings the client to learn whether it is still there.

        Args:
            on_data: Called when data arrives from the client.

        Returns:
            The open ping; None if the client can't be pinged, or if a missing answer would prove nothing.
        """
        if self.transport.closing:
            self.on_lost()
        if self.closed is not None or self.writer.queued_bytes:
            return None  # the stall timeout deals with clients that do not read
        return self.transport.ping(on_data)

    def on_vanished(self) -> None:
        """Aborts the connection because the client did not answer a ping."""
        if self.closed is None:
            self.on_lost()
            self._enter(State.ABORTED)
            self.manager.counters.vanished += 1
            logger.info(
                "aborting a connection on %s: a limit was reached, and the client did not answer a ping", self.where
            )
            self.transport.abort()

    def abort(self, why: str) -> None:
        """Resets the connection, because the client does not read."""
        if self.state is not State.ABORTED:
            self._enter(State.ABORTED)
            self.manager.counters.stalled += 1
            logger.info("aborting a connection on %s: %s", self.where, why)
        self.transport.abort()

    def on_handler_end(self) -> None:
        """Releases everything after the end of the handler."""
        self.handler.end()
        self.handshake.scope = {}  # breaks a cycle: the scope refers to this socket
        self.reader.stop()
        self.writer.stop()

    def cancel_handler(self) -> None:
        """Cancels the handler. The middleware recognizes this cancellation and does not raise it."""
        if self.handler.cancel():
            logger.info(
                "canceling the handler of a connection on %s: the client is gone and the handler does not receive",
                self.where,
            )


def _code(cause: CloseCode) -> Closed:
    return Closed(cause.code, cause.reason)
