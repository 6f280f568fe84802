"""Publishing from processes and threads that serve no sockets."""

from __future__ import annotations

import asyncio
import importlib
import multiprocessing
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, WebSocket

from hubbub import (
    AsyncPublisher,
    BrokerUnavailable,
    ConnectionManager,
    InvalidArgument,
    Position,
    Publisher,
    RoomOptions,
)
from tests.integration.redis_server import Proxy, RedisServer, fresh_prefix, running_redis
from tests.integration.support import LiveServer, client, closed, eventually, receive, serving, stopwatch

pytestmark = pytest.mark.anyio

ROOMS = {"kept:*": RoomOptions(history=1000), "latest:*": RoomOptions(overflow="latest")}


class Site:
    """An app on Redis, served."""

    def __init__(self, server: RedisServer) -> None:
        self.prefix = fresh_prefix()
        self.url = server.url(prefix=self.prefix, timeout_s=30)
        self.manager = ConnectionManager(self.url, rooms=ROOMS)
        app = FastAPI()
        self.manager.install(app)

        @app.websocket("/ws/{room}")
        async def endpoint(websocket: WebSocket, room: str, user: str | None = None) -> None:
            async with self.manager.connect(websocket, user, room=room) as connection:
                await connection.send({"id": connection.id})
                await connection.wait_gone()

        self._serving = serving(app)

    def __enter__(self) -> Site:
        self.server: LiveServer = self._serving.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._serving.__exit__(*exc)


@pytest.fixture
def site(redis: RedisServer) -> Iterator[Site]:
    with Site(redis) as site:
        yield site


async def test_what_it_publishes_is_numbered_and_kept_as_the_app_says(site: Site) -> None:
    with Publisher(site.url) as publisher:
        async with client(site.server, "/ws/kept:a") as one:
            await receive(one)  # it is in the room
            first = await asyncio.to_thread(publisher.broadcast, {"n": 1}, room="kept:a")
            second = await asyncio.to_thread(publisher.broadcast, "two", room="kept:a")
            assert first is not None
            assert second == Position(first.epoch, first.offset + 1)
            assert [await receive(one), await receive(one)] == [{"n": 1}, "two"]
        kept = await site.server.acall(site.manager.history("kept:a"))
        assert [each.message for each in kept] == [{"n": 1}, "two"]
        assert await asyncio.to_thread(publisher.broadcast, "plain", room="lobby") is None


async def test_users_are_reached_asked_for_and_sent_away(site: Site) -> None:
    with Publisher(site.url) as publisher:
        assert not await asyncio.to_thread(publisher.send_to_user, "ann", "nobody hears")
        assert not await asyncio.to_thread(publisher.disconnect_user, "ann")
        assert not await asyncio.to_thread(publisher.is_online, "ann")
        async with client(site.server, "/ws/lobby?user=ann") as ann, client(site.server, "/ws/lobby?user=bob") as bob:
            ids = [(await receive(each))["id"] for each in (ann, bob)]
            assert await asyncio.to_thread(publisher.send_to_user, "ann", {"for": "ann"})
            assert await receive(ann) == {"for": "ann"}
            assert await asyncio.to_thread(publisher.is_online, "ann")
            await asyncio.to_thread(publisher.broadcast, "all but bob", room="lobby", exclude=ids[1])
            await asyncio.to_thread(publisher.broadcast, "nor this", room="lobby", exclude_users=["bob", 7])
            await asyncio.to_thread(publisher.broadcast, "all")
            assert [await receive(ann) for _ in range(3)] == ["all but bob", "nor this", "all"]
            assert await receive(bob) == "all"
            assert await asyncio.to_thread(publisher.disconnect_user, "ann", 4001, "out")
            assert await closed(ann) == (4001, "out")


async def test_an_event_loop_without_sockets_has_its_own(site: Site) -> None:
    async with AsyncPublisher(site.url) as publisher, client(site.server, "/ws/kept:a?user=ann") as ann:
        await receive(ann)
        places = await asyncio.gather(*(publisher.broadcast(n, room="kept:a") for n in range(50)))
        assert [place.offset for place in places if place is not None] == list(range(1, 51))
        assert [await receive(ann) for _ in range(50)] == list(range(50))
        assert await publisher.send_to_user("ann", "hello")
        assert await receive(ann) == "hello"
        assert await publisher.is_online("ann")
        assert await publisher.disconnect_user("ann")
        assert (await closed(ann))[0] == 1008

        async def nobody() -> bool:
            return not await publisher.disconnect_user("ann")

        await eventually(nobody)  # Redis hears a moment later that the worker has no connection of hers any more


