"""Publishing from plain functions on the event loop: nobody awaits it, so what fails is counted and logged here."""

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
"""Messages that may wait for the broker."""

MAX_WAITING_BYTES: Final = 16 * 1024 * 1024

_QUIET_S = 10.0


class Unawaited:
    """Publishes that nobody awaits. Bounded; failures are counted, and logged at most once in 10 s.

    Args:
        tasks: Who waits for them.
        counters: Where failures are counted.
    """

    def __init__(self, tasks: Tasks, counters: Counters) -> None:
        self._tasks = tasks
        self._counters = counters
        self._waiting = 0
        self._bytes = 0
        self._failed = 0
        self._quiet_until = 0.0

    def check_bounds(self, size: int) -> None:
        """Raises BrokerUnavailable where too much waits already for a message of so many bytes."""
        if self._waiting >= MAX_WAITING or (self._waiting and self._bytes + size > MAX_WAITING_BYTES):
            raise BrokerUnavailable(
                f"{counted(self._waiting, 'messages')} of {self._bytes} bytes wait for the broker already; "
                "`await manager.broadcast(...)` waits for its turn"
            )

    def add(self, rest: Awaitable[object], size: int) -> None:
        """Takes over a publish that the broker has begun.

        Args:
            rest: What is left of it.
            size: Bytes of the message.
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
            raise  # logged with its traceback by who owns the task
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
