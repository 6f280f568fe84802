"""uvicorn as sockets need it: it drains when it is told to end, and then ends in bounded time."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from multiprocessing.connection import wait
from types import FrameType
from typing import Any, Final

import uvicorn
from uvicorn.config import LOGGING_CONFIG, STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from .draining import ECHO_S, Drain

logger: Final = logging.getLogger("hubbub")

GRACEFUL_S: Final = 5
"""Seconds that requests have once the sockets are drained."""

_LAST_S = 20.0
"""Seconds in which a server ends that has closed its sockets: `GRACEFUL_S`, its lifespan, its threads."""

_REST_S = 30.0
"""Seconds after the drain in which a worker that works ends: the limits of its managers, requests, its lifespan."""


class Config(uvicorn.Config):
    """uvicorn's settings and the drain. The workers get it as it is, and `load` is what each begins with in its loop.

    Args:
        app: The app, as ``"module:attribute"``.
        drain_s: Seconds to spread the closes over.
        log_level: The least that is logged, of uvicorn and of hubbub.
        options: uvicorn's own.
    """

    def __init__(self, app: str, *, drain_s: float, log_level: str = "info", **options: Any) -> None:
        self.drain_s = drain_s
        super().__init__(
            app,
            log_level=log_level,
            log_config=_logging(log_level),
            timeout_graceful_shutdown=GRACEFUL_S,
            **options,
        )

    def load(self) -> None:
        """Loads the app, and stands before the handlers of the server, which has taken the signals by now."""
        super().load()
        Drain(self.drain_s, echo_s=ECHO_S if self.workers > 1 else 0.0).begin()


class Server(uvicorn.Server):
    """uvicorn's, which at its end waits for threads without end."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shuts down, and sees to it that the process ends then."""
        watch = threading.Timer(_LAST_S, _give_up)
        watch.daemon = True
        watch.start()
        await super().shutdown(sockets)


class Supervisor(Multiprocess):
    """uvicorn's, which waits for its workers without an ear for signals, nor an end."""

    config: Config

    def join_all(self) -> None:
        """Waits for the workers. Signals go on to them, and hasten; who hangs is killed."""
        deadline = time.monotonic() + self.config.drain_s + _REST_S
        while running := [each.process for each in self.processes if each.process.is_alive()]:
            heard = [self.signal_queue.pop() for _ in range(len(self.signal_queue))]
            if signal.SIGINT in heard or signal.SIGTERM in heard:
                for process in running:
                    process.terminate()
            if time.monotonic() > deadline:
                for process in running:
                    process.kill()
            wait([process.sentinel for process in running], timeout=0.1)
        super().join_all()


def serve(config: Config) -> int:
    """Serves until a signal ends it.

    Returns:
        The exit code.
    """
    if config.workers > 1:
        with closing(config.bind_socket()) as listener:
            supervisor = Supervisor(config, [listener])
            supervisor.run()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # it has ended: a late word would make a failure of it
        return STARTUP_FAILURE if any(each.exitcode == STARTUP_FAILURE for each in supervisor.processes) else 0
    # uvicorn sends itself the signal again when it has ended: to have obeyed is no failure.
    signal.signal(signal.SIGTERM, _end)
    if hasattr(signal, "SIGHUP"):  # a terminal that was closed
        signal.signal(signal.SIGHUP, lambda number, frame: signal.raise_signal(signal.SIGTERM))
    server = Server(config)
    with suppress(KeyboardInterrupt):
        server.run()
    return 0 if server.started else STARTUP_FAILURE


def _give_up() -> None:
    logger.error("the server did not end in %g s: does a thread hang? Ending it as it is", _LAST_S)
    os._exit(1)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def _logging(level: str) -> dict[str, Any]:
    """Uvicorn's logging, and the same for hubbub."""
    ours = {"handlers": ["default"], "level": level.upper(), "propagate": False}
    loggers: Mapping[str, Any] = LOGGING_CONFIG["loggers"]
    return {**LOGGING_CONFIG, "loggers": {**loggers, "hubbub": ours}}
