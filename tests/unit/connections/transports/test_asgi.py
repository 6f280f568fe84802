"""The transport through ASGI: one event per message, and what each failure of the server's ``send`` means."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from hubbub.connections.transports.asgi import AsgiTransport
from hubbub.connections.transports.base import Event
from hubbub.protocols.frames import Opcode, frame

HELLO = {"type": "websocket.send", "text": "hello"}


class Server:
    """A server's ``send``, which raises what a test sets.

    Attributes:
        asked: The events that it was given.
        fails: What each of the next calls raises; None where it sends.
        ended: How often the task of the app was ended.
    """

    def __init__(self, *fails: Exception | None) -> None:
        self.asked: list[dict[str, Any]] = []
        self.fails = list(fails)
        self.ended = 0
        self.transport = AsgiTransport(self._send, self._end_task)

    async def _send(self, event: Event) -> None:
        self.asked.append(dict(event))
        failure = self.fails.pop(0) if self.fails else None
        if failure is not None:
            raise failure

    def _end_task(self) -> None:
        self.ended += 1


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    asyncio.run(main())


def test_nothing_is_written_at_once() -> None:
    server = Server()
    server.transport.hold(False)
    assert not server.transport.write(frame(Opcode.TEXT, b"hello"))
    assert server.asked == []
    assert server.transport.buffered == 0


def test_joined_frames_are_sent_as_one_event_for_each_message() -> None:
    async def test() -> None:
        server = Server()
        frames = [frame(Opcode.TEXT, "é".encode()), frame(Opcode.BINARY, b"\xff"), frame(Opcode.TEXT, b"")]
        await server.transport.write_soon(b"".join(frames))
        assert server.asked == [
            {"type": "websocket.send", "text": "é"},
            {"type": "websocket.send", "bytes": b"\xff"},
            {"type": "websocket.send", "text": ""},
        ]

    run(test)


@pytest.mark.parametrize("failure", [OSError("gone"), RuntimeError("after close"), KeyError("of the server's own")])
def test_any_failure_of_a_sound_message_means_that_the_client_is_gone(failure: Exception) -> None:
    async def test() -> None:
        server = Server(failure)
        assert not server.transport.closing
        with pytest.raises(ConnectionResetError, match=type(failure).__name__) as caught:
            await server.transport.send(dict(HELLO))
        assert caught.value.__cause__ is failure
        assert server.transport.closing
        with pytest.raises(ConnectionResetError):
            await server.transport.send(dict(HELLO))
        assert len(server.asked) == 1, "a socket that is gone is not tried again"

    run(test)


@pytest.mark.parametrize(
    ("event", "failure"),
    [
        ({"type": "websocket.send", "text": b"bytes"}, TypeError("not a str")),
        ({"type": "websocket.send", "bytes": "text"}, TypeError("not bytes")),
        ({"type": "websocket.send", "text": "\ud83d"}, UnicodeEncodeError("utf-8", "\ud83d", 0, 1, "a surrogate")),
    ],
)
def test_a_message_that_no_server_can_send_is_the_apps_error_and_leaves_the_socket_open(
    event: dict[str, Any], failure: Exception
) -> None:
    async def test() -> None:
        server = Server(failure)
        with pytest.raises(type(failure)):
            await server.transport.send(event)
        assert not server.transport.closing
        await server.transport.send(dict(HELLO))

    run(test)


@pytest.mark.parametrize(("code", "sent"), [(1008, [1008, 4008]), (1001, [1001, 4001]), (2999, [2999, 5999])])
def test_a_close_code_that_a_server_refuses_is_sent_from_the_private_range(code: int, sent: list[int]) -> None:
    async def test() -> None:
        server = Server(ValueError("a code that applications may not send"))
        await server.transport.send({"type": "websocket.close", "code": code, "reason": "why"})
        assert [event["code"] for event in server.asked] == sent
        assert {event["reason"] for event in server.asked} == {"why"}
        assert not server.transport.closing

    run(test)


@pytest.mark.parametrize(
    ("event", "failure"),
    [
        ({"type": "websocket.close", "code": 1000}, ValueError("?")),
        ({"type": "websocket.close"}, ValueError("?")),
        ({"type": "websocket.close", "code": 3000}, ValueError("?")),
        ({"type": "websocket.close", "code": 1008}, OSError("gone")),
        ({"type": "websocket.accept"}, ValueError("?")),
    ],
)
def test_what_no_other_code_would_help_is_not_sent_twice(event: dict[str, Any], failure: Exception) -> None:
    async def test() -> None:
        server = Server(failure)
        with pytest.raises(ConnectionResetError):
            await server.transport.send(event)
        assert server.asked == [event]

    run(test)


def test_an_abort_ends_the_task_of_the_app_once() -> None:
    server = Server()
    server.transport.abort()
    server.transport.abort()
    assert server.ended == 1
    assert server.transport.closing


def test_a_client_that_is_gone_is_not_aborted() -> None:
    async def test() -> None:
        server = Server(OSError("gone"))
        with pytest.raises(ConnectionResetError):
            await server.transport.send(dict(HELLO))
        server.transport.abort()
        assert server.ended == 0

    run(test)
