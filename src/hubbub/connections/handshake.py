"""Answers the handshake of one socket for the app.

A browser does not tell a page why a handshake was refused. So by default a refusal becomes an accept followed by a
close, with a code and a reason that the page can read.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol

from starlette.exceptions import HTTPException, WebSocketException
from starlette.websockets import WebSocketDisconnect

from ..close import CloseCode, Closed, reason_text
from ..errors import InvalidName, shown
from ..options import RefuseWith
from ..subprotocols import answer_to
from .transports import Event, Transport

logger: Final = logging.getLogger("hubbub")


class Gone(WebSocketDisconnect, ConnectionError):
    """The error of an ASGI ``send`` whose client is gone.

    As an ``OSError``, it makes Starlette mark the socket as disconnected and raise its own WebSocketDisconnect. From
    ``accept`` it reaches the app unchanged, so it is a WebSocketDisconnect as well.
    """


class Socket(Protocol):
    """The part of a socket that its handshake uses."""

    where: str

    @property
    def closed(self) -> Closed | None: ...

    @property
    def transport(self) -> Transport: ...

    @property
    def refuse_with(self) -> RefuseWith: ...

    def count_refused(self, reason: str) -> None:
        """Counts a refusal."""

    def on_accept(self) -> None:
        """Records that the socket is accepted."""

    def on_refuse(self, closed: Closed) -> None:
        """Records that the handshake is answered with a refusal."""

    def on_lost(self) -> None:
        """Records that the client is gone."""

    async def close(self, code: int, reason: str) -> None:
        """Closes the socket with a Close frame."""


class Handshake:
    """The handshake of one socket, until it is answered.

    Args:
        socket: The socket.
        offered: The subprotocols that the client offered.

    Attributes:
        scope: The ASGI scope of the app, where its router records the endpoint.
        subprotocol: The subprotocol that an auth dependency wants to answer with.
        refuse_with: How to answer a refusal; None to follow the manager's option.
        counted: Whether the refusal is already counted.
    """

    __slots__ = ("_offered", "_socket", "counted", "refuse_with", "scope", "subprotocol")

    def __init__(self, socket: Socket, offered: Sequence[str]) -> None:
        self._socket = socket
        self._offered = offered
        self.scope: Mapping[str, Any] = {}
        self.subprotocol: str | None = None
        self.refuse_with: RefuseWith | None = None
        self.counted: bool = False

    async def send(self, event: Event) -> None:
        """Sends the app's answer: an accept, a close, or an HTTP response."""
        kind = event["type"]
        if kind == "websocket.accept":
            await self._accept(self._accepting(event))
        elif kind == "websocket.close":
            await self._refuse(Closed(event.get("code", 1000), reason_text(event.get("reason"))), event)
        elif kind == "websocket.http.response.start":
            # Starlette sends this while it handles the app's exception; without one, the app chose the response.
            error = sys.exc_info()[1]
            await self._refuse(answer(error) if isinstance(error, HTTPException) else None, event)
        else:
            if kind == "websocket.http.response.body" and not event.get("more_body"):
                self._socket.on_refuse(Closed(1006, ""))
            await self._pass_on(event)

    async def refuse(self, closed: Closed) -> None:
        """Refuses the client like an app that closes during the handshake."""
        await self._refuse(closed, _close(closed))

    async def deny(self, closed: Closed) -> None:
        """Refuses the client with 403, whatever the options say."""
        self._socket.on_refuse(closed)
        await self._pass_on(_close(closed))

    async def _accept(self, event: Event) -> None:
        socket = self._socket
        if socket.closed is None:
            try:
                await socket.transport.send(event)
            except OSError:
                socket.on_lost()
        if socket.closed is not None:
            raise Gone(*socket.closed)
        socket.on_accept()

    def _accepting(self, event: Event) -> Event:
        """Adds the subprotocol of the auth dependency to an accept, unless the app names one."""
        if event.get("subprotocol") is None and self.subprotocol in self._offered:
            return {**event, "subprotocol": self.subprotocol}
        return event

    async def _refuse(self, closed: Closed | None, event: Event) -> None:
        """Accepts and closes, so that a page can read the reason, or passes the app's refusal on to the server.

        Args:
            closed: The close code and reason for the client; None if the app sends an HTTP response of its own.
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
                socket.on_refuse(closed)
            await self._pass_on(event)
            return
        subprotocol = self.subprotocol if self.subprotocol in self._offered else answer_to(self._offered)
        with suppress(Gone):
            await self._accept({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
            await socket.close(*closed)

    def _is_routed(self, event: Event) -> bool:
        """Whether a route refused, and not the router itself, which closes with 1000 if no route matches the path."""
        if event["type"] != "websocket.close" or event.get("code", 1000) != 1000:
            return True
        endpoint = self.scope.get("endpoint")
        while isinstance(endpoint, partial):
            endpoint = endpoint.func
        return inspect.isroutine(endpoint) or inspect.isclass(endpoint)

    async def _pass_on(self, event: Event) -> None:
        """Passes a refusal on to the server. It is no error if the client is already gone."""
        try:
            await self._socket.transport.send(event)
        except OSError:
            self._socket.on_lost()


def _close(closed: Closed) -> Event:
    return {"type": "websocket.close", "code": closed.code, "reason": closed.reason}


def answer(error: BaseException | None) -> Closed | None:
    """Returns the close code and reason for an exception that refuses a client; None for any other exception."""
    if isinstance(error, WebSocketException):
        return Closed(error.code, reason_text(error.reason))
    if isinstance(error, HTTPException):
        cause = CloseCode.UNAUTHORIZED if error.status_code < 500 else CloseCode.INTERNAL_ERROR
        return Closed(cause.code, reason_text(error.detail) or cause.reason)
    if isinstance(error, InvalidName):
        return Closed(CloseCode.INVALID_NAME.code, reason_text(f"{error.argument}: {error.problem}"))
    return None
