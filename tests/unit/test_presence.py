"""Presence: users, their connections, and the grace of those that were lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from hubbub.codec import dumps
from hubbub.presence import Change, Member, PresenceTable, PresentConnection

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def test_the_first_connection_in_and_the_last_one_out_turn_the_presence() -> None:
    table = PresenceTable()
    assert table.enter("lobby", "ann", "a1", {"n": 1}, NOW) == Change(True, 1, b'{"n":1}', "a1")
    assert table.enter("lobby", "ann", "a2", {"n": 2}, NOW) == Change(False, 1, b'{"n":2}', "a1")
    assert table.exit("lobby", "ann", "a1") == Change(False, 1, b'{"n":2}', "a1")
    assert table.exit("lobby", "ann", "a2") == Change(True, 0, b'{"n":2}', "a1")
    assert table.exit("lobby", "ann", "a2") == Change(False, 0, b"null", "")


def test_who_reloads_a_page_was_never_away() -> None:
    table = PresenceTable()
    table.enter("lobby", "ann", "a1", None, NOW)
    table.linger("lobby", "ann", "a1")
    assert table.members("lobby") == [Member("ann", None, 0, NOW)]
    assert table.enter("lobby", "ann", "a2", None, NOW + timedelta(seconds=3)) == Change(False, 1, b"null", "a1")
    assert table.exit("lobby", "ann", "a1") == Change(False, 1, b"null", "a1")
    assert table.members("lobby") == [Member("ann", None, 1, NOW)]


def test_who_does_not_come_back_leaves_when_the_grace_is_over() -> None:
    table = PresenceTable()
    table.enter("lobby", "ann", "a1", None, NOW)
    table.linger("lobby", "ann", "a1")
    assert table.has("lobby", "ann")
    assert table.exit("lobby", "ann", "a1") == Change(True, 0, b"null", "a1")
    assert not table.has("lobby", "ann")


def test_the_last_of_several_graces_ends_the_presence() -> None:
    table = PresenceTable()
    for each in ("a1", "a2"):
        table.enter("lobby", "ann", each, None, NOW)
    for each in ("a1", "a2"):
        table.linger("lobby", "ann", each)
    assert not table.exit("lobby", "ann", "a2").turned
    assert table.exit("lobby", "ann", "a1").turned


def test_a_connection_that_comes_back_itself_does_not_linger_any_more() -> None:
    table = PresenceTable()
    table.enter("lobby", "ann", "a1", None, NOW)
    table.linger("lobby", "ann", "a1")
    assert not table.enter("lobby", "ann", "a1", None, NOW).turned
    assert table.members("lobby") == [Member("ann", None, 1, NOW)]
    assert table.exit("lobby", "ann", "a1").turned


def test_an_unknown_connection_changes_nothing() -> None:
    table = PresenceTable()
    table.linger("lobby", "ann", "a1")
    assert len(table) == 0
    table.enter("lobby", "ann", "a1", None, NOW)
    table.linger("lobby", "ann", "other")
    table.linger("lobby", "bob", "a1")
    table.linger("elsewhere", "ann", "a1")
    assert table.exit("lobby", "ann", "other") == Change(False, 1, b"null", "a1")
    assert table.exit("lobby", "bob", "a1") == Change(False, 1, b"null", "")
    assert table.exit("elsewhere", "ann", "a1") == Change(False, 0, b"null", "")
    assert table.members("lobby") == [Member("ann", None, 1, NOW)]


def test_a_connection_goes_on_saying_what_it_said_when_another_says_something_else() -> None:
    table = PresenceTable()
    table.enter("lobby", "ann", "a1", {"n": 1}, NOW)
    table.enter("lobby", "ann", "a2", {"n": 1}, NOW, {"role": "owner"})
    table.linger("lobby", "ann", "a1")
    table.enter("lobby", "bob", "b1", None, NOW)
    assert [(each.info, each.room_info, each.live) for each in table.connections("lobby")] == [
        ({"n": 1}, {"role": "owner"}, True),
        ({"n": 1}, None, False),
        (None, None, True),
    ]
    table.enter("lobby", "ann", "a3", {"n": 2}, NOW)
    table.enter("lobby", "ann", "a2", {"n": 3}, NOW)  # it comes a second time
    assert [(each.connection_id, each.info, each.room_info) for each in table.connections("lobby")] == [
        ("a2", {"n": 3}, None),
        ("a3", {"n": 2}, None),
        ("b1", None, None),
    ]
    assert {each.presence_id for each in table.connections("lobby") if each.user_id == "ann"} == {"a1"}


def test_nothing_is_kept_of_what_connections_said_that_are_gone() -> None:
    table = PresenceTable()
    table.enter("lobby", "ann", "a1", None, NOW)
    for number in range(100):
        table.enter("lobby", "ann", "a2", {"n": number}, NOW, {"n": number})
        table.exit("lobby", "ann", "a2")
    table.exit("lobby", "ann", "a1")
    table.enter("lobby", "ann", "a1", None, NOW)
    assert table._rooms["lobby"]["ann"].infos is None


def test_an_anonymous_connection_is_listed_and_is_no_user() -> None:
    table = PresenceTable()
    came = Change(True, 1, b'{"n":1}', "x1", b'{"n":2}')
    assert table.enter("lobby", None, "x1", {"n": 1}, NOW, {"n": 2}) == came
    assert table.enter("lobby", None, "x1", {"n": 1}, NOW, {"n": 2}) == came._replace(turned=False)
    assert table.connections("lobby") == [PresentConnection("x1", None, {"n": 1}, {"n": 2}, True, "x1")]
    assert (table.count("lobby"), table.members("lobby"), len(table)) == (0, [], 1)
    assert table.exit("lobby", None, "x1") == Change(True, 0, b'{"n":1}', "x1", b'{"n":2}')
    assert table.exit("lobby", None, "x1") == Change(False, 0, b"null", "x1")
    assert len(table) == 0


def test_clear_forgets_all() -> None:
    table = PresenceTable()
    table.enter("lobby", "ann", "a1", None, NOW)
    table.enter("hall", None, "x1", None, NOW)
    table.clear()
    assert len(table) == 0
    assert table.count("lobby") == 0


# Against a model


class PresenceMachine(RuleBasedStateMachine):
    """Connections come, leave, are lost, and their graces end in any order; some a second time."""

    def __init__(self) -> None:
        super().__init__()
        self.table = PresenceTable()
        self.now = NOW
        self.names = 0
        self.live: dict[tuple[str, str], list[str]] = {}
        self.graces: dict[tuple[str, str], list[str]] = {}  # ended or taken over ones too: they exit all the same
        self.holding: dict[tuple[str, str], set[str]] = {}  # of the graces, those that hold their user
        self.since: dict[tuple[str, str], datetime] = {}
        self.first: dict[tuple[str, str], str] = {}
        self.info: dict[tuple[str, str], Any] = {}
        self.said: dict[tuple[str, str], list[str]] = {}

    def present(self, at: tuple[str, str]) -> bool:
        return bool(self.live.get(at) or self.holding.get(at))

    def count(self, room: str) -> int:
        return sum(self.present(at) for at in {*self.live, *self.holding} if at[0] == room)

    def announce(self, at: tuple[str, str], what: str, change: Change, before: bool) -> None:
        after = self.present(at)
        assert change.turned == (before != after)
        assert change.total == self.count(at[0])
        if change.turned:
            self.said.setdefault(at, []).append(what)
            assert change.info == dumps(self.info[at])
            assert change.first == self.first[at], "it leaves under the id with which it came"

    @rule(room=st.sampled_from("xy"), user=st.sampled_from("abc"), info=st.none() | st.integers(0, 9))
    def enter(self, room: str, user: str, info: int | None) -> None:
        at, before = (room, user), self.present((room, user))
        self.names += 1
        name = f"c{self.names}"
        said = None if info is None else {"n": info}
        if not before:
            self.since[at] = self.now
            self.first[at] = name
        self.live.setdefault(at, []).append(name)
        self.holding.pop(at, None)
        self.info[at] = said
        self.announce(at, "joined", self.table.enter(room, user, name, said, self.now), before)

    @precondition(lambda self: any(self.live.values()))
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        at = data.draw(st.sampled_from([at for at, names in self.live.items() if names]))
        name = data.draw(st.sampled_from(self.live[at]))
        self.live[at].remove(name)
        self.graces.setdefault(at, []).append(name)
        self.holding.setdefault(at, set()).add(name)
        self.table.linger(*at, name)

    @precondition(lambda self: any(self.live.values()))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        at = data.draw(st.sampled_from([at for at, names in self.live.items() if names]))
        name = data.draw(st.sampled_from(self.live[at]))
        before = self.present(at)
        self.live[at].remove(name)
        self.announce(at, "left", self.table.exit(*at, name), before)

    @precondition(lambda self: any(self.graces.values()))
    @rule(data=st.data())
    def end_of_a_grace(self, data: st.DataObject) -> None:
        at = data.draw(st.sampled_from([at for at, names in self.graces.items() if names]))
        name = data.draw(st.sampled_from(self.graces[at]))
        before = self.present(at)
        if data.draw(st.booleans()):  # else it ends once more later: exit is idempotent
            self.graces[at].remove(name)
        self.holding.get(at, set()).discard(name)
        self.announce(at, "left", self.table.exit(*at, name), before)

    @rule(seconds=st.integers(1, 100))
    def pass_time(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @invariant()
    def each_is_said_to_come_and_go_in_turn(self) -> None:
        for at, said in self.said.items():
            assert said == ["joined", "left"] * (len(said) // 2) + ["joined"] * (len(said) % 2)
            assert (said[-1] == "joined") == self.present(at)

    @invariant()
    def the_table_is_as_the_model(self) -> None:
        for room in "xy":
            assert self.table.count(room) == self.count(room)
            expected = {
                user: Member(user, self.info[room, user], len(self.live.get((room, user), [])), self.since[room, user])
                for user in "abc"
                if self.present((room, user))
            }
            members = self.table.members(room)
            assert {member.user_id: member for member in members} == expected
            assert len(members) == len(expected)
            assert [self.since[room, member.user_id] for member in members] == sorted(
                self.since[room, member.user_id] for member in members
            )
            assert all(self.table.has(room, user) == self.present((room, user)) for user in "abc")
        assert len(self.table) == sum(bool(self.count(room)) for room in "xy"), "an empty room is kept"

    def teardown(self) -> None:
        for (room, user), names in self.live.items():
            for name in names:
                self.table.exit(room, user, name)
        for (room, user), held in self.holding.items():
            for name in held:
                self.table.exit(room, user, name)
        assert len(self.table) == 0


def test_whoever_comes_and_goes_presence_is_that_of_the_model() -> None:
    run_state_machine_as_test(
        PresenceMachine, settings=settings(max_examples=40, stateful_step_count=30, deadline=None)
    )


@pytest.mark.slow
def test_however_long_they_come_and_go_presence_is_that_of_the_model() -> None:
    run_state_machine_as_test(
        PresenceMachine, settings=settings(max_examples=200, stateful_step_count=60, deadline=None)
    )
