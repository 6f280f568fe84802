"""Presence where Redis, or a worker, loses what was said: nobody is missing, nobody stays, each is announced once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hubbub import BrokerUnavailable
from hubbub.brokers.redis import RedisBroker
from hubbub.brokers.redis.channel import Keys
from hubbub.brokers.redis.scripts import ALL
from hubbub.options import History, RoomOptions, RoomTable
from hubbub.presence import Info
from hubbub.testing.broker_suite import KEPT, PLAIN, TOLD, Worker
from tests.integration.redis_server import Proxy, RedisServer
from tests.integration.support import eventually

pytestmark = pytest.mark.anyio

ROOMS = RoomTable(
    {PLAIN: RoomOptions(), TOLD: RoomOptions(announce=True), KEPT: RoomOptions(history=History(50, 60.0))}
)
LEASE_S = 2.0
JOINED, LEFT = "joined", "left"


@asynccontextmanager
async def started(url: str) -> AsyncIterator[Worker]:
    """A worker without sockets, who listens to the rooms."""
    worker = Worker(RedisBroker(url), 10.0)
    await worker.start(ROOMS)
    try:
        for room in (TOLD, KEPT):
            await worker.broker.subscribe(room)
        yield worker
    finally:
        await worker.broker.close()


def own(worker: Worker) -> Any:
    """The worker's own part."""
    broker: Any = worker.broker
    return broker._presence


async def enter(worker: Worker, user: str, tab: int = 1, info: Info = None) -> None:
    await worker.broker.enter(TOLD, user, f"{user}{tab}", info)


async def leave(worker: Worker, user: str, tab: int = 1) -> None:
    await worker.broker.exit(TOLD, user, f"{user}{tab}")


async def present(worker: Worker) -> dict[str, int]:
    return {member.user_id: member.connections for member in await worker.broker.members(TOLD)}


async def told(worker: Worker, user: str) -> list[str]:
    return [kind for kind, who, _ in await worker.announcements(TOLD) if who == user]


async def are_present(worker: Worker, **users: int) -> None:
    async def so() -> bool:
        try:
            return await present(worker) == users
        except BrokerUnavailable:
            return False

    await eventually(so)


async def leases(number: float) -> None:
    """Nothing is to happen meanwhile, which is nothing that one could wait for."""
    await asyncio.sleep(number * LEASE_S)


async def test_what_is_on_its_way_when_redis_goes_back_does_not_hide_what_it_lost(
    durable_redis: RedisServer, tmp_path: Path
) -> None:
    """It is sent again, with what was confirmed when it was said."""
    users = [f"user {number}" for number in range(1000)]
    with Proxy(durable_redis) as proxy:
        async with started(durable_redis.url(through=proxy, lease_s=LEASE_S)) as one:
            await enter(one, "ann")
            durable_redis.backup(tmp_path / "backup")
            await asyncio.gather(*(enter(one, user) for user in users[:200]))
            proxy.lose("answers")
            entering = asyncio.gather(*(enter(one, user) for user in users[200:]))
            here = Keys("hubbub").here(TOLD)
            await eventually(lambda: durable_redis.command("HLEN", here) == 1001)
            assert 100 < own(one)._ledger.confirmed < 900
            durable_redis.kill()
            durable_redis.restore(tmp_path / "backup")
            durable_redis.start()
            await entering
            await are_present(one, ann=1, **dict.fromkeys(users, 1))


async def test_who_is_in_grace_when_redis_comes_back_behind_can_still_be_heard_to_leave(
    durable_redis: RedisServer, tmp_path: Path
) -> None:
    async with started(durable_redis.url(lease_s=LEASE_S)) as one:
        for user in ("ann", "bob", "cyd"):
            await enter(one, user)
        durable_redis.backup(tmp_path / "backup")
        for user in ("ann", "bob"):
            await one.broker.linger(TOLD, user, f"{user}1", 60.0)
        durable_redis.kill()
        durable_redis.restore(tmp_path / "backup")
        durable_redis.start()
        await are_present(one, ann=0, bob=0, cyd=1)
        await leave(one, "ann")
        await enter(one, "bob", 2)
        await are_present(one, bob=1, cyd=1)
        assert await told(one, "ann") == [JOINED, LEFT]
        assert await told(one, "bob") == [JOINED]


async def test_a_connection_that_comes_again_is_not_taken_out_for_what_was_refused_before(
    own_redis: RedisServer,
) -> None:
    async with started(own_redis.url(lease_s=LEASE_S)) as one:
        await enter(one, "ann")
        own_redis.command("CONFIG", "SET", "min-replicas-to-write", 1)
        await leave(one, "ann")
        with pytest.raises(BrokerUnavailable):
            await enter(one, "bob")
        own_redis.command("CONFIG", "SET", "min-replicas-to-write", 0)
        await enter(one, "ann")
        await enter(one, "bob")
        await leases(0.5)  # what is owed is said
        assert await present(one) == {"ann": 1, "bob": 1}
        assert await told(one, "ann") == await told(one, "bob") == [JOINED]


