"""The raw protocol: what the app sent as one frame, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub import Position, RoomOptions
from hubbub.codec import encode
from hubbub.envelope import Announcement, Envelope
from hubbub.protocols import RawProtocol
from hubbub.protocols.frames import Opcode, frame, split
from hubbub.rooms.room import Room

PLACE = Position("abc-EF_8", 12)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)


RAW = RawProtocol(app_ping=True, client_frames=True)
SILENT = RawProtocol(app_ping=False, client_frames=False)
LOBBY = Room("lobby", RoomOptions(history=5))


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


@pytest.mark.parametrize("kind", ["joined", "left"])
def test_an_announcement_is_an_object_without_a_position(kind: Any) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)
    news = Announcement(kind, 'ä"', "c1", b'{"name":"\xc3\xa4"}', 3, at)
    assert only(RAW.announcement(LOBBY, news)) == (
        Opcode.TEXT,
        b'{"type":"user_%b","room":"lobby","user_id":"\xc3\xa4\\"","info":{"name":"\xc3\xa4"},"count":3,'
        b'"timestamp":"2026-01-02T03:04:05.000678Z"}' % kind.encode(),
    )
    assert SILENT.announcement(LOBBY, news) == RAW.announcement(LOBBY, news)
    assert RAW.announcement(LOBBY, replace(news, user_id=None)) is None, "raw clients hear of users"


@pytest.mark.parametrize("position", [None, PLACE], ids=["not numbered", "numbered"])
@pytest.mark.parametrize("message", ["hello", b"\x00\xff", {"n": 1}, None, ""], ids=repr)
def test_a_publication_is_what_the_app_sent_whether_or_not_the_room_has_positions(
    message: Any, position: Position | None
) -> None:
    payload = encode(message)
    assert RAW.publication(LOBBY, Envelope(payload, position=position)) == RAW.message(payload)


# Objects of ours


def test_errors_are_told_unless_the_app_wants_no_frames_of_ours() -> None:
    assert control(RAW.error("invalid_json", "no")) == {"type": "error", "code": "invalid_json", "message": "no"}
    assert SILENT.error("invalid_json", "no") is None


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
