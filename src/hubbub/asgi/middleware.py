"""The ASGI middleware between the server and the app.

For every WebSocket it checks the origin, keeps tokens out of the server's log, and gives the app the ``send`` and
``receive`` of a `hubbub.connections.socket.Socket`. However the handler ends, the middleware closes the socket with a
Close frame.

A WebSocket of another origin is refused with 403. On the path of an endpoint, the endpoint itself refuses it, after it
has accepted the socket: an SDK whose handshake fails can't read why, and retries forever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias

from starlette.applications import Starlette
from starlette.routing import Match, WebSocketRoute
from starlette.websockets import WebSocketDisconnect

from ..close import CloseCode
from ..connections.admission import Admission
from ..connections.connecting import close_for, invalid_name_in, is_disconnect
from ..connections.handshake import answer
from ..connections.reader import Receive
from ..connections.socket import Manager as SocketsManager
from ..connections.socket import Socket
from ..connections.transports import Detour, ServerSend
from ..errors import InvalidArgument, InvalidName, shown
from ..lifecycle import Lifecycle
from ..origin import OriginPolicy
from ..paths import path_within
from .redaction import redact_query

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
        self._detours: set[Detour] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: ServerSend) -> None:
        """Handles a WebSocket, and passes everything else on to the app unchanged."""
        engines = self._engines(scope) if scope["type"] == "websocket" else ()
        if not engines:
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
            _begin_handshake(engines, outer)
            try:
                await app(scope, receive, send)
            finally:
                _end_handshake(engines, outer)
            return
        socket = self._socket(engines, scope, receive, send)
        socket.manager.sweeper.watch(socket)
        _begin_handshake(engines, socket)
        ended: BaseException | None = None
        try:
            inner = redact_query(scope)
            inner["hubbub"] = socket
            socket.handshake.scope = inner
            await app(inner, socket.receive, socket.send)
        except (WebSocketDisconnect, RuntimeError, InvalidName, BaseExceptionGroup) as error:
            ended = error
            if not is_disconnect(error, informed=socket.handler.informed):
                closed = answer(invalid_name_in(error))
                if closed is None:
                    raise
                await socket.reject(CloseCode.INVALID_NAME, closed)
        except asyncio.CancelledError as error:
            ended = error
            if not socket.handler.cancelled:
                raise
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
        except BaseException as error:
            ended = error
            raise
        finally:
            _end_handshake(engines, socket)
            await self._end(socket, ended)

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
        self._log_detour(socket.detour)
        return socket

    async def _end(self, socket: Socket, ended: BaseException | None) -> None:
        socket.handler.end()
        for session in tuple(socket.sessions):
            session.flush()
            session.end(grace=True)
        try:
            if socket.accepted:
                await socket.close(*close_for(ended, stopping=socket.transport.restarting is not False))
            else:
                # Uvicorn records a denial one pass of the loop late. Without this pass, it would log an error.
                await asyncio.sleep(0)
        finally:
            for manager in socket.managers:
                manager.sweeper.release(socket)
            socket.on_handler_end()

    def _log_detour(self, detour: Detour | None) -> None:
        if detour is not None and detour not in self._detours:
            self._detours.add(detour)
            level = logging.WARNING if detour.fault else logging.INFO
            logger.log(level, "not writing directly to the socket, but through %s", detour.text)


def _begin_handshake(engines: Sequence[Engine], socket: Socket) -> None:
    """Lets the admission of each manager know of a client whose user is not known yet."""
    for engine in engines:
        engine.admission.begin_handshake(socket)


def _end_handshake(engines: Sequence[Engine], socket: Socket) -> None:
    for engine in engines:
        engine.admission.end_handshake(socket)


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
