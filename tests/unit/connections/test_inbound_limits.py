"""The bounds on what one client sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub import CloseCode, Limits
from hubbub.connections.inbound_limits import BURST_S, Guard


def judged(guard: Guard, count: int, now: float) -> int:
    """How many of so many messages at once are let in."""
    return sum(guard.check("x", None, now) is None for _ in range(count))


@pytest.mark.parametrize(
    ("text", "data", "fits"),
    [
        ("x" * 100, None, True),
        ("x" * 101, None, False),
        ("ü" * 50, None, True),
        ("ü" * 51, None, False),
        (None, b"x" * 100, True),
        (None, b"x" * 101, False),
        ("", None, True),
    ],
)
def test_a_message_is_measured_in_bytes(text: str | None, data: bytes | None, fits: bool) -> None:
    complaint = Guard(Limits(max_message_bytes=100)).check(text, data, 0.0)
    assert (complaint is None) == fits
    if complaint is not None:
        assert (complaint.code, complaint.then) == ("message_too_big", CloseCode.MESSAGE_TOO_BIG)


def test_a_burst_of_five_seconds_worth_is_let_in_and_then_the_rate() -> None:
    guard = Guard(Limits(max_messages_per_s=10))
    assert judged(guard, 100, now=1000.0) == 10 * BURST_S
    assert judged(guard, 100, now=1001.0) == 10
    assert judged(guard, 100, now=1001.5) == 5
    assert judged(guard, 100, now=5000.0) == 10 * BURST_S


def test_messages_that_share_a_frame_count_like_others() -> None:
    guard = Guard(Limits(max_messages_per_s=10))
    assert guard.check_frame(1000.0, 49) is None
    assert guard.check_frame(1000.0, 2) is not None
    assert guard.check_frame(1000.0) is None
    assert guard.check_frame(1000.0) is not None
    assert guard.check_frame(1001.0, 10) is None


def test_less_than_one_message_a_second_is_a_rate_too() -> None:
    guard = Guard(Limits(max_messages_per_s=0.1))
    assert [judged(guard, 1, now) for now in (0.0, 5.0, 11.0, 12.0)] == [1, 0, 1, 0]


@given(st.floats(0.5, 100), st.lists(st.tuples(st.floats(0, 10), st.integers(1, 50)), max_size=30))
def test_never_more_than_two_bursts_and_the_rate(rate: float, arrivals: list[tuple[float, int]]) -> None:
    guard, now, admitted = Guard(Limits(max_messages_per_s=rate)), 0.0, 0
    for wait, count in arrivals:
        now += wait
        admitted += judged(guard, count, now)
    assert admitted <= 2 * max(1.0, rate * BURST_S) + rate * now + 1


def test_without_limits_nothing_is_wrong() -> None:
    guard = Guard(Limits(max_message_bytes=None, max_messages_per_s=None, max_errors=None))
    assert judged(guard, 10_000, now=0.0) == 10_000
    assert not any(guard.too_many() for _ in range(1000))
    assert Guard(Limits(max_errors=1)).too_many()
