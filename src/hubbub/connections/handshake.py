"""The handshake of one socket: what the client offers, what an auth dependency learns, and how a refusal is answered.

A browser shows a page nothing of a refused handshake. So by default a refusal is answered by accepting and closing,
with a code and a reason that the page can read.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from starlette.exceptions import HTTPException, WebSocketException
from starlette.websockets import WebSocketDisconnect

from ..close import CloseCode, Closed, reason_text
from ..errors import InvalidName, shown
from ..options import RefuseWith
from ..subprotocols import answer_to
from .transports import Event, Transport

logger = logging.getLogger("hubbub")


class Gone(WebSocketDisconnect, ConnectionError):
    """The client is gone, as an ASGI ``send`` reports it: with an ``OSError``.

    Starlette turns it into its own WebSocketDisconnect and marks the socket as disconnected. From ``accept`` it reaches
    the application as it is, so it is a WebSocketDisconnect too.
    """


class Socket(Protocol):
    """What a handshake needs of its socket."""

    where: str

    @property
    def closed(self) -> Closed | None: ...

    @property
    def transport(self) -> Transport: ...

    @property
    def refuse_with(self) -> RefuseWith: ...

    def count_refused(self, reason: str) -> None:
        """Counts a refusal."""

    def opens(self) -> None:
        """The server has accepted it."""

    def refuses(self, closed: Closed) -> None:
        """The handshake is answered with a refusal."""

    def lost(self) -> None:
        """The client is gone."""

    async def close(self, code: int, reason: str) -> None:
        """Closes the socket with a Close frame."""


class Handshake:
    """The handshake of one socket, until it is answered.

    Args:
        socket: The socket.
        offered: The subprotocols that the client offered.

    Attributes:
        scope: The ASGI scope that the app has, in which its router notes the endpoint.
        subprotocol: What an auth dependency wants answered.
        refuse_with: How to answer a refusal, whatever the manager's option says.
        counted: Whether its refusal is counted already.
    """

    __slots__ = ("_offered", "_socket", "counted", "refuse_with", "scope", "subprotocol")

    def __init__(self, socket: Socket, offered: Sequence[str]) -> None:
        self._socket = socket
        self._offered = offered
        self.scope: Mapping[str, Any] = {}
        self.subprotocol: str | None = None
        self.refuse_with: RefuseWith | None = None
        self.counted = False

    async def send(self, event: Event) -> None:
        """The app's answer: an accept, a close, or an HTTP response."""
        kind = event["type"]
        if kind == "websocket.accept":
            await self._accept(self._accepting(event))
        elif kind == "websocket.close":
            await self._refuse(Closed(event.get("code", 1000), reason_text(event.get("reason"))), event)
        elif kind == "websocket.http.response.start":
            error = sys.exc_info()[1]  # the one that Starlette is answering; any other response is the app's own choice
            await self._refuse(answer(error) if isinstance(error, HTTPException) else None, event)
        else:
            if kind == "websocket.http.response.body" and not event.get("more_body"):
                self._socket.refuses(Closed(1006, ""))
            await self._pass_on(event)

    async def refuse(self, closed: Closed) -> None:
        """Refuses the client, as an app does with a close."""
        await self._refuse(closed, _close(closed))

    async def deny(self, closed: Closed) -> None:
        """Refuses the client in any case with 403."""
        self._socket.refuses(closed)
        await self._pass_on(_close(closed))

    async def _accept(self, event: Event) -> None:
        socket = self._socket
        if socket.closed is None:
            try:
                await socket.transport.send(event)
            except OSError:
                socket.lost()
        if socket.closed is not None:
            raise Gone(*socket.closed)
        socket.opens()

    def _accepting(self, event: Event) -> Event:
        """The app's accept, with the subprotocol that an auth dependency wants, unless the app names one."""
        if event.get("subprotocol") is None and self.subprotocol in self._offered:
            return {**event, "subprotocol": self.subprotocol}
        return event

    async def _refuse(self, closed: Closed | None, event: Event) -> None:
        """Refuses for the app: accepts and closes, so that a page can read why, or passes its answer on.

        Starlette calls this while it handles what the app raised.

        Args:
            closed: What to tell the client; None where the app sends an HTTP response of its own making.
            event: The app's answer: a close, or the start of an HTTP response.
        """
        socket = self._socket
        routed = self._is_routed(event)
        if routed and not self.counted:
            why = f"HTTP {event['status']}" if closed is None else f"{closed.code} {shown(closed.reason)}"
            logger.info("the app refused a WebSocket on %s: %s", socket.where, why)
            socket.count_refused("app")
        if not routed or closed is None or (self.refuse_with or socket.refuse_with) == "http":
            if closed is not None and event["type"] == "websocket.close":
                socket.refuses(closed)
            await self._pass_on(event)
            return
        subprotocol = self.subprotocol if self.subprotocol in self._offered else answer_to(self._offered)
        with suppress(Gone):
            await self._accept({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
            await socket.close(*closed)

    def _is_routed(self, event: Event) -> bool:
        """Whether a route refuses, and not a router that has none for the path, which closes without a word."""
        if event["type"] != "websocket.close" or event.get("code", 1000) != 1000:
            return True
        endpoint = self.scope.get("endpoint")
        while isinstance(endpoint, partial):
            endpoint = endpoint.func
        return inspect.isroutine(endpoint) or inspect.isclass(endpoint)

    async def _pass_on(self, event: Event) -> None:
        """Passes on what refuses the handshake. The client may be gone, which is no error."""
        try:
            await self._socket.transport.send(event)
        except OSError:
            self._socket.lost()


def _close(closed: Closed) -> Event:
    return {"type": "websocket.close", "code": closed.code, "reason": closed.reason}


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
