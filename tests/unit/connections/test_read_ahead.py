"""Reading ahead: in order, no more than the bounds, and always with a disconnect at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.connections import read_ahead as read_ahead_module
from hubbub.connections.read_ahead import ReadAhead
from hubbub.connections.transports import Event
from hubbub.tasks import Tasks

GONE = {"type": "websocket.disconnect", "code": 4001, "reason": "done"}
LOST = {"type": "websocket.disconnect", "code": 1006, "reason": ""}
MAX_MESSAGES, MAX_BYTES = read_ahead_module._MAX_MESSAGES, read_ahead_module._MAX_BYTES


def message(size: int = 1) -> dict[str, Any]:
    return {"type": "websocket.receive", "text": "x" * size}


class Server:
    """A server that has a number of events, and counts those that were taken from it."""

    def __init__(self, *events: dict[str, Any] | Exception) -> None:
        self.tasks = Tasks()
        self.taken = 0
        self._events = events
        self.ahead = ReadAhead(self._receive, self.tasks)

    async def _receive(self) -> Event:
        if self.taken == len(self._events):
            await asyncio.Event().wait()
        event = self._events[self.taken]
        self.taken += 1
        if isinstance(event, Exception):
            raise event
        return dict(event)


async def settled() -> None:
    """Lets the task go as far as it can: nothing that it waits for comes by itself."""
    for _ in range(5):
        await asyncio.sleep(0)


def reading(test: Callable[[Server], Awaitable[None]], *events: dict[str, Any] | Exception) -> None:
    async def main() -> None:
        server = Server(*events)
        await settled()
        await test(server)
        server.ahead.stop()
        await server.tasks.close(1.0)

    asyncio.run(main())


def test_messages_come_in_order_and_then_the_disconnect_again_and_again() -> None:
    async def test(server: Server) -> None:
        assert server.taken == 3
        assert [await server.ahead.get() for _ in range(4)] == [message(1), message(2), GONE, GONE]

    reading(test, message(1), message(2), GONE, message(3))


def test_a_message_that_is_waited_for_is_given_when_it_comes() -> None:
    async def main() -> None:
        came: asyncio.Queue[Event] = asyncio.Queue()
        tasks = Tasks()
        ahead = ReadAhead(came.get, tasks)
        getting = asyncio.create_task(ahead.get())
        await settled()
        assert not getting.done()
        came.put_nowait(message())
        assert await getting == message()
        ahead.stop()
        await tasks.close(1.0)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("sizes", "taken", "then"),
    [
        pytest.param([1] * (MAX_MESSAGES + 5), MAX_MESSAGES, MAX_MESSAGES + 1, id="count"),
        pytest.param([0] * (MAX_MESSAGES + 5), MAX_MESSAGES, MAX_MESSAGES + 1, id="count of empty ones"),
        pytest.param([MAX_BYTES - 1, 1, 1], 2, 3, id="bytes"),
        pytest.param([MAX_BYTES - 1, MAX_BYTES, 1], 2, 2, id="bytes, and the last over it"),
    ],
)
def test_no_more_is_taken_than_the_bounds_allow_until_the_handler_receives(
    sizes: list[int], taken: int, then: int
) -> None:
    async def test(server: Server) -> None:
        assert (server.taken, server.ahead.full) == (taken, True)
        await server.ahead.get()
        await settled()
        assert server.taken == then

    reading(test, *map(message, sizes))


def test_reading_goes_on_when_there_is_room_again() -> None:
    async def test(server: Server) -> None:
        for _ in range(MAX_MESSAGES):
            assert server.ahead.full
            await server.ahead.get()
            await settled()
        assert server.taken == 2 * MAX_MESSAGES

    reading(test, *[message()] * (3 * MAX_MESSAGES))


def test_what_was_read_is_still_given_after_a_stop_and_then_a_disconnect() -> None:
    async def test(server: Server) -> None:
        server.ahead.stop()
        await settled()
        assert [await server.ahead.get() for _ in range(3)] == [message(), LOST, LOST]

    reading(test, message())


def test_a_disconnect_that_came_before_a_stop_keeps_its_code() -> None:
    async def test(server: Server) -> None:
        server.ahead.stop()
        assert await server.ahead.get() == GONE

    reading(test, GONE)


def test_a_receive_that_fails_ends_with_a_disconnect_after_what_was_read(caplog: pytest.LogCaptureFixture) -> None:
    async def test(server: Server) -> None:
        assert [await server.ahead.get() for _ in range(2)] == [message(), LOST]

    reading(test, message(), RuntimeError("the server's own fault"))
    assert "the server's own fault" in caplog.text


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(0, MAX_BYTES), max_size=2 * MAX_MESSAGES),
    gets=st.lists(st.integers(0, 2 * MAX_MESSAGES), max_size=5),
)
def test_whenever_the_handler_receives_nothing_is_lost_and_little_is_kept(sizes: list[int], gets: list[int]) -> None:
    async def test(server: Server) -> None:
        got: list[Event] = []
        for count in gets:
            got += [await server.ahead.get() for _ in range(min(count, len(sizes) - len(got)))]
            await settled()
            kept = sizes[len(got) : server.taken]
            assert len(kept) <= MAX_MESSAGES
            assert sum(kept[:-1]) < MAX_BYTES
        got += [await server.ahead.get() for _ in range(len(sizes) + 1 - len(got))]
        assert got == [*map(message, sizes), GONE]

    reading(test, *map(message, sizes), GONE)
