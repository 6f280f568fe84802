"""Mistakes that type checkers catch. The mistakes never run: mypy and basedpyright read them.

An ``ignore`` comment stands where a checker reports the mistake. If the types of hubbub let one through, its comment is
unused, which is an error. What is right has no comment.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, TypedDict, assert_type
from uuid import UUID

from pydantic import BaseModel
from starlette.websockets import WebSocket

from hubbub import (
    EVERYONE,
    AsyncPublisher,
    Connection,
    ConnectionManager,
    Endpoint,
    Message,
    MessageRouter,
    Position,
    Publisher,
    Room,
    RoomOptions,
    Welcome,
)
from hubbub.testing import EndpointClient, record

# What can be sent


class Typed(TypedDict):
    text: str


class Model(BaseModel):
    text: str


@dataclass
class Data:
    text: str


class Color(Enum):
    RED = "red"


def numbers() -> Iterator[int]:
    yield 1


def messages(typed: Typed, from_json: Any) -> list[Message]:
    return [
        "text",
        b"bytes",
        bytearray(b"bytes"),
        memoryview(b"bytes"),
        {"type": "said", "text": "hello"},
        {1: None},
        typed,
        [1, 2],
        (1, "two"),
        {1, 2},
        frozenset("ab"),
        numbers(),
        (number for number in range(2)),
        Model(text="hello"),
        Data("hello"),
        Color.RED,
        1,
        1.5,
        Decimal("1.50"),
        True,
        None,
        datetime.now(UTC),
        datetime.now(UTC).date(),
        UUID(int=1),
        from_json,
    ]


async def right(manager: ConnectionManager, connection: Connection, websocket: WebSocket, message: Message) -> None:
    position: Position | None = await manager.broadcast(message, room="lobby", exclude=connection, exclude_users=42)
    await manager.broadcast({"type": "said"}, room=42, exclude=[websocket, connection.id], exclude_users=["ann", 42])
    await manager.broadcast_to_room(UUID(int=1), Model(text="hello"))
    manager.broadcast_nowait(Data("hello"), room=EVERYONE, key="k")
    online: bool = await manager.send_to_user(42, message)
    await manager.send_personal(message, websocket)
    await manager.send_personal(connection, message)
    await manager.send_personal_message("hello", websocket=websocket)
    await connection.send(message)
    connection.send_nowait(message)
    manager.disconnect(websocket)
    manager.disconnect("ann", websocket)
    position = manager.from_thread.broadcast(message, room="lobby", exclude=websocket)
    online = manager.from_thread.send_to_user("ann", message)
    assert online or position
    async with manager.connect(websocket, user_id=UUID(int=1), rooms=["a", 2]) as joined:
        await joined.join("lobby")


async def decorators_hide_no_types(manager: ConnectionManager, connection: Connection, websocket: WebSocket) -> None:
    assert_type(await manager.broadcast("hello"), Position | None)
    assert_type(await manager.send_personal("hello", websocket), bool)
    assert_type(await connection.send_text("hello"), bool)
    assert_type(await manager.connect(websocket), Connection)
    assert_type(manager.from_thread.broadcast("hello"), Position | None)
    assert_type(manager.from_thread.count_users(), int)
    await manager.broadcast("hello", rom="lobby")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await manager.broadcast("hello", "lobby")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await connection.send_text()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    manager.from_thread.broadcast("hello", rom="lobby")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    manager.from_thread.broadcast("hello", "lobby")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    manager.from_thread.connect(websocket)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


# Endpoints


async def functions_keep_their_types(manager: ConnectionManager, connection: Connection, model: Model) -> None:
    live = manager.endpoint("/live", auth=None)
    router = MessageRouter()

    @live.on("say")
    async def say(message: Model, connection: Connection) -> Color:
        return Color.RED

    @router.on("count", concurrent=True)
    def count() -> int:
        return 1

    @live.room("chat:{room}", sends=Model)
    async def may_read(room: str) -> bool:
        return True

    @live.publish("chat:{room}")
    async def publish(message: Model, room: str) -> Model | None:
        return message

    @live.connect
    async def hello(connection: Connection) -> Welcome:
        return Welcome()

    @live.disconnect
    def bye(connection: Connection) -> None: ...

    assert_type(await say(model, connection), Color)
    assert_type(count(), int)
    assert_type(await may_read("lobby"), bool)
    assert_type(await publish(model, room="lobby"), Model | None)
    assert_type(await hello(connection), Welcome)
    bye(connection)
    await say("hello", connection)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await may_read()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    live.on(say)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    live.room(may_read)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    live.include_router(live.on)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def a_room_knows_its_messages(
    endpoint: Endpoint, typed: Typed, room: Room[Model], both: Room[Model | Typed]
) -> None:
    def chat(name: str) -> Room[Model]:
        return endpoint.room_of("chat:{name}", name=name)

    untyped = endpoint.room_of("ticket:{id}", id=7)
    assert_type(untyped, Room[Any])
    narrower: Room[Typed] = both
    assert_type(await chat("lobby").broadcast(Model(text="hello"), exclude_users=42), Position | None)
    assert_type(room.from_thread.broadcast(Model(text="hello")), Position | None)
    assert_type(room.name, str)
    room.broadcast_nowait(Model(text="hello"), key="k")
    await both.broadcast(typed)
    await narrower.broadcast(typed)
    await untyped.broadcast({"anything": 1})
    await chat(7).broadcast(Model(text="hello"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await room.broadcast("hello")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await room.broadcast({"text": "hello"})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await room.broadcast(Data("hello"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    room.broadcast_nowait("hello")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    room.from_thread.broadcast("hello")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await both.broadcast(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await room.broadcast(Model(text="hello"), room="lobby")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    narrower = room  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    endpoint.room_of(chat)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def a_socket_is_no_message_of_a_room(room: Room[WebSocket]) -> None: ...  # type: ignore[type-var]  # pyright: ignore[reportInvalidTypeArguments]


# What can't be sent


async def a_socket_is_no_message(manager: ConnectionManager, connection: Connection, websocket: WebSocket) -> None:
    await manager.broadcast(connection)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await manager.broadcast(websocket)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await manager.broadcast_to_room("lobby", connection)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await manager.broadcast_to_room("lobby", websocket)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    manager.broadcast_nowait(connection)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    manager.broadcast_nowait(websocket)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await manager.send_to_user("ann", connection)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await manager.send_to_user("ann", websocket)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    manager.send_to_user_nowait("ann", connection)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await manager.send_personal(connection, websocket)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await connection.send(connection)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await connection.send(websocket)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    connection.send_nowait(websocket)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    manager.from_thread.broadcast(connection)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    manager.from_thread.send_to_user("ann", websocket)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def other_things_are_no_messages(manager: ConnectionManager, stream: AsyncIterator[str]) -> None:
    await manager.broadcast(object())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await manager.broadcast(stream)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await manager.broadcast(manager.count_users())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await manager.broadcast(print)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def a_list_is_no_room(manager: ConnectionManager, connection: Connection, websocket: WebSocket) -> None:
    await manager.broadcast("hello", room=["a", "b"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await manager.broadcast("hello", room=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await manager.broadcast_to_room(["a", "b"], "hello")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await manager.broadcast_to_room({"type": "said"}, "lobby")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await manager.broadcast_to_room(websocket, "hello")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    manager.broadcast_nowait("hello", room=["a", "b"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await manager.join(websocket, ["a", "b"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await manager.leave(websocket, ["a", "b"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await connection.join(["a", "b"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await connection.leave(["a", "b"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await manager.connect(websocket, room=["a", "b"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await manager.connect(websocket, rooms=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    manager.connections(room=["a", "b"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await manager.presence(["a", "b"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await manager.count_users(room=["a", "b"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await manager.history(["a", "b"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    manager.from_thread.broadcast("hello", room=["a", "b"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def a_dict_is_no_user_id(manager: ConnectionManager, websocket: WebSocket, user: dict[str, str]) -> None:
    await manager.send_to_user(user, "hello")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    manager.send_to_user_nowait(user, "hello")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await manager.disconnect_user(user)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await manager.is_online(user)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await manager.connect(websocket, user)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    manager.connections(user=user)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    manager.from_thread.send_to_user(user, "hello")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    manager.from_thread.disconnect_user(user)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await manager.send_to_user(websocket, "hello")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def other_mistakes(manager: ConnectionManager, connection: Connection, websocket: WebSocket) -> None:
    await manager.send_personal("ann", "hello")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    manager.disconnect("ann")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    await manager.connect("ann", websocket)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await connection.send_text({"text": "hello"})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await connection.send_bytes("hello")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    connection.user_id = "bob"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    manager.rooms = frozenset()  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    RoomOptions(overflow="latst")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await manager.history("lobby", since=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def from_other_processes(publisher: Publisher, remote: AsyncPublisher, connection: Connection) -> None:
    publisher.broadcast(connection)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    publisher.broadcast("hello", room=["a", "b"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    publisher.send_to_user({"id": 1}, "hello")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await remote.broadcast(connection)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await remote.broadcast("hello", room=["a", "b"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await remote.send_to_user({"id": 1}, "hello")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def in_tests(manager: ConnectionManager, client: EndpointClient) -> None:
    assert_type(client.rpc("say", Model(text="hello"), returns=Model), Model)
    assert_type(client.rpc("all", returns=list[Model]), list[Model])
    assert_type(client.rpc("say", {"text": "hello"}), Any)
    found: Model | None = client.rpc("find", returns=Model | None)
    assert found
    assert_type(client.receive_from("chat:lobby", Model), Model)
    assert_type(client.receive_from("chat:lobby", str, timeout_s=1), str)
    assert_type(client.receive_from("chat:lobby"), Any)
    client.receive_from(7, Model)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    with record(manager) as pushed:
        pushed.to_room(["a", "b"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        pushed.to_user({"id": 1})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
