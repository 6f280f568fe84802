"""Finishes the publishes of plain functions, which do not await them. Counts and logs the failures."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Final

from ..errors import BrokerUnavailable, NotRunning, counted
from ..metrics.counters import Counters
from ..tasks import Tasks

logger: Final = logging.getLogger("hubbub")

MAX_WAITING: Final = 10_000
"""Maximum number of messages that wait for the broker."""

MAX_WAITING_BYTES: Final = 16 * 1024 * 1024

_QUIET_S = 10.0


class Unawaited:
    """Finishes publishes that nobody awaits. Bounded; counts failures, and logs them at most once in 10 s.

    Args:
        tasks: Owns the tasks that wait for the broker.
        counters: Counts the failures.
    """

    def __init__(self, tasks: Tasks, counters: Counters) -> None:
        self._tasks = tasks
        self._counters = counters
        self._waiting = 0
        self._bytes = 0
        self._failed = 0
        self._quiet_until = 0.0

    def check_bounds(self, size: int) -> None:
        """Raises BrokerUnavailable if a message of ``size`` bytes would exceed the bounds."""
        if self._waiting >= MAX_WAITING or (self._waiting and self._bytes + size > MAX_WAITING_BYTES):
            raise BrokerUnavailable(
                f"{counted(self._waiting, 'messages')} ({self._bytes} bytes) already wait for the broker; "
                "use `await manager.broadcast(...)`, which waits for its turn"
            )

    def add(self, rest: Awaitable[object], size: int) -> None:
        """Finishes a publish that the broker has started.

        Args:
            rest: Finishes the publish when awaited.
            size: Size of the message in bytes.
        """
        self._waiting += 1
        self._bytes += size
        self._tasks.spawn(self._finish(rest, size), "publish")

    async def _finish(self, rest: Awaitable[object], size: int) -> None:
        try:
            await rest
        except BrokerUnavailable as error:
            self._failed_with(error)
        except asyncio.CancelledError:
            self._failed_with(NotRunning("the manager has stopped"))
            raise
        except Exception as error:
            self._failed_with(error)
            raise  # the owner of the task logs it with its traceback
        finally:
            self._waiting -= 1
            self._bytes -= size

    def _failed_with(self, error: Exception) -> None:
        self._counters.failed_publishes += 1
        self._failed += 1
        now = asyncio.get_running_loop().time()
        if now >= self._quiet_until:
            self._quiet_until = now + _QUIET_S
            count, self._failed = self._failed, 0
            logger.warning("%s of *_nowait calls not published: %s", counted(count, "messages"), str(error))
