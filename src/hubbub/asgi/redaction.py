"""Keeps tokens out of the server's log, and what a client wrote on one line of it.

Uvicorn prints a WebSocket's whole query when it is accepted or refused, and at debug level the websockets library
prints every header of the handshake, both before or beyond what an app can do about it. Header values, the reason of a
Close and an address from ``X-Forwarded-For`` are printed as they came, with what a terminal acts on.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any, Final

HIDDEN: Final = "***"
_SECRET_HEADERS = frozenset(("authorization", "cookie", "set-cookie", "sec-websocket-protocol", "proxy-authorization"))


def redact_query(scope: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Hides the values of a handshake's query from the server, which holds the same scope.

    Returns:
        The scope for the app, which keeps the original.
    """
    query: bytes = scope.get("query_string") or b""
    if not query:
        return scope
    inner = dict(scope)
    scope["query_string"] = b"&".join(_without_value(part) for part in query.split(b"&"))
    return inner


def _without_value(part: bytes) -> bytes:
    name, separator, _ = part.partition(b"=")
    return name + b"=***" if separator else b"***"


class ServerLogFilter(logging.Filter):
    """Hides credentials in the lines that the websockets library logs at debug level, and escapes control characters.

    Those lines are ``< GET /path?query HTTP/1.1``, and ``< header: value`` of the request and ``> header: value`` of
    the answer. What is escaped is in them, in those of frames (``< CLOSE 4000 ...``), and in uvicorn's own.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets every record through, some of them redacted."""
        args = record.args
        if not isinstance(args, tuple):
            return True
        if record.levelno <= logging.DEBUG and str(record.msg).startswith(("< ", "> ")):
            if len(args) == 2 and str(args[0]).lower() in _SECRET_HEADERS:
                args = (args[0], HIDDEN)
            else:
                args = tuple(_without_query(arg if isinstance(arg, (str, int)) else str(arg)) for arg in args)
        record.args = tuple(_printable(arg) if isinstance(arg, str) else arg for arg in args)
        return True


def _without_query(value: object) -> object:
    if not isinstance(value, str):
        return value
    path, mark, _ = value.partition("?")
    return path + mark + HIDDEN if mark else value


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
