"""Messages that raw sockets lost in a room with history: the app is told, and says so in its own words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from websockets.asyncio.client import ClientConnection

from hubbub import Connection, ConnectionManager, History, Limits, Position, RoomOptions
from hubbub.envelope import Reset
from tests.integration.redis_server import RedisServer
from tests.integration.support import LiveServer, client, eventually, receive, receive_until, serving

pytestmark = pytest.mark.anyio

ROOMS = {"kept:*": RoomOptions(history=History(50, 600)), "replays": RoomOptions(history=History(5), replay=5)}


class Site:
    """An app that tells its raw clients to reload."""

    def __init__(self, url: str = "memory://", **limits: Any) -> None:
        kept = RoomOptions(history=50)
        self.manager = ConnectionManager(url, rooms=ROOMS, everyone=kept, users=kept, limits=Limits(**limits))
        self.app = FastAPI()
        self.manager.install(self.app)
        self.server: LiveServer
        self.told: list[str] = []

        @self.app.websocket("/ws/{room}")
        async def endpoint(websocket: WebSocket, room: str) -> None:
            user = websocket.query_params.get("user")
            async with self.manager.connect(websocket, user, room=room) as connection:
                await connection.send(["here"])
                await connection.wait_gone()

        @self.manager.on_gap
        async def reload(room: str) -> None:
            self.told.append(room)
            for connection in self.here(room):
                await connection.send({"reload": room})

    def here(self, room: str) -> list[Connection]:
        """Returns the connections in a room that had a gap, as the documentation says."""
        if room == "$everyone":
            return self.manager.connections()
        if room.startswith("$user:"):
            return self.manager.connections(user=room.removeprefix("$user:"))
        return self.manager.connections(room=room)

    async def publish(self, room: str, message: Any) -> None:
        await self.server.acall(self.manager.broadcast(message, room=room))

    async def lose(self, room: str) -> None:
        """The broker lost messages of a room."""

        async def deliver() -> None:
            self.manager._hubbub.deliveries.deliver(room, Reset(Position("abcdefgh", 7)))

        await self.server.acall(deliver())


@asynccontextmanager
async def sites(*urls: str, **limits: Any) -> AsyncIterator[list[Site]]:
    async with AsyncExitStack() as stack:
        made = [Site(url, **limits) for url in urls]
        for site in made:
            site.server = stack.enter_context(serving(site.app))
        yield made


@asynccontextmanager
async def raw(site: Site, room: str) -> AsyncIterator[ClientConnection]:
    async with client(site.server, f"/ws/{room}") as socket:
        assert await receive(socket) == ["here"]
        yield socket


async def test_raw_sockets_receive_what_the_app_says_of_a_gap_in_order_and_stay_open() -> None:
    async with sites("memory://") as (site,), raw(site, "kept:a") as ann, raw(site, "kept:b") as bob:
        await site.publish("kept:a", ["before"])
        await site.lose("kept:a")
        assert [await receive(ann), await receive(ann)] == [["before"], {"reload": "kept:a"}]
        await site.publish("kept:a", ["after"])
        await site.publish("kept:b", ["only"])
        assert (await receive(ann), await receive(bob)) == (["after"], ["only"])
        assert site.manager.stats().gaps == 1


async def test_the_recipe_reaches_the_sockets_in_the_rooms_of_everyone_and_of_a_user() -> None:
    async with sites("memory://") as (site,), raw(site, "a?user=ann") as ann, raw(site, "b?user=bob") as bob:
        await site.lose("$user:ann")
        assert await receive(ann) == {"reload": "$user:ann"}
        await site.lose("$everyone")
        assert await receive(ann) == await receive(bob) == {"reload": "$everyone"}
        assert site.manager.stats().errors == {}


async def test_a_function_that_never_returns_is_canceled_after_the_timeout_of_handlers() -> None:
    async with sites("memory://", handler_timeout_s=0.05) as (site,), raw(site, "kept:a"):

        @site.manager.on_gap
        async def hangs(room: str) -> None:
            await asyncio.Event().wait()

        await site.lose("kept:a")
        await eventually(lambda: site.manager.stats().errors == {"function": 1})


async def test_a_function_that_never_returns_delays_no_message() -> None:
    async with sites("memory://") as (site,), raw(site, "kept:a") as ann:
        called, done = asyncio.Event(), asyncio.Event()

        @site.manager.on_gap
        async def hangs(room: str) -> None:
            called.set()
            await done.wait()

        await site.lose("kept:a")
        assert await receive(ann) == {"reload": "kept:a"}
        await eventually(called.is_set)
        await site.publish("kept:a", ["after"])
        assert await receive(ann) == ["after"]

        async def let_go() -> None:
            done.set()

        await site.server.acall(let_go())


async def test_a_plain_function_may_block_and_call_the_manager_from_its_thread() -> None:
    async with sites("memory://") as (site,), raw(site, "kept:a") as ann:

        @site.manager.on_gap
        def tell(room: str) -> None:
            site.manager.from_thread.broadcast({"from": "a thread"}, room=room)

        await site.lose("kept:a")
        await receive_until(ann, lambda message: message == {"from": "a thread"})


async def test_redis_that_lost_its_data_is_told_on_each_worker_that_has_raw_sockets_in_the_room(
    own_redis: RedisServer,
) -> None:
    async with (
        sites(*[own_redis.url()] * 3) as (one, other, empty),
        raw(one, "kept:a") as ann,
        raw(other, "kept:a") as bob,
        raw(one, "plain") as cyd,
    ):
        await one.publish("kept:a", ["before"])
        assert (await receive(ann), await receive(bob)) == (["before"], ["before"])
        own_redis.command("FLUSHALL")
        await other.publish("kept:a", ["after"])
        for socket in (ann, bob):
            messages = await receive_until(socket, lambda message: message == {"reload": "kept:a"})
            if ["after"] not in messages:
                assert await receive(socket) == ["after"]
        await one.publish("plain", ["hello"])
        assert await receive(cyd) == ["hello"]
        assert [site.told for site in (one, other, empty)] == [["kept:a"], ["kept:a"], []]
        assert [site.manager.stats().gaps for site in (one, other, empty)] == [1, 1, 0]
