"""Pauses of a sender: for queues that move, within a budget that refills slowly. The clock is a fake."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from types import SimpleNamespace
from typing import Any

import pytest

from hubbub.connections import pacing
from hubbub.connections.pacing import EARNED, PATIENCE_S, PAUSE_S, STILL_S, Patience
from tests.unit.support import FakeClock


class BusyClock(FakeClock):
    """A clock for a machine on which a pause takes so many times as long as it should."""

    pace = 1


class Queue:
    """A queue that is congested until a time, and last moved so long ago."""

    def __init__(self, clock: FakeClock, until: float = inf, *, still_s: Callable[[], float] = lambda: 0.0) -> None:
        self._clock = clock
        self._until = until
        self._still_s = still_s

    @property
    def congested(self) -> bool:
        return self._clock.now < self._until

    def stalled_for(self, now: float) -> float:
        assert now == self._clock.now
        return self._still_s()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> BusyClock:
    """The clock of the module, which a pause moves."""
    clock = BusyClock()

    async def sleep(seconds: float) -> None:
        clock.advance(seconds * clock.pace)

    loop = SimpleNamespace(time=clock)
    monkeypatch.setattr(pacing, "asyncio", SimpleNamespace(get_running_loop=lambda: loop, sleep=sleep))
    return clock


def paused(clock: FakeClock, patience: Patience, *queues: Queue) -> float:
    """How long a sender pauses for these queues."""
    before = clock.now
    asyncio.run(patience.pause_for(queues))
    return clock.now - before


def about(seconds: float) -> Any:
    return pytest.approx(seconds, abs=PAUSE_S)


def test_a_sender_does_not_pause_where_nothing_waits(clock: FakeClock) -> None:
    assert paused(clock, Patience()) == 0
    assert paused(clock, Patience(), Queue(clock, until=0.0)) == 0


def test_a_sender_pauses_until_every_queue_that_moves_has_drained(clock: FakeClock) -> None:
    soon, later = Queue(clock, clock.now + 0.1), Queue(clock, clock.now + 0.5)
    assert paused(clock, Patience(), soon, later) == about(0.5)


@pytest.mark.parametrize(("still_s", "waits"), [(0.0, True), (STILL_S - 0.01, True), (STILL_S, False), (inf, False)])
def test_a_sender_does_not_pause_for_a_queue_that_stands_still(still_s: float, waits: bool, clock: FakeClock) -> None:
    queue = Queue(clock, clock.now + 0.5, still_s=lambda: still_s)
    assert paused(clock, Patience(), queue) == (about(0.5) if waits else 0)


def test_a_pause_ends_when_the_last_queue_has_not_moved_for_a_while(clock: FakeClock) -> None:
    stops_at = clock.now + 0.3
    queue = Queue(clock, still_s=lambda: max(0.0, clock.now - stops_at))
    assert paused(clock, Patience(), queue) == about(0.3 + STILL_S)


@pytest.mark.parametrize("slower", [1, 10])
def test_on_a_busy_machine_a_client_has_as_many_pauses_to_move(slower: int, clock: BusyClock) -> None:
    """The machine is so busy that each pause takes ten times as long."""
    clock.pace = slower
    began = clock.now
    assert paused(clock, Patience(), Queue(clock, still_s=lambda: clock.now - began)) == pytest.approx(
        STILL_S * slower, abs=PAUSE_S * slower
    )


def test_the_budget_of_pauses_runs_out(clock: FakeClock) -> None:
    patience, queue = Patience(), Queue(clock)
    assert paused(clock, patience, queue) == about(PATIENCE_S)
    assert paused(clock, patience, queue) == about(PATIENCE_S * EARNED), "what the first pause took has earned"


@pytest.mark.parametrize(
    ("away_s", "budget_s"),
    [(0.0, 0.0), (20.0, 20.0 * EARNED), (PATIENCE_S / EARNED, PATIENCE_S), (1_000_000.0, PATIENCE_S)],
)
def test_the_budget_refills_slowly_and_not_past_its_size(away_s: float, budget_s: float, clock: FakeClock) -> None:
    patience, queue = Patience(), Queue(clock)
    while paused(clock, patience, queue) > PAUSE_S:
        pass
    clock.advance(away_s)
    assert paused(clock, patience, queue) == pytest.approx(budget_s, abs=0.02)
