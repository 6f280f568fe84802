"""Tasks that belong to somebody: none is fired and forgotten, none fails in silence."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import Any, Final

logger: Final = logging.getLogger("hubbub")


class Tasks:
    """The background tasks of one owner. One that fails is logged and takes nobody else down."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Runs ``work`` until it ends or `close` cancels it."""
        task = asyncio.get_running_loop().create_task(work, name=f"hubbub:{name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def close(self, timeout_s: float) -> None:
        """Waits for what runs, at most ``timeout_s``, and cancels the rest."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while self._tasks and (left_s := deadline - loop.time()) > 0:
            await asyncio.wait(self._tasks, timeout=left_s)
        while self._tasks:  # what ends may begin something
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
    """Runs all at once and, whatever becomes of one, to the end; begins them in order.

    *Cancellation*: cancels all, and waits for them.

    Raises:
        The first error, in the order of the work.
    """
    for result in await asyncio.gather(*work, return_exceptions=True):
        if result is not None:
            raise result
