"""The trial of uvicorn's HTTP protocols: the installed ones pass, and what would break a stream is found."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from uvicorn.protocols.http import h11_impl, httptools_impl

from hubbub.connections.transports import uvicorn_http
from hubbub.connections.transports.uvicorn_http import cycle_of, flaw_in_http, flaw_of, prepare_http

PROTOCOLS = {
    "httptools": (httptools_impl, httptools_impl.HttpToolsProtocol),
    "h11": (h11_impl, h11_impl.H11Protocol),
}


def tried(protocol: type, factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> str | None:
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(flaw_in_http(protocol))


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_the_installed_protocols_pass(name: str, factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    assert tried(PROTOCOLS[name][1], factory) is None


def late(send: Any) -> Any:
    async def changed(self: Any, message: Any) -> None:
        await asyncio.sleep(0)
        await send(self, message)

    return changed


def in_two_chunks(send: Any) -> Any:
    async def changed(self: Any, message: Any) -> None:
        body = message.get("body", b"")
        if message["type"] == "http.response.body" and 1 < len(body) < 100:
            await send(self, {**message, "body": body[:1], "more_body": True})
            await send(self, {**message, "body": body[1:]})
        else:
            await send(self, message)

    return changed


def with_a_length(send: Any) -> Any:
    async def changed(self: Any, message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"content-length", b"1000000")]}
        await send(self, message)

    return changed


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        (late, "its send waits although the socket takes data"),
        (in_two_chunks, "arrives where"),
        (with_a_length, "does not send a body without a length in chunks"),
    ],
)
@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_send_that_would_break_a_stream_is_found(
    name: str, change: Any, flaw: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, protocol = PROTOCOLS[name]
    cycle = module.RequestResponseCycle
    monkeypatch.setattr(cycle, "send", change(cycle.send))
    found = tried(protocol)
    assert found is not None
    assert flaw in found


@pytest.mark.parametrize(
    ("method", "flaw"),
    [
        ("pause_writing", "it does not pause when its buffer is full"),
        ("shutdown", "it does not report that it shuts down"),
    ],
)
@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_that_reports_less_is_found(
    name: str, method: str, flaw: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, protocol = PROTOCOLS[name]
    monkeypatch.setattr(protocol, method, lambda self: None)
    assert tried(protocol) == flaw


def test_a_loss_that_is_not_reported_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = httptools_impl.HttpToolsProtocol.connection_lost

    def unreported(self: Any, error: Exception | None) -> None:
        lost(self, error)
        self.cycle.disconnected = False

    monkeypatch.setattr(httptools_impl.HttpToolsProtocol, "connection_lost", unreported)
    assert tried(httptools_impl.HttpToolsProtocol) == "it does not report a lost connection"


def test_a_protocol_that_lacks_a_part_is_not_tried_further(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cycle(httptools_impl.RequestResponseCycle):
        def __getattribute__(self, name: str) -> Any:
            if name == "flow":
                raise AttributeError(name)
            return super().__getattribute__(name)

    Cycle.__module__ = httptools_impl.__name__
    cycle: Any = object.__new__(Cycle)
    assert cycle_of(cycle.send) is None


def test_whatever_else_sends_is_no_cycle() -> None:
    async def send(event: Any) -> None: ...

    class Other:
        async def send(self, event: Any) -> None: ...

    assert cycle_of(send) is None
    assert cycle_of(Other().send) is None


def test_each_class_is_tried_once_for_each_kind_of_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn_http, "_verdicts", {})
    calls: list[type] = []

    async def counted(protocol: type) -> str | None:
        calls.append(protocol)
        return "a flaw" if protocol is h11_impl.H11Protocol else None

    monkeypatch.setattr(uvicorn_http, "flaw_in_http", counted)

    async def twice() -> None:
        cycle: Any = object.__new__(h11_impl.RequestResponseCycle)
        assert flaw_of(cycle) == "it is untested"
        await prepare_http()
        await prepare_http()
        assert flaw_of(cycle) == "a flaw"
        assert flaw_of(object.__new__(httptools_impl.RequestResponseCycle)) is None  # type: ignore[arg-type]  # a part

    asyncio.run(twice())
    assert len(calls) == 2
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(prepare_http())
    assert len(calls) == 4
