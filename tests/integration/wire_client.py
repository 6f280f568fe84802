"""A WebSocket client by hand that forgives nothing, and the transports of the server that it is let loose on.

A library would put up with much that must not happen: it answers, reassembles, skips, closes. This client knows only
what uvicorn may send (RFC 6455 section 5.2, never fragmented; RFC 7692 where it was negotiated), and anything else is a
`Violation`: that is what a torn or misplaced write looks like from outside. Messages carry a checksum and whom they
are for (`stamp`), so that a write that happens to end on a frame's boundary is found as well.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import hashlib
import ipaddress
import random
import socket
import ssl
import sys
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hubbub.connections.transports import direct as direct_transport
from tests.integration.support import DEADLINE_S, LiveServer, may_be_reset, reset, serving, through_asgi

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
CHUNK = 64 * 1024


class Violation(AssertionError):
    """The server wrote what it must not write."""


# Messages


_NOISE = base64.b64encode(random.Random(1).randbytes(1536 * 1024)).decode()  # what deflate can't make much smaller
_WIDE = "é€😀"  # so that a text cut in the middle is most likely not UTF-8


def stamp(*fields: object, size: int = 0) -> str:
    """A message that says what it is, with a checksum over all of it.

    Args:
        fields: What it says.
        size: How many bytes it is to have in UTF-8; more, if the fields need more.
    """
    head = "|".join(map(str, fields)) + "\n"
    room = size - len(head.encode()) - 9
    body = ""
    if room > 0:
        wide = _WIDE if room >= 9 else ""
        start = zlib.crc32(head.encode()) % (len(_NOISE) - size)
        body = wide + _NOISE[start : start + room - len(wide.encode())]
    return f"{zlib.crc32((head + body).encode()):08x}|{head}{body}"


def stamped(message: str | bytes) -> list[str]:
    """The fields of a message that `stamp` made.

    Raises:
        Violation: It is not whole.
    """
    data = message.encode() if isinstance(message, str) else message
    if data[8:9] != b"|" or data[:8] != b"%08x" % zlib.crc32(data[9:]):
        raise Violation(f"a message that is not whole: {data[:80]!r} ({len(data)} bytes)")
    return data[9:].partition(b"\n")[0].decode().split("|")


# Frames


class Frame(NamedTuple):
    """A frame as it came, inflated."""

    opcode: int
    payload: bytes


class Inflater:
    """permessage-deflate as the server agreed to it (RFC 7692 section 7.2.2)."""

    def __init__(self, answer: str) -> None:
        name, *parameters = [each.strip() for each in answer.split(";")]
        agreed = dict(each.partition("=")[::2] for each in parameters)
        if name != "permessage-deflate" or agreed.keys() - {
            "server_no_context_takeover",
            "client_no_context_takeover",
            "server_max_window_bits",
            "client_max_window_bits",
        }:
            raise Violation(f"an extension that was not offered: {answer}")
        self._bits = int(agreed.get("server_max_window_bits", 15))
        self._forgets = "server_no_context_takeover" in agreed
        self._inflate = zlib.decompressobj(-self._bits)

    def message(self, payload: bytes) -> bytes:
        try:
            data = self._inflate.decompress(payload + b"\x00\x00\xff\xff")
        except zlib.error as error:
            raise Violation(f"a compressed message that is not whole: {error}") from error
        if self._inflate.unused_data or self._inflate.unconsumed_tail:
            raise Violation("bytes behind the end of a compressed message")
        if self._forgets:
            self._inflate = zlib.decompressobj(-self._bits)
        return data


class Parser:
    """Frames of a server, from bytes in whatever pieces they come.

    Attributes:
        closed: The code and the reason of the Close frame, once it came.
    """

    def __init__(self, inflater: Inflater | None = None) -> None:
        self.closed: tuple[int, str] | None = None
        self._inflater = inflater
        self._buffer = bytearray()
        self._wanted = 2

    @property
    def within_a_frame(self) -> bool:
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """Takes bytes, and gives the frames that are complete by them.

        Raises:
            Violation: They are not what a server may send.
        """
        self._buffer += data
        frames = []
        while len(self._buffer) >= self._wanted:  # else not even worth a look: a large frame comes in many pieces
            found = self._next()
            if found is not None:
                frames.append(found)
        return frames

    def _next(self) -> Frame | None:
        """The first frame of the buffer; None where it is not complete, and then `_wanted` says what it needs."""
        buffer = self._buffer
        first, size, at = buffer[0], buffer[1], 2
        opcode = first & 0x0F
        self._check_start(first, size, opcode)
        if size > 125:
            at = 4 if size == 126 else 10
            if len(buffer) < at:
                self._wanted = at
                return None
            size = int.from_bytes(buffer[2:at], "big")
            if size < (126 if at == 4 else 65536) or size >> 63:
                raise Violation(f"a length that is not minimal: {bytes(buffer[:at])!r}")
        if len(buffer) < at + size:
            self._wanted = at + size
            return None
        payload = bytes(buffer[at : at + size])
        del buffer[: at + size]
        self._wanted = 2
        if first & 0x40:
            assert self._inflater is not None
            payload = self._inflater.message(payload)
        return self._checked(Frame(opcode, payload))

    def _check_start(self, first: int, second: int, opcode: int) -> None:
        start = f"{first:02x} {second:02x}"
        if self.closed is not None and opcode != PONG:  # uvicorn answers a ping also after its Close
            raise Violation(f"a frame after the Close frame: {start}")
        if first & 0x30 or (first & 0x40 and (self._inflater is None or opcode not in (TEXT, BINARY))):
            raise Violation(f"a reserved bit is set: {start}")
        if opcode not in (TEXT, BINARY, CLOSE, PING, PONG):
            raise Violation(f"an opcode that uvicorn does not use: {start}")
        if not first & 0x80:
            raise Violation(f"a fragment: {start}")
        if second & 0x80:
            raise Violation(f"a masked frame: {start}")
        if opcode & 0x8 and second > 125:
            raise Violation(f"a control frame of more than 125 bytes: {start}")

    def _checked(self, frame: Frame) -> Frame:
        try:
            if frame.opcode == TEXT:
                frame.payload.decode()
            elif frame.opcode == CLOSE:
                if len(frame.payload) == 1:
                    raise Violation("a Close frame of one byte")
                code = int.from_bytes(frame.payload[:2], "big") if frame.payload else 1005
                self.closed = code, frame.payload[2:].decode()
        except UnicodeDecodeError as error:
            raise Violation(f"text that is not UTF-8: {frame.payload[:80]!r}: {error}") from error
        return frame


# The client


class WireClient:
    """One socket, on asyncio. Reads only when it is told to.

    Attributes:
        answers: Whether it answers the server's Close frame by itself.
        ended: Whether nothing more can come.
        was_reset: Whether it ended without an orderly end of the stream.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, inflater: Inflater | None, *, answers: bool
    ) -> None:
        self.answers = answers
        self.deflates = inflater is not None
        self.ended = False
        self.was_reset = False
        self._parser = Parser(inflater)
        self._reader = reader
        self._writer = writer
        self._pings: deque[bytes] = deque()
        self._pinged = 0
        self._said_close = False
        self._may_be_cut = False
        self._messages: deque[str | bytes] = deque()

    @classmethod
    async def open(
        cls,
        server: LiveServer,
        path: str,
        *,
        tls: ssl.SSLContext | None = None,
        deflate: str | None = None,
        buffers: int | None = None,
        answers: bool = True,
        plain: socket.socket | None = None,
    ) -> WireClient:
        """Connects.

        Args:
            server: Where to.
            path: With the query.
            tls: The context, where the server speaks TLS.
            deflate: The extension parameters to offer (``""`` for none); None offers no compression.
            buffers: The size of the kernel's buffers, at this end and at the server's (`Sockets` sets it). Both, as a
                small one that meets a large one makes TCP wait for delayed acknowledgements.
            answers: Whether to answer the server's Close frame.
            plain: The socket to connect; a new one by default.
        """
        plain = socket.socket() if plain is None else plain
        try:
            if buffers is not None:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
            plain.setblocking(False)
            await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", server.port))
            options: dict[str, Any] = {} if tls is None else {"ssl": tls, "server_hostname": "127.0.0.1"}
            reader, writer = await asyncio.open_connection(sock=plain, limit=buffers or CHUNK, **options)
            may_be_reset(writer)
        except BaseException:
            plain.close()
            raise
        try:
            async with asyncio.timeout(DEADLINE_S):
                inflater = await _handshake(reader, writer, path, deflate, buffers)
        except BaseException:
            reset(writer.transport)
            raise
        return cls(reader, writer, inflater, answers=answers)

    @property
    def closed(self) -> tuple[int, str] | None:
        """The server's Close frame: its code and reason."""
        return self._parser.closed

    @property
    def unanswered_pings(self) -> int:
        return len(self._pings)

    @property
    def can_half_close(self) -> bool:
        return self._writer.can_write_eof()

    async def read(self, size: int = CHUNK) -> list[str | bytes]:
        """Reads once, up to ``size`` bytes; gives the messages that are complete by it. None, too, at the end.

        Raises:
            Violation: The server wrote what it must not.
        """
        try:
            data = await self._reader.read(size)
        except OSError:  # a reset; a stream that was cut short under TLS
            self._end(was_reset=True)
            return []
        if self.ended:
            return []  # it was reset meanwhile
        if not data:
            if self._parser.within_a_frame and not self._may_be_cut:
                raise Violation("the stream ends within a frame")
            self._end(was_reset=False)
            return []
        return [message for each in self._parser.feed(data) if (message := self._take(each)) is not None]

    async def receive(self) -> str | bytes:
        """The next message.

        Raises:
            EOFError: There is none: the server closed, or the stream ended.
        """
        async with asyncio.timeout(DEADLINE_S):
            while not self._messages:
                if self.ended or self.closed is not None:
                    raise EOFError(f"no message: {self.closed}")
                self._messages += await self.read()
        return self._messages.popleft()

    async def rest(self) -> list[str | bytes]:
        """All that comes until the end of the stream."""
        async with asyncio.timeout(DEADLINE_S):
            while not self.ended:
                self._messages += await self.read()
        messages, self._messages = list(self._messages), deque()
        return messages

    def _take(self, frame: Frame) -> str | bytes | None:
        if frame.opcode == TEXT:
            return frame.payload.decode()
        if frame.opcode == BINARY:
            return frame.payload
        if frame.opcode == PING:
            self._write(PONG, frame.payload)
        elif frame.opcode == PONG:
            if not self._pings or self._pings.popleft() != frame.payload:
                raise Violation(f"a pong that answers no ping, or out of order: {frame.payload!r}")
        elif self.answers:
            self.answer()
        return None

    def _end(self, *, was_reset: bool) -> None:
        self.ended = True
        self.was_reset = was_reset
        self._writer.transport.abort()

    # What it says

    def send(self, message: str | bytes) -> None:
        self._write(TEXT if isinstance(message, str) else BINARY, _bytes(message))

    def ping(self, size: int = 8) -> None:
        """Pings; the server's pong is to come in its turn, with the same payload."""
        if self.ended or self._said_close:
            return
        self._pinged += 1
        payload = self._pinged.to_bytes(max(size, 4), "big")
        self._pings.append(payload)
        self._write(PING, payload)

    def answer(self) -> None:
        """Answers the server's Close frame."""
        assert self.closed is not None
        code = self.closed[0]
        self.close(1000 if code == 1005 else code)

    def close(self, code: int = 1000) -> None:
        """Sends a Close frame; what the server had on its way may still come before its answer."""
        if not self._said_close:
            self._write(CLOSE, code.to_bytes(2, "big"))
            self._said_close = True

    def half_close(self, *, may_be_cut: bool = False) -> None:
        """Says that it has nothing more to say, and goes on reading. Plain TCP only.

        Args:
            may_be_cut: Whether the stream may then end anywhere. What an app sends through uvicorn on a transport that
                is closing, uvloop cuts off.
        """
        self._said_close = True
        self._may_be_cut = may_be_cut
        if not self._writer.transport.is_closing():
            try:
                self._writer.write_eof()
            except OSError:
                pass  # the server was quicker

    def reset(self) -> None:
        """Vanishes."""
        if not self.ended:
            self.ended = self.was_reset = True
            reset(self._writer.transport)

    def _write(self, opcode: int, payload: bytes) -> None:
        if self._said_close or self._writer.transport.is_closing():
            return
        size = len(payload)
        length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        self._writer.write(bytes([0x80 | opcode]) + length + b"\0\0\0\0" + payload)  # masked with zeros


