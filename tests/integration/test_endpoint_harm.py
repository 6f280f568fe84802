"""Functions and clients of an endpoint that misbehave: they harm nobody else, are bounded, logged once and counted."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from websockets.exceptions import ConnectionClosed

from hubbub import Connection, ConnectionManager, History, Limits, RoomOptions
from hubbub.endpoints.results import Welcome
from tests.integration.json_client import Wire, error, rpc, subscribe
from tests.integration.support import LiveServer, client, eventually, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_sweeps")]

HOOKS = ["auth", "connect", "room", "on", "concurrent", "publish", "disconnect"]
UNSENDABLE: Any = object()
ROOMS = {
    "chat:*": RoomOptions(history=History(10_000)),
    "lossy:*": RoomOptions(overflow="drop_oldest"),
    "small:*": RoomOptions(max_members=1),
}


class Site:
    """An app whose functions do what a test says, for users who are called ``bad``; for all others they just work.

    Attributes:
        does: What each function does, by its hook: waits forever (``never``), blocks a thread (``block``), or returns
            the value.
        began: The hooks that were called for ``bad``.
        ended: Those that returned or were canceled.
    """

    def __init__(self) -> None:
        self.does: dict[str, Any] = {}
        self.began: list[str] = []
        self.ended: list[str] = []
        self.going = threading.Event()
        self.app = FastAPI()
        self.manager = ConnectionManager(rooms=ROOMS, limits=Limits(handler_timeout_s=0.1, max_outbox_bytes=200_000))
        self.manager.install(self.app)
        self.server: LiveServer
        self._declare()

    async def hook(self, name: str, connection: Connection | None, usual: Any) -> Any:
        if (connection is not None and connection.user_id != "bad") or name not in self.does:
            return usual
        self.began.append(name)
        try:
            if self.does[name] == "never":
                await asyncio.Event().wait()
            return self.does[name]
        finally:
            self.ended.append(name)

    def _declare(self) -> None:
        async def who(name: str = "bad") -> Any:
            return await self.hook("auth", None, name) if name == "bad" else name

        live = self.manager.endpoint("/live", auth=who)

        @live.connect
        async def hello(connection: Connection) -> Any:
            return await self.hook("connect", connection, None)

        @live.room("{kind}:{room}")
        async def may_read(kind: str, room: str, connection: Connection) -> Any:
            return await self.hook("room", connection, True)

        @live.on("work")
        async def work(message: Any, connection: Connection) -> Any:
            return await self.hook("on", connection, message)

        @live.on("beside", concurrent=True)
        async def beside(message: Any, connection: Connection) -> Any:
            return await self.hook("concurrent", connection, message)

        @live.on("sync")
        def sync(message: Any, connection: Connection) -> Any:
            if connection.user_id == "bad":
                self.began.append("sync")
                assert self.going.wait(30)
            return message

        @live.publish("chat:{room}")
        async def publish(message: Any, room: str, connection: Connection) -> Any:
            return await self.hook("publish", connection, message)

        @live.disconnect
        async def bye(connection: Connection) -> Any:
            return await self.hook("disconnect", connection, None)

    def reset(self) -> None:
        self.does.clear()
        self.began.clear()
        self.ended.clear()
        self.going.clear()

    @property
    def empty(self) -> bool:
        engine, stats = self.manager._hubbub, self.manager.stats()
        return (
            (stats.connections, stats.users, stats.rooms, stats.queued_bytes) == (0, 0, 0, 0)
            and not engine.memberships.rooms
            and not any(True for _ in engine.sweeper.sockets)
            and not self.server.server.server_state.tasks
            and not len(engine.tasks)
        )

    @property
    def failed(self) -> int:
        """How many failures of functions were counted."""
        return self.manager.stats().errors.get("function", 0)


@pytest.fixture(scope="module")
def served(either_loop: str) -> Iterator[Site]:
    site = Site()
    with serving(site.app, loop=either_loop) as server:
        site.server = server
        yield site


@pytest.fixture
async def site(served: Site) -> AsyncIterator[Site]:
    served.reset()
    yield served
    await eventually(lambda: served.empty)


@asynccontextmanager
async def wired(site: Site, name: str, *, connect: bool = True, **options: Any) -> AsyncIterator[Wire]:
    async with client(site.server, f"/live?name={name}", max_size=None, max_queue=None, **options) as socket:
        made = Wire(socket)
        if connect:
            assert "connect" in await made.ask(1, connect={})
        yield made


def complaints_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings and errors that hubbub logged."""
    records = caplog.get_records("call")
    return [each.getMessage() for each in records if each.name == "hubbub" and each.levelno >= logging.WARNING]


