"""Starts a server as a process of its own, on a core of its own, and runs the load generator against it."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import psutil

from .meter import family

ROOT = Path(__file__).parent.parent

_START_S = 30.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


class DidNotStart(Exception):
    """A server did not come to listen; says what it wrote."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that listens."""

    port: int
    pid: int


@contextmanager
def serving(
    command: Sequence[str], environment: Mapping[str, str] | None = None, *, beside: bool = False
) -> Iterator[Running]:
    """Runs a command that serves on ``{port}``, until the block ends.

    Args:
        command: What starts it.
        environment: What is added to the environment.
        beside: Run it on the load generator's core: it is not what is measured.

    Raises:
        DidNotStart: It ended, or nobody listens in time.
    """
    port = _free_port()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [part.replace("{port}", str(port)) for part in command],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=partial(_settle_in, beside),
        )
        try:
            _wait(process, port, output)
            yield Running(port, process.pid)
        finally:
            _end(process)


def load(
    workers: Sequence[Running], spec: Mapping[str, Any], redis: Running | None = None, timeout_s: float = 900.0
) -> list[dict[str, Any]]:
    """Runs the load generator; gives a result for each phase, up to one that failed.

    Args:
        workers: The server; or several that share a Redis.
        spec: What the generator is told besides.
        redis: That Redis.
        timeout_s: How long it may take.

    Raises:
        RuntimeError: It failed; says how.
    """
    whole = {
        "ports": [each.port for each in workers],
        "pid": workers[0].pid,
        "redis": redis and redis.pid,
        "core": _cores()[1] if len(_cores()) > 1 else None,
        **spec,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.phases"],
            input=json.dumps(whole),
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"the load generator did not end in {timeout_s:.0f} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"status {done.returncode}, and says nothing"]
        raise RuntimeError(f"the load generator ended with {said[-1][:400]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def open_files() -> int:
    """How many sockets a process of ours may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def _settle_in(beside: bool) -> None:
    """In the server's process, before it is one: its core, its limits, and its end where ours is."""
    cores = _cores()
    os.sched_setaffinity(0, cores[1:2] if beside and len(cores) > 1 else cores[:1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files(), open_files()))
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _cores() -> list[int]:
    """What we may run on: the first is the server's, the second the load generator's."""
    return sorted(os.sched_getaffinity(0))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], port: int, output: IO[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                output.seek(0)
                said = output.read()[-800:].decode(errors="replace").strip()
                raise DidNotStart(said.splitlines()[-1] if said else "it says nothing") from None
            time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a server and what it started: measured is measured, so at once."""
    try:
        members = family(psutil.Process(process.pid))
    except psutil.NoSuchProcess:
        members = []
    for each in members:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            pass
    process.wait(10)
