"""The server's side of one socket: an asyncio transport, and the protocol that a server set on it."""

from __future__ import annotations

import asyncio
from typing import Any


class FakeTransport(asyncio.Transport):
    """An asyncio transport that records what is written to it.

    Attributes:
        written: The bytes that were written, write by write.
        waiting: The bytes in its buffer.
        reading: Whether the server reads.
        water: The high- and low-water marks that were set.
        aborts: How often it was aborted.
    """

    def __init__(self, protocol: asyncio.BaseProtocol, **extra: Any) -> None:
        super().__init__(extra)
        self.protocol = protocol
        self.written: list[bytes] = []
        self.waiting = 0
        self.reading = True
        self.closing = False
        self.water: tuple[int | None, int | None] | None = None
        self.aborts = 0

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.water = high, low

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closing

    def is_reading(self) -> bool:
        return self.reading

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def abort(self) -> None:
        self.aborts += 1
        self.closing = True


class FakeProtocol(asyncio.Protocol):
    """The server's own protocol: notes each call.

    Attributes:
        calls: The names of the calls, each with its arguments.
        keeps_open: The answer to the peer's end of file.
        read_paused: Whether the server waits for the app to take what was read.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.keeps_open: bool | None = None
        self.read_paused = False

    @property
    def received(self) -> list[bytes]:
        return [call[1] for call in self.calls if call[0] == "data_received"]

    def data_received(self, data: bytes) -> None:
        self.calls.append(("data_received", data))

    def eof_received(self) -> bool | None:
        self.calls.append(("eof_received",))
        return self.keeps_open

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append(("connection_lost", exc))

    def pause_writing(self) -> None:
        self.calls.append(("pause_writing",))

    def resume_writing(self) -> None:
        self.calls.append(("resume_writing",))
