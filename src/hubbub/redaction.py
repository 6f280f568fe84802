"""Keeps credentials and control characters out of the server's log.

Uvicorn logs the whole query of each WebSocket that it accepts or refuses. At debug level, the websockets library logs
every header of the handshake. An app can't prevent either. Both also print text from clients unescaped: header values,
close reasons, and the address from ``X-Forwarded-For``. Control characters in it would reach the terminal.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any, Final

HIDDEN: Final = "***"
_SECRET_HEADERS = frozenset(("authorization", "cookie", "set-cookie", "sec-websocket-protocol", "proxy-authorization"))


def redact_query(scope: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replaces the values of the query in the server's own scope, which the server logs later.

    Returns:
        The scope for the app, with the original query.
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
    """Hides credentials that the websockets library logs at debug level, and escapes control characters in all lines.

    The lines with credentials are ``< GET /path?query HTTP/1.1``, ``< header: value`` for the request, and
    ``> header: value`` for the response. Control characters may also be in the lines for frames
    (``< CLOSE 4000 ...``) and in uvicorn's own lines.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Redacts the record if needed. Never drops one."""
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
