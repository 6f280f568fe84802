"""How long the event loop is not free. Only where HUBBUB_BENCH_TICKER is set; else it costs nothing."""

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
        """The longest time since this was asked last; it begins when it is asked first."""
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
    """Adds a route that tells how long the app's event loop was not free."""
    if os.environ.get("HUBBUB_BENCH_TICKER"):
        app.get("/loop")(_Ticker().longest)
