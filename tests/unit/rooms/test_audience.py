"""The members of a room: who gets which frame, in which order, and who is taken out of a flight."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub import Position, RoomOptions
from hubbub.codec import encode
from hubbub.connections.outbox import Lane
from hubbub.envelope import Announcement, Envelope
from hubbub.names import user_room
from hubbub.protocols import RoomInfo
from hubbub.rooms.audience import Audience, Flight, Outgoing, Roster
from tests.unit.rooms.test_fanout import Plain

AT = Position("epoch", 3)
ANNOUNCED = Announcement("joined", "ann", "1", b'{"name":"Ann"}', 1, datetime(2026, 1, 1, tzinfo=UTC))


class Silent(Plain):
    """A protocol that says nothing to members."""

    def publication(self, room: RoomInfo, message: Envelope) -> bytes:
        raise NotImplementedError

    def announcement(self, room: RoomInfo, news: Announcement) -> None:
        return None


PLAIN, BRACKETS, SILENT = Plain(), Plain(b"[", b"]"), Silent()


class Target:
    def write(self, data: bytes) -> bool:
        return True


class Writer:
    congested = False

    def __init__(self) -> None:
        self.transport = Target()

    def stalled_for(self, now: float) -> float:
        return 0.0

    def write(self, data: bytes, lane: Lane, key: str | None = None) -> bool:
        return True


class Member:
    """A connection, as far as a room sees it."""

    def __init__(self, name: str, user: str | None = None, protocol: Plain = PLAIN) -> None:
        self.id = name
        self.user_id = user
        self.protocol = protocol
        self.writer = Writer()

    def __repr__(self) -> str:
        return self.id


def audience_of(*members: Member) -> Audience:
    audience = Audience("lobby", RoomOptions())
    for member in members:
        audience.add(member)
    return audience


def out(text: str, *exclude: str, position: Position | None = None) -> Outgoing:
    return Outgoing(audience_of(), Envelope(encode(text), frozenset(exclude), None, position))


# One message


def test_a_message_is_framed_once_for_each_protocol_however_often_it_is_asked_for() -> None:
    protocols = [Plain(), Plain(b"[", b"]"), Plain(b"(", b")")]
    outgoing = out("hello")
    for _ in range(2):
        assert [outgoing.frame(protocol) for protocol in protocols] == [b"hello", b"[hello]", b"(hello)"]
    assert [protocol.framed for protocol in protocols] == [1, 1, 1]


@pytest.mark.parametrize(
    ("member", "excluded"),
    [
        (Member("a"), True),
        (Member("b", user="ann"), True),
        (Member("b", user="a"), False),  # a user whose name is an id
        (Member("b"), False),
    ],
)
def test_a_message_excludes_a_connection_and_a_user(member: Member, excluded: bool) -> None:
    unnumbered = out("hello", "a", user_room("ann"))
    numbered = out("hello", "a", user_room("ann"), position=AT)
    assert unnumbered.frame_for(member) == (b"" if excluded else b"hello")
    assert numbered.frame_for(member) == (b"" if excluded else b"hello")


def test_what_a_protocol_has_no_word_for_is_an_empty_frame() -> None:
    assert Outgoing(audience_of(), ANNOUNCED).frame(SILENT) == b""
    assert Outgoing(audience_of(), ANNOUNCED).frame_for(Member("a", protocol=SILENT)) == b""


@pytest.mark.parametrize(
    ("event", "size"), [(Envelope(encode("héllo")), 6), (Envelope(encode("")), 0), (ANNOUNCED, 17)]
)
def test_the_size_of_an_event_is_that_of_what_it_carries(event: Any, size: int) -> None:
    assert Outgoing(audience_of(), event).size == size


# The roster


@given(st.lists(st.sampled_from([PLAIN, BRACKETS, SILENT]), max_size=20))
def test_members_of_one_protocol_are_side_by_side_and_in_their_order(protocols: list[Plain]) -> None:
    members = [Member(str(number), protocol=protocol) for number, protocol in enumerate(protocols)]
    roster = Roster(members)
    assert sorted(map(repr, roster.members)) == sorted(map(repr, members))
    assert roster.targets == [member.writer.transport for member in roster.members]
    assert [run.first for run in roster.runs] + [len(members)] == [0] + [run.end for run in roster.runs]
    assert len({run.protocol for run in roster.runs}) == len(roster.runs) == len(set(protocols))
    for run in roster.runs:
        assert roster.members[run.first : run.end] == [each for each in members if each.protocol is run.protocol]


def test_a_member_is_found_by_its_id_and_a_user_by_all_its_connections() -> None:
    roster = Roster([Member("1", user="ann"), Member("2"), Member("3", user="ann")])
    assert [roster.index(name) for name in ("1", "2", "3", "4")] == [0, 1, 2, None]
    assert list(roster.ids_of("ann")) == ["1", "3"]
    assert list(roster.ids_of("bob")) == []


# A flight


def test_the_messages_of_a_flight_are_joined_once_for_each_protocol() -> None:
    flight = Flight([out("one"), out("two")], Roster([]))
    assert flight.data(PLAIN) == b"onetwo"
    assert flight.data(BRACKETS) == b"[one][two]"
    assert flight.data(PLAIN) is flight.data(PLAIN)


def test_a_member_is_taken_out_of_a_flight_once_and_only_before_its_turn() -> None:
    members = [Member(name) for name in "abc"]
    roster = Roster(members)
    flight = Flight([out("hello")], roster)
    flight.at = 1
    assert flight.take("a") is None, "it has got it"
    assert flight.take("b") is members[1]
    assert flight.take("b") is None
    assert flight.take("x") is None
    assert flight.targets[1].write(b""), "what is written in its place is written"
    assert flight.targets[1] is not members[1].writer.transport
    assert roster.targets[1] is members[1].writer.transport, "the roster is as it was"


# Who comes, who goes


def test_a_member_that_comes_while_messages_are_pending_gets_those_after_them() -> None:
    early, late = Member("early"), Member("late")
    audience = audience_of(early)
    audience.pending.append(out("before"))
    audience.add(late)
    audience.pending.append(after := out("after"))
    flight, apart = audience.launch()
    assert apart == [(late, [after])]
    assert flight.take("early") is early
    assert flight.take("late") is None, "what it gets is written to it apart"
    assert (audience.pending, audience.ahead) == ([], {})


def test_a_member_that_comes_where_nothing_is_pending_gets_all() -> None:
    audience = audience_of(Member("a"))
    audience.pending.append(out("hello"))
    assert audience.launch()[1] == []


def test_the_excluded_get_a_flight_message_by_message() -> None:
    a, b, of_ann, other = Member("a"), Member("b"), Member("c", user="ann"), Member("d")
    audience = audience_of(a, b, of_ann, other)
    batch = [out("1", "a"), out("2", "b", user_room("ann"), "nobody")]
    audience.pending += batch
    flight, apart = audience.launch()
    assert sorted((repr(member), messages == batch) for member, messages in apart) == [
        ("a", True),
        ("b", True),
        ("c", True),
    ]
    assert flight.take("d") is other


def test_a_member_that_has_left_is_not_written_to() -> None:
    gone = Member("a")
    audience = audience_of(gone, Member("b"))
    audience.pending.append(out("1", "a"))
    audience.add(late := Member("c"))
    audience.remove(late)
    audience.remove(gone)
    audience.remove(gone)
    assert audience.ahead == {}
    flight, apart = audience.launch()
    assert apart == []
    assert list(map(repr, flight.members)) == ["b"]
