"""From accept to gone, exactly once, whatever happens on either side."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException, WebSocket, WebSocketDisconnect, WebSocketException
from starlette.responses import PlainTextResponse
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

from hubbub import Connection, ConnectionManager, InvalidArgument, Limits, RoomOptions
from hubbub.connections.connection import session_of
from hubbub.connections.socket import Socket
from tests.integration.support import (
    DEADLINE_S,
    Handler,
    Live,
    client,
    closed,
    eventually,
    masked,
    opened,
    receive,
    reset,
    running,
    serving,
    through_asgi,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_sweeps")]

NO_GRACE = RoomOptions(grace_s=0)
Tail = Callable[[Connection], Awaitable[None]]


@pytest.fixture(scope="module")
def served(loop: str, quick_sweeps: None) -> Iterator[Live]:
    limits = Limits(handler_timeout_s=0.2, close_timeout_s=0.5)
    with running(ConnectionManager(limits=limits, rooms={"*": NO_GRACE}, everyone=NO_GRACE), loop=loop) as live:
        yield live


@pytest.fixture
async def live(served: Live) -> AsyncIterator[Live]:
    """The module's server; after each test nothing of it may be left there."""
    yield served
    await served.nothing_left()
    served.forget_handlers()


@pytest.fixture(params=["block", "await", "hand-written"])
def style(request: pytest.FixtureRequest) -> str:
    """The ways to write a handler."""
    name: str = request.param
    return name


def written(live: Live, style: str, then: Tail) -> Handler:
    """A handler in one of these ways, which goes on with `then`."""
    manager = live.manager

    async def block(websocket: WebSocket) -> None:
        async with manager.connect(websocket, "ann", room="lobby") as connection:
            await then(connection)

    async def awaited(websocket: WebSocket) -> None:
        connection = await manager.connect(websocket, "ann", room="lobby")
        await then(connection)

    async def by_hand(websocket: WebSocket) -> None:
        connection = await manager.connect(websocket, "ann")
        await connection.join("lobby")
        try:
            await then(connection)
        except WebSocketDisconnect:
            manager.disconnect(websocket)

    return {"block": block, "await": awaited, "hand-written": by_hand}[style]


def tracebacks(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.exc_info]


@asynccontextmanager
async def connected(live: Live, handler: Handler) -> AsyncIterator[ClientConnection]:
    """A client, from when it is registered."""
    async with client(live.server, live.at(handler)) as websocket:
        await eventually(lambda: len(live.manager.active_connections) > 0)
        yield websocket


