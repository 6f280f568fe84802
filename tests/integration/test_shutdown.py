"""A real uvicorn process with sockets open ends within seconds, and its clients are told to come back."""

from __future__ import annotations

import asyncio
import os
import re
import signal
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
from hubbub import ConnectionManager, Limits
from tests.integration.support import LiveServer, client, closed, eventually, opened, receive, running

pytestmark = pytest.mark.anyio

APP = """
import asyncio
from contextlib import asynccontextmanager

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from hubbub import ConnectionManager, Limits

VERSION = 1


@asynccontextmanager
async def lifespan(app):
    await manager.broadcast("the app starts")
    yield
    await manager.broadcast("the app ends")
    print("the app has ended", flush=True)


app = FastAPI(lifespan=lifespan)
manager = ConnectionManager(limits=Limits(LIMITS))
manager.install(app)


@app.websocket("/receiving")
async def receiving(websocket: WebSocket):
    async with manager.connect(websocket, "ann", room="lobby") as connection:
        await connection.send(VERSION)
        async for _ in connection:
            pass


@app.websocket("/hand-written")
async def hand_written(websocket: WebSocket):
    await manager.connect(websocket, "ann")
    await websocket.send_json(VERSION)
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        manager.disconnect(websocket, "ann")


@app.websocket("/pushing")
async def pushing(websocket: WebSocket):
    async with manager.connect(websocket, "ann", room="lobby") as connection:
        await connection.send(VERSION)
        while True:
            await connection.send("tick")  # and whether it got there is no concern of this handler
            await asyncio.sleep(0.01)


@app.websocket("/waiting")
async def waiting(websocket: WebSocket):
    await manager.connect(websocket, "ann", room="lobby")
    await websocket.send_json(VERSION)
    await asyncio.Event().wait()


@app.websocket("/flooding")
async def flooding(websocket: WebSocket):
    async with manager.connect(websocket, "bob", room="lobby") as connection:
        while manager.stats().queued_bytes < 100_000:
            await connection.send(b"x" * 65536)
            await asyncio.sleep(0)
        print("queued", flush=True)
        async for _ in connection:
            pass
"""
QUICK = "handler_timeout_s=0.3, close_timeout_s=0.3, shutdown_timeout_s=0.3"
READERS = ["/receiving", "/hand-written", "/pushing", "/waiting"]


class Process:
    """A uvicorn process over a file of its own."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self.process = process
        self.app = folder / "app.py"
        self._output = folder / "output"
        self.port = 0

    @property
    def output(self) -> str:
        return self._output.read_text()

    async def listening(self) -> None:
        running = re.compile(r"running on http://127\.0\.0\.1:(\d+)")
        await eventually(lambda: running.search(self.output) is not None, timeout_s=15)
        await eventually(lambda: "Application startup complete." in self.output, timeout_s=15)
        self.port = int(running.findall(self.output)[0])

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

    async def ends_in(self) -> float:
        """Waits until it has ended; gives the seconds that it took."""
        since = time.monotonic()
        await asyncio.wait_for(self.process.wait(), 30)
        return time.monotonic() - since


@asynccontextmanager
async def uvicorn_process(folder: Path, *options: str, limits: str = QUICK) -> AsyncIterator[Process]:
    (folder / "app.py").write_text(APP.replace("LIMITS", limits))
    source = str(Path(hubbub.__file__).parents[1])
    with (folder / "output").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "uvicorn", "app:app", "--port", "0", *options),
            cwd=folder,
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": source, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
    running = Process(process, folder)
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


@pytest.mark.parametrize("path", READERS)
async def test_sigterm_closes_with_1012_and_ends_the_process(path: str, tmp_path: Path) -> None:
    async with uvicorn_process(tmp_path) as server, server.connected(path) as websocket:
        server.process.terminate()
        assert await code_of(websocket) == 1012
        assert await server.ends_in() < 6
        assert "the app has ended" in server.output
        assert "Traceback" not in server.output, server.output
        assert "ERROR" not in server.output


async def test_sigterm_does_not_wait_for_a_client_that_does_not_read(tmp_path: Path) -> None:
    async with uvicorn_process(tmp_path) as server, server.not_reading():
        server.process.terminate()
        assert await server.ends_in() < 6
        assert "Traceback" not in server.output, server.output


async def test_ctrl_c_with_every_kind_of_socket_open_and_the_default_limits(tmp_path: Path) -> None:
    async with uvicorn_process(tmp_path, limits="") as server, server.not_reading(), AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(server.connected(path)) for path in READERS for _ in range(3)]
        since = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        assert await asyncio.gather(*map(code_of, connections)) == [1012] * len(connections)
        assert time.monotonic() - since < 5
        await server.ends_in()
        assert time.monotonic() - since < 12
        assert "Traceback" not in server.output, server.output


async def test_reload_closes_with_1012_and_starts_again(tmp_path: Path) -> None:
    async with uvicorn_process(tmp_path, "--reload") as server, server.not_reading():
        async with server.connected("/receiving") as receiving, server.connected("/pushing") as pushing:
            since = time.monotonic()
            server.app.write_text(server.app.read_text().replace("VERSION = 1", "VERSION = 2"))
            assert [await code_of(receiving), await code_of(pushing)] == [1012, 1012]
            await eventually(lambda: server.output.count("Application startup complete.") == 2, timeout_s=15)
            assert time.monotonic() - since < 15
        async with websockets.connect(f"ws://127.0.0.1:{server.port}/receiving") as websocket:
            assert await receive(websocket) == 2
        server.process.terminate()
        assert await server.ends_in() < 6
        assert "Traceback" not in server.output, server.output


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
                ended.append(connection.wire.closed)

        with running(manager) as live:
            async with client(live.server, live.at(handler)) as websocket:
                await eventually(lambda: manager.stats().connections == 1)
                assert live.server.server.lifespan is not None
                await live.server.acall(live.server.server.lifespan.shutdown())
                assert await closed(websocket) == (1012, "")
                await eventually(lambda: len(ended) == 1)


@pytest.fixture(autouse=True)
def _only_where_signals_are() -> None:
    if sys.platform == "win32":
        pytest.skip("needs POSIX signals")
