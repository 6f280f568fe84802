"""Where a token is found in a request or a WebSocket handshake: pure.

A browser's WebSocket can't set headers, so that there are four places, read in this order:

1. ``Authorization: Bearer <token>``: everything that is not a browser's WebSocket.
2. The subprotocol pair ``bearer, <token>``, WebSockets only. The server answers ``bearer``.
3. A cookie, which a browser sends by itself: safe only where the origin is checked.
4. A query parameter, WebSockets only: URLs end up in access logs, histories and ``Referer`` (RFC 6750 section 2.3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias
from urllib.parse import parse_qsl

from starlette.requests import cookie_parser

Source: TypeAlias = Literal["header", "subprotocol", "cookie", "query"]

SUBPROTOCOL: Final = "bearer"
"""Offered with the token behind it, and answered at accept."""


class Presented(NamedTuple):
    """A token as it came, not verified yet."""

    token: str
    source: Source

    def __repr__(self) -> str:
        return f"Presented(source={self.source!r})"  # the token is a secret


def find_token(scope: Mapping[str, Any], *, cookie: str | None = None, query: str | None = None) -> Presented | None:
    """Gives the first token that an ASGI scope presents, or None.

    Args:
        scope: Of type ``http`` or ``websocket``.
        cookie: The name of the cookie to look into. None: cookies are not looked at.
        query: The name of the query parameter to look into. None: the query is not looked at.
    """
    for source, token in _tokens(scope, cookie, query):
        if token:
            return Presented(token, source)
    return None


def offered_subprotocol(scope: Mapping[str, Any]) -> str | None:
    """Gives the subprotocol to answer: ``bearer`` if it was offered, never the token behind it."""
    return SUBPROTOCOL if SUBPROTOCOL in scope.get("subprotocols", ()) else None


def _tokens(scope: Mapping[str, Any], cookie: str | None, query: str | None) -> Iterator[tuple[Source, str]]:
    for value in _header(scope, b"authorization"):
        scheme, _, credentials = value.strip().partition(" ")
        if scheme.lower() == "bearer":
            yield "header", credentials.strip()
    if scope["type"] == "websocket":
        subprotocols = list(scope.get("subprotocols", ()))
        if SUBPROTOCOL in subprotocols[:-1]:
            yield "subprotocol", subprotocols[subprotocols.index(SUBPROTOCOL) + 1]
    if cookie is not None:
        for value in _header(scope, b"cookie"):
            yield "cookie", cookie_parser(value).get(cookie, "")
    if query is not None and scope["type"] == "websocket":
        for name, value in parse_qsl(scope.get("query_string", b"").decode("latin-1")):
            if name == query:
                yield "query", value


def _header(scope: Mapping[str, Any], name: bytes) -> Iterator[str]:
    for key, value in scope.get("headers", ()):
        if key.lower() == name:
            yield value.decode("latin-1")
