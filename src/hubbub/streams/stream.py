"""One stream of events: a connection whose client only reads.

Theory of operation. The request is presented to the rest of hubbub as a WebSocket (`hubbub.connections.transports.
stream`), so that limits, rooms, outboxes, drains and instructions apply as to any other connection. Until the client is
in all its rooms, nothing is sent, and everything that is written is held back. So whatever refuses the client answers
its request with a status.

A client of a stream can't be told that it is in a room no more, and can't ask for another one. So whatever ends its
right to a room ends the stream. The client comes back, and is asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from time import time
from typing import Final, Protocol
from weakref import WeakValueDictionary

from starlette.exceptions import HTTPException
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..brokers.base import Broker
from ..close import CloseCode, Closed
from ..connections.admission import Admission
from ..connections.connection import Connection, session_of
from ..connections.http_request import HttpRequest, HttpSocket, serve_request
from ..connections.session import Session
from ..connections.socket import Manager as SocketsManager
from ..connections.socket import Socket
from ..connections.transports import Detour, Detours
from ..connections.transports.stream import Opening, StreamTransport, jittered, retry_ms, stream_receive
from ..errors import BrokerUnavailable, shown
from ..lifecycle import Lifecycle
from ..names import USER_LABEL, RoomName, UserId, label, user_room
from ..options import RoomOptions
from ..origin import OriginPolicy
from ..positions import Position
from ..presence import Info
from ..protocols.event_stream import (
    COMMENT,
    Asked,
    EventStreamProtocol,
    OneRoom,
    Place,
    Presented,
    SeveralRooms,
    opening,
    place,
    reset,
)
from ..rooms.attempts import Attempt
from ..rooms.memberships import Memberships
from ..rooms.refusals import JoinRefused
from ..tasks import together
from .request import StreamRequest

COMMENT_S: Final = 15.0
"""Seconds between two comments, which keep proxies from cutting the stream."""

_REMOVED: Final = Closed(CloseCode.KICKED.code, "no longer allowed in a room of this stream")
_LOST_PLACE: Final = Closed(CloseCode.BROKER_UNAVAILABLE.code, "messages are missing")


class Engine(SocketsManager, Protocol):
    """The part of a manager's engine that a stream uses."""

    broker: Broker
    memberships: Memberships
    admission: Admission
    origins: OriginPolicy
    lifecycle: Lifecycle
    detours: Detours
    one_room_streams: WeakValueDictionary[Asked, OneRoom]

    def options_of(self, channel: str) -> RoomOptions:
        """Returns the options of a room."""

    async def connect(
        self,
        websocket: WebSocket,
        user_id: UserId | None,
        *,
        room: RoomName | None,
        rooms: Iterable[RoomName],
        info: Info,
        subprotocol: str | None,
        headers: Iterable[tuple[bytes, bytes]] | None,
        expires_at: datetime | float | None,
        since: Mapping[str, Position],
    ) -> Connection:
        """Connects a WebSocket, as `ConnectionManager.connect` does, and recovers from its positions."""


