"""Slow clients: nobody else is harmed, the outbox is bounded, what is lost is counted and told."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import statistics
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets
from fastapi import FastAPI, WebSocket
from websockets.asyncio.client import ClientConnection

from hubbub import Connection, ConnectionManager, Limits, RoomOptions
from hubbub.connections.connection import session_of
from tests.integration.support import (
    LiveServer,
    client,
    closed,
    eventually,
    receive,
    receive_until,
    serving,
    stopwatch,
    through_asgi,
)
from tests.wrapping import speak

pytestmark = pytest.mark.anyio

KIB = 1024
ROOMS = {
    "oldest": RoomOptions(overflow="drop_oldest"),
    "newest": RoomOptions(overflow="drop_newest"),
    "latest": RoomOptions(overflow="latest"),
}


def site(*, client_frames: bool = True, **limits: Any) -> tuple[ConnectionManager, FastAPI]:
    manager, app = ConnectionManager(rooms=ROOMS, limits=Limits(**limits), client_frames=client_frames), FastAPI()
    manager.install(app)

    @app.websocket("/ws/{rooms}")
    async def endpoint(websocket: WebSocket, rooms: str, user: str | None = None) -> None:
        speak(websocket)
        async with manager.connect(websocket, user, rooms=rooms.split(",")) as connection:
            async for message in connection:
                await connection.send(message)

    return manager, app


@pytest.fixture(scope="module")
def loop(either_loop: str) -> str:
    return either_loop


@pytest.fixture(params=["uvicorn", "asgi", "mixed"])
def transport(request: pytest.FixtureRequest) -> str:
    """How frames get out; ``mixed`` is uvicorn, with clients of two protocols."""
    return str(request.param)


def on(app: FastAPI, transport: str) -> Any:
    return through_asgi(app) if transport == "asgi" else app


@asynccontextmanager
async def deaf(server: LiveServer, path: str) -> AsyncIterator[ClientConnection]:
    """A client that does not read, until its transport is told to."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 * KIB)  # else the kernel may take more and more for it
    plain.connect(("127.0.0.1", server.port))
    settings: dict[str, Any] = {"ping_interval": None, "max_queue": None, "max_size": None, "close_timeout": 1}
    connection = await websockets.connect(server.ws(path), sock=plain, compression=None, **settings)
    connection.transport.pause_reading()
    try:
        yield connection
    finally:
        connection.transport.abort()


async def fill(
    manager: ConnectionManager, room: str, *, until: Any, beside: Connection | None = None, size: int = 8 * KIB
) -> int:
    """Publishes into a room until something shows; on the server's loop.

    Args:
        beside: A connection whose client reads. It is given all the time that it needs, since it may share one core.
    """
    for count in range(20_000):
        while beside is not None and session_of(beside).writer.congested:  # noqa: ASYNC110 - the bound of the caller holds here too
            await asyncio.sleep(0.001)
        if until():
            return count
        await manager.broadcast({"n": count, "filler": "x" * size}, room=room)
        await asyncio.sleep(0)
    raise AssertionError("nothing came of 20,000 messages")


async def read_all(connection: ClientConnection, manager: ConnectionManager) -> list[Any]:
    """What there is to read, up to the answer to a message of its own, which it sends once nothing waits for it."""
    await eventually(lambda: manager.stats().queued_bytes == 0)
    await connection.send("that is all")
    return (await receive_until(connection, lambda message: message == "that is all"))[:-1]


async def test_a_slow_client_is_closed_with_1013_and_the_others_get_everything(transport: str, loop: str) -> None:
    manager, app = site()
    with serving(on(app, transport), loop=loop, mixed=transport == "mixed") as server:
        async with client(server, "/ws/room", max_queue=None) as good:
            await eventually(lambda: len(manager.active_connections) == 1)
            (reads,) = manager.active_connections
            async with deaf(server, "/ws/room") as slow:
                await eventually(lambda: len(manager.active_connections) == 2)
                filling = fill(manager, "room", until=lambda: manager.stats().slow, beside=reads)
                count = await server.acall(filling)
                assert [(await receive(good))["n"] for _ in range(count)] == list(range(count))
                assert len(manager.active_connections) == 1
                slow.transport.resume_reading()
                assert await closed(slow) == (1013, "slow consumer")
                assert manager.stats().queued_bytes == 0


