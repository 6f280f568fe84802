"""The raw protocol: what the app sent as one frame, positions beside it, and what a client that comes back presents."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hubbub import Position, Resume, RoomOptions
from hubbub.codec import encode
from hubbub.envelope import Announcement, Envelope, Relabel, Reset
from hubbub.positions import Joined
from hubbub.protocols import RawProtocol
from hubbub.protocols.frames import Opcode, frame, split
from hubbub.protocols.raw import MAX_RESUME_IDS, MAX_RESUME_ROOMS, position_only, positioned
from hubbub.rooms.room import Room

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


RAW = RawProtocol(app_ping=True, client_frames=True)
SILENT = RawProtocol(app_ping=False, client_frames=False)
PLAIN, NUMBERED = Room("lobby", RoomOptions()), Room("lobby", RoomOptions(positions=True))


def only(data: bytes | None) -> tuple[Opcode, bytes]:
    assert data is not None
    (message,) = split(data)
    return message


def control(data: bytes | None) -> Any:
    opcode, text = only(data)
    assert opcode is Opcode.TEXT
    return json.loads(text)


# Messages as they are


@settings(max_examples=50, deadline=None)
@given(TEXT)
def test_text_is_a_text_frame(text: str) -> None:
    assert RAW.message(encode(text)) == frame(Opcode.TEXT, text.encode())


@settings(max_examples=50, deadline=None)
@given(st.binary())
def test_bytes_are_a_binary_frame(data: bytes) -> None:
    assert RAW.message(encode(data)) == frame(Opcode.BINARY, data)


@settings(max_examples=50, deadline=None)
@given(JSON.filter(lambda value: not isinstance(value, str)))
def test_json_is_a_text_frame(value: Any) -> None:
    payload = encode(value)
    assert RAW.message(payload) == frame(Opcode.TEXT, payload.data)


@pytest.mark.parametrize("room", [PLAIN, NUMBERED], ids=["plain", "numbered"])
@pytest.mark.parametrize("kind", ["joined", "left"])
def test_an_announcement_is_an_object_without_a_position(room: Room, kind: Any) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)
    news = Announcement(kind, 'ä"', "c1", b'{"name":"\xc3\xa4"}', 3, at)
    assert only(RAW.announcement(room, news)) == (
        Opcode.TEXT,
        b'{"type":"user_%b","room":"lobby","user_id":"\xc3\xa4\\"","info":{"name":"\xc3\xa4"},"count":3,'
        b'"timestamp":"2026-01-02T03:04:05.000678Z"}' % kind.encode(),
    )
    assert SILENT.announcement(room, news) == RAW.announcement(room, news)
    assert RAW.announcement(room, replace(news, user_id=None)) is None, "raw clients hear of users"


def test_a_publication_is_what_the_app_sent_where_clients_know_no_positions() -> None:
    message = Envelope(encode("hello"), position=PLACE)
    assert only(RAW.publication(PLAIN, message)) == (Opcode.TEXT, b"hello")
    assert RAW.exclusion(PLAIN, message) is None
    assert only(RAW.publication(NUMBERED, message._replace(position=None))) == (Opcode.TEXT, b"hello")


# Objects of ours


def test_news_of_a_room_are_for_clients_that_know_positions() -> None:
    assert control(RAW.renumbering(NUMBERED, Reset(PLACE))) == {
        "type": "reset", "room": "lobby", "epoch": EPOCH, "offset": 12,
    }  # fmt: skip
    assert control(RAW.renumbering(NUMBERED, Relabel(PLACE)))["type"] == "epoch"
    assert RAW.renumbering(PLAIN, Reset(PLACE)) is None
    assert control(RAW.joined(NUMBERED, Joined(PLACE, recovered=True), "me")) == {
        "type": "sync", "room": "lobby", "epoch": EPOCH, "offset": 12, "recovered": True, "connection_id": "me",
    }  # fmt: skip
    assert RAW.joined(NUMBERED, Joined(None, recovered=False), "me") is None
    assert RAW.joined(PLAIN, Joined(PLACE, recovered=False), "me") is None


def test_errors_and_drops_are_told_unless_the_app_wants_no_frames_of_ours() -> None:
    assert control(RAW.error("invalid_json", "no")) == {"type": "error", "code": "invalid_json", "message": "no"}
    assert control(RAW.dropped("lobby", 3)) == {"type": "dropped", "room": "lobby", "count": 3}
    assert SILENT.error("invalid_json", "no") is None
    assert SILENT.dropped("lobby", 3) is None


@pytest.mark.parametrize("text", ['{"type":"ping"}', '{"type": "ping"}', ' {\n"type" : "ping" } '])
def test_a_ping_is_answered_where_the_app_wants_it(text: str) -> None:
    assert control(RAW.reply(text, None)) == {"type": "pong"}
    assert SILENT.reply(text, None) is None


@pytest.mark.parametrize(
    "text", ['{"type":"pong"}', '"ping"', '{"type":"ping","n":1}', '{"type":"ping"', "", "x" * 100]
)
def test_any_other_text_is_for_the_app(text: str) -> None:
    assert RAW.reply(text, None) is None
    assert RAW.reply(None, text.encode()) is None


# With positions


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
