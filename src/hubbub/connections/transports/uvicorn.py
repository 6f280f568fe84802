"""Writes frames directly to the socket under uvicorn: no coroutine, no ASGI event, no second framing.

Theory of operation. Uvicorn passes a bound method of its protocol object as ``send``. So ``send.__self__`` is that
object, and it holds the asyncio transport. Uvicorn builds and writes each of its own frames (messages of the app,
pongs, Close) in one synchronous step and never fragments. So a frame that is written between two such steps lands on a
frame boundary. `hubbub.connections.transports.trial` first tests that the installed version does so.

Each write depends on these conditions, and checks them in the same step, with no await in between:

* No Close frame was sent, not even in answer to the client's, because no data may follow one (RFC 6455 section 5.5.1).
  Uvicorn closes the transport in the same step in which it sends a Close. The only exception is a Close from the app.
  That one goes through `send`, and this transport is held before.
* The transport is not closing. After ``close()``, asyncio would append data behind the Close frame, and uvloop raises.
* The protocol is not paused (``writable`` is set); otherwise memory would grow without a bound. When a connection is
  lost, uvicorn *sets* ``writable``, so only ``is_closing()`` shows the loss.

A plain TCP transport with an empty buffer adds nothing to a write, so the write goes directly to the file descriptor.
The transport takes what the socket does not. Such a write depends on two more conditions, checked in the same step:

* The transport's buffer is empty; otherwise the write would land inside a frame whose rest is in the buffer.
* The transport is not closing, because it then closes the descriptor, and the number may belong to another client.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from math import inf
from typing import Any, Final, Protocol

from websockets.exceptions import PayloadTooBig
from websockets.server import ServerProtocol

from ...errors import shown
from .base import Event, ServerReceive, ServerSend, Transport
from .inbound import SLACK_BYTES, Inbound, Intake, watched
from .ping import OpenPing, pingable

_HIGH_WATER = 64 * 1024
_write: Final = os.write
_TRANSPORTS: Final = {"asyncio.selector_events", "uvloop.loop"}

_PARSER: Final = ServerProtocol()
_MAX_SIZE: Final = "max_message_size" if hasattr(_PARSER, "max_message_size") else "max_size"  # before websockets 16
_CURRENT_SIZE: Final = "current_size" if hasattr(_PARSER, "current_size") else "cur_size"


class UvicornProtocol(Protocol):
    """The part of uvicorn's ``WebSocketsSansIOProtocol`` that direct writes use."""

    transport: asyncio.Transport
    writable: asyncio.Event
    conn: ServerProtocol
    read_paused: bool


def flaw_in_parts(protocol: object) -> str | None:
    """Returns the first part of `UvicornProtocol` that a protocol lacks; None if it has all."""
    for name, kind in (("transport", asyncio.Transport), ("writable", asyncio.Event), ("conn", ServerProtocol)):
        part = getattr(protocol, name, None)
        # uvloop's transports do not inherit from asyncio.Transport.
        if not (isinstance(part, kind) or (name == "transport" and hasattr(part, "get_write_buffer_size"))):
            return f"its {name!r} is {shown(part)}, and not an {kind.__name__}" if part else f"it has no {name!r}"
    return None


def descriptor_of(transport: asyncio.Transport) -> int | None:
    """Returns the file descriptor for writes that bypass the transport; None if they are not safe, as under TLS."""
    if sys.platform == "win32" or type(transport).__module__ not in _TRANSPORTS:
        return None
    plain = transport.get_extra_info("socket")
    if plain is None or transport.get_extra_info("sslcontext") is not None:
        return None
    descriptor: int = plain.fileno()
    return descriptor if descriptor >= 0 else None


