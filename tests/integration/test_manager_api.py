"""What an app asks of its manager beyond the first steps: rooms of a socket, ids of every kind, who is left out."""

from __future__ import annotations

import asyncio
import copy
import inspect
import operator
import pickle
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from unittest.mock import AsyncMock
from uuid import UUID

import pytest
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection

from hubbub import Connection, ConnectionManager, InvalidArgument, Limits, NotSupported, RoomOptions
from hubbub.testing import record
from tests.integration.support import Live, client, closed, eventually, receive, receive_until, running

pytestmark = pytest.mark.anyio

ID = UUID("12345678123456781234567812345678")


@pytest.fixture(scope="module")
def shared() -> Iterator[Live]:
    with running(
        ConnectionManager(rooms={"kept": RoomOptions(history=10), "replays*": RoomOptions(history=2, replay=2)})
    ) as live:
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
            one = await stack.enter_async_context(client(live.server, f"{path}?user={user}" if user else path))
            assert await receive(one) == "ready"
            clients.append(one)
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
        await call(connection.join(room))
        assert room in connection.rooms


@pytest.mark.parametrize("room", [True, 1.5, b"lobby", None])
async def test_what_is_no_name_reaches_nobody(live: Live, room: Any) -> None:
    with pytest.raises(ValueError, match=r"^room: got .*an int or a UUID"):
        await live.server.acall(live.manager.broadcast("to nobody", room=room))


# Which connections there are


async def test_connections_are_found_by_room_and_by_user(live: Live) -> None:
    manager = live.manager
    async with connected(live, "ann", "bob", room="red"), connected(live, "ann", None, room="blue"):

        def who(**which: Any) -> list[str]:
            found = manager.connections(**which)
            assert all(each.is_open for each in found)
            return sorted(f"{each.user_id}-{'-'.join(sorted(each.rooms))}" for each in found)

        assert who() == ["None-blue", "ann-blue", "ann-red", "bob-red"]
        assert who(room="red") == ["ann-red", "bob-red"]
        assert who(user="ann") == ["ann-blue", "ann-red"]
        assert who(user="ann", room="blue") == ["ann-blue"]
        assert who(user="bob", room="blue") == who(user="eve") == who(room="green") == []
        assert await asyncio.to_thread(who, user="ann", room="blue") == ["ann-blue"]
        kept = manager.connections(room="red")
    await eventually(lambda: not manager.connections())
    assert len(kept) == 2


