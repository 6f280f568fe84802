"""Tells the app of gaps: messages of a room with history that its raw members do not receive, and can't recover.

Clients of endpoints are told by their protocol. Raw sockets carry only what the app sends, so the app tells them.

Theory of operation. Each gap is counted and logged, and the app's functions are called for its room, in a task:
delivery never waits for them. A room has at most one task. Gaps that are reported while its functions run cause one
more call afterwards. When Redis has lost its data, all rooms have a gap at once. So only some functions run at the same
time, an async one only for a limited time, and gaps that follow each other share a log line.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias, TypeVar

from starlette.concurrency import run_in_threadpool

from ..errors import InvalidArgument, counted, shown
from ..metrics.counters import Counters
from ..tasks import Tasks

logger: Final = logging.getLogger("hubbub")

GapFunction: TypeAlias = Callable[[str], object]
"""A function of the app that is called with the name of a room."""

F = TypeVar("F", bound=GapFunction)

MAX_CALLS: Final = 16
"""Rooms for which functions run at the same time."""

_QUIET_S: Final = 10.0


class Gaps:
    """The functions that the app has for gaps, and the calls of these functions.

    Args:
        tasks: The owner of the calls.
        counters: Counts the gaps, and the functions that fail.
        timeout_s: Seconds after which an async function is canceled, if any.
    """

    def __init__(self, tasks: Tasks, counters: Counters, timeout_s: float | None) -> None:
        self._tasks = tasks
        self._counters = counters
        self._timeout_s = timeout_s
        self._functions: list[GapFunction] = []
        self.clear()

    def clear(self) -> None:
        """Forgets the calls. The functions stay."""
        self._waiting: set[str] = set()  # rooms with a gap that their functions may not know of
        self._served: set[str] = set()  # rooms with a task
        self._turns = asyncio.Semaphore(MAX_CALLS)
        self._unlogged = 0
        self._quiet_until = 0.0

    def add(self, function: F) -> F:
        """Adds a function, and returns it.

        Raises:
            InvalidArgument: The function can't be called with the name of a room.
        """
        accepted = "a function of the room's name: `async def tell(room: str) -> None`"
        if not callable(function):
            raise InvalidArgument("function", f"got {shown(function)}", accepted)
        try:
            inspect.signature(function).bind("room")
        except TypeError as error:
            raise InvalidArgument("function", f"it can't be called with a room's name: {error}", accepted) from None
        self._functions.append(function)
        return function

    def report(self, room: str) -> None:
        """Reports a gap in a room.

        Args:
            room: The channel of the room.
        """
        self._counters.gaps += 1
        self._log(room)
        if self._functions:
            self._waiting.add(room)
            if room not in self._served:
                self._served.add(room)
                self._tasks.spawn(self._serve(room), "gap")

    def _log(self, room: str) -> None:
        self._unlogged += 1
        now = asyncio.get_running_loop().time()
        if now >= self._quiet_until:
            self._quiet_until = now + _QUIET_S
            count, self._unlogged = self._unlogged, 0
            logger.warning(
                "messages are lost for raw sockets in rooms with history: %s, the last one in the room %s",
                counted(count, "gaps"),
                shown(room),
            )

    async def _serve(self, room: str) -> None:
        try:
            while room in self._waiting:
                async with self._turns:
                    self._waiting.discard(room)  # messages that are lost from now on need another call
                    for function in self._functions:
                        await self._tell(function, room)
        finally:
            self._served.discard(room)

    async def _tell(self, function: GapFunction, room: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            result = function(room) if _is_async(function) else await run_in_threadpool(function, room)
            if inspect.isawaitable(result):
                await self._in_time(result, room)
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and task.cancelling():
                raise  # the manager stops; otherwise the function awaited something that was canceled
            self._counters.errors["function"] += 1
            logger.error("a function under @on_gap failed for the room %s", shown(room), exc_info=error)

    async def _in_time(self, result: Awaitable[object], room: str) -> None:
        timeout = asyncio.timeout(self._timeout_s)
        try:
            async with timeout:
                await result
        except TimeoutError:
            if not timeout.expired():
                raise
        if timeout.expired():
            self._counters.errors["function"] += 1
            logger.warning("a function under @on_gap was canceled for the room %s: it ran for too long", shown(room))


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
