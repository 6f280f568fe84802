"""A protocol between a transport and the server's own, for as long as something is to be done with what comes."""

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
        """The peer has sent something."""
        self.protocol.data_received(data)

    def eof_received(self) -> bool | None:
        """The peer sends no more."""
        return self.protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self.protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """The socket takes nothing now."""
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        """The socket takes something again."""
        self.protocol.resume_writing()
