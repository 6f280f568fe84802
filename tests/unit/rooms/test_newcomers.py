"""Newcomers to a room that replays its newest messages, while others publish: no hole, no repeat, and in order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hubbub import History, Position, RoomOptions
from hubbub.brokers import Broker, MemoryBroker
from hubbub.rooms import catch_up as catch_up_module
from tests.unit.rooms.test_room import STEPS, Client, Step, World, play
from tests.unit.support import FakeClock, Hub

KEPT = 6


class Newcomer(Client):
    """A client that comes back without its position.

    Attributes:
        start: The position before the first message that it received of the room this time.
    """

    start: Position | None = None

    def _take(self, message: dict[str, Any]) -> None:
        super()._take(message)
        if message.get("type") == "sync":
            assert not message["recovered"]
            if self.start is None:
                self.start = Position(message["epoch"], message["offset"])


class Replaying(World):
    """A room that replays its newest messages to clients that always come anew."""

    def __init__(self, broker: Broker, publishing: Broker, replay: int) -> None:
        super().__init__(broker, publishing)
        self.options = RoomOptions(history=History(KEPT), replay=replay)
        self.clients: list[Client] = [Newcomer(each.name, each.protocol) for each in self.clients]
        self.starts = 0

    async def come_at_once(self, client: Client) -> None:
        assert isinstance(client, Newcomer)
        if client.connection is not None:
            return
        client.position = client.start = None
        least = await self._newest_here()
        await super().come_at_once(client)
        most = (await self.broker.position("lobby") or Position("", 0)).offset
        if client.start is not None:  # it may have gone before
            assert max(0, least - self.options.replay) <= client.start.offset <= max(0, most - self.options.replay)
            self.starts += 1

    async def _newest_here(self) -> int:
        """The offset of the newest message that this worker has been told of."""
        room = self.memberships.rooms.get("lobby")
        head = await self.broker.position("lobby") if room is None or not room.subscribed else room.head
        return 0 if head is None else head.offset


@pytest.fixture(autouse=True, scope="module")
def _small_pages() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catch_up_module, "_PAGE_MESSAGES", 2)
        yield


@settings(max_examples=40, deadline=None)
@given(STEPS, st.integers(1, KEPT))
@example(
    [
        ("publish", 5, None),
        ("go", 0),
        ("news",),
        ("publish", 1, 0),
        ("come", 0),
        ("turn", 6),
        ("publish", 5, None),
        ("come", 2),
    ],
    1,
)
def test_a_newcomer_gets_the_newest_messages_and_each_later_one_once(steps: list[Step], replay: int) -> None:
    """On one worker, and while another worker publishes."""

    async def main() -> None:
        broker = MemoryBroker(FakeClock())
        here, there = Hub(FakeClock()).nodes_of(2)
        for world in (Replaying(broker, broker, replay), Replaying(here, there, replay)):
            await play(world, steps)
            assert world.starts >= 3

    asyncio.run(main())


@pytest.mark.parametrize("passes", range(12))
def test_a_newcomer_in_the_middle_of_what_is_published_gets_each_once(passes: int) -> None:
    """A message may be delivered before the answer of the history, in it, or after it."""

    async def main() -> None:
        here, there = Hub(FakeClock()).nodes_of(2)
        world = Replaying(here, there, replay=2)
        await world.start()
        try:
            stays, comes = world.clients[:2]
            await world.come_at_once(stays)
            for _ in range(3):
                await world.publish(None)
            await world.settle()
            world.come(comes)
            for _ in range(passes):
                await asyncio.sleep(0)
            await world.publish(None)
            await world.settle()
            assert stays.complaints == comes.complaints == []
            assert [offset for offset, _ in stays.seen] == [1, 2, 3, 4]
            assert [offset for offset, _ in comes.seen] in ([2, 3, 4], [3, 4])
        finally:
            await world.end()

    asyncio.run(main())


@pytest.mark.parametrize(("later_s", "replayed"), [(10.0, [1, 2]), (30.0, [2]), (70.0, [])])
def test_messages_that_expired_are_not_replayed(later_s: float, replayed: list[int]) -> None:
    async def main() -> None:
        clock = FakeClock()
        broker = MemoryBroker(clock)
        world = Replaying(broker, broker, replay=5)
        world.options = RoomOptions(history=History(KEPT, ttl_s=60.0), replay=5)
        await world.start()
        try:
            await world.publish(None)
            clock.advance(40.0)
            await world.publish(None)
            clock.advance(later_s)
            comes = world.clients[0]
            await World.come_at_once(world, comes)
            assert [offset for offset, _ in comes.seen] == replayed
            assert comes.position == await broker.position("lobby")
            assert comes.complaints == []
        finally:
            await world.end()

    asyncio.run(main())