@pytest.mark.usefixtures("quick_sweeps")
async def test_a_slow_client_that_does_not_take_its_close_is_aborted(loop: str) -> None:
    manager, app = site(close_timeout_s=0.2)
    with serving(app, loop=loop) as server:
        async with deaf(server, "/ws/room"):
            await eventually(lambda: bool(manager.rooms))
            await server.acall(fill(manager, "room", until=lambda: manager.stats().slow))
            await eventually(lambda: manager.stats().stalled == 1)
            await eventually(lambda: not server.server.server_state.connections)


async def test_the_servers_buffer_is_bounded_with_the_outbox(loop: str) -> None:
    """Who waits for the socket to take more is woken once a quarter of the outbox is free."""
    manager, app = site(max_outbox_bytes=64 * KIB)
    with serving(app, loop=loop) as server:
        async with client(server, "/ws/room"):
            await eventually(lambda: bool(manager.rooms))
            transport: Any = session_of(next(iter(manager.active_connections))).socket.transport
            assert transport._transport.get_write_buffer_limits() == (4 * KIB, 16 * KIB)


@pytest.mark.usefixtures("quick_sweeps")
async def test_an_outbox_that_does_not_move_is_aborted_and_not_closed(transport: str, loop: str) -> None:
    manager, app = site(stall_timeout_s=0.5)
    with serving(on(app, transport), loop=loop, mixed=transport == "mixed") as server:
        async with deaf(server, "/ws/room") as slow:
            await eventually(lambda: bool(manager.rooms))

            def filled() -> bool:
                stats = manager.stats()
                return stats.queued_bytes > 500 * KIB or stats.stalled == 1

            await server.acall(fill(manager, "room", until=filled))
            await eventually(lambda: manager.stats().stalled == 1)
            assert manager.stats().slow == 0
            slow.transport.resume_reading()
            assert (await closed(slow))[0] == 1006


@pytest.mark.parametrize("policy", ["oldest", "newest", "latest"])
async def test_a_room_that_may_drop_drops_and_counts(policy: str, transport: str, loop: str) -> None:
    manager, app = site(max_outbox_bytes=128 * KIB)
    with serving(on(app, transport), loop=loop, mixed=transport == "mixed") as server:
        async with deaf(server, f"/ws/{policy}") as slow:
            await eventually(lambda: bool(manager.rooms))
            count = await server.acall(fill(manager, policy, until=lambda: manager.stats().dropped >= 40))
            assert manager.stats().queued_bytes <= 128 * KIB
            slow.transport.resume_reading()
            messages = await read_all(slow, manager)
            seen = [message["n"] for message in messages if "n" in message]
            dropped = manager.stats().dropped
            assert len(messages) == len(seen), "nothing but what the app sent"
            assert seen == sorted(set(seen))
            assert len(seen) == count - dropped
            assert (seen[-1] == count - 1) == (policy != "newest")
            assert manager.stats().slow == 0
            assert len(manager.active_connections) == 1


@pytest.mark.parametrize("transport", ["uvicorn", "asgi"])
@pytest.mark.parametrize("policy", ["oldest", "newest", "latest"])
async def test_a_client_with_a_format_of_its_own_gets_no_frames_of_ours(
    policy: str, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "hubbub")
    manager, app = site(client_frames=False, max_outbox_bytes=128 * KIB)
    with serving(on(app, transport)) as server:
        async with deaf(server, f"/ws/{policy}") as slow:
            await eventually(lambda: bool(manager.rooms))
            count = await server.acall(fill(manager, policy, until=lambda: manager.stats().dropped >= 40))
            dropped = manager.stats().dropped
            slow.transport.resume_reading()
            seen = [await receive(slow) for _ in range(count - dropped)]
            caught_up = f"reads again: {dropped} messages dropped"
            await eventually(lambda: any(caught_up in record.getMessage() for record in caplog.records))
            await slow.send("that is all")
            assert await receive(slow) == "that is all"
            assert not [message for message in seen if "type" in message]
            assert manager.stats().dropped == dropped


