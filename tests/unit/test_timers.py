"""The wheel of timers, on a loop whose time stands still."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Callable
from contextvars import Context
from typing import TypeVarTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.timers import Timer, Timers
from tests.unit.support import FakeLoop, fake_loop

Ts = TypeVarTuple("Ts")


@pytest.fixture
def loop() -> FakeLoop:
    return fake_loop()


@pytest.fixture
def timers(loop: FakeLoop) -> Timers:
    timers = Timers()
    timers.start(loop)
    return timers


def test_things_happen_at_their_time_in_order(loop: FakeLoop, timers: Timers) -> None:
    happened: list[tuple[str, float]] = []

    def note(name: str) -> Callable[[], None]:
        return lambda: happened.append((name, loop.now - 1000.0))

    timers.call_later(3.0, note("third"))
    timers.call_later(1.0, note("first"))
    timers.call_later(2.0, note("second"))
    timers.call_later(2.0, note("second too"))
    timers.call_later(0.0, note("at once"))
    assert len(timers) == 5
    assert happened == [], "never in the call itself"
    loop.advance(0.0)
    assert happened == [("at once", 0.0)]
    loop.advance(2.5)
    assert happened[1:] == [("first", 1.0), ("second", 2.0), ("second too", 2.0)]
    loop.advance(10.0)
    assert happened[4:] == [("third", 3.0)]
    assert len(timers) == 0


class RoundingLoop(FakeLoop):
    """A loop that rounds times to milliseconds, as uvloop does."""

    calls = 0

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        self.calls += 1
        assert self.calls < 100, "asked again and again"
        return super().call_at(round(when, 3), callback, *args, context=context)


def test_a_loop_that_calls_a_little_early_is_asked_once_more() -> None:
    loop, happened = RoundingLoop(), list[float]()  # type: ignore[abstract]  # as in `fake_loop`
    timers = Timers()
    timers.start(loop)
    timers.call_later(0.0304, lambda: happened.append(loop.now - 1000.0))
    loop.advance(0.030)
    assert happened == []
    loop.advance(0.002)
    assert len(happened) == 1
    assert loop.calls == 2


def test_however_many_there_are_the_loop_has_one(loop: FakeLoop, timers: Timers) -> None:
    for number in range(100, 0, -1):
        timers.call_later(float(number), lambda: None)
    assert loop.armed == 1
    loop.advance(50.0)
    assert loop.armed == 1
    loop.advance(50.0)
    assert loop.armed == 0


def test_what_is_cancelled_does_not_happen(loop: FakeLoop, timers: Timers) -> None:
    happened: list[str] = []
    first = timers.call_later(1.0, lambda: happened.append("first"))
    timers.call_later(2.0, lambda: happened.append("second"))
    first.cancel()
    first.cancel()
    assert len(timers) == 1
    loop.advance(10.0)
    assert happened == ["second"]


def test_cancelling_what_has_happened_does_nothing(loop: FakeLoop, timers: Timers) -> None:
    happened: list[str] = []
    timer = timers.call_later(1.0, lambda: happened.append("once"))
    loop.advance(2.0)
    timer.cancel()
    loop.advance(2.0)
    assert happened == ["once"]


def test_what_is_cancelled_holds_on_to_nothing(timers: Timers) -> None:
    """A token that is good for a day must not keep a connection that is gone in memory for a day."""

    class Connection:
        def expire(self) -> None:
            pass

    connection = Connection()
    timer = timers.call_later(86400.0, connection.expire)
    reference = weakref.ref(connection)
    timer.cancel()
    del connection
    gc.collect()
    assert reference() is None


def test_cancelled_timers_do_not_pile_up(timers: Timers) -> None:
    """Each connection sets one for the end of its token, hours away, and takes it back when it goes."""
    for _ in range(50_000):
        timers.call_later(86400.0, lambda: None).cancel()
    assert len(timers) == 0
    assert len(timers._heap) < 10_000


def test_an_action_may_set_timers_and_take_them_back(loop: FakeLoop, timers: Timers) -> None:
    happened: list[float] = []
    victim: list[Timer] = []

    def again() -> None:
        happened.append(loop.now - 1000.0)
        victim[0].cancel()
        if len(happened) < 3:
            timers.call_later(1.0, again)

    timers.call_later(1.0, again)
    victim.append(timers.call_later(1.0, lambda: pytest.fail("it was taken back")))
    loop.advance(10.0)
    assert happened == [1.0, 2.0, 3.0]
    assert len(timers) == loop.armed == 0


def test_an_action_that_fails_is_logged_and_the_others_happen(
    loop: FakeLoop, timers: Timers, caplog: pytest.LogCaptureFixture
) -> None:
    happened: list[str] = []

    def fail() -> None:
        raise RuntimeError("a mistake")

    timers.call_later(1.0, fail)
    timers.call_later(1.0, lambda: happened.append("same time"))
    timers.call_later(2.0, lambda: happened.append("later"))
    loop.advance(3.0)
    assert happened == ["same time", "later"]
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("hubbub", logging.ERROR)
    assert record.exc_info is not None
    assert "a mistake" in str(record.exc_info[1])


def test_nothing_happens_after_stop(loop: FakeLoop, timers: Timers) -> None:
    timers.call_later(1.0, lambda: pytest.fail("after stop"))
    timers.stop()
    timers.stop()
    assert loop.armed == 0
    loop.advance(10.0)
    assert len(timers) == 0


def test_an_action_may_stop_the_timers(loop: FakeLoop, timers: Timers) -> None:
    timers.call_later(1.0, timers.stop)
    timers.call_later(1.0, lambda: pytest.fail("after stop"))
    loop.advance(10.0)
    assert len(timers) == loop.armed == 0


def test_they_start_again_on_another_loop(loop: FakeLoop, timers: Timers) -> None:
    timers.call_later(1.0, lambda: pytest.fail("of the old loop"))
    timers.stop()
    other = fake_loop()
    timers.start(other)
    happened: list[str] = []
    timers.call_later(1.0, lambda: happened.append("on the new one"))
    loop.advance(10.0)
    assert happened == []
    other.advance(10.0)
    assert happened == ["on the new one"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("call"), st.floats(0.0, 20.0)),
            st.tuples(st.just("cancel"), st.integers(0, 30)),
            st.tuples(st.just("advance"), st.floats(0.0, 10.0)),
        ),
        max_size=40,
    )
)
def test_each_happens_once_at_its_time_unless_it_is_cancelled(steps: list[tuple[str, float]]) -> None:
    loop, timers = fake_loop(), Timers()
    timers.start(loop)
    set_: list[tuple[Timer, float]] = []
    happened: dict[int, float] = {}
    cancelled: set[int] = set()
    for what, amount in [*steps, ("advance", 100.0)]:
        if what == "call":
            index = len(set_)

            def action(index: int = index) -> None:
                assert index not in happened
                happened[index] = loop.now

            set_.append((timers.call_later(amount, action), loop.now + amount))
        elif what == "cancel" and amount < len(set_):
            set_[int(amount)][0].cancel()
            if amount not in happened:
                cancelled.add(int(amount))
        elif what == "advance":
            loop.advance(amount)
        due = {index for index, (_, when) in enumerate(set_) if when <= loop.now and index not in cancelled}
        waiting = {index for index, (_, when) in enumerate(set_) if when > loop.now and index not in cancelled}
        if what == "advance":
            assert happened.keys() == due
        assert len(timers) == len(waiting | due - happened.keys())
        assert loop.armed <= 1
    assert list(happened.values()) == sorted(happened.values())
    assert all(happened[index] == set_[index][1] for index in happened)
