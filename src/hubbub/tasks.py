"""Background tasks that have an owner, which ends them. A failure is always logged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import Any, Final

logger: Final = logging.getLogger("hubbub")


class Tasks:
    """The background tasks of one owner. A task that fails is logged, and does not affect the others."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Starts a task, which runs until it ends or `close` cancels it."""
        task = asyncio.get_running_loop().create_task(work, name=f"hubbub:{name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def close(self, timeout_s: float) -> None:
        """Waits for the running tasks, at most ``timeout_s``, and cancels the rest."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while self._tasks and (left_s := deadline - loop.time()) > 0:
            await asyncio.wait(self._tasks, timeout=left_s)
        while self._tasks:  # a task that ends may spawn another one
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("the task %s failed", task.get_name(), exc_info=error)


async def together(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Runs coroutines concurrently, each to its end even if another one fails. They begin in order.

    *Cancellation*: cancels all of them, and waits for them.

    Raises:
        The first error, in the order of ``work``.
    """
    for result in await asyncio.gather(*work, return_exceptions=True):
        if result is not None:
            raise result
