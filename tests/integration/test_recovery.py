"""History and recovery over real sockets: exactly what was missed, then live."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection

from hubbub import ConnectionManager, History, Limits, Position, RoomOptions
from hubbub.connections.connection import session_of
from tests.integration.support import DEADLINE_S, LiveServer, client, closed, eventually, serving, through_asgi

pytestmark = pytest.mark.anyio

ROOMS = {"kept:*": RoomOptions(history=History(50_000, 600)), "short:*": RoomOptions(history=History(5, 600))}


class Site:
    """An app with rooms that keep history, served."""

    def __init__(self, transport: str, loop: str, rooms: dict[str, RoomOptions] = ROOMS) -> None:
        self.manager = ConnectionManager(rooms=rooms, limits=Limits(max_outbox_bytes=256 * 1024))
        app = FastAPI()
        self.manager.install(app)
        live = self.manager.endpoint("/live", auth=None)

        @live.room("{kind}:{name}")
        async def anybody(kind: str, name: str) -> bool:
            return True

        self._serving = serving(through_asgi(app) if transport == "asgi" else app, loop=loop)

    def __enter__(self) -> Site:
        self.server: LiveServer = self._serving.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._serving.__exit__(*exc)

    async def publish(self, room: str, message: Any) -> Position | None:
        return await self.server.acall(self.manager.broadcast(message, room=room))


@pytest.fixture(scope="module")
def loop(either_loop: str) -> str:
    return either_loop


@pytest.fixture(params=["uvicorn", "asgi"])
def transport(request: pytest.FixtureRequest) -> str:
    """How frames get out."""
    return str(request.param)


@pytest.fixture
def site(transport: str, loop: str) -> Iterator[Site]:
    with Site(transport, loop) as site:
        yield site


class Back:
    """A client that keeps its positions as the SDKs do, and comes back with them.

    Attributes:
        recovered: What it was told each time it subscribed, in the order of the replies.
        again: How often it was told to subscribe again.
    """

    connection: ClientConnection

    def __init__(self, site: Site, *rooms: str) -> None:
        self.site = site
        self.rooms = rooms
        self.positions: dict[str, tuple[str, int]] = {}
        self.data: dict[str, list[Any]] = {room: [] for room in rooms}
        self.recovered: list[bool] = []
        self.again = 0
        self._asked: dict[int, str] = {}
        self._number = 1

    @asynccontextmanager
    async def on(self, *, waits: bool = True, **options: Any) -> AsyncIterator[Back]:
        """Connected, and subscribed to its rooms, unless it does not wait for that."""
        async with client(self.site.server, "/live", max_size=None, **options) as self.connection:
            self._asked.clear()
            commands = [{"id": 1, "connect": {}}, *map(self._subscribe, self.rooms)]
            await self.connection.send("\n".join(map(json.dumps, commands)))
            while waits and self._asked:
                await self.read()
            yield self

    def _subscribe(self, room: str) -> dict[str, Any]:
        self._number += 1
        self._asked[self._number] = room
        request: dict[str, Any] = {"channel": room}
        if room in self.positions:
            epoch, offset = self.positions[room]
            request |= {"recover": True, "epoch": epoch, "offset": offset}
        return {"id": self._number, "subscribe": request}

    async def read(self) -> None:
        """Reads one frame."""
        text = await asyncio.wait_for(self.connection.recv(), DEADLINE_S)
        assert isinstance(text, str)
        for line in text.splitlines():
            match json.loads(line):
                case {"subscribe": place, "id": number}:
                    self._take_place(self._asked.pop(number), place)
                case {"push": {"channel": room, "pub": publication}}:
                    self._take(room, publication)
                case {"push": {"channel": room, "unsubscribe": {"code": 2500}}}:
                    self.again += 1
                    await self.connection.send(json.dumps(self._subscribe(room)))
                case {"connect": _}:
                    pass
                case other:
                    assert other == {}, other

    def _take_place(self, room: str, place: dict[str, Any]) -> None:
        self.recovered.append(place.get("recovered", False))
        if self.recovered[-1]:
            assert (place["epoch"], place.get("offset", 0)) == self.positions[room]
        self.positions[room] = place["epoch"], place.get("offset", 0)
        for publication in place.get("publications", ()):
            self._take(room, publication)

    def _take(self, room: str, publication: dict[str, Any]) -> None:
        epoch, before = self.positions[room]
        assert publication["offset"] == before + 1, "a gap or a repeat"
        self.positions[room] = epoch, before + 1
        binary = publication.get("tags") == {"encoding": "base64"}
        self.data[room].append(base64.b64decode(publication["data"]) if binary else publication["data"])

    async def read_to(self, room: str, offset: int) -> None:
        while self.positions.get(room, ("", -1))[1] < offset:
            await self.read()


async def test_what_was_missed_comes_then_what_is_live(site: Site) -> None:
    back = Back(site, "kept:a")
    async with back.on():
        await site.publish("kept:a", {"n": 1})
        await back.read_to("kept:a", 1)
    await eventually(lambda: not site.manager.rooms)
    for n in (2, 3):
        await site.publish("kept:a", {"n": n})
    async with back.on():
        await site.publish("kept:a", {"n": 4})
        await back.read_to("kept:a", 4)
    assert back.recovered == [False, True]
    assert back.data["kept:a"] == [{"n": 1}, {"n": 2}, {"n": 3}, {"n": 4}]


async def test_a_client_that_left_before_anything_was_sent_recovers(site: Site) -> None:
    back = Back(site, "kept:a")
    async with back.on():
        pass
    await site.publish("kept:a", "first")
    async with back.on():
        await back.read_to("kept:a", 1)
    assert back.recovered == [False, True]
    assert back.data["kept:a"] == ["first"]


async def test_text_json_and_binary_come_back_as_they_were(site: Site) -> None:
    back = Back(site, "kept:a")
    async with back.on():
        pass
    sent: list[Any] = ['{"a string": "of JSON"}', {"a": [1, 2.5, None]}, b"\x00\xff", "ünïcode", [], b""]
    for message in sent:
        await site.publish("kept:a", message)
    async with back.on():
        await back.read_to("kept:a", len(sent))
    assert back.data["kept:a"] == sent


async def test_too_little_history_another_epoch_and_an_offset_ahead_are_not_recovered(site: Site) -> None:
    back = Back(site, "short:a", "kept:b", "kept:c")
    async with back.on():
        pass
    for n in range(6):
        await site.publish("short:a", n)
    back.positions["kept:b"] = ("otherone", 0)
    back.positions["kept:c"] = (back.positions["kept:c"][0], 1)
    async with back.on():
        await site.publish("short:a", "live")
        await back.read_to("short:a", 7)
    assert back.recovered == [False] * 6
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

    async with back.on():
        pass
    publishing = asyncio.ensure_future(site.server.acall(publish_all()))
    for _ in range(12):
        async with back.on(max_queue=None):
            wanted = sum(map(len, back.data.values())) + dice.randrange(1, 120)
            while sum(map(len, back.data.values())) < wanted:
                await back.read()
    coming = False
    await publishing
    async with back.on():
        for room in rooms:
            await back.read_to(room, len(published[room]))
    assert back.data == published
    assert back.recovered == [False] * 3 + [True] * 39


async def test_a_replay_far_larger_than_the_outbox_is_paged_while_others_publish(site: Site) -> None:
    back = Back(site, "kept:a")
    async with back.on():
        pass
    count, live = 3000, 200

    async def fill(first: int, last: int) -> None:
        for n in range(first, last):
            await site.manager.broadcast({"n": n, "filler": "x" * 4000}, room="kept:a")

    await site.server.acall(fill(0, count))
    async with back.on(waits=False, max_queue=4):
        back.connection.transport.pause_reading()
        await eventually(lambda: any(session_of(each).writer.congested for each in site.manager.active_connections))
        await site.server.acall(fill(count, count + live))  # in the middle of the replay
        back.connection.transport.resume_reading()
        await back.read_to("kept:a", count + live)
    assert [message["n"] for message in back.data["kept:a"]] == list(range(count + live))
    stats = site.manager.stats()
    assert (stats.slow, stats.dropped) == (0, 0)


async def test_a_replay_of_messages_nearly_as_large_as_the_outbox_closes_nobody(site: Site) -> None:
    back = Back(site, "kept:a")
    async with back.on():
        pass
    count = 60  # 10 MiB, more than the kernel's buffers take

    async def fill() -> None:
        for n in range(count):
            await site.manager.broadcast({"n": n, "filler": "x" * 180 * 1024}, room="kept:a")

    await site.server.acall(fill())
    async with back.on(waits=False, max_queue=1):
        back.connection.transport.pause_reading()
        await eventually(lambda: any(session_of(each).writer.congested for each in site.manager.active_connections))
        back.connection.transport.resume_reading()
        await back.read_to("kept:a", count)
    assert [message["n"] for message in back.data["kept:a"]] == list(range(count))
    assert site.manager.stats().slow == 0


async def test_a_catch_up_that_fails_closes_its_connection(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would hear nothing from the room, and not know."""
    back = Back(site, "kept:a")
    async with back.on():
        pass
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
    async with back.on(max_queue=None):
        assert (await closed(back.connection))[0] == 3004
    await eventually(lambda: not site.manager.rooms)


async def test_a_client_whose_history_is_trimmed_under_a_replay_subscribes_again(transport: str, loop: str) -> None:
    with Site(transport, loop, {"kept:*": RoomOptions(history=History(400, 600))}) as site:
        back = Back(site, "kept:a")
        async with back.on():
            pass

        async def fill(count: int) -> None:
            for n in range(count):
                await site.manager.broadcast({"n": n, "filler": "x" * 50_000}, room="kept:a")

        await site.server.acall(fill(400))
        async with back.on(max_queue=1):
            await site.server.acall(fill(400))
            while len(back.recovered) < 3:
                await back.read()
            await site.publish("kept:a", "live")
            await back.read_to("kept:a", 801)
        assert back.recovered == [False, True, False]
        assert back.again == 1
        assert back.data["kept:a"][-1] == "live"
