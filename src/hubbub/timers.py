"""Schedules calls with a heap of deadlines and a single timer of the event loop.

A loop timer for each connection would cost a handle each, and most of them would only be cancelled.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable
from itertools import count
from typing import Final

logger: Final = logging.getLogger("hubbub")

_SLACK = 64  # cancelled timers that are not worth rebuilding a heap for
_EARLY_S = 0.001  # the most by which a loop may call too early: uvloop rounds times to milliseconds


class Timer:
    """A scheduled call."""

    __slots__ = ("_timers", "action", "when")

    def __init__(self, when: float, action: Callable[[], None], timers: Timers) -> None:
        self.when: float = when
        self.action: Callable[[], None] | None = action
        self._timers = timers

    def cancel(self) -> None:
        """Cancels the call. Idempotent."""
        if self.action is not None:
            self.action = None
            self._timers.forget_one()


class Timers:
    """Calls plain functions after a delay. Bound to an event loop from `start` to `stop`."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._sequence = count()
        self._cancelled = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handle: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def stop(self) -> None:
        """Drops all scheduled calls."""
        if self._handle is not None:
            self._handle.cancel()
        self._heap.clear()
        self._loop = self._handle = None

    def call_later(self, delay_s: float, action: Callable[[], None]) -> Timer:
        """Calls ``action`` after ``delay_s`` seconds. If it raises, the exception is logged."""
        assert self._loop is not None, "the timers are not started"
        timer = Timer(self._loop.time() + delay_s, action, self)
        heapq.heappush(self._heap, (timer.when, next(self._sequence), timer))
        if self._heap[0][2] is timer:
            self._arm()
        return timer

    def forget_one(self) -> None:
        """Counts a cancelled timer. When about half of them are cancelled, rebuilds the heap without them."""
        self._cancelled += 1
        if self._cancelled > _SLACK + len(self._heap) // 2:
            self._heap = [entry for entry in self._heap if entry[2].action is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def __len__(self) -> int:
        return sum(timer.action is not None for _, _, timer in self._heap)

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        while self._heap and self._heap[0][2].action is None:
            heapq.heappop(self._heap)
        if self._heap and self._loop is not None:
            self._handle = self._loop.call_at(self._heap[0][0], self._fire)

    def _fire(self) -> None:
        assert self._loop is not None
        self._handle = None
        now = self._loop.time()
        if self._heap and 0.0 < self._heap[0][0] - now < _EARLY_S:
            # A loop that is asked for the rest of the millisecond would call in each of its passes until then.
            self._handle = self._loop.call_at(now + _EARLY_S, self._fire)
            return
        while self._heap and self._heap[0][0] <= now:
            timer = heapq.heappop(self._heap)[2]
            action, timer.action = timer.action, None
            if action is not None:
                try:
                    action()
                except Exception:
                    logger.exception("a timer's action failed")
        self._arm()
