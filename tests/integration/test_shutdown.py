"""A real uvicorn process with sockets open ends within seconds, and its clients are told to come back."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import websockets
from fastapi import FastAPI, WebSocket
from websockets.asyncio.client import ClientConnection

import hubbub
from hubbub import ConnectionManager, Limits, NotInstalled, RoomOptions
from hubbub.connections.connection import session_of
from tests.integration.support import LiveServer, client, closed, eventually, opened, receive, running, times_slower

pytestmark = pytest.mark.anyio

# Not FastAPI, which takes a while to import, and of which nothing is used here.
APP = """
import asyncio
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocketDisconnect

from hubbub import ConnectionManager, Limits
from hubbub.connections.connection import session_of

VERSION = 1


@asynccontextmanager
async def lifespan(app):
    await manager.broadcast("the app starts")
    yield
    await manager.broadcast("the app ends")
    print("the app has ended", flush=True)


async def receiving(websocket):
    async with manager.connect(websocket, "ann", room="lobby") as connection:
        await connection.send(VERSION)
        async for _ in connection:
            pass


async def hand_written(websocket):
    await manager.connect(websocket, "ann")
    await websocket.send_json(VERSION)
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        manager.disconnect(websocket, "ann")


async def pushing(websocket):
    async with manager.connect(websocket, "ann", room="lobby") as connection:
        await connection.send(VERSION)
        while True:
            await connection.send("tick")  # and whether it got there is no concern of this handler
            await asyncio.sleep(0.01)


async def waiting(websocket):
    await manager.connect(websocket, "ann", room="lobby")
    await websocket.send_json(VERSION)
    await asyncio.Event().wait()


async def flooding(websocket):
    async with manager.connect(websocket, "bob", room="lobby") as connection:
        while manager.stats().queued_bytes < 100_000:
            await connection.send(b"x" * 65536)
            await asyncio.sleep(0)
        print("queued", flush=True)
        async for _ in connection:
            pass


handlers = [receiving, hand_written, pushing, waiting, flooding]
routes = [WebSocketRoute("/" + each.__name__.replace("_", "-"), each) for each in handlers]
app = Starlette(routes=routes, lifespan=lifespan)
manager = ConnectionManager(limits=Limits(LIMITS))
manager.install(app)
"""
QUICK = "handler_timeout_s=0.3, close_timeout_s=0.3, shutdown_timeout_s=0.3"
READERS = ["/receiving", "/hand-written", "/pushing", "/waiting"]


class Process:
    """A uvicorn process over a file of its own."""

    def __init__(self, process: asyncio.subprocess.Process, app: Path, output: Path) -> None:
        self.process = process
        self.app = app
        self._output = output
        self._began = time.monotonic()
        self._times_slower = 1.0
        self.port = 0

    @property
    def output(self) -> str:
        return self._output.read_text()

    async def listening(self) -> None:
        running = re.compile(r"running on http://127\.0\.0\.1:(\d+)")
        await eventually(lambda: running.search(self.output) is not None)
        await eventually(lambda: "Application startup complete." in self.output)
        self._times_slower = times_slower(time.monotonic() - self._began, usual_s=1.5)
        self.port = int(running.findall(self.output)[0])
        await eventually(lambda: accepts(self.port))  # where a parent binds the port, its children listen, a bit later

    async def watching(self) -> None:
        """Waits until the reloader watches: it begins to after it has started the server, and misses earlier edits."""
        await eventually(lambda: "watcher: " in self.output)  # watchfiles says so where WATCHFILES_DEBUG is set

    def edit(self, old: str, new: str) -> None:
        """Replaces the app's file by a changed one, in one step: half a file is never there to be loaded."""
        edited = self.app.with_suffix(".edited")
        edited.write_text(self.app.read_text().replace(old, new))
        edited.replace(self.app)

    @asynccontextmanager
    async def connected(self, path: str) -> AsyncIterator[ClientConnection]:
        async with websockets.connect(f"ws://127.0.0.1:{self.port}{path}", compression=None) as websocket:
            assert await receive(websocket) in (1, 2)
            yield websocket

    @asynccontextmanager
    async def not_reading(self) -> AsyncIterator[None]:
        """A client that reads nothing, with data queued for it."""
        server = cast("LiveServer", SimpleNamespace(port=self.port))
        _, writer, _ = await opened(server, "/flooding", receive_buffer=4096)
        assert isinstance(writer.transport, asyncio.Transport)
        writer.transport.pause_reading()
        await eventually(lambda: "queued" in self.output)
        try:
            yield
        finally:
            writer.close()

    def took_s(self, since: float) -> float:
        """The seconds since then, as they would be on a machine where it starts as fast as usual."""
        return (time.monotonic() - since) / self._times_slower

    async def ends_in(self) -> float:
        """Waits until it has ended; gives the seconds that it took, as `took_s` counts them."""
        since = time.monotonic()
        await asyncio.wait_for(self.process.wait(), 30)
        return self.took_s(since)


