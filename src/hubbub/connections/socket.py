"""One socket under the middleware: what the app sends and receives passes here, and its end is seen to.

All managers of an app share it, and the handler's own ``websocket.send_*`` go through it, so that there is one order
and one outbox per socket (`hubbub.connections.writer`). Messages come in (`hubbub.connections.reader`) within the
limits (`hubbub.connections.inbound_limits`).

Its life is a `State`, and `TRANSITIONS` says what may follow what:

    HANDSHAKE ─┬─► REFUSED
               ├─► FAILED ──────┐
               └─► OPEN ─┬─► CLOSING ─┬─► ABORTED
                         └─► LOST ────┘

However the socket ends, it ends here, once: with a Close frame behind what is queued, or by an abort where the client
does not read. What its handler knows of that is a state of its own (`hubbub.connections.handler`).
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from math import inf
from time import monotonic, time
from typing import Final, Protocol

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
from .transports import Detour, Event, Question, ServerSend, Transport, transport_for
from .writer import Writer

logger: Final = logging.getLogger("hubbub")


class State(Enum):
    """Where a socket is in its life."""

    HANDSHAKE = "the app has not answered the handshake"
    REFUSED = "the handshake was answered with a refusal"
    FAILED = "the handshake came to nothing: the client left, or was sent away before the app answered"
    OPEN = "the app accepted the socket"
    CLOSING = "we close it: a Close frame is on its way, behind what is queued"
    LOST = "the client is gone, or has closed it"
    ABORTED = "the client did not take what was left, so the connection was reset"


TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    State.HANDSHAKE: frozenset({State.REFUSED, State.FAILED, State.OPEN}),
    State.REFUSED: frozenset(),
    State.FAILED: frozenset({State.ABORTED}),
    State.OPEN: frozenset({State.CLOSING, State.LOST}),
    State.CLOSING: frozenset({State.ABORTED}),
    State.LOST: frozenset({State.ABORTED}),
    State.ABORTED: frozenset(),
}
"""Where each state may lead."""


class Sweeper(Protocol):
    """What looks at a manager's sockets once a second."""

    def watch(self, socket: Socket) -> None:
        """Checks a socket from here on."""

    def unwatch(self, socket: Socket) -> None:
        """Stops checking a socket."""

    def release(self, socket: Socket) -> None:
        """The handler of a socket has ended."""


class Manager(Protocol):
    """What a socket needs of a manager."""

    limits: Limits
    counters: Counters
    tasks: Tasks
    protocol: ClientProtocol
    refuse_with: RefuseWith

    @property
    def draining(self) -> bool:
        """Whether clients are sent away."""

    @property
    def sweeper(self) -> Sweeper: ...


class Session(Protocol):
    """What a socket needs of a manager's session on it."""

    @property
    def id(self) -> str: ...

    def flush(self) -> None:
        """Writes what is pending for it."""

    def end(self, *, grace: bool) -> None:
        """Takes it out of everything."""