class Stream:
    """One stream, from its request to its end.

    Args:
        engine: The engine of the manager.
        rooms: The rooms that the client named.
        presented: The place that the client presented.

    Attributes:
        websocket: The request as a WebSocket, for functions of the app.
        socket: The socket.
        transport: The transport of the socket.
        connection: The connection. Exists once `connect` has returned.
    """

    connection: Connection
    websocket: WebSocket
    socket: Socket
    transport: StreamTransport

    def __init__(self, engine: Engine, rooms: Sequence[Asked], presented: Presented) -> None:
        self._engine = engine
        self._rooms = rooms
        self._presented = presented
        self._since = dict(zip([room.label for room in rooms], presented.positions, strict=True))
        self._session: Session | None = None
        self._ends_at: float | None = None
        self._comment_at = 0.0
        self.protocol: EventStreamProtocol = self._protocol()

    def _protocol(self) -> EventStreamProtocol:
        """The protocol. Streams of one room share theirs, and so their frames."""
        rooms = self._rooms
        if len(rooms) != 1:
            return SeveralRooms(rooms, self._presented.positions, self._place_of)
        shared = self._engine.one_room_streams
        protocol = shared.get(rooms[0])
        if protocol is None:
            protocol = shared[rooms[0]] = OneRoom(rooms[0])
        return protocol

    # Joining

    async def connect(
        self, user_id: UserId | None, *, info: Info = None, expires_at: datetime | float | None = None
    ) -> None:
        """Connects the client to the manager. It is then in its own room, and in everyone's.

        Raises:
            WebSocketDisconnect: The client was refused, or is gone.
        """
        self.socket.writer.cork()  # until all is ready to be sent
        since = {name: position for name, position in self._since.items() if name[0] == "$" and position is not None}
        self.connection = await self._engine.connect(
            self.websocket,
            user_id,
            room=None,
            rooms=(),
            info=info,
            subprotocol=None,
            headers=None,
            expires_at=expires_at,
            since=since,
        )
        session = self._session = session_of(self.connection)
        session.listener = self
        if USER_LABEL in self._since and session.user_id is None:
            raise HTTPException(403, f"{USER_LABEL} is the room of a user, and there is none")
        if isinstance(self.protocol, SeveralRooms):
            for name in self._since:
                joined = None if name[0] != "$" else session.memberships[self._channel(name)].joined
                if joined is not None and not joined.recovered:
                    self.protocol.begin(name, joined.position)

    async def join(self, infos: Mapping[str, Info], attempt: Attempt, *, ends_at: float | None = None) -> None:
        """Joins the client to rooms that it named.

        Args:
            infos: The rooms, and the app's data about the connection in each.
            attempt: The attempt to join, which began before the app was asked.
            ends_at: When the permission for one of the rooms ends, in seconds since the epoch; None for never.

        Raises:
            WebSocketDisconnect: A room refused the client, or the client is gone.
            HTTPException: The right to a room was taken back meanwhile.
        """
        engine, session = self._engine, self.session
        self._ends_at = ends_at
        await engine.admission.make_room(session, engine.memberships.full(session, infos))
        try:
            await together(
                [
                    _done(engine.memberships.join(session, name, self._since[name], attempt, room_info=info))
                    for name, info in infos.items()
                ]
            )
        except JoinRefused as refusal:
            await engine.admission.refuse(self.socket, refusal.cause)
        except BrokerUnavailable:
            await engine.admission.refuse(self.socket, CloseCode.BROKER_UNAVAILABLE)
        for name in infos:
            if name not in session.memberships and session.is_open:
                raise HTTPException(403, f"no longer allowed in the room {shown(name)}")

    @property
    def session(self) -> Session:
        """The connection, as rooms know it."""
        assert self._session is not None, "not connected yet"
        return self._session

    def _channel(self, name: str) -> str:
        """Returns the channel of a room that the client named."""
        if name == USER_LABEL and self._session is not None and self._session.user_id is not None:
            return user_room(self._session.user_id)
        return name

    async def run(self, *first: bytes) -> None:
        """Begins the response, and waits until the client is gone.

        Args:
            first: Events for the client, ahead of the messages of the rooms.
        """
        if self.socket.closed is not None:
            raise WebSocketDisconnect(*self.socket.closed)
        try:
            detour = await self.transport.begin()
        except OSError:
            self.socket.on_lost()
        else:
            if detour is not None:
                self.socket.detour = Detour(detour)
                self._engine.detours.log(self.socket.detour)
        self._comment_at = asyncio.get_running_loop().time() + jittered(COMMENT_S)
        self.socket.writer.uncork(b"".join((self._beginning(), *first)))
        self.socket.listener = self
        try:
            while (await self.socket.receive())["type"] != "websocket.disconnect":
                pass
        finally:
            self.socket.listener = None

    def _beginning(self) -> bytes:
        """Returns the first frames: the place at which the client begins, and the rooms in which it lost messages."""
        places: list[Position | None] = []
        lost: list[bytes] = []
        for name, since in self._since.items():
            membership = self.session.memberships.get(self._channel(name))
            joined = None if membership is None else membership.joined
            if joined is None:
                places.append(since)
                continue
            has_lost = not joined.recovered and (since is not None or not self._presented.is_valid)
            if has_lost and (joined.position is not None or since is not None):
                lost.append(reset(name))
            places.append(since if joined.recovered else joined.position)
        return b"".join((opening(retry_ms(), self.protocol.beginning(places)), *lost))

    def _place_of(self, name: str) -> Place:
        """Returns the client's place in a room that it named."""
        session, since = self._session, self._since[name]
        if session is None:
            return Place(is_live=False, position=since)
        channel = self._channel(name)
        room, membership = self._engine.memberships.rooms.get(channel), session.memberships.get(channel)
        catch_up = None if room is None else room.catching_up.get(session.id)
        if catch_up is not None and catch_up.answered:
            return Place(is_live=False, position=catch_up.cursor)
        is_live = catch_up is None and membership is not None and membership.joined is not None
        return Place(is_live, since)

    # From the sweeper, once a second

    def check(self, now: float) -> None:
        """Sends comments, and ends a stream that has no right to a room any more, or whose server is shutting down.

        Args:
            now: The loop's time.
        """
        if self.transport.restarting:
            self.socket.close_soon(CloseCode.SERVICE_RESTART)
        elif self._ends_at is not None and time() >= self._ends_at:
            self.socket.close_soon(_REMOVED)
        elif now >= self._comment_at:
            self._comment_at = now + COMMENT_S
            if not self.socket.writer.queued_bytes:
                self.socket.writer.write(COMMENT)

    # From the rooms

    def presents(self, channel: str) -> Position | None:
        """Nothing: positions of rooms that the client named are given to the join."""

    def joined(self, channel: str, position: Position | None) -> None:
        """Records where the client begins in a room that it named."""
        self.protocol.moved(channel, position)

    def left(self, channel: str) -> None:
        """Ends the stream, since the client is not in a room any more that it named."""
        if channel in self._since:
            self.socket.close_soon(_REMOVED)

    def authorized_until(self, ends_at: float | None) -> bool:
        """Lets the socket end then, since the client can't replace its token."""
        return False

    def lost_place(self, channel: str) -> None:
        """Tells the client that messages of a room are lost."""
        room = self._engine.memberships.rooms.get(channel)
        if room is None:
            return
        if self.session.id in room.catching_up:  # it comes back, and is told then
            self.socket.close_soon(_LOST_PLACE)
            return
        self.session.flush()
        self.socket.writer.write(reset(room.label, self.protocol.moved(room.label, room.head)))

    def renumbered(self, channel: str, position: Position) -> bytes | None:
        """Returns what tells the client its place in the new epoch of a room."""
        return place(self.protocol.moved(label(channel), position)) or None

    def ended(self) -> None:
        """Nothing: the end of the socket ends the stream."""


async def _done(join: Awaitable[object]) -> None:
    await join


async def respond(
    engine: Engine,
    http: HttpRequest,
    request: StreamRequest,
    rooms: Sequence[Asked],
    handle: Callable[[Stream], Awaitable[None]],
) -> None:
    """Answers a request with a stream.

    Args:
        engine: The engine of the manager.
        http: The request, as it came.
        request: The request, as it was read.
        rooms: The rooms that it names.
        handle: Connects and joins the client, and runs the stream.

    Raises:
        Exception: The client is refused, and nothing was sent yet: the app answers the request.
    """
    stream = Stream(engine, rooms, request.presented)
    answer = Opening(stream.protocol, http.version, request.headers, request.waits_for_ok)

    async def run(served: HttpSocket) -> None:
        stream.socket, stream.transport, stream.websocket = served
        stream.socket.only_reads = True
        await handle(stream)

    await serve_request(engine, http, stream_receive(http.receive), answer, run)
