"""How a manager joins an app: once, outermost, with the app's lifespan, its names' errors and its origins."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Router
from starlette.websockets import WebSocket

from hubbub import ConnectionManager, HubbubMiddleware
from hubbub.asgi.install import origins_of_cors
from hubbub.errors import InvalidArgument, InvalidName, NotInstalled
from hubbub.origin import OriginPolicy

PAGE = "https://app.example"
CROSS_SITE = [(b"host", b"api.example"), (b"origin", PAGE.encode())]


class Wraps:
    """A middleware of the app's own."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


async def start(app: Starlette) -> None:
    """Starts an app, and stops it."""
    async with app.router.lifespan_context(app):
        pass


# Once


@pytest.mark.parametrize("app", [None, "app", Router(), HubbubMiddleware])
def test_what_is_no_app_of_starlette_is_refused_with_what_to_use_instead(app: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^app: .*HubbubMiddleware\(app, \[manager\]\)"):
        ConnectionManager().install(app)


def test_managers_of_one_app_share_one_middleware() -> None:
    app, one, two = FastAPI(), ConnectionManager(), ConnectionManager()
    for manager in (one, two, one):
        manager.install(app)
    (middleware,) = app.user_middleware
    assert middleware.kwargs["managers"] == [one, two]


@pytest.mark.parametrize("named", [True, False])
def test_a_middleware_that_the_app_added_itself_is_shared_too(named: bool) -> None:
    app, one, two = FastAPI(), ConnectionManager(), ConnectionManager()
    given = [one]
    if named:
        app.add_middleware(HubbubMiddleware, managers=given)
    else:
        app.add_middleware(HubbubMiddleware, given)
    two.install(app)
    (middleware,) = app.user_middleware
    assert middleware.kwargs["managers"] == [one, two]
    assert given == [one], "the app's own list stays as it is"
    app.build_middleware_stack()


def test_other_paths_than_before_are_refused() -> None:
    app, manager = FastAPI(), ConnectionManager()
    manager.install(app)
    with pytest.raises(InvalidArgument, match=r"^only: the manager is already installed with other paths"):
        manager.install(app, only="/ws")


def test_an_app_that_has_started_is_too_late_and_stays_as_it_is() -> None:
    app, manager = FastAPI(), ConnectionManager()
    app.middleware_stack = app.build_middleware_stack()
    with pytest.raises(NotInstalled, match=r"call `manager.install\(app\)` right after `app = FastAPI\(\)`"):
        manager.install(app)
    assert app.user_middleware == []


# Outermost


def test_no_middleware_that_is_added_later_stands_before_it() -> None:
    app, manager = FastAPI(), ConnectionManager()
    manager.install(app)
    app.add_middleware(Wraps)
    app.add_middleware(CORSMiddleware)
    app.build_middleware_stack()
    classes: list[object] = [middleware.cls for middleware in app.user_middleware]
    assert classes == [HubbubMiddleware, CORSMiddleware, Wraps]


# The lifespan


def test_a_manager_runs_around_the_apps_own_lifespan() -> None:
    manager = ConnectionManager()
    seen: list[tuple[str, bool]] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, int]]:
        seen.append(("up", manager.running))
        yield {"answer": 42}
        seen.append(("down", manager.running))

    async def main() -> None:
        app = FastAPI(lifespan=lifespan)
        manager.install(app)
        async with app.router.lifespan_context(app) as state:
            assert state == {"answer": 42}
        assert not manager.running

    asyncio.run(main())
    assert seen == [("up", True), ("down", True)]


def test_a_manager_stops_when_the_apps_own_lifespan_fails() -> None:
    manager = ConnectionManager()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        raise ValueError("of the app")
        yield

    async def main() -> None:
        app = FastAPI(lifespan=lifespan)
        manager.install(app)
        with pytest.raises(ValueError, match="of the app"):
            async with app.router.lifespan_context(app):
                pass

    asyncio.run(main())
    assert not manager.running


# Names that can't be used


