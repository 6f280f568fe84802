"""The public `Connection`: sends to, receives from, and describes one client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from ..arguments import close_code, close_reason
from ..codec import Kind, Message, Payload, dumps, encode, loads_from_client
from ..errors import InvalidArgument, NotSupported, shown
from ..names import RoomName, RoomNames, room_name
from ..nowait import or_nowait
from ..presence import Info
from ..read_only import read_only
from .inbound_limits import Complaint
from .session import Session


class Manager(Protocol):
    """The part of a manager that a connection uses."""

    async def join(self, session: Session, room: RoomName) -> None: ...
    async def leave(self, session: Session, room: RoomName) -> None: ...


class Connection:
    """A connected client. `ConnectionManager.connect` returns it.

        async with manager.connect(websocket, user.id, room="lobby") as connection:
            async for text in connection.iter_text():
                await connection.send({"you": "said", "text": text})

    The methods that send return True if the message was written or queued, and False if the client is gone or the
    message was dropped. They never wait for a slow client, apart from pauses of milliseconds in a burst. They never
    raise an error for a closed socket.

    The attributes are read-only. Use ``connection.websocket.state`` for the app's own data.
    """

    __slots__ = ("__weakref__", "_manager", "_session", "_websocket")

    def __init__(self, manager: Manager, session: Session, websocket: WebSocket) -> None:
        self._manager = manager
        self._session = session
        self._websocket = websocket

    def __eq__(self, other: object) -> bool:
        """Compares by identity. A connection also equals its own WebSocket, for loops written for plain WebSockets."""
        return other is self or (isinstance(other, WebSocket) and other is self._websocket)

    def __hash__(self) -> int:
        return hash(self._websocket)

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed"
        return f"<Connection {self.id} user_id={self.user_id!r} {state}>"

    @property
    def id(self) -> str:
        """The random id of this connection, for logs and for ``exclude``: 22 characters."""
        return self._session.id

    @property
    def user_id(self) -> str | None:
        """The id of the user that the connection belongs to, as a str; None if it belongs to no user."""
        return self._session.user_id

    @property
    def info(self) -> Info:
        """The ``info`` that was given to `ConnectionManager.connect`.

        Its values have been converted to JSON and back: a datetime is a str, and a tuple is a list.
        """
        return self._session.info

    @property
    def websocket(self) -> WebSocket:
        """Starlette's object for the same socket."""
        return self._websocket

    @property
    def rooms(self) -> frozenset[str]:
        """The names of the rooms that the connection is in."""
        return RoomNames(name for name in self._session.memberships if name[0] != "$")

    def is_subscribed(self, room: RoomName) -> bool:
        """Returns whether the connection is in a room: it joined the room, or its client subscribed to it.

        Args:
            room: The name of the room.

        Raises:
            InvalidName: The name is not acceptable.
        """
        return room_name(room) in self._session.memberships

    @property
    def address(self) -> str | None:
        """The address of the client, as the server reports it; None if the server reports none."""
        return self._session.socket.address

    @property
    def network(self) -> str | None:
        """The network of the client's address: the address itself for IPv4, and its /64 for IPv6.

        `Limits.max_connections_per_address` counts connections per network.
        """
        return self._session.socket.network

    @property
    def is_open(self) -> bool:
        """Whether the connection is registered.

        True from `ConnectionManager.connect` until the client is gone, the socket is closed, or the app calls
        `ConnectionManager.disconnect`.
        """
        return self._session.is_open

    if not TYPE_CHECKING:
        id = read_only(id, "hubbub sets it")
        user_id = read_only(user_id, "`connect` sets it; close the connection, and connect as the other user")
        info = read_only(info, "`connect` sets it")
        websocket = read_only(websocket, "`connect` sets it")
        rooms = read_only(rooms, "use `await connection.join(room)` and `leave(room)`")
        address = read_only(address, "the server sets it")
        network = read_only(network, "it is derived from the address")
        is_open = read_only(is_open, "use `await connection.close()`")

    async def wait_gone(self) -> None:
        """Waits until the connection is no longer registered, for handlers that send and do not receive.

            async with manager.connect(websocket, user.id) as connection:
                await connection.send(await load_state(user))
                await connection.wait_gone()

        Returns immediately if the connection is already gone.
        """
        session = self._session
        if session.is_open:
            if session.gone is None:
                session.gone = asyncio.Event()
            await session.gone.wait()

    # Receiving

    async def receive_text(self) -> str:
        """Receives a text message. A binary message is answered with an ``error`` frame and skipped.

        Raises:
            WebSocketDisconnect: The client is gone.
        """
        while True:
            event = await self._receive()
            text: str | None = event.get("text")
            if text is not None:
                return text
            self._session.socket.complain(Complaint("text_expected", "a binary frame where text is expected"))

    async def receive_bytes(self) -> bytes:
        """Receives a binary message. A text message is answered with an ``error`` frame and skipped.

        Raises:
            WebSocketDisconnect: The client is gone.
        """
        while True:
            event = await self._receive()
            data: bytes | None = event.get("bytes")
            if data is not None:
                return data
            self._session.socket.complain(Complaint("binary_expected", "a text frame where binary is expected"))

    async def receive_json(self, mode: str = "text") -> Any:
        """Receives a JSON message, and returns its value.

        A message that is not JSON is answered with an ``error`` frame and skipped.

        Integers of any size are exact. A lone surrogate, such as half of an emoji that a page has cut, becomes U+FFFD,
        so the value can always be sent again. JSON that is nested deeper than 200 levels is also answered and skipped.

        Args:
            mode: ``"text"`` or ``"binary"``: the kind of frame that carries the JSON.

        Raises:
            WebSocketDisconnect: The client is gone.
            InvalidArgument: The mode is not acceptable.
        """
        if mode not in {"text", "binary"}:
            raise InvalidArgument("mode", f"got {shown(mode)}", "'text' or 'binary'")
        while True:
            data = await (self.receive_text() if mode == "text" else self.receive_bytes())
            try:
                return loads_from_client(data)
            except ValueError as error:
                self._session.socket.complain(Complaint("invalid_json", str(error)))

    async def receive(self) -> str | bytes:
        """Receives a message as it came: a str for a text frame, bytes for a binary frame.

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
        receive = self._session.socket.receive
        if self._session.socket.listener is not None:  # that of an endpoint
            refuse_to_receive()
        while not self._session.socket.handler.informed:
            event = await receive()
            if event["type"] == "websocket.disconnect":
                break
            text = event.get("text")
            yield text if text is not None else event.get("bytes") or b""
        self.websocket.client_state = WebSocketState.DISCONNECTED

    async def iter_text(self) -> AsyncIterator[str]:
        """Iterates over text messages until the client is gone.

        A binary message is answered with an ``error`` frame and skipped.
        """
        try:
            while True:
                yield await self.receive_text()
        except WebSocketDisconnect:
            return

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        """Iterates over binary messages until the client is gone.

        A text message is answered with an ``error`` frame and skipped.
        """
        try:
            while True:
                yield await self.receive_bytes()
        except WebSocketDisconnect:
            return

    async def iter_json(self, mode: str = "text") -> AsyncIterator[Any]:
        """Iterates over the values of JSON messages until the client is gone.

        A message that is not JSON is answered with an ``error`` frame and skipped.

        Args:
            mode: ``"text"`` or ``"binary"``: the kind of frame that carries the JSON.

        Raises:
            InvalidArgument: The mode is not acceptable.
        """
        try:
            while True:
                yield await self.receive_json(mode)
        except WebSocketDisconnect:
            return

    async def _receive(self) -> Mapping[str, Any]:
        if self._session.socket.listener is not None:  # that of an endpoint
            refuse_to_receive()
        if self._session.socket.handler.informed:
            self._disconnected()
        event = await self._session.socket.receive()
        if event["type"] == "websocket.disconnect":
            self.websocket.client_state = WebSocketState.DISCONNECTED
            self._disconnected()
        return event

    def _disconnected(self) -> NoReturn:
        raise WebSocketDisconnect(*(self._session.socket.closed or (1006, "")))

    # Sending

    @or_nowait("send_nowait")
    async def send(self, message: Message) -> bool:
        """Sends a message to this client: str as text, bytes as binary, anything else as JSON.

        *Order*: with ``memory://``, the message arrives after all messages published earlier to the connection's
        rooms. With Redis, the order between sent and published messages is not defined.

        Args:
            message: str, bytes, or anything that can be written as JSON.

        Returns:
            False if the client is gone or the message was dropped.

        Raises:
            InvalidArgument: The message can't be encoded.
        """
        return await self._session.send(encode(message))

    def send_nowait(self, message: Message) -> bool:
        """Sends a message to this client from a plain function that runs on the event loop: `send` without ``await``.

        Args:
            message: str, bytes, or anything that can be written as JSON.

        Returns:
            False if the client is gone or the message was dropped.

        Raises:
            InvalidArgument: The message can't be encoded.
        """
        return self._session.write(encode(message))

    @or_nowait("send_nowait")
    async def send_text(self, data: str) -> bool:
        """Sends a text message to this client.

        Args:
            data: The text.

        Returns:
            False if the client is gone or the message was dropped.

        Raises:
            InvalidArgument: ``data`` is not a str.
        """
        if not isinstance(data, str):
            raise InvalidArgument("data", f"got {shown(data)}", "str")
        return await self._session.send(encode(data))

    @or_nowait("send_nowait")
    async def send_bytes(self, data: bytes) -> bool:
        """Sends a binary message to this client.

        Args:
            data: The bytes.

        Returns:
            False if the client is gone or the message was dropped.

        Raises:
            InvalidArgument: ``data`` is not bytes.
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise InvalidArgument("data", f"got {shown(data)}", "bytes")
        return await self._session.send(encode(data))

    @or_nowait("send_nowait")
    async def send_json(self, data: Any, mode: str = "text") -> bool:
        """Sends a value as JSON to this client. A str becomes a JSON string; `send` would send it as it is.

        Args:
            data: Anything that can be written as JSON.
            mode: ``"text"`` or ``"binary"``: the kind of frame that carries the JSON.

        Returns:
            False if the client is gone or the message was dropped.

        Raises:
            InvalidArgument: The value can't be written as JSON, or the mode is not acceptable.
        """
        if mode not in {"text", "binary"}:
            raise InvalidArgument("mode", f"got {shown(mode)}", "'text' or 'binary'")
        return await self._session.send(Payload(Kind.JSON if mode == "text" else Kind.BINARY, dumps(data)))

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        """Closes the connection with a Close frame, after the messages that are queued.

        Idempotent, and does nothing if the client is gone.

        Args:
            code: A close code of RFC 6455, or one from 3000 to 4999.
            reason: A text for the client, at most 123 bytes.

        Raises:
            InvalidArgument: A Close frame can't carry the code or the reason.
        """
        await self._session.socket.close(close_code(code), close_reason(reason))

    # Rooms

    async def join(self, room: RoomName) -> None:
        """Adds the connection to a room. Idempotent.

        The client of an endpoint is told that the server subscribed it to the room, before it receives any message from
        there. If `ConnectionManager.unsubscribe` takes the room from the user during the call, the connection is not in
        the room afterwards, as if that had come next.

        *Delivery*: the client receives every message that is published after the call. In a room with
        `RoomOptions.replay`, it first receives the newest messages, without a gap or a duplicate.

        Args:
            room: The name of the room.

        Raises:
            InvalidArgument: The name is not acceptable.
            WebSocketDisconnect: The client is gone, the room is full, or the connection is in too many rooms. In the
                last two cases the connection is closed (1008).
        """
        await self._manager.join(self._session, room)

    async def leave(self, room: RoomName) -> None:
        """Removes the connection from a room. Idempotent.

        The client receives no more messages from the room. The user's presence there ends without a grace period. The
        client of an endpoint is told (2000), even if it subscribed itself. A subscription that is being authorized is
        refused.

        Args:
            room: The name of the room.

        Raises:
            InvalidArgument: The name is not acceptable.
        """
        await self._manager.leave(self._session, room)


def refuse_to_receive() -> NoReturn:
    """Raises the error of a function of an endpoint that receives, and so would take the client's next command.

    Raises:
        NotSupported: Always.
    """
    raise NotSupported(
        "the endpoint itself receives from its clients: a message is the parameter of a function under @live.on, such "
        "as `message: Say`; a further message, and the answer to a question that you send, are calls of such functions"
    )


def session_of(connection: Connection) -> Session:
    """Returns the internal side of a connection."""
    return connection._session
