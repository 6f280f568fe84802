"""`disconnect_user` reaches every connection of a user: those still joining, and those on workers that are cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Literal

import pytest
from fastapi import WebSocket

from hubbub import AsyncPublisher, CloseCode, ConnectionManager, Publisher
from hubbub.brokers.redis.channel import Keys
from hubbub.envelope import Kick
from hubbub.names import user_room
from tests.integration.fleet import Listener, Worker, fleet, listening
from tests.integration.redis_server import Proxy, RedisServer
from tests.integration.support import Live, client, closed, eventually, receive, running

pytestmark = pytest.mark.anyio

KEPT, PROMPT = "kept:a", "prompt:a"
OUT = (4001, "out")
KEYS = Keys("hubbub")


@pytest.fixture(name="proxy")
def before_redis(own_redis: RedisServer) -> Iterator[Proxy]:
    with Proxy(own_redis) as proxy:
        yield proxy


@pytest.fixture(name="pair")
def one_and_the_other(own_redis: RedisServer, proxy: Proxy) -> Iterator[tuple[Worker, Worker]]:
    """Two workers; the other is behind the proxy."""
    with fleet(own_redis.url(lease_s=60), own_redis.url(through=proxy, lease_s=60)) as workers:
        yield workers[0], workers[1]


async def send_away(worker: Worker, user: str) -> bool:
    return await worker.run(worker.manager.disconnect_user(user, *OUT))


async def until_away(worker: Worker) -> None:
    await eventually(lambda: not worker.manager.stats().broker_up)


async def is_closed(listener: Listener) -> tuple[int | None, str | None]:
    await listener.until(lambda: not listener.open)
    return listener.closed


@asynccontextmanager
async def cut(
    redis: RedisServer, proxy: Proxy, worker: Worker, what: Literal["all", "subscription"]
) -> AsyncIterator[None]:
    """Cuts a worker off; at the end it may come back."""
    proxy.closed = True
    if what == "all":
        proxy.sever()
    else:
        redis.cut("pubsub")
    await until_away(worker)
    yield
    proxy.closed = False


# Whoever is cut off


@pytest.mark.parametrize("what", ["all", "subscription"])
@pytest.mark.parametrize("by", ["worker", "Publisher", "AsyncPublisher"])
async def test_a_worker_that_was_cut_off_closes_whom_others_sent_away(
    own_redis: RedisServer, proxy: Proxy, pair: tuple[Worker, Worker], what: Any, by: str
) -> None:
    """Before it delivers anything to them."""
    one, other = pair
    async with listening(("ann", other), ("bob", other), rooms=(KEPT,)) as (ann, bob):
        async with cut(own_redis, proxy, other, what):
            if by == "worker":
                had = await send_away(one, "ann")
            elif by == "Publisher":
                with Publisher(own_redis.url()) as publisher:
                    had = await asyncio.to_thread(publisher.disconnect_user, "ann", *OUT)
            else:
                async with AsyncPublisher(own_redis.url()) as async_publisher:
                    had = await async_publisher.disconnect_user("ann", *OUT)
            assert had is True
            await one.publish(KEPT, "not for ann")
            assert ann.open
        assert await is_closed(ann) == OUT
        await bob.has(KEPT, "not for ann")
        assert ann.data[KEPT] == []
        assert bob.open


async def test_a_worker_that_was_cut_off_takes_back_the_rights_that_others_took(
    own_redis: RedisServer, proxy: Proxy, pair: tuple[Worker, Worker]
) -> None:
    """Before it delivers anything to the users, but not from connections that joined after that."""
    one, other = pair
    users = ("ann", "bob", "cyd", "dan")
    async with listening(*((user, other) for user in users), rooms=(KEPT, PROMPT)) as listeners:
        async with AsyncPublisher(own_redis.url()) as async_publisher, cut(own_redis, proxy, other, "subscription"):
            assert await one.run(one.manager.unsubscribe("ann", KEPT)) is True
            with Publisher(own_redis.url()) as publisher:
                assert await asyncio.to_thread(publisher.unsubscribe, "bob", KEPT) is True
            assert await async_publisher.unsubscribe("cyd", KEPT) is True
            assert await async_publisher.unsubscribe("cyd", "kept:another") is False
            await one.publish(KEPT, "for dan")
        *out, dan = listeners
        await dan.has(KEPT, "for dan")
        await one.publish(PROMPT, "for all")
        for listener in listeners:
            await listener.has(PROMPT, "for all")
            assert listener.open
        assert [listener.data[KEPT] for listener in out] == [[], [], []]
        assert {each.user_id for each in other.manager.connections(room=KEPT)} == {"dan"}


async def test_whoever_comes_after_a_kick_is_not_closed_by_it(
    own_redis: RedisServer, proxy: Proxy, pair: tuple[Worker, Worker]
) -> None:
    """Not on a worker that hears of it later, nor at a second cut."""
    one, other = pair
    async with Listener("ann").on(other) as former, AsyncExitStack() as stack:
        async with cut(own_redis, proxy, other, "subscription"):
            assert await send_away(one, "ann") is True
            ordered = own_redis.command("TIME")
            # By the clock that stamps instructions, so that the answer to a question about it is sooner than that.
            await eventually(lambda: own_redis.command("TIME") >= (ordered[0] + 1, ordered[1]))
            later = Listener("ann", KEPT)
            coming = asyncio.ensure_future(stack.enter_async_context(later.on(other)))
            await eventually(lambda: other.manager.stats().connections == 2)  # and it waits to be in its rooms
        assert await is_closed(former) == OUT
        await coming
        async with cut(own_redis, proxy, other, "all"):
            await one.publish(KEPT, "meanwhile")
        await later.has(KEPT, "meanwhile")
        assert later.open


async def test_a_kick_that_was_heard_is_not_given_again_after_a_cut(
    own_redis: RedisServer, proxy: Proxy, pair: tuple[Worker, Worker]
) -> None:
    one, other = pair
    async with Listener("ann").on(other) as former:
        assert await send_away(one, "ann") is True
        assert await is_closed(former) == OUT
    async with Listener("ann", KEPT).on(other) as later:
        async with cut(own_redis, proxy, other, "all"):
            await one.publish(KEPT, "meanwhile")
        await later.has(KEPT, "meanwhile")
        assert later.open


async def test_a_user_who_was_sent_away_is_not_said_to_have_come_back_with_its_worker(
    own_redis: RedisServer, proxy: Proxy
) -> None:
    with fleet(own_redis.url(lease_s=1), own_redis.url(through=proxy, lease_s=1)) as (one, other):
        async with (
            Listener("eve", PROMPT).on(one) as eve,
            listening(("ann", other), ("bob", other), rooms=(PROMPT,)) as (ann, bob),
        ):
            await eve.hears("user_joined", "bob")
            async with cut(own_redis, proxy, other, "all"):
                await eve.hears("user_left", "ann")
                await eve.hears("user_left", "bob")
                assert await send_away(one, "ann") is False
            assert await is_closed(ann) == OUT
            await eve.until(lambda: eve.told.count(("user_joined", "bob")) == 2)
            async with Listener("dan", PROMPT).on(other):
                await eve.hears("user_joined", "dan")
            assert eve.told.count(("user_joined", "ann")) == 1
            assert bob.open


async def test_a_kick_is_given_once_though_its_answer_is_lost(own_redis: RedisServer, proxy: Proxy) -> None:
    with fleet(own_redis.url(through=proxy, lease_s=60)) as (worker,):
        async with Listener("ann").on(worker) as ann:
            proxy.lose("answers")
            kick = worker.manager._hubbub.broker.instruct(user_room("ann"), Kick(*OUT))
            kicking = asyncio.ensure_future(worker.run(kick))
            assert await is_closed(ann) == OUT
            proxy.sever()
            await kicking
        assert own_redis.command("ZCARD", KEYS.instructions) == 1


async def test_a_kick_that_is_none_of_ours_keeps_nobody_from_obeying_the_others(
    own_redis: RedisServer, proxy: Proxy, pair: tuple[Worker, Worker], caplog: pytest.LogCaptureFixture
) -> None:
    one, other = pair
    async with Listener("ann").on(other) as ann:
        async with cut(own_redis, proxy, other, "all"):
            own_redis.command("ZADD", KEYS.instructions, 10**13, b"?")
            assert await send_away(one, "ann") is True
        assert await is_closed(ann) == OUT
    assert sum("not of this release" in line for line in caplog.messages) == 1


async def test_a_worker_that_may_have_missed_what_is_forgotten_has_its_clients_come_again(
    own_redis: RedisServer,
    proxy: Proxy,
    pair: tuple[Worker, Worker],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("hubbub.brokers.redis.commands.MAX_INSTRUCTIONS", 2)
    one, other = pair
    async with listening(("ann", other), ("bob", one), rooms=(KEPT,)) as (ann, bob):
        for number in range(3):
            assert await send_away(one, f"user {number}") is False
        await one.publish(KEPT, "after them")
        await ann.has(KEPT, "after them")  # so both workers have heard of all three
        async with cut(own_redis, proxy, other, "all"):
            for number in range(2):
                assert await send_away(one, f"user {number}") is False
        async with Listener("cyd").on(other) as cyd:
            assert ann.open, "it has missed nothing"
            async with cut(own_redis, proxy, other, "all"):
                for number in range(3):
                    assert await send_away(one, f"user {number}") is False
            for listener in (ann, cyd):
                assert await is_closed(listener) == (1013, CloseCode.BROKER_UNAVAILABLE.reason)
        assert bob.open
    assert own_redis.command("ZCARD", KEYS.instructions) == 2
    assert sum("closing all its clients" in line for line in caplog.messages) == 1


# Whoever is still joining


@pytest.mark.parametrize("by", ["its own worker", "another"])
async def test_all_who_are_still_joining_are_sent_away(proxy: Proxy, pair: tuple[Worker, Worker], by: str) -> None:
    one, other = pair
    proxy.delay_s = 0.2  # so that nobody is in its rooms
    async with AsyncExitStack() as stack:
        tabs = [Listener("ann", KEPT) for _ in range(20)]
        coming = [asyncio.ensure_future(stack.enter_async_context(tab.on(other))) for tab in tabs]
        await eventually(lambda: other.manager.stats().connections == 20)
        assert other.manager.rooms == frozenset()
        had = await send_away(other if by == "its own worker" else one, "ann")
        assert had is (by == "its own worker")
        await asyncio.gather(*coming)
        for tab in tabs:
            assert await is_closed(tab) == OUT
            assert tab.id is None
        proxy.delay_s = 0.0
        await eventually(lambda: other.empty)


class Accepting:
    """An app whose first handler is held while it accepts its socket."""

    live: Live

    def __init__(self) -> None:
        self.manager = ConnectionManager()
        self._accepting, self._accept = asyncio.Event(), asyncio.Event()

    async def handler(self, websocket: WebSocket) -> None:
        original = websocket.accept

        async def held(*arguments: Any) -> None:
            self._accepting.set()
            await self._accept.wait()
            await original(*arguments)

        websocket.__dict__["accept"] = held
        async with self.manager.connect(websocket, "ann", rooms=["kept", "lost"]) as connection:
            await connection.send(sorted(connection.rooms))

    async def meanwhile(self, call: Callable[[], Awaitable[bool]]) -> bool:
        async def ordered() -> bool:
            await self._accepting.wait()
            had = await call()
            self._accept.set()
            return had

        return await self.live.server.acall(ordered())


@pytest.fixture(name="accepting")
def handler_that_is_held_while_it_accepts() -> Iterator[Accepting]:
    accepting = Accepting()
    with running(accepting.manager) as live:
        accepting.live = live
        yield accepting


async def test_a_user_whose_socket_is_being_accepted_is_sent_away_too(accepting: Accepting) -> None:
    live, manager = accepting.live, accepting.manager
    ordering = asyncio.ensure_future(accepting.meanwhile(lambda: manager.disconnect_user("ann", *OUT)))
    async with client(live.server, live.at(accepting.handler)) as websocket:
        assert await closed(websocket) == OUT
    assert await ordering is True
    await live.nothing_left()
    async with client(live.server, live.at(accepting.handler)) as websocket:
        assert await receive(websocket) == ["kept", "lost"]


async def test_a_user_whose_socket_is_being_accepted_is_kept_out_of_a_room_too(accepting: Accepting) -> None:
    live, manager = accepting.live, accepting.manager
    ordering = asyncio.ensure_future(accepting.meanwhile(lambda: manager.unsubscribe("ann", "lost")))
    async with client(live.server, live.at(accepting.handler)) as websocket:
        assert await receive(websocket) == ["kept"]
    assert await ordering is False
    await live.nothing_left()
    async with client(live.server, live.at(accepting.handler)) as websocket:
        assert await receive(websocket) == ["kept", "lost"]


@pytest.mark.parametrize("shape", ["plain", "accepts first", "newest tab", "disconnects another"])
async def test_a_user_whom_a_handshake_still_looks_up_is_sent_away_too(shape: str) -> None:
    """What was found out about the user may be older. A handshake that begins later is not concerned."""
    manager = ConnectionManager()
    looking, found = asyncio.Event(), asyncio.Event()

    async def handler(websocket: WebSocket) -> None:
        if shape == "accepts first":
            await websocket.accept()
        looking.set()
        await found.wait()  # a database, or the keys of an identity provider
        if shape == "newest tab":
            await manager.disconnect_user("ann", 4001, "opened in another tab")
        elif shape == "disconnects another":
            await manager.disconnect_user("bob")
        async with manager.connect(websocket, "ann") as connection:
            await connection.send("welcome")
            await asyncio.Event().wait()

    with running(manager) as live:

        async def send_away() -> None:
            await looking.wait()
            assert await manager.disconnect_user("ann", *OUT) is False
            found.set()

        sending = asyncio.ensure_future(live.server.acall(send_away()))
        path = live.at(handler)
        async with client(live.server, path) as websocket:
            assert await closed(websocket) == OUT
        await sending
        async with client(live.server, path) as websocket:
            assert await receive(websocket) == "welcome"
        await eventually(lambda: len(manager._hubbub.admission._kept) == 0)