def test_a_name_that_can_not_be_used_is_a_422_in_the_app_and_in_those_below_it() -> None:
    inner, deeper, late, manager = Starlette(), Starlette(), Starlette(), ConnectionManager()
    app = FastAPI(routes=[Mount("/inner", Wraps(inner)), Mount("/routes", Router([Mount("/deeper", deeper)]))])
    inner.mount("/again", app)  # a circle
    manager.install(app)
    app.mount("/late", late)
    asyncio.run(start(app))
    for each in (app, inner, deeper, late):
        handler: Any = each.exception_handlers[InvalidName]
        request = Request({"type": "http", "headers": []})
        response = asyncio.run(handler(request, InvalidName("room", "is empty", "a name")))
        assert isinstance(response, JSONResponse)
        assert response.status_code == 422
        assert response.body == (
            b'{"detail":[{"type":"invalid_name","loc":["room"],"msg":"is empty; accepted: a name"}]}'
        )


def test_an_app_that_answers_such_names_itself_goes_on_doing_so() -> None:
    async def answer(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({}, 400)

    app = FastAPI(exception_handlers={InvalidName: answer})
    ConnectionManager().install(app)
    assert app.exception_handlers[InvalidName] is answer


def test_a_name_that_a_websocket_can_not_use_is_left_to_the_middleware() -> None:
    async def never(*_: Any) -> Any:
        raise AssertionError("nothing is answered")

    app = FastAPI()
    ConnectionManager().install(app)
    handler: Any = app.exception_handlers[InvalidName]
    error = InvalidName("room", "is empty", "a name")
    with pytest.raises(InvalidName) as caught:
        asyncio.run(handler(WebSocket({"type": "websocket"}, never, never), error))
    assert caught.value is error


# Origins


def let_in(policy: OriginPolicy) -> bool:
    return policy.refusal(CROSS_SITE) is None


@pytest.mark.parametrize(
    ("options", "lets_in", "level"),
    [
        ({"allow_origins": [PAGE], "allow_credentials": True}, True, "INFO"),
        ({"allow_origins": [PAGE, 5, None], "allow_credentials": True}, True, "INFO"),
        ({"allow_origins": [PAGE]}, False, "WARNING"),
        ({"allow_origins": ["*"], "allow_credentials": True}, False, "WARNING"),
        ({"allow_origins": [PAGE, "*"], "allow_credentials": True}, False, "WARNING"),
        ({"allow_origins": [PAGE], "allow_origin_regex": ".*", "allow_credentials": True}, False, "WARNING"),
        ({"allow_origins": [PAGE + "/"], "allow_credentials": True}, False, "WARNING"),
        ({"allow_origins": ["null"], "allow_credentials": True}, False, "WARNING"),
        ({"allow_origins": [], "allow_credentials": True}, False, None),
        ({"an_option": "that no CORSMiddleware has"}, False, None),
    ],
    ids=str,
)
def test_the_origins_of_cors_are_taken_over_where_each_is_named_and_has_credentials(
    options: dict[str, Any], lets_in: bool, level: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hubbub")
    app = FastAPI()
    app.add_middleware(CORSMiddleware, **options)
    assert let_in(origins_of_cors(app)) is lets_in
    assert [record.levelname for record in caplog.records] == ([] if level is None else [level])


def test_an_app_without_cors_lets_in_no_other_host_and_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert not let_in(origins_of_cors(FastAPI()))
    assert caplog.records == []


@pytest.mark.parametrize(("given", "lets_in"), [({}, True), ({"allowed_origins": []}, False)])
def test_origins_are_taken_over_at_the_start_unless_the_app_names_them(given: dict[str, Any], lets_in: bool) -> None:
    app, manager = FastAPI(), ConnectionManager(**given)
    manager.install(app)
    app.add_middleware(CORSMiddleware, allow_origins=[PAGE], allow_credentials=True)  # after install, as people do
    asyncio.run(start(app))
    assert let_in(manager._hubbub.origins) is lets_in
