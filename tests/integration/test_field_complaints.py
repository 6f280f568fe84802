"""What users of this field complain about, each as a test: the numbers are those of the list of complaints.

Most has a longer test elsewhere; this is the page that shows that each is answered.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import jwt
import psutil
import pytest
import websockets
from fastapi import Depends, FastAPI, WebSocket
from fastapi.testclient import TestClient
from websockets.typing import Subprotocol

import hubbub
from hubbub import ConnectionManager, HubbubError, Limits, NotRunning, RoomOptions
from hubbub.auth import Claims, InvalidToken, JWTAuth
from hubbub.connections.session import Session
from tests.integration.support import client, closed, eventually, opened, receive, reset, running, times_slower

pytestmark = pytest.mark.anyio

KEY = "a key of the tests, of more than 32 bytes"

APP = """
from fastapi import FastAPI, WebSocket
from hubbub import ConnectionManager

app = FastAPI()
manager = ConnectionManager()
manager.install(app)


@app.websocket("/ws")
async def handler(websocket: WebSocket):
    async with manager.connect(websocket, "ann") as connection:
        async for message in connection:
            await connection.send(message)
"""


class Uvicorn(NamedTuple):
    """A server as a process of its own, and how many times slower than usual it started."""

    process: asyncio.subprocess.Process
    output: Path
    port: int
    times_slower: float


@asynccontextmanager
async def uvicorn_process(folder: Path, *options: str) -> AsyncIterator[Uvicorn]:
    """Plain `uvicorn app:app` over the app above."""
    began = time.monotonic()
    (folder / "app.py").write_text(APP)
    output = folder / "output"
    environment = {**os.environ, "PYTHONPATH": str(Path(hubbub.__file__).parents[1])}
    with output.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "uvicorn", "app:app", "--port", "0", *options),
            cwd=folder,
            stdout=file,
            stderr=file,
            env=environment,
            start_new_session=True,
        )
    try:
        port = re.compile(r"running on http://127\.0\.0\.1:(\d+)")
        await eventually(lambda: port.search(output.read_text()) is not None)
        await eventually(lambda: "Application startup complete." in output.read_text())
        slower = times_slower(time.monotonic() - began, usual_s=2.0)
        yield Uvicorn(process, output, int(port.findall(output.read_text())[0]), slower)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
async def test_1_several_workers_that_would_lose_messages_say_so(tmp_path: Path) -> None:
    async with uvicorn_process(tmp_path, "--workers", "2") as server:
        await eventually(lambda: "2 workers on memory://" in server.output.read_text())
        assert "LOST" in server.output.read_text()
        assert "one worker" in server.output.read_text()
        server.process.terminate()
        await asyncio.wait_for(server.process.wait(), 30)


async def test_1_a_push_from_an_http_route_arrives() -> None:
    manager = ConnectionManager()
    app = FastAPI()

    @app.post("/like/{user_id}")
    async def like(user_id: int) -> dict[str, bool]:
        return {"online": await manager.send_to_user(user_id, {"type": "like"})}

    async def handler(websocket: WebSocket) -> None:
        async with manager.connect(websocket, "7") as connection:
            await connection.send("in")
            async for _ in connection:
                pass

    with running(manager, app=app) as live:
        path = live.at(handler)
        async with httpx.AsyncClient() as http, client(live.server, path) as one, client(live.server, path) as other:
            assert await receive(one) == await receive(other) == "in"
            assert (await http.post(live.server.http("/like/7"))).json() == {"online": True}
            assert await receive(one) == await receive(other) == {"type": "like"}
            assert (await http.post(live.server.http("/like/8"))).json() == {"online": False}


@pytest.mark.usefixtures("quick_sweeps")
async def test_2_a_send_to_a_gone_peer_is_an_outcome_and_no_exception(caplog: pytest.LogCaptureFixture) -> None:
    manager = ConnectionManager()
    outcomes: list[bool] = []

    async def handler(websocket: WebSocket) -> None:
        async with manager.connect(websocket, "ann") as connection:
            await connection.wait_gone()
            outcomes.append(await connection.send("late"))
            outcomes.append(await manager.send_personal("late", websocket))
            await manager.broadcast("late")

    with running(manager) as live:
        for how in ("close", "reset"):
            async with client(live.server, live.at(handler)) as websocket:
                await eventually(lambda: manager.stats().connections == 1)
                if how == "reset":
                    reset(websocket.transport)
            await live.nothing_left()
    assert outcomes == [False] * 4
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.usefixtures("quick_sweeps")
async def test_3_a_disconnect_is_noticed_while_the_handler_only_pushes() -> None:
    manager = ConnectionManager(limits=Limits(handler_timeout_s=0.1))
    ended = asyncio.Event()

    async def handler(websocket: WebSocket) -> None:
        await manager.connect(websocket, "ann")
        try:
            await asyncio.Event().wait()  # nothing here would ever learn of it
        finally:
            ended.set()

    with running(manager) as live:
        async with client(live.server, live.at(handler)):
            await eventually(lambda: manager.active_user_count == 1)
        await eventually(lambda: manager.active_user_count == 0)
        await eventually(ended.is_set)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
async def test_4_a_shutdown_with_open_sockets_does_not_hang(tmp_path: Path) -> None:
    async with uvicorn_process(tmp_path) as server:
        async with websockets.connect(f"ws://127.0.0.1:{server.port}/ws") as websocket:
            await websocket.send("hello")
            assert await receive(websocket) == "hello"
            since = time.monotonic()
            server.process.terminate()
            assert (await closed(websocket))[0] == 1012
        await asyncio.wait_for(server.process.wait(), 30)
        assert (time.monotonic() - since) / server.times_slower < 6


async def test_5_deflate_costs_no_memory_for_each_message_and_little_for_each_client() -> None:
    """Frames of ours are never compressed, also where uvicorn has negotiated deflate, as it does by default."""
    manager = ConnectionManager()
    offer: dict[str, Any] = {"Sec_WebSocket_Extensions": "permessage-deflate; client_max_window_bits"}
    clients = 200

    async def handler(websocket: WebSocket) -> None:
        async with manager.connect(websocket, room="lobby") as connection:
            async for _ in connection:
                pass

    with running(manager) as live:
        path = live.at(handler)
        first = await opened(live.server, path, **offer)
        await eventually(lambda: manager.stats().rooms == 1)
        gc.collect()
        before = psutil.Process().memory_info().rss
        sockets = [first, *[await opened(live.server, path, **offer) for _ in range(clients)]]
        await eventually(lambda: manager.stats().connections == clients + 1)
        for _ in range(10):
            await live.server.acall(manager.broadcast("x" * 1000, room="lobby"))
        for reader, _, _ in sockets:
            frame = await asyncio.wait_for(reader.readexactly(4 + 1000), 5)
            assert frame[0] == 0x81  # a whole text frame, RSV1 not set
            assert frame[4:] == b"x" * 1000
        grown = (psutil.Process().memory_info().rss - before) / clients
        assert grown < 150_000, f"{grown:.0f} bytes a client, both ends"
        for _, writer, _ in sockets:
            writer.close()
        async with client(live.server, path, compression="deflate") as websocket:
            await eventually(lambda: manager.stats().connections == 1)
            await live.server.acall(manager.broadcast("readable", room="lobby"))
            assert await receive(websocket) == "readable"
        await live.nothing_left()


@pytest.mark.parametrize("where", ["header", "subprotocol", "cookie", "query", "first message"])
async def test_6_a_token_is_taken_from_wherever_the_client_can_put_it(where: str) -> None:
    auth = JWTAuth(KEY, algorithms=["HS256"], cookie="session", query="token")
    manager = ConnectionManager()
    app = FastAPI()

    @app.websocket("/ws")
    async def handler(websocket: WebSocket, user: Claims = Depends(auth)) -> None:
        async with manager.connect(websocket, user.sub) as connection:
            await connection.send(f"hello {connection.user_id}")

    async def by_first_message(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            user = auth.verify(await websocket.receive_text())
        except InvalidToken as error:
            await websocket.close(error.code, error.reason)
            return
        async with manager.connect(websocket, user.sub) as connection:
            await connection.send(f"hello {connection.user_id}")

    token = jwt.encode({"sub": "ann", "exp": time.time() + 60}, KEY, "HS256")
    with running(manager, app=app) as live:
        path = live.at(by_first_message) if where == "first message" else "/ws"
        every: dict[str, dict[str, Any]] = {
            "header": {"additional_headers": {"Authorization": f"Bearer {token}"}},
            "cookie": {"additional_headers": {"Cookie": f"session={token}"}},
            "subprotocol": {"subprotocols": [Subprotocol("bearer"), Subprotocol(token)]},
        }
        path += f"?token={token}" if where == "query" else ""
        async with client(live.server, path, **every.get(where, {})) as websocket:
            if where == "first message":
                await websocket.send(token)
            assert await receive(websocket) == "hello ann"
        async with client(live.server, path.partition("?")[0]) as websocket:
            if where == "first message":
                await websocket.send("forged")
            code, reason = await closed(websocket)
            assert code == 1008
            assert reason is not None
            assert reason.startswith("unauthorized")


async def test_8_a_socket_does_not_pin_a_database_connection() -> None:
    """With a session for a message instead of one for a socket, a pool of one serves five sockets."""
    pool = asyncio.Semaphore(1)
    manager = ConnectionManager()

    @asynccontextmanager
    async def session() -> AsyncIterator[str]:
        async with asyncio.timeout(30), pool:
            yield "a row"

    async def handler(websocket: WebSocket) -> None:
        async with session() as row:  # who is it?
            assert row
        async with manager.connect(websocket, room="lobby") as connection:
            async for message in connection:
                async with session() as row:
                    answer = f"{row} for {message!r}"
                await connection.send(answer)

    with running(manager) as live:
        async with AsyncExitStack() as stack:
            path = live.at(handler)
            sockets = [await stack.enter_async_context(client(live.server, path)) for _ in range(5)]
            for websocket in sockets * 3:
                await websocket.send("me")
            for websocket in sockets * 3:
                assert await receive(websocket) == "a row for 'me'"


async def test_13_publishing_from_sync_code_finds_the_loop_or_says_that_it_is_closed() -> None:
    manager = ConnectionManager()
    outcome: list[Any] = []

    async def handler(websocket: WebSocket) -> None:
        async with manager.connect(websocket, "ann") as connection:
            await connection.send("in")
            async for _ in connection:
                pass

    def job() -> None:
        try:
            outcome.append(manager.from_thread.send_to_user("ann", "from a job"))
        except HubbubError as error:
            outcome.append(error)

    for _ in range(2):  # a manager outlives its loop
        with running(manager) as live, plain_thread(job) as done:
            async with client(live.server, live.at(handler)) as websocket:
                assert await receive(websocket) == "in"
                done.start()
                assert await receive(websocket) == "from a job"
    with plain_thread(job) as done:
        done.start()
    assert outcome[:2] == [True, True]
    assert isinstance(outcome[2], NotRunning)


@contextmanager
def plain_thread(work: Callable[[], None]) -> Iterator[threading.Thread]:
    """A thread to start, joined at the end."""
    thread = threading.Thread(target=work)
    yield thread
    thread.join()


async def test_14_memory_does_not_grow_with_connections_and_messages(caplog: pytest.LogCaptureFixture) -> None:
    manager = ConnectionManager(
        rooms={"kept": RoomOptions(history=10, grace_s=0), "*": RoomOptions(grace_s=0)},
        everyone=RoomOptions(grace_s=0),
    )

    async def handler(websocket: WebSocket) -> None:
        rooms = ["kept", f"own:{id(websocket)}"]
        async with manager.connect(websocket, f"user{id(websocket)}", rooms=rooms, expires_at=time.time() + 3600):
            for number in range(5):
                await manager.broadcast({"n": number}, room="kept")

    with running(manager) as live:
        path = live.at(handler)

        async def a_round() -> int:
            for _ in range(5):
                await asyncio.gather(*(visit() for _ in range(10)))
            await live.nothing_left()
            caplog.clear()  # the lines of uvicorn, which pytest keeps
            gc.collect()
            return len(gc.get_objects())

        async def visit() -> None:
            async with client(live.server, path) as websocket:
                await closed(websocket)

        await a_round()
        second, third = await a_round(), await a_round()
        assert third - second < 200
        here = [each for each in gc.get_objects() if type(each) is Session and each._manager is manager._hubbub]
        assert not here  # those of other managers may be held by tests of other modules


def test_18_test_sockets_work_or_say_what_to_write() -> None:
    manager = ConnectionManager()
    app = FastAPI()
    manager.install(app)

    @app.websocket("/ws")
    async def handler(websocket: WebSocket) -> None:
        async with manager.connect(websocket, room="lobby") as connection:
            async for message in connection.iter_json():
                await manager.broadcast(message, room="lobby")

    browser = TestClient(app)
    with browser, browser.websocket_connect("/ws") as one, browser.websocket_connect("/ws") as other:
        one.send_json({"n": 1})
        assert one.receive_json() == other.receive_json() == {"n": 1}
    browser = TestClient(app)  # each socket would have a loop of its own
    with pytest.raises(NotRunning, match="with TestClient"), browser.websocket_connect("/ws"):
        pass


async def test_19_a_page_of_another_site_is_not_let_in() -> None:
    manager = ConnectionManager()

    async def handler(websocket: WebSocket) -> None:
        await manager.connect(websocket)

    with running(manager) as live:
        path = live.at(handler)
        for origin, expected in ((f"http://127.0.0.1:{live.server.port}", 101), ("https://evil.example", 403)):
            _, writer, status = await opened(live.server, path, Origin=origin)
            writer.close()
            assert status == expected
        await live.nothing_left()


async def test_20_concurrent_senders_on_one_socket_do_not_reorder() -> None:
    """Eight tasks write to one socket in every way there is, faster than it reads: each one's order is kept."""
    manager = ConnectionManager(limits=Limits(max_outbox_bytes=64 * 2**20))
    count = 150
    padding = "x" * 2000

    async def handler(websocket: WebSocket) -> None:
        async with manager.connect(websocket, "ann", room="lobby") as connection:

            async def sender(name: int) -> None:
                for number in range(count):
                    message = {"by": name, "n": number, "padding": padding}
                    if name % 4 == 0:
                        await websocket.send_json(message)
                    elif name % 4 == 1:
                        await connection.send(message)
                    elif name % 4 == 2:
                        await manager.broadcast(message, room="lobby")
                    else:
                        await manager.send_to_user("ann", message)
                    await asyncio.sleep(0)

            await asyncio.gather(*(sender(name) for name in range(8)))

    with running(manager) as live:
        async with client(live.server, live.at(handler), max_queue=1) as websocket:
            got: dict[int, list[int]] = {name: [] for name in range(8)}
            for _ in range(8 * count):
                message = await receive(websocket)
                got[message["by"]].append(message["n"])
            assert got == {name: list(range(count)) for name in range(8)}
            assert await closed(websocket) == (1000, "")
