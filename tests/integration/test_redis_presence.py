"""Who is here, over a fleet: announced once, kept by leases of workers, gone with them."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Set
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from hubbub.brokers.redis import RedisBroker
from hubbub.brokers.redis.channel import Keys
from hubbub.brokers.redis.leases import CHECKS, Leases
from hubbub.brokers.redis.presence import Presence
from hubbub.names import EVERYONE_NAME, user_room
from hubbub.options import RoomTable
from hubbub.testing.broker_suite import Worker as Receiver
from tests.integration.fleet import Listener, Worker, fleet, listening
from tests.integration.redis_server import Proxy, RedisServer, one_more
from tests.integration.support import DEADLINE_S, eventually, stopwatch

pytestmark = pytest.mark.anyio


async def everybody_heard(watchers: list[Listener], worker: Worker, room: str) -> None:
    """Waits until the watchers have been told all that was announced before."""
    async with Listener("the last", room).on(worker):
        for watcher in watchers:
            await watcher.hears("user_joined", "the last")


# Announced once


async def test_the_first_tab_in_and_the_last_tab_out_are_announced_once(workers: list[Worker], name: str) -> None:
    room = f"prompt:{name}"
    places: list[tuple[str | None, Worker]] = [("bob", workers[0]), ("eve", workers[2])]
    async with listening(*places, rooms=(room,)) as watchers:
        for watcher in watchers:
            await watcher.hears("user_joined", "eve")
        heard = [len(watcher.told) for watcher in watchers]
        async with AsyncExitStack() as tabs:
            for worker in workers:
                await tabs.enter_async_context(Listener("ann", room).on(worker))
            async with Listener("ann", room).on(workers[0]):
                await everybody_heard(watchers, workers[1], room)
        for watcher in watchers:
            await watcher.hears("user_left", "ann")
        await everybody_heard(watchers, workers[0], room)
        for watcher, count in zip(watchers, heard, strict=True):
            mine = [each for each in watcher.news[count:] if each["user_id"] == "ann"]
            assert [(each["type"], each["count"]) for each in mine] == [("user_joined", 3), ("user_left", 2)]
            assert watcher.told[count:][:1] == [("user_joined", "ann")]


async def test_of_tabs_that_race_on_all_workers_one_is_first_and_one_is_last(workers: list[Worker], name: str) -> None:
    room, users = f"prompt:{name}", [f"user{number}" for number in range(8)]
    async with listening(("bob", workers[0]), ("eve", workers[1]), rooms=(room,)) as watchers:

        async def come_and_go(user: str, worker: Worker) -> None:
            async with Listener(user, room).on(worker):
                pass

        for _ in range(2):
            await asyncio.gather(*(come_and_go(user, worker) for user in users for worker in workers))
        for watcher in watchers:
            await watcher.until(lambda watcher=watcher: watcher.news[-1]["count"] == 2)  # type: ignore[misc]
        await everybody_heard(watchers, workers[2], room)
        for watcher in watchers:
            for user in users:
                kinds = [kind for kind, who in watcher.told if who == user]
                # It may have been gone in between, or not: but each turn is told once, and in its order.
                assert kinds == ["user_joined", "user_left"] * (len(kinds) // 2)
                assert kinds

        async def the_others_left() -> bool:
            return await workers[2].present(room) == {"bob": 1, "eve": 1}

        await eventually(the_others_left)


async def test_a_page_that_is_loaded_again_on_another_worker_is_not_heard_of(workers: list[Worker], name: str) -> None:
    room = f"told:{name}"
    async with listening(("bob", workers[0]), ("eve", workers[1]), rooms=(room,)) as watchers:
        for number in range(6):
            async with Listener("ann", room).on(workers[number % 3]):
                assert (await workers[2].present(room))["ann"] == 1

            async def in_grace() -> bool:
                return (await workers[1].present(room))["ann"] == 0

            await eventually(in_grace)
        await everybody_heard(watchers, workers[2], room)
        for watcher in watchers:
            assert [told for told in watcher.told if told[1] == "ann"] == [("user_joined", "ann")]


async def test_who_stays_away_is_announced_after_the_grace(workers: list[Worker], name: str) -> None:
    room = f"brief:{name}"
    async with listening(("bob", workers[0]), ("eve", workers[1]), rooms=(room,)) as watchers:
        async with Listener("ann", room).on(workers[2]):
            since = time.monotonic()
        for watcher in watchers:
            await watcher.hears("user_left", "ann")
        assert time.monotonic() - since > 0.1
        for watcher in watchers:
            assert watcher.told.count(("user_left", "ann")) == 1


# Workers that end


async def test_a_killed_worker_is_noticed_within_its_lease_and_its_users_leave_once(
    redis: RedisServer, tmp_path: Path
) -> None:
    lease_s, room = 2.0, "told:a"
    async with (
        one_more(redis, tmp_path, count=2, lease_s=lease_s) as (workers, doomed, prefix, name),
        listening(("ann", workers[0]), ("bob", workers[1]), rooms=(room,)) as watchers,
        listening(("ann", doomed), ("cyd", doomed), ("cyd", doomed), ("dan", doomed), rooms=(room, "plain")),
    ):
        for watcher in watchers:
            await watcher.hears("user_joined", "dan")
        assert await workers[0].present(room) == {"ann": 2, "bob": 1, "cyd": 2, "dan": 1}
        assert redis.mentions(name, prefix)
        doomed.kill()
        async with stopwatch() as took_s:
            for watcher in watchers:
                for user in ("cyd", "dan"):
                    await watcher.hears("user_left", user)
            assert took_s() < 3 * lease_s
        await eventually(lambda: redis.mentions(name, prefix) == [])
        assert await workers[1].present(room) == {"ann": 1, "bob": 1}
        assert await workers[0].run(workers[0].manager.is_online("cyd")) is False
        assert await workers[0].present("plain") == {}
        await everybody_heard(watchers, workers[1], room)
        for watcher in watchers:
            left = [user for kind, user in watcher.told if kind == "user_left" and user != "the last"]
            assert sorted(left) == ["cyd", "dan"]


async def test_a_user_in_the_grace_of_a_killed_worker_leaves_too(redis: RedisServer, tmp_path: Path) -> None:
    room = "told:a"
    async with (
        one_more(redis, tmp_path, lease_s=2.0) as ((worker,), doomed, _, _),
        listening(("bob", worker), rooms=(room,)) as (bob,),
    ):
        async with Listener("ann", room).on(doomed):
            await bob.hears("user_joined", "ann")

        async def in_grace() -> bool:
            return (await worker.present(room))["ann"] == 0

        await eventually(in_grace)
        doomed.kill()
        await bob.hears("user_left", "ann")
        assert await worker.present(room) == {"bob": 1}


async def test_who_came_back_elsewhere_before_the_lease_ended_does_not_leave(
    redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = "told:a"
    looks, came_back = Leases.look, threading.Event()

    async def looks_after_that(leases: Leases, own: Set[str]) -> None:
        if came_back.is_set():
            await looks(leases, own)

    monkeypatch.setattr(Leases, "look", looks_after_that)
    async with (
        one_more(redis, tmp_path, lease_s=2.0) as ((worker,), doomed, prefix, name),
        listening(("bob", worker), rooms=(room,)) as (bob,),
    ):
        async with Listener("ann", room).on(doomed):
            await bob.hears("user_joined", "ann")
            doomed.kill()
        async with Listener("ann", room).on(worker):
            came_back.set()
            await eventually(lambda: redis.mentions(name, prefix) == [])
            assert await worker.present(room) == {"ann": 1, "bob": 1}
            await everybody_heard([bob], worker, room)
            assert [told for told in bob.told if told[1] == "ann"] == [("user_joined", "ann")]


async def test_a_worker_that_ends_well_leaves_nothing_behind(redis: RedisServer, tmp_path: Path) -> None:
    room = "prompt:a"
    async with one_more(redis, tmp_path) as ((worker,), ending, prefix, name):
        names = Keys(prefix).workers
        async with (
            listening(("bob", worker), rooms=(room,)) as (bob,),
            listening(("ann", ending), ("cyd", ending), rooms=(room, "plain:a")) as leaving,
        ):
            await bob.hears("user_joined", "cyd")
            assert await asyncio.to_thread(ending.terminate) in (0, -signal.SIGTERM)  # uvicorn hands it on
            assert "Finished server process" in ending.output
            for listener in leaving:
                await listener.until(lambda listener=listener: not listener.open)  # type: ignore[misc]
                assert listener.closed[0] == 1012
            assert redis.mentions(name, prefix) == []
            assert await worker.present(room) == {"bob": 1}
            assert len(redis.workers(names)) == 1
    assert redis.workers(names) == set()
    assert redis.channels(prefix) == set()


async def test_who_comes_back_elsewhere_when_a_worker_ends_has_not_left_and_the_others_have(
    redis: RedisServer, tmp_path: Path
) -> None:
    """As in a deployment: the grace goes on, however short the lease is."""
    room = "reload:a"
    async with (
        one_more(redis, tmp_path, lease_s=2.0) as ((worker,), ending, prefix, name),
        listening(("bob", worker), rooms=(room,)) as (bob,),
        AsyncExitStack() as stack,
    ):
        async with listening(("ann", ending), ("cyd", ending), rooms=(room,)) as tabs:
            await bob.hears("user_joined", "cyd")
            since = time.monotonic()
            terminated = asyncio.ensure_future(asyncio.to_thread(ending.terminate))
            for tab in tabs:
                await tab.until(lambda tab=tab: not tab.open)  # type: ignore[misc]
            # As a page does: it does not wait until the worker has ended, which may take as long as the grace.
            await stack.enter_async_context(Listener("ann", room).on(worker))
        await terminated
        await bob.hears("user_left", "cyd")
        assert time.monotonic() - since >= 2
        await eventually(lambda: redis.mentions(name, prefix) == [])
        assert await worker.present(room) == {"ann": 1, "bob": 1}
        await everybody_heard([bob], worker, room)
        assert [told for told in bob.told if told[1] == "ann"] == [("user_joined", "ann")]
        assert bob.told.count(("user_left", "cyd")) == 1


# What it costs


async def test_commands_per_second_do_not_grow_with_clients(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nobody joining or leaving, workers cost Redis the same whoever is connected to them."""
    window, every_s, renewed = 8, 6 / CHECKS, 0
    brokers = [RedisBroker(own_redis.url(lease_s=6)) for _ in range(2)]

    def count_renewals(presence: Presence) -> None:
        renews = presence.renew

        async def counts() -> None:
            nonlocal renewed
            await renews()
            renewed += 1

        monkeypatch.setattr(presence, "renew", counts)

    for broker in brokers:
        await Receiver(broker, DEADLINE_S).start(RoomTable())
        count_renewals(broker._presence)
    clients = 0

    async def connect(number: int) -> None:
        """What a client is to a broker: in its own room, present in everybody's, and in one of its choice."""
        broker, user = brokers[number % 2], str(number)
        await broker.subscribe(user_room(user))
        for room in (EVERYONE_NAME, "crowd"):
            await broker.enter(room, user, f"connection-{number}", None)

    async def commands_per_renewal(connections: int) -> float:
        nonlocal clients
        while clients < connections:
            first, clients = clients, min(clients + 500, connections)
            await asyncio.gather(*map(connect, range(first, clients)))
        assert await brokers[0].count("crowd") == connections
        start = renewed + 1
        await eventually(lambda: renewed >= start)  # a window begins and ends with one
        start, before, since = renewed, own_redis.command_counts(), time.monotonic()
        await eventually(lambda: renewed >= start + window)
        renewals, after, took_s = renewed - start, own_redis.command_counts(), time.monotonic() - since
        assert renewals <= len(brokers) * (took_s / every_s + 1), "a busy machine has fewer in that time, none has more"
        return sum(after[name] - before.get(name, 0) for name in after if name != "info") / renewals

    try:
        few = await commands_per_renewal(100)
        many = await commands_per_renewal(5_000)
        assert few > 0
        # A window may hold a little more of what another worker is doing than the other; of clients it has 50 times.
        assert many <= 1.5 * few, (few, many)
    finally:
        for broker in brokers:
            await broker.close()


