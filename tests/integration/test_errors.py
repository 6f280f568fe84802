"""Used wrongly, hubbub says what is wrong and which line to write instead; it never hangs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import httpx
import pytest
from fastapi import Depends, FastAPI, Query, WebSocket
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from hubbub import (
    EVERYONE,
    ConnectionManager,
    HubbubError,
    HubbubMiddleware,
    InvalidArgument,
    NotInstalled,
    NotRunning,
    Position,
    RoomOptions,
    ThreadTimeout,
    WrongLoop,
    WrongThread,
)
from tests.integration.support import Live, client, closed, eventually, receive, running, serving


def app_with(manager: ConnectionManager, *, install: bool = True) -> FastAPI:
    app = FastAPI()
    if install:
        manager.install(app)

    @app.websocket("/ws")
    async def handler(websocket: WebSocket) -> None:
        async with manager.connect(websocket, "ann", room="lobby") as connection:
            async for message in connection.iter_json():
                await manager.broadcast(message, room="lobby")

    return app


class TestNotInstalled:
    def test_says_which_line_to_add(self) -> None:
        app = app_with(ConnectionManager(), install=False)
        with (
            TestClient(app) as browser,
            pytest.raises(NotInstalled, match=r"add `manager\.install\(app\)`"),
            browser.websocket_connect("/ws"),
        ):
            pass

    def test_asks_whether_there_are_two_instances(self) -> None:
        app = app_with(ConnectionManager(), install=False)
        ConnectionManager().install(app)
        with (
            TestClient(app) as browser,
            pytest.raises(NotInstalled, match="two instances"),
            browser.websocket_connect("/ws"),
        ):
            pass

    def test_is_said_of_every_call(self) -> None:
        for call in calls(ConnectionManager()):
            with pytest.raises(NotInstalled, match="install"):
                asyncio.run(call())

    def test_is_said_where_the_middleware_is_missing(self) -> None:
        """The lifespan alone is not enough."""
        manager = ConnectionManager()
        app = FastAPI(lifespan=manager.lifespan)

        @app.websocket("/ws")
        async def handler(websocket: WebSocket) -> None:
            await manager.connect(websocket)

        with TestClient(app) as browser, pytest.raises(NotInstalled, match="install"), browser.websocket_connect("/ws"):
            pass

    def test_is_said_of_an_app_that_has_started(self) -> None:
        app = FastAPI()
        with TestClient(app) as browser:
            browser.get("/")
            with pytest.raises(NotInstalled, match="right after `app = FastAPI"):
                ConnectionManager().install(app)

    def test_is_said_in_the_apps_own_lifespan(self) -> None:
        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            ConnectionManager().install(app)
            yield

        with pytest.raises(NotInstalled, match="not in the lifespan"), TestClient(FastAPI(lifespan=lifespan)):
            pass

    def test_something_that_is_no_app_is_named(self) -> None:
        with pytest.raises(InvalidArgument, match="HubbubMiddleware") as raised:
            ConnectionManager().install(object())  # type: ignore[arg-type]
        assert raised.value.argument == "app"

    @pytest.mark.anyio
    async def test_a_stand_in_of_a_test_is_named(self) -> None:
        with pytest.raises(InvalidArgument, match="a stand-in"):
            await ConnectionManager().connect(AsyncMock(spec=WebSocket))
        manager = ConnectionManager()
        async with manager.lifespan():
            for stand_in in (AsyncMock(spec=WebSocket), MagicMock(spec=WebSocket)):
                with pytest.raises(InvalidArgument, match=r"a stand-in \((Async|Magic)Mock\).*websocket_connect"):
                    await manager.connect(stand_in)
                assert not await manager.send_personal_message("hello", stand_in)
                manager.disconnect(stand_in)


def calls(manager: ConnectionManager) -> list[Callable[[], Any]]:
    return [
        lambda: manager.broadcast("a"),
        lambda: manager.broadcast_to_room("lobby", "a"),
        lambda: manager.send_to_user("ann", "a"),
        lambda: manager.disconnect_user("ann"),
        lambda: manager.presence("lobby"),
        lambda: manager.count_users(),
        lambda: manager.is_online("ann"),
        lambda: manager.history("lobby"),
    ]


class TestNotRunning:
    def test_names_the_test_client_without_with(self) -> None:
        browser = TestClient(app_with(ConnectionManager()))
        with pytest.raises(NotRunning, match="with TestClient"), browser.websocket_connect("/ws"):
            pass

    def test_names_the_mounted_app_whose_lifespan_does_not_run(self) -> None:
        outer = FastAPI()
        outer.mount("/inner", app_with(ConnectionManager()))
        with (
            TestClient(outer) as browser,
            pytest.raises(NotRunning, match="on the outermost app"),
            browser.websocket_connect("/inner/ws"),
        ):
            pass

    def test_is_said_of_every_call(self) -> None:
        manager = ConnectionManager()
        manager.install(FastAPI())
        for call in calls(manager):
            with pytest.raises(NotRunning, match="with TestClient"):
                asyncio.run(call())

    def test_is_said_after_the_end(self) -> None:
        manager = ConnectionManager()
        with running(manager):
            pass
        with pytest.raises(NotRunning):
            asyncio.run(manager.broadcast("a"))
        with pytest.raises(NotRunning):
            manager.from_thread.broadcast("a")

    def test_does_not_concern_what_only_looks(self) -> None:
        manager = ConnectionManager()
        assert (len(manager.active_connections), manager.active_user_count, manager.rooms) == (0, 0, frozenset())
        assert manager.stats().connections == 0
        assert not manager.ready


class TestWrongLoop:
    def test_is_said_of_a_call_from_another_loop(self) -> None:
        manager = ConnectionManager()
        with running(manager):
            for call in calls(manager):
                with pytest.raises(WrongLoop, match="from_thread"):
                    asyncio.run(call())

    def test_is_said_of_two_apps_that_share_a_manager(self) -> None:
        manager = ConnectionManager()
        first, second = app_with(manager), app_with(manager)
        with TestClient(first), pytest.raises(WrongLoop, match="runs already"), TestClient(second):
            pass

    def test_one_manager_serves_several_test_clients_one_after_another(self) -> None:
        manager = ConnectionManager()
        app = app_with(manager)
        for _ in range(3):
            with TestClient(app) as browser, browser.websocket_connect("/ws") as websocket:
                websocket.send_json({"n": 1})
                assert websocket.receive_json() == {"n": 1}


class TestFromThread:
    @pytest.fixture(scope="class")
    @classmethod
    def live(cls) -> Iterator[Live]:
        manager = ConnectionManager(rooms={"kept": RoomOptions(history=10)}, everyone=RoomOptions(grace_s=0))
        app = FastAPI()

        @app.post("/sync/{name}")
        def sync_route(name: str) -> Any:
            if name == "broadcast":
                return manager.from_thread.broadcast({"by": "route"})
            if name == "send_to_user":
                return manager.from_thread.send_to_user("ann", {"by": "route"})
            return manager.from_thread.is_online("ann")

        @app.post("/async")
        async def async_route() -> str:
            try:
                manager.from_thread.broadcast("a")
            except WrongThread as error:
                return str(error)
            return ""

        with running(manager, app=app) as live:
            yield live

    @pytest.mark.anyio
    async def test_a_sync_route_reaches_a_socket(self, live: Live) -> None:
        async with httpx.AsyncClient() as http:
            assert (await http.post(live.server.http("/sync/send_to_user"))).json() is False
            async with client(live.server, live.at(waiting(live.manager))) as websocket:
                assert await receive(websocket) == "in"
                assert (await http.post(live.server.http("/sync/send_to_user"))).json() is True
                assert (await http.post(live.server.http("/sync/is_online"))).json() is True
                assert (await http.post(live.server.http("/sync/broadcast"))).json() is None
                assert await receive(websocket) == await receive(websocket) == {"by": "route"}
        await live.nothing_left()

    @pytest.mark.anyio
    async def test_an_async_route_is_told_to_await(self, live: Live) -> None:
        async with httpx.AsyncClient() as http:
            said = (await http.post(live.server.http("/async"))).json()
        assert "await manager.broadcast(...)" in said

    @pytest.mark.anyio
    async def test_any_thread_may_call_all_of_it(self, live: Live) -> None:
        manager = live.manager
        done: list[Any] = []

        def work() -> None:
            calls = manager.from_thread
            done.append(calls.broadcast("to all"))
            done.append(calls.broadcast("to ann", room="kept"))
            done.append(calls.broadcast_to_room("kept", "again"))
            done.append(calls.send_to_user("ann", "hers"))
            done.append(calls.count_users())
            done.append([member.user_id for member in calls.presence("kept")])
            done.append(calls.is_online("bob"))
            done.append([recorded.message for recorded in calls.history("kept")])
            done.append(calls.broker_healthy())
            done.append(calls.disconnect_user("ann"))

        async with client(live.server, live.at(waiting(manager))) as websocket:
            assert await receive(websocket) == "in"
            thread = threading.Thread(target=work)
            thread.start()
            assert [await receive(websocket) for _ in range(4)] == ["to all", "to ann", "again", "hers"]
            assert (await closed(websocket))[0] == 1008
            thread.join()
        assert done[0] is None
        assert [type(position) for position in done[1:3]] == [Position, Position]
        assert done[3:] == [True, 1, ["ann"], False, ["to ann", "again"], True, True]
        await live.nothing_left()

    def test_an_error_of_the_call_is_the_callers(self, live: Live) -> None:
        with pytest.raises(InvalidArgument, match="message"):
            live.manager.from_thread.broadcast(object())  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match="room"):
            live.manager.from_thread.broadcast("a", room="")

    def test_a_loop_that_is_blocked_gives_a_timeout(self) -> None:
        manager = ConnectionManager(thread_timeout_s=0.1)
        go_on = threading.Event()
        with running(manager) as live:
            assert live.server._loop is not None
            live.server._loop.call_soon_threadsafe(go_on.wait)
            try:
                with pytest.raises(ThreadTimeout, match=r"from_thread\.broadcast\(\) took more than 0\.1 s"):
                    manager.from_thread.broadcast("a")
            finally:
                go_on.set()

    @pytest.mark.anyio
    async def test_in_a_thread_with_a_loop_raises_at_once(self) -> None:
        with pytest.raises(WrongThread, match="would block the event loop"):
            ConnectionManager().from_thread.broadcast("a")


def waiting(manager: ConnectionManager) -> Any:
    async def handler(websocket: WebSocket) -> None:
        async with manager.connect(websocket, "ann", room="kept") as connection:
            await connection.send("in")
            async for _ in connection:
                pass

    return handler


@dataclass
class Unknown:
    value: object


WRONG_CALLS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda m: m.broadcast(object()), "message"),
    (lambda m: m.broadcast(Unknown(object())), "message"),
    (lambda m: m.broadcast("\ud800"), "message"),
    (lambda m: m.broadcast({"a": "\ud800"}), "message"),
    (lambda m: m.broadcast("a", room=None), "room"),
    (lambda m: m.broadcast("a", room=""), "room"),
    (lambda m: m.broadcast("a", room="x" * 256), "room"),
    (lambda m: m.broadcast("a", room="é" * 128), "room"),
    (lambda m: m.broadcast("a", room="$everyone"), "room"),
    (lambda m: m.broadcast("a", room="\ud800"), "room"),
    (lambda m: m.broadcast("a", room=7.5), "room"),
    (lambda m: m.broadcast("a", exclude=7), "exclude"),
    (lambda m: m.broadcast("a", exclude=[7]), "exclude"),
    (lambda m: m.broadcast("a", exclude="ann"), "exclude"),
    (lambda m: m.broadcast("a", exclude=["\ud800" * 22]), "exclude"),
    (lambda m: m.broadcast("a", exclude_users=7.5), "exclude_users"),
    (lambda m: m.broadcast("a", exclude_users=True), "exclude_users"),
    (lambda m: m.broadcast("a", exclude_users=["ann", None]), "exclude_users"),
    (lambda m: m.broadcast_to_room("a", "b", exclude_users=b"ann"), "exclude_users"),
    (lambda m: m.broadcast("a", key=7), "key"),
    (lambda m: m.broadcast_to_room(None, "a"), "room"),
    (lambda m: m.send_to_user("", "a"), "user_id"),
    (lambda m: m.send_to_user(None, "a"), "user_id"),
    (lambda m: m.send_to_user(True, "a"), "user_id"),
    (lambda m: m.send_personal("a", "b"), "websocket"),
    (lambda m: m.disconnect_user("ann", code=1005), "code"),
    (lambda m: m.disconnect_user("ann", code=99), "code"),
    (lambda m: m.disconnect_user("ann", reason=1), "reason"),
    (lambda m: m.history("kept", since="yesterday"), "since"),
    (lambda m: m.history("kept", since=("epoch", -1)), "since"),
    (lambda m: m.history("kept", limit=0), "limit"),
    (lambda m: m.presence(""), "room"),
]


class TestArguments:
    """Each wrong argument is named, with what was wrong and what would be right."""

    @pytest.fixture(scope="class")
    @classmethod
    def live(cls) -> Iterator[Live]:
        with running(ConnectionManager(rooms={"kept": RoomOptions(history=10)})) as live:
            yield live

    @pytest.mark.anyio
    @pytest.mark.parametrize(
        ("call", "argument"),
        WRONG_CALLS,
        ids=[f"{argument} {number}" for number, (_, argument) in enumerate(WRONG_CALLS)],
    )
    async def test_of_a_call(self, live: Live, call: Callable[[ConnectionManager], Any], argument: str) -> None:
        with pytest.raises(InvalidArgument) as raised:
            await live.server.acall(call(live.manager))
        error = raised.value
        assert isinstance(error, HubbubError)
        assert isinstance(error, ValueError)
        assert error.argument == argument
        assert error.problem
        assert error.accepted
        assert str(error) == f"{error.argument}: {error.problem}; accepted: {error.accepted}"

    @pytest.mark.anyio
    @pytest.mark.parametrize(
        ("arguments", "argument"),
        [
            ({"user_id": ""}, "user_id"),
            ({"user_id": 1.5}, "user_id"),
            ({"room": ""}, "room"),
            ({"room": "$everyone"}, "room"),
            ({"rooms": "lobby"}, "rooms"),
            ({"rooms": 7}, "rooms"),
            ({"rooms": ["a", ""]}, "rooms[1]"),
            ({"info": 7}, "info"),
            ({"info": {"a": object()}}, "info"),
            ({"expires_at": "tomorrow"}, "expires_at"),
            ({"expires_at": float("nan")}, "expires_at"),
        ],
    )
    async def test_of_connect(self, live: Live, arguments: dict[str, Any], argument: str) -> None:
        raised: list[str] = []

        async def handler(websocket: WebSocket) -> None:
            try:
                await live.manager.connect(websocket, **arguments)
            except InvalidArgument as error:
                raised.append(error.argument)
                await websocket.accept()  # it was not accepted yet

        async with client(live.server, live.at(handler)) as websocket:
            assert await closed(websocket) == (1000, "")
        assert raised == [argument]

    @pytest.mark.parametrize(
        ("arguments", "argument"),
        [
            ({"broker": "mqtt://localhost"}, "broker"),
            ({"broker": 7}, "broker"),
            ({"rooms": {"": RoomOptions()}}, "rooms"),
            ({"rooms": {"a": 7}}, "rooms['a']"),
            ({"everyone": None}, "everyone"),
            ({"users": 7}, "users"),
            ({"limits": {}}, "limits"),
            ({"allowed_origins": "https://app.example"}, "allowed_origins"),
            ({"allowed_origins": ["app.example"]}, "allowed_origins"),
            ({"flush_interval_s": -1}, "flush_interval_s"),
            ({"thread_timeout_s": None}, "thread_timeout_s"),
        ],
    )
    def test_of_the_manager(self, arguments: dict[str, Any], argument: str) -> None:
        with pytest.raises(InvalidArgument) as raised:
            ConnectionManager(**arguments)
        assert raised.value.argument == argument

    @pytest.mark.anyio
    async def test_of_a_connection(self, live: Live) -> None:
        raised: list[str] = []

        async def handler(websocket: WebSocket) -> None:
            async with live.manager.connect(websocket, "ann") as connection:
                wrong: list[Callable[[], Any]] = [
                    lambda: connection.send(object()),  # type: ignore[arg-type]
                    lambda: connection.send_text(b"a"),  # type: ignore[arg-type]
                    lambda: connection.send_bytes("a"),  # type: ignore[arg-type]
                    lambda: connection.send_json(object()),
                    lambda: connection.send_json({}, mode="xml"),
                    lambda: connection.receive_json(mode="xml"),
                    lambda: connection.join(""),
                    lambda: connection.leave(""),
                ]
                for call in wrong:
                    try:
                        await call()
                    except InvalidArgument as error:
                        raised.append(error.argument)

        async with client(live.server, live.at(handler)) as websocket:
            assert await closed(websocket) == (1000, "")
        assert raised == ["message", "data", "data", "message", "mode", "mode", "room", "room"]


@pytest.mark.anyio
class TestTheFrameworksErrors:
    async def test_a_parameter_that_does_not_fit_is_1008_with_the_reason(self) -> None:
        manager = ConnectionManager()
        app = FastAPI()

        @app.websocket("/ws/{number}")
        async def handler(websocket: WebSocket, number: int) -> None:
            await manager.connect(websocket)

        manager.install(app)
        with serving(app) as server:
            async with client(server, "/ws/seven") as websocket:
                code, reason = await closed(websocket)
        assert code == 1008
        assert (reason or "").startswith("path.number: Input should be a valid integer")

    async def test_a_parameter_that_does_not_fit_after_a_dependency_accepted_is_1008(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        manager = ConnectionManager()
        app = FastAPI()

        async def early(websocket: WebSocket) -> None:
            await websocket.accept()

        @app.websocket("/ws")
        async def handler(websocket: WebSocket, number: int = Query(), _: None = Depends(early)) -> None:
            await manager.connect(websocket)

        with running(manager, app=app) as live:
            async with client(live.server, "/ws?number=seven") as websocket:
                assert (await closed(websocket))[0] == 1008
            await live.nothing_left()
        assert not any(record.exc_info for record in caplog.records)

    async def test_a_handler_of_the_apps_own_for_an_exception_is_used(self) -> None:
        class Forbidden(Exception):
            pass

        manager = ConnectionManager()
        app = FastAPI()

        @app.exception_handler(Forbidden)
        async def forbidden(websocket: WebSocket, error: Forbidden) -> None:
            await websocket.close(4003, "forbidden")

        async def handler(websocket: WebSocket) -> None:
            await manager.connect(websocket)
            raise Forbidden

        with running(manager, app=app) as live:
            async with client(live.server, live.at(handler)) as websocket:
                assert await closed(websocket) == (4003, "forbidden")
            await live.nothing_left()

    async def test_plain_starlette_works_as_well(self) -> None:
        manager = ConnectionManager()

        async def handler(websocket: WebSocket) -> None:
            async with manager.connect(websocket) as connection:
                await connection.send("hello")

        app = Starlette(routes=[WebSocketRoute("/ws", handler)])
        manager.install(app)
        with serving(app) as server:
            async with client(server, "/ws") as websocket:
                assert await receive(websocket) == "hello"
                assert await closed(websocket) == (1000, "")

    async def test_an_app_that_is_wrapped_by_hand_works_as_well(self) -> None:
        manager = ConnectionManager()

        async def handler(websocket: WebSocket) -> None:
            async with manager.connect(websocket, room="lobby") as connection:
                await manager.broadcast("hello", room="lobby")
                await manager.broadcast("all", room=EVERYONE)
                await connection.close(4000)

        app = Starlette(routes=[WebSocketRoute("/ws", handler)], lifespan=manager.lifespan)
        with serving(HubbubMiddleware(app, [manager])) as server:
            async with client(server, "/ws") as websocket:
                assert {await receive(websocket), await receive(websocket)} == {"hello", "all"}
                assert (await closed(websocket))[0] == 4000
        await eventually(lambda: not manager.ready)
