"""Tests at startup whether the installed uvicorn meets the requirements of direct writes.

Theory of operation. `hubbub.connections.transports.uvicorn` writes between the steps of uvicorn's protocol, and uvicorn
does not promise that this works. A list of known versions would not cover newer ones. So this module creates the
protocol as uvicorn does, at one end of a socket pair, and plays the client at the other end. The event loop, the
transport and the socket are real. The trial checks that:

* ``send`` is a method of the protocol, and ``transport``, ``writable`` and ``conn`` have the expected types.
* The app's messages and its Close are written in one step: when ``send`` returns, the socket and the transport's
  buffer hold all of it, and the reported size of the buffer is right. So later writes come after it.
* Pongs and keepalive pings are written whole: no pass of the event loop ends inside a frame.
* An incomplete message is visible, and a message over the parser's limit is refused before it is complete.
* ``writable`` is cleared when the buffer is full, set when it has emptied, and set when the connection is lost.
* An unsolicited pong does no harm, and an open ping of ours notices it.
* A Close that answers the client's, one for a missed pong, and one for a shutdown are each sent in the step in which
  the transport begins to close. Nothing is written after a Close.

It takes a few milliseconds, once per protocol class and type of event loop.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from struct import pack
from typing import Any, Final

from ...errors import shown
from ...protocols.frames import Opcode, frame
from .base import ServerSend
from .uvicorn import UvicornTransport, flaw_in_parts

_DEADLINE_S: Final = 5.0
_PING, _PONG, _CLOSE = 0x9, 0xA, 0x8
_LARGE: Final = b"x" * 1_000_000
_FRAMES: Final = 300  # more than the parser takes in one turn
_HIGH_WATER: Final = 64 * 1024
_INBOUND: Final = 1024
_BEGUN: Final = b"\x01\x81\0\0\0\0x"  # the first fragment of a text message
_TOO_LARGE: Final = b"\x80\xff" + (1 << 40).to_bytes(8) + b"\0\0\0\0"  # the header of its last fragment
_HANDSHAKE: Final = (
    b"GET /hubbub-tries-its-direct-path HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

Make = Callable[[Any, dict[str, Any]], Any]
"""Creates a protocol for an ASGI app, with settings for uvicorn's ``Config``."""


class Flaw(Exception):
    """A requirement of direct writes that the protocol does not meet."""


async def flaw_in(make: Make) -> str | None:
    """Tries a protocol.

    Args:
        make: Creates the protocol.

    Returns:
        The first requirement that is not met; None if all are met.
    """
    try:
        async with asyncio.timeout(_DEADLINE_S):
            for attempt in (
                _messages,
                _full,
                _pinged,
                _lost,
                _bounded,
                _closed_by_app,
                _closed_by_peer,
                _shut_down,
                _silent,
            ):
                await attempt(make)
    except Flaw as flaw:
        return str(flaw)
    except TimeoutError:
        return f"it did not do what it should in {_DEADLINE_S:g} s"
    except Exception as error:
        return f"it raises {shown(error, limit=160)}"
    return None


def make_protocol(app: Any, settings: dict[str, Any]) -> Any:
    """Creates the default WebSocket protocol of the installed uvicorn."""
    import uvicorn  # imported late, because other servers do not need it
    from uvicorn.server import ServerState

    async def none(scope: Any, receive: Any, send: Any) -> None:
        pass  # a plain function, which uvicorn does not wrap

    config = uvicorn.Config(none, log_config=None, lifespan="off", interface="asgi3", **settings)
    config.load()
    config.loaded_app = app
    made: Any = config.ws_protocol_class
    return made(config, ServerState(), {})


class _Trial:
    """An accepted connection with both of its ends: uvicorn's and the client's."""

    def __init__(self, protocol: Any, peer: socket.socket, send: ServerSend) -> None:
        self.protocol = protocol
        self.send = send
        self.transport = UvicornTransport(protocol, send)
        self.transport.bound(_HIGH_WATER)
        self.transport.watch(lambda: True)
        self.transport.bound_inbound(_INBOUND)
        self.written = 0
        self._peer = peer
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
        self.say_raw(_masked(opcode, payload))

    def say_raw(self, data: bytes) -> None:
        self._peer.send(data)

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
        payload = await self.expect(_CLOSE)
        if payload[:2] != pack("!H", code):
            raise Flaw(f"a Close with {payload[:2].hex()} came instead of {code}")

    async def expect_end(self) -> None:
        while not self._ended:
            self._read_now()
            if self._came or self._frames:
                raise Flaw("it writes after a Close frame")
            await asyncio.sleep(0)

    def vanish(self) -> None:
        self._peer.close()

    def _read_now(self) -> None:
        with suppress(BlockingIOError):
            while data := self._peer.recv(1 << 20):
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
async def _accepted(make: Make, **settings: Any) -> AsyncIterator[_Trial]:
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
        trial = _Trial(protocol, ours, send)
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


