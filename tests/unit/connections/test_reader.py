"""A reader: what it gives to the handler, what it reads ahead, and how long nothing has come. The server is a fake."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from hubbub.close import Closed
from hubbub.connections.handler import Handler
from hubbub.connections.reader import Reader
from hubbub.connections.transports import AsgiTransport, Event
from hubbub.tasks import Tasks

HELLO = {"type": "websocket.receive", "text": "hello"}
BAD = {"type": "websocket.receive", "text": "bad"}
GONE = {"type": "websocket.disconnect", "code": 4001, "reason": "done"}


class Transport(AsgiTransport):
    """The one through ASGI, but a test says whether a message is incomplete."""

    assembling = False


class Socket:
    """A socket that admits everything but what is bad."""

    def __init__(self) -> None:
        self.transport = Transport(self._send, lambda: None)
        self.handler = Handler()
        self.closed: Closed | None = None
        self.ends: list[Closed] = []
        self.ended = asyncio.Event()
        self.server: asyncio.Queue[Event] = asyncio.Queue()
        self.reader = Reader(self, self.server.get)

    async def _send(self, event: Event) -> None:
        raise AssertionError("a reader sends nothing")

    def admit(self, event: Event) -> bool:
        return event != BAD

    def on_disconnect(self, code: int, reason: str) -> None:
        self.ends.append(Closed(code, reason))
        self.ended.set()

    def comes(self, *events: dict[str, Any]) -> None:
        for event in events:
            self.server.put_nowait(dict(event))


def with_socket(test: Callable[[Socket], Awaitable[None]]) -> None:
    async def main() -> None:
        await test(Socket())

    asyncio.run(main())


def test_messages_that_are_admitted_come_in_order_and_then_the_disconnect() -> None:
    async def test(socket: Socket) -> None:
        socket.comes({"type": "websocket.connect"}, HELLO, BAD, HELLO, GONE)
        got = [await socket.reader.receive() for _ in range(4)]
        assert got == [{"type": "websocket.connect"}, HELLO, HELLO, GONE]
        assert socket.ends == [Closed(4001, "done")]
        assert socket.handler.informed

    with_socket(test)


def test_a_disconnect_without_a_code_is_1005() -> None:
    async def test(socket: Socket) -> None:
        socket.comes({"type": "websocket.disconnect"})
        await socket.reader.receive()
        assert socket.ends == [Closed(1005, "")]

    with_socket(test)


def test_an_interrupted_receive_gives_the_disconnect_with_the_code_of_the_close() -> None:
    async def test(socket: Socket) -> None:
        receiving = asyncio.create_task(socket.reader.receive())
        await asyncio.sleep(0)
        socket.closed = Closed(1012, "restart")
        await socket.reader.interrupt()
        assert await receiving == {"type": "websocket.disconnect", "code": 1012, "reason": "restart"}
        assert socket.handler.informed

    with_socket(test)


def test_a_receive_that_is_cancelled_by_others_is_cancelled() -> None:
    async def test(socket: Socket) -> None:
        receiving = asyncio.create_task(socket.reader.receive())
        await asyncio.sleep(0)
        receiving.cancel()
        await asyncio.wait([receiving])
        assert receiving.cancelled()
        assert not socket.handler.informed
        await socket.reader.interrupt()  # there is nothing to interrupt any more

    with_socket(test)


def test_a_handler_that_does_not_receive_is_neglecting_from_the_second_look_on() -> None:
    async def test(socket: Socket) -> None:
        reader = socket.reader
        assert [reader.neglected(), reader.neglected()] == [False, True]
        socket.comes(HELLO)
        await reader.receive()
        assert [reader.neglected(), reader.neglected()] == [False, True]
        receiving = asyncio.create_task(reader.receive())
        await asyncio.sleep(0)
        assert [reader.neglected(), reader.neglected()] == [False, False]
        socket.comes(HELLO)
        await receiving

    with_socket(test)


def test_what_is_read_ahead_is_given_in_order_and_informs_the_handler_when_it_receives() -> None:
    async def test(socket: Socket) -> None:
        tasks, reader = Tasks(), socket.reader
        reader.read_ahead(tasks)
        assert not reader.neglected()
        socket.comes(HELLO, BAD, GONE)
        await socket.ended.wait()
        assert not socket.handler.informed
        assert await reader.receive() == HELLO
        assert not socket.handler.informed
        assert await reader.receive() == GONE
        assert socket.handler.informed
        await tasks.close(1.0)

    with_socket(test)


def test_silence_counts_from_the_first_look_and_from_the_last_message() -> None:
    async def test(socket: Socket) -> None:
        reader = socket.reader
        assert [reader.silent_for(now) for now in (100.0, 101.0, 110.0)] == [0.0, 1.0, 10.0]
        socket.comes(HELLO)
        await reader.receive()
        assert [reader.silent_for(now) for now in (111.0, 113.0)] == [0.0, 2.0]

    with_socket(test)


def test_a_message_is_assembled_from_the_first_look_that_saw_a_part_until_it_came() -> None:
    async def test(socket: Socket) -> None:
        reader = socket.reader
        assert reader.assembling_for(100.0) == 0.0
        socket.transport.assembling = True
        assert [reader.assembling_for(now) for now in (101.0, 104.0)] == [0.0, 3.0]
        socket.comes(HELLO)
        await reader.receive()
        assert [reader.assembling_for(now) for now in (105.0, 106.0)] == [0.0, 1.0]
        socket.transport.assembling = False
        assert [reader.assembling_for(now) for now in (107.0, 108.0)] == [0.0, 0.0]

    with_socket(test)
