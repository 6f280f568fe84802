"""History and recovery over real sockets: exactly what was missed, then live."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any
from urllib.parse import quote

import pytest
from fastapi import FastAPI, WebSocket
from websockets.asyncio.client import ClientConnection

from hubbub import ConnectionManager, History, Limits, Position, Resume, RoomOptions
from hubbub.connections.connection import session_of
from tests.integration.support import (
    LiveServer,
    client,
    closed,
    eventually,
    receive,
    receive_until,
    serving,
    through_asgi,
)
from tests.wrapping import speak

pytestmark = pytest.mark.anyio

ROOMS = {
    "kept:*": RoomOptions(history=History(50_000, 600), positions=True),
    "plain:*": RoomOptions(history=History(50_000, 600)),
    "short:*": RoomOptions(history=History(5, 600), positions=True),
    "numbered:*": RoomOptions(positions=True),
}


class Site:
    """An app with rooms that keep history, served."""

    def __init__(self, transport: str, loop: str, rooms: dict[str, RoomOptions] = ROOMS) -> None:
        self.manager = ConnectionManager(rooms=rooms, limits=Limits(max_outbox_bytes=256 * 1024))
        app = FastAPI()
        self.manager.install(app)

        @app.websocket("/ws")
        async def endpoint(websocket: WebSocket, rooms: str) -> None:
            speak(websocket)
            resume = Resume.from_query(websocket)
            async with self.manager.connect(websocket, rooms=rooms.split(","), since=resume) as connection:
                async for message in connection.iter_json():
                    body, room = message["body"], message["room"]
                    await self.manager.broadcast(body, room=room, exclude=connection if message.get("quiet") else None)

        self._serving = serving(
            through_asgi(app) if transport == "asgi" else app, loop=loop, mixed=transport == "mixed"
        )

    def __enter__(self) -> Site:
        self.server: LiveServer = self._serving.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._serving.__exit__(*exc)

    async def publish(self, room: str, message: Any) -> Position | None:
        return await self.server.acall(self.manager.broadcast(message, room=room))

    async def position(self, room: str) -> Position:
        position = await self.server.acall(self.manager._hubbub.broker.position(room))
        assert position is not None
        return position


@pytest.fixture(scope="module")
def loop(either_loop: str) -> str:
    return either_loop


@pytest.fixture(params=["uvicorn", "asgi", "mixed"])
def transport(request: pytest.FixtureRequest) -> str:
    """How frames get out; ``mixed`` is uvicorn, with clients of two protocols."""
    return str(request.param)


@pytest.fixture
def site(transport: str, loop: str) -> Any:
    with Site(transport, loop) as site:
        yield site


class Back:
    """A client that keeps its positions as the wire format says, and comes back with them."""

    def __init__(self, site: Site, *rooms: str) -> None:
        self.site = site
        self.rooms = rooms
        self.positions: dict[str, tuple[str, int]] = {}
        self.ids: list[str] = []
        self.data: dict[str, list[Any]] = {room: [] for room in rooms}
        self.syncs: list[dict[str, Any]] = []

    def path(self) -> str:
        path = f"/ws?rooms={quote(','.join(self.rooms))}"
        if self.positions:
            path += f"&since={quote(json.dumps({'ids': self.ids, 'rooms': self.positions}))}"
        return path

    def take(self, message: Any) -> None:
        if isinstance(message, bytes):
            assert message[:4] == b"HUB1"
            size = message[4]
            room, epoch = message[21 : 21 + size].decode(), message[5:13].decode()
            self.advance(room, epoch, int.from_bytes(message[13:21], "big"))
            self.data[room].append(message[21 + size :])
        elif message.get("type") == "sync":
            self.syncs.append(message)
            self.ids = [message["connection_id"], *self.ids][:8]
            if not message["recovered"]:
                self.positions[message["room"]] = (message["epoch"], message["offset"])
        else:
            self.advance(message["room"], message["epoch"], message["offset"])
            if "data" in message:
                self.data[message["room"]].append(message["data"])

    def advance(self, room: str, epoch: str, offset: int) -> None:
        assert self.positions[room] == (epoch, offset - 1), "a gap or a repeat"
        self.positions[room] = (epoch, offset)

    async def read_to(self, connection: ClientConnection, room: str, offset: int) -> None:
        while self.positions.get(room, ("", -1))[1] < offset:
            self.take(await receive(connection))

    async def synced(self, connection: ClientConnection) -> None:
        wanted = len(self.syncs) + len(self.rooms)
        while len(self.syncs) < wanted:
            self.take(await receive(connection))


async def test_what_was_missed_comes_then_what_is_live(site: Site) -> None:
    back = Back(site, "kept:a")
    async with client(site.server, back.path()) as connection:
        await back.synced(connection)
        await site.publish("kept:a", {"n": 1})
        await back.read_to(connection, "kept:a", 1)
    await eventually(lambda: not site.manager.rooms)
    for n in (2, 3):
        await site.publish("kept:a", {"n": n})
    async with client(site.server, back.path()) as connection:
        await site.publish("kept:a", {"n": 4})
        await back.read_to(connection, "kept:a", 4)
    assert [sync["recovered"] for sync in back.syncs] == [False, True]
    assert back.data["kept:a"] == [{"n": 1}, {"n": 2}, {"n": 3}, {"n": 4}]


async def test_a_client_that_left_before_anything_was_sent_recovers(site: Site) -> None:
    back = Back(site, "kept:a")
    async with client(site.server, back.path()) as connection:
        await back.synced(connection)
    await site.publish("kept:a", "first")
    async with client(site.server, back.path()) as connection:
        await back.read_to(connection, "kept:a", 1)
    assert back.syncs[1]["recovered"] is True
    assert back.data["kept:a"] == ["first"]


async def test_nothing_missed_in_a_room_that_only_numbers_is_recovered_and_anything_missed_is_not(site: Site) -> None:
    back = Back(site, "numbered:a")
    for _ in range(2):
        async with client(site.server, back.path()) as connection:
            await back.synced(connection)
    await site.publish("numbered:a", "missed")
    async with client(site.server, back.path()) as connection:
        await back.synced(connection)
    assert [sync["recovered"] for sync in back.syncs] == [False, True, False]
    assert back.positions["numbered:a"][1] == 1


async def test_text_json_and_binary_come_back_as_they_were(site: Site) -> None:
    back = Back(site, "kept:a")
    async with client(site.server, back.path()) as connection:
        await back.synced(connection)
    sent: list[Any] = ['{"a string": "of JSON"}', {"a": [1, 2.5, None]}, b"\x00\xff", "ünïcode", [], b""]
    for message in sent:
        await site.publish("kept:a", message)
    async with client(site.server, back.path()) as connection:
        await back.read_to(connection, "kept:a", len(sent))
    assert back.data["kept:a"] == sent


async def test_too_little_history_another_epoch_and_an_offset_ahead_are_not_recovered(site: Site) -> None:
    back = Back(site, "short:a", "kept:b", "kept:c")
    async with client(site.server, back.path()) as connection:
        await back.synced(connection)
    for n in range(6):
        await site.publish("short:a", n)
    back.positions["kept:b"] = ("otherone", 0)
    back.positions["kept:c"] = (back.positions["kept:c"][0], 1)
    async with client(site.server, back.path()) as connection:
        await back.synced(connection)
        await site.publish("short:a", "live")
        await back.read_to(connection, "short:a", 7)
    assert [sync["recovered"] for sync in back.syncs] == [False] * 6
    assert back.data["short:a"] == ["live"]


async def test_several_rooms_are_recovered_at_once_while_others_publish(site: Site) -> None:
    rooms = ("kept:a", "kept:b", "kept:c")
    back = Back(site, *rooms)
    dice, publisher = random.Random(7), random.Random(8)
    published: dict[str, list[int]] = {room: [] for room in rooms}

    coming = True

    async def publish_all() -> None:
        """Never done, nor far ahead, while the client comes and goes: there is always something to come."""
        n = 0
        while coming:
            if n > 500 + sum(map(len, back.data.values())):
                await asyncio.sleep(0.001)
                continue
            room = publisher.choice(rooms)
            published[room].append(n)
            await site.manager.broadcast(n, room=room)
            n += 1
            if publisher.random() < 0.3:
                await asyncio.sleep(0)

    async with client(site.server, back.path()) as connection:
        await back.synced(connection)
    publishing = asyncio.ensure_future(site.server.acall(publish_all()))
    for _ in range(12):
        async with client(site.server, back.path(), max_queue=None) as connection:
            for _ in range(dice.randrange(1, 120)):
                back.take(await receive(connection))
    coming = False
    await publishing
    async with client(site.server, back.path()) as connection:
        for room in rooms:
            await back.read_to(connection, room, len(published[room]))
    assert back.data == published


async def test_the_excluded_gets_the_position_and_is_not_replayed_its_own_message(site: Site) -> None:
    author, other = Back(site, "kept:a"), Back(site, "kept:a")
    async with client(site.server, author.path()) as mine, client(site.server, other.path()) as theirs:
        await author.synced(mine)
        await other.synced(theirs)
        await mine.send(json.dumps({"room": "kept:a", "body": "mine", "quiet": True}))
        await other.read_to(theirs, "kept:a", 1)
        await author.read_to(mine, "kept:a", 1)
        assert (author.data["kept:a"], other.data["kept:a"]) == ([], ["mine"])
        await mine.send(json.dumps({"room": "kept:a", "body": "lost on the way back", "quiet": True}))
        await other.read_to(theirs, "kept:a", 2)
    await site.publish("kept:a", "after")
    async with client(site.server, author.path()) as mine, client(site.server, other.path()) as theirs:
        await author.read_to(mine, "kept:a", 3)
        await other.read_to(theirs, "kept:a", 3)
    assert author.data["kept:a"] == ["after"]
    assert other.data["kept:a"] == ["mine", "lost on the way back", "after"]


async def test_the_excluded_that_is_gone_is_not_replayed_its_own_message(transport: str, loop: str) -> None:
    with Site(transport, loop) as site:
        author, other = Back(site, "kept:a"), Back(site, "kept:a")
        sockets: list[WebSocket] = []

        async def publish_for(websocket: WebSocket) -> None:
            await site.manager.broadcast("mine", room="kept:a", exclude=websocket)

        async with client(site.server, other.path()) as theirs:
            await other.synced(theirs)
            async with client(site.server, author.path()) as mine:
                await author.synced(mine)
                sockets = [each.websocket for each in site.manager.active_connections]
            await eventually(lambda: len(site.manager.active_connections) == 1)
            gone = next(each for each in sockets if each not in site.manager.active_connections)
            await site.server.acall(publish_for(gone))
            await other.read_to(theirs, "kept:a", 1)
        await site.publish("kept:a", "after")
        async with client(site.server, author.path()) as mine:
            await author.read_to(mine, "kept:a", 2)
    assert (author.data["kept:a"], other.data["kept:a"]) == (["after"], ["mine"])


async def test_a_replay_far_larger_than_the_outbox_is_paged_while_others_publish(site: Site) -> None:
    back = Back(site, "kept:a")
    async with client(site.server, back.path()) as connection:
        await back.synced(connection)
    count, live = 3000, 200

    async def fill(first: int, last: int) -> None:
        for n in range(first, last):
            await site.manager.broadcast({"n": n, "filler": "x" * 4000}, room="kept:a")

    await site.server.acall(fill(0, count))
    async with client(site.server, back.path(), max_queue=4) as connection:
        connection.transport.pause_reading()
        await eventually(lambda: any(session_of(each).writer.congested for each in site.manager.active_connections))
        await site.server.acall(fill(count, count + live))  # in the middle of the replay
        connection.transport.resume_reading()
        await back.read_to(connection, "kept:a", count + live)
    assert [message["n"] for message in back.data["kept:a"]] == list(range(count + live))
    stats = site.manager.stats()
    assert (stats.slow, stats.dropped) == (0, 0)


async def test_a_replay_of_messages_nearly_as_large_as_the_outbox_closes_nobody(site: Site) -> None:
    back = Back(site, "kept:a")
    async with client(site.server, back.path()) as connection:
        await back.synced(connection)
    count = 60  # 10 MiB, more than the kernel's buffers take

    async def fill() -> None:
        for n in range(count):
            await site.manager.broadcast({"n": n, "filler": "x" * 180 * 1024}, room="kept:a")

    await site.server.acall(fill())
    async with client(site.server, back.path(), max_queue=1) as connection:
        connection.transport.pause_reading()
        await eventually(lambda: any(session_of(each).writer.congested for each in site.manager.active_connections))
        connection.transport.resume_reading()
        await back.read_to(connection, "kept:a", count)
    assert [message["n"] for message in back.data["kept:a"]] == list(range(count))
    assert site.manager.stats().slow == 0


async def test_a_catch_up_that_fails_closes_its_connection(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would hear nothing from the room, and not know."""
    back = Back(site, "kept:a")
    async with client(site.server, back.path()) as connection:
        await back.synced(connection)
    for n in range(200):
        await site.publish("kept:a", n)
    history = site.manager._hubbub.broker.history
    asked = 0

    async def failing(*args: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise RuntimeError("no second page")
        return await history(*args)

    monkeypatch.setattr(site.manager._hubbub.broker, "history", failing)
    async with client(site.server, back.path(), max_queue=None) as connection:
        assert (await closed(connection))[0] == 1011
    await eventually(lambda: not site.manager.rooms)


async def test_a_history_that_is_trimmed_under_a_replay_is_said_with_a_second_sync(transport: str, loop: str) -> None:
    rooms = {"kept:*": RoomOptions(history=History(400, 600), positions=True)}
    with Site(transport, loop, rooms) as site:
        back = Back(site, "kept:a")
        async with client(site.server, back.path()) as connection:
            await back.synced(connection)

        async def fill(count: int) -> None:
            for n in range(count):
                await site.manager.broadcast({"n": n, "filler": "x" * 50_000}, room="kept:a")

        await site.server.acall(fill(400))
        async with client(site.server, back.path(), max_queue=1) as connection:
            back.take(await receive(connection))
            await site.server.acall(fill(400))
            seen = await receive_until(connection, lambda message: message.get("type") == "sync")
            for message in seen:
                back.take(message)
            await site.publish("kept:a", "live")
            await back.read_to(connection, "kept:a", 801)
        assert [sync["recovered"] for sync in back.syncs] == [False, True, False]
        assert back.data["kept:a"][-1] == "live"


async def test_without_positions_on_the_wire_the_app_hands_them_out_itself() -> None:
    app, manager = FastAPI(), ConnectionManager(rooms=ROOMS)
    manager.install(app)

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket, epoch: str = "", offset: int = 0) -> None:
        since = Position(epoch, offset) if epoch else None
        async with manager.connect(websocket, room="plain:a", since=since) as connection:
            joined = connection.joined["plain:a"]
            assert joined.position is not None
            await connection.send({"epoch": joined.position.epoch, "recovered": joined.recovered})
            async for _ in connection:
                pass

    with serving(app) as server:
        async with client(server, "/ws") as connection:
            first = await receive(connection)
        for n in range(3):
            await server.acall(manager.broadcast({"n": n}, room="plain:a"))
        async with client(server, f"/ws?epoch={first['epoch']}&offset=1") as connection:
            assert [await receive(connection) for _ in range(3)] == [
                {"n": 1},
                {"n": 2},
                {"epoch": first["epoch"], "recovered": True},
            ]
        recorded = await server.acall(manager.history("plain:a", limit=2))
        assert [(each.position.offset, each.message) for each in recorded] == [(2, {"n": 1}), (3, {"n": 2})]
