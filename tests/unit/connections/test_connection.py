"""What apps see of a connection: receiving, sending and reading its attributes. The server is a fake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from starlette.websockets import WebSocketDisconnect

from hubbub.connections.connection import Connection, session_of
from hubbub.connections.session import Membership, Session
from hubbub.errors import InvalidArgument, NotSupported
from hubbub.names import RoomName
from tests.unit.connections import test_admission

GONE = {"type": "websocket.disconnect", "code": 4001, "reason": "done"}


class Manager(test_admission.Manager):
    """A manager that notes which rooms are joined and left."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []

    async def join(self, session: Session, room: RoomName) -> None:
        self.calls.append(("join", session, room))

    async def leave(self, session: Session, room: RoomName) -> None:
        self.calls.append(("leave", session, room))


class World:
    """A connection, and the two ends that a test holds: its client's and its manager's."""

    def __init__(self, client: test_admission.Client, manager: Manager, connection: Connection) -> None:
        self.client = client
        self.manager = manager
        self.connection = connection
        self.session = session_of(connection)

    def comes(self, *messages: str | bytes | dict[str, Any]) -> None:
        for message in messages:
            if isinstance(message, dict):
                event = dict(message)
            else:
                event = {"type": "websocket.receive", "text" if isinstance(message, str) else "bytes": message}
            self.client.server.inbox.put_nowait(event)

    async def sent(self) -> list[str | bytes]:
        """The messages that the client was sent, once all have gone out."""
        await self.session.writer.emptied()
        events = self.client.server.sent[1:]
        return [event["text"] if "text" in event else event["bytes"] for event in events]


