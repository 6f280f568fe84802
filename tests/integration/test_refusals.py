"""A client that the app refuses before accept can read the code and the reason."""

import logging
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, WebSocket, WebSocketException
from starlette.responses import PlainTextResponse
from websockets.exceptions import InvalidStatus

from hubbub import ConnectionManager
from hubbub.auth import Claims, JWTAuth
from tests.integration.support import LiveServer, client, closed, serving

pytestmark = pytest.mark.anyio

REFUSALS: dict[str, tuple[Exception, tuple[int, str], int]] = {
    "a WebSocketException": (WebSocketException(1008, "not your room"), (1008, "not your room"), 403),
    "one of the app's codes": (WebSocketException(4001), (4001, ""), 403),
    "a long reason": (WebSocketException(1008, "é" * 100), (1008, "é" * 61), 403),
    "a code that no frame carries": (WebSocketException(1006, "no"), (1011, "no"), 403),
    "a 403": (HTTPException(403, "not for you"), (1008, "not for you"), 403),
    "a 404": (HTTPException(404), (1008, "Not Found"), 404),
    "a detail that is no text": (HTTPException(400, {"secret": 1}), (1008, "unauthorized"), 400),
    "a 503": (HTTPException(503, "try later"), (1011, "try later"), 503),
}


def app_of(manager: ConnectionManager, **auth: Any) -> FastAPI:
    app = FastAPI()
    manager.install(app)
    current_user = JWTAuth("x" * 32, algorithms=["HS256"], **auth)

    def refuse(name: str) -> None:
        raise REFUSALS[name][0]

    async def refused(websocket: WebSocket, _: Annotated[None, Depends(refuse)]) -> None:
        raise AssertionError("the handler does not run")

    async def typed(websocket: WebSocket, room: int, since: int = 0) -> None:
        raise AssertionError("the handler does not run")

    async def closes(websocket: WebSocket, code: int = 1000, reason: str = "") -> None:
        await websocket.close(code, reason)

    async def denies(websocket: WebSocket) -> None:
        await websocket.send_denial_response(PlainTextResponse("who are you?", 401))

    async def signed_in(websocket: WebSocket, user: Annotated[Claims, Depends(current_user)]) -> None:
        raise AssertionError("the handler does not run")

    router = APIRouter()
    router.add_api_websocket_route("/refused/{name}", refused)
    router.add_api_websocket_route("/typed/{room}", typed)
    router.add_api_websocket_route("/closes", closes)
    router.add_api_websocket_route("/denies", denies)
    router.add_api_websocket_route("/signed-in", signed_in)
    app.include_router(router)
    app.include_router(router, prefix="/included")
    below = FastAPI()
    below.include_router(router)
    app.mount("/mounted", below)
    return app


class Place:
    def __init__(self, server: LiveServer, manager: ConnectionManager) -> None:
        self.server = server
        self.manager = manager

    async def close_of(self, path: str, **options: Any) -> tuple[int | None, str | None]:
        async with client(self.server, path, **options) as websocket:
            return await closed(websocket)

    async def status_of(self, path: str) -> int:
        with pytest.raises(InvalidStatus) as refused:
            async with client(self.server, path):
                pass
        return refused.value.response.status_code


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    manager = ConnectionManager()
    with serving(app_of(manager)) as server:
        yield Place(server, manager)


@pytest.fixture(scope="module")
def over_http() -> Iterator[Place]:
    manager = ConnectionManager(refuse_with="http")
    with serving(app_of(manager)) as server:
        yield Place(server, manager)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert not [record for record in caplog.records if record.exc_info]
    return [each.getMessage() for each in caplog.records if each.name == "hubbub" and each.levelno >= logging.INFO]


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("prefix", ["", "/included", "/mounted"])
async def test_a_page_can_read_why_a_dependency_refuses_it(
    place: Place, prefix: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hubbub")
    _, close, _ = REFUSALS[name]
    before = place.manager.stats().refused.get("app", 0)
    assert await place.close_of(f"{prefix}/refused/{name.replace(' ', '%20')}") == close
    assert place.manager.stats().refused["app"] == before + 1
    (line,) = [each for each in told(caplog) if "refused" in each]
    assert f"{prefix}/refused/" in line


async def test_what_does_not_validate_is_told_by_its_place_and_not_by_its_value(place: Place) -> None:
    code, reason = await place.close_of("/typed/secret?since=hidden")
    assert code == 1008
    assert reason is not None
    assert reason.startswith("path.room: Input should be a valid integer")
    assert len(reason.encode()) <= 123
    assert "secret" not in reason
    assert "hidden" not in reason


async def test_a_handler_that_closes_before_accept_is_heard(place: Place) -> None:
    assert await place.close_of("/closes?code=4003&reason=away") == (4003, "away")
    assert await place.close_of("/closes") == (1000, "")


async def test_a_subprotocol_is_answered_so_that_browsers_show_the_reason(place: Place) -> None:
    async with client(place.server, "/closes?code=4003", subprotocols=["chat", "other"]) as websocket:
        assert websocket.subprotocol == "chat"
        assert await closed(websocket) == (4003, "")


@pytest.mark.parametrize("path", ["/closes?code=4003", "/refused/a%20403"])
@pytest.mark.parametrize("token", ["5f0c2b9a71d84e63", "s3cr3t-t0ken-value"])
async def test_a_token_that_is_offered_as_subprotocol_is_not_in_the_headers_of_the_answer(
    place: Place, token: str, path: str
) -> None:
    async with client(place.server, path, subprotocols=[token]) as websocket:
        assert websocket.response is not None
        assert websocket.response.status_code == 101
        assert token not in str(websocket.response.headers)
        assert (await closed(websocket))[0] in {1008, 4003}, "a client that needs no subprotocol reads why"


@pytest.mark.parametrize("path", ["/nowhere", "/mounted/nowhere", "/included/nowhere", "/typed/1/2"])
async def test_a_path_without_a_route_is_refused_with_403(place: Place, path: str) -> None:
    before = place.manager.stats().refused
    assert await place.status_of(path) == 403
    assert place.manager.stats().refused == before


async def test_an_http_response_that_the_handler_chose_is_given(place: Place) -> None:
    assert await place.status_of("/denies") == 401


@pytest.mark.parametrize("name", REFUSALS)
async def test_over_http_a_client_gets_the_status(over_http: Place, name: str) -> None:
    _, _, status = REFUSALS[name]
    before = over_http.manager.stats().refused.get("app", 0)
    assert await over_http.status_of(f"/refused/{name.replace(' ', '%20')}") == status
    assert over_http.manager.stats().refused["app"] == before + 1


async def test_over_http_what_does_not_validate_is_403(over_http: Place) -> None:
    assert await over_http.status_of("/typed/x") == 403


@pytest.mark.parametrize("refuse_with", ["close", "http"])
async def test_jwt_auth_refuses_as_it_is_told_to_itself(refuse_with: Any) -> None:
    manager = ConnectionManager(refuse_with=refuse_with)
    with serving(app_of(manager, refuse="http")) as server:
        assert await Place(server, manager).status_of("/signed-in") == 401
        assert manager.stats().refused == {"token": 1}
    manager = ConnectionManager(refuse_with=refuse_with)
    with serving(app_of(manager, refuse="close")) as server:
        assert await Place(server, manager).close_of("/signed-in") == (1008, "unauthorized: no token")
        assert manager.stats().refused == {"token": 1}
