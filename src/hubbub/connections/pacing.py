"""Pauses a sender in a burst, so that clients have time to read.

No call waits for a socket. But an app that sends a thousand messages without a pause would fill the outbox of even the
fastest client. Such a sender pauses while the outboxes keep *moving*. It does not wait for a client that has taken
nothing for `STILL_S`. The pauses also have a budget of a few seconds that refills slowly, so a slow client can't slow
down a sender for long.

A pause counts as `PAUSE_S`, however long it took. On a machine that is short of CPU a pause takes longer, and so does
everything that a client on that machine does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from math import inf
from typing import Final, Protocol

PAUSE_S: Final = 0.005
STILL_S: Final = 0.2
"""After this time without progress, a sender no longer waits for a client. It is a few round trips of a phone."""
PATIENCE_S: Final = 5.0
EARNED: Final = 0.1
"""Budget regained per second: half a minute of pauses in five minutes."""


class Queue(Protocol):
    """A queue of outgoing frames, as seen by a sender."""

    @property
    def congested(self) -> bool: ...

    def stalled_for(self, now: float) -> float: ...


class Patience:
    """The budget of pauses of one sender."""

    __slots__ = ("_at", "left_s")

    def __init__(self) -> None:
        self.left_s: float = PATIENCE_S
        self._at = asyncio.get_running_loop().time()

    async def pause_for(self, queues: Iterable[Queue]) -> None:
        """Pauses while one of these queues is congested and moving, and the budget lasts."""
        clock = asyncio.get_running_loop().time
        now = clock()
        lagging = _moving(((queue, inf) for queue in queues), now)
        if not lagging:
            return
        self.left_s = min(PATIENCE_S, self.left_s + (now - self._at) * EARNED)
        self._at = now
        while lagging and self.left_s > 0:
            self.left_s -= PAUSE_S
            await asyncio.sleep(PAUSE_S)
            lagging = _moving(((queue, still_s + PAUSE_S) for queue, still_s in lagging), clock())


def _moving(queues: Iterable[tuple[Queue, float]], now: float) -> list[tuple[Queue, float]]:
    """Returns the congested queues that move, each with the seconds since it moved; with the most that it may be."""
    stalled = [(queue, min(queue.stalled_for(now), most_s)) for queue, most_s in queues if queue.congested]
    return [(queue, still_s) for queue, still_s in stalled if still_s < STILL_S]
