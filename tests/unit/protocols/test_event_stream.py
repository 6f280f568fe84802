"""Server-Sent Events: what a client that follows the standard reads, and the places that it presents again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.close import Closed
from hubbub.codec import Payload, encode
from hubbub.envelope import Announcement, Envelope
from hubbub.positions import Position
from hubbub.protocols.chunks import unchunked
from hubbub.protocols.event_stream import (
    COMMENT,
    MAX_ID_CHARS,
    MAX_ROOMS,
    Asked,
    EventStreamProtocol,
    OneRoom,
    Place,
    SeveralRooms,
    opening,
    place,
    presented,
    reset,
)


@dataclass(frozen=True)
class Room:
    label: str


def read(frames: bytes) -> list[dict[str, str]]:
    """Parses a stream as section 9.2.6 of the standard does: one dictionary per event, and the id that it leaves."""
    events, last_id = [], ""
    name, data = "", ""
    text = unchunked(frames).decode().replace("\r\n", "\n").replace("\r", "\n")
    assert text.endswith("\n\n") or not text
    for line in text.split("\n"):
        if not line:
            if data:
                events.append({"event": name or "message", "data": data[:-1], "id": last_id})
            name, data = "", ""
            continue
        key, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if key == "data":
            data += value + "\n"
        elif key == "event":
            name = value
        elif key == "id" and "\0" not in value:
            last_id = value
    return [*events, {"id": last_id}]


def published(
    protocol: EventStreamProtocol, room: str, message: object, position: Position | None = None
) -> list[dict[str, str]]:
    frames = protocol.publication(Room(room), Envelope(encode(message), position=position))
    assert frames is not None
    return read(frames)


def live(label: str) -> Place:
    return Place(is_live=True)


def test_a_message_has_the_position_of_its_room_as_id() -> None:
    found = published(OneRoom(Asked("a")), "a", {"n": 1}, Position("abcdefgh", 7))
    assert found[0] == {"event": "message", "data": '{"n":1}', "id": "abcdefgh:7"}


def test_a_message_without_a_position_keeps_the_id() -> None:
    assert published(OneRoom(Asked("a")), "a", "text")[0] == {"event": "message", "data": "text", "id": ""}


@given(st.text())
def test_any_text_arrives_with_its_lines(text: str) -> None:
    found = published(OneRoom(Asked("a")), "a", text)[:-1]
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    assert [each["data"] for each in found] == ([lines] if lines else [""])[: len(found)]
    assert found or not lines


def test_bytes_are_base64_in_an_event_of_their_own() -> None:
    assert published(OneRoom(Asked("a")), "a", b"\0\xff")[0] == {"event": "base64", "data": "AP8=", "id": ""}


def test_the_name_of_a_type_is_the_event() -> None:
    asked = Asked("a", lambda payload: "Said" if b"text" in payload.data else "")
    assert published(OneRoom(asked), "a", {"text": 1})[0]["event"] == "Said"
    assert published(OneRoom(asked), "a", {"other": 1})[0]["event"] == "message"


@pytest.mark.parametrize("protocol", [OneRoom(Asked("a")), SeveralRooms([Asked("a"), Asked("b")], [None, None], live)])
def test_a_room_that_was_not_named_is_the_event_and_moves_no_place(protocol: EventStreamProtocol) -> None:
    found = published(protocol, "$user", "for you", Position("abcdefgh", 9))
    assert found == [{"event": "$user", "data": "for you", "id": ""}, {"id": ""}]


def test_a_line_break_in_a_room_name_begins_no_field() -> None:
    found = published(OneRoom(Asked("a")), "x\ndata: forged\r\n\r\nid: 1", "text")
    assert len(found) == 2
    assert found[0]["data"] == "text"
    assert found[-1] == {"id": ""}
    assert read(reset("x\ndata: forged"))[0]["data"] == "x\ndata: forged"


def test_the_ids_of_several_rooms_say_which_room_and_where_all_are() -> None:
    protocol = SeveralRooms([Asked("a"), Asked("b"), Asked("c")], [Position("old", 1), None, None], live)
    first = published(protocol, "b", 1, Position("bb", 5))
    second = published(protocol, "c", 2)
    third = published(protocol, "a", 3, Position("aa", 2))
    assert [each[0]["id"] for each in (first, second, third)] == ["1,old:1,bb:5,", "2,old:1,bb:5,", "0,aa:2,bb:5,"]


def test_the_place_in_a_room_that_is_caught_up_is_what_was_written() -> None:
    places = {"a": Place(is_live=False, position=Position("aa", 3)), "b": Place(is_live=True)}
    protocol = SeveralRooms([Asked("a"), Asked("b")], [None, None], places.__getitem__)
    page = [published(protocol, "a", n, Position("aa", n))[0]["id"] for n in (4, 5, 6)]
    assert page == ["0,aa:4,", "0,aa:5,", "0,aa:6,"]
    assert published(protocol, "b", 0, Position("bb", 1))[0]["id"] == "1,aa:3,bb:1"  # the page waits
    places["a"] = Place(is_live=True)
    assert published(protocol, "b", 0, Position("bb", 2))[0]["id"] == "1,aa:6,bb:2"
    places["a"] = Place(is_live=False, position=Position("aa", 0))  # nobody asks any more
    assert published(protocol, "b", 0, Position("bb", 3))[0]["id"] == "1,aa:6,bb:3"


def test_a_beginning_does_not_move_a_place_back() -> None:
    protocol = SeveralRooms([Asked("a"), Asked("b")], [None, None], live)
    published(protocol, "a", 0, Position("aa", 4))
    protocol.begin("a", Position("aa", 3))
    protocol.begin("b", Position("bb", 3))
    assert published(protocol, "b", 0, Position("bb", 4))[0]["id"] == "1,aa:4,bb:4"


@given(
    st.lists(
        st.none() | st.builds(Position, st.sampled_from(["aa", "b:b", "c-_"]), st.integers(0, 2**63 - 1)),
        min_size=1,
        max_size=5,
    )
)
def test_a_place_that_was_sent_is_read_again(positions: list[Position | None]) -> None:
    rooms = [Asked(str(number)) for number in range(len(positions))]
    protocol = OneRoom(rooms[0]) if len(rooms) == 1 else SeveralRooms(rooms, [None] * len(rooms), live)
    sent = read(opening(1000, protocol.beginning(positions)))[-1]["id"]
    found = presented(sent, len(rooms))
    assert found.is_valid
    assert found.positions == positions


@given(st.text(max_size=60), st.integers(1, 4))
def test_whatever_is_presented_is_read_or_refused(text: str, rooms: int) -> None:
    found = presented(text, rooms)
    assert len(found.positions) == rooms
    assert found.is_valid or not any(found.positions)


@pytest.mark.parametrize(
    "text", ["x", "aa:-1", "aa:1_0", "aa:" + "9" * 20, "ä:1", "aa:1,bb:2", "x" * (MAX_ID_CHARS + 1)]
)
def test_what_is_no_place_recovers_nothing(text: str) -> None:
    assert not presented(text, 1).is_valid


def test_the_largest_place_fits_a_header() -> None:
    rooms = [Asked(str(number)) for number in range(MAX_ROOMS)]
    places = [Position("abcdefgh", 2**63 - 1)] * MAX_ROOMS
    assert len(SeveralRooms(rooms, places, live).beginning(places)) < MAX_ID_CHARS


def test_joins_and_leaves_are_events() -> None:
    event = Announcement("joined", "ann", "c1", b'{"name":"Ann"}', 2, datetime(2026, 1, 2, tzinfo=UTC))
    (found, _) = read(OneRoom(Asked("a")).announcement(Room("a"), event))
    assert found["event"] == "join"
    assert found["data"] == (
        '{"room":"a","user_id":"ann","client":"c1","info":{"name":"Ann"},"count":2,"timestamp":"2026-01-02T00:00:00Z"}'
    )


def test_no_frame_of_ours_is_an_event_for_a_page() -> None:
    for frame in (COMMENT, opening(1500), place(b"id: x\n"), OneRoom(Asked("a")).ending(Closed(1000, "a\nb"), 1500)):
        assert len(read(frame)) == 1, "it has data"
    assert b"retry: 1500\n" in opening(1500)
    assert place(b"") == b""


def test_a_message_to_one_client_is_an_event_without_a_place() -> None:
    assert read(OneRoom(Asked("a")).message(Payload(*encode("hi"))))[0] == {"event": "message", "data": "hi", "id": ""}
