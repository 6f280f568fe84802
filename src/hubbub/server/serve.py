"""uvicorn with a bounded shutdown: a signal first drains the open sockets, and then the process ends in time."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from multiprocessing.connection import wait
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from uvicorn.config import LOGGING_CONFIG, STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from .draining import ECHO_S, Drain

if TYPE_CHECKING:
    from uvicorn.supervisors.multiprocess import Process

logger: Final = logging.getLogger("hubbub")

GRACEFUL_S: Final = 5
"""Seconds that open HTTP requests have after the sockets are drained."""

_SHUTDOWN_TIMEOUT_S = 20.0
"""Seconds that a server has for its shutdown: `GRACEFUL_S`, its lifespan, its threads."""

WORKER_HEALTHCHECK_S: Final = 30
"""Seconds in which a worker has to answer its supervisor. uvicorn's default, 5, replaces workers that are just busy."""

_WORKER_TIMEOUT_S = 30.0
"""Seconds after the drain in which a healthy worker ends: the limits of its managers, requests, its lifespan."""


class Config(uvicorn.Config):
    """uvicorn's settings, and those of the drain. Each worker receives a copy, and calls `load` first in its loop.

    Args:
        app: The app, as ``"module:attribute"``.
        drain_s: Seconds over which the closes are spread.
        log_level: The log level of uvicorn and of hubbub.
        timeout_worker_healthcheck: Seconds in which a worker has to answer its supervisor, or is replaced.
        options: The settings of uvicorn.
    """

    def __init__(
        self,
        app: str,
        *,
        drain_s: float,
        log_level: str = "info",
        timeout_worker_healthcheck: int = WORKER_HEALTHCHECK_S,
        **options: Any,
    ) -> None:
        self.drain_s = drain_s
        super().__init__(
            app,
            log_level=log_level,
            log_config=_logging(log_level),
            timeout_graceful_shutdown=GRACEFUL_S,
            timeout_worker_healthcheck=timeout_worker_healthcheck,
            **options,
        )

    def load(self) -> None:
        """Loads the app, and begins a `Drain`: the server has installed its signal handlers by now."""
        super().load()
        Drain(self.drain_s, echo_s=ECHO_S if self.workers > 1 else 0.0).begin()


class Server(uvicorn.Server):
    """uvicorn's server, with a timeout for its shutdown. uvicorn's own waits for threads without a limit."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shuts down. If that takes too long, the process ends anyway."""
        watch = threading.Timer(_SHUTDOWN_TIMEOUT_S, _give_up)
        watch.daemon = True
        watch.start()
        await super().shutdown(sockets)


class End(threading.Event):
    """Set at the end, and as soon as a signal to end is in the queue, so that a restart does not delay the end.

    Args:
        signals: The queue of the signals that are not handled yet.
    """

    def __init__(self, signals: Sequence[int]) -> None:
        super().__init__()
        self._signals = signals

    def is_set(self) -> bool:
        """Whether to stop what is being done."""
        return super().is_set() or signal.SIGTERM in self._signals or signal.SIGINT in self._signals


class Supervisor(Multiprocess):
    """uvicorn's supervisor, except that waiting for workers reacts to signals and has a timeout.

    uvicorn's reacts to no signal while it waits for a worker to start, to answer a ping, or to end.
    """

    config: Config

    def __init__(self, config: Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self.should_exit: End = End(self.signal_queue)

    def keep_subprocess_alive(self) -> None:
        """Replaces workers that have ended, or have not answered in time. A signal ends the wait for an answer."""
        if self.should_exit.is_set():
            return
        answers = [self._answers(process) for process in self.processes]
        if not all(answers) and not self.signal_queue:
            super().keep_subprocess_alive()

    def _answers(self, process: Process) -> bool:
        """Pings a worker. Returns False if it has ended, or is killed because no answer came in time."""
        deadline = time.monotonic() + self.config.timeout_worker_healthcheck
        try:
            process.parent_conn.send(b"ping")
            while not process.parent_conn.poll(0.1):
                if self.signal_queue:
                    return True
                if time.monotonic() > deadline:
                    logger.error(
                        "worker %d has not answered for %g s: replacing it",
                        process.pid,
                        self.config.timeout_worker_healthcheck,
                    )
                    process.kill()
                    return False
            process.parent_conn.recv()
        except (OSError, EOFError):  # it has ended
            return False
        return True

    def join_all(self) -> None:
        """Waits for the workers to end. Forwards signals to them, and kills a worker that hangs."""
        deadline = time.monotonic() + self.config.drain_s + _WORKER_TIMEOUT_S
        while running := [each.process for each in self.processes if each.process.is_alive()]:
            signals = [self.signal_queue.pop() for _ in range(len(self.signal_queue))]
            if signal.SIGINT in signals or signal.SIGTERM in signals:
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
            signal.signal(number, signal.SIG_IGN)  # a late signal must not turn a clean end into a failure
        return STARTUP_FAILURE if any(each.exitcode == STARTUP_FAILURE for each in supervisor.processes) else 0
    # uvicorn sends itself the signal again after its shutdown. That is no failure, so the exit code is 0.
    signal.signal(signal.SIGTERM, _end)
    if hasattr(signal, "SIGHUP"):  # the terminal was closed
        signal.signal(signal.SIGHUP, lambda number, frame: signal.raise_signal(signal.SIGTERM))
    server = Server(config)
    with suppress(KeyboardInterrupt):
        server.run()
    return 0 if server.started else STARTUP_FAILURE


def _give_up() -> None:
    logger.error("the server did not shut down in %g s: does a thread hang? Ending the process", _SHUTDOWN_TIMEOUT_S)
    os._exit(1)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def _logging(level: str) -> dict[str, Any]:
    """Returns uvicorn's logging configuration, extended by the same for hubbub."""
    ours = {"handlers": ["default"], "level": level.upper(), "propagate": False}
    loggers: Mapping[str, Any] = LOGGING_CONFIG["loggers"]
    return {**LOGGING_CONFIG, "loggers": {**loggers, "hubbub": ours}}
