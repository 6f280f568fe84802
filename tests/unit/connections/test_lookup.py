"""From what an app names to connections: each kind of name, of open, gone and foreign sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.websockets import WebSocket, WebSocketDisconnect

from hubbub.connections.connection import session_of
from hubbub.connections.lookup import Lookup
from hubbub.errors import InvalidArgument
from tests.unit.connections.test_admission import Client, Manager

ID = "A" * 22


def run(test: Callable[[Manager, Lookup], Awaitable[None]]) -> None:
    async def main() -> None:
        manager = Manager()
        await test(manager, Lookup(manager.registry))
        await manager.tasks.close(5.0)

    asyncio.run(main())


def stranger() -> WebSocket:
    """A WebSocket that no middleware of ours has seen."""

    async def never(*_: Any) -> Any:
        raise AssertionError("nothing comes and nothing goes")

    return WebSocket({"type": "websocket", "path": "/", "headers": []}, never, never)


def test_a_connection_is_found_by_itself_and_by_its_websocket() -> None:
    async def test(manager: Manager, lookup: Lookup) -> None:
        client = Client(manager)
        assert lookup.find(client.websocket) is None, "it is not connected yet"
        connection = await client.admit()
        assert lookup.find(connection) is connection
        assert lookup.find(client.websocket) is connection
        assert lookup.connected(client.websocket) is connection
        assert lookup.addressee(client.websocket) is session_of(connection)

    run(test)


@pytest.mark.parametrize("name", [None, "ann", ID, object(), stranger(), object.__new__(WebSocket)])
def test_what_names_no_socket_of_ours_finds_nothing(name: Any) -> None:
    async def test(manager: Manager, lookup: Lookup) -> None:
        await Client(manager).admit("ann")
        assert lookup.find(name) is None
        with pytest.raises(InvalidArgument, match=r"^websocket: ") as caught:
            lookup.connected(name)
        assert "after `await manager.connect(websocket)`" in caught.value.accepted

    run(test)


def test_a_connection_of_another_manager_on_the_same_socket_is_not_found() -> None:
    async def test(manager: Manager, lookup: Lookup) -> None:
        client = Client(other := Manager())
        theirs = await client.admit()
        assert (lookup.find(theirs), lookup.find(client.websocket)) == (None, None)
        assert lookup.addressee(client.websocket) is None, "its client is there, and so it is no mistake"
        assert Lookup(other.registry).find(client.websocket) is theirs

    run(test)


def test_a_socket_that_is_gone_says_how_it_was_closed() -> None:
    async def test(manager: Manager, lookup: Lookup) -> None:
        client = Client(manager)
        connection = await client.admit()
        await connection.close(4000, "enough")
        for name in (connection, client.websocket):
            assert lookup.find(name) is None
            with pytest.raises(WebSocketDisconnect) as caught:
                lookup.connected(name)
            assert (caught.value.code, caught.value.reason) == (4000, "enough")
            assert lookup.addressee(name) is None

    run(test)


def test_a_socket_that_was_never_connected_is_no_addressee_and_says_what_to_do() -> None:
    async def test(manager: Manager, lookup: Lookup) -> None:
        client = Client(manager)
        with pytest.raises(InvalidArgument, match=r"^websocket: is not connected yet"):
            lookup.addressee(client.websocket)
        session_of(await client.admit()).end(grace=False)
        assert lookup.addressee(client.websocket) is None, "it was connected, and is no more"

    run(test)


def test_a_client_that_left_before_it_was_connected_is_no_mistake() -> None:
    async def test(manager: Manager, lookup: Lookup) -> None:
        client = Client(manager)
        client.socket.on_lost()
        assert lookup.addressee(client.websocket) is None

    run(test)


# Exclusions


def test_whoever_is_named_is_excluded_by_id() -> None:
    async def test(manager: Manager, lookup: Lookup) -> None:
        clients = [Client(manager) for _ in range(3)]
        one, two, three = [await client.admit() for client in clients]
        assert lookup.excluded(None) == lookup.excluded([]) == frozenset()
        assert lookup.excluded(one) == lookup.excluded(one.id) == lookup.excluded(clients[0].websocket) == {one.id}
        assert lookup.excluded([one, two.id, clients[2].websocket, one]) == {one.id, two.id, three.id}
        assert lookup.excluded(iter([one])) == {one.id}

    run(test)


def test_a_websocket_that_has_no_connection_excludes_nobody() -> None:
    async def test(manager: Manager, lookup: Lookup) -> None:
        assert lookup.excluded(Client(manager).websocket) == frozenset()
        assert lookup.excluded(stranger()) == frozenset()

    run(test)


def test_an_id_of_another_worker_is_taken_as_it_is_unless_it_is_a_user_here() -> None:
    async def test(manager: Manager, lookup: Lookup) -> None:
        assert lookup.excluded(ID) == {ID}
        await Client(manager).admit(ID)
        with pytest.raises(InvalidArgument, match=r"^exclude: .* is a user.*exclude_users="):
            lookup.excluded(ID)

    run(test)


@pytest.mark.parametrize("exclude", [5, "ann", ["ann"], [None], [5], object()])
def test_what_can_not_be_excluded_is_refused(exclude: Any) -> None:
    async def test(_: Manager, lookup: Lookup) -> None:
        with pytest.raises(InvalidArgument, match=r"^exclude: "):
            lookup.excluded(exclude)

    run(test)