async def test_threads_share_one_and_nothing_is_lost_or_doubled(site: Site) -> None:
    with Publisher(site.url) as publisher, ThreadPoolExecutor(8) as threads:
        async with client(site.server, "/ws/lobby", max_queue=None) as one:
            await receive(one)
            for number in range(400):
                threads.submit(publisher.broadcast, number, room="lobby")
            assert sorted([await receive(one) for _ in range(400)]) == list(range(400))


def _in_a_child(publisher: Publisher, answer: Any) -> None:
    publisher.broadcast("from the child", room="lobby")
    answer.put(os.getpid())


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_a_child_of_a_fork_has_a_connection_of_its_own(site: Site) -> None:
    """Also when another thread of its parent was publishing, and held the lock."""
    fork = multiprocessing.get_context("fork")
    with Publisher(site.url) as publisher:
        async with client(site.server, "/ws/lobby", max_queue=None) as one:
            await receive(one)
            stop = threading.Event()

            def publish() -> None:
                while not stop.is_set():
                    publisher.broadcast("from the parent", room="lobby")

            busy = threading.Thread(target=publish)
            busy.start()
            try:
                assert await receive(one) == "from the parent"
                answer = fork.SimpleQueue()
                children = [fork.Process(target=_in_a_child, args=(publisher, answer)) for _ in range(3)]
                for child in children:
                    child.start()
                for child in children:
                    await asyncio.to_thread(child.join, 30)
                    assert child.exitcode == 0
            finally:
                stop.set()
                await asyncio.to_thread(busy.join)
            await asyncio.to_thread(publisher.broadcast, "end", room="lobby")
            heard: list[object] = []
            while not heard or heard[-1] != "end":
                heard.append(await receive(one))
            assert heard.count("from the child") == 3


async def test_a_lost_connection_is_made_again_and_nothing_is_doubled(site: Site, redis: RedisServer) -> None:
    with Publisher(site.url) as publisher:
        async with client(site.server, "/ws/kept:a", max_queue=None) as one:
            await receive(one)
            published, cutting = 0, True

            def publish() -> None:
                """One after the other, until all cuts are over."""
                nonlocal published
                while cutting:
                    publisher.broadcast(published, room="kept:a")
                    published += 1

            publishing = asyncio.create_task(asyncio.to_thread(publish))
            came = cut_at = 0
            try:
                for _ in range(20):
                    while came < cut_at + 15:  # so that there is a connection again
                        assert await receive(one) == came
                        came += 1
                    assert await asyncio.to_thread(redis.cut, "normal") >= 1
                    cut_at = published
            finally:
                cutting = False
                await publishing
            while came < published:
                assert await receive(one) == came
                came += 1


def forgets(proxy: Proxy, how: str) -> None:
    """The connections that there are stay, and lead nowhere, or nowhere back. New ones are well."""
    if how == "swallowed":
        proxy.swallow()
    else:
        proxy.lose("answers")


async def publish_through(publisher: Publisher | AsyncPublisher, message: str, room: str) -> Position | None:
    if isinstance(publisher, Publisher):
        return await asyncio.to_thread(publisher.broadcast, message, room=room)
    return await publisher.broadcast(message, room=room)


@asynccontextmanager
async def publisher_of(kind: type[Publisher | AsyncPublisher], url: str) -> AsyncIterator[Publisher | AsyncPublisher]:
    if issubclass(kind, Publisher):
        with kind(url) as publisher:
            yield publisher
    else:
        async with kind(url) as async_publisher:
            yield async_publisher


