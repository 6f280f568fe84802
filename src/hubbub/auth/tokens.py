"""Finds the token in a request or a WebSocket handshake. Pure functions.

A browser's WebSocket can't set headers, so there are four places. They are read in this order:

1. ``Authorization: Bearer <token>``, for everything but a browser's WebSocket.
2. The subprotocol pair ``bearer, <token>``, on WebSockets only. The server answers ``bearer``.
3. A cookie. Browsers send it without being asked, so it is safe only where the origin is checked.
4. A query parameter, on WebSockets only. URLs end up in access logs, histories and ``Referer`` (RFC 6750 section 2.3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias
from urllib.parse import parse_qsl

from starlette.requests import cookie_parser

Source: TypeAlias = Literal["header", "subprotocol", "cookie", "query"]

SUBPROTOCOL: Final = "bearer"
"""The subprotocol that a client offers together with its token, and that the server answers."""


class Presented(NamedTuple):
    """A token as the client sent it, not verified yet."""

    token: str
    source: Source

    def __repr__(self) -> str:
        return f"Presented(source={self.source!r})"  # the token is a secret


def find_token(scope: Mapping[str, Any], *, cookie: str | None = None, query: str | None = None) -> Presented | None:
    """Returns the first token in an ASGI scope, or None.

    Args:
        scope: An ASGI scope of type ``http`` or ``websocket``.
        cookie: The name of the cookie to read. With None, cookies are ignored.
        query: The name of the query parameter to read. With None, the query is ignored.
    """
    for source, token in _tokens(scope, cookie, query):
        if token:
            return Presented(token, source)
    return None


def is_handshake(scope: Mapping[str, Any]) -> bool:
    """Whether a scope is that of a WebSocket: its own, or the request that an endpoint makes of its handshake."""
    return scope["type"] == "websocket" or "hubbub.handshake" in scope


def offered_subprotocol(scope: Mapping[str, Any]) -> str | None:
    """Returns the subprotocol to answer: ``bearer`` if it was offered, never the token itself."""
    return SUBPROTOCOL if SUBPROTOCOL in scope.get("subprotocols", ()) else None


def _tokens(scope: Mapping[str, Any], cookie: str | None, query: str | None) -> Iterator[tuple[Source, str]]:
    for value in _header(scope, b"authorization"):
        scheme, _, credentials = value.strip().partition(" ")
        if scheme.lower() == "bearer":
            yield "header", credentials.strip()
    if is_handshake(scope):
        subprotocols = list(scope.get("subprotocols", ()))
        if SUBPROTOCOL in subprotocols[:-1]:
            yield "subprotocol", subprotocols[subprotocols.index(SUBPROTOCOL) + 1]
    if cookie is not None:
        for value in _header(scope, b"cookie"):
            yield "cookie", cookie_parser(value).get(cookie, "")
    if query is not None and is_handshake(scope):
        for name, value in parse_qsl(scope.get("query_string", b"").decode("latin-1")):
            if name == query:
                yield "query", value


def _header(scope: Mapping[str, Any], name: bytes) -> Iterator[str]:
    for key, value in scope.get("headers", ()):
        if key.lower() == name:
            yield value.decode("latin-1")
