"""The pages that may connect to an endpoint, and the codes with which SDKs stop where they may not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, WebSocket
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from hubbub import ConnectionManager, InvalidArgument
from hubbub.auth import Claims, JWTAuth
from tests.integration.live import KEY, token
from tests.integration.sdk_python import PythonSdk
from tests.integration.support import DEADLINE_S, LiveServer, client, closed, eventually, receive, serving

pytestmark = pytest.mark.anyio

TOKENS = JWTAuth(KEY, algorithms=["HS256"], cookie="session")
PAGE, ELSEWHERE = "https://page.example", "https://elsewhere.example"


class Site:
    """An app with an endpoint for the pages of one other host, and a raw socket beside it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.app = FastAPI()
        self.manager = ConnectionManager(allowed_origins=[PAGE])
        self.manager.install(self.app)

        async def current_user(claims: Annotated[Claims, Depends(TOKENS)]) -> str:
            self.asked.append(claims.sub)
            return claims.sub

        self.live = self.manager.endpoint("/live", auth=current_user)
        self.tenant = self.manager.endpoint("/of/{tenant}/live", auth=current_user)

        @self.app.websocket("/raw")
        async def raw(websocket: WebSocket) -> None:
            raise AssertionError("a page from elsewhere reached a handler")

        self.server: LiveServer

    @property
    def refused(self) -> int:
        return self.manager.stats().refused.get("origin", 0)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    site = Site()
    with serving(site.app) as server:
        site.server = server
        yield site


CONNECT = json.dumps({"id": 1, "connect": {}})
CONNECT_WITH_TOKEN = json.dumps({"id": 1, "connect": {"token": token("ann")}})


def headers(origin: str, *, cookie: bool) -> dict[str, str]:
    return {"Origin": origin, **({"Cookie": f"session={token('ann')}"} if cookie else {})}


async def says(websocket: ClientConnection, command: str) -> Any:
    """What a client is answered, or the code with which it was closed."""
    with suppress(ConnectionClosed):
        await websocket.send(command)
        return await receive(websocket)
    return await closed(websocket)


