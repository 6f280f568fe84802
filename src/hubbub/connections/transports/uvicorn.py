"""Straight to the socket under uvicorn: no coroutine, no ASGI event, no second framing.

Theory of operation. A middleware gets a bound method of uvicorn's protocol object as ``send``; ``send.__self__`` is
that object, and it holds the asyncio transport. Uvicorn builds and writes each of its own frames (messages of the app,
pongs, Close) in one synchronous step and never fragments, so that frames written between two of its steps land on frame
boundaries. That these things hold in the version which is installed is tried first
(`hubbub.connections.transports.trial`).

What has to hold at each write, checked in the same step (no await between):

* No Close frame was sent, not even in answer to the peer's: no data may follow it (RFC 6455 section 5.5.1). Uvicorn
  closes the transport in the step in which it sends one, but for the one that the app asks for; that goes through
  `send`, and whoever asks for it has this transport held before.
* The transport is not closing: after ``close()`` asyncio would append behind the Close frame, and uvloop raises.
* The protocol is not paused (``writable`` is set), or memory grows without a bound. On a lost connection uvicorn *sets*
  ``writable``: only ``is_closing()`` tells.

A plain TCP transport with nothing in its buffer has nothing to add, so that the write goes to the descriptor itself;
what the socket does not take is the transport's. In the same step must hold:

* The buffer is empty, or the write would cut into a frame of which the transport holds the rest.
* The transport is not closing: it closes the descriptor, and the number is then another client's.
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
from .question import Question, can_be_asked

_HIGH_WATER = 64 * 1024
_write: Final = os.write
_TRANSPORTS: Final = {"asyncio.selector_events", "uvloop.loop"}

_PARSER: Final = ServerProtocol()
_MAX_SIZE: Final = "max_message_size" if hasattr(_PARSER, "max_message_size") else "max_size"  # before websockets 16
_CURRENT_SIZE: Final = "current_size" if hasattr(_PARSER, "current_size") else "cur_size"


class UvicornProtocol(Protocol):
    """What is used of uvicorn's ``WebSocketsSansIOProtocol``."""

    transport: asyncio.Transport
    writable: asyncio.Event
    conn: ServerProtocol
    read_paused: bool


def flaw_in_parts(protocol: object) -> str | None:
    """What a protocol lacks of `UvicornProtocol`; None where it has all."""
    for name, kind in (("transport", asyncio.Transport), ("writable", asyncio.Event), ("conn", ServerProtocol)):
        part = getattr(protocol, name, None)
        # uvloop's transports are no asyncio.Transport by inheritance.
        if not (isinstance(part, kind) or (name == "transport" and hasattr(part, "get_write_buffer_size"))):
            return f"its {name!r} is {shown(part)}, and not an {kind.__name__}" if part else f"it has no {name!r}"
    return None


def descriptor_of(transport: asyncio.Transport) -> int | None:
    """The descriptor that may be written to past a transport; None where the bytes are the transport's business."""
    if sys.platform == "win32" or type(transport).__module__ not in _TRANSPORTS:
        return None
    plain = transport.get_extra_info("socket")
    if plain is None or transport.get_extra_info("sslcontext") is not None:
        return None
    descriptor: int = plain.fileno()
    return descriptor if descriptor >= 0 else None


