"""The ASGI middleware between the server and the app.

For every WebSocket it checks the origin, keeps tokens out of the server's log, and gives the app the ``send`` and
``receive`` of a `hubbub.connections.socket.Socket`. However the handler ends, the middleware closes the socket with a
Close frame.

A WebSocket of another origin is refused with 403. On the path of an endpoint, the endpoint itself refuses it, after it
has accepted the socket: an SDK whose handshake fails can't read why, and retries forever.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias

from starlette.applications import Starlette
from starlette.routing import Match, Route, WebSocketRoute

from ..close import CloseCode
from ..connections.admission import Admission
from ..connections.exchange import keep
from ..connections.reader import Receive
from ..connections.serving import begin_handshake, end_handshake, serve
from ..connections.socket import Manager as SocketsManager
from ..connections.socket import Socket
from ..connections.transports import Detours, ServerSend
from ..errors import InvalidArgument, shown
from ..lifecycle import Lifecycle
from ..origin import OriginPolicy
from ..paths import path_within
from ..redaction import redact_query

logger: Final = logging.getLogger("hubbub")

Scope: TypeAlias = Any
App: TypeAlias = Callable[[Scope, Receive, ServerSend], Awaitable[None]]


class Documentation(Protocol):
    """The documentation of an endpoint."""

    def mount(self, app: Starlette) -> None:
        """Adds it to an app."""

    def link(self, app: Starlette) -> None:
        """Links it from the app's OpenAPI document."""


class Engine(SocketsManager, Protocol):
    """The part of a manager's engine that the middleware uses."""

    admission: Admission
    origins: OriginPolicy
    origins_given: bool
    app: Starlette | None
    endpoints: dict[str, WebSocketRoute]
    http_routes: list[Route]
    lifecycle: Lifecycle

    @property
    def documentation(self) -> Sequence[Documentation]:
        """That of each endpoint."""


class Manager(Protocol):
    """The part of a `ConnectionManager` that the middleware uses."""

    @property
    def _hubbub(self) -> Engine: ...


class HubbubMiddleware:
    """The ASGI middleware that managers need. `ConnectionManager.install` adds it.

    To compose an app without `install`, add the middleware outermost, and run the lifespan of each manager:

        app = FastAPI(lifespan=manager.lifespan)
        app.add_middleware(HubbubMiddleware, managers=[manager])

    Args:
        app: The ASGI app.
        managers: The managers that the app uses. They share one writer and one outbox per socket.

    Raises:
        InvalidArgument: There is no manager.
    """

    def __init__(self, app: App, managers: Sequence[Manager]) -> None:
        if not managers:
            raise InvalidArgument("managers", "is empty", "the ConnectionManagers that the app uses")
        self.app = app
        self.managers = managers
        self._detours = Detours()

    async def __call__(self, scope: Scope, receive: Receive, send: ServerSend) -> None:
        """Handles a WebSocket, and passes everything else on to the app unchanged."""
        engines = self._engines(scope) if scope["type"] == "websocket" else ()
        if not engines:
            if scope["type"] == "http":
                keep(self.managers, scope, send)
            await self.app(scope, receive, send)
            return
        app, refusal = self.app, _refusal(engines, scope)
        if refusal is not None:
            endpoint = _endpoint_at(engines, scope)
            if endpoint is None:
                await _refuse(engines, scope, receive, send, refusal)
                return
            app = endpoint.app
        outer = scope.get("hubbub")
        if isinstance(outer, Socket):  # a mounted app has managers of its own, and so has its parent
            outer.managers = [*outer.managers, *(engine for engine in engines if engine not in outer.managers)]
            begin_handshake(engines, outer)
            try:
                await app(scope, receive, send)
            finally:
                end_handshake(engines, outer)
            return
        socket = self._socket(engines, scope, receive, send)
        inner = redact_query(scope)
        inner["hubbub"] = socket
        socket.handshake.scope = inner
        await serve(socket, engines, lambda: app(inner, socket.receive, socket.send))

    def _engines(self, scope: Scope) -> Sequence[Engine]:
        """The engines of the managers that serve the path."""
        path = path_within(scope["path"], scope.get("root_path", ""))
        engines = [manager._hubbub for manager in self.managers]
        return [engine for engine in engines if engine.lifecycle.only is None or path in engine.lifecycle.only]

    def _socket(self, engines: Sequence[Engine], scope: Scope, receive: Receive, send: ServerSend) -> Socket:
        client = scope.get("client")
        socket = Socket(
            engines,
            receive,
            send,
            address=client[0] if client else None,
            where=shown(scope["path"]),
            offered=scope.get("subprotocols") or (),
        )
        self._detours.log(socket.detour)
        return socket


class Outermost:
    """The outermost part of an app that a manager is installed on, outside of Starlette's own middleware.

    It keeps the server's side of each HTTP request, for streams of events.

    Args:
        app: The ASGI app, with all its middleware.
        managers: The managers of the app.
    """

    def __init__(self, app: App, managers: Sequence[Manager]) -> None:
        self._app = app
        self._managers = managers

    async def __call__(self, scope: Scope, receive: Receive, send: ServerSend) -> None:
        """Passes everything on unchanged."""
        if scope["type"] == "http":
            keep(self._managers, scope, send)
        await self._app(scope, receive, send)


def _refusal(engines: Sequence[Engine], scope: Scope) -> str | None:
    """Returns why the origin is refused, or None if any manager allows it.

    The handler chooses a manager only when it calls `connect`, so one that allows the origin is enough here.
    """
    refusals = [engine.origins.refusal(scope["headers"]) for engine in engines]
    return None if None in refusals else next(iter(refusals), None)


def _endpoint_at(engines: Sequence[Engine], scope: Scope) -> WebSocketRoute | None:
    """Returns the route of the endpoint at the path, if there is one."""
    routes = (route for engine in engines for route in engine.endpoints.values())
    return next((route for route in routes if route.matches(scope)[0] is Match.FULL), None)


async def _refuse(engines: Sequence[Engine], scope: Scope, receive: Receive, send: ServerSend, refusal: str) -> None:
    logger.warning("refused a WebSocket on %s: %s", shown(scope["path"]), refusal)
    for engine in engines:
        engine.counters.refused["origin"] += 1
    await receive()
    redact_query(scope)
    outer = scope.get("hubbub")
    if isinstance(outer, Socket):
        await outer.deny(CloseCode.ORIGIN)
    else:
        await send({"type": "websocket.close", "code": CloseCode.ORIGIN.code, "reason": CloseCode.ORIGIN.reason})
