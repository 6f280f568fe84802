"""What a worker reports to Redis of its connections, and what it reports again: by example, and against a server."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import count
from typing import Literal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from hubbub.brokers.redis.ledger import DONE, OVERTAKEN, UNKNOWN, Entry, LeaseAnswer, Ledger, Place, Statement

ANN, TAB, BOB = Place("lobby", "ann", "a1"), Place("lobby", "ann", "a2"), Place("lobby", "bob", "b1")
HALL = Place("hall", "ann", "a1")
ENTRY = Entry(b"null", "2026-01-02T00:00:00+00:00")


def names() -> Callable[[], str]:
    numbers = count(1)
    return lambda: f"worker {next(numbers)}"


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(names())


def enter(ledger: Ledger, *places: Place) -> None:
    for place in places:
        ledger.begin_entering(place)
        assert ledger.answered(ledger.state(), DONE) == "done"
        ledger.end_entering(place, ENTRY)


# Statements


def test_statements_are_numbered_and_say_what_was_confirmed(ledger: Ledger) -> None:
    first, second = ledger.state(), ledger.state()
    assert (first, second) == (Statement("worker 1", 1, 0), Statement("worker 1", 2, 0))
    assert ledger.answered(second, DONE) == "done"
    assert ledger.state() == Statement("worker 1", 3, 2)


def test_an_answer_that_comes_late_takes_no_confirmation_back(ledger: Ledger) -> None:
    first, second = ledger.state(), ledger.state()
    ledger.answered(second, DONE)
    ledger.answered(first, DONE)
    assert ledger.confirmed == 2


def test_a_statement_that_was_overtaken_is_repeated_under_another_number(ledger: Ledger) -> None:
    statement = ledger.state()
    assert ledger.answered(statement, OVERTAKEN) == "repeat"
    assert ledger.state().number > statement.number


@pytest.mark.parametrize(("answer", "verdict"), [(UNKNOWN, "unknown"), (None, "failed")])
def test_what_did_not_arrive_confirms_nothing(ledger: Ledger, answer: int | None, verdict: str) -> None:
    assert ledger.answered(ledger.state(), answer) == verdict
    assert ledger.confirmed == 0


def test_a_worker_is_empty_only_when_no_statement_is_outstanding(ledger: Ledger) -> None:
    assert ledger.is_empty
    statement = ledger.state()
    assert not ledger.is_empty
    ledger.answered(statement, None)
    assert ledger.is_empty
    enter(ledger, ANN)
    assert not ledger.is_empty
    ledger.owe(ANN, ledger.forget(ANN))
    assert not ledger.is_empty


# Connections


def test_a_room_is_left_with_the_last_that_is_there_comes_or_owes_its_exit(ledger: Ledger) -> None:
    assert ledger.is_last("lobby")
    ledger.begin_entering(ANN)
    assert not ledger.is_last("lobby")
    ledger.end_entering(ANN, ENTRY)
    assert not ledger.is_last("lobby")
    assert ledger.is_last("hall")
    ledger.owe(ANN, ledger.forget(ANN))
    assert not ledger.is_last("lobby")
    assert ledger.settle(ANN) == ENTRY
    assert ledger.is_last("lobby")


def test_a_user_that_comes_again_ends_its_own_graces_in_that_room(ledger: Ledger) -> None:
    enter(ledger, ANN, BOB, HALL)
    for place in (ANN, BOB, HALL):
        ledger.linger(place, 10.0)
    enter(ledger, TAB)
    assert sorted(ledger.places("lobby")) == [TAB, BOB]
    assert ledger.has(HALL)


def test_a_user_has_the_first_connection_that_redis_names_until_its_last_one_leaves(ledger: Ledger) -> None:
    ann = Place("lobby", "ann", "a2")
    ledger.begin_entering(ann)
    ledger.note_first(ann, "a1")
    ledger.end_entering(ann, Entry(b"null", ""))
    assert ledger.first(ann) == ledger.first(ann._replace(connection_id="a3")) == "a1"
    assert ledger.first(ann._replace(room="hall")) == "a2"
    ledger.note_first(ann, "a2")
    assert ledger.first(ann) == "a2"
    ledger.note_first(ann, "a1")
    ledger.forget(ann)
    assert ledger.first(ann) == "a2"
    ledger.note_first(ann, "a1")
    assert ledger.first(ann) == "a2", "it was reported again, and has left meanwhile"


def test_anonymous_connections_do_not_end_each_other(ledger: Ledger) -> None:
    one, other = Place("lobby", None, "x1"), Place("lobby", None, "x2")
    enter(ledger, one)
    ledger.linger(one, 0.0)  # it is about to leave
    enter(ledger, other)
    assert ledger.places() == [one, other]


def test_a_connection_that_could_not_enter_is_not_reported(ledger: Ledger) -> None:
    enter(ledger, ANN)
    ledger.linger(ANN, 10.0)
    ledger.begin_entering(TAB)
    ledger.end_entering(TAB, None)
    assert ledger.places() == [ANN]
    ledger.forget(ANN)
    assert ledger.is_last("lobby")


def test_a_connection_that_is_not_there_does_not_linger(ledger: Ledger) -> None:
    ledger.linger(ANN, 10.0)
    assert ledger.is_empty


def test_the_longest_grace_counts(ledger: Ledger) -> None:
    enter(ledger, ANN, BOB, HALL)
    assert ledger.longest_grace_s(1.0) == 0.0
    ledger.linger(ANN, 4.0)
    ledger.linger(BOB, 6.0)
    assert ledger.longest_grace_s(1.0) == 5.0


# Exits that are owed


def test_an_exit_that_is_owed_is_settled_by_the_connection_that_comes_back(ledger: Ledger) -> None:
    ledger.owe(ANN, ENTRY)
    ledger.owe(BOB, None)
    assert ledger.debts() == [ANN, BOB]
    ledger.begin_entering(ANN)
    assert ledger.debts() == [BOB]
    assert not ledger.is_owed(ANN)
    assert ledger.settle(BOB) is None
    assert not ledger.owes


# Reporting again


def test_a_lease_that_was_kept_changes_nothing(ledger: Ledger) -> None:
    assert not ledger.lease_answered("kept")
    assert (ledger.worker, ledger.unsaid, ledger.former) == ("worker 1", None, set())


def test_after_a_loss_all_is_reported_in_silence_under_a_new_name_and_the_former_one_is_cleared(
    ledger: Ledger,
) -> None:
    enter(ledger, ANN, BOB)
    ledger.linger(BOB, 10.0)
    assert ledger.lease_answered("lost")
    assert (ledger.worker, ledger.unsaid, ledger.former) == ("worker 2", "silently", {"worker 1"})
    assert ledger.begin_again(1.0) == [ANN, BOB]
    assert ledger.again(ANN, "silently") == (ENTRY, "here")
    assert ledger.again(BOB, "silently") == (ENTRY._replace(lingers_until=10.0), "lingers")
    ledger.end_again()
    assert ledger.unsaid is None


def test_a_loss_within_a_loss_leaves_two_names_to_clear(ledger: Ledger) -> None:
    ledger.lease_answered("lost")
    ledger.lease_answered("lost")
    assert (ledger.worker, ledger.former) == ("worker 3", {"worker 1", "worker 2"})


def test_after_a_claim_only_live_connections_are_reported_and_aloud(ledger: Ledger) -> None:
    enter(ledger, ANN, BOB)
    ledger.linger(BOB, 10.0)
    assert ledger.lease_answered("claimed")
    assert (ledger.worker, ledger.unsaid, ledger.former) == ("worker 2", "aloud", set())
    assert ledger.again(ANN, "aloud") == (ENTRY, "here")
    assert ledger.again(BOB, "aloud") is None
    assert not ledger.has(BOB), "the rooms heard that it left"


@pytest.mark.parametrize(("answers", "manner"), [(("lost", "claimed"), "aloud"), (("claimed", "lost"), "aloud")])
def test_what_was_heard_to_leave_is_announced_again_whatever_is_lost_besides(
    ledger: Ledger, answers: tuple[LeaseAnswer, ...], manner: str
) -> None:
    for answer in answers:
        ledger.lease_answered(answer)
    assert ledger.unsaid == manner


def test_a_connection_that_has_left_meanwhile_is_not_reported_again(ledger: Ledger) -> None:
    enter(ledger, ANN)
    ledger.lease_answered("lost")
    (place,) = ledger.begin_again(1.0)
    ledger.forget(ANN)
    assert ledger.again(place, "silently") is None


def test_a_connection_that_owes_its_exit_is_reported_again_so_that_it_can_be_heard_to_leave(ledger: Ledger) -> None:
    ledger.owe(ANN, ENTRY)
    ledger.owe(BOB, None)  # of which Redis was told nothing, perhaps
    ledger.lease_answered("lost")
    assert ledger.begin_again(1.0) == [ANN]
    assert ledger.again(ANN, "silently") == (ENTRY._replace(lingers_until=1.0), "lingers")
    assert ledger.is_owed(ANN)


def test_after_a_claim_a_connection_that_owes_its_exit_is_not_reported_again(ledger: Ledger) -> None:
    ledger.owe(ANN, ENTRY)
    ledger.lease_answered("claimed")
    assert ledger.begin_again(1.0) == []


# Witnesses


def test_the_connection_that_is_reported_longest_is_the_witness_unless_it_lingers(ledger: Ledger) -> None:
    enter(ledger, ANN, TAB, BOB)
    assert ledger.witnesses(10) == [ANN]
    ledger.linger(ANN, 10.0)
    assert ledger.witnesses(10) == [TAB]
    ledger.linger(TAB, 10.0)
    ledger.linger(BOB, 10.0)
    assert ledger.witnesses(10) == []


def test_anonymous_connections_have_a_witness_of_their_own(ledger: Ledger) -> None:
    anonymous = [Place("lobby", None, each) for each in ("x1", "x2")]
    enter(ledger, *anonymous, ANN, TAB)
    assert ledger.witnesses(1) == [ANN, anonymous[0]]
    ledger.forget(anonymous[0])
    assert ledger.witnesses(1) == [ANN, anonymous[1]]


def test_every_room_has_its_turn(ledger: Ledger) -> None:
    rooms = [ANN._replace(room=f"room {number}") for number in range(5)]
    enter(ledger, *rooms)
    turns = [ledger.witnesses(2) for _ in range(3)]
    assert [len(turn) for turn in turns] == [2, 2, 1]
    assert sorted(place for turn in turns for place in turn) == rooms
    assert len(ledger.witnesses(2)) == 2, "and then it begins again"


# Against a server


@dataclass
class Kept:
    """What the server keeps: the last number of each worker, and the worker and state of each connection."""

    numbers: dict[str, int] = field(default_factory=dict)
    places: dict[Place, tuple[str, str]] = field(default_factory=dict)


class Server:
    """What the scripts do, as far as the ledger sees it."""

    def __init__(self) -> None:
        self.kept = Kept()

    def take(self, statement: Statement, kind: str, place: Place) -> int:
        worker, number, confirmed = statement
        last = self.kept.numbers.get(worker, -1)
        if last < confirmed:
            return UNKNOWN
        known = self.kept.places.get(place)
        if last >= number:
            so = known is None if kind == "exit" else known is not None and known[0] == worker
            return DONE if so else OVERTAKEN
        self.kept.numbers[worker] = number
        if kind == "exit":
            self.kept.places.pop(place, None)
        else:
            self.kept.places[place] = worker, "lingers" if kind == "lingers" else "here"
        return DONE

    def lease(self, worker: str, number: int, *, new: bool = False) -> LeaseAnswer:
        if new:
            self.kept.numbers[worker] = number
        elif self.kept.numbers.get(worker, -1) < number:
            self.kept.numbers.pop(worker, None)
            return "lost"
        return "kept"

    def clear(self, worker: str) -> None:
        self.kept.places = {place: said for place, said in self.kept.places.items() if said[0] != worker}
        self.kept.numbers.pop(worker, None)


@dataclass
class Call:
    """Something that is being said of a connection: at most one at a time for each."""

    kind: Literal["comes", "exit"]
    place: Place
    entry: Entry | None
    statement: Statement
    answer: int | None = None


class LedgerMachine(RuleBasedStateMachine):
    """Connections come and go, what is said arrives in any order, twice, or late, and the server loses what is newest.

    However that goes: once all is answered, the server has what the ledger has.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(names())
        self.server = Server()
        self.server.lease(self.ledger.worker, 0, new=True)
        self.backup = Kept()
        self.calls: dict[Place, Call] = {}
        self.late: list[tuple[Statement, str, Place]] = []

    @rule(
        room=st.sampled_from("xy"),
        user=st.sampled_from(["ann", "anonymous"]),
        tab=st.integers(0, 2),
        at_once=st.booleans(),
    )
    def begin(self, room: str, user: str, tab: int, at_once: bool) -> None:
        place = Place(room, None if user == "anonymous" else user, f"{user}{tab}")
        if place in self.calls:
            return
        if self.ledger.has(place):
            entry = self.ledger.forget(place)
            self.calls[place] = Call("exit", place, entry, self.ledger.state())
        else:
            self.ledger.begin_entering(place)
            self.calls[place] = Call("comes", place, ENTRY, self.ledger.state())
        if at_once:
            call = self.calls[place]
            call.answer = self.server.take(call.statement, call.kind, call.place)
            self._answer(call)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), twice=st.booleans())
    def arrive(self, data: st.DataObject, twice: bool) -> None:
        call = data.draw(st.sampled_from(list(self.calls.values())))
        for _ in range(1 + twice):
            call.answer = self.server.take(call.statement, call.kind, call.place)
        self.late.append((call.statement, call.kind, call.place))

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def arrive_late(self, data: st.DataObject) -> None:
        """Over a connection that was given up. Nobody reads the answer."""
        statement, kind, place = data.draw(st.sampled_from(self.late))
        if place not in self.calls:
            self.server.take(statement, kind, place)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(list(self.calls.values())))
        if call.answer is not None:
            self._answer(call)

    def _answer(self, call: Call) -> None:
        verdict = self.ledger.answered(call.statement, call.answer)
        if verdict == "done":
            del self.calls[call.place]
            if call.kind == "comes":
                self.ledger.end_entering(call.place, call.entry)
            return
        if verdict == "unknown":
            if call.kind == "exit" and call.entry is not None:
                self.ledger.restore(call.place, call.entry, 0.0)
            self._recover()
            self.ledger.forget(call.place)
        call.answer, call.statement = None, self.ledger.state()

    def _recover(self) -> None:
        ledger = self.ledger
        if ledger.lease_answered(self.server.lease(ledger.worker, ledger.confirmed)):
            self.server.lease(ledger.worker, ledger.newest, new=True)
        if ledger.unsaid is None:
            return
        for place in ledger.begin_again(0.0):
            again = ledger.again(place, "silently")
            assert again is not None
            statement = ledger.state()
            assert ledger.answered(statement, self.server.take(statement, again[1], place)) == "done"
        for former in tuple(ledger.former):
            self.server.clear(former)
            ledger.former.discard(former)
        ledger.end_again()

    @rule()
    def back_up(self) -> None:
        self.backup = deepcopy(self.server.kept)

    @rule()
    def lose(self) -> None:
        """The server goes back to its backup. The worker connects anew, so answers are lost, and asks for its lease."""
        self.server.kept = deepcopy(self.backup)
        for call in self.calls.values():
            call.answer = None
        self._recover()
        self.back_up()

    @invariant()
    def what_is_confirmed_is_known_or_will_be_asked_for(self) -> None:
        assert self.ledger.confirmed <= self.ledger.newest

    def teardown(self) -> None:
        while self.calls:
            for call in tuple(self.calls.values()):
                call.answer = self.server.take(call.statement, call.kind, call.place)
                self._answer(call)
        assert set(self.server.kept.places) == set(self.ledger.places())
        assert {worker for worker, _ in self.server.kept.places.values()} <= {self.ledger.worker}
        assert self.ledger.is_empty == (not self.server.kept.places)


def test_whatever_is_lost_late_or_said_twice_the_server_has_what_the_worker_has() -> None:
    run_state_machine_as_test(LedgerMachine, settings=settings(max_examples=80, stateful_step_count=30, deadline=None))