class TestTheHandlerEnds:
    async def test_by_returning_and_the_client_sees_1000(
        self, live: Live, style: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def then(connection: Connection) -> None:
            await connection.send("bye")

        async with client(live.server, live.at(written(live, style, then))) as websocket:
            assert await receive(websocket) == "bye"
            assert await closed(websocket) == (1000, "")
        await live.nothing_left()
        assert not tracebacks(caplog)

    async def test_by_raising_and_the_client_sees_1011_and_the_log_one_traceback(
        self, live: Live, style: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def then(connection: Connection) -> None:
            raise ZeroDivisionError("in the handler")

        async with client(live.server, live.at(written(live, style, then))) as websocket:
            assert await closed(websocket) == (1011, "")
        await live.nothing_left()
        assert [(each.name, each.levelname) for each in tracebacks(caplog)] == [("uvicorn.error", "ERROR")]

    async def test_with_a_websocket_exception_and_the_client_sees_its_code(
        self, live: Live, style: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def then(connection: Connection) -> None:
            raise WebSocketException(4001, "not you")

        async with client(live.server, live.at(written(live, style, then))) as websocket:
            assert await closed(websocket) == (4001, "not you")
        await live.nothing_left()
        assert not tracebacks(caplog)

    @pytest.mark.parametrize(("status", "code"), [(403, 1008), (404, 1008), (500, 1011)])
    async def test_with_an_http_exception_after_accept_which_is_no_traceback(
        self, live: Live, style: str, status: int, code: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def then(connection: Connection) -> None:
            raise HTTPException(status, "too late for a status")

        async with client(live.server, live.at(written(live, style, then))) as websocket:
            assert (await closed(websocket))[0] == code
        await live.nothing_left()
        assert not tracebacks(caplog)

    async def test_with_a_disconnect_of_its_own_which_is_swallowed(
        self, live: Live, style: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def then(connection: Connection) -> None:
            raise WebSocketDisconnect(1001)

        async with client(live.server, live.at(written(live, style, then))) as websocket:
            assert await closed(websocket) == (1000, "")
        await live.nothing_left()
        assert not tracebacks(caplog)

    async def test_by_being_cancelled_and_the_client_sees_1011(self, live: Live, style: str) -> None:
        tasks: list[asyncio.Task[Any]] = []

        async def then(connection: Connection) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.append(task)
            await asyncio.Event().wait()

        async with connected(live, written(live, style, then)) as websocket:
            await eventually(lambda: bool(tasks))
            tasks[0].get_loop().call_soon_threadsafe(tasks[0].cancel)
            assert await closed(websocket) == (1011, "")
        tasks.clear()

    async def test_by_closing_with_a_code_of_its_own(self, live: Live, style: str) -> None:
        async def then(connection: Connection) -> None:
            await connection.close(4003, "enough")
            await connection.close(4004, "twice")

        async with client(live.server, live.at(written(live, style, then))) as websocket:
            assert await closed(websocket) == (4003, "enough")

    async def test_by_closing_the_raw_websocket(self, live: Live, style: str, caplog: pytest.LogCaptureFixture) -> None:
        async def then(connection: Connection) -> None:
            await connection.websocket.close(4003, "enough")
            assert not connection.is_open
            assert await connection.send("more") is False

        async with client(live.server, live.at(written(live, style, then))) as websocket:
            assert await closed(websocket) == (4003, "enough")
        assert not tracebacks(caplog)

    async def test_after_its_client(self, live: Live, style: str, caplog: pytest.LogCaptureFixture) -> None:
        async def then(connection: Connection) -> None:
            await connection.wait_gone()
            raise ZeroDivisionError("in the clean-up")

        async with connected(live, written(live, style, then)):
            pass
        await live.nothing_left()
        assert len(tracebacks(caplog)) == 1

    async def test_with_a_task_group_that_saw_the_disconnect_which_is_no_traceback(
        self, live: Live, style: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        ended = asyncio.Event()

        async def then(connection: Connection) -> None:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(connection.receive_text())
                    group.create_task(asyncio.Event().wait())
            finally:
                ended.set()

        async with connected(live, written(live, style, then)):
            pass
        await live.nothing_left()
        await eventually(ended.is_set)
        assert not tracebacks(caplog)

    async def test_with_a_code_that_no_close_frame_can_carry(self, live: Live) -> None:
        raised: list[Exception] = []

        async def handler(websocket: WebSocket) -> None:
            async with live.manager.connect(websocket) as connection:
                for code in (999, 1005, 1006, 5000):
                    try:
                        await connection.close(code)
                    except InvalidArgument as error:
                        raised.append(error)

        async with client(live.server, live.at(handler)) as websocket:
            assert await closed(websocket) == (1000, "")
        assert [getattr(error, "argument", None) for error in raised] == ["code"] * 4


class TestTheClientEnds:
    async def test_by_closing_and_the_handler_is_told_its_code(self, live: Live, style: str) -> None:
        told: list[int] = []

        async def then(connection: Connection) -> None:
            try:
                await connection.receive_text()
            except WebSocketDisconnect as error:
                told.append(error.code)
                raise

        async with connected(live, written(live, style, then)) as websocket:
            await websocket.close(4007, "tab closed")
            assert await closed(websocket) == (4007, "tab closed")
        await eventually(lambda: told == [4007])

    async def test_by_closing_and_a_raw_receive_is_told_too(self, live: Live) -> None:
        told: list[int] = []

        async def handler(websocket: WebSocket) -> None:
            await live.manager.connect(websocket, "ann")
            try:
                await websocket.receive_text()
            except WebSocketDisconnect as error:
                told.append(error.code)
                assert websocket not in live.manager.active_connections

        async with connected(live, handler):
            pass
        await eventually(lambda: told == [1000])

    @pytest.mark.parametrize("how", ["reset", "no close frame"])
    async def test_by_vanishing(self, live: Live, style: str, how: str) -> None:
        told: list[int] = []

        async def then(connection: Connection) -> None:
            async for _ in connection.iter_text():
                pass
            closed = session_of(connection).socket.closed
            told.append(closed.code if closed else 0)

        async with connected(live, written(live, style, then)) as websocket:
            if how == "reset":
                reset(websocket.transport)
            else:
                websocket.transport.close()
            await live.nothing_left()
            await eventually(lambda: told in ([1005], [1006]))

    @pytest.mark.parametrize(
        ("sent", "code"),
        [
            (masked(0x81, b"\xff\xfe"), 1007),  # a text frame that is not UTF-8
            (masked(0x83, b"?"), 1002),  # a reserved opcode
            (masked(0xC1, b"?"), 1002),  # RSV1 with no extension
            (masked(0x80, b"?"), 1002),  # a continuation of nothing
            (masked(0x81, b"?", mask=False), 1002),  # not masked
            (masked(0x09, b"?"), 1002),  # a fragmented ping
            (b"GET / HTTP/1.1\r\n\r\n", 1002),
        ],
        ids=["invalid UTF-8", "reserved opcode", "RSV1", "continuation", "unmasked", "fragmented ping", "HTTP"],
    )
    async def test_by_sending_what_no_client_sends(self, live: Live, sent: bytes, code: int) -> None:
        async def handler(websocket: WebSocket) -> None:
            async with live.manager.connect(websocket, "ann", room="lobby") as connection:
                async for _ in connection:
                    pass

        reader, writer, _ = await opened(live.server, live.at(handler))
        await eventually(lambda: live.manager.active_user_count == 1)
        writer.write(sent)
        answer = await asyncio.wait_for(reader.read(), 5)
        assert answer[0] == 0x88
        assert int.from_bytes(answer[2:4], "big") == code
        writer.close()

    async def test_before_the_handler_accepts(self, live: Live, caplog: pytest.LogCaptureFixture) -> None:
        waiting, go_on, outcome = asyncio.Event(), asyncio.Event(), []

        async def handler(websocket: WebSocket) -> None:
            waiting.set()
            await eventually(go_on.is_set)
            try:
                async with live.manager.connect(websocket, "ann"):
                    outcome.append("connected")
            except WebSocketDisconnect:
                outcome.append("disconnected")
                raise

        path = live.at(handler)
        connecting = asyncio.create_task(opened(live.server, path))
        await eventually(waiting.is_set)
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        go_on.set()
        await eventually(lambda: bool(outcome))
        await live.nothing_left()
        assert not tracebacks(caplog)

    async def test_before_the_handler_denies_it(self, live: Live, caplog: pytest.LogCaptureFixture) -> None:
        waiting, ended = asyncio.Event(), asyncio.Event()

        async def handler(websocket: WebSocket) -> None:
            transport = websocket.scope["hubbub"].transport
            waiting.set()
            await eventually(lambda: transport.closing)
            ended.set()
            raise WebSocketException(1008, "who are you?")

        connecting = asyncio.create_task(opened(live.server, live.at(handler)))
        await eventually(waiting.is_set)
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        await eventually(ended.is_set)
        await live.nothing_left()
        assert not tracebacks(caplog)

    async def test_between_the_accept_of_the_handler_and_its_connect(
        self, live: Live, caplog: pytest.LogCaptureFixture
    ) -> None:
        outcome: list[object] = []

        async def handler(websocket: WebSocket) -> None:
            await websocket.accept()
            transport = websocket.scope["hubbub"].transport
            await eventually(lambda: transport.closing)
            try:
                async with live.manager.connect(websocket, "ann"):
                    outcome.append("connected")
            except WebSocketDisconnect as gone:
                outcome.append(gone.code)
                raise

        _, writer, _ = await opened(live.server, live.at(handler))
        writer.transport.abort()
        await eventually(lambda: bool(outcome))
        assert outcome == [1006]
        await live.nothing_left()
        assert not tracebacks(caplog)

    async def test_by_not_answering_a_close(self, live: Live, style: str) -> None:
        done = asyncio.Event()

        async def then(connection: Connection) -> None:
            await connection.close()
            done.set()

        _, writer, _ = await opened(live.server, live.at(written(live, style, then)))
        await eventually(done.is_set)
        await live.nothing_left()
        writer.close()


class TestTheClientStopsReading:
    async def test_with_frames_queued_and_is_aborted_after_the_stall_timeout(self, loop: str) -> None:
        manager = ConnectionManager(limits=Limits(stall_timeout_s=0.3, max_outbox_bytes=8 * 2**20))
        with running(manager, loop=loop) as live:
            reader, writer = await never_reading(live)
            await eventually(lambda: manager.stats().stalled == 1)
            await live.nothing_left()
            writer.close()
            del reader

    async def test_and_its_close_is_cut_short(self, loop: str) -> None:
        manager = ConnectionManager(limits=Limits(close_timeout_s=0.3, max_outbox_bytes=8 * 2**20))
        with running(manager, loop=loop) as live:
            reader, writer = await never_reading(live)
            await live.server.acall(manager.disconnect_user("ann"))
            await eventually(lambda: manager.stats().stalled == 1)
            await live.nothing_left()
            writer.close()
            del reader

    async def test_and_does_not_answer_pings(self, loop: str) -> None:
        manager = ConnectionManager()
        with running(manager, loop=loop, ws_ping_interval=0.1, ws_ping_timeout=0.1) as live:

            async def handler(websocket: WebSocket) -> None:
                async with manager.connect(websocket, "ann", room="lobby") as connection:
                    async for _ in connection:
                        pass

            _, writer, _ = await opened(live.server, live.at(handler))
            await eventually(lambda: manager.stats().connections == 1)
            assert isinstance(writer.transport, asyncio.Transport)
            writer.transport.pause_reading()
            await live.nothing_left()
            writer.close()


async def never_reading(live: Live) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client of the user ann with more than a socket takes on its way, of which it reads nothing."""

    async def handler(websocket: WebSocket) -> None:
        async with live.manager.connect(websocket, "ann", room="lobby") as connection:
            async for _ in connection:
                pass

    reader, writer, _ = await opened(live.server, live.at(handler), receive_buffer=4096)
    assert isinstance(writer.transport, asyncio.Transport)
    writer.transport.pause_reading()
    await eventually(lambda: live.manager.stats().rooms == 1)

    async def fill() -> bool:
        for _ in range(200):
            if live.manager.stats().queued_bytes > 100_000:
                return True
            await live.manager.broadcast(b"x" * 65_536, room="lobby")
            await asyncio.sleep(0)
        return False

    assert await live.server.acall(fill()), "the socket takes it all"
    return reader, writer


class TestAHandlerThatDoesNotReceive:
    @pytest.mark.parametrize("how", ["close", "reset", "talk and reset"])
    async def test_is_told_by_false_when_the_client_is_gone(self, live: Live, style: str, how: str) -> None:
        outcome: list[str] = []

        async def then(connection: Connection) -> None:
            told = True
            while told:
                told = await connection.send("tick")
                await asyncio.sleep(0.01)
            outcome.append("told")

        async with connected(live, written(live, style, then)) as websocket:
            await receive(websocket)
            if how == "talk and reset":
                await websocket.send("hello?")
                await websocket.send("anybody?")
            if how != "close":
                reset(websocket.transport)
            else:
                await websocket.close()
            await eventually(lambda: outcome == ["told"])

    @pytest.mark.parametrize("how", ["close", "reset"])
    async def test_is_ended_when_it_takes_no_notice(
        self, live: Live, style: str, how: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        outcome: list[str] = []

        async def then(connection: Connection) -> None:
            try:
                while True:
                    await connection.send("tick")
                    await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                outcome.append("cancelled")
                raise

        async with connected(live, written(live, style, then)) as websocket:
            await receive(websocket)
            if how == "reset":
                reset(websocket.transport)
            else:
                await websocket.close()
            await eventually(lambda: outcome == ["cancelled"])
        assert not tracebacks(caplog)

    async def test_is_ended_when_it_only_waits_for_something_else(
        self, live: Live, style: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        ended = asyncio.Event()

        async def then(connection: Connection) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async with connected(live, written(live, style, then)):
            pass
        await eventually(ended.is_set)
        assert not tracebacks(caplog)

    async def test_is_ended_when_it_was_kicked(self, live: Live, style: str) -> None:
        ended = asyncio.Event()

        async def then(connection: Connection) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async with connected(live, written(live, style, then)) as websocket:
            await live.server.acall(live.manager.disconnect_user("ann"))
            assert (await closed(websocket))[0] == 1008
            await eventually(ended.is_set)

    async def test_can_wait_until_its_client_is_gone(self, live: Live, style: str) -> None:
        gone = asyncio.Event()

        async def then(connection: Connection) -> None:
            await connection.wait_gone()
            await connection.wait_gone()
            gone.set()

        async with connected(live, written(live, style, then)):
            assert not gone.is_set()
        await eventually(gone.is_set)

    async def test_may_clean_up_after_its_client(self, live: Live) -> None:
        """The time that a handler has to end after it was told is its own."""
        steps: list[str] = []

        async def handler(websocket: WebSocket) -> None:
            async with live.manager.connect(websocket, "ann") as connection:
                async for _ in connection:
                    pass
                await asyncio.sleep(0.4)  # twice handler_timeout_s, and the sweep comes by
                steps.append("cleaned up")

        async with connected(live, handler):
            pass
        await eventually(lambda: steps == ["cleaned up"])

    async def test_keeps_a_client_that_talks_to_it(self, loop: str) -> None:
        """What nobody receives must not keep the server from seeing the client's pongs, nor its pings."""
        manager = ConnectionManager()
        with running(manager, loop=loop, ws_ping_interval=0.1, ws_ping_timeout=10) as live:

            async def handler(websocket: WebSocket) -> None:
                async with manager.connect(websocket, "ann") as connection:
                    told = True
                    while told:
                        told = await connection.send("tick")
                        await asyncio.sleep(0.05)

            async with client(live.server, live.at(handler)) as websocket:
                for _ in range(10):
                    await websocket.send("hello")
                    await websocket.send("how are you?")
                    await asyncio.wait_for(await websocket.ping(), DEADLINE_S)
                    assert await receive(websocket) == "tick"


class TestASocketThatNoManagerConnects:
    """What holds for every socket under the middleware: it is Starlette's alone, and looked after all the same."""

    async def test_a_handler_that_only_waits_is_ended_when_its_client_is_gone(self, live: Live) -> None:
        outcome: list[str] = []

        async def handler(websocket: WebSocket) -> None:
            await websocket.accept()
            await websocket.send_text("hello")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                outcome.append("cancelled")
                raise

        async with client(live.server, live.at(handler)) as websocket:
            await receive(websocket)
        await eventually(lambda: outcome == ["cancelled"])

    async def test_a_handler_that_was_told_by_a_send_may_clean_up(self, live: Live) -> None:
        """It outlives one that was not told, and whose client left after its own."""
        outcome: list[str] = []
        gate = asyncio.Event()

        async def handler(websocket: WebSocket) -> None:
            await websocket.accept()
            try:
                while True:
                    await websocket.send_text("tick")
                    await asyncio.sleep(0.01)
            except WebSocketDisconnect:
                outcome.append("told")
                await eventually(gate.is_set)
                outcome.append("cleaned up")

        async def waits(websocket: WebSocket) -> None:
            await websocket.accept()
            try:
                await asyncio.Event().wait()
            finally:
                outcome.append("ended")

        async with client(live.server, live.at(handler)) as websocket:
            await receive(websocket)
        await eventually(lambda: outcome == ["told"])
        async with client(live.server, live.at(waits)):
            pass
        await eventually(lambda: outcome == ["told", "ended"])
        gate.set()
        await eventually(lambda: outcome == ["told", "ended", "cleaned up"])

    async def test_an_app_that_sends_on_after_it_was_told_is_ended(
        self, loop: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """One on plain ASGI: Starlette's own sends do not get past its WebSocket again."""
        outcome: list[str] = []

        async def sends_on(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            try:
                while True:
                    with suppress(OSError):
                        await send({"type": "websocket.send", "text": "tick"})
                    await asyncio.sleep(0.01)
            finally:
                outcome.append("ended")

        app = FastAPI()
        app.mount("/plain", sends_on)
        with running(ConnectionManager(limits=Limits(handler_timeout_s=0.1)), app=app, loop=loop) as live:
            async with client(live.server, "/plain/") as websocket:
                await receive(websocket)
            await eventually(lambda: outcome == ["ended"])
            await live.nothing_left()
        assert not tracebacks(caplog)

    async def test_a_handler_that_closes_by_itself_may_go_on(self, live: Live) -> None:
        outcome: list[str] = []
        gate = asyncio.Event()

        async def handler(websocket: WebSocket) -> None:
            await websocket.accept()
            await websocket.close(4000)
            await eventually(gate.is_set)
            outcome.append("went on")

        async def waits(websocket: WebSocket) -> None:
            await websocket.accept()
            try:
                await asyncio.Event().wait()
            finally:
                outcome.append("ended")

        async with client(live.server, live.at(handler)) as websocket:
            assert await closed(websocket) == (4000, "")
        async with client(live.server, live.at(waits)):
            pass
        await eventually(lambda: outcome == ["ended"])
        gate.set()
        await eventually(lambda: outcome == ["ended", "went on"])

    async def test_a_client_that_talks_to_a_handler_that_does_not_receive_is_kept(self, loop: str) -> None:
        with running(ConnectionManager(), loop=loop, ws_ping_interval=0.1, ws_ping_timeout=10) as live:

            async def handler(websocket: WebSocket) -> None:
                await websocket.accept()
                while True:
                    await websocket.send_text("tick")
                    await asyncio.sleep(0.05)

            async with client(live.server, live.at(handler)) as websocket:
                for _ in range(10):
                    await websocket.send("hello")
                    await websocket.send("how are you?")
                    await asyncio.wait_for(await websocket.ping(), DEADLINE_S)
                    assert await receive(websocket) == "tick"

    async def test_a_client_that_does_not_read_what_the_handler_sends_is_ended(self, loop: str) -> None:
        outcome: list[str] = []

        async def handler(websocket: WebSocket) -> None:
            await websocket.accept()
            try:
                while True:
                    await websocket.send_bytes(b"x" * 65_536)
            except WebSocketDisconnect:
                outcome.append("told")

        manager = ConnectionManager(limits=Limits(stall_timeout_s=0.3))
        with running(manager, loop=loop) as live:
            _, writer, _ = await opened(live.server, live.at(handler), receive_buffer=4096)
            assert isinstance(writer.transport, asyncio.Transport)
            writer.transport.pause_reading()
            await eventually(lambda: outcome == ["told"])
            assert manager.stats().stalled == 1
            writer.close()

    async def test_a_drain_closes_it(self, loop: str) -> None:
        async def handler(websocket: WebSocket) -> None:
            await websocket.accept()
            async for text in websocket.iter_text():
                await websocket.send_text(text)

        manager = ConnectionManager()
        with running(manager, loop=loop) as live:
            path = live.at(handler)
            async with client(live.server, path) as websocket:
                await websocket.send("in")
                assert await receive(websocket) == "in"
                assert await live.server.acall(manager.drain(over_s=0)) is True
                assert await closed(websocket) == (1012, "")
            async with client(live.server, path) as late:
                assert await closed(late) == (1012, "")


class TestAfterTheEnd:
    async def test_a_second_disconnect_does_nothing(self, live: Live, style: str) -> None:
        done = asyncio.Event()

        async def then(connection: Connection) -> None:
            for _ in range(2):
                live.manager.disconnect(connection.websocket)
                live.manager.disconnect(connection.websocket, "ann")
                live.manager.disconnect(connection)
                assert connection not in live.manager.active_connections
                assert live.manager.rooms == frozenset()
            done.set()

        async with client(live.server, live.at(written(live, style, then))) as websocket:
            assert await closed(websocket) == (1000, "")
        assert done.is_set()

    async def test_disconnect_leaves_the_socket_to_the_handler(self, live: Live) -> None:
        async def handler(websocket: WebSocket) -> None:
            await live.manager.connect(websocket, "ann")
            live.manager.disconnect(websocket)
            await websocket.send_text("still here")
            assert await websocket.receive_text() == "so am I"

        async with client(live.server, live.at(handler)) as websocket:
            assert await receive(websocket) == "still here"
            await websocket.send("so am I")
            assert await closed(websocket) == (1000, "")

    @pytest.mark.parametrize("wrap", [lambda app: app, through_asgi], ids=["direct", "asgi"])
    async def test_disconnect_lets_out_what_was_sent_before(self, wrap: Callable[[Any], Any]) -> None:
        manager, app = ConnectionManager(), FastAPI()
        manager.install(app)

        @app.websocket("/ws")
        async def handler(websocket: WebSocket) -> None:
            await manager.connect(websocket, room="lobby")
            await manager.send_personal_message("one", websocket)
            await manager.broadcast("two", room="lobby")
            manager.disconnect(websocket)
            await websocket.close(4000)

        with serving(wrap(app)) as server:
            async with client(server, "/ws") as websocket:
                assert [await receive(websocket) for _ in range(2)] == ["one", "two"]
                assert await closed(websocket) == (4000, "")

    async def test_a_send_gives_false_and_raises_nothing(self, live: Live, style: str) -> None:
        outcome: list[bool] = []
        manager = live.manager

        async def then(connection: Connection) -> None:
            await connection.wait_gone()
            outcome.extend(
                [
                    await connection.send({"a": 1}),
                    await connection.send_text("a"),
                    await connection.send_bytes(b"a"),
                    await connection.send_json([1]),
                    await manager.send_personal("a", connection),
                    await manager.send_personal("a", connection.websocket),
                    await manager.send_to_user("ann", "a"),
                ]
            )
            await connection.close()

        async with connected(live, written(live, style, then)):
            pass
        await eventually(lambda: outcome == [False] * 7)

    @pytest.mark.parametrize("ended_by", ["the manager", "the client"])
    async def test_a_raw_send_raises_what_starlettes_users_know(
        self, live: Live, style: str, ended_by: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        raised: list[Exception] = []

        async def then(connection: Connection) -> None:
            await connection.wait_gone()
            sends: list[Callable[[], Awaitable[None]]] = [
                lambda: connection.websocket.send_text("a"),
                lambda: connection.websocket.send_bytes(b"a"),
                lambda: connection.websocket.send_json({}),
            ]
            for send in sends:
                try:
                    await send()
                except (WebSocketDisconnect, RuntimeError) as error:
                    raised.append(error)
            await connection.websocket.send_text("unguarded")

        async with connected(live, written(live, style, then)) as websocket:
            if ended_by == "the manager":
                await live.server.acall(live.manager.disconnect_user("ann", 4000, "out"))
                assert await closed(websocket) == (4000, "out")
        await eventually(lambda: len(raised) == 3)
        first, *again = raised
        assert isinstance(first, WebSocketDisconnect)
        assert [str(each) for each in again] == ['Cannot call "send" once a close message has been sent.'] * 2
        raised.clear()
        await live.nothing_left()
        assert not tracebacks(caplog)

    async def test_a_receive_raises_again(self, live: Live, style: str) -> None:
        raised: list[int] = []

        async def then(connection: Connection) -> None:
            for _ in range(3):
                try:
                    await connection.receive_text()
                except WebSocketDisconnect as error:
                    raised.append(error.code)

        async with connected(live, written(live, style, then)):
            pass
        await eventually(lambda: raised == [1000] * 3)

    async def test_a_join_raises_and_joins_nothing(self, live: Live) -> None:
        raised: list[type[Exception]] = []

        async def handler(websocket: WebSocket) -> None:
            async with live.manager.connect(websocket, "ann") as connection:
                await connection.wait_gone()
                try:
                    await connection.join("late")
                except WebSocketDisconnect as error:
                    raised.append(type(error))
                await connection.leave("late")

        async with connected(live, handler):
            pass
        await eventually(lambda: raised == [WebSocketDisconnect])

    async def test_a_handler_that_never_calls_disconnect_is_out_of_the_registry(self, live: Live) -> None:
        async def handler(websocket: WebSocket) -> None:
            await live.manager.connect(websocket, "ann")
            try:
                while True:
                    await live.manager.broadcast(await websocket.receive_text())
            except WebSocketDisconnect:
                pass

        async with connected(live, handler) as websocket:
            await websocket.send("echo")
            assert await receive(websocket) == "echo"
        await live.nothing_left()

    async def test_closing_from_elsewhere_ends_the_handlers_receive(self, live: Live, style: str) -> None:
        told: list[int] = []

        async def then(connection: Connection) -> None:
            async for _ in connection.iter_json():
                pass
            closed = session_of(connection).socket.closed
            assert closed is not None
            told.append(closed.code)

        async with connected(live, written(live, style, then)) as websocket:
            (connection,) = live.manager.active_connections
            await live.server.acall(connection.close(4005, "from a route"))
            assert await closed(websocket) == (4005, "from a route")
            await eventually(lambda: told == [4005])
            del connection


class TestConnecting:
    async def test_twice_is_one_connection_with_both_rooms(self, live: Live) -> None:
        seen: list[Any] = []

        async def handler(websocket: WebSocket) -> None:
            async with live.manager.connect(websocket, "ann", room="a") as first:
                second = await live.manager.connect(websocket, "ann", room="b")
                seen.extend([first is second, second.rooms == {"a", "b"}, len(live.manager.active_connections)])
                try:
                    await live.manager.connect(websocket, "bob")
                except InvalidArgument as error:
                    seen.append(error.argument)

        async with client(live.server, live.at(handler)) as websocket:
            assert await closed(websocket) == (1000, "")
        assert seen == [True, True, 1, "user_id"]

    async def test_takes_a_socket_that_the_handler_accepted(self, live: Live) -> None:
        async def handler(websocket: WebSocket) -> None:
            await websocket.accept(headers=[(b"x-by", b"hand")])
            await websocket.send_text("first")
            async with live.manager.connect(websocket) as connection:
                await connection.send("second")

        async with client(live.server, live.at(handler)) as websocket:
            assert websocket.response is not None
            assert websocket.response.headers["x-by"] == "hand"
            assert [await receive(websocket), await receive(websocket)] == ["first", "second"]

    async def test_answers_a_subprotocol_and_headers(self, live: Live) -> None:
        async def handler(websocket: WebSocket) -> None:
            await live.manager.connect(websocket, subprotocol="chat", headers=[(b"x-room", b"7")])

        async with client(live.server, live.at(handler), subprotocols=["chat"]) as websocket:
            assert websocket.subprotocol == "chat"
            assert websocket.response is not None
            assert websocket.response.headers["x-room"] == "7"

    async def test_leaves_nothing_where_a_handler_refuses_before_it(self, live: Live) -> None:
        async def handler(websocket: WebSocket) -> None:
            raise WebSocketException(1008, "no")

        async with client(live.server, live.at(handler)) as websocket:
            assert await closed(websocket) == (1008, "no")

    async def test_leaves_nothing_where_a_handler_denies_with_a_status(self, live: Live) -> None:
        async def handler(websocket: WebSocket) -> None:
            await websocket.send_denial_response(PlainTextResponse("who are you?", 401))

        with pytest.raises(InvalidStatus) as refused:
            async with client(live.server, live.at(handler)):
                pass
        assert refused.value.response.status_code == 401

    async def test_with_wrong_arguments_accepts_nothing(self, live: Live) -> None:
        async def handler(websocket: WebSocket) -> None:
            try:
                await live.manager.connect(websocket, "ann", room="")
            except InvalidArgument as error:
                await websocket.send_denial_response(PlainTextResponse(error.argument, 400))

        with pytest.raises(InvalidStatus) as refused:
            async with client(live.server, live.at(handler)):
                pass
        assert refused.value.response.status_code == 400


class TestFiveManagersOnOneApp:
    async def test_share_a_socket(self, loop: str) -> None:
        managers = [ConnectionManager() for _ in range(5)]
        app = FastAPI()
        for manager in managers:
            manager.install(app)
            manager.install(app)
        go_on = asyncio.Event()

        async def handler(websocket: WebSocket) -> None:
            connections = [await manager.connect(websocket, "ann", room=f"r{n}") for n, manager in enumerate(managers)]
            assert len({connection.id for connection in connections}) == 5
            for number, manager in enumerate(managers):
                await manager.broadcast({"from": number}, room=f"r{number}")
                await connections[number].send({"own": number})
            await websocket.send_json({"raw": True})
            assert await websocket.receive_text() == "next"
            managers[0].disconnect(websocket)
            assert await managers[0].send_personal("no", websocket) is False
            assert await managers[4].send_personal("yes", websocket) is True
            await eventually(go_on.is_set)

        with running(managers[0], app=app, loop=loop) as live:
            async with client(live.server, live.at(handler)) as websocket:
                got = [await receive(websocket) for _ in range(11)]
                assert got == [each for n in range(5) for each in ({"from": n}, {"own": n})] + [{"raw": True}]
                await websocket.send("next")
                assert await receive(websocket) == "yes"
                assert [len(manager.active_connections) for manager in managers] == [0, 1, 1, 1, 1]
                go_on.set()
                assert await closed(websocket) == (1000, "")
            for manager in managers:
                await eventually(lambda manager=manager: manager.stats().connections == 0)  # type: ignore[misc]
            await live.nothing_left()

    async def test_are_all_left_when_the_client_is_gone(self, loop: str) -> None:
        managers = [ConnectionManager() for _ in range(5)]
        app = FastAPI()
        for manager in managers:
            manager.install(app)

        async def handler(websocket: WebSocket) -> None:
            for manager in managers:
                await manager.connect(websocket, "ann", room="lobby")
            async with managers[2].connect(websocket, "ann") as connection:
                async for _ in connection:
                    pass

        with running(managers[0], app=app, loop=loop) as live:
            for how in ("close", "reset"):
                async with client(live.server, live.at(handler)) as websocket:
                    await eventually(lambda: all(manager.active_user_count == 1 for manager in managers))
                    if how == "reset":
                        reset(websocket.transport)
                await eventually(lambda: all(manager.stats().connections == 0 for manager in managers))
                await eventually(lambda: all(manager.stats().rooms == 0 for manager in managers))


class TestTheCloseTakesLong:
    """A peer that does not read holds up its close; the handler has ended, and is not to be ended again."""

    @pytest.mark.parametrize("ended_by", ["the handler", "a kick"])
    async def test_and_nothing_is_left_after_it(
        self, loop: str, style: str, ended_by: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        limits = Limits(handler_timeout_s=0.1, close_timeout_s=0.4, max_outbox_bytes=8 * 2**20)
        manager = ConnectionManager(limits=limits)
        queued = asyncio.Event()

        async def then(connection: Connection) -> None:
            while manager.stats().queued_bytes < 1_000_000:
                await connection.send(b"x" * 65_536)
            queued.set()
            if ended_by == "a kick":
                await manager.disconnect_user("ann")

        with running(manager, loop=loop) as live:
            _, writer, _ = await opened(live.server, live.at(written(live, style, then)), receive_buffer=4096)
            assert isinstance(writer.transport, asyncio.Transport)
            writer.transport.pause_reading()
            await eventually(queued.is_set)
            await live.nothing_left()
            await eventually(lambda: not live.server.server.server_state.connections)
            writer.close()
            # Those of this manager: a test of another module may hold others meanwhile.
            sockets = [each for each in gc.get_objects() if type(each) is Socket and each.manager is manager._hubbub]
            assert sockets == []
        assert not tracebacks(caplog)
