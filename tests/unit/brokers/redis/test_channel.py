"""What travels on a channel at Redis comes out as it went in, and nothing else comes out."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub import Position
from hubbub.brokers.redis.channel import (
    Announced,
    Arrival,
    Canary,
    Instructed,
    Keys,
    Replied,
    Request,
    RollCall,
    Sender,
    Stamp,
    pack,
    pack_announcement,
    pack_canary,
    pack_instruction,
    pack_reply,
    pack_request,
    pack_roll_call,
    unpack,
    unpack_instruction,
)
from hubbub.codec import Kind, Payload, dumps, encode
from hubbub.envelope import Announcement, Author, Envelope, Kick, Refresh, Reply, Reset, Subscribe, Unsubscribe

IDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
INFOS = st.one_of(st.none(), st.dictionaries(IDS, st.integers() | IDS, max_size=2)).map(dumps)
AUTHORS = st.builds(Author, st.none() | IDS, IDS, INFOS, INFOS)
ENVELOPES = st.builds(
    Envelope,
    st.builds(Payload, st.just(Kind.BINARY), st.binary(max_size=300))
    | st.builds(
        Payload,
        st.sampled_from([Kind.TEXT, Kind.JSON]),
        st.text(st.characters(codec="utf-8"), max_size=100).map(str.encode),
    ),
    st.frozensets(IDS, max_size=4),
    st.none() | st.text(st.characters(codec="utf-8"), max_size=30),
    st.none(),
    st.none() | AUTHORS,
)
STAMPS = st.builds(Stamp, st.binary(min_size=8, max_size=8), st.integers(0, 2**64 - 1))
OFFSETS = st.integers(0, 2**53)


@given(ENVELOPES, STAMPS)
def test_a_message_comes_out_as_it_went_in(envelope: Envelope, stamp: Stamp) -> None:
    assert unpack(pack(envelope, stamp)) == Arrival(envelope, stamp)


@given(ENVELOPES, STAMPS, OFFSETS)
def test_a_numbered_message_has_its_position(envelope: Envelope, stamp: Stamp, offset: int) -> None:
    numbered = b"P" + b"abcdefgh" + offset.to_bytes(8, "big") + pack(envelope, stamp)
    position = Position("abcdefgh", offset)
    assert unpack(numbered) == Arrival(envelope._replace(position=position), stamp)


TIME = datetime(1970, 1, 1)  # noqa: DTZ001 - hypothesis takes bounds without a zone
TEXT = st.text(st.characters(codec="utf-8"), max_size=123)


@given(TEXT, st.integers(1000, 4999), TEXT)
def test_a_kick_comes_out_as_it_went_in(room: str, code: int, reason: str) -> None:
    packed = pack_instruction(room, Kick(code, reason))
    assert unpack(b"I" + (7).to_bytes(8, "big") + packed) == Instructed(room, Kick(code, reason), 7)
    assert unpack_instruction(packed, age_s=1.5) == Instructed(room, Kick(code, reason, 1.5))
    assert packed != pack_instruction(room, Kick(code, reason)), "one that is sent again is known by its name"


@given(TEXT, st.floats(0, 1e11) | st.integers(0, 2**40) | st.none())
def test_the_other_instructions_come_out_as_they_went_in(room: str, expires_at: float | None) -> None:
    for instruction in (Subscribe(room), Unsubscribe(room), Refresh(expires_at)):
        packed = pack_instruction("$user:ann", instruction)
        assert unpack_instruction(packed, at=7) == Instructed("$user:ann", instruction, 7)
        aged = unpack_instruction(packed, age_s=1.5).instruction
        assert type(aged) is type(instruction)
        assert aged.age_s == 1.5


@given(st.sampled_from(["joined", "left"]), st.none() | IDS, IDS, STAMPS, st.integers(0, 2**32 - 1), st.datetimes(TIME))
def test_an_announcement_comes_out_as_it_went_in(
    kind: Literal["joined", "left"], user: str | None, connection_id: str, stamp: Stamp, count: int, at: datetime
) -> None:
    """The script adds the count, the connection's id and the info."""
    at, name, info = at.replace(tzinfo=UTC), connection_id.encode(), b'{"name":"A"}'
    packed = pack_announcement(kind, user, at, stamp) + struct.pack(">IH", count, len(name)) + name + info
    assert unpack(packed) == Announced(Announcement(kind, user, connection_id, info, count, at), stamp)
    of_room = b'{"role":"owner"}'
    with_room_info = Announcement(kind, user, connection_id, info, count, at, of_room)
    assert unpack(packed + b"\xff" + of_room) == Announced(with_room_info, stamp)


@pytest.mark.parametrize(
    "author", [b"[]", b'["ann","a1","{}"]', b'["ann",5,"{}","{}"]', b'["ann","a1","{}","{"]', b"{"]
)
def test_a_message_whose_author_is_of_another_form_is_refused(author: bytes) -> None:
    good = pack(Envelope(encode("hello"), author=Author("ann", "a1")), Stamp(b"12345678", 1))
    known = b'["ann","a1","null","null"]'
    sized = len(known).to_bytes(4, "big") + known
    assert sized in good
    with pytest.raises(ValueError, match=r"."):
        unpack(good.replace(sized, len(author).to_bytes(4, "big") + author))
    with pytest.raises(ValueError, match=r"."):
        unpack(good.replace(sized, b"\0\1\0\0" + known))


