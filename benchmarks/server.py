"""Starts a server as a separate process on its own core, and runs the load generator against it."""

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
    """A server did not start to listen. The text is its output."""


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
        command: The command that starts it.
        environment: Additions to the environment.
        beside: Whether it runs on the load generator's core, because it is not the server under test.

    Raises:
        DidNotStart: It ended, or did not listen in time.
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
    """Runs the load generator, and returns a result for each phase, up to the first that failed.

    Args:
        workers: The server, or several workers that share a Redis server.
        spec: The rest of the generator's specification.
        redis: The Redis server.
        timeout_s: The longest time that it may take.

    Raises:
        RuntimeError: The generator failed. The text says how.
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
    """Returns the number of files that a process may open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def _settle_in(beside: bool) -> None:
    """Sets up the server's process before exec: its core, its limits, and that it ends when this process does."""
    cores = _cores()
    os.sched_setaffinity(0, cores[1:2] if beside and len(cores) > 1 else cores[:1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files(), open_files()))
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _cores() -> list[int]:
    """Returns the available cores: the first is for the server, the second for the load generator."""
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
    """Kills a server and its child processes; the measurement is over."""
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
