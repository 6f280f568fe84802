"""The clients that publications, joins, leaves and presence tell of: on one worker and on two."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import WebSocket
from websockets.asyncio.client import ClientConnection

from hubbub import Connection
from hubbub.endpoints.results import Grant, Welcome
from tests.integration.json_client import Wire, error, subscribe, wire
from tests.integration.live import Live, User, current_user, live_app
from tests.integration.redis_server import RedisServer, fresh_prefix
from tests.integration.sdk import Info, Publication, Sdk
from tests.integration.sdk_python import PythonSdk
from tests.integration.sdks import node as node  # fixtures
from tests.integration.sdks import sdk as sdk
from tests.integration.support import client, eventually, receive

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_sweeps")]


class Infos(Live):
    """An app whose clients have a name, and a role in each room."""

    def _declare(self) -> None:
        super()._declare()
        named = self.manager.endpoint("/named", auth=current_user)

        @named.connect
        async def hello(connection: Connection, user: User) -> Welcome:
            return Welcome(info={"name": user.sub.title()})

        @named.room("chat:{room}")
        async def may_chat(room: str, user: User, data: Any = None) -> Grant:
            if room in self.gates:
                await self.gates[room].wait()
            return Grant(info={"role": data or "guest"})

        @named.publish("chat:{room}")
        async def publish(message: Any, room: str) -> Any:
            return b"\xff\x00" if message == "bytes" else message

        anybody = self.manager.endpoint("/guests", auth=None)

        @anybody.room("chat:{room}")
        async def may_look(room: str) -> Grant:
            return Grant(info={"role": "guest"})

        @named.on("join", concurrent=True)
        async def join(message: str, connection: Connection) -> None:
            await connection.join(message)

        @named.on("bytes")
        async def give_bytes(connection: Connection) -> bytes:
            await connection.send(b"\xff\x00")
            return b"\xff\x00"

        @self.app.websocket("/raw")
        async def raw(websocket: WebSocket) -> None:
            async with self.manager.connect(websocket, room=websocket.query_params["room"]) as connection:
                async for _ in connection:
                    pass


@pytest.fixture(scope="module")
def alone() -> Iterator[tuple[Infos, Infos]]:
    with live_app(Infos()) as one:
        assert isinstance(one, Infos)
        yield one, one


@pytest.fixture(scope="module")
def fleet(redis: RedisServer) -> Iterator[tuple[Infos, Infos]]:
    url = redis.url(prefix=fresh_prefix())
    with live_app(Infos(url)) as one, live_app(Infos(url)) as two:
        assert isinstance(one, Infos)
        assert isinstance(two, Infos)
        yield one, two


@pytest.fixture(scope="module", params=["alone", "fleet"])
def workers(request: pytest.FixtureRequest) -> tuple[Infos, Infos]:
    found: tuple[Infos, Infos] = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return f"chat:{request.node.name}"


def named(live: Live, user: str) -> Any:
    return wire(live, user, "/named")


async def subscribed(wired: Wire, name: str, data: str | None = None, **more: Any) -> Any:
    number = 10 + len(wired.told)
    return (await wired.ask(number, subscribe={"channel": name, "data": data, **more}))["subscribe"]


async def test_a_publication_of_a_client_says_whose_it_is_wherever_it_is_read(
    workers: tuple[Infos, Infos], name: str
) -> None:
    one, two = workers
    async with named(one, "ann") as ann, named(two, "bob") as bob, client(two.server, f"/raw?room={name}") as raw:
        await subscribed(ann, name, "owner")
        await subscribed(bob, name)
        own = (await ann.ask(3, presence={"channel": name}))["presence"]["presence"]
        (id_of_ann,) = [each for each, info in own.items() if info["user"] == "ann"]
        info = {"user": "ann", "client": id_of_ann, "conn_info": {"name": "Ann"}, "chan_info": {"role": "owner"}}
        assert own[id_of_ann] == info
        assert "publish" in await ann.ask(4, publish={"channel": name, "data": {"n": 1}})
        assert await bob.pushed(name) == {"data": {"n": 1}, "info": info, "offset": 1}
        await one.publish(name, {"n": 2})
        assert await raw_messages(raw, 2) == [{"n": 1}, {"n": 2}]
        history = (await bob.ask(5, history={"channel": name, "limit": -1}))["history"]
        assert history["publications"] == [
            {"data": {"n": 1}, "info": info, "offset": 1},
            {"data": {"n": 2}, "offset": 2},
        ]
        recovers = {"channel": name, "recover": True, "epoch": history["epoch"], "offset": 0}
        await bob.ask(6, unsubscribe={"channel": name})
        answer = (await bob.ask(7, subscribe=recovers))["subscribe"]
        assert answer["publications"] == history["publications"]


async def raw_messages(raw: ClientConnection, count: int) -> list[Any]:
    """The messages of the app that a raw member was sent."""
    found: list[Any] = []
    while len(found) < count:
        message = await receive(raw)
        if "type" not in message:  # it also is told who came
            found.append(message)
    return found


async def test_all_connections_of_a_user_publish_under_the_id_that_its_join_had(
    workers: tuple[Infos, Infos], name: str
) -> None:
    one, two = workers
    async with named(two, "bob") as bob:
        await subscribed(bob, name)
        async with named(one, "ann") as first, named(two, "ann") as second:
            await subscribed(first, name, "owner")
            joined = (await bob.until(lambda each: joins(each) == "ann"))["push"]["join"]["info"]
            assert joined["chan_info"] == {"role": "owner"}
            await second.send(
                {"id": 5, "subscribe": {"channel": name}}, {"id": 6, "publish": {"channel": name, "data": 1}}
            )
            await second.answers(5, 6)
            info = (await bob.pushed(name))["info"]
            assert info == {**joined, "chan_info": {"role": "guest"}}
            await first.ask(7, unsubscribe={"channel": name})
            await second.ask(8, unsubscribe={"channel": name})
        left = await bob.pushed(name, "leave")
        assert left["info"] == {**joined, "chan_info": {"role": "guest"}}


async def test_a_rule_that_takes_long_does_not_hold_up_who_is_in_the_room_anyway(alone: tuple[Infos, Infos]) -> None:
    live, name = alone[0], "chat:held"
    live.gates["held"] = asyncio.Event()
    async with named(live, "ann") as ann:
        await ann.send(subscribe(2, name))
        assert "rpc" in await ann.ask(3, rpc={"method": "join", "data": name})
        assert "publish" in await ann.ask(4, publish={"channel": name, "data": "hello"})
        assert (await ann.pushed(name))["info"]["user"] == "ann"

        async def release() -> None:
            live.gates.pop("held").set()

        await live.server.acall(release())
        assert error((await ann.answers(2))[0]) == 105


async def test_anonymous_connections_come_and_go_one_by_one(workers: tuple[Infos, Infos], name: str) -> None:
    """Those of endpoints and raw ones, to clients that are told of each in the presence list too."""
    one, two = workers

    async with named(two, "bob") as bob:

        async def told(kind: str, count: int) -> Any:
            """The newest of so many anonymous clients that came or went."""
            while len(found := [info for info in infos(bob, kind) if info["user"] == ""]) < count:
                await bob.read()
            return found[-1]

        await subscribed(bob, name)
        async with wire(one, None, "/guests") as guest:
            await guest.ask(1, connect={})
            await subscribed(guest, name)
            joined = await told("join", 1)
            assert joined == {"user": "", "client": joined["client"], "chan_info": {"role": "guest"}}
            async with client(one.server, f"/raw?room={name}") as raw:
                joined_raw = await told("join", 2)
                listed = (await bob.ask(3, presence={"channel": name}))["presence"]["presence"]
                assert listed.keys() == {info["client"] for info in infos(bob, "join")}
                assert len(listed) == 3
                await one.publish(name, 1)
                assert [json.loads(await raw.recv())] == [1], "a raw member hears of users, and only of those"
            assert await told("leave", 1) == joined_raw
        assert await told("leave", 2) == joined


def infos(wired: Wire, kind: str) -> list[Any]:
    """The clients that came or went, as a client was told."""
    pushes = [each["push"] for each in wired.told if "push" in each]
    return [push[kind]["info"] for push in pushes if kind in push]


def joins(told: Any) -> str | None:
    user: str | None = told.get("push", {}).get("join", {}).get("info", {}).get("user")
    return user


async def test_an_sdk_is_told_who_published_and_who_came(fleet: tuple[Infos, Infos], sdk: Sdk, name: str) -> None:
    one, two = fleet
    async with sdk.connected(one, "ann", path="/named") as ann, named(two, "bob") as bob:
        room = await ann.subscribed(name)
        await subscribed(bob, name, "visitor")
        await bob.ask(3, publish={"channel": name, "data": "hello"})
        await two.publish(name, "from the server")
        await eventually(lambda: [each.data for each in room.publications] == ["hello", "from the server"])
        by_bob, by_server = (each.info for each in room.publications)
        assert by_server is None
        assert by_bob is not None
        assert by_bob == Info("bob", by_bob.client, {"name": "Bob"}, {"role": "visitor"})
        assert (await room.presence())[by_bob.client] == "bob"
        await eventually(lambda: by_bob in room.came)
        assert [each.info for each in (await room.history(-1)).publications] == [by_bob, None]


async def test_bytes_are_base64_for_clients_that_speak_json(alone: tuple[Infos, Infos]) -> None:
    """With a tag where the protocol has tags: in publications, not in a message to one client or in a reply."""
    name, tagged = "chat:bytes", {"data": "/wA=", "tags": {"encoding": "base64"}}
    async with named(alone[0], "ann") as ann, named(alone[0], "bob") as bob:
        await subscribed(ann, name)
        await ann.ask(3, publish={"channel": name, "data": "bytes"})
        published = await ann.pushed(name)
        assert {each: published[each] for each in tagged} == tagged
        history = (await ann.ask(4, history={"channel": name, "limit": -1}))["history"]
        assert history["publications"] == [published]
        answer = await subscribed(bob, name, recover=True, epoch=history["epoch"])
        assert answer["publications"] == [published]
        assert (await ann.ask(5, rpc={"method": "bytes"}))["rpc"] == {"data": "/wA="}
        told = await ann.until(lambda each: "message" in each.get("push", {}))
        assert told["push"]["message"] == {"data": "/wA="}


async def test_bytes_are_bytes_for_clients_that_speak_protobuf(alone: tuple[Infos, Infos]) -> None:
    async with PythonSdk(protobuf=True).connected(alone[0], "ann", path="/named") as ann:
        room = await ann.subscribed("chat:raw-bytes")
        await alone[0].publish("chat:raw-bytes", b"\xff\x00")
        await eventually(lambda: room.publications == [Publication(b"\xff\x00", 1, {})])
        assert await ann.rpc("bytes") == b"\xff\x00"