class UvicornTransport(Transport):
    """Writes to the socket under uvicorn's WebSocket protocol."""

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
        self._direct = self._descriptor  # what may be written to now; None while held

    def hold(self, held: bool) -> None:
        self._held = held
        self._direct = None if held else self._descriptor

    def bound(self, max_bytes: int) -> None:
        # uvloop's own low-water mark is 16 bytes: it would resume only when next to nothing is left.
        high = min(_HIGH_WATER, max_bytes)
        self._transport.set_write_buffer_limits(high=high, low=high // 4)

    def write(self, data: bytes) -> bool:
        descriptor, transport = self._direct, self._transport
        if descriptor is None or transport.is_closing() or transport.get_write_buffer_size():
            return self._write_behind(data)
        try:
            written = _write(descriptor, data)
        except OSError:  # full, or the peer is gone: the transport finds out which, and does what is to be done
            written = 0
        if written != len(data):
            transport.write(memoryview(data)[written:] if written else data)
        return True

    def _write_behind(self, data: bytes) -> bool:
        """Writes through the transport, behind what is in its buffer."""
        if self._held or self._ended or not self._writable.is_set():
            return False
        self._transport.write(data)
        return True

    @property
    def _ended(self) -> bool:
        return self._transport.is_closing() or self._conn.close_sent is not None

    @property
    def detour(self) -> str | None:
        """Why frames do not go straight to the socket; None where they do."""
        if self._descriptor is not None:
            return None
        secured = self._transport.get_extra_info("sslcontext") is not None
        return "the server's transport: " + ("TLS" if secured else "it is not known to be a plain socket")

    async def ready(self) -> None:
        await self._writable.wait()

    async def write_soon(self, data: bytes) -> None:
        await self._writable.wait()
        if self._ended:
            raise ConnectionResetError("the socket is gone")
        self.tend()
        self._transport.write(data)

    async def send(self, event: Event) -> None:
        if self._transport.is_closing():
            raise ConnectionResetError("the socket is gone")  # where uvicorn would raise RuntimeError
        await self._send(event)
        if self._intake is not None and self._intake.held:
            self._intake.resume()

    @property
    def buffered(self) -> int:
        try:
            return self._transport.get_write_buffer_size()
        except AttributeError:  # asyncio's TLS transport has nothing below it any more once it is closed
            return 0

    @property
    def closing(self) -> bool:
        return self._transport.is_closing()

    @property
    def restarting(self) -> bool | None:
        sent = self._conn.close_sent
        if sent is None:  # a handshake that is under way is refused: uvicorn ends its side at once
            return self._conn.eof_sent
        return sent.code == 1012

    def watch(self, admit: Callable[[], bool]) -> None:
        parser: Any = self._conn
        self._inbound = parser.hubbub = Inbound(self._transport, self._writable, admit)
        parser.__class__ = watched(type(parser))
        self._intake = Intake(self._transport, self._protocol, self._inbound)
        self._stand_between()

    def _stand_between(self) -> None:
        """Has the intake pass on what comes. With eager tasks, the server sets its own protocol after an app began."""
        protocol: object = self._transport.get_protocol()
        if self._intake is not None and protocol is self._protocol and not self._transport.is_closing():
            self._transport.set_protocol(self._intake)

    def receiving(self, receive: ServerReceive) -> ServerReceive:
        async def received() -> Event:
            event = await receive()
            if intake is not None and intake.held:
                intake.resume()
            return event

        intake = self._intake
        return received

    def bound_inbound(self, max_bytes: int | None) -> None:
        if self._server_max is None:
            self._server_max = getattr(self._conn, _MAX_SIZE) or inf
        bound = self._server_max if max_bytes is None else min(2 * max_bytes + SLACK_BYTES, self._server_max)
        setattr(self._conn, _MAX_SIZE, None if bound == inf else bound)

    @property
    def assembling(self) -> bool:
        if self._protocol.read_paused:
            return False  # what has come waits for the app, and not for the peer
        return bool(self._conn.reader.buffer) or getattr(self._conn, _CURRENT_SIZE) is not None

    @property
    def outgrown(self) -> bool:
        return isinstance(self._conn.parser_exc, PayloadTooBig)

    def tend(self) -> None:
        if self._inbound is not None:
            self._inbound.pay()
        self._stand_between()

    def hush(self) -> None:
        if self._intake is not None:
            self._intake.hush()
            self._stand_between()

    @property
    def deaf(self) -> bool:
        return self._intake is not None and self._intake.deaf

    @property
    def lingers(self) -> bool:
        return not self._transport.is_closing() or self.buffered > 0

    def ask(self, heard: Callable[[], None]) -> Question | None:
        # Uvicorn's own writes are whole frames, and so are those of the outbox: a ping fits between any two.
        protocol = None if self._ended else can_be_asked(self._transport)
        return None if protocol is None else Question(self._transport, protocol, heard)

    def abort(self) -> None:
        self._transport.abort()
