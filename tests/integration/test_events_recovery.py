"""Streams of events whose network is cut and whose server restarts: every message once and in order, or a reset."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from random import Random
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from playwright.async_api import async_playwright

from hubbub import ConnectionManager, History, RoomOptions
from tests.browser.conftest import launching
from tests.integration.events import Stream, request, url
from tests.integration.live import Cable
from tests.integration.redis_server import RedisServer, fresh_prefix
from tests.integration.support import LiveServer, eventually, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_sweeps", "quick_retries")]

ROOMS = ("news:a", "news:b", "silent:c")
SEVERAL = url("/live/events", *ROOMS)
ONE = url("/live/events", ROOMS[0])


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients come back soon."""
    for name in ("RETRY_S", "RESTART_RETRY_S"):
        monkeypatch.setattr(f"hubbub.connections.transports.stream.{name}", (0.02, 0.05))


PAGE = """
<!doctype html>
<title>events</title>
<script>
  const rooms = ["news:a", "news:b", "silent:c"];
  window.one = { "news:a": [] };
  window.several = { "news:a": [], "news:b": [], "silent:c": [] };
  window.refused = 0;
  const listen = (path, got, roomOf) => {
    const source = new EventSource(path);
    source.onmessage = (event) => got[roomOf(event)].push(Number(event.data));
    source.addEventListener("reset", (event) => got[event.data].push("reset"));
    source.onerror = () => { if (source.readyState === EventSource.CLOSED) window.refused += 1; };
  };
  listen("ONE", window.one, () => "news:a");
  listen("SEVERAL", window.several, (event) => rooms[parseInt(event.lastEventId)]);
</script>
""".replace("ONE", ONE).replace("SEVERAL", SEVERAL)


class Worker:
    """An app with rooms that keep their messages, and one that does not."""

    def __init__(self, broker: str) -> None:
        self.manager = ConnectionManager(broker, rooms={"news:*": RoomOptions(history=History(20_000, 600))})
        self.app = FastAPI()
        self.manager.install(self.app)
        live = self.manager.endpoint("/live", auth=None)

        @live.room("{kind}:{room}")
        async def everybody(kind: str, room: str) -> bool:
            return True

        @self.app.get("/")
        async def page() -> HTMLResponse:
            return HTMLResponse(PAGE)


class Reader:
    """What `EventSource` does: it comes back with the last id that it read.

    Attributes:
        got: The messages of each room, and ``reset``.
        came: How often it was answered with a stream.
    """

    def __init__(self, cable: Cable, path: str, rooms: tuple[str, ...]) -> None:
        self._cable = cable
        self._path = path
        self._rooms = rooms
        self._last = ""
        self.got: dict[str, list[Any]] = {room: [] for room in rooms}
        self.came = 0

    async def run(self) -> None:
        while True:
            with suppress(OSError, EOFError):
                headers = {"Last_Event_ID": self._last} if self._last else {}
                async with request(self._cable, self._path, Accept="text/event-stream", **headers) as stream:
                    assert stream.status == 200
                    self.came += 1
                    await self._read(stream)
            await asyncio.sleep(0.02)

    async def _read(self, stream: Stream) -> None:
        try:
            while True:
                event = await stream.next()
                if event.name == "reset":
                    self.got[event.data].append("reset")
                else:
                    index = int(event.id.partition(",")[0]) if len(self._rooms) > 1 else 0
                    self.got[self._rooms[index]].append(int(event.data))
        finally:
            self._last = stream.id or self._last


@asynccontextmanager
async def reading(cable: Cable) -> AsyncIterator[tuple[Reader, Reader]]:
    one, several = Reader(cable, ONE, ROOMS[:1]), Reader(cable, SEVERAL, ROOMS)
    tasks = [asyncio.create_task(each.run()) for each in (one, several)]
    await eventually(lambda: one.came > 0 and several.came > 0)
    try:
        yield one, several
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) for each in results), results


async def publish(server: LiveServer, manager: ConnectionManager, first: int, last: int) -> None:
    """Publishes numbers to all rooms, with pauses, so that readers read between them."""

    async def all_of_them() -> None:
        for number in range(first, last):
            for room in ROOMS:
                await manager.broadcast(number, room=room)
            if number % 7 == 0:
                await asyncio.sleep(0.001)

    await server.acall(all_of_them())


