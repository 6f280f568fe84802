"""The bounds on what the server handles by itself: pings, fragments, one turn's parsing, and a peer that closes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from hubbub.connections.transports import inbound as inbound_module
from hubbub.connections.transports.inbound import (
    FAREWELL_S,
    FRAME_BYTES,
    MAX_PONGS,
    TURN_BYTES,
    Inbound,
    Intake,
    watched,
)
from tests.unit.connections.transports.fakes import FakeProtocol, FakeTransport


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    asyncio.run(main())


def pong(payload: bytes) -> bytes:
    return bytes((0x8A, len(payload))) + payload


class Reader:
    def __init__(self) -> None:
        self.buffer = bytearray()


class Parser:
    """A server's parser: takes frames, and has a buffer with what it has not parsed."""

    hubbub: Inbound

    def __init__(self) -> None:
        self.state = State.OPEN
        self.reader = Reader()
        self.taken: list[Frame] = []

    def recv_frame(self, frame: Frame) -> None:
        self.taken.append(frame)


class Watched:
    """A parser under watch, and what stands around it."""

    def __init__(self, *, admits: bool = True) -> None:
        self.server = FakeProtocol()
        self.transport = FakeTransport(self.server)
        self.writable = asyncio.Event()
        self.writable.set()
        self.counted = 0
        self.admits = admits
        self.inbound = Inbound(self.transport, self.writable, self._admit)
        self.parser: Parser = watched(Parser)()
        self.parser.hubbub = self.inbound

    def _admit(self) -> bool:
        self.counted += 1
        return self.admits


# Pings


def test_a_ping_is_answered_at_once_and_not_by_the_server() -> None:
    watch = Watched()
    watch.parser.recv_frame(Frame(Opcode.PING, b"now"))
    assert watch.transport.written == [pong(b"now")]
    assert watch.parser.taken == []
    assert watch.counted == 1


@pytest.mark.parametrize("why", ["one too many", "the connection closes"])
def test_a_ping_is_not_answered_when_it_is(why: str) -> None:
    watch = Watched(admits=why != "one too many")
    if why == "the connection closes":
        watch.parser.state = State.CLOSING
    watch.parser.recv_frame(Frame(Opcode.PING, b"now"))
    assert watch.transport.written == []


def test_pongs_wait_for_a_socket_that_takes_nothing_and_go_out_in_order() -> None:
    watch = Watched()
    watch.writable.clear()
    for payload in (b"1", b"2"):
        watch.inbound.answer(payload)
    watch.inbound.flush_pongs()
    assert watch.transport.written == []
    watch.writable.set()
    watch.inbound.answer(b"3")
    assert b"".join(watch.transport.written) == pong(b"1") + pong(b"2") + pong(b"3")
    watch.inbound.flush_pongs()
    assert len(b"".join(watch.transport.written)) == 3 * len(pong(b"1")), "each is sent once"


@pytest.mark.parametrize("pings", [MAX_PONGS, MAX_PONGS + 1])
def test_only_the_newest_pongs_wait(pings: int) -> None:
    watch = Watched()
    watch.writable.clear()
    for number in range(pings):
        watch.inbound.answer(b"%d" % number)
    watch.writable.set()
    watch.inbound.flush_pongs()
    assert watch.transport.written == [b"".join(pong(b"%d" % number) for number in range(pings)[-MAX_PONGS:])]


def test_pongs_are_not_written_to_a_socket_that_closes() -> None:
    watch = Watched()
    watch.writable.clear()
    watch.inbound.answer(b"1")
    watch.transport.closing = True
    watch.writable.set()
    watch.inbound.flush_pongs()
    assert watch.transport.written == []


# Frames


@pytest.mark.parametrize(
    ("opcode", "counts"),
    [(Opcode.TEXT, 0), (Opcode.BINARY, 0), (Opcode.CLOSE, 0), (Opcode.CONT, 1), (Opcode.PONG, 1)],
)
def test_fragments_and_control_frames_are_counted_and_all_but_pings_reach_the_server(
    opcode: Opcode, counts: int
) -> None:
    watch = Watched(admits=False)
    watch.parser.recv_frame(frame := Frame(opcode, b""))
    assert watch.counted == counts
    assert watch.parser.taken == [frame]


