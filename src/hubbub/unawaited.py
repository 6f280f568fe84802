"""Publishing from plain functions on the event loop: nobody awaits it, so what fails is counted and logged here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final

from .envelope import Envelope
from .errors import BrokerUnavailable, NotRunning, WrongLoop, WrongThread, counted

if TYPE_CHECKING:
    from .engine import Engine

logger = logging.getLogger("hubbub")

MAX_WAITING: Final = 10_000
"""Messages that may wait for the broker."""

MAX_WAITING_BYTES: Final = 16 * 1024 * 1024

_QUIET_S = 10.0


class Unawaited:
    """Publishes that nobody awaits. Bounded; failures are counted, and logged at most once in 10 s.

    Args:
        engine: The manager's.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting = 0
        self._bytes = 0
        self._failed = 0
        self._quiet_until = 0.0

    def publish(self, channel: str, envelope: Envelope) -> None:
        """Publishes a message, or begins to.

        Raises:
            BrokerUnavailable: Too much waits already, or the broker can't even begin.
            NotInstalled: The manager is not installed.
            NotRunning: The manager is not running.
            WrongThread: No event loop runs in this thread.
            WrongLoop: The manager runs on another event loop.
        """
        engine = self._engine
        engine.check_running()
        try:
            engine.check_loop()
        except WrongLoop:
            raise
        except RuntimeError:
            raise WrongThread(
                "the manager's event loop does not run in this thread: call `manager.from_thread.broadcast(...)` or "
                "`send_to_user(...)` (the calls that end in _nowait are for plain functions on the event loop)"
            ) from None
        size = len(envelope.payload.data)
        if self._waiting >= MAX_WAITING or (self._waiting and self._bytes + size > MAX_WAITING_BYTES):
            raise BrokerUnavailable(
                f"{counted(self._waiting, 'messages')} of {self._bytes} bytes wait for the broker already; "
                "`await manager.broadcast(...)` waits for its turn"
            )
        engine.counters.published += 1
        rest = engine.broker.publish_nowait(channel, envelope)
        if rest is not None:
            self._waiting += 1
            self._bytes += size
            engine.tasks.spawn(self._finish(rest, size), "publish")

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
        self._engine.counters.failed_publishes += 1
        self._failed += 1
        now = asyncio.get_running_loop().time()
        if now >= self._quiet_until:
            self._quiet_until = now + _QUIET_S
            count, self._failed = self._failed, 0
            logger.warning("%s of *_nowait calls not published: %s", counted(count, "messages"), str(error))
