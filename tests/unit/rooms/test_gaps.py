"""Gaps: the app's functions are called for them, counted, logged, and never in the way."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from hubbub import ConnectionManager, InvalidArgument
from hubbub.metrics.counters import Counters
from hubbub.rooms.gaps import MAX_CALLS, Gaps
from hubbub.tasks import Tasks


class World:
    """Gaps of rooms, and who was called for them."""

    def __init__(self, timeout_s: float | None) -> None:
        self.tasks, self.counters = Tasks(), Counters()
        self.gaps = Gaps(self.tasks, self.counters, timeout_s)
        self.called: list[str] = []

    async def note(self, room: str) -> None:
        self.called.append(room)

    async def idle(self) -> None:
        """Waits until no call runs."""
        async with asyncio.timeout(30):
            while len(self.tasks):  # noqa: ASYNC110 - calls end one by one
                await asyncio.sleep(0)


def run(test: Callable[[World], Awaitable[None]], timeout_s: float | None = None) -> None:
    async def main() -> None:
        world = World(timeout_s)
        async with asyncio.timeout(30):
            await test(world)
        await world.tasks.close(0)

    asyncio.run(main())


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]


def test_every_function_is_called_with_the_name_of_the_room_in_their_order() -> None:
    async def test(world: World) -> None:
        thread = threading.get_ident()
        threads: list[int] = []

        async def first(room: str) -> None:
            assert threading.get_ident() == thread
            await world.note(f"first {room}")

        def second(room: str) -> None:
            threads.append(threading.get_ident())
            world.called.append(f"second {room}")

        class Third:
            async def __call__(self, room: str) -> None:
                await world.note(f"third {room}")

        for function in (first, second, Third(), partial(world.note), lambda room: world.note(f"last {room}")):
            assert world.gaps.add(function) is function
        world.gaps.report("lobby")
        assert world.called == [], "a call never runs inside of a delivery"
        await world.idle()
        assert world.called == ["first lobby", "second lobby", "third lobby", "lobby", "last lobby"]
        assert thread not in threads, "a plain function blocks a thread, and not the loop"

    run(test)


def test_a_gap_is_counted_and_logged_without_a_function_too(caplog: pytest.LogCaptureFixture) -> None:
    async def test(world: World) -> None:
        world.gaps.report("lobby")
        assert (world.counters.gaps, len(world.tasks)) == (1, 0)
        (line,) = warnings(caplog)
        assert "1 gap," in line
        assert "'lobby'" in line

    run(test)


def test_many_gaps_share_a_line(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(world: World) -> None:
        for number in range(50):
            world.gaps.report(f"room {number}")
        assert world.counters.gaps == 50
        assert len(warnings(caplog)) == 1
        world.gaps._quiet_until = 0.0  # ten seconds later
        world.gaps.report("another\nroom")
        assert "50 gaps" in warnings(caplog)[1]
        assert r"'another\nroom'" in warnings(caplog)[1]

    run(test)


def test_an_exception_is_logged_with_its_traceback_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def test(world: World) -> None:
        @world.gaps.add
        async def fails(room: str) -> None:
            raise ZeroDivisionError

        @world.gaps.add
        def fails_too(room: str) -> None:
            raise KeyError(room)

        world.gaps.add(world.note)
        world.gaps.report("lobby")
        world.gaps.report("hall")
        await world.idle()
        assert sorted(world.called) == ["hall", "lobby"]
        errors = [each for each in caplog.records if each.levelno == logging.ERROR]
        assert sorted(each.exc_info[0].__name__ for each in errors if each.exc_info and each.exc_info[0]) == [
            *["KeyError"] * 2,
            *["ZeroDivisionError"] * 2,
        ]
        assert all("'lobby'" in each.getMessage() or "'hall'" in each.getMessage() for each in errors)
        assert world.counters.errors == {"function": 4}

    run(test)


def test_gaps_of_a_room_that_waits_share_a_call_and_a_later_one_has_its_own() -> None:
    async def test(world: World) -> None:
        gate = asyncio.Event()

        @world.gaps.add
        async def waits(room: str) -> None:
            world.called.append(room)
            await gate.wait()

        world.gaps.report("lobby")
        world.gaps.report("lobby")
        await asyncio.sleep(0)
        assert world.called == ["lobby"]
        world.gaps.report("lobby")  # while the function runs, which may have looked already
        gate.set()
        await world.idle()
        assert world.called == ["lobby", "lobby"]
        assert world.counters.gaps == 3

    run(test)


def test_a_room_has_one_call_at_a_time_and_leaves_the_other_turns_to_other_rooms() -> None:
    async def test(world: World) -> None:
        gate = asyncio.Event()

        @world.gaps.add
        async def waits(room: str) -> None:
            world.called.append(room)
            if room == "lobby":
                await gate.wait()

        for _ in range(2 * MAX_CALLS):
            world.gaps.report("lobby")
            for _ in range(3):
                await asyncio.sleep(0)
        assert world.called == ["lobby"]
        world.gaps.report("hall")
        for _ in range(3):
            await asyncio.sleep(0)
        assert world.called == ["lobby", "hall"]
        gate.set()
        await world.idle()
        assert world.called == ["lobby", "hall", "lobby"], "one call for all gaps of the room that came meanwhile"
        world.gaps.report("lobby")
        await world.idle()
        assert world.called[3:] == ["lobby"]

    run(test)


def test_async_functions_that_never_return_are_canceled_in_time_and_do_not_end_the_calls(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(world: World) -> None:
        async def never_returns(room: str) -> None:
            await asyncio.Event().wait()

        @world.gaps.add
        def returns_what_never_returns(room: str) -> Awaitable[None]:
            return never_returns(room)

        @world.gaps.add
        async def returns_when_it_is_canceled(room: str) -> None:
            try:
                await never_returns(room)
            except asyncio.CancelledError:
                world.called.append(f"canceled {room}")

        world.gaps.add(never_returns)
        world.gaps.add(world.note)
        rooms = [f"room {number}" for number in range(MAX_CALLS + 1)]
        for room in rooms:
            world.gaps.report(room)
        await world.idle()
        assert sorted(world.called) == sorted([*rooms, *[f"canceled {room}" for room in rooms]])
        assert world.counters.errors == {"function": 3 * len(rooms)}
        lines = [line for line in warnings(caplog) if "ran for too long" in line]
        assert [sum(repr(room) in line for line in lines) for room in rooms] == [3] * len(rooms)

    run(test, timeout_s=0.01)


def test_a_timeout_that_a_function_raises_itself_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    async def test(world: World) -> None:
        @world.gaps.add
        async def fails(room: str) -> None:
            raise TimeoutError

        world.gaps.report("lobby")
        await world.idle()
        assert [each.levelno for each in caplog.records] == [logging.WARNING, logging.ERROR]
        assert world.counters.errors == {"function": 1}

    run(test, timeout_s=30)


def test_a_function_that_awaits_something_canceled_has_failed_and_the_others_are_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(world: World) -> None:
        @world.gaps.add
        async def awaits_something_canceled(room: str) -> None:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

        @world.gaps.add
        def raises_in_a_thread(room: str) -> None:
            raise asyncio.CancelledError

        world.gaps.add(world.note)
        world.gaps.report("lobby")
        await world.idle()
        assert world.called == ["lobby"]
        assert world.counters.errors == {"function": 2}
        errors = [each for each in caplog.records if each.levelno == logging.ERROR]
        assert [each.exc_info is not None and "'lobby'" in each.getMessage() for each in errors] == [True, True]

    run(test)


def test_only_some_calls_run_at_once_and_those_that_never_return_end_with_the_manager() -> None:
    async def test(world: World) -> None:
        @world.gaps.add
        async def never_returns(room: str) -> None:
            world.called.append(room)
            await asyncio.Event().wait()

        for number in range(3 * MAX_CALLS):
            world.gaps.report(f"room {number}")
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(world.called) == MAX_CALLS
        await world.tasks.close(0)
        world.gaps.clear()
        world.gaps.report("room 0")
        await asyncio.sleep(0)
        assert world.called[MAX_CALLS:] == ["room 0"], "nothing of the former run holds it"

    run(test)


@pytest.mark.parametrize(
    "function",
    [None, "reload", lambda: None, lambda room, more: None],
    ids=["None", "str", "no argument", "two arguments"],
)
def test_what_can_not_be_called_with_a_room_is_refused(function: Any) -> None:
    with pytest.raises(InvalidArgument, match="room's name"):
        ConnectionManager().on_gap(function)