@pytest.mark.parametrize("down_s", [0.0, 1.2])
async def test_redis_that_comes_back_behind_is_told_who_is_here_and_who_is_not(
    durable_redis: RedisServer, tmp_path: Path, down_s: float
) -> None:
    url = durable_redis.url(lease_s=LEASE_S)
    async with started(url) as one, started(url) as other:
        await enter(one, "ann")
        await enter(other, "eve")
        durable_redis.backup(tmp_path / "backup")
        await leave(one, "ann")
        await enter(one, "bob")
        await enter(other, "fay")
        assert await told(other, "fay") == [JOINED]
        durable_redis.kill()
        durable_redis.restore(tmp_path / "backup")
        await asyncio.sleep(down_s)
        durable_redis.start()
        await are_present(one, bob=1, eve=1, fay=1)
        await leases(1.5)
        await are_present(one, bob=1, eve=1, fay=1)
        assert await told(other, "ann") == [JOINED, LEFT]
        for user in ("bob", "eve", "fay"):
            assert await told(other, user) == [JOINED]


async def test_workers_whose_renewals_are_refused_are_not_taken_for_dead(own_redis: RedisServer) -> None:
    url = own_redis.url(lease_s=LEASE_S)
    async with started(url) as one, started(url) as two, started(url) as three:
        workers = {"ann": one, "bob": two, "cyd": three}
        for user, worker in workers.items():
            await enter(worker, user)
        own_redis.command("CONFIG", "SET", "min-replicas-to-write", 1)
        await leases(1.2)
        assert not own_redis.command(
            "EXISTS", *(Keys("hubbub").lease(own(worker).worker) for worker in workers.values())
        )
        own_redis.command("CONFIG", "SET", "min-replicas-to-write", 0)
        await leases(1.2)
        for user in workers:
            assert await told(one, user) == [JOINED]


async def test_a_worker_whose_users_were_said_to_have_left_says_that_they_are_back_though_redis_was_restarted(
    durable_redis: RedisServer,
) -> None:
    with Proxy(durable_redis) as proxy:
        async with (
            started(durable_redis.url(lease_s=LEASE_S)) as one,
            started(durable_redis.url(through=proxy, lease_s=LEASE_S)) as other,
        ):
            await enter(other, "ann")
            await enter(other, "bob")
            await other.broker.linger(TOLD, "bob", "bob1", 60.0)
            proxy.cut_off()
            await one.until(lambda: len(one.received) == 4)
            assert await told(one, "ann") == await told(one, "bob") == [JOINED, LEFT]
            durable_redis.kill()
            durable_redis.start()
            proxy.closed = False
            await are_present(one, ann=1)
            assert await told(one, "ann") == [JOINED, LEFT, JOINED]
            await leave(other, "bob")  # the end of the grace, on the worker that has it
            assert await told(one, "bob") == [JOINED, LEFT]


async def test_a_user_who_leaves_as_all_is_said_again_is_not_said_to_have_come_back(own_redis: RedisServer) -> None:
    with Proxy(own_redis) as proxy:
        async with (
            started(own_redis.url(lease_s=LEASE_S)) as one,
            started(own_redis.url(through=proxy, lease_s=LEASE_S)) as other,
        ):
            await enter(other, "ann")
            await enter(other, "bob")
            proxy.cut_off()
            await one.until(lambda: len(one.received) == 4)
            proxy.delay_s = 0.1  # so that it takes a while
            proxy.closed = False
            await eventually(lambda: own(other)._recovery is not None and not own(other)._recovery.done())
            await leave(other, "ann")
            assert own(other)._ledger.unsaid is None, "it was not said again meanwhile"
            await are_present(one, bob=1)
            assert await told(one, "ann") == [JOINED, LEFT]
            assert await told(one, "bob") == [JOINED, LEFT, JOINED]


