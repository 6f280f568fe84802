"""One connection to Redis that is made again whenever it is lost, and over which commands are pipelined.

Theory of operation. What is called in one pass of the event loop goes out together, and the answers come back in order.
A command whose connection is lost before its answer came is sent again over the next one, in the order of the calls and
before anything newer. So every command has to be one that may be executed twice (see `hubbub.brokers.redis.channel` on
how a message is known that was published before). A command waits for its answer until its deadline; then the caller
gets `BrokerUnavailable`, and where the command was sent, the connection is taken for frozen and made anew. One that ran
out while this process stood still has its time again, once: its answer may be there, unread. A connection over which
nothing came for long is replaced before it is used again: a firewall may have forgotten it, and drop what is sent.

Messages with a number go out in a *line*, one for each connection. The server takes each only after the one before it,
and none of a line once the next has begun. So none overtakes another that the server did not take (it had forgotten the
script, say): all that follow are refused too, and sent again in the next line. And what comes late over a connection
that was given up is not taken.

Invariants: each command that was sent and not answered is in `_sent`, in the order in which the server answers; no
other is. A command that nobody waits for any more is not sent (again). `_bytes` is the size of all in `_sent` and
`_waiting`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import Any, Final, TypeAlias

from redis.asyncio import Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.maint_notifications import MaintNotificationsConfig

from ...errors import BrokerUnavailable, counted
from .commands import IDLE_S, Argument, out_of_line, refused_url, said
from .scripts import ALL, Script
from .server import CannotServe, CannotServeYet, check, refused

logger: Final = logging.getLogger("hubbub")

MAX_WAITING_BYTES: Final = 16 * 1024 * 1024
"""Bytes that may wait for Redis, sent or not. Past it, calls fail at once. A single call may be larger."""

_BATCH: Final = 1000
_GOODBYE_PASSES: Final = 3
"""Of the loop, until the transports of uvloop's TLS are closed too."""
_FIRST_BACKOFF_S: Final = 0.05
_LAST_BACKOFF_S: Final = 1.0
_STEADY_S: Final = 1.0
"""A connection that did not live so long counts as an attempt that failed."""

_PUSHES_A_PASS: Final = 512
_PUSHED: Final = object()
_ELSEWHERE: Final = (ReadOnlyError, NoScriptError)
"""What a server answers that has lost the scripts, or is not the one to write to: it is connected to anew."""

_DENIED: Final = (AuthenticationError, AuthorizationError, NoPermissionError)


Pool: TypeAlias = ConnectionPool
"""What makes connections."""