def check(got: Mapping[str, list[Any]], count: int) -> None:
    """All messages came once and in order, in rooms that keep them. In the others, none came twice."""
    for room, numbers in got.items():
        if room.startswith("news:"):
            assert numbers == list(range(count)), room
        else:
            assert numbers == sorted(set(numbers)), room


async def test_nothing_is_missing_and_nothing_comes_twice_however_the_network_is_cut() -> None:
    worker, chance = Worker("memory://"), Random(5)
    with serving(worker.app) as server:
        async with Cable(server.port) as cable, reading(cable) as (one, several):
            for turn in range(12):
                if turn % 3 == 1:
                    cable.left = chance.randrange(20_000)  # within an event, a chunk or a line
                await publish(server, worker.manager, turn * 200, turn * 200 + 200)
                cable.cut()
                await publish(server, worker.manager, turn * 200 + 200, turn * 200 + 200)
                cable.mend()
            await eventually(lambda: len(one.got["news:a"]) >= 2400 and len(several.got["news:b"]) >= 2400)
            check(one.got, 2400)
            check(several.got, 2400)
            assert min(one.came, several.came) > 3


async def test_a_restart_without_redis_is_a_reset() -> None:
    first, second = Worker("memory://"), Worker("memory://")
    with ExitStack() as stack:
        server = stack.enter_context(serving(first.app))
        async with Cable(server.port) as cable, reading(cable) as (one, several):
            await publish(server, first.manager, 0, 5)
            await eventually(lambda: one.got["news:a"] == several.got["news:b"] == [*range(5)])
            server = stack.enter_context(serving(second.app))
            cable.leads_to = server.port
            cable.cut()
            await publish(server, second.manager, 5, 8)
            cable.mend()
            await eventually(lambda: one.got["news:a"][5:] == several.got["news:b"][5:] == ["reset"])
            await publish(server, second.manager, 8, 10)
            await eventually(lambda: one.got["news:a"][6:] == several.got["news:b"][6:] == [8, 9])


@pytest.fixture
def redis_url(redis: RedisServer) -> str:
    return redis.url(prefix=fresh_prefix())


async def test_nothing_is_missing_while_workers_restart(redis_url: str) -> None:
    publisher = Worker(redis_url)
    with serving(publisher.app) as server, ExitStack() as stack:
        worker = stack.enter_context(serving(Worker(redis_url).app))
        async with Cable(worker.port) as cable, reading(cable) as (one, several):
            for turn in range(4):
                publishing = asyncio.create_task(publish(server, publisher.manager, turn * 250, turn * 250 + 250))
                following = stack.enter_context(serving(Worker(redis_url).app))
                cable.leads_to = following.port
                worker.server.should_exit = True  # it ends its streams
                worker = following
                await publishing
            await eventually(lambda: len(one.got["news:a"]) >= 1000 and len(several.got["news:b"]) >= 1000)
            check(one.got, 1000)
            check(several.got, 1000)


@pytest.mark.browser
@pytest.mark.parametrize("fleet", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["one worker", "fleet"])
async def test_a_browser_misses_nothing(fleet: bool, request: pytest.FixtureRequest) -> None:
    broker = request.getfixturevalue("redis_url") if fleet else "memory://"
    publisher = Worker(broker)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(**launching())
        page = await browser.new_page()

        async def has(count: int) -> bool:
            """Whether so many messages have arrived."""
            return bool(min(await page.evaluate("[one['news:a'].length, several['news:b'].length]")) >= count)

        with serving(publisher.app) as server, ExitStack() as stack:
            async with Cable(server.port) as cable:
                await page.goto(f"http://127.0.0.1:{cable.port}/")
                await eventually(lambda: publisher.manager.stats().connections == 2)
                await publish(server, publisher.manager, 0, 10)
                await eventually(lambda: has(10))  # a client that has read nothing has no place to come back to
                for turn in range(6):
                    first, last = 250 * turn + (0 if turn else 10), 250 * turn + 250
                    publishing = asyncio.create_task(publish(server, publisher.manager, first, last))
                    if fleet:
                        cable.leads_to = stack.enter_context(serving(Worker(broker).app)).port
                    cable.cut()
                    await publishing
                    cable.mend()
                await eventually(lambda: has(1500))
                check(await page.evaluate("one"), 1500)
                check(await page.evaluate("several"), 1500)
                assert await page.evaluate("refused") == 0
        await browser.close()
