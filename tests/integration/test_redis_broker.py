"""The Redis broker: the suite for all brokers, on a server of its own, with two workers and on both event loops."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.connection import parse_url

from hubbub import AsyncPublisher, BrokerUnavailable, InvalidArgument, Publisher
from hubbub.brokers import Broker, broker_from
from hubbub.brokers.redis import RedisBroker
from hubbub.brokers.redis.channel import Keys
from hubbub.brokers.redis.commands import database_in
from hubbub.brokers.redis.leases import Leases
from hubbub.codec import encode
from hubbub.envelope import Envelope, Kick
from hubbub.errors import NoSuchWorker
from hubbub.options import History, RoomOptions, RoomTable
from hubbub.positions import Position
from hubbub.testing.broker_suite import BRIEF, KEPT, PLAIN, TOLD, BrokerSuite, Worker
from tests.integration.redis_server import Proxy, RedisServer, as_text, fresh_prefix, running_redis
from tests.integration.support import eventually

pytestmark = pytest.mark.anyio


# Of the other tests' workers each second one is on asyncio.
@pytest.fixture(scope="module", params=[pytest.param("asyncio", marks=pytest.mark.slow), "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


class TestRedisBroker(BrokerSuite):
    ttl_s = 60.0  # no test waits for it: see `pass_time`

    @pytest.fixture(autouse=True)
    def _on(self, redis: RedisServer) -> None:
        self._redis = redis

    @asynccontextmanager
    async def brokers(self) -> AsyncIterator[Sequence[Broker]]:
        url, self._prefix = self._redis.url(), fresh_prefix()
        yield RedisBroker(url, prefix=self._prefix), RedisBroker(url, prefix=self._prefix)

    async def pass_time(self, seconds: float) -> None:
        """Makes what is kept of the short-lived room older, as the server's clock can't be set."""
        command, keys, ms = self._redis.command, Keys(self._prefix), int(1000 * seconds)
        head, log = keys.head(BRIEF), keys.log(BRIEF)
        left_ms = {key: command("PTTL", key) - ms for key in (head, log)}
        entries = command("XRANGE", log, "-", "+")
        command("DEL", log)
        for entry_id, fields in entries:
            command("XADD", log, entry_id, "m", fields[b"m"], "t", int(fields[b"t"]) - ms)
        for key, left in left_ms.items():
            command("PEXPIRE", key, left)  # gone, if none is left


# Its own


ROOMS = RoomTable({PLAIN: RoomOptions(), TOLD: RoomOptions(announce=True), "*": RoomOptions(history=History(5, 60.0))})


async def test_a_url_makes_it_and_its_query_sets_the_options(redis: RedisServer) -> None:
    prefix = fresh_prefix()
    broker = broker_from(redis.url(prefix=prefix, lease_s=3, timeout_s=1.5, when_away="local"))
    assert isinstance(broker, RedisBroker)
    worker = Worker(broker, 5.0)
    await worker.start(ROOMS)
    try:
        await broker.subscribe(KEPT)
        await worker.publish(KEPT, "hello")
        assert await worker.messages(KEPT) == ["hello"]
        keys = {as_text(key) for key in redis.command("KEYS", f"{prefix}:*")}
        assert as_text(Keys(prefix).log(KEPT)) in keys
        (name,) = redis.workers(Keys(prefix).workers)
        assert 0 < redis.command("PTTL", Keys(prefix).lease(name)) <= 3000
    finally:
        await broker.close()


@pytest.mark.parametrize(
    "query",
    ["prefx=a", "lease_s=0", "lease_s=soon", "timeout_s=-1", "timeout_s=inf", "when_away=perhaps", "prefix="],
)
async def test_an_option_that_makes_no_sense_is_refused(query: str) -> None:
    with pytest.raises(InvalidArgument, match=query.partition("=")[0]):
        broker_from(f"redis://user:hunter2@localhost:6379/0?{query}")


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:hunter2",
        "redis://localhost:6379/hunter2",
        "redis://localhost:99999",
        "redis://[::1",
        "redis://:hun/ter2@localhost",
        "redis://user:hun#ter2@localhost",
        "redis://user:hun?ter2@localhost",
        "redis://user:hunter2@localhost?prefx=a",
        "redis://user:hunter2@localhost?decode_responses=true",
        "redis://user:hunter2@localhost?protocol=2",
        "redis://user:hunter2@localhost?timeout_s=61",
        "redis://user:hunter2@localhost?db=-1",
        "redis://user:hunter2@localhost/1?db=one",
    ],
)
@pytest.mark.parametrize("make", [broker_from, Publisher, AsyncPublisher], ids=["broker", "sync", "async"])
async def test_a_url_that_makes_no_sense_is_refused_without_a_word_of_the_password(
    url: str, make: Callable[[str], object]
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        make(url)
    assert "hun" not in str(caught.value)
    assert "ter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://h/",
        "redis://h/2",
        "rediss://h/2?db=3",
        "redis://h?db=0",
        "unix:///tmp/s/1",
        "unix:///s?db=1",
    ],
)
def test_the_number_of_the_database_is_the_one_that_redis_py_selects(url: str) -> None:
    assert database_in(url) == parse_url(url).get("db", 0)


async def test_a_password_is_not_shown() -> None:
    broker = broker_from("redis://user:hunter2@localhost:6379/0")
    assert "hunter2" not in repr(broker)


async def test_what_is_published_once_is_so_although_its_answer_is_lost(redis: RedisServer) -> None:
    """It is sent again by itself, and by a caller that has given up, in the order of the messages around it."""
    prefix = fresh_prefix()
    with Proxy(redis) as proxy:
        cut = Worker(RedisBroker(redis.url(through=proxy), prefix=prefix), 5.0)
        well = Worker(RedisBroker(redis.url(), prefix=prefix), 5.0)
        for worker in (cut, well):
            await worker.start(BrokerSuite().rooms)
        try:
            for channel in (KEPT, PLAIN):
                await well.broker.subscribe(channel)
            proxy.lose("answers")
            publishing = [
                asyncio.ensure_future(cut.broker.publish(channel, Envelope(encode(text)), once=once))
                for channel in (KEPT, PLAIN)
                for text, once in (("before", None), ("once", "a key"), ("after", None))
            ]
            await well.until(lambda: len(well.received) == 6)
            again = [await well.broker.publish(on, Envelope(encode("once")), once="a key") for on in (KEPT, PLAIN)]
            assert not any(each.done() for each in publishing)
            proxy.sever()
            positions = await asyncio.gather(*publishing)
            assert [positions[1], positions[4]] == again
            assert [each and each.offset for each in positions] == [1, 2, 3, None, None, None]
            for channel in (KEPT, PLAIN):
                assert await well.messages(channel) == ["before", "once", "after"]
        finally:
            for worker in (cut, well):
                await worker.broker.close()


async def test_workers_of_a_prefix_that_looks_like_a_pattern_are_those_of_that_prefix(redis: RedisServer) -> None:
    odd, like_it = fresh_prefix() + "[a-b]*?\\^", fresh_prefix()
    prefixes = (odd, odd.replace("[a-b]*?", "axx"), like_it)
    brokers = [RedisBroker(redis.url(), prefix=prefix) for prefix in prefixes]
    for broker in brokers:
        await broker.start(Worker(broker, 5.0), RoomTable())
    try:
        for broker in brokers:
            assert await broker.workers() == [broker.worker]
    finally:
        for broker in brokers:
            await broker.close()


async def test_redis_forgets_by_itself_what_nobody_asks_for(redis: RedisServer) -> None:
    """A message after its ttl, and everything else of a room some time later."""
    prefix = fresh_prefix()
    broker, keys = RedisBroker(redis.url(), prefix=prefix), Keys(prefix)
    await Worker(broker, 5.0).start(RoomTable({"*": RoomOptions(history=History(5, 0.2))}))
    try:
        await broker.publish("lobby", Envelope(encode("hello")))
        of_room = redis.command("KEYS", f"{prefix}:{{lobby}}*")
        assert as_text(keys.head("lobby")) in map(as_text, of_room)
        assert all(redis.command("PTTL", key) > 0 for key in of_room)
        await eventually(lambda: not redis.command("EXISTS", keys.log("lobby")))
    finally:
        await broker.close()


async def test_a_subscription_that_was_cancelled_does_not_harm_the_next(redis: RedisServer) -> None:
    prefix = fresh_prefix()
    worker = Worker(RedisBroker(redis.url(), prefix=prefix), 5.0)
    await worker.start(ROOMS)
    try:
        for passes in range(6):
            cancelled = asyncio.create_task(worker.broker.subscribe(PLAIN))
            for _ in range(passes):
                await asyncio.sleep(0)
            cancelled.cancel()
            await asyncio.wait([cancelled])
            await worker.broker.subscribe(PLAIN)
            await worker.publish(PLAIN, passes)
            assert await worker.messages(PLAIN) == [passes]
            await worker.broker.unsubscribe(PLAIN)
            worker.received.clear()
    finally:
        await worker.broker.close()


async def test_closing_leaves_nothing_of_the_worker(redis: RedisServer) -> None:
    prefix = fresh_prefix()
    broker = RedisBroker(redis.url(), prefix=prefix)
    await Worker(broker, 5.0).start(ROOMS)
    (name,) = redis.workers(Keys(prefix).workers)
    await broker.subscribe(PLAIN)
    await broker.enter(PLAIN, "ann", "a1", {"name": "Ann"})
    assert redis.mentions(name, prefix)
    await broker.exit(PLAIN, "ann", "a1")
    await broker.close()
    assert redis.mentions(name, prefix) == []
    assert redis.channels(prefix) == set()


async def test_who_is_in_grace_when_a_worker_closes_is_taken_out_by_another(redis: RedisServer) -> None:
    """And who came back there meanwhile stays."""
    prefix = fresh_prefix()
    closing, other = (RedisBroker(redis.url(), prefix=prefix, lease_s=1.5) for _ in range(2))
    await Worker(closing, 5.0).start(ROOMS)
    (name,) = redis.workers(Keys(prefix).workers)
    worker = Worker(other, 5.0)
    await worker.start(ROOMS)
    try:
        for user in ("ann", "bob"):
            await closing.enter(TOLD, user, f"{user}1", None)
            await closing.linger(TOLD, user, f"{user}1", 1.0)  # within which bob comes back, on a busy machine too
        await closing.enter(TOLD, None, "x1", None)
        await closing.close()
        await other.subscribe(TOLD)
        await other.enter(TOLD, "bob", "bob2", None)
        await eventually(lambda: redis.mentions(name, prefix) == [])
        assert sorted(await worker.announcements(TOLD), key=str) == [("left", "ann", 1), ("left", None, 0)]
        assert [(member.user_id, member.connections) for member in await other.members(TOLD)] == [("bob", 1)]
        assert [each.connection_id for each in await other.connections(TOLD)] == ["bob2"]
    finally:
        await closing.close()
        await other.close()


async def test_a_server_that_denies_access_is_no_server_to_wait_for(tmp_path: Path) -> None:
    with running_redis(tmp_path, password="right") as server:
        broker = RedisBroker(server.url().replace("right", "wrong"))
        with pytest.raises(BrokerUnavailable, match="denies access"):
            await Worker(broker, 5.0).start(ROOMS)
        assert not await broker.healthy()


async def keeps_its_lease(server: RedisServer, prefix: str) -> None:
    """Looks for longer than a lease of 3 s would last by itself."""
    (name,) = server.workers(Keys(prefix).workers)
    until = asyncio.get_running_loop().time() + 3.0
    while asyncio.get_running_loop().time() < until:
        assert server.command("EXISTS", Keys(prefix).lease(name))
        await asyncio.sleep(0.1)


async def test_no_command_is_needed_that_redis_calls_dangerous(tmp_path: Path) -> None:
    """INFO and KEYS are, which a hoster may forbid."""
    with running_redis(tmp_path) as server:
        server.command("ACL", "SETUSER", "app", "on", ">pw", "~hubbub:*", "&hubbub:*", "+@all", "-@dangerous")
        broker = RedisBroker(server.url(lease_s=3.0).replace("//", "//app:pw@"))
        worker = Worker(broker, 5.0)
        await worker.start(ROOMS)
        try:
            await keeps_its_lease(server, "hubbub")
        finally:
            await broker.close()


async def test_a_user_who_may_not_subscribe_is_told_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Redis 7 gives a new user no channels."""
    with running_redis(tmp_path) as server:
        server.command("ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all")
        broker = RedisBroker(server.url(timeout_s=0.5).replace("//", "//app:pw@"))
        await Worker(broker, 5.0).start(ROOMS)
        try:
            await eventually(lambda: "no permissions" in caplog.text.lower())
            with pytest.raises(BrokerUnavailable):
                await broker.subscribe(PLAIN)
            assert caplog.text.count("is lost") == 1
        finally:
            await broker.close()