async def accepts(port: int) -> bool:
    """Whether somebody listens on a port."""
    with suppress(ConnectionRefusedError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        return True
    return False


@asynccontextmanager
async def uvicorn_process(folder: Path, *options: str, limits: str = QUICK) -> AsyncIterator[Process]:
    app = folder / "app" / "app.py"  # alone in its folder, which a reloader watches
    app.parent.mkdir()
    app.write_text(APP.replace("LIMITS", limits))
    source = str(Path(hubbub.__file__).parents[1])
    with (folder / "output").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "uvicorn", "app:app", "--port", "0", *options),
            cwd=app.parent,
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": source, "PYTHONUNBUFFERED": "1", "WATCHFILES_DEBUG": "1"},
            start_new_session=True,
        )
    running = Process(process, app, folder / "output")
    try:
        await running.listening()
        yield running
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def code_of(websocket: ClientConnection) -> int | None:
    """Reads to the end; gives the close code."""
    with suppress(websockets.ConnectionClosed):
        async for _ in websocket:
            pass
    return (await closed(websocket))[0]


async def test_sigterm_closes_with_1012_and_ends_the_process(tmp_path: Path) -> None:
    async with uvicorn_process(tmp_path) as server, AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(server.connected(path)) for path in READERS]
        server.process.terminate()
        assert await asyncio.gather(*map(code_of, connections)) == [1012] * len(connections)
        assert await server.ends_in() < 6
        assert "the app has ended" in server.output
        assert "Traceback" not in server.output, server.output
        assert "ERROR" not in server.output


async def test_sigterm_does_not_wait_for_a_client_that_does_not_read(tmp_path: Path) -> None:
    async with uvicorn_process(tmp_path) as server, server.not_reading():
        server.process.terminate()
        assert await server.ends_in() < 6
        assert "Traceback" not in server.output, server.output


@pytest.mark.slow  # for as long as the default limits are
async def test_ctrl_c_with_every_kind_of_socket_open_and_the_default_limits(tmp_path: Path) -> None:
    async with uvicorn_process(tmp_path, limits="") as server, server.not_reading(), AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(server.connected(path)) for path in READERS for _ in range(3)]
        since = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        assert await asyncio.gather(*map(code_of, connections)) == [1012] * len(connections)
        assert server.took_s(since) < 5
        await server.ends_in()
        assert server.took_s(since) < 12
        assert "Traceback" not in server.output, server.output


async def test_reload_closes_with_1012_and_starts_again(tmp_path: Path) -> None:
    async with uvicorn_process(tmp_path, "--reload") as server, server.not_reading():
        async with server.connected("/receiving") as receiving, server.connected("/pushing") as pushing:
            await server.watching()
            since = time.monotonic()
            # Of another length: Python takes a file of the same second and length for the one that it has compiled.
            server.edit("VERSION = 1", "VERSION = 22")
            assert [await code_of(receiving), await code_of(pushing)] == [1012, 1012]
            await eventually(lambda: server.output.count("Application startup complete.") == 2)
            assert server.took_s(since) < 15
        async with websockets.connect(f"ws://127.0.0.1:{server.port}/receiving") as websocket:
            assert await receive(websocket) == 22
        server.process.terminate()
        assert await server.ends_in() < 6
        assert "Traceback" not in server.output, server.output


