"""What happens when Redis, a connection to it, or a worker fails: the table of faults in docs/scaling.md, as tests.

In every one: no client is disconnected, `ready` stays True, and what was lost is said.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from hubbub import BrokerUnavailable, CloseCode, Limits
from hubbub.brokers.redis.link import Link, pool_from
from tests.integration.fleet import Listener, Stream, Subscriber, Worker, fleet, listening, subscribing
from tests.integration.redis_server import Proxy, RedisServer, one_more
from tests.integration.support import eventually, stopwatch

pytestmark = pytest.mark.anyio

KEPT, PLAIN, TOLD = "kept:a", "plain:a", "told:a"
SOON = 3
"""A lease with which a Redis that forgot who is here is told within half a second; usually it takes some."""

LONG_S = 30
"""What a call may wait for Redis where it is to wait, however long the machine takes to bring Redis back."""

_numbers = count(1)


@pytest.fixture(autouse=True)
def _quick_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the workers try again within 0.1 s, where it would be up to a second."""
    monkeypatch.setattr("hubbub.brokers.redis.link._LAST_BACKOFF_S", 0.1)


class Scene:
    """Two workers, each with clients that read all the time: in a room with history, one without, one that is told
    who comes and goes.

    Attributes:
        ann: A client of the endpoint, on the first worker.
        bob: A client of the endpoint, on the second worker.
        subscribers: These two.
        raw: A raw socket on each worker.
        listeners: All of them.
    """

    def __init__(self, workers: list[Worker], ann: Subscriber, bob: Subscriber, raw: list[Listener]) -> None:
        self.workers = workers
        self.ann = ann
        self.bob = bob
        self.subscribers = (ann, bob)
        self.raw = raw
        self.listeners = (*self.subscribers, *raw)

    async def until_away(self) -> None:
        """Waits until both workers know that Redis is away; they say so, and are ready all the same."""
        await eventually(lambda: not any(worker.manager.stats().broker_up for worker in self.workers))
        for worker in self.workers:
            assert await worker.run(worker.manager.broker_healthy()) is False
            assert worker.manager.ready

    async def until_lost(self) -> None:
        """Waits until both connections of each worker know that Redis was killed: each finds out for itself."""
        brokers: list[Any] = [worker.manager._hubbub.broker for worker in self.workers]
        links = [link for broker in brokers for link in (broker._commands, broker._inbox)]
        await eventually(lambda: not any(link.up for link in links))
        await self.until_away()

    async def until_well(self) -> None:
        """Waits until what either worker publishes reaches all clients; then checks what holds after every fault."""
        await eventually(lambda: all(worker.manager.stats().broker_up for worker in self.workers))
        for worker in self.workers:
            for room in (PLAIN, KEPT):
                await eventually(self._reaches_all(worker, room))
        for worker in self.workers:
            assert worker.manager.stats().broker_up
            assert await worker.run(worker.manager.broker_healthy()) is True
            assert worker.manager.ready
        position = await self.workers[0].position(KEPT)
        for subscriber in self.subscribers:
            await subscriber.reaches(KEPT, position)
            assert subscriber.faults == []
        for listener in self.listeners:
            assert listener.open
            for room in (KEPT, PLAIN):
                assert repeated(listener.data[room]) == {}
        await self._until_present()
        assert self.ann.told == [("user_joined", "ann"), ("user_joined", "bob")]  # and nobody left
        assert self.bob.told == [("user_joined", "bob")]

    def _reaches_all(self, worker: Worker, room: str) -> Callable[[], Any]:
        name = f"probe{next(_numbers)}"

        async def reaches_all() -> bool:
            assert all(listener.open for listener in self.listeners), self.listeners
            try:
                await worker.publish(room, f"{name} {next(_numbers)}")
            except BrokerUnavailable:
                return False
            return all(
                any(str(body).startswith(f"{name} ") for body in listener.data[room]) for listener in self.listeners
            )

        return reaches_all

    async def _until_present(self) -> None:
        async def present() -> bool:
            return [await worker.present(TOLD) for worker in self.workers] == [{"ann": 1, "bob": 1}] * 2

        await eventually(present)

    async def publish_and_wait(self, room: str, *bodies: str, listeners: Sequence[Listener] = ()) -> None:
        """Publishes from one worker after the other, and waits until all have all, or some of them."""
        for number, body in enumerate(bodies):
            await self.workers[number % 2].publish(room, body)
        for listener in listeners or self.listeners:
            for body in bodies:
                await listener.has(room, body)

    @property
    def resets(self) -> list[list[str]]:
        """In which rooms each client was told that what comes does not follow what came; for raw sockets, the app."""
        told = [subscriber.resets for subscriber in self.subscribers]
        assert [worker.gaps for worker in self.workers] == told
        return told

    @property
    def reconnects(self) -> list[int]:
        return [worker.manager.stats().broker_reconnects for worker in self.workers]


