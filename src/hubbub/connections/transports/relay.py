"""A protocol that passes everything on to the server's own, as a base for protocols that inspect the input."""

from __future__ import annotations

import asyncio


class Relay(asyncio.Protocol):
    """Passes everything on to another protocol.

    Args:
        protocol: The protocol that the transport had.
    """

    def __init__(self, protocol: asyncio.Protocol) -> None:
        self.protocol = protocol

    def data_received(self, data: bytes) -> None:
        """Passes data on."""
        self.protocol.data_received(data)

    def eof_received(self) -> bool | None:
        """Passes the end of the input on."""
        return self.protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Passes the end of the connection on."""
        self.protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """Passes on that the write buffer is full."""
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        """Passes on that the write buffer has room again."""
        self.protocol.resume_writing()
