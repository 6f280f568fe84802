"""Clients that cost memory or time below the app: unfinished messages, control frames, words after our Close."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import WebSocket

from hubbub import ConnectionManager, Limits
from hubbub.connections.checks import check
from hubbub.connections.socket import Socket
from hubbub.connections.transports import inbound
from tests.integration.support import Live, eventually, masked, may_be_reset, opened, reset, running

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_sweeps")]

FIN, COMPRESSED = 0x80, 0x40
CONTINUATION, TEXT, CLOSE, PING, PONG = 0x0, 0x1, 0x8, 0x9, 0xA
KIB = 1024


@pytest.fixture(scope="module")
def loop(either_loop: str) -> str:
    return either_loop


class Client:
    """A rude client, by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def say(self, first: int, payload: bytes = b"") -> None:
        """Sends a frame."""
        size = len(payload)
        if size < 126:
            self.writer.write(masked(first, payload))
        else:
            self.writer.write(bytes((first, 0xFF)) + size.to_bytes(8) + b"\0\0\0\0" + payload)

    async def frame(self) -> tuple[int, bytes]:
        """The next frame of the server: its opcode, and its payload."""
        async with asyncio.timeout(30):
            first, size = await self.reader.readexactly(2)
            if size >= 126:
                size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8))
            return first & 0xF, await self.reader.readexactly(size)

    async def close(self) -> tuple[int, str]:
        """The server's Close, after whatever comes before it."""
        opcode = None
        while opcode != CLOSE:
            opcode, payload = await self.frame()
        return int.from_bytes(payload[:2]), payload[2:].decode()

    async def end(self) -> None:
        """Waits for the end of the connection."""
        async with asyncio.timeout(30):
            try:
                while await self.reader.read(KIB):
                    pass
            except OSError:
                pass


def _drop(writer: asyncio.StreamWriter) -> None:
    if not writer.transport.is_closing():  # the server may have reset it
        reset(writer.transport)


@asynccontextmanager
async def rude(live: Live, path: str, **options: Any) -> AsyncIterator[Client]:
    reader, writer, status = await opened(live.server, path, **options)
    assert status == 101
    try:
        yield Client(reader, writer)
    finally:
        _drop(writer)


class Place:
    """A server whose handler receives, and what it sees.

    Attributes:
        sockets: The sockets, in the order they came.
        got: The messages.
        accept: Set, handlers accept.
        receive: Set, they receive.
        kick: Set, they close.
    """

    def __init__(self, live: Live) -> None:
        self.live = live
        self.sockets: list[Socket] = []
        self.got: list[Any] = []
        self.accept, self.receive, self.kick = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.path = live.at(self.handle)

    async def handle(self, websocket: WebSocket) -> None:
        self.sockets.append(websocket.scope["hubbub"])
        await websocket.accept()
        async with self.live.manager.connect(websocket) as connection:
            async for message in connection:
                self.got.append(message)
                if message == "close me":
                    await connection.close(4000, "as you like")

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.live.manager.stats().refused)


@asynccontextmanager
async def place(loop: str, **limits: Any) -> AsyncIterator[Place]:
    with running(ConnectionManager(limits=Limits(**limits)), loop=loop) as live:
        yield Place(live)
        await live.nothing_left()