@asynccontextmanager
async def scene(first: str, second: str, *more: str) -> AsyncIterator[Scene]:
    """Two workers by their URLs, and more rooms."""
    with fleet(first, second) as workers:
        rooms = (KEPT, PLAIN, TOLD, *more)
        async with (
            subscribing(("ann", workers[0]), ("bob", workers[1]), rooms=rooms) as (ann, bob),
            listening((None, workers[0]), (None, workers[1]), rooms=(KEPT, PLAIN, *more)) as raw,
        ):
            for listener in (ann, bob):
                await listener.hears("user_joined", "bob")
            yield Scene(workers, ann, bob, raw)


def repeated(bodies: list[Any]) -> dict[str, int]:
    """What came more than once."""
    return {body: times for body, times in Counter(bodies).items() if times > 1}


# Redis dies, and comes back


async def test_redis_that_comes_back_with_its_data_has_lost_nothing_of_rooms_with_history(
    durable_redis: RedisServer,
) -> None:
    url = durable_redis.url(timeout_s=LONG_S)
    async with scene(url, url) as s:
        one, other = s.workers
        async with Stream(one, KEPT, "a") as a, Stream(other, KEPT, "b") as b, Stream(one, PLAIN, "p") as p:
            await s.bob.until(lambda: len(s.bob.data[KEPT]) > 20)
            durable_redis.kill()
            await s.until_lost()
            accepted = len(a.accepted), len(b.accepted)
            durable_redis.start()
            await eventually(lambda: len(a.accepted) > accepted[0] and len(b.accepted) > accepted[1])
        await s.until_well()
        assert a.refused == b.refused == p.refused == []  # they waited
        for listener in s.listeners:
            a.check_whole(listener)
            b.check_whole(listener)
            p.check(listener)
        assert s.resets == [[], []]


async def test_redis_that_comes_back_without_its_data_is_told_as_a_reset(own_redis: RedisServer) -> None:
    url = own_redis.url(timeout_s=LONG_S, lease_s=SOON)
    async with scene(url, url) as s:
        before = [f"before {number}" for number in range(5)]
        await s.publish_and_wait(KEPT, *before)
        epoch, _ = s.ann.positions[KEPT]
        own_redis.kill()
        await s.until_lost()
        waiting = [asyncio.ensure_future(worker.publish(KEPT, f"waiting {worker.port}")) for worker in s.workers]
        own_redis.start()
        await asyncio.gather(*waiting)
        await s.until_well()
        await s.publish_and_wait(KEPT, "after")
        assert s.resets == [[KEPT], [KEPT]], s.listeners
        assert epoch not in [subscriber.positions[KEPT][0] for subscriber in s.subscribers]
        for listener in s.listeners:
            assert [body for body in listener.data[KEPT] if body.startswith("before")] == before


async def test_redis_that_is_flushed_is_told_as_a_reset(own_redis: RedisServer) -> None:
    url = own_redis.url(lease_s=SOON)
    async with scene(url, url) as s:
        await s.publish_and_wait(KEPT, "1", "2", "3")
        own_redis.command("FLUSHALL")
        await s.publish_and_wait(KEPT, "4", "5", "6", "7", listeners=s.raw)
        await s.until_well()
        assert s.resets == [[KEPT], [KEPT]], s.listeners
        for listener in s.raw:
            assert [body for body in listener.data[KEPT] if body.isdigit()] == list("1234567")
        for subscriber in s.subscribers:  # each may have missed some while it subscribed again, as it was told
            digits = [body for body in subscriber.data[KEPT] if body.isdigit()]
            assert digits[:3] == ["1", "2", "3"]
            assert "".join(digits[3:]) in ("4567", "567", "67", "7", "")