async def is_served(other: Wire, number: int) -> None:
    """Whether somebody else can do everything."""
    room = f"chat:other-{number}"
    assert "subscribe" in await other.ask(number, subscribe={"channel": room})
    await other.send(
        {"id": number + 1, "publish": {"channel": room, "data": number}},
        rpc(number + 2, "work", [number]),
        rpc(number + 3, "beside", "x"),
        rpc(number + 4, "sync", "y"),
    )
    answers = await other.answers(*range(number + 1, number + 5))
    assert not [each for each in answers if "error" in each]
    assert (await other.pushed(room))["data"] == number
    assert await other.ask(number + 5, unsubscribe={"channel": room}) == {"id": number + 5, "unsubscribe": {}}


# Functions


@pytest.mark.parametrize("hook", HOOKS)
async def test_a_function_that_never_returns_is_canceled_once_its_client_is_gone(
    hook: str, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.does[hook] = "never"
    before = site.failed
    async with wired(site, "good") as good:
        async with wired(site, "bad", connect=hook not in ("auth", "connect")) as bad:
            begins: dict[str, Any] = {
                "auth": {"id": 1, "connect": {}},
                "connect": {"id": 1, "connect": {}},
                "room": subscribe(2, "chat:a"),
                "on": rpc(2, "work"),
                "concurrent": rpc(2, "beside"),
                "publish": {"id": 2, "publish": {"channel": "chat:p", "data": 1}},
            }
            if hook == "publish":
                await bad.ask(3, subscribe={"channel": "chat:p"})
            if hook != "disconnect":
                await bad.send(begins[hook])
                await eventually(lambda: site.began == [hook])
            await is_served(good, 10)
        await eventually(lambda: site.began == site.ended == [hook])
        await eventually(lambda: site.manager.stats().connections == 1)
        await is_served(good, 20)
    await eventually(lambda: site.empty)
    (logged,) = complaints_in(caplog)
    assert "was canceled: its client is gone" in logged
    assert site.failed == before + 1


@pytest.mark.parametrize(
    ("hook", "value"),
    [("auth", UNSENDABLE), ("connect", "a text"), ("connect", Welcome(data=UNSENDABLE)), ("room", 1),
     ("on", UNSENDABLE), ("concurrent", UNSENDABLE), ("publish", UNSENDABLE), ("disconnect", "a text")],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)  # fmt: skip
async def test_a_function_that_returns_the_wrong_type_is_logged_once_and_counted(
    hook: str, value: Any, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.does[hook] = value
    before = site.failed
    async with wired(site, "good") as good:
        async with wired(site, "bad", connect=False) as bad:
            await bad.send({"id": 1, "connect": {}})
            if hook in ("connect", "auth"):
                assert error((await bad.answers(1))[0]) == 100
                if hook == "connect":
                    assert await bad.close_code() == 3004
            else:
                assert "connect" in (await bad.answers(1))[0]
                if hook == "publish":
                    site.does.clear()
                    await bad.ask(2, subscribe={"channel": "chat:a"})
                    site.does[hook] = value
                requests: dict[str, Any] = {
                    "room": {"subscribe": {"channel": "chat:a"}},
                    "on": {"rpc": {"method": "work"}},
                    "concurrent": {"rpc": {"method": "beside"}},
                    "publish": {"publish": {"channel": "chat:a", "data": 1}},
                }
                if hook in requests:
                    assert error(await bad.ask(3, **requests[hook])) == 100
                    site.does.clear()
                    assert "error" not in await bad.ask(4, **requests[hook])
        await eventually(lambda: site.failed == before + 1)
        await is_served(good, 10)
    assert len(complaints_in(caplog)) == 1


async def test_a_function_that_blocks_its_thread_holds_up_nobody_else(site: Site) -> None:
    async with wired(site, "good") as good:
        async with wired(site, "bad") as bad:
            await bad.send(rpc(2, "sync", "slow"), rpc(3, "work", "behind"))
            await eventually(lambda: site.began == ["sync"])
            await is_served(good, 10)
            assert "subscribe" in await bad.ask(4, subscribe={"channel": "chat:beside"})
            assert [each.get("id") for each in bad.told] == [1, 4]
            site.going.set()
            assert [each["id"] for each in await bad.answers(2, 3)] == [2, 3]
            site.going.clear()
            await bad.send(rpc(5, "sync", "gone"))
            await eventually(lambda: len(site.began) == 2)
        await is_served(good, 20)
        site.going.set()


async def test_a_request_that_takes_very_long_leaves_its_client_alive(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubbub.endpoints.heartbeat.PING_S", 0.05)
    monkeypatch.setattr("hubbub.endpoints.heartbeat.PONG_S", 1.0)
    site.does["on"] = "never"
    async with wired(site, "good") as good, wired(site, "bad") as bad:
        await bad.send(rpc(2, "work"))
        await eventually(lambda: site.began == ["on"])
        while bad.pings < 3:  # it answers them, and is not closed for what it waits for
            await bad.read()
        assert "refresh" in await bad.ask(3, refresh={})
        assert "subscribe" in await bad.ask(4, subscribe={"channel": "chat:meanwhile"})
        assert "rpc" in await bad.ask(5, rpc={"method": "beside", "data": 1})
        await good.ask(2, subscribe={"channel": "chat:meanwhile"})
        await good.ask(3, publish={"channel": "chat:meanwhile", "data": "news"})
        assert (await bad.pushed("chat:meanwhile"))["data"] == "news"
        assert await bad.ask(6, unsubscribe={"channel": "chat:meanwhile"}) == {"id": 6, "unsubscribe": {}}
        bad.pongs = False
        assert await bad.close_code() == 3012
        await eventually(lambda: site.ended == ["on"])


async def test_a_welcome_to_a_full_room_ends_at_once(site: Site) -> None:
    async with wired(site, "good") as good:
        await good.ask(2, subscribe={"channel": "small:room"})
        site.does["connect"] = Welcome(rooms=["small:room"])
        async with wired(site, "bad", connect=False) as bad:
            began = time.monotonic()
            await bad.send({"id": 1, "connect": {}})
            assert await bad.close_code() == 3507
            assert time.monotonic() - began < 4.0  # the Close frame waits for nothing
    assert "disconnect" not in site.began


# Clients


async def _burst(manager: ConnectionManager, room: str, count: int) -> None:
    for n in range(count):
        await manager.broadcast([n, "x" * 20_000], room=room)


async def test_a_client_that_does_not_read_is_closed_as_slow_and_delays_nobody(site: Site) -> None:
    async with wired(site, "good") as good, wired(site, "slow") as slow:
        for each in (good, slow):
            await each.ask(2, subscribe={"channel": "chat:burst"})
        slow.socket.transport.pause_reading()
        before, sent = site.manager.stats().slow, 0
        while site.manager.stats().slow == before:
            await site.server.acall(_burst(site.manager, "chat:burst", 20))
            sent += 20
            while len(good.publications("chat:burst")) < sent:  # each message, as soon as it is sent
                await good.read()
        slow.socket.transport.resume_reading()
        assert await slow.close_code() == 3008
        got = [n for n, _ in slow.publications("chat:burst")]
        assert got == [n % 20 for n in range(len(got))]
        assert site.manager.stats().slow == before + 1


async def test_a_client_that_does_not_read_keeps_a_room_that_may_lose_messages(site: Site) -> None:
    async with wired(site, "slow") as slow:
        await slow.ask(2, subscribe={"channel": "lossy:burst"})
        slow.socket.transport.pause_reading()
        before = site.manager.stats().dropped
        while site.manager.stats().dropped == before:
            await site.server.acall(_burst(site.manager, "lossy:burst", 20))
        slow.socket.transport.resume_reading()
        await site.server.acall(_burst(site.manager, "lossy:burst", 1))
        await slow.until(lambda each: each.get("push", {}).get("channel") == "lossy:burst")
        assert "rpc" in await slow.ask(3, rpc={"method": "work", "data": "still here"})


async def test_a_client_that_asks_and_does_not_read_the_answers_is_closed(site: Site) -> None:
    async with wired(site, "good") as good, wired(site, "greedy") as greedy:
        greedy.socket.transport.pause_reading()
        before = site.manager.stats().slow

        async def ask() -> None:
            with pytest.raises(ConnectionClosed):
                for number in range(2, 1_000_000):
                    await greedy.send(rpc(number, "work", "x" * 50_000))

        asking = asyncio.create_task(ask())
        await eventually(lambda: site.manager.stats().slow == before + 1)
        await is_served(good, 10)
        greedy.socket.transport.abort()
        await asking
