"""Who is let in, what the log says about it, and what it never says."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import jwt
import pytest
from fastapi import Depends, FastAPI, HTTPException, WebSocket, WebSocketDisconnect, WebSocketException
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

from hubbub import ConnectionManager, RoomOptions
from hubbub.auth import Claims, JWTAuth
from tests.integration.support import Live, client, closed, eventually, opened, receive, running, serving

pytestmark = pytest.mark.anyio

KEY = "a key of the tests, of more than 32 bytes"
SECRET = "s3cr3t-t0ken-value"


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the server's side logged. The clients of these tests log too, and say everything."""
    own = ("uvicorn", "hubbub", "asyncio", "fastapi")
    formatter = logging.Formatter("%(name)s %(levelname)s %(message)s")
    return [formatter.format(record) for record in caplog.records if record.name.startswith(own)]


async def status(live: Live, path: str, **headers: Any) -> int:
    _, writer, status = await opened(live.server, path, **headers)
    writer.close()
    return status


async def echo(websocket: WebSocket) -> None:
    """A handler that knows nothing of hubbub."""
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        pass


class TestOrigin:
    @pytest.fixture(scope="class")
    @classmethod
    def live(cls) -> Iterator[Live]:
        with running(ConnectionManager()) as live:
            yield live

    async def test_of_the_same_host_is_let_in(self, live: Live) -> None:
        origin = Origin(f"http://127.0.0.1:{live.server.port}")
        async with client(live.server, live.at(echo), origin=origin) as websocket:
            await websocket.send("hello")
            assert await receive(websocket) == "hello"

    async def test_that_is_missing_is_let_in_because_no_browser_leaves_it_out(self, live: Live) -> None:
        assert await status(live, live.at(echo)) == 101

    @pytest.mark.parametrize(
        "origin",
        [
            "https://evil.example",
            "http://127.0.0.1",
            "http://127.0.0.1:1",
            "http://localhost:{port}",
            "http://127.0.0.1:{port}.evil.example",
            "http://evil.example:{port}",
            "null",
            "file://",
            "",
            "garbage",
        ],
    )
    async def test_of_another_host_is_refused_with_403_before_accept(
        self, live: Live, origin: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        called: list[WebSocket] = []

        async def handler(websocket: WebSocket) -> None:
            called.append(websocket)
            await websocket.accept()

        before = live.manager.stats().refused.get("origin", 0)
        path = live.at(handler)
        assert await status(live, path, Origin=origin.format(port=live.server.port)) == 403
        assert not called
        assert live.manager.stats().refused["origin"] == before + 1
        warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert [(each.name, each.levelname) for each in warnings] == [("hubbub", "WARNING")]
        assert warnings[0].getMessage().startswith(f"refused a WebSocket on '{path}': ")
        assert not any(record.exc_info for record in caplog.records)

    async def test_that_is_refused_is_named_in_the_log_with_what_to_add(
        self, live: Live, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert await status(live, live.at(echo), Origin="https://app.example") == 403
        (line,) = (record.getMessage() for record in caplog.records if record.name == "hubbub")
        assert 'ConnectionManager(allowed_origins=["https://app.example"])' in line
        assert f"127.0.0.1:{live.server.port}" in line

    async def test_is_compared_before_there_is_a_route(self, live: Live) -> None:
        assert await status(live, "/nowhere", Origin="https://evil.example") == 403

    async def test_cannot_forge_a_log_line(self, live: Live, caplog: pytest.LogCaptureFixture) -> None:
        path = live.at(echo) + "%0aINFO:%20all%20is%20well"
        await status(live, path, Origin="https://evil.example/\xe9" + "x" * 5000)
        (line,) = (record.getMessage() for record in caplog.records if record.name == "hubbub")
        assert "\n" not in line
        assert "é" not in line
        assert len(line) < 1000

    @pytest.mark.parametrize(
        ("allowed", "origin", "expected"),
        [
            (["https://app.example"], "https://app.example", 101),
            (["https://app.example"], "https://app.example:443", 101),
            (["https://app.example"], "http://app.example", 403),
            (["https://app.example"], "https://app.example.evil", 403),
            (["https://app.example"], "http://127.0.0.1:{port}", 101),
            (["https://*.app.example"], "https://shop.app.example", 101),
            (["https://*.app.example"], "https://app.example", 403),
            (["null"], "null", 101),
            (["*"], "https://any.example", 101),
            (["*"], "null", 101),
        ],
    )
    async def test_can_be_allowed(self, allowed: list[str], origin: str, expected: int) -> None:
        with running(ConnectionManager(allowed_origins=allowed)) as live:
            assert await status(live, live.at(echo), Origin=origin.format(port=live.server.port)) == expected

    async def test_that_one_of_the_managers_allows_is_let_in(self) -> None:
        app = FastAPI()
        ConnectionManager().install(app)
        with running(ConnectionManager(allowed_origins=["https://app.example"]), app=app) as live:
            assert await status(live, live.at(echo), Origin="https://app.example") == 101
            assert await status(live, live.at(echo), Origin="https://evil.example") == 403


class TestTheQuery:
    """Uvicorn prints a WebSocket's whole query; a token is often in it."""

    QUERIES = (
        f"token={SECRET}",
        f"a=1&token={SECRET}&b=2",
        f"token={quote('+' + SECRET)}",
        f"token=x={SECRET}",
        f"token=1;{SECRET}",
        SECRET,
        f"a&{SECRET}",
    )

    @pytest.fixture(scope="class")
    @classmethod
    def live(cls) -> Iterator[Live]:
        with running(ConnectionManager()) as live:
            yield live

    @pytest.fixture(autouse=True)
    def _everything_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "hubbub")

    @pytest.mark.parametrize("query", QUERIES)
    async def test_is_for_the_app_and_not_for_the_log(
        self, live: Live, query: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def handler(websocket: WebSocket) -> None:
            async with live.manager.connect(websocket) as connection:
                await connection.send(websocket.url.query)

        async with client(live.server, f"{live.at(handler)}?{query}") as websocket:
            assert await receive(websocket) == query
            await closed(websocket)
        assert any("[accepted]" in line for line in logged(caplog))
        assert not [line for line in logged(caplog) if SECRET in line]

    async def test_keeps_its_names_in_the_log(self, live: Live, caplog: pytest.LogCaptureFixture) -> None:
        path = live.at(echo)
        assert await status(live, f"{path}?room=lobby&token={SECRET}") == 101
        (line,) = (line for line in logged(caplog) if "[accepted]" in line)
        assert f'"WebSocket {path}?room=***&token=***" [accepted]' in line

    @pytest.mark.parametrize("how", ["origin", "close", "status", "no route", "crash", "no accept", "after accept"])
    async def test_is_not_in_the_log_of_a_refusal(self, live: Live, how: str, caplog: pytest.LogCaptureFixture) -> None:
        async def handler(websocket: WebSocket) -> None:
            assert websocket.query_params["token"] == SECRET
            if how == "close":
                raise WebSocketException(1008, "no")
            if how == "status":
                raise HTTPException(401)
            if how == "crash":
                raise ZeroDivisionError
            if how == "after accept":
                await live.manager.connect(websocket)
                raise WebSocketException(1008, "no")

        path = "/nowhere" if how == "no route" else live.at(handler)
        headers = {"Origin": "https://evil.example"} if how == "origin" else {}
        await status(live, f"{path}?token={SECRET}", **headers)
        await live.nothing_left()
        await eventually(lambda: any(path in line for line in logged(caplog)) or how in ("crash", "no accept"))
        assert not [line for line in logged(caplog) if SECRET in line]

    async def test_is_not_in_the_log_of_the_server_at_level_debug(self, caplog: pytest.LogCaptureFixture) -> None:
        with running(ConnectionManager(), log_level="debug") as live:
            assert await status(live, f"{live.at(echo)}?token={SECRET}") == 101
        logging.getLogger("uvicorn.error").setLevel(logging.INFO)
        assert any("[accepted]" in line for line in logged(caplog))
        assert not [line for line in logged(caplog) if SECRET in line]

    async def test_is_the_apps_below_a_mount_too(self, caplog: pytest.LogCaptureFixture) -> None:
        seen: list[str] = []
        inner = FastAPI()
        manager = ConnectionManager()

        @inner.websocket("/ws")
        async def handler(websocket: WebSocket) -> None:
            await manager.connect(websocket)
            seen.append(websocket.query_params["token"])

        app = FastAPI()
        app.mount("/inner", inner)
        with running(manager, app=app) as live:
            assert await status(live, f"/inner/ws?token={SECRET}") == 101
            await live.nothing_left()
        assert seen == [SECRET]
        assert not [line for line in logged(caplog) if SECRET in line]


def token(**claims: Any) -> str:
    return jwt.encode({"sub": "ann", "exp": time.time() + 60, **claims}, KEY, "HS256")


class TestTokens:
    """`JWTAuth` on a real socket; what it accepts is in its own tests."""

    auth = JWTAuth(KEY, algorithms=["HS256"], cookie="session", query="token")

    @pytest.fixture(scope="class")
    @classmethod
    def live(cls) -> Iterator[Live]:
        manager = ConnectionManager(rooms={"*": RoomOptions(grace_s=0)}, everyone=RoomOptions(grace_s=0))
        app = FastAPI()

        @app.websocket("/ws")
        async def handler(websocket: WebSocket, user: Claims = Depends(cls.auth)) -> None:
            async with manager.connect(websocket, user.sub, room="lobby") as connection:
                await connection.send(user.sub)
                async for _ in connection:
                    pass

        @app.websocket("/accepts-itself")
        async def accepting(websocket: WebSocket, user: Claims = Depends(cls.auth)) -> None:
            await websocket.accept()
            await manager.connect(websocket, user.sub)
            await websocket.send_text(user.sub)
            await websocket.receive_text()

        with running(manager, app=app) as live:
            yield live

    @pytest.mark.parametrize("path", ["/ws", "/accepts-itself"])
    async def test_in_the_subprotocol_are_answered_with_bearer(self, live: Live, path: str) -> None:
        offered = [Subprotocol("bearer"), Subprotocol(token())]
        async with client(live.server, path, subprotocols=offered) as websocket:
            assert websocket.subprotocol == "bearer"
            assert await receive(websocket) == "ann"

    @pytest.mark.parametrize("where", ["header", "cookie", "query"])
    async def test_are_taken_from_elsewhere_too(self, live: Live, where: str, caplog: pytest.LogCaptureFixture) -> None:
        value = token()
        headers = {"header": {"Authorization": f"Bearer {value}"}, "cookie": {"Cookie": f"session={value}"}}
        path = f"/ws?token={value}" if where == "query" else "/ws"
        async with client(live.server, path, additional_headers=headers.get(where)) as websocket:
            assert await receive(websocket) == "ann"
        assert not [line for line in logged(caplog) if value in line]

    @pytest.mark.parametrize("path", ["/ws", "/accepts-itself"])
    async def test_end_their_connection_when_they_expire(self, live: Live, path: str) -> None:
        before = live.manager.stats().refused.get("token_expired", 0)
        offered = [Subprotocol("bearer"), Subprotocol(token(exp=int(time.time()) + 1))]
        async with client(live.server, path, subprotocols=offered) as websocket:
            assert await receive(websocket) == "ann"
            assert await closed(websocket) == (1008, "token expired")
        assert live.manager.stats().refused["token_expired"] == before + 1
        await live.nothing_left()

    @pytest.mark.parametrize(
        ("claim", "seconds", "reason"),
        [("exp", -60, "token expired"), ("nbf", 60, "unauthorized: not valid yet")],
    )
    async def test_that_are_refused_close_with_a_reason_that_a_browser_sees(
        self, live: Live, claim: str, seconds: int, reason: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "hubbub")
        before = live.manager.stats().refused.get("token", 0)
        value = token(**{claim: time.time() + seconds})
        async with client(live.server, "/ws", subprotocols=[Subprotocol("bearer"), Subprotocol(value)]) as websocket:
            assert await closed(websocket) == (1008, reason)
        await live.nothing_left()
        assert live.manager.stats().refused["token"] == before + 1
        assert len([line for line in logged(caplog) if "refused" in line]) == 1
        assert not [line for line in logged(caplog) if value in line or "Traceback" in line]
        assert not any(record.exc_info for record in caplog.records)

    async def test_can_be_refused_with_401_before_accept(self) -> None:
        auth = JWTAuth(KEY, algorithms=["HS256"], refuse="http")
        manager = ConnectionManager()
        app = FastAPI()
        manager.install(app)

        @app.websocket("/ws")
        async def handler(websocket: WebSocket, user: Claims = Depends(auth)) -> None:
            await manager.connect(websocket, user.sub)

        with serving(app) as server, pytest.raises(InvalidStatus) as refused:
            async with client(server, "/ws"):
                pass
        assert refused.value.response.status_code == 401


class TestExpiry:
    @pytest.fixture(scope="class")
    @classmethod
    def live(cls) -> Iterator[Live]:
        rooms = {"*": RoomOptions(announce=True, grace_s=0)}
        with running(ConnectionManager(rooms=rooms, everyone=RoomOptions(grace_s=0))) as live:
            yield live

    @pytest.mark.parametrize("kind", ["seconds", "aware", "naive UTC", "other zone"])
    async def test_of_a_connection_closes_it(self, live: Live, kind: str) -> None:
        def soon() -> float | datetime:
            at = datetime.now(UTC) + timedelta(seconds=0.15)
            if kind == "seconds":
                return at.timestamp()
            if kind == "naive UTC":
                return at.replace(tzinfo=None)
            return at if kind == "aware" else at.astimezone()

        async def handler(websocket: WebSocket) -> None:
            async with live.manager.connect(websocket, "ann", expires_at=soon()) as connection:
                await connection.send("in")
                async for _ in connection:
                    pass

        since = time.monotonic()
        async with client(live.server, live.at(handler)) as websocket:
            assert await receive(websocket) == "in"
            assert await closed(websocket) == (1008, "token expired")
        assert 0.1 < time.monotonic() - since < 2
        await live.nothing_left()

    async def test_that_is_over_already_is_refused_without_a_word_to_the_room(self, live: Live) -> None:
        async def watching(websocket: WebSocket) -> None:
            async with live.manager.connect(websocket, "bob", room="lobby") as connection:
                async for _ in connection:
                    pass

        async def late(websocket: WebSocket) -> None:
            async with live.manager.connect(websocket, "ann", room="lobby", expires_at=time.time() - 1):
                raise AssertionError("it should not be let in")

        async with client(live.server, live.at(watching)) as bob:
            assert (await receive(bob))["user_id"] == "bob"
            async with client(live.server, live.at(late)) as websocket:
                assert await closed(websocket) == (1008, "token expired")
            await live.server.acall(live.manager.broadcast("next", room="lobby"))
            assert await receive(bob) == "next"
        await live.nothing_left()

    async def test_far_ahead_closes_nothing(self, live: Live) -> None:
        async def handler(websocket: WebSocket) -> None:
            expires_at = datetime(9999, 12, 31, tzinfo=UTC)
            async with live.manager.connect(websocket, "ann", expires_at=expires_at) as connection:
                async for message in connection:
                    await connection.send(message)

        async with client(live.server, live.at(handler)) as websocket:
            await websocket.send("still here")
            assert await receive(websocket) == "still here"
        await live.nothing_left()