class TestUnfinishedMessages:
    async def test_that_are_large_once_inflated_are_refused_before_they_are_whole(self, loop: str) -> None:
        deflate = zlib.compressobj(wbits=-12)
        bomb = deflate.compress(b"a" * 16 * KIB * KIB) + deflate.flush(zlib.Z_SYNC_FLUSH)
        assert len(bomb) < 32 * KIB
        async with place(loop, max_message_bytes=16 * KIB) as here:
            async with rude(here.live, here.path, Sec_WebSocket_Extensions="permessage-deflate") as client:
                client.say(TEXT | COMPRESSED, bomb)
                assert (await client.close())[0] == 1009
                await client.end()
            await eventually(lambda: here.counts == {"message_too_big": 1})  # once the handler's side has heard of it
            assert not here.got

    async def test_that_grow_by_fragments_are_refused_at_twice_the_bound_and_64_kib(self, loop: str) -> None:
        async with place(loop, max_message_bytes=16 * KIB) as here, rude(here.live, here.path) as client:
            client.say(TEXT, b"x" * 32 * KIB)
            client.say(CONTINUATION, b"x" * 63 * KIB)
            client.say(FIN | CONTINUATION, b"x" * KIB)
            opcode, payload = await client.frame()
            assert opcode == TEXT
            assert b"message_too_big" in payload, "up to there it is answered"
            client.say(TEXT, b"x" * 32 * KIB)
            client.say(CONTINUATION, b"x" * 65 * KIB)
            assert (await client.close())[0] == 1009

    @pytest.mark.parametrize("payload", [b"", b"x"], ids=["empty", "a byte each"])
    async def test_of_very_many_fragments_count_as_messages(self, loop: str, payload: bytes) -> None:
        async with place(loop, max_messages_per_s=10, max_errors=3) as here, rude(here.live, here.path) as client:
            client.say(TEXT, payload)
            for _ in range(200):
                client.say(CONTINUATION, payload)
            assert await client.close() == (1008, "too many messages")
            assert here.counts == {"rate_limited": 1}

    @pytest.mark.parametrize(
        "begun",
        [
            pytest.param(masked(TEXT, b"the beginning"), id="a fragment"),
            pytest.param(masked(FIN | TEXT, b"the beginning")[:10], id="a part of a frame"),
            pytest.param(masked(FIN | TEXT, b"")[:1], id="a byte"),
        ],
    )
    async def test_that_never_end_are_1009(self, loop: str, begun: bytes) -> None:
        async with place(loop, message_timeout_s=0.2) as here, rude(here.live, here.path) as client:
            client.writer.write(begun)
            assert await client.close() == (1009, "message not complete in time")
            assert here.counts == {"message_too_slow": 1}

    async def test_that_wait_for_the_handler_are_not_late(self) -> None:
        """A client is not to blame for an app that does not take what it sends."""
        async with place("asyncio", message_timeout_s=0.1) as here:
            swept, got = asyncio.Event(), []

            async def busy(websocket: WebSocket) -> None:
                socket = websocket.scope["hubbub"]
                async with here.live.manager.connect(websocket) as connection:
                    # As much as is read ahead for it has come, so that the server does not read any more.
                    await eventually(
                        lambda: socket.reader._ahead is not None and socket.transport._protocol.read_paused
                    )
                    now = asyncio.get_running_loop().time()
                    for passed_s in range(10):
                        check(socket, now + passed_s)
                    swept.set()
                    got.extend([await connection.receive() for _ in range(201)])

            async with rude(here.live, here.live.at(busy)) as client:
                for _ in range(200):
                    client.say(FIN | TEXT, b"x")
                message = masked(FIN | TEXT, b"the last")
                client.writer.write(message[:10])
                await eventually(swept.is_set)
                client.writer.write(message[10:])
                await eventually(lambda: got == ["x"] * 200 + ["the last"])
            assert not here.counts

    async def test_whose_parts_come_in_time_are_taken(self, loop: str) -> None:
        async with place(loop) as here, rude(here.live, here.path) as client:
            client.say(TEXT, b"one ")
            client.say(FIN | PING, b"between")
            assert await client.frame() == (PONG, b"between")
            client.say(CONTINUATION)
            client.say(FIN | CONTINUATION, b"two")
            await eventually(lambda: here.got == ["one two"])


