"""docs/auth.md and its examples: they are the same, and do what it says, under an installed manager."""

import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import jwt
import pytest
import uvicorn
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from hubbub.auth import Claims

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "auth.md").read_text()
EXAMPLES = sorted((ROOT / "examples").glob("auth_*.py"))
SECRET = os.environ["JWT_KEY"]

Start = Callable[..., "Site"]


def token(**claims: Any) -> str:
    return jwt.encode({"sub": "ann", "name": "Ann", "exp": int(time.time()) + 600, **claims}, SECRET, "HS256")


class Site:
    """A running example."""

    def __init__(self, module: ModuleType, port: int) -> None:
        self.module = module
        self.port = port

    def post(self, path: str) -> httpx.Response:
        return httpx.post(f"http://127.0.0.1:{self.port}{path}", trust_env=False)

    def get(self, path: str, headers: dict[str, str]) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", headers=headers, trust_env=False)

    def open(self, path: str, *subprotocols: str, **headers: str) -> ClientConnection:
        offered = [Subprotocol(name) for name in subprotocols]
        url = f"ws://127.0.0.1:{self.port}{path}"
        return connect(url, subprotocols=offered or None, additional_headers=headers, proxy=None)

    def refused(self) -> dict[str, int]:
        return dict(self.module.manager.stats().refused)


class Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@contextmanager
def running(app: Any) -> Iterator[int]:
    config = uvicorn.Config(app, port=0, log_config=None, log_level="info", timeout_graceful_shutdown=5)
    server = Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert server.ready.wait(10)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


