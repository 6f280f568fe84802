"""Rooms that replay their newest messages to newcomers: over raw sockets, and with the official SDKs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest
from fastapi import WebSocket

from hubbub import Connection, History, RoomOptions
from tests.integration.live import Cable, Live, by_hand, live_app, token
from tests.integration.redis_server import RedisServer, fresh_prefix
from tests.integration.sdk import Sdk
from tests.integration.sdks import node as node  # fixtures
from tests.integration.sdks import sdk as sdk
from tests.integration.support import client, eventually, receive

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_sweeps")]

KIB = 1024
FILLER = "x" * KIB


class Replaying(Live):
    """An app whose rooms replay, and in which raw sockets are members too."""

    rooms: ClassVar[Mapping[str, RoomOptions]] = {
        "chat:*": RoomOptions(history=History(60, 600), replay=20),
        "short:*": RoomOptions(history=History(10_000, 600), replay=10_000, announce=True),
        "ticker:*": RoomOptions(history=History(100, 600), replay=3),
    }
    users: ClassVar[RoomOptions] = RoomOptions(history=History(100, 600), replay=2)

    def _declare(self) -> None:
        super()._declare()

        @self.live.on("join")
        async def join(message: str, connection: Connection) -> bool:
            await connection.join(message)
            return True

        @self.app.websocket("/raw/{room}")
        async def raw(websocket: WebSocket, room: str) -> None:
            async with self.manager.connect(websocket, room=room) as connection:
                async for _ in connection:
                    pass

    async def publish_all(self, room: str, messages: Any) -> None:
        async def publish() -> None:
            for message in messages:
                await self.manager.broadcast(message, room=room)

        await self.server.acall(publish(), 30.0)

    async def send(self, user: str, message: Any) -> None:
        await self.server.acall(self.manager.send_to_user(user, message))


@pytest.fixture(scope="module")
def live() -> Iterator[Replaying]:
    with live_app(Replaying(max_outbox_bytes=256 * KIB)) as live:
        assert isinstance(live, Replaying)
        yield live


@pytest.fixture(scope="module")
def fleet(redis: RedisServer) -> Iterator[tuple[Replaying, Replaying]]:
    url = redis.url(prefix=fresh_prefix())
    with live_app(Replaying(url)) as one, live_app(Replaying(url)) as two:
        assert isinstance(one, Replaying)
        assert isinstance(two, Replaying)
        yield one, two


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A room that no other test has."""
    return f"chat:{request.node.name}"


# With the SDKs


async def test_a_newcomer_gets_the_newest_messages_first_and_recovers_from_there(
    live: Replaying, sdk: Sdk, name: str
) -> None:
    await live.publish_all(name, range(50))
    async with Cable(live.server.port) as cable, sdk.connected(live, "ann", port=cable.port) as ann:
        room = await ann.subscribed(name)
        await eventually(lambda: room.got == [*range(30, 50)])
        assert (room.subscribed[0].was_recovering, room.subscribed[0].recovered) == (False, False)
        await live.publish(name, 50)
        await eventually(lambda: room.got == [*range(30, 51)])
        cable.cut()
        await eventually(lambda: not live.manager.connections(room=name))
        await live.publish_all(name, range(51, 54))
        cable.mend()
        await eventually(lambda: len(room.subscribed) == 2)
        assert room.subscribed[1].recovered
        await eventually(lambda: room.got == [*range(30, 54)])
        assert room.offsets == [*range(31, 55)]


async def test_a_newcomer_that_got_no_message_recovers_from_there(live: Replaying, sdk: Sdk, name: str) -> None:
    async with Cable(live.server.port) as cable, sdk.connected(live, "ann", port=cable.port) as ann:
        room = await ann.subscribed(name)
        cable.cut()
        await eventually(lambda: not live.manager.connections(room=name))
        await live.publish_all(name, range(30))
        cable.mend()
        await eventually(lambda: room.got == [*range(30)])
        assert [each.recovered for each in room.subscribed] == [False, True]


