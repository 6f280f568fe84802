"""Bounds the input that uvicorn handles by itself, before the app sees any of it.

Theory of operation. Uvicorn answers pings, keeps the fragments of an unfinished message, parses everything it has read
before its backpressure applies, and continues to parse after it has sent a Close. The app sees none of this, so a
client could use memory and time without a bound. Four measures bound it:

* The parser object of a connection changes its class to a subclass (`watched`) that counts control frames and
  fragments. The subclass also answers pings, but only while the socket takes data. A bounded number of pongs is kept,
  the newest ones: RFC 6455 section 5.5.3 allows a pong for the most recent ping only.
* The parser's own limit on the size of a message is lowered to that of `Limits`, plus some slack for messages that are
  answered with an error.
* One read may hold 40,000 messages, or inflate to a thousand times its size. Uvicorn parses all of it before it pauses.
  So the parser stops after `TURN_BYTES` of frames. The unparsed rest is taken from it, and waits until the server reads
  again, or for the next pass of the event loop.
* Once the connection is closing, input is passed on only for a short time, because only the client's Close frame
  matters. After that, nothing more is read.

The last two measures are those of `Intake`, a protocol that is set on the transport in front of the server's own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final

from websockets.frames import Opcode
from websockets.protocol import State

from .relay import Relay

FAREWELL_S: Final = 0.05
"""CPU seconds for parsing input after a close, in all. Enough for megabytes that were in flight."""

MAX_PONGS: Final = 256
"""The most pongs that wait for a socket to take them."""

TURN_BYTES: Final = 256 * 1024
"""The bound of one turn: inflated payloads, plus `FRAME_BYTES` for each frame. The last frame may exceed it."""

FRAME_BYTES: Final = 1024
"""The cost of a frame in addition to its payload."""

SLACK_BYTES: Final = 64 * 1024
_CONT, _PING, _PONG = Opcode.CONT, Opcode.PING, Opcode.PONG
_FIN: Final = 0x80

_watched: dict[type, type] = {}


class Inbound:
    """The state that a `watched` parser shares with the transport of its connection.

    Args:
        transport: The asyncio transport of the socket.
        writable: Uvicorn's event that is set while the socket takes data.
        admit: Called for each control frame and fragment. Returns False if the client has sent too many.

    Attributes:
        left_bytes: The bytes that the parser may still parse in this turn.
        unparsed: The input that was taken from the parser at the end of its turn.
    """

    __slots__ = ("_pongs", "_transport", "_writable", "admit", "left_bytes", "unparsed")

    def __init__(self, transport: asyncio.Transport, writable: asyncio.Event, admit: Callable[[], bool]) -> None:
        self.admit: Callable[[], bool] = admit
        self._transport = transport
        self._writable = writable
        self._pongs: deque[bytes] | None = None
        self.left_bytes: int = TURN_BYTES
        self.unparsed: bytes = b""

    def answer(self, payload: bytes) -> None:
        """Answers a ping, immediately or as soon as the socket takes data."""
        pong = bytes((_FIN | _PONG, len(payload))) + payload
        if self._pongs is None and self._writable.is_set():
            self._write(pong)
            return
        if self._pongs is None:
            self._pongs = deque(maxlen=MAX_PONGS)
        self._pongs.append(pong)
        self.flush_pongs()

    def flush_pongs(self) -> None:
        """Writes the waiting pongs, if the socket takes data."""
        if self._pongs is not None and self._writable.is_set():
            pongs, self._pongs = self._pongs, None
            self._write(b"".join(pongs))

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)


def watched(cls: Any) -> type:
    """Returns the subclass of a parser class that counts frames. Its instances have an `Inbound` as ``hubbub``."""
    if cls not in _watched:

        def recv_frame(parser: Any, frame: Any) -> None:
            inbound, opcode = parser.hubbub, frame.opcode
            inbound.left_bytes -= len(frame.data) + FRAME_BYTES
            if inbound.left_bytes <= 0:
                buffer = parser.reader.buffer
                inbound.unparsed = bytes(buffer)
                buffer.clear()
            if opcode is _PING:
                if inbound.admit() and parser.state is State.OPEN:
                    inbound.answer(frame.data)
                return
            if opcode is _CONT or opcode is _PONG:
                inbound.admit()  # too many or not, a fragment is kept: without it, the message would be corrupt
            cls.recv_frame(parser, frame)

        # The subclass adds no slots and no bases, so that an existing parser can change its class to it.
        _watched[cls] = type(cls.__name__, (cls,), {"__module__": cls.__module__, "recv_frame": recv_frame})
    return _watched[cls]


class Intake(Relay):
    """Passes input on to the server's protocol, one turn at a time. After `stop_reading`, only for `FAREWELL_S`.

    While the server does not read, unparsed input is held. The server does not report when it reads again. It does so
    in two places: when the app receives the last message, and when the server sends a Close. The caller must call
    `read_on` in the same step.

    Args:
        transport: The asyncio transport of the socket.
        protocol: The server's own protocol.
        inbound: The state shared with the parser.
    """

    def __init__(self, transport: asyncio.Transport, protocol: Any, inbound: Inbound) -> None:
        super().__init__(protocol)
        self.reading_stopped: bool = False
        self.held: bytes = b""
        self._transport = transport
        self._server = protocol
        self._inbound = inbound
        self._take = protocol.data_received
        self._left_s: float | None = None

    def stop_reading(self) -> None:
        """Starts the budget of `FAREWELL_S`, after which nothing is read."""
        if self._left_s is None:
            self._left_s = FAREWELL_S

    def data_received(self, data: bytes) -> None:
        """Passes data on, unless earlier data is still held."""
        if self.held:  # a paused transport may still deliver data that it had already read
            self.held += data
            return
        inbound = self._inbound
        inbound.left_bytes = TURN_BYTES
        if self._left_s is None:
            self._take(data)
        else:
            self._take_last(data, self._left_s)
        if inbound.unparsed:
            self.held, inbound.unparsed = inbound.unparsed, b""
            self.read_on()

    def read_on(self) -> None:
        """Schedules the held input for the next pass of the event loop, if the server reads."""
        if self.held and not self._server.read_paused and not self._transport.is_closing():
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._go_on)

    def connection_lost(self, exc: Exception | None) -> None:
        """Discards held input and passes the event on."""
        self.held = b""
        super().connection_lost(exc)

    def _go_on(self) -> None:
        if self.held and not self._server.read_paused and not self._transport.is_closing():
            held, self.held = self.held, b""
            self._transport.resume_reading()
            self.data_received(held)

    def _take_last(self, data: bytes, left_s: float) -> None:
        if not self.reading_stopped:
            before = perf_counter()
            self._take(data)
            self._left_s = left_s - (perf_counter() - before)
            self.reading_stopped = self._left_s <= 0
        if self.reading_stopped and not self._transport.is_closing():
            self._inbound.unparsed = b""
            self._transport.pause_reading()  # repeated, because the server may read again
