"""Writes frames directly to the socket under uvicorn: no coroutine, no ASGI event, no second framing.

Theory of operation. Uvicorn passes a bound method of its protocol object as ``send``. So ``send.__self__`` is that
object, and it holds the asyncio transport. Uvicorn builds and writes each of its own frames (messages of the app,
pongs, Close) in one synchronous step and never fragments. So a frame that is written between two such steps lands on a
frame boundary. `hubbub.connections.transports.trial` first tests that the installed version does so.

Which conditions a write depends on stands in `hubbub.connections.transports.direct`. Here they are:

* No Close frame was sent, not even in answer to the client's, because no data may follow one (RFC 6455 section 5.5.1).
  Uvicorn closes the transport in the same step in which it sends a Close. The only exception is a Close from the app.
  That one goes through `send`, and this transport is held before.
* The protocol is not paused (``writable`` is set). When a connection is lost, uvicorn *sets* ``writable``, so only
  ``is_closing()`` shows the loss.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import Any, Final, Protocol

from websockets.exceptions import PayloadTooBig
from websockets.server import ServerProtocol

from ...errors import shown
from .base import Event, ServerReceive, ServerSend
from .direct import DirectTransport
from .inbound import SLACK_BYTES, Inbound, Intake, watched
from .ping import OpenPing, pingable

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


class UvicornTransport(DirectTransport):
    """Writes directly to the socket of uvicorn's WebSocket protocol."""

    __slots__ = (
        "_conn",
        "_inbound",
        "_intake",
        "_protocol",
        "_send",
        "_server_max",
        "_writable",
    )

    def __init__(self, protocol: UvicornProtocol, send: ServerSend) -> None:
        super().__init__(protocol.transport)
        self._protocol = protocol
        self._conn = protocol.conn
        self._writable = protocol.writable
        self._send = send
        self._inbound: Inbound | None = None
        self._intake: Intake | None = None
        self._server_max: float | None = None

    @property
    def _ended(self) -> bool:
        return self._transport.is_closing() or self._conn.close_sent is not None

    @property
    def _takes_data(self) -> bool:
        return self._writable.is_set()

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
