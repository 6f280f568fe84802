"""Whatever a client sends to an example or to the demo: no traceback, no 1011, no 500.

The pairs of examples/replace are left out: they show handlers on Starlette's own WebSocket, as apps have them.
"""

from __future__ import annotations

import importlib
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute
from websockets.exceptions import ConnectionClosed

from hubbub.auth import Claims, JWTAuth
from hubbub.demo import users
from hubbub.demo.app import create_app
from tests.integration.support import DEADLINE_S, LiveServer, client, eventually, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_sweeps")]

EXAMPLES = Path(__file__).parents[2] / "examples"
DEEP = "[" * 300 + "]" * 300
MESSAGES: list[str | bytes] = [
    "", " ", "{", "[1]", "5", "-0", '"x"', "null", "true", "{}", DEEP, '{"text": ' + DEEP + "}", "1" * 400, "NaN", "\0",
    '{"text": null}', '{"text": 5}', '{"text": {}}', '{"text": "\\ud800"}', '{"body": [1]}', '{"body": "\\u0000"}',
    '{"text": "' + "x" * 5000 + '"}', '{"body": "' + "x" * 5000 + '"}', '{"type": null}', '{"type": "read"}',
    '{"type": "read", "up_to": "x"}', '{"type": "read", "up_to": ' + "9" * 400 + "}", '{"up_to": 1e400}',
    '{"type": "join", "room": ""}', '{"type": "join", "room": "$5"}', '{"type": "join", "room": "' + "x" * 300 + '"}',
    '{"type": "leave", "room": "' + "x" * 300 + '"}', '{"type": "join", "room": 5}', '{"type": "say", "room": []}',
    '{"type": "say", "text": 5}', '{"type": "say", "text": "\\ud800"}', '{"type": "clear"}', '{"type": "ping"}',
    b"", b"\xff\xfe", b"{}", b"\x01" * 9, b"\x01\x40" + b"\xff" * 7,
]  # fmt: skip
NAMES = ["%245", "x" * 300, "%00", "%ED%A0%80", "%F0%9F%98%80", "%20", "-1", "9" * 300, "%0A"]
CLOSED = {1000, 1007, 1008, 1009}
USER = Claims({"sub": "ann", "name": "Ann", "exp": 4_000_000_000})


def apps() -> Iterator[tuple[str, ModuleType]]:
    for path in sorted(EXAMPLES.glob("*.py")):
        module = importlib.import_module(f"examples.{path.stem}")
        if not path.stem.startswith("test_") and isinstance(getattr(module, "app", None), FastAPI):
            yield path.stem, module


MODULES = dict(apps())
del MODULES["worker_process"]  # needs a Redis; its socket takes no messages
CLOSED_BY_ENDPOINT = {1000, 3501}


@pytest.fixture(autouse=True)
def _no_traceback(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [each for each in caplog.get_records("call") if each.exc_info or each.levelno >= logging.ERROR] == []


@contextmanager
def let_in(app: FastAPI, module: ModuleType) -> Iterator[None]:
    """Has the dependencies of a module find a user without a token."""
    for value in vars(module).values():
        if isinstance(value, JWTAuth):
            app.dependency_overrides[value] = lambda: USER
    yield
    app.dependency_overrides.clear()


@pytest.fixture(params=MODULES)
def example(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[tuple[LiveServer, FastAPI]]:
    module = MODULES[request.param]
    if request.param == "databases":
        monkeypatch.setattr(module, "database", str(tmp_path / "chat.db"))
    with let_in(module.app, module), serving(module.app) as server:
        yield server, module.app


def filled(path: str, name: str) -> str:
    return re.sub(r"\{[^}]*\}", name, path)


async def says_everything(server: LiveServer, path: str) -> None:
    for message in MESSAGES:
        await says(server, path, message, closed=CLOSED)


async def says(server: LiveServer, path: str, *messages: str | bytes, closed: set[int]) -> None:
    async with client(server, path) as websocket:
        with suppress(ConnectionClosed):
            for message in messages:
                await websocket.send(message)
        await websocket.close()
    await eventually(lambda: not server.server.server_state.tasks)  # what it said was handled
    assert websocket.close_code in closed, (path, messages, websocket.close_reason)


async def has_every_name(server: LiveServer, path: str) -> None:
    for name in NAMES:
        async with client(server, filled(path, name)) as websocket:
            await websocket.close()
        await eventually(lambda: not server.server.server_state.tasks)
        assert websocket.close_code in CLOSED, (path, name, websocket.close_reason)


async def test_an_example_takes_what_a_client_says(example: tuple[LiveServer, FastAPI]) -> None:
    server, app = example
    for route in app.routes:
        if isinstance(route, APIWebSocketRoute):
            await says_everything(server, filled(route.path, "1"))
            await has_every_name(server, route.path)


async def test_an_example_answers_what_a_client_asks(example: tuple[LiveServer, FastAPI]) -> None:
    server, app = example
    async with httpx.AsyncClient(trust_env=False, timeout=DEADLINE_S) as http:
        for route in app.routes:
            if not isinstance(route, APIRoute):
                continue
            for name in NAMES if "{" in route.path else [""]:
                for query in ("?text=x&name=Ann", "?limit=0", "?limit=-1&name=&text=", "?limit=99999999999999999999"):
                    for method in route.methods or ():
                        url = server.http(filled(route.path, name) + query)
                        response = await http.request(method, url, json={"text": "x", "title": "x"})
                        if response.status_code == 400:
                            assert response.json() == {"detail": "a request for a stream of events has no body"}
                            continue
                        assert response.status_code in (200, 202, 204, 401, 403, 404, 405, 422, 503), (
                            url,
                            response.text,
                        )


async def test_the_demo_takes_what_a_client_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app()
    with let_in(app, users), serving(app) as server:
        await says_everything(server, "/ws/board")
        connect, join = '{"id": 1, "connect": {}}', '{"id": 2, "subscribe": {"channel": "chat:lobby"}}'
        for message in MESSAGES:
            await says(server, "/live", message, closed=CLOSED_BY_ENDPOINT)
            publish = f'{{"id": 3, "publish": {{"channel": "chat:lobby", "data": {message!s}}}}}'
            await says(server, "/live", connect, join, publish, closed=CLOSED_BY_ENDPOINT)
        for name in NAMES:
            room = json.dumps("chat:" + unquote(name, errors="surrogateescape"))
            odd = f'{{"id": 2, "subscribe": {{"channel": {room}}}}}'
            await says(server, "/live", connect, odd, closed=CLOSED_BY_ENDPOINT)
