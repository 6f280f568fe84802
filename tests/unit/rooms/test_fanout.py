"""The fan-out: one write per member, room and pass of the event loop, and nothing that overtakes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub import RoomOptions
from hubbub.codec import Kind, Payload
from hubbub.connections.outbox import Lane
from hubbub.envelope import Envelope
from hubbub.options import Overflow
from hubbub.positions import Position
from hubbub.protocols import RawProtocol, RoomInfo
from hubbub.rooms import fanout as fanout_module
from hubbub.rooms.audience import Outgoing
from hubbub.rooms.fanout import FLUSH_BYTES, Fanout
from hubbub.rooms.room import Room
from tests.unit.support import FakeLoop, fake_loop


class Plain(RawProtocol):
    """Frames that are the messages themselves, between brackets where it has any."""

    def __init__(self, left: bytes = b"", right: bytes = b"") -> None:
        super().__init__(app_ping=False, client_frames=False)
        self.left, self.right = left, right
        self.framed = 0

    def publication(self, room: RoomInfo, message: Envelope) -> bytes:
        self.framed += 1
        return self.left + message.payload.data + self.right


PLAIN, BRACKETS = Plain(), Plain(b"[", b"]")


class Member:
    """A connection that notes what is written to it; one that is slow takes nothing at once."""

    def __init__(self, name: str, *, slow: bool = False, protocol: Plain = PLAIN) -> None:
        self.id = name
        self.protocol = protocol
        self.user_id: str | None = None
        self.slow = slow
        self.written: list[bytes] = []
        self.queued: list[tuple[bytes, Lane, str | None]] = []
        self.waits = 0
        self._seen = 0, 0.0
        self.on_write: Callable[[], None] = lambda: None
        self.writer = self.transport = self

    @property
    def waiting_bytes(self) -> int:
        return self.waits + sum(len(data) for data, _, _ in self.queued)

    @property
    def congested(self) -> bool:
        return self.waiting_bytes > 0

    def stalled_for(self, now: float) -> float:
        if self.waits != self._seen[0]:  # what is queued on top is no movement
            self._seen = self.waits, now
        return now - self._seen[1]

    def write(self, data: bytes, lane: Lane | None = None, key: str | None = None) -> bool:
        """As a transport without a lane, as a writer with one."""
        if lane is None or not self.slow:
            self.on_write()
        if not self.slow:
            self.written.append(data)
        elif lane is not None:
            self.queued.append((data, lane, key))
        return not self.slow or lane is not None

    @property
    def got(self) -> bytes:
        return b"".join(self.written)


@pytest.fixture
def loop() -> FakeLoop:
    return fake_loop()


@pytest.fixture
def fanout(loop: FakeLoop) -> Fanout:
    return started(loop)


def started(loop: FakeLoop, flush_interval_s: float = 0.0) -> Fanout:
    fanout = Fanout(flush_interval_s)
    fanout.start(loop)
    return fanout


def room_of(*members: Member, overflow: Overflow = "close") -> Room:
    room = Room("lobby", RoomOptions(overflow=overflow))
    for member in members:
        room.add(member)
    return room


def out(data: bytes, *exclude: str, key: str | None = None, numbered: bool = False) -> Outgoing:
    position = Position("epoch", 1) if numbered else None  # with which whoever is excluded gets an exclamation mark
    return Outgoing(room_of(), Envelope(Payload(Kind.BINARY, data), frozenset(exclude), key, position))


# One write


def test_what_is_published_in_one_pass_is_one_write_of_the_same_bytes(loop: FakeLoop, fanout: Fanout) -> None:
    ann, bob = Member("ann"), Member("bob")
    room = room_of(ann, bob)
    for data in (b"1", b"2", b"3"):
        fanout.add(room, out(data))
    assert ann.written == []
    loop.turn()
    assert ann.written == bob.written == [b"123"]
    assert ann.written[0] is bob.written[0]
    loop.turn()
    assert ann.written == [b"123"]


def test_the_next_pass_is_another_write(loop: FakeLoop, fanout: Fanout) -> None:
    ann = Member("ann")
    room = room_of(ann)
    for data in (b"1", b"2"):
        fanout.add(room, out(data))
        loop.turn()
    assert ann.written == [b"1", b"2"]


def test_each_room_is_a_write_of_its_own(loop: FakeLoop, fanout: Fanout) -> None:
    ann, bob = Member("ann"), Member("bob")
    both, one = room_of(ann, bob), room_of(bob)
    fanout.add(both, out(b"1"))
    fanout.add(one, out(b"2"))
    fanout.add(both, out(b"3"))
    loop.turn()
    assert ann.written == [b"13"]
    assert bob.written == [b"13", b"2"]


def test_an_interval_gathers_more(loop: FakeLoop) -> None:
    fanout = started(loop, 0.05)
    ann = Member("ann")
    room = room_of(ann)
    fanout.add(room, out(b"1"))
    loop.turn()
    loop.advance(0.04)
    fanout.add(room, out(b"2"))
    assert ann.written == []
    loop.advance(0.01)
    assert ann.written == [b"12"]
    fanout.add(room, out(b"3"))
    loop.advance(0.05)
    assert ann.written == [b"12", b"3"]


# Order


def test_one_member_is_given_what_is_pending_at_once_and_only_once(loop: FakeLoop, fanout: Fanout) -> None:
    ann, bob = Member("ann"), Member("bob")
    room, other = room_of(ann, bob), room_of(ann)
    fanout.add(room, out(b"1"))
    fanout.add(other, out(b"2"))
    fanout.flush(ann, [room])
    assert (ann.written, bob.written) == ([b"1"], [])
    fanout.flush(ann, [room])
    fanout.add(room, out(b"3"))
    loop.turn()
    assert (ann.written, bob.written) == ([b"1", b"3", b"2"], [b"13"])


def test_a_flush_to_many_lets_the_loop_turn_between_slices(loop: FakeLoop, fanout: Fanout) -> None:
    """And in between: who leaves has got it, who joins does not get it, and what is published waits."""
    members = [Member(str(number)) for number in range(10 * fanout_module._STRIDE)]
    for member in members:
        member.on_write = lambda: loop.advance(1.01 * fanout_module.SLICE_S / fanout_module._STRIDE)
    room, small = room_of(*members), room_of(ann := Member("ann"))
    fanout.add(room, out(b"1"))
    fanout.add(small, out(b"s"))
    turns = 0
    late, gone, direct = Member("late"), members[-1], members[-2]
    while not all(member.got for member in members):
        loop.turn()
        turns += 1
        served = [member for member in members if member.got]
        if turns == 1:
            assert len(served) == fanout_module._STRIDE
            fanout.add(room, out(b"2"))
            room.add(late)
            fanout.flush(direct, [room])
            fanout.flush_room(room, gone)
            room.remove(gone)
            assert direct.written == gone.written == [b"1", b"2"]
        elif turns == 2:
            assert ann.got == b"s"  # a small room does not wait for the end of a large one
    assert turns >= 9
    fanout.add(room, out(b"3"))
    for _ in range(20):
        loop.turn()
    assert {member.got for member in members[:-2]} == {b"123"}
    assert (direct.got, gone.got, late.got) == (b"123", b"12", b"3")


def test_a_flush_of_many_rooms_lets_the_loop_turn_too(loop: FakeLoop, fanout: Fanout) -> None:
    members = [Member(str(number)) for number in range(10)]
    for member in members:
        member.on_write = lambda: loop.advance(fanout_module.SLICE_S)
        fanout.add(room_of(member), out(b"1"))
    for turn in range(1, 11):
        loop.turn()
        assert sum(bool(member.got) for member in members) == turn


def in_flight(loop: FakeLoop, fanout: Fanout) -> tuple[Room, list[Member]]:
    """A room of which the first `_STRIDE` members have got a message, and as many have not."""
    members = [Member(str(number)) for number in range(2 * fanout_module._STRIDE)]
    members[0].on_write = lambda: loop.advance(fanout_module.SLICE_S)
    room = room_of(*members)
    fanout.add(room, out(b"1"))
    loop.turn()
    assert [member.got for member in members] == [b"1"] * fanout_module._STRIDE + [b""] * fanout_module._STRIDE
    return room, members


def test_one_member_is_given_what_is_in_flight_at_once_and_only_once(loop: FakeLoop, fanout: Fanout) -> None:
    room, members = in_flight(loop, fanout)
    for _ in range(2):
        for member in (members[0], members[-1]):
            fanout.flush(member, [room])
            assert member.got == b"1"
    assert members[-2].got == b""
    loop.turn()
    assert {member.got for member in members} == {b"1"}


def test_a_room_that_becomes_small_within_a_flight_keeps_its_order(loop: FakeLoop, fanout: Fanout) -> None:
    room, members = in_flight(loop, fanout)
    for member in members[: fanout_module._STRIDE]:
        room.remove(member)
    fanout.add(room, out(b"2"))
    for _ in range(2):
        loop.turn()
    assert {member.got for member in members[fanout_module._STRIDE :]} == {b"12"}


def test_who_comes_back_within_a_flight_gets_nothing_twice(loop: FakeLoop, fanout: Fanout) -> None:
    room, members = in_flight(loop, fanout)
    for member in (members[-1], members[0]):
        fanout.flush_room(room, member)
        room.remove(member)
        room.add(member)
    fanout.add(room, out(b"2"))
    for _ in range(3):
        loop.turn()
    assert {member.got for member in members} == {b"12"}


def test_who_joins_while_something_is_pending_gets_what_comes_after(loop: FakeLoop, fanout: Fanout) -> None:
    ann, bob, cid = Member("ann"), Member("bob"), Member("cid")
    room = room_of(ann)
    fanout.add(room, out(b"1"))
    room.add(bob)
    fanout.add(room, out(b"2"))
    room.add(cid)
    fanout.add(room, out(b"3"))
    assert room.size == 3
    loop.turn()
    fanout.add(room, out(b"4"))
    loop.turn()
    assert (ann.got, bob.got, cid.got) == (b"1234", b"234", b"34")
    assert room.members.keys() == {"ann", "bob", "cid"}


def test_who_leaves_while_something_is_pending_gets_what_came_before(loop: FakeLoop, fanout: Fanout) -> None:
    ann, bob = Member("ann"), Member("bob")
    room = room_of(ann)
    fanout.add(room, out(b"1"))
    room.add(bob)
    for member in (ann, bob):
        fanout.flush_room(room, member)
        room.remove(member)
    fanout.add(room, out(b"2"))
    loop.turn()
    assert (ann.got, bob.got) == (b"1", b"")


def test_members_may_go_while_they_are_written_to(loop: FakeLoop, fanout: Fanout) -> None:
    """A write may find that the peer is gone, which gives it what is pending and takes it out of its rooms."""
    ann, bob, cid = Member("ann"), Member("bob"), Member("cid")
    room, other = room_of(ann, bob, cid), room_of(ann, bob)

    def go() -> None:
        for each in (room, other):
            fanout.flush_room(each, ann)
            each.remove(ann)

    ann.on_write = go
    for each in (room, other):
        fanout.add(each, out(b"1"))
    loop.turn()
    assert (ann.got, bob.got, cid.got) == (b"11", b"11", b"1")
    fanout.add(room, out(b"2"))
    loop.turn()
    assert (bob.got, cid.got) == (b"112", b"12")


def test_what_is_published_while_members_are_written_to_comes_after(loop: FakeLoop, fanout: Fanout) -> None:
    ann, bob = Member("ann"), Member("bob")
    room, replies = room_of(ann, bob), [b"2"]
    ann.on_write = lambda: fanout.add(room, out(replies.pop())) if replies else None
    fanout.add(room, out(b"1"))
    for _ in range(2):
        loop.turn()
    assert (ann.written, bob.written) == ([b"1", b"2"], [b"1", b"2"])


def test_stop_writes_what_is_pending(loop: FakeLoop, fanout: Fanout) -> None:
    ann = Member("ann")
    room = room_of(ann)
    fanout.add(room, out(b"1"))
    fanout.stop()
    assert ann.written == [b"1"]
    loop.turn()
    assert ann.written == [b"1"]


# Whom, and how


def test_who_is_excluded_gets_what_is_for_the_excluded(loop: FakeLoop, fanout: Fanout) -> None:
    ann, bob = Member("ann"), Member("bob")
    room = room_of(ann, bob)
    fanout.add(room, out(b"1"))
    fanout.add(room, out(b"2", "ann", "elsewhere"))
    fanout.add(room, out(b"3", "bob", numbered=True))
    loop.turn()
    assert (ann.got, bob.got) == (b"13", b"12")
    fanout.add(room, out(b"4", "ann"))
    loop.turn()
    assert (ann.got, bob.got) == (b"13", b"124")


def test_all_members_of_an_excluded_user_are_excluded(loop: FakeLoop, fanout: Fanout) -> None:
    ann, second, bob, _ = members = [Member(name) for name in ("ann", "second", "bob", "nobody")]
    ann.user_id = second.user_id = "ann"
    bob.user_id = "bob"
    room = room_of(*members)
    for data in (b"1", b"2"):  # alone, and among others
        fanout.add(room, out(data, "$user:ann", "$user:elsewhere"))
        loop.turn()
        fanout.add(room, out(b"-"))
    loop.turn()
    room.remove(bob)
    late = Member("late")
    late.user_id = "ann"
    room.add(late)
    fanout.add(room, out(b"3", "$user:ann", "$user:bob"))
    loop.turn()
    assert [each.got for each in (*members, late)] == [b"--", b"--", b"1-2-", b"1-2-3", b""]


def test_where_nothing_may_be_lost_all_slow_members_hold_the_same_batch(loop: FakeLoop, fanout: Fanout) -> None:
    ann, bob, cid = Member("ann", slow=True), Member("bob"), Member("cid", slow=True)
    room = room_of(ann, bob, cid)
    fanout.add(room, out(b"1"))
    fanout.add(room, out(b"2"))
    loop.turn()
    assert ann.queued == [(b"12", room, None)]
    assert bob.written == [b"12"]
    assert ann.queued[0][0] is cid.queued[0][0] is bob.written[0]


@pytest.mark.parametrize("overflow", ["close", "drop_oldest", "drop_newest", "latest"])
def test_one_message_alone_is_queued_for_who_is_slow(loop: FakeLoop, fanout: Fanout, overflow: Overflow) -> None:
    ann, bob, cid = Member("ann"), Member("bob", slow=True), Member("cid")
    room = room_of(ann, bob, cid, overflow=overflow)
    fanout.add(room, out(b"1", key="a"))
    loop.turn()
    assert bob.queued == [(b"1", room, None if overflow == "close" else "a")]
    assert (ann.written, cid.written) == ([b"1"], [b"1"])


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "latest"])
def test_where_some_may_be_lost_a_slow_member_is_queued_message_by_message(
    loop: FakeLoop, fanout: Fanout, overflow: Overflow
) -> None:
    """What is dropped, is dropped and counted as a message, and replaced by its key."""
    ann, bob = Member("ann", slow=True), Member("bob")
    room = room_of(ann, bob, overflow=overflow)
    fanout.add(room, out(b"1", key="a"))
    fanout.add(room, out(b"2", key="b"))
    loop.turn()
    assert ann.queued == [(b"1", room, "a"), (b"2", room, "b")]
    assert bob.written == [b"12"]


def test_the_excluded_do_not_change_how_a_slow_member_is_queued(loop: FakeLoop, fanout: Fanout) -> None:
    ann = Member("ann", slow=True)
    room = room_of(ann, overflow="latest")
    fanout.add(room, out(b"1", "ann", key="a", numbered=True))
    fanout.add(room, out(b"2", key="b"))
    loop.turn()
    assert ann.queued == [(b"2", room, "b")]


Action = tuple[str, int]


@settings(max_examples=100, deadline=None)
@given(
    st.booleans(),
    st.lists(
        st.tuples(st.sampled_from(["publish", "exclude", "join", "leave", "slow", "give", "turn"]), st.integers(0, 3)),
        max_size=40,
    ),
)
def test_each_gets_what_was_published_while_it_was_a_member(sliced: bool, actions: list[Action]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if sliced:
            patch.setattr(fanout_module, "_STRIDE", 1)
            patch.setattr(fanout_module, "SLICE_S", 0.0)
        _check_deliveries(actions)


def _check_deliveries(actions: list[Action]) -> None:
    loop = fake_loop()
    fanout = started(loop)
    room = room_of()
    members = [Member(str(number), protocol=BRACKETS if number % 2 else PLAIN) for number in range(4)]
    due: list[list[bytes]] = [[] for _ in members]
    inside: set[int] = set()
    number = 0
    for what, which in actions:
        member = members[which]
        if what in {"publish", "exclude"}:
            number += 1
            data = b"%03d " % number
            if inside:  # as memberships do
                fanout.add(room, out(data, *([member.id] if what == "exclude" else [])))
            for each in inside:
                if what == "publish" or each != which:
                    protocol = members[each].protocol
                    due[each].append(protocol.left + data + protocol.right)
        elif what == "join" and which not in inside:
            inside.add(which)
            room.add(member)
        elif what == "leave":
            fanout.flush_room(room, member)
            inside.discard(which)
            room.remove(member)
        elif what == "slow":
            member.slow = True  # for good: what is queued comes after what was written
        elif what == "give":
            fanout.flush(member, [room])
        elif what == "turn":
            loop.turn()
        assert room.size == len(inside)
    for _ in range(100):
        loop.turn()
    for member, expected in zip(members, due, strict=True):
        assert member.got + b"".join(data for data, _, _ in member.queued) == b"".join(expected)


# Several protocols in one room


def mixed(count: int, **options: Any) -> list[Member]:
    return [Member(str(number), protocol=BRACKETS if number % 2 else PLAIN, **options) for number in range(count)]


@pytest.mark.parametrize("count", [4, 100], ids=["a small room", "a large room"])
@pytest.mark.parametrize("messages", [1, 3])
def test_a_message_is_framed_once_for_each_protocol_that_has_members(
    count: int, messages: int, loop: FakeLoop, fanout: Fanout
) -> None:
    room = room_of(*(members := mixed(count)))
    before = PLAIN.framed, BRACKETS.framed
    for number in range(messages):
        fanout.add(room, out(b"%d" % number))
    loop.turn()
    for member in members:
        protocol = member.protocol
        assert member.written == [b"".join(protocol.left + b"%d" % n + protocol.right for n in range(messages))]
        assert member.written[0] is members[int(member.id) % 2].written[0]
    assert (PLAIN.framed - before[0], BRACKETS.framed - before[1]) == (messages, messages)


def test_a_protocol_without_members_frames_nothing(loop: FakeLoop, fanout: Fanout) -> None:
    before = BRACKETS.framed
    room = room_of(*(Member(str(number)) for number in range(40)))
    fanout.add(room, out(b"1"))
    loop.turn()
    assert BRACKETS.framed == before


def test_a_flight_to_several_protocols_is_cut_into_slices(
    loop: FakeLoop, fanout: Fanout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout_module, "_STRIDE", 1)
    monkeypatch.setattr(fanout_module, "SLICE_S", 0.0)
    room = room_of(*(members := mixed(6)))
    for data in (b"1", b"2"):
        fanout.add(room, out(data))
    for turn in range(1, 7):
        loop.turn()
        assert sum(bool(member.written) for member in members) == turn
    assert not fanout.busy
    assert [member.got for member in members] == [b"12", b"[1][2]"] * 3


@pytest.mark.parametrize("overflow", ["close", "drop_oldest"])
def test_slow_members_are_queued_in_their_own_protocol(overflow: Overflow, loop: FakeLoop, fanout: Fanout) -> None:
    room = room_of(*(members := mixed(40, slow=True)), overflow=overflow)
    for data in (b"1", b"2"):
        fanout.add(room, out(data))
    loop.turn()
    for member in members:
        joined = b"".join(data for data, _, _ in member.queued)
        assert joined == (b"[1][2]" if member.protocol is BRACKETS else b"12")
        assert len(member.queued) == (1 if overflow == "close" else 2)


def test_a_protocol_that_has_no_word_for_something_writes_nothing(
    loop: FakeLoop, fanout: Fanout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plain, "publication", lambda *_: None)
    for count in (4, 100):
        room = room_of(*(members := mixed(count)))
        fanout.add(room, out(b"1"))
        loop.turn()
        assert [member.written for member in members] == [[] for _ in members]
        assert not fanout.busy


# Pace


class Hasty(asyncio.SelectorEventLoop):
    """An event loop that does not wait: its clock is put forward instead."""

    def __init__(self) -> None:
        super().__init__()
        self._put_forward = 0.0
        selector: Any = self._selector  # type: ignore[attr-defined]
        select = selector.select

        def skip(timeout: float | None) -> Any:
            self._put_forward += timeout or 0.0
            return select(0)

        selector.select = skip

    def time(self) -> float:
        return super().time() + self._put_forward


async def paced(fanout: Fanout, room: Room, size: int) -> float:
    """How long a publisher of so many bytes is held."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    fanout.add(room, out(bytes(size)))
    if fanout.crowded:
        await fanout.pace(room)
    return loop.time() - began