async def test_what_can_not_be_encoded_is_nobody_elses_problem(redis: RedisServer) -> None:
    worker = Worker(RedisBroker(redis.url(), prefix=fresh_prefix()), 5.0)
    await worker.start(ROOMS)
    try:
        with pytest.raises(UnicodeEncodeError):
            await worker.broker.history(KEPT, Position("\ud800", 1))
        assert await worker.publish(KEPT, "hello")
        assert worker.broker.state.reconnects == 0
    finally:
        await worker.broker.close()


async def test_a_server_without_memory_takes_nothing_more_and_still_gives(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        worker = Worker(RedisBroker(server.url()), 5.0)
        await worker.start(ROOMS)
        try:
            await worker.broker.enter(KEPT, "ann", "a1", None)
            first = await worker.publish(KEPT, "first")
            server.command("CONFIG", "SET", "maxmemory", 1)
            for refused in (worker.publish(KEPT, "second"), worker.broker.enter(KEPT, "bob", "b1", None)):
                with pytest.raises(BrokerUnavailable, match="maxmemory"):
                    await refused
            assert not await worker.broker.healthy()
            page = await worker.broker.history(KEPT)
            assert [entry.envelope.position for entry in page.entries] == [first]
            await worker.broker.exit(KEPT, "ann", "a1")
            assert await worker.broker.count(KEPT) == 0
            server.command("CONFIG", "SET", "maxmemory", 0)
            assert await worker.publish(KEPT, "third")
            assert await worker.broker.healthy()
        finally:
            server.command("CONFIG", "SET", "maxmemory", 0)
            await worker.broker.close()


async def test_who_leaves_while_redis_refuses_writes_is_taken_out_afterwards(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        broker = RedisBroker(server.url(lease_s=3.0))
        worker = Worker(broker, 5.0)
        await worker.start(ROOMS)
        try:
            await broker.subscribe(TOLD)
            await broker.enter(TOLD, "ann", "a1", {"n": 1})
            server.command("CONFIG", "SET", "min-replicas-to-write", 1)
            assert not await broker.healthy()
            await broker.exit(TOLD, "ann", "a1")
            assert await broker.present(TOLD, "ann")
            server.command("CONFIG", "SET", "min-replicas-to-write", 0)
            await worker.until(lambda: len(worker.received) == 2)
            assert await worker.announcements(TOLD) == [("joined", "ann", 1), ("left", "ann", 0)]
            assert await broker.members(TOLD) == []
        finally:
            await broker.close()


async def test_a_worker_that_cleans_up_for_long_keeps_its_own_lease(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[str] = []

    async def for_ever(self: Leases, name: str, *, aloud: bool) -> None:
        began.append(name)
        await asyncio.Event().wait()

    monkeypatch.setattr(Leases, "clear", for_ever)
    prefix = fresh_prefix()
    redis.command("SADD", Keys(prefix).dead, "somebody")
    broker = RedisBroker(redis.url(prefix=prefix, lease_s=3.0))
    await Worker(broker, 5.0).start(ROOMS)
    try:
        await keeps_its_lease(redis, prefix)
        assert set(began) == {"somebody"}
    finally:
        await broker.close()


# Requests to a worker


async def test_a_request_is_answered_once_though_it_is_sent_again(own_redis: RedisServer) -> None:
    """Its answer by Redis is lost, and that of the worker is not."""
    asked: list[bytes] = []
    with Proxy(own_redis) as proxy:
        one, other = Worker(RedisBroker(own_redis.url(through=proxy)), 5.0), Worker(RedisBroker(own_redis.url()), 5.0)

        async def answer(payload: bytes) -> bytes:
            asked.append(payload)
            return payload

        other.answers = answer
        try:
            for worker in (one, other):
                await worker.start(ROOMS)
                await worker.broker.subscribe(PLAIN)
            assert await one.broker.ask(other.broker.worker, b"before", 5.0) == b"before"
            proxy.lose("answers")
            asking = asyncio.ensure_future(one.broker.ask(other.broker.worker, b"?", 5.0))
            requests: Any = one.broker
            # The reply has come; that the request was published is not known yet.
            await eventually(lambda: any(each.done() for each in requests._requests._waiting.values()))
            assert not asking.done()
            proxy.sever()
            assert await asking == b"?"
            assert await one.broker.ask(other.broker.worker, b"after", 5.0) == b"after"
            assert asked == [b"before", b"?", b"after"]
        finally:
            for worker in (one, other):
                await worker.broker.close()


async def test_a_worker_is_not_asked_by_its_name_any_more_once_it_has_started_anew(redis: RedisServer) -> None:
    prefix = fresh_prefix()
    worker = Worker(RedisBroker(redis.url(prefix=prefix)), 5.0)
    await worker.start(ROOMS)
    name = worker.broker.worker
    await worker.broker.close()
    await worker.start(ROOMS)
    try:
        with pytest.raises(NoSuchWorker) as raised:
            await worker.broker.ask(name, b"?", 5.0)
        assert raised.value.worker == name
    finally:
        await worker.broker.close()


# What it costs


async def test_redis_holds_for_each_thing_what_the_docs_say(tmp_path: Path) -> None:
    """Within a quarter: versions of Redis and of its allocator differ."""
    page = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
    table = page.partition("## What Redis holds")[2].partition("## ")[0]
    said = [int(number.replace(",", "")) for number in re.findall(r"^\|[^|]+\| ([\d,]+) \|$", table, re.MULTILINE)]

    count, info = 1_000, {"name": "Some Body"}
    rooms = RoomTable({"kept:*": RoomOptions(history=History(count, 600.0)), "silent:*": RoomOptions(history=10)})
    with running_redis(tmp_path) as server:
        broker = RedisBroker(server.url())
        worker = Worker(broker, 5.0)
        await worker.start(rooms)

        def bytes_of(key: str) -> int:
            return int(server.command("MEMORY", "USAGE", key, "SAMPLES", 0))

        def used() -> int:
            return int(server.command("INFO", "memory")["used_memory"])

        keys = Keys("hubbub")
        try:
            await asyncio.gather(*(broker.enter("hall", f"{n:010}", f"connection{n:012}", info) for n in range(count)))
            await asyncio.gather(*(worker.publish("kept:small", "x" * 128) for _ in range(count)))
            await asyncio.gather(*(worker.publish("kept:large", "x" * 1024) for _ in range(count)))
            await asyncio.gather(*(broker.subscribe(f"silent:{n:06}") for n in range(count)))
            measured = [bytes_of(keys.here("hall")) / count]
            measured += [bytes_of(keys.log(f"kept:{size}")) / count for size in ("small", "large")]
            kick = Kick(1008, "disconnected by the server")
            await asyncio.gather(*(broker.instruct(f"$user:{n:010}", kick) for n in range(count)))
            measured += [bytes_of(keys.instructions) / count]
            measured += [bytes_of(keys.head("silent:000001"))]
            measured += [bytes_of(keys.silent) / count]
            before = used()
            await asyncio.gather(*(broker.subscribe(f"room:{n:010}") for n in range(4 * count)))
            measured += [(used() - before) / (4 * count)]
        finally:
            await broker.close()
    assert measured == pytest.approx(said, rel=0.25), measured
