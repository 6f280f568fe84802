"""A Redis that takes keys away: it is warned of, and presence comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hubbub import BrokerUnavailable
from hubbub.brokers.redis import RedisBroker
from hubbub.brokers.redis.channel import Keys
from hubbub.brokers.redis.ledger import Manner, Place
from hubbub.brokers.redis.presence import LOOKED_AFTER
from hubbub.names import EVERYONE_NAME
from hubbub.options import RoomTable
from hubbub.testing.broker_suite import Worker
from tests.integration.fleet import Listener, fleet, listening
from tests.integration.redis_server import RedisServer, one_more, running_redis
from tests.integration.support import eventually

pytestmark = pytest.mark.anyio

LEASE_S = 2.0
"""Presence is looked after each eighth of it."""

KEYS = Keys("hubbub")


def warnings_in(caplog: pytest.LogCaptureFixture, about: str) -> list[str]:
    found = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    return [each for each in found if about in each]


def infos_of_others(redis: RedisServer) -> Callable[[int], bool]:
    """Says whether somebody else has asked for INFO so often from here on."""
    start, own = redis.command_counts()["info"], 0

    def reached(times: int) -> bool:
        nonlocal own
        own += 1  # the last one by which it was counted
        return redis.command_counts()["info"] - start - own == times

    return reached


async def test_a_policy_that_evicts_is_warned_of_once(own_redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    infos = infos_of_others(own_redis)
    own_redis.command("CONFIG", "SET", "maxmemory", "100mb")
    own_redis.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    broker = RedisBroker(own_redis.url())
    await Worker(broker, 5.0).start(RoomTable())
    try:
        await eventually(partial(infos, 1))
        for number, policy in enumerate(("allkeys-lru", "volatile-ttl", "noeviction", "allkeys-lru"), start=2):
            own_redis.command("CONFIG", "SET", "maxmemory-policy", policy)
            own_redis.cut("normal")
            await eventually(partial(infos, number))
        await eventually(lambda: len(warnings_in(caplog, "maxmemory-policy noeviction")) == 3)
        said = [each.partition("(")[2].partition(")")[0] for each in warnings_in(caplog, "may evict")]
        assert said == [f"maxmemory-policy {each!r}" for each in ("allkeys-lru", "volatile-ttl", "allkeys-lru")]
    finally:
        await broker.close()


async def test_presence_that_was_evicted_is_told_again_in_silence(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    room = "told:a"
    with fleet(*[own_redis.url(lease_s=LEASE_S)] * 2) as (one, other):
        async with listening(("ann", one), ("bob", other), rooms=(room,)) as (ann, bob):
            cyd = Listener("cyd", room)
            async with cyd.on(one):
                await ann.hears("user_joined", "cyd")
                cyd.vanish()

                async def is_right() -> bool:
                    return (
                        await one.present(room) == {"ann": 1, "bob": 1, "cyd": 0}
                        and await other.run(other.manager.is_online("ann"))
                        and await one.run(one.manager.is_online("bob"))
                    )

                await eventually(is_right)
                told = list(ann.told), list(bob.told)
                for keys in (
                    [KEYS.here(room)],
                    [KEYS.here(EVERYONE_NAME)],
                    [KEYS.here(room), KEYS.here(EVERYONE_NAME)],
                ):
                    assert own_redis.command("DEL", *keys) == len(keys)
                    await eventually(is_right)
                assert (ann.told, bob.told) == told, "nobody came or went"
                assert warnings_in(caplog, "reporting them again")


async def test_presence_that_was_evicted_is_told_again_though_somebody_came_since(own_redis: RedisServer) -> None:
    """The key is there again, with who came only."""
    broker = RedisBroker(own_redis.url(lease_s=LEASE_S))
    await Worker(broker, 5.0).start(RoomTable())
    try:
        for number in range(3):
            await broker.enter("a", "ann", f"ann{number}", None)
            await broker.enter("a", "bob", f"bob{number}", None)
        await broker.exit("a", "ann", "ann0")
        own_redis.command("DEL", KEYS.here("a"))
        await broker.enter("a", "cyd", "cyd0", None)
        await broker.enter("a", "ann", "ann3", None)

        async def is_right() -> bool:
            found = {member.user_id: member.connections for member in await broker.members("a")}
            return found == {"ann": 3, "bob": 3, "cyd": 1}

        await eventually(is_right)
    finally:
        await broker.close()


@pytest.mark.parametrize("command", [("DEL", KEYS.anonymous("a")), ("FLUSHALL",)], ids=["evicted", "all lost"])
async def test_anonymous_connections_that_were_lost_are_told_again(
    own_redis: RedisServer, command: tuple[str, ...]
) -> None:
    """With all that they say, and those of users beside them."""
    broker = RedisBroker(own_redis.url(lease_s=LEASE_S))
    await Worker(broker, 5.0).start(RoomTable())
    try:
        await broker.enter("a", None, "x1", {"n": 1}, {"role": "guest"})
        await broker.enter("a", None, "x2", None)
        await broker.enter("a", "ann", "a1", {"n": 1}, {"role": "owner"})
        await broker.enter("a", "ann", "a2", {"n": 2})
        before = set(map(repr, await broker.connections("a")))
        assert len(before) == 4
        own_redis.command(*command)

        async def is_right() -> bool:
            return set(map(repr, await broker.connections("a"))) == before

        await eventually(is_right)
    finally:
        await broker.close()


async def test_a_user_who_came_back_elsewhere_is_not_missing(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Its grace ended with that: the worker that it left does not take this for an eviction."""
    left, other = (RedisBroker(own_redis.url(lease_s=LEASE_S)) for _ in range(2))
    for broker in (left, other):
        await Worker(broker, 5.0).start(RoomTable())
    try:
        await left.enter("a", "ann", "ann0", None)
        await left.enter("b", "bob", "bob0", None)
        await left.linger("a", "ann", "ann0", 60.0)
        await other.enter("a", "ann", "ann1", None)
        own_redis.command("DEL", KEYS.here("b"))  # by which a look is seen
        await eventually(lambda: own_redis.command("EXISTS", KEYS.here("b")) == 1)
        assert len(warnings_in(caplog, "in 1 room;")) == len(warnings_in(caplog, "reporting them again")) == 1
    finally:
        for broker in (left, other):
            await broker.close()


