"""Servers that answer and can't serve: clusters, sentinels, replicas. It is said, at the start and later."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from hubbub import AsyncPublisher, BrokerUnavailable, ConnectionManager, Publisher
from hubbub.brokers.redis import RedisBroker
from hubbub.codec import decode
from hubbub.envelope import Envelope
from hubbub.options import RoomOptions, RoomTable
from hubbub.testing.broker_suite import Worker
from tests.integration.redis_server import Mode, Proxy, RedisServer, running_redis
from tests.integration.support import eventually

pytestmark = pytest.mark.anyio

ROOMS = RoomTable({"kept": RoomOptions(history=5), "*": RoomOptions()})
UNUSABLE = ["cluster", "a database of a cluster", "a cluster behind a proxy that hides it", "sentinel"]


@pytest.fixture(scope="module", params=UNUSABLE)
def unusable(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The URL of a server that can't serve, and what has to be said of it."""
    mode: Mode = "sentinel" if request.param == "sentinel" else "cluster"
    with ExitStack() as stack:
        server = stack.enter_context(running_redis(tmp_path_factory.mktemp(mode), mode=mode))
        proxy = None
        if "proxy" in request.param:
            proxy = stack.enter_context(Proxy(server))
            proxy.rewrites = b"$7\r\ncluster\r\n", b"$10\r\nstandalone\r\n"
        database = 1 if "database" in request.param else 0
        yield server.url(through=proxy, database=database), f"Redis {mode.title()}"


async def test_an_app_does_not_start_with_a_server_that_can_not_serve(unusable: tuple[str, str]) -> None:
    url, said = unusable
    manager = ConnectionManager(url)
    with pytest.raises(BrokerUnavailable, match=said):
        async with manager.lifespan():
            pytest.fail("it started")
    assert not manager.ready
    assert not manager.stats().broker_up


async def test_a_publisher_raises_at_once_where_the_server_can_not_serve(unusable: tuple[str, str]) -> None:
    url, said = unusable
    with Publisher(url, timeout_s=60) as publisher:
        for _ in range(2):
            with pytest.raises(BrokerUnavailable, match=said):
                await asyncio.to_thread(publisher.is_online, "ann")
    async with AsyncPublisher(url, timeout_s=60) as async_publisher:
        for _ in range(2):
            with pytest.raises(BrokerUnavailable, match=said):
                await async_publisher.is_online("ann")


def errors_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


async def test_a_url_that_comes_to_lead_to_a_cluster_is_an_error_and_not_up(
    own_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    with running_redis(tmp_path_factory.mktemp("cluster"), mode="cluster") as cluster, Proxy(own_redis) as proxy:
        broker = RedisBroker(own_redis.url(through=proxy, timeout_s=0.5))
        worker = Worker(broker, 5.0)
        await worker.start(ROOMS)
        try:
            await broker.subscribe("kept")
            proxy.leads_to = cluster.port
            proxy.sever()
            await eventually(lambda: len(errors_in(caplog)) == 2)  # of both connections
            assert all("Redis Cluster" in each for each in errors_in(caplog))
            assert not broker.state.up
            assert not await broker.healthy()
            with pytest.raises(BrokerUnavailable, match="Redis Cluster"):
                await worker.publish("kept", "goes nowhere")
            proxy.leads_to = own_redis.port
            await eventually(lambda: broker.state.up)
            await worker.publish("kept", "hello")
            await worker.until(lambda: [each for on, each in worker.received if on == "kept"] != [])
            (delivery,) = (each for on, each in worker.received if on == "kept")
            assert isinstance(delivery, Envelope)
            assert decode(delivery.payload) == "hello"
            assert len(errors_in(caplog)) == 2, "it is said once"
        finally:
            await broker.close()


@pytest.fixture
def replica(own_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("replica")) as replica:
        replica.command("REPLICAOF", "127.0.0.1", own_redis.port)
        yield replica


async def test_a_replica_is_named_and_waited_for_until_it_is_a_master(
    replica: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    broker = RedisBroker(replica.url(timeout_s=0.3))
    worker = Worker(broker, 5.0)
    await worker.start(ROOMS)
    try:
        assert not broker.state.up
        await eventually(lambda: [each.count("replica") for each in errors_in(caplog)] == [1, 1])
        with pytest.raises(BrokerUnavailable, match="replica"):
            await worker.publish("kept", "too early")
        with Publisher(replica.url(), timeout_s=0.2) as publisher:
            with pytest.raises(BrokerUnavailable, match="replica"):
                await asyncio.to_thread(publisher.is_online, "ann")
            replica.command("REPLICAOF", "NO", "ONE")
            await eventually(lambda: broker.state.up)
            assert await worker.publish("kept", "hello") is not None
            assert not await asyncio.to_thread(publisher.is_online, "ann")
    finally:
        await broker.close()


async def test_a_publisher_whose_master_became_a_replica_finds_the_new_one(
    own_redis: RedisServer, replica: RedisServer
) -> None:
    with Proxy(own_redis) as proxy, Publisher(own_redis.url(through=proxy), timeout_s=5) as publisher:
        broker = RedisBroker(own_redis.url(through=proxy))
        worker = Worker(broker, 5.0)
        await worker.start(ROOMS)
        try:
            first = await asyncio.to_thread(publisher.broadcast, "one", room="kept")
            assert first is not None
            await eventually(lambda: replica.command("EXISTS", "hubbub:rooms", "hubbub:{kept}:log") == 2)
            replica.command("REPLICAOF", "NO", "ONE")
            proxy.leads_to = replica.port  # for new connections: those that there are go on
            own_redis.command("REPLICAOF", "127.0.0.1", replica.port)
            second = await asyncio.to_thread(publisher.broadcast, "two", room="kept")
            assert second is not None
            assert [entry.recorded().message for entry in (await broker.history("kept")).entries] == ["one", "two"]
        finally:
            await broker.close()
