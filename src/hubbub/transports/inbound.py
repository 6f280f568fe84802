"""Bounds the input that the server handles by itself, before an app sees any of it.

Theory of operation. Uvicorn answers pings, keeps the fragments of an unfinished message, and goes on parsing after a
Close was sent. None of that passes the app, so that a client could cost memory and time without a bound. Three things
are done about it:

* The parser of a connection gets a subclass of its own class (`watched`), which counts control frames and fragments,
  and answers pings itself: only while the socket takes what is written. A bounded number of pongs waits, the newest:
  RFC 6455 section 5.5.3 lets a pong answer the most recent ping only.
* The parser's own bound on a message is lowered to that of `Limits`, with some room for messages that are answered
  with an error.
* Once a connection is closing, its transport gets a protocol (`Farewell`) that passes on what the peer says for a
  moment: its own Close is expected. A peer that goes on after that is not read any more.
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
    """

    __slots__ = ("_owed", "_transport", "_writable", "admit")

    def __init__(self, transport: asyncio.Transport, writable: asyncio.Event, admit: Callable[[], bool]) -> None:
        self.admit = admit
        self._transport = transport
        self._writable = writable
        self._owed: deque[bytes] | None = None

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
            opcode = frame.opcode
            if opcode is _PING:
                if parser.hubbub.admit() and parser.state is State.OPEN:
                    parser.hubbub.answer(frame.data)
                return
            if opcode is _CONT or opcode is _PONG:
                parser.hubbub.admit()  # a fragment that is one too many stays: without it the message would be another
            cls.recv_frame(parser, frame)

        # Without slots or bases of its own, so that an object can change its class to it.
        _watched[cls] = type(cls.__name__, (cls,), {"__module__": cls.__module__, "recv_frame": recv_frame})
    return _watched[cls]


class Farewell(Relay):
    """Passes on what comes until that has taken `FAREWELL_S`; then nothing is read any more.

    Args:
        transport: The socket's.
        protocol: The protocol that it has.
    """

    def __init__(self, transport: asyncio.Transport, protocol: asyncio.Protocol) -> None:
        super().__init__(protocol)
        self.deaf = False
        self._transport = transport
        self._left_s = FAREWELL_S

    def data_received(self, data: bytes) -> None:
        """The peer has sent something."""
        if not self.deaf:
            before = perf_counter()
            super().data_received(data)
            self._left_s -= perf_counter() - before
            self.deaf = self._left_s <= 0
        if self.deaf and not self._transport.is_closing():
            self._transport.pause_reading()  # again too, where the server has resumed it