@pytest.mark.parametrize("waiting", [0, 1, 2, 5], ids=lambda number: f"{number}-waiting")
async def test_redis_that_comes_back_behind_is_told_as_a_reset(
    durable_redis: RedisServer, tmp_path: Path, waiting: int
) -> None:
    """As one does that took over without the newest. Also where publishes that waited fill up what it lacks."""
    url = durable_redis.url(timeout_s=LONG_S)
    async with scene(url, url) as s:
        await s.publish_and_wait(KEPT, "1", "2", "3")
        durable_redis.backup(tmp_path / "backup")
        await s.publish_and_wait(KEPT, "lost 1", "lost 2")
        durable_redis.kill()
        durable_redis.restore(tmp_path / "backup")
        await s.until_lost()
        bodies = [f"waiting {number}" for number in range(waiting)]
        publishes = [asyncio.ensure_future(s.workers[0].publish(KEPT, body)) for body in bodies]
        durable_redis.start()
        await asyncio.gather(*publishes)
        await s.until_well()
        assert s.resets == [[KEPT], [KEPT]], s.listeners


async def test_a_publish_waits_for_redis_up_to_its_bound_and_then_raises(own_redis: RedisServer) -> None:
    url = own_redis.url(timeout_s=1, lease_s=SOON)
    async with scene(url, url) as s:
        own_redis.kill()
        await s.until_lost()
        since = time.monotonic()
        async with stopwatch() as took_s:
            publishes = [s.workers[0].publish(room, "went nowhere") for room in (KEPT, PLAIN)]
            raised = await asyncio.gather(*publishes, return_exceptions=True)
            assert [type(each) for each in raised] == [BrokerUnavailable] * 2
            assert took_s() < 4.5
        assert time.monotonic() - since > 0.7
        own_redis.start()
        await s.until_well()
        for listener in s.listeners:
            assert "went nowhere" not in [*listener.data[KEPT], *listener.data[PLAIN]]


async def test_no_call_waits_for_redis_longer_than_its_bound(own_redis: RedisServer) -> None:
    url = own_redis.url(timeout_s=1, lease_s=SOON)
    async with scene(url, url) as s:
        manager = s.workers[0].manager
        own_redis.kill()
        calls: list[Coroutine[Any, Any, object]] = [
            manager.broadcast("hello"),
            manager.broadcast_to_room(KEPT, "hello"),
            manager.send_to_user("ann", "hello"),
            manager.disconnect_user("bob"),
            manager.presence(TOLD),
            manager.count_users(),
            manager.is_online("ann"),
            manager.history(KEPT),
        ]
        async with stopwatch() as took_s:
            raised = await asyncio.gather(*map(s.workers[0].run, calls), return_exceptions=True)
            assert [type(each) for each in raised] == [BrokerUnavailable] * len(calls)
            with pytest.raises(BrokerUnavailable):
                await asyncio.to_thread(manager.from_thread.send_to_user, "ann", "hello")
            assert took_s() < 5
        own_redis.start()
        await s.until_well()


