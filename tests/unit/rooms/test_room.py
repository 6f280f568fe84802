"""A room: what its members are to get, and when one that is replayed its past joins the living."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from math import inf
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.websockets import WebSocketDisconnect

from hubbub import History, Position, RoomOptions
from hubbub.brokers import Broker, MemoryBroker
from hubbub.codec import encode
from hubbub.connections.outbox import Lane
from hubbub.connections.session import Manager, Session
from hubbub.connections.socket import Socket
from hubbub.envelope import Announcement, Envelope, Page
from hubbub.errors import BrokerUnavailable
from hubbub.options import RoomTable
from hubbub.protocols import ClientProtocol
from hubbub.protocols.frames import Opcode, frame, split
from hubbub.rooms import catch_up as catch_up_module
from hubbub.rooms.attempts import Attempt
from hubbub.rooms.audience import Outgoing
from hubbub.rooms.catch_up import Recovery
from hubbub.rooms.deliveries import Deliveries
from hubbub.rooms.fanout import Fanout
from hubbub.rooms.memberships import Memberships
from hubbub.rooms.room import CatchUp, Room
from hubbub.tasks import Tasks
from hubbub.testing.broker_suite import Worker
from hubbub.timers import Timers
from tests.unit.rooms.subscriber import OTHER, PLACED, RAW, reply_in, subscribing
from tests.unit.support import FakeClock, Hub
from tests.wrapping import ARRAYS

EPOCH = "abcdefgh"
HELLO = encode("hello")


class Member:
    """A connection, as far as a room sees it."""

    def __init__(self, name: str, user: str | None = None) -> None:
        self.id = name
        self.user_id = user
        self.protocol: ClientProtocol = RAW
        self.writer: Any = None


def at(offset: int) -> Position:
    return Position(EPOCH, offset)


# What a member is to get


@pytest.mark.parametrize("position", [None, at(3)], ids=["not numbered", "numbered"])
def test_raw_members_receive_messages_as_they_are(position: Position | None) -> None:
    outgoing = Outgoing(Room("lobby", RoomOptions(history=5)), Envelope(HELLO, key="k", position=position))
    assert outgoing.frame(RAW) == frame(Opcode.TEXT, b"hello")
    assert outgoing.frame_for(Member("a")) == outgoing.frame(RAW)
    assert outgoing.key == "k"


def test_a_users_room_does_not_tell_its_name() -> None:
    room = Room("$user:ann@example.com", RoomOptions(history=5))
    (message,) = split(Outgoing(room, Envelope(HELLO, position=at(3))).frame(PLACED))
    assert json.loads(message[1])["room"] == room.label == "$user"


def test_who_is_excluded_gets_nothing() -> None:
    envelope = Envelope(HELLO, frozenset({"a"}), position=at(3))
    room = Room("lobby", RoomOptions(history=5))
    outgoing = Outgoing(room, envelope)
    assert outgoing.frame_for(Member("a")) == b""
    assert outgoing.frame_for(Member("b")) == outgoing.frame(RAW)
    for_users = Outgoing(room, envelope._replace(exclude=frozenset({"$user:ann"})))
    assert for_users.frame_for(Member("a", user="ann")) == b""
    assert for_users.frame_for(Member("a", user="bob")) == for_users.frame_for(Member("ann")) == outgoing.frame(RAW)


def test_an_announcement_is_made_into_a_frame_of_each_protocol() -> None:
    news = Announcement("joined", "ann", "a1", b'{"name":"Ann"}', 2, datetime(2026, 1, 2, tzinfo=UTC))
    outgoing = Outgoing(Room("lobby", RoomOptions(announce=True)), news)
    ((_, raw),) = split(outgoing.frame(RAW))
    assert json.loads(raw) == {
        "type": "user_joined",
        "room": "lobby",
        "user_id": "ann",
        "info": {"name": "Ann"},
        "count": 2,
        "timestamp": "2026-01-02T00:00:00Z",
    }
    ((_, array),) = split(outgoing.frame(ARRAYS))
    assert json.loads(array) == [raw.decode()]
    assert (outgoing.exclude, outgoing.key) == (frozenset(), "\0a1")


# Who is in it


def test_a_room_is_vacant_when_nobody_is_there_or_about_to_be() -> None:
    async def main() -> None:
        room = Room("lobby", RoomOptions())
        assert room.vacant
        room.joining += 1
        assert not room.vacant
        room.joining -= 1
        room.catching_up["a"] = CatchUp(Member("a"), at(0))
        assert not room.vacant
        assert room.size == 1
        room.go_live(room.catching_up["a"])
        assert (list(room.members), room.catching_up, room.size) == (["a"], {}, 1)
        room.remove(Member("a"))
        room.remove(Member("a"))
        assert room.vacant

    asyncio.run(main())


def test_who_was_taken_out_does_not_go_live_any_more() -> None:
    room = Room("lobby", RoomOptions(history=5))
    catch_up = room.catching_up["a"] = CatchUp(Member("a"), at(0))
    room.remove(catch_up.member)
    room.go_live(catch_up)
    assert room.vacant


def test_who_has_read_further_than_the_room_has_heard_waits_for_what_is_new() -> None:
    """A broker's history may be ahead of what it has delivered: what is still to come was replayed already."""
    room = Room("lobby", RoomOptions(history=5))
    room.head = at(3)
    catch_up = room.catching_up["a"] = CatchUp(Member("a"), at(5))
    room.caught_up(catch_up)
    for offset in (4, 5):
        room.advance(at(offset))
        assert not room.members, f"{offset} would be sent twice"
    room.advance(at(6))
    assert list(room.members) == ["a"]


