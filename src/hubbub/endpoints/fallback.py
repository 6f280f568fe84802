"""The fallbacks of an endpoint, for clients of networks that break WebSockets: a stream, and posts with commands.

A client opens ``{path}/http_stream`` or ``{path}/sse`` with its ``connect``, and reads replies and pushes from the
response. Everything else it posts to ``{path}/emulation``. For the rest of hubbub it is a client with a WebSocket: the
request is presented as one (`hubbub.connections.http_request`), whose messages come from a `Mailbox`.

A page of another origin can do none of it, unless the manager allows the origin. The content types of the posts make a
browser ask first (CORS), and a request that says it is from another site, and not from which, is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException, WebSocketException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from ..close import CloseCode
from ..connections.http_request import HttpRequest, HttpSocket, opened, serve_request
from ..connections.socket import Socket
from ..connections.transports import Detour, Event, ServerReceive, ServerSend
from ..connections.transports.stream import Opening
from ..errors import InvalidArgument
from ..names import user_name
from ..protocols.centrifugo import CENTRIFUGO_JSON, BadRequest, centrifugo_protobuf
from ..protocols.centrifugo.messages import ConnectRequest
from ..protocols.centrifugo.streams import JSON_EVENTS, JSON_LINES, CentrifugoStream, protobuf_stream
from ..streams.request import check_origin, preflight
from ..streams.stream import Engine as StreamsEngine
from .caller import Caller
from .conversation import Conversation
from .emulation import Emulation, Mailbox
from .served import Engine as ServedEngine
from .served import Served

T = TypeVar("T")
R = TypeVar("R")

CONNECT_FIELD: Final = "cf_connect"
"""The field of the query that has the ``connect`` of a client that can only GET."""

_BODY_OF_MESSAGE: Final = 2  # as JSON in JSON: each quote is escaped
_BODY_EXTRA_BYTES: Final = 4096
_MAX_FIELDS: Final = 1000
_JSON: Final = "application/json"


class Engine(StreamsEngine, ServedEngine, Protocol):
    """The part of a manager's engine that the fallbacks use."""

    emulation: Emulation


class App:
    """An ASGI app. A router would take a function for one that returns a response.

    Args:
        answer: Answers a request.
    """

    def __init__(self, answer: Callable[[Event, ServerReceive, ServerSend], Awaitable[None]]) -> None:
        self._answer = answer

    async def __call__(self, scope: Event, receive: ServerReceive, send: ServerSend) -> None:
        """Answers a request, unless its client is gone."""
        with suppress(ClientDisconnect):
            await self._answer(scope, receive, send)