async def test_all_rooms_are_looked_after_a_part_at_a_time(own_redis: RedisServer) -> None:
    broker = RedisBroker(own_redis.url(lease_s=LEASE_S))
    await Worker(broker, 5.0).start(RoomTable())
    rooms = [f"room {number}" for number in range(2 * LOOKED_AFTER + 10)]
    try:
        await asyncio.gather(*(broker.enter(room, "ann", "ann0", None) for room in rooms))
        own_redis.command("DEL", *map(KEYS.here, rooms))
        await eventually(lambda: own_redis.command("EXISTS", *map(KEYS.here, rooms)) == len(rooms))
        calls = own_redis.command_counts()["evalsha"]
        await eventually(lambda: own_redis.command_counts()["evalsha"] > calls + 4)
        assert own_redis.command_counts()["evalsha"] < calls + len(rooms), "they are not told again and again"
    finally:
        await broker.close()


async def test_a_room_that_was_restored_in_part_is_found_again(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where Redis was full for a moment."""
    broker = RedisBroker(own_redis.url(lease_s=LEASE_S))
    await Worker(broker, 5.0).start(RoomTable())
    presence: Any = broker._presence
    restores, refused = presence._again, False

    async def is_refused_once(place: Place, manner: Manner) -> None:
        nonlocal refused
        if place.user == "bob" and not refused:
            refused = True
            raise BrokerUnavailable("Redis is full")
        await restores(place, manner)

    monkeypatch.setattr(presence, "_again", is_refused_once)
    try:
        for user in ("ann", "bob", "cyd"):
            await broker.enter("a", user, f"{user}0", None)
        own_redis.command("DEL", KEYS.here("a"))
        await eventually(lambda: own_redis.command("HLEN", KEYS.here("a")) == 3)
        assert refused
    finally:
        await broker.close()


async def test_a_worker_whose_list_of_rooms_was_evicted_leaves_nobody_behind(tmp_path: Path) -> None:
    """By that list another takes out who was on it."""
    with running_redis(tmp_path) as redis:
        async with one_more(redis, tmp_path, lease_s=LEASE_S) as ((worker,), process, prefix, name):
            keys = Keys(prefix)
            async with Listener("ann", "prompt:a").on(process):
                await eventually(lambda: redis.command("SCARD", keys.worker_rooms(name)) == 2)
                redis.command("DEL", keys.worker_rooms(name))
                await eventually(lambda: redis.command("SCARD", keys.worker_rooms(name)) == 2)
                process.kill()

            async def nobody() -> bool:
                return await worker.present("prompt:a") == {}

            await eventually(nobody)
