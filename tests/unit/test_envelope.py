"""What travels between workers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from hubbub.codec import encode
from hubbub.envelope import Entry, Envelope, Page
from hubbub.positions import Position

NOW = datetime(2026, 1, 2, tzinfo=UTC)
EPOCH = "abcdefgh"


def entry(offset: int) -> Entry:
    return Entry(Envelope(encode({"n": offset}), position=Position(EPOCH, offset)), NOW)


def test_an_envelope_does_not_change() -> None:
    envelope = Envelope(encode("hello"))
    with pytest.raises(AttributeError):
        envelope.key = "a"  # type: ignore[misc]


def test_an_entry_is_recorded_as_it_was_sent() -> None:
    recorded = entry(3).recorded()
    assert recorded.position == Position(EPOCH, 3)
    assert recorded.message == {"n": 3}
    assert recorded.sent_at == NOW


@pytest.mark.parametrize(
    ("offsets", "head", "last"),
    [
        pytest.param([1, 2, 3], 3, True, id="up to the head"),
        pytest.param([1, 2], 3, False, id="more to come"),
        pytest.param([], 3, True, id="nothing"),
    ],
)
def test_a_page_knows_whether_it_is_the_last(offsets: list[int], head: int, last: bool) -> None:
    assert Page([entry(offset) for offset in offsets], Position(EPOCH, head), whole=True).last is last


def test_a_page_of_a_room_without_positions_is_the_last() -> None:
    assert Page([], None, whole=False).last
