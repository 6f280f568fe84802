"""What `connect` is given: checked before the socket is accepted, and named when it is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any
from unittest.mock import AsyncMock
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.websockets import WebSocket

from hubbub import ConnectionManager, InvalidArgument, Limits
from hubbub.arguments import (
    close_reason,
    detached_info,
    excluded_users,
    message_key,
    room_names,
    timestamp,
)
from hubbub.connections.socket import Socket
from tests.unit.support import may_refuse

NAN, INF = float("nan"), float("inf")


# Rooms


@pytest.mark.parametrize(
    ("room", "rooms", "names"),
    [
        (None, (), []),
        ("a", (), ["a"]),
        (None, ["a", "b"], ["a", "b"]),
        ("b", ["a", "b", "a"], ["b", "a"]),
        (None, iter("ab"), ["a", "b"]),
        (None, {"a": 1}, ["a"]),
    ],
    ids=["none", "one", "several", "each once", "an iterator", "a mapping"],
)
def test_rooms_are_joined_each_once_in_order(room: Any, rooms: Any, names: list[str]) -> None:
    assert room_names(room, rooms) == names


@pytest.mark.parametrize(
    ("room", "rooms", "argument"),
    [
        ("", (), "room"),
        ("$everyone", (), "room"),
        (5.5, (), "room"),
        (["a"], (), "room"),
        (None, "lobby", "rooms"),
        (None, b"lobby", "rooms"),
        (None, 5, "rooms"),
        (None, None, "rooms"),
        (None, ["a", ""], "rooms[1]"),
        (None, [None], "rooms[0]"),
        (None, ["a", "b", "$user"], "rooms[2]"),
        (None, ["x" * 256], "rooms[0]"),
    ],
    ids=repr,
)
def test_a_wrong_room_is_named(room: Any, rooms: Any, argument: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        room_names(room, rooms)
    assert caught.value.argument == argument


# Exclude


@pytest.mark.parametrize(
    "users",
    [WebSocket({"type": "websocket"}, AsyncMock(), AsyncMock()), {"ann": 1}, b"ann", 1.5, True, [None], [b"ann"]],
    ids=["a WebSocket", "a mapping", "bytes", "a float", "a bool", "none in a list", "bytes in a list"],
)
def test_what_names_no_users_excludes_nobody_silently(users: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^exclude_users: got "):
        excluded_users(users)


# Info, expiry, reason


def test_info_is_what_its_json_says_and_a_copy() -> None:
    assert detached_info(None) is None
    assert detached_info({}) == {}
    tags = ["a"]
    info: dict[Any, Any] = {
        "name": "Ann",
        "since": datetime(2026, 1, 2, tzinfo=UTC),
        "id": UUID(int=1),
        1: (2, 2**70),
        "tags": tags,
    }
    for each in (info, MappingProxyType(info)):
        detached = detached_info(each)
        assert detached == {
            "name": "Ann",
            "since": "2026-01-02T00:00:00Z",
            "id": "00000000-0000-0000-0000-000000000001",
            "1": [2, 2**70],
            "tags": ["a"],
        }
        assert detached is not None
        assert detached["tags"] is not tags


@pytest.mark.parametrize(
    "info", ["Ann", 5, ["Ann"], b"Ann", True, object, {"a": object}, {"a": "\ud800"}, {"a": b"\xff"}], ids=ascii
)
def test_a_wrong_info_is_named(info: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^info: "):
        detached_info(info)


NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expires_at", "seconds"),
    [
        (None, None),
        (0, 0.0),
        (1_767_355_200, 1_767_355_200.0),
        (1.5, 1.5),
        (NOON, 1_767_355_200.0),
        (NOON.replace(tzinfo=None), 1_767_355_200.0),
        (NOON.astimezone(timezone(timedelta(hours=5))), 1_767_355_200.0),
    ],
    ids=str,
)
def test_expiry_is_a_time_in_utc_or_seconds(expires_at: Any, seconds: float | None) -> None:
    assert timestamp(expires_at) == seconds


WRONG_EXPIRIES = ["2026-01-02", NAN, INF, -INF, True, [5], timedelta(hours=1), pytest.param(10**400, id="10**400")]


@pytest.mark.parametrize("expires_at", WRONG_EXPIRIES, ids=str)
def test_a_wrong_expiry_is_named(expires_at: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^expires_at: "):
        timestamp(expires_at)


@settings(max_examples=50, deadline=None)
@given(st.integers() | st.floats() | st.datetimes() | st.datetimes(timezones=st.timezones()) | st.text() | st.binary())
def test_any_expiry_is_a_number_or_is_named(expires_at: Any) -> None:
    with may_refuse("expires_at"):
        assert isinstance(timestamp(expires_at), float)


def test_a_reason_fits_into_a_close_frame() -> None:
    assert close_reason(None) == ""
    assert close_reason("ü" * 61) == "ü" * 61


@pytest.mark.parametrize("reason", ["x" * 124, "ü" * 62, b"because", 5, "\ud800"], ids=ascii)
def test_a_reason_that_does_not_fit_is_named(reason: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^reason: "):
        close_reason(reason)


# All of it, through connect


@asynccontextmanager
async def handshake(manager: ConnectionManager) -> AsyncIterator[tuple[WebSocket, list[str]]]:
    """A WebSocket that waits to be accepted, and what is sent to the server."""
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        if "websocket.accept" in sent:
            await asyncio.Event().wait()
        return {"type": "websocket.connect"}

    async def send(event: Any) -> None:
        sent.append(event["type"])

    async with manager.lifespan():
        socket = Socket([manager._hubbub], receive, send, address="::1", where="/ws", offered=[])
        scope = {"type": "websocket", "hubbub": socket, "path": "/ws", "headers": [], "query_string": b""}
        yield WebSocket(scope, socket.receive, socket.send), sent


def connect(manager: ConnectionManager, *user_id: Any, **arguments: Any) -> list[str]:
    """What is sent to the server by a connect that raises; raises what it does."""

    async def main() -> list[str]:
        async with handshake(manager) as (websocket, sent):
            try:
                connection = await manager.connect(websocket, *user_id, **arguments)
            except InvalidArgument:
                assert sent == [], "a socket was accepted, and then the argument refused"
                assert len(manager.active_connections) == 0
                assert manager.rooms == frozenset()
                raise
            assert connection in manager.active_connections
            return sent

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("wrong", "argument"),
    [
        ({"user_id": ""}, "user_id"),
        ({"user_id": 1.5}, "user_id"),
        ({"user_id": True}, "user_id"),
        ({"user_id": "x" * 256}, "user_id"),
        ({"room": ""}, "room"),
        ({"room": "$everyone"}, "room"),
        ({"room": 5.5}, "room"),
        ({"room": True}, "room"),
        ({"rooms": [1, True]}, "rooms[1]"),
        ({"rooms": "lobby"}, "rooms"),
        ({"rooms": None}, "rooms"),
        ({"rooms": ["a", ""]}, "rooms[1]"),
        ({"info": "Ann"}, "info"),
        ({"info": {"a": object}}, "info"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"expires_at": NAN}, "expires_at"),
        ({"subprotocol": 5}, "subprotocol"),
        ({"subprotocol": ""}, "subprotocol"),
        ({"headers": 5}, "headers"),
        ({"headers": [("x", "y")]}, "headers"),
        ({"headers": {b"x": b"y"}}, "headers"),
        ({"headers": [b"xy"]}, "headers"),
    ],
    ids=repr,
)
def test_a_wrong_argument_of_connect_is_named_before_the_socket_is_accepted(
    wrong: dict[str, Any], argument: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        connect(ConnectionManager(), **wrong)
    assert caught.value.argument == argument
    assert str(caught.value).startswith(f"{argument}: ")


@pytest.mark.parametrize("websocket", [None, 5, "websocket", object])
def test_what_is_no_websocket_is_named(websocket: Any) -> None:
    async def main() -> None:
        manager = ConnectionManager()
        async with manager.lifespan():
            with pytest.raises(InvalidArgument, match=r"^websocket: "):
                await manager.connect(websocket)

    asyncio.run(main())


def test_right_arguments_are_accepted() -> None:
    sent = connect(
        ConnectionManager(limits=Limits(max_errors=3)),
        UUID(int=1),
        room="a",
        rooms=["b", "a"],
        info={"name": "Ann"},
        expires_at=datetime.now(UTC) + timedelta(hours=1),
        headers=[(b"x", b"y")],
    )
    assert sent[0] == "websocket.accept"


@pytest.mark.parametrize("key", [None, "", "k", "ü" * 32_767], ids=["none", "empty", "short", "long"])
def test_a_key_is_taken_as_it_is(key: str | None) -> None:
    assert message_key(key) == key


@pytest.mark.parametrize("key", [1, b"k", "\ud800", "k" * 65_535], ids=["int", "bytes", "surrogate", "too long"])
def test_what_is_no_key_is_refused(key: Any) -> None:
    with pytest.raises(InvalidArgument, match="key: got"):
        message_key(key)
