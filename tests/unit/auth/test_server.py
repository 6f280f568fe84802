"""The JWTAuth dependency behind a real uvicorn: what clients see, what the log says, what the socket is told."""

# No `from __future__ import annotations`: FastAPI reads those of routes that are made in a function.

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Annotated, Any

import httpx
import jwt
import pytest
import uvicorn
from fastapi import Depends, FastAPI, WebSocket
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from hubbub.auth import Claims, JWTAuth

SECRET = "a secret for the tests, 32 bytes or more"
EXP = int(time.time()) + 86_400


def token(**claims: Any) -> str:
    return jwt.encode({"sub": "ann", "name": "Ann", "exp": EXP, **claims}, SECRET, "HS256")


EXPIRED = token(exp=1)
FORGED = jwt.encode({"sub": "root", "exp": EXP}, "not the secret, but as long as it is", "HS256")


class RecordedSocket:
    """Stands where the middleware puts its own, and keeps what it is told."""

    def __init__(self) -> None:
        self.granted: list[tuple[str | None, float | None]] = []
        self.refused: list[str] = []

    def grant(self, *, subprotocol: str | None, expires_at: float | None) -> None:
        self.granted.append((subprotocol, expires_at))

    def count_refused(self, reason: str) -> None:
        self.refused.append(reason)

    def refuse_over_http(self) -> None:
        pass


class Middleware:
    """Puts a socket into the scope, and takes what the server can do out of it."""

    def __init__(self, app: ASGIApp, recorded: RecordedSocket | None, extensions: bool) -> None:
        self.app = app
        self.socket = recorded
        self.extensions = extensions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.socket is not None:
            scope["hubbub"] = self.socket
        if not self.extensions:
            scope.pop("extensions", None)
        await self.app(scope, receive, send)


class Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


class Site:
    """An app behind uvicorn that says who is asking."""

    def __init__(self, port: int, auth: JWTAuth, app: FastAPI, recorded: RecordedSocket) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self.auth = auth
        self.app = app
        self.socket = recorded
        self.handled = 0

    def get(self, headers: Mapping[str, str] | None = None, *, query: str = "") -> httpx.Response:
        return httpx.get(f"{self.url}/me{query}", headers=headers, trust_env=False)

    def open(
        self, *subprotocols: str, headers: Mapping[str, str] | None = None, query: str = "", path: str = "/ws"
    ) -> ClientConnection:
        offered = [Subprotocol(name) for name in subprotocols]
        url = f"ws://127.0.0.1:{self.port}{path}{query}"
        return connect(url, subprotocols=offered or None, additional_headers=headers, proxy=None)

    def refused(self, *subprotocols: str, **options: Any) -> tuple[str | None, int, str]:
        """The subprotocol that was answered, and the code and reason of the close."""
        with self.open(*subprotocols, **options) as websocket:
            with pytest.raises(ConnectionClosed):
                websocket.recv(timeout=30)
            assert websocket.close_code is not None
            return websocket.subprotocol, websocket.close_code, websocket.close_reason or ""


Serve = Callable[..., Site]


@contextmanager
def running(app: ASGIApp) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            assert server.ready.wait(10)
            yield listening.getsockname()[1]
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
def serve(caplog: pytest.LogCaptureFixture) -> Iterator[Serve]:
    """Serves an app with a `JWTAuth` of the given options; at the end no traceback may have been logged."""
    with ExitStack() as stack:

        def start(*, extensions: bool = True, **options: Any) -> Site:
            auth = JWTAuth(**{"key": SECRET, "algorithms": ["HS256"], **options})
            app, recorded = FastAPI(), RecordedSocket()
            User = Annotated[Claims, Depends(auth)]

            @app.get("/me")
            def me(user: User) -> dict[str, object]:
                site.handled += 1
                return {"sub": user.sub, "name": user["name"]}

            @app.websocket("/ws")
            async def ws(websocket: WebSocket, user: User) -> None:
                site.handled += 1
                await websocket.accept("bearer" if "bearer" in websocket.scope["subprotocols"] else None)
                await websocket.send_json({"sub": user.sub, "name": user["name"]})
                await websocket.close()

            async def accepted(websocket: WebSocket) -> None:
                await websocket.accept()

            @app.websocket("/accepted", dependencies=[Depends(accepted), Depends(auth)])
            async def late(websocket: WebSocket) -> None:
                site.handled += 1

            port = stack.enter_context(running(Middleware(app, recorded, extensions)))
            site = Site(port, auth, app, recorded)
            return site

        with caplog.at_level(logging.INFO):
            yield start
    assert not errors(caplog)


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "hubbub.auth"]


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


# Good tokens


