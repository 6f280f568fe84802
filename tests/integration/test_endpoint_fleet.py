"""Endpoints on workers that share a Redis: clients of the official SDKs that a load balancer moves between them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.live import Cable, Live, live_app
from tests.integration.redis_server import RedisServer, fresh_prefix
from tests.integration.sdk import Sdk
from tests.integration.sdks import node as node  # fixtures
from tests.integration.sdks import sdk as sdk
from tests.integration.support import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_sweeps")]


@pytest.fixture(scope="module")
def workers(redis: RedisServer) -> Iterator[tuple[Live, Live]]:
    url = redis.url(prefix=fresh_prefix())
    with live_app(Live(url), loop="asyncio") as one, live_app(Live(url), loop="uvloop") as two:
        yield one, two


async def has_connections(worker: Live, user: str, count: int) -> None:
    await eventually(lambda: len(worker.manager.connections(user=user)) == count)


async def test_a_client_that_is_moved_to_another_worker_misses_nothing(
    workers: tuple[Live, Live], sdk: Sdk, request: pytest.FixtureRequest
) -> None:
    one, two = workers
    name = f"chat:{request.node.name}"
    expected: list[str] = []

    async def publish(message: str) -> None:
        """By both workers in turn."""
        await workers[len(expected) % 2].publish(name, message)
        expected.append(message)

    async with (
        Cable(one.server.port) as cable,
        sdk.connected(one, "ann", port=cable.port) as ann,
        sdk.connected(two, "bob") as bob,
    ):
        room, room_of_bob = await ann.subscribed(name), await bob.subscribed(name)
        await publish("before")
        for here, there in ((one, two), (two, one)):
            await eventually(lambda: room.got == expected)
            cable.cut()
            await has_connections(here, "ann", 0)
            for n in range(20):
                await publish(f"while cut {n}")
            cable.leads_to = there.server.port
            cable.mend()
            await has_connections(there, "ann", 1)
            await publish("after")
        await eventually(lambda: room.got == expected)
        assert room.offsets == [*range(1, len(expected) + 1)]
        assert [each.recovered for each in room.subscribed] == [False, True, True]
        assert sorted((await room_of_bob.presence()).values()) == ["ann", "bob"]
        assert room_of_bob.leaves == []  # she was away for less than the grace period
        await two.server.acall(two.manager.send_to_user("ann", "from the other worker"))
        await eventually(lambda: ann.published[-1:] == [("$user", "from the other worker")])
        await two.server.acall(two.manager.disconnect_user("ann"))
        await eventually(lambda: [code for code, _ in ann.disconnected] == [3503])