async def _messages(make: Make) -> None:
    """Checks that frames written between the steps of the protocol arrive between its frames."""
    async with _accepted(make) as trial:
        for number in range(4):
            trial.message(b"sent %d" % number)
            if not trial.write(b"written %d" % number):
                raise Flaw("it does not take a write between two messages")
        wanted = [b"sent 0", b"written 0", b"sent 1", b"written 1", b"sent 2", b"written 2", b"sent 3", b"written 3"]
        for payload in wanted:
            if await trial.expect(Opcode.TEXT) != payload:
                raise Flaw("messages and the writes between them arrive in a different order")
        for number in range(4):
            trial.say(_PING, b"%d" % number)
            if await trial.expect(_PONG) != b"%d" % number:
                raise Flaw("its pongs do not match the pings")
            if not trial.write(b"between"):
                raise Flaw("it does not take a write between two pongs")
            await trial.expect(Opcode.TEXT)
        trial.say_raw(b"".join(_masked(_PING, b"%d" % number) for number in range(_FRAMES)))
        for number in range(_FRAMES):
            if await trial.expect(_PONG) != b"%d" % number:
                raise Flaw("its parser does not continue where it stopped at the end of a turn")


async def _full(make: Make) -> None:
    """Checks that a full socket pauses the protocol, and that the transport reports when it takes data again."""
    async with _accepted(make) as trial:
        trial.message(_LARGE)
        await asyncio.sleep(0)
        if trial.protocol.writable.is_set():
            raise Flaw("it does not pause when its buffer is full")
        if trial.write(b"too much"):
            raise Flaw("it takes a write while it is paused")
        if await trial.expect(Opcode.TEXT) != _LARGE:
            raise Flaw("a large message did not come whole")
        await trial.transport.ready()
        if trial.transport.buffered or not trial.write(b"again"):
            raise Flaw("it takes nothing although its buffer is empty again")
        if await trial.expect(Opcode.TEXT) != b"again":
            raise Flaw("a write after a pause did not arrive")


async def _bounded(make: Make) -> None:
    """Checks that an incomplete message is visible, and that one that is too large is refused before it is complete."""
    async with _accepted(make) as trial:
        if trial.transport.assembling:
            raise Flaw("it reports an incomplete message before any has begun")
        trial.say_raw(_BEGUN)
        while not trial.transport.assembling:  # noqa: ASYNC110 - no event: the parser does not report it
            await asyncio.sleep(0)
        trial.say_raw(_TOO_LARGE)
        await trial.expect_close(1009)
        if not trial.transport.outgrown:
            raise Flaw("it does not report that a message was too large")


async def _pinged(make: Make) -> None:
    """Checks that the answer to a ping of ours is noticed, and that the protocol then works as before."""
    async with _accepted(make) as trial:
        heard = asyncio.Event()
        ping = trial.transport.ping(heard.set)
        if ping is None:
            raise Flaw("its client can't be pinged")
        trial.say(_PONG, await trial.expect(_PING))
        await heard.wait()
        if not ping.end():
            raise Flaw("the client's answer to a ping is not noticed")
        trial.say(_PING, b"after")
        if await trial.expect(_PONG) != b"after":
            raise Flaw("it does not continue after an unsolicited pong")


async def _lost(make: Make) -> None:
    """Checks that a lost connection is reported, even while the protocol is paused."""
    async with _accepted(make) as trial:
        trial.message(_LARGE)
        await asyncio.sleep(0)
        trial.vanish()
        await trial.transport.ready()
        if not trial.transport.closing or trial.write(b"to nobody"):
            raise Flaw("it does not report a lost connection as closing")


async def _closed_by_app(make: Make) -> None:
    """Checks that the app's Close is written in one step, and that nothing is written after it."""
    async with _accepted(make) as trial:
        trial.message(b"before")
        trial.send_at_once("close", code=4321, reason="tried")
        if trial.protocol.conn.close_sent is None:
            raise Flaw("it does not set close_sent in the step in which it sends a Close")
        with suppress(RuntimeError, OSError):
            trial.send_at_once("send", text="after")
        await trial.expect(Opcode.TEXT)
        await trial.expect_close(4321)
        trial.say(_CLOSE, pack("!H", 4321))
        await trial.expect_end()


async def _closed_by_peer(make: Make) -> None:
    """Checks that an answer to the client's Close is sent in the step in which the transport begins to close."""
    async with _accepted(make) as trial:
        trial.say(_CLOSE, pack("!H", 1000))
        await _closes(trial, 1000)


async def _shut_down(make: Make) -> None:
    """Checks the Close of a server that shuts down, and that it is recognized as such."""
    async with _accepted(make) as trial:
        trial.protocol.shutdown()
        if not trial.transport.restarting:
            raise Flaw("it does not report that it shuts down")
        await _closes(trial, 1012)


async def _silent(make: Make) -> None:
    """Checks that a keepalive ping is written whole, and that the transport closes if no pong arrives."""
    async with _accepted(make, ws_ping_interval=0.001, ws_ping_timeout=0.001) as trial:
        await trial.expect(_PING)
        await _closes(trial, 1011)


async def _closes(trial: _Trial, code: int) -> None:
    await trial.expect_close(code)
    if not trial.transport.closing or trial.write(b"after"):
        raise Flaw("it does not close its transport in the step in which it sends a Close")
    await trial.expect_end()


def _in_one_step(sending: Awaitable[None], what: str) -> None:
    steps = sending.__await__()
    try:
        next(steps)
    except StopIteration:
        return
    steps.close()
    raise Flaw(f"its send waits with {what!r} although the socket takes data")


def _masked(opcode: int, payload: bytes) -> bytes:
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
