"""The trial that decides whether frames may be written straight to the socket: uvicorn's protocol, and spoiled ones."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode

from hubbub.connections.transports import UvicornTransport, choosing, trial
from hubbub.connections.transports.choosing import Detour, prepare, protocol_of
from hubbub.connections.transports.trial import flaw_in, make_protocol
from hubbub.connections.transports.trial_connection import Make

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Both event loops: what is tried is the loop's transport too."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


def making(spoiled: Callable[..., asyncio.Protocol]) -> Make:
    """As uvicorn makes its own, but of another class."""

    def make(app: Any, settings: dict[str, Any]) -> Any:
        own = make_protocol(app, settings)
        return spoiled(own.config, uvicorn.server.ServerState(), {})

    return make


async def test_todays_uvicorn_holds_what_is_relied_on() -> None:
    assert await flaw_in(make_protocol) is None


async def test_trial_leaves_no_task_and_no_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    before = asyncio.all_tasks()
    with caplog.at_level("INFO"):
        await flaw_in(make_protocol)
    assert asyncio.all_tasks() == before
    assert not caplog.records


class PingsAtOnce(WebSocketsSansIOProtocol):
    """As where the loop was busy for as long as the interval of the pings."""

    def schedule_ping(self) -> None:
        if self.ping_interval is not None and self.ping_interval < 1:
            self.send_keepalive_ping()
        else:
            super().schedule_ping()


async def test_a_ping_may_come_together_with_the_answer_to_the_handshake() -> None:
    assert await flaw_in(making(PingsAtOnce)) is None


class Halves:
    """A transport that writes the first half of everything now, and the second in the next pass."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def write(self, data: bytes) -> None:
        self._transport.write(data[: len(data) // 2])
        asyncio.get_running_loop().call_soon(self._transport.write, data[len(data) // 2 :])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class AnswersPingsItself(WebSocketsSansIOProtocol):
    """Past its parser, which answers too."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if data[0] == 0x89:
            self.transport.write(b"\x8a\0")


class KeepalivePingInTwoSteps(WebSocketsSansIOProtocol):
    def send_keepalive_ping(self) -> None:
        real, self.transport = self.transport, Halves(self.transport)  # type: ignore[assignment]  # that is the fault
        super().send_keepalive_ping()
        self.transport = real


class WritesAfterAnAwait(WebSocketsSansIOProtocol):
    async def send(self, message: Any) -> None:
        await asyncio.sleep(0)
        await super().send(message)


class WritesLater(WebSocketsSansIOProtocol):
    """Queues what it is given: `send` returns before it is written."""

    async def send(self, message: Any) -> None:
        if message["type"] != "websocket.send":
            await super().send(message)
            return
        self.conn.send_text(message["text"].encode())
        self.loop.call_soon(self.transport.write, b"".join(self.conn.data_to_send()))


class StaysOpenAfterThePeersClose(WebSocketsSansIOProtocol):
    def handle_close(self, event: Frame) -> None:
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.loop.call_later(0.01, self.transport.close)


class WritesAfterItsClose(WebSocketsSansIOProtocol):
    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.close":
            self.transport.write(Frame(Opcode.TEXT, b"and another thing").serialize(mask=False))


class TellsNobodyThatItClosed(WebSocketsSansIOProtocol):
    async def send(self, message: Any) -> None:
        await super().send(message)
        self.conn.close_sent = None


class ShutsDownLater(WebSocketsSansIOProtocol):
    def shutdown(self) -> None:
        self.loop.call_soon(super().shutdown)


class StaysOpenWithoutAPong(WebSocketsSansIOProtocol):
    def keepalive_timeout(self) -> None:
        self.conn.fail(1011, "keepalive ping timeout")
        self.transport.write(b"".join(self.conn.data_to_send()))


class NeverPauses(WebSocketsSansIOProtocol):
    """As uvicorn before 0.52.1."""

    __module__ = "uvicorn.protocols.websockets"

    def pause_writing(self) -> None:
        pass


class HangsWhenLost(WebSocketsSansIOProtocol):
    """As uvicorn before 0.52.1: a lost connection never becomes writable."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.writable.set = lambda: None  # type: ignore[method-assign]  # that is the fault
        super().connection_lost(exc)


class Lying:
    """A transport that says that its buffer is empty."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def get_write_buffer_size(self) -> int:
        return 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class BufferLies(WebSocketsSansIOProtocol):
    def connection_made(self, transport: Any) -> None:
        super().connection_made(Lying(transport))  # type: ignore[arg-type]  # that is the fault


class HasNoWritable(WebSocketsSansIOProtocol):
    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.gate = self.writable
        del self.writable

    def connection_lost(self, exc: Exception | None) -> None:
        self.writable = self.gate
        super().connection_lost(exc)


class HidesItsSend(WebSocketsSansIOProtocol):
    async def run_asgi(self) -> None:
        async def send(message: Any) -> None:
            await self.send(message)

        await self.app(self.scope, self.receive, send)


class TakesOtherArguments(WebSocketsSansIOProtocol):
    def __init__(self, *, settings: object) -> None:
        raise AssertionError


SPOILED = {
    AnswersPingsItself: "a frame with opcode 10 came instead of one with 1",
    KeepalivePingInTwoSteps: "it writes a frame in more than one step",
    WritesAfterAnAwait: "its send waits with 'accept' although the socket takes data",
    WritesLater: "of 8 bytes sent, 0 were written",
    StaysOpenAfterThePeersClose: "it does not close its transport in the step in which it sends a Close",
    WritesAfterItsClose: "it writes after a Close frame",
    TellsNobodyThatItClosed: "it does not set close_sent",
    ShutsDownLater: "it does not report that it shuts down",
    StaysOpenWithoutAPong: "it does not close its transport in the step in which it sends a Close",
    NeverPauses: "it does not pause when its buffer is full",
    BufferLies: "its transport is not the socket's",
    HasNoWritable: "it has no 'writable'",
    HidesItsSend: "its send is not a method of the protocol",
    TakesOtherArguments: "it raises TypeError(",
}


@pytest.mark.parametrize("spoiled", SPOILED, ids=lambda spoiled: spoiled.__name__)
async def test_spoiled_protocol_is_found_out(spoiled: type[asyncio.Protocol]) -> None:
    before = asyncio.all_tasks()
    assert (await flaw_in(making(spoiled)) or "nothing").startswith(SPOILED[spoiled])
    assert asyncio.all_tasks() == before


async def test_buffer_that_is_not_what_it_says_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UvicornTransport, "buffered", 0)
    assert (await flaw_in(make_protocol) or "nothing").endswith("and 0 are said to be in the buffer")


async def test_protocol_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_DEADLINE_S", 0.1)
    assert await flaw_in(making(HangsWhenLost)) == "it did not do what it should in 0.1 s"


@pytest.fixture
def fresh_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "_verdicts", {})


def connected(make: Make = make_protocol) -> Any:
    """A protocol as uvicorn has it once the connection is made."""
    protocol = make(None, {})
    protocol.transport = asyncio.Transport()
    return protocol


@pytest.mark.usefixtures("fresh_verdicts")
class TestTheChoice:
    async def test_uvicorns_own_protocol_is_written_past(self) -> None:
        await prepare()
        protocol = connected()
        assert protocol_of(protocol.send) is protocol

    async def test_is_made_once_for_a_kind_of_event_loop(self) -> None:
        await prepare()
        verdict = choosing._verdicts[type(asyncio.get_running_loop())]
        await prepare()
        assert choosing._verdicts == {type(asyncio.get_running_loop()): verdict}

    async def test_before_a_manager_has_started_nothing_is_written_past(self) -> None:
        found = protocol_of(connected().send)
        assert isinstance(found, Detour)
        assert found.text.startswith("no manager has started on this event loop yet, so uvicorn.protocols.")

    async def test_where_uvicorn_does_not_serve_nothing_is_tried(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in sys.modules if name.startswith("uvicorn.protocols.websockets.")]:
            monkeypatch.delitem(sys.modules, name)
        await prepare()
        assert not choosing._verdicts

    async def test_flaw_is_a_fault_that_says_what_fails_and_what_is_lost(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(choosing, "make_protocol", making(NeverPauses))
        await prepare()
        found = protocol_of(connected(making(NeverPauses)).send)
        assert isinstance(found, Detour)
        assert found.fault
        assert found.text == (
            f"uvicorn.protocols.websockets.NeverPauses of uvicorn {uvicorn.__version__} does not behave as direct "
            "writes require: it does not pause when its buffer is full. Until a hubbub release supports it, a "
            "broadcast costs several times the CPU, and a client that does not read is aborted only when the server "
            "closes it"
        )

    async def test_uvicorn_that_has_another_shape_is_a_fault(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:
            patch.delattr(uvicorn.Config, "load")
            await prepare()
        found = protocol_of(connected().send)
        assert isinstance(found, Detour)
        assert found.fault
        lacking = "it raises AttributeError(\"'Config' object has no attribute 'load'\"). Until a hubbub release"
        assert lacking in found.text

    @pytest.mark.parametrize("lacking", ["transport", "writable", "conn"])
    async def test_object_that_lacks_a_part_is_not_written_past(self, lacking: str) -> None:
        await prepare()
        protocol = connected()
        send = protocol.send
        delattr(protocol, lacking)
        found = protocol_of(send)
        assert isinstance(found, Detour)
        assert found.fault
        assert f"it has no '{lacking}'" in found.text

    @pytest.mark.parametrize(
        ("name", "other"), [("transport", None), ("transport", object()), ("writable", True), ("conn", object())]
    )
    async def test_object_whose_part_is_another_is_not_written_past(self, name: str, other: object) -> None:
        await prepare()
        protocol = connected()
        setattr(protocol, name, other)
        found = protocol_of(protocol.send)
        assert isinstance(found, Detour)
        assert found.fault
