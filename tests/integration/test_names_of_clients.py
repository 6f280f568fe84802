"""A name that a client sends and that can't be used is the client's fault: no traceback, no 500, no 1011."""

import json
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import anyio
import httpx
import pytest
from fastapi import FastAPI, Request, WebSocket
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import JSONResponse
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from hubbub import ConnectionManager, InvalidArgument, InvalidName
from tests.integration.support import LiveServer, client, closed, eventually, receive, serving

pytestmark = pytest.mark.anyio

NAMES = {"reserved": "$5", "long": "x" * 300, "long in bytes": "ü" * 128}
SENT = {**NAMES, "empty": "", "half an emoji": "\ud800"}


class KeepsTheAppAbove:
    """A mounted app that holds the one that it is mounted below."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("nobody asks it")


def app_of(manager: ConnectionManager) -> FastAPI:
    app = FastAPI()
    manager.install(app)
    below, nested, wrapped, above = FastAPI(), FastAPI(), FastAPI(), KeepsTheAppAbove(app)
    app.mount("/below", below)
    app.mount("/above", above)
    app.router.routes.append(Mount("/nested", routes=[Mount("/below", nested)]))
    app.router.routes.append(Mount("/wrapped", wrapped, middleware=[Middleware(GZipMiddleware)]))

    @app.websocket("/room/{name}")
    async def in_room(websocket: WebSocket, name: str) -> None:
        async with manager.connect(websocket, room=name):
            raise AssertionError("it does not connect")

    @app.websocket("/by-hand/{name}")
    async def by_hand(websocket: WebSocket, name: str) -> None:
        await manager.connect(websocket, room=name)
        raise AssertionError("it does not connect")

    @app.websocket("/user/{name}")
    async def as_user(websocket: WebSocket, name: str) -> None:
        await manager.connect(websocket, f"{'' if name.startswith('x') or name[0] == 'ü' else 'x' * 256}{name}")
        raise AssertionError("it does not connect")

    @app.websocket("/says")
    async def says(websocket: WebSocket) -> None:
        async with manager.connect(websocket, "ann") as connection:
            do, name = await websocket.receive_json()
            match do:
                case "join":
                    await connection.join(name)
                case "leave":
                    await manager.leave(websocket, name)
                case "broadcast":
                    await manager.broadcast("x", room=name)
                case "send":
                    await manager.send_to_user(name * 300 if name.startswith("$") else name, "x")
                case "key":
                    await manager.broadcast("x", key=name)
                case "group":
                    async with anyio.create_task_group() as group:
                        group.start_soon(connection.join, name)
                        group.start_soon(anyio.sleep_forever)
        raise AssertionError("it does not go on")

    async def presence(name: str) -> list[Any]:
        return list(await manager.presence(name))

    async def history(name: str) -> list[Any]:
        return list(await manager.history(name))

    def publish(name: str) -> None:
        manager.from_thread.broadcast("x", room=name)

    for each in (app, below, nested, wrapped):
        each.get("/presence/{name}")(presence)
        each.get("/history/{name}")(history)
        each.post("/rooms/{name}")(publish)
    return app


@pytest.fixture(scope="module")
def manager() -> ConnectionManager:
    return ConnectionManager()


@pytest.fixture(scope="module")
def server(manager: ConnectionManager) -> Iterator[LiveServer]:
    with serving(app_of(manager)) as server:
        yield server


@pytest.fixture(autouse=True)
def _no_traceback(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert not [record for record in caplog.get_records("call") if record.exc_info]


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if "rejected a client" in each.getMessage()]


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("path", ["room", "by-hand", "user"])
async def test_in_a_url_it_closes_with_1008_and_the_reason(
    server: LiveServer, manager: ConnectionManager, path: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = manager.stats().refused.get("invalid_name", 0)
    async with client(server, f"/{path}/{quote(name)}") as websocket:
        code, reason = await closed(websocket)
    assert code == 1008
    assert (reason or "").startswith("user_id: has " if path == "user" else "room: ")
    await eventually(lambda: len(lines(caplog)) == 1)
    assert manager.stats().refused["invalid_name"] == before + 1
    assert "app" not in manager.stats().refused


@pytest.mark.parametrize("name", SENT.values(), ids=SENT)
@pytest.mark.parametrize("do", ["join", "leave", "broadcast", "send", "group"])
async def test_in_a_message_it_closes_with_1008_and_the_reason(
    server: LiveServer, do: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with client(server, "/says") as websocket:
        await websocket.send(json.dumps([do, name]))
        code, reason = await closed(websocket)
    assert code == 1008
    assert (reason or "").startswith("user_id: " if do == "send" else "room: ")
    await eventually(lambda: len(lines(caplog)) == 1)


async def test_as_a_key_it_closes_with_1008_and_the_reason(server: LiveServer) -> None:
    async with client(server, "/says") as websocket:
        await websocket.send('["key", "\\ud800"]')
        code, reason = await closed(websocket)
    assert (code, (reason or "")[:5]) == (1008, "key: ")


@pytest.mark.parametrize("prefix", ["", "/below", "/nested/below", "/wrapped"])
@pytest.mark.parametrize("path", ["presence", "history", "rooms"])
async def test_in_a_request_it_is_422(server: LiveServer, path: str, prefix: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        method = "POST" if path == "rooms" else "GET"
        response = await http.request(method, server.http(f"{prefix}/{path}/$5"))
    assert response.status_code == 422
    (problem,) = response.json()["detail"]
    assert problem["loc"] == ["room"]
    assert problem["msg"].startswith("'$5' starts with '$', which is reserved; accepted: ")


async def test_over_http_the_handshake_is_403() -> None:
    manager = ConnectionManager(refuse_with="http")
    with serving(app_of(manager)) as server, pytest.raises(Exception, match="HTTP 403"):
        async with client(server, "/room/$5"):
            pass


async def test_an_app_may_answer_it_by_itself() -> None:
    manager = ConnectionManager()
    app = app_of(manager)

    @app.exception_handler(InvalidName)
    async def answer(request: Request, error: InvalidName) -> JSONResponse:
        return JSONResponse(error.problem, 418)

    @app.websocket("/catches/{name}")
    async def catches(websocket: WebSocket, name: str) -> None:
        try:
            await manager.connect(websocket, room=name)
        except InvalidName:
            connection = await manager.connect(websocket, room="lobby")
            await connection.send("in the lobby")

    with serving(app) as server:
        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.get(server.http("/presence/$5"))).status_code == 418
        async with client(server, "/catches/$5") as websocket:
            assert await receive(websocket) == "in the lobby"


async def test_a_wrong_type_is_still_the_programmers_error(caplog: pytest.LogCaptureFixture) -> None:
    manager = ConnectionManager()
    app = FastAPI()
    manager.install(app)

    @app.websocket("/ws")
    async def handler(websocket: WebSocket) -> None:
        with pytest.raises(InvalidArgument) as caught:
            await manager.connect(websocket, room=b"lobby")  # type: ignore[arg-type]  # what this is about
        assert not isinstance(caught.value, InvalidName)
        await websocket.accept()

    with serving(app) as server:
        async with client(server, "/ws") as websocket:
            assert await closed(websocket) == (1000, "")
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
