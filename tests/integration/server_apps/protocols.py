"""WebSocket protocols for ``uvicorn --ws module:Class`` that are not quite uvicorn's own."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from uvicorn.protocols.websockets import auto
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class Derived(WebSocketsSansIOProtocol):
    """Somebody's own."""


class Gate:
    """Does what uvicorn needs of an `asyncio.Event`, and is none."""

    def __init__(self) -> None:
        event = asyncio.Event()
        event.set()
        self.set, self.clear, self.wait = event.set, event.clear, event.wait


class Changed(WebSocketsSansIOProtocol):
    """As of another version of uvicorn: the name is the same, what is inside is not."""

    __module__ = WebSocketsSansIOProtocol.__module__

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.writable: Any = Gate()


if "Changed" in " ".join(sys.argv):  # that is the one which this uvicorn has
    auto.AutoWebSocketsProtocol = Changed