@pytest.mark.parametrize(
    ("headers", "options"),
    [
        pytest.param(bearer(token()), {}, id="header"),
        pytest.param({"Cookie": f"session={token()}"}, {"cookie": "session"}, id="cookie"),
    ],
)
def test_an_http_request_with_a_token_is_let_in(serve: Serve, headers: dict[str, str], options: dict[str, Any]) -> None:
    response = serve(**options).get(headers)
    assert (response.status_code, response.json()) == (200, {"sub": "ann", "name": "Ann"})


@pytest.mark.parametrize(
    ("subprotocols", "how", "options", "answered"),
    [
        pytest.param([], {"headers": bearer(token())}, {}, None, id="header"),
        pytest.param(["bearer", token()], {}, {}, "bearer", id="subprotocol"),
        pytest.param(["chat", "bearer", token()], {}, {}, "bearer", id="subprotocol-among-others"),
        pytest.param([], {"headers": {"Cookie": f"a=b; t={token()}"}}, {"cookie": "t"}, None, id="cookie"),
        pytest.param([], {"query": f"?token={token()}"}, {"query": "token"}, None, id="query"),
    ],
)
def test_a_websocket_with_a_token_is_let_in_and_the_socket_is_told(
    serve: Serve, subprotocols: list[str], how: dict[str, Any], options: dict[str, Any], answered: str | None
) -> None:
    site = serve(**options)
    with site.open(*subprotocols, **how) as websocket:
        assert json.loads(websocket.recv(timeout=30)) == {"sub": "ann", "name": "Ann"}
        assert websocket.subprotocol == answered
    assert site.socket.granted == [(answered, EXP)]
    assert site.socket.refused == []


def test_the_connection_may_outlive_its_token_by_the_leeway(serve: Serve) -> None:
    site = serve(leeway_s=30)
    with site.open("bearer", token()) as websocket:
        websocket.recv(timeout=30)
    assert site.socket.granted == [("bearer", EXP + 30)]


def test_a_token_without_expiry_grants_without_end(serve: Serve) -> None:
    site = serve(required=["sub"])
    with site.open("bearer", jwt.encode({"sub": "ann", "name": "Ann"}, SECRET, "HS256")) as websocket:
        websocket.recv(timeout=30)
    assert site.socket.granted == [("bearer", None)]


def test_a_bad_token_is_not_made_good_by_a_second_one(serve: Serve) -> None:
    site = serve(cookie="session")
    assert site.get({**bearer(FORGED), "Cookie": f"session={token()}"}).status_code == 401
    assert site.get({**bearer(token()), "Cookie": f"session={FORGED}"}).status_code == 200


def test_a_key_function_runs_off_the_event_loop(serve: Serve) -> None:
    threads: list[str] = []

    def find(header: Mapping[str, Any]) -> str:
        threads.append(threading.current_thread().name)
        return SECRET

    site = serve(key=find)
    assert site.get(bearer(token())).status_code == 200
    with site.open("bearer", token()) as websocket:
        websocket.recv(timeout=30)
    assert len(threads) == 2
    assert all("worker" in name.lower() for name in threads)


# Refusals


def test_http_without_a_token_gets_401_and_no_error_code(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    site = serve(query="token")
    response = site.get(query=f"?token={token()}")
    assert (response.status_code, response.json()) == (401, {"detail": "unauthorized: no token"})
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert refusals(caplog) == ["refused a request on '/me': unauthorized: no token"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        pytest.param(FORGED, "unauthorized: bad signature", id="forged"),
        pytest.param(EXPIRED, "token expired", id="expired"),
        pytest.param("x", "unauthorized: malformed token", id="malformed"),
    ],
)
def test_http_with_a_bad_token_gets_401_and_why(
    serve: Serve, caplog: pytest.LogCaptureFixture, bad: str, reason: str
) -> None:
    site = serve()
    response = site.get(bearer(bad))
    assert (response.status_code, response.json()) == (401, {"detail": reason})
    challenge = f'Bearer error="invalid_token", error_description="{reason}"'
    assert response.headers["WWW-Authenticate"] == challenge
    assert refusals(caplog) == [f"refused a request on '/me': {reason}"]
    assert site.handled == 0


@pytest.mark.parametrize(
    ("subprotocols", "how", "answered", "reason"),
    [
        pytest.param([], {}, None, "unauthorized: no token", id="nothing"),
        pytest.param(["bearer"], {}, "bearer", "unauthorized: no token", id="bearer-alone"),
        pytest.param(["bearer", FORGED], {}, "bearer", "unauthorized: bad signature", id="subprotocol-forged"),
        pytest.param(["bearer", EXPIRED], {}, "bearer", "token expired", id="subprotocol-expired"),
        pytest.param(["chat", "bearer", FORGED], {}, "bearer", "unauthorized: bad signature", id="among-others"),
        pytest.param(["chat"], {}, "chat", "unauthorized: no token", id="other-subprotocol"),
        pytest.param(["5f0c2b9a71d84e63"], {}, None, "unauthorized: no token", id="an-opaque-token-alone"),
        pytest.param([], {"headers": bearer(EXPIRED)}, None, "token expired", id="header-expired"),
        pytest.param(
            [], {"headers": {"Cookie": f"session={FORGED}"}}, None, "unauthorized: bad signature", id="cookie"
        ),
    ],
)
def test_a_refused_websocket_is_closed_with_a_reason(
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    subprotocols: list[str],
    how: dict[str, Any],
    answered: str | None,
    reason: str,
) -> None:
    site = serve(cookie="session")
    assert site.refused(*subprotocols, **how) == (answered, 1008, reason)
    assert refusals(caplog) == [f"refused a WebSocket on '/ws': {reason}"]
    assert (site.socket.refused, site.socket.granted, site.handled) == (["token"], [], 0)