def test_who_has_read_what_the_room_has_heard_goes_live_at_once() -> None:
    room = Room("lobby", RoomOptions(history=5))
    room.head = at(5)
    catch_up = room.catching_up["a"] = CatchUp(Member("a"), at(5))
    room.caught_up(catch_up)
    assert list(room.members) == ["a"]


def test_who_has_more_to_read_does_not_go_live() -> None:
    room = Room("lobby", RoomOptions(history=5))
    room.catching_up["a"] = CatchUp(Member("a"), at(2))
    room.advance(at(4))
    assert not room.members


# Recovery, against a model of the SDKs


class FakeWriter:
    """Reads what is written at once. Never loses anything; may ask for patience."""

    def __init__(self, take: Callable[[dict[str, Any]], None]) -> None:
        self._take = take
        self._going = asyncio.Event()
        self._going.set()

    @property
    def congested(self) -> bool:
        return not self._going.is_set()

    def be_slow(self, slow: bool) -> None:
        if slow:
            self._going.clear()
        else:
            self._going.set()

    def stalled_for(self, now: float) -> float:
        return inf if self.congested else 0.0

    async def uncongested(self) -> None:
        await self._going.wait()

    @property
    def transport(self) -> FakeTarget:
        return FakeTarget(self)

    def write(self, data: bytes, lane: Lane | None = None, key: str | None = None) -> bool:
        for _, payload in split(data):
            self._take(json.loads(payload))
        return True


class FakeTarget:
    """The transport of a writer: takes nothing while it is congested."""

    def __init__(self, writer: FakeWriter) -> None:
        self._writer = writer

    def write(self, data: bytes) -> bool:
        return not self._writer.congested and self._writer.write(data)


class FakeSocket:
    """What is below a connection, as far as memberships see it."""

    closed = (1006, "")
    where = "/ws"
    address = None
    has_own_protocol = True

    def __init__(self, writer: FakeWriter, protocol: ClientProtocol) -> None:
        self.writer = writer
        self.protocol = protocol
        self.sessions: list[Session] = []


