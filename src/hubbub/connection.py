"""One socket's life: from accept to gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from .arguments import close_code, close_reason
from .codec import Kind, Message, Payload, dumps, encode, loads_from_client
from .errors import InvalidArgument, shown
from .guard import Complaint
from .names import RoomName, RoomNames
from .nowait import or_nowait
from .positions import Joined, Position
from .presence import Info
from .read_only import read_only
from .session import Session


class Manager(Protocol):
    """What a connection needs of its manager."""

    async def join(self, session: Session, room: RoomName, since: object) -> Joined: ...
    async def leave(self, session: Session, room: RoomName) -> None: ...


class Connection:
    """A client, for as long as its socket is open. `ConnectionManager.connect` makes it.

    All ``send*`` methods give True once the message is written or queued, and False when the peer is gone or the
    message was dropped. They never wait for a slow client (a burst pauses for moments: `hubbub.pace`) and never raise
    for a closed socket.

    The attributes are read-only. An app's own data goes to ``connection.websocket.state``.
    """

    __slots__ = ("__weakref__", "_manager", "_session", "_websocket")

    def __init__(self, manager: Manager, session: Session, websocket: WebSocket) -> None:
        self._manager = manager
        self._session = session
        self._websocket = websocket

    def __eq__(self, other: object) -> bool:
        """A connection is also equal to its own WebSocket, which is what hand-written loops compare it with."""
        return other is self or (isinstance(other, WebSocket) and other is self._websocket)

    def __hash__(self) -> int:
        return hash(self._websocket)

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed"
        return f"<Connection {self.id} user_id={self.user_id!r} {state}>"

    @property
    def id(self) -> str:
        """A random name of this connection, for logs and ``exclude``: 22 characters."""
        return self._session.id

    @property
    def user_id(self) -> str | None:
        """The user that the connection belongs to, as a str; None where it belongs to nobody."""
        return self._session.user_id

    @property
    def info(self) -> Info:
        """The ``info`` given to `connect`, after a round trip through JSON: a datetime is a str, a tuple a list."""
        return self._session.info

    @property
    def websocket(self) -> WebSocket:
        """Starlette's object for the same socket."""
        return self._websocket

    @property
    def rooms(self) -> frozenset[str]:
        """The rooms it is in, by name."""
        return RoomNames(name for name in self._session.memberships if name[0] != "$")

    @property
    def joined(self) -> dict[str, Joined]:
        """What each join gave, by room."""
        return {name: each.joined for name, each in self._session.memberships.items() if each.joined is not None}

    @property
    def address(self) -> str | None:
        """The client's address, as the server has it."""
        return self._session.wire.address

    @property
    def network(self) -> str | None:
        """The network of the address, which counts for ``max_connections_per_address``: a /64 for IPv6."""
        return self._session.wire.network

    @property
    def is_open(self) -> bool:
        """Whether it is registered: from accept until its socket is gone, closed, or given to `disconnect`."""
        return self._session.is_open

    if not TYPE_CHECKING:
        id = read_only(id, "hubbub gives it")
        user_id = read_only(user_id, "`connect` sets it; close the connection, and connect as the other user")
        info = read_only(info, "`connect` sets it")
        websocket = read_only(websocket, "`connect` sets it")
        rooms = read_only(rooms, "use `await connection.join(room)` and `leave(room)`")
        joined = read_only(joined, "use `await connection.join(room)` and `leave(room)`")
        address = read_only(address, "the server sets it")
        network = read_only(network, "it follows from the address")
        is_open = read_only(is_open, "use `await connection.close()`")

    async def wait_gone(self) -> None:
        """Waits until it is no longer registered: for handlers that push and do not receive."""
        session = self._session
        if session.is_open:
            if session.gone is None:
                session.gone = asyncio.Event()
            await session.gone.wait()

    # Receiving

    async def receive_text(self) -> str:
        """Receives a text message. A binary one is answered with an error frame, and skipped.

        Raises:
            WebSocketDisconnect: The client is gone.
        """
        while True:
            event = await self._receive()
            text: str | None = event.get("text")
            if text is not None:
                return text
            self._session.wire.complain(Complaint("text_expected", "a binary frame where text is expected"))

    async def receive_bytes(self) -> bytes:
        """Receives a binary message. A text one is answered with an error frame, and skipped.

        Raises:
            WebSocketDisconnect: The client is gone.
        """
        while True:
            event = await self._receive()
            data: bytes | None = event.get("bytes")
            if data is not None:
                return data
            self._session.wire.complain(Complaint("binary_expected", "a text frame where binary is expected"))

    async def receive_json(self, mode: str = "text") -> Any:
        """Receives a message of JSON. What is not JSON is answered with an error frame, and skipped.

        The value can be sent on. Integers of any size are exact. Half of an emoji, which a page has cut apart, is
        U+FFFD. JSON that is nested over 200 levels is answered and skipped too.

        Args:
            mode: ``"text"`` or ``"binary"``: which frames carry the JSON.

        Raises:
            WebSocketDisconnect: The client is gone.
        """
        if mode not in {"text", "binary"}:
            raise InvalidArgument("mode", f"got {shown(mode)}", "'text' or 'binary'")
        while True:
            data = await (self.receive_text() if mode == "text" else self.receive_bytes())
            try:
                return loads_from_client(data)
            except ValueError as error:
                self._session.wire.complain(Complaint("invalid_json", str(error)))

    async def receive(self) -> str | bytes:
        """Receives a message as it came.

        Raises:
            WebSocketDisconnect: The client is gone.
        """
        event = await self._receive()
        text: str | None = event.get("text")
        if text is not None:
            return text
        data: bytes = event.get("bytes") or b""
        return data

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        receive = self._session.wire.receive
        while not self._session.wire.handler.informed:
            event = await receive()
            if event["type"] == "websocket.disconnect":
                break
            text = event.get("text")
            yield text if text is not None else event.get("bytes") or b""
        self.websocket.client_state = WebSocketState.DISCONNECTED

    async def iter_text(self) -> AsyncIterator[str]:
        """Iterates over text messages until the client is gone."""
        try:
            while True:
                yield await self.receive_text()
        except WebSocketDisconnect:
            return

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        """Iterates over binary messages until the client is gone."""
        try:
            while True:
                yield await self.receive_bytes()
        except WebSocketDisconnect:
            return

    async def iter_json(self, mode: str = "text") -> AsyncIterator[Any]:
        """Iterates over messages of JSON until the client is gone."""
        try:
            while True:
                yield await self.receive_json(mode)
        except WebSocketDisconnect:
            return

    async def _receive(self) -> Mapping[str, Any]:
        if self._session.wire.handler.informed:
            self._disconnected()
        event = await self._session.wire.receive()
        if event["type"] == "websocket.disconnect":
            self.websocket.client_state = WebSocketState.DISCONNECTED
            self._disconnected()
        return event

    def _disconnected(self) -> NoReturn:
        raise WebSocketDisconnect(*(self._session.wire.closed or (1006, "")))

    # Sending

    @or_nowait("send_nowait")
    async def send(self, message: Message) -> bool:
        """Sends a message: str as text, bytes as binary, anything else as JSON.

        *Order*: on ``memory://`` after what was published before to the rooms it is in; through Redis there is none.

        Raises:
            InvalidArgument: The message can't be encoded.
        """
        return await self._session.send(encode(message))

    def send_nowait(self, message: Message) -> bool:
        """`send`, for code that does not await."""
        return self._session.write(encode(message))

    @or_nowait("send_nowait")
    async def send_text(self, data: str) -> bool:
        """Sends a text message."""
        if not isinstance(data, str):
            raise InvalidArgument("data", f"got {shown(data)}", "str")
        return await self._session.send(encode(data))

    @or_nowait("send_nowait")
    async def send_bytes(self, data: bytes) -> bool:
        """Sends a binary message."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise InvalidArgument("data", f"got {shown(data)}", "bytes")
        return await self._session.send(encode(data))

    @or_nowait("send_nowait")
    async def send_json(self, data: Any, mode: str = "text") -> bool:
        """Sends a value as JSON; a str too, which `send` would send as it is."""
        if mode not in {"text", "binary"}:
            raise InvalidArgument("mode", f"got {shown(mode)}", "'text' or 'binary'")
        return await self._session.send(Payload(Kind.JSON if mode == "text" else Kind.BINARY, dumps(data)))

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        """Closes with a Close frame, behind what is queued. Idempotent, and does nothing when the peer is gone.

        Args:
            code: A close code of RFC 6455, or one from 3000 to 4999.
            reason: At most 123 bytes.

        Raises:
            InvalidArgument: A Close frame can't carry the code or the reason.
        """
        await self._session.wire.close(close_code(code), close_reason(reason))

    # Rooms

    async def join(self, room: RoomName, since: Position | Mapping[str, Position] | None = None) -> Joined:
        """Joins a room. Idempotent: a second join gives what the first gave.

        *Delivery*: what is published after this. With ``since``, and where the room's history reaches back, first
        exactly what was published after that position.

        Args:
            room: The room's name.
            since: The position that the client presents, or a mapping of room to `Position`.

        Raises:
            InvalidArgument: The name or the position is not acceptable.
            WebSocketDisconnect: The room is full, or there are too many; the connection is closed (1008).
        """
        return await self._manager.join(self._session, room, since)

    async def leave(self, room: RoomName) -> None:
        """Leaves a room: nothing more comes from it, and its presence there ends without grace. Idempotent."""
        await self._manager.leave(self._session, room)


def session_of(connection: Connection) -> Session:
    """The machine's side of a connection."""
    return connection._session