def test_a_socket_that_was_accepted_before_is_closed_with_the_reason(serve: Serve) -> None:
    for options in ({}, {"refuse": "http"}):
        site = serve(**options)
        assert site.refused(path="/accepted") == (None, 1008, "unauthorized: no token")
        assert site.handled == 0


@pytest.mark.parametrize("subprotocols", [[], ["bearer", FORGED]], ids=["no-token", "forged"])
def test_a_handshake_may_be_refused_with_401(serve: Serve, subprotocols: list[str]) -> None:
    site = serve(refuse="http")
    with pytest.raises(InvalidStatus) as caught:
        site.open(*subprotocols)
    response = caught.value.response
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert json.loads(response.body or b"")["detail"].startswith("unauthorized: ")
    assert (site.socket.refused, site.handled) == (["token"], 0)


def test_a_handshake_is_refused_with_403_where_the_server_has_nothing_else(serve: Serve) -> None:
    site = serve(refuse="http", extensions=False)
    with pytest.raises(InvalidStatus) as caught:
        site.open()
    assert caught.value.response.status_code == 403


def test_a_key_that_cannot_be_had_is_no_fault_of_the_client(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    def down(header: Mapping[str, Any]) -> str:
        raise OSError("no route to\nkeys")

    site = serve(key=down)
    assert site.refused("bearer", token()) == ("bearer", 1013, "authentication is unavailable")
    response = site.get(bearer(token()))
    assert (response.status_code, response.json()) == (503, {"detail": "authentication is unavailable"})
    why = r"no key to check its token with (OSError: 'no route to\nkeys')"
    assert refusals(caplog) == [f"refused a WebSocket on '/ws': {why}", f"refused a request on '/me': {why}"]
    assert {record.levelname for record in caplog.records if record.name == "hubbub.auth"} == {"WARNING"}


def test_a_key_that_is_unknown_says_in_the_log_which(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    keys: dict[str, str] = {}
    site = serve(key=lambda header: keys[header["alg"]])
    assert site.get(bearer(token())).json() == {"detail": "unauthorized: unknown key"}
    assert refusals(caplog) == ["refused a request on '/me': unauthorized: unknown key (KeyError: \"'HS256'\")"]


@pytest.mark.parametrize("text", [token(), FORGED, EXPIRED], ids=["good", "forged", "expired"])
def test_no_token_is_in_any_log_line(serve: Serve, caplog: pytest.LogCaptureFixture, text: str) -> None:
    site = serve(cookie="session")
    site.get(bearer(text))
    for subprotocols, headers in (["bearer", text], {}), ([], bearer(text)), ([], {"Cookie": f"session={text}"}):
        with site.open(*subprotocols, headers=headers) as websocket, pytest.raises(ConnectionClosed):
            while True:
                websocket.recv(timeout=30)
    lines = [record.getMessage() for record in caplog.records]
    assert any("/ws" in line for line in lines), "uvicorn writes one for each"
    for part in text.split("."):
        assert not [line for line in lines if part in line]


def test_a_path_can_not_forge_a_log_line(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    site = serve()

    @site.app.get("/{rest:path}", dependencies=[Depends(site.auth)])
    def anything(rest: str) -> None: ...

    httpx.get(f"{site.url}/%1B[2Jnobody" + "a" * 500, trust_env=False)
    [line] = refusals(caplog)
    assert line.startswith(r"refused a request on '/\x1b[2Jnobodyaaa")
    assert len(line) < 200


# In an app


def test_a_test_may_override_it_for_both(serve: Serve) -> None:
    site = serve()
    site.app.dependency_overrides[site.auth] = lambda: Claims({"sub": "bob", "name": "Bob"})
    assert site.get().json() == {"sub": "bob", "name": "Bob"}
    with site.open() as websocket:
        assert json.loads(websocket.recv(timeout=30)) == {"sub": "bob", "name": "Bob"}


def test_the_docs_show_authorize(serve: Serve) -> None:
    schema = serve().app.openapi()
    assert schema["components"]["securitySchemes"] == {
        "JWTAuth": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    }
    assert schema["paths"]["/me"]["get"]["security"] == [{"JWTAuth": []}]
    assert "parameters" not in schema["paths"]["/me"]["get"]
