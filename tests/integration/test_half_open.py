"""A client that comes back while its former socket is half-open, and limits that it would meet itself at."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import websockets
from fastapi import WebSocket
from websockets.asyncio.client import ClientConnection

from hubbub import ConnectionManager, Limits, RoomOptions
from hubbub.connections.connection import session_of
from hubbub.connections.socket import Socket
from hubbub.connections.transports.ping import OpenPing, _waiting_bytes, pingable
from tests.integration.support import (
    DEADLINE_S,
    Handler,
    Live,
    client,
    closed,
    eventually,
    masked,
    may_be_reset,
    opened,
    receive,
    reset,
    running,
    through_asgi,
)

pytestmark = pytest.mark.anyio

QUICK_S = 0.1
AGES_S = 1000.0


class Proxy:
    """Passes bytes between clients and a server, until it swallows all that comes and closes nothing."""

    def __init__(self, port: int) -> None:
        self.swallows = False
        self._port = port
        self._tasks: set[asyncio.Task[Any]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    @classmethod
    @asynccontextmanager
    async def before(cls, live: Live) -> AsyncIterator[Proxy]:
        proxy = cls(live.server.port)
        server = await asyncio.start_server(proxy._relay, "127.0.0.1", 0)
        proxy.port = server.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            server.close()
            for task in proxy._tasks:
                task.cancel()
            await asyncio.gather(*proxy._tasks, return_exceptions=True)
            for writer in proxy._writers:
                writer.transport.abort()

    port: int

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_server, from_server = await asyncio.open_connection("127.0.0.1", self._port)
        for each in (writer, from_server):
            may_be_reset(each)
            self._writers.append(each)
        for source, target in ((reader, from_server), (to_server, writer)):
            task = asyncio.create_task(self._pass(source, target))
            self._tasks.add(task)

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            if not self.swallows:
                target.write(data)
        if not self.swallows:
            target.close()


def welcoming(manager: ConnectionManager, ended: list[str] | None = None) -> Handler:
    """Connects as the user of the query, says "in", and echoes."""

    async def handler(websocket: WebSocket) -> None:
        query = websocket.query_params
        try:
            async with manager.connect(websocket, query.get("user"), rooms=query.getlist("room")) as connection:
                await connection.send("in")
                async for message in connection:
                    await connection.send(message)
        finally:
            if ended is not None:
                ended.append(query.get("name", ""))

    return handler


@asynccontextmanager
async def half_open(live: Live, path: str) -> AsyncIterator[None]:
    """A client that was there, and whose network went away without a word."""
    async with Proxy.before(live) as proxy:
        settings: dict[str, Any] = {"compression": None, "ping_interval": None, "open_timeout": DEADLINE_S}
        connection = await websockets.connect(f"ws://127.0.0.1:{proxy.port}{path}", **settings)
        assert await receive(connection) == "in"
        proxy.swallows = True
        try:
            yield
        finally:
            reset(connection.transport)
            await connection.wait_closed()


async def let_in(stack: AsyncExitStack, live: Live, path: str) -> ClientConnection:
    connection = await stack.enter_async_context(client(live.server, path))
    assert await receive(connection) == "in"
    return connection


async def lives(connection: ClientConnection) -> bool:
    await connection.send("still here?")
    return bool(await receive(connection) == "still here?")


async def turned_away(live: Live, path: str) -> tuple[int | None, str | None]:
    async with client(live.server, path) as connection:
        return await closed(connection)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests in which nobody answers."""
    monkeypatch.setattr("hubbub.connections.probing.PATIENCE_S", QUICK_S)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests in which nobody is to be waited for: one that waits does not end."""
    monkeypatch.setattr("hubbub.connections.probing.PATIENCE_S", AGES_S)


@pytest.fixture
def no_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.connections.sweeper._SWEEP_S", 1_000_000)


ROOMS = {"small": RoomOptions(max_members=1)}
LIMITS = [
    pytest.param({"max_connections_per_user": 1}, "", id="connections of a user"),
    pytest.param({"max_connections_per_address": 1}, "", id="connections from an address"),
    pytest.param({"max_connections": 1}, "", id="connections in all"),
    pytest.param({}, "&room=small", id="members of a room"),
]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("limits", "room"), LIMITS)
async def test_half_open_socket_makes_room_for_its_client(
    limits: dict[str, Any], room: str, loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "hubbub")
    ended: list[str] = []
    manager = ConnectionManager(limits=Limits(**limits), rooms=ROOMS)
    with running(manager, loop=loop) as live:
        path = live.at(welcoming(manager, ended)) + f"?user=ann{room}"
        async with half_open(live, path + "&name=former"), client(live.server, path) as ann:
            assert await receive(ann) == "in"
            assert await lives(ann)
            await eventually(lambda: ended == ["former"])
            assert (manager.stats().connections, manager.stats().vanished) == (1, 1)
        await live.nothing_left()
        assert not manager.stats().refused
    assert "the client did not answer a ping" in caplog.text


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(("limits", "room"), LIMITS)
async def test_live_connection_stays_and_nobody_waits_longer_than_for_its_answer(
    limits: dict[str, Any], room: str, loop: str
) -> None:
    manager = ConnectionManager(limits=Limits(**limits), rooms=ROOMS)
    with running(manager, loop=loop) as live:
        path = live.at(welcoming(manager)) + f"?user=ann{room}"
        async with AsyncExitStack() as stack:
            ann = await let_in(stack, live, path)
            assert (await turned_away(live, path))[0] in (1008, 1013)
            assert await lives(ann)
            assert manager.stats().vanished == 0
        await live.nothing_left()


async def test_only_those_that_are_gone_make_room(loop: str) -> None:
    manager = ConnectionManager(limits=Limits(max_connections_per_user=2))
    with running(manager, loop=loop) as live:
        path = live.at(welcoming(manager)) + "?user=ann"
        async with AsyncExitStack() as stack:
            first = await let_in(stack, live, path)
            await stack.enter_async_context(half_open(live, path))
            third = await let_in(stack, live, path)
            assert await lives(first)
            assert await lives(third)
            assert (manager.stats().connections, manager.stats().vanished) == (2, 1)
        await live.nothing_left()


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("user", ["user=bob", ""], ids=["another user", "nobody"])
async def test_half_open_socket_makes_no_room_for(user: str) -> None:
    manager = ConnectionManager(limits=Limits(max_connections=1))
    with running(manager) as live:
        path = live.at(welcoming(manager))
        async with half_open(live, path + "?user=ann"):
            assert await turned_away(live, f"{path}?{user}") == (1013, "too many connections")
            assert manager.stats().vanished == 0


@pytest.mark.usefixtures("quick")
async def test_user_who_comes_back_has_not_left() -> None:
    rooms = {"lobby": RoomOptions(announce=True, grace_s=60)}
    manager = ConnectionManager(limits=Limits(max_connections_per_user=1), rooms=rooms)
    with running(manager) as live:
        path = live.at(welcoming(manager)) + "?room=lobby&user="
        async with AsyncExitStack() as stack:
            bob = await stack.enter_async_context(client(live.server, path + "bob"))
            assert (await receive(bob))["user_id"] == "bob"
            assert await receive(bob) == "in"
            async with Proxy.before(live) as proxy:
                ann = await websockets.connect(f"ws://127.0.0.1:{proxy.port}{path}ann", compression=None)
                assert (await receive(bob))["user_id"] == "ann"
                proxy.swallows = True
                again = await stack.enter_async_context(client(live.server, path + "ann"))
                assert await receive(again) == "in"
                assert await lives(bob)  # and no announcement came before that
                reset(ann.transport)
                await ann.wait_closed()


def pings_in(data: bytes) -> int:
    return data.count(b"\x89\x06hubbub")


@asynccontextmanager
async def answering_by_hand(live: Live, path: str, answered: threading.Event | None = None) -> AsyncIterator[list[int]]:
    """A client that answers pings of ours, and counts them."""
    reader, writer, status = await opened(live.server, path)
    assert status == 101
    counted = [0]

    async def answer() -> None:
        while data := await reader.read(65536):
            for _ in range(pings_in(data)):
                counted[0] += 1
                writer.write(masked(0x8A, b"hubbub"))
                if answered is not None:
                    answered.set()

    task = asyncio.create_task(answer())
    try:
        yield counted
    finally:
        task.cancel()
        reset(writer.transport)


@pytest.mark.usefixtures("patient")
async def test_client_that_keeps_connecting_causes_no_more_than_one_ping_in_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hubbub.connections.probing.FRESH_S", AGES_S)
    manager = ConnectionManager(limits=Limits(max_connections_per_user=1))
    with running(manager) as live:
        path = live.at(welcoming(manager)) + "?user=ann"
        async with answering_by_hand(live, path) as pings:
            await eventually(lambda: manager.stats().connections == 1)
            codes = await asyncio.gather(*(turned_away(live, path) for _ in range(20)))
            assert {code for code, _ in codes} == {1008}
            assert pings == [1]
            await turned_away(live, path)
            assert pings == [1]
            monkeypatch.setattr("hubbub.connections.probing.FRESH_S", 0.0)
            await turned_away(live, path)
            assert pings == [2]


@pytest.mark.usefixtures("patient", "no_sweeps")
async def test_peer_that_the_server_does_not_read_from_is_not_taken_for_gone() -> None:
    manager = ConnectionManager(limits=Limits(max_connections_per_user=1))

    async def busy(websocket: WebSocket) -> None:
        async with manager.connect(websocket, "ann") as connection:
            await connection.send("in")
            await connection.wait_gone()

    with running(manager) as live:
        path = live.at(busy)
        async with AsyncExitStack() as stack:
            ann = await let_in(stack, live, path)
            await ann.send("something that the handler does not take")
            (connection,) = manager.active_connections
            transport: Any = session_of(connection).socket.transport
            await eventually(lambda: not transport._transport.is_reading())
            assert (await turned_away(live, path))[0] == 1008
            assert manager.stats().connections == 1
            await live.server.acall(connection.close())


@pytest.mark.usefixtures("quick")
async def test_answers_that_came_while_the_server_stood_still_count(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    ping = Socket.ping

    def ping_and_freeze(pinged: Socket, on_data: Callable[[], None]) -> OpenPing | None:
        sent = ping(pinged, on_data)
        asyncio.get_running_loop().call_soon(answered.wait, DEADLINE_S)
        asyncio.get_running_loop().call_soon(time.sleep, 2 * QUICK_S)  # the patience is over by then
        return sent

    monkeypatch.setattr(Socket, "ping", ping_and_freeze)
    manager = ConnectionManager(limits=Limits(max_connections_per_user=1))
    with running(manager, loop=loop) as live:
        path = live.at(welcoming(manager)) + "?user=ann"
        async with answering_by_hand(live, path, answered) as pings:
            await eventually(lambda: manager.stats().connections == 1)
            assert (await turned_away(live, path))[0] == 1008
            assert pings == [1]
            assert manager.stats().vanished == 0


@pytest.mark.usefixtures("patient", "no_sweeps")
async def test_peer_that_does_not_read_is_left_to_the_stall_timeout() -> None:
    manager = ConnectionManager(limits=Limits(max_connections_per_user=1, max_outbox_bytes=64 * 1024 * 1024))
    with running(manager) as live:
        path = live.at(welcoming(manager)) + "?user=ann"
        _, writer, _ = await opened(live.server, path, receive_buffer=4096)
        try:
            await eventually(lambda: manager.stats().connections == 1)
            while not manager.stats().queued_bytes:
                await live.server.acall(manager.send_to_user("ann", "x" * 1_000_000))
            assert (await turned_away(live, path))[0] == 1008
            assert manager.stats().connections == 1
        finally:
            reset(writer.transport)
        await live.nothing_left()


@pytest.mark.usefixtures("patient")
async def test_server_that_gives_no_way_to_ask_refuses_at_once() -> None:
    manager = ConnectionManager(limits=Limits(max_connections_per_user=1))
    with running(manager) as live:
        live.server.server.config.loaded_app = through_asgi(live.server.server.config.loaded_app)
        path = live.at(welcoming(manager)) + "?user=ann"
        async with half_open(live, path):
            assert manager.stats().fast_path == 0
            assert (await turned_away(live, path))[0] == 1008
            assert manager.stats().vanished == 0


@pytest.mark.usefixtures("patient")
async def test_keepalive_of_the_server_goes_on_after_a_question(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.connections.probing.FRESH_S", 0.0)
    manager = ConnectionManager(limits=Limits(max_connections_per_user=1))
    with running(manager, loop=loop, ws_ping_interval=0.02, ws_ping_timeout=5) as live:
        path = live.at(welcoming(manager)) + "?user=ann"
        reader, writer, _ = await opened(live.server, path)
        came = bytearray()

        async def answer() -> None:
            while data := await reader.read(65536):
                came.extend(data)
                for at in range(len(data) - 1):
                    if data[at] == 0x89:
                        writer.write(masked(0x8A, data[at + 2 : at + 2 + data[at + 1]]))

        task = asyncio.create_task(answer())
        try:
            await eventually(lambda: came.count(b"\x89\x04") >= 2)
            for _ in range(3):
                assert (await turned_away(live, path))[0] == 1008
            assert pings_in(bytes(came)) == 3
            before = came.count(b"\x89\x04")
            await eventually(lambda: came.count(b"\x89\x04") >= before + 3)
            assert manager.stats().connections == 1
        finally:
            task.cancel()
            reset(writer.transport)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection with small buffers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    for end in (ours, theirs):
        end.setblocking(False)
    with ours, theirs:
        yield ours, theirs


class TestAQuestion:
    async def test_is_answered_by_whatever_comes(self, pair: tuple[socket.socket, socket.socket]) -> None:
        ours, theirs = pair
        heard, came = asyncio.Event(), bytearray()
        transport, question = await asking(ours, came, heard)
        theirs.send(b"anything")
        await heard.wait()
        assert question.end()
        assert came == b"anything"
        theirs.send(b" more")
        await eventually(lambda: came == b"anything more")
        transport.abort()

    async def test_is_not_answered_by_silence(self, pair: tuple[socket.socket, socket.socket]) -> None:
        transport, question = await asking(pair[0], bytearray(), asyncio.Event())
        assert not question.end()
        transport.abort()

    async def test_is_answered_by_a_slow_peer_that_takes_what_waits(
        self, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        ours, theirs = pair
        transport, question = await asking(ours, bytearray(), asyncio.Event(), backlog=b"x" * 20_000_000)
        with contextlib.suppress(BlockingIOError):
            while theirs.recv(1 << 20):
                pass

        def less() -> bool:
            return transport.get_write_buffer_size() < 15_000_000 or not theirs.recv(1 << 20)

        with contextlib.suppress(BlockingIOError):
            await eventually(less)
        assert question.end()
        transport.abort()

    async def test_is_not_answered_by_a_peer_that_takes_nothing(
        self, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        transport, question = await asking(pair[0], bytearray(), asyncio.Event(), backlog=b"x" * 20_000_000)
        assert not question.end()
        transport.abort()


class Noting(asyncio.Protocol):
    def __init__(self, came: bytearray) -> None:
        self._came = came

    def data_received(self, data: bytes) -> None:
        self._came += data


async def asking(
    end: socket.socket, came: bytearray, heard: asyncio.Event, *, backlog: bytes = b""
) -> tuple[asyncio.Transport, OpenPing]:
    """A question that was asked over one end, behind what waits already."""
    transport, _ = await asyncio.get_running_loop().create_connection(lambda: Noting(came), sock=end)
    transport.write(backlog)
    same, waiting = 0, -1
    while backlog and same < 10:  # the kernels of both ends may take some more, and acknowledge it, on their own
        await asyncio.sleep(0.01)
        before, waiting = waiting, _waiting_bytes(transport)
        same = same + 1 if waiting == before else 0
    protocol = pingable(transport)
    assert protocol is not None
    return transport, OpenPing(transport, protocol, heard.set)