async def test_latest_keeps_one_message_for_each_key(loop: str) -> None:
    manager, app = site()
    with serving(app, loop=loop) as server:
        async with deaf(server, "/ws/latest") as slow:
            await eventually(lambda: bool(manager.rooms))
            # Until its outbox is full: what the kernel may still take of it makes no room for a quote.
            await server.acall(fill(manager, "latest", until=lambda: manager.stats().dropped))

            async def quotes() -> None:
                for n in range(1000):
                    for key in ("a", "b"):
                        await manager.broadcast({"key": key, "n": n}, room="latest", key=key)

            await server.acall(quotes())
            slow.transport.resume_reading()
            messages = await read_all(slow, manager)
            quoted = [(message["key"], message["n"]) for message in messages if "key" in message]
            assert quoted == [("a", 999), ("b", 999)]


async def test_latest_keeps_the_last_news_of_each_user_beside_the_messages(loop: str) -> None:
    rooms = {"latest": RoomOptions(overflow="latest", announce=True, grace_s=0)}
    manager = ConnectionManager(rooms=rooms)
    app = FastAPI()
    manager.install(app)

    @app.websocket("/ws/{user}")
    async def handler(websocket: WebSocket, user: str) -> None:
        async with manager.connect(websocket, user, room="latest") as connection:
            async for message in connection:
                await connection.send(message)

    with serving(app, loop=loop) as server:
        async with deaf(server, "/ws/slow") as slow:
            await eventually(lambda: bool(manager.rooms))
            await server.acall(fill(manager, "latest", until=lambda: manager.stats().dropped))
            async with client(server, "/ws/ann"), client(server, "/ws/bob"):
                await eventually(lambda: manager.stats().connections == 3)
            await eventually(lambda: manager.stats().connections == 1)
            async with client(server, "/ws/cyd"):
                await eventually(lambda: manager.stats().connections == 2)
                for n in range(2):
                    await server.acall(manager.broadcast({"n": n}, room="latest"))
                slow.transport.resume_reading()
                messages = await read_all(slow, manager)
        news = {(message["type"], message["user_id"]) for message in messages if "user_id" in message}
        assert news - {("user_joined", "slow")} == {("user_left", "ann"), ("user_left", "bob"), ("user_joined", "cyd")}
        assert [message["n"] for message in messages if message.keys() == {"n"}] == [1]


async def test_frames_that_may_be_dropped_go_before_a_connection_is_closed(loop: str) -> None:
    manager, app = site(max_outbox_bytes=256 * KIB)
    with serving(app, loop=loop) as server:
        async with deaf(server, "/ws/room,oldest,latest") as slow:
            await eventually(lambda: len(manager.rooms) == 3)
            published = await server.acall(fill(manager, "oldest", until=lambda: manager.stats().dropped))
            before = manager.stats()
            assert before.queued_bytes > 150 * KIB

            async def kept() -> None:
                for n in range(20):
                    await manager.broadcast({"kept": n, "filler": "x" * 8 * KIB}, room="room")

            await server.acall(kept())
            after = manager.stats()
            assert after.slow == 0
            assert after.dropped > before.dropped
            assert after.queued_bytes <= 256 * KIB
            slow.transport.resume_reading()
            messages = await read_all(slow, manager)
            assert [message["kept"] for message in messages if "kept" in message] == list(range(20))
            assert len(messages) == published + 20 - after.dropped


@pytest.mark.parametrize(
    "size", [100, pytest.param(4000, marks=pytest.mark.slow)]
)  # half of what an outbox takes, and twenty times as much
async def test_a_burst_of_5000_broadcasts_closes_nobody(size: int, transport: str, loop: str) -> None:
    manager, app = site()
    with serving(on(app, transport), loop=loop, mixed=transport == "mixed") as server:
        async with client(server, "/ws/room", max_queue=None) as one, client(server, "/ws/room", max_queue=None) as two:
            await eventually(lambda: len(manager.active_connections) == 2)

            async def burst() -> None:
                for n in range(5000):
                    await manager.broadcast({"n": n, "filler": "x" * size}, room="room")

            bursting = asyncio.ensure_future(server.acall(burst()))
            for connection in (one, two):
                assert [(await receive(connection))["n"] for _ in range(5000)] == list(range(5000))
            await bursting
            assert manager.stats().slow == manager.stats().dropped == 0