class Fallback:
    """The ASGI apps at the paths of the fallbacks of an endpoint.

    Args:
        path: The path of the endpoint.
        engine_of: Returns the engine of the manager.
        served_by: Returns the functions and settings of the endpoint, for the app that serves it.

    Attributes:
        apps: The apps, by the part of their path that follows that of the endpoint.
    """

    def __init__(self, path: str, engine_of: Callable[[], Engine], served_by: Callable[[object], Served]) -> None:
        self._path = path
        self._engine_of = engine_of
        self._served_by = served_by
        self.apps: Mapping[str, App] = {
            "http_stream": App(self._http_stream),
            "sse": App(self._sse),
            "emulation": App(self._emulation),
        }

    async def _http_stream(self, scope: Event, receive: ServerReceive, send: ServerSend) -> None:
        """Answers ``POST {path}/http_stream``: the body is the first message, and the response has no end."""
        request = _Request(self._engine_of(), scope, receive, send)
        if await request.is_preflight("POST"):
            return
        headers = request.headers("POST")
        is_text = request.is_json()
        protocol = JSON_LINES if is_text else request.made(protobuf_stream)
        body = await request.body(1, 0)
        first = _text(body) if is_text else body
        # Without an encoding, a middleware that compresses would keep the replies back.
        headers.append((b"content-encoding", b"identity"))
        await self._serve(request, protocol, first, headers)

    async def _sse(self, scope: Event, receive: ServerReceive, send: ServerSend) -> None:
        """Answers ``GET {path}/sse``: the query has ``connect``, and the response is a stream of events."""
        request = _Request(self._engine_of(), scope, receive, send)
        if await request.is_preflight("GET"):
            return
        headers = request.headers("GET")
        first = request.take_connect()
        await self._serve(request, JSON_EVENTS, first, headers)

    async def _emulation(self, scope: Event, receive: ServerReceive, send: ServerSend) -> None:
        """Answers ``POST {path}/emulation``: the body has a session, its node, and a message."""
        engine = self._engine_of()
        request = _Request(engine, scope, receive, send)
        if await request.is_preflight("POST"):
            return
        headers = request.headers("POST")
        encoding = CENTRIFUGO_JSON.encoding if request.is_json() else request.made(centrifugo_protobuf).encoding
        post = _parsed(encoding.posted, await request.body(_BODY_OF_MESSAGE, _BODY_EXTRA_BYTES))
        served = self._served_by(scope.get("app"))

        async def user_of() -> str | None:
            return await _user_of(served, request.http.scope)

        status = await engine.emulation.post(self._path, post, user_of)
        answer_headers = {name.decode(): value.decode("latin-1") for name, value in headers}
        await Response(None, status, headers=answer_headers)(scope, receive, send)

    async def _serve(
        self,
        request: _Request,
        protocol: CentrifugoStream,
        first: str | bytes,
        headers: list[tuple[bytes, bytes]],
    ) -> None:
        engine = request.engine
        served_by_app = self._served_by(request.http.scope.get("app"))
        sockets: list[Socket] = []

        def on_overflow() -> None:
            for socket in sockets:
                if socket.closed is None:
                    engine.counters.refused[CloseCode.RATE_LIMITED.name.lower()] += 1
                    socket.close_soon(CloseCode.RATE_LIMITED)

        mailbox = Mailbox(self._path, engine.emulation.node, first, engine.limits.max_message_bytes, on_overflow)
        opening = Opening(protocol, request.http.version, headers, waits_for_ok=True)

        async def handle(served: HttpSocket) -> None:
            sockets.append(served.socket)
            await served.websocket.accept()
            await _begin(engine, served)
            await Conversation(served_by_app, engine, served.websocket, protocol, mailbox).run()

        watching = engine.tasks.spawn(_until_gone(request.http.receive, mailbox), "watch a stream")
        try:
            with engine.emulation.holding(mailbox):
                await serve_request(engine, request.http, mailbox.receive, opening, handle)
        finally:
            watching.cancel()
            sockets.clear()  # breaks a cycle


async def _begin(engine: Engine, served: HttpSocket) -> None:
    """Begins the response, which tells everything else, also a refusal."""
    try:
        detour = await served.transport.begin()
    except OSError:
        served.socket.on_lost()
    else:
        if detour is not None:
            served.socket.detour = Detour(detour)
            engine.detours.log(served.socket.detour)


async def _until_gone(receive: ServerReceive, mailbox: Mailbox) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass  # the rest of the body, which is empty
    mailbox.end()


