"""Thousands of clients come and are lost in every way there is, and then nothing of them is left."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import pytest
from fastapi import WebSocket, WebSocketDisconnect

from hubbub import Connection, ConnectionManager, Limits, RoomOptions
from hubbub.connections.socket import Socket
from hubbub.rooms.room import Room
from hubbub.timers import Timer
from tests.integration.support import Live, eventually, masked, opened, reset, running

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_sweeps")]

AT_ONCE = 14
GROWTH_BYTES = 250  # for each client of one round: what tables, caches and cancelled timers may come and go by

Client = Callable[[Live, str, str], Awaitable[None]]


@pytest.fixture(autouse=True)
def _no_logs() -> Iterator[None]:
    """The log records that pytest keeps would be what grows."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def make_handler(manager: ConnectionManager) -> Callable[[WebSocket], Awaitable[None]]:
    """A handler that does what its client asks for."""

    async def handler(websocket: WebSocket) -> None:
        query = websocket.query_params
        user, ending = query["user"], query["ending"]
        if ending == "gone before accept":
            await asyncio.sleep(0.02)
        connection = await manager.connect(
            websocket,
            None if ending == "nobody" else user,
            rooms=["lobby", f"own:{user}", "kept"],
            info={"name": user},
            expires_at=time.time() + (0.05 if ending == "expiry" else 3600),
        )
        await connection.send("in")
        await manager.broadcast({"hello": user}, room="kept", exclude=connection)
        if ending == "hand-written":
            try:
                await websocket.receive_text()
            except WebSocketDisconnect:
                manager.disconnect(websocket)
                manager.disconnect(websocket)
            return
        if ending == "push only":
            told = True
            while told:
                told = await connection.send("tick")
                await asyncio.sleep(0.01)
            return
        if ending == "push only, and does not look":
            while True:
                await connection.send("tick")
                await asyncio.sleep(0.01)
        async for message in connection:
            if message == "crash":
                raise ZeroDivisionError
            if message == "cancel":
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            if message == "return":
                return
            if message == "bad":
                await connection.receive_json()

    return handler


