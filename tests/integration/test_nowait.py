"""Publishing from plain functions on the event loop, where nothing can be awaited."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection

from hubbub import (
    BrokerUnavailable,
    ConnectionManager,
    InvalidArgument,
    NotInstalled,
    NotRunning,
    Position,
    RoomOptions,
    WrongLoop,
    WrongThread,
)
from hubbub.brokers import MemoryBroker
from hubbub.envelope import Envelope
from hubbub.testing import record
from tests.integration.fleet import Worker, listening
from tests.integration.redis_server import RedisServer, fresh_prefix
from tests.integration.support import Live, client, eventually, receive, running

pytestmark = pytest.mark.anyio


class Held(MemoryBroker):
    """A broker elsewhere: what is published gets there when the gate opens, unless something fails it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.fails: Exception | None = None

    async def publish(
        self, channel: str, envelope: Envelope, *, keep: bool = True, once: str | None = None
    ) -> Position | None:
        await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        return await super().publish(channel, envelope, keep=keep, once=once)

    def publish_nowait(self, channel: str, envelope: Envelope) -> Awaitable[object]:  # type: ignore[override]
        return self.publish(channel, envelope)


def on(live: Live, plain: Callable[[], object]) -> Coroutine[Any, Any, None]:
    """A plain function, on the loop of the server."""

    async def run() -> None:
        plain()

    return live.server.acall(run())


@asynccontextmanager
async def connected(live: Live, user: str | None, *rooms: str) -> AsyncIterator[ClientConnection]:
    async def handler(websocket: WebSocket) -> None:
        async with live.manager.connect(websocket, user, rooms=rooms) as connection:
            await connection.send("ready")
            await connection.wait_gone()

    async with client(live.server, live.at(handler)) as one:
        assert await receive(one) == "ready"
        yield one


async def test_a_plain_function_publishes() -> None:
    with running(ConnectionManager()) as live:
        manager = live.manager
        async with connected(live, "ann", "lobby") as ann, connected(live, "bob", "lobby") as bob:

            def publish() -> None:
                (ann_s,) = manager.connections(user="ann")
                manager.broadcast_nowait("to all")
                manager.broadcast_nowait({"to": "the room"}, room="lobby")
                manager.broadcast_nowait("not to ann", room="lobby", exclude=ann_s, key="k")
                manager.broadcast_nowait("not to bob", exclude_users="bob")
                manager.send_to_user_nowait("ann", "to ann")
                manager.send_to_user_nowait("bob", "to bob")
                ann_s.send_nowait("directly")

            with record(manager) as pushed:
                await on(live, publish)
            rooms = ["$everyone", "lobby", "lobby", "$everyone", "$user:ann", "$user:bob"]
            assert [push.room for push in pushed] == rooms
            heard = [await receive(ann) for _ in range(5)]  # in no order between rooms, but before what came later
            assert sorted(map(str, heard[:4])) == ["not to bob", "to all", "to ann", "{'to': 'the room'}"]
            assert heard[4] == "directly"
            heard = [await receive(bob) for _ in range(4)]
            assert sorted(map(str, heard)) == ["not to ann", "to all", "to bob", "{'to': 'the room'}"]
        stats = manager.stats()
        assert (stats.published, stats.failed_publishes) == (6, 0)
        await live.nothing_left()


@pytest.mark.parametrize("room", ["lobby", "kept"])
async def test_calls_with_and_without_await_keep_their_order(room: str) -> None:
    with running(ConnectionManager(rooms={"kept": RoomOptions(history=200)})) as live:

        async def publish() -> None:
            for number in range(0, 100, 2):
                live.manager.broadcast_nowait(number, room=room)
                await live.manager.broadcast(number + 1, room=room)

        async with connected(live, None, room) as one:
            await live.server.acall(publish())
            assert [await receive(one) for _ in range(100)] == list(range(100))