def run(main: Callable[[Fanout], Any]) -> None:
    async def with_fanout() -> None:
        fanout = Fanout()
        fanout.start(asyncio.get_running_loop())
        await main(fanout)

    with asyncio.Runner(loop_factory=Hasty) as runner:
        runner.run(with_fanout())


def test_who_publishes_little_is_not_held_at_all() -> None:
    async def main(fanout: Fanout) -> None:
        room = room_of(Member("ann"))
        fanout.add(room, out(b"1"))
        assert not fanout.crowded  # so that nobody even asks for a pause

    run(main)


def test_who_publishes_much_flushes_and_lets_the_loop_turn() -> None:
    async def main(fanout: Fanout) -> None:
        ann = Member("ann")
        turned: list[bool] = []
        asyncio.get_running_loop().call_soon(turned.append, True)
        held = await paced(fanout, room_of(ann), FLUSH_BYTES)
        assert turned
        assert len(ann.got) == FLUSH_BYTES
        assert held < 0.1

    run(main)


def test_several_who_publish_much_do_not_wait_for_the_interval_nor_for_each_other() -> None:
    """Each hurries what is pending; none takes back what another has hurried."""

    async def main() -> None:
        fanout = Fanout(flush_interval_s=60.0)
        fanout.start(asyncio.get_running_loop())
        room = room_of(ann := Member("ann"))
        async with asyncio.timeout(30):
            await asyncio.gather(*(paced(fanout, room, FLUSH_BYTES) for _ in range(3)))
        assert len(ann.got) == 3 * FLUSH_BYTES
        assert not fanout.busy

    asyncio.run(main())


