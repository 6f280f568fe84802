"""Faults of an app with an endpoint: each is logged once by the name of its function, and answered."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, cast

import pytest
from fastapi import Depends, FastAPI, HTTPException, Path, WebSocket, WebSocketException

from hubbub import Connection, ConnectionManager
from hubbub.endpoints.results import Grant, Welcome
from hubbub.endpoints.routing import MessageRouter
from tests.integration.json_client import Wire, error, rpc, subscribe
from tests.integration.support import LiveServer, client, closed, serving

pytestmark = pytest.mark.anyio

IDS: dict[str, Any] = {"bool": True, "float": {"id": 1.5}, "list": {"id": ["x"]}, "nothing": {"name": "ann"}}
RAISED: dict[str, Callable[[], Exception]] = {
    "float": lambda: HTTPException(cast("Any", 403.0), "x"),
    "str": lambda: HTTPException(cast("Any", "403"), "x"),
    "close with a str": lambda: WebSocketException(cast("Any", "4000"), "x"),
    "close with bytes": lambda: WebSocketException(4000, cast("Any", b"x")),
}


class Site:
    def __init__(self) -> None:
        self.app = FastAPI()
        self.manager = ConnectionManager()
        self.manager.install(self.app)
        self.server: LiveServer
        self._declare_auth()
        self._declare_tenants()
        self._declare_faults()

    def _declare_auth(self) -> None:
        async def closing(websocket: WebSocket, code: int = 1000) -> None:
            await websocket.close(code, "not you")

        async def sending(websocket: WebSocket) -> None:
            await websocket.send_json({"you are": "welcome"})

        async def identified(case: str) -> Any:
            return IDS[case]

        self.manager.endpoint("/closing", auth=closing)
        self.manager.endpoint("/sending", auth=sending)
        self.manager.endpoint("/ids", auth=identified)

    def _declare_tenants(self) -> None:
        async def of_tenant(tenant: str) -> str:
            return f"user of {tenant}"

        async def from_dependency(tenant: str) -> str:
            return tenant

        router = MessageRouter()

        @router.on("router")
        async def in_router(found: str = Depends(from_dependency)) -> str:
            return found

        @router.on("parameter of the router")
        async def own_in_router(tenant: str) -> str:
            return tenant

        @router.on("parameter and message of the router")
        async def both_in_router(tenant: Annotated[str, Path()], message: str) -> str:
            return f"{message} of {tenant}"

        for path, auth in (("/live/{tenant}", of_tenant), ("/open/{tenant}", None)):
            live = self.manager.endpoint(path, auth=auth)
            live.include_router(router)

            @live.on("user")
            async def user(connection: Connection) -> str | None:
                return connection.user_id

            @live.on("parameter")
            async def own(tenant: str, message: str) -> str:
                return f"{message} of {tenant}"

            @live.on("dependency")
            async def dependency(found: str = Depends(from_dependency)) -> str:
                return found

            @live.room("{kind}:{room}")
            async def room(kind: str, room: str, tenant: str) -> Grant:
                return Grant(data=tenant)

    def _declare_faults(self) -> None:
        live = self.manager.endpoint("/faults", auth=None)

        @live.on("raise")
        async def raising(message: str) -> None:
            raise RAISED[message]()

        @live.on("echo", concurrent=True)
        async def echo(message: str) -> str:
            return message

        @live.on("receive")
        async def receiving(message: str, connection: Connection) -> Any:
            source = connection.websocket if message.startswith("websocket.") else connection
            method = getattr(source, message.removeprefix("websocket."))
            return [each async for each in method()] if "iter" in message else await method()

        @live.room("no:{room}")
        async def refusing(room: str) -> bool:
            return False

        @live.room("silent:{room}")
        async def silent(room: str) -> bool:
            return True

        @live.publish("said:{room}")
        async def said(message: str, room: str) -> str:
            return message

        @live.room("grant:{room}")
        async def granting(room: str) -> Grant:
            return Grant(data=cast("Any", object()))

        welcoming = self.manager.endpoint("/welcoming", auth=None)

        @welcoming.connect
        async def greeting() -> Welcome:
            return Welcome(data=cast("Any", object()))

    @property
    def failed(self) -> int:
        return self.manager.stats().errors.get("function", 0)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    site = Site()
    with serving(site.app) as server:
        site.server = server
        yield site


@asynccontextmanager
async def wired(site: Site, path: str, *, connect: bool = True) -> AsyncIterator[Wire]:
    async with client(site.server, path) as socket:
        made = Wire(socket)
        if connect:
            assert "connect" in await made.ask(1, connect={})
        yield made


@asynccontextmanager
async def one_failure(site: Site, caplog: pytest.LogCaptureFixture, function: str) -> AsyncIterator[None]:
    """Within it, one failure of a function is counted, and logged by its name."""
    before = site.failed
    yield
    assert site.failed == before + 1
    (record,) = [each for each in caplog.records if each.name == "hubbub" and each.levelno >= logging.WARNING]
    assert f"{function}()" in record.getMessage()
    assert record.exc_info


# The handshake


@pytest.mark.parametrize(("query", "code"), [("", 3503), ("?code=1008", 3507), ("?code=4403", 4403)])
async def test_a_client_whose_socket_the_auth_dependency_closed_is_not_admitted(
    query: str, code: int, site: Site
) -> None:
    async with wired(site, f"/closing{query}", connect=False) as one:
        await one.send({"id": 1, "connect": {}}, rpc(2, "any"))
        assert await closed(one.socket) == (code, "not you")


async def test_an_auth_dependency_that_sends_is_an_error_of_the_app(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async with one_failure(site, caplog, "sending"), wired(site, "/sending", connect=False) as one:
        assert error(await one.ask(1, connect={})) == 100


@pytest.mark.parametrize("case", IDS)
async def test_a_user_id_of_a_wrong_type_is_an_error_of_the_app(
    case: str, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async with one_failure(site, caplog, "identified"), wired(site, f"/ids?case={case}", connect=False) as one:
        assert error(await one.ask(1, connect={})) == 100
    assert f"a value of the type {type(IDS[case]).__name__}" in caplog.text


@pytest.mark.parametrize("path", ["/live", "/open"])
async def test_path_parameters_come_from_the_path_and_not_from_the_query(path: str, site: Site) -> None:
    async with wired(site, f"{path}/acme?tenant=evil") as one:
        await one.send(
            rpc(2, "user"),
            rpc(3, "parameter", "hello"),
            rpc(4, "dependency"),
            rpc(5, "router"),
            rpc(6, "parameter of the router", "evil"),
            rpc(7, "parameter and message of the router", "hello"),
            subscribe(8, "chat:lobby"),
        )
        answers = await one.answers(*range(2, 9))
    said = [each["rpc"].get("data") for each in answers[:-1]]
    assert said == [
        "user of acme" if path == "/live" else None,
        "hello of acme",
        "acme",
        "acme",
        "acme",
        "hello of acme",
    ]
    assert answers[-1]["subscribe"]["data"] == "acme"


# Functions


@pytest.mark.parametrize("case", RAISED)
async def test_an_exception_with_a_code_of_a_wrong_type_is_an_error_of_the_app(
    case: str, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async with one_failure(site, caplog, "raising"), wired(site, "/faults") as one:
        await one.send(rpc(2, "raise", case), rpc(3, "echo", "still there"))
        failed, echoed = await one.answers(2, 3)
        assert (error(failed), echoed["rpc"]["data"]) == (100, "still there")


async def test_data_of_a_grant_that_can_not_be_sent_is_an_error_of_its_function(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async with one_failure(site, caplog, "granting"), wired(site, "/faults") as one:
        assert error(await one.ask(2, subscribe={"channel": "grant:a"})) == 100


async def test_data_of_a_welcome_that_can_not_be_sent_is_an_error_of_its_function(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async with one_failure(site, caplog, "greeting"), wired(site, "/welcoming", connect=False) as one:
        assert error(await one.ask(1, connect={})) == 100
        assert await one.close_code() == 3004


@pytest.mark.parametrize(
    "method",
    ["receive", "receive_text", "receive_bytes", "receive_json", "iter_text", "iter_bytes", "iter_json", "__aiter__",
     "websocket.receive", "websocket.receive_json", "websocket.iter_text"],
)  # fmt: skip
async def test_a_function_that_receives_takes_no_command_of_the_client(
    method: str, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async with one_failure(site, caplog, "receiving"), wired(site, "/faults") as one:
        await one.send(rpc(2, "receive", method), rpc(3, "echo", "not stolen"))
        failed, echoed = await one.answers(2, 3)
        assert (error(failed), echoed["rpc"]["data"]) == (100, "not stolen")
    assert "a message is the parameter of a function" in caplog.text


# Refusals


def publish(number: int, room: str) -> dict[str, Any]:
    return {"id": number, "publish": {"channel": room, "data": 1}}


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (
            subscribe(2, "unknown:a"),
            "no @room pattern matches; there are: silent:{room}, grant:{room}, no:{room}",
        ),
        (subscribe(2, "$everyone"), "are the server's own"),
        (subscribe(2, "no:a"), "refusing() of @room('no:{room}') said no"),
        (
            {"id": 2, "publish": {"channel": "silent:a", "data": 1}},
            "no @publish pattern matches; there are: said:{room}",
        ),
        ({"id": 2, "publish": {"channel": "said:a", "data": 1}}, "publishes there, and is not subscribed"),
        ({"id": 2, "presence": {"channel": "silent:a"}}, "presence or history, and is not subscribed"),
    ],
    ids=["no rule", "the server's own", "the rule said no", "no publish rule", "not subscribed", "presence"],
)
async def test_a_refusal_is_logged_with_its_reason_for_the_developer(
    request_: dict[str, Any], why: str, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="hubbub")
    async with wired(site, "/faults") as one:
        await one.send(request_)
        (answer,) = await one.answers(2)
        assert answer["error"] == {"code": 103, "message": "permission denied"}
    (line,) = [
        each.getMessage() for each in caplog.records if "refused what a client asks of the room" in each.getMessage()
    ]
    assert why in line
