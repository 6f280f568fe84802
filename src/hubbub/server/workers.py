"""Warns if the server runs several workers without a broker that connects them, or does not ping clients.

A server tells an app neither. But several workers on ``memory://`` lose messages, and without pings, users who vanished
stay online. To warn of that, this module looks for the server's settings in the tasks and frames of the event loop.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final

from ..brokers import Broker

logger: Final = logging.getLogger("hubbub")


def warn_of_server(broker: Broker, *, idle_timeout_s: float | None) -> None:
    """Logs a warning if the server's settings make hubbub lose messages, or keep users online who vanished."""
    workers = sibling_workers()
    if workers > 1 and not broker.distributed:
        logger.warning(
            "%d workers on %s://: each one knows only its own clients. Messages that one worker publishes are LOST for "
            "the clients of the others, and presence and history are wrong. Run one worker, or let them share a Redis: "
            'ConnectionManager("redis://localhost")',
            workers,
            broker.name,
        )
    pings = missing_pings() if idle_timeout_s is None else None
    if pings is not None:
        logger.warning(
            "a client that vanishes, such as a closed laptop, stays connected and online: %s. Or let your clients send "
            "something regularly, and set Limits(idle_timeout_s=60)",
            pings,
        )


def sibling_workers() -> int:
    """Returns the number of worker processes that the server is configured to run; 1 if that is unknown.

    The settings of uvicorn, of gunicorn's worker and of hypercorn are found in the loop's tasks. A plain function
    starts granian's event loop. The stack below it has either the server that forked this process, or only the number
    of this worker, which is a lower bound. A server that reloads on changes runs one process, whatever its settings.
    """
    most = 1
    for settings in _settings():
        workers = getattr(settings, "workers", None)
        if isinstance(workers, int) and not getattr(settings, "reload", False):
            most = max(most, workers)
    for frame in _granians():
        number = frame.f_locals.get("worker_id")
        if isinstance(number, int):
            most = max(most, number)
    return most


def reloads() -> bool:
    """Returns whether the server reloads the app on changes, as developers let it do."""
    return any(
        getattr(settings, name, False) is True for settings in _settings() for name in ("reload", "use_reloader")
    )


def missing_pings() -> str | None:
    """Returns why the server does not notice clients that vanish, and what to set; None if it does, or is unknown."""
    for settings in _settings():
        if hasattr(settings, "ws_ping_interval"):  # uvicorn's
            if "wsproto" in getattr(getattr(settings, "ws_protocol_class", None), "__module__", ""):
                return "uvicorn sends no WebSocket pings with wsproto: install websockets, and leave out --ws wsproto"
            if not settings.ws_ping_interval:
                return "uvicorn sends no WebSocket pings: leave out --ws-ping-interval, or give it 20"
            if getattr(settings, "ws_ping_timeout", 0) is None:
                return "uvicorn does not wait for pongs: leave out --ws-ping-timeout, or give it 20"
            return None
        if hasattr(settings, "websocket_ping_interval"):  # hypercorn's
            if settings.websocket_ping_interval:
                return None
            return (
                "hypercorn sends no WebSocket pings: give it --websocket-ping-interval 20 (it does not wait for pongs, "
                "but TCP notices a client that vanished, on Linux after about 15 minutes)"
            )
    if next(_granians(), None) is not None:
        return "granian sends no WebSocket pings, and has no setting for it"
    return None


def _settings() -> Iterator[object]:
    """Yields objects that may be a server or its settings."""
    for task in asyncio.all_tasks():
        frame: Any = getattr(task.get_coro(), "cr_frame", None)
        if frame is not None:
            for owner in (frame.f_locals.get("self"), frame.f_locals.get("config")):
                yield from (owner, getattr(owner, "config", None), getattr(owner, "cfg", None))
    for frame in _granians():
        yield frame.f_locals.get("self")


def _granians() -> Iterator[FrameType]:
    """Yields the frames of granian in which the event loop runs."""
    frame = inspect.currentframe()
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith("granian."):
            yield frame
        frame = frame.f_back