async def test_users_are_announced_again_though_their_worker_found_them_missing_before_it_heard_why(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker renews its lease, is cut off before it checks its rooms, and is taken for dead."""
    rooms = [*(f"plain {number}" for number in range(3)), TOLD]  # the one that hears of it is checked last
    with Proxy(own_redis) as proxy:
        async with (
            started(own_redis.url(lease_s=LEASE_S)) as one,
            started(own_redis.url(through=proxy, lease_s=LEASE_S, timeout_s=30)) as other,
        ):
            for room in rooms:
                await other.broker.enter(room, "bob", "bob1", None)
            await enter(other, "ann")
            checks, cut_off = own(other)._look_after_some, asyncio.Event()

            async def is_cut_off_and_checks() -> None:
                if not cut_off.is_set():
                    proxy.cut_off()
                    cut_off.set()
                await checks()

            monkeypatch.setattr(own(other), "_look_after_some", is_cut_off_and_checks)
            await cut_off.wait()
            await one.until(lambda: len(one.received) == 4)
            assert await told(one, "ann") == await told(one, "bob") == [JOINED, LEFT]
            leaving = asyncio.ensure_future(leave(other, "ann"))  # the answer says that Redis does not know the worker
            await asyncio.sleep(0)
            proxy.closed = False
            await leaving
            await are_present(one, bob=1)
            await enter(one, "cyd")  # announced after all that was announced before
            assert await told(one, "cyd") == [JOINED]
            assert await told(one, "bob") == [JOINED, LEFT, JOINED]
            assert await told(one, "ann") == [JOINED, LEFT]
            assert "evicted" not in caplog.text


async def test_whoever_was_let_in_is_taken_out_whatever_was_refused_before(own_redis: RedisServer) -> None:
    """The worker's first word of a room is refused; then it is well for a moment, and dies."""
    with Proxy(own_redis) as proxy:
        async with (
            started(own_redis.url(lease_s=LEASE_S)) as one,
            started(own_redis.url(through=proxy, lease_s=LEASE_S)) as doomed,
        ):
            own_redis.command("CONFIG", "SET", "maxmemory", 1)
            with pytest.raises(BrokerUnavailable):
                await enter(doomed, "ann")
            own_redis.command("CONFIG", "SET", "maxmemory", 0)
            await enter(doomed, "bob")
            proxy.cut_off()
            await are_present(one)
            assert await told(one, "ann") == []
            assert await told(one, "bob") == [JOINED, LEFT]


@pytest.mark.parametrize("ends", ["well", "badly"])
async def test_a_user_in_grace_whose_return_is_refused_leaves_with_the_worker(
    own_redis: RedisServer, ends: str
) -> None:
    with Proxy(own_redis) as proxy:
        async with started(own_redis.url(lease_s=LEASE_S)) as one:
            async with started(own_redis.url(through=proxy, lease_s=LEASE_S)) as ending:
                await enter(ending, "ann")
                await ending.broker.linger(TOLD, "ann", "ann1", 60.0)
                own_redis.command("CONFIG", "SET", "maxmemory", 1)
                with pytest.raises(BrokerUnavailable):
                    await enter(ending, "ann", 2)
                own_redis.command("CONFIG", "SET", "maxmemory", 0)
                if ends == "badly":
                    proxy.cut_off()
                else:
                    await leave(ending, "ann")
            await are_present(one)
            assert await told(one, "ann") == [JOINED, LEFT]


async def test_data_that_is_lost_under_open_connections_makes_nobody_come_or_go(own_redis: RedisServer) -> None:
    url = own_redis.url(lease_s=60.0)  # they find out without a renewal
    async with started(url) as one, started(url) as other:
        await enter(one, "ann", info={"tab": 1})
        await enter(other, "bob")
        since = {member.user_id: member.since for member in await one.broker.members(TOLD)}
        own_redis.command("FLUSHALL")
        await enter(other, "ann", 2, info={"tab": 2})
        await leave(other, "bob")
        (ann,) = await one.broker.members(TOLD)
        assert (ann.user_id, ann.info, ann.since) == ("ann", {"tab": 2}, since["ann"])
        await leave(other, "ann", 2)
        assert await present(one) == {"ann": 1}
        assert await told(one, "ann") == [JOINED]
        assert await told(one, "bob") == [JOINED, LEFT]


async def test_a_worker_that_dies_right_after_data_was_lost_leaves_nobody_behind(own_redis: RedisServer) -> None:
    with Proxy(own_redis) as proxy:
        async with (
            started(own_redis.url(lease_s=LEASE_S)) as one,
            started(own_redis.url(through=proxy, lease_s=LEASE_S)) as doomed,
        ):
            own_redis.command("FLUSHALL")
            await enter(doomed, "ann")
            proxy.cut_off()
            await one.until(lambda: len(one.received) == 2)
            assert await told(one, "ann") == [JOINED, LEFT]
            assert await present(one) == {}


async def test_what_scripts_say_is_not_taken_for_old_where_they_must_be_loaded_again(own_redis: RedisServer) -> None:
    """What is no script's goes through at once, and has a later number."""
    url = own_redis.url()
    async with started(url) as one, started(url) as other:
        await one.publish(KEPT, "first")
        own_redis.command("SCRIPT", "FLUSH")
        await asyncio.gather(one.publish(KEPT, "second"), enter(one, "ann"), one.publish(PLAIN, "between"))
        await eventually(lambda: one.broker.state.up)
        await one.publish(KEPT, "third")
        for worker in (one, other):
            assert await worker.messages(KEPT) == ["first", "second", "third"]
            assert len(await worker.all_of(KEPT)) == 3, "there was a reset"
            assert await told(worker, "ann") == [JOINED]


async def test_what_was_passed_by_the_next_is_said_once_more(own_redis: RedisServer) -> None:
    """As where the server refuses one, takes the next, and gets the first again."""
    async with started(own_redis.url()) as one:

        def pass_next() -> None:
            own_redis.command("HINCRBY", Keys("hubbub").workers, own(one).worker, 1)

        pass_next()
        await enter(one, "ann")
        assert await present(one) == {"ann": 1}
        pass_next()
        await one.broker.linger(TOLD, "ann", "ann1", 60.0)
        assert await present(one) == {"ann": 0}
        pass_next()
        await leave(one, "ann")
        assert await present(one) == {}
        assert await told(one, "ann") == [JOINED, LEFT]


async def test_who_entered_as_the_worker_ended_and_did_not_hear_of_it_is_taken_out(own_redis: RedisServer) -> None:
    with Proxy(own_redis) as proxy:
        async with started(own_redis.url(lease_s=LEASE_S)) as one:
            async with started(own_redis.url(through=proxy, lease_s=LEASE_S)) as ending:
                proxy.lose("answers")
                entering = asyncio.ensure_future(enter(ending, "ann"))
                await are_present(one, ann=1)
            with pytest.raises(BrokerUnavailable):
                await entering
            await are_present(one)
            assert await told(one, "ann") == [JOINED, LEFT]


async def test_a_message_that_the_next_could_pass_is_published_before_it(own_redis: RedisServer) -> None:
    """The server has forgotten the scripts, refuses one, is given them by another worker, and could take the next."""
    with Proxy(own_redis) as proxy:
        async with started(own_redis.url()) as one, started(own_redis.url(through=proxy)) as other:
            await other.publish(KEPT, "before")
            own_redis.command("SCRIPT", "FLUSH")
            refusals = own_redis.errors("NOSCRIPT")
            proxy.hold("answers")  # so that what is refused is not known yet
            first = asyncio.ensure_future(other.publish(KEPT, "first"))
            await eventually(lambda: own_redis.errors("NOSCRIPT") > refusals)
            for script in ALL:
                own_redis.command("SCRIPT", "LOAD", script.text)
            passing = asyncio.ensure_future(other.publish_numbered(KEPT, "second"))
            await eventually(lambda: own_redis.errors("LINE") > 0)
            proxy.release()
            second, position = await passing, await first
            assert position is not None
            assert second.offset == position.offset + 1
            assert await one.messages(KEPT) == ["before", "first", "second"]


async def test_exits_that_are_owed_do_not_keep_a_worker_from_its_lease(own_redis: RedisServer) -> None:
    users = [f"user {number}" for number in range(1500)]
    lease_s = 15.0  # longer than Redis refuses writes here, on a busy machine too
    with Proxy(own_redis) as proxy:
        url = own_redis.url(through=proxy, lease_s=lease_s)
        async with started(own_redis.url(lease_s=lease_s)) as one, started(url) as other:
            await enter(other, "ann")
            await asyncio.gather(*(enter(other, user) for user in users))
            own_redis.command("CONFIG", "SET", "min-replicas-to-write", 1)
            await asyncio.gather(*(leave(other, user) for user in users))
            assert len(own(other)._ledger.debts()) == len(users)
            own_redis.command("CONFIG", "SET", "min-replicas-to-write", 0)
            proxy.delay_s = 0.02  # one after the other they would take longer than a lease
            await are_present(one, ann=1)
            assert await told(one, "ann") == [JOINED]
            assert await told(one, users[0]) == await told(one, users[-1]) == [JOINED, LEFT]


async def test_exits_that_are_owed_when_a_worker_ends_are_said_by_another(own_redis: RedisServer) -> None:
    async with started(own_redis.url(lease_s=LEASE_S)) as one:
        async with started(own_redis.url(lease_s=LEASE_S)) as ending:
            await enter(ending, "ann")
            own_redis.command("CONFIG", "SET", "min-replicas-to-write", 1)
            await leave(ending, "ann")
            assert own(ending)._ledger.owes
            own_redis.command("CONFIG", "SET", "min-replicas-to-write", 0)
        await are_present(one)
        assert await told(one, "ann") == [JOINED, LEFT]
        await eventually(lambda: own_redis.command("KEYS", "hubbub:worker:*:rooms") == [])