@pytest.mark.parametrize("info", [b"", b"{", b"\xff", b"{}{}", b"{}\xff{", b"{}\xff{}\xff{}"])
def test_an_announcement_whose_info_is_no_json_is_refused(info: bytes) -> None:
    begun = pack_announcement("joined", "ann", datetime.now(UTC), Stamp(b"12345678", 1))
    with pytest.raises(ValueError, match=r"."):
        unpack(begun + b"\0\0\0\1\0\1a" + info)


@pytest.mark.parametrize(
    ("letter", "fields"),
    [
        pytest.param(b"X", b'["lobby"]', id="a kind of another release"),
        pytest.param(b"K", b"[1008]", id="too few fields"),
        pytest.param(b"K", b'["1008",""]', id="a field of another type"),
        pytest.param(b"S", b'{"room":"lobby"}', id="no list"),
        pytest.param(b"S", b"?", id="no JSON"),
    ],
)
def test_an_instruction_that_this_release_does_not_know_is_refused(letter: bytes, fields: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        unpack_instruction(b"12345678" + letter + b"\0\1a" + fields)


@given(st.binary(max_size=300), STAMPS, OFFSETS, st.integers(0, 2**32 - 1))
def test_a_request_comes_out_as_it_went_in(payload: bytes, stamp: Stamp, number: int, timeout_ms: int) -> None:
    request = unpack(pack_request(payload, number, timeout_ms / 1000 + 1e-6, stamp))
    assert request == Request(payload, number, timeout_ms / 1000, stamp)


@pytest.mark.parametrize(("timeout_s", "waits_s"), [(1e9, (2**32 - 1) / 1000), (-1.0, 0.0)])
def test_a_time_that_can_not_be_packed_is_the_nearest_that_can(timeout_s: float, waits_s: float) -> None:
    request = unpack(pack_request(b"", 1, timeout_s, Stamp(b"12345678", 1)))
    assert isinstance(request, Request)
    assert request.timeout_s == waits_s


@given(
    OFFSETS, st.builds(Reply, st.binary(max_size=300), st.just("")) | st.builds(Reply, st.just(b""), TEXT.filter(bool))
)
def test_a_reply_comes_out_as_it_went_in(number: int, reply: Reply) -> None:
    assert unpack(pack_reply(number, reply)) == Replied(number, reply)


def test_what_is_short_comes_out_as_it_went_in() -> None:
    assert unpack(pack_canary(2**40)) == Canary(2**40)
    assert unpack(pack_roll_call()) == RollCall()
    assert unpack(b"Rabcdefgh" + (7).to_bytes(8, "big")) == Reset(Position("abcdefgh", 7))


@given(st.binary(max_size=60))
def test_what_is_not_ours_is_refused_with_a_value_error(data: bytes) -> None:
    try:
        unpack(data)
    except ValueError:
        pass


@pytest.mark.parametrize("data", [b"", b"Z", b"M", b"Pabc", b"M\x09" + bytes(22), b'{"type":"chat"}'])
def test_what_is_not_whole_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        unpack(data)


def test_a_sender_counts_and_is_no_other() -> None:
    one, other = Sender(), Sender()
    assert [one.stamp(scripted=False) for _ in range(3)] == [(one.id, 1), (one.id, 2), (one.id, 3)]
    scripts = one.stamp(scripted=True)
    assert scripts.number == 1
    assert len({one.id, scripts.sender, other.id}) == 3


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=100))
def test_a_room_is_found_again_in_its_channel(room: str) -> None:
    keys = Keys("app", 3)
    assert keys.room_of(keys.channel(room).encode()) == room
    assert keys.room_of(Keys("app", 33).channel(room).encode()) is None
    assert keys.room_of(keys.own_channel(room).encode()) is None
    assert f"{{{room}}}" in keys.head(room)


def test_no_key_of_a_room_is_that_of_another_room_or_app() -> None:
    def names(keys: Keys, room: str) -> set[str]:
        return {keys.channel(room), keys.head(room), keys.log(room), keys.here(room)}

    rooms = ["a", "a}:head", "{a}", "a:log", "$everyone", "a}"]
    found = [name for keys in (Keys("one"), Keys("two")) for room in rooms for name in names(keys, room)]
    assert len(found) == len(set(found))


def test_no_channel_is_that_of_another_database_or_app() -> None:
    """The keys of two databases are apart in any case, and have the same names."""
    apps = [Keys(prefix, database) for prefix in ("app", "app:1", "app:11", "app:1:1") for database in (0, 1, 11)]
    rooms = ["a", "1:{a}", "workers"]
    found = [
        name for keys in apps for name in (keys.all_workers, *map(keys.own_channel, rooms), *map(keys.channel, rooms))
    ]
    assert len(found) == len(set(found))
    assert Keys("app", 1).here("a") == Keys("app", 2).here("a")
