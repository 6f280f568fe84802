"""The middleware: which sockets it touches, and that a socket ends with a Close frame however its handler ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from starlette.websockets import WebSocketDisconnect

from hubbub.asgi.middleware import HubbubMiddleware
from hubbub.asgi.middleware import Manager as ManagerProtocol
from hubbub.close import CloseCode
from hubbub.connections.admission import Admission
from hubbub.connections.exchange import KEY
from hubbub.connections.socket import Socket, State
from hubbub.errors import InvalidArgument, InvalidName
from hubbub.lifecycle import Lifecycle
from hubbub.origin import OriginPolicy
from hubbub.paths import Paths
from tests.unit import sockets
from tests.unit.sockets import ACCEPT

EVIL = "https://evil.example"
App = Callable[[Any, Any, Any], Awaitable[None]]


class Engine(sockets.Manager):
    """As much of a manager's engine as the middleware needs."""

    def __init__(self, *allowed: str, only: list[str] | None = None) -> None:
        super().__init__()
        self.origins = OriginPolicy(allowed)
        self.origins_given = True
        self.endpoints: dict[str, Any] = {}
        self.lifecycle = Lifecycle()
        self.lifecycle.only = None if only is None else Paths(only)
        self.waiting: list[Socket] = []
        self.admission = cast(Admission, self)

    def begin_handshake(self, socket: Socket) -> None:
        self.waiting.append(socket)

    def end_handshake(self, socket: Socket) -> None:
        self.waiting.remove(socket)


class Manager:
    def __init__(self, engine: Engine) -> None:
        self._hubbub = engine