class Socket:
    """One WebSocket, from the handshake to the end of its handler.

    Args:
        managers: The managers of the app. The limits of the first one hold, and once one connects, of that one.
        receive: The server's.
        send: The server's.
        address: The client's, as the server has it.
        where: What log lines call it: the path.
        offered: The subprotocols that the client offered.

    Attributes:
        state: Where the socket is in its life.
        closed: How it ended, or is to end; None in the handshake and while it is open.
        ended_at: When it ended, on the loop's clock; meaningless before, and where the handshake was refused.
    """

    __slots__ = (
        "_closing",
        "address",
        "answered_at",
        "closed",
        "detour",
        "ended_at",
        "expires_at",
        "former_ids",
        "guard",
        "handler",
        "handshake",
        "limits",
        "manager",
        "managers",
        "network",
        "protocol",
        "reader",
        "receive",
        "sessions",
        "speaks_its_own",
        "state",
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
        self.former_ids: tuple[str, ...] = ()
        self.protocol: ClientProtocol = self.manager.protocol
        self.speaks_its_own: bool = False
        self.state: State = State.HANDSHAKE
        self.closed: Closed | None = None
        self.ended_at: float = inf
        self.expires_at: float | None = None
        self.answered_at: float = -inf
        self.transport: Transport
        self.detour: Detour | None
        self.transport, self.detour = transport_for(send, self._end_handler)
        self.transport.watch(self._admits_frame)
        self.transport.bound_inbound(self.limits.max_message_bytes)
        self.writer: Writer = Writer(self, self.transport)
        self.reader: Reader = Reader(self, receive)
        self.receive: Receive = self.reader.receive
        self._closing: asyncio.Task[None] | None = None

    @property
    def accepted(self) -> bool:
        """Whether the app has accepted it, whatever became of it since; or it was aborted before."""
        state = self.state
        return state is not State.HANDSHAKE and state is not State.REFUSED and state is not State.FAILED

    def _enter(self, state: State) -> None:
        assert state in TRANSITIONS[self.state], f"a socket can't go from {self.state} to {state}"
        self.state = state

    def adopt(self, manager: Manager) -> None:
        """The first manager that connects says which limits hold."""
        if not self.sessions:
            self.manager.sweeper.unwatch(self)
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
            self.handshake.subprotocol = subprotocol
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
        self.handshake.refuse_with = "http"

    def count_refused(self, reason: str) -> None:
        """Counts a refusal, with every manager of the app."""
        self.handshake.counted = True
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
        elif not self.accepted or kind == "websocket.accept":
            await self.handshake.send(event)
        elif kind == "websocket.close":
            await self.close(event.get("code", 1000), reason_text(event.get("reason")))
        elif kind == "websocket.http.response.start":
            # An HTTPException after accept: Starlette answers it with an HTTP response, which is too late here.
            cause = CloseCode.UNAUTHORIZED if event["status"] < 500 else CloseCode.INTERNAL_ERROR
            await self.close(*(answer(sys.exc_info()[1]) or _code(cause)))

    async def turn_away(self, cause: CloseCode, closed: Closed) -> None:
        """Closes for what the client asked for, or refuses its handshake: counted, and with a line in the log."""
        logger.warning("turned away a client on %s: %s", self.where, shown(closed.reason, limit=200))
        self.count_refused(cause.name.lower())
        if self.closed is not None:
            return
        if self.accepted:
            await self.close(*closed)
        else:
            await self.handshake.refuse(closed)

    async def deny(self, cause: CloseCode) -> None:
        """Refuses the handshake: the server answers it with 403."""
        await self.handshake.deny(_code(cause))

    @property
    def refuse_with(self) -> RefuseWith:
        """How the manager answers a handshake that the app refuses."""
        return self.manager.refuse_with

    def opens(self) -> None:
        """The server has accepted it."""
        if self.state is State.HANDSHAKE:
            self._enter(State.OPEN)
        if self.manager.draining:
            self.close_soon(CloseCode.SERVICE_RESTART)

    def refuses(self, closed: Closed) -> None:
        """The handshake is answered with a refusal."""
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
                self.lost()
        self.handler.sends_in_vain(asyncio.get_running_loop().time())
        raise Gone(*(self.closed or Closed(1006, "")))

    # In

    def admit(self, event: Event) -> bool:
        """Says whether a message goes on to the handler."""
        if self._closing is not None:
            return False  # what it had sent before it heard: whoever was sent away has no last word
        manager, text = self.manager, event.get("text")
        manager.counters.received += 1
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

    def disconnected(self, code: int, reason: str) -> None:
        """The server says that the socket is closed, and how."""
        if self.closed is None and self.transport.outgrown:
            self._refused_message(CloseCode.MESSAGE_TOO_BIG)
        self.lost()
        if self._closing is None:
            self.closed = Closed(code, reason)

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
        self.handler.closes()
        if self._closing is not None:
            await asyncio.shield(self._closing)

    def close_soon(self, cause: CloseCode | Closed, *, discard: bool = False, grace: bool = True) -> None:
        """Closes like `close`, without waiting. Idempotent."""
        if not discard:
            self.flush()
        if self.closed is None:
            self.transport.hush()
            closed = _code(cause) if isinstance(cause, CloseCode) else cause
            self._end(State.CLOSING, closed, discard=discard, grace=grace)
            # A task, for a close that somebody waits for too: who waits may be cancelled, the Close frame may not.
            self._closing = self.manager.tasks.spawn(self._finish(closed), "close")

    def lost(self) -> None:
        """The peer is gone; why, the server says later or never. Idempotent."""
        if self.closed is None:
            self._end(State.LOST, Closed(1006, ""), discard=True, grace=True)

    def flush(self) -> None:
        """Writes what was published before. It may turn out by it that the peer is gone."""
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
                await self.writer.drained()
                await self.reader.interrupt()
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
            accepted = self.state is State.OPEN
            if self.reader.neglected() and accepted:
                self.reader.read_ahead(self.manager.tasks)
            if self.transport.closing:
                self.lost()
            elif self.writer.stalled_for(now) >= self.limits.stall_timeout_s:
                self.lost()
                self._abort("it does not read")
            elif accepted and self.expired:
                self.manager.counters.refused[CloseCode.TOKEN_EXPIRED.name.lower()] += 1
                self.close_soon(CloseCode.TOKEN_EXPIRED, grace=False)
            elif self.reader.assembling_for(now) >= (self.limits.message_timeout_s or inf):
                self._refused_message(CloseCode.MESSAGE_TOO_SLOW)
                self.close_soon(CloseCode.MESSAGE_TOO_SLOW)
            elif accepted and self.reader.silent_for(now) >= (self.limits.idle_timeout_s or inf):
                logger.info("closing a connection on %s: no message in %g s", self.where, self.limits.idle_timeout_s)
                self.manager.counters.refused[CloseCode.IDLE.name.lower()] += 1
                self.close_soon(CloseCode.IDLE)
            else:
                self.transport.tend()
        elif self.state is not State.REFUSED:
            shutdown = self.transport.restarting or self.closed.code == CloseCode.SERVICE_RESTART.code
            patience_s = self.limits.shutdown_timeout_s if shutdown else self.limits.handler_timeout_s
            if self.handler.overdue(now, self.ended_at, patience_s):
                self._end_handler()
            if now - self.ended_at >= self.limits.close_timeout_s and (self.transport.buffered or self.transport.deaf):
                self._abort("it did not take its close")  # a transport that is closed flushes first: maybe never

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
            self._enter(State.ABORTED)
            self.manager.counters.vanished += 1
            logger.info("aborting a connection on %s: it did not answer a ping, and a limit was reached", self.where)
            self.transport.abort()

    def _abort(self, why: str) -> None:
        """Ends a socket whose peer takes nothing."""
        if self.state is not State.ABORTED:
            self._enter(State.ABORTED)
            self.manager.counters.stalled += 1
            logger.info("aborting a connection on %s: %s", self.where, why)
        self.transport.abort()

    def ended(self) -> None:
        """The handler has ended, and with it the socket."""
        self.handler.end()
        self.handshake.scope = {}  # which holds this socket
        self.reader.stop()
        self.writer.abandon()

    def _end_handler(self) -> None:
        """Cancels the handler; the middleware takes the cancellation for what it is."""
        if self.handler.cancel():
            logger.info("ending the handler of %s: its client is gone and it does not receive", self.where)


def _code(cause: CloseCode) -> Closed:
    return Closed(cause.code, cause.reason)
