"""The memory broker: the suite for all brokers, and what is its own. Also: the suite finds what is wrong."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from hubbub import InvalidArgument
from hubbub.brokers import Broker, MemoryBroker, broker_from
from hubbub.brokers.base import MAX_SILENT, ONCE_S, Delivery, Receiver
from hubbub.codec import encode
from hubbub.envelope import Envelope, Instruction, Page
from hubbub.options import History, RoomOptions, RoomTable
from hubbub.positions import Position
from hubbub.presence import Info
from hubbub.testing.broker_suite import BrokerSuite, Worker
from tests.unit.support import FakeClock, Hub


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


class OnFakeTime(BrokerSuite):
    """The suite on a clock that the tests set."""

    clock = FakeClock()

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)


@pytest.mark.anyio
class TestMemoryBroker(OnFakeTime):
    @asynccontextmanager
    async def brokers(self) -> AsyncIterator[Sequence[Broker]]:
        yield (MemoryBroker(self.clock),)


@pytest.mark.anyio
class TestTwoWorkers(OnFakeTime):
    """The suite with two workers between which messages take their time."""

    @asynccontextmanager
    async def brokers(self) -> AsyncIterator[Sequence[Broker]]:
        yield Hub(self.clock).nodes_of(2)


# The suite would notice


class Between(Receiver):
    """Stands between a broker that delivers wrongly and who receives."""

    def __init__(self, receiver: Receiver, deliver: Callable[[Receiver, str, Delivery], None]) -> None:
        self._receiver = receiver
        self._deliver = deliver

    def deliver(self, channel: str, delivery: Delivery) -> None:
        self._deliver(self._receiver, channel, delivery)

    async def settled(self) -> None:
        await self._receiver.settled()


class DeliversWrongly(MemoryBroker):
    async def start(self, receiver: Receiver, rooms: RoomTable) -> None:
        await super().start(Between(receiver, self.wrongly), rooms)

    def wrongly(self, receiver: Receiver, channel: str, delivery: Delivery) -> None:
        raise NotImplementedError


class Reorders(DeliversWrongly):
    """Swaps each two messages, but what ends a test."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.held: list[tuple[str, Delivery]] = []

    def wrongly(self, receiver: Receiver, channel: str, delivery: Delivery) -> None:
        if isinstance(delivery, Envelope) and delivery.position is None:
            receiver.deliver(channel, delivery)
            return
        self.held.append((channel, delivery))
        if len(self.held) == 2:
            for each in reversed(self.held):
                receiver.deliver(*each)
            self.held.clear()


class Repeats(DeliversWrongly):
    def wrongly(self, receiver: Receiver, channel: str, delivery: Delivery) -> None:
        receiver.deliver(channel, delivery)
        receiver.deliver(channel, delivery)


class DropsTheKey(MemoryBroker):
    async def publish(
        self, channel: str, envelope: Envelope, *, keep: bool = True, once: str | None = None
    ) -> Position | None:
        return await super().publish(channel, envelope._replace(key=None), keep=keep, once=once)


class KeepsEverything(MemoryBroker):
    async def publish(
        self, channel: str, envelope: Envelope, *, keep: bool = True, once: str | None = None
    ) -> Position | None:
        return await super().publish(channel, envelope, once=once)


class PublishesAgain(MemoryBroker):
    async def publish(
        self, channel: str, envelope: Envelope, *, keep: bool = True, once: str | None = None
    ) -> Position | None:
        return await super().publish(channel, envelope, keep=keep)


class KeepsItsHistory(MemoryBroker):
    async def clear_history(self, channel: str) -> None:
        pass


class ListsNobody(MemoryBroker):
    async def workers(self) -> list[str]:
        return []


class NeverUnsubscribes(MemoryBroker):
    async def unsubscribe(self, channel: str) -> None:
        pass


class AlwaysWhole(MemoryBroker):
    async def history(self, channel: str, after: Position | None = None, limit: int | None = None) -> Page:
        return replace(await super().history(channel, after, limit), whole=after is not None)


