"""Rooms that were visited, and in which nothing was said: Redis keeps the positions of a bounded number of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from hubbub.brokers.base import MAX_SILENT
from hubbub.brokers.redis import RedisBroker
from hubbub.brokers.redis.channel import Keys
from hubbub.codec import encode
from hubbub.envelope import Envelope, Reset
from hubbub.options import RoomOptions, RoomTable
from hubbub.positions import Position
from hubbub.testing.broker_suite import Worker
from tests.integration.redis_server import Proxy, RedisServer, as_text, fresh_prefix
from tests.integration.support import DEADLINE_S, eventually

pytestmark = pytest.mark.anyio

ROOMS = RoomTable({"brief:*": RoomOptions(history=(10, 30.0)), "*": RoomOptions(history=10)})
FEW = 4


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound that takes few visits to reach."""
    monkeypatch.setattr("hubbub.brokers.redis.logs.MAX_SILENT", FEW)


class Place:
    """The keys of one test's workers."""

    def __init__(self, redis: RedisServer) -> None:
        self._redis = redis
        self.prefix = fresh_prefix()
        self.keys = Keys(self.prefix)

    @asynccontextmanager
    async def worker(self, *, through: Proxy | None = None) -> AsyncIterator[Worker]:
        worker = Worker(RedisBroker(self._redis.url(prefix=self.prefix, through=through)), DEADLINE_S)
        await worker.start(ROOMS)
        try:
            yield worker
        finally:
            await worker.broker.close()

    @property
    def heads(self) -> set[str]:
        """The keys of the rooms that have a position."""
        return {as_text(key) for key in self._redis.command("KEYS", f"{self.prefix}:*:head")}

    async def visit(self, worker: Worker, *rooms: str) -> None:
        """A client comes into rooms, each after it has left the last."""
        for room in rooms:
            await visit(worker, room)
            await self.nobody_is_subscribed_to(room)

    async def nobody_is_subscribed_to(self, room: str) -> None:
        channel = self.keys.channel(room)
        await eventually(lambda: self._redis.command("PUBSUB", "NUMSUB", channel)[1] == 0)

    @property
    def listed(self) -> int:
        return int(self._redis.command("ZCARD", self.keys.silent))


@pytest.fixture
def place(redis: RedisServer) -> Place:
    return Place(redis)


async def visit(worker: Worker, *rooms: str) -> None:
    """Clients come into rooms, all at once, and leave them."""
    await asyncio.gather(*(worker.broker.subscribe(room) for room in rooms))
    await asyncio.gather(*(worker.broker.unsubscribe(room) for room in rooms))


async def subscribed(worker: Worker, *rooms: str) -> list[Position | None]:
    return [await worker.broker.subscribe(room) for room in rooms]


async def positions(worker: Worker, *rooms: str) -> list[Position | None]:
    return [await worker.broker.position(room) for room in rooms]


def rooms(count: int, name: str = "room") -> list[str]:
    return [f"{name} {number}" for number in range(count)]


async def test_rooms_that_are_only_visited_are_remembered_up_to_a_bound(place: Place) -> None:
    """A client chooses the names of its rooms, and leaves them again."""
    async with place.worker() as worker:
        said = await worker.publish("said", "hello")
        here = await worker.broker.subscribe("here")
        for visits in range(10):
            await visit(worker, *rooms(500, f"visit {visits}"))
        assert len(place.heads) == MAX_SILENT + 1, "the bound, and a room with a message"
        assert place.listed == MAX_SILENT
        assert await positions(worker, "said", "here", "visit 0 0") == [said, here, None]
        assert None not in await positions(worker, *rooms(100, "visit 9")), "the newest are remembered"


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("name", ["room", "a}:head", "{a}", "ä{}"])
async def test_a_room_that_any_worker_is_subscribed_to_keeps_its_position(place: Place, name: str) -> None:
    """Also if more are subscribed than are kept without."""
    used = rooms(3 * FEW, name)
    async with place.worker() as one, place.worker() as other:
        before = await subscribed(one, *used)
        await place.visit(other, *rooms(15 * FEW, f"{name} visited"))
        assert await positions(other, *used) == before == await subscribed(other, *used)
        assert len(place.heads) <= 2 * len(used) + 2, "no more without members than with"
        assert [await one.offsets(room) for room in used] == [[]] * len(used)
        assert not [each for _, each in one.received if isinstance(each, Reset)]


@pytest.mark.usefixtures("few")
async def test_a_room_in_which_something_was_said_keeps_its_history(place: Place) -> None:
    async with place.worker() as worker:
        start = await worker.broker.subscribe("talk")
        await worker.publish("talk", "hello")
        await worker.broker.unsubscribe("talk")
        await place.visit(worker, *rooms(5 * FEW))
        page = await worker.broker.history("talk", start)
        assert (len(page.entries), page.whole) == (1, True)


@pytest.mark.usefixtures("few")
async def test_a_client_that_comes_back_in_time_has_missed_nothing(place: Place) -> None:
    """As long as fewer other rooms were visited than are kept."""
    async with place.worker() as worker:
        start = await worker.broker.subscribe("quiet")
        await worker.broker.unsubscribe("quiet")
        await place.visit(worker, *rooms(FEW - 1))
        assert await worker.broker.subscribe("quiet") == start
        await worker.broker.unsubscribe("quiet")
        await place.visit(worker, *rooms(FEW - 1, "another"))
        assert (await worker.broker.history("quiet", start)).whole, "its second visit counts"


@pytest.mark.usefixtures("few")
async def test_a_position_that_was_forgotten_is_not_taken_for_one_of_now(place: Place) -> None:
    async with place.worker() as worker:
        start = await worker.broker.subscribe("quiet")
        await worker.broker.unsubscribe("quiet")
        await place.visit(worker, *rooms(FEW + 1))
        await worker.publish("quiet", "missed")
        page = await worker.broker.history("quiet", start)
        assert (len(page.entries), page.whole) == (1, False)


@pytest.mark.usefixtures("few")
async def test_a_worker_whose_room_is_forgotten_while_it_is_cut_off_tells_its_members(
    redis: RedisServer, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubbub.brokers.redis.link._LAST_BACKOFF_S", 0.1)
    with Proxy(redis) as proxy:
        async with place.worker(through=proxy) as cut, place.worker() as other:
            before = await cut.broker.subscribe("quiet")
            proxy.cut_off()
            await place.nobody_is_subscribed_to("quiet")
            await place.visit(other, *rooms(FEW + 1))
            assert await other.broker.position("quiet") is None
            proxy.closed = False
            await cut.until(lambda: bool(cut.received))
            ((room, reset),) = cut.received
            assert room == "quiet"
            assert isinstance(reset, Reset)
            assert reset.position == await other.broker.position("quiet") != before
            await other.broker.publish("quiet", Envelope(encode("hello")))
            assert await cut.messages("quiet") == ["hello"]


async def test_the_list_of_silent_rooms_ends_with_the_last_of_them(redis: RedisServer, place: Place) -> None:
    async with place.worker() as worker:
        await place.visit(worker, "long", "brief:short")
        whole_list = redis.command("PTTL", place.keys.silent)
        last_room = redis.command("PTTL", place.keys.head("long"))  # asked later, so it is less
        assert 0 < last_room <= whole_list + 1
        assert whole_list < 2 * last_room
