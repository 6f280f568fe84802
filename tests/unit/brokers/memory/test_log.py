"""A room's log: numbers without holes, and the truth about what is missing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from hubbub.brokers.memory.log import RoomLog
from hubbub.codec import encode
from hubbub.envelope import Envelope
from hubbub.options import History
from hubbub.positions import Position

BEGINNING = datetime(2026, 1, 2, tzinfo=UTC)


def published(log: RoomLog, *times: float) -> None:
    for now in times:
        log.append(Envelope(encode(log.offset + 1)), now, BEGINNING + timedelta(seconds=now))


def offsets(log: RoomLog, after: int | None, now: float, limit: int | None = None) -> tuple[list[int], bool]:
    page = log.read(None if after is None else Position(log.epoch, after), limit, now)
    assert page.head == log.head
    assert all(entry.recorded().message == entry.recorded().position.offset for entry in page.entries)
    return [entry.recorded().position.offset for entry in page.entries], page.whole


def test_a_new_log_is_at_zero_and_whole() -> None:
    log = RoomLog(History(3, 60.0), 0.0)
    assert log.head == Position(log.epoch, 0)
    assert offsets(log, 0, 0.0) == ([], True)
    assert offsets(log, None, 0.0) == ([], False)


def test_append_gives_the_envelope_its_position() -> None:
    log = RoomLog(History(3, 60.0), 0.0)
    envelope = Envelope(encode("hello"), frozenset({"a"}), "key")
    numbered = log.append(envelope, 0.0, BEGINNING)
    assert numbered == Envelope(envelope.payload, envelope.exclude, "key", Position(log.epoch, 1))
    assert envelope.position is None


def test_the_newest_are_kept() -> None:
    log = RoomLog(History(3, 60.0), 0.0)
    published(log, 0, 0, 0, 0, 0)
    assert offsets(log, None, 0.0) == ([3, 4, 5], False)
    assert offsets(log, 2, 0.0) == ([3, 4, 5], True)
    assert offsets(log, 1, 0.0) == ([3, 4, 5], False)


def test_a_message_is_kept_for_its_ttl() -> None:
    log = RoomLog(History(3, 60.0), 0.0)
    published(log, 0.0, 30.0)
    assert offsets(log, 0, 59.9) == ([1, 2], True)
    assert offsets(log, 0, 60.0) == ([2], False)
    assert offsets(log, 1, 89.9) == ([2], True)
    assert offsets(log, 1, 90.0) == ([], False)
    assert offsets(log, 2, 10_000.0) == ([], True)


def test_who_was_not_there_yet_can_not_have_missed_it() -> None:
    log = RoomLog(History(3, 60.0), 0.0)
    published(log, 0.0)
    assert offsets(log, 2, 0.0)[1] is False
    page = log.read(Position("another1", 1), None, 0.0)
    assert not page.whole


def test_two_logs_are_told_apart() -> None:
    assert RoomLog(History(3, 60.0), 0.0).epoch != RoomLog(History(3, 60.0), 0.0).epoch


def test_a_log_expires_when_nothing_is_kept_and_it_was_not_used() -> None:
    log = RoomLog(History(3, 60.0), 0.0)
    assert not log.expired(59.0)
    assert log.expired(60.0)
    published(log, 60.0)
    assert not log.expired(119.0)
    log.read(None, None, 100.0)  # reading is not use
    assert log.expired(120.0)


# Against a model


class HistoryMachine(RuleBasedStateMachine):
    """Publishes and reads as time goes by, against a list of everything that was ever published."""

    @initialize(size=st.integers(1, 6), ttl_s=st.floats(1.0, 20.0))
    def begin(self, size: int, ttl_s: float) -> None:
        self.kept = History(size, ttl_s)
        self.now = 100.0
        self.log = RoomLog(self.kept, self.now)
        self.epoch = self.log.epoch
        self.times: list[float] = []

    def there(self) -> list[int]:
        """The offsets that should be kept now."""
        newest = range(max(0, len(self.times) - self.kept.size), len(self.times))
        return [index + 1 for index in newest if self.now - self.times[index] < self.kept.ttl_s]

    @rule(count=st.integers(1, 8))
    def publish(self, count: int) -> None:
        for _ in range(count):
            published(self.log, self.now)
            self.times.append(self.now)

    @rule(seconds=st.floats(0.0, 10.0))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(back=st.integers(-2, 12), limit=st.none() | st.integers(1, 8))
    def come_back(self, back: int, limit: int | None) -> None:
        after = max(0, len(self.times) - back)
        found, whole = offsets(self.log, after, self.now, limit)
        missed = list(range(after + 1, len(self.times) + 1))
        assert whole == (after <= len(self.times) and set(missed) <= set(self.there()))
        expected = missed if whole else self.there()
        assert found == expected[:limit]

    @rule(limit=st.none() | st.integers(1, 8))
    def read_the_newest(self, limit: int | None) -> None:
        found, whole = offsets(self.log, None, self.now, limit)
        assert found == (self.there() if limit is None else self.there()[-limit:])
        assert not whole

    @rule(back=st.integers(0, 8), size=st.integers(1, 3))
    def come_back_page_by_page(self, back: int, size: int) -> None:
        at = max(0, len(self.times) - back)
        missed = list(range(at + 1, len(self.times) + 1))
        found: list[int] = []
        while True:
            page = self.log.read(Position(self.epoch, at), size, self.now)
            if not page.whole:
                assert not set(missed) <= set(self.there())
                assert not found, "time stood still, so that a replay that began goes through"
                return
            found += [entry.recorded().position.offset for entry in page.entries]
            if page.last:
                break
            at = found[-1]
        assert found == missed

    @rule(epoch=st.text(max_size=8), offset=st.integers(0, 20))
    def come_back_from_elsewhere(self, epoch: str, offset: int) -> None:
        if epoch != self.epoch:
            assert not self.log.read(Position(epoch, offset), None, self.now).whole

    @invariant()
    def the_head_is_the_last_message(self) -> None:
        assert self.log.head == Position(self.epoch, len(self.times))
        assert len(self.log._entries) == len(self.log._times) <= self.kept.size


def test_whatever_was_published_a_read_is_what_was_missed_or_says_that_it_is_not() -> None:
    run_state_machine_as_test(HistoryMachine, settings=settings(max_examples=50, stateful_step_count=25, deadline=None))


@pytest.mark.slow
def test_however_much_was_published_a_read_is_what_was_missed_or_says_that_it_is_not() -> None:
    run_state_machine_as_test(
        HistoryMachine, settings=settings(max_examples=200, stateful_step_count=60, deadline=None)
    )