@pytest.mark.parametrize("how", ["swallowed", "answers lost"])
@pytest.mark.parametrize("kind", [Publisher, AsyncPublisher])
async def test_a_connection_that_was_idle_for_long_is_replaced_before_it_is_used(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, kind: type[Publisher | AsyncPublisher], how: str
) -> None:
    """A firewall may have forgotten it: what is sent over it is lost without a word."""
    prefix = fresh_prefix()
    manager = ConnectionManager(redis.url(prefix=prefix), rooms=ROOMS)
    async with manager.lifespan():
        with Proxy(redis) as proxy:
            async with publisher_of(kind, redis.url(through=proxy, prefix=prefix, timeout_s=30)) as publisher:
                first = await publish_through(publisher, "one", "kept:a")
                assert first is not None
                monkeypatch.setattr("hubbub.brokers.redis.sync.IDLE_S", 0.0)
                monkeypatch.setattr("hubbub.brokers.redis.link.IDLE_S", 0.0)
                forgets(proxy, how)
                async with stopwatch() as took_s:
                    assert await publish_through(publisher, "two", "kept:a") == (first.epoch, 2)
                    assert took_s() < 10, "it did not wait for an answer"
        assert [each.message for each in await manager.history("kept:a")] == ["one", "two"]


@pytest.mark.parametrize("how", ["swallowed", "answers lost"])
async def test_a_connection_that_does_not_answer_is_replaced_within_the_time_of_a_call(
    site: Site, redis: RedisServer, how: str
) -> None:
    """And what is published by that call is published once."""
    with Proxy(redis) as proxy, Publisher(redis.url(through=proxy, prefix=site.prefix, timeout_s=2)) as publisher:
        async with client(site.server, "/ws/lobby") as one:
            await receive(one)
            await publish_through(publisher, "one", "lobby")
            first = await publish_through(publisher, "one", "kept:a")
            assert first is not None
            for room, message in (("lobby", "two"), ("kept:a", "two"), ("lobby", "three")):
                forgets(proxy, how)
                await publish_through(publisher, message, room)
            assert await publish_through(publisher, "three", "kept:a") == (first.epoch, 3)
            assert [await receive(one) for _ in range(3)] == ["one", "two", "three"]
        kept = await site.server.acall(site.manager.history("kept:a"))
        assert [each.message for each in kept] == ["one", "two", "three"]


