"""A handshake: the subprotocol that is answered, and whether it is a route that refuses."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from starlette.exceptions import HTTPException, WebSocketException

from hubbub.close import Closed
from hubbub.connections.handshake import Handshake, answer
from hubbub.errors import InvalidName
from tests.unit.sockets import ACCEPT, Site

CLOSE: dict[str, Any] = {"type": "websocket.close"}
TOKEN = "x" * 200


async def _in_handshake(event: dict[str, Any], offered: list[str], wanted: str | None) -> dict[str, Any]:
    """What the server is sent first for an app's answer."""
    site = Site(offered, {})
    site.socket.grant(subprotocol=wanted, expires_at=None)
    await site.socket.send(event)
    await site.manager.tasks.close(5.0)
    return site.server.sent[0]


@pytest.mark.parametrize(
    ("offered", "wanted", "named", "answered"),
    [
        ([], None, None, None),
        (["chat"], None, None, None),
        (["chat", "bearer"], "bearer", None, "bearer"),
        (["chat"], "bearer", None, None),
        (["chat", "bearer"], "bearer", "chat", "chat"),
    ],
)
def test_an_accept_answers_what_the_app_names_or_else_what_an_auth_dependency_wants(
    offered: list[str], wanted: str | None, named: str | None, answered: str | None
) -> None:
    event = {**ACCEPT, "subprotocol": named}
    assert asyncio.run(_in_handshake(event, offered, wanted)) == {**ACCEPT, "subprotocol": answered}
    assert event["subprotocol"] == named


@pytest.mark.parametrize(
    ("offered", "wanted", "answered"),
    [
        ([], None, None),
        (["chat"], None, "chat"),
        ([TOKEN, "chat"], None, "chat"),
        ([TOKEN], None, None),
        (["chat", "bearer"], "bearer", "bearer"),
        (["chat"], "bearer", "chat"),
    ],
)
def test_a_refusal_by_close_answers_a_subprotocol_so_that_browsers_keep_the_socket(
    offered: list[str], wanted: str | None, answered: str | None
) -> None:
    accept = asyncio.run(_in_handshake({**CLOSE, "code": 4000}, offered, wanted))
    assert accept == {**ACCEPT, "subprotocol": answered, "headers": []}


def endpoint() -> None:
    """A route's function."""


@pytest.mark.parametrize(
    ("scope", "event", "routed"),
    [
        ({}, CLOSE, False),
        ({}, {**CLOSE, "code": 1000}, False),
        ({"endpoint": object()}, CLOSE, False),
        ({}, {**CLOSE, "code": 4000}, True),
        ({"endpoint": endpoint}, CLOSE, True),
        ({"endpoint": partial(partial(endpoint))}, CLOSE, True),
        ({"endpoint": Handshake}, CLOSE, True),
        ({}, {"type": "websocket.http.response.start", "status": 404}, True),
    ],
)
def test_a_router_without_a_route_closes_without_a_word(
    scope: dict[str, Any], event: dict[str, Any], routed: bool
) -> None:
    async def main() -> Site:
        site = Site([], {})
        site.socket.handshake.scope = scope
        await site.socket.send(dict(event))
        await site.manager.tasks.close(5.0)
        return site

    site = asyncio.run(main())
    assert site.manager.counters.refused == ({"app": 1} if routed else {})
    if not routed:
        assert site.server.sent == [event]


@pytest.mark.parametrize(
    ("error", "closed"),
    [
        (None, None),
        (ValueError("no"), None),
        (WebSocketException(4000, "so"), Closed(4000, "so")),
        (HTTPException(401), Closed(1008, "Unauthorized")),
        (HTTPException(500, ""), Closed(1011, "")),
        (InvalidName("room", "is empty", "a name"), Closed(1008, "room: is empty")),
    ],
)
def test_an_exception_that_refuses_is_a_code_and_a_reason(error: BaseException | None, closed: Closed | None) -> None:
    assert answer(error) == closed
