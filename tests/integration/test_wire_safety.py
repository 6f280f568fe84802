"""What a client receives is whole frames, in order, none twice, none meant for somebody else: on every transport.

The clients are strict (`wire_client`): a torn or misplaced write is a violation of the protocol, or of a checksum.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import pytest
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from hubbub import Connection, ConnectionManager, Limits
from hubbub.connections.connection import session_of
from hubbub.protocols.frames import Opcode, frame
from tests.integration.support import assert_nothing_left, eventually
from tests.integration.wire_client import TRANSPORTS, Certificate, Site, Violation, WireClient, site, stamp, stamped

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_sweeps")]

KIB = 1024
SIZES = (0, 125, 126, 65_535, 65_536, 1024 * KIB)
AFTER = frame(Opcode.TEXT, b"after")


class Place(NamedTuple):
    """A server on one transport, with an app in which every client is in the room that it names."""

    site: Site
    manager: ConnectionManager
    connections: dict[str, Connection]

    @asynccontextmanager
    async def client(
        self, name: str, *, room: str = "room", deaf: bool = False, **options: Any
    ) -> AsyncIterator[WireClient]:
        """A client that is in a room.

        Args:
            name: A name that no other has.
            room: The room.
            deaf: Its handler does not receive, so that nobody tells it when its client is gone.
            options: Those of `WireClient.open`.
        """
        client = await self.site.client(f"/{'deaf' if deaf else 'ws'}/{name}/{room}", **options)
        try:
            await eventually(lambda: name in self.connections)
            assert self.manager.stats().fast_path == self.site.fast_path
            assert bool(self.site.direct) == (self.site.transport == "direct"), "not the transport that this is to test"
            yield client
        finally:
            client.reset()

    async def run(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Runs something on the server's loop."""

        async def working() -> Any:
            return await work()

        return await self.site.server.acall(working(), 20)

    async def nothing_left(self) -> None:
        await eventually(lambda: not self.site.server.server.server_state.tasks)
        assert_nothing_left(self.manager)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate.make(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module", params=TRANSPORTS)
def place(request: pytest.FixtureRequest, loop: str, certificate: Certificate) -> Iterator[Place]:
    manager = ConnectionManager(limits=Limits(max_outbox_bytes=16 * 1024 * KIB, max_messages_per_s=None))
    app, connections = FastAPI(), dict[str, Connection]()
    manager.install(app)

    @app.websocket("/{kind}/{name}/{room}")
    async def handle(websocket: WebSocket, kind: str, name: str, room: str) -> None:
        async with manager.connect(websocket, name, room=room) as connection:
            connections[name] = connection
            try:
                if kind == "deaf":
                    await connection.wait_gone()
                async for _ in connection:
                    pass
            finally:
                del connections[name]

    config: dict[str, Any] = {"ws_ping_interval": 0.05, "ws_ping_timeout": 60.0, "log_level": "warning"}
    with site(app, request.param, loop, certificate, **config) as served:
        yield Place(served, manager, connections)


async def received(
    client: WireClient, count: int, *, pinging: bool = False, sizes: tuple[int, ...] = ()
) -> list[str | bytes]:
    """So many messages, read in pieces of whatever sizes, and with pings in between."""
    messages: list[str | bytes] = []
    async with asyncio.timeout(30):
        while len(messages) < count:
            came = await client.read(*(random.choice(sizes) for _ in range(bool(sizes))))
            assert not client.ended, f"the end after {len(messages)} messages: {client.closed}"
            if came and pinging:
                client.ping(random.choice([4, 8, 125]))
            messages += came
    return messages


async def test_messages_of_every_size_come_whole_and_in_order_however_they_are_sent(place: Place) -> None:
    manager, expected, sizes = place.manager, list[str | bytes](), [*SIZES, *SIZES[-3::-1]]

    def message(size: int, n: int, way: str) -> str:
        text = stamp(way, n, size=size) if size else ""
        assert len(text.encode()) == size
        return text

    async def play() -> None:
        everybody = list(place.connections.values())
        for n, size in enumerate(sizes):
            text = message(size, n, "broadcast")
            await manager.broadcast(text, room="room")
            await manager.broadcast(text.encode(), room="room")
            expected.extend([text, text.encode()])
            text = message(size, n, "send")
            for connection in everybody:
                connection.send_nowait(text)
            text = message(size, n, "raw")
            for connection in everybody:
                await connection.websocket.send_text(text)
            await manager.broadcast(text, room="room")
            for connection in everybody:
                await connection.websocket.send_bytes(text.encode())
            expected.extend([message(size, n, "send"), text, text, text.encode()])

    async with (
        place.client("plain") as plain,
        place.client("deflate", deflate="") as deflate,
        place.client("slow", deflate="server_no_context_takeover", buffers=32 * KIB) as slow,
    ):
        assert (plain.deflates, deflate.deflates, slow.deflates) == (False, True, True)
        playing = asyncio.ensure_future(place.run(play))
        total = len(sizes) * 6
        results = await asyncio.gather(
            received(plain, total, pinging=True),
            received(deflate, total, pinging=True),
            received(slow, total, pinging=True, sizes=(1, 100, 20_000, 60_000)),
        )
        await playing
        for messages in results:
            assert [len(each) for each in messages] == [len(each) for each in expected]
            assert messages == expected
        for client in (plain, deflate, slow):
            client.ping()
            while client.unanswered_pings:
                assert not await client.read(), "a message too many"
    await place.nothing_left()


async def test_frames_that_the_socket_took_in_part_are_followed_by_what_belongs_there(place: Place) -> None:
    """A client that stops and goes on, under pings, pongs, the handler's own sends and its room's messages."""
    rounds, filled, read, raw = 3, list[int](), list[int](), list[asyncio.Task[None]]()

    async def play() -> None:
        connection, rng, numbers = place.connections["stops"], random.Random(4), count()
        writer = session_of(connection).writer

        def message(*sizes: int) -> str:
            return stamp(next(numbers), size=rng.choice(sizes))

        async def send_by_all_ways(*sizes: int) -> None:
            await place.manager.broadcast(message(*sizes), room="room")
            raw.append(asyncio.create_task(connection.websocket.send_text(message(*sizes))))
            await asyncio.sleep(0)
            connection.send_nowait(message(*sizes))

        for number in range(rounds):
            while writer.waiting_bytes < 150 * KIB:
                connection.send_nowait(message(*((200,), (65_536,), (200, 5000, 65_536))[number]))
                await asyncio.sleep(0)
            for _ in range(5):
                await send_by_all_ways(0, 126, 5000)
                await asyncio.sleep(0.01)  # pings of the server come in between
            filled.append(number)
            for turn in count():  # the client reads: each time that the socket takes something again is a trap
                if not writer.queued_bytes or turn == 1000:
                    break
                connection.send_nowait(message(0))
                await asyncio.sleep(0)
                if not turn % 8:
                    await send_by_all_ways(0)
            await asyncio.gather(*raw)
            await connection.send(stamp(next(numbers), "stop"))
            await eventually(lambda number=number: number in read)  # type: ignore[misc]

    async with place.client("stops", buffers=32 * KIB, deflate="") as client:
        playing, seen = asyncio.ensure_future(place.run(play)), list[list[str]]()
        for number in range(rounds):
            for _ in range(3):
                client.ping()
            await eventually(lambda number=number: number in filled or playing.done())  # type: ignore[misc]
            while not seen or seen[-1][1:] != ["stop"]:
                seen += [stamped(each) for each in await received(client, 1, pinging=True)]
            seen[-1].pop()
            read.append(number)
        await playing
    assert seen == [[str(number)] for number in range(len(seen))]
    await place.nothing_left()


async def test_a_socket_that_does_not_read_is_given_no_more_than_its_bound_and_a_message(place: Place) -> None:
    async with place.client("stops", buffers=32 * KIB):
        transport, data = session_of(place.connections["stops"]).socket.transport, frame(Opcode.BINARY, bytes(4 * KIB))

        async def fill() -> int:
            transport.set_high_water(8 * KIB)
            for _ in range(5000):
                if not transport.write(data):
                    return transport.buffered
            raise AssertionError("it takes everything")

        assert await place.run(fill) <= 8 * KIB + len(data)
    await place.nothing_left()


@pytest.mark.parametrize("backlog", [False, True], ids=["idle", "with a backlog"])
async def test_nothing_follows_a_close_frame(backlog: bool, place: Place) -> None:
    """What is written between the close and the peer's answer goes nowhere; what was written before all comes."""
    manager = place.manager
    ways: dict[str, Callable[[Connection], Awaitable[Any]]] = {
        "connection": lambda connection: connection.close(4000),
        "websocket": lambda connection: connection.websocket.close(4000),
        "user": lambda connection: manager.disconnect_user(connection.user_id or "", 4000),
    }
    async with place.client("witness") as witness:
        for name, close in ways.items():
            async with place.client(name, answers=False, buffers=32 * KIB, deflate="") as client:
                connection = place.connections[name]

                async def play(connection: Connection = connection, close: Any = close, name: str = name) -> int:
                    sent = 0
                    while not sent or (backlog and session_of(connection).writer.queued_bytes < 200 * KIB):
                        await manager.broadcast(stamp("before", size=20_000), room="room")
                        sent += 1
                    closing = asyncio.ensure_future(close(connection))
                    await asyncio.sleep(0)
                    for _ in range(20):
                        await manager.broadcast(stamp("after"), room="room")
                        assert not await connection.send("after")
                        assert not await manager.send_personal("after", connection)
                        with pytest.raises((WebSocketDisconnect, RuntimeError)):
                            await connection.websocket.send_text("after")
                        await asyncio.sleep(0)
                    assert name == "user" or closing.done() is not backlog
                    return sent

                sent = await place.run(play)
                client.ping()
                seen = list[str | bytes]()
                async with asyncio.timeout(30):
                    while client.closed is None:
                        seen += await client.read()
                assert [stamped(each) for each in seen] == [["before"]] * sent
                assert client.closed == (4000, "disconnected by the server" if name == "user" else "")
                with pytest.raises(ConnectionResetError):  # nobody asks for it: the transport looks for itself too
                    await place.run(partial(session_of(connection).socket.transport.write_soon, AFTER))
                await place.run(lambda: manager.broadcast(stamp("last"), room="room"))
                client.answer()
                assert await client.rest() == []
                told = [stamped(each) for each in await received(witness, sent + 20 + 1)]
                assert told == [["before"]] * sent + [["after"]] * 20 + [["last"]]
    await place.nothing_left()


@pytest.mark.parametrize("congested", [False, True], ids=["idle", "congested"])
async def test_a_write_to_a_client_that_is_lost_does_not_reach_who_has_its_number_now(
    congested: bool, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uvicorn says that a lost connection is writable, and its buffer reads empty; the number is the next client's."""
    monkeypatch.setattr(
        "hubbub.connections.sweeper.check", lambda _socket, now: None
    )  # nobody is to find out before the write
    manager, plain = place.manager, socket.socket()
    fillers: list[int] = []
    try:
        async with place.client("lost", room="private", deaf=True, buffers=32 * KIB) as lost:
            number, connection = place.site.sockets.descriptors[-1], place.connections["lost"]

            async def fill() -> None:
                while congested and not session_of(connection).writer.queued_bytes:
                    connection.send_nowait(stamp("lost", size=20_000))
                    await asyncio.sleep(0)

            await place.run(fill)
            protocols = place.site.server.server.server_state.connections
            before = len(protocols)
            lost.reset()
            await eventually(lambda: len(protocols) < before)
            while (filler := os.dup(plain.fileno())) < number:
                fillers.append(filler)
            assert filler == number, "somebody else has the number"
            os.close(filler)
            async with place.client("found", plain=plain) as found:
                assert place.site.sockets.descriptors[-1] == number
                if not congested:
                    assert connection.is_open, "it is known to be lost: nothing would be written"

                async def play() -> None:
                    for size in (0, 200, 70_000):
                        await manager.broadcast(stamp("lost", size=size), room="private")
                        connection.send_nowait(stamp("lost", size=size))
                        await asyncio.sleep(0)
                    with pytest.raises(OSError, match=r"is gone|send failed"):
                        await session_of(connection).socket.transport.send(
                            {"type": "websocket.send", "text": stamp("lost")}
                        )
                    await place.connections["found"].send(stamp("found"))

                await place.run(play)
                assert [stamped(each) for each in await received(found, 1)] == [["found"]]
                assert not connection.is_open
    finally:
        plain.close()
        for filler in fillers:
            os.close(filler)
    await place.nothing_left()


THREADS, WORKERS, VISITS = 2, 6, 8


async def visits(place: Place, names: Iterator[int], worker: str) -> None:
    """One client after another: each takes what comes for it, and vanishes while more is on its way."""
    rng = random.Random(worker)
    for _ in range(VISITS):
        name = f"{worker}-{next(names)}"
        options = {"buffers": rng.choice([None, 32 * KIB]), "deflate": rng.choice([None, None, ""])}
        kind = rng.choice(["ws", "deaf"])
        client = await place.site.client(f"/{kind}/{name}/own-{name}", **options)
        try:
            wanted, last = rng.choice([0, 1, 3, 30]), -1
            async with asyncio.timeout(30):
                while last < wanted and not client.ended:
                    for message in await client.read(rng.choice([10, 1000, 65_536])):
                        to, number = stamped(message)
                        if to != name or int(number) != last + 1:
                            raise Violation(f"{to} {number} reached {name} after {last}")
                        last = int(number)
                    if rng.random() < 0.2:
                        client.ping()
            how = rng.choice(["reset", "reset", "half", "close"])
            if how == "half" and client.can_half_close:
                client.half_close(may_be_cut=place.site.cuts_the_half_closed)
            elif how != "reset":
                client.close()
            if how != "reset" and rng.random() < 0.5:
                await client.rest()
        finally:
            client.reset()


async def test_no_byte_reaches_another_client_while_descriptors_are_reused(place: Place) -> None:
    place.site.sockets.descriptors.clear()
    stop, numbers = asyncio.Event(), dict[str, int]()

    async def publish() -> None:
        """To each private room, and so to the clients that are about to be gone."""
        rng = random.Random(3)
        while not stop.is_set():
            for name, connection in tuple(place.connections.items()):
                for _ in range(rng.choice([1, 2, 5])):
                    number = numbers[name] = numbers.get(name, -1) + 1
                    text = stamp(name, number, size=rng.choice([0, 0, 0, 200, 5000]))
                    if rng.random() < 0.7:
                        await place.manager.broadcast(text, room=f"own-{name}")
                    else:
                        connection.send_nowait(text)
            await asyncio.sleep(0)

    async def end() -> None:
        stop.set()

    def clients(thread: int) -> None:
        async def all_at_once() -> None:
            names = count()
            async with asyncio.TaskGroup() as group:
                for worker in range(WORKERS):
                    group.create_task(visits(place, names, f"{thread}-{worker}"))

        asyncio.run(all_at_once())

    publishing = asyncio.ensure_future(place.run(publish))
    try:
        await asyncio.gather(*(asyncio.to_thread(clients, thread) for thread in range(THREADS)))
    finally:
        await place.run(end)
        await publishing
    descriptors = place.site.sockets.descriptors
    assert len(descriptors) == THREADS * WORKERS * VISITS
    assert len(set(descriptors)) * 2 < len(descriptors), "the numbers were not reused"
    await place.nothing_left()