class Client:
    """Keeps its position as the SDKs do, and checks each message against it.

    Attributes:
        position: Where it is: the epoch that it was told, and the offset of the last message.
        seen: The messages that it received, each with its offset and the id of its connection.
        began: The offsets before which it can't expect anything, since it was told that it does not recover.
    """

    def __init__(self, name: str, protocol: ClientProtocol) -> None:
        self.name = name
        self.protocol = protocol
        self.position: Position | None = None
        self.ids: list[str] = []
        self.seen: list[tuple[int, Any]] = []
        self.took: dict[int, str] = {}
        self.began: list[int] = []
        self.complaints: list[str] = []
        self.connection: Session | None = None
        self.writer = FakeWriter(self.take)
        self.joining: asyncio.Task[None] | None = None

    def take(self, message: Any) -> None:
        try:
            self._take(message)
        except AssertionError as error:  # it may be the event loop that called
            self.complaints.append(str(error))

    def _take(self, message: dict[str, Any]) -> None:
        if message.get("type") == "news":
            return
        offset = message["offset"]
        if message.get("type") == "sync":
            place = Position(message["epoch"], offset)
            if not message["recovered"]:
                assert self.position is None or place.offset >= self.position.offset
                self.position = place
                self.began.append(offset)
            assert self.position is not None
            assert self.position.epoch == place.epoch
            return
        assert self.position is not None, "a message before the sync"
        assert offset > self.position.offset, f"{self.name} got {offset} after {self.position.offset}: a repeat"
        self.position = Position(self.position.epoch, offset)
        self.seen.append((offset, message.get("data")))
        self.took[offset] = self.ids[-1]

    def check(self, published: dict[int, tuple[int, frozenset[str]]]) -> None:
        """What it received is what was published, but for what excluded a connection of it; and all of that."""
        assert self.complaints == []
        assert [data for _, data in self.seen] == [{"n": published[offset][0]} for offset, _ in self.seen]
        for offset, connection_id in self.took.items():
            assert connection_id not in published[offset][1], "what it is excluded from, it does not get"
        if self.connection is not None:
            since = self.began[-1]
            expected = {
                each for each, (_, exclude) in published.items() if each > since and exclude.isdisjoint(self.ids)
            }
            got = {offset for offset, _ in self.seen if offset > since}
            assert expected <= got, f"{self.name} misses {sorted(expected - got)}"


class World:
    """Clients that come and go over the memberships of one worker, while others publish."""

    def __init__(self, broker: Broker, publishing: Broker) -> None:
        self.broker, self.publishing = broker, publishing
        self.tasks, self.timers, self.fanout = Tasks(), Timers(), Fanout()
        self.gaps: list[str] = []
        self.options = RoomOptions(history=History(6))
        recovery = Recovery(broker, self.tasks, self.timers, self.gaps.append)
        self.memberships = Memberships(
            broker, self.fanout, self.tasks, self.timers, self.options_of, lambda user, kick: None, recovery
        )
        self.deliveries = Deliveries(self.memberships, self.fanout, recovery, self.gaps.append)
        self.clients = [Client(name, OTHER if name == "b" else PLACED) for name in "abc"]
        self.published: dict[int, tuple[int, frozenset[str]]] = {}
        self.publishes: list[asyncio.Task[None]] = []
        self.numbers = 0

    def options_of(self, _: str) -> RoomOptions:
        return self.options

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        rooms = RoomTable({"*": self.options})
        self.fanout.start(loop)
        self.timers.start(loop)
        await self.broker.start(self.deliveries, rooms)
        if self.publishing is not self.broker:
            await Worker(self.publishing, 1.0).start(rooms)

    async def publish(self, excluded: Client | None) -> None:
        self.numbers += 1
        number = self.numbers
        exclude = frozenset(() if excluded is None or not excluded.ids else excluded.ids[-1:])
        position = await self.publishing.publish("lobby", Envelope(encode({"n": number}), exclude))
        assert position is not None
        assert position.offset not in self.published
        self.published[position.offset] = number, exclude

    async def say_news(self) -> None:
        await self.publishing.publish("lobby", Envelope(encode({"type": "news"})), keep=False)

    def come(self, client: Client) -> None:
        """Joins in a task, which the steps that follow may go before."""
        client.joining = asyncio.get_running_loop().create_task(self.come_at_once(client))

    async def come_at_once(self, client: Client) -> None:
        if client.connection is not None:
            return
        client.writer = FakeWriter(client.take)
        socket = cast(Socket, FakeSocket(client.writer, client.protocol))
        connection = client.connection = Session(cast(Manager, self), socket, None, None)
        subscribing(connection, lambda: self.come_again(client))
        client.ids.append(connection.id)
        try:
            await self.memberships.join(connection, "lobby", client.position, Attempt(None), reply=reply_in("lobby"))
        except WebSocketDisconnect:
            assert not connection.is_open

    def come_again(self, client: Client) -> None:
        """What an SDK does when it is told that its subscription has ended for want of messages."""
        self.go(client)
        asyncio.get_running_loop().call_soon(self.come, client)

    def go(self, client: Client) -> None:
        connection = client.connection
        if connection is not None:
            connection.mark_gone()
            self.memberships.forget(connection, grace=False)
            client.connection = None

    async def settle(self) -> None:
        """Lets everybody read, and everything that is under way come to its end."""
        async with asyncio.timeout(30):
            for client in self.clients:
                client.writer.be_slow(False)
                if client.joining is not None:
                    await client.joining
            for publish in self.publishes:
                await publish
            for _ in range(200):
                await asyncio.sleep(0)

    async def end(self) -> None:
        for client in self.clients:
            self.go(client)
        await self.tasks.close(1.0)
        self.fanout.stop()
        self.timers.stop()
        await self.broker.close()
        if self.publishing is not self.broker:
            await self.publishing.close()


