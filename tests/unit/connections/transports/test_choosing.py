"""The choice of a transport: uvicorn's socket only where it was tried, and else ASGI with the reason."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.server import ServerProtocol

from hubbub.connections.transports import choosing
from hubbub.connections.transports.asgi import AsgiTransport
from hubbub.connections.transports.base import Event
from hubbub.connections.transports.choosing import Detour, Verdict, prepare, protocol_of, transport_for
from hubbub.connections.transports.uvicorn import UvicornTransport
from tests.unit.connections.transports.fakes import FakeProtocol, FakeTransport


class Protocol(FakeProtocol):
    """What looks like uvicorn's protocol."""

    __module__ = "uvicorn.protocols.websockets.theirs"

    def __init__(self) -> None:
        super().__init__()
        self.transport = FakeTransport(self)
        self.writable = asyncio.Event()
        self.conn = ServerProtocol()

    async def send(self, event: Event) -> None:
        raise AssertionError("nothing is sent here")


class Other(Protocol):
    __module__ = "uvicorn.protocols.websockets.theirs"


class Foreign(Protocol):
    __module__ = "hypercorn.protocol"


NAME = "uvicorn.protocols.websockets.theirs.Protocol"


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> dict[type, Verdict]:
    """The verdicts of the process, of which there is none."""
    empty: dict[type, Verdict] = {}
    monkeypatch.setattr(choosing, "_verdicts", empty)
    return empty


def on_loop(test: Callable[[type], Awaitable[None]]) -> None:
    async def main() -> None:
        await test(type(asyncio.get_running_loop()))

    asyncio.run(main())


def end_task() -> None:
    raise AssertionError("no task is ended")


async def plain_send(event: Event) -> None:
    raise AssertionError("nothing is sent here")


def test_a_protocol_that_was_tried_is_written_to_straight(verdicts: dict[type, Verdict]) -> None:
    async def test(kind: type) -> None:
        verdicts[kind] = Verdict(Protocol, None)
        protocol = Protocol()
        found: object = protocol_of(protocol.send)
        assert found is protocol
        transport, detour = transport_for(protocol.send, end_task)
        assert isinstance(transport, UvicornTransport)
        assert detour == Detour("the server's transport: it is not a known type of plain socket")

    on_loop(test)


def wrapped() -> Any:
    send = Protocol().send

    async def wrapper(event: Event) -> None:
        await send(event)

    return wrapper


class Lookalike:
    """A middleware's send that passes every attribute on."""

    def __init__(self, send: Any) -> None:
        self.send = send

    def __getattr__(self, name: str) -> Any:
        return getattr(self.send, name)


@pytest.mark.parametrize(
    ("send", "why"),
    [
        pytest.param(wrapped, "another middleware wraps send", id="a closure"),
        pytest.param(lambda: Lookalike(Protocol().send), "another middleware wraps send", id="a look-alike"),
        pytest.param(lambda: plain_send, "unknown server", id="a function"),
        pytest.param(lambda: partial(plain_send), "unknown server", id="a partial of a function"),
        pytest.param(
            lambda: partial(Foreign().send),
            "hypercorn.protocol.Foreign is not uvicorn's default WebSocket protocol",
            id="a partial of a method",
        ),
        pytest.param(
            lambda: Foreign().send,
            "hypercorn.protocol.Foreign is not uvicorn's default WebSocket protocol",
            id="another server",
        ),
        pytest.param(
            lambda: Other().send,
            "uvicorn.protocols.websockets.theirs.Other is not uvicorn's default WebSocket protocol",
            id="another protocol of uvicorn's",
        ),
    ],
)
def test_any_other_send_goes_through_asgi_and_says_why(
    send: Callable[[], Any], why: str, verdicts: dict[type, Verdict]
) -> None:
    async def test(kind: type) -> None:
        verdicts[kind] = Verdict(Protocol, None)
        transport, detour = transport_for(send(), end_task)
        assert isinstance(transport, AsgiTransport)
        assert detour == Detour(f"the server's ASGI send, message by message: {why}", fault=False)

    on_loop(test)


def test_a_protocol_that_nobody_has_tried_is_not_written_past(verdicts: dict[type, Verdict]) -> None:
    async def test(_: type) -> None:
        detour = Detour(f"no manager has started on this event loop yet, so {NAME} is untested")
        assert protocol_of(Protocol().send) == detour

    on_loop(test)


@pytest.mark.parametrize("verdict", [Verdict(Protocol, "it lies"), Verdict(None, "it lies")])
def test_a_protocol_that_failed_its_trial_is_a_fault(verdict: Verdict, verdicts: dict[type, Verdict]) -> None:
    async def test(kind: type) -> None:
        verdicts[kind] = verdict
        detour = protocol_of(Protocol().send)
        assert isinstance(detour, Detour)
        assert detour.fault
        assert detour.text.startswith(f"{NAME} of uvicorn ")
        assert "it lies" in detour.text

    on_loop(test)


def test_an_object_that_lacks_a_part_which_others_of_its_class_had_is_a_fault(verdicts: dict[type, Verdict]) -> None:
    async def test(kind: type) -> None:
        verdicts[kind] = Verdict(Protocol, None)
        protocol = Protocol()
        del protocol.conn
        detour = protocol_of(protocol.send)
        assert isinstance(detour, Detour)
        assert detour.fault
        assert "it has no 'conn'" in detour.text

    on_loop(test)


# The trial


class Trial:
    """Stands in for the trial of uvicorn's protocol: notes its calls, and finds what a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, loaded: bool, makes: bool = True) -> None:
        self.calls = 0
        self.makes = makes
        modules = {"uvicorn.protocols.websockets.theirs": object()} if loaded else {"uvicorn": object()}
        monkeypatch.setattr(choosing, "sys", SimpleNamespace(modules=modules))
        monkeypatch.setattr(choosing, "make_protocol", lambda app, settings: Protocol())
        monkeypatch.setattr(choosing, "flaw_in", self._flaw_in)

    async def _flaw_in(self, make: Callable[[Any, dict[str, Any]], Any]) -> str | None:
        self.calls += 1
        if not self.makes:
            return "it can't be made"
        make(None, {})
        return None


def test_uvicorn_is_tried_once_on_each_kind_of_loop(
    verdicts: dict[type, Verdict], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(kind: type) -> None:
        trial = Trial(monkeypatch, loaded=True)
        await prepare()
        await prepare()
        assert trial.calls == 1
        assert verdicts == {kind: Verdict(Protocol, None)}

    on_loop(test)


def test_nothing_is_tried_where_uvicorn_does_not_serve(
    verdicts: dict[type, Verdict], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(_: type) -> None:
        trial = Trial(monkeypatch, loaded=False)
        await prepare()
        assert (trial.calls, verdicts) == (0, {})

    on_loop(test)


def test_a_trial_that_makes_no_protocol_is_a_verdict_too(
    verdicts: dict[type, Verdict], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(kind: type) -> None:
        Trial(monkeypatch, loaded=True, makes=False)
        await prepare()
        assert verdicts == {kind: Verdict(None, "it can't be made")}

    on_loop(test)
