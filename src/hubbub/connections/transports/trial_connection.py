"""A connection between an ASGI protocol of uvicorn's and a client that is played by hand, over a socket pair.

`hubbub.connections.transports.trial` uses it to test uvicorn's protocol on the real event loop.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from struct import pack
from typing import Any, Final

from ...protocols.frames import Opcode, frame
from .base import ServerSend
from .uvicorn import UvicornTransport, flaw_in_parts

PING: Final = 0x9
CLOSE: Final = 0x8
_HIGH_WATER: Final = 64 * 1024
_INBOUND: Final = 1024
_HANDSHAKE: Final = (
    b"GET /hubbub-tries-its-direct-path HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
Make = Callable[[Any, dict[str, Any]], Any]
"""Creates a protocol for an ASGI app, with settings for uvicorn's ``Config``."""


class Flaw(Exception):
    """A requirement of direct writes that the protocol does not meet."""


class TrialConnection:
    """An accepted connection with both of its ends: uvicorn's and the client's."""

    def __init__(self, protocol: Any, client: socket.socket, send: ServerSend) -> None:
        self.protocol: Any = protocol
        self.send: ServerSend = send
        self.transport: UvicornTransport = UvicornTransport(protocol, send)
        self.transport.set_high_water(_HIGH_WATER)
        self.transport.watch(lambda: True)
        self.transport.limit_message_size(_INBOUND)
        self.written: int = 0
        self._client = client
        self._came = bytearray()
        self._frames: list[tuple[int, bytes]] = []
        self._read = 0
        self._ended = False

    # The server's end

    def send_at_once(self, what: str, **event: Any) -> None:
        """Sends an event as the app, which must finish in one step."""
        _in_one_step(self.send({"type": "websocket." + what, **event}), what)

    def write(self, payload: bytes) -> bool:
        """Writes a frame directly, without the protocol."""
        data = frame(Opcode.TEXT, payload)
        written = self.transport.write(data)
        self.written += len(data) * written
        return written

    def message(self, payload: bytes) -> None:
        """Sends a message as the app. Afterwards, all of it must be in the socket or in the transport's buffer."""
        self.written += len(frame(Opcode.TEXT, payload))
        self.send_at_once("send", text=payload.decode())
        self._read_now()
        if self._read + self.transport.buffered != self.written:
            raise Flaw(
                f"of {self.written} bytes sent, {self._read} were written and {self.transport.buffered} are "
                "said to be in the buffer"
            )

    # The client's end

    def say(self, opcode: int, payload: bytes = b"") -> None:
        """Sends a frame as the client."""
        self.say_raw(masked(opcode, payload))

    def say_raw(self, data: bytes) -> None:
        """Sends bytes as the client."""
        self._client.send(data)

    async def expect(self, opcode: int) -> bytes:
        """Waits for the next frame and returns its payload. Every pass of the loop must leave only whole frames."""
        self._take_frames()  # frames may have arrived together with the answer to the handshake
        while not self._frames:
            if self._ended:
                raise Flaw("it closed without a Close frame")
            await asyncio.sleep(0)
            self._read_now()
            self._take_frames()
            if self._came and not self.transport.buffered:
                raise Flaw("it writes a frame in more than one step")
        found, payload = self._frames.pop(0)
        if found != opcode:
            raise Flaw(f"a frame with opcode {found} came instead of one with {opcode}")
        return payload

    async def expect_close(self, code: int) -> None:
        """Waits for a Close frame with a code."""
        payload = await self.expect(CLOSE)
        if payload[:2] != pack("!H", code):
            raise Flaw(f"a Close with {payload[:2].hex()} came instead of {code}")

    async def expect_end(self) -> None:
        """Waits until the server closes the connection. Nothing may arrive before that."""
        while not self._ended:
            self._read_now()
            if self._came or self._frames:
                raise Flaw("it writes after a Close frame")
            await asyncio.sleep(0)

    def vanish(self) -> None:
        """Closes the client's end without a Close frame."""
        self._client.close()

    def _read_now(self) -> None:
        with suppress(BlockingIOError):
            while data := self._client.recv(1 << 20):
                self._came += data
                self._read += len(data)
            self._ended = True

    def _take_frames(self) -> None:
        while (found := _frame_in(self._came)) is not None:
            opcode, payload, size = found
            self._frames.append((opcode, payload))
            del self._came[:size]

    async def forget_handshake(self) -> None:
        """Skips the answer to the handshake, but not a ping that arrived with it."""
        while (end := self._came.find(b"\r\n\r\n")) < 0:
            if self._ended:
                raise Flaw("it refuses the handshake")
            await asyncio.sleep(0)
            self._read_now()
        del self._came[: end + 4]
        self._read = len(self._came)


@asynccontextmanager
async def accepted(make: Make, **settings: Any) -> AsyncIterator[TrialConnection]:
    """Opens a connection through the handshake to its acceptance."""
    loop = asyncio.get_running_loop()
    begun: asyncio.Future[ServerSend] = loop.create_future()
    over = loop.create_future()
    tasks: list[asyncio.Task[Any] | None] = []

    async def app(scope: Any, receive: Any, send: ServerSend) -> None:
        tasks.append(asyncio.current_task())
        begun.set_result(send)
        await over

    protocol = make(app, settings)
    with suppress(AttributeError):
        protocol.logger = protocol.conn.logger = _silent_log()  # no real client has connected
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    try:
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, theirs)
    except BaseException:
        ours.close()
        theirs.close()
        raise
    try:
        ours.send(_HANDSHAKE)
        send = await begun
        if getattr(send, "__self__", None) != protocol:
            raise Flaw("its send is not a method of the protocol")
        flaw = flaw_in_parts(protocol)
        if flaw is not None:
            raise Flaw(flaw)
        if protocol.transport is not transport:
            raise Flaw("its transport is not the socket's")
        if protocol.conn.close_sent is not None or not protocol.writable.is_set():
            raise Flaw("it begins closed or paused")
        trial = TrialConnection(protocol, ours, send)
        trial.send_at_once("accept")
        await trial.forget_handshake()
        yield trial
    finally:
        transport.abort()
        ours.close()
        over.cancel()
        for task in tasks:
            if task is not None:
                await asyncio.wait((task,))
        await asyncio.sleep(0)  # lets the transport call the protocol's connection_lost


def _in_one_step(sending: Awaitable[None], what: str) -> None:
    steps = sending.__await__()
    try:
        next(steps)
    except StopIteration:
        return
    steps.close()
    raise Flaw(f"its send waits with {what!r} although the socket takes data")


def masked(opcode: int, payload: bytes) -> bytes:
    """Returns a frame as a client sends it, masked with zeros."""
    return bytes((0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0)) + payload


def _silent_log() -> logging.Logger:
    log = logging.getLogger("hubbub.trial")
    log.setLevel(logging.CRITICAL + 1)
    return log


def _frame_in(data: bytearray) -> tuple[int, bytes, int] | None:
    """Returns the opcode, payload and size of the first frame; None if it is incomplete."""
    if len(data) < 2:
        return None
    at, size = 2, data[1]
    if size >= 126:
        at = 4 if size == 126 else 10
        size = int.from_bytes(data[2:at], "big")
    if len(data) < at + size:
        return None
    return data[0] & 0x0F, bytes(data[at : at + size]), at + size
