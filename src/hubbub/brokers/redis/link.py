"""A connection to Redis that pipelines commands, and reconnects whenever the connection is lost.

Theory of operation. All commands called in one pass of the event loop are sent together, and their answers arrive in
the same order. If the connection is lost before a command is answered, the command is sent again over the next
connection, in the order of the calls and before any newer command. So every command must be safe to execute twice
(`hubbub.brokers.redis.channel` explains how a repeated message is recognized).

A command waits for its answer until its deadline. Then its caller receives `BrokerUnavailable`, and if the command was
sent, the connection counts as frozen and is replaced. A deadline that expired while this process itself was frozen is
restarted once, because the answer may have arrived unread. A connection that received nothing for long is replaced
before its next use: a firewall may have forgotten it, and silently drop everything sent over it.

Numbered messages are sent in a *line*; each connection begins a new one. The server accepts a message only directly
after the previous one of its line, and accepts nothing of a line after the next line has begun. So if the server
refuses a message (because it has forgotten the script, for example), it also refuses all that follow, and all are sent
again in the next line, in order. Messages that arrive late over an abandoned connection are refused too.

Invariants: `_sent` contains exactly the commands that were sent and not answered, in the order in which the server
answers. A command whose caller has stopped waiting is not sent, and not sent again. `_bytes` is the total size of the
commands in `_sent` and `_waiting`.
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
from .commands import IDLE_S, Argument, error_text, out_of_line, refused_url
from .scripts import ALL, Script
from .server import CannotServe, CannotServeYet, check, refused

logger: Final = logging.getLogger("hubbub")

MAX_WAITING_BYTES: Final = 16 * 1024 * 1024
"""Maximum number of bytes that wait for Redis, sent or not. Above it, calls fail at once. One call may be larger."""

_BATCH: Final = 1000
_GOODBYE_PASSES: Final = 3
"""Passes of the event loop until uvloop's TLS transports are closed too."""
_FIRST_BACKOFF_S: Final = 0.05
_LAST_BACKOFF_S: Final = 1.0
_STEADY_S: Final = 1.0
"""A connection that is lost sooner than this counts as a failed attempt."""

_PUSHES_A_PASS: Final = 512
_PUSHED: Final = object()
_ELSEWHERE: Final = (ReadOnlyError, NoScriptError)
"""Errors of a server that has lost the scripts or is not the master. The link reconnects after one."""

_DENIED: Final = (AuthenticationError, AuthorizationError, NoPermissionError)


Pool: TypeAlias = ConnectionPool
"""Makes connections."""