def _bytes(message: str | bytes) -> bytes:
    return message.encode() if isinstance(message, str) else message


async def _handshake(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    path: str,
    deflate: str | None,
    buffers: int | None,
) -> Inflater | None:
    key = base64.b64encode(random.randbytes(16)).decode()
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade"]
    lines += ["Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}"]
    if deflate is not None:
        lines.append("Sec-WebSocket-Extensions: " + "; ".join(["permessage-deflate", *deflate.split()]))
    if buffers is not None:
        lines.append(f"X-Send-Buffer: {buffers}")
    writer.write("\r\n".join([*lines, "", ""]).encode())
    status, *fields = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    if status.split()[1] != "101":
        raise ConnectionRefusedError(status)
    headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode(), usedforsecurity=False).digest()
    if headers["sec-websocket-accept"] != base64.b64encode(digest).decode():
        raise Violation("the answer to another client's handshake")
    agreed = headers.get("sec-websocket-extensions")
    if agreed is not None and deflate is None:
        raise Violation(f"an extension that was not offered: {agreed}")
    return None if agreed is None else Inflater(agreed)


# The server


class Certificate(NamedTuple):
    """A certificate of this machine for itself."""

    certificate: Path
    key: Path
    context: ssl.SSLContext

    @classmethod
    def make(cls, directory: Path) -> Certificate:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        day = datetime.timedelta(days=1)
        number = x509.random_serial_number()
        builder = x509.CertificateBuilder(name, name, key.public_key(), number, now - day, now + day)
        made = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
        certificate, secret = directory / "certificate.pem", directory / "key.pem"
        certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return cls(certificate, secret, ssl.create_default_context(cafile=certificate))


