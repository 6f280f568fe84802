"""A question to a peer: does it still live? A WebSocket ping, and an ear for whatever comes back.

Theory of operation. Every WebSocket client answers a ping by itself (RFC 6455 section 5.5.2). The server reads the
pong and shows it to nobody. So while the question lasts, the transport has another protocol, which passes everything on
to the server's own and notes that something came: a pong, a message, anything. Exchanging the protocol is public API of
asyncio, and what servers do to upgrade a connection. The server ignores the pong, because its payload is not that of a
ping of its own (section 5.5.3).

The ping waits behind all that was written before, so that a slow peer answers late. It is therefore also a sign of life
if what waits for the peer got less: in the transport's buffer, or in the kernel's queue.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Final

from .relay import Relay

PING: Final = b"\x89\x06hubbub"
"""A frame. The payloads of servers have four bytes, at random."""


class _Ear(Relay):
    """Passes everything on, and says when data came."""

    def __init__(self, protocol: asyncio.Protocol, heard: Callable[[], None]) -> None:
        super().__init__(protocol)
        self._heard = heard

    def data_received(self, data: bytes) -> None:
        """The peer has sent something."""
        self._heard()
        super().data_received(data)


class Question:
    """A ping that was sent. It has to be ended.

    Args:
        transport: The socket's; neither closing nor with a Close frame sent.
        protocol: The server's, that the transport has.
        heard: Called when something comes from the peer.
    """

    __slots__ = ("_ear", "_heard", "_protocol", "_transport", "_waiting_bytes", "answered")

    def __init__(self, transport: asyncio.Transport, protocol: asyncio.Protocol, heard: Callable[[], None]) -> None:
        self.answered: bool = False
        self._transport = transport
        self._protocol = protocol
        self._heard = heard
        self._waiting_bytes = _waiting_bytes(transport)
        self._ear = _Ear(protocol, self._hear)
        transport.set_protocol(self._ear)
        transport.write(PING)

    def _hear(self) -> None:
        self.answered = True
        self._heard()

    def end(self) -> bool:
        """Gives the transport its protocol back.

        Returns:
            Whether the peer gave a sign of life.
        """
        if self._transport.is_closing():
            return self.answered
        if self._transport.get_protocol() is self._ear:  # else another has come before it, and passes on to it
            self._transport.set_protocol(self._protocol)
        return self.answered or _waiting_bytes(self._transport) < self._waiting_bytes


def can_be_asked(transport: asyncio.Transport) -> asyncio.Protocol | None:
    """The protocol of a transport whose peer can be asked; None where its silence would say nothing."""
    protocol = transport.get_protocol()
    if not isinstance(protocol, asyncio.Protocol) or not transport.is_reading():
        return None  # the server does not read: the peer has said something that the handler has not taken
    return protocol


def _waiting_bytes(transport: asyncio.Transport) -> int:
    """What the peer has not taken yet: in the transport's buffer, and on Linux also in the kernel's queue."""
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