@pytest.mark.parametrize("room", ["plain", "kept:a"])
async def test_through_redis_too(redis: RedisServer, room: str) -> None:
    url = redis.url(prefix=fresh_prefix())
    with Worker(url) as one, Worker(url) as two:

        async def publish() -> None:
            for number in range(0, 60, 3):
                one.manager.broadcast_nowait([room, number], room=room)
                await one.manager.broadcast([room, number + 1], room=room)
                one.manager.broadcast_nowait([room, number + 2], room=room)

        async with listening((None, one), ("bob", two), rooms=(room,)) as listeners:
            await one.run(publish())
            for listener in listeners:
                await listener.has(room, 59)
                assert listener.data[room] == list(range(60))
        assert one.manager.stats().failed_publishes == 0


CALLS: list[tuple[Callable[[ConnectionManager], object], str]] = [
    (lambda manager: manager.broadcast_nowait(object()), "message"),  # type: ignore[arg-type]
    (lambda manager: manager.broadcast_nowait("a", room=None), "room"),  # type: ignore[arg-type]
    (lambda manager: manager.broadcast_nowait("a", exclude="ann"), "exclude"),
    (lambda manager: manager.broadcast_nowait("a", exclude_users=1.5), "exclude_users"),  # type: ignore[arg-type]
    (lambda manager: manager.broadcast_nowait("a", key=1), "key"),  # type: ignore[arg-type]
    (lambda manager: manager.send_to_user_nowait("", "a"), "user_id"),
    (lambda manager: manager.send_to_user_nowait("ann", object()), "message"),  # type: ignore[arg-type]
]


async def test_a_wrong_argument_raises_at_the_call() -> None:
    with running(ConnectionManager()) as live:
        for call, argument in CALLS:
            with pytest.raises(InvalidArgument, match=f"^{argument}: "):
                await on(live, lambda call=call: call(live.manager))  # type: ignore[misc]
        assert live.manager.stats().published == 0


async def test_the_wrong_place_is_said() -> None:
    manager = ConnectionManager()
    with pytest.raises(NotInstalled):
        manager.broadcast_nowait("a")
    with running(manager):
        with pytest.raises(WrongLoop):
            manager.broadcast_nowait("a")
        with pytest.raises(WrongThread, match=r"manager\.from_thread\.broadcast"):
            await asyncio.to_thread(manager.broadcast_nowait, "a")
        with pytest.raises(WrongThread, match=r"send_to_user"):
            await asyncio.to_thread(manager.send_to_user_nowait, "ann", "a")
    with pytest.raises(NotRunning):
        manager.broadcast_nowait("a")


async def test_what_the_broker_refuses_later_is_counted_and_logged_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Held()
    with running(ConnectionManager(broker)) as live:
        manager = live.manager

        def several(count: int) -> None:
            for _ in range(count):
                manager.broadcast_nowait("a")

        broker.fails = BrokerUnavailable("it is away")
        await on(live, broker.gate.set)
        for count in (1, 5):
            await on(live, lambda count=count: several(count))  # type: ignore[misc]
        await eventually(lambda: manager.stats().failed_publishes == 6)
        assert logged(caplog) == ["1 message of *_nowait calls not published: it is away"]
        manager._hubbub.unawaited._quiet_until = 0.0
        await on(live, lambda: manager.send_to_user_nowait("ann", "a"))
        await eventually(lambda: manager.stats().failed_publishes == 7)
        assert logged(caplog)[1:] == ["6 messages of *_nowait calls not published: it is away"]
        broker.fails = None
        async with connected(live, None) as one:
            await on(live, lambda: manager.broadcast_nowait("it is back"))
            assert await receive(one) == "it is back"
        assert manager.stats().published == 8


async def test_a_fault_of_the_broker_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    broker = Held()
    with running(ConnectionManager(broker)) as live:
        broker.fails = ZeroDivisionError("a bug")
        await on(live, broker.gate.set)
        await on(live, lambda: live.manager.broadcast_nowait("a"))
        await eventually(lambda: live.manager.stats().failed_publishes == 1)
        await eventually(lambda: any(each.exc_info for each in caplog.records))


