"""One room's channel on one worker: in order, nothing twice, and what is lost is said."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from hubbub.brokers.redis.channel import Arrival, Stamp
from hubbub.brokers.redis.subscription import HELD, Read, Subscription
from hubbub.codec import encode
from hubbub.envelope import Envelope, Relabel, Reset
from hubbub.positions import Position


def at(offset: int, epoch: str = "epoch--1") -> Envelope:
    return Envelope(encode(f"{epoch} {offset}"), position=Position(epoch, offset))


def come(offset: int, epoch: str = "epoch--1") -> Arrival:
    return Arrival(at(offset, epoch), Stamp(b"somebody", offset))


def page(
    first: int,
    last: int,
    head: int | None = None,
    epoch: str = "epoch--1",
    *,
    known: bool = True,
    whole: bool = True,
    same: bool = True,
) -> Read:
    arrivals = [come(offset, epoch) for offset in range(first, last + 1)]
    return Read(Position(epoch, last if head is None else head), known, whole, same, arrivals)


def started(offset: int) -> Subscription:
    subscription = Subscription()
    subscription.start_at(Position("epoch--1", offset))
    return subscription


def test_what_comes_in_order_is_delivered() -> None:
    subscription = started(0)
    for offset in (1, 2, 3):
        assert subscription.take(come(offset), 0) == ([at(offset)], "delivered")


def test_the_first_message_may_come_before_the_position_is_known() -> None:
    subscription = Subscription()
    assert subscription.take(come(8), 0) == ([at(8)], "delivered")
    subscription.start_at(Position("epoch--1", 7))
    assert subscription.last == Position("epoch--1", 8)
    assert subscription.take(come(9), 0) == ([at(9)], "delivered")


def test_a_gap_is_read_from_the_history_and_what_was_held_comes_after() -> None:
    subscription = started(0)
    assert subscription.take(come(3), 0) == ([], "behind")
    subscription.catching_up = True
    assert subscription.take(come(4), 0) == ([], "delivered")
    assert subscription.catch_up(page(1, 2, head=4)) == ([at(1), at(2)], "behind")
    assert subscription.catch_up(page(3, 3, head=3)) == ([at(3)], "delivered")
    assert subscription.caught_up(1) == ([at(4)], "delivered")
    assert subscription.take(come(5), 0) == ([at(5)], "delivered")


def test_what_the_history_brought_is_dropped_until_the_canary_after_it() -> None:
    subscription = started(0)
    subscription.catching_up = True
    subscription.catch_up(page(1, 3))
    subscription.caught_up(5)
    assert subscription.take(come(2), 4) == ([], "delivered")
    assert subscription.take(come(4), 4) == ([at(4)], "delivered")
    assert subscription.take(come(2), 5) == ([], "gone back")


def test_a_server_that_has_less_than_was_delivered_has_gone_back() -> None:
    subscription = started(9)
    subscription.catching_up = True
    assert subscription.catch_up(page(1, 0, head=5)) == ([], "gone back")


def test_a_server_that_has_another_message_than_was_delivered_has_gone_back() -> None:
    subscription = started(0)
    subscription.take(come(1), 0)
    assert subscription.stamp == Stamp(b"somebody", 1)
    subscription.catching_up = True
    assert subscription.catch_up(page(2, 5, same=False)) == ([], "gone back")


def begins_to_read(subscription: Subscription) -> None:
    subscription.catching_up = True
    subscription.asks()


def test_another_epoch_is_read_from_the_history_which_says_that_it_is_a_reset() -> None:
    subscription = started(9)
    assert subscription.take(come(3, "epoch--2"), 0) == ([], "behind")
    begins_to_read(subscription)
    reset = Reset(Position("epoch--2", 2))
    assert subscription.catch_up(page(1, 3, epoch="epoch--2", known=False, whole=False)) == ([reset], "delivered")
    assert subscription.caught_up(1) == ([at(3, "epoch--2")], "delivered")
    assert subscription.take(come(4, "epoch--2"), 0)[1] == "delivered"


def test_another_epoch_that_goes_on_where_this_one_ended_is_no_reset() -> None:
    """The server was restarted, and has lost nothing."""
    subscription = started(5)
    assert subscription.take(come(6, "epoch--2"), 0) == ([], "behind")
    begins_to_read(subscription)
    assert subscription.catch_up(page(6, 6, epoch="epoch--2")) == (
        [Relabel(Position("epoch--2", 5)), at(6, "epoch--2")],
        "delivered",
    )
    assert subscription.caught_up(1) == ([], "delivered")


def test_another_epoch_is_no_reset_where_nothing_is_kept_and_nothing_was_missed() -> None:
    subscription = started(5)
    subscription.take(come(6, "epoch--2"), 0)
    begins_to_read(subscription)
    assert subscription.catch_up(page(1, 0, head=6, epoch="epoch--2", whole=False)) == (
        [Relabel(Position("epoch--2", 5))],
        "delivered",
    )
    assert subscription.caught_up(1) == ([at(6, "epoch--2")], "delivered")


def test_a_reset_is_passed_on_once() -> None:
    subscription = started(9)
    place = Position("epoch--2", 9)
    assert subscription.reset(place) == [Reset(place)]
    assert subscription.reset(place) == []
    assert subscription.take(come(10, "epoch--2"), 0)[1] == "delivered"


def test_what_was_held_of_an_epoch_that_ended_is_dropped() -> None:
    subscription = started(5)
    subscription.catching_up = True
    subscription.take(come(4), 0)
    subscription.take(come(6), 0)
    subscription.asks()
    subscription.take(come(5, "epoch--2"), 0)
    assert subscription.catch_up(page(1, 4, epoch="epoch--2", known=False, whole=False)) == (
        [Reset(Position("epoch--2", 4))],
        "delivered",
    )
    assert subscription.caught_up(1) == ([at(5, "epoch--2")], "delivered")


def test_what_came_of_a_newer_epoch_than_the_history_has_it_read_once_more() -> None:
    subscription = started(5)
    begins_to_read(subscription)
    subscription.take(come(1, "epoch--2"), 0)
    assert subscription.catch_up(page(1, 0, head=5)) == ([], "delivered")
    assert subscription.caught_up(1) == ([], "behind")
    begins_to_read(subscription)
    subscription.catch_up(page(1, 1, epoch="epoch--2", known=False, whole=False))
    assert subscription.caught_up(1) == ([at(1, "epoch--2")], "delivered")


def test_what_was_delivered_in_an_epoch_that_ended_and_is_published_again_is_a_reset() -> None:
    subscription = started(0)
    subscription.take(come(1), 0)
    subscription.reset(Position("epoch--2", 4))
    again = Arrival(at(5, "epoch--2"), come(1).stamp)
    assert subscription.take(again, 0) == ([Reset(Position("epoch--2", 5))], "delivered")


def test_a_history_that_does_not_reach_back_is_a_reset() -> None:
    subscription = started(1)
    subscription.catching_up = True
    assert subscription.catch_up(page(50, 60, whole=False)) == ([Reset(Position("epoch--1", 60))], "delivered")
    assert subscription.caught_up(1) == ([], "delivered")
    assert subscription.take(come(61), 0) == ([at(61)], "delivered")


def test_what_is_held_is_bounded_and_shows_as_a_gap() -> None:
    subscription = started(0)
    subscription.catching_up = True
    for offset in range(1, HELD + 11):
        subscription.take(come(offset), 0)
    assert subscription.caught_up(1) == ([], "behind")


class Worker(RuleBasedStateMachine):
    """A server that keeps everything but for what it loses in a failover, and a connection that breaks."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []  # the epoch of each message that the server has
        self.epoch = 1
        self.unread: list[Arrival] = []  # on their way to the worker
        self.canary = 0
        self.subscription = started(0)
        self.got: list[Position] = []
        self.resets = 0

    @property
    def name(self) -> str:
        return f"epoch--{self.epoch}"

    def deliver(self, deliveries: list[Any]) -> None:
        for delivery in deliveries:
            if isinstance(delivery, Reset):
                self.resets += 1
                self.got.append(delivery.position)
            else:
                place, last = delivery.position, self.got[-1] if self.got else Position("epoch--1", 0)
                assert place == Position(last.epoch, last.offset + 1), f"{place} after {last}"
                self.got.append(place)

    @rule(count=st.integers(1, 5))
    def publish(self, count: int) -> None:
        for _ in range(count):
            self.log.append(self.name)
            self.unread.append(come(len(self.log), self.name))

    @rule(count=st.integers(1, 5))
    def lose_what_is_on_its_way(self, count: int) -> None:
        """The connection breaks; a new one is subscribed, and catches up."""
        del self.unread[:count]
        self.unread.clear()
        self.subscription.catching_up = True

    @precondition(lambda self: self.unread)
    @rule(count=st.integers(1, 5))
    def read(self, count: int) -> None:
        for _ in range(min(count, len(self.unread))):
            deliveries, verdict = self.subscription.take(self.unread.pop(0), self.canary)
            self.deliver(deliveries)
            assert verdict != "gone back"
            if verdict == "behind":
                self.subscription.catching_up = True

    @rule(size=st.integers(1, 4))
    def catch_up(self, size: int) -> None:
        if not self.subscription.catching_up:
            return
        after = self.subscription.last
        assert after is not None
        first, last = after.offset + 1, min(after.offset + size, len(self.log))
        verdict: str
        deliveries, verdict = self.subscription.catch_up(page(first, last, len(self.log), self.name))
        self.deliver(deliveries)
        if verdict == "delivered":
            deliveries, verdict = self.subscription.caught_up(self.canary + 1)
            self.deliver(deliveries)
            self.subscription.catching_up = verdict == "behind"

    @precondition(lambda self: not self.unread)
    @rule()
    def canary_comes(self) -> None:
        self.canary += 1

    def teardown(self) -> None:
        """All that the server has is delivered, once everything is read."""
        while self.unread:
            self.read(5)
        while self.subscription.catching_up:
            self.catch_up(4)
        if self.subscription.last != Position(self.name, len(self.log)):
            self.subscription.catching_up = True
            while self.subscription.catching_up:
                self.catch_up(4)
        assert self.resets == 0
        assert [place.offset for place in self.got] == list(range(1, len(self.log) + 1))


def test_whatever_is_lost_on_the_way_all_is_delivered_once_and_in_order() -> None:
    run_state_machine_as_test(Worker, settings=settings(max_examples=80, stateful_step_count=30, deadline=None))