async def test_redis_that_comes_back_to_more_than_may_wait_is_used_again(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubbub.brokers.redis.link.MAX_WAITING_BYTES", 100_000)
    async with scene(own_redis.url(timeout_s=1), own_redis.url(timeout_s=1)) as show:
        worker = show.workers[0]
        own_redis.kill()
        await show.until_lost()
        publishes = [asyncio.ensure_future(worker.publish(KEPT, f"{number} {'x' * 1000}")) for number in range(200)]
        errors = await asyncio.gather(*publishes, return_exceptions=True)
        assert "bytes wait for Redis already" in str(errors[-1])
        assert "waited 1 s" in str(errors[0])
        for number in range(95):  # what took too long counts no more
            publishes.append(asyncio.ensure_future(worker.publish(PLAIN, f"{number} {'x' * 1000}")))
        own_redis.start()
        await show.until_well()
        await asyncio.gather(*publishes, return_exceptions=True)


async def test_what_is_sent_and_not_answered_counts_as_waiting(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubbub.brokers.redis.link.MAX_WAITING_BYTES", 100_000)
    link = Link(pool_from(own_redis.url()), 60.0, lambda down_s: None)
    await link.start()
    try:
        own_redis.freeze()
        called = []
        with pytest.raises(BrokerUnavailable, match="bytes wait for Redis already"):
            for _ in range(200):
                called.append(link.call("ECHO", "x" * 1000))
                await eventually(lambda: not link._waiting)  # the socket has taken it
        assert 90 < len(called) < 100
        own_redis.thaw()
        await asyncio.gather(*called)
        await link.call("ECHO", "x" * 99_000)
    finally:
        await link.close()


async def test_as_configured_a_publish_reaches_the_members_on_this_worker_at_once(own_redis: RedisServer) -> None:
    """Never so in a room with history."""
    url = own_redis.url(timeout_s=2, lease_s=SOON, when_away="local")
    async with scene(url, url) as s:
        one = s.workers[0]
        await s.publish_and_wait(PLAIN, "everywhere")
        own_redis.kill()
        await s.until_lost()
        waiting = asyncio.ensure_future(one.publish(KEPT, "nowhere"))
        async with stopwatch() as took_s:
            await one.publish(PLAIN, "here")
            await one.run(one.manager.broadcast(["all", "here"]))
            assert await one.run(one.manager.send_to_user("ann", ["mail", "here"])) is True
            assert took_s() < 2
        for room in (PLAIN, "all", "mail"):
            await s.ann.has(room, "here")
        with pytest.raises(BrokerUnavailable):
            await waiting
        assert [worker.manager.stats().local_only for worker in s.workers] == [3, 0]
        own_redis.start()
        await s.until_well()
        assert [worker.manager.stats().local_only for worker in s.workers] == [3, 0]
        assert [body for body in s.ann.data[PLAIN] if "here" in body] == ["everywhere", "here"]
        assert [body for body in s.bob.data[PLAIN] if "here" in body] == ["everywhere"]
        assert (s.bob.data["all"], s.bob.data["mail"]) == ([], [])
        for listener in s.listeners:
            assert "nowhere" not in listener.data[KEPT]


# Who comes and goes while Redis is away


@pytest.mark.parametrize("when_away", ["raise", "local"])
async def test_who_is_sent_away_while_redis_is_away_is_so_on_this_worker(
    own_redis: RedisServer, when_away: str
) -> None:
    url = own_redis.url(timeout_s=0.5, when_away=when_away)
    with fleet(url, url) as workers:
        async with listening(("ann", workers[0]), ("ann", workers[1])) as (here, there):
            own_redis.kill()
            await eventually(lambda: not workers[0].manager.stats().broker_up)
            with pytest.raises(BrokerUnavailable):
                await workers[0].run(workers[0].manager.disconnect_user("ann", 4001, "enough"))
            await here.until(lambda: not here.open)
            assert here.closed == (4001, "enough")
            assert there.open


async def test_who_can_not_join_is_sent_away_to_try_again_and_the_others_stay(own_redis: RedisServer) -> None:
    url = own_redis.url(timeout_s=1, lease_s=SOON)
    async with scene(url, url) as s:
        own_redis.kill()
        await s.until_lost()
        cyd = Listener("cyd", PLAIN)
        async with cyd.on(s.workers[0]):
            await cyd.until(lambda: not cyd.open)
            assert cyd.closed == (CloseCode.BROKER_UNAVAILABLE.code, CloseCode.BROKER_UNAVAILABLE.reason)
        assert s.workers[0].manager.stats().connections == 2
        own_redis.start()
        await s.until_well()
        async with cyd.on(s.workers[0]):
            await s.workers[1].publish(PLAIN, "hello")
            await cyd.has(PLAIN, "hello")


async def test_who_joins_while_redis_is_away_for_a_moment_waits_for_it(own_redis: RedisServer) -> None:
    url = own_redis.url(timeout_s=LONG_S, lease_s=SOON)
    async with scene(url, url) as s:
        own_redis.kill()
        await s.until_lost()
        cyd = Listener("cyd", KEPT, PLAIN)

        async def come() -> None:
            async with cyd.on(s.workers[0]):
                assert cyd.open, cyd.closed
                await s.workers[1].publish(PLAIN, "hello")
                await cyd.has(PLAIN, "hello")

        coming = asyncio.ensure_future(come())
        await eventually(lambda: s.workers[0].manager.stats().connections == 3)
        own_redis.start()
        await coming
        await s.until_well()


async def test_who_leaves_while_redis_is_away_is_not_kept_there(durable_redis: RedisServer) -> None:
    url = durable_redis.url(prefix="away")
    async with scene(url, url) as s:
        async with Listener("cyd", "prompt:b").on(s.workers[0]):
            assert await s.workers[1].present("prompt:b") == {"cyd": 1}
            durable_redis.kill()
            await s.until_lost()
        await eventually(lambda: s.workers[0].manager.stats().connections == 2)
        durable_redis.start()
        await s.until_well()

        async def gone() -> bool:
            online = await s.workers[1].run(s.workers[1].manager.is_online("cyd"))
            return not online and await s.workers[1].present("prompt:b") == {}

        await eventually(gone)
        await eventually(lambda: not any("prompt:b" in channel for channel in durable_redis.channels("away")))


async def test_a_worker_starts_without_redis_and_finds_it_later(own_redis: RedisServer) -> None:
    url = own_redis.url(timeout_s=1)
    own_redis.kill()
    with fleet(url) as (worker,):
        assert worker.manager.ready
        assert not worker.manager.stats().broker_up
        own_redis.start()
        await eventually(lambda: worker.manager.stats().broker_up)
        async with listening(("ann", worker), rooms=(KEPT, PLAIN)) as (ann,):
            for room in (KEPT, PLAIN):
                await worker.publish(room, "hello")
                await ann.has(room, "hello")
            assert await worker.present(PLAIN) == {"ann": 1}


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_a_worker_ends_in_bounded_time_without_redis(
    own_redis: RedisServer, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubbub.connections.connecting._PATIENCE_S", 0.5)
    url = own_redis.url(timeout_s=1)
    with fleet(url, limits=Limits(close_timeout_s=1)) as (worker,):
        async with listening(("ann", worker), ("bob", worker), rooms=(KEPT, TOLD)) as listeners:
            own_redis.kill() if how == "killed" else own_redis.freeze()
            async with stopwatch() as took_s:
                await asyncio.to_thread(worker.server.stop)
                assert took_s() < 6
            for listener in listeners:
                await listener.until(lambda listener=listener: not listener.open)  # type: ignore[misc]
                assert listener.closed[0] == 1012


# Redis hangs, or is slow


async def test_redis_that_freezes_and_thaws_has_lost_nothing_of_rooms_with_history(own_redis: RedisServer) -> None:
    url = own_redis.url(timeout_s=1)
    async with scene(url, url) as s:
        one, other = s.workers
        await s.publish_and_wait(KEPT, "before")
        own_redis.freeze()
        since = time.monotonic()
        async with stopwatch() as took_s:
            raised = await asyncio.gather(
                one.publish(KEPT, "during"), other.publish(PLAIN, "during"), return_exceptions=True
            )
            assert [type(each) for each in raised] == [BrokerUnavailable] * 2
            assert took_s() < 4.5
        assert time.monotonic() - since > 0.7
        await s.until_away()
        own_redis.thaw()
        await s.until_well()
        await s.publish_and_wait(KEPT, "after")
        assert s.resets == [[], []]
        for listener in s.listeners:
            kept = [body for body in listener.data[KEPT] if not body.startswith("probe")]
            assert kept in (["before", "after"], ["before", "during", "after"])  # it was on its way


async def test_a_worker_that_is_always_late_does_not_wait_for_redis_for_ever(own_redis: RedisServer) -> None:
    """Time that it stood still is no fault of Redis, but that must not go on and on."""
    link = Link(pool_from(own_redis.url()), 0.4, lambda down_s: None)
    await link.start()
    loop, busy = asyncio.get_running_loop(), True

    def stand_still() -> None:
        time.sleep(0.15)
        if busy:
            loop.call_soon(stand_still)

    try:
        own_redis.freeze()
        answer = link.call("PING")
        loop.call_soon(stand_still)
        with pytest.raises(BrokerUnavailable):
            await asyncio.wait_for(answer, 10)
    finally:
        busy = False
        own_redis.thaw()
        await link.close()


async def test_a_worker_that_stood_still_for_long_takes_the_answers_that_are_there(own_redis: RedisServer) -> None:
    link = Link(pool_from(own_redis.url()), 0.2, lambda down_s: None)
    await link.start()
    try:
        answers = [link.call("ECHO", number) for number in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # they are sent
        time.sleep(1)  # noqa: ASYNC251  the loop stands still
        assert await asyncio.gather(*answers) == [b"0", b"1", b"2"]
        assert link.reconnects == 0
    finally:
        await link.close()


async def test_redis_that_freezes_for_longer_than_the_leases_makes_nobody_leave(own_redis: RedisServer) -> None:
    """Attempts are as short beside the lease as they usually are."""
    lease_s = 2.4
    url = own_redis.url(timeout_s=0.5, lease_s=lease_s)
    async with scene(url, url) as s:
        own_redis.freeze()
        since = time.monotonic()
        while time.monotonic() - since < lease_s:
            with pytest.raises(BrokerUnavailable):
                await s.workers[0].publish(PLAIN, "went nowhere")
        own_redis.thaw()
        await s.until_well()


async def test_a_slow_redis_slows_the_calls_and_nothing_else(own_redis: RedisServer) -> None:
    publishes, delay_s = 50, 0.1
    with Proxy(own_redis) as proxy:
        url = own_redis.url(through=proxy)
        async with scene(url, url) as s:
            proxy.delay_s = delay_s
            since = time.monotonic()
            async with stopwatch() as took_s:
                await asyncio.gather(
                    *(
                        worker.publish(room, f"{name} {number}")
                        for number in range(publishes)
                        for name, worker in enumerate(s.workers)
                        for room in (KEPT, PLAIN)
                    )
                )
                assert took_s() < publishes * delay_s  # they did not wait for each other
            assert time.monotonic() - since >= 2 * delay_s
            cyd = Subscriber("cyd", KEPT)
            async with cyd.on(s.workers[1]):
                assert cyd.recovered == [False]
            for listener in s.listeners:
                for room in (KEPT, PLAIN):
                    await listener.until(lambda listener=listener, room=room: len(listener.data[room]) == 2 * publishes)  # type: ignore[misc]
                    assert listener.data[room] == s.ann.data[room]
            assert [worker.manager.stats().broker_up for worker in s.workers] == [True, True]
            proxy.delay_s = 0.0
            await s.until_well()
            assert s.reconnects == [0, 0]


# A connection is lost, or worse


async def test_a_subscription_that_is_cut_comes_back_and_says_for_how_long(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    url, cuts = own_redis.url(timeout_s=LONG_S), 3
    async with scene(url, url) as s:
        one, other = s.workers
        async with Stream(one, KEPT, "a") as a, Stream(other, KEPT, "b") as b, Stream(other, PLAIN, "p") as p:
            for number in range(1, cuts + 1):
                await eventually(lambda: own_redis.connections("pubsub") == 2)
                await eventually(lambda: all(worker.manager.stats().broker_up for worker in s.workers))
                assert own_redis.cut("pubsub") == 2
                await eventually(lambda number=number: min(s.reconnects) >= number)  # type: ignore[misc]
        await s.until_well()
        assert a.refused == b.refused == p.refused == []
        for listener in s.listeners:
            a.check_whole(listener)
            b.check_whole(listener)
            p.check(listener)
        assert s.resets == [[], []]
        said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert sum("without history" in message for message in said) == 2 * cuts, said


async def test_publishes_whose_connection_is_cut_are_neither_lost_nor_doubled(own_redis: RedisServer) -> None:
    url, least, cuts = own_redis.url(timeout_s=LONG_S), 200, 3
    async with scene(url, url) as s:
        one = s.workers[0]
        for room in (KEPT, PLAIN):
            accepted: list[str] = []
            cutting = True

            async def publish(body: str, room: str = room, accepted: list[str] = accepted) -> None:
                await one.manager.broadcast([room, body], room=room)
                accepted.append(body)

            async def publish_all(publish: Callable[[str], Any] = publish) -> int:
                """Ten at a time, until all cuts have met some on their way."""
                number = 0
                while number < least or cutting:  # noqa: B023 - the cuts of this room
                    await asyncio.gather(*(publish(f"m {each}") for each in range(number, number + 10)))
                    number += 10
                return number

            publishing = asyncio.ensure_future(one.run(publish_all(), 30.0))
            for _ in range(cuts):
                known, reconnects = len(accepted), s.reconnects[0]
                await eventually(lambda known=known, accepted=accepted: len(accepted) > known)  # type: ignore[misc]
                own_redis.cut("normal")
                await eventually(lambda reconnects=reconnects: s.reconnects[0] > reconnects)  # type: ignore[misc]
            cutting = False
            total = await publishing
            assert len(accepted) == total
            await one.publish(room, "end")
            for listener in s.listeners:
                await listener.has(room, "end")
                assert listener.data[room] == [*(f"m {number}" for number in range(total)), "end"]
        assert s.reconnects[0] >= 2 * cuts
        await s.until_well()


async def test_publishes_whose_answers_are_lost_are_neither_lost_nor_doubled(own_redis: RedisServer) -> None:
    """Redis has done them all, and they are sent again."""
    with Proxy(own_redis) as proxy:
        async with scene(own_redis.url(through=proxy, timeout_s=LONG_S), own_redis.url()) as s:
            bodies = [f"m {number}" for number in range(20)]
            proxy.lose("answers")
            publishing = [
                asyncio.ensure_future(s.workers[0].publish(room, body)) for body in bodies for room in (KEPT, PLAIN)
            ]
            for listener in s.listeners:
                for room in (KEPT, PLAIN):
                    await listener.has(room, bodies[-1])
            assert not any(publish.done() for publish in publishing)
            proxy.sever()
            positions = await asyncio.gather(*publishing)
            assert [each.offset for each in positions[::2] if each is not None] == list(range(1, 21))
            await s.until_well()
            for listener in s.listeners:
                for room in (KEPT, PLAIN):
                    assert [body for body in listener.data[room] if body in bodies] == bodies


async def test_what_came_before_redis_lost_its_data_does_not_come_again(own_redis: RedisServer) -> None:
    """Its publish was not answered, and is sent again to a Redis that knows nothing of it."""
    with Proxy(own_redis) as proxy:
        url = own_redis.url(through=proxy, timeout_s=LONG_S, lease_s=SOON)
        async with scene(url, own_redis.url(lease_s=SOON)) as s:
            proxy.lose("answers")
            publishing = [asyncio.ensure_future(s.workers[0].publish(room, "once")) for room in (KEPT, PLAIN)]
            for listener in s.listeners:
                for room in (KEPT, PLAIN):
                    await listener.has(room, "once")
            own_redis.kill()
            own_redis.start()
            await asyncio.gather(*publishing)
            await s.until_well()
            for worker, subscriber in zip(s.workers, s.subscribers, strict=True):
                # Once for the new numbering, and once more over what it has already.
                assert worker.gaps in ([KEPT], [KEPT, KEPT])
                assert subscriber.resets in ([KEPT], [KEPT, KEPT])
            for listener in s.listeners:
                assert listener.data[KEPT].count("once") == listener.data[PLAIN].count("once") == 1


async def test_a_subscription_that_does_not_take_what_it_gets_is_cut_by_redis_and_filled(
    own_redis: RedisServer, canaries: threading.Event
) -> None:
    """As where a worker's loop is blocked while much is published."""
    own_redis.command("CONFIG", "SET", "client-output-buffer-limit", "pubsub 64kb 32kb 1")
    with Proxy(own_redis) as proxy:
        async with scene(own_redis.url(), own_redis.url(through=proxy)) as s:
            bodies: list[str] = []

            async def overflows() -> bool:
                more = [f"{number} {'x' * 10_000}" for number in range(len(bodies), len(bodies) + 20)]
                bodies.extend(more)
                await asyncio.gather(*(s.workers[0].publish(room, body) for body in more for room in (KEPT, PLAIN)))
                return own_redis.connections("pubsub") < 2

            canaries.clear()  # it is for Redis to find out
            proxy.hold("messages")
            await eventually(overflows)
            proxy.release()
            canaries.set()
            await s.until_well()
            assert s.reconnects[1] >= 1
            assert s.resets == [[], []]
            for listener in s.listeners:
                assert [body for body in listener.data[KEPT] if "x" in body] == bodies


async def test_a_deaf_subscription_is_found_by_the_canary(own_redis: RedisServer, canaries: threading.Event) -> None:
    """It is silent, and looks well."""
    with Proxy(own_redis) as proxy:
        async with scene(own_redis.url(timeout_s=1), own_redis.url(timeout_s=1, through=proxy)) as s:
            canaries.clear()
            proxy.lose("messages")
            bodies = [f"m {number}" for number in range(10)]
            for body in bodies:
                await s.workers[0].publish(KEPT, body)
            canaries.set()
            for listener in s.listeners:
                await listener.has(KEPT, bodies[-1])
            assert s.reconnects == [0, 1]
            await s.until_well()
            assert s.resets == [[], []]
            for listener in s.listeners:
                assert [body for body in listener.data[KEPT] if body in bodies] == bodies


async def test_what_can_not_be_filled_from_a_rooms_history_is_told_as_a_reset(
    own_redis: RedisServer, canaries: threading.Event
) -> None:
    """To those who missed it, and to no others."""
    room = "short:a"
    with Proxy(own_redis) as proxy:
        urls = own_redis.url(timeout_s=1), own_redis.url(timeout_s=1, through=proxy)
        async with scene(*urls, room) as s:
            await s.publish_and_wait(room, "before")
            canaries.clear()
            proxy.lose("messages")
            for number in range(10):
                await s.workers[0].publish(room, f"missed {number}")
            canaries.set()
            await s.bob.until(lambda: bool(s.bob.resets))
            await s.until_well()
            await s.publish_and_wait(room, "after")
            assert s.resets == [[], [room]]
            for listener in (s.ann, s.raw[0]):
                assert listener.data[room] == ["before", *(f"missed {number}" for number in range(10)), "after"]
            for listener in (s.bob, s.raw[1]):
                assert listener.data[room] == ["before", "after"]
            assert s.bob.positions[room] == s.ann.positions[room]


LARGE = [f"{number} {'x' * 40_000}" for number in range(300)]
"""Far more than an outbox takes."""


async def test_what_is_filled_in_at_once_closes_nobody(own_redis: RedisServer, canaries: threading.Event) -> None:
    """Who reads all the time is not slow."""
    with Proxy(own_redis) as proxy:
        async with scene(own_redis.url(timeout_s=1), own_redis.url(timeout_s=1, through=proxy)) as s:
            canaries.clear()
            proxy.lose("messages")
            for body in LARGE:
                await s.workers[0].publish(KEPT, body)
            canaries.set()
            await s.until_well()
            for listener in s.listeners:
                assert [body for body in listener.data[KEPT] if "x" in body] == LARGE


# A worker hangs


@pytest.mark.parametrize("room", [KEPT, PLAIN])
async def test_what_comes_at_once_after_a_pause_closes_nobody(own_redis: RedisServer, room: str) -> None:
    """A worker's loop was blocked for a moment while much was published."""
    own_redis.command("CONFIG", "SET", "client-output-buffer-limit", "pubsub 0 0 0")
    url, over = own_redis.url(), threading.Event()

    async def block() -> None:
        over.wait(10.0)

    async with scene(url, url) as s:
        blocked = asyncio.ensure_future(s.workers[1].run(block(), 20.0))
        try:
            for body in LARGE:
                await s.workers[0].publish(room, body)
        finally:
            over.set()
            await blocked
        await s.until_well()
        for listener in s.listeners:
            assert [body for body in listener.data[room] if "x" in body] == LARGE


async def test_a_worker_that_hangs_past_its_lease_and_goes_on_has_its_users_back_and_misses_nothing(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    async with (
        one_more(own_redis, tmp_path, lease_s=2.0) as ((worker,), frozen, prefix, name),
        subscribing(("ann", worker), rooms=(KEPT, TOLD)) as (ann,),
        subscribing(("cyd", frozen), ("ann", frozen), rooms=(KEPT, TOLD)) as (cyd, tab),
    ):
        await ann.hears("user_joined", "cyd")
        frozen.freeze()
        await ann.hears("user_left", "cyd")
        await eventually(lambda: own_redis.mentions(name, prefix) == [])
        assert await worker.present(TOLD) == {"ann": 1}
        bodies = [f"m {number}" for number in range(50)]
        for body in bodies:
            await worker.publish(KEPT, body)
        frozen.thaw()
        for listener in (cyd, tab, ann):
            await listener.has(KEPT, bodies[-1])
            assert listener.data[KEPT] == bodies
            assert listener.faults == []

        async def back() -> bool:
            return await worker.present(TOLD) == {"ann": 2, "cyd": 1}

        await eventually(back)
        async with Listener("the last", TOLD).on(worker):
            await ann.hears("user_joined", "the last")
        assert [told for told in ann.told if told[1] in ("ann", "cyd")] == [
            ("user_joined", "ann"),
            ("user_joined", "cyd"),
            ("user_left", "cyd"),
            ("user_joined", "cyd"),
        ]
        assert cyd.open
        assert tab.open
        assert cyd.resets == tab.resets == []