async def test_the_rooms_options_come_back_after_a_flush(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        manager = ConnectionManager(server.url(lease_s=1, prefix="hubbub"), rooms=ROOMS)
        async with manager.lifespan():
            with Publisher(server.url()) as publisher:
                server.command("FLUSHALL")

                assert await asyncio.to_thread(publisher.broadcast, "hello", room="kept:a") is not None


@pytest.mark.parametrize("kind", [Publisher, AsyncPublisher])
async def test_a_new_publisher_waits_for_the_rooms_options_that_were_lost(tmp_path: Path, kind: Any) -> None:
    """It has a worker look at once, which would else not notice before it renews its lease."""
    with running_redis(tmp_path) as server:
        manager = ConnectionManager(server.url(lease_s=600), rooms=ROOMS)
        async with manager.lifespan():
            # Lease and rooms are said once at the start, and renewed once because the connection is new.
            await eventually(lambda: server.command_counts().get("set", 0) == 4)
            server.command("FLUSHALL")
            if kind is Publisher:
                with Publisher(server.url()) as publisher:
                    position = await asyncio.to_thread(publisher.broadcast, "hello", room="kept:a")
            else:
                async with AsyncPublisher(server.url()) as publisher:
                    position = await publisher.broadcast("hello", room="kept:a")
            assert position is not None
            assert [each.message for each in await manager.history("kept:a")] == ["hello"]


async def test_the_app_s_own_url_is_taken_with_all_that_it_says(redis: RedisServer) -> None:
    with Publisher(redis.url(prefix=fresh_prefix(), lease_s=30, timeout_s=2, when_away="local")) as publisher:
        assert publisher.is_online("ann") is False


async def test_a_socket_in_the_file_system_is_used_by_all() -> None:
    with TemporaryDirectory() as folder, running_redis(Path(folder)) as server:  # a path of at most 107 bytes
        for database in ("", "?db=1"):
            url = f"unix://{server.socket}{database}"
            manager = ConnectionManager(url)
            async with manager.lifespan():
                with Publisher(url) as publisher:
                    assert await asyncio.to_thread(publisher.send_to_user, "ann", "hello") is False
                async with AsyncPublisher(url) as publishes:
                    assert await publishes.is_online("ann") is False
                assert await manager.broker_healthy()


async def test_no_thread_waits_for_longer_than_its_bound_because_others_do(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server, Publisher(server.url(), timeout_s=0.5) as publisher:
        assert publisher.is_online("ann") is False
        server.freeze()

        def wait(number: int) -> None:
            with pytest.raises(BrokerUnavailable):
                publisher.is_online(number)

        try:
            with ThreadPoolExecutor(8) as threads:
                async with stopwatch() as took_s:
                    await asyncio.to_thread(lambda: list(threads.map(wait, range(8))))
                    assert took_s() < 3.5  # one after the other they would need 4
        finally:
            server.thaw()


def test_a_call_that_a_signal_ends_does_not_leave_its_answer_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the time limits of task queues do: the handler raises in the middle of the call, here before it reads."""

    class TooLong(Exception):
        pass

    def raises(*_: object, **__: object) -> None:
        raise TooLong

    with running_redis(tmp_path) as server, Publisher(server.url()) as publisher:
        server.command("HSET", "hubbub:{$everyone}:here", "ann", "{}")
        assert publisher.is_online("ann")
        server.freeze()
        with monkeypatch.context() as patched:
            patched.setattr("redis.connection.Connection.can_read", raises)
            with pytest.raises(TooLong):
                publisher.is_online("bob")
        threading.Timer(0.2, server.thaw).start()
        assert publisher.is_online("ann")


async def test_what_is_wrong_is_said(redis: RedisServer) -> None:
    with pytest.raises(InvalidArgument, match=r"url: the scheme 'memory'; accepted: redis://"):
        Publisher("memory://")
    with pytest.raises(InvalidArgument, match="timeout_s"):
        Publisher("redis://localhost?timeout_s=0")
    with Publisher(redis.url(prefix=fresh_prefix(), timeout_s=0.2)) as publisher:
        with pytest.raises(
            BrokerUnavailable, match=r"no worker has started .* with the prefix 'test-.*\(waited 0\.2 s\)"
        ):
            publisher.broadcast("hello")
        with pytest.raises(InvalidArgument, match="room"):
            publisher.broadcast("hello", room=None)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match="exclude"):
            publisher.broadcast("hello", exclude=[1])  # type: ignore[list-item]
        for wrong in (1, 0, False, object()):
            with pytest.raises(InvalidArgument, match=r"exclude: got .*ids of connections"):
                publisher.broadcast("hello", exclude=wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match=r"exclude: 'ann' is not the id of a connection.*exclude_users="):
            publisher.broadcast("hello", exclude="ann")
        with pytest.raises(InvalidArgument, match="exclude_users"):
            publisher.broadcast("hello", exclude_users=1.5)  # type: ignore[arg-type]
    with (
        Publisher("redis://127.0.0.1:1", timeout_s=0.2) as publisher,
        pytest.raises(BrokerUnavailable, match=r"can't be reached \(waited 0\.2 s\)"),
    ):
        publisher.is_online("ann")


class TestWorkerProcess:
    """examples/worker_process.py"""

    @pytest.fixture
    def example(self, redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        monkeypatch.setenv("BROKER", redis.url(prefix=fresh_prefix()))
        sys.modules.pop("examples.worker_process", None)
        yield importlib.import_module("examples.worker_process")
        sys.modules.pop("examples.worker_process", None)

    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    async def test_a_worker_process_reports_to_the_user(self, example: Any) -> None:
        with serving(example.app) as server:
            # The processes are forks that hold the socket too: it does not end where the server closes it.
            async with client(server, "/ws/ann", close_timeout=0.2) as ann:
                await eventually(lambda: asyncio.to_thread(example.publisher.is_online, "ann"))
                async with httpx.AsyncClient(trust_env=False) as http:
                    assert (await http.post(server.http("/reports/ann?pages=2"))).status_code == 202
                frames = [await receive(ann) for _ in range(3)]
            assert [frame["page"] for frame in frames[:2]] == [1, 2]
            assert frames[2] == {"type": "done", "pages": 2}
