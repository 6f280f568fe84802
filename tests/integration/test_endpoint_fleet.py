"""Endpoints on several workers over Redis, with the official SDK for Python in JSON and in Protobuf."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.live import Cable, Live, live_app
from tests.integration.live_worker import live_process
from tests.integration.redis_server import RedisServer, fresh_prefix
from tests.integration.sdk import Client, Refused, Room
from tests.integration.sdk_python import PythonSdk
from tests.integration.support import LiveServer, eventually, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_sweeps")]

JSON, PROTOBUF = PythonSdk(protobuf=False), PythonSdk(protobuf=True)
EXAMPLE = Path(__file__).parents[2] / "examples" / "endpoints.py"
slow = pytest.mark.slow


@pytest.fixture
def workers(redis: RedisServer) -> Iterator[list[Live]]:
    url = redis.url(prefix=fresh_prefix())
    with live_app(Live(url), loop="uvloop") as one, live_app(Live(url)) as two:
        yield [one, two]


async def publish_all(worker: Live, room: str, count: int) -> None:
    async def publish() -> None:
        for n in range(count):
            await worker.manager.broadcast(n, room=room)

    await worker.server.acall(publish(), 60.0)


async def comes_to(room: Room, message: Any) -> None:
    """Waits until a message is the last that a subscription got."""
    await eventually(lambda: room.got[-1:] == [message], 60.0)


@asynccontextmanager
async def travellers(worker: Live, cable: Cable, room: str) -> AsyncIterator[list[tuple[Client, Room]]]:
    """A client in each encoding that reaches its worker over a cable, subscribed to a room."""
    async with AsyncExitStack() as stack:
        made = []
        for sdk, user in ((JSON, "ann"), (PROTOBUF, "bob")):
            client = await stack.enter_async_context(sdk.connected(worker, user, port=cable.port))
            made.append((client, await client.subscribed(room)))
        yield made


# From one worker to the other


@pytest.mark.parametrize(
    ("missed", "kept"),
    [(100, True), pytest.param(0, True, marks=slow), pytest.param(1, True, marks=slow),
     pytest.param(10_000, True, marks=slow), pytest.param(5, False, marks=slow), pytest.param(6, False, marks=slow)],
)  # fmt: skip
async def test_clients_that_are_cut_off_recover_on_another_worker(missed: int, kept: bool, workers: list[Live]) -> None:
    """Rooms whose names begin with ``short`` keep five messages: six are one too many."""
    one, two = workers
    room = "chat:thrown" if kept else "short:thrown"
    async with Cable(one.server.port) as cable, travellers(one, cable, room) as clients:
        await two.publish(room, "before")
        await eventually(lambda: all(place.got == ["before"] for _, place in clients))
        cable.cut()
        await eventually(lambda: not one.manager.stats().connections)
        await publish_all(two, room, missed)
        cable.leads_to = two.server.port
        cable.mend()
        await eventually(lambda: all(len(place.subscribed) == 2 for _, place in clients))
        await one.publish(room, "after")
        recovers = kept or missed <= 5
        for _, place in clients:
            await comes_to(place, "after")
            assert place.subscribed[1].was_recovering
            assert place.subscribed[1].recovered == recovers
            assert place.got == ["before", *(range(missed) if recovers else ()), "after"]
            if recovers:
                assert place.offsets == list(range(1, missed + 3))
        assert len(two.manager.connections(room=room)) == 2


async def test_clients_of_a_worker_that_drains_go_on_without_a_gap_and_are_known_all_the_time(
    workers: list[Live],
) -> None:
    one, two = workers
    async with (
        JSON.connected(two, "eve") as eve,
        Cable(one.server.port) as cable,
        travellers(one, cable, "chat:drained") as clients,
    ):
        watched = await eve.subscribed("chat:drained")
        cable.leads_to = two.server.port
        publishing = asyncio.create_task(publish_all(two, "chat:drained", 300))
        await one.server.acall(one.manager._hubbub.drain(0.0))
        await publishing
        await eventually(lambda: all(len(place.subscribed) == 2 for _, place in clients))
        await two.publish("chat:drained", "after")
        for client, place in clients:
            await comes_to(place, "after")
            assert place.got == [*range(300), "after"]
            assert place.subscribed[1].recovered
            assert client.connecting[-1] == 3001
        assert sorted((await watched.presence()).values()) == ["ann", "bob", "eve"]
        assert await watched.presence_stats() == (3, 3)
        assert watched.leaves == []  # they came back within their grace period
        ann, _ = clients[0]
        await one.server.acall(one.manager.disconnect_user("ann"))  # from a worker that does not have her
        await eventually(lambda: [code for code, _ in ann.disconnected] == [3503])
        await eventually(lambda: watched.leaves == ["ann"])
        assert sorted((await watched.presence()).values()) == ["bob", "eve"]


@slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("missed", [1, 10_000])
async def test_clients_of_a_worker_that_is_killed_recover_on_another(
    missed: int, redis: RedisServer, tmp_path: Path
) -> None:
    url = redis.url(prefix=fresh_prefix())
    with live_process(url, tmp_path) as one, live_app(Live(url)) as two:
        async with (
            JSON.connected(two, "eve") as eve,
            Cable(one.port) as cable,
            travellers(two, cable, "chat:killed") as clients,
        ):
            watched = await eve.subscribed("chat:killed")
            await two.publish("chat:killed", "before")
            await eventually(lambda: all(place.got == ["before"] for _, place in clients))
            one.kill()
            cable.cut()
            await publish_all(two, "chat:killed", missed)
            cable.leads_to = two.server.port
            cable.mend()
            await eventually(lambda: all(len(place.subscribed) == 2 for _, place in clients))
            await two.publish("chat:killed", "after")
            for _, place in clients:
                await comes_to(place, "after")
                assert place.got == ["before", *range(missed), "after"]
                assert place.offsets == list(range(1, missed + 3))

            async def is_as_if_nothing_had_happened() -> bool:
                users = sorted((await watched.presence()).values())
                return users == ["ann", "bob", "eve"] and await watched.presence_stats() == (3, 3)

            await eventually(is_as_if_nothing_had_happened, 60.0)  # once the lease of the dead worker has ended


# The example of the docs


@contextmanager
def example(count: int, redis: RedisServer) -> Iterator[list[LiveServer]]:
    """The example as printed, on one worker; on several, with the URL of Redis."""
    source = EXAMPLE.read_text()
    if count > 1:
        url = redis.url(prefix=fresh_prefix())
        assert source.count("ConnectionManager(rooms=") == 1
        source = source.replace("ConnectionManager(rooms=", f"ConnectionManager({url!r}, rooms=")
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        servers = []
        for number in range(count):
            module = types.ModuleType(f"example_{number}")
            patch.setitem(sys.modules, module.__name__, module)
            exec(compile(source, str(EXAMPLE), "exec"), vars(module))
            servers.append(stack.enter_context(serving(module.app)))
        yield servers


@pytest.mark.parametrize("count", [1, pytest.param(4, marks=slow)])
async def test_the_example_does_what_the_docs_say(count: int, redis: RedisServer) -> None:
    with example(count, redis) as servers:
        places = [types.SimpleNamespace(server=server) for server in servers]
        async with AsyncExitStack() as stack:
            clients: list[tuple[Client, Room]] = []
            for number, user in enumerate(("ann", "bob", "cy", "dan")):
                sdk, place = (JSON, PROTOBUF)[number % 2], places[number % count]
                client = await stack.enter_async_context(sdk.connected(place, None, path=f"/live?name={user}"))
                clients.append((client, await client.subscribed("chat:lobby")))
            said: list[Any] = []
            for client, _ in clients:
                reply = await client.rpc("say", {"room": "lobby", "text": "hello"})
                said.append(reply)
            assert [each["user_id"] for each in said] == ["ann", "bob", "cy", "dan"]
            for client, room in clients:
                await comes_to(room, said[-1])
                assert room.got == said
                with pytest.raises(Refused, match="text: "):
                    await client.rpc("say", {"room": "lobby", "text": ""})
                with pytest.raises(Refused, match="subscribe to the room first") as refused:
                    await client.rpc("say", {"room": "elsewhere", "text": "hello"})
                assert refused.value.code == 403
            staff = [await client.room("chat:staff") for client, _ in clients]
            for each in staff:
                await each.subscribe()
            await eventually(lambda: bool(staff[0].subscribed))
            await eventually(lambda: all([code for code, _ in each.unsubscribed] == [103] for each in staff[1:]))
