"""Joining many rooms over Redis: in a few round trips, in order, and never more than may be."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from hubbub import Connection, ConnectionManager, Limits, RoomOptions
from tests.integration.fleet import ROOMS, Listener, Subscriber, Worker, fleet
from tests.integration.redis_server import Proxy, RedisServer, fresh_prefix
from tests.integration.support import LiveServer, client, closed, eventually, receive, serving

pytestmark = pytest.mark.anyio

MANY = 100
FEW = 20
"""Round trips: several for each kind of question, and those of the housekeeping; not one for each room."""


@pytest.fixture
def far(redis: RedisServer) -> Iterator[Proxy]:
    """A Redis some milliseconds away, so that what is sent together is seen together."""
    with Proxy(redis) as proxy:
        proxy.delay_s = 0.005
        yield proxy


@pytest.mark.parametrize(("client", "kind"), [(Listener, "plain"), (Listener, "kept"), (Subscriber, "kept")])
async def test_many_rooms_are_joined_in_a_few_round_trips_and_in_their_order(
    redis: RedisServer, far: Proxy, client: type[Listener], kind: str
) -> None:
    rooms = [f"{kind}:{number}" for number in range(MANY)]
    prefix = fresh_prefix()
    few = FEW if client is Listener else MANY // 2  # an endpoint authorizes only so many at a time
    with fleet(redis.url(through=far, prefix=prefix, timeout_s=30), redis.url(prefix=prefix)) as (worker, other):
        ann = client("ann", *rooms)
        before = far.round_trips
        async with ann.on(worker):
            assert far.round_trips - before < few
            assert worker.manager.rooms == frozenset(rooms)
            assert [await other.present(room) for room in rooms] == [{"ann": 1}] * MANY
            await asyncio.gather(*(other.publish(room, "first") for room in rooms))
            for room in rooms:
                await ann.has(room, "first")
        await eventually(lambda: worker.empty)
        await asyncio.gather(*(other.publish(room, "missed") for room in rooms))
        before = far.round_trips
        async with ann.on(worker):
            assert far.round_trips - before < few
            await asyncio.gather(*(other.publish(room, "last") for room in rooms))
            for room in rooms:
                await ann.has(room, "last")
                assert ann.data[room] == ["first", *(["missed"] if client is Subscriber else []), "last"]
        if isinstance(ann, Subscriber):
            assert ann.faults == []
            assert ann.recovered == [False] * MANY + [True] * MANY


class Site:
    """A worker whose connections join what a test says."""

    def __init__(self, url: str, limits: Limits) -> None:
        self.manager = ConnectionManager(url, rooms={"small": RoomOptions(max_members=1), **ROOMS}, limits=limits)
        self.connections: list[Connection] = []

        async def endpoint(websocket: WebSocket) -> None:
            async with self.manager.connect(websocket, websocket.query_params.get("user")) as connection:
                self.connections.append(connection)
                await connection.send("here")
                await connection.wait_gone()

        app = Starlette(routes=[WebSocketRoute("/ws", endpoint)])
        self.manager.install(app)
        self._serving = serving(app)

    def __enter__(self) -> Site:
        self.server: LiveServer = self._serving.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self.connections.clear()
        self._serving.__exit__(*exc)


async def test_joins_at_the_same_time_take_a_few_round_trips_too(redis: RedisServer, far: Proxy) -> None:
    rooms = [f"kept:{number}" for number in range(MANY)]
    with Site(redis.url(through=far, prefix=fresh_prefix(), timeout_s=30), Limits()) as site:
        async with client(site.server, "/ws?user=ann", max_queue=None) as ann:
            await receive(ann)

            async def join_all() -> list[str]:
                (connection,) = site.connections
                await asyncio.gather(*(connection.join(room) for room in rooms))
                return sorted(connection.rooms)

            before = far.round_trips
            assert await site.server.acall(join_all()) == sorted(rooms)
            assert far.round_trips - before < FEW


async def test_joins_at_the_same_time_do_not_pass_the_limit(redis: RedisServer) -> None:
    with Site(redis.url(prefix=fresh_prefix()), Limits(max_rooms_per_connection=5)) as site:
        async with client(site.server, "/ws?user=ann") as ann:
            await receive(ann)
            most = 0

            async def join_all() -> list[object]:
                (connection,) = site.connections

                async def join(room: str) -> None:
                    nonlocal most
                    await connection.join(room)
                    most = max(most, len(connection.rooms))

                rooms = [f"plain:{number % 100}" for number in range(300)]
                return await asyncio.gather(*map(join, rooms), return_exceptions=True)

            outcomes = await site.server.acall(join_all())
            assert await closed(ann) == (1008, "too many rooms")
            assert sum(isinstance(each, WebSocketDisconnect) for each in outcomes) >= 285, "15 are of five rooms"
            assert most <= 5
            await eventually(lambda: not site.manager.rooms)


async def test_rooms_that_a_socket_asks_for_again_are_counted(redis: RedisServer) -> None:
    """With a second connect of the same socket."""
    with Site(redis.url(prefix=fresh_prefix()), Limits(max_rooms_per_connection=5)) as site:
        async with client(site.server, "/ws?user=ann") as ann:
            await receive(ann)

            async def connect_again() -> None:
                (connection,) = site.connections
                await site.manager.connect(connection.websocket, "ann", rooms=["plain:1", "plain:2", "plain:3"])
                assert len(connection.rooms) == 3
                with pytest.raises(WebSocketDisconnect):
                    await site.manager.connect(
                        connection.websocket, "ann", rooms=["plain:3", "plain:4", "plain:5", "plain:6"]
                    )

            await site.server.acall(connect_again())
            assert await closed(ann) == (1008, "too many rooms")


async def test_where_one_of_many_rooms_is_full_nothing_is_told_to_the_others(redis: RedisServer) -> None:
    url = redis.url(prefix=fresh_prefix())
    rooms = [*(f"prompt:{number}" for number in range(10)), "small", "prompt:last"]
    with Site(url, Limits()) as site, Worker(url) as other:
        bob = Listener("bob", "prompt:0", "prompt:last")
        async with (
            bob.on(other),
            client(site.server, "/ws?user=cyd") as cyd,
            client(site.server, "/ws?user=ann") as ann,
        ):
            for each in cyd, ann:
                await receive(each)

            async def join() -> None:
                by_user = {connection.user_id: connection for connection in site.connections}
                await by_user["cyd"].join("small")
                with pytest.raises(WebSocketDisconnect):
                    await site.manager.connect(by_user["ann"].websocket, "ann", rooms=rooms)

            await site.server.acall(join())
            assert (await closed(ann))[0] == 1008
            await eventually(lambda: site.manager.rooms == {"small"})
            for room in rooms:
                present = await other.present(room)
                assert "ann" not in present, room
            await other.publish("prompt:0", "end")
            await bob.has("prompt:0", "end")
            assert bob.told == [("user_joined", "bob")] * 2
