"""The live view of the open connections: what it shares with a list, and what it refuses."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from hubbub.connections.active import INSTEAD, Active
from hubbub.connections.connection import Connection
from hubbub.connections.lookup import Lookup
from hubbub.errors import NotSupported
from tests.unit.connections.test_admission import Client, Manager


class World:
    """The view of a manager with two connections."""

    def __init__(self) -> None:
        self.manager = Manager()
        self.active = Active(Lookup(self.manager.registry))
        self.clients = [Client(self.manager), Client(self.manager)]
        self.connections: list[Connection] = []


def run(test: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        world = World()
        world.connections = [await client.admit("ann") for client in world.clients]
        await test(world)
        await world.manager.tasks.close(5.0)

    asyncio.run(main())


def test_it_reads_like_a_list_of_the_connections() -> None:
    async def test(world: World) -> None:
        one, two = world.connections
        active = world.active
        assert list(active) == active.copy() == active[:] == [one, two]
        assert list(reversed(active)) == [two, one]
        assert active[-1:] == [two]
        assert (len(active), bool(active), repr(active)) == (2, True, "<2 active connections>")

    run(test)


def test_a_connection_that_is_gone_is_gone_from_it_but_not_from_its_copies() -> None:
    async def test(world: World) -> None:
        copy = world.active.copy()
        for connection in world.active:  # which may change meanwhile
            await connection.close()
        assert (len(world.active), bool(world.active), len(copy)) == (0, False, 2)
        assert repr(world.active) == "<0 active connections>"

    run(test)


def test_a_socket_is_in_it_by_its_connection_and_by_its_websocket() -> None:
    async def test(world: World) -> None:
        one, two = world.connections
        await two.close()
        assert one in world.active
        assert world.clients[0].websocket in world.active
        assert two not in world.active
        assert world.clients[1].websocket not in world.active

    run(test)


def test_it_is_equal_to_the_same_connections_and_to_itself() -> None:
    async def test(world: World) -> None:
        active, manager = world.active, world.manager
        assert active == world.connections
        assert active == [client.websocket for client in world.clients]
        assert active == set(world.connections)
        assert active == Active(active._lookup)
        assert active != world.connections[:1]
        assert active != Active(Lookup(manager.registry)), "the view of another manager"
        assert active != {}
        assert active != "ann"
        assert Active(Lookup(Manager().registry)) == {}

    run(test)


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda active: "ann" in active, id="a user in it"),
        pytest.param(lambda active: None in active, id="nothing in it"),
        pytest.param(lambda active: active["ann"], id="a lookup by user"),
        pytest.param(lambda active: active[0], id="a lookup by index"),
        pytest.param(lambda active: operator.setitem(active, "ann", 1), id="an assignment"),
        pytest.param(lambda active: operator.delitem(active, "ann"), id="a deletion"),
        pytest.param(lambda active: active == {"ann": 1}, id="a comparison with a dict"),
        pytest.param(lambda active: active * 2, id="a multiple"),
        pytest.param(lambda active: 2 * active, id="a multiple from the left"),
        pytest.param(lambda active: active | set(), id="a union"),
        pytest.param(lambda active: active < [], id="an order"),
    ],
)
def test_what_a_dict_or_a_change_would_need_is_refused_with_what_to_write(use: Callable[[Any], object]) -> None:
    async def test(world: World) -> None:
        with pytest.raises(NotSupported, match=r"`"):
            use(world.active)

    run(test)


@pytest.mark.parametrize("kind", [list, dict, set])
def test_every_method_of_a_container_is_there_or_says_what_to_write(kind: type) -> None:
    async def test(world: World) -> None:
        for name in dir(kind):
            if not name.startswith("_") and name != "copy":
                with pytest.raises(NotSupported, match=rf"no {name}\(\): ") as caught:
                    getattr(world.active, name)
                assert str(caught.value).endswith(INSTEAD[name])

    run(test)


def test_it_has_no_hash_and_no_other_attribute() -> None:
    async def test(world: World) -> None:
        with pytest.raises(TypeError, match="unhashable"):
            hash(world.active)
        with pytest.raises(AttributeError, match="no attribute 'size'"):
            world.active.size  # type: ignore[attr-defined]  # noqa: B018 - which is what is tested

    run(test)
