"""The outbox of a slow connection: bounded, in order, and honest about what it dropped."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from hubbub.connections import outbox as module
from hubbub.connections.outbox import DIRECT, Outbox
from hubbub.options import Overflow


class Lane:
    """A room, as far as an outbox sees it."""

    def __init__(self, label: str, overflow: Overflow) -> None:
        self.label = label
        self.overflow = overflow

    def __repr__(self) -> str:
        return f"{self.label} ({self.overflow})"


CLOSE = Lane("close", "close")
OLDEST = Lane("oldest", "drop_oldest")
NEWEST = Lane("newest", "drop_newest")
LATEST = Lane("latest", "latest")
TWINS = (Lane("$user", "drop_oldest"), Lane("$user", "latest"))
DROPPING = (OLDEST, NEWEST, LATEST)


def drained(outbox: Outbox[str]) -> list[Any]:
    """Takes everything, frame by frame."""
    found = []
    while (item := outbox.take(0)) is not None:
        found.append(item)
    return found


def filled(size: int = 100, *frames: tuple[bytes, Any], max_frames: int = 100) -> Outbox[str]:
    outbox: Outbox[str] = Outbox(size, max_frames)
    for data, lane in frames:
        assert outbox.push(data, lane) == "queued"
    return outbox


# Order


def test_an_empty_outbox_gives_nothing() -> None:
    outbox = filled()
    assert not outbox
    assert outbox.take(1000) is None
    assert outbox.dropped_frames == 0


def test_frames_of_all_lanes_leave_in_the_order_they_came() -> None:
    outbox = filled(100, (b"1", CLOSE), (b"2", OLDEST), (b"3", DIRECT), (b"4", LATEST), (b"5", NEWEST))
    assert outbox
    assert outbox.bytes == outbox.frames == 5
    assert outbox.take(1000) == b"12345"
    assert not outbox
    assert outbox.bytes == outbox.frames == 0


def test_frames_are_joined_up_to_a_size_and_never_cut() -> None:
    outbox = filled(100, (b"aaa", CLOSE), (b"bbb", CLOSE), (b"cc", CLOSE))
    assert outbox.take(5) == b"aaa"
    assert outbox.take(5) == b"bbbcc"
    outbox.push(b"x" * 50, CLOSE)
    assert outbox.take(5) == b"x" * 50


def test_a_turn_keeps_its_place_among_the_frames() -> None:
    outbox = filled(100, (b"a", CLOSE), (b"b", CLOSE))
    outbox.push_turn("turn")
    outbox.push(b"c", CLOSE)
    assert outbox.take(1000) == b"ab"
    assert outbox.take(1000) == "turn"
    assert outbox.take(1000) == b"c"


def test_a_turn_keeps_its_place_when_frames_around_it_are_dropped() -> None:
    outbox = filled(4, (b"aa", OLDEST))
    outbox.push_turn("turn")
    outbox.push(b"bb", OLDEST)
    outbox.push(b"cc", OLDEST)
    assert drained(outbox) == ["turn", b"bb", b"cc"]


def test_a_turn_alone_is_something_that_waits() -> None:
    outbox = filled(0)
    outbox.push_turn("turn")
    assert outbox
    assert outbox.frames == outbox.bytes == 0


# Overflow


def test_a_full_outbox_overflows_for_a_lane_that_may_lose_nothing() -> None:
    outbox = filled(4, (b"aa", CLOSE), (b"bb", CLOSE))
    assert outbox.push(b"c", CLOSE) == "overflow"
    assert drained(outbox) == [b"aa", b"bb"]
    assert outbox.dropped_frames == 0


def test_droppable_frames_go_before_a_connection_is_closed() -> None:
    outbox = filled(8, (b"aa", CLOSE), (b"bb", NEWEST), (b"cc", OLDEST), (b"dd", LATEST))
    assert outbox.push(b"ee", CLOSE) == "queued"
    assert outbox.dropped_frames == 1
    assert outbox.push(b"ffff", CLOSE) == "queued"
    assert drained(outbox) == [b"aa", b"ee", b"ffff"]
    assert outbox.dropped_frames == 3


def test_what_came_directly_is_never_dropped_for_a_room() -> None:
    outbox = filled(4, (b"aa", DIRECT), (b"bb", DIRECT))
    for lane in DROPPING:
        assert outbox.push(b"cc", lane) == "dropped"
    assert drained(outbox) == [b"aa", b"bb"]


def test_drop_oldest_loses_its_own_oldest() -> None:
    outbox = filled(6, (b"1a", OLDEST), (b"xx", LATEST), (b"2a", OLDEST))
    assert outbox.push(b"3a", OLDEST) == "queued"
    assert outbox.push(b"4a", OLDEST) == "queued"
    assert drained(outbox) == [b"xx", b"3a", b"4a"]
    assert outbox.dropped_frames == 2


def test_drop_oldest_takes_room_from_other_droppable_lanes_when_it_has_none_itself() -> None:
    outbox = filled(4, (b"xx", NEWEST), (b"aa", CLOSE))
    assert outbox.push(b"bb", OLDEST) == "queued"
    assert drained(outbox) == [b"aa", b"bb"]
    assert outbox.dropped_frames == 1


def test_drop_newest_loses_the_new_one_and_takes_nothing_from_others() -> None:
    outbox = filled(4, (b"aa", OLDEST), (b"bb", NEWEST))
    assert outbox.push(b"cc", NEWEST) == "dropped"
    assert drained(outbox) == [b"aa", b"bb"]
    assert outbox.dropped_frames == 1


def test_latest_keeps_one_for_each_key_full_or_not() -> None:
    outbox = filled(1000)
    for number in range(5):
        for key in ("a", "b", None):
            assert outbox.push(b"%d%b" % (number, (key or "-").encode()), LATEST, key) == "queued"
    assert drained(outbox) == [b"4a", b"4b", b"4-"]
    assert outbox.dropped_frames == 12


def test_latest_of_one_room_does_not_replace_that_of_another() -> None:
    other = Lane("other", "latest")
    outbox = filled(1000, (b"1", LATEST), (b"2", other), (b"3", LATEST))
    assert drained(outbox) == [b"2", b"3"]


def test_a_latest_frame_that_has_left_is_not_replaced() -> None:
    outbox = filled(1000, (b"1", LATEST))
    assert outbox.take(1000) == b"1"
    outbox.push(b"2", LATEST)
    assert drained(outbox) == [b"2"]
    assert outbox.dropped_frames == 0


def test_the_bound_in_count_holds_for_small_frames() -> None:
    outbox: Outbox[str] = Outbox(1000, 3)
    for _ in range(3):
        assert outbox.push(b"", CLOSE) == "queued"
    assert outbox.push(b"", CLOSE) == "overflow"
    assert outbox.push(b"", OLDEST) == "dropped"


def test_a_frame_larger_than_the_bound_is_taken_when_nothing_else_waits() -> None:
    for lane in (CLOSE, *DROPPING):
        outbox = filled(4, (b"x" * 100, lane))
        assert outbox.push(b"y", NEWEST) == "dropped"
        assert outbox.take(4) == b"x" * 100
    outbox = filled(4, (b"a", CLOSE))
    assert outbox.push(b"x" * 100, CLOSE) == "overflow"
    assert outbox.push(b"x" * 100, OLDEST) == "dropped"


def test_what_the_transport_holds_counts_against_the_bound() -> None:
    outbox = filled(10, (b"aa", CLOSE))
    assert outbox.push(b"bb", CLOSE, buffered=7) == "overflow"
    assert outbox.push(b"bb", CLOSE, buffered=6) == "queued"


def test_what_was_dropped_with_nothing_beside_it_is_still_to_be_told() -> None:
    outbox = filled(100)
    assert outbox.push(b"x" * 1000, NEWEST, buffered=26) == "dropped"
    assert not outbox
    assert outbox.take(1000) is None
    assert outbox.dropped_frames == 1


def test_a_frame_larger_than_the_bound_is_taken_while_the_transport_holds_little() -> None:
    for buffered, outcome in ((0, "queued"), (25, "queued"), (26, "overflow")):
        outbox = filled(100)
        assert outbox.push(b"x" * 1000, CLOSE, buffered=buffered) == outcome


# What was dropped


def test_what_was_dropped_is_counted_for_good() -> None:
    outbox = filled(2, (b"aa", OLDEST), (b"bb", OLDEST))
    assert outbox.dropped_frames == 1
    outbox.push(b"cc", OLDEST)
    assert outbox.dropped_frames == 2
    assert drained(outbox) == [b"cc"]
    assert outbox.dropped_frames == 2


def test_clear_drops_everything_uncounted_and_gives_back_the_turns() -> None:
    outbox = filled(4, (b"aa", OLDEST), (b"bb", LATEST))
    outbox.push_turn("one")
    outbox.push(b"cc", OLDEST)
    outbox.push_turn("two")
    assert outbox.clear() == ["one", "two"]
    assert not outbox
    assert outbox.bytes == outbox.frames == 0
    assert outbox.take(100) is None
    assert outbox.dropped_frames == 1, "for the frame that made room before"
    assert outbox.push(b"dddd", LATEST) == "queued"
    assert drained(outbox) == [b"dddd"]


def test_a_busy_dashboard_does_not_fill_the_memory_of_a_client_that_does_not_read() -> None:
    """One message waits, however many came: what was replaced leaves nothing behind."""
    outbox = filled(1000)
    for number in range(20_000):
        outbox.push(b"%d" % number, LATEST)
    assert outbox.frames == 1
    assert len(outbox._entries) < 200
    assert drained(outbox) == [b"19999"]
    assert outbox.dropped_frames == 19999


def test_what_was_replaced_leaves_little_behind_when_the_rest_is_taken() -> None:
    """The module's invariant: what is left of dropped frames does not outnumber the living by much, at any time."""
    outbox = filled(10_000, *[(b"x", CLOSE)] * 500, max_frames=1000)
    for _ in range(1000):
        outbox.push(b"y", LATEST)
    assert outbox.take(500) == b"x" * 500
    assert outbox.frames == 1
    assert len(outbox._entries) - outbox.frames <= outbox.frames + module._SLACK