# Of uvicorn up to 0.54, after any response other than 101 or 403 to a handshake: its pull request 3138.
SPURIOUS = "ASGI callable returned without completing handshake."


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Errors and tracebacks in the log of a test whose fixtures are being torn down."""
    records = caplog.get_records("call") + caplog.get_records("teardown")
    bad = [record for record in records if record.exc_info or record.levelno >= logging.ERROR]
    return [record.getMessage() for record in bad if record.getMessage() != SPURIOUS]


@pytest.fixture
def start(caplog: pytest.LogCaptureFixture) -> Iterator[Start]:
    with ExitStack() as stack, caplog.at_level(logging.INFO):

        def started(name: str) -> Site:
            module = import_module(f"examples.auth_{name}")
            return Site(module, stack.enter_context(running(module.app)))

        yield started
    assert not errors(caplog)


def closed(websocket: ClientConnection) -> tuple[int | None, str | None]:
    with pytest.raises(ConnectionClosed):
        websocket.recv(timeout=30)
    return websocket.close_code, websocket.close_reason


def test_every_python_block_is_an_example_and_every_example_is_shown() -> None:
    shown = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert sorted(shown) == sorted(path.read_text() for path in EXAMPLES)
    for path in EXAMPLES:
        assert f"(../examples/{path.name})" in PAGE


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_defines_an_app(path: Path) -> None:
    assert import_module(f"examples.{path.stem}").app.routes


def test_one_dependency_for_http_and_websockets(start: Start) -> None:
    site = start("http_and_websocket")
    text = site.post("/sign-in?name=Ann").json()["token"]
    assert site.get("/me", {"Authorization": f"Bearer {text}"}).json() == {"id": "ann", "name": "Ann"}
    with site.open("/ws", "bearer", text) as websocket:
        assert websocket.subprotocol == "bearer"
        websocket.send("hello")
        assert json.loads(websocket.recv(timeout=30)) == {"from": "Ann", "text": "hello"}
    with site.open("/ws", "bearer", "x") as websocket:
        assert websocket.subprotocol == "bearer"
        assert closed(websocket) == (1008, "unauthorized: malformed token")
    assert site.refused() == {"token": 1}


def test_it_is_overridden_in_a_test(start: Start) -> None:
    site = start("http_and_websocket")
    module = site.module
    module.app.dependency_overrides[module.current_user] = lambda: Claims({"sub": "bob", "name": "Bob"})
    try:
        assert site.get("/me", {}).json() == {"id": "bob", "name": "Bob"}
    finally:
        module.app.dependency_overrides.clear()


def test_a_connection_ends_with_its_token(start: Start) -> None:
    site = start("http_and_websocket")
    with site.open("/ws", "bearer", token(exp=int(time.time()) + 2)) as websocket:
        assert closed(websocket) == (1008, "token expired")


def test_a_cookie_is_set_so_that_scripts_and_other_sites_do_not_have_it(start: Start) -> None:
    site = start("cookie")
    cookie = site.post("/sign-in?name=ann").headers["set-cookie"]
    assert {"HttpOnly", "Secure", "SameSite=lax"} <= set(cookie.split("; "))
    with site.open("/ws", Cookie=cookie.partition(";")[0]) as websocket:
        websocket.ping().wait(10)
    with site.open("/ws") as websocket:
        assert closed(websocket) == (1008, "unauthorized: no token")


def test_a_cookie_is_of_no_use_to_another_site(start: Start) -> None:
    site = start("cookie")
    with pytest.raises(InvalidStatus) as caught:
        site.open("/ws", Cookie=f"session={token()}", Origin="https://evil.example")
    assert caught.value.response.status_code == 403


def test_a_token_in_the_query_is_in_no_log(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    site = start("query")
    good, bad = token(aud="devices"), token(aud="people")
    with site.open(f"/devices?token={good}") as websocket:
        websocket.ping().wait(10)
    with pytest.raises(InvalidStatus) as caught:
        site.open(f"/devices?token={bad}")
    assert caught.value.response.status_code == 401
    lines = [record.getMessage() for record in caplog.records]
    assert "refused a WebSocket on '/devices': unauthorized: wrong audience" in lines
    assert any("token=***" in line for line in lines)
    for part in (*good.split("."), *bad.split(".")):
        assert not [line for line in lines if part in line]


def test_the_first_message_is_the_token(start: Start) -> None:
    site = start("first_message")
    with site.open("/ws") as websocket:
        websocket.send(token())
        websocket.send("hello")
        assert json.loads(websocket.recv(timeout=30)) == {"from": "ann", "text": "hello"}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        pytest.param("x", "unauthorized: malformed token", id="malformed"),
        pytest.param(token(exp=1), "token expired", id="expired"),
        pytest.param(b"\x00", "unauthorized: no token", id="binary"),
    ],
)
def test_a_first_message_that_is_no_token_closes(start: Start, message: str | bytes, reason: str) -> None:
    with start("first_message").open("/ws") as websocket:
        websocket.send(message)
        assert closed(websocket) == (1008, reason)


def test_a_connection_ends_with_the_token_of_its_first_message(start: Start) -> None:
    with start("first_message").open("/ws") as websocket:
        websocket.send(token(exp=int(time.time()) + 2))
        assert closed(websocket) == (1008, "token expired")


def test_the_providers_keys_decide(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
    site = start("jwks")
    published = {"keys": [{**public, "kid": "1", "alg": "RS256", "use": "sig"}]}
    monkeypatch.setattr(site.module.jwks, "fetch_data", lambda: published)
    claims = {"sub": "ann", "aud": "chat", "iss": "https://id.example", "exp": int(time.time()) + 600}

    def answer(**header: str) -> tuple[int, Any]:
        text = jwt.encode(claims, key, "RS256", header)
        response = site.get("/me", {"Authorization": f"Bearer {text}"})
        return response.status_code, response.json()

    assert answer(kid="1") == (200, {"id": "ann"})
    assert answer(kid="2") == (401, {"detail": "unauthorized: unknown key"})
    assert answer() == (401, {"detail": "unauthorized: unknown key"})


def test_without_the_providers_keys_it_says_try_again_later(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def down() -> object:
        raise jwt.PyJWKClientConnectionError("down")

    site = start("jwks")
    monkeypatch.setattr(site.module.jwks, "jwk_set_cache", None)
    monkeypatch.setattr(site.module.jwks, "fetch_data", down)
    by_nobody = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.e30.x".replace("x", "AAAA")  # {"alg":"RS256","kid":"1"}
    assert site.get("/me", {"Authorization": f"Bearer {by_nobody}"}).status_code == 503
    with site.open("/ws", "bearer", by_nobody) as websocket:
        assert closed(websocket) == (1013, "authentication is unavailable")


def test_pages_of_listed_origins_may_connect(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    site = start("origins")
    for origin in ("https://app.example", "https://a.app.example", "http://localhost:5173"):
        with site.open("/ws", Origin=origin) as websocket:
            websocket.ping().wait(10)
    with pytest.raises(InvalidStatus) as caught:
        site.open("/ws", Origin="https://evil.example")
    assert caught.value.response.status_code == 403
    [line] = [record.getMessage() for record in caplog.records if "origin" in record.getMessage()]
    assert line.endswith('if it is yours: ConnectionManager(allowed_origins=["https://evil.example"])')
