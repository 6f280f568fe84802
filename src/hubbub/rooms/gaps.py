"""Tells the app of gaps: messages of a room with history that its raw members do not receive, and can't recover.

Clients of endpoints are told by their protocol. Raw sockets carry only what the app sends, so the app tells them.

Theory of operation. Each gap is counted and logged, and the app's functions are called for its room, in tasks: delivery
never waits for them. When Redis has lost its data, all rooms have a gap at once. So only some functions run at the same
time, a room whose functions wait for their turn waits once, and gaps that follow each other share a log line.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
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
        counters: Counts the gaps.
    """

    def __init__(self, tasks: Tasks, counters: Counters) -> None:
        self._tasks = tasks
        self._counters = counters
        self._functions: list[GapFunction] = []
        self.clear()

    def clear(self) -> None:
        """Forgets the calls that wait. The functions stay."""
        self._waiting: set[str] = set()
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
        if self._functions and room not in self._waiting:
            self._waiting.add(room)
            self._tasks.spawn(self._call(room), "gap")

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

    async def _call(self, room: str) -> None:
        async with self._turns:
            self._waiting.discard(room)  # messages that are lost from now on need another call
            for function in self._functions:
                await self._tell(function, room)

    async def _tell(self, function: GapFunction, room: str) -> None:
        try:
            result = function(room) if _is_async(function) else await run_in_threadpool(function, room)
            if inspect.isawaitable(result):
                await result
        except Exception as error:
            self._counters.errors["function"] += 1
            logger.error("a function under @on_gap failed for the room %s", shown(room), exc_info=error)


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