class World:
    """An app under the middleware, on a fake server.

    Attributes:
        scopes: What the app was called with.
        scope: What the server has.
    """

    def __init__(self, app: App, *engines: Engine) -> None:
        self.engines = engines or (Engine(),)
        self.scopes: list[Any] = []
        self.server = sockets.Server()
        self.server.inbox.put_nowait({"type": "websocket.connect"})
        self._app = app
        self.middleware = HubbubMiddleware(self._note, cast(list[ManagerProtocol], [*map(Manager, self.engines)]))
        self.scope: dict[str, Any] = {
            "type": "websocket",
            "path": "/ws",
            "headers": [(b"host", b"app.example")],
            "query_string": b"",
            "client": ("192.0.2.1", 5),
        }

    async def _note(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        await self._app(scope, receive, send)

    async def serve(self) -> None:
        try:
            await self.middleware(self.scope, self.server.inbox.get, self.server.send)
        finally:
            assert all(engine.waiting == [] for engine in self.engines), "a handshake was begun and never ended"

    @property
    def socket(self) -> Socket:
        socket = self.scopes[0]["hubbub"]
        assert isinstance(socket, Socket)
        return socket

    @property
    def close(self) -> tuple[int, str] | None:
        """The Close frame that the client got."""
        last = self.server.sent[-1]
        return (last["code"], last["reason"]) if last["type"] == "websocket.close" else None


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    asyncio.run(main())


async def accepting(scope: Any, receive: Any, send: Any) -> None:
    await send(dict(ACCEPT))


def raising(error: BaseException, *, accepts: bool = True) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if accepts:
            await send(dict(ACCEPT))
        raise error

    return app


# Which sockets


def test_it_needs_a_manager() -> None:
    with pytest.raises(InvalidArgument, match=r"^managers: is empty"):
        HubbubMiddleware(accepting, [])


@pytest.mark.parametrize("kind", ["http", "lifespan"])
def test_what_is_no_websocket_passes_untouched(kind: str) -> None:
    async def test() -> None:
        world = World(accepting)
        world.scope = {"type": kind}
        await world.serve()
        exchange = world.scopes[0].pop(KEY, None)
        assert world.scopes == [{"type": kind}]
        assert world.server.sent == [ACCEPT]
        assert (exchange is None) is (kind != "http"), "a stream of events needs the server's own side of its request"

    run(test)


@pytest.mark.parametrize(
    ("path", "root_path", "served"),
    [("/ws", "", True), ("/api/ws", "/api", True), ("/other", "", False), ("/ws/more", "", False)],
)
def test_only_the_paths_of_a_manager_are_served(path: str, root_path: str, served: bool) -> None:
    async def test() -> None:
        world = World(accepting, Engine(only=["/ws"]))
        world.scope |= {"path": path, "root_path": root_path}
        await world.serve()
        assert ("hubbub" in world.scopes[0]) is served

    run(test)


def test_a_middleware_below_another_adds_its_managers_to_the_same_socket() -> None:
    async def test() -> None:
        shared, inner_engine = Engine(), Engine()
        inner = World(accepting, shared, inner_engine)
        outer = World(inner.middleware, shared)
        await outer.serve()
        assert inner.scopes[0]["hubbub"] is outer.socket
        assert list(outer.socket.managers) == [shared, inner_engine]
        assert outer.server.types == ["accept", "close"], "one middleware closes it"

    run(test)


# Origins


def test_an_origin_that_every_manager_refuses_does_not_reach_the_app(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        world = World(accepting, Engine(), Engine())
        world.scope["headers"].append((b"origin", EVIL.encode()))
        world.scope["query_string"] = b"token=secret"
        await world.serve()
        assert world.scopes == []
        assert world.server.inbox.empty(), "servers want the connect to be received"
        assert world.server.types == ["close"]
        assert world.close == (CloseCode.ORIGIN.code, CloseCode.ORIGIN.reason)
        assert [engine.counters.refused for engine in world.engines] == [{"origin": 1}] * 2
        assert world.scope["query_string"] == b"token=***", "which the server logs"
        assert EVIL in caplog.text

    run(test)


def test_an_origin_that_one_manager_lets_in_reaches_the_app() -> None:
    async def test() -> None:
        world = World(accepting, Engine(), Engine(EVIL))
        world.scope["headers"].append((b"origin", EVIL.encode()))
        await world.serve()
        assert world.server.types == ["accept", "close"]

    run(test)


def test_an_origin_that_the_inner_app_refuses_is_refused_on_the_socket_of_the_outer() -> None:
    async def test() -> None:
        inner = World(accepting, Engine())
        outer = World(inner.middleware, Engine(EVIL))
        outer.scope["headers"].append((b"origin", EVIL.encode()))
        await outer.serve()
        assert inner.scopes == []
        assert outer.socket.state is State.REFUSED
        assert outer.server.types == ["close"]

    run(test)


# The end


@pytest.mark.parametrize(
    ("error", "raises", "close"),
    [
        (None, False, (1000, "")),
        (WebSocketDisconnect(1001), False, (1000, "")),
        (InvalidName("room", "is empty", "a name"), False, (1008, "room: is empty")),
        (ExceptionGroup("of tasks", [WebSocketDisconnect(1001)]), False, (1000, "")),
        (RuntimeError("of the app"), True, (1011, CloseCode.INTERNAL_ERROR.reason)),
        (ValueError("of the app"), True, (1011, CloseCode.INTERNAL_ERROR.reason)),
        (ExceptionGroup("of tasks", [ValueError("of the app")]), True, (1011, CloseCode.INTERNAL_ERROR.reason)),
    ],
    ids=repr,
)
def test_a_socket_is_closed_however_its_handler_ends(
    error: Exception | None, raises: bool, close: tuple[int, str]
) -> None:
    async def test() -> None:
        world = World(accepting if error is None else raising(error))
        if raises:
            with pytest.raises(Exception) as caught:  # noqa: PT011 - it is compared below
                await world.serve()
            assert caught.value is error
        else:
            await world.serve()
        assert world.server.types == ["accept", "close"]
        assert world.close == close
        assert world.engines[0].sweeper.watched == []

    run(test)


def test_a_handler_that_never_answers_the_handshake_leaves_it_to_the_server() -> None:
    async def test() -> None:
        world = World(raising(ValueError("of the app"), accepts=False))
        with pytest.raises(ValueError, match="of the app"):
            await world.serve()
        assert world.server.sent == []
        assert world.engines[0].sweeper.watched == []

    run(test)


def test_a_name_that_can_not_be_used_refuses_a_handshake_with_a_reason() -> None:
    async def test() -> None:
        world = World(raising(InvalidName("room", "is empty", "a name"), accepts=False))
        await world.serve()
        assert world.server.types == ["accept", "close"]
        assert world.close == (1008, "room: is empty")
        assert world.engines[0].counters.refused == {"invalid_name": 1}

    run(test)


def test_a_handler_that_is_cancelled_by_its_server_stays_cancelled() -> None:
    async def test() -> None:
        started = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(dict(ACCEPT))
            started.set()
            await asyncio.Event().wait()

        world = World(app)
        task = asyncio.create_task(world.serve())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert world.close is not None
        assert world.close[0] == CloseCode.SERVICE_RESTART.code

    run(test)


def test_a_handler_that_is_cancelled_because_its_client_is_gone_just_ends() -> None:
    async def test() -> None:
        started = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(dict(ACCEPT))
            started.set()
            await asyncio.Event().wait()

        world = World(app)
        task = asyncio.create_task(world.serve())
        await started.wait()
        world.socket.on_lost()
        world.socket.handler.cancel()
        await task
        assert (task.cancelled(), task.cancelling()) == (False, 0)

    run(test)


def test_the_connections_of_a_handler_end_with_it_with_grace_and_after_their_last_messages() -> None:
    async def test() -> None:
        session = sockets.Session()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(dict(ACCEPT))
            scope["hubbub"].sessions.append(session)

        await World(app).serve()
        assert session.calls[:2] == ["flush", "gone"]

    run(test)


# The log


def test_a_server_that_is_not_written_to_directly_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hubbub")

    async def test() -> None:
        world = World(accepting)
        await world.serve()
        world.scope.pop("hubbub")  # the next socket has a scope of its own
        await world.serve()
        lines = [each.getMessage() for each in caplog.records if "directly" in each.getMessage()]
        assert len(lines) == 1
        assert "is not uvicorn's default WebSocket protocol" in lines[0] or "no manager has started" in lines[0]

    run(test)
