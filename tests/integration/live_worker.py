"""A worker of `Live` that is a process of its own, so that it can be killed.

As a program it is such a worker: ``python -m tests.integration.live_worker DESCRIPTOR URL``, with a bound socket.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import uvicorn

from tests.integration.fleet import WorkerProcess
from tests.integration.live import KEY, KEY_VARIABLE, Live


class LiveProcess(WorkerProcess):
    """A worker with the app of `Live`, which takes the tokens of this process."""

    program: ClassVar[str] = "tests.integration.live_worker"
    environment: ClassVar[Mapping[str, str]] = {KEY_VARIABLE: KEY.hex()}


@contextmanager
def live_process(url: str, folder: Path) -> Iterator[LiveProcess]:
    worker = LiveProcess(url, folder)
    try:
        yield worker
    finally:
        worker.kill()


def main() -> None:
    descriptor, url = sys.argv[1:]
    config = uvicorn.Config(Live(url).app, timeout_graceful_shutdown=5)
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(descriptor))])


if __name__ == "__main__":
    main()