@pytest.mark.parametrize("origin", [ELSEWHERE, "null", "http://127.0.0.1:1"])
@pytest.mark.parametrize(
    ("cookie", "command"), [(True, CONNECT), (True, CONNECT_WITH_TOKEN), (False, CONNECT_WITH_TOKEN)]
)
async def test_a_page_from_elsewhere_is_told_to_stay_away_whatever_token_it_has(
    origin: str, cookie: bool, command: str, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    before, site.asked[:] = site.refused, []
    async with client(site.server, "/live", additional_headers=headers(origin, cookie=cookie)) as websocket:
        assert await says(websocket, command) == (3507, "origin not allowed")
    await eventually(lambda: not site.server.server.server_state.tasks)
    assert site.refused == before + 1
    assert not site.asked
    (line,) = [each.getMessage() for each in caplog.get_records("call") if each.name == "hubbub"]
    assert line.startswith("refused a WebSocket on '/live': origin ")


@pytest.mark.parametrize("cookie", [True, False])
@pytest.mark.parametrize("origin", [PAGE, "its own", None])
async def test_a_page_that_may_connects_with_a_cookie_or_with_a_token(
    origin: str | None, cookie: bool, site: Site
) -> None:
    own = f"http://127.0.0.1:{site.server.port}"
    sent = headers(own if origin == "its own" else origin or "", cookie=cookie)
    if origin is None:
        del sent["Origin"]
    async with client(site.server, "/live", additional_headers=sent) as websocket:
        assert "connect" in await says(websocket, CONNECT if cookie else CONNECT_WITH_TOKEN)


@pytest.mark.parametrize(
    ("offered", "answer"),
    [
        (["centrifuge-json"], "centrifuge-json"),
        (["centrifuge-protobuf"], "centrifuge-protobuf"),
        (["bearer", "a.b.c"], "bearer"),
        ([], None),
    ],
    ids=["json", "protobuf", "bearer", "none"],
)
async def test_a_refusal_selects_a_subprotocol_so_that_a_browser_can_read_it(
    offered: list[str], answer: str | None, site: Site
) -> None:
    protocols = [Subprotocol(each) for each in offered] or None
    options: dict[str, Any] = {"additional_headers": {"Origin": ELSEWHERE}, "subprotocols": protocols}
    async with client(site.server, "/live", **options) as websocket:
        assert websocket.subprotocol == answer
        assert await says(websocket, CONNECT) == (3507, "origin not allowed")


@pytest.mark.parametrize("path", ["/raw", "/nowhere", "/of/live"])
async def test_what_is_no_endpoint_is_refused_before_accept(path: str, site: Site) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with client(site.server, path, additional_headers={"Origin": ELSEWHERE}):
            pass
    assert refused.value.response.status_code == 403


async def test_an_endpoint_whose_path_has_parameters_is_one_too(site: Site) -> None:
    async with client(site.server, "/of/acme/live", additional_headers={"Origin": ELSEWHERE}) as websocket:
        assert await says(websocket, CONNECT) == (3507, "origin not allowed")


async def test_a_page_from_elsewhere_that_says_nothing_is_closed_too(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubbub.endpoints.entrance.FIRST_COMMAND_S", 0.05)
    async with client(site.server, "/live", additional_headers={"Origin": ELSEWHERE}) as websocket:
        assert await closed(websocket) == (3507, "origin not allowed")
    async with client(site.server, "/live", additional_headers={"Origin": ELSEWHERE}) as websocket:
        await websocket.close()
    await eventually(lambda: not site.server.server.server_state.tasks)


@pytest.mark.parametrize("protobuf", [False, True], ids=["json", "protobuf"])
async def test_an_sdk_on_a_page_from_elsewhere_does_not_come_back(protobuf: bool, site: Site) -> None:
    before = site.refused
    async with PythonSdk(protobuf=protobuf, headers={"Origin": ELSEWHERE}).client(site) as ann:
        await ann.connect()
        await eventually(lambda: bool(ann.disconnected))
        assert ann.disconnected == [(3507, "origin not allowed")]
        assert ann.sdk.state.value == "disconnected"
    assert site.refused == before + 1


async def test_another_manager_that_allows_a_page_does_not_open_an_endpoint() -> None:
    app = FastAPI()
    strict, open_ = ConnectionManager(), ConnectionManager(allowed_origins=["*"])
    strict.install(app)
    open_.install(app)
    asked: list[str] = []

    async def anybody() -> str:
        asked.append("anybody")
        return "ann"

    strict.endpoint("/strict", auth=anybody)
    open_.endpoint("/open", auth=anybody)
    with serving(app) as server:
        for path, expected in (("/strict", [(3507, "origin not allowed"), []]), ("/open", ["connect", ["anybody"]])):
            async with client(server, path, additional_headers={"Origin": ELSEWHERE}) as websocket:
                answer = await says(websocket, CONNECT)
            assert [answer if isinstance(answer, tuple) else list(answer)[-1], asked] == expected
        assert strict.stats().refused == {"origin": 1}


async def test_a_client_of_protobuf_stays_away_where_protobuf_is_not_installed(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def not_installed() -> None:
        raise InvalidArgument("subprotocol", "protobuf is not installed", "pip install 'hubbub[protobuf]'")

    monkeypatch.setattr("hubbub.endpoints.entrance.centrifugo_protobuf", not_installed)
    options: dict[str, Any] = {"subprotocols": [Subprotocol("centrifuge-protobuf")], "open_timeout": DEADLINE_S}
    async with client(site.server, "/live", **options) as websocket:
        assert websocket.subprotocol == "centrifuge-protobuf"
        assert await says(websocket, CONNECT) == (3506, "inappropriate protocol")
    await eventually(lambda: not site.server.server.server_state.tasks)
    (line,) = [each.getMessage() for each in caplog.get_records("call") if each.name == "hubbub"]
    assert "pip install 'hubbub[protobuf]'" in line
    assert site.manager.stats().refused["protocol"] == 1
    async with client(site.server, "/live", subprotocols=[Subprotocol("centrifuge-json")]) as websocket:
        assert "connect" in await says(websocket, CONNECT_WITH_TOKEN)
