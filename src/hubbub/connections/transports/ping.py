"""Pings a client to learn whether it is still there, independently of the server's own keepalive.

Theory of operation. Every WebSocket client answers a ping automatically (RFC 6455 section 5.5.2). The server reads the
pong but does not report it. So while a ping is open, the transport has a different protocol, which passes everything
on to the server's own and records that data arrived: a pong, a message, anything. Setting the protocol of a transport
is public API of asyncio; servers use it to upgrade connections. The server ignores the pong, because its payload
matches none of the server's own pings (section 5.5.3).

The ping waits behind everything that was written before, so a slow client answers late. Progress is therefore a sign
of life as well: fewer unsent bytes in the transport's buffer, or in the kernel's queue.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Final

from .relay import Relay

PING: Final = b"\x89\x06hubbub"
"""The whole frame. Its payload differs in length from the four random bytes that servers use."""


class _Listener(Relay):
    """Passes everything on, and reports that data arrived."""

    def __init__(self, protocol: asyncio.Protocol, on_data: Callable[[], None]) -> None:
        super().__init__(protocol)
        self._on_data = on_data

    def data_received(self, data: bytes) -> None:
        """Reports the arrival and passes the data on."""
        self._on_data()
        super().data_received(data)


class OpenPing:
    """An open ping. The owner must call `end`.

    Args:
        transport: The asyncio transport of the socket. It must not be closing, and no Close frame may have been sent.
        protocol: The server's protocol, which the transport has now.
        on_data: Called when data arrives from the client.
    """

    __slots__ = ("_listener", "_on_data", "_protocol", "_transport", "_waiting_bytes", "answered")

    def __init__(self, transport: asyncio.Transport, protocol: asyncio.Protocol, on_data: Callable[[], None]) -> None:
        self.answered: bool = False
        self._transport = transport
        self._protocol = protocol
        self._on_data = on_data
        self._waiting_bytes = _waiting_bytes(transport)
        self._listener = _Listener(protocol, self._hear)
        transport.set_protocol(self._listener)
        transport.write(PING)

    def _hear(self) -> None:
        self.answered = True
        self._on_data()

    def end(self) -> bool:
        """Ends the ping and restores the protocol of the transport.

        Returns:
            Whether the client showed a sign of life.
        """
        if self._transport.is_closing():
            return self.answered
        # Otherwise a newer relay is in front of this one, and passes everything on to it.
        if self._transport.get_protocol() is self._listener:
            self._transport.set_protocol(self._protocol)
        return self.answered or _waiting_bytes(self._transport) < self._waiting_bytes


def pingable(transport: asyncio.Transport) -> asyncio.Protocol | None:
    """Returns the protocol of a transport; None if a missing answer would prove nothing."""
    protocol = transport.get_protocol()
    if not isinstance(protocol, asyncio.Protocol) or not transport.is_reading():
        return None  # the server has paused reading until the handler receives, so it would not read a pong
    return protocol


def _waiting_bytes(transport: asyncio.Transport) -> int:
    """Bytes that the client has not acknowledged: in the transport's buffer and, on Linux, in the kernel's queue."""
    return transport.get_write_buffer_size() + _unacknowledged(transport)


def _unacknowledged(transport: asyncio.Transport) -> int:
    plain = transport.get_extra_info("socket")
    if sys.platform != "linux" or plain is None:
        return 0
    from fcntl import ioctl
    from termios import TIOCOUTQ

    try:
        return int.from_bytes(ioctl(plain.fileno(), TIOCOUTQ, b"\0" * 4), sys.byteorder)
    except OSError:
        return 0
