"""Writes straight to the socket of a server's connection: the part that WebSockets and HTTP streams share.

Each write depends on these conditions, and checks them in the same step, with no await in between:

* The connection takes data of ours: nothing has ended it, also no frame of the server's (`_ended`).
* The transport is not closing. After ``close()``, asyncio would append data behind the last of the server, and uvloop
  raises.
* The server's protocol is not paused (`_takes_data`); otherwise memory would grow without a bound.

A plain TCP transport with an empty buffer adds nothing to a write, so the write goes directly to the file descriptor.
The transport takes what the socket does not. Such a write depends on two more conditions, checked in the same step:

* The transport's buffer is empty; otherwise the write would land inside a frame whose rest is in the buffer.
* The transport is not closing, because it then closes the descriptor, and the number may belong to another client.
"""

from __future__ import annotations

import asyncio
import os
import sys
from abc import abstractmethod
from typing import Final

from .base import Transport

HIGH_WATER: Final = 64 * 1024
_write: Final = os.write
_TRANSPORTS: Final = {"asyncio.selector_events", "uvloop.loop"}


def descriptor_of(transport: asyncio.Transport) -> int | None:
    """Returns the file descriptor for writes that bypass the transport; None if they are not safe, as under TLS."""
    if sys.platform == "win32" or type(transport).__module__ not in _TRANSPORTS:
        return None
    plain = transport.get_extra_info("socket")
    if plain is None or transport.get_extra_info("sslcontext") is not None:
        return None
    descriptor: int = plain.fileno()
    return descriptor if descriptor >= 0 else None


class DirectTransport(Transport):
    """Writes directly to the socket below a server's connection.

    Args:
        transport: The asyncio transport of the connection; None if it is not known.
        is_direct: Whether frames may be written to it now.
    """

    __slots__ = ("_descriptor", "_direct", "_held", "_is_direct", "_transport")

    def __init__(self, transport: asyncio.Transport, *, is_direct: bool = True) -> None:
        self._transport = transport
        self._held = False
        self._is_direct = is_direct
        self._descriptor = descriptor_of(transport) if is_direct else None
        self._direct = self._descriptor  # the descriptor for direct writes; None while held

    def hold(self, held: bool) -> None:
        self._held = held
        self._direct = None if held else self._descriptor

    def set_high_water(self, max_bytes: int) -> None:
        # uvloop's own low-water mark is 16 bytes, so it would accept writes only when the buffer is almost empty.
        high = min(HIGH_WATER, max_bytes)
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
        if self._held or not self._is_direct or self._ended or not self._takes_data:
            return False
        self._transport.write(data)
        return True

    @property
    @abstractmethod
    def _ended(self) -> bool:
        """Whether no frame may be written any more."""

    @property
    @abstractmethod
    def _takes_data(self) -> bool:
        """Whether the server's protocol is not paused."""

    @property
    def detour(self) -> str | None:
        """The reason why frames go through the server's transport; None if they go directly to the socket."""
        if self._descriptor is not None:
            return None
        secured = self._transport.get_extra_info("sslcontext") is not None
        return "the server's transport: " + ("TLS" if secured else "it is not a known type of plain socket")

    @property
    def buffered(self) -> int:
        try:
            return self._transport.get_write_buffer_size()
        except AttributeError:  # asyncio's TLS transport has no transport below it once it is closed
            return 0

    @property
    def closing(self) -> bool:
        return self._transport.is_closing()

    def abort(self) -> None:
        self._transport.abort()