class Pause:
    """The pauses between the closes of a drain: each lasts until `end`, however long it was to be."""

    def __init__(self) -> None:
        self._over = asyncio.Event()

    async def sleep(self, delay_s: float) -> None:
        assert delay_s > 0
        await self._over.wait()

    async def end(self) -> None:
        """Ends the one that there is, and all later ones. For the server's loop."""
        self._over.set()


@pytest.fixture
def pause(monkeypatch: pytest.MonkeyPatch) -> Pause:
    pause = Pause()
    paused = SimpleNamespace(sleep=pause.sleep, get_running_loop=asyncio.get_running_loop)
    monkeypatch.setattr("hubbub.server.draining.asyncio", paused)
    monkeypatch.setattr("hubbub.server.draining._MAX_GAP_S", 60.0)  # there is one after each close
    return pause


class TestInProcess:
    """What a manager does when its lifespan ends, whatever the server did before."""

    async def test_ready_is_false_before_and_after(self) -> None:
        manager = ConnectionManager()
        assert not manager.ready
        with running(manager):
            assert manager.ready
        assert not manager.ready

    async def test_a_manager_runs_again_after_it_stopped(self) -> None:
        manager = ConnectionManager(limits=Limits(close_timeout_s=0.3))

        async def handler(websocket: WebSocket) -> None:
            async with manager.connect(websocket, "ann", room="lobby") as connection:
                await connection.send(f"{len(manager.active_connections)} here")
                async for _ in connection:
                    pass

        app = FastAPI()
        for _ in range(2):
            with running(manager, app=app) as live:
                async with client(live.server, live.at(handler)) as websocket:
                    assert await receive(websocket) == "1 here"
                    live.server.server.should_exit = True
                    assert (await closed(websocket))[0] == 1012
            assert manager.stats().connections == 0
            app.router.routes.pop()  # the next block brings its own

    async def test_a_lifespan_that_ends_without_a_server_closes_with_1012(self) -> None:
        """An app that is stopped by hand, while the server goes on."""
        manager = ConnectionManager()
        ended: list[Any] = []

        async def handler(websocket: WebSocket) -> None:
            async with manager.connect(websocket, "ann", room="lobby") as connection:
                async for _ in connection:
                    pass
                ended.append(session_of(connection).socket.closed)

        with running(manager) as live:
            async with client(live.server, live.at(handler)) as websocket:
                await eventually(lambda: manager.stats().connections == 1)
                assert live.server.server.lifespan is not None
                await live.server.acall(live.server.server.lifespan.shutdown())
                assert await closed(websocket) == (1012, "")
                await eventually(lambda: len(ended) == 1)

    async def test_a_handler_that_has_not_accepted_does_not_hold_up_the_server(self) -> None:
        """Such as one with a slow dependency. The server waits for it without end, as it is started here."""
        limits = Limits(shutdown_timeout_s=0.2, handler_timeout_s=None)
        ended: list[str] = []
        with running(ConnectionManager(limits=limits), timeout_graceful_shutdown=None) as live:

            async def slow(websocket: WebSocket) -> None:
                try:
                    await asyncio.get_running_loop().create_future()
                except asyncio.CancelledError:
                    ended.append("cancelled")
                    raise

            with socket.create_connection(("127.0.0.1", live.server.port)) as client:
                client.sendall(
                    f"GET {live.at(slow)} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
                )
                await eventually(lambda: bool(live.server.server.server_state.tasks))
                await asyncio.to_thread(live.server.stop)
        assert ended == ["cancelled"]

    async def test_a_drain_sends_away_one_after_the_other_and_lets_nobody_in(self, pause: Pause) -> None:
        manager = ConnectionManager(rooms={"lobby": RoomOptions(announce=True)})
        ended: list[str] = []

        async def handler(websocket: WebSocket) -> None:
            async with manager.connect(websocket, websocket.query_params["user"], room="lobby") as connection:
                async for _ in connection:
                    pass
            ended.append(connection.id)

        with running(manager) as live:
            path = live.at(handler)
            async with AsyncExitStack() as stack:
                paths = [f"{path}?user={number}" for number in range(8)]
                crowd = [await stack.enter_async_context(client(live.server, each)) for each in paths]
                await eventually(lambda: manager.stats().connections == 8)
                ending = [asyncio.ensure_future(code_of(each)) for each in crowd]
                draining = asyncio.ensure_future(live.server.acall(manager.drain(over_s=60)))
                await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
                assert sum(end.done() for end in ending) == 1
                assert not manager.ready
                assert manager.running
                async with client(live.server, f"{path}?user=late") as late:
                    assert await closed(late) == (1012, "")
                assert sum(end.done() for end in ending) == 1

                await live.server.acall(pause.end())
                assert await draining is True
                assert len(ended) == 8
                assert await asyncio.gather(*ending) == [1012] * 8
                assert manager.stats().refused == {"service_restart": 1}
                # They were told to come back: for their grace nobody hears that they went.
                members = await live.server.acall(manager.presence("lobby"))
                assert [member.connections for member in members] == [0] * 8
                assert await live.server.acall(manager.drain()) is True

    async def test_a_drain_says_how_many_it_closes(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "hubbub")
        manager = ConnectionManager()

        async def handler(websocket: WebSocket) -> None:
            async with manager.connect(websocket) as connection:
                await connection.wait_gone()

        with running(manager) as live:
            async with client(live.server, live.at(handler)) as one:
                await eventually(lambda: manager.stats().connections == 1)
                assert await live.server.acall(manager.drain()) is True
                assert (await closed(one))[0] == 1012
        assert "draining: closing 1 connection over up to 5 s" in caplog.messages

    async def test_a_drain_that_is_cancelled_leaves_the_rest_and_lets_nobody_in(self, pause: Pause) -> None:
        manager = ConnectionManager()

        async def handler(websocket: WebSocket) -> None:
            async with manager.connect(websocket, room="lobby") as connection:
                async for message in connection:
                    await connection.send(message)

        with running(manager) as live:
            path = live.at(handler)
            async with AsyncExitStack() as stack:
                crowd = [await stack.enter_async_context(client(live.server, path)) for _ in range(20)]
                await eventually(lambda: manager.stats().connections == 20)
                ending = [asyncio.ensure_future(each.wait_closed()) for each in crowd]
                draining = asyncio.ensure_future(live.server.acall(manager.drain()))
                await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
                draining.cancel()
                await asyncio.wait([draining])
                async with client(live.server, path) as late:
                    assert (await closed(late))[0] == 1012
                left = [each for each, end in zip(crowd, ending, strict=True) if not end.done()]
                assert len(left) == 19
                await left[-1].send("still here")
                assert await receive(left[-1]) == "still here"
                assert not manager.ready
                live.server.server.should_exit = True
                assert [(await closed(each))[0] for each in left] == [1012] * len(left)

    @pytest.mark.parametrize("obeys", [True, False])
    async def test_a_drain_waits_for_handlers_that_do_not_receive_but_not_for_ever(self, obeys: bool) -> None:
        manager = ConnectionManager(limits=Limits(close_timeout_s=0.3, shutdown_timeout_s=0.3))
        may_end = asyncio.Event()
        left: list[None] = []

        async def handler(websocket: WebSocket) -> None:
            await manager.connect(websocket, "ann")
            try:
                await asyncio.Event().wait()
            finally:
                if not obeys:
                    await may_end.wait()
                left.append(None)

        with running(manager) as live:
            async with client(live.server, live.at(handler)) as websocket:
                await eventually(lambda: manager.stats().connections == 1)
                assert await live.server.acall(manager.drain(over_s=0)) is obeys
                assert len(left) == obeys
                assert (await closed(websocket))[0] == 1012

                async def end() -> None:
                    may_end.set()

                await live.server.acall(end())
                await eventually(lambda: len(left) == 1)

    async def test_a_manager_that_does_not_run_has_nothing_to_drain(self) -> None:
        with pytest.raises(NotInstalled):
            await ConnectionManager().drain()


@pytest.fixture(autouse=True)
def _only_where_signals_are() -> None:
    if sys.platform == "win32":
        pytest.skip("needs POSIX signals")
