"""Everything that the manager does, with clients spread over three workers that share a Redis."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from hubbub import EVERYONE, AsyncPublisher, BrokerUnavailable, Position, Publisher
from hubbub.brokers.redis.channel import Keys
from hubbub.names import user_room
from tests.integration.fleet import Listener, Stream, Subscriber, Worker, fleet, listening, subscribing
from tests.integration.redis_server import RedisServer, as_text, fresh_prefix, one_more, running_redis
from tests.integration.support import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["plain", "kept"])
def room(request: pytest.FixtureRequest, name: str) -> str:
    return f"{request.param}:{name}"


def same_as(*workers: Worker) -> list[tuple[str | None, Worker]]:
    """Nobody in particular, on each worker."""
    return [(None, worker) for worker in workers]


# Rooms and everybody


async def test_a_broadcast_reaches_everybody_on_every_worker_once(workers: list[Worker]) -> None:
    async with listening(*same_as(*workers, *workers)) as listeners:
        for number, worker in enumerate(workers):
            await worker.run(worker.manager.broadcast(["all", number]))
        await workers[0].run(workers[0].manager.broadcast(["all", "end"], room=EVERYONE))
        for listener in listeners:
            await listener.has("all", "end")
            assert sorted(listener.data["all"][:-1]) == [0, 1, 2]
            assert listener.data["all"] == listeners[0].data["all"]


async def test_a_room_is_its_members_wherever_they_are(workers: list[Worker], room: str) -> None:
    async with (
        listening(*same_as(*workers), rooms=(room,)) as members,
        listening(*same_as(*workers), rooms=(f"{room}2",)) as others,
    ):
        for number, worker in enumerate(workers):
            await worker.publish(room, number)
            await worker.run(worker.manager.broadcast_to_room(f"{room}2", [f"{room}2", "elsewhere"]))
        await workers[0].publish(f"{room}2", "end")
        await workers[0].publish(room, "end")
        for listener in members:
            await listener.has(room, "end")
            assert listener.data[room][:3] == [0, 1, 2]
            assert set(listener.data) == {room}
        for listener in others:
            await listener.has(f"{room}2", "end")
            assert set(listener.data) == {f"{room}2"}


async def test_a_handler_publishes_to_members_on_other_workers(workers: list[Worker], room: str) -> None:
    async with listening(*same_as(*workers), rooms=(room,)) as listeners:
        for number, listener in enumerate(listeners):
            await listener.tell("publish", room, number)
        for listener in listeners:
            await listener.has(room, 2)
            assert listener.data[room] == [0, 1, 2]


async def test_an_excluded_user_does_not_get_it_on_whatever_worker(workers: list[Worker], room: str) -> None:
    ann, bob = "a\0nn ü", "bob"
    async with subscribing((ann, workers[0]), (ann, workers[1]), (bob, workers[2]), rooms=(room,)) as listeners:
        await workers[0].publish(room, "not for ann", exclude_users=ann)
        await workers[1].publish(room, "for neither", exclude_users=[ann, bob])
        await workers[2].publish(room, "end")
        for listener in listeners:
            await listener.has(room, "end")
        assert [listener.data[room] for listener in listeners] == [["end"], ["end"], ["not for ann", "end"]]


async def test_who_is_excluded_does_not_get_it_on_whatever_worker(workers: list[Worker], room: str) -> None:
    async with subscribing(*same_as(*workers), rooms=(room,)) as (one, two, three):
        await workers[0].publish(room, "not for two", exclude=two.id)
        await workers[0].publish(room, "for one", exclude=[two.id, three.id])
        await three.tell("tell others", room, "not for three")
        (connection,) = workers[1].manager.active_connections
        await workers[1].publish(room, "not for two either", exclude=connection)
        await workers[2].publish(room, "end")
        for listener in (one, two, three):
            await listener.has(room, "end")
        assert one.data[room] == ["not for two", "for one", "not for three", "not for two either", "end"]
        assert two.data[room] == ["not for three", "end"]
        assert three.data[room] == ["not for two", "not for two either", "end"]
        assert one.positions == two.positions == three.positions


async def test_all_workers_get_a_room_in_one_order_while_all_publish(workers: list[Worker], room: str) -> None:
    count = 300

    async def publish(worker: Worker, name: int) -> None:
        for first in range(0, count, 10):  # ten in one pass of the loop
            await asyncio.gather(
                *(worker.manager.broadcast([room, [name, first + n]], room=room) for n in range(10)),
            )

    async with subscribing(*same_as(*workers, *workers), rooms=(room,)) as listeners:
        await asyncio.gather(*(worker.run(publish(worker, name)) for name, worker in enumerate(workers)))
        await workers[0].publish(room, "end")
        for listener in listeners:
            await listener.has(room, "end")
            assert listener.faults == []
            assert listener.data[room] == listeners[0].data[room]
        came = listeners[0].data[room][:-1]
        for name in range(3):
            assert [body[1] for body in came if body[0] == name] == list(range(count))


async def test_a_room_is_subscribed_at_redis_only_while_it_has_members(
    workers: list[Worker], redis: RedisServer, prefix: str, name: str
) -> None:
    channel = as_text(Keys(prefix).channel(name))

    assert redis.subscribers(channel) == 0
    async with listening(*same_as(workers[0], workers[0], workers[1]), rooms=(name,)) as (one, two, three):
        assert channel in redis.channels(prefix)
        assert redis.subscribers(channel) == 2
        await one.tell("leave", name)
        await two.tell("leave", name)
        await eventually(lambda: redis.subscribers(channel) == 1)
        await one.tell("join", name)
        assert redis.subscribers(channel) == 2
        await workers[2].publish(name, "hello")
        await one.has(name, "hello")
        await three.has(name, "hello")
    await eventually(lambda: redis.subscribers(channel) == 0)
    assert channel not in redis.channels(prefix)


async def test_each_worker_has_one_connection_that_subscribes(workers: list[Worker], redis: RedisServer) -> None:
    async with listening(*same_as(*workers), rooms=("a", "b", "c")):
        await eventually(lambda: redis.connections("pubsub") == 3)  # those of other tests are gone


# Users


async def test_a_message_to_a_user_reaches_each_tab_on_each_worker(workers: list[Worker]) -> None:
    async with listening(("ann", workers[0]), ("ann", workers[1]), ("ann", workers[1]), ("bob", workers[2])) as all_:
        for worker in workers:
            assert await worker.run(worker.manager.send_to_user("ann", ["mail", worker.port])) is True
        assert await workers[0].run(workers[0].manager.send_to_user("nobody", ["mail", 0])) is False
        assert await workers[0].run(workers[0].manager.send_to_user("bob", ["mail", "end"])) is True
        *tabs, bob = all_
        for tab in tabs:
            await tab.has("mail", workers[2].port)
            assert tab.data["mail"] == [worker.port for worker in workers]
        await bob.has("mail", "end")
        assert bob.data["mail"] == ["end"]

    async def unreachable() -> bool:
        return not await workers[2].run(workers[2].manager.send_to_user("ann", ["mail", 0]))

    await eventually(unreachable)


async def test_a_user_on_a_worker_that_is_gone_without_a_word_is_not_reached(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    """Its subscription lasts for minutes at Redis; its lease does not."""
    async with (
        one_more(own_redis, tmp_path, lease_s=1.0) as ((worker,), gone, prefix, _),
        Listener("ann").on(gone) as ann,
    ):
        with Publisher(own_redis.url(prefix=prefix)) as publisher:
            async with AsyncPublisher(own_redis.url(prefix=prefix)) as async_publisher:

                async def reached() -> list[bool]:
                    return [
                        await worker.run(worker.manager.send_to_user("ann", ["mail", 1])),
                        await asyncio.to_thread(publisher.send_to_user, "ann", ["mail", 1]),
                        await async_publisher.send_to_user("ann", ["mail", 1]),
                    ]

                async def is_reachable() -> bool:  # a lease so short may lapse for a moment on a busy machine
                    return await reached() == [True] * 3

                async def is_unreachable() -> bool:
                    return await reached() == [False] * 3

                await eventually(is_reachable)
                gone.freeze()
                await eventually(is_unreachable)
                for had in (
                    await worker.run(worker.manager.disconnect_user("ann")),
                    await asyncio.to_thread(publisher.disconnect_user, "ann"),
                    await async_publisher.disconnect_user("ann"),
                ):
                    assert had is False
                assert own_redis.subscribers(Keys(prefix).channel(user_room("ann"))) == 1
                assert ann.open
                ann.vanish()  # who is frozen answers no goodbye


async def test_a_user_is_sent_away_on_every_worker_and_its_presence_ends_at_once(
    workers: list[Worker], name: str
) -> None:
    room = f"told:{name}"
    async with listening(("ann", workers[0]), ("bob", workers[0]), ("ann", workers[1]), rooms=(room,)) as all_:
        first, bob, second = all_
        kick = workers[2].manager.disconnect_user("ann", 4001, "enough")
        assert await workers[2].run(kick) is True
        for tab in (first, second):
            await tab.until(lambda tab=tab: not tab.open)  # type: ignore[misc]
            assert tab.closed == (4001, "enough")
        await bob.hears("user_left", "ann")
        assert bob.told.count(("user_left", "ann")) == 1
        assert bob.open
        assert await workers[2].present(room) == {"bob": 1}
        assert await workers[1].run(workers[1].manager.is_online("ann")) is False
        assert await workers[1].run(workers[1].manager.disconnect_user("ann")) is False


async def test_who_is_only_in_grace_is_sent_away_too_whatever_worker_it_was_on(
    workers: list[Worker], name: str
) -> None:
    room = f"told:{name}"
    async with listening(("bob", workers[0]), rooms=(room,)) as (bob,):
        async with Listener("ann", room).on(workers[1]):
            await bob.hears("user_joined", "ann")

        async def in_grace() -> bool:
            return (await workers[2].present(room))["ann"] == 0

        await eventually(in_grace)
        assert await workers[2].run(workers[2].manager.disconnect_user("ann")) is False
        await bob.hears("user_left", "ann")
        assert await workers[2].present(room) == {"bob": 1}


# Who is here, what was said


async def test_every_worker_knows_who_is_where(workers: list[Worker], name: str) -> None:
    places = [("ann", workers[0]), ("bob", workers[1]), (None, workers[2])]
    async with listening(*places, rooms=(name,)), Listener("ann", name).on(workers[2], tab=7):
        for worker in workers:
            manager = worker.manager
            members = {each.user_id: each for each in await worker.run(manager.presence(name))}
            assert {user: each.connections for user, each in members.items()} == {"ann": 2, "bob": 1}
            assert members["ann"].info == {"tab": 7}
            assert await worker.run(manager.count_users(room=name)) == 2
            assert await worker.run(manager.count_users()) == 2
            assert await worker.run(manager.is_online("ann")) is True
            assert await worker.run(manager.is_online("eve")) is False
        assert [worker.manager.stats().connections for worker in workers] == [1, 1, 2]

    async def all_gone() -> bool:
        return [await worker.run(worker.manager.count_users()) for worker in workers] == [0, 0, 0]

    await eventually(all_gone)


async def test_every_worker_reads_the_same_history(workers: list[Worker], name: str) -> None:
    room = f"kept:{name}"
    positions = [await workers[number % 3].publish(room, number) for number in range(7)]
    assert positions[0] is not None
    histories = [await worker.run(worker.manager.history(room)) for worker in workers]
    assert [each.message for each in histories[0]] == [[room, number] for number in range(7)]
    assert [each.position for each in histories[0]] == positions
    assert histories[0] == histories[1] == histories[2]
    for worker in workers:
        after = await worker.run(worker.manager.history(room, since=positions[3]))
        assert [each.message[1] for each in after] == [4, 5, 6]
        newest = await worker.run(worker.manager.history(room, limit=2))
        assert [each.message[1] for each in newest] == [5, 6]


async def test_reading_writes_nothing(workers: list[Worker], redis: RedisServer, prefix: str, name: str) -> None:
    """Whatever room or user is asked for: a route that shows them to anybody is not a way to fill Redis."""
    manager = workers[0].manager
    asked = itertools.count()

    def room(kind: str) -> str:
        return f"{kind}:{name}-{next(asked)}"

    def publisher_asks() -> None:
        with Publisher(redis.url(prefix=prefix)) as publisher:
            assert not publisher.is_online(room("user"))

    async def async_publisher_asks() -> None:
        async with AsyncPublisher(redis.url(prefix=prefix)) as publisher:
            assert not await publisher.is_online(room("user"))

    reads: dict[str, Callable[[], Awaitable[object]]] = {
        "presence": lambda: workers[0].run(manager.presence(room("kept"))),
        "count_users": lambda: workers[0].run(manager.count_users(room=room("kept"))),
        "is_online": lambda: workers[0].run(manager.is_online(room("user"))),
        "broker_healthy": lambda: workers[0].run(manager.broker_healthy()),
        "Publisher.is_online": lambda: asyncio.to_thread(publisher_asks),
        "AsyncPublisher.is_online": async_publisher_asks,
        "broker.connected": lambda: workers[0].run(manager._hubbub.broker.connected(room("kept"), "ann")),
    }

    async def history(kind: str, since: Position | None, limit: int | None) -> None:
        assert await workers[0].run(manager.history(room(kind), since, limit)) == []

    async def position(kind: str) -> None:
        assert await workers[0].run(manager._hubbub.broker.position(room(kind))) is None

    for kind in ("kept", "short", "told", "plain"):
        reads[f"position of {kind}"] = partial(position, kind)
        for since, limit in itertools.product((None, Position("abcdefgh", 7)), (None, 10)):
            reads[f"history of {kind} since {since}, {limit}"] = partial(history, kind, since, limit)

    def keys() -> set[str]:
        return {as_text(key) for key in redis.command("KEYS", f"{prefix}:*")}

    before = keys()
    for read, ask in reads.items():
        await ask()
        assert keys() - before == set(), read


async def test_reading_a_room_does_not_keep_it_longer(
    workers: list[Worker], redis: RedisServer, prefix: str, name: str
) -> None:
    room = f"kept:{name}"
    position = await workers[0].publish(room, 1)
    names = [Keys(prefix).head(room), Keys(prefix).log(room)]
    for key in names:
        assert redis.command("PEXPIRE", key, 100_000)
    for since in (None, position, Position(position.epoch, 0) if position else None, Position("abcdefgh", 7)):
        await workers[1].run(workers[1].manager.history(room, since))
    assert await workers[1].run(workers[1].manager._hubbub.broker.position(room)) == position
    assert all(0 < redis.command("PTTL", key) <= 100_000 for key in names)


async def test_threads_reach_the_fleet(workers: list[Worker], name: str) -> None:
    room = f"kept:{name}"
    async with listening(("ann", workers[0]), ("bob", workers[1]), rooms=(room,)) as (ann, bob):
        from_thread = workers[2].manager.from_thread

        def work() -> None:
            assert isinstance(from_thread.broadcast([room, "hello"], room=room), Position)
            assert from_thread.send_to_user("ann", ["mail", 1]) is True
            assert from_thread.send_to_user("nobody", ["mail", 1]) is False
            assert {each.user_id for each in from_thread.presence(room)} == {"ann", "bob"}
            assert from_thread.count_users(room=room) == 2
            assert from_thread.is_online("bob") is True
            assert [each.message for each in from_thread.history(room)] == [[room, "hello"]]
            assert from_thread.broker_healthy() is True
            assert from_thread.disconnect_user("bob") is True

        await asyncio.to_thread(work)
        await ann.has("mail", 1)
        await ann.has(room, "hello")
        await bob.until(lambda: not bob.open)
        assert bob.closed == (1008, "disconnected by the server")


# Servers and apps


@pytest.fixture(params=["prefix", "database", "db="])
def urls_apart(request: pytest.FixtureRequest, redis: RedisServer) -> tuple[str, str]:
    """Two URLs of one server, which differ in one thing."""
    prefix = fresh_prefix()
    others = {
        "prefix": redis.url(prefix=f"{prefix}-other"),
        "database": redis.url(database=1, prefix=prefix),
        "db=": redis.url(prefix=prefix, db=2),
    }
    return redis.url(prefix=prefix), others[request.param]


async def test_two_apps_with_other_prefixes_or_databases_do_not_meet(
    urls_apart: tuple[str, str], redis: RedisServer
) -> None:
    before = set(redis.command("PUBSUB", "CHANNELS"))  # of this module's fleet
    with fleet(*urls_apart) as (one, other):
        async with listening(("ann", one), ("ann", other), rooms=("kept:a", "told:a")) as (mine, theirs):
            channels = set(redis.command("PUBSUB", "CHANNELS")) - before
            assert len(channels) == 2 * len(["everyone", "ann", "kept:a", "told:a", "workers", "its own"])
            assert {redis.subscribers(channel) for channel in channels} == {1}
            await one.run(one.manager.broadcast(["all", "mine"]))
            await one.publish("kept:a", "mine")
            await one.run(one.manager.send_to_user("ann", ["mail", "mine"]))
            await other.run(other.manager.broadcast(["all", "theirs"]))
            await other.publish("kept:a", "theirs")
            await other.run(other.manager.send_to_user("ann", ["mail", "theirs"]))
            with Publisher(urls_apart[0]) as publisher:
                await asyncio.to_thread(publisher.broadcast, ["told:a", "mine"], room="told:a")
            async with AsyncPublisher(urls_apart[1]) as publisher_of_theirs:
                await publisher_of_theirs.broadcast(["told:a", "theirs"], room="told:a")
            for listener, data in ((mine, ["mine"]), (theirs, ["theirs"])):
                for room in ("all", "kept:a", "mail", "told:a"):
                    await listener.has(room, data[0])
                    assert listener.data[room] == data
                assert listener.told == [("user_joined", "ann")]
            assert await one.run(one.manager.disconnect_user("ann")) is True
            await mine.until(lambda: not mine.open)
            assert theirs.open

            async def gone() -> bool:
                return await one.present("kept:a") == {}

            await eventually(gone)
            assert await other.present("kept:a") == {"ann": 1}
            assert [each.message[1] for each in await other.run(other.manager.history("kept:a"))] == ["theirs"]


async def assert_they_meet(url: str) -> None:
    with fleet(url, url) as (one, other):
        assert await one.run(one.manager.broker_healthy()) is True
        async with listening((None, other), rooms=("kept:a",)) as (listener,):
            assert await one.publish("kept:a", "hello") is not None
            await listener.has("kept:a", "hello")


async def test_a_password_and_the_number_of_a_database_are_taken_from_the_url(tmp_path: Path) -> None:
    with running_redis(tmp_path, password="a secret/with: odd@signs") as server:
        await assert_they_meet(server.url(database=3, prefix="numbered"))
        server.command("SELECT", 0)
        assert server.command("KEYS", "*") == []
        server.command("SELECT", 3)
        assert as_text(Keys("numbered").log("kept:a")) in map(as_text, server.command("KEYS", "*"))


@pytest.fixture(scope="module")
def tls_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("tls"), tls=True) as server:
        assert server.url().startswith("rediss://")
        yield server


async def test_a_server_that_speaks_tls_is_spoken_to(tls_redis: RedisServer) -> None:
    await assert_they_meet(tls_redis.url(ssl_ca_certs=tls_redis.certificate))


async def test_a_server_whose_certificate_is_not_trusted_is_not_spoken_to(tls_redis: RedisServer) -> None:
    url = tls_redis.url(timeout_s=0.5)
    with fleet(url, url) as workers:
        for worker in workers:
            assert worker.manager.ready
            assert not worker.manager.stats().broker_up
            with pytest.raises(BrokerUnavailable):
                await worker.publish("plain", "to a stranger")


# Coming back


async def test_who_lost_a_worker_gets_from_another_exactly_what_it_missed(workers: list[Worker], name: str) -> None:
    room = f"kept:{name}"
    back = Subscriber("ann", room)
    async with back.on(workers[0]):
        await workers[1].publish(room, 0)
        await back.has(room, 0)
        back.vanish()
        await back.until(lambda: not back.open)
    for number in range(1, 400):
        await workers[number % 3].publish(room, number)
    async with back.on(workers[1]):
        await workers[2].publish(room, 400)
        await back.has(room, 400)
        await workers[0].publish(room, 401)
        await back.has(room, 401)
    assert back.data[room] == list(range(402))
    assert (back.recovered, back.faults) == ([False, True], [])


async def test_coming_back_to_any_worker_while_others_publish_misses_and_repeats_nothing(
    workers: list[Worker], name: str
) -> None:
    room, dice = f"kept:{name}", random.Random(11)
    clients = [Subscriber(f"user{number}", room) for number in range(3)]

    async def come_and_go(client: Subscriber) -> None:
        for round_ in range(8):
            async with client.on(dice.choice(workers)):
                wanted = len(client.data[room]) + dice.randrange(1, 60)
                await client.until(lambda: len(client.data[room]) >= wanted)  # noqa: B023
                if round_ % 2:
                    client.vanish()

    async with Stream(workers[0], room, "a") as a, Stream(workers[1], room, "b") as b:
        await asyncio.gather(*map(come_and_go, clients))
    end = await workers[2].position(room)
    for client in clients:
        async with client.on(dice.choice(workers)):
            await client.reaches(room, end)
        assert client.faults == []
        assert client.recovered == [False, *[True] * 8]
    # Each began where it first came, and has all from there on.
    everything = [each.message[1] for each in await workers[0].run(workers[0].manager.history(room))]
    assert sorted(everything) == sorted(a.accepted + b.accepted)
    for client in clients:
        assert client.data[room] == everything[-len(client.data[room]) :]


async def test_who_comes_back_after_a_flush_is_told_that_it_is_another_room(own_redis: RedisServer) -> None:
    url = own_redis.url()
    with fleet(url, url) as workers:
        back = Subscriber("ann", "kept:a")
        async with back.on(workers[0]):
            for number in range(3):
                await workers[1].publish("kept:a", number)
            await back.has("kept:a", 2)
        await eventually(lambda: workers[0].empty)
        own_redis.command("FLUSHALL")
        for number in range(3, 8):  # as many as there were, and more
            await workers[1].publish("kept:a", number)
        async with back.on(workers[1]):
            assert back.recovered == [False, False]
            await workers[0].publish("kept:a", "live")
            await back.has("kept:a", "live")
        assert back.data["kept:a"] == [0, 1, 2, "live"]
        assert back.faults == []