@pytest.mark.parametrize("kind", ["prompt", "told"])  # without a grace, and with one that outlasts the test
async def test_who_is_lost_while_the_worker_is_cut_off_is_not_said_to_have_come_back(
    own_redis: RedisServer, kind: str
) -> None:
    """In none of the rooms: the worker is taken for dead, and says all its users again when it is back."""
    rooms = [f"{kind}:{number}" for number in range(4)]
    with Proxy(own_redis) as proxy, fleet(own_redis.url(lease_s=1), own_redis.url(through=proxy, lease_s=1)) as workers:
        one, other = workers
        async with Listener("bob", *rooms).on(one) as bob, Listener("cyd", *rooms).on(other):

            async def heard(user: str, *kinds: str) -> None:
                def told_all() -> bool:
                    return all(
                        [each["type"] for each in bob.news if (each["room"], each["user_id"]) == (room, user)]
                        == list(kinds)
                        for room in rooms
                    )

                await bob.until(told_all)

            async with Listener("ann", *rooms).on(other) as ann:
                await heard("ann", "user_joined")
                proxy.cut_off()
                await heard("ann", "user_joined", "user_left")
                ann.vanish()
                await eventually(lambda: other.manager.stats().users == 1)
            proxy.closed = False
            await heard("cyd", "user_joined", "user_left", "user_joined")
            async with Listener("dan", *rooms).on(other):  # after which nothing is on its way
                await heard("dan", "user_joined")
                await heard("ann", "user_joined", "user_left")