def run(test: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        manager = Manager()
        client = test_admission.Client(manager)
        await test(World(client, manager, await client.admit("ann")))
        await manager.tasks.close(5.0)

    asyncio.run(main())


async def all_of(messages: AsyncIterator[Any]) -> list[Any]:
    return [message async for message in messages]


# Receiving

TEXT_EXPECTED = '{"type":"error","code":"text_expected","message":"a binary frame where text is expected"}'
BINARY_EXPECTED = '{"type":"error","code":"binary_expected","message":"a text frame where binary is expected"}'


@pytest.mark.parametrize(
    ("receive", "came", "got", "told"),
    [
        (Connection.receive_text, [b"?", "hello"], "hello", [TEXT_EXPECTED]),
        (Connection.receive_text, [""], "", []),
        (Connection.receive_bytes, ["?", b"hello"], b"hello", [BINARY_EXPECTED]),
        (Connection.receive_bytes, [b""], b"", []),
        (Connection.receive_json, [b"{}", '{"n": 1}'], {"n": 1}, [TEXT_EXPECTED]),
        (Connection.receive_json, ["null"], None, []),
        (Connection.receive, ["hello"], "hello", []),
        (Connection.receive, [b""], b"", []),
    ],
)
def test_a_message_of_another_kind_is_answered_and_skipped(
    receive: Any, came: list[str | bytes], got: Any, told: list[str]
) -> None:
    async def test(world: World) -> None:
        world.comes(*came)
        assert await receive(world.connection) == got
        assert await world.sent() == told
        assert sum(world.manager.counters.errors.values()) == len(told)

    run(test)


def test_a_message_that_is_no_json_is_answered_and_skipped() -> None:
    async def test(world: World) -> None:
        world.comes("{", "[" * 300, '{"n": 1}')
        assert await world.connection.receive_json() == {"n": 1}
        assert world.manager.counters.errors == {"invalid_json": 2}
        world.comes(b"[2]")
        assert await world.connection.receive_json("binary") == [2]

    run(test)


@pytest.mark.parametrize(
    "receive", [Connection.receive, Connection.receive_text, Connection.receive_bytes, Connection.receive_json]
)
def test_a_receive_raises_when_the_client_is_gone_and_so_does_the_next(receive: Any) -> None:
    async def test(world: World) -> None:
        world.comes(GONE)
        for _ in range(2):
            with pytest.raises(WebSocketDisconnect) as caught:
                await receive(world.connection)
            assert (caught.value.code, caught.value.reason) == (4001, "done")

    run(test)


@pytest.mark.parametrize(
    ("iterate", "got"),
    [
        (aiter, ["1", b"2", "3"]),
        (Connection.iter_text, ["1", "3"]),
        (Connection.iter_bytes, [b"2"]),
        (Connection.iter_json, [1, 3]),
    ],
)
def test_an_iteration_ends_when_the_client_is_gone_and_does_not_begin_after_it(iterate: Any, got: list[Any]) -> None:
    async def test(world: World) -> None:
        world.comes("1", b"2", "3", GONE, "4")
        assert await all_of(iterate(world.connection)) == got
        assert await all_of(iterate(world.connection)) == []

    run(test)


@pytest.mark.parametrize("method", [Connection.receive_json, Connection.send_json])
@pytest.mark.parametrize("mode", ["bytes", "", None])
def test_a_mode_that_does_not_exist_is_refused(method: Any, mode: Any) -> None:
    async def test(world: World) -> None:
        with pytest.raises(InvalidArgument, match=r"^mode: got .* accepted: 'text' or 'binary'"):
            await (
                method(world.connection, mode)
                if method is Connection.receive_json
                else method(world.connection, 1, mode)
            )

    run(test)


# Sending


@pytest.mark.parametrize(
    ("send", "message", "sent"),
    [
        (Connection.send, "hello", "hello"),
        (Connection.send, "", ""),
        (Connection.send, b"\xff", b"\xff"),
        (Connection.send, {"n": 1}, '{"n":1}'),
        (Connection.send_text, "hello", "hello"),
        (Connection.send_bytes, bytearray(b"\xff"), b"\xff"),
        (Connection.send_json, "hello", '"hello"'),
        (Connection.send_json, None, "null"),
    ],
)
def test_each_send_has_its_kind_of_frame(send: Any, message: Any, sent: str | bytes) -> None:
    async def test(world: World) -> None:
        assert await send(world.connection, message) is True
        assert await world.sent() == [sent]

    run(test)


def test_json_goes_as_binary_where_it_is_asked_for() -> None:
    async def test(world: World) -> None:
        await world.connection.send_json({"n": 1}, "binary")
        assert await world.sent() == [b'{"n":1}']

    run(test)


@pytest.mark.parametrize(
    ("send", "message", "argument"),
    [
        (Connection.send, object(), "message"),
        (Connection.send_text, b"bytes", "data"),
        (Connection.send_bytes, "text", "data"),
        (Connection.send_json, object(), "message"),
    ],
)
def test_a_message_of_the_wrong_kind_is_refused_and_nothing_is_sent(send: Any, message: Any, argument: str) -> None:
    async def test(world: World) -> None:
        with pytest.raises(InvalidArgument) as caught:
            await send(world.connection, message)
        assert caught.value.argument == argument
        assert await world.sent() == []

    run(test)


def test_a_send_to_a_client_that_is_gone_is_false_and_no_error() -> None:
    async def test(world: World) -> None:
        await world.connection.close()
        assert await world.connection.send("hello") is False
        assert world.connection.send_nowait("hello") is False

    run(test)


@pytest.mark.parametrize(
    ("code", "reason", "argument"),
    [(1005, None, "code"), (999, None, "code"), (5000, None, "code"), (1000, "x" * 124, "reason"), (1000, 5, "reason")],
)
def test_a_close_that_no_frame_can_carry_is_refused_and_leaves_the_connection_open(
    code: int, reason: Any, argument: str
) -> None:
    async def test(world: World) -> None:
        with pytest.raises(InvalidArgument) as caught:
            await world.connection.close(code, reason)
        assert caught.value.argument == argument
        assert world.connection.is_open

    run(test)


def test_a_close_comes_after_what_was_sent() -> None:
    async def test(world: World) -> None:
        world.connection.send_nowait("last words")
        await world.connection.close(4000, "x" * 123)
        assert world.client.server.types == ["accept", "send", "close"]
        assert not world.connection.is_open

    run(test)


# What it is


def test_a_connection_is_equal_to_its_own_websocket_and_to_no_other() -> None:
    async def test(world: World) -> None:
        connection = world.connection
        other = test_admission.Client(world.manager)
        assert connection == world.client.websocket
        assert world.client.websocket == connection
        assert hash(connection) == hash(world.client.websocket)
        assert connection != other.websocket
        assert connection != await other.admit("ann")
        assert connection != connection.id

    run(test)


def test_its_rooms_are_those_that_the_app_named() -> None:
    async def test(world: World) -> None:
        memberships = world.session.memberships
        for name in ("lobby", "hall", "$user:ann", "$everyone"):
            memberships[name] = Membership(0.0)
        assert world.connection.rooms == {"lobby", "hall"}

    run(test)


def test_its_attributes_are_those_of_its_socket_and_of_its_connect() -> None:
    async def test(world: World) -> None:
        connection = world.connection
        assert (connection.user_id, connection.info, connection.id) == ("ann", {"name": "Ann"}, world.session.id)
        assert (connection.address, connection.network) == ("192.0.2.1", "192.0.2.1")
        assert connection.websocket is world.client.websocket
        assert repr(connection) == f"<Connection {connection.id} user_id='ann' open>"
        await connection.close()
        assert repr(connection) == f"<Connection {connection.id} user_id='ann' closed>"

    run(test)


@pytest.mark.parametrize("name", ["id", "user_id", "info", "websocket", "rooms", "address", "network", "is_open"])
def test_its_attributes_can_not_be_assigned(name: str) -> None:
    async def test(world: World) -> None:
        before = getattr(world.connection, name)
        with pytest.raises(NotSupported, match=rf"^Connection\.{name} can't be assigned: "):
            setattr(world.connection, name, 1)
        with pytest.raises(NotSupported, match=rf"^Connection\.{name} can't be assigned: "):
            delattr(world.connection, name)
        assert getattr(world.connection, name) == before

    run(test)


def test_data_of_the_app_is_no_attribute_of_it() -> None:
    async def test(world: World) -> None:
        with pytest.raises(AttributeError, match="cart"):
            world.connection.cart = []  # type: ignore[attr-defined]  # which is what is tested

    run(test)


def test_rooms_are_joined_and_left_at_its_manager() -> None:
    async def test(world: World) -> None:
        await world.connection.join("lobby")
        await world.connection.leave("lobby")
        assert world.manager.calls == [("join", world.session, "lobby"), ("leave", world.session, "lobby")]

    run(test)


def test_those_who_wait_until_it_is_gone_wait_as_long_as_it_is_there() -> None:
    async def test(world: World) -> None:
        waiting = [asyncio.create_task(world.connection.wait_gone()) for _ in range(2)]
        await asyncio.sleep(0)
        assert not any(each.done() for each in waiting)
        await world.connection.close()
        await asyncio.gather(*waiting)
        await world.connection.wait_gone()

    run(test)