Step = tuple[Any, ...]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 4), st.none() | st.integers(0, 2)),
        st.tuples(st.just("publish"), st.integers(5, 9), st.none()),
        st.tuples(st.just("news")),
        st.tuples(st.just("come"), st.integers(0, 2)),
        st.tuples(st.just("come at once"), st.integers(0, 2)),
        st.tuples(st.just("go"), st.integers(0, 2)),
        st.tuples(st.just("slow"), st.integers(0, 2), st.booleans()),
        st.tuples(st.just("turn"), st.integers(1, 8)),
    ),
    min_size=5,
    max_size=40,
)


async def play(world: World, steps: list[Step]) -> None:
    await world.start()
    try:
        for client in world.clients:
            await world.come_at_once(client)
        world.go(world.clients[2])
        for step in steps:
            if step[0] == "publish":
                excluded = None if step[2] is None else world.clients[step[2]]
                for _ in range(step[1]):
                    if world.publishing is world.broker:
                        await world.publish(excluded)
                    else:
                        task = asyncio.get_running_loop().create_task(world.publish(excluded))
                        world.publishes.append(task)
            elif step[0] == "news":
                await world.say_news()
            elif step[0] == "come":
                world.come(world.clients[step[1]])
            elif step[0] == "come at once":
                await world.come_at_once(world.clients[step[1]])
            elif step[0] == "go":
                world.go(world.clients[step[1]])
            elif step[0] == "slow":
                world.clients[step[1]].writer.be_slow(step[2])
            else:
                for _ in range(step[1]):
                    await asyncio.sleep(0)
        await world.settle()
        for client in world.clients:
            client.check(world.published)
            if client.connection is not None:
                assert list(client.connection.memberships) == ["lobby"]
        here = [client for client in world.clients if client.connection is not None]
        room = world.memberships.rooms.get("lobby")
        if here:
            assert room is not None
            assert room.members.keys() == {client.ids[-1] for client in here}
            assert not room.catching_up
        else:
            assert room is None
    finally:
        await world.end()


@pytest.fixture(autouse=True, scope="module")
def _small_pages() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catch_up_module, "_PAGE_MESSAGES", 2)
        yield


@settings(max_examples=80, deadline=None)
@given(STEPS)
def test_who_comes_back_gets_each_message_once_on_one_worker(steps: list[Step]) -> None:
    async def main() -> None:
        broker = MemoryBroker(FakeClock())
        await play(World(broker, broker), steps)

    asyncio.run(main())


@settings(max_examples=60, deadline=None)
@given(STEPS)
@example([("publish", 9, None), ("come", 0), ("go", 0), ("news",), ("slow", 0, True), ("turn", 1)])
def test_who_comes_back_gets_each_message_once_while_another_worker_publishes(steps: list[Step]) -> None:
    async def main() -> None:
        here, there = Hub(FakeClock()).nodes_of(2)
        await play(World(here, there), steps)

    asyncio.run(main())


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(STEPS)
def test_who_comes_back_gets_each_message_once_however_often(steps: list[Step]) -> None:
    async def main() -> None:
        here, there = Hub(FakeClock()).nodes_of(2)
        await play(World(here, there), steps)
        broker = MemoryBroker(FakeClock())
        await play(World(broker, broker), steps)

    asyncio.run(main())