class Sockets:
    """Outermost at the server: sees the socket of each client, and makes its buffer as small as the client asks.

    Attributes:
        descriptors: The number of each client's socket, as they came.
    """

    def __init__(self, app: Any) -> None:
        self.descriptors: list[int] = []
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            self._look(scope, send.__self__.transport.get_extra_info("socket"))
        await self._app(scope, receive, send)

    def _look(self, scope: Any, plain: Any) -> None:
        self.descriptors.append(plain.fileno())
        for name, value in scope["headers"]:
            if name == b"x-send-buffer":
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, int(value))


class Site(NamedTuple):
    """A server on one of the transports.

    Attributes:
        direct: The descriptors that hubbub was given to write to, as they came.
    """

    server: LiveServer
    transport: str
    loop: str
    sockets: Sockets
    tls: ssl.SSLContext | None
    direct: list[int]

    @property
    def cuts_the_half_closed(self) -> bool:
        """Whether the last frame of a client that half-closed may come cut off: plain uvicorn does the same there."""
        return self.transport == "asgi" and self.loop == "uvloop"

    @property
    def fast_path(self) -> float:
        """What `stats` is to say of it."""
        return 1.0 if self.transport == "direct" else 0.0

    async def client(self, path: str, **options: Any) -> WireClient:
        return await WireClient.open(self.server, path, tls=self.tls, **options)