async def test_a_client_that_can_not_recover_gets_the_newest_messages(live: Replaying, sdk: Sdk, name: str) -> None:
    async with Cable(live.server.port) as cable, sdk.connected(live, "ann", port=cable.port) as ann:
        room = await ann.subscribed(name)
        await live.publish(name, "before")
        await eventually(lambda: room.got == ["before"])
        cable.cut()
        await eventually(lambda: not live.manager.connections(room=name))
        await live.publish_all(name, range(100))
        cable.mend()
        await eventually(lambda: len(room.subscribed) == 2)
        assert (room.subscribed[1].was_recovering, room.subscribed[1].recovered) == (True, False)
        await live.publish(name, "after")
        await eventually(lambda: room.got == ["before", *range(80, 100), "after"])


async def test_rooms_that_the_server_joins_a_client_to_are_replayed_and_recovered(
    live: Replaying, sdk: Sdk, name: str
) -> None:
    user = name.removeprefix("chat:")
    for n in range(5):
        await live.publish("ticker:news", n)
        await live.send(user, n)
    async with Cable(live.server.port) as cable, sdk.connected(live, user, port=cable.port) as ann:

        def got(room: str) -> list[Any]:
            return [message for from_room, message in ann.published if from_room == room]

        await eventually(lambda: len(ann.published) == 5)
        assert (got("ticker:news"), got("$user")) == ([2, 3, 4], [3, 4])
        cable.cut()
        await eventually(lambda: not live.manager.connections(user=user))
        for n in (5, 6, 7):
            await live.publish("ticker:news", n)
            await live.send(user, n)
        ann.joined.clear()
        cable.mend()
        await eventually(lambda: got("ticker:news") == [2, 3, 4, 5, 6, 7] and got("$user") == [3, 4, 5, 6, 7])
        again = {each.room: (each.was_recovering, each.recovered) for each in ann.joined}
        assert again["$user"] == again["ticker:news"] == (True, True)


async def test_a_room_that_the_app_joins_a_client_to_later_is_replayed_too(
    live: Replaying, sdk: Sdk, name: str
) -> None:
    await live.publish_all(name, range(30))
    async with sdk.connected(live, "joe") as joe:
        await joe.rpc("join", name)
        await live.publish(name, 30)
        await eventually(lambda: joe.published[-1:] == [(name, 30)])
        assert [message for room, message in joe.published if room == name] == [*range(10, 31)]


async def test_many_messages_are_replayed_in_pages_and_the_rest_is_recovered(
    live: Replaying, sdk: Sdk, name: str
) -> None:
    name = name.replace("chat:", "short:")
    await live.publish_all(name, range(2_000))
    async with Cable(live.server.port) as cable, sdk.connected(live, "ann", port=cable.port) as ann:
        cable.left = 20 * KIB
        room = await ann.subscribed(name)
        await live.publish_all(name, range(2_000, 2_100))
        await eventually(lambda: cable.left == 0 and len(room.got) > 128)
        cable.cut()
        await eventually(lambda: not live.manager.connections(room=name))
        assert room.got[-1] < 2_000
        cable.mend()
        await eventually(lambda: len(room.subscribed) == 2 and room.got[-1] == 2_099)
        assert room.got == [*range(2_100)]
        assert room.offsets == [*range(1, 2_101)]
        assert [each.recovered for each in room.subscribed] == [False, True]


async def test_newcomers_on_another_worker_get_each_message_once_while_others_publish(
    fleet: tuple[Replaying, Replaying], sdk: Sdk, name: str
) -> None:
    one, two = fleet
    await one.publish_all(name, range(30))
    publishing = asyncio.create_task(one.publish_all(name, range(30, 300)))
    async with sdk.connected(two, "ann") as ann, sdk.connected(two, "bob") as bob:
        rooms = [await each.subscribed(name) for each in (ann, bob)]
        await publishing
        await one.publish(name, 300)
        await eventually(lambda: all(room.got[-1:] == [300] for room in rooms))
        for room in rooms:
            assert room.offsets[0] > 10
            assert room.offsets == [*range(room.offsets[0], 302)]
            assert room.got == [offset - 1 for offset in room.offsets]


# By hand


async def test_the_reply_to_a_subscribe_contains_the_messages(live: Replaying) -> None:
    await live.publish_all("chat:reply", [{"n": n} for n in range(22)])
    async with by_hand(live) as ann:
        await ann.send(json.dumps({"id": 2, "subscribe": {"channel": "chat:reply"}}))
        reply = (await _after_pushes(ann))["subscribe"]
        assert [each["offset"] for each in reply["publications"]] == [*range(3, 23)]
        assert [each["data"]["n"] for each in reply["publications"]] == [*range(2, 22)]
        assert (reply["offset"], reply["recoverable"], reply["positioned"]) == (2, True, True)
        assert "recovered" not in reply
        assert "was_recovering" not in reply