@pytest.mark.parametrize("which", [{"room": None}, {"user": None}, {"user": True}, {"room": ""}], ids=repr)
def test_a_missing_name_does_not_give_everybody_s_connections(shared: Live, which: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        shared.manager.connections(**which)
    assert [caught.value.argument] == list(which)


async def test_threads_look_while_clients_come_and_go(live: Live) -> None:
    manager, over, failed = live.manager, threading.Event(), list[BaseException]()

    def look() -> None:
        try:
            while not over.is_set():
                for each in (*manager.connections(room="red"), *manager.connections(user="ann", room="red")):
                    assert each.user_id == "ann"
                manager.connections()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            async with connected(live, "ann", "ann", "ann", room="red"):
                pass
    finally:
        over.set()
        for thread in threads:
            await asyncio.to_thread(thread.join)
    assert not failed


# The connections, read as the list or the dict that a hand-written manager has


async def test_active_connections_read_like_a_list(live: Live) -> None:
    active = live.manager.active_connections
    assert active == []
    assert active == {}
    assert active == set()
    assert not active
    sockets: list[WebSocket] = []

    async def handler(websocket: WebSocket) -> None:
        await live.manager.connect(websocket)
        sockets.append(websocket)
        await websocket.receive()

    path = live.at(handler)
    async with client(live.server, path), client(live.server, path):
        await eventually(lambda: len(sockets) == 2)
        first, second = active
        assert active == sockets
        assert active == set(sockets)
        assert active != sockets[::-1]
        assert active == live.manager.active_connections
        assert active is live.manager.active_connections
        assert active[:] == active.copy() == list(active) == [first, second]
        assert active[1:] == [second]
        assert list(reversed(active)) == [second, first]
        assert all(each in active for each in (*sockets, first, second))
        kept = active.copy()
    await eventually(lambda: not active)
    assert len(kept) == 2
    assert sockets[0] not in active
    assert AsyncMock(spec=WebSocket) not in active


BY_ID = [
    (lambda active: "ann" in active, "is_online"),
    (lambda active: 42 in active, "is_online"),
    (lambda active: ID in active, "manager.rooms"),
    (lambda active: None in active, "a WebSocket or a Connection"),
    (lambda active: ("ann", "lobby") in active, "a WebSocket or a Connection"),
    (lambda active: active[0], "list(manager.active_connections)"),
    (lambda active: active["ann"], "manager.connections(user=user_id)"),
    (lambda active: active.get("ann"), "manager.connections(user=user_id)"),
    (lambda active: active.items(), "iterate over"),
    (lambda active: active.keys(), "iterate over"),
    (lambda active: active.values(), "iterate over"),
    (lambda active: active == {"ann": None}, "iterate over"),
    (lambda active: active.append(None), "await manager.connect("),
    (lambda active: active.add(None), "await manager.connect("),
    (lambda active: active.setdefault("ann", []), "await manager.connect("),
    (lambda active: active.__setitem__("ann", None), "await manager.connect("),
    (lambda active: operator.setitem(active, "ann", None), "await manager.connect("),
    (lambda active: operator.delitem(active, "ann"), "manager.disconnect("),
    (lambda active: active.remove(None), "manager.disconnect("),
    (lambda active: active.pop("ann", None), "manager.disconnect("),
    (lambda active: active.clear(), "manager.disconnect("),
    (lambda active: active.index(None), "list(manager.active_connections)"),
    (lambda active: operator.add(active, [None]), "list(manager.active_connections)"),
    (lambda active: operator.add([None], active), "list(manager.active_connections)"),
    (lambda active: active + active, "list(manager.active_connections)"),
    (lambda active: active - {None}, "set(manager.active_connections)"),
    (lambda active: {None} - active, "set(manager.active_connections)"),
    (lambda active: active | {"ann": None}, "set(manager.active_connections)"),
    (lambda active: active & active, "set(manager.active_connections)"),
    (lambda active: active <= {None}, "set(manager.active_connections)"),
    (lambda active: active.difference({None}), "set(manager.active_connections)"),
    (lambda active: active.difference_update({None}), "manager.disconnect("),
]


@pytest.mark.parametrize(("asks", "instead"), BY_ID, ids=range(len(BY_ID)))
@pytest.mark.parametrize("somebody", [False, True], ids=["empty", "not empty"])
async def test_what_was_a_lookup_or_a_change_says_what_to_write(
    live: Live, asks: Callable[[Any], object], instead: str, somebody: bool
) -> None:
    async with connected(live, *["ann"] * somebody):
        with pytest.raises(NotSupported, match=re.escape(instead)):
            asks(live.manager.active_connections)


@pytest.mark.parametrize("kind", [list, dict, set])
def test_nothing_of_a_list_a_dict_or_a_set_is_missing_without_a_word(shared: Live, kind: type) -> None:
    active = shared.manager.active_connections
    for name in (name for name in dir(kind) if name[0] != "_" and name != "copy"):
        with pytest.raises(NotSupported, match=rf"no {name}\(\): .*manager"):
            getattr(active, name)


IN_ROOMS = [
    lambda rooms: rooms["lobby"],
    lambda rooms: operator.setitem(rooms, "lobby", []),
    lambda rooms: operator.delitem(rooms, "lobby"),
    lambda rooms: rooms.get("lobby", []),
    lambda rooms: rooms.items(),
    lambda rooms: rooms.values(),
    lambda rooms: rooms.setdefault("lobby", []),
    lambda rooms: rooms.pop("lobby", None),
    lambda rooms: rooms.add("lobby"),
]


@pytest.mark.parametrize("asks", IN_ROOMS, ids=range(len(IN_ROOMS)))
async def test_rooms_that_were_a_dict_say_what_to_write(live: Live, asks: Callable[[Any], object]) -> None:
    async with connected(live, "ann", room="lobby"):
        for rooms in (live.manager.rooms, *(each.rooms for each in live.manager.connections())):
            assert rooms == {"lobby"}
            with pytest.raises(NotSupported, match=r"manager.connections\(room=room\)"):
                asks(rooms)


def test_what_is_asked_of_any_object_is_answered_as_of_any(shared: Live) -> None:
    for view in (shared.manager.active_connections, shared.manager.rooms):
        asked: Any = view
        assert not hasattr(asked, "get")
        assert not hasattr(asked, "__fspath__")
        assert getattr(asked, "nothing", "default") == "default"
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            _ = asked.nothing
        assert inspect.getmembers(asked)
        assert copy.copy(asked) == asked
        assert repr(asked)
    assert pickle.loads(pickle.dumps(shared.manager.rooms)) == shared.manager.rooms


# Disconnecting, however it is written


WAYS: dict[str, Callable[[ConnectionManager, WebSocket, Connection], Any]] = {
    "the socket": lambda manager, websocket, connection: manager.disconnect(websocket),
    "the connection": lambda manager, websocket, connection: manager.disconnect(connection),
    "and a user": lambda manager, websocket, connection: manager.disconnect(websocket, "ann"),
    "a user first": lambda manager, websocket, connection: manager.disconnect(7, websocket),
    "a room and a user": lambda manager, websocket, connection: manager.disconnect(websocket, "lobby", "ann"),
    "by name": lambda manager, websocket, connection: manager.disconnect(room="lobby", websocket=websocket),
    "by another name": lambda manager, websocket, connection: manager.disconnect(client_id=7, ws=websocket),  # type: ignore[call-overload]
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("style", ["called", "awaited", "a task"])
async def test_disconnect_finds_the_socket_wherever_it_is(live: Live, way: str, style: str) -> None:
    seen: list[bool] = []

    async def handler(websocket: WebSocket) -> None:
        connection = await live.manager.connect(websocket, "ann", room="lobby")
        done = WAYS[way](live.manager, websocket, connection)
        seen.append(websocket in live.manager.active_connections)
        if style == "awaited":
            assert await done is None
        elif style == "a task":
            await asyncio.gather(asyncio.create_task(done), WAYS[way](live.manager, websocket, connection))
        await websocket.send_text("disconnected")

    async with client(live.server, live.at(handler)) as ann:
        assert await receive(ann) == "disconnected"
    assert seen == [False]


@pytest.mark.parametrize("arguments", [("ann",), (7,), ("lobby", "ann"), (None,), ()], ids=repr)
def test_disconnect_without_a_socket_says_how_to_send_a_user_away(shared: Live, arguments: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"await manager.disconnect_user\(user_id\)"):
        shared.manager.disconnect(*arguments)
    with pytest.raises(InvalidArgument, match="websocket: got 5, and no socket"):
        shared.manager.disconnect(client_id=5)  # type: ignore[call-overload]


def test_a_socket_that_is_gone_or_a_stranger_is_no_error(shared: Live) -> None:
    shared.manager.disconnect(WebSocket({"type": "websocket"}, receive=AsyncMock(), send=AsyncMock()))
    shared.manager.disconnect(AsyncMock(spec=WebSocket))


async def test_a_connect_that_nobody_awaits_is_said(live: Live) -> None:
    async def handler(websocket: WebSocket) -> None:
        with pytest.warns(RuntimeWarning, match="manager.connect.* was never awaited") as warned:
            live.manager.connect(websocket)
        assert warned[0].filename == __file__
        await websocket.accept()
        await websocket.send_text("said")

    async with client(live.server, live.at(handler)) as ann:
        assert await receive(ann) == "said"


# From a socket to its rooms


@pytest.mark.parametrize("by", ["websocket", "connection"])
async def test_the_manager_joins_and_leaves_rooms_for_a_socket(live: Live, by: str) -> None:
    manager = live.manager

    async def handler(websocket: WebSocket) -> None:
        connection = await manager.connect(websocket, "ann")
        socket = websocket if by == "websocket" else connection
        await manager.join(socket, "kept")
        await manager.join(socket, "kept")
        assert connection.rooms == {"kept"}
        await manager.broadcast("one", room="kept")
        await manager.leave(socket, "kept")
        await manager.leave(socket, "kept")
        await manager.broadcast("two", room="kept")
        await manager.broadcast("before", room=f"replays {by}")
        assert connection.rooms == set()
        await manager.join(socket, f"replays {by}")
        assert connection.rooms == {f"replays {by}"}
        await websocket.send_text("done")

    async with client(live.server, live.at(handler)) as ann:
        assert [await receive(ann) for _ in range(3)] == ["one", "before", "done"]


async def test_a_connected_socket_joins_more_rooms_by_connect_without_its_user(live: Live) -> None:
    outcome: list[object] = []

    async def handler(websocket: WebSocket) -> None:
        connection = await live.manager.connect(websocket, "ann", info={"name": "Ann"})
        outcome.append(await live.manager.connect(websocket, room="more") is connection)
        outcome.append(await live.manager.connect(websocket, "ann", rooms=["most"], info={"name": "Ann"}) is connection)
        outcome.append(set(connection.rooms))
        for wrong in ({"user_id": "bob"}, {"info": {"name": "Bob"}}):
            with pytest.raises(InvalidArgument, match=f"^{next(iter(wrong))}: this socket is connected"):
                await live.manager.connect(websocket, **wrong)
        await websocket.send_text("done")

    async with client(live.server, live.at(handler)) as ann:
        assert await receive(ann) == "done"
    assert outcome == [True, True, {"more", "most"}]


async def test_a_socket_of_nobody_does_not_become_somebody_s(live: Live) -> None:
    async def handler(websocket: WebSocket) -> None:
        await live.manager.connect(websocket)
        with pytest.raises(InvalidArgument, match=r"^user_id: this socket is connected without a user"):
            await live.manager.connect(websocket, "ann", room="more")
        await websocket.send_text("done")

    async with client(live.server, live.at(handler)) as ann:
        assert await receive(ann) == "done"


async def test_a_connect_for_more_rooms_is_within_the_limit() -> None:
    manager = ConnectionManager(limits=Limits(max_rooms_per_connection=2))

    async def handler(websocket: WebSocket) -> None:
        await manager.connect(websocket, room="one")
        await manager.connect(websocket, rooms=["one", "two"])
        await manager.connect(websocket, rooms=["two", "three"])

    with running(manager) as live:
        async with client(live.server, live.at(handler)) as ann:
            assert await closed(ann) == (1008, "too many rooms")
        await live.nothing_left()


async def test_a_socket_that_is_not_connected_is_told_to_be(live: Live) -> None:
    manager = live.manager
    gone: list[Connection] = []

    async def handler(websocket: WebSocket) -> None:
        for call in (manager.join, manager.leave):
            with pytest.raises(InvalidArgument, match=r"^websocket: is not connected .*manager.connect\(websocket\)"):
                await call(websocket, "lobby")
            with pytest.raises(InvalidArgument, match=r"^websocket: got 'lobby'"):
                await call("lobby", websocket)  # type: ignore[arg-type]
        gone.append(await manager.connect(websocket))
        await websocket.send_text("connected")
        await websocket.receive()

    async with client(live.server, live.at(handler)) as ann:
        assert await receive(ann) == "connected"
    await eventually(lambda: not gone[0].is_open)
    for socket in (gone[0], gone[0].websocket):
        with pytest.raises(WebSocketDisconnect):
            await live.server.acall(manager.join(socket, "lobby"))
        await live.server.acall(manager.leave(socket, "lobby"))
        with pytest.raises(InvalidArgument, match=r"^room: "):
            await live.server.acall(manager.leave(socket, ""))
    gone.clear()


async def test_a_personal_message_to_a_socket_before_connect_is_not_lost_silently(live: Live) -> None:
    manager = live.manager

    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        for arguments in (("who are you?", websocket), (websocket, "who are you?")):
            with pytest.raises(InvalidArgument, match=r"^websocket: is not connected yet; .*websocket.send_text"):
                await manager.send_personal_message(*arguments)
        await manager.connect(websocket)
        assert await manager.send_personal_message("connected", websocket)
        manager.disconnect(websocket)
        assert not await manager.send_personal_message("too late", websocket)
        await websocket.send_text("end")

    async with client(live.server, live.at(handler)) as ann:
        assert [await receive(ann), await receive(ann)] == ["connected", "end"]


# Who is left out


async def test_excluded_users_are_left_out_with_all_their_connections(live: Live) -> None:
    manager, call = live.manager, live.server.acall
    async with connected(live, "7", "7", "bob", None, room="lobby") as (one, two, bob, nobody):
        await call(manager.broadcast("not for 7", exclude_users=7))
        await call(manager.broadcast("nor this", room="lobby", exclude_users=iter(["7", "eve"])))
        await call(manager.broadcast_to_room("lobby", "only for nobody", exclude_users=[7, "bob"]))
        bob_s = manager.connections(user="bob")[0].id
        await call(manager.broadcast("for neither", room="lobby", exclude=bob_s, exclude_users="7"))
        await asyncio.to_thread(manager.from_thread.broadcast, "from a thread", exclude_users="7")
        await call(manager.broadcast("end", exclude_users=()))

        def hears(client: ClientConnection) -> Any:
            return receive_until(client, lambda message: message == "end")

        assert [await hears(each) for each in (one, two)] == [["end"], ["end"]]
        assert await hears(bob) == ["not for 7", "nor this", "from a thread", "end"]
        heard = ["not for 7", "nor this", "only for nobody", "for neither", "from a thread", "end"]
        assert await hears(nobody) == heard


async def test_an_excluded_user_is_not_replayed_what_it_was_excluded_from(live: Live) -> None:
    manager, call = live.manager, live.server.acall
    await call(manager.broadcast("not for ann", room="replays", exclude_users="ann"))
    await call(manager.broadcast("for all", room="replays"))

    async def handler(websocket: WebSocket) -> None:
        async with manager.connect(websocket, websocket.query_params["user"], room="replays") as connection:
            await connection.send("end")

    path = live.at(handler)
    for user, missed in (("ann", ["for all"]), ("bob", ["not for ann", "for all"])):
        async with client(live.server, f"{path}?user={user}") as one:
            assert await receive_until(one, lambda message: message == "end") == [*missed, "end"]


async def test_a_user_s_id_that_looks_like_a_connection_s_is_known(live: Live) -> None:
    user = "abcdefghijklmnopqrst_-"
    await live.server.acall(live.manager.broadcast("nobody has this id", exclude=user))
    async with connected(live, user):
        with pytest.raises(InvalidArgument, match=r"^exclude: .* is a user; .*exclude_users="):
            await live.server.acall(live.manager.broadcast("not for them", exclude=[user]))
