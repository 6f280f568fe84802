"""A live dashboard: the metrics of the process that serves it, twice a second.

For a slow client, the room keeps only the latest sample (``overflow="latest"``), because outdated numbers are useless.
Samples are always taken, so that a new page shows the last minute. They are published only while a page is open.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import FastAPI

from .. import Connection, MessageRouter, Stats
from .live import manager

ROOM = f"dashboard:{secrets.token_hex(4)}"  # for this process only: each worker has its own numbers
INTERVAL_S = 0.5
_KEPT = 120


@dataclass(frozen=True)
class Sample:
    """The metrics of the server at one moment."""

    at_ms: int
    process: int
    connections: int
    users: int
    rooms: int
    published_per_s: float
    received_per_s: float
    cpu_percent: float
    memory_mb: float | None
    loop_delay_ms: float
    queued_bytes: int
    dropped: int
    slow: int
    stalled: int
    bad_messages: int
    refused: int
    fast_path_percent: float


@dataclass(frozen=True)
class LastMinute:
    """The latest samples, oldest first."""

    interval_s: float
    samples: list[Sample]


@dataclass(frozen=True)
class Reading:
    """Counters that only increase. The difference of two readings gives a rate."""

    stats: Stats
    cpu_s: float
    at_s: float

    @classmethod
    def now(cls) -> Reading:
        """Reads the counters."""
        return cls(manager.stats(), time.process_time(), time.perf_counter())


samples: deque[Sample] = deque(maxlen=_KEPT)


def sample(before: Reading, now: Reading, loop_delay_s: float) -> Sample:
    """Computes the metrics from two readings."""
    stats, elapsed_s = now.stats, now.at_s - before.at_s
    return Sample(
        at_ms=time.time_ns() // 1_000_000,
        process=os.getpid(),
        connections=stats.connections,
        users=stats.users,
        rooms=stats.rooms,
        published_per_s=round((stats.published - before.stats.published) / elapsed_s, 1),
        received_per_s=round((stats.received - before.stats.received) / elapsed_s, 1),
        cpu_percent=round(100 * (now.cpu_s - before.cpu_s) / elapsed_s, 1),
        memory_mb=memory_mb(),
        loop_delay_ms=round(1000 * loop_delay_s, 2),
        queued_bytes=stats.queued_bytes,
        dropped=stats.dropped,
        slow=stats.slow,
        stalled=stats.stalled,
        bad_messages=sum(stats.errors.values()),
        refused=sum(stats.refused.values()),
        fast_path_percent=round(100 * stats.fast_path, 1),
    )


def memory_mb() -> float | None:
    """Returns the memory of the process: current on Linux, the peak on other Unixes, None elsewhere."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
        return round(pages * resource.getpagesize() / 1e6, 1)
    except ImportError:
        return None
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return round(peak / 1e6 if sys.platform == "darwin" else peak / 1e3, 1)


async def measure() -> None:
    """Takes samples, and publishes them while a page is open."""
    loop = asyncio.get_running_loop()
    due, before = loop.time(), Reading.now()
    while True:
        due = max(due + INTERVAL_S, loop.time())
        await asyncio.sleep(due - loop.time())
        now = Reading.now()
        latest = sample(before, now, max(0.0, loop.time() - due))
        before = now
        samples.append(latest)
        if ROOM in manager.rooms:
            await manager.broadcast(latest, room=ROOM, key="sample")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Takes samples while the app runs. The manager starts before this lifespan and stops after it."""
    samples.clear()
    async with asyncio.TaskGroup() as tasks:
        measuring = tasks.create_task(measure(), name="demo: measure")
        yield
        measuring.cancel()


live: Final = MessageRouter()


@live.on("watch")
async def watch(connection: Connection) -> LastMinute:
    """Joins a page to the room of the process that serves it, and returns the samples so far."""
    await connection.join(ROOM)
    return LastMinute(INTERVAL_S, [*samples])