@pytest.mark.parametrize(("bound", "most"), [("MAX_WAITING", 3), ("MAX_WAITING_BYTES", 3 * 10)])
async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch, bound: str, most: int) -> None:
    monkeypatch.setattr(f"hubbub.brokers.unawaited.{bound}", most)
    broker = Held()
    with running(ConnectionManager(broker)) as live:
        manager = live.manager
        message = "0123456789"
        async with connected(live, None) as one:
            for _ in range(3):
                await on(live, lambda: manager.broadcast_nowait(message))
            with pytest.raises(BrokerUnavailable, match=r"3 messages \(30 bytes\) already wait"):
                await on(live, lambda: manager.broadcast_nowait(message))
            await on(live, broker.gate.set)
            assert [await receive(one) for _ in range(3)] == [message] * 3
            await on(live, lambda: manager.broadcast_nowait("again"))
            assert await receive(one) == "again"
        assert manager.stats().published == 4


async def test_shutdown_waits_for_what_is_under_way() -> None:
    broker = Held()
    heard: list[object] = []
    with running(ConnectionManager(broker)) as live:
        async with connected(live, None) as one:
            await on(live, lambda: live.manager.broadcast_nowait("last words"))
            await on(live, broker.gate.set)
            heard.append(await receive(one))
    assert heard == ["last words"]


async def test_what_shutdown_can_not_wait_for_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    class Away(Held):
        @property
        def state(self) -> Any:
            return super().state._replace(up=False)

    manager = ConnectionManager(Away())
    async with manager.lifespan():
        manager.broadcast_nowait("never begun")
    assert manager.stats().failed_publishes == 1
    (line,) = logged(caplog)
    assert line == "1 message of *_nowait calls not published: the manager has stopped"


# Without await


FORGOTTEN: list[tuple[Callable[[ConnectionManager], object], str]] = [
    (lambda manager: manager.broadcast("a"), "broadcast_nowait"),
    (lambda manager: manager.broadcast_to_room("lobby", "a"), "broadcast_nowait"),
    (lambda manager: manager.send_to_user("ann", "a"), "send_to_user_nowait"),
    (lambda manager: manager.send_personal("a", None), "Connection.send_nowait"),  # type: ignore[call-overload]
    (lambda manager: manager.connections()[0].send("a"), "send_nowait"),
    (lambda manager: manager.connections()[0].send_text("a"), "send_nowait"),
    (lambda manager: manager.connections()[0].send_bytes(b"a"), "send_nowait"),
    (lambda manager: manager.connections()[0].send_json("a"), "send_nowait"),
]


async def test_a_call_that_nobody_awaits_names_the_one_that_needs_none() -> None:
    with running(ConnectionManager()) as live:

        def forget() -> None:
            for call, instead in FORGOTTEN:
                said = rf"\(in a plain function: {re.escape(instead)}\)' was never awaited"
                with pytest.warns(RuntimeWarning, match=said):
                    call(live.manager)  # which drops the last reference

        async with connected(live, "ann"):
            await on(live, forget)


async def test_a_broadcast_is_a_coroutine_as_ever() -> None:
    with running(ConnectionManager()) as live:
        manager = live.manager

        async def publish() -> None:
            await asyncio.create_task(manager.broadcast("a task"))
            await asyncio.gather(manager.broadcast("gathered"), manager.broadcast_to_room("lobby", "gathered too"))

        assert asyncio.iscoroutinefunction(manager.broadcast)
        assert manager.broadcast.__name__ == "broadcast"
        async with connected(live, None, "lobby") as one:
            await live.server.acall(publish())
            await asyncio.to_thread(manager.from_thread.broadcast, "from a thread")
            heard = {await receive(one) for _ in range(4)}
        assert heard == {"a task", "gathered", "gathered too", "from a thread"}


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if "_nowait" in each.getMessage()]
