"""Positions: how they travel, and what a client that comes back presents."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hubbub import InvalidArgument, Position, Resume
from hubbub.codec import encode
from hubbub.frames import Opcode, split
from hubbub.positions import (
    EPOCH_CHARS,
    MAX_RESUME_IDS,
    MAX_RESUME_ROOMS,
    as_position,
    new_epoch,
    position_only,
    positioned,
    since_for,
)

EPOCH = "abc-EF_8"
PLACE = Position(EPOCH, 12)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
ROOMS = TEXT.filter(lambda room: 1 <= len(room.encode()) <= 255)
OFFSETS = st.integers(0, 2**64 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)


def only(data: bytes) -> tuple[Opcode, bytes]:
    (message,) = split(data)
    return message


# On the wire


@settings(max_examples=50, deadline=None)
@given(JSON.filter(lambda value: not isinstance(value, str)), ROOMS, OFFSETS)
@example({"type": "message"}, 'a "quoted" \\ room\n\0\x7f\u2028 </script>', 0)
def test_json_travels_with_room_epoch_and_offset(value: Any, room: str, offset: int) -> None:
    opcode, text = only(positioned(encode(value), room, Position(EPOCH, offset)))
    assert opcode is Opcode.TEXT
    assert json.loads(text) == {"room": room, "epoch": EPOCH, "offset": offset, "data": value}


@settings(max_examples=50, deadline=None)
@given(TEXT, ROOMS, OFFSETS)
@example('{"type": "looks like JSON"}', "lobby", 1)
def test_text_travels_as_a_json_string(message: str, room: str, offset: int) -> None:
    opcode, text = only(positioned(encode(message), room, Position(EPOCH, offset)))
    assert opcode is Opcode.TEXT
    assert json.loads(text) == {"room": room, "epoch": EPOCH, "offset": offset, "data": message}


@settings(max_examples=50, deadline=None)
@given(st.binary(), ROOMS, OFFSETS)
@example(b"", "x" * 255, 2**64 - 1)
@example(b"HUB1", "ü" * 127, 0)
def test_binary_travels_behind_its_header(message: bytes, room: str, offset: int) -> None:
    opcode, data = only(positioned(encode(message), room, Position(EPOCH, offset)))
    size = data[4]
    assert opcode is Opcode.BINARY
    assert data[:4] == b"HUB1"
    assert data[5:13].decode("ascii") == EPOCH
    assert int.from_bytes(data[13:21], "big") == offset
    assert data[21 : 21 + size].decode() == room
    assert data[21 + size :] == message


def test_the_binary_header_is_byte_for_byte_as_documented() -> None:
    _, data = only(positioned(encode(b"\xff\x00"), "ü", Position("abcdefgh", 0x0102)))
    assert data == b"HUB1" + b"\x02" + b"abcdefgh" + bytes.fromhex("0000000000000102") + b"\xc3\xbc" + b"\xff\x00"


@settings(max_examples=50, deadline=None)
@given(ROOMS, OFFSETS)
def test_who_is_excluded_gets_the_position_and_no_more(room: str, offset: int) -> None:
    opcode, text = only(position_only(room, Position(EPOCH, offset)))
    assert opcode is Opcode.TEXT
    assert json.loads(text) == {"room": room, "epoch": EPOCH, "offset": offset}


def test_a_message_of_null_still_has_data() -> None:
    _, text = only(positioned(encode(None), "lobby", PLACE))
    assert json.loads(text)["data"] is None


def test_epochs_are_random_and_of_one_size() -> None:
    epochs = {new_epoch() for _ in range(1000)}
    assert len(epochs) == 1000
    for epoch in epochs:
        assert len(epoch) == len(epoch.encode("ascii")) == EPOCH_CHARS == 8
        assert json.loads(f'"{epoch}"') == epoch


# What an app passes as since


@pytest.mark.parametrize(
    "value",
    [PLACE, (EPOCH, 12), [EPOCH, 12], {"epoch": EPOCH, "offset": 12}, {"epoch": EPOCH, "offset": 12, "more": 1}],
)
def test_what_is_a_position(value: Any) -> None:
    assert as_position(value) == PLACE
    assert isinstance(as_position(value), Position)


@pytest.mark.parametrize(
    "value",
    [
        None, "", "abcdefgh", 12, True, b"ab", (), (EPOCH,), (12, EPOCH), (EPOCH, "12"), (EPOCH, -1), (EPOCH, 1.0),
        (EPOCH, True), (EPOCH, None), (EPOCH, 12, 13), (None, 12), {}, {"epoch": EPOCH}, {"offset": 12}, {EPOCH: 12},
        {"epoch": 12, "offset": EPOCH}, ("\ud800", 12), ("e" * 65, 12), (EPOCH, 2**63),
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_position(value: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^since: ") as caught:
        as_position(value)
    assert "Position(epoch, offset)" in caught.value.accepted


def test_since_is_for_one_room_or_by_room() -> None:
    by_room = {"lobby": PLACE, "other": (EPOCH, 3)}
    assert since_for(None, "lobby") is None
    assert since_for(PLACE, "lobby") == PLACE
    assert since_for(by_room, "lobby") == PLACE
    assert since_for(by_room, "other") == Position(EPOCH, 3)
    assert since_for(by_room, "elsewhere") is None
    assert since_for({"epoch": EPOCH, "offset": 12}, "lobby") == PLACE
    assert since_for({"epoch": PLACE, "offset": PLACE}, "epoch") == PLACE
    assert since_for(Resume({"lobby": PLACE}), "lobby") == PLACE
    assert since_for({}, "lobby") is None


def test_a_wrong_since_names_the_room_that_it_is_for() -> None:
    with pytest.raises(InvalidArgument, match=r"^since\['lobby'\]: "):
        since_for({"lobby": 12}, "lobby")


# What a client sends


def presented(text: str) -> Resume | None:
    return Resume.from_query(SimpleNamespace(query_params={"since": text}))


def test_a_client_comes_back_with_its_rooms_and_old_ids() -> None:
    found = presented('{"ids":["new","old"],"rooms":{"lobby":["abc-EF_8",12],"$everyone":["zzzzzzzz",0]}}')
    assert found is not None
    assert dict(found) == {"lobby": PLACE, "$everyone": Position("zzzzzzzz", 0)}
    assert found.connection_ids == ("new", "old")
    assert len(found) == 2
    assert found["lobby"] == PLACE
    assert "lobby" in repr(found)


def test_the_ids_may_be_missing() -> None:
    found = presented('{"rooms":{"lobby":["abc-EF_8",12]}}')
    assert found is not None
    assert found.connection_ids == ()


def test_a_first_visit_presents_nothing() -> None:
    assert Resume.from_query(SimpleNamespace(query_params={})) is None
    assert presented("") is None
    assert presented('{"rooms":{}}') == Resume({})


def test_what_a_client_presents_is_bounded() -> None:
    text = json.dumps({"ids": [f"id {n}" for n in range(50)], "rooms": {f"room {n}": [EPOCH, n] for n in range(5000)}})
    found = presented(text)
    assert found is not None
    assert len(found) == MAX_RESUME_ROOMS == 1024
    assert found["room 0"] == Position(EPOCH, 0)
    assert found.connection_ids == tuple(f"id {n}" for n in range(MAX_RESUME_IDS))


NONSENSE = [
    "x", "{", "null", "12", '"text"', "[]", "{}", '{"rooms":null}', '{"rooms":[]}', '{"rooms":{"a":null}}',
    '{"rooms":{"a":[]}}', '{"rooms":{"a":["abcdefgh"]}}', '{"rooms":{"a":[12,"abcdefgh"]}}',
    '{"rooms":{"a":["abcdefgh",-1]}}', '{"rooms":{"a":["abcdefgh",1.5]}}', '{"rooms":{"a":["abcdefgh",true]}}',
    '{"rooms":{"a":["abcdefgh",' + "9" * 400 + "]}}", '{"ids":12,"rooms":{}}', '{"ids":{"a":1},"rooms":{}}',
    '{"ids":null,"rooms":{}}', "\ud800", "\0", "[" * 100_000, '{"rooms":NaN}', '{"rooms":{"a":[' * 600,
]  # fmt: skip


@pytest.mark.parametrize("text", NONSENSE, ids=lambda text: ascii(text[:40]))
def test_nonsense_is_nothing_and_is_logged_for_those_who_look(text: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "hubbub")
    assert presented(text) is None
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert len(record.getMessage()) < 400


@pytest.mark.parametrize(
    "template",
    [
        '{"ids":[%s],"rooms":{}}',
        '{"rooms":{"a":%s}}',
        '{"rooms":{"a":["abcdefgh",%s]}}',
        '{"rooms":%s}',
        '{"x":%s}',
        "%s",
    ],
)
@pytest.mark.parametrize("depth", [50, 250, 900, 1000, 1020, 2000])
def test_a_client_that_nests_deeply_takes_nobody_down(template: str, depth: int) -> None:
    """Whatever a client sends, the handler that reads it goes on."""
    presented(template % ("[" * depth + "]" * depth))


@settings(max_examples=50, deadline=None)
@given(st.text() | JSON.map(json.dumps))
@example('{"ids":[[[[]]]],"rooms":{"a":["",0]}}')
def test_any_text_gives_positions_or_nothing(text: str) -> None:
    check(presented(text))


@settings(max_examples=50, deadline=None)
@given(
    st.fixed_dictionaries(
        {"rooms": st.dictionaries(TEXT, st.tuples(TEXT, st.integers()) | JSON, max_size=4) | JSON},
        optional={"ids": st.lists(TEXT | JSON, max_size=12) | JSON},
    )
)
def test_what_looks_like_it_gives_positions_or_nothing(value: Any) -> None:
    check(presented(json.dumps(value)))


def check(found: Resume | None) -> None:
    if found is None:
        return
    for room, place in found.items():
        assert isinstance(room, str)
        assert isinstance(place, Position)
        assert isinstance(place.epoch, str)
        assert place.offset >= 0
    assert len(found.connection_ids) <= MAX_RESUME_IDS
    assert all(isinstance(each, str) for each in found.connection_ids)
