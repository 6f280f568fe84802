"""What stands before the server's signal handlers: the first signal drains, and then the server is told."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from hubbub.errors import InvalidArgument
from hubbub.server.draining import SIGNALS, Drain, drain_first, started, stopped


class Manager:
    """One that drains for as long as the test likes."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun = asyncio.Event()
        self.ends = asyncio.Event()
        self.over_s: float | None = None
        self.cancelled = False
        self._error = error

    async def drain(self, over_s: float) -> bool:
        self.over_s = over_s
        self.begun.set()
        if self._error is not None:
            raise self._error
        try:
            await self.ends.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return True


@pytest.fixture
def told() -> Iterator[list[int]]:
    """What a server was told: it handles the signals while a test runs."""
    told: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: told.append(number)) for number in SIGNALS}
    yield told
    for number, handler in before.items():
        signal.signal(number, handler)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await main()

    asyncio.run(bounded())


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - a signal handler has no event for it
        await asyncio.sleep(0)


async def a_while() -> None:
    """Time enough for what a signal begins."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_the_server_is_told_when_all_is_drained(told: list[int]) -> None:
    async def main() -> None:
        managers = [Manager(), Manager()]
        for manager in managers:
            started(manager)
        with drain_first(over_s=3):
            signal.raise_signal(signal.SIGTERM)
            for manager in managers:
                await manager.begun.wait()
                assert manager.over_s == 3
            managers[0].ends.set()
            await a_while()
            assert told == []
            managers[1].ends.set()
            await until(lambda: told)
            assert told == [signal.SIGTERM]
            signal.raise_signal(signal.SIGINT)  # from here on they are the server's own
            assert told == [signal.SIGTERM, signal.SIGINT]
        for manager in managers:
            stopped(manager)

    run(main)


def test_the_same_word_heard_twice_does_not_hasten(told: list[int]) -> None:
    async def main() -> None:
        manager = Manager()
        started(manager)
        with drain_first():
            signal.raise_signal(signal.SIGINT)
            await manager.begun.wait()
            signal.raise_signal(signal.SIGTERM)
            await a_while()
            assert told == []
            manager.ends.set()
            await until(lambda: told)
            assert told == [signal.SIGINT]
        assert not manager.cancelled
        stopped(manager)

    run(main)


def test_a_second_signal_hastens(told: list[int]) -> None:
    async def main() -> None:
        manager = Manager()
        started(manager)
        Drain(3, echo_s=0).begin()
        signal.raise_signal(signal.SIGTERM)
        await manager.begun.wait()
        signal.raise_signal(signal.SIGINT)
        await until(lambda: told)
        assert manager.cancelled
        assert told == [signal.SIGTERM]
        stopped(manager)

    run(main)


def test_a_drain_that_fails_is_logged_and_the_server_is_told(told: list[int], caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        manager = Manager(RuntimeError("broken"))
        started(manager)
        with drain_first():
            signal.raise_signal(signal.SIGTERM)
            await until(lambda: told)
        stopped(manager)

    with caplog.at_level(logging.ERROR, "hubbub"):
        run(main)
    assert "the drain failed" in caplog.text
    assert told == [signal.SIGTERM]


def test_managers_that_stopped_or_run_on_another_loop_are_left_alone(told: list[int]) -> None:
    elsewhere, over = Manager(), Manager()

    async def other() -> None:
        started(elsewhere)

    async def main() -> None:
        started(over)
        stopped(over)
        stopped(over)
        with drain_first():
            signal.raise_signal(signal.SIGTERM)
            await until(lambda: told)
        assert not elsewhere.begun.is_set()
        assert not over.begun.is_set()

    run(other)
    run(main)
    stopped(elsewhere)


def test_handlers_are_given_back(told: list[int]) -> None:
    async def main() -> None:
        before = [signal.getsignal(number) for number in SIGNALS]
        with drain_first():
            assert [signal.getsignal(number) for number in SIGNALS] != before
        assert [signal.getsignal(number) for number in SIGNALS] == before

    run(main)


def test_where_one_drains_already_another_does_not(told: list[int]) -> None:
    async def main() -> None:
        with drain_first():
            taken = [signal.getsignal(number) for number in SIGNALS]
            with drain_first():
                assert [signal.getsignal(number) for number in SIGNALS] == taken
            assert [signal.getsignal(number) for number in SIGNALS] == taken

    run(main)


def test_where_no_server_handles_them_signals_do_what_they_do() -> None:
    def handlers() -> list[Any]:
        return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    async def main() -> None:
        plain: list[Any] = [signal.SIG_DFL, signal.default_int_handler]
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), plain, strict=True):
            signal.signal(number, handler)
        with drain_first():
            assert handlers() == plain

    before = handlers()
    try:
        run(main)
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)


def test_a_thread_gets_no_signals_and_takes_none(told: list[int]) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    inside: list[Any] = []

    async def main() -> None:
        with drain_first():
            inside.extend(signal.getsignal(number) for number in SIGNALS)

    thread = threading.Thread(target=run, args=[main])
    thread.start()
    thread.join()
    assert inside == before


@pytest.mark.parametrize("over_s", [-1, float("nan"), float("inf"), "5", True, None])
def test_a_time_that_is_none_is_refused(over_s: Any) -> None:
    async def main() -> None:
        with pytest.raises(InvalidArgument, match=r"over_s: got .*; accepted: seconds, 0 or more"), drain_first(over_s):
            pass

    run(main)
