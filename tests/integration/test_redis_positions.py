"""Positions, epochs and the numbers of senders: what docs/architecture.md promises, against real servers.

What has to meet is held by a proxy or by the server, and never by timing.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hubbub import BrokerUnavailable, Publisher
from hubbub.brokers.redis.scripts import ALL
from tests.integration.fleet import Subscriber, Worker, fleet, subscribing
from tests.integration.redis_server import Proxy, RedisServer, as_text
from tests.integration.support import eventually

pytestmark = pytest.mark.anyio

KEPT, OTHER = "kept:a", "kept:b"


@pytest.fixture(autouse=True)
def _quick_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.brokers.redis.link._LAST_BACKOFF_S", 0.1)


async def until_connected(*workers: Worker, again: int = 0) -> None:
    """Waits until workers have a connection, made anew so many times at least."""
    for worker in workers:
        await eventually(lambda worker=worker: worker.manager.stats().broker_up)  # type: ignore[misc]
        await eventually(lambda worker=worker: worker.manager.stats().broker_reconnects >= again)  # type: ignore[misc]


def go_back(server: RedisServer, backup: Path) -> None:
    """The server is replaced by one that took over without the newest."""
    server.kill()
    server.restore(backup)
    server.start()


# A server that took over


@pytest.mark.parametrize("restarted", [False, True], ids=["workers-stay", "workers-are-new"])
async def test_where_nobody_remembers_a_room_that_went_back_a_position_that_was_lost_is_not_recovered(
    durable_redis: RedisServer, tmp_path: Path, restarted: bool
) -> None:
    url = durable_redis.url()
    early, late = Subscriber(None, KEPT), Subscriber(None, KEPT)
    with fleet(url) as (worker,):
        async with late.on(worker):
            async with early.on(worker):
                for number in range(1, 6):
                    await worker.publish(KEPT, number)
                await early.has(KEPT, 5)
                await late.has(KEPT, 5)
            durable_redis.backup(tmp_path / "backup")
            for number in range(6, 9):
                await worker.publish(KEPT, f"lost {number}")
            await late.has(KEPT, "lost 8")
        await eventually(lambda: worker.empty)
        if not restarted:
            go_back(durable_redis, tmp_path / "backup")
            await until_connected(worker, again=1)
            await publish_and_come_back(worker, early, late)
            return
    go_back(durable_redis, tmp_path / "backup")
    with fleet(url) as (worker,):
        await publish_and_come_back(worker, early, late)


async def publish_and_come_back(worker: Worker, early: Subscriber, late: Subscriber) -> None:
    """As many are published as were lost, and more."""
    for number in range(6, 11):
        await worker.publish(KEPT, number)
    async with late.on(worker):
        assert late.recovered == [False, False]
    async with early.on(worker):
        assert early.recovered == [False, True]  # it left before what was lost
        await early.has(KEPT, 10)
    assert early.data[KEPT] == list(range(1, 11))
    assert early.faults == late.faults == []


async def test_a_server_that_was_restarted_and_lost_nothing_resets_nobody_wherever_they_were(
    durable_redis: RedisServer,
) -> None:
    """Members over the restart, those who had left before it, and those who leave after it.

    Members are told to subscribe again, because only the answer to that can tell them the new epoch.
    """
    url = durable_redis.url()
    stays, left = Subscriber(None, KEPT, OTHER), Subscriber(None, KEPT, OTHER)
    with fleet(url, url) as (one, other):
        async with stays.on(one):
            async with left.on(other):
                for room in (KEPT, OTHER):
                    await other.publish(room, "before")
                    await left.has(room, "before")
                    await stays.has(room, "before")
            for times in range(1, 4):
                durable_redis.kill()
                durable_redis.start()
                await until_connected(one, other, again=times)
                for room in (KEPT, OTHER):
                    await other.publish(room, f"after {times}")
                    await stays.has(room, f"after {times}")
            for room in (KEPT, OTHER):
                await stays.reaches(room, await other.position(room))
            assert sorted(stays.again) == sorted(3 * [KEPT, OTHER])
        for room in (KEPT, OTHER):
            await other.publish(room, "missed")
        async with left.on(other), stays.on(other):
            for room in (KEPT, OTHER):
                for client in (left, stays):
                    await client.has(room, "missed")
                    assert client.data[room] == ["before", "after 1", "after 2", "after 3", "missed"]
            assert stays.positions == {KEPT: await other.position(KEPT), OTHER: await other.position(OTHER)}
        assert stays.recovered == left.recovered == [False, False, True, True]
        assert (stays.resets, stays.faults, left.faults) == ([], [], [])


# Epochs that change while somebody catches up


async def test_who_recovers_while_the_room_is_begun_anew_is_told(own_redis: RedisServer) -> None:
    with Proxy(own_redis) as proxy, fleet(own_redis.url(through=proxy), own_redis.url()) as (one, other):
        back = Subscriber(None, KEPT)
        async with subscribing((None, one), rooms=(KEPT,)) as (member,):
            async with back.on(one):
                await other.publish(KEPT, 1)
                await back.has(KEPT, 1)
            await other.publish(KEPT, 2)
            await member.has(KEPT, 2)
            proxy.hold("answers")
            called = own_redis.command_counts()["evalsha"]
            coming = asyncio.ensure_future(come_and_wait(back, one, lambda: "live" in back.data[KEPT]))
            await eventually(lambda: own_redis.command_counts()["evalsha"] > called)  # the history is on its way
            own_redis.command("FLUSHALL")
            await other.publish(KEPT, 3)
            proxy.release()
            for each in (back, member):
                await each.reaches(KEPT, await other.position(KEPT))
            await other.publish(KEPT, "live")
            await coming
            await member.has(KEPT, "live")
            assert back.faults == member.faults == []
            assert back.positions == {KEPT: await other.position(KEPT)} == member.positions


async def come_and_wait(listener: Subscriber, worker: Worker, reached: Callable[[], bool]) -> None:
    async with listener.on(worker):
        await listener.until(reached)


async def test_who_recovered_ahead_of_a_deaf_subscription_hears_of_data_that_is_lost_then(
    own_redis: RedisServer, canaries: threading.Event
) -> None:
    with Proxy(own_redis) as proxy:
        urls = own_redis.url(through=proxy, timeout_s=1), own_redis.url(timeout_s=1)
        with fleet(*urls) as (one, other):
            back = Subscriber(None, KEPT)
            async with subscribing((None, one), rooms=(KEPT,)):
                async with back.on(one):
                    await other.publish(KEPT, 0)
                    await back.has(KEPT, 0)
                canaries.clear()
                proxy.lose("messages")
                for number in range(1, 8):
                    await other.publish(KEPT, number)
                async with back.on(one):
                    await back.has(KEPT, 7)
                    own_redis.command("FLUSHALL")
                    await other.publish(KEPT, "after")  # under an offset that it has passed
                    canaries.set()
                    await until_connected(one, again=1)
                    await back.reaches(KEPT, await other.position(KEPT))
                    await other.publish(KEPT, "live")
                    await back.has(KEPT, "live")
                assert back.data[KEPT][:8] == list(range(8))
                assert back.faults == []
                assert back.resets or back.recovered[-1] is False


# The order of what one sender publishes


@pytest.mark.parametrize("second", ["the same", OTHER])
async def test_publishes_across_another_workers_loading_of_the_scripts_keep_their_order(
    own_redis: RedisServer, second: str
) -> None:
    first, second = KEPT, KEPT if second == "the same" else second
    with Proxy(own_redis) as proxy, fleet(own_redis.url(through=proxy), own_redis.url()) as (one, other):
        async with subscribing((None, one), (None, other), rooms=(first, OTHER)) as members:
            await one.publish(first, "before")
            proxy.hold("answers")
            own_redis.command("SCRIPT", "FLUSH")
            forgotten = own_redis.errors("NOSCRIPT")
            publishes = [asyncio.ensure_future(one.publish(first, "first"))]
            await eventually(lambda: own_redis.errors("NOSCRIPT") > forgotten)
            for script in ALL:
                own_redis.command("SCRIPT", "LOAD", script.text)
            publishes.append(asyncio.ensure_future(one.publish(second, "second")))
            await eventually(lambda: own_redis.errors("LINE") == 1)
            proxy.release()
            positions = await asyncio.gather(*publishes)
            await other.publish(first, "after")
            for member in members:
                await member.has(first, "after")
                await member.has(second, "second")
                expected = ["before", "first", "second", "after"] if first == second else ["before", "first", "after"]
                assert member.data[first] == expected
                assert (member.resets, member.faults) == ([], [])
            assert [each.offset for each in positions if each] == ([2, 3] if first == second else [2, 1])


# What arrives late


async def refused(worker: Worker, room: str, body: str) -> None:
    with pytest.raises(BrokerUnavailable):
        await worker.publish(room, body)


async def bodies_of(worker: Worker, room: str) -> list[str]:
    return [each.message[1] for each in await worker.run(worker.manager.history(room))]


@pytest.mark.parametrize("then", [KEPT, OTHER])
async def test_a_publish_that_was_given_up_and_arrives_after_the_next_is_not_kept(
    own_redis: RedisServer, then: str
) -> None:
    with Proxy(own_redis) as proxy:
        urls = own_redis.url(through=proxy, timeout_s=0.5), own_redis.url()
        with fleet(*urls) as (one, other):
            async with subscribing((None, one), (None, other), rooms=(KEPT, OTHER)) as members:
                await one.publish(KEPT, "before")
                proxy.hold("requests")
                await refused(one, KEPT, "late")
                await until_connected(one, again=1)
                await one.publish(then, "next")
                proxy.release()
                await eventually(lambda: own_redis.errors("LINE") >= 1)
                await other.publish(KEPT, "after")
                for member in members:
                    await member.has(KEPT, "after")
                    await member.has(then, "next")
                    assert (member.resets, member.faults) == ([], [])
                    assert "late" not in member.data[KEPT]
                assert "late" not in await bodies_of(one, KEPT)


async def test_a_publish_that_was_given_up_and_arrives_before_any_other_is_delivered(own_redis: RedisServer) -> None:
    with Proxy(own_redis) as proxy:
        urls = own_redis.url(through=proxy, timeout_s=0.5), own_redis.url()
        with fleet(*urls) as (one, other):
            async with subscribing((None, one), (None, other), rooms=(KEPT,)) as members:
                await one.publish(KEPT, "before")
                proxy.hold("requests")
                await refused(one, KEPT, "late")
                proxy.release()
                for member in members:
                    await member.has(KEPT, "late")
                await one.publish(KEPT, "after")
                for member in members:
                    await member.has(KEPT, "after")
                    assert member.data[KEPT] == ["before", "late", "after"]
                    assert (member.resets, member.faults) == ([], [])
                assert await bodies_of(one, KEPT) == ["before", "late", "after"]


async def test_a_publisher_s_call_that_was_given_up_and_arrives_after_the_next_is_not_kept(
    own_redis: RedisServer,
) -> None:
    with Proxy(own_redis) as proxy, fleet(own_redis.url()) as (worker,):
        async with subscribing((None, worker), rooms=(KEPT,)) as (member,):
            with Publisher(own_redis.url(through=proxy), timeout_s=0.5) as publisher:

                def publish(body: str) -> None:
                    publisher.broadcast([KEPT, body], room=KEPT)

                await asyncio.to_thread(publish, "before")
                proxy.hold("requests")
                proxy.closed = True  # else it goes over a new connection
                with pytest.raises(BrokerUnavailable):
                    await asyncio.to_thread(publish, "late")
                proxy.closed = False
                await asyncio.to_thread(publish, "next")
                proxy.release()
                await eventually(lambda: own_redis.errors("LINE") >= 1)
                await worker.publish(KEPT, "after")
                await member.has(KEPT, "after")
                assert member.data[KEPT] == ["before", "next", "after"]
                assert (member.resets, member.faults) == ([], [])


async def test_a_publisher_s_call_that_goes_again_over_a_new_connection_is_not_kept_twice(
    own_redis: RedisServer,
) -> None:
    with Proxy(own_redis) as proxy, fleet(own_redis.url()) as (worker,):
        async with subscribing((None, worker), rooms=(KEPT,)) as (member,):
            with Publisher(own_redis.url(through=proxy), timeout_s=1) as publisher:

                def publish(body: str) -> None:
                    publisher.broadcast([KEPT, body], room=KEPT)

                await asyncio.to_thread(publish, "before")
                proxy.hold("requests")
                await asyncio.to_thread(publish, "again")
                proxy.release()
                await eventually(lambda: own_redis.errors("LINE") >= 1)
                await worker.publish(KEPT, "after")
                await member.has(KEPT, "after")
                assert member.data[KEPT] == ["before", "again", "after"]
                assert (member.resets, member.faults) == ([], [])


async def test_a_sender_that_redis_has_forgotten_is_introduced_again(own_redis: RedisServer) -> None:
    """As one is that has published nothing for long."""

    def forget() -> None:
        (sender,) = own_redis.command("KEYS", "*:sender:*")
        own_redis.command("DEL", sender)

    with fleet(own_redis.url()) as (worker,), Publisher(own_redis.url()) as publisher:
        async with subscribing((None, worker), rooms=(KEPT,)) as (member,):
            for number in range(3):
                await asyncio.to_thread(publisher.broadcast, [KEPT, number], room=KEPT)
                forget()
            for number in range(3, 6):
                await worker.publish(KEPT, number)
                forget()
            await member.has(KEPT, 5)
            assert member.data[KEPT] == list(range(6))
            assert (member.resets, member.faults) == ([], [])


async def test_redis_keeps_one_key_for_each_sender_whatever_the_rooms(own_redis: RedisServer) -> None:
    with fleet(own_redis.url()) as (worker,):
        for number in range(20):
            await worker.publish(f"kept:{number}", "hello")
        assert len([key for key in map(as_text, own_redis.command("KEYS", "*")) if ":sender:" in key]) == 1
