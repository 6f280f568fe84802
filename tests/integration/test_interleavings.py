"""Things that happen at once on one connection: each was a defect that a reader of the code found."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from hubbub import Connection, ConnectionManager, History, Limits, RoomOptions
from hubbub.connections.connection import session_of
from tests.integration.support import client, closed, eventually, receive, receive_until, serving

pytestmark = pytest.mark.anyio

KIB = 1024
FILLER = "x" * 8 * KIB


async def fill(connection: Connection) -> None:
    """Sends until the kernel takes no more, and a good part of the outbox is in use."""
    for _ in range(1000):
        while not session_of(connection).writer.congested:
            assert connection.send_nowait(FILLER), "it was closed meanwhile"
        for _ in range(100):
            await asyncio.sleep(0)
        if session_of(connection).writer.congested:
            return
    raise AssertionError("the client reads")


async def test_a_room_that_is_left_and_joined_again_under_a_replay_is_replayed_once(loop: str) -> None:
    manager = ConnectionManager(
        rooms={"kept": RoomOptions(history=History(5000, 600), replay=5000)}, limits=Limits(max_outbox_bytes=256 * KIB)
    )
    app = FastAPI()
    manager.install(app)

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        async with manager.connect(websocket) as connection:
            for n in range(2000):
                await manager.broadcast({"n": n, "filler": FILLER}, room="kept")
            await connection.join("kept")
            await asyncio.sleep(0)
            await connection.leave("kept")
            await connection.send("again")
            await connection.join("kept")
            async for _ in connection:
                pass

    with serving(app, loop=loop) as server:
        async with client(server, "/ws", max_queue=None) as one:
            await receive_until(one, lambda message: message == "again")
            assert [(await receive(one))["n"] for _ in range(2000)] == list(range(2000))
            await server.acall(manager.broadcast({"n": "live"}, room="kept"))
            assert (await receive(one))["n"] == "live"


async def test_a_send_that_waits_behind_the_outbox_ends_with_the_connection(loop: str) -> None:
    manager, app = ConnectionManager(limits=Limits(close_timeout_s=0.3, handler_timeout_s=None)), FastAPI()
    manager.install(app)
    raised: list[str] = []
    filled: list[bool] = []

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        async with manager.connect(websocket, "ann") as connection:
            await connection.receive()
            await fill(connection)
            filled.append(True)
            try:
                await websocket.send_text("behind it all")
            except WebSocketDisconnect as error:  # Starlette's own, which has a code alone
                raised.append(getattr(error.__context__, "reason", ""))

    with serving(app, loop=loop) as server:
        async with client(server, "/ws", max_queue=None) as one:
            one.transport.pause_reading()
            await one.send("go")
            await eventually(lambda: bool(filled))  # not before: a kick in the middle would end the filling
            await server.acall(manager.disconnect_user("ann", reason="out"))
            await eventually(lambda: raised == ["out"])
            await eventually(lambda: not server.server.server_state.tasks)
            one.transport.abort()


@pytest.mark.parametrize("how", ["timeout", "task"])
async def test_a_close_that_nobody_waits_for_to_the_end_sends_its_frame(how: str, loop: str) -> None:
    manager, app = ConnectionManager(), FastAPI()
    manager.install(app)
    closing: list[asyncio.Task[None]] = []

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        async with manager.connect(websocket) as connection:
            await connection.receive()
            await fill(connection)
            if how == "timeout":
                try:
                    async with asyncio.timeout(0.05):
                        await connection.close(4001, "bye")
                except TimeoutError:
                    pass
            else:
                closing.append(asyncio.create_task(connection.close(4001, "bye")))
                await asyncio.sleep(0)

    with serving(app, loop=loop) as server:
        async with client(server, "/ws", max_queue=None) as one:
            one.transport.pause_reading()
            await one.send("go")
            await eventually(lambda: manager.stats().connections == 0 and bool(list(manager._hubbub.sweeper.sockets)))
            one.transport.resume_reading()
            assert await closed(one) == (4001, "bye")


async def test_what_is_counted_can_be_asked_for_in_a_thread_while_clients_come_and_go() -> None:
    manager, app = ConnectionManager(), FastAPI()
    manager.install(app)

    @app.websocket("/ws/{room}")
    async def endpoint(websocket: WebSocket, room: str) -> None:
        async with manager.connect(websocket, room=room) as connection:
            async for _ in connection:
                pass

    failures: list[Any] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                json.dumps([manager.stats().connections, len(manager.rooms), len(list(manager.active_connections))])
            except RuntimeError as error:
                failures.append(error)

    with serving(app) as server:
        thread = threading.Thread(target=ask)
        thread.start()
        try:
            for number in range(15):
                async with client(server, f"/ws/{number}"), client(server, f"/ws/{number}b"):
                    pass
        finally:
            stop.set()
            thread.join()
    assert not failures