def pool_from(url: str) -> Pool:
    """Returns a pool that makes connections to the server of a URL. Does not connect yet.

    Raises:
        InvalidArgument: The URL is not a Redis URL.
    """
    try:
        pool = ConnectionPool.from_url(
            url,
            protocol=3,
            socket_timeout=None,  # each command has a deadline of its own
            retry=Retry(NoBackoff(), 0),
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
        pool.make_connection()  # raises if an option in the URL's query is unknown
    except (ValueError, TypeError, RedisError) as error:
        raise refused_url(error) from None
    return pool


class _Call:
    __slots__ = ("answer", "arguments", "deadline", "name", "number", "restarted", "sent_at", "size")

    def __init__(
        self, arguments: Sequence[Argument], answer: asyncio.Future[Any], deadline: float, number: int = 0
    ) -> None:
        self.name = str(arguments[0])
        self.number = number
        # Encoded here, so that an argument that can't be encoded raises at its caller, not on the connection.
        self.arguments = [each.encode() if isinstance(each, str) else each for each in arguments]
        self.answer = answer
        self.deadline = deadline
        self.sent_at = inf
        self.size = sum([len(each) for each in self.arguments if isinstance(each, bytes)])
        self.restarted = False

    def restart_timeout(self, now: float, timeout_s: float) -> None:
        """Restarts an expired timeout, at most once: a process may be frozen again and again."""
        if not self.restarted and min(self.deadline, self.sent_at + timeout_s) <= now:
            self.restarted = True
            self.deadline = max(self.deadline, now + timeout_s)
            self.sent_at = now


class Link:
    """A connection to Redis that reconnects by itself, and pipelines commands.

    Attributes:
        up: Whether it is connected.
        held: Whether reading pauses until `settled` returns, which applies backpressure to the server.
        reconnects: Number of connections made after the first; -1 before the first.

    Args:
        pool: Makes connections.
        timeout_s: Seconds that a command, or an attempt to connect, may take.
        on_up: Called each time a connection is made, before anything is sent over it, with the seconds without one.
        on_push: Receives the pushes, such as messages, that the server sends without being asked.
        settled: Awaited after each push, so that the receiver of the pushes can apply backpressure to the server.
        line_up: Returns the command that begins the line of numbered messages with a given number.
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
        self._last_in_line: int | None = None  # None until the connection's first numbered message
        self._waiting: deque[_Call] = deque()
        self._sent: deque[_Call] = deque()
        self._unanswerable: deque[Sequence[Argument]] = deque()
        self._bytes = 0
        self._checked_at = 0.0
        self._heard_at = 0.0
        self._failed_with = ""  # why the last attempt to connect failed, if the server is of the wrong kind
        self._wake: asyncio.Future[None] | None = None
        self._made: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._session: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Starts to connect, and waits for the first connection for at most ``timeout_s``. Then keeps trying.

        Raises:
            BrokerUnavailable: The server denies access or is of a kind that can't serve. Retrying changes neither.
        """
        self._loop = asyncio.get_running_loop()
        self._made = self._loop.create_future()
        self._task = self._loop.create_task(self._run(), name="hubbub:redis")
        self._checked_at = self._loop.time()
        self._watch = self._loop.call_later(self._timeout_s / 8, self._expire)
        await asyncio.wait((self._made,), timeout=self._timeout_s)
        if self._made.done():
            self._made.result()
        self._made.cancel()  # later connections must not resolve it

    async def close(self) -> None:
        """Closes the connection for good. Calls that wait for an answer fail."""
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
        """Sends a command. This is a plain function, so commands execute in the order of the calls.

        Args:
            arguments: The command and its arguments.
            number: The sequence number of a message in the line, or 0. The link appends the number of the line, and
                the previous number in it, to the arguments.
            patient: Wait for the answer without a timeout.
            first: Send it before all waiting commands, including those to be sent again, and ignore the bound.

        Returns:
            The answer.

        Raises:
            BrokerUnavailable: Too many bytes already wait, or the link is closed.
        """
        loop = self._loop
        if loop is None or self._task is None:
            raise BrokerUnavailable("the broker is closed")
        call = _Call(arguments, loop.create_future(), inf if patient else loop.time() + self._timeout_s, number)
        if self._bytes and self._bytes + call.size > MAX_WAITING_BYTES and not first:
            raise BrokerUnavailable(
                f"{self._bytes} bytes wait for Redis already, and the limit is {MAX_WAITING_BYTES}; try again later"
            )
        if self.up and not self._sent and not self._waiting and loop.time() - self._heard_at >= IDLE_S:
            self._replace()
        self._bytes += call.size
        (self._waiting.appendleft if first else self._waiting.append)(call)
        self._wake_up()
        return call.answer

    def run(
        self, script: Script, keys: Sequence[str], *arguments: Argument, patient: bool = False, first: bool = False
    ) -> asyncio.Future[Any]:
        """Runs a script. The other arguments are those of `call`."""
        return self.call("EVALSHA", script.sha, len(keys), *keys, *arguments, patient=patient, first=first)

    def send(self, *arguments: Argument) -> None:
        """Sends a command that the server answers with pushes. Without a connection, the command is dropped."""
        if self.up:
            self._unanswerable.append(arguments)
            self._wake_up()

    def drop(self, why: str) -> None:
        """Abandons the connection, and reconnects."""
        if self.up:
            logger.warning("reconnecting to Redis: %s", why)
            self._replace()

    def _replace(self) -> None:
        if self._session is not None:
            self._session.cancel()

    # The connection

    async def _run(self) -> None:
        while True:
            try:
                await self._keep()
            except Exception:  # a bug in hubbub must not leave the worker without Redis for good
                logger.exception("the connection to Redis failed with an unexpected error; reconnecting")
                await _back_off(10)

    async def _keep(self) -> None:
        """Connects, and reconnects after each loss, until it is cancelled."""
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
            writer: Any = connection._writer  # kept here, because redis-py forgets it after an error
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
                if failures == 0 or lost_by != error_text(first):
                    lost_by = error_text(first)
                    logger.warning("the connection to Redis is lost: %s", lost_by)
            failures = 0 if lost_at - made_at >= _STEADY_S else failures + 1
            if failures:
                await _back_off(failures)

    async def _set_up(self, connection: Connection) -> None:
        try:
            await connection.connect()
        except ResponseError as error:  # for example, the answer to SELECT
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
        # redis-py's own handler would log each message.
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
        why = f"no answer in {self._timeout_s:g} s" if isinstance(error, TimeoutError) else error_text(error)
        if wrong_kind:
            why = str(error)
        if failures == 0 or (wrong_kind and why != self._failed_with):
            level = logging.ERROR if wrong_kind else logging.WARNING
            logger.log(level, "can't connect to Redis, retrying: %s", why)
        self._failed_with = why if wrong_kind else ""

    def _take_over(self, down_s: float) -> None:
        """Starts to use a new connection. Commands that the last one left unanswered are sent first."""
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
        """Writes commands and reads answers, until one of the two fails."""
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
        """Begins the line of this connection, before its first numbered message.

        Nothing waits for the answer: if the server refuses, it refuses the message too.
        """
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
                # `send` expects no answers, so only an error can arrive for it.
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
        """Fails the calls whose deadline has passed. Runs eight times per ``timeout_s``."""
        assert self._loop is not None
        self._watch = self._loop.call_later(self._timeout_s / 8, self._expire)
        now = self._loop.time()
        late_s, self._checked_at = now - self._checked_at - self._timeout_s / 8, now
        if late_s > self._timeout_s / 8:  # this process was frozen, not Redis
            for call in (*self._sent, *self._waiting):
                call.restart_timeout(now, self._timeout_s)
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
        """Drops the waiting calls that were cancelled or timed out."""
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
    """Closes a connection at once. Unsent bytes don't matter, and a clean TLS close would wait for the server."""
    writer.transport.abort()
    await connection.disconnect(nowait=True)
    for _ in range(_GOODBYE_PASSES):
        await asyncio.sleep(0)


async def _back_off(failures: int) -> None:
    """Waits before the next attempt, with exponential backoff and jitter."""
    longest = min(_LAST_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** min(failures, 10))
    await asyncio.sleep(random.uniform(longest / 4, longest))  # noqa: S311  jitter, not a secret
