"""Finds out about the server that runs the event loop: how many processes it runs, and whether it pings clients.

A server tells an app neither. With several workers on ``memory://`` messages are lost, and without pings users stay
online for ever. So that a warning can say so, this module looks up the server's settings in what the event loop runs.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from types import FrameType
from typing import Any


def sibling_workers() -> int:
    """The number of worker processes that the server was told to run, as far as it can be told; 1 where it can't be.

    Asks the settings of the server. Those of uvicorn, gunicorn's worker and hypercorn are found as what the loop's
    tasks run. Granian's event loop is started by a plain function: below it, in the stack, is either the server that
    forked this process, or only the number of this worker, which is at least how many there are. A server that
    reloads on changes runs one process, whatever it was told.
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


def missing_pings() -> str | None:
    """Why nobody notices a client that vanished, and what to set; None if the server does, or that can't be told."""
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
                "hypercorn sends no WebSocket pings: give it --websocket-ping-interval 20 (it waits for no pong: TCP "
                "notices, on Linux after about 15 minutes)"
            )
    if next(_granians(), None) is not None:
        return "granian sends no WebSocket pings, and has no setting for it"
    return None


def _settings() -> Iterator[object]:
    """Objects that may be a server, or its settings."""
    for task in asyncio.all_tasks():
        frame: Any = getattr(task.get_coro(), "cr_frame", None)
        if frame is not None:
            for owner in (frame.f_locals.get("self"), frame.f_locals.get("config")):
                yield from (owner, getattr(owner, "config", None), getattr(owner, "cfg", None))
    for frame in _granians():
        yield frame.f_locals.get("self")


def _granians() -> Iterator[FrameType]:
    """The frames of granian that the event loop runs in."""
    frame = inspect.currentframe()
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith("granian."):
            yield frame
        frame = frame.f_back