async def enter(live: Live, path: str, ending: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer, status = await opened(live.server, f"{path}?{ending}")
    assert status == 101
    await asyncio.wait_for(reader.readuntil(b"\x81\x02in"), 10)
    return reader, writer


async def until_closed(reader: asyncio.StreamReader, code: int) -> None:
    """Reads up to the Close frame, which is the last one."""
    frames = b""
    wanted = code.to_bytes(2, "big")
    while not (b"\x88" in frames and wanted in frames[frames.rindex(b"\x88") :]):
        data = await asyncio.wait_for(reader.read(65536), 10)
        assert data, frames
        frames += data


async def close(live: Live, path: str, ending: str) -> None:
    reader, writer = await enter(live, path, ending)
    writer.write(masked(0x88, (1000).to_bytes(2, "big")))
    await until_closed(reader, 1000)
    writer.close()


async def tcp_reset(live: Live, path: str, ending: str) -> None:
    _, writer = await enter(live, path, ending)
    reset(writer.transport)


async def no_close_frame(live: Live, path: str, ending: str) -> None:
    _, writer = await enter(live, path, ending)
    writer.close()


async def no_answer_to_a_close(live: Live, path: str, ending: str) -> None:
    reader, writer = await enter(live, path, ending)
    writer.write(masked(0x81, b"return"))
    await until_closed(reader, 1000)
    writer.close()


async def half_a_request(live: Live, path: str, ending: str) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", live.server.port)
    writer.write(f"GET {path}?{ending} HTTP/1.1\r\nHost: x\r\nUpgrade: webso".encode())
    await writer.drain()
    reset(writer.transport)


async def gone_before_accept(live: Live, path: str, ending: str) -> None:
    entering = asyncio.create_task(opened(live.server, f"{path}?{ending}"))
    await asyncio.wait([entering], timeout=0.01)
    entering.cancel()
    if not (await asyncio.gather(entering, return_exceptions=True))[0] and not entering.cancelled():
        entering.result()[1].close()


async def garbage(live: Live, path: str, ending: str) -> None:
    reader, writer = await enter(live, path, ending)
    writer.write(masked(0x83, b"?"))
    await until_closed(reader, 1002)
    writer.close()


async def invalid_utf8(live: Live, path: str, ending: str) -> None:
    reader, writer = await enter(live, path, ending)
    writer.write(masked(0x81, b"\xff"))
    await until_closed(reader, 1007)
    writer.close()


async def bad_messages(live: Live, path: str, ending: str) -> None:
    reader, writer = await enter(live, path, ending)
    writer.write(masked(0x81, b"bad") + masked(0x81, b"{") * 3)
    await until_closed(reader, 1007)
    writer.close()


async def crash(live: Live, path: str, ending: str) -> None:
    reader, writer = await enter(live, path, ending)
    writer.write(masked(0x81, b"crash"))
    await until_closed(reader, 1011)
    writer.close()


async def cancelled(live: Live, path: str, ending: str) -> None:
    reader, writer = await enter(live, path, ending)
    writer.write(masked(0x81, b"cancel"))
    await until_closed(reader, 1011)
    writer.close()


async def kick(live: Live, path: str, ending: str) -> None:
    reader, writer = await enter(live, path, ending)
    user = ending.partition("user=")[2].partition("&")[0]
    assert await live.server.acall(live.manager.disconnect_user(user))
    await until_closed(reader, 1008)
    writer.close()


async def expiry(live: Live, path: str, ending: str) -> None:
    reader, writer, _ = await opened(live.server, f"{path}?{ending}")
    await until_closed(reader, 1008)
    writer.close()


LOSSES: dict[str, Client] = {
    "close": close,
    "nobody": close,
    "hand-written": close,
    "push only": close,
    "push only, and does not look": close,
    "tcp reset": tcp_reset,
    "push only, and reset": tcp_reset,
    "no close frame": no_close_frame,
    "no answer to a close": no_answer_to_a_close,
    "half a request": half_a_request,
    "gone before accept": gone_before_accept,
    "garbage": garbage,
    "invalid UTF-8": invalid_utf8,
    "bad messages": bad_messages,
    "crash": crash,
    "cancelled": cancelled,
    "kick": kick,
    "expiry": expiry,
}


async def a_round(live: Live, path: str, number: int) -> None:
    """Clients lost in every way, all mixed."""
    gate = asyncio.Semaphore(50)

    async def come_and_go(client: Client, ending: str, user: str) -> None:
        async with gate:
            await client(live, path, f"user={user}&ending={ending}".replace(" ", "%20"))

    await asyncio.gather(
        *(
            come_and_go(client, ending, f"{number}-{index}-{each}")
            for each in range(AT_ONCE)
            for index, (ending, client) in enumerate(LOSSES.items())
        )
    )
    await live.nothing_left()
    await eventually(lambda: not live.server.server.server_state.connections)


def ours() -> list[object]:
    """The objects of this process that must not pile up."""
    gc.collect()
    kinds = (Connection, Socket, Room, Timer, asyncio.Task)
    found = [each for each in gc.get_objects() if isinstance(each, kinds)]
    return [each for each in found if not isinstance(each, asyncio.Task) or each.get_name().startswith("hubbub:")]


OTHERS: list[object] = []
"""Objects that tests of other modules hold meanwhile, since the servers of a module outlive its tests."""


def what_is_left() -> Counter[str]:
    known = set(map(id, OTHERS))
    return Counter(type(each).__name__ for each in ours() if id(each) not in known)


async def nothing_but_timers() -> None:
    try:
        await eventually(lambda: set(what_is_left()) <= {"Timer"})
    except AssertionError:
        raise AssertionError(f"left behind: {dict(what_is_left())}") from None


async def endure(loop: str, rounds: int, traced: int) -> None:
    """Some rounds to warm up, then some between which memory is compared."""
    OTHERS[:] = ours()
    try:
        await endure_beside_others(loop, rounds, traced)
    finally:
        OTHERS.clear()


async def endure_beside_others(loop: str, rounds: int, traced: int) -> None:
    manager = ConnectionManager(
        rooms={
            "kept": RoomOptions(history=20, replay=10, grace_s=0),
            "own:*": RoomOptions(announce=True, grace_s=0.05),
            "lobby": RoomOptions(grace_s=0.05),
        },
        everyone=RoomOptions(grace_s=0.05),
        limits=Limits(handler_timeout_s=0.1, close_timeout_s=1, max_errors=2),
    )
    with running(manager, loop=loop) as live:
        path = live.at(make_handler(manager))
        for number in range(rounds):
            await a_round(live, path, number)
            await nothing_but_timers()
            assert what_is_left()["Timer"] < 500, "timers that were cancelled pile up"
            assert await live.server.acall(manager.presence("lobby")) == []
            assert await live.server.acall(manager.count_users()) == 0
        tracemalloc.start()
        try:
            before, first = await traced_round(live, path, rounds)
            for number in range(traced):
                after, second = await traced_round(live, path, rounds + number + 1)
        finally:
            tracemalloc.stop()
        grown = (after - before) / (AT_ONCE * len(LOSSES))
        most = "\n".join(map(str, second.compare_to(first, "lineno")[:15]))
        assert grown < GROWTH_BYTES, f"{traced} rounds leave {grown:.0f} bytes for each client of one\n{most}"


async def traced_round(live: Live, path: str, number: int) -> tuple[int, tracemalloc.Snapshot]:
    """Gives what is allocated after one more round."""
    await a_round(live, path, number)
    await nothing_but_timers()
    for _ in range(3):  # one does nothing where the server's thread is collecting at that moment
        gc.collect()
        await asyncio.sleep(0)
    return tracemalloc.get_traced_memory()[0], tracemalloc.take_snapshot()


@pytest.mark.parametrize("loop", ["uvloop"], indirect=True)  # the soak is for both
async def test_a_thousand_losses_of_every_kind_leave_nothing(loop: str) -> None:
    await endure(loop, rounds=2, traced=1)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_tens_of_thousands_of_losses_of_every_kind_leave_nothing(loop: str) -> None:
    await endure(loop, rounds=20, traced=20)