class NewestFirst(MemoryBroker):
    async def history(self, channel: str, after: Position | None = None, limit: int | None = None) -> Page:
        page = await super().history(channel, after, limit)
        return replace(page, entries=page.entries[::-1])


class StopsTheClock(MemoryBroker):
    def __init__(self, clock: object = None) -> None:
        super().__init__(lambda: 0.0)


class ForgetsInstructions(MemoryBroker):
    async def instruct(self, channel: str, instruction: Instruction) -> None:
        pass


class AsksAnybody(MemoryBroker):
    async def ask(self, worker: str, payload: bytes, timeout_s: float) -> bytes:
        return await super().ask(self.worker, payload, timeout_s)


class AsksWithoutEnd(MemoryBroker):
    async def ask(self, worker: str, payload: bytes, timeout_s: float) -> bytes:
        return await super().ask(worker, payload, 60.0)


class CountsConnections(MemoryBroker):
    async def enter(
        self, channel: str, user: str | None, connection_id: str, info: Info, room_info: Info = None
    ) -> None:
        await super().enter(channel, f"{user} {connection_id}", connection_id, info, room_info)


class HasNoGrace(MemoryBroker):
    async def linger(self, channel: str, user: str, connection_id: str, grace_s: float) -> None:
        await self.exit(channel, user, connection_id)


class DeliversAfterClose(DeliversWrongly):
    def wrongly(self, receiver: Receiver, channel: str, delivery: Delivery) -> None:
        asyncio.get_running_loop().call_soon(receiver.deliver, channel, delivery)


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (Reorders, "test_all_workers_get_concurrent_messages_in_one_order"),
        (Repeats, "test_each_worker_gets_each_message_once_in_the_order_of_its_publisher"),
        (DropsTheKey, "test_a_message_is_delivered_as_it_was_published"),
        (KeepsEverything, "test_what_is_not_to_be_kept_has_no_position"),
        (PublishesAgain, "test_a_message_is_published_once_whichever_worker_repeats_it"),
        (KeepsItsHistory, "test_a_history_that_was_cleared_is_empty_and_its_numbering_continues"),
        (ListsNobody, "test_all_workers_that_can_be_asked_are_listed"),
        (NeverUnsubscribes, "test_unsubscribe_ends_the_delivery_and_is_idempotent"),
        (AlwaysWhole, "test_history_that_was_trimmed_by_size_is_not_whole"),
        (AlwaysWhole, "test_a_position_of_elsewhere_is_not_whole"),
        (NewestFirst, "test_history_after_a_position_is_exactly_what_was_missed"),
        (StopsTheClock, "test_history_that_was_trimmed_by_age_is_not_whole"),
        (AsksAnybody, "test_a_worker_that_does_not_exist_is_not_waited_for"),
        (AsksWithoutEnd, "test_an_answer_that_does_not_come_in_time_is_not_waited_for"),
        (ForgetsInstructions, "test_an_instruction_reaches_every_worker_in_its_place"),
        (CountsConnections, "test_presence_begins_with_the_first_connection_and_ends_with_the_last"),
        (HasNoGrace, "test_a_user_whose_connection_was_lost_lingers"),
        (DeliversAfterClose, "test_nothing_is_delivered_after_close"),
    ],
)
def test_the_suite_finds_a_broker_that(broken: type[MemoryBroker], test: str) -> None:
    class Suite(OnFakeTime):
        deadline_s = 0.2

        @asynccontextmanager
        async def brokers(self) -> AsyncIterator[Sequence[Broker]]:
            yield (broken(self.clock),)

    with pytest.raises(AssertionError):
        asyncio.run(getattr(Suite(), test)())


# Its own


def test_a_publish_delivers_before_it_returns() -> None:
    """So that on one worker what a handler publishes comes before what it sends later."""

    async def main() -> None:
        broker = MemoryBroker()
        worker = Worker(broker, 1.0)
        await worker.start(RoomTable())
        await broker.subscribe("lobby")
        publishing = broker.publish("lobby", Envelope(encode("now")))
        with pytest.raises(StopIteration):
            publishing.send(None)  # it does not even suspend
        assert len(worker.received) == 1

    asyncio.run(main())


