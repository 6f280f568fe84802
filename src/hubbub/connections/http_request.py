"""Serves one HTTP request as a socket, so that limits, rooms, outboxes, drains and instructions apply to its client.

To the rest of hubbub, the client is one of a WebSocket. `hubbub.connections.transports.stream` translates. As long as
the response has not begun, an exception of the handler is the app's own answer to the request: it is raised again, and
nothing is sent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, NamedTuple, Protocol

from starlette.websockets import WebSocket, WebSocketDisconnect

from ..errors import shown
from ..lifecycle import Lifecycle
from ..redaction import redact_query
from .exchange import KEY, Exchange
from .serving import Engine as ServingEngine
from .serving import serve
from .socket import Manager as SocketsManager
from .socket import Socket
from .transports import Detour, ServerReceive, ServerSend, Transport
from .transports.stream import Opening, StreamTransport


class Engine(SocketsManager, ServingEngine, Protocol):
    """The part of a manager's engine that serves a request."""

    lifecycle: Lifecycle


class HttpRequest(NamedTuple):
    """An HTTP request.

    Attributes:
        exchange: The request as the server sees it.
        scope: The scope of the app, with the query that the server no longer has.
        receive: The ``receive`` of the app.
        send: The ``send`` of the app.
    """

    exchange: Exchange
    scope: MutableMapping[str, Any]
    receive: ServerReceive
    send: ServerSend

    @property
    def version(self) -> str:
        """The version of HTTP."""
        version: str = self.scope.get("http_version", "1.1")
        return version


class HttpSocket(NamedTuple):
    """The socket of a request.

    Attributes:
        socket: The socket.
        transport: Its transport, which begins the response.
        websocket: The request as a WebSocket, for functions of the app.
    """

    socket: Socket
    transport: StreamTransport
    websocket: WebSocket


def exchange_of(engine: Engine, scope: Mapping[str, Any]) -> Exchange:
    """Returns the server's side of a request.

    Raises:
        NotInstalled: The manager is not installed on the app.
    """
    engine.lifecycle.check_loop()
    exchange = scope.get(KEY)
    if not isinstance(exchange, Exchange) or all(each._hubbub is not engine for each in exchange.managers):
        raise engine.lifecycle.not_installed_here(scope["path"], "request")
    return exchange


def opened(engine: Engine, scope: MutableMapping[str, Any], receive: ServerReceive, send: ServerSend) -> HttpRequest:
    """Takes over a request. From now on, no log of the server shows its query.

    Raises:
        NotInstalled: The manager is not installed on the app.
    """
    request = HttpRequest(exchange_of(engine, scope), dict(scope), receive, send)
    redact_query(request.exchange.scope)
    return request


async def serve_request(
    engine: Engine,
    request: HttpRequest,
    receive: ServerReceive,
    opening: Opening,
    handle: Callable[[HttpSocket], Awaitable[None]],
) -> None:
    """Runs the handler of a request in the current task.

    Args:
        engine: The engine of the manager.
        request: The request.
        receive: What its client sends, as the events of a WebSocket.
        opening: The response.
        handle: The handler. It begins the response.

    Raises:
        Exception: The handler raised it, and nothing was sent yet: the app answers the request.
    """
    scope = {**request.scope, "type": "websocket", "subprotocols": []}
    client = scope.get("client")

    def make_transport(send: ServerSend, end_task: Callable[[], None]) -> tuple[Transport, Detour | None]:
        return StreamTransport(opening, request.exchange.send, send, end_task), None

    socket = Socket(
        [engine],
        receive,
        request.send,
        address=client[0] if client else None,
        where=shown(scope["path"]),
        offered=(),
        make_transport=make_transport,
    )
    socket.speak(opening.protocol)
    scope["hubbub"] = socket
    socket.handshake.scope = scope
    transport = socket.transport
    assert isinstance(transport, StreamTransport)
    refusals: list[Exception] = []

    async def run() -> None:
        try:
            await handle(HttpSocket(socket, transport, WebSocket(scope, socket.receive, socket.send)))
        except WebSocketDisconnect:
            raise
        except Exception as error:
            if transport.begun:
                raise
            transport.leave()
            refusals.append(error)

    await serve(socket, [engine], run)
    try:
        for refusal in refusals:
            raise refusal
    finally:
        refusals.clear()  # breaks a cycle: the traceback refers to this frame
