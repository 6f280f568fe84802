"""Who is let in, what the log says about it, and what it never says."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote

import jwt
import pytest
from fastapi import Depends, FastAPI, HTTPException, WebSocket, WebSocketDisconnect, WebSocketException
from fastapi.middleware.cors import CORSMiddleware
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

from hubbub import ConnectionManager, InvalidArgument, Limits, RoomOptions
from hubbub.auth import Claims, JWTAuth
from tests.integration.conftest import WallClock
from tests.integration.support import Live, client, closed, eventually, opened, receive, running, serving, stopwatch

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


class Strict(NamedTuple):
    """A strict manager on a server that has an open one too.

    Attributes:
        prefix: Where the routes are that use the strict one.
        reached: What its handlers did once they were connected.
    """

    live: Live
    manager: ConnectionManager
    prefix: str
    reached: list[str]


class TestTheOriginOfTwoManagers:
    """Cross-site WebSocket hijacking must not go round by a manager that is more open."""

    PAGE = "https://app.example"

    @pytest.fixture(params=["beside", "mounted"])
    def strict(self, request: pytest.FixtureRequest) -> Iterator[Strict]:
        """A strict manager beside an open one, or in an app below that of the open one."""
        strict, reached = ConnectionManager(), []
        inner, app = FastAPI(), FastAPI()
        on = app if request.param == "beside" else inner

        @on.websocket("/strict")
        async def handler(websocket: WebSocket) -> None:
            async with strict.connect(websocket, "ann"):
                reached.append("connected")

        @on.websocket("/accepts-itself")
        async def accepting(websocket: WebSocket) -> None:
            await websocket.accept()
            async with strict.connect(websocket, "ann"):
                reached.append("connected")

        @on.websocket("/raw")
        async def raw(websocket: WebSocket) -> None:
            await websocket.accept()

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            async with strict.lifespan():
                yield

        strict.install(on)
        if on is inner:
            app.router.lifespan_context = lifespan
            app.mount("/inner", inner)
        with running(ConnectionManager(allowed_origins=[self.PAGE]), app=app) as live:
            yield Strict(live, strict, "" if on is app else "/inner", reached)

    async def test_is_checked_by_the_one_that_connects(self, strict: Strict, caplog: pytest.LogCaptureFixture) -> None:
        live, manager, prefix, reached = strict
        assert await status(live, f"{prefix}/strict", Origin=self.PAGE) == 403
        assert not reached
        assert manager.stats().refused == {"origin": 1}
        (line,) = (record.getMessage() for record in caplog.records if record.name == "hubbub")
        assert f'ConnectionManager(allowed_origins=["{self.PAGE}"])' in line
        await live.nothing_left()

    async def test_is_checked_where_the_handler_accepts_by_itself(self, strict: Strict) -> None:
        live, manager, prefix, reached = strict
        if prefix:  # the inner app's own middleware refuses it before its handler runs
            assert await status(live, f"{prefix}/accepts-itself", Origin=self.PAGE) == 403
        else:
            async with client(live.server, "/accepts-itself", origin=Origin(self.PAGE)) as websocket:
                assert await closed(websocket) == (1008, "origin not allowed")
        assert not reached
        assert manager.stats().refused == {"origin": 1}

    async def test_does_not_keep_out_its_own_pages(self, strict: Strict) -> None:
        live, _, prefix, reached = strict
        own = Origin(f"http://127.0.0.1:{live.server.port}")
        async with client(live.server, f"{prefix}/strict", origin=own) as websocket:
            assert await closed(websocket) == (1000, "")
        assert reached == ["connected"]

    async def test_is_open_on_routes_that_no_strict_manager_serves(self, strict: Strict) -> None:
        live, _, prefix, _ = strict
        assert await status(live, live.at(echo), Origin=self.PAGE) == 101
        assert await status(live, f"{prefix}/raw", Origin=self.PAGE) == (403 if prefix else 101)


class TestOnly:
    """`install(app, only=...)`: the other sockets of an app are none of ours."""

    @pytest.fixture(scope="class")
    @classmethod
    def live(cls) -> Iterator[Live]:
        app = FastAPI()
        manager = ConnectionManager(limits=Limits(max_message_bytes=8))
        manager.install(app, only=["/ws/{room}", "/live/*"])

        @app.websocket("/ws/{room}")
        @app.websocket("/live/a/b")
        @app.websocket("/other")
        async def handler(websocket: WebSocket) -> None:
            await manager.connect(websocket)

        app.websocket("/vnc")(echo)
        with running(manager, app=app) as live:
            yield live

    @pytest.mark.parametrize("path", ["/ws/lobby", "/live/a/b"])
    async def test_holds_for_the_paths_that_are_named(self, live: Live, path: str) -> None:
        assert await status(live, path, Origin="https://evil.example") == 403
        assert await status(live, path) == 101

    async def test_leaves_the_others_as_they_are_without_the_manager(self, live: Live) -> None:
        async with client(live.server, "/vnc", origin=Origin("https://elsewhere.example")) as websocket:
            await websocket.send("more than eight bytes")
            assert await receive(websocket) == "more than eight bytes"

    async def test_says_which_path_is_missing(self, live: Live, caplog: pytest.LogCaptureFixture) -> None:
        assert await status(live, "/other") == 500
        await live.nothing_left()
        (error,) = (record.exc_info for record in caplog.records if record.exc_info)
        assert str(error[1]) == (
            "this ConnectionManager does not serve '/other': add it to "
            "`manager.install(app, only=['/ws/{room}', '/live/*'])`. If you did, are there two instances? "
            "The one that is used must be the one that is installed"
        )

    def test_is_said_once(self) -> None:
        app, manager = FastAPI(), ConnectionManager()
        manager.install(app, only="/ws")
        manager.install(app, only=["/ws"])
        manager.install(app)
        with pytest.raises(InvalidArgument, match=r"^only: the manager is already installed with other paths"):
            manager.install(app, only="/live")


class TestOriginsOfCors:
    """An app with a front end elsewhere has named it once already."""

    PAGE = "https://app.example"

    @contextmanager
    def serve(self, manager: ConnectionManager | None = None, **cors: Any) -> Iterator[Live]:
        app, manager = FastAPI(), manager or ConnectionManager()
        manager.install(app)
        app.add_middleware(CORSMiddleware, **cors)  # after install, as people do too
        with running(manager, app=app) as live:
            yield live

    async def test_are_taken_over_and_said(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "hubbub")
        with self.serve(allow_origins=[self.PAGE, "http://localhost:5173"], allow_credentials=True) as live:
            assert await status(live, live.at(echo), Origin=self.PAGE) == 101
            assert await status(live, live.at(echo), Origin="http://localhost:5173") == 101
            assert await status(live, live.at(echo), Origin="https://evil.example") == 403
        assert any(
            line.startswith(f"hubbub INFO pages of ['{self.PAGE}', 'http://localhost:5173'] may open WebSockets")
            for line in logged(caplog)
        )

    @pytest.mark.parametrize(
        ("cors", "warning"),
        [
            ({"allow_origins": ["*"], "allow_credentials": True}, 'allows every origin ("*")'),
            ({"allow_origin_regex": "https://.*", "allow_credentials": True}, "the origins of a regular expression"),
            ({"allow_origins": ["null"], "allow_credentials": True}, "'null' is not one origin"),
            ({"allow_origins": ["https://app.example/"], "allow_credentials": True}, "ends with a slash"),
            ({"allow_origins": ["https://app.example"]}, "pages of ['https://app.example'] without credentials"),
        ],
        ids=["any", "regex", "null", "not an origin", "no credentials"],
    )
    async def test_are_taken_over_only_where_each_is_named(
        self, cors: dict[str, Any], warning: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with self.serve(**cors) as live:
            warned = [line for line in logged(caplog) if line.startswith("hubbub WARNING")]
            for origin in (self.PAGE, "null"):
                assert await status(live, live.at(echo), Origin=origin) == 403
        assert [warning in line for line in warned] == [True]

    async def test_do_not_matter_where_the_app_says_who_may_connect(self, caplog: pytest.LogCaptureFixture) -> None:
        manager = ConnectionManager(allowed_origins=[])
        with self.serve(manager, allow_origins=["*"], allow_credentials=True) as live:
            assert not [line for line in logged(caplog) if line.startswith("hubbub WARNING")]
            assert await status(live, live.at(echo), Origin=self.PAGE) == 403


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

    @pytest.mark.parametrize("where", ["a header", "a reason", "a frame", "an address"])
    async def test_nothing_else_of_a_client_breaks_out_of_a_line_of_the_servers_log(
        self, where: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with running(ConnectionManager(), log_level="debug", proxy_headers=True, forwarded_allow_ips="*") as live:
            headers = {"a header": {"Note": "a\x9b31mb"}, "an address": {"X-Forwarded-For": "a\x9b31mb"}}
            async with client(live.server, live.at(echo), additional_headers=headers.get(where)) as websocket:
                if where == "a frame":
                    await websocket.send("a\n\x9b31mb")
                await websocket.close(4000, "a\n\x9b31mb" if where == "a reason" else "")
            await live.nothing_left()
        logging.getLogger("uvicorn.error").setLevel(logging.INFO)
        lines = [record.getMessage() for record in caplog.records if record.name == "uvicorn.error"]
        assert any("31mb" in line or "31 6d 62" in line for line in lines)  # websockets prints frames in hex, or not
        assert all(line.isprintable() for line in lines)

    @pytest.mark.parametrize("auth", [JWTAuth(KEY, algorithms=["HS256"]), None], ids=["JWTAuth", "the app's own"])
    @pytest.mark.parametrize("offered", [SECRET, SECRET * 4, f"bearer, {SECRET}"], ids=["short", "long", "a pair"])
    async def test_is_not_there_at_level_debug_where_it_is_a_subprotocol(
        self, offered: str, auth: JWTAuth | None, caplog: pytest.LogCaptureFixture
    ) -> None:
        app = FastAPI()

        def own() -> None:
            raise WebSocketException(1008, "no")

        @app.websocket("/ws")
        async def handler(websocket: WebSocket, user: object = Depends(auth or own)) -> None:
            raise AssertionError

        with running(ConnectionManager(), app=app, log_level="debug") as live:
            reader, writer, code = await opened(live.server, "/ws", Sec_WebSocket_Protocol=offered)
            assert code == 101, "accepted, and closed with a reason"
            assert int.from_bytes((await reader.readexactly(4))[2:]) == 1008
            writer.close()
        logging.getLogger("uvicorn.error").setLevel(logging.INFO)
        assert any("sec-websocket-protocol" in line.lower() for line in logged(caplog))
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
    async def test_end_their_connection_when_they_expire(self, live: Live, path: str, wall_clock: WallClock) -> None:
        before = live.manager.stats().refused.get("token_expired", 0)
        offered = [Subprotocol("bearer"), Subprotocol(token(exp=int(wall_clock.now_s) + 1))]
        async with client(live.server, path, subprotocols=offered) as websocket:
            assert await receive(websocket) == "ann"
            wall_clock.now_s += 1
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
    async def test_of_a_connection_closes_it(self, live: Live, kind: str, wall_clock: WallClock) -> None:
        def soon() -> float | datetime:
            at = datetime.fromtimestamp(wall_clock.now_s + 1, UTC)
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

        async with client(live.server, live.at(handler)) as websocket:
            assert await receive(websocket) == "in"
            wall_clock.now_s += 1
            async with stopwatch() as took_s:
                assert await closed(websocket) == (1008, "token expired")
                assert took_s() < 2
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