@contextmanager
def quick_switches() -> Iterator[None]:
    """For two busy threads: after each call to a socket, one waits up to 5 ms until it has the interpreter again."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0002)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


TRANSPORTS = ("direct", "transport", "asgi", "tls")


@contextmanager
def site(app: Any, transport: str, loop: str, certificate: Certificate, **config: Any) -> Iterator[Site]:
    """Serves an app on a transport: uvicorn's socket directly, uvicorn's transport, ASGI's ``send``, or TLS."""
    sockets = Sockets(through_asgi(app) if transport == "asgi" else app)
    direct: list[int] = []
    if transport == "tls":
        config = {"ssl_certfile": certificate.certificate, "ssl_keyfile": certificate.key, **config}
    with pytest.MonkeyPatch.context() as patch:
        descriptor_of = direct_transport.descriptor_of

        def noted(plain: asyncio.Transport) -> int | None:
            found: int | None = None if transport == "transport" else descriptor_of(plain)
            if found is not None and plain.get_extra_info("socket").family != socket.AF_UNIX:  # the trial's own
                direct.append(found)
            return found

        patch.setattr(direct_transport, "descriptor_of", noted)
        with quick_switches(), serving(sockets, loop=loop, **config) as server:
            context = certificate.context if transport == "tls" else None
            yield Site(server, transport, loop, sockets, context, direct)
