"""Measures for how long the event loop is blocked, if HUBBUB_BENCH_TICKER is set; otherwise it costs nothing."""

import asyncio
import os
import time
from itertools import count

from fastapi import FastAPI

_EVERY_S = 0.001


class _Ticker:
    def __init__(self) -> None:
        self._longest_s = 0.0
        self._task: asyncio.Task[None] | None = None

    async def longest(self) -> dict[str, float]:
        """Returns the longest time since the last call. The first call starts the measurement."""
        if self._task is None:
            self._task = asyncio.create_task(self._tick())
        longest_s, self._longest_s = self._longest_s, 0.0
        return {"loop_ms": longest_s * 1000}

    async def _tick(self) -> None:
        at = time.perf_counter()
        for _ in count():
            await asyncio.sleep(_EVERY_S)
            now = time.perf_counter()
            self._longest_s = max(self._longest_s, now - at - _EVERY_S)
            at = now


def watch(app: FastAPI) -> None:
    """Adds a route that returns for how long the app's event loop was blocked."""
    if os.environ.get("HUBBUB_BENCH_TICKER"):
        app.get("/loop")(_Ticker().longest)
