"""Real servers and real clients for the integration tests."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import cycle
from typing import Any, TypeVar

import uvicorn
import websockets
from starlette.applications import Starlette
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection

from hubbub import ConnectionManager
from tests.wrapping import SPEAKS_ARRAYS, unwrapped

T = TypeVar("T")
DEADLINE_S = 60.0


class LiveServer:
    """uvicorn on a free port of this machine, in a thread with a loop of its own.

    Args:
        app: The app.
        loop: The event loop.
        mixed: Every second client speaks in arrays (`tests.wrapping`), and `receive` unwraps what it gets.
        config: What uvicorn is to be told.
    """

    def __init__(self, app: Any, *, loop: str = "asyncio", mixed: bool = False, **config: Any) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        options: dict[str, Any] = {"log_level": "info", "log_config": None, "timeout_graceful_shutdown": 8, **config}
        self.server = uvicorn.Server(uvicorn.Config(app, loop=loop, **options))
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="live-server", daemon=True)
        self.left_tasks: list[str] = []
        self._speaks = cycle([SPEAKS_ARRAYS, ""] if mixed else [""])

    def _run(self) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            serving = asyncio.ensure_future(self.server.serve(sockets=[self._socket]))
            while not self.server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0)
            self._started.set()
            await serving
            self.left_tasks = [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("hubbub:")]

        factory = self.server.config.get_loop_factory()
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(serve())

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(DEADLINE_S), "the server did not start"

    def stop(self) -> None:
        self.server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive(), "the server did not stop"
        self._socket.close()
        assert not self.left_tasks, "tasks outlived the server"

    def call(self, work: Coroutine[Any, Any, T], timeout_s: float = DEADLINE_S) -> T:
        """Runs a coroutine on the server's loop, from a thread without one."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    async def acall(self, work: Coroutine[Any, Any, T], timeout_s: float = DEADLINE_S) -> T:
        """Runs a coroutine on the server's loop, from another loop."""
        assert self._loop is not None
        return await asyncio.wait_for(
            asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop)), timeout_s
        )

    def ws(self, path: str) -> str:
        speaks = next(self._speaks)
        return f"ws://127.0.0.1:{self.port}{path}" + (speaks and ("&" if "?" in path else "?") + speaks)

    def http(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@contextmanager
def serving(app: Any, **config: Any) -> Iterator[LiveServer]:
    """Serves an app for as long as the block lasts."""
    server = LiveServer(app, **config)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@asynccontextmanager
async def client(server: LiveServer, path: str, **options: Any) -> AsyncIterator[ClientConnection]:
    """A WebSocket client that offers no compression and sends no pings of its own."""
    settings: dict[str, Any] = {"compression": None, "ping_interval": None, "open_timeout": DEADLINE_S, **options}
    async with websockets.connect(server.ws(path), **settings) as connection:
        yield connection


async def receive(connection: ClientConnection, timeout_s: float = DEADLINE_S) -> Any:
    """The next message: parsed where it is JSON."""
    message = await asyncio.wait_for(connection.recv(), timeout_s)
    if connection.request is not None and connection.request.path.endswith(SPEAKS_ARRAYS):
        message = unwrapped(message)
    if isinstance(message, str):
        try:
            return json.loads(message)
        except ValueError:
            return message
    return message


async def receive_until(connection: ClientConnection, wanted: Callable[[Any], bool]) -> list[Any]:
    """The messages up to and with the first wanted one."""
    seen = []
    while True:
        seen.append(await receive(connection))
        if wanted(seen[-1]):
            return seen


async def closed(connection: ClientConnection, timeout_s: float = DEADLINE_S) -> tuple[int | None, str | None]:
    """Waits for the end; gives the code and reason that the client saw."""
    await asyncio.wait_for(connection.wait_closed(), timeout_s)
    return connection.close_code, connection.close_reason


async def eventually(condition: Callable[[], bool | Awaitable[bool]], timeout_s: float = DEADLINE_S) -> None:
    """Waits until an observable condition holds; fails with it after the deadline."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        holds = condition()
        if isinstance(holds, Awaitable):
            holds = await holds
        if holds:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"did not become true in {timeout_s:g} s: {condition}")
        await asyncio.sleep(0.01)


@asynccontextmanager
async def stopwatch() -> AsyncIterator[Callable[[], float]]:
    """Counts the seconds in which the machine let this loop run.

    It counts in steps of 10 ms. A step that took longer, because the machine was busy with something else, counts twice
    at most: what is bounded in these seconds is bounded on a slow machine as well.
    """
    counted_s, clock = 0.0, asyncio.get_running_loop().time

    async def count() -> None:
        nonlocal counted_s
        since = clock()
        while True:
            await asyncio.sleep(0.01)
            since, before = clock(), since
            counted_s += min(since - before, 0.02)

    counting = asyncio.create_task(count())
    try:
        yield lambda: counted_s
    finally:
        counting.cancel()
        await asyncio.wait([counting])


def times_slower(started_in_s: float, usual_s: float) -> float:
    """How many times slower the machine is now than one on which a process starts in the usual time; 1 at least.

    A bound for what a process does is divided by it: it is compared with what the same process took a moment ago.
    """
    return max(1.0, started_in_s / usual_s)


def assert_nothing_left(manager: ConnectionManager) -> None:
    """Nothing of any connection is left in a manager."""
    gc.collect()
    stats = manager.stats()
    assert (stats.connections, stats.users, stats.rooms, stats.queued_bytes) == (0, 0, 0, 0)
    assert not list(manager.active_connections)


def through_asgi(app: Any) -> Any:
    """Hides the server's own ``send``, as tracing middleware does, so that the fallback transport is used."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        async def hidden(event: Any) -> None:
            await send(event)

        await app(scope, receive, hidden)

    return wrapped


Handler = Callable[[WebSocket], Awaitable[None]]


class Live:
    """A server with one manager, whose WebSocket handlers the tests bring along."""

    def __init__(self, server: LiveServer, manager: ConnectionManager, handlers: list[Handler]) -> None:
        self.server = server
        self.manager = manager
        self._handlers = handlers

    def at(self, handler: Handler) -> str:
        """Gives a handler a path."""
        self._handlers.append(handler)
        return f"/handler/{len(self._handlers) - 1}"

    def forget_handlers(self) -> None:
        """Between two tests: what a handler's closure holds is to go."""
        self._handlers[:] = [_gone] * len(self._handlers)

    async def nothing_left(self) -> None:
        """Waits until every handler has ended, and nothing of any connection is left."""
        await eventually(lambda: not self.server.server.server_state.tasks)  # and what a handler raised is logged
        await eventually(lambda: _counts(self.manager) == (0, 0, 0, 0))
        assert_nothing_left(self.manager)


async def _gone(websocket: WebSocket) -> None:
    raise AssertionError("this handler was another test's")


def _counts(manager: ConnectionManager) -> tuple[int, int, int, int]:
    stats = manager.stats()
    return (stats.connections, stats.users, stats.rooms, stats.queued_bytes)


@contextmanager
def running(manager: ConnectionManager, *, app: Starlette | None = None, **config: Any) -> Iterator[Live]:
    """Serves a manager, for handlers that come later."""
    if app is None:
        from fastapi import FastAPI  # not above: a worker that is a process need not wait for it

        app = FastAPI()
    manager.install(app)
    handlers: list[Handler] = []

    async def handle(websocket: WebSocket) -> None:
        await handlers[int(websocket.path_params["number"])](websocket)

    app.router.add_websocket_route("/handler/{number}", handle)
    with serving(app, **config) as server:
        yield Live(server, manager, handlers)


async def opened(
    server: LiveServer, path: str, *, receive_buffer: int | None = None, **headers: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, int]:
    """A WebSocket handshake by hand, for clients that no library would let be so rude; gives the status too."""
    plain = socket.socket()
    try:
        if receive_buffer is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", server.port))
        reader, writer = await asyncio.open_connection(sock=plain)
        may_be_reset(writer)
    except BaseException:
        plain.close()
        raise
    lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", "Upgrade: websocket", "Connection: Upgrade"]
    lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode())
        status = int((await asyncio.wait_for(reader.readline(), DEADLINE_S)).split()[1])
        while (await asyncio.wait_for(reader.readline(), DEADLINE_S)).strip():
            pass
    except BaseException:
        reset(writer.transport)
        raise
    return reader, writer, status


def may_be_reset(writer: asyncio.StreamWriter) -> None:
    """Has a reset by the server be no error of the test.

    CPython keeps it in a future of its own. When that is collected in a cycle before anybody has asked for it, the loop
    reports it, and anyio fails the test that runs by then.
    """
    closed: asyncio.Future[None] = writer.transport.get_protocol()._closed  # type: ignore[attr-defined]
    closed.add_done_callback(lambda each: None if each.cancelled() else each.exception() and None)


def masked(first: int, payload: bytes = b"", *, mask: bool = True) -> bytes:
    """A client's frame of up to 125 bytes, with any first byte."""
    assert len(payload) < 126
    return bytes([first, len(payload) | (0x80 if mask else 0)]) + (b"\0\0\0\0" if mask else b"") + payload


def reset(transport: asyncio.BaseTransport) -> None:
    """Ends a TCP connection with a reset instead of a goodbye: a client that vanished."""
    plain = transport.get_extra_info("socket")
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert isinstance(transport, asyncio.Transport)
    transport.abort()
