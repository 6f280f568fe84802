"""What ``manager.connect(...)`` gives, and the close code for each way in which a handler ends."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.exceptions import HTTPException, WebSocketException
from starlette.websockets import WebSocketDisconnect

from hubbub.close import CloseCode, Closed
from hubbub.connections.connecting import Connecting, Done, close_for, invalid_name_in, is_disconnect
from hubbub.connections.connection import Connection
from hubbub.errors import BrokerUnavailable, InvalidName
from tests.unit.connections.test_admission import Client, Manager

GONE = WebSocketDisconnect(1001)
NAME = InvalidName("room", "is empty", "a name")
USED_AGAIN = RuntimeError('Cannot call "send" once a close message has been sent.')


def group(*errors: Exception) -> ExceptionGroup[Exception]:
    return ExceptionGroup("of a task group", errors)


def run(test: Callable[[Client], Awaitable[None]]) -> None:
    async def main() -> None:
        client = Client(Manager())
        await test(client)
        await client.manager.tasks.close(5.0)

    asyncio.run(main())


# Connecting


def test_a_connect_is_awaited_once() -> None:
    async def test(client: Client) -> None:
        connecting = Connecting(client.admit)
        connection = await connecting
        assert isinstance(connection, Connection)
        with pytest.raises(RuntimeError, match="already awaited"):
            await connecting
        assert client.server.types == ["accept"]

    run(test)


def test_a_connect_that_is_never_awaited_warns_and_connects_nothing() -> None:
    async def test(client: Client) -> None:
        with pytest.warns(RuntimeWarning, match="never awaited, so nothing is connected: `await` it"):
            Connecting(client.admit)
        assert client.server.types == []

    run(test)


def test_a_connect_that_fails_does_not_warn_too() -> None:
    async def refuse() -> Connection:
        raise BrokerUnavailable("away")

    async def test(_: Client) -> None:
        with warnings.catch_warnings(action="error"), pytest.raises(BrokerUnavailable):
            await Connecting(refuse)

    run(test)


@pytest.mark.parametrize(
    ("error", "closed", "swallowed"),
    [
        (None, (1000, ""), True),
        (WebSocketDisconnect(1006), (1000, ""), True),
        (WebSocketException(4001, "not yours"), (4001, "not yours"), False),
        (ValueError("?"), (CloseCode.INTERNAL_ERROR.code, CloseCode.INTERNAL_ERROR.reason), False),
    ],
)
def test_a_block_closes_the_socket_with_the_code_for_its_end(
    error: Exception | None, closed: tuple[int, str], swallowed: bool
) -> None:
    async def block(client: Client) -> None:
        async with Connecting(client.admit) as connection:
            assert connection.is_open
            if error is not None:
                raise error

    async def test(client: Client) -> None:
        if swallowed:
            await block(client)
        else:
            with pytest.raises(type(error) if error is not None else ()):
                await block(client)
        assert client.server.types == ["accept", "close"]
        assert (client.server.sent[-1]["code"], client.server.sent[-1]["reason"]) == closed

    run(test)


def test_a_block_that_closed_its_connection_keeps_that_code() -> None:
    async def test(client: Client) -> None:
        async with Connecting(client.admit) as connection:
            await connection.close(4000, "enough")
        assert [event.get("code") for event in client.server.sent] == [None, 4000]

    run(test)


# How a handler ended


@pytest.mark.parametrize(
    ("error", "stopping", "closed"),
    [
        (None, True, Closed(1000, "")),
        (GONE, False, Closed(1000, "")),
        (group(GONE, group(GONE)), False, Closed(1000, "")),
        (WebSocketException(4001, "not yours"), False, Closed(4001, "not yours")),
        (HTTPException(401, "who are you"), False, Closed(1008, "who are you")),
        (HTTPException(503, "later"), False, Closed(1011, "later")),
        (NAME, False, Closed(1008, "room: is empty")),
        (group(NAME, GONE), False, Closed(1008, "room: is empty")),
        (BrokerUnavailable("away"), False, Closed(*CloseCode.BROKER_UNAVAILABLE.value[:2])),
        (asyncio.CancelledError(), True, Closed(1012, "")),
        (asyncio.CancelledError(), False, Closed(*CloseCode.INTERNAL_ERROR.value[:2])),
        (ValueError("?"), True, Closed(*CloseCode.INTERNAL_ERROR.value[:2])),
        (group(NAME, ValueError("?")), False, Closed(*CloseCode.INTERNAL_ERROR.value[:2])),
        (KeyboardInterrupt(), True, Closed(*CloseCode.INTERNAL_ERROR.value[:2])),
    ],
    ids=repr,
)
def test_each_end_of_a_handler_has_its_close_code(error: BaseException | None, stopping: bool, closed: Closed) -> None:
    assert close_for(error, stopping=stopping) == closed


@pytest.mark.parametrize(
    ("error", "told", "only_gone"),
    [
        (None, True, False),
        (GONE, False, True),
        (group(GONE, GONE), False, True),
        (group(GONE, ValueError("?")), True, False),
        (USED_AGAIN, False, False),
        (USED_AGAIN, True, True),
        (group(USED_AGAIN, GONE), True, True),
        (RuntimeError("of the app"), True, False),
    ],
    ids=repr,
)
def test_an_error_says_only_that_the_client_is_gone_if_all_of_it_does(
    error: BaseException | None, told: bool, only_gone: bool
) -> None:
    assert is_disconnect(error, informed=told) is only_gone


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (None, None),
        (NAME, NAME),
        (group(group(NAME)), NAME),
        (group(GONE, NAME), NAME),
        (group(GONE), None),
        (group(NAME, ValueError("?")), None),
    ],
    ids=repr,
)
def test_a_name_that_can_not_be_used_is_found_unless_something_else_failed_too(
    error: BaseException | None, name: InvalidName | None
) -> None:
    assert invalid_name_in(error) is name


# Done


def test_what_is_done_may_be_awaited_or_made_a_task_or_ignored() -> None:
    async def main() -> None:
        done = Done()
        await done
        await done
        await asyncio.create_task(Done())
        await asyncio.gather(Done(), Done())

    with warnings.catch_warnings(action="error"):
        Done()
        asyncio.run(main())


@pytest.mark.parametrize("thrown", [(ValueError("?"),), (ValueError,)])
def test_an_error_thrown_into_what_is_done_comes_out(thrown: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the message is not ours
        Done().throw(*thrown)
