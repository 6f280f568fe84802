"""A blocking connection to Redis, for processes without an event loop. Thread-safe, and safe after a fork.

Theory of operation. Each process has one connection, under a lock. So everything that the process publishes has one
order, and sequence numbers identify repetitions (`hubbub.brokers.redis.channel`). A forked child has its own
connection, lock and sender, and does not touch those of its parent.

A firewall forgets an idle connection, and silently drops everything sent over it later. So a connection that was idle
for long is replaced before its next use. If a connection does not answer within half of a call's timeout, the call is
sent again over a new connection, in the other half.
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
from .commands import IDLE_S, Argument, Command, error_text, lining_up, out_of_line, refused_url
from .scripts import ALL
from .server import CannotServe, CannotServeYet, check, refused

SENDER_TTL_S: Final = 120.0
"""Seconds after which Redis forgets a process that publishes nothing. The process begins a new line before that."""

_PAUSE_S: Final = 0.05
_LEAST_S: Final = 0.001
"""Minimum timeout of a socket: 0 would make it non-blocking."""


class _Process:
    """The state of one process: its connection, its lock and its sender.

    Args:
        connection: A connection of redis-py, not connected yet.
    """

    def __init__(self, connection: Any) -> None:
        self.lock = Lock()
        self.sender = Sender()
        self.line = 0
        self.last_in_line: int | None = None  # None before a line begins
        self._connection = connection
        self._heard_at: float | None = None  # None while it is not connected
        self._fresh = False  # whether the connection was made in this call

    def begin(self) -> None:
        """Begins a call. Abandons a connection that was idle for long."""
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
        """Loads the scripts into the server. Ignores failures: the next command meets them."""
        try:
            for script in ALL:
                self.ask(("SCRIPT", "LOAD", script.text), deadline)
        except (RedisError, OSError):
            self.cut()

    def cut(self) -> None:
        """Abandons the connection and its line, so that Redis refuses messages still in flight over it."""
        self.last_in_line = self._heard_at = None
        self._connection.disconnect()


def _left_s(deadline: float) -> float:
    return max(_LEAST_S, deadline - time.monotonic())


def _greet(connection: Any) -> None:
    """Sets up a new connection as redis-py does, and checks which kind of server it leads to."""
    try:
        connection.on_connect()
        connection.send_command("HELLO")
        check(connection.read_response())
    except BaseException:
        connection.disconnect()
        raise


class SyncLink:
    """Sends commands, and blocks until they are answered.

    Args:
        url: The URL of the server.
        keys: The names of the keys.
        timeout_s: Seconds that a call may take, including the wait for other threads and attempts to connect.

    Raises:
        InvalidArgument: The URL is not a Redis URL.
    """

    def __init__(self, url: str, keys: Keys, timeout_s: float) -> None:
        self._url = url
        self._keys = keys
        self._timeout_s = timeout_s
        self._processes: dict[int, _Process] = {}
        self._connection()  # checks the URL

    def call(self, make: Callable[[Sender], Command]) -> Any:
        """Sends the command that ``make`` returns, and returns the answer.

        Raises:
            BrokerUnavailable: Redis can't be reached in time, refuses the command, or can't serve at all. The command
                may have been executed.
        """
        process = self._process
        deadline = time.monotonic() + self._timeout_s
        if not process.lock.acquire(timeout=self._timeout_s):
            raise BrokerUnavailable(f"other threads are still waiting for Redis (waited {self._timeout_s:g} s)")
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
                    if not isinstance(cause, CannotServeYet):  # it says more than a timeout that follows it
                        cause = error
                    if time.monotonic() + 2 * _PAUSE_S >= deadline:
                        why = error_text(cause)
                        raise BrokerUnavailable(
                            f"Redis can't be reached (waited {self._timeout_s:g} s): {why}"
                        ) from None
                    time.sleep(_PAUSE_S)
        except BrokerUnavailable:
            raise
        except BaseException:  # such as a signal handler's: the next call must not read the answer to this one
            process.cut()
            raise
        finally:
            process.lock.release()

    def close(self) -> None:
        """Closes the connection of this process. The next call opens another one."""
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
        """Returns a connection that is not connected yet."""
        try:
            pool: Any = ConnectionPool.from_url(
                self._url,
                protocol=3,
                retry=Retry(NoBackoff(), 0),
                maint_notifications_config=MaintNotificationsConfig(enabled=False),
                redis_connect_func=_greet,
            )
            return pool.make_connection()  # raises if an option in the URL's query is unknown
        except (ValueError, TypeError, RedisError) as error:
            raise refused_url(error) from None
