"""What an app asks of its manager beyond the first steps: rooms of a socket, ids of every kind, who is left out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection

from hubbub import ConnectionManager, Position, RoomOptions
from hubbub.testing import record
from tests.integration.support import Live, client, receive, running

pytestmark = pytest.mark.anyio

ID = UUID("12345678123456781234567812345678")


@pytest.fixture(scope="module")
def shared() -> Iterator[Live]:
    with running(ConnectionManager(rooms={"kept": RoomOptions(history=10)})) as live:
        yield live


@pytest.fixture
async def live(shared: Live) -> AsyncIterator[Live]:
    yield shared
    await shared.nothing_left()
    shared.forget_handlers()


@asynccontextmanager
async def connected(live: Live, *people: str | None, **more: Any) -> AsyncIterator[list[ClientConnection]]:
    """A client for each user, None for nobody, whose handlers wait until it is gone."""

    async def handler(websocket: WebSocket) -> None:
        user = websocket.query_params.get("user")
        async with live.manager.connect(websocket, user, **more) as connection:
            await connection.send("ready")
            await connection.wait_gone()

    path = live.at(handler)
    async with AsyncExitStack() as stack:
        clients = []
        for user in people:
            clients.append(
                await stack.enter_async_context(client(live.server, f"{path}?user={user}" if user else path))
            )
            assert await receive(clients[-1]) == "ready"
        yield clients


# Names of rooms


@pytest.mark.parametrize("room", [5, ID], ids=["int", "uuid"])
async def test_a_room_is_called_by_an_int_or_a_uuid_wherever_a_room_is_named(live: Live, room: Any) -> None:
    manager, call = live.manager, live.server.acall
    async with connected(live, "ann", room=room) as (ann,):
        assert manager.rooms == {str(room)}
        assert room in manager.rooms
        with record(manager) as pushed:
            await call(manager.broadcast("one", room=room))
            await call(manager.broadcast_to_room(str(room), "two"))
            await asyncio.to_thread(manager.from_thread.broadcast, "three", room=room)
            assert pushed.to_room(room) == pushed.to_room(str(room)) == ["one", "two", "three"]
        assert [await receive(ann) for _ in range(3)] == ["one", "two", "three"]
        assert [member.user_id for member in await call(manager.presence(room))] == ["ann"]
        assert await call(manager.count_users(room=room)) == 1
        assert await call(manager.history(room)) == []
        (connection,) = manager.active_connections
        assert room in connection.rooms
        await call(connection.leave(room))
        await call(connection.join(room, {room: Position("a", 0)}))  # type: ignore[dict-item]  # by whatever it is called
        assert room in connection.rooms


@pytest.mark.parametrize("room", [True, 1.5, b"lobby", None])
async def test_what_is_no_name_reaches_nobody(live: Live, room: Any) -> None:
    with pytest.raises(ValueError, match=r"^room: got .*an int or a UUID"):
        await live.server.acall(live.manager.broadcast("to nobody", room=room))
