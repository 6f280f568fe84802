"""A blocking connection to Redis, for processes without an event loop. Safe in threads, and after a fork.

Theory of operation. One connection for each process, under a lock, so that what the process publishes has one order, by
which it is known when it comes again (`hubbub.brokers.redis.channel`). A child of a fork begins with a connection, a
lock and a sender of its own, and does not touch its parent's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from threading import Lock
from typing import Any, Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoScriptError, ReadOnlyError, RedisError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from ...errors import BrokerUnavailable
from .channel import Keys, Sender
from .commands import Command, lining_up, out_of_line, refused_url, said
from .scripts import ALL
from .server import CannotServe, check, refused

SENDER_TTL_S: Final = 120.0
"""How long the server knows a process that publishes nothing; then it is introduced again."""

_PAUSE_S: Final = 0.05


class _Process:
    """What one process has."""

    def __init__(self, client: Redis) -> None:
        self.client = client
        self.lock = Lock()
        self.sender = Sender()
        self.line = 0
        self.last_in_line: int | None = None  # None where a line is to be begun

    def cut(self) -> None:
        """Gives the connection up, and with it the line: what is on its way over it is not to be taken any more."""
        self.client.close()
        self.last_in_line = None


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
        self._connect()

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
            while True:
                try:
                    return self._execute(process, command)
                except NoScriptError:
                    self._load(process)
                except CannotServe:
                    raise
                except (RedisError, OSError) as error:
                    if isinstance(error, ResponseError) and out_of_line(error):
                        process.last_in_line = None
                    elif isinstance(error, (AuthenticationError, ResponseError)) and not isinstance(
                        error, ReadOnlyError
                    ):
                        raise refused(str(command.arguments[0]), error) from None
                    else:
                        process.cut()
                    if time.monotonic() + _PAUSE_S >= deadline:
                        why = said(error)
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
            process.client.close()

    def _execute(self, process: _Process, command: Command) -> Any:
        if not command.number:
            return process.client.execute_command(*command.arguments)
        if process.last_in_line is None:
            process.line += 1
            process.client.execute_command(*lining_up(self._keys, process.sender.scripted, process.line, SENDER_TTL_S))
            process.last_in_line = 0
        answer = process.client.execute_command(*command.in_line(process.line, process.last_in_line))
        process.last_in_line = command.number
        return answer

    @property
    def _process(self) -> _Process:
        pid = os.getpid()
        process = self._processes.get(pid)
        if process is None:
            process = self._processes.setdefault(pid, _Process(self._connect()))
        return process

    @staticmethod
    def _load(process: _Process) -> None:
        try:
            for script in ALL:
                process.client.execute_command("SCRIPT LOAD", script.text)
        except (RedisError, OSError):
            process.cut()  # the next attempt finds out

    def _connect(self) -> Redis:
        try:
            client: Redis = Redis.from_url(
                self._url,
                protocol=3,
                socket_timeout=self._timeout_s,
                socket_connect_timeout=self._timeout_s,
                retry=Retry(NoBackoff(), 0),
                maint_notifications_config=MaintNotificationsConfig(enabled=False),
                redis_connect_func=_greet,
            )
            client.connection_pool.make_connection()  # which takes what the URL's query says, or does not
        except (ValueError, TypeError, RedisError) as error:
            raise refused_url(error) from None
        return client
