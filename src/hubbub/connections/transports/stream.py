"""Writes to one HTTP response that has no end: the transport of a client that reads a stream of events.

Theory of operation. The rest of hubbub sees a WebSocket that never sends anything. Its events are translated here:

* ``websocket.accept`` is kept, and the response does not begin yet: until `begin`, a close answers the request with a
  status of its own, and the app can still answer it with an HTTPException.
* Frames are chunks (`hubbub.protocols.chunks`). Under uvicorn they are written to the socket as they are, between the
  parts of the body that the app sends. On any other server, to a client that does not take chunks, and behind a
  middleware that keeps the response back to change it, they become such parts.
* ``websocket.close`` ends the body, behind a last frame of the protocol.

`stream_receive` translates the other direction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import SystemRandom
from typing import Any, Final

from ...close import CloseCode, Closed
from ...codec import dumps
from ...errors import NotSupported
from ...protocols.base import StreamProtocol
from ...protocols.chunks import unchunked
from .base import Event, ServerReceive, ServerSend
from .direct import DirectTransport, descriptor_of
from .uvicorn_http import cycle_of, flaw_of

RETRY_S: Final = (1.0, 4.0)
"""The range of times after which a client is to come back to a stream that ended, so that they do not come at once."""

RESTART_RETRY_S: Final = (1.0, 10.0)
"""The same, for a server that is shutting down."""

_STATUSES: Final = {
    CloseCode.UNAUTHORIZED: 401,
    CloseCode.TOKEN_EXPIRED: 401,
    CloseCode.INVALID_NAME: 400,
    CloseCode.TOO_MANY_ROOMS: 400,
    CloseCode.TOO_MANY_USER_CONNECTIONS: 429,
    CloseCode.TOO_MANY_ADDRESS_CONNECTIONS: 429,
    CloseCode.TOO_MANY_CONNECTIONS: 503,
    CloseCode.ROOM_FULL: 503,
    CloseCode.SERVICE_RESTART: 503,
    CloseCode.BROKER_UNAVAILABLE: 503,
    CloseCode.INTERNAL_ERROR: 500,
}
_BY_CLOSED: Final = {(cause.code, cause.reason): status for cause, status in _STATUSES.items()}
_random: Final = SystemRandom()
_TEMPORARY: Final = frozenset((429, 503))


def status_of(closed: Closed) -> int:
    """Returns the HTTP status for a client that is closed before its response has begun."""
    return _BY_CLOSED.get((closed.code, closed.reason), 403)


def retry_ms(code: int = 1000) -> int:
    """Returns a random time, in milliseconds, after which a client is to come back."""
    return int(1000 * _random.uniform(*(RESTART_RETRY_S if code == CloseCode.SERVICE_RESTART.code else RETRY_S)))


def jittered(seconds: float) -> float:
    """Returns a random time between half of a time and all of it, so that what many do is spread."""
    return seconds * _random.uniform(0.5, 1.0)


@dataclass
class Opening:
    """The response of one stream, as far as its client decides it.

    Attributes:
        protocol: The protocol of the client.
        http_version: The version of HTTP.
        headers: Headers of the response, also of one that refuses.
        waits_for_ok: Whether the client gives up at any status but 200, and so can't be told a temporary refusal by a
            status.
    """

    protocol: StreamProtocol
    http_version: str
    headers: Sequence[tuple[bytes, bytes]] = ()
    waits_for_ok: bool = False

    @property
    def is_http_1(self) -> bool:
        """Whether the response has a connection for itself, which can end with it."""
        return self.http_version.startswith("1.")

    @property
    def is_chunked(self) -> bool:
        """Whether a body without a length is sent in chunks."""
        return self.http_version == "1.1"


class _Unknown(asyncio.Transport):
    """Stands in for the connection of a server that gives no access to it."""

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


_UNKNOWN: Final = _Unknown()


class StreamTransport(DirectTransport):
    """Sends the response of an HTTP request.

    Args:
        opening: The response.
        server_send: The server's own ``send``.
        send: The ``send`` of the request, as the app has it.
        end_task: Ends the app's task.

    Attributes:
        begun: Whether the response has begun.
    """

    __slots__ = ("_answered", "_attends", "_cycle", "_end_task", "_gone", "_opening", "_send", "begun")

    def __init__(
        self, opening: Opening, server_send: ServerSend, send: ServerSend, end_task: Callable[[], None]
    ) -> None:
        cycle = self._cycle = cycle_of(server_send)
        super().__init__(_UNKNOWN if cycle is None else cycle.transport, is_direct=False)
        self._opening = opening
        self._send = send
        self._end_task = end_task
        self._answered = False
        self._attends = False
        self._gone = False
        self.begun: bool = False

    async def begin(self) -> str | None:
        """Begins the response. From now on, frames go directly to the socket, if they can.

        Returns:
            The reason why they do not, and the way that they take; None if they do.

        Raises:
            OSError: The client is gone.
        """
        if self._answered:
            raise ConnectionResetError("the request is answered already")
        self.begun = True
        await self._pass_on(self._start(200))
        cycle = self._cycle
        if cycle is None:
            return "the response of the app"
        if not cycle.response_started:  # a middleware keeps it back, to change it and what follows
            return "the response of the app: a middleware changes it"
        self._attend()
        if not self._opening.is_chunked:
            return "the response of the app: the client does not speak HTTP/1.1"
        flaw = flaw_of(cycle)
        if flaw is not None:
            return f"the response of the app: uvicorn does not behave as direct writes require: {flaw}"
        self._is_direct = True
        self._descriptor = descriptor_of(self._transport)
        self.hold(self._held)
        return self.detour

    def leave(self) -> None:
        """Leaves the answer to the app: nothing is sent any more."""
        self._answered = True

    @property
    def _ended(self) -> bool:
        cycle = self._cycle
        return self._transport.is_closing() or cycle is None or cycle.response_complete or cycle.disconnected

    @property
    def _takes_data(self) -> bool:
        return self._cycle is not None and not self._cycle.flow.write_paused

    def watch(self, admit: Callable[[], bool]) -> None:
        pass  # the client sends nothing

    def limit_message_size(self, max_bytes: int | None) -> None:
        pass  # the client sends nothing

    def maintain(self) -> None:
        pass  # there is no deferred work

    def stop_reading(self) -> None:
        pass  # the client sends nothing

    @property
    def is_interruptible(self) -> bool:
        return True

    async def ready(self) -> None:
        if self._is_direct and self._cycle is not None:
            await self._cycle.flow.drain()

    async def write_soon(self, data: bytes) -> None:
        if not self._is_direct:
            await self._pass_on({"type": "http.response.body", "body": unchunked(data), "more_body": True})
            return
        await self.ready()
        if self._ended:
            raise ConnectionResetError("the client is gone")
        self._transport.write(data)

    async def send(self, event: Event) -> None:
        kind = event["type"]
        if kind == "websocket.close":
            await self._end(Closed(event.get("code", 1000), event.get("reason") or ""))
        elif kind != "websocket.accept":
            raise NotSupported(
                "websocket.send_…() to a client that reads a stream of events: it has no WebSocket. "
                "Send with `await connection.send(message)`"
            )

    async def _pass_on(self, event: Event) -> None:
        if self.closing:
            raise ConnectionResetError("the client is gone")
        try:
            await self._send(event)
        except Exception as error:
            self._gone = True
            raise ConnectionResetError(f"the server's send failed: {type(error).__name__}") from error

    @property
    def closing(self) -> bool:
        return self._gone or self._transport.is_closing() or (self._cycle is not None and self._cycle.disconnected)

    def _attend(self) -> bool:
        """Waits for the server to shut down, once the response has begun. Returns whether it did before."""
        cycle = self._cycle
        if self._attends or cycle is None or not cycle.response_started:
            return self._attends
        cycle.keep_alive = self._attends = True
        return False

    @property
    def restarting(self) -> bool | None:
        if self._cycle is None or self._answered:
            return None
        return self._attend() and not self._cycle.keep_alive

    @property
    def lingers(self) -> bool:
        return self.begun and self.buffered > 0

    def abort(self) -> None:
        if self._cycle is not None:
            super().abort()
        elif not self._gone:
            self._gone = True
            self._end_task()

    async def _end(self, closed: Closed) -> None:
        if self._answered:
            return
        self._answered = True
        if self.begun:
            if self._cycle is not None:
                self._cycle.keep_alive = False  # closes the connection behind the response
            last = self._opening.protocol.ending(closed, retry_ms(closed.code))
            await self._pass_on(_last(unchunked(last)))
        else:
            await self._refuse(closed)

    async def _refuse(self, closed: Closed) -> None:
        """Answers with a status. A client that gives up at any but 200 is told a temporary refusal as a stream."""
        status = status_of(closed)
        headers: list[tuple[bytes, bytes]] = []
        body = dumps({"detail": closed.reason or "try again later"})
        wait_ms = retry_ms(closed.code)
        if status in _TEMPORARY:
            if self._opening.waits_for_ok:
                await self._pass_on(self._start(200))
                await self._pass_on(_last(unchunked(self._opening.protocol.ending(closed, wait_ms))))
                return
            headers.append((b"retry-after", b"%d" % -(-wait_ms // 1000)))
        headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        headers += self._opening.headers
        await self._pass_on({"type": "http.response.start", "status": status, "headers": headers})
        await self._pass_on(_last(body))

    def _start(self, status: int) -> dict[str, Any]:
        headers = [
            (b"content-type", self._opening.protocol.media_type.encode()),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),  # nginx would collect the events
            *(((b"connection", b"close"),) if self._opening.is_http_1 else ()),
            *self._opening.headers,
        ]
        return {"type": "http.response.start", "status": status, "headers": headers}


def _last(body: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": False}


def stream_receive(receive: ServerReceive) -> ServerReceive:
    """Translates the ``receive`` of an HTTP request to that of a WebSocket whose client sends nothing."""
    is_connected = False

    async def received() -> Event:
        nonlocal is_connected
        if not is_connected:
            is_connected = True
            return {"type": "websocket.connect"}
        while (await receive())["type"] != "http.disconnect":
            pass  # the body of the request, which is empty
        return {"type": "websocket.disconnect", "code": 1006, "reason": ""}

    return received
