"""The conformance tests for `Broker`, for authors of brokers.

Subclass `BrokerSuite`, implement `brokers`, and run it in pytest with any plugin for async tests (anyio's is installed
with Starlette)::

    @pytest.mark.anyio
    class TestMyBroker(BrokerSuite):
        @asynccontextmanager
        async def brokers(self) -> AsyncIterator[Sequence[Broker]]:
            async with an_empty_server() as url:
                yield MyBroker(url), MyBroker(url)

Each test needs an empty broker. With two brokers, the tests cover what workers share; an embedded broker acts as both.
This module does not import pytest. To see values in assertion errors, call
``pytest.register_assert_rewrite("hubbub.testing.broker_suite")`` in a conftest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from ..brokers.base import MAX_REQUEST_BYTES, MAX_REQUESTS, Broker, Delivery, Receiver
from ..codec import decode, encode, loads
from ..envelope import Announcement, Author, Envelope, Instruction, Kick, Page, Refresh, Subscribe, Unsubscribe
from ..errors import BrokerUnavailable, InvalidArgument, NoSuchWorker
from ..options import History, RoomOptions, RoomTable
from ..positions import Position
from ..presence import PresentConnection

KEPT = "kept"
"""A channel with history: the newest five messages."""
BRIEF = "brief"
"""A channel with history that expires soon."""
"""A channel with positions but no history."""
PLAIN = "plain"
"""A channel with neither."""
TOLD = "told"
"""A channel with announcements."""

SIZE = 5

ODD_NAMES = [
    "$everyone",
    "$user:42",
    "$user:4",
    "a",
    "A",
    "a:b",
    "a*",
    "a?",
    "[a]",
    "{a}",
    "{a}b",
    "a b",
    "a\nb",
    "a\0b",
    "ä" * 127,
    "👋",
    '"',
]
"""Names that a broker might misread, such as patterns and prefixes."""


class Worker(Receiver):
    """A running broker, and the deliveries it has made.

    Attributes:
        broker: The broker.
        received: Each channel with its delivery, in order.
        answers: The function that answers requests of other workers.
    """

    def __init__(self, broker: Broker, deadline_s: float) -> None:
        self.broker = broker
        self.received: list[tuple[str, Delivery]] = []
        self.answers: Callable[[bytes], Awaitable[bytes]] | None = None
        self._deadline_s = deadline_s
        self._changed = asyncio.Event()

    async def start(self, rooms: RoomTable) -> None:
        """Starts the broker."""
        await self.broker.start(self, rooms)

    def deliver(self, channel: str, delivery: Delivery) -> None:
        """Records a delivery."""
        self.received.append((channel, delivery))
        self._changed.set()

    async def settled(self) -> None:
        """Returns immediately."""

    async def answer(self, payload: bytes) -> bytes:
        """Answers a request with `answers`."""
        assert self.answers is not None, f"asked {payload!r}"
        return await self.answers(payload)

    async def publish(self, channel: str, message: Any, *, keep: bool = True) -> Position | None:
        """Publishes a message."""
        return await self.broker.publish(channel, Envelope(encode(message)), keep=keep)

    async def publish_numbered(self, channel: str, message: Any) -> Position:
        """Publishes a message in a room that has positions."""
        position = await self.publish(channel, message)
        assert position is not None, f"a message on {channel!r} got no position"
        return position

    async def until(self, reached: Callable[[], bool]) -> None:
        """Waits until a condition that depends on deliveries is true."""
        try:
            async with asyncio.timeout(self._deadline_s):
                while not reached():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not delivered in {self._deadline_s:g} s; there is {self.received!r}") from None

    async def all_of(self, channel: str) -> list[Delivery]:
        """Returns the deliveries of a channel, after everything that was published before the call has arrived."""
        end = f"end {len(self.received)} {id(self)}"
        await self.publish(channel, end, keep=False)
        await self.until(lambda: end in self._messages(channel))
        found = [delivery for on, delivery in self.received if on == channel]
        return [each for each in found if not isinstance(each, Envelope) or not _is_end(each)]

    async def messages(self, channel: str) -> list[Any]:
        """Returns the messages of a channel, after everything that was published before the call has arrived."""
        return [decode(each.payload) for each in await self.all_of(channel) if isinstance(each, Envelope)]

    async def announced(self, channel: str) -> list[Announcement]:
        """Returns the announcements of a channel, after everything that was published before the call has arrived."""
        return [each for each in await self.all_of(channel) if isinstance(each, Announcement)]

    async def announcements(self, channel: str) -> list[tuple[str, str | None, int]]:
        """Returns each announcement so far as its kind, its user, and the number of users at that time."""
        return [(each.kind, each.user_id, each.count) for each in await self.announced(channel)]

    async def offsets(self, channel: str) -> list[int]:
        """Returns the offsets of a channel, after everything that was published before the call has arrived."""
        envelopes = [each for each in await self.all_of(channel) if isinstance(each, Envelope)]
        return [each.position.offset for each in envelopes if each.position is not None]

    def _messages(self, channel: str) -> list[Any]:
        return [decode(each.payload) for on, each in self.received if on == channel and isinstance(each, Envelope)]


def _is_end(envelope: Envelope) -> bool:
    message = decode(envelope.payload)
    return isinstance(message, str) and message.startswith("end ")


def _offsets(page: Page) -> list[int]:
    return [entry.recorded().position.offset for entry in page.entries]


def _messages(page: Page) -> list[Any]:
    return [entry.recorded().message for entry in page.entries]


class BrokerSuite:
    """The tests. They cover everything in the contract of `hubbub.brokers.Broker` that is visible from outside.

    Attributes:
        ttl_s: The lifetime of a short-lived history, in seconds. For a real server, as short as its clock allows.
        deadline_s: The longest wait for a delivery, in seconds.
    """

    ttl_s: float = 1.0
    deadline_s: float = 5.0

    def brokers(self) -> AbstractAsyncContextManager[Sequence[Broker]]:
        """Returns brokers that share their data and are not started: two, or one if the broker is embedded."""
        raise NotImplementedError("say where the brokers come from: see the module's docstring")

    async def pass_time(self, seconds: float) -> None:
        """Lets time pass at the broker. Override it if tests can set the broker's clock."""
        await asyncio.sleep(seconds)

    @property
    def rooms(self) -> RoomTable:
        """Returns the options of the rooms in the tests."""
        kept = RoomOptions(history=History(SIZE, 60.0))
        rooms = {
            PLAIN: RoomOptions(),
            TOLD: RoomOptions(announce=True),
            BRIEF: RoomOptions(history=History(100, self.ttl_s)),
            "*": kept,
        }
        return RoomTable(rooms, everyone=kept, users=kept)

    @asynccontextmanager
    async def workers(self) -> AsyncIterator[tuple[Worker, Worker]]:
        """Yields two workers; with an embedded broker, the same worker twice."""
        async with self.brokers() as brokers:
            workers = [Worker(broker, self.deadline_s) for broker in brokers]
            for worker in workers:
                await worker.start(self.rooms)
            try:
                yield workers[0], workers[-1]
            finally:
                for worker in workers:
                    await worker.broker.close()

    async def _problem(self, asked: Awaitable[bytes], kind: type[Exception]) -> str:
        """Returns the text of the error that a request fails with, before the deadline."""
        try:
            async with asyncio.timeout(self.deadline_s):
                answer = await asked
        except kind as error:
            return str(error)
        except Exception as error:
            raise AssertionError(f"ended with {error!r} in place of {kind.__name__}") from error
        raise AssertionError(f"answered {answer!r}")

    # Delivery and order

    async def test_a_message_is_delivered_as_it_was_published(self) -> None:
        """Kind, data, key, exclusions and author arrive unchanged, on the publishing worker too."""
        sent = [
            Envelope(encode("text with ü and \0")),
            Envelope(encode("")),
            Envelope(encode(b"")),
            Envelope(encode(bytes(range(256)))),
            Envelope(encode({"a": [1, None, "ü"]}), frozenset({"one", "two"}), "a key"),
            Envelope(encode("not for all"), frozenset({"$user:ü", "$user:\0", "$user: "})),
            Envelope(encode(b"x" * 300_000), key=""),
            Envelope(encode(b""), author=Author("ä", "a1", b'{"name":"\xc3\x84nn"}', b'{"role":["owner"]}')),
            Envelope(encode({"n": 1}), frozenset({"one"}), "", author=Author(None, "x1")),
        ]
        for channel in (PLAIN, KEPT):
            async with self.workers() as (first, second):
                for worker in (first, second):
                    await worker.broker.subscribe(channel)
                for envelope in sent:
                    await first.broker.publish(channel, envelope)
                for worker in (first, second):
                    came = [each for each in await worker.all_of(channel) if isinstance(each, Envelope)]
                    assert [(each.payload, each.exclude, each.key, each.author) for each in came] == [
                        (each.payload, each.exclude, each.key, each.author) for each in sent
                    ]

    async def test_each_worker_gets_each_message_once_in_the_order_of_its_publisher(self) -> None:
        """Messages that one worker publishes one after another arrive once and in that order on every worker."""
        for channel in (PLAIN, KEPT):
            async with self.workers() as (first, second):
                for worker in (first, second):
                    await worker.broker.subscribe(channel)
                for number in range(50):
                    await second.publish(channel, number)
                for worker in (first, second):
                    assert await worker.messages(channel) == list(range(50))

    async def test_what_nobody_awaits_is_published_in_the_order_of_the_calls(self) -> None:
        """`publish_nowait` and `publish` share one order: that of the calls, or, by default, that of the awaits."""
        for channel in (PLAIN, KEPT):
            async with self.workers() as (first, second):
                for worker in (first, second):
                    await worker.broker.subscribe(channel)
                begins_at_once = type(first.broker).publish_nowait is not Broker.publish_nowait
                for number in range(0, 40, 2):
                    rest = first.broker.publish_nowait(channel, Envelope(encode(number)))
                    if begins_at_once:
                        await first.publish(channel, number + 1)
                    if rest is not None:
                        await rest
                    if not begins_at_once:
                        await first.publish(channel, number + 1)
                for worker in (first, second):
                    assert await worker.messages(channel) == list(range(40))

    async def test_all_workers_get_concurrent_messages_in_one_order(self) -> None:
        """Concurrent messages of several workers are numbered without gaps, and arrive in the order of the numbers."""
        async with self.workers() as (first, second):
            for worker in (first, second):
                await worker.broker.subscribe(KEPT)
            positions = await asyncio.gather(
                *(worker.publish_numbered(KEPT, number) for number in range(40) for worker in (first, second))
            )
            assert sorted(position.offset for position in positions) == list(range(1, 81))
            assert len({position.epoch for position in positions}) == 1
            assert await first.offsets(KEPT) == list(range(1, 81))
            assert await second.offsets(KEPT) == list(range(1, 81))
            assert await first.messages(KEPT) == await second.messages(KEPT)

    async def test_channels_do_not_mix(self) -> None:
        """A name is taken literally: no patterns, no prefixes, no special characters."""
        async with self.workers() as (first, second):
            for name in ODD_NAMES[::2]:
                await first.broker.subscribe(name)
            for name in ODD_NAMES:
                position = await second.publish_numbered(name, f"to {name}")
                assert position.offset == 1
            for name in ODD_NAMES[::2]:
                assert await first.messages(name) == [f"to {name}"]
            assert {channel for channel, _ in first.received} == set(ODD_NAMES[::2])
            for name in ODD_NAMES:
                assert _messages(await first.broker.history(name)) == [f"to {name}"]

    async def test_a_cancelled_publish_leaves_no_hole(self) -> None:
        """The message may or may not have been published; the messages after it are."""
        async with self.workers() as (first, second):
            await first.broker.subscribe(KEPT)
            cancelled = asyncio.create_task(second.publish(KEPT, "cancelled"))
            await asyncio.sleep(0)
            cancelled.cancel()
            await asyncio.wait([cancelled])
            last = await second.publish_numbered(KEPT, "after")
            assert last.offset in {1, 2}
            messages = await first.messages(KEPT)
            assert messages in (["after"], ["cancelled", "after"])
            assert _messages(await first.broker.history(KEPT)) == messages

    # Subscriptions

    async def test_nothing_comes_without_a_subscription(self) -> None:
        """A worker receives the channels that it subscribed to, and no others."""
        async with self.workers() as (first, second):
            await first.publish(PLAIN, "before")
            await first.broker.subscribe(PLAIN)
            await second.publish(PLAIN, "after")
            await second.publish(KEPT, "elsewhere")
            assert await first.messages(PLAIN) == ["after"]
            assert {channel for channel, _ in first.received} == {PLAIN}

    async def test_subscribe_is_idempotent(self) -> None:
        """After two subscribes a message is delivered once, and one unsubscribe ends the delivery."""
        async with self.workers() as (first, second):
            position = await first.broker.subscribe(KEPT)
            assert await first.broker.subscribe(KEPT) == position
            await second.publish(KEPT, "once")
            assert await first.messages(KEPT) == ["once"]
            await first.broker.unsubscribe(KEPT)
            await second.publish(KEPT, "unheard")
            await first.broker.subscribe(KEPT)
            assert await first.messages(KEPT) == ["once"]

    async def test_unsubscribe_ends_the_delivery_and_is_idempotent(self) -> None:
        """Messages that were published without a subscription never arrive, not even after the next subscription."""
        async with self.workers() as (first, second):
            await first.broker.unsubscribe(PLAIN)
            await first.broker.subscribe(PLAIN)
            await second.publish(PLAIN, "one")
            assert await first.messages(PLAIN) == ["one"]
            await first.broker.unsubscribe(PLAIN)
            await first.broker.unsubscribe(PLAIN)
            await second.publish(PLAIN, "two")
            await first.broker.subscribe(PLAIN)
            await second.publish(PLAIN, "three")
            assert await first.messages(PLAIN) == ["one", "three"]

    async def test_unsubscribe_is_of_one_worker_only(self) -> None:
        """Other workers still receive messages."""
        async with self.workers() as (first, second):
            for worker in (first, second):
                await worker.broker.subscribe(PLAIN)
            await second.broker.unsubscribe(PLAIN)
            if first is second:
                await first.broker.subscribe(PLAIN)
            await second.publish(PLAIN, "hello")
            assert await first.messages(PLAIN) == ["hello"]

    async def test_subscribe_gives_a_position_after_which_nothing_is_missed(self) -> None:
        """Each message after the position that subscribe returns is delivered once, also if published meanwhile."""
        async with self.workers() as (first, second):
            going, numbers = True, 0

            async def publish() -> None:
                nonlocal numbers
                while going:
                    numbers = (await second.publish_numbered(KEPT, "tick")).offset
                    await asyncio.sleep(0)

            publisher = asyncio.create_task(publish())
            try:
                for _ in range(20):
                    first.received.clear()
                    position = await first.broker.subscribe(KEPT)
                    assert position is not None
                    reached = max(numbers, position.offset) + 3
                    await first.until(partial(_has_come, first, reached))
                    offsets = [
                        each.position.offset
                        for _, each in first.received
                        if isinstance(each, Envelope) and each.position is not None
                    ]
                    assert offsets == list(range(offsets[0], offsets[-1] + 1)), "a gap or a repeat"
                    assert offsets[0] <= position.offset + 1, "missed what came after the position"
                    await first.broker.unsubscribe(KEPT)
            finally:
                going = False
                await publisher

    # Positions

    async def test_positions_count_from_one_without_holes(self) -> None:
        """All have one epoch of eight characters, and publish, delivery and `position` agree."""
        async with self.workers() as (first, second):
            start = await first.broker.subscribe(KEPT)
            assert start is not None
            assert start.offset == 0
            assert len(start.epoch) == len(start.epoch.encode()) == 8
            assert await second.broker.position(KEPT) == start
            for number in range(1, 9):
                assert await second.publish(KEPT, number) == Position(start.epoch, number)
                assert await first.broker.position(KEPT) == Position(start.epoch, number)
            came = [each.position for each in await first.all_of(KEPT) if isinstance(each, Envelope)]
            assert came == [Position(start.epoch, number) for number in range(1, 9)]

    async def test_each_room_has_an_epoch_of_its_own(self) -> None:
        """A position of one room is not valid in another."""
        async with self.workers() as (first, _):
            positions = [await first.broker.subscribe(channel) for channel in ("one", "two", "three")]
            assert len({position.epoch for position in positions if position is not None}) == 3

    async def test_reading_begins_nothing(self) -> None:
        """A room that was only read has no position on any worker until it is subscribed or published to."""
        async with self.workers() as (first, second):
            for worker in (first, second):
                for after in (None, Position("abcdefgh", 0), Position("abcdefgh", 7)):
                    assert await worker.broker.history(KEPT, after) == Page([], None, whole=False)
                assert await worker.broker.position(KEPT) is None
                assert await worker.broker.members(KEPT) == []
                assert await worker.broker.count(KEPT) == 0
                assert not await worker.broker.present(KEPT, "ann")
                assert not await worker.broker.connected(KEPT, "ann")
            start = await first.broker.subscribe(KEPT)
            assert start is not None
            assert await second.broker.position(KEPT) == start
            assert await second.broker.history(KEPT, start) == Page([], start, whole=True)
            one = await second.publish_numbered("another", "one")
            assert one.offset == 1
            assert await first.broker.position("another") == one

    async def test_a_room_that_was_read_before_anybody_came_recovers_as_any_other(self) -> None:
        """A member has a position from the start, even if the room was read before or in between."""
        async with self.workers() as (first, second):
            assert (await second.broker.history(KEPT)).head is None
            start = await first.broker.subscribe(KEPT)
            assert start is not None
            await first.broker.unsubscribe(KEPT)
            assert (await second.broker.history(KEPT, limit=1)).head == start
            await second.publish(KEPT, "missed")
            page = await first.broker.history(KEPT, start)
            assert page.whole
            assert _messages(page) == ["missed"]

    async def test_a_room_without_positions_has_none(self) -> None:
        """The broker numbers and keeps nothing in such a room."""
        async with self.workers() as (first, second):
            assert await first.broker.subscribe(PLAIN) is None
            assert await second.publish(PLAIN, "hello") is None
            assert await first.broker.position(PLAIN) is None
            assert await first.broker.history(PLAIN) == Page([], None, whole=False)
            assert await first.broker.history(PLAIN, Position("abcdefgh", 0), 10) == Page([], None, whole=False)

    async def test_what_is_not_to_be_kept_has_no_position(self) -> None:
        """A message with ``keep=False`` is delivered in order with the others, but not numbered or kept."""
        async with self.workers() as (first, second):
            await first.broker.subscribe(KEPT)
            await second.publish(KEPT, "one")
            assert await second.publish(KEPT, "news", keep=False) is None
            assert (await second.publish_numbered(KEPT, "two")).offset == 2
            came = [each for each in await first.all_of(KEPT) if isinstance(each, Envelope)]
            assert [decode(each.payload) for each in came] == ["one", "news", "two"]
            assert came[1].position is None
            assert _messages(await first.broker.history(KEPT)) == ["one", "two"]

    # History

    async def test_history_without_a_position_gives_the_newest_oldest_first(self) -> None:
        """The result is bounded by ``limit`` and by what is kept."""
        async with self.workers() as (first, second):
            assert (await second.broker.history(KEPT)).entries == []
            for number in range(1, 8):
                await first.publish(KEPT, number)
            page = await second.broker.history(KEPT)
            assert _messages(page) == [3, 4, 5, 6, 7]
            assert page.head == await first.broker.position(KEPT)
            assert _messages(await second.broker.history(KEPT, limit=2)) == [6, 7]
            assert _messages(await second.broker.history(KEPT, limit=100)) == [3, 4, 5, 6, 7]

    async def test_history_after_a_position_is_exactly_what_was_missed(self) -> None:
        """The result is whole, in order, and has positions; after the head it is empty."""
        async with self.workers() as (first, second):
            positions = [await first.broker.subscribe(KEPT)]
            positions += [await first.publish(KEPT, number) for number in range(1, SIZE + 1)]
            for missed_from, position in enumerate(positions):
                page = await second.broker.history(KEPT, position)
                assert page.whole
                assert page.last
                assert page.head == positions[-1]
                assert _messages(page) == list(range(missed_from + 1, SIZE + 1))
                assert [entry.recorded().position for entry in page.entries] == positions[missed_from + 1 :]

    async def test_history_is_read_in_pages(self) -> None:
        """With a position, ``limit`` returns the oldest messages after it, and the last page is marked as the last."""
        async with self.workers() as (first, second):
            after = await first.broker.subscribe(KEPT)
            for number in range(1, SIZE + 1):
                await first.publish(KEPT, number)
            found: list[Any] = []
            for _ in range(SIZE):
                page = await second.broker.history(KEPT, after, 2)
                assert page.whole
                assert len(page.entries) <= 2
                found += _messages(page)
                if page.last:
                    break
                after = page.entries[-1].recorded().position
            assert found == list(range(1, SIZE + 1))

    async def test_history_that_was_trimmed_by_size_is_not_whole(self) -> None:
        """The page is marked and has the oldest messages that are kept; after a newer position it is whole."""
        async with self.workers() as (first, second):
            positions = [await first.publish(KEPT, number) for number in range(1, SIZE + 4)]
            for position in positions[:2]:
                page = await second.broker.history(KEPT, position)
                assert not page.whole
                assert _messages(page) == [4, 5, 6, 7, 8]
                page = await second.broker.history(KEPT, position, 2)
                assert not page.whole
                assert _messages(page) == [4, 5]
            page = await second.broker.history(KEPT, positions[2])
            assert page.whole
            assert _messages(page) == [4, 5, 6, 7, 8]

    async def test_history_that_was_trimmed_by_age_is_not_whole(self) -> None:
        """A message is kept for the room's ttl, and the numbering continues."""
        async with self.workers() as (first, second):
            start = await first.broker.subscribe(BRIEF)
            one = await first.publish_numbered(BRIEF, "one")
            await self.pass_time(self.ttl_s * 0.7)
            two = await first.publish_numbered(BRIEF, "two")
            page = await second.broker.history(BRIEF, start)
            assert page.whole
            assert _messages(page) == ["one", "two"]
            await self.pass_time(self.ttl_s * 0.5)
            page = await second.broker.history(BRIEF, start)
            assert not page.whole
            assert _messages(page) == ["two"]
            assert _messages(await second.broker.history(BRIEF)) == ["two"]
            page = await second.broker.history(BRIEF, one)
            assert page.whole
            assert _messages(page) == ["two"]
            assert two == Position(one.epoch, 2)
            assert page.head == two

    async def test_what_is_too_old_is_never_called_whole(self) -> None:
        """After the ttl nothing is kept, and a page with a gap is not whole, whether or not the epoch changed."""
        async with self.workers() as (first, second):
            start = await first.broker.subscribe(BRIEF)
            await first.publish_numbered(BRIEF, "one")
            await self.pass_time(self.ttl_s * 1.5)
            page = await second.broker.history(BRIEF, start)
            assert not page.whole
            assert page.entries == []
            after = await first.publish_numbered(BRIEF, "two")
            assert _messages(await second.broker.history(BRIEF)) == ["two"]
            assert after.offset in {1, 2}

    async def test_a_position_of_elsewhere_is_not_whole(self) -> None:
        """A position of another epoch, or past the head, does not belong to the room."""
        async with self.workers() as (first, second):
            head = await first.publish_numbered(KEPT, "one")
            other = await first.publish_numbered("other", "one")
            for position in (Position("zzzzzzzz", 0), Position("", 1), other, head._replace(offset=2)):
                page = await second.broker.history(KEPT, position)
                assert not page.whole, position
                assert page.head == head

    async def test_history_outlives_the_members(self) -> None:
        """A client that comes back to an empty room finds the messages, also those published while it was empty."""
        async with self.workers() as (first, second):
            await first.broker.subscribe(KEPT)
            position = await first.publish_numbered(KEPT, "one")
            await first.broker.unsubscribe(KEPT)
            await second.publish(KEPT, "two")
            assert await first.broker.subscribe(KEPT) == Position(position.epoch, 2)
            page = await first.broker.history(KEPT, position)
            assert page.whole
            assert _messages(page) == ["two"]

    async def test_history_gives_copies_of_what_the_json_of_messages_says(self) -> None:
        """Changes to the publisher's object, or to another reader's copy, do not affect the history."""
        async with self.workers() as (first, second):
            tags = ["a"]
            message = {"at": datetime(2026, 1, 2, tzinfo=UTC), "pair": (1, 2), "big": 2**70, "tags": tags, 7: None}
            said = {"at": "2026-01-02T00:00:00Z", "pair": [1, 2], "big": 2**70, "tags": ["a"], "7": None}
            await first.publish(KEPT, message)
            tags.append("changed")
            for worker in (first, second, first):
                (read,) = _messages(await worker.broker.history(KEPT))
                assert read == said
                read["tags"].append("changed")

    async def test_history_keeps_a_message_as_it_was_published(self) -> None:
        """The history keeps kind, data, key, exclusions and author, and the time of publication (UTC)."""
        sent = [
            Envelope(encode("text")),
            Envelope(encode(bytes(range(256))), key="a key"),
            Envelope(encode({"a": [1, None, "ü"]}), frozenset({"one", "two"}), author=Author("ann", "a1", b'{"n":1}')),
        ]
        async with self.workers() as (first, second):
            before = datetime.now(UTC)
            for envelope in sent:
                await first.broker.publish(KEPT, envelope)
            page = await second.broker.history(KEPT)
            found = [entry.envelope for entry in page.entries]
            assert [(each.payload, each.exclude, each.key, each.author) for each in found] == [
                (each.payload, each.exclude, each.key, each.author) for each in sent
            ]
            assert _messages(page) == ["text", bytes(range(256)), {"a": [1, None, "ü"]}]
            assert _offsets(page) == [1, 2, 3]
            for entry in page.entries:
                assert entry.sent_at.utcoffset() == timedelta(0)
                assert abs(entry.sent_at - before) < timedelta(seconds=60)

    async def test_a_history_that_was_cleared_is_empty_and_its_numbering_continues(self) -> None:
        """A position before the end is not whole any more. The other channels keep their messages."""
        async with self.workers() as (first, second):
            positions = [await first.publish_numbered(KEPT, number) for number in range(3)]
            await first.publish_numbered(BRIEF, "stays")
            await second.broker.clear_history(KEPT)
            for worker in (first, second):
                page = await worker.broker.history(KEPT)
                assert (_messages(page), page.head) == ([], positions[-1])
                assert not (await worker.broker.history(KEPT, positions[0])).whole
                at_the_end = await worker.broker.history(KEPT, positions[-1])
                assert (at_the_end.whole, at_the_end.entries) == (True, [])
                assert _messages(await worker.broker.history(BRIEF)) == ["stays"]
            later = await second.publish_numbered(KEPT, "later")
            assert later == (positions[-1].epoch, positions[-1].offset + 1)
            page = await first.broker.history(KEPT, positions[-1])
            assert (page.whole, _messages(page)) == (True, ["later"])
            for channel in (PLAIN, "never used"):  # has no history, and is given none
                await first.broker.clear_history(channel)
                assert (await first.broker.history(channel)).head is None

    # Published once

    async def test_a_message_is_published_once_whichever_worker_repeats_it(self) -> None:
        """A repetition is answered with the position of the first. Each channel has keys of its own."""
        async with self.workers() as (first, second):
            for channel in (KEPT, TOLD):
                await first.broker.subscribe(channel)
                one, other = Envelope(encode("one")), Envelope(encode("other"))
                at = await first.broker.publish(channel, one, once="a key")
                await first.publish(channel, "between")
                for worker in (first, second):
                    assert await worker.broker.publish(channel, one, once="a key") == at
                after = await second.broker.publish(channel, other, once="another key")
                assert await first.broker.publish(channel, other, once="another key") == after
                last = await first.publish(channel, "last")
                assert await first.messages(channel) == ["one", "between", "other", "last"]
                assert [each and each.offset for each in (at, after, last)] == (
                    [1, 3, 4] if channel == KEPT else [None, None, None]
                )

    async def test_concurrent_repetitions_publish_one_message(self) -> None:
        """All are answered alike."""
        async with self.workers() as (first, second):
            for channel in (KEPT, TOLD):
                await first.broker.subscribe(channel)
                same = Envelope(encode("same"))
                repeated = [each.broker.publish(channel, same, once="k") for each in (first, second) * 10]
                positions = await asyncio.gather(*repeated)
                assert len(set(positions)) == 1
                assert await first.messages(channel) == ["same"]

    async def test_what_is_published_once_may_be_unnumbered(self) -> None:
        """With ``keep=False`` it has no position in any channel."""
        async with self.workers() as (first, second):
            await first.broker.subscribe(KEPT)
            typing = Envelope(encode("typing"))
            for worker in (first, second):
                assert await worker.broker.publish(KEPT, typing, keep=False, once="k") is None
            assert await first.messages(KEPT) == ["typing"]

    # Instructions

    async def test_an_instruction_reaches_every_worker_in_its_place(self) -> None:
        """It arrives in order with the messages, but is not numbered or kept."""
        kick = Kick(4001, "because ü")
        for channel in (PLAIN, KEPT):
            async with self.workers() as (first, second):
                for worker in (first, second):
                    await worker.broker.subscribe(channel)
                await second.publish(channel, "before")
                await second.broker.instruct(channel, kick)
                await second.publish(channel, "after")
                for worker in (first, second):
                    came = await worker.all_of(channel)
                    assert len(came) == 3
                    assert came[1] == kick
                page = await first.broker.history(channel)
                assert _messages(page) == ([] if channel == PLAIN else ["before", "after"])

    async def test_each_kind_of_instruction_arrives_as_it_was_given(self) -> None:
        """Each arrives once with all its fields, in the order of the calls."""
        given: list[Instruction] = [
            Subscribe("a room ü"),
            Subscribe("a room ü", only="one", info={"role": "ü"}),
            Unsubscribe("a room ü"),
            Unsubscribe("a room ü", only="one"),
            Refresh(1_800_000_000.25),
            Refresh(None, only="one"),
            Kick(1008, ""),
            Kick(1008, "", only="one", spared=("two", "three")),
        ]
        async with self.workers() as (first, second):
            for worker in (first, second):
                await worker.broker.subscribe(PLAIN)  # so that it has read the earlier instructions
            for instruction in given:
                await second.broker.instruct("$user:ü", instruction)
                assert second.received[-1] == ("$user:ü", instruction)
            for worker in (first, second):
                await worker.until(lambda worker=worker: ("$user:ü", given[-1]) in worker.received)  # type: ignore[misc]
                assert worker.received == [("$user:ü", instruction) for instruction in given]

    async def test_an_instruction_reaches_a_worker_without_members_too(self) -> None:
        """Such a worker may have users in their grace period. The instruction does not arrive later or elsewhere."""
        async with self.workers() as (first, second):
            await first.broker.subscribe(PLAIN)
            kick = Kick(4001, "")
            await second.broker.instruct(KEPT, kick)
            await first.until(lambda: (KEPT, kick) in first.received)
            await first.broker.subscribe(KEPT)
            assert await first.all_of(KEPT) == [kick]
            assert await first.all_of(PLAIN) == []

    # Requests

    @asynccontextmanager
    async def askable(self) -> AsyncIterator[tuple[Worker, Worker]]:
        """Yields two workers that can be asked. Both have a subscription, so they are connected."""
        async with self.workers() as (first, second):
            for worker in (first, second):
                await worker.broker.subscribe(PLAIN)
            yield first, second

    async def test_a_worker_answers_what_it_is_asked(self) -> None:
        """Any worker can be asked by name, including the asking one. Both ways, bytes up to the bound are allowed."""

        async def turn_around(payload: bytes) -> bytes:
            return payload[::-1]

        async with self.askable() as (first, second):
            second.answers = turn_around
            name = second.broker.worker
            assert (name == first.broker.worker) == (first is second)
            for asking in (first, second):
                for payload in (b"", b"\0\xff", b"ab" * (MAX_REQUEST_BYTES // 2)):
                    assert await asking.broker.ask(name, payload, self.deadline_s) == payload[::-1]
            assert first.received == second.received == [], "a request is not a delivery"

    async def test_all_workers_that_can_be_asked_are_listed(self) -> None:
        """Each worker is listed once, at every worker. One that has stopped is not."""
        async with self.askable() as (first, second):
            names = sorted({first.broker.worker, second.broker.worker})
            for worker in (first, second):
                assert sorted(await worker.broker.workers()) == names
            if first is not second:
                await second.broker.close()
                async with asyncio.timeout(self.deadline_s):
                    while await first.broker.workers() != [first.broker.worker]:  # noqa: ASYNC110 - no event tells
                        await asyncio.sleep(0.01)

    async def test_each_request_gets_its_own_answer(self) -> None:
        """Each request gets its own answer, also if a later request is answered first."""
        answered: dict[bytes, asyncio.Event] = {b"%d" % number: asyncio.Event() for number in range(20)}

        async def answer(payload: bytes) -> bytes:
            later = answered.get(b"%d" % (int(payload) + 1))
            if later is not None:
                await later.wait()
            answered[payload].set()
            return b"to " + payload

        async with self.askable() as (first, second):
            second.answers = answer
            asking = (first.broker.ask(second.broker.worker, payload, self.deadline_s) for payload in answered)
            assert await asyncio.gather(*asking) == [b"to " + payload for payload in answered]

    async def test_a_worker_that_does_not_exist_is_not_waited_for(self) -> None:
        """A worker whose broker is closed is not waited for either."""
        async with self.askable() as (first, second):
            names = ["nobody", "", "*", "a b"]
            if first is not second:
                names.append(second.broker.worker)
                await second.broker.close()
            for name in names:
                assert await self._problem(first.broker.ask(name, b"?", 60.0), NoSuchWorker)

    async def test_an_answer_that_does_not_come_in_time_is_not_waited_for(self) -> None:
        """The asked worker stops working on the request."""
        given_up = asyncio.Event()

        async def never(payload: bytes) -> bytes:
            try:
                await asyncio.Event().wait()
            finally:
                given_up.set()
            return b""

        async with self.askable() as (first, second):
            second.answers = never
            problem = await self._problem(first.broker.ask(second.broker.worker, b"?", 0.05), BrokerUnavailable)
            assert "0.05 s" in problem
            async with asyncio.timeout(self.deadline_s):
                await given_up.wait()

    async def test_a_worker_that_fails_to_answer_says_so(self) -> None:
        """This holds if the worker raises, and if its answer is too large."""

        async def fail(payload: bytes) -> bytes:
            raise RuntimeError(payload)

        async def too_much(payload: bytes) -> bytes:
            return bytes(MAX_REQUEST_BYTES + 1)

        async with self.askable() as (first, second):
            for answers, why in ((fail, "failed"), (too_much, str(MAX_REQUEST_BYTES + 1))):
                second.answers = answers
                asked = first.broker.ask(second.broker.worker, b"?", self.deadline_s)
                assert why in await self._problem(asked, BrokerUnavailable)

    async def test_requests_are_bounded(self) -> None:
        """Size and number are bounded. A request over a bound fails immediately; the others are answered."""
        go = asyncio.Event()

        async def held(payload: bytes) -> bytes:
            await go.wait()
            return payload

        async with self.askable() as (first, second):
            second.answers = held
            name = second.broker.worker
            too_large = first.broker.ask(name, bytes(MAX_REQUEST_BYTES + 1), self.deadline_s)
            assert str(MAX_REQUEST_BYTES) in await self._problem(too_large, InvalidArgument)
            ask = partial(first.broker.ask, name, timeout_s=self.deadline_s)
            asking = [asyncio.ensure_future(ask(b"%d" % number)) for number in range(MAX_REQUESTS)]
            await asyncio.sleep(0)  # lets each begin
            assert str(MAX_REQUESTS) in await self._problem(ask(b"one too many"), BrokerUnavailable)
            go.set()
            assert await asyncio.gather(*asking) == [b"%d" % number for number in range(MAX_REQUESTS)]
            assert await ask(b"again") == b"again"

    async def test_closing_ends_the_wait_for_answers(self) -> None:
        """A caller does not wait for an answer that can no longer arrive."""
        asked = asyncio.Event()

        async def never(payload: bytes) -> bytes:
            asked.set()
            await asyncio.Event().wait()
            return b""

        async with self.askable() as (first, second):
            second.answers = never
            asking = asyncio.ensure_future(first.broker.ask(second.broker.worker, b"?", 60.0))
            async with asyncio.timeout(self.deadline_s):
                await asked.wait()
                await first.broker.close()
                assert "closed" in await self._problem(asking, BrokerUnavailable)

    # Presence

    async def test_presence_begins_with_the_first_connection_and_ends_with_the_last(self) -> None:
        """This holds across workers. The count is of users, not of connections."""
        async with self.workers() as (first, second):
            one, two = first.broker, second.broker
            await one.enter(PLAIN, "ann", "a1", {"n": 1})
            await two.enter(PLAIN, "ann", "a2", {"n": 2})
            assert await one.count(PLAIN) == 1
            await two.enter(PLAIN, "bob", "b1", None)
            assert await one.count(PLAIN) == await two.count(PLAIN) == 2
            await one.exit(PLAIN, "ann", "a1")
            assert await one.present(PLAIN, "ann")
            await two.exit(PLAIN, "ann", "a2")
            assert not await one.present(PLAIN, "ann")
            await two.exit(PLAIN, "bob", "b1")
            assert await one.count(PLAIN) == 0
            assert await one.members(PLAIN) == []

    async def test_a_room_is_told_of_first_and_last_connections(self) -> None:
        """Rooms with announcements hear of each user once, on every worker, under the id of its first connection."""
        async with self.workers() as (first, second):
            for worker in (first, second):
                for channel in (TOLD, PLAIN):
                    await worker.broker.subscribe(channel)
            before = datetime.now(UTC)
            for channel in (TOLD, PLAIN):
                await first.broker.enter(channel, 'ä"', "a1", {"n": [1]})
                await second.broker.enter(channel, 'ä"', "a2", {"n": [2]})
                await second.broker.enter(channel, "bob", "b1", None)
                await first.broker.exit(channel, 'ä"', "a1")
                await second.broker.exit(channel, 'ä"', "a2")
                await second.broker.exit(channel, 'ä"', "a2")
            for worker in (first, second):
                news = await worker.announced(TOLD)
                assert [(each.kind, each.user_id, loads(each.info), each.count) for each in news] == [
                    ("joined", 'ä"', {"n": [1]}, 1),
                    ("joined", "bob", None, 2),
                    ("left", 'ä"', {"n": [2]}, 1),
                ]
                assert [each.connection_id for each in news] == ["a1", "b1", "a1"]
                for each in news:
                    assert each.at.utcoffset() == timedelta(0)
                    assert abs(each.at - before) < timedelta(seconds=60)
                assert await worker.messages(TOLD) == []
                assert await worker.offsets(TOLD) == []
                assert await worker.all_of(PLAIN) == []

    async def test_a_room_is_told_the_room_info_of_the_connection_that_came_or_went(self) -> None:
        """A connection that lingered still has it."""
        async with self.workers() as (first, second):
            await first.broker.subscribe(TOLD)
            await first.broker.enter(TOLD, "ann", "a1", {"n": 1}, {"role": "ö"})
            await second.broker.enter(TOLD, "ann", "a2", {"n": 2}, {"role": "guest"})
            await first.broker.exit(TOLD, "ann", "a1")
            await second.broker.linger(TOLD, "ann", "a2", 60.0)
            await second.broker.exit(TOLD, "ann", "a2")
            await second.broker.enter(TOLD, "bob", "b1", None)
            assert [(each.kind, loads(each.info), loads(each.room_info)) for each in await first.announced(TOLD)] == [
                ("joined", {"n": 1}, {"role": "ö"}),
                ("left", {"n": 2}, {"role": "guest"}),
                ("joined", None, None),
            ]

    async def test_what_a_room_is_told_is_in_the_order_in_which_it_was_so(self) -> None:
        """A user may leave one worker and join the other at once: the last announcement must tell the final state."""
        async with self.workers() as (first, second):
            await first.broker.subscribe(TOLD)
            brokers = (first.broker, second.broker)
            await brokers[0].enter(TOLD, "ann", "a0", None)
            for number in range(1, 30):
                here, there = brokers[number % 2], brokers[(number - 1) % 2]
                await asyncio.gather(
                    there.exit(TOLD, "ann", f"a{number - 1}"), here.enter(TOLD, "ann", f"a{number}", None)
                )
                heard = await first.announcements(TOLD)
                assert heard[-1] == ("joined", "ann", 1)
                assert [kind for kind, _, _ in heard] == ["joined", "left"] * (len(heard) // 2) + ["joined"]

    async def test_members_are_users_with_their_connections(self) -> None:
        """A member has the info of its latest connection, and the time of its first one."""
        async with self.workers() as (first, second):
            before = datetime.now(UTC)
            await first.broker.enter(PLAIN, "ann", "a1", {"name": "Änn"})
            since = (await second.broker.members(PLAIN))[0].since
            assert abs(since - before) < timedelta(seconds=60)
            assert since.utcoffset() == timedelta(0)
            await second.broker.enter(PLAIN, "ann", "a2", {"name": "Ann", "tags": [1]})
            await second.broker.enter(PLAIN, "bob", "b1", None)
            for worker in (first, second):
                ann, bob = sorted(await worker.broker.members(PLAIN), key=lambda member: member.user_id)
                assert (ann.user_id, ann.info, ann.connections) == ("ann", {"name": "Ann", "tags": [1]}, 2)
                assert ann.since == since
                assert (bob.user_id, bob.info, bob.connections) == ("bob", None, 1)

    async def test_info_is_a_copy_of_what_its_json_says(self) -> None:
        """Changes to the caller's object, or to another reader's copy, do not affect the info."""
        async with self.workers() as (first, second):
            await first.broker.subscribe(TOLD)
            tags = ["a"]
            info: dict[Any, Any] = {
                "at": datetime(2026, 1, 2, tzinfo=UTC),
                "pair": (1, 2),
                "big": 2**70,
                "tags": tags,
                7: {"x": None},
            }
            said = {"at": "2026-01-02T00:00:00Z", "pair": [1, 2], "big": 2**70, "tags": ["a"], "7": {"x": None}}
            await first.broker.enter(TOLD, "ann", "a1", info)
            tags.append("changed")
            info["more"] = True
            for worker in (first, second, first):
                (member,) = await worker.broker.members(TOLD)
                assert member.info == said
                assert member.info is not None
                member.info["tags"].append("changed")
            await first.broker.exit(TOLD, "ann", "a1")
            assert [loads(each.info) for each in await first.announced(TOLD)] == [said, said]

    async def test_a_user_whose_connection_was_lost_lingers(self) -> None:
        """The user is present without a connection until `exit`."""
        async with self.workers() as (first, second):
            await first.broker.enter(PLAIN, "ann", "a1", None)
            await first.broker.linger(PLAIN, "ann", "a1", 60.0)
            await first.broker.linger(PLAIN, "ann", "a1", 60.0)
            assert await second.broker.present(PLAIN, "ann")
            assert await second.broker.count(PLAIN) == 1
            assert [member.connections for member in await second.broker.members(PLAIN)] == [0]
            await first.broker.exit(PLAIN, "ann", "a1")
            assert not await second.broker.present(PLAIN, "ann")

    async def test_a_connection_in_the_grace_takes_the_presence_over(self) -> None:
        """A page that is reloaded is not announced, on whichever worker it comes back."""
        async with self.workers() as (first, second):
            await first.broker.subscribe(TOLD)
            await first.broker.enter(TOLD, "ann", "a1", {"n": 1})
            since = (await first.broker.members(TOLD))[0].since
            await first.broker.linger(TOLD, "ann", "a1", 60.0)
            await second.broker.enter(TOLD, "ann", "a2", {"n": 2})
            assert [(m.connections, m.since) for m in await first.broker.members(TOLD)] == [(1, since)]
            await first.broker.exit(TOLD, "ann", "a1")
            assert await first.broker.present(TOLD, "ann")
            assert await first.announcements(TOLD) == [("joined", "ann", 1)]
            await second.broker.exit(TOLD, "ann", "a2")
            assert await first.announcements(TOLD) == [("joined", "ann", 1), ("left", "ann", 0)]
            assert [each.connection_id for each in await first.announced(TOLD)] == ["a1", "a1"]

    async def test_leaving_at_once_in_the_grace_of_a_forgotten_connection_ends_the_presence(self) -> None:
        """The new connection took over from the lingering one, which no longer keeps its user present."""
        async with self.workers() as (first, second):
            await first.broker.enter(PLAIN, "ann", "a1", None)
            await first.broker.linger(PLAIN, "ann", "a1", 60.0)
            await second.broker.enter(PLAIN, "ann", "a2", None)
            await second.broker.exit(PLAIN, "ann", "a2")
            assert not await first.broker.present(PLAIN, "ann")

    async def test_exit_is_idempotent(self) -> None:
        """A second `exit`, and one of an unknown connection, change nothing."""
        async with self.workers() as (first, second):
            await second.broker.subscribe(TOLD)
            await first.broker.exit(TOLD, "ann", "a1")
            await first.broker.linger(TOLD, "ann", "a1", 60.0)
            assert await first.broker.count(TOLD) == 0
            await first.broker.enter(TOLD, "ann", "a1", None)
            await first.broker.enter(TOLD, "bob", "b1", None)
            await first.broker.exit(TOLD, "ann", "unknown")
            assert await first.broker.present(TOLD, "ann")
            for worker in (first, second, first):
                await worker.broker.exit(TOLD, "ann", "a1")
                assert await first.broker.count(TOLD) == 1
            assert (await second.announcements(TOLD))[2:] == [("left", "ann", 1)]

    async def test_presence_is_of_one_room(self) -> None:
        """A user and connection in two rooms are present in each independently."""
        async with self.workers() as (first, second):
            for name in ODD_NAMES:
                await first.broker.enter(name, "ann", "a1", None)
            await first.broker.exit(ODD_NAMES[0], "ann", "a1")
            for name in ODD_NAMES[1:]:
                assert await second.broker.present(name, "ann")
                assert not await second.broker.present(name, "an")
                assert await second.broker.count(name) == 1
            assert not await second.broker.present(ODD_NAMES[0], "ann")

    async def test_of_many_who_come_and_go_at_once_one_is_first_and_one_is_last(self) -> None:
        """Presence begins and ends once, however many connections race."""
        async with self.workers() as (first, second):
            await second.broker.subscribe(TOLD)
            both = [(number, worker.broker) for number, worker in enumerate((first, second) * 10)]
            await asyncio.gather(*(broker.enter(TOLD, "ann", f"a{number}", None) for number, broker in both))
            assert [member.connections for member in await first.broker.members(TOLD)] == [20]
            await asyncio.gather(*(broker.exit(TOLD, "ann", f"a{number}") for number, broker in both))
            assert await second.broker.count(TOLD) == 0
            assert await second.announcements(TOLD) == [("joined", "ann", 1), ("left", "ann", 0)]

    # Connections

    async def test_connections_are_listed_each_with_what_it_says(self) -> None:
        """Until it leaves, a connection is listed with its own info and room info, whatever the user's others have."""
        async with self.workers() as (first, second):
            one, two = first.broker, second.broker
            await one.enter(PLAIN, "ann", "a1", {"n": 1})
            await two.enter(PLAIN, "ann", "a2", {"n": 2}, {"role": "owner"})
            await one.enter(PLAIN, "ann", "a3", {"n": 2})
            await two.enter(PLAIN, None, "x1", {"n": 3}, {"role": "guest"})
            await one.enter(PLAIN, None, "x2", None)
            await one.enter(KEPT, "bob", "b1", None)
            expected = [
                PresentConnection("a1", "ann", {"n": 1}, None, True, "a1"),
                PresentConnection("a2", "ann", {"n": 2}, {"role": "owner"}, True, "a1"),
                PresentConnection("a3", "ann", {"n": 2}, None, True, "a1"),
                PresentConnection("x1", None, {"n": 3}, {"role": "guest"}, True, "x1"),
                PresentConnection("x2", None, None, None, True, "x2"),
            ]
            for broker in (one, two):
                assert await _connections(broker, PLAIN) == expected
                assert [each.connection_id for each in await broker.connections(KEPT)] == ["b1"]
                assert await broker.connections(BRIEF) == []
            await one.exit(PLAIN, "ann", "a1")
            await one.exit(PLAIN, None, "x2")
            await one.exit(PLAIN, None, "x2")
            assert await _connections(two, PLAIN) == expected[1:4]
            assert [member.info for member in await two.members(PLAIN)] == [{"n": 2}]
            await two.exit(PLAIN, "ann", "a2")
            await one.exit(PLAIN, "ann", "a3")
            await two.exit(PLAIN, None, "x1")
            assert await one.connections(PLAIN) == []

    async def test_a_lost_connection_is_listed_until_its_grace_is_over_or_taken_over(self) -> None:
        """It is not listed as live, and its user keeps the id under which it was announced."""
        async with self.workers() as (first, second):
            await first.broker.enter(PLAIN, "ann", "a1", {"n": 1}, {"role": "owner"})
            await first.broker.linger(PLAIN, "ann", "a1", 60.0)
            lost = PresentConnection("a1", "ann", {"n": 1}, {"role": "owner"}, False, "a1")
            assert await second.broker.connections(PLAIN) == [lost]
            await second.broker.enter(PLAIN, "ann", "a2", {"n": 2})
            assert await first.broker.connections(PLAIN) == [PresentConnection("a2", "ann", {"n": 2}, None, True, "a1")]

    async def test_each_worker_knows_the_presence_ids_of_its_connections(self) -> None:
        """It is the one in `connections`, from `enter` on, also when the first connection of the user is gone."""
        async with self.workers() as (first, second):
            one, two = first.broker, second.broker
            await one.enter(PLAIN, "ann", "a1", None)
            await one.enter(PLAIN, "ann", "a2", None)
            await two.enter(PLAIN, "ann", "a3", None)
            await two.enter(PLAIN, None, "x1", None)
            for broker, user, connection_id, presence_id in [
                (one, "ann", "a1", "a1"),
                (one, "ann", "a2", "a1"),
                (two, "ann", "a3", "a1"),
                (two, None, "x1", "x1"),
                (two, "bob", "b1", "b1"),
            ]:
                assert broker.presence_id(PLAIN, user, connection_id) == presence_id
            await one.exit(PLAIN, "ann", "a1")
            assert {each.presence_id for each in await one.connections(PLAIN) if each.user_id} == {"a1"}
            assert one.presence_id(PLAIN, "ann", "a2") == two.presence_id(PLAIN, "ann", "a3") == "a1"
            await one.exit(PLAIN, "ann", "a2")
            await two.exit(PLAIN, "ann", "a3")
            await one.enter(PLAIN, "ann", "a4", None)
            await two.enter(PLAIN, "ann", "a5", None)
            assert one.presence_id(PLAIN, "ann", "a4") == two.presence_id(PLAIN, "ann", "a5") == "a4"

    async def test_an_anonymous_connection_is_no_user_and_is_announced_by_itself(self) -> None:
        """This holds for any id, also that of a user."""
        async with self.workers() as (first, second):
            await second.broker.subscribe(TOLD)
            await first.broker.enter(TOLD, None, "ann", {"n": 1}, {"m": 2})
            await first.broker.enter(TOLD, None, "ann", {"n": 1}, {"m": 2})
            for worker in (first, second):
                assert await worker.broker.count(TOLD) == 0
                assert await worker.broker.members(TOLD) == []
                assert not await worker.broker.present(TOLD, "ann")
                assert not await worker.broker.connected(TOLD, "ann")
            await second.broker.enter(TOLD, "ann", "a1", None)
            await first.broker.enter(TOLD, None, "x1", None)
            await first.broker.exit(TOLD, None, "ann")
            assert await first.broker.count(TOLD) == 1
            assert await first.broker.present(TOLD, "ann")
            await second.broker.exit(TOLD, "ann", "a1")
            assert [each.connection_id for each in await second.broker.connections(TOLD)] == ["x1"]
            news = await second.announced(TOLD)
            assert [(each.kind, each.user_id, each.connection_id, each.count) for each in news] == [
                ("joined", None, "ann", 1),
                ("joined", "ann", "a1", 1),
                ("joined", None, "x1", 2),
                ("left", None, "ann", 1),
                ("left", "ann", "a1", 0),
            ]
            assert [(loads(news[at].info), loads(news[at].room_info)) for at in (0, 3)] == [({"n": 1}, {"m": 2})] * 2

    # The rest

    async def test_a_user_is_connected_while_it_has_a_live_connection(self) -> None:
        """This holds across workers, per room. Neither a user in its grace period nor a subscription is connected."""
        async with self.workers() as (first, second):
            one, two = first.broker, second.broker
            await two.subscribe(PLAIN)
            assert not await two.connected(PLAIN, "ann")
            await one.enter(PLAIN, "ann", "a1", None)
            for broker in (one, two):
                assert await broker.connected(PLAIN, "ann")
                assert not await broker.connected(PLAIN, "an")
                assert not await broker.connected(KEPT, "ann")
            await two.enter(PLAIN, "ann", "a2", None)
            await one.exit(PLAIN, "ann", "a1")
            assert await one.connected(PLAIN, "ann")
            await two.linger(PLAIN, "ann", "a2", 60.0)
            assert await one.present(PLAIN, "ann")
            assert not await one.connected(PLAIN, "ann")
            await one.enter(PLAIN, "ann", "a3", None)
            assert await two.connected(PLAIN, "ann")
            await one.exit(PLAIN, "ann", "a3")
            assert not await two.connected(PLAIN, "ann")

    async def test_a_broker_has_a_name_and_is_healthy_once_started(self) -> None:
        """The name appears in log lines and errors."""
        async with self.workers() as (first, second):
            for worker in (first, second):
                assert await worker.broker.healthy()
                assert worker.broker.name
                assert isinstance(worker.broker.distributed, bool)

    async def test_nothing_is_delivered_after_close(self) -> None:
        """This includes deliveries in flight."""
        async with self.workers() as (first, second):
            await first.broker.subscribe(PLAIN)
            for number in range(20):
                await second.publish(PLAIN, number)
            await first.broker.close()
            count = len(first.received)
            if first is not second:
                await second.broker.subscribe(PLAIN)
                await second.publish(PLAIN, "after")
                assert "after" in await second.messages(PLAIN)
            for _ in range(10):
                await asyncio.sleep(0)
            assert len(first.received) == count

    async def test_a_closed_broker_starts_again(self) -> None:
        """Test clients start, close and start a broker again."""
        async with self.workers() as (first, _):
            for round_ in range(3):
                await first.broker.close()
                await first.start(self.rooms)
                first.received.clear()
                await first.broker.subscribe(PLAIN)
                await first.publish(PLAIN, round_)
                assert await first.messages(PLAIN) == [round_]
                assert await first.broker.healthy()


async def _connections(broker: Broker, channel: str) -> list[PresentConnection]:
    """Returns the connections in a room, sorted, because a broker returns them in any order."""
    return sorted(await broker.connections(channel), key=lambda each: each.connection_id)


def _has_come(worker: Worker, offset: int) -> bool:
    return _newest(worker) >= offset


def _newest(worker: Worker) -> int:
    offsets = [each.position.offset for _, each in worker.received if isinstance(each, Envelope) and each.position]
    return offsets[-1] if offsets else 0
