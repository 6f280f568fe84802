"""Receives the events of one socket for its handler, and reads ahead if the handler does not receive.

Also measures how long a client has been silent, and how long a message has been incomplete. The socket decides whether
a message is acceptable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeAlias

from ..close import Closed
from ..tasks import Tasks
from .handler import Handler
from .read_ahead import ReadAhead
from .transports import Event, Transport

Receive: TypeAlias = Callable[[], Awaitable[Event]]


class Socket(Protocol):
    """The part of a socket that its reader uses."""

    @property
    def closed(self) -> Closed | None: ...

    @property
    def transport(self) -> Transport: ...

    @property
    def handler(self) -> Handler: ...

    def admit(self, event: Event) -> bool:
        """Whether a message may reach the handler."""

    def on_disconnect(self, code: int, reason: str) -> None:
        """Records that the server reports the disconnect."""


class Reader:
    """Reads from one socket.

    Args:
        socket: The socket.
        receive: The server's ASGI ``receive``.
    """

    __slots__ = (
        "_ahead",
        "_assembling_at",
        "_heard",
        "_heard_at",
        "_receive",
        "_received",
        "_receiving",
        "_server_receive",
        "_socket",
        "_waiting",
    )

    def __init__(self, socket: Socket, receive: Receive) -> None:
        self._socket = socket
        self._server_receive = receive
        transport = socket.transport
        self._receive = self._interruptible if transport.is_interruptible else transport.receiving(receive)
        self._waiting: asyncio.Task[Any] | None = None
        self._ahead: ReadAhead | None = None
        self._receiving = False
        self._received = True
        self._heard = True
        self._heard_at = 0.0
        self._assembling_at: float | None = None

    async def receive(self) -> Event:
        """The app's ASGI ``receive``. Returns messages within the limits, and the disconnect."""
        if self._ahead is not None:
            event = await self._ahead.get()
        else:
            self._receiving = True
            receive = self._receive
            try:
                while True:
                    event = await receive()
                    if event["type"] == "websocket.receive":
                        self._assembling_at = None
                        self._heard = True
                        if self._socket.admit(event):
                            return event
                    elif self._passes(event):
                        break
            finally:
                self._receiving = False
                self._received = True
        if event["type"] == "websocket.disconnect":
            self._socket.handler.on_disconnect()
        return event

    async def _next(self) -> Event:
        """Receives the next event for `ReadAhead`."""
        while True:
            event = await self._receive()
            if self._passes(event):
                return event

    def _passes(self, event: Event) -> bool:
        """Whether an event may reach the handler."""
        kind = event["type"]
        if kind == "websocket.receive":
            self._assembling_at = None
            self._heard = True
            return self._socket.admit(event)
        if kind == "websocket.disconnect":
            self._socket.on_disconnect(event.get("code", 1005), event.get("reason") or "")
        return True

    async def _interruptible(self) -> Event:
        """Calls the server's ``receive`` so that `interrupt` can end it.

        A server may be unable to send a Close while a ``receive`` is pending (granian).
        """
        self._waiting = task = asyncio.current_task()
        try:
            return await self._server_receive()
        except asyncio.CancelledError:
            if task is None or self._waiting is not None or task.uncancel():
                raise
            code, reason = self._socket.closed or (1006, "")
            return {"type": "websocket.disconnect", "code": code, "reason": reason}
        finally:
            self._waiting = None

    async def interrupt(self) -> None:
        """Ends the pending ``receive``, if there is one. It returns a disconnect."""
        task, self._waiting = self._waiting, None
        if task is not None:
            task.cancel()
            await asyncio.sleep(0)

    # Once a second

    def neglected(self) -> bool:
        """Whether nothing has received since the last call: neither the handler nor a `ReadAhead`."""
        neglected = not (self._received or self._receiving)
        self._received = False
        return neglected and self._ahead is None

    def read_ahead(self, tasks: Tasks) -> None:
        """Starts to read ahead for a handler that does not receive."""
        self._ahead = ReadAhead(self._next, tasks)

    def silent_for(self, now: float) -> float:
        """Returns the seconds without a message, counted from the first call. Time in which nothing is read is free."""
        if self._heard or (self._ahead is not None and self._ahead.full):
            self._heard = False
            self._heard_at = now
        return now - self._heard_at

    def assembling_for(self, now: float) -> float:
        """Returns the seconds for which a message has been incomplete; 0 if none is."""
        if not self._socket.transport.assembling:
            self._assembling_at = None
        elif self._assembling_at is None:
            self._assembling_at = now
        return 0.0 if self._assembling_at is None else now - self._assembling_at

    def stop(self) -> None:
        """Stops reading ahead."""
        if self._ahead is not None:
            self._ahead.stop()