@pytest.mark.parametrize(("size", "stops"), [(TURN_BYTES - FRAME_BYTES - 1, False), (TURN_BYTES - FRAME_BYTES, True)])
def test_a_parser_stops_when_its_turn_is_used_up(size: int, stops: bool) -> None:
    watch = Watched()
    watch.parser.reader.buffer += b"the next frame"
    watch.parser.recv_frame(Frame(Opcode.BINARY, bytes(size)))
    assert (watch.inbound.unparsed, bytes(watch.parser.reader.buffer)) == (
        (b"the next frame", b"") if stops else (b"", b"the next frame")
    )
    assert len(watch.parser.taken) == 1, "the frame that used the turn up is whole"


def test_each_class_of_parsers_is_subclassed_once() -> None:
    assert watched(Parser) is watched(Parser)
    assert issubclass(watched(Parser), Parser)
    assert watched(Parser).__name__ == "Parser"


# Turns


class Server(FakeProtocol):
    """A server whose parser takes one byte in a turn."""

    inbound: Inbound

    def data_received(self, data: bytes) -> None:
        super().data_received(data[:1])
        self.inbound.unparsed = data[1:]


class Taking:
    """An intake before a server that takes one byte in a turn."""

    def __init__(self) -> None:
        self.server = Server()
        self.transport = FakeTransport(self.server)
        self.inbound = self.server.inbound = Inbound(self.transport, asyncio.Event(), lambda: True)
        self.intake = Intake(self.transport, self.server, self.inbound)


def test_what_a_turn_left_waits_for_the_next_turn_and_reading_pauses_meanwhile() -> None:
    async def test() -> None:
        taking = Taking()
        taking.intake.data_received(b"abc")
        seen = []
        while not taking.transport.reading:
            seen.append(b"".join(taking.server.received))
            await asyncio.sleep(0)
        assert seen == [b"a", b"ab"]
        assert taking.server.received == [b"a", b"b", b"c"]
        assert taking.intake.held == b""

    run(test)


def test_what_comes_while_something_is_held_stays_behind_it() -> None:
    async def test() -> None:
        taking = Taking()
        taking.server.read_paused = True
        taking.intake.data_received(b"ab")
        taking.intake.data_received(b"c")
        assert (taking.server.received, taking.intake.held) == ([b"a"], b"bc")
        taking.server.read_paused = False
        taking.intake.read_on()
        for _ in range(3):
            await asyncio.sleep(0)
        assert taking.server.received == [b"a", b"b", b"c"]

    run(test)


@pytest.mark.parametrize("why", ["the server does not read", "the socket closes", "the socket is lost"])
def test_what_is_held_is_not_passed_on_when(why: str) -> None:
    async def test() -> None:
        taking = Taking()
        taking.intake.data_received(b"ab")
        taking.server.read_paused = why == "the server does not read"
        taking.transport.closing = why == "the socket closes"
        if why == "the socket is lost":
            taking.intake.connection_lost(None)
        for _ in range(3):
            await asyncio.sleep(0)
            taking.intake.read_on()
        assert taking.server.received == [b"a"]
        assert taking.intake.held == (b"" if why == "the socket is lost" else b"b")

    run(test)


# The end


def test_a_closing_peer_is_heard_for_a_moment_and_then_not_read_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, FAREWELL_S * 0.6, 0.0, FAREWELL_S * 0.6])
    monkeypatch.setattr(inbound_module, "perf_counter", lambda: next(times))
    server = FakeProtocol()
    transport = FakeTransport(server)
    intake = Intake(transport, server, Inbound(transport, asyncio.Event(), lambda: True))
    intake.stop_reading()
    intake.data_received(b"one")
    intake.stop_reading()  # which gives no second moment
    assert (intake.reading_stopped, transport.reading) == (False, True)
    intake.data_received(b"two")
    assert (intake.reading_stopped, transport.reading) == (True, False)
    transport.resume_reading()  # as a server does that has sent its Close
    intake.data_received(b"three")
    assert not transport.reading
    assert server.received == [b"one", b"two"]


def test_a_peer_that_is_not_closing_is_heard_however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbound_module, "perf_counter", lambda: pytest.fail("an open peer is not timed"))
    server = FakeProtocol()
    transport = FakeTransport(server)
    intake = Intake(transport, server, Inbound(transport, asyncio.Event(), lambda: True))
    for _ in range(3):
        intake.data_received(b"more")
    assert not intake.reading_stopped
    assert server.received == [b"more"] * 3
