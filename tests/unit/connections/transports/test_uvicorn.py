"""The transport under uvicorn: when a frame may be written, and where to. The asyncio transport is a fake."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from websockets.exceptions import PayloadTooBig
from websockets.frames import Close
from websockets.server import ServerProtocol

from hubbub.connections.transports import direct as direct_module
from hubbub.connections.transports import uvicorn as uvicorn_module
from hubbub.connections.transports.base import Event
from hubbub.connections.transports.direct import descriptor_of
from hubbub.connections.transports.inbound import SLACK_BYTES, Intake
from hubbub.connections.transports.ping import PING
from hubbub.connections.transports.uvicorn import UvicornProtocol, UvicornTransport, flaw_in_parts
from tests.unit.connections.transports.fakes import FakeProtocol, FakeTransport

DATA = b"\x81\x05hello"


class PlainSocket:
    """What asyncio gives as the socket of a transport."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def fileno(self) -> int:
        return self.descriptor


class Selector(FakeTransport):
    """A transport whose descriptor may be written to past it."""

    __module__ = "asyncio.selector_events"


class Server(FakeProtocol):
    """Uvicorn's protocol on a fake transport.

    Attributes:
        sent: The ASGI events that it was given.
        written: What was written to the descriptor, past the transport.
        takes: How many bytes the descriptor takes; None raises, as one that is full.
    """

    def __init__(self, kind: type[FakeTransport] = FakeTransport, **extra: Any) -> None:
        super().__init__()
        self.transport = kind(self, **extra)
        self.writable = asyncio.Event()
        self.writable.set()
        self.conn = ServerProtocol(max_size=1_000_000)
        self.sent: list[dict[str, Any]] = []
        self.written: list[bytes] = []
        self.takes: int | None = 1_000_000
        self.ours = UvicornTransport(cast(UvicornProtocol, self), self._send)

    async def _send(self, event: Event) -> None:
        self.sent.append(dict(event))

    def write(self, descriptor: int, data: bytes) -> int:
        assert descriptor == 7
        if self.takes is None:
            raise BlockingIOError("full")
        self.written.append(bytes(data[: self.takes]))
        return min(len(data), self.takes)


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server whose socket is written to past its transport."""
    server = Server(Selector, socket=PlainSocket(7))
    monkeypatch.setattr(direct_module, "_write", server.write)
    return server


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    asyncio.run(main())


# Whether a frame may be written


def hold(server: Server) -> None:
    server.ours.hold(True)


def fill(server: Server) -> None:
    server.writable.clear()


def close(server: Server) -> None:
    server.transport.closing = True


def send_close(server: Server) -> None:
    server.conn.close_sent = Close(1000, "")


@pytest.mark.parametrize("why_not", [hold, fill, close, send_close])
def test_nothing_is_written_to_a_socket_that_may_not_be_written_to(why_not: Callable[[Server], None]) -> None:
    server = Server()
    assert server.ours.write(DATA)
    why_not(server)
    assert not server.ours.write(DATA)
    assert server.transport.written == [DATA]


def test_a_socket_that_is_held_no_longer_is_written_to(direct: Server) -> None:
    direct.ours.hold(True)
    assert not direct.ours.write(DATA)
    direct.ours.hold(False)
    assert direct.ours.write(DATA)
    assert (direct.written, direct.transport.written) == ([DATA], [])


# Where to


@pytest.mark.parametrize("takes", [None, 0, 1, len(DATA) - 1])
def test_what_the_descriptor_does_not_take_is_left_to_the_transport(takes: int | None, direct: Server) -> None:
    direct.takes = takes
    assert direct.ours.write(DATA)
    assert b"".join(direct.written + direct.transport.written) == DATA
    assert b"".join(direct.transport.written) == DATA[takes or 0 :]


def test_a_frame_goes_behind_what_the_transport_still_has(direct: Server) -> None:
    direct.transport.waiting = 1
    assert direct.ours.write(DATA)
    assert (direct.written, direct.transport.written) == ([], [DATA])


def test_the_descriptor_of_a_socket_that_closes_is_not_touched(direct: Server) -> None:
    direct.transport.closing = True
    assert not direct.ours.write(DATA)
    assert direct.written == []


@pytest.mark.parametrize(
    ("kind", "extra", "descriptor", "detour"),
    [
        (Selector, {"socket": PlainSocket(7)}, 7, None),
        (Selector, {"socket": PlainSocket(0)}, 0, None),
        (Selector, {"socket": PlainSocket(-1)}, None, "it is not a known type of plain socket"),
        (Selector, {}, None, "it is not a known type of plain socket"),
        (Selector, {"socket": PlainSocket(7), "sslcontext": "a context"}, None, "TLS"),
        (FakeTransport, {"socket": PlainSocket(7)}, None, "it is not a known type of plain socket"),
    ],
)
def test_only_a_plain_socket_is_written_to_past_its_transport(
    kind: type[FakeTransport], extra: dict[str, Any], descriptor: int | None, detour: str | None
) -> None:
    server = Server(kind, **extra)
    assert descriptor_of(server.transport) == descriptor
    assert server.ours.detour == (None if detour is None else f"the server's transport: {detour}")


def test_a_drain_waits_until_the_socket_takes_something() -> None:
    async def test() -> None:
        server = Server()
        server.writable.clear()
        writing = asyncio.ensure_future(server.ours.write_soon(DATA))
        await asyncio.sleep(0)
        assert server.transport.written == []
        server.writable.set()
        await writing
        assert server.transport.written == [DATA]

    run(test)


@pytest.mark.parametrize("gone", [close, send_close])
def test_a_drain_of_a_socket_that_is_gone_raises(gone: Callable[[Server], None]) -> None:
    async def test() -> None:
        server = Server()
        gone(server)  # upon which uvicorn sets `writable`
        with pytest.raises(ConnectionResetError):
            await server.ours.write_soon(DATA)
        assert server.transport.written == []

    run(test)


def test_an_event_for_a_socket_that_closes_raises_and_does_not_reach_uvicorn() -> None:
    async def test() -> None:
        server = Server()
        await server.ours.send({"type": "websocket.accept"})
        server.transport.closing = True
        with pytest.raises(ConnectionResetError):
            await server.ours.send({"type": "websocket.close"})
        assert server.sent == [{"type": "websocket.accept"}]

    run(test)


# Bounds


@pytest.mark.parametrize(
    ("max_bytes", "water"), [(1000, (1000, 250)), (64 * 1024, (65_536, 16_384)), (10**9, (65_536, 16_384))]
)
def test_the_high_water_mark_is_no_higher_than_the_outbox_allows(max_bytes: int, water: tuple[int, int]) -> None:
    server = Server()
    server.ours.set_high_water(max_bytes)
    assert server.transport.water == water


@pytest.mark.parametrize(
    ("max_bytes", "bound"), [(1000, 2000 + SLACK_BYTES), (0, SLACK_BYTES), (10**9, 1_000_000), (None, 1_000_000)]
)
def test_a_message_that_comes_in_is_bounded_but_never_less_strictly_than_by_the_server(
    max_bytes: int | None, bound: int
) -> None:
    server = Server()
    server.ours.limit_message_size(5)
    server.ours.limit_message_size(max_bytes)  # the last one counts
    assert getattr(server.conn, uvicorn_module._MAX_SIZE) == bound


def test_a_message_is_unbounded_if_neither_the_app_nor_the_server_bounds_it() -> None:
    server = Server()
    setattr(server.conn, uvicorn_module._MAX_SIZE, None)
    server.ours.limit_message_size(None)
    assert getattr(server.conn, uvicorn_module._MAX_SIZE) is None


# What is known of the socket


def test_the_reason_of_the_server_to_close_is_known_once_it_has_closed() -> None:
    server = Server()
    conn = cast(Any, server.conn)
    assert server.ours.restarting is False
    conn.eof_sent = True
    assert server.ours.restarting is True, "a handshake that the server ends was under way"
    conn.close_sent = Close(1000, "")
    assert server.ours.restarting is False
    conn.close_sent = Close(1012, "")
    assert server.ours.restarting is True


def test_a_part_of_a_message_is_waited_for_unless_the_server_does_not_read() -> None:
    server = Server()
    assert not server.ours.assembling
    server.conn.reader.feed_data(b"\x81")
    assert server.ours.assembling
    server.read_paused = True
    assert not server.ours.assembling


def test_a_message_that_outgrew_its_bound_is_told_from_other_errors() -> None:
    server = Server()
    assert not server.ours.message_too_big
    server.conn.parser_exc = EOFError("the stream ended")
    assert not server.ours.message_too_big
    server.conn.parser_exc = PayloadTooBig(2, 1)
    assert server.ours.message_too_big


@pytest.mark.parametrize(
    ("closing", "waiting", "lingers"), [(False, 0, True), (False, 1, True), (True, 1, True), (True, 0, False)]
)
def test_a_socket_lingers_until_it_is_closed_and_its_buffer_is_empty(
    closing: bool, waiting: int, lingers: bool
) -> None:
    server = Server()
    server.transport.closing, server.transport.waiting = closing, waiting
    assert server.ours.lingers is lingers


def test_an_open_socket_can_be_asked_and_a_closed_one_can_not() -> None:
    server = Server()
    question = server.ours.ping(lambda: None)
    assert question is not None
    assert server.transport.written == [PING]
    question.end()
    server.conn.close_sent = Close(1000, "")
    assert server.ours.ping(lambda: None) is None


# What stands before the server's protocol


def test_a_watch_stands_before_the_protocol_that_the_server_sets_and_before_no_other() -> None:
    server = Server()
    server.ours.watch(lambda: True)
    assert isinstance(server.transport.get_protocol(), Intake)
    server.transport.set_protocol(server)  # as a server does after an app that began eagerly
    server.ours.maintain()
    assert isinstance(server.transport.get_protocol(), Intake)
    server.transport.set_protocol(upgraded := FakeProtocol())
    server.ours.maintain()
    assert server.transport.get_protocol() is upgraded


def test_pongs_that_wait_are_sent_with_the_next_tend() -> None:
    server = Server()
    server.ours.watch(lambda: True)
    server.writable.clear()
    cast(Any, server.conn).hubbub.answer(b"1")
    server.ours.maintain()
    assert server.transport.written == []
    server.writable.set()
    server.ours.maintain()
    assert server.transport.written == [b"\x8a\x011"]


@pytest.mark.parametrize(
    ("part", "flaw"),
    [
        ({}, None),
        ({"transport": None}, "it has no 'transport'"),
        ({"writable": None}, "it has no 'writable'"),
        ({"conn": "a parser"}, "its 'conn' is 'a parser', and not an ServerProtocol"),
    ],
)
def test_a_protocol_that_lacks_a_part_is_found_out_by_its_name(part: dict[str, Any], flaw: str | None) -> None:
    server = Server()
    for name, value in part.items():
        setattr(server, name, value)
    assert flaw_in_parts(server) == flaw
