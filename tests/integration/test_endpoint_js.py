"""Endpoints, with what only the clients in JavaScript have or do: the official SDK, and our own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.integration.live import Cable, Live, live_app
from tests.integration.sdk_js import JsSdk, Node
from tests.integration.sdks import node as node  # a fixture
from tests.integration.support import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_sweeps")]


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with live_app(Live(), loop="uvloop") as live:
        yield live


@pytest.fixture(params=["json", "protobuf", "ours"])
def sdk(request: pytest.FixtureRequest, node: Node) -> JsSdk:
    return JsSdk(node.at, sdk=request.param)


async def test_pings_are_answered(live: Live, sdk: JsSdk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.endpoints.heartbeat.PING_S", 0.05)
    async with sdk.connected(live) as ann:
        await eventually(lambda: ann.frames.count(b"\0" if ann.protobuf else "{}") >= 3)
        assert await ann.rpc("aside", "still here") == "still here"
        assert len(ann.connected) == 1


async def test_a_message_without_an_answer_reaches_its_function(live: Live, sdk: JsSdk) -> None:
    name = f"sent {sdk.sdk}"
    live.gates[name] = asyncio.Event()
    async with sdk.connected(live) as ann:
        await ann.send({"method": "wait", "data": name})
        await eventually(lambda: name in live.began)
        await live.let_go(name)


async def test_a_message_to_one_connection_is_no_publication(live: Live, sdk: JsSdk) -> None:
    async with sdk.connected(live) as ann:
        (connection,) = live.manager.active_connections
        await live.server.acall(connection.send({"for": "you"}))
        await eventually(lambda: ann.messages == [{"for": "you"}])
        assert not ann.published


async def test_all_subscriptions_of_a_client_come_back_in_one_frame_and_recover(live: Live, sdk: JsSdk) -> None:
    async with Cable(live.server.port) as cable, sdk.connected(live, port=cable.port) as ann:
        rooms = await asyncio.gather(*(ann.room(f"chat:{sdk.sdk}-{n}") for n in range(256)))
        await asyncio.gather(*(room.subscribe() for room in rooms))
        await eventually(lambda: all(room.subscribed for room in rooms))
        ann.frames.clear()
        cable.cut()
        await eventually(lambda: not live.manager.active_connections)
        for room in (rooms[0], rooms[255]):
            await live.publish(room.name, "missed")
        cable.mend()
        await eventually(lambda: all(len(room.subscribed) == 2 for room in rooms))
        prefix = f"chat:{sdk.sdk}-"
        at_once = 64 if sdk.sdk == "ours" else 256  # ours leaves the server time for each of them
        assert at_once in [frame.count(prefix.encode() if ann.protobuf else prefix) for frame in ann.frames]
        assert all(room.subscribed[1].recovered for room in rooms)
        await eventually(lambda: [room.got for room in rooms] == [["missed"], *[[]] * 254, ["missed"]])


async def test_it_also_works_with_the_package_ws_and_needs_no_fallback(live: Live, sdk: JsSdk, node: Node) -> None:
    async with JsSdk(node.at, sdk=sdk.sdk, websocket="ws").connected(live) as ann:
        assert await ann.rpc("aside", "hello") == "hello"
        assert ann.transports == ["websocket"]