async def test_what_the_server_joins_a_client_to_is_pushed_after_the_reply_to_connect(live: Replaying) -> None:
    for n in range(4):
        await live.publish("ticker:news", n)
        await live.send("cid", n)
    async with client(live.server, "/live") as cid:
        await cid.send(json.dumps({"id": 1, "connect": {"token": token("cid")}}))
        told: list[Any] = []
        while len(told) < 6:
            told += [json.loads(line) for line in str(await cid.recv()).splitlines()]
        subs = told[0]["connect"]["subs"]
        assert {name for name, each in subs.items() if "publications" in each} == set()
        pushed = [(each["push"]["channel"], each["push"]["pub"]["offset"]) for each in told[1:]]
        assert sorted(pushed) == [
            ("$user", subs["$user"]["offset"] + 1),
            ("$user", subs["$user"]["offset"] + 2),
            *[("ticker:news", subs["ticker:news"]["offset"] + n) for n in (1, 2, 3)],
        ]


async def test_a_position_that_no_server_gave_is_no_position(live: Replaying) -> None:
    async with client(live.server, "/live") as dan:
        subs = {"$user": {"recover": True, "epoch": "é", "offset": 1}, "$everyone": {"recover": True, "offset": 2**63}}
        await dan.send(json.dumps({"id": 1, "connect": {"token": token("dan"), "subs": subs}}))
        answer = json.loads(str(await dan.recv()).splitlines()[0])["connect"]["subs"]["$user"]
        assert answer["was_recovering"]
        assert "recovered" not in answer


async def test_a_slow_client_that_joins_many_rooms_gets_all_of_them_in_time(live: Replaying) -> None:
    """The replies to its subscribes alone would not fit in its outbox."""
    rooms = [f"chat:many-{number}" for number in range(200)]
    for room in rooms:
        await live.publish_all(room, [{"n": n, "filler": 4 * FILLER} for n in range(16)])
    async with by_hand(live) as ann:
        ann.transport.pause_reading()
        await ann.send(
            "\n".join(
                json.dumps({"id": number, "subscribe": {"channel": room}}) for number, room in enumerate(rooms, 2)
            )
        )
        await eventually(lambda: all(live.manager.connections(room=room) for room in rooms))
        assert live.manager.stats().queued_bytes < 512 * KIB
        ann.transport.resume_reading()
        got: dict[str, list[int]] = {room: [] for room in rooms}
        while sum(map(len, got.values())) < 200 * 16:
            for line in str(await ann.recv()).splitlines():
                told = json.loads(line)
                if "subscribe" in told:
                    got[rooms[told["id"] - 2]] += [
                        each["data"]["n"] for each in told["subscribe"].get("publications", ())
                    ]
                elif told.get("push", {}).get("channel") in got:
                    got[told["push"]["channel"]].append(told["push"]["pub"]["data"]["n"])
        assert all(each == [*range(16)] for each in got.values())


async def test_ten_thousand_messages_are_replayed_to_a_raw_client_that_is_slow(live: Replaying) -> None:
    await live.publish_all("short:slow", [{"n": n, "filler": FILLER} for n in range(10_000)])
    async with client(live.server, "/raw/short:slow", max_queue=None) as slow:
        slow.transport.pause_reading()
        await eventually(lambda: bool(live.manager.connections(room="short:slow")))
        await live.publish_all("short:slow", [{"n": n} for n in range(10_000, 10_010)])
        assert live.manager.stats().queued_bytes < 256 * KIB
        slow.transport.resume_reading()
        first = (await receive(slow))["n"]
        assert first in range(11), "the pages that came before what was published meanwhile"
        assert [(await receive(slow))["n"] for _ in range(first + 1, 10_010)] == [*range(first + 1, 10_010)]


async def _after_pushes(websocket: Any) -> Any:
    """The next reply. What is pushed before is of the rooms that the server joined the client to."""
    while True:
        for line in str(await websocket.recv()).splitlines():
            told = json.loads(line)
            if "id" in told:
                return told
            assert told["push"]["channel"] in {"ticker:news", "$user"}