def test_who_comes_back_while_a_message_is_pending_for_the_others_gets_it_once() -> None:
    """It was published in the same pass of the event loop: it is in the history, and not written to anybody yet."""

    async def main() -> None:
        broker = MemoryBroker(FakeClock())
        world = World(broker, broker)
        await world.start()
        try:
            stays, returns = world.clients[:2]
            for client in (stays, returns):
                world.come(client)
            await world.settle()
            world.go(returns)
            await world.settle()
            await world.publish(None)
            await world.come_at_once(returns)
            await world.settle()
            assert stays.complaints == returns.complaints == []
            assert [offset for offset, _ in stays.seen] == [1]
            assert [offset for offset, _ in returns.seen] == [1]
        finally:
            await world.end()

    asyncio.run(main())


def test_who_is_found_gone_while_it_catches_up_does_not_keep_news_from_the_others() -> None:
    async def main() -> None:
        broker = MemoryBroker(FakeClock())
        world = World(broker, broker)
        await world.start()
        try:
            for client in world.clients:
                await world.come_at_once(client)
            gone, other, stays = world.clients
            told: list[str] = []

            def lost(message: dict[str, Any]) -> None:
                told.append("gone")
                world.go(gone)

            room = world.memberships.rooms["lobby"]
            for client in (gone, other):
                assert client.connection is not None
                room.remove(client.connection)
                room.catching_up[client.connection.id] = CatchUp(client.connection, at(0))
            gone.writer._take = lost
            other.writer._take = lambda message: told.append("other")
            stays.writer._take = lambda message: told.append("stays")
            await world.say_news()
            await asyncio.sleep(0)
            assert told == ["gone", "other", "stays"]
        finally:
            await world.end()

    asyncio.run(main())


def test_a_join_whose_history_fails_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        broker = MemoryBroker(FakeClock())
        world = World(broker, broker)
        await world.start()
        try:
            client = world.clients[0]
            await world.come_at_once(client)
            world.go(client)

            async def fail(*_: object) -> Page:
                raise BrokerUnavailable("away")

            with monkeypatch.context() as patch:
                patch.setattr(broker, "history", fail)
                with pytest.raises(BrokerUnavailable):
                    await world.come_at_once(client)
            assert client.connection is not None
            assert not client.connection.memberships
            assert world.memberships.rooms["lobby"].size == 0
            client.position = None
            await world.memberships.join(client.connection, "lobby", None, Attempt(None), reply=reply_in("lobby"))
            assert world.memberships.rooms["lobby"].size == 1
        finally:
            await world.end()

    asyncio.run(main())


@pytest.mark.parametrize("passes", range(8))
def test_who_is_the_first_to_come_while_others_publish_misses_nothing_after_its_position(passes: int) -> None:
    """What is delivered before the answer to the subscription is newer than the position in the answer."""

    async def main() -> None:
        here, there = Hub(FakeClock()).nodes_of(2)
        world = World(here, there)
        await world.start()
        try:
            client = world.clients[0]
            world.come(client)
            for _ in range(passes):
                await asyncio.sleep(0)
            await world.publish(None)
            await world.settle()
            assert client.complaints == []
            assert client.position == await here.position("lobby")
        finally:
            await world.end()

    asyncio.run(main())


@pytest.mark.parametrize("passes", range(12))
def test_who_comes_back_while_another_worker_publishes_gets_it_once(passes: int) -> None:
    """A message that is delivered before the answer of the history, and is not in it, is missing still."""

    async def main() -> None:
        here, there = Hub(FakeClock()).nodes_of(2)
        world = World(here, there)
        await world.start()
        try:
            stays, returns = world.clients[:2]
            for client in (stays, returns):
                await world.come_at_once(client)
            world.go(returns)
            await world.publish(None)
            await world.settle()
            world.come(returns)
            for _ in range(passes):
                await asyncio.sleep(0)
            await world.publish(None)
            await world.settle()
            assert stays.complaints == returns.complaints == []
            assert [offset for offset, _ in stays.seen] == [offset for offset, _ in returns.seen] == [1, 2]
        finally:
            await world.end()

    asyncio.run(main())