class UvicornTransport(Transport):
    """Writes directly to the socket of uvicorn's WebSocket protocol."""

    __slots__ = (
        "_conn",
        "_descriptor",
        "_direct",
        "_held",
        "_inbound",
        "_intake",
        "_protocol",
        "_send",
        "_server_max",
        "_transport",
        "_writable",
    )

    def __init__(self, protocol: UvicornProtocol, send: ServerSend) -> None:
        self._protocol = protocol
        self._conn = protocol.conn
        self._transport = protocol.transport
        self._writable = protocol.writable
        self._send = send
        self._held = False
        self._inbound: Inbound | None = None
        self._intake: Intake | None = None
        self._server_max: float | None = None
        self._descriptor = descriptor_of(protocol.transport)
        self._direct = self._descriptor  # the descriptor for direct writes; None while held

    def hold(self, held: bool) -> None:
        self._held = held
        self._direct = None if held else self._descriptor

    def set_high_water(self, max_bytes: int) -> None:
        # uvloop's own low-water mark is 16 bytes, so it would accept writes only when the buffer is almost empty.
        high = min(_HIGH_WATER, max_bytes)
        self._transport.set_write_buffer_limits(high=high, low=high // 4)

    def write(self, data: bytes) -> bool:
        descriptor, transport = self._direct, self._transport
        if descriptor is None or transport.is_closing() or transport.get_write_buffer_size():
            return self._write_behind(data)
        try:
            written = _write(descriptor, data)
        except OSError:  # the socket is full or the client is gone: the transport's own write handles both
            written = 0
        if written != len(data):
            transport.write(memoryview(data)[written:] if written else data)
        return True

    def _write_behind(self, data: bytes) -> bool:
        """Writes through the transport, after the data in its buffer."""
        if self._held or self._ended or not self._writable.is_set():
            return False
        self._transport.write(data)
        return True

    @property
    def _ended(self) -> bool:
        return self._transport.is_closing() or self._conn.close_sent is not None

    @property
    def detour(self) -> str | None:
        """The reason why frames go through the server's transport; None if they go directly to the socket."""
        if self._descriptor is not None:
            return None
        secured = self._transport.get_extra_info("sslcontext") is not None
        return "the server's transport: " + ("TLS" if secured else "it is not a known type of plain socket")

    async def ready(self) -> None:
        await self._writable.wait()

    async def write_soon(self, data: bytes) -> None:
        await self._writable.wait()
        if self._ended:
            raise ConnectionResetError("the socket is gone")
        self.maintain()
        self._transport.write(data)

    async def send(self, event: Event) -> None:
        if self._transport.is_closing():
            raise ConnectionResetError("the socket is gone")  # uvicorn would raise RuntimeError
        await self._send(event)
        if self._intake is not None and self._intake.held:
            self._intake.read_on()

    @property
    def buffered(self) -> int:
        try:
            return self._transport.get_write_buffer_size()
        except AttributeError:  # asyncio's TLS transport has no transport below it once it is closed
            return 0

    @property
    def closing(self) -> bool:
        return self._transport.is_closing()

    @property
    def restarting(self) -> bool | None:
        sent = self._conn.close_sent
        if sent is None:  # during a handshake, a shutdown makes uvicorn end its side without a Close
            return self._conn.eof_sent
        return sent.code == 1012

    def watch(self, admit: Callable[[], bool]) -> None:
        parser: Any = self._conn
        self._inbound = parser.hubbub = Inbound(self._transport, self._writable, admit)
        parser.__class__ = watched(type(parser))
        self._intake = Intake(self._transport, self._protocol, self._inbound)
        self._install_intake()

    def _install_intake(self) -> None:
        """Sets `Intake` as the transport's protocol.

        Repeated, because with eager tasks the server sets its own protocol only after the app has started.
        """
        protocol: object = self._transport.get_protocol()
        if self._intake is not None and protocol is self._protocol and not self._transport.is_closing():
            self._transport.set_protocol(self._intake)

    def receiving(self, receive: ServerReceive) -> ServerReceive:
        async def received() -> Event:
            event = await receive()
            if intake is not None and intake.held:
                intake.read_on()
            return event

        intake = self._intake
        return received

    def limit_message_size(self, max_bytes: int | None) -> None:
        if self._server_max is None:
            self._server_max = getattr(self._conn, _MAX_SIZE) or inf
        bound = self._server_max if max_bytes is None else min(2 * max_bytes + SLACK_BYTES, self._server_max)
        setattr(self._conn, _MAX_SIZE, None if bound == inf else bound)

    @property
    def assembling(self) -> bool:
        if self._protocol.read_paused:
            return False  # the rest waits for the app to receive, and not for the client
        return bool(self._conn.reader.buffer) or getattr(self._conn, _CURRENT_SIZE) is not None

    @property
    def message_too_big(self) -> bool:
        return isinstance(self._conn.parser_exc, PayloadTooBig)

    def maintain(self) -> None:
        if self._inbound is not None:
            self._inbound.flush_pongs()
        self._install_intake()

    def stop_reading(self) -> None:
        if self._intake is not None:
            self._intake.stop_reading()
            self._install_intake()

    @property
    def reading_stopped(self) -> bool:
        return self._intake is not None and self._intake.reading_stopped

    @property
    def lingers(self) -> bool:
        return not self._transport.is_closing() or self.buffered > 0

    def ping(self, on_data: Callable[[], None]) -> OpenPing | None:
        # Uvicorn and the outbox write only whole frames, so a ping can go between any two writes.
        protocol = None if self._ended else pingable(self._transport)
        return None if protocol is None else OpenPing(self._transport, protocol, on_data)

    def abort(self) -> None:
        self._transport.abort()
