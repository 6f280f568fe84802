"""Joining many rooms at once: over a broker that answers later, and may fail for some."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from hubbub import BrokerUnavailable, History, RoomOptions
from hubbub.codec import encode
from hubbub.connections.session import Manager, Session
from hubbub.connections.socket import Socket
from hubbub.envelope import Envelope, Instruction, Refresh, Relabel, Reset, Subscribe, Unsubscribe
from hubbub.options import RoomTable
from hubbub.positions import Joined, Position
from hubbub.presence import Info
from hubbub.rooms.attempts import Attempt
from hubbub.rooms.catch_up import Recovery
from hubbub.rooms.deliveries import Deliveries
from hubbub.rooms.fanout import Fanout
from hubbub.rooms.memberships import Memberships
from hubbub.rooms.refusals import RoomIsFull, TooManyRooms
from hubbub.tasks import Tasks
from hubbub.timers import Timers
from tests.unit.rooms.subscriber import PLACED, Subscriber, reply_in, subscribing
from tests.unit.rooms.test_room import FakeSocket, FakeWriter
from tests.unit.support import FakeClock, Hub, Node

ROOMS = [f"room {number}" for number in range(10)]
OPTIONS = RoomTable(
    {
        "small": RoomOptions(max_members=1),
        "replays*": RoomOptions(history=History(10), replay=5),
        "*": RoomOptions(history=History(10)),
    }
)


class Far(Node):
    """A broker that says what it was asked, and fails or holds what a test names.

    Attributes:
        asked: The question and the room, in their order.
        failing: The questions that fail.
        going: Whether answers come.
        held: The questions whose answers do not come while the others do; empty for all.
    """

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self.asked: list[tuple[str, str]] = []
        self.failing: set[tuple[str, str]] = set()
        self.going = asyncio.Event()
        self.going.set()
        self.held: set[str] = set()

    async def _ask(self, what: str, room: str) -> None:
        self.asked.append((what, room))
        if not self.held or what in self.held:
            await self.going.wait()
        if (what, room) in self.failing:
            raise BrokerUnavailable(f"no {what} of {room}")

    async def subscribe(self, channel: str) -> Position | None:
        await self._ask("subscribe", channel)
        return await super().subscribe(channel)

    async def enter(
        self, channel: str, user: str | None, connection_id: str, info: Info, room_info: Info = None
    ) -> None:
        await self._ask("enter", channel)
        await super().enter(channel, user, connection_id, info, room_info)

    async def history(self, channel: str, *more: Any) -> Any:
        await self._ask("history", channel)
        return await super().history(channel, *more)


class World:
    """The memberships of a worker, and what its connections are sent."""

    def __init__(self, max_rooms: int | None) -> None:
        hub = Hub(FakeClock())
        self.broker = Far(hub)
        hub.nodes = [self.broker]
        self.tasks, self.timers, self.fanout = Tasks(), Timers(), Fanout()
        self.gaps: list[str] = []
        recovery = Recovery(self.broker, self.tasks, self.timers, self.gaps.append)
        self.memberships = Memberships(
            self.broker,
            self.fanout,
            self.tasks,
            self.timers,
            OPTIONS,
            lambda user, kick: None,
            recovery,
            max_rooms,
        )
        self.deliveries = Deliveries(self.memberships, self.fanout, recovery, self.gaps.append)
        self.sent: list[dict[str, Any]] = []

    def connection(self, user: str | None = "ann") -> Session:
        writer = FakeWriter(self.sent.append)
        return Session(cast(Manager, self), cast(Socket, FakeSocket(writer, PLACED)), user, None)

    def subscriber(self, user: str | None = "ann") -> Session:
        """The connection of a client that is told which rooms it is in."""
        session = self.connection(user)
        subscribing(session)
        return session

    async def join_all(self, connection: Session, *rooms: str) -> None:
        await self.memberships.join_all(connection, dict.fromkeys(rooms), Attempt(connection.user_id))

    async def join(self, connection: Session, room: str) -> Joined:
        with self.memberships.attempts.begin(connection.user_id) as attempt:
            return await self.memberships.join(connection, room, None, attempt)

    def joined(self) -> list[str]:
        """The rooms that clients were told they are in."""
        return [each["room"] for each in self.sent if each.get("type") == "in"]

    async def asked(self, what: str, room: str) -> None:
        """Waits until the broker was asked."""
        async with asyncio.timeout(30):
            while (what, room) not in self.broker.asked:  # noqa: ASYNC110 - it takes some passes
                await asyncio.sleep(0)

    async def is_empty_of(self, connection: Session) -> None:
        """Nothing of a connection is left, here or at the broker."""
        assert not connection.memberships
        assert connection.joining is None
        await self.tasks.close(1.0)
        assert not self.memberships.rooms
        assert not self.broker.subscribed
        for room in ROOMS:
            assert await self.broker.members(room) == []


@asynccontextmanager
async def world_of(max_rooms: int | None = None) -> AsyncIterator[World]:
    world = World(max_rooms)
    loop = asyncio.get_running_loop()
    world.fanout.start(loop)
    world.timers.start(loop)
    await world.broker.start(world.deliveries, OPTIONS)
    try:
        yield world
    finally:
        world.broker.going.set()
        await world.tasks.close(1.0)
        world.fanout.stop()
        world.timers.stop()
        await world.broker.close()


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


pytestmark = pytest.mark.anyio


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_the_broker_is_asked_for_all_before_it_has_answered_for_one() -> None:
    async with world_of() as world:
        ann = world.subscriber()
        world.broker.going.clear()
        joining = asyncio.create_task(world.join_all(ann, *ROOMS))
        await turns()
        assert world.broker.asked == [("subscribe", room) for room in ROOMS]
        assert not ann.memberships
        world.broker.going.set()
        await joining
        assert list(ann.memberships) == ROOMS
        assert world.joined() == ROOMS
        assert world.broker.asked[len(ROOMS) :] == [("enter", room) for room in ROOMS]
        assert [len(await world.broker.members(room)) for room in ROOMS] == [1] * len(ROOMS)


async def test_rooms_that_it_is_in_are_not_asked_for_again() -> None:
    async with world_of() as world:
        ann = world.subscriber()
        await world.join_all(ann, *ROOMS[:5])
        world.broker.asked.clear()
        world.sent.clear()
        await world.join_all(ann, *ROOMS)
        assert world.broker.asked == [(what, room) for what in ("subscribe", "enter") for room in ROOMS[5:]]
        assert world.joined() == ROOMS[5:]


@pytest.mark.parametrize("what", ["subscribe", "enter"])
async def test_where_the_broker_fails_for_one_none_is_joined(what: str) -> None:
    async with world_of() as world:
        ann = world.connection()
        world.broker.failing = {(what, ROOMS[3]), (what, ROOMS[7])}
        with pytest.raises(BrokerUnavailable, match=f"no {what} of {ROOMS[3]}"):
            await world.join_all(ann, *ROOMS)
        await world.is_empty_of(ann)


async def test_where_the_broker_fails_those_that_it_was_in_stay() -> None:
    async with world_of() as world:
        ann = world.connection()
        await world.join_all(ann, *ROOMS[:2])
        world.broker.failing = {("enter", ROOMS[5])}
        with pytest.raises(BrokerUnavailable):
            await world.join_all(ann, *ROOMS)
        assert list(ann.memberships) == ROOMS[:2]


async def test_where_one_is_full_none_is_joined_and_nobody_was_told() -> None:
    async with world_of() as world:
        ann, bob = world.connection(), world.connection("bob")
        await world.join_all(bob, "small")
        world.broker.asked.clear()
        with pytest.raises(RoomIsFull):
            await world.join_all(ann, *ROOMS, "small")
        assert ("enter", ROOMS[0]) not in world.broker.asked
        await world.join_all(bob, *ROOMS)
        await world.memberships.leave(bob, "small")
        for room in ROOMS:
            await world.memberships.leave(bob, room)
        await world.is_empty_of(ann)


@pytest.mark.parametrize("after", [("subscribe", ROOMS[-1]), ("enter", ROOMS[-1])])
async def test_one_that_is_cancelled_leaves_nothing(after: tuple[str, str]) -> None:
    async with world_of() as world:
        ann = world.connection()
        joining = asyncio.create_task(world.join_all(ann, *ROOMS))
        if after[0] == "enter":
            await world.asked("enter", ROOMS[0])
        world.broker.going.clear()
        await world.asked(*after)
        joining.cancel()
        await asyncio.wait([joining])
        assert joining.cancelled()
        world.broker.going.set()
        await world.is_empty_of(ann)


async def test_a_position_to_come_back_from_is_read_for_all_at_once() -> None:
    async with world_of() as world:
        ann = world.subscriber()
        places = {room: Position("abcdefgh", 3) for room in ROOMS}
        joining = asyncio.create_task(world.memberships.join_all(ann, places, Attempt("ann")))
        await world.asked("history", ROOMS[0])
        world.broker.going.clear()
        await turns(20)
        assert [room for what, room in world.broker.asked if what == "history"] == ROOMS
        world.broker.going.set()
        await joining
        assert [room for what, room in world.broker.asked if what == "history"] == ROOMS, "and only once"
        assert world.joined() == ROOMS
        assert [each.joined and each.joined.recovered for each in ann.memberships.values()] == [False] * len(ROOMS)


@pytest.mark.parametrize(("room", "since"), [("replays", None), ("room 1", Position("abcdefgh", 0))])
async def test_nothing_of_a_room_comes_before_the_answer_to_the_join(room: str, since: Position | None) -> None:
    async with world_of() as world:
        ann = world.connection()
        await world.broker.publish(room, Envelope(encode("kept")))
        joins = world.memberships.join(ann, room, since, Attempt("ann"), reply=reply_in(room))
        joining = asyncio.create_task(joins)
        await world.asked("subscribe", room)
        world.broker.going.clear()
        await world.asked("history", room)
        for n in range(2):
            await world.broker.publish(room, Envelope(encode({"news": n})), keep=False)
            await turns()
            assert world.sent == []
        world.broker.going.set()
        await joining
        assert world.sent[0]["type"] == "sync"
        assert {"news": 0} not in world.sent
        assert [each.get("data") for each in world.sent[1:]] == (["kept"] if since is None else [])


async def test_a_newcomer_is_read_the_history_for_all_rooms_at_once() -> None:
    async with world_of() as world:
        ann, rooms = world.connection(), [f"replays {number}" for number in range(5)]
        for room in rooms:
            await world.broker.publish(room, Envelope(encode(room)))
        joining = asyncio.create_task(world.join_all(ann, *rooms))
        await world.asked("history", rooms[0])
        world.broker.going.clear()
        await turns(20)
        assert [room for what, room in world.broker.asked if what == "history"] == rooms
        world.broker.going.set()
        await joining
        assert [room for what, room in world.broker.asked if what == "history"] == rooms, "and only once"
        assert [each["data"] for each in world.sent if "data" in each] == rooms


async def test_a_join_whose_replay_fails_leaves_nothing() -> None:
    async with world_of() as world:
        ann = world.connection()
        world.broker.failing = {("history", "replays")}
        with pytest.raises(BrokerUnavailable, match="no history of replays"):
            await world.join(ann, "replays")
        await world.is_empty_of(ann)


async def test_a_join_to_a_room_without_a_replay_asks_for_no_history() -> None:
    async with world_of() as world:
        ann = world.connection()
        await world.join_all(ann, *ROOMS)
        assert {what for what, _ in world.broker.asked} == {"subscribe", "enter"}


async def test_rooms_that_are_being_joined_count() -> None:
    async with world_of(max_rooms=3) as world:
        ann = world.connection()
        joins = [asyncio.create_task(world.join(ann, room)) for room in (*ROOMS[:4], *ROOMS[:2])]
        outcomes = await asyncio.gather(*joins, return_exceptions=True)
        assert [type(each) is TooManyRooms for each in outcomes] == [False, False, False, True, False, False]
        assert list(ann.memberships) == ROOMS[:3]


async def test_a_join_that_waited_for_one_that_failed_is_counted_anew() -> None:
    async with world_of(max_rooms=1) as world:
        ann = world.connection()
        world.broker.going.clear()
        fails = asyncio.create_task(world.join(ann, ROOMS[0]))
        await turns()
        waits = asyncio.create_task(world.join(ann, ROOMS[0]))
        await turns()
        fails.cancel()
        await asyncio.wait([fails])
        world.broker.going.set()
        joins = waits, world.join(ann, ROOMS[1])
        outcomes = await asyncio.gather(*joins, return_exceptions=True)
        assert sorted(type(each) is TooManyRooms for each in outcomes) == [False, True]
        assert len(ann.memberships) == 1


# Instructions


async def test_an_instruction_takes_a_user_out_of_one_room_and_ends_its_presence_there() -> None:
    async with world_of() as world:
        ann, tab, bob = world.connection(), world.connection(), world.connection("bob")
        for each in (ann, tab, bob):
            await world.join_all(each, f"$user:{each.user_id}", *ROOMS[:2])
        assert world.memberships.has("ann", ROOMS[0])
        world.deliveries.deliver("$user:ann", Unsubscribe(ROOMS[0]))
        assert [ROOMS[0] in each.memberships for each in (ann, tab, bob)] == [False, False, True]
        assert all(ROOMS[1] in each.memberships for each in (ann, tab, bob))
        assert not world.memberships.has("ann", ROOMS[0])
        await world.tasks.close(1.0)
        assert [each.user_id for each in await world.broker.members(ROOMS[0])] == ["bob"]
        assert {each.user_id for each in await world.broker.members(ROOMS[1])} == {"ann", "bob"}


async def test_an_instruction_of_earlier_leaves_those_who_joined_since() -> None:
    async with world_of() as world:
        old, new = world.connection(), world.connection()
        await world.join_all(old, "$user:ann", ROOMS[0])
        old.memberships[ROOMS[0]].began_at -= 60.0
        await world.join_all(new, "$user:ann", ROOMS[0])
        world.deliveries.deliver("$user:ann", Unsubscribe(ROOMS[0], age_s=30.0))
        assert [ROOMS[0] in each.memberships for each in (old, new)] == [False, True]


@pytest.mark.parametrize("what", ["subscribe", "history", "enter"])
@pytest.mark.parametrize("at_once", [False, True], ids=["alone", "with others"])
async def test_an_instruction_keeps_those_out_who_are_joining(what: str, at_once: bool) -> None:
    """And those in who begin to join after it."""
    async with world_of() as world:
        ann = world.subscriber()
        await world.join_all(ann, "$user:ann")
        world.broker.going.clear()
        world.broker.held = {what}
        since = Position("abcdefgh", 3) if what == "history" else None
        with world.memberships.attempts.begin("ann") as attempt:
            if at_once:
                joins = world.memberships.join_all(ann, {ROOMS[0]: since, ROOMS[1]: since}, attempt)
                joining: asyncio.Task[Any] = asyncio.create_task(joins)
            else:
                joining = asyncio.create_task(world.memberships.join(ann, ROOMS[0], since, attempt))
            await world.asked(what, ROOMS[0])
            world.deliveries.deliver("$user:ann", Unsubscribe(ROOMS[0]))
            world.broker.going.set()
            await joining
        assert ann.memberships.keys() == {"$user:ann", *([ROOMS[1]] if at_once else [])}
        assert [room for room in world.joined() if room == ROOMS[0]] == [ROOMS[0]] * (what == "enter")
        await world.join(ann, ROOMS[0])
        assert ROOMS[0] in ann.memberships
        await world.memberships.leave(ann, ROOMS[0])
        await world.memberships.leave(ann, ROOMS[1])
        await world.memberships.leave(ann, "$user:ann")
        await world.is_empty_of(ann)


async def test_an_instruction_takes_a_user_out_who_still_catches_up() -> None:
    async with world_of() as world:
        reader, ann = world.connection("bob"), world.connection()
        await world.join_all(reader, ROOMS[0])
        first = await world.broker.publish(ROOMS[0], Envelope(encode("seen")))
        await world.broker.publish(ROOMS[0], Envelope(encode("missed")))
        await world.join_all(ann, "$user:ann")
        world.sent.clear()
        cast(FakeWriter, ann.writer).be_slow(True)
        await world.memberships.join(ann, ROOMS[0], first, Attempt("ann"), reply=reply_in(ROOMS[0]))
        assert world.memberships.rooms[ROOMS[0]].catching_up.keys() == {ann.id}
        world.deliveries.deliver("$user:ann", Unsubscribe(ROOMS[0]))
        assert not world.memberships.rooms[ROOMS[0]].catching_up
        cast(FakeWriter, ann.writer).be_slow(False)
        await turns(20)
        assert [each["type"] for each in world.sent] == ["sync"]


async def test_an_instruction_does_not_reach_attempts_of_others_or_of_later() -> None:
    async with world_of() as world:
        attempts = world.memberships.attempts
        with attempts.begin("ann") as ann, attempts.begin("bob") as bob, attempts.begin(None) as nobody:
            ann.began_at -= 60.0
            with attempts.begin("ann") as later:
                world.deliveries.deliver("$user:ann", Unsubscribe("lobby", age_s=30.0))
                world.deliveries.deliver("$everyone", Unsubscribe("lobby"))
                assert [each.revoked for each in (ann, bob, nobody, later)] == [{"lobby"}, set(), set(), set()]
        world.deliveries.deliver("$user:ann", Unsubscribe("hall"))
        assert ann.revoked == {"lobby"}, "it has ended"


async def test_a_listener_tells_its_client_of_joins_and_leaves_unless_the_client_asked_for_them() -> None:
    async with world_of() as world:
        ann = world.connection()
        listener = subscribing(ann)
        await world.join(ann, ROOMS[0])
        world.deliveries.deliver(ROOMS[0], Envelope(encode("hello"), position=Position("abcdefgh", 1)))
        await world.memberships.leave(ann, ROOMS[0])
        assert [each.get("type") for each in world.sent] == ["in", None, "out"]
        await world.memberships.leave(ann, ROOMS[0])
        assert listener.heard == [("joined", ROOMS[0]), ("left", ROOMS[0]), ("left", ROOMS[0])]
        assert len(world.sent) == 3, "it was not in"
        await world.join(ann, ROOMS[1])
        await world.memberships.left(ann, ROOMS[1])
        assert world.sent[3:] == [{"type": "in", "room": ROOMS[1]}]


@pytest.mark.parametrize("instruction", [Subscribe("lobby"), Refresh(None), Unsubscribe("room 1")], ids=repr)
async def test_an_instruction_for_everyone_that_only_users_have_is_logged_and_changes_nothing(
    instruction: Instruction, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "hubbub")
    async with world_of() as world:
        connection = world.connection()
        await world.join_all(connection, "$everyone", "room 1")
        world.deliveries.deliver("$everyone", instruction)
        assert connection.memberships.keys() == {"$everyone", "room 1"}
        assert [(each.levelname, type(instruction).__name__ in each.message) for each in caplog.records] == [
            ("DEBUG", True)
        ]


async def test_an_instruction_puts_the_connections_of_a_user_into_a_room() -> None:
    async with world_of() as world:
        ann, raw, bob = world.subscriber(), world.connection(), world.connection("bob")
        for each in (ann, raw, bob):
            await world.join_all(each, f"$user:{each.user_id}")
        world.deliveries.deliver("$user:ann", Subscribe(ROOMS[0], info={"role": "guest"}))
        await world.tasks.close(1.0)
        assert {each.user_id for each in await world.broker.members(ROOMS[0])} == {"ann"}
        assert [ROOMS[0] in each.memberships for each in (ann, raw, bob)] == [True, True, False]
        assert world.joined().count(ROOMS[0]) == 1, "a raw socket is told nothing"
        infos = [each.room_info for each in await world.broker.connections(ROOMS[0])]
        assert infos == [{"role": "guest"}] * 2
        world.deliveries.deliver("$user:ann", Subscribe(ROOMS[1], only=raw.id))
        await world.tasks.close(1.0)
        assert [ROOMS[1] in each.memberships for each in (ann, raw)] == [False, True]
        ann.began_at = asyncio.get_running_loop().time()
        world.deliveries.deliver("$user:ann", Subscribe(ROOMS[2], age_s=60.0))
        await world.tasks.close(1.0)
        assert ROOMS[2] not in ann.memberships, "it is younger than the instruction"


async def test_an_instruction_that_takes_a_room_back_is_stronger_than_one_before_it_that_gave_it() -> None:
    async with world_of() as world:
        ann = world.subscriber()
        await world.join_all(ann, "$user:ann")
        world.deliveries.deliver("$user:ann", Subscribe(ROOMS[0]))
        world.deliveries.deliver("$user:ann", Unsubscribe(ROOMS[0]))
        world.deliveries.deliver("$user:ann", Subscribe(ROOMS[1]))
        await world.tasks.close(1.0)
        assert ann.memberships.keys() == {"$user:ann", ROOMS[1]}


async def test_a_room_that_is_full_or_away_refuses_an_instruction_and_closes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with world_of() as world:
        ann = world.subscriber()
        await world.join_all(ann, "$user:ann")
        await world.join_all(world.connection("bob"), "small")
        world.broker.failing = {("subscribe", ROOMS[0])}
        for room in ("small", ROOMS[0]):
            world.deliveries.deliver("$user:ann", Subscribe(room))
        await world.tasks.close(1.0)
        assert ann.memberships.keys() == {"$user:ann"}
        assert ann.is_open
        assert [each.levelname for each in caplog.records] == ["WARNING", "WARNING"]
        assert "the room is full" in caplog.text


async def test_an_instruction_takes_one_connection_of_a_user_out_of_a_room() -> None:
    async with world_of() as world:
        one, other = world.subscriber(), world.subscriber()
        for each in (one, other):
            await world.join_all(each, "$user:ann", ROOMS[0])
        attempts = world.memberships.attempts
        with (
            attempts.begin("ann", one.id) as of_one,
            attempts.begin("ann", other.id) as of_other,
            attempts.begin("ann") as new,
        ):
            world.deliveries.deliver("$user:ann", Unsubscribe(ROOMS[0], only=one.id))
            assert [each.revoked for each in (of_one, of_other, new)] == [{ROOMS[0]}, set(), set()]
        assert [ROOMS[0] in each.memberships for each in (one, other)] == [False, True]


async def test_an_instruction_changes_how_long_connections_are_authorized() -> None:
    async with world_of() as world:
        raw, listening, other = world.connection(), world.connection(), world.connection()
        listener = subscribing(listening)
        for each in (raw, listening, other):
            await world.join_all(each, "$user:ann")
            each.socket.expires_at = 1.0
        world.deliveries.deliver("$user:ann", Refresh(2.0, only=other.id))
        assert [each.socket.expires_at for each in (raw, listening, other)] == [1.0, 1.0, 2.0]
        world.deliveries.deliver("$user:ann", Refresh(3.0))
        assert [each.socket.expires_at for each in (raw, listening, other)] == [3.0, 1.0, 3.0]
        assert listener.heard[-1] == ("authorized until", "3.0"), "its client replaces its token"
        world.deliveries.deliver("$user:ann", Refresh(None))
        assert [each.socket.expires_at for each in (raw, listening, other)] == [None, None, None]


# Gaps


async def test_a_gap_is_reported_once_for_all_raw_members_of_a_room_and_told_to_each_other_one() -> None:
    async with world_of() as world:
        raw, other_raw = world.connection(), world.connection("bob")
        subscribers: list[Subscriber] = []
        for user in ("cyd", "dan"):
            session = world.connection(user)
            subscribers.append(subscribing(session))
            await world.join_all(session, "room 1", "room 2")
        await world.join_all(raw, "room 1")
        await world.join_all(other_raw, "room 1")
        for room in ("room 1", "room 2", "room 3"):
            world.deliveries.deliver(room, Reset(Position("abcdefgh", 5)))
        assert world.gaps == ["room 1"], "not a room without raw members"
        assert [[room for what, room in each.heard if what == "lost its place"] for each in subscribers] == [
            ["room 1", "room 2"]
        ] * 2
        world.deliveries.deliver("room 1", Relabel(Position("ijklmnop", 5)))
        assert world.gaps == ["room 1"], "nothing is lost"
        assert [each.heard[-1] for each in subscribers] == [("renumbered", "room 1")] * 2
