"""The handshake of one socket: what the client offers, what an auth dependency learns, and how a refusal is answered.

A browser shows a page nothing of a refused handshake. So by default a refusal is answered by accepting and closing,
with a code and a reason that the page can read.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from starlette.exceptions import HTTPException, WebSocketException
from starlette.websockets import WebSocketDisconnect

from ..close import CloseCode, Closed, reason_text
from ..errors import InvalidName
from ..options import RefuseWith
from ..subprotocols import answer_to
from .transports import Event


class Gone(WebSocketDisconnect, ConnectionError):
    """The client is gone, as an ASGI ``send`` reports it: with an ``OSError``.

    Starlette turns it into its own WebSocketDisconnect and marks the socket as disconnected. From ``accept`` it reaches
    the application as it is, so it is a WebSocketDisconnect too.
    """


class Handshake:
    """What is known of a handshake until it is answered.

    Args:
        offered: The subprotocols that the client offered.

    Attributes:
        scope: The ASGI scope that the app has, in which its router notes the endpoint.
        subprotocol: What an auth dependency wants answered.
        refuse_with: How to answer a refusal, whatever the manager's option says.
        counted: Whether its refusal is counted already.
    """

    __slots__ = ("_offered", "counted", "refuse_with", "scope", "subprotocol")

    def __init__(self, offered: Sequence[str]) -> None:
        self._offered = offered
        self.scope: Mapping[str, Any] = {}
        self.subprotocol: str | None = None
        self.refuse_with: RefuseWith | None = None
        self.counted: bool = False

    def accepting(self, event: Event) -> Event:
        """The app's accept, with the subprotocol that an auth dependency wants, unless the app names one."""
        if event.get("subprotocol") is None and self.subprotocol in self._offered:
            return {**event, "subprotocol": self.subprotocol}
        return event

    def accepting_to_refuse(self) -> Event:
        """The accept of a handshake that is refused with a close: with a subprotocol that browsers take."""
        subprotocol = self.subprotocol if self.subprotocol in self._offered else answer_to(self._offered)
        return {"type": "websocket.accept", "subprotocol": subprotocol, "headers": []}

    def is_routed(self, event: Event) -> bool:
        """Whether a route refuses, and not a router that has none for the path, which closes without a word."""
        if event["type"] != "websocket.close" or event.get("code", 1000) != 1000:
            return True
        endpoint = self.scope.get("endpoint")
        while isinstance(endpoint, partial):
            endpoint = endpoint.func
        return inspect.isroutine(endpoint) or inspect.isclass(endpoint)


def answer(error: BaseException | None) -> Closed | None:
    """The close code and reason for an exception that an app raises to refuse a client; None for any other."""
    if isinstance(error, WebSocketException):
        return Closed(error.code, reason_text(error.reason))
    if isinstance(error, HTTPException):
        cause = CloseCode.UNAUTHORIZED if error.status_code < 500 else CloseCode.INTERNAL_ERROR
        return Closed(cause.code, reason_text(error.detail) or cause.reason)
    if isinstance(error, InvalidName):
        return Closed(CloseCode.INVALID_NAME.code, reason_text(f"{error.argument}: {error.problem}"))
    return None
