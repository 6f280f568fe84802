"""Measures a period: CPU as the operating system reports it, and latencies of the sampled clients."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import nan

import psutil

_QUIET_CPU_S = 0.015  # a little more than a tick of the CPU accounting


class Meter:
    """Measures from its creation to `stop`.

    Args:
        server: The server's process. Its child processes are included.
        delivered: Returns the number of messages that have arrived so far.
        latencies: The list to which latencies are appended while it measures, in seconds.
        redis: The Redis server on the load generator's core.
    """

    def __init__(
        self,
        server: psutil.Process,
        delivered: Callable[[], int],
        latencies: list[float],
        redis: psutil.Process | None = None,
    ) -> None:
        self._server, self._delivered, self._latencies, self._redis = server, delivered, latencies, redis
        latencies.clear()
        self._before = delivered()
        self._redis_s = 0.0 if redis is None else cpu_s(redis)
        self._at, self._own_s, self._server_s = time.perf_counter(), time.process_time(), cpu_s(server)

    def stop(self) -> dict[str, float]:
        """Returns the measurements: CPU in µs per delivery, shares of a core, latencies in ms."""
        wall_s, own_s = time.perf_counter() - self._at, time.process_time() - self._own_s
        server_s = cpu_s(self._server) - self._server_s
        deliveries = self._delivered() - self._before
        latencies = sorted(self._latencies)
        redis = {} if self._redis is None else {"redis_busy": (cpu_s(self._redis) - self._redis_s) / wall_s}
        return {
            "deliveries": deliveries,
            "per_s": deliveries / wall_s,
            "server_cpu_s": server_s,
            "cpu_us": server_s / deliveries * 1e6 if deliveries else nan,
            "server_busy": server_s / wall_s,
            "load_busy": own_s / wall_s,
            **redis,
            "p50_ms": quantile(latencies, 0.5) * 1000,
            "p99_ms": quantile(latencies, 0.99) * 1000,
            "max_ms": latencies[-1] * 1000 if latencies else nan,
        }


def family(process: psutil.Process) -> list[psutil.Process]:
    """Returns a process and its child processes."""
    return [process, *process.children(recursive=True)]


def cpu_s(process: psutil.Process) -> float:
    """Returns the CPU seconds of a process and its children. An ended child does not count; servers keep theirs."""
    total = 0.0
    for each in family(process):
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def settled(process: psutil.Process, quiet_s: float = 0.3, timeout_s: float = 20.0) -> float:
    """Waits until a server is idle. Returns the CPU seconds that it has used."""
    deadline = time.perf_counter() + timeout_s
    used_s = cpu_s(process)
    while time.perf_counter() < deadline:
        time.sleep(quiet_s)
        before, used_s = used_s, cpu_s(process)
        if used_s - before <= _QUIET_CPU_S:
            break
    return used_s


def quantile(ordered: Sequence[float], share: float) -> float:
    """Returns the value below which a share of the values lies."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else nan
