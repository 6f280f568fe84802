"""Straight to uvicorn's transport: no coroutine, no ASGI event, no second framing.

Theory of operation. A middleware gets a bound method of uvicorn's protocol object as ``send``; ``send.__self__`` is
that object, and it holds the asyncio transport. Uvicorn builds and writes each of its own frames (messages of the app,
pongs, Close) in one synchronous step and never fragments, so that frames written between two of its steps land on frame
boundaries.

What has to hold at each write, checked in the same step (no await between):

* The WebSocket is open: past a Close frame no data may follow (RFC 6455 section 5.5.1).
* The transport is not closing: after ``close()`` asyncio would append behind the Close frame, and uvloop raises.
* The protocol is not paused (``writable`` is set), or memory grows without a bound. On a lost connection uvicorn *sets*
  ``writable``: only ``is_closing()`` tells.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from .base import Event, ServerSend, Transport

_HIGH_WATER = 64 * 1024
_LOW_WATER = 16 * 1024


class _WebSocketState(Protocol):
    name: str


class _Close(Protocol):
    code: int


class _ServerProtocol(Protocol):
    close_sent: _Close | None

    @property
    def state(self) -> _WebSocketState: ...


class UvicornProtocol(Protocol):
    """What is used of uvicorn's ``WebSocketsSansIOProtocol``."""

    transport: asyncio.Transport
    writable: asyncio.Event
    conn: _ServerProtocol


def protocol_of(send: ServerSend) -> UvicornProtocol | str:
    """Finds uvicorn's protocol behind an ASGI ``send``.

    Returns:
        The protocol, or the reason why there is none.
    """
    owner: Any = getattr(send, "__self__", None)
    if owner is None:
        return (
            "another middleware wraps send"
            if hasattr(send, "__wrapped__") or "<locals>" in repr(send)
            else "unknown server"
        )
    cls = type(owner)
    if cls.__module__ != "uvicorn.protocols.websockets.websockets_sansio_impl":
        return f"{cls.__module__}.{cls.__qualname__} is not uvicorn's default WebSocket protocol"
    transport, writable = getattr(owner, "transport", None), getattr(owner, "writable", None)
    state = getattr(getattr(owner, "conn", None), "state", None)
    if not isinstance(writable, asyncio.Event) or not hasattr(transport, "get_write_buffer_size") or state is None:
        return "this version of uvicorn is not known to work"
    protocol: UvicornProtocol = owner
    return protocol


class UvicornTransport(Transport):
    """Writes to the transport under uvicorn's WebSocket protocol."""

    __slots__ = ("_protocol", "_send", "_transport", "_writable")

    name = "uvicorn"

    def __init__(self, protocol: UvicornProtocol, send: ServerSend) -> None:
        self._protocol = protocol
        self._transport = protocol.transport
        self._writable = protocol.writable
        self._send = send
        # uvloop's own low-water mark is 16 bytes: it would resume only when next to nothing is left.
        self._transport.set_write_buffer_limits(high=_HIGH_WATER, low=_LOW_WATER)

    def write(self, data: bytes) -> bool:
        if not self._writable.is_set() or not self._open:
            return False
        self._transport.write(data)
        return True

    async def write_soon(self, data: bytes) -> None:
        await self._writable.wait()
        if not self._open:
            raise ConnectionResetError("the socket is gone")
        self._transport.write(data)

    async def send(self, event: Event) -> None:
        if self._transport.is_closing():
            raise ConnectionResetError("the socket is gone")  # where uvicorn would raise RuntimeError
        await self._send(event)

    @property
    def buffered(self) -> int:
        return self._transport.get_write_buffer_size()

    @property
    def closing(self) -> bool:
        return self._transport.is_closing()

    @property
    def restarting(self) -> bool | None:
        sent = self._protocol.conn.close_sent
        return sent is not None and sent.code == 1012

    def abort(self) -> None:
        self._transport.abort()

    @property
    def _open(self) -> bool:
        return not self._transport.is_closing() and self._protocol.conn.state.name == "OPEN"
