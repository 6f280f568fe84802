"""Bounds the input that the server handles by itself, before an app sees any of it.

Theory of operation. Uvicorn answers pings, keeps the fragments of an unfinished message, parses all that it has read
before it stops reading, and goes on parsing after a Close was sent. None of that passes the app, so that a client could
cost memory and time without a bound. Four things are done about it:

* The parser of a connection gets a subclass of its own class (`watched`), which counts control frames and fragments,
  and answers pings itself: only while the socket takes what is written. A bounded number of pongs waits, the newest:
  RFC 6455 section 5.5.3 lets a pong answer the most recent ping only.
* The parser's own bound on a message is lowered to that of `Limits`, with some room for messages that are answered
  with an error.
* Uvicorn parses what one read brought to its end before its backpressure holds, and that may be 40,000 messages, or a
  thousand times its size once inflated. So the parser stops after `TURN_BYTES` of frames: what it has not parsed is
  taken from it, and waits until the server reads again, or for the next turn of the loop.
* Once the connection is closing, what the peer says is passed on for a moment only: its own Close is expected. A peer
  that goes on after that is not read any more.

The last two are done by a protocol of the transport's, `Intake`, that stands before the server's own.
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
"""Seconds of this process that a closing peer may use up, in all. Enough for megabytes of what was on its way."""

MAX_OWED: Final = 256
"""Pongs that wait for a socket to take them."""

TURN_BYTES: Final = 256 * 1024
"""What is parsed in one turn: payloads, once inflated, and `FRAME_BYTES` for each frame. The last may be over it."""

FRAME_BYTES: Final = 1024
"""What a frame costs besides its payload."""

SLACK_BYTES: Final = 64 * 1024
_CONT, _PING, _PONG = Opcode.CONT, Opcode.PING, Opcode.PONG
_FIN: Final = 0x80

_watched: dict[type, type] = {}


class Inbound:
    """What the parser of one connection asks.

    Args:
        transport: The socket's.
        writable: Whether the socket takes what is written: uvicorn's event.
        admit: Called for each control frame and fragment. False where it is one too many.

    Attributes:
        left_bytes: Of this turn.
        unparsed: What was taken from the parser at the end of its turn.
    """

    __slots__ = ("_owed", "_transport", "_writable", "admit", "left_bytes", "unparsed")

    def __init__(self, transport: asyncio.Transport, writable: asyncio.Event, admit: Callable[[], bool]) -> None:
        self.admit: Callable[[], bool] = admit
        self._transport = transport
        self._writable = writable
        self._owed: deque[bytes] | None = None
        self.left_bytes: int = TURN_BYTES
        self.unparsed: bytes = b""

    def answer(self, payload: bytes) -> None:
        """Answers a ping: now, or once the socket takes it."""
        pong = bytes((_FIN | _PONG, len(payload))) + payload
        if self._owed is None and self._writable.is_set():
            self._write(pong)
            return
        if self._owed is None:
            self._owed = deque(maxlen=MAX_OWED)
        self._owed.append(pong)
        self.pay()

    def pay(self) -> None:
        """Writes the pongs that wait, if the socket takes them."""
        if self._owed is not None and self._writable.is_set():
            owed, self._owed = self._owed, None
            self._write(b"".join(owed))

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)


def watched(cls: Any) -> type:
    """A subclass of a parser whose instances ask their ``hubbub``, an `Inbound`. One for each class."""
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
                inbound.admit()  # a fragment that is one too many stays: without it the message would be another
            cls.recv_frame(parser, frame)

        # Without slots or bases of its own, so that an object can change its class to it.
        _watched[cls] = type(cls.__name__, (cls,), {"__module__": cls.__module__, "recv_frame": recv_frame})
    return _watched[cls]


class Intake(Relay):
    """Passes on what the peer says, a turn at a time; once hushed, until that has taken `FAREWELL_S`.

    While the server does not read, what is unparsed waits. That it reads again it tells nobody. It begins to in two
    places: when the last message is taken from it, and when it sends a Close. `resume` has to be called in that step.

    Args:
        transport: The socket's.
        protocol: The server's own.
        inbound: What its parser asks.
    """

    def __init__(self, transport: asyncio.Transport, protocol: Any, inbound: Inbound) -> None:
        super().__init__(protocol)
        self.deaf: bool = False
        self.held: bytes = b""
        self._transport = transport
        self._server = protocol
        self._inbound = inbound
        self._take = protocol.data_received
        self._left_s: float | None = None

    def hush(self) -> None:
        """Reads on for a moment only."""
        if self._left_s is None:
            self._left_s = FAREWELL_S

    def data_received(self, data: bytes) -> None:
        """The peer has sent something."""
        if self.held:  # a transport that is paused may have had more in its hands
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
            self.resume()

    def resume(self) -> None:
        """Passes on what is held back, after the others have had their turn, if the server reads."""
        if self.held and not self._server.read_paused and not self._transport.is_closing():
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._go_on)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self.held = b""
        super().connection_lost(exc)

    def _go_on(self) -> None:
        if self.held and not self._server.read_paused and not self._transport.is_closing():
            held, self.held = self.held, b""
            self._transport.resume_reading()
            self.data_received(held)

    def _take_last(self, data: bytes, left_s: float) -> None:
        if not self.deaf:
            before = perf_counter()
            self._take(data)
            self._left_s = left_s - (perf_counter() - before)
            self.deaf = self._left_s <= 0
        if self.deaf and not self._transport.is_closing():
            self._inbound.unparsed = b""
            self._transport.pause_reading()  # again too, where the server has resumed it
