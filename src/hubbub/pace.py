"""A burst of the app is not slowness of a client: what publishes much at once gives it time to be read.

No call waits for a socket. But an app that sends a thousand messages without a pause would fill the outbox of a client
that reads as fast as it can. So such a sender pauses a little while what waits *moves*: not for a client that does not
read, and in all for not more than a few seconds, which are earned back slowly. Nobody adapts to the slowest for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final, Protocol

PAUSE_S: Final = 0.005
MAX_STILL: Final = 4
"""Pauses in which nothing moved, after which nobody is waited for."""
PATIENCE_S: Final = 5.0
EARNED: Final = 0.1
"""Patience earned per second: half a minute of pauses in five minutes."""


class Queue(Protocol):
    """What may have much waiting."""

    @property
    def waiting_bytes(self) -> int: ...

    @property
    def congested(self) -> bool: ...


class Patience:
    """How long one sender has paused, and may."""

    __slots__ = ("_at", "left_s")

    def __init__(self) -> None:
        self.left_s = PATIENCE_S
        self._at = asyncio.get_running_loop().time()

    async def pause_for(self, queues: Iterable[Queue]) -> None:
        """Pauses while those that are congested get on."""
        lagging = [queue for queue in queues if queue.congested]
        if not lagging:
            return
        now = asyncio.get_running_loop().time()
        self.left_s = min(PATIENCE_S, self.left_s + (now - self._at) * EARNED)
        self._at = now
        least, still = sum(queue.waiting_bytes for queue in lagging), 0
        while lagging and self.left_s > 0 and still < MAX_STILL:
            self.left_s -= PAUSE_S
            await asyncio.sleep(PAUSE_S)
            lagging = [queue for queue in lagging if queue.congested]
            waiting = sum(queue.waiting_bytes for queue in lagging)
            still = 0 if waiting < least else still + 1
            least = min(least, waiting)