async def test_a_burst_of_messages_nearly_as_large_as_the_outbox_closes_nobody(transport: str, loop: str) -> None:
    manager, app = site()
    with serving(on(app, transport), loop=loop, mixed=transport == "mixed") as server:
        async with client(server, "/ws/room", max_size=None) as connection:
            await eventually(lambda: bool(manager.rooms))

            async def burst() -> None:
                for n in range(30):
                    await manager.broadcast({"n": n, "filler": "x" * 700 * KIB}, room="room")

            bursting = asyncio.ensure_future(server.acall(burst()))
            assert [(await receive(connection))["n"] for _ in range(30)] == list(range(30))
            await bursting
            assert manager.stats().slow == 0


async def test_a_send_of_the_handler_keeps_starlettes_backpressure_and_its_place(loop: str) -> None:
    manager, app = ConnectionManager(limits=Limits(max_outbox_bytes=16 * 1024 * KIB)), FastAPI()
    manager.install(app)
    sent = 0

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        nonlocal sent
        async with manager.connect(websocket, room="room") as connection:
            await websocket.receive_text()
            for n in range(0, 3000, 3):
                await manager.broadcast({"n": n, "filler": "x" * 8 * KIB}, room="room")
                await websocket.send_json({"n": n + 1, "filler": "x" * 8 * KIB})
                await connection.send({"n": n + 2, "filler": "x" * 8 * KIB})
                sent = n
            async for _ in connection:
                pass

    with serving(app, loop=loop) as server:
        async with deaf(server, "/ws") as slow:
            await slow.send("go")
            await eventually(
                lambda: any(
                    session_of(each).socket.transport.buffered > 64 * KIB for each in manager.active_connections
                )
            )
            assert sent < 2997, "the handler was not held back"
            slow.transport.resume_reading()
            assert [(await receive(slow))["n"] for _ in range(3000)] == list(range(3000))


async def test_one_client_that_never_reads_does_not_delay_a_hundred_that_do(loop: str) -> None:
    """p99 of the others stays within twice what it was and 50 ms; waiting for it would take seconds."""
    manager, app = site()
    with serving(app, loop=loop) as server:

        async def p99_s(connections: list[ClientConnection], clock: Callable[[], float]) -> float:
            times = []
            for n in range(20):
                started = clock()
                publishing = asyncio.ensure_future(
                    server.acall(manager.broadcast({"n": n, "filler": "x" * 16 * KIB}, room="room"))
                )

                async def timed(connection: ClientConnection, n: int = n, started: float = started) -> float:
                    while json.loads(await connection.recv())["n"] != n:
                        pass
                    return clock() - started

                times += await asyncio.gather(*(timed(connection) for connection in connections))
                await publishing
            return statistics.quantiles(times, n=100)[98]

        good = [await websockets.connect(server.ws("/ws/room"), compression=None) for _ in range(100)]
        await eventually(lambda: len(manager.active_connections) == 100)
        async with stopwatch() as clock:
            await p99_s(good, clock)
        measured = []
        # What else the machine does comes and goes; what waits for the one that is deaf is in every try.
        for _ in range(8):
            async with stopwatch() as clock:
                without = await p99_s(good, clock)
            async with deaf(server, "/ws/room,backlog"):
                await eventually(lambda: "backlog" in manager.rooms)
                await server.acall(fill(manager, "backlog", until=lambda: manager.stats().queued_bytes > 64 * KIB))
                async with stopwatch() as clock:
                    beside = await p99_s(good, clock)
                assert manager.stats().queued_bytes > 64 * KIB, "the deaf one was not waiting all the time"
            await eventually(lambda: len(manager.active_connections) == 100)
            measured.append((without, beside))
            if beside <= 2 * without + 0.050:
                break
        else:
            raise AssertionError(measured)
        for connection in good:
            await connection.close()


async def test_a_burst_to_one_connection_does_not_close_it(transport: str, loop: str) -> None:
    manager, app = ConnectionManager(), FastAPI()
    manager.install(app)

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        speak(websocket)
        async with manager.connect(websocket, "ann") as connection:
            for n in range(0, 2000, 2):
                assert await connection.send({"n": n, "filler": "x" * 8 * KIB})
                assert await manager.send_personal({"n": n + 1, "filler": "x" * 8 * KIB}, websocket)

    with serving(on(app, transport), loop=loop, mixed=transport == "mixed") as server:
        async with client(server, "/ws", max_queue=None) as connection:
            assert [(await receive(connection))["n"] for _ in range(2000)] == list(range(2000))
            assert manager.stats().slow == 0