@pytest.mark.parametrize("messages", [1, 2])
@pytest.mark.parametrize("members", [1, 100])
def test_what_has_been_written_holds_nobody(loop: FakeLoop, fanout: Fanout, members: int, messages: int) -> None:
    room = room_of(*(Member(str(number)) for number in range(members)))
    for _ in range(messages):
        fanout.add(room, out(bytes(FLUSH_BYTES)))
    assert fanout.crowded
    fanout.flush_all()
    fanout.add(room, out(bytes(FLUSH_BYTES - 1)))
    assert not fanout.crowded


def test_nobody_is_held_by_a_fanout_that_has_stopped() -> None:
    async def main(fanout: Fanout) -> None:
        room = room_of(ann := Member("ann"))
        fanout.stop()
        await asyncio.wait_for(paced(fanout, room, FLUSH_BYTES), 1)
        fanout.start(asyncio.get_running_loop())
        assert not fanout.crowded
        assert not ann.got

    run(main)


def test_a_publisher_waits_a_little_for_who_reads() -> None:
    async def main(fanout: Fanout) -> None:
        ann = Member("ann", slow=True)
        ann.waits = 10

        def read() -> None:
            ann.waits -= 1
            if ann.waits:
                asyncio.get_running_loop().call_later(0.004, read)

        asyncio.get_running_loop().call_later(0.004, read)
        ann.slow = False
        await paced(fanout, room_of(ann), FLUSH_BYTES)
        assert not ann.waits

    run(main)


def test_a_publisher_does_not_wait_for_who_does_not_read() -> None:
    async def main(fanout: Fanout) -> None:
        ann = Member("ann", slow=True)
        held = [await paced(fanout, room_of(ann), FLUSH_BYTES) for _ in range(10)]
        assert sum(held) < 1.0

    run(main)


def test_a_publishers_patience_has_an_end() -> None:
    """One that reads a byte at a time must not slow the app down for good."""

    async def main(fanout: Fanout) -> None:
        ann = Member("ann", slow=True)
        room = room_of(ann)
        ann.slow, ann.waits = False, 10**9

        def read() -> None:
            ann.waits -= 1
            asyncio.get_running_loop().call_later(0.001, read)

        read()
        held = sum([await paced(fanout, room, FLUSH_BYTES) for _ in range(5)])
        assert held < 10.0

    run(main)