async def started(clock: FakeClock, **options: Any) -> MemoryBroker:
    broker = MemoryBroker(clock)
    await Worker(broker, 1.0).start(RoomTable({"*": RoomOptions(**options)}))
    return broker


async def make_rooms(broker: MemoryBroker, count: int) -> None:
    for number in range(count):
        await broker.subscribe(f"other {number}")
        await broker.unsubscribe(f"other {number}")


def test_what_was_published_once_is_known_for_minutes_and_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        clock = FakeClock()
        broker = await started(clock, history=History(10, 6000.0))
        envelope = Envelope(encode("hello"))

        async def offset(once: str) -> int:
            position = await broker.publish("lobby", envelope, once=once)
            assert position is not None
            return position.offset

        assert await offset("a") == 1
        clock.advance(ONCE_S - 1)
        assert [await offset("b"), await offset("a")] == [2, 1]
        clock.advance(1.0)
        assert [await offset("a"), await offset("b")] == [3, 2]
        monkeypatch.setattr("hubbub.brokers.memory.broker._MAX_ONCE", 2)
        assert [await offset("c"), await offset("a"), await offset("b")] == [4, 3, 5]
        assert len(broker._once) == 2

    asyncio.run(main())


def test_a_room_that_nobody_uses_is_forgotten_after_its_ttl() -> None:
    async def main() -> None:
        clock = FakeClock()
        broker = await started(clock, history=History(10, 60.0))
        position = await broker.publish("lobby", Envelope(encode("hello")))
        for _ in range(20):
            clock.advance(61.0)
            await make_rooms(broker, 300)
        assert len(broker._logs) < 1500, "logs of rooms that nobody uses pile up"
        assert await broker.position("lobby") != position

    asyncio.run(main())


def test_rooms_that_are_only_visited_are_remembered_up_to_a_bound() -> None:
    """A client chooses the names of its rooms, and leaves them again."""

    async def main() -> None:
        broker = await started(FakeClock(), history=History(10, 60.0))
        said = await broker.publish("said", Envelope(encode("hello")))
        here = await broker.subscribe("here")
        await make_rooms(broker, 3)
        newest = [await broker.position(f"other {number}") for number in range(3)]
        await make_rooms(broker, MAX_SILENT)
        assert len(broker._logs) == MAX_SILENT + 2, "the bound, a room with a message, and one with a member"
        assert await broker.position("said") == said
        assert await broker.position("here") == here
        assert [await broker.position(f"other {number}") for number in range(3)] == newest, "their turn was the last"
        await make_rooms(broker, MAX_SILENT + 1)
        assert await broker.position("other 0") is None, "the one that was empty for the longest is forgotten"

    asyncio.run(main())


def test_a_room_that_is_used_again_is_not_forgotten() -> None:
    async def main() -> None:
        broker = await started(FakeClock(), history=History(10, 60.0))
        await make_rooms(broker, 2)
        position = await broker.subscribe("other 0")
        await broker.publish("other 1", Envelope(encode("hello")))
        for number in range(MAX_SILENT + 10):
            await broker.subscribe(f"room {number}")
            await broker.unsubscribe(f"room {number}")
        assert await broker.position("other 0") == position
        assert (await broker.history("other 1")).entries

    asyncio.run(main())


def test_reading_rooms_that_nobody_used_keeps_nothing() -> None:
    """A route that shows any room's history to anybody is not a way to fill the memory."""

    async def main() -> None:
        broker = await started(FakeClock(), history=History(10, 60.0))

        async def read_all(first: int, last: int) -> None:
            for number in range(first, last):
                room = f"room {number}"
                await broker.history(room)
                await broker.history(room, Position("abcdefgh", 3), 10)
                await broker.position(room)
                await broker.members(room)
                await broker.count(room)
                await broker.present(room, "ann")
                await broker.connected(room, "ann")

        await read_all(0, 10)
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            await read_all(10, 2000)
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 50_000, "some 25 bytes a room are left"

    asyncio.run(main())


