"""A page of history as it is written: in pieces, shared by members that get the same, whole or not at all."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub import Position, RoomOptions
from hubbub.codec import encode
from hubbub.envelope import Entry, Envelope, Page
from hubbub.rooms.replay import PIECE_BYTES, Replay
from hubbub.rooms.room import Room
from tests.unit.rooms.test_audience import BRACKETS, Member
from tests.unit.rooms.test_fanout import Plain

THEN = datetime(2026, 1, 1, tzinfo=UTC)


def page_of(*messages: bytes | tuple[bytes, str], whole: bool = True, first: int = 1) -> Page:
    """A page of messages, each with the connection that it excludes."""
    entries = []
    for offset, message in enumerate(messages, first):
        data, *exclude = message if isinstance(message, tuple) else (message,)
        position = Position("epoch", offset)
        entries.append(Entry(Envelope(encode(data), frozenset(map(str, exclude)), None, position), THEN))
    return Page(entries, Position("epoch", first + len(messages) - 1), whole)


def replay_of(page: Page) -> Replay:
    return Replay(Room("lobby", RoomOptions()), page)


def test_small_messages_are_one_piece_that_reaches_the_last_of_them() -> None:
    assert replay_of(page_of(b"one", b"two", first=5)).pieces(Member("a")) == [(b"onetwo", 6)]


@pytest.mark.parametrize(
    ("sizes", "reaches"),
    [
        ([PIECE_BYTES - 1, 1, 1], [2, 3]),
        ([PIECE_BYTES, 1], [1, 2]),
        ([PIECE_BYTES - 1, 1], [2]),
        ([10 * PIECE_BYTES], [1]),
        ([], []),
    ],
)
def test_a_piece_ends_with_the_message_that_fills_it(sizes: list[int], reaches: list[int]) -> None:
    pieces = replay_of(page_of(*[b"x" * size for size in sizes])).pieces(Member("a"))
    assert [piece.reaches for piece in pieces] == reaches
    assert sum(len(piece.data) for piece in pieces) == sum(sizes)


def test_a_page_with_something_missing_before_it_gives_nothing() -> None:
    assert replay_of(page_of(b"one", whole=False)).pieces(Member("a")) == []


def test_members_of_one_protocol_share_the_pieces() -> None:
    replay = replay_of(page_of(b"one"))
    assert replay.pieces(Member("a")) is replay.pieces(Member("b"))
    assert replay.pieces(Member("c", protocol=BRACKETS)) == [(b"[one]", 1)]


def test_what_is_framed_for_one_connection_is_not_kept() -> None:
    class Unshared(Plain):
        is_shared = False

    replay, protocol = replay_of(page_of(b"one")), Unshared()
    assert replay.pieces(Member("a", protocol=protocol)) == replay.pieces(Member("a", protocol=protocol))
    assert protocol.framed == 2


def test_a_page_that_excludes_somebody_is_made_for_each_member() -> None:
    replay = replay_of(page_of((b"one", "a"), b"two"))
    assert replay.pieces(Member("b")) == [(b"onetwo", 2)]
    assert replay.pieces(Member("a")) == [(b"two", 2)]


def test_messages_that_say_nothing_to_a_member_still_move_its_position() -> None:
    replay = replay_of(page_of(b"x" * PIECE_BYTES, (b"two", "a"), (b"three", "a")))
    assert [(len(piece.data), piece.reaches) for piece in replay.pieces(Member("a"))] == [(PIECE_BYTES, 1), (0, 3)]


@given(st.lists(st.tuples(st.integers(0, PIECE_BYTES), st.sampled_from("ab")), max_size=12))
def test_the_pieces_are_every_message_in_order_and_no_piece_is_larger_than_it_must_be(
    messages: list[tuple[int, str]],
) -> None:
    page = page_of(*[(b"%d" % number + b"x" * size, name) for number, (size, name) in enumerate(messages)])
    pieces = replay_of(page).pieces(Member("a"))
    told = [b"" if name == "a" else b"%d" % number + b"x" * size for number, (size, name) in enumerate(messages)]
    assert b"".join(piece.data for piece in pieces) == b"".join(told)
    ends = [0, *[piece.reaches for piece in pieces]]
    assert ends == sorted(set(ends))
    assert ends[-1] == len(messages)
    for piece, end in zip(pieces, ends[1:], strict=True):
        assert len(piece.data) - len(told[end - 1]) < PIECE_BYTES
