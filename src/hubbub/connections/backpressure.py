"""A burst of the app is not slowness of a client: a sender of much at once gives its clients time to read.

No call waits for a socket. But an app that sends a thousand messages without a pause would fill the outbox of a client
that reads as fast as it can. Such a sender pauses while what waits *moves*. It does not wait for a client that has
taken nothing for `STILL_S`, and its pauses have a budget of a few seconds, which refills slowly: no sender adapts to
the slowest client for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final, Protocol

PAUSE_S: Final = 0.005
STILL_S: Final = 0.2
"""A few round trips of a phone: a client that has taken nothing for so long is not waited for until it takes again."""
PATIENCE_S: Final = 5.0
EARNED: Final = 0.1
"""Patience earned per second: half a minute of pauses in five minutes."""


class Queue(Protocol):
    """What may have much waiting."""

    @property
    def congested(self) -> bool: ...

    def stalled_for(self, now: float) -> float: ...


class Patience:
    """How long one sender has paused, and may."""

    __slots__ = ("_at", "left_s")

    def __init__(self) -> None:
        self.left_s: float = PATIENCE_S
        self._at = asyncio.get_running_loop().time()

    async def pause_for(self, queues: Iterable[Queue]) -> None:
        """Pauses while any of these queues is congested and moves."""
        clock = asyncio.get_running_loop().time
        now = clock()
        lagging = _moving(queues, now)
        if not lagging:
            return
        self.left_s = min(PATIENCE_S, self.left_s + (now - self._at) * EARNED)
        self._at = now
        while lagging and self.left_s > 0:
            self.left_s -= PAUSE_S
            await asyncio.sleep(PAUSE_S)
            lagging = _moving(lagging, clock())


def _moving(queues: Iterable[Queue], now: float) -> list[Queue]:
    return [queue for queue in queues if queue.congested and queue.stalled_for(now) < STILL_S]