def test_a_room_that_is_read_all_the_time_is_not_kept_longer() -> None:
    async def main() -> None:
        clock = FakeClock()
        broker = await started(clock, history=History(10, 60.0))
        position = await broker.publish("lobby", Envelope(encode("hello")))
        for passes in range(1, 8):
            clock.advance(20.0)
            await broker.history("lobby", position)
            await broker.position("lobby")
            await make_rooms(broker, 1000 * passes)  # logs are swept as new ones are made
        assert await broker.position("lobby") is None

    asyncio.run(main())


def test_a_room_keeps_its_epoch_for_its_ttl_though_others_are_forgotten() -> None:
    async def main() -> None:
        clock = FakeClock()
        broker = await started(clock, history=History(10, 60.0))
        position = await broker.publish("lobby", Envelope(encode("hello")))
        clock.advance(59.0)
        await make_rooms(broker, 1000)
        assert await broker.position("lobby") == position

    asyncio.run(main())


def test_a_room_with_members_is_not_forgotten() -> None:
    async def main() -> None:
        clock = FakeClock()
        broker = await started(clock, history=5)
        await broker.subscribe("lobby")
        position = await broker.publish("lobby", Envelope(encode("hello")))
        clock.advance(100_000.0)
        await make_rooms(broker, 1000)
        assert await broker.position("lobby") == position

    asyncio.run(main())


def test_a_quiet_room_outlives_its_last_member_by_its_ttl() -> None:
    """A member that was there for long, and loses its connection for a moment, missed nothing."""

    async def main() -> None:
        clock = FakeClock()
        broker = await started(clock, history=History(10, 60.0))
        await broker.subscribe("lobby")
        position = await broker.publish("lobby", Envelope(encode("hello")))
        clock.advance(10_000.0)
        await broker.unsubscribe("lobby")
        clock.advance(2.0)
        await make_rooms(broker, 1000)
        page = await broker.history("lobby", position)
        assert page == Page([], position, whole=True)

    asyncio.run(main())


def test_it_is_not_healthy_before_start_and_after_close() -> None:
    async def main() -> None:
        broker = MemoryBroker()
        assert not await broker.healthy()
        await Worker(broker, 1.0).start(RoomTable())
        assert await broker.healthy()
        await broker.close()
        assert not await broker.healthy()

    asyncio.run(main())


def test_closing_forgets_everything() -> None:
    async def main() -> None:
        broker = await started(FakeClock(), history=5)
        await broker.subscribe("lobby")
        await broker.enter("lobby", "ann", "a1", None)
        position = await broker.publish("lobby", Envelope(encode("hello")))
        await broker.close()
        await Worker(broker, 1.0).start(RoomTable({"*": RoomOptions(history=5)}))
        assert await broker.count("lobby") == 0
        assert not await broker.connected("lobby", "ann")
        page = await broker.history("lobby", position)
        assert not page.whole, "a room that was lost is not mistaken for the old one"
        assert page.entries == []

    asyncio.run(main())


# broker_from


def test_the_scheme_chooses_the_broker() -> None:
    assert isinstance(broker_from("memory://"), MemoryBroker)
    broker = MemoryBroker()
    assert broker_from(broker) is broker


@pytest.mark.parametrize("broker", ["", "memory", "redis", "kafka://localhost", "MEMORY://", None, 5, b"memory://"])
def test_an_unknown_broker_is_refused(broker: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^broker: ") as caught:
        broker_from(broker)
    assert "memory://" in caught.value.accepted


def test_a_brokers_password_is_not_shown() -> None:
    with pytest.raises(InvalidArgument) as caught:
        broker_from("amqp://user:hunter2@host")
    assert "hunter2" not in str(caught.value)
