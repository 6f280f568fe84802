"""A blocking connection to Redis, for processes without an event loop. Safe in threads, and after a fork.

Theory of operation. One connection for each process, under a lock, so that what the process publishes has one order, by
which it is known when it comes again (`hubbub.brokers.redis.channel`). A child of a fork begins with a connection, a
lock and a sender of its own, and does not touch its parent's.

A firewall forgets a connection that is idle, and drops without a word what comes over it later. So a connection that
was idle for long is replaced before it is used, and one that does not answer gets half of the time that a call has: the
other half is for a new one, over which the call is sent again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, Final

from redis import ConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from ...errors import BrokerUnavailable
from .channel import Keys, Sender
from .commands import IDLE_S, Argument, Command, lining_up, out_of_line, refused_url, said
from .scripts import ALL
from .server import CannotServe, CannotServeYet, check, refused

SENDER_TTL_S: Final = 120.0
"""How long the server knows a process that publishes nothing; then it is introduced again."""

_PAUSE_S: Final = 0.05
_LEAST_S: Final = 0.001
"""To wait for an answer. None at all would be something else to a socket."""


class _Process:
    """What one process has: its connection among it.

    Args:
        connection: Of redis-py, not connected yet.
    """

    def __init__(self, connection: Any) -> None:
        self.lock = Lock()
        self.sender = Sender()
        self.line = 0
        self.last_in_line: int | None = None  # None where a line is to be begun
        self._connection = connection
        self._heard_at: float | None = None  # while it is connected
        self._fresh = False  # whether the connection was made in this call

    def begin(self) -> None:
        """Begins a call: gives up a connection that was idle for long."""
        self._fresh = False
        if self._heard_at is not None and time.monotonic() - self._heard_at >= IDLE_S:
            self.cut()

    def ask(self, arguments: Sequence[Argument], deadline: float) -> Any:
        """Sends a command, and waits for its answer.

        Raises:
            RedisError, OSError: Redis can't be reached, does not answer, or refuses.
        """
        connection = self._connection
        if self._heard_at is None:
            self._fresh = True
            connection.socket_connect_timeout = connection.socket_timeout = _left_s(deadline)
            connection.connect()
            self._heard_at = time.monotonic()
        connection.send_command(*arguments, check_health=False)
        patience_s = _left_s(deadline)
        if not connection.can_read(timeout=patience_s if self._fresh else patience_s / 2):
            raise RedisTimeoutError("no answer")
        answer = connection.read_response()
        self._heard_at = time.monotonic()
        return answer

    def load_scripts(self, deadline: float) -> None:
        """Gives the server the scripts. Where that fails, the next command finds out."""
        try:
            for script in ALL:
                self.ask(("SCRIPT", "LOAD", script.text), deadline)
        except (RedisError, OSError):
            self.cut()

    def cut(self) -> None:
        """Gives the connection up, and with it the line: what is on its way over it is not to be taken any more."""
        self.last_in_line = self._heard_at = None
        self._connection.disconnect()


def _left_s(deadline: float) -> float:
    return max(_LEAST_S, deadline - time.monotonic())


def _greet(connection: Any) -> None:
    """Does what redis-py does with a new connection, and looks at which kind of server it leads to."""
    try:
        connection.on_connect()
        connection.send_command("HELLO")
        check(connection.read_response())
    except BaseException:
        connection.disconnect()
        raise


class SyncLink:
    """Calls commands, and waits for the answers.

    Args:
        url: Of the server.
        keys: How the keys are called.
        timeout_s: How long a call may take, the wait for those of other threads and attempts to connect included.

    Raises:
        InvalidArgument: The URL is not one of Redis.
    """

    def __init__(self, url: str, keys: Keys, timeout_s: float) -> None:
        self._url = url
        self._keys = keys
        self._timeout_s = timeout_s
        self._processes: dict[int, _Process] = {}
        self._connection()  # which checks it

    def call(self, make: Callable[[Sender], Command]) -> Any:
        """Calls the command that ``make`` makes.

        Raises:
            BrokerUnavailable: Redis can't be reached in time, or refuses, or can't serve at all. The command may have
                been executed.
        """
        process = self._process
        deadline = time.monotonic() + self._timeout_s
        if not process.lock.acquire(timeout=self._timeout_s):
            raise BrokerUnavailable(f"other threads wait for Redis already (waited {self._timeout_s:g} s)")
        try:
            command = make(process.sender)
            cause: Exception | None = None
            process.begin()
            while True:
                try:
                    return self._execute(process, command, deadline)
                except NoScriptError:
                    process.load_scripts(deadline)
                except CannotServe:
                    raise
                except (RedisError, OSError) as error:
                    if isinstance(error, ResponseError) and out_of_line(error) and time.monotonic() < deadline:
                        process.last_in_line = None
                        continue
                    if isinstance(error, (AuthenticationError, ResponseError)) and not isinstance(error, ReadOnlyError):
                        raise refused(str(command.arguments[0]), error) from None
                    else:
                        process.cut()
                    if not isinstance(cause, CannotServeYet):  # which says more than that time ran out after it
                        cause = error
                    if time.monotonic() + 2 * _PAUSE_S >= deadline:
                        why = said(cause)
                        raise BrokerUnavailable(
                            f"Redis can't be reached (waited {self._timeout_s:g} s): {why}"
                        ) from None
                    time.sleep(_PAUSE_S)
        except BrokerUnavailable:
            raise
        except BaseException:  # of a signal's handler, say: an answer that is still to come must not meet the next call
            process.cut()
            raise
        finally:
            process.lock.release()

    def close(self) -> None:
        """Closes this process's connection; the next call makes another."""
        process = self._processes.pop(os.getpid(), None)
        if process is not None:
            process.cut()

    def _execute(self, process: _Process, command: Command, deadline: float) -> Any:
        if not command.number:
            return process.ask(command.arguments, deadline)
        if process.last_in_line is None:
            process.line += 1
            process.ask(lining_up(self._keys, process.sender.scripted, process.line, SENDER_TTL_S), deadline)
            process.last_in_line = 0
        answer = process.ask(command.in_line(process.line, process.last_in_line), deadline)
        process.last_in_line = command.number
        return answer

    @property
    def _process(self) -> _Process:
        pid = os.getpid()
        process = self._processes.get(pid)
        if process is None:
            process = self._processes.setdefault(pid, _Process(self._connection()))
        return process

    def _connection(self) -> Any:
        """A connection that is not made yet."""
        try:
            pool: Any = ConnectionPool.from_url(
                self._url,
                protocol=3,
                retry=Retry(NoBackoff(), 0),
                maint_notifications_config=MaintNotificationsConfig(enabled=False),
                redis_connect_func=_greet,
            )
            return pool.make_connection()  # which takes what the URL's query says, or does not
        except (ValueError, TypeError, RedisError) as error:
            raise refused_url(error) from None