# Against a model

MAX_BYTES, MAX_FRAMES, SLACK = 60, 8, 3
LANES = st.sampled_from([CLOSE, DIRECT, *DROPPING, *TWINS])
Waiting = list[tuple[Any, bytes | None, str | None]]


class OutboxMachine(RuleBasedStateMachine):
    """Each step is compared with what waited before it. Frames are told apart by the number they begin with."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox: Outbox[str] = Outbox(MAX_BYTES, MAX_FRAMES)
        self.number = 0
        self.dropped_in_all = 0
        self.most_living = 0

    @initialize()
    def begin(self) -> None:
        assert not self.outbox

    def waiting(self) -> Waiting:
        """Lane, data and key of what waits; a turn as lane."""
        return [
            (entry.turn, None, None) if entry.turn is not None else (entry.lane, entry.data, entry.key)
            for entry in self.outbox._entries
            if entry.turn is not None or entry.data is not None
        ]

    @rule(lane=LANES, key=st.sampled_from([None, "a", "b"]), size=st.integers(4, 90), buffered=st.integers(0, 40))
    def push(self, lane: Any, key: str | None, size: int, buffered: int) -> None:
        self._push(lane, key, size, buffered)

    @rule(lane=LANES, key=st.sampled_from([None, "a", "b"]), count=st.integers(1, 20))
    def push_many_small_ones(self, lane: Any, key: str | None, count: int) -> None:
        for _ in range(count):
            self._push(lane, key, 4, 0)

    def _push(self, lane: Any, key: str | None, size: int, buffered: int) -> None:
        self.number += 1
        data = self.number.to_bytes(4, "big").ljust(size, b".")
        before = self.waiting()
        if lane.overflow == "latest":
            stale = [each for each in before if each[0] is lane and each[2] == key]
            assert len(stale) <= 1
        else:
            stale = []
        outcome = self.outbox.push(data, lane, key, buffered=buffered)
        after = self.waiting()

        def fits(items: Waiting) -> bool:
            frames = [item for item in items if item[1] is not None]
            total = sum(len(item[1] or b"") for item in frames)
            if total + size + buffered <= MAX_BYTES and len(frames) < MAX_FRAMES:
                return True
            return not frames and buffered <= MAX_BYTES // 4

        if outcome == "queued":
            assert after[-1] == (lane, data, key), "a new frame waits behind all others"
            after = after[:-1]
            assert fits(after), "over the bound"
        else:
            assert outcome == ("overflow" if lane.overflow == "close" else "dropped")
            assert not fits(after), "it would have fitted"
        lost = [each for each in before if each not in after]
        assert [each for each in before if each not in lost] == after, "the others, turns too, keep their order"
        assert all(each[1] is not None and each[0].overflow != "close" for each in lost), (
            "what may not be lost was lost"
        )
        assert all(each in lost for each in stale), "the newest of a key replaces the one that waits"
        room_made = [each for each in lost if each not in stale]
        if lane.overflow == "drop_newest" or fits([each for each in before if each not in stale]):
            assert not room_made, "dropped without need"
        self._check_who_made_room(lane, before, stale, room_made, after)
        self.dropped_in_all += len(lost)
        if outcome == "dropped":
            self.dropped_in_all += 1

        if outcome == "queued" and room_made:
            last = [
                max((each for each in room_made if each[0] is which), key=before.index)
                for which in {each[0] for each in room_made}
            ]
            kept = [[each for each in before if each in after or each == one] for one in last]
            assert not all(fits(items) for items in kept), "more was dropped than had to be"

    def _check_who_made_room(self, lane: Any, before: Waiting, stale: Waiting, lost: Waiting, after: Waiting) -> None:
        for which in {each[0] for each in lost}:
            own = [each for each in before if each[0] is which and each not in stale]
            gone = [each for each in own if each in lost]
            assert gone == own[: len(gone)], "the oldest of a lane go first"
        if any(each[0] is not lane for each in lost):
            assert not [each for each in after if each[0] is lane and each[0].overflow != "close"], (
                "others before its own"
            )

    @rule()
    def push_turn(self) -> None:
        self.number += 1
        before = self.waiting()
        self.outbox.push_turn(f"turn {self.number}")
        assert self.waiting() == [*before, (f"turn {self.number}", None, None)]

    @rule(max_bytes=st.integers(0, 100))
    def take(self, max_bytes: int) -> None:
        before = self.waiting()
        item = self.outbox.take(max_bytes)
        if not before:
            assert item is None
            return
        if before[0][1] is None:
            assert item == before[0][0]
            assert self.waiting() == before[1:]
            return
        expected = b""
        count = 0
        for _, data, _ in before:
            if data is None or (count and len(expected) + len(data) > max_bytes):
                break
            expected += data
            count += 1
        assert item == expected
        assert self.waiting() == before[count:]

    @rule()
    def clear(self) -> None:
        turns = [each[0] for each in self.waiting() if each[1] is None]
        assert self.outbox.clear() == turns
        assert self.waiting() == []

    @invariant()
    def the_accounts_are_right(self) -> None:
        frames = [each for each in self.waiting() if each[1] is not None]
        assert self.outbox.frames == len(frames)
        assert self.outbox.bytes == sum(len(each[1] or b"") for each in frames)
        assert bool(self.outbox) == bool(self.waiting())
        assert self.outbox.dropped_frames == self.dropped_in_all

    @invariant()
    def the_bounds_hold(self) -> None:
        assert self.outbox.frames <= MAX_FRAMES
        assert self.outbox.bytes <= MAX_BYTES or self.outbox.frames == 1

    @invariant()
    def latest_is_one_for_each_room_and_key(self) -> None:
        latest = [(each[0], each[2]) for each in self.waiting() if each[1] is not None and each[0].overflow == "latest"]
        assert len(set(latest)) == len(latest)

    @invariant()
    def dropped_frames_leave_little_behind(self) -> None:
        living, entries = len(self.waiting()), len(self.outbox._entries)
        self.most_living = max(self.most_living, living) if entries else 0
        assert entries - living <= self.most_living + SLACK

    @invariant()
    def what_may_be_dropped_is_known_exactly(self) -> None:
        loose = {id(entry) for queue in self.outbox._lossy.values() for entry in queue}
        assert loose == {
            id(entry) for entry in self.outbox._entries if entry.data is not None and entry.lane.overflow != "close"
        }
        assert all(self.outbox._lossy.values()), "an empty queue is kept"
        assert set(self.outbox._latest.values()) == {
            entry for entry in self.outbox._entries if entry.data is not None and entry.lane.overflow == "latest"
        }


def test_any_sequence_of_pushes_and_takes_keeps_what_it_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SLACK", SLACK)
    run_state_machine_as_test(OutboxMachine, settings=settings(max_examples=60, stateful_step_count=30, deadline=None))


@pytest.mark.slow
def test_any_long_sequence_of_pushes_and_takes_keeps_what_it_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SLACK", SLACK)
    run_state_machine_as_test(OutboxMachine, settings=settings(max_examples=200, stateful_step_count=60, deadline=None))