class _Request:
    """A request to one of the fallbacks.

    Attributes:
        engine: The engine of the manager.
        http: The request.
    """

    def __init__(self, engine: Engine, scope: Event, receive: ServerReceive, send: ServerSend) -> None:
        self.engine = engine
        self.http: HttpRequest = opened(engine, scope, receive, send)
        self._headers = Headers(raw=list(scope["headers"]))

    async def is_preflight(self, method: str) -> bool:
        """Answers a browser that asks whether a page may send the request. Returns whether it did."""
        _, scope, receive, send = self.http
        if scope["method"] != "OPTIONS":
            return False
        answer = preflight(self.engine, scope, method)
        await Response(None, 204, headers=answer)(scope, receive, send)
        return True

    def headers(self, method: str) -> list[tuple[bytes, bytes]]:
        """Checks the origin and the method. Returns the headers with which a page of the origin may read the answer.

        Raises:
            HTTPException: The origin or the method is another one than is allowed.
        """
        headers = check_origin(self.engine, self._headers)
        if self.http.scope["method"] != method:
            raise HTTPException(405, f"use {method}", headers={"Allow": f"{method}, OPTIONS"})
        return headers

    def is_json(self) -> bool:
        """Returns whether the body is JSON, and not Protobuf.

        Raises:
            HTTPException: It is neither, such as the body of a form, which a page of any site may send.
        """
        kind = self._headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in (_JSON, "application/octet-stream"):
            raise HTTPException(415, "accepted content types: application/json, application/octet-stream (Protobuf)")
        return kind == _JSON

    def made(self, make: Callable[[], T]) -> T:
        """Returns what needs protobuf.

        Raises:
            HTTPException: It is not installed.
        """
        try:
            return make()
        except InvalidArgument as error:
            raise HTTPException(415, f"{error.problem}; accepted: {error.accepted}") from None

    async def body(self, times: int, extra_bytes: int) -> bytes:
        """Reads the body.

        Args:
            times: How many times as large as a message it may be.
            extra_bytes: Bytes that it may have in addition.

        Raises:
            HTTPException: It is too large, or not complete in time.
            ClientDisconnect: The client is gone.
        """
        limits = self.engine.limits
        most = None if limits.max_message_bytes is None else times * limits.max_message_bytes + extra_bytes
        length = self._headers.get("content-length", "")
        too_large = HTTPException(413, CloseCode.MESSAGE_TOO_BIG.reason, headers={"Connection": "close"})
        if most is not None and length.isdigit() and int(length) > most:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(limits.message_timeout_s):
                while True:
                    event = await self.http.receive()
                    if event["type"] == "http.disconnect":
                        raise ClientDisconnect
                    body += event.get("body", b"")
                    if most is not None and len(body) > most:
                        raise too_large
                    if not event.get("more_body"):
                        return bytes(body)
        except TimeoutError:
            raise HTTPException(408, CloseCode.MESSAGE_TOO_SLOW.reason, headers={"Connection": "close"}) from None

    def take_connect(self) -> str:
        """Takes ``connect`` out of the query, which the app does not need.

        Raises:
            HTTPException: The query has anything else than one ``connect`` there.
        """
        query: bytes = self.http.scope.get("query_string", b"")
        problem = f"{CONNECT_FIELD} has exactly one command, which is connect"
        try:
            fields = parse_qsl(query.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
        except ValueError:
            raise HTTPException(400, "the query string is not valid") from None
        found = [value for name, value in fields if name == CONNECT_FIELD]
        if len(found) != 1:
            raise HTTPException(400, problem)
        commands = _parsed(JSON_EVENTS.encoding.decode, found[0])
        if len(commands) != 1 or not isinstance(commands[0].request, ConnectRequest):
            raise HTTPException(400, problem)
        rest = [field for field in fields if field[0] != CONNECT_FIELD]
        self.http.scope["query_string"] = urlencode(rest).encode()
        return found[0]


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise HTTPException(400, "the body is not UTF-8") from None


def _parsed(parse: Callable[[T], R], data: T) -> R:
    """Parses data of a client.

    Raises:
        HTTPException: It is malformed.
    """
    try:
        return parse(data)
    except BadRequest as error:
        raise HTTPException(400, str(error)) from None


async def _user_of(served: Served, scope: Mapping[str, Any]) -> str | None:
    """Authenticates a post as the handshake of its stream was. Returns the user; None if there is none."""
    authenticate = served.authenticate
    if authenticate is None:
        return None
    handshake = {**scope, "type": "websocket", "subprotocols": []}
    try:
        user = served.user_id_of(await authenticate(Caller(handshake, app=served.app)))
    except (HTTPException, WebSocketException):
        return None
    return None if user is None else user_name(user)