def pool_from(url: str) -> Pool:
    """Makes what makes connections. Nothing is connected yet.

    Raises:
        InvalidArgument: The URL is not one of Redis.
    """
    try:
        pool = ConnectionPool.from_url(
            url,
            protocol=3,
            socket_timeout=None,  # each command has a deadline of its own
            retry=Retry(NoBackoff(), 0),
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
        pool.make_connection()  # which takes what the URL's query says, or does not
    except (ValueError, TypeError, RedisError) as error:
        raise refused_url(error) from None
    return pool


class _Call:
    __slots__ = ("answer", "arguments", "deadline", "name", "number", "sent_at", "size", "spared")

    def __init__(
        self, arguments: Sequence[Argument], answer: asyncio.Future[Any], deadline: float, number: int = 0
    ) -> None:
        self.name = str(arguments[0])
        self.number = number
        # Encoded here, so that what can't be is the caller's error, and not the connection's.
        self.arguments = [each.encode() if isinstance(each, str) else each for each in arguments]
        self.answer = answer
        self.deadline = deadline
        self.sent_at = inf
        self.size = sum([len(each) for each in self.arguments if isinstance(each, bytes)])
        self.spared = False

    def spare(self, now: float, timeout_s: float) -> None:
        """Gives it its time again where it has run out; once, since a process may stand still again and again."""
        if not self.spared and min(self.deadline, self.sent_at + timeout_s) <= now:
            self.spared = True
            self.deadline = max(self.deadline, now + timeout_s)
            self.sent_at = now


class Link:
    """A connection to Redis.

    Attributes:
        up: Whether there is one.
        held: Whether whoever takes the pushes holds the server back.
        reconnects: How often one was made after the first.

    Args:
        pool: What makes connections.
        timeout_s: How long a command, or a connection to be made, may take.
        on_up: Called with how long it was down, each time a connection is made; before anything is sent over it.
        on_push: Takes what the server sends by itself.
        settled: Awaited now and then between pushes, so that whoever takes them can hold the server back.
        line_up: Gives the command that begins a line of numbered messages, by the line's number.
    """

    def __init__(
        self,
        pool: Pool,
        timeout_s: float,
        on_up: Callable[[float], None],
        on_push: Callable[[list[Any]], None] | None = None,
        settled: Callable[[], Awaitable[None]] | None = None,
        line_up: Callable[[int], Sequence[Argument]] | None = None,
    ) -> None:
        self.up: bool = False
        self.held: bool = False
        self.reconnects: int = -1
        self._pool = pool
        self._timeout_s = timeout_s
        self._on_up = on_up
        self._on_push = on_push
        self._settled = settled
        self._line_up = line_up
        self._line = 0
        self._last_in_line: int | None = None  # None before the connection's first
        self._waiting: deque[_Call] = deque()
        self._sent: deque[_Call] = deque()
        self._unanswerable: deque[Sequence[Argument]] = deque()
        self._bytes = 0
        self._looked_at = 0.0
        self._heard_at = 0.0
        self._failed_with = ""  # why the last attempt to connect failed, where the server is of the wrong kind
        self._wake: asyncio.Future[None] | None = None
        self._made: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._session: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Begins, and waits for the first connection, at most ``timeout_s``. Goes on trying afterwards.

        Raises:
            BrokerUnavailable: The server denies access, or is of a kind that can't serve. Trying again changes neither.
        """
        self._loop = asyncio.get_running_loop()
        self._made = self._loop.create_future()
        self._task = self._loop.create_task(self._run(), name="hubbub:redis")
        self._looked_at = self._loop.time()
        self._watch = self._loop.call_later(self._timeout_s / 8, self._expire)
        await asyncio.wait((self._made,), timeout=self._timeout_s)
        if self._made.done():
            self._made.result()
        self._made.cancel()  # nobody waits for it any more

    async def close(self) -> None:
        """Ends. What waits for an answer fails."""
        if self._watch is not None:
            self._watch.cancel()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))
        self._fail_all(BrokerUnavailable("the broker is closed"))
        self._unanswerable.clear()
        self._loop = None

    def call(
        self, *arguments: Argument, number: int = 0, patient: bool = False, first: bool = False
    ) -> asyncio.Future[Any]:
        """Calls a command. A plain function: calls are executed in the order in which they are made.

        Args:
            arguments: The command and its arguments.
            number: That of a message which goes into the line: its line, and the number before it, are sent after its
                arguments.
            patient: Wait for as long as it takes.
            first: Before all that waits, what is to be sent again included, and however much that is.

        Raises:
            BrokerUnavailable: Too much waits already, or the link is closed.
        """
        loop = self._loop
        if loop is None or self._task is None:
            raise BrokerUnavailable("the broker is closed")
        call = _Call(arguments, loop.create_future(), inf if patient else loop.time() + self._timeout_s, number)
        if self._bytes and self._bytes + call.size > MAX_WAITING_BYTES and not first:
            raise BrokerUnavailable(f"{self._bytes} bytes wait for Redis already, which is the bound")
        if self.up and not self._sent and not self._waiting and loop.time() - self._heard_at >= IDLE_S:
            self._replace()
        self._bytes += call.size
        (self._waiting.appendleft if first else self._waiting.append)(call)
        self._wake_up()
        return call.answer

    def run(
        self, script: Script, keys: Sequence[str], *arguments: Argument, patient: bool = False, first: bool = False
    ) -> asyncio.Future[Any]:
        """Calls a script. Otherwise as `call`."""
        return self.call("EVALSHA", script.sha, len(keys), *keys, *arguments, patient=patient, first=first)

    def tell(self, *arguments: Argument) -> None:
        """Sends a command that is answered by pushes, while there is a connection; else it is lost."""
        if self.up:
            self._unanswerable.append(arguments)
            self._wake_up()

    def drop(self, why: str) -> None:
        """Gives up the connection, for a new one."""
        if self.up:
            logger.warning("connecting to Redis anew: %s", why)
            self._replace()

    def _replace(self) -> None:
        if self._session is not None:
            self._session.cancel()

    # The connection

    async def _run(self) -> None:
        while True:
            try:
                await self._keep()
            except Exception:  # a defect of ours: not a reason to be without Redis for good
                logger.exception("the connection to Redis failed, and is made anew")
                await _back_off(10)

    async def _keep(self) -> None:
        """Keeps a connection, until it is cancelled."""
        assert self._loop is not None
        failures, lost_at, lost_by = 0, self._loop.time(), ""
        while True:
            connection: Connection = self._pool.make_connection()
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._set_up(connection)
            except (RedisError, OSError, TimeoutError) as error:
                await connection.disconnect(nowait=True)
                self._say_failed(error, failures)
                failures += 1
                await _back_off(failures)
                continue
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
            if failures:
                logger.info("connected to Redis after %s", counted(failures + 1, "attempts"))
            made_at = self._loop.time()
            self._take_over(made_at - lost_at)
            writer: Any = connection._writer  # whatever fails, redis-py closes it, and forgets it
            session = self._session = self._loop.create_task(self._serve(connection), name="hubbub:redis session")
            try:
                await asyncio.wait((session,))
            finally:
                self.up, self._session = False, None
                session.cancel()
                await asyncio.wait((session,))
                await _say_goodbye(connection, writer)
            lost_at = self._loop.time()
            if not session.cancelled() and (cause := session.exception()) is not None:
                first = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause
                if failures == 0 or lost_by != said(first):
                    lost_by = said(first)
                    logger.warning("the connection to Redis is lost: %s", lost_by)
            failures = 0 if lost_at - made_at >= _STEADY_S else failures + 1
            if failures:
                await _back_off(failures)

    async def _set_up(self, connection: Connection) -> None:
        try:
            await connection.connect()
        except ResponseError as error:  # to SELECT, say
            if isinstance(why := refused("the connection", error), CannotServe):
                raise why from None
            raise
        await connection.send_packed_command(
            connection.pack_commands([("HELLO",), *(("SCRIPT", "LOAD", script.text) for script in ALL)]),
            check_health=False,
        )
        check(await connection.read_response(timeout=inf))
        for _ in ALL:
            await connection.read_response(timeout=inf)
        # redis-py's own handler writes each message to its log first.
        parser: Any = connection._parser
        parser.set_pubsub_push_handler(self._pushed)

    def _say_failed(self, error: BaseException, failures: int) -> None:
        assert self._made is not None
        wrong_kind = isinstance(error, (CannotServe, CannotServeYet))
        if not self._made.done():
            if isinstance(error, _DENIED):
                self._made.set_exception(BrokerUnavailable(f"Redis denies access: {error}"))
            elif isinstance(error, CannotServe):
                self._made.set_exception(error)
        why = f"no answer in {self._timeout_s:g} s" if isinstance(error, TimeoutError) else said(error)
        if wrong_kind:
            why = str(error)
        if failures == 0 or (wrong_kind and why != self._failed_with):
            level = logging.ERROR if wrong_kind else logging.WARNING
            logger.log(level, "can't connect to Redis, trying again: %s", why)
        self._failed_with = why if wrong_kind else ""

    def _take_over(self, down_s: float) -> None:
        """A connection is made: what the last one left unanswered comes first."""
        self._unanswerable.clear()
        self._last_in_line = None
        while self._sent:
            self._waiting.appendleft(self._sent.pop())
        self._forget_done()
        self.up, self.held, self._failed_with = True, False, ""
        self.reconnects += 1
        assert self._made is not None
        assert self._loop is not None
        self._heard_at = self._loop.time()
        if not self._made.done():
            self._made.set_result(None)
        self._on_up(down_s)

    async def _serve(self, connection: Connection) -> None:
        """Writes what is called, reads what is answered, until one of the two fails."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._write(connection))
            both.create_task(self._read(connection))

    async def _write(self, connection: Connection) -> None:
        assert self._loop is not None
        while True:
            while not self._waiting and not self._unanswerable:
                self._wake = self._loop.create_future()
                await self._wake
            batch: list[Sequence[Argument]] = []
            while self._unanswerable:
                batch.append(self._unanswerable.popleft())
            while self._waiting and len(batch) < _BATCH:
                call = self._waiting.popleft()
                if call.answer.done():
                    self._bytes -= call.size
                    continue
                if call.number and self._last_in_line is None:
                    batch.append(self._begin_line())
                call.sent_at = self._loop.time()
                self._sent.append(call)
                batch.append(self._in_line(call) if call.number else call.arguments)
            if batch:
                await connection.send_packed_command(connection.pack_commands(batch), check_health=False)

    def _begin_line(self) -> Sequence[Argument]:
        """Begins this connection's line, with its first message. Nobody waits: a refusal shows with the message."""
        assert self._loop is not None
        assert self._line_up is not None
        self._line, self._last_in_line = self._line + 1, 0
        call = _Call(self._line_up(self._line), self._loop.create_future(), inf)
        call.answer.cancel()
        call.sent_at = self._loop.time()
        self._bytes += call.size
        self._sent.append(call)
        return call.arguments

    def _in_line(self, call: _Call) -> Sequence[Argument]:
        before, self._last_in_line = self._last_in_line or 0, call.number
        return [*call.arguments, self._line, before]

    async def _read(self, connection: Connection) -> None:
        assert self._loop is not None
        pushes = 0
        while True:
            answer: Any
            try:
                answer = await connection.read_response(timeout=inf, push_request=True)
            except _ELSEWHERE:
                raise
            except ResponseError as error:
                if out_of_line(error):
                    raise
                answer = error
            if answer is _PUSHED:
                pushes += 1
                if pushes % _PUSHES_A_PASS == 0:
                    await asyncio.sleep(0)
                if self._settled is not None:
                    self.held = True
                    await self._settled()
                    self.held = False
                continue
            if not self._sent:
                # To what was told, and not called: only errors come as answers to that.
                raise answer if isinstance(answer, Exception) else ConnectionError("Redis answered out of turn")
            call = self._sent.popleft()
            self._heard_at = self._loop.time()
            self._bytes -= call.size
            if call.answer.done():
                continue
            if isinstance(answer, ResponseError):
                call.answer.set_exception(refused(call.name, answer))
            else:
                call.answer.set_result(answer)

    async def _pushed(self, push: list[Any]) -> object:
        if self._on_push is not None:
            self._on_push(push)
        return _PUSHED

    # Waiting

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _expire(self) -> None:
        """Fails what has waited too long, a few times in ``timeout_s``."""
        assert self._loop is not None
        self._watch = self._loop.call_later(self._timeout_s / 8, self._expire)
        now = self._loop.time()
        late_s, self._looked_at = now - self._looked_at - self._timeout_s / 8, now
        if late_s > self._timeout_s / 8:  # it was this process that stood still
            for call in (*self._sent, *self._waiting):
                call.spare(now, self._timeout_s)
        frozen = bool(self._sent) and now - self._sent[0].sent_at >= self._timeout_s
        for call in (*self._sent, *self._waiting):
            if call.deadline <= now and not call.answer.done():
                call.answer.set_exception(BrokerUnavailable(self._why_late()))
        self._forget_done()
        if frozen:
            self.drop(f"no answer in {self._timeout_s:g} s")

    def _why_late(self) -> str:
        state = "does not answer" if self.up else "can't be reached"
        why = f": {self._failed_with}" if self._failed_with else ""
        return f"Redis {state} (waited {self._timeout_s:g} s){why}"

    def _forget_done(self) -> None:
        """Nobody waits any more for what was cancelled, or took too long."""
        self._waiting = deque(call for call in self._waiting if not call.answer.done())
        self._bytes = sum(call.size for call in (*self._sent, *self._waiting))

    def _fail_all(self, error: BrokerUnavailable) -> None:
        for call in (*self._sent, *self._waiting):
            if not call.answer.done():
                call.answer.set_exception(error)
        self._sent.clear()
        self._waiting.clear()
        self._bytes = 0


async def _say_goodbye(connection: Connection, writer: asyncio.StreamWriter) -> None:
    """Closes a connection. Nothing of value is unsent; and under TLS a close that is no abort waits for the peer's."""
    writer.transport.abort()
    await connection.disconnect(nowait=True)
    for _ in range(_GOODBYE_PASSES):
        await asyncio.sleep(0)


async def _back_off(failures: int) -> None:
    """Waits before the next attempt: longer each time, and not all workers at once."""
    longest = min(_LAST_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** min(failures, 10))
    await asyncio.sleep(random.uniform(longest / 4, longest))  # noqa: S311  jitter, not a secret