class TestMessagesThatComeAtOnce:
    """One read of a socket is up to 256 KiB. It brings 40,000 messages, or many times its size once inflated."""

    @pytest.fixture
    async def held(self, loop: str) -> AsyncIterator[Held]:
        with running(ConnectionManager(limits=Limits(max_messages_per_s=None)), loop=loop) as live:
            held = Held(live)
            yield held
            await live.nothing_left()
            held.socket = None

    async def test_that_are_small_are_parsed_in_turns(self, held: Held) -> None:
        count = 20_000
        async with rude(held.live, held.path) as client:
            client.writer.write(b"".join(masked(FIN | TEXT, b"%d" % number) for number in range(count)))
            await held.full()
            assert held.queue.qsize() <= 256
            held.receive.set()
            await eventually(lambda: len(held.got) == count)
        assert held.got == [str(number) for number in range(count)]

    async def test_that_are_large_once_inflated_are_inflated_in_turns(self, held: Held) -> None:
        deflate = zlib.compressobj(wbits=-12)
        packed = (deflate.compress(b"a" * 64 * KIB) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
        once = masked(FIN | TEXT | COMPRESSED, packed)
        assert len(once) < 100
        async with rude(
            held.live, held.path, Sec_WebSocket_Extensions="permessage-deflate; client_no_context_takeover"
        ) as client:
            client.writer.write(once * 1000)
            await held.full()
            assert held.queue.qsize() <= 4
            held.receive.set()
            await eventually(lambda: len(held.got) == 1000)
        assert {len(message) for message in held.got} == {64 * KIB}

    async def test_that_are_pings_are_all_answered(self, held: Held) -> None:
        async with rude(held.live, held.path) as client:
            client.writer.write(b"".join(masked(FIN | PING, b"%d" % number) for number in range(1000)))
            for number in range(1000):
                assert await client.frame() == (PONG, b"%d" % number)
            held.receive.set()  # so that its handler ends with it

    async def test_that_are_fragments_of_one_are_that_one(self, held: Held) -> None:
        held.receive.set()
        async with rude(held.live, held.path) as client:
            client.writer.write(
                masked(TEXT, b"x") + masked(CONTINUATION, b"y") * 1000 + masked(FIN | CONTINUATION, b"z")
            )
            await eventually(lambda: held.got == ["x" + "y" * 1000 + "z"])

    async def test_the_close_behind_them_is_heard_though_the_handler_has_closed(self, held: Held) -> None:
        async with rude(held.live, held.path) as client:
            client.writer.write(masked(FIN | TEXT, b"x") * 1000 + masked(FIN | CLOSE, (4000).to_bytes(2)))
            await held.full()
            held.close.set()
            assert await client.close() == (4000, "as you like")
            await client.end()
            assert held.live.manager.stats().stalled == 0

    async def test_the_close_behind_them_is_answered(self, held: Held) -> None:
        async with rude(held.live, held.path) as client:
            client.writer.write(masked(FIN | TEXT, b"x") * 1000 + masked(FIN | CLOSE, (4001).to_bytes(2)))
            await held.full()
            held.receive.set()
            assert (await client.close())[0] == 4001
        await eventually(lambda: len(held.got) == 1000)


class Held:
    """A server whose handler receives when it is told to.

    Attributes:
        got: The messages.
        receive: Set, the handler receives.
        close: Set, it closes instead.
    """

    def __init__(self, live: Live) -> None:
        self.live = live
        self.got: list[Any] = []
        self.receive, self.close = asyncio.Event(), asyncio.Event()
        self.socket: Socket | None = None
        self.path = live.at(self.handle)

    async def handle(self, websocket: WebSocket) -> None:
        async with self.live.manager.connect(websocket) as connection:
            self.socket = websocket.scope["hubbub"]
            await eventually(lambda: self.receive.is_set() or self.close.is_set())
            if self.close.is_set():
                await connection.close(4000, "as you like")
                return
            async for message in connection:
                self.got.append(message)

    async def full(self) -> None:
        """Waits until the server reads no more, and who reads ahead takes no more."""

        def full() -> bool:
            ahead = None if self.socket is None else self.socket.reader._ahead
            return ahead is not None and ahead.full and self._protocol.read_paused

        await eventually(full)

    @property
    def queue(self) -> asyncio.Queue[Any]:
        """What uvicorn has parsed, and the handler has not taken."""
        queue: asyncio.Queue[Any] = self._protocol.queue
        return queue

    @property
    def _protocol(self) -> Any:
        assert self.socket is not None
        transport: Any = self.socket.transport
        return transport._protocol


class TestBeforeTheAppAccepts:
    @pytest.fixture
    def gate(self) -> asyncio.Event:
        return asyncio.Event()

    @pytest.mark.parametrize("flood", ["fragments", "pings", "size"])
    async def test_the_same_bounds_hold(self, flood: str) -> None:
        """A token is checked before: nobody is known yet."""
        manager = ConnectionManager(limits=Limits(max_message_bytes=KIB, max_messages_per_s=10, max_errors=3))
        with running(manager) as live:
            ended: list[BaseException | None] = []

            async def slow(websocket: WebSocket) -> None:
                try:
                    assert (await websocket.receive())["type"] == "websocket.connect"
                    assert (await websocket.receive())["type"] == "websocket.disconnect"
                    ended.append(None)
                except BaseException as error:
                    ended.append(error)
                    raise

            path = live.at(slow)
            reader, writer = await asyncio.open_connection("127.0.0.1", live.server.port)
            may_be_reset(writer)
            try:
                writer.write(
                    f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{live.server.port}\r\nUpgrade: websocket\r\n"
                    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
                )
                await eventually(lambda: bool(live.server.server.server_state.tasks))
                await asyncio.sleep(0)
                client = Client(reader, writer)
                if flood == "size":
                    client.say(TEXT, b"x" * 100 * KIB)
                elif flood == "pings":
                    for _ in range(200):
                        client.say(FIN | PING, b"x")
                else:
                    client.say(TEXT, b"x")
                    for _ in range(200):
                        client.say(CONTINUATION, b"x")
                await client.end()
            finally:
                _drop(writer)
            await live.nothing_left()
            assert ended == [None]


class TestControlFrames:
    @pytest.mark.parametrize("opcode", [PING, PONG], ids=["pings", "pongs"])
    async def test_count_as_messages(self, loop: str, opcode: int) -> None:
        async with place(loop, max_messages_per_s=10, max_errors=3) as here, rude(here.live, here.path) as client:
            for _ in range(200):
                client.say(FIN | opcode, b"x")
            assert await client.close() == (1008, "too many messages")
            assert here.counts == {"rate_limited": 1}

    async def test_whose_pongs_are_not_read_wait_up_to_a_bound(self, loop: str) -> None:
        async with (
            place(loop, max_messages_per_s=None) as here,
            rude(here.live, here.path, receive_buffer=4 * KIB) as client,
        ):
            await eventually(lambda: bool(here.sockets))
            transport: Any = here.sockets[0].transport
            client.reader._transport.pause_reading()  # type: ignore[attr-defined]
            number = 0
            while transport._writable.is_set():  # until pongs fill the socket, and the transport's buffer
                for _ in range(100):
                    number += 1
                    client.say(FIN | PING, b"%0125d" % number)
                await asyncio.sleep(0)
            for _ in range(5000):
                number += 1
                client.say(FIN | PING, b"%0125d" % number)
            client.say(FIN | TEXT, b"all said")
            await eventually(lambda: here.got == ["all said"])
            assert transport.buffered < 2 * 64 * KIB
            client.reader._transport.resume_reading()  # type: ignore[attr-defined]
            opcode, last = await client.frame()
            while last != b"%0125d" % number:
                assert opcode == PONG
                opcode, last = await client.frame()

    async def test_whose_pongs_are_never_read_end_in_an_abort(self, loop: str) -> None:
        async with (
            place(loop, max_messages_per_s=None, stall_timeout_s=0.3) as here,
            rude(here.live, here.path, receive_buffer=4 * KIB) as client,
        ):
            await eventually(lambda: bool(here.sockets))
            transport: Any = here.sockets[0].transport
            client.reader._transport.pause_reading()  # type: ignore[attr-defined]
            while transport._writable.is_set():
                for _ in range(100):
                    client.say(FIN | PING, b"x" * 125)
                await asyncio.sleep(0)
            await eventually(lambda: here.live.manager.stats().stalled == 1)


class TestAfterOurClose:
    async def test_the_peers_close_is_taken(self, loop: str) -> None:
        async with place(loop) as here, rude(here.live, here.path) as client:
            client.say(FIN | TEXT, b"close me")
            assert await client.close() == (4000, "as you like")
            client.say(FIN | TEXT, b"on its way")
            client.say(FIN | CLOSE, (4000).to_bytes(2))
            await client.end()
            assert here.live.manager.stats().stalled == 0
            assert here.got == ["close me"]

    async def test_a_peer_that_goes_on_is_not_read_and_aborted(
        self, loop: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(inbound, "FAREWELL_S", 0.0)
        async with place(loop, close_timeout_s=0.5) as here, rude(here.live, here.path) as client:
            client.say(FIN | TEXT, b"close me")
            assert await client.close() == (4000, "as you like")
            for _ in range(1000):
                client.say(FIN | TEXT, b"x")
            await eventually(lambda: here.sockets[0].transport.reading_stopped)
            await client.end()
