"""A client, as functions and their dependencies see it: the Request of each message is made from its handshake."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from contextlib import AsyncExitStack
from copy import copy
from functools import cached_property
from typing import Any, Final, NoReturn, Protocol

from starlette.datastructures import Headers, QueryParams
from starlette.exceptions import WebSocketException
from starlette.requests import HTTPConnection, Request
from starlette.websockets import WebSocket

from ..claims import Claims
from ..connections.connection import Connection
from ..errors import NotSupported


class Overridable(Protocol):
    """A FastAPI app, as far as dependencies need it."""

    @property
    def dependency_overrides(self) -> dict[Any, Any]:
        """Dependencies and those that stand in for them, in tests."""


class Caller:
    """A client, as functions and their dependencies see it: made once per connection.

    Args:
        scope: The ASGI scope of its handshake, or of a request for the documentation. It keeps
            ``request.state``, from authentication to the last message.
        connection: Its connection; None while it is being authenticated.
        user: The value of the ``auth=`` dependency.
        app: The FastAPI app, for its ``dependency_overrides``. Any other app has none.
        token: A token that the client sent later than its handshake. It stands in the place of the header
            ``Authorization`` of the handshake, as ``Bearer``.
    """

    def __init__(
        self,
        scope: MutableMapping[str, Any],
        *,
        connection: Connection | None = None,
        user: object = None,
        app: object = None,
        token: str | None = None,
    ) -> None:
        scope.setdefault("state", {})
        headers: Iterable[tuple[bytes, bytes]] = scope.get("headers", ())
        if token is not None:
            bearer = (b"authorization", b"Bearer " + token.encode("utf-8", "replace"))
            headers = [*(each for each in headers if each[0].lower() != b"authorization"), bearer]
        self.connection = connection
        self.user = user
        self.claims: Claims | None = None
        self._app: Overridable | None = app if hasattr(app, "dependency_overrides") else None
        scheme = "https" if scope.get("scheme") in ("wss", "https") else "http"
        self._scope = {**scope, "type": "http", "method": "GET", "scheme": scheme, "headers": list(headers)}
        if scope["type"] == "websocket":  # a `JWTAuth` reads it as one, with the query and the subprotocols
            self._scope["hubbub.handshake"] = True

    def with_claims(self, claims: Claims) -> Caller:
        """Returns the same client, with the claims of a subscription token, for one message."""
        other = copy(self)
        other.claims = claims
        return other

    @property
    def overrides(self) -> dict[Any, Any]:
        """The app's ``dependency_overrides``."""
        return {} if self._app is None else self._app.dependency_overrides

    @cached_property
    def headers(self) -> Headers:
        """Those of the handshake."""
        return Headers(scope=self._scope)

    @cached_property
    def cookies(self) -> dict[str, str]:
        """Those of the handshake."""
        return Request(self._scope).cookies

    @cached_property
    def query_params(self) -> QueryParams:
        """Those of the handshake."""
        return QueryParams(self._scope.get("query_string", b""))

    def request(self, names: Mapping[str, str], outer: AsyncExitStack, inner: AsyncExitStack) -> Request:
        """Makes the Request of one message.

        Args:
            names: Path parameters, beside those of the endpoint's own path.
            outer: Closes the dependencies of the scope "request".
            inner: Closes the dependencies of the scope "function", before the others.
        """
        path_params = self._scope.get("path_params") or {}
        return _Handshake(
            {
                **self._scope,
                _CALLER: self,
                "path_params": {**path_params, **names} if names else path_params,
                "fastapi_inner_astack": outer,
                "fastapi_function_astack": inner,
            },
            _nothing_to_receive,
        )


_CALLER: Final = "hubbub.caller"


def caller_of(request: HTTPConnection) -> Caller:
    """Returns the client that a Request of `Caller.request` is about."""
    caller: Caller = request.scope[_CALLER]
    return caller


def _refused(call: str) -> NoReturn:
    raise NotSupported(
        f"{call} in a dependency of an endpoint: the endpoint itself receives from the client and sends to it. "
        "Take the message as the parameter of the function, `return` the reply, and send with `connection.send(...)`; "
        "to refuse the client, raise HTTPException, or WebSocketException, which also closes the socket"
    )


async def _nothing_to_receive() -> NoReturn:
    _refused("receive()")


class _Handshake(Request):
    """The Request of one message. The handshake is parsed once for all messages of a connection (`Caller`).

    It also stands in for a WebSocket. Nothing that a dependency does to a WebSocket is ignored: `close` ends the
    connection, and the methods that accept, receive and send raise an error.
    """

    @property
    def headers(self) -> Headers:
        headers: Headers = self.scope[_CALLER].headers
        return headers

    @property
    def cookies(self) -> dict[str, str]:
        cookies: dict[str, str] = self.scope[_CALLER].cookies
        return cookies

    @property
    def query_params(self) -> QueryParams:
        query_params: QueryParams = self.scope[_CALLER].query_params
        return query_params

    async def close(self, code: int = 1000, reason: str | None = None) -> NoReturn:
        """Ends the connection, as a WebSocketException does."""
        raise WebSocketException(code, reason)


def _refusing(name: str) -> Callable[..., NoReturn]:
    def refuse(self: object, *args: object, **kwargs: object) -> NoReturn:
        _refused(f"websocket.{name}()")

    return refuse  # not `async`, so that both `await` and `async for` reach the error


for _name in ("accept", "send", "send_text", "send_bytes", "send_json", "send_denial_response", "receive_text",
              "receive_bytes", "receive_json", "iter_text", "iter_bytes", "iter_json"):  # fmt: skip
    setattr(_Handshake, _name, _refusing(_name))  # `receive` is a property of Request

# Dependencies written for the routes of raw sockets take a WebSocket, most often for its headers and cookies. FastAPI
# gives it to them if the Request passes for one.
WebSocket.register(_Handshake)


async def current_connection(request: HTTPConnection) -> Connection:
    """A dependency that gives the connection whose message is handled.

    Other dependencies depend on it: ``connection: Annotated[Connection, Depends(current_connection)]``. The functions
    of an endpoint need not: they have a parameter that is annotated ``Connection``.
    """
    caller = caller_of(request)
    if caller.connection is None:
        raise RuntimeError("a client that is being authenticated has no connection yet: take HTTPConnection instead")
    return caller.connection
