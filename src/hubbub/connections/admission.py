"""Admits sockets as connections, or refuses them.

`Admission.admit` is the only entry: it checks the origin, accepts the socket, checks the limits, and registers the
connection. A socket over a limit is accepted first and then closed, so that the browser can read the reason. Until it
is registered, a socket is an *arrival*: an instruction to disconnect its user reaches it as well, even if it was given
before the user was known.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final, NoReturn, Protocol

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from ..close import CloseCode, Closed
from ..envelope import Kick
from ..origin import OriginPolicy
from ..presence import Info
from .connection import Connection, session_of
from .connection import Manager as ConnectionsManager
from .kept_kicks import KeptKicks
from .probing import Prober
from .registry import Registry
from .session import Manager as SessionsManager
from .session import Session
from .socket import Manager as SocketsManager
from .socket import Socket
from .sweeper import Sweeper

logger: Final = logging.getLogger("hubbub")

_MAKES_ROOM: Final = {
    CloseCode.TOO_MANY_CONNECTIONS,
    CloseCode.TOO_MANY_USER_CONNECTIONS,
    CloseCode.TOO_MANY_ADDRESS_CONNECTIONS,
}


class Manager(SocketsManager, SessionsManager, ConnectionsManager, Protocol):
    """The part of a manager that admission uses."""

    origins: OriginPolicy


class Arrival:
    """A socket that is being admitted, but is not registered yet.

    Attributes:
        user: The id of its user.
        began_at: When its handshake or its authentication began, or the handler called `connect`, on the loop's clock.
        kick: The instruction to close it, if one arrived since then.
    """

    __slots__ = ("began_at", "kick", "user")

    def __init__(self, user: str | None, began_at: float, kick: Kick | None) -> None:
        self.user: str | None = user
        self.began_at: float = began_at
        self.kick: Kick | None = kick


class Admission:
    """Admits the sockets of one manager, and closes the connections of kicked users.

    Args:
        manager: The manager that the connections belong to. Its limits apply.
        registry: The registry for admitted connections.
        sweeper: The sweeper that checks the sockets.
    """

    def __init__(self, manager: Manager, registry: Registry[Connection], sweeper: Sweeper) -> None:
        self._manager = manager
        self._registry = registry
        self._sweeper = sweeper
        self._arrivals: set[Arrival] = set()
        self._prober = Prober()
        self._kept = KeptKicks()

    def begin_handshake(self, socket: Socket) -> None:
        """Keeps the instructions that are given while a client is in its handshake, until `end_handshake`.

        `admit` applies them: what the app found out about the user in the handshake may be older.
        """
        self._kept.begin_handshake(socket)

    def own_kick(self, user: str) -> AbstractContextManager[None]:
        """Spares the client whose handler disconnects its own user in the block, and connects it then."""
        return self._kept.own(user)

    def end_handshake(self, socket: Socket) -> None:
        """Ends what `begin_handshake` began, if `admit` did not. Idempotent."""
        self._kept.end(socket)

    @contextmanager
    def authenticating(self, socket: Socket) -> Iterator[None]:
        """Keeps the instructions that are given while the user of an accepted client is looked up.

        `admit`, in the block, applies them.
        """
        self._kept.begin(socket)
        try:
            yield
        finally:
            self._kept.end(socket)

    async def admit(
        self,
        socket: Socket,
        websocket: WebSocket,
        user: str | None,
        *,
        info: Info,
        rooms: int,
        subprotocol: str | None,
        headers: Iterable[tuple[bytes, bytes]] | None,
    ) -> Connection:
        """Accepts a socket, unless the handler already did, and registers its connection.

        Args:
            socket: The socket.
            websocket: Starlette's object for the same socket.
            user: The id of its user.
            info: Data about the user.
            rooms: The number of rooms that the connection is about to join.
            subprotocol: The subprotocol to answer with.
            headers: Extra headers for the accept response.

        Raises:
            WebSocketDisconnect: The socket was refused and closed, or the client is gone.
        """
        if len(socket.managers) > 1:  # with one manager, the middleware has already checked its origins
            await self._check_origin(socket, websocket)
        arrival = Arrival(user, *self._kept.missed(socket, user))
        self._arrivals.add(arrival)
        try:
            if websocket.application_state is WebSocketState.CONNECTING:
                await websocket.accept(subprotocol, headers)
            await self._check_limits(socket, user, rooms)
            return self._register(arrival, socket, websocket, info)
        finally:
            self._arrivals.discard(arrival)
            self._kept.end(socket)

    async def _check_origin(self, socket: Socket, websocket: WebSocket) -> None:
        """Refuses an origin that only another manager of the app allows.

        Answers 403 to a handshake, and closes a socket that is already accepted.
        """
        refusal = self._manager.origins.refusal(websocket.scope["headers"])
        if refusal is None:
            return
        cause = CloseCode.ORIGIN
        logger.warning("refused a WebSocket on %s: %s", socket.where, refusal)
        self._manager.counters.refused["origin"] += 1
        if websocket.client_state is WebSocketState.CONNECTING:
            await websocket.receive()
        if socket.accepted:
            await socket.close(cause.code, cause.reason)
        else:
            await socket.deny(cause)
        raise WebSocketDisconnect(cause.code, cause.reason)

    async def _check_limits(self, socket: Socket, user: str | None, rooms: int) -> None:
        """Refuses a connection over a limit, unless closing a dead connection of the same user makes room for it."""
        cause = self._refusal(socket, user, rooms)
        if user is not None and cause in _MAKES_ROOM:
            await self._prober.make_room(user, [session_of(each).socket for each in self._registry.of_user(user)])
            cause = self._refusal(socket, user, rooms)
        if cause is not None:
            await self.refuse(socket, cause)

    def _refusal(self, socket: Socket, user: str | None, rooms: int) -> CloseCode | None:
        limits, registry, network = self._manager.limits, self._registry, socket.network
        if self._manager.draining:
            return CloseCode.SERVICE_RESTART
        if _over(limits.max_connections, len(registry)):
            return CloseCode.TOO_MANY_CONNECTIONS
        if user is not None and _over(limits.max_connections_per_user, registry.count_of_user(user)):
            return CloseCode.TOO_MANY_USER_CONNECTIONS
        if network is not None and _over(limits.max_connections_per_address, registry.count_of_network(network)):
            return CloseCode.TOO_MANY_ADDRESS_CONNECTIONS
        if _over(limits.max_rooms_per_connection, rooms - 1):
            return CloseCode.TOO_MANY_ROOMS
        if socket.expired:
            return CloseCode.TOKEN_EXPIRED
        return None

    def _register(self, arrival: Arrival, socket: Socket, websocket: WebSocket, info: Info) -> Connection:
        if arrival.kick is not None:
            socket.close_soon(Closed(arrival.kick.code, arrival.kick.reason), grace=False)
        if socket.transport.closing:
            socket.on_lost()
        if socket.closed is not None:
            raise WebSocketDisconnect(*socket.closed)
        socket.adopt(self._manager)
        session = Session(self._manager, socket, arrival.user, info, arrival.began_at)
        connection = Connection(self._manager, session, websocket)
        socket.sessions.append(session)
        socket.was_connected = True
        self._registry.add(connection)
        self._sweeper.watch(socket)
        return connection

    async def refuse(self, socket: Socket, cause: CloseCode) -> NoReturn:
        """Closes a socket over a limit. Counts and logs the refusal.

        Raises:
            WebSocketDisconnect: Always, so that the handler ends.
        """
        self._manager.counters.refused[cause.name.lower()] += 1
        logger.info("refused a connection on %s: %s", socket.where, cause.reason)
        await socket.close(cause.code, cause.reason)
        raise WebSocketDisconnect(cause.code, cause.reason)

    async def make_room(self, session: Session, rooms: Collection[str]) -> None:
        """Frees places in full rooms by closing dead connections of the same user.

        Args:
            session: The session that wants to join.
            rooms: The names of the full rooms.
        """
        user = session.user_id
        if user is not None and rooms:
            others = [session_of(each) for each in self._registry.of_user(user)]
            others = [each for each in others if each.socket is not session.socket]
            await self._prober.make_room(
                user, [each.socket for each in others if not each.memberships.keys().isdisjoint(rooms)]
            )

    def knows(self, user: str) -> bool:
        """Whether a user has a connection here, or an arrival."""
        return self._registry.count_of_user(user) > 0 or any(each.user == user for each in self._arrivals)

    def kick(self, user: str | None, kick: Kick) -> None:
        """Closes the connections that a user had here when the instruction was given.

        Searches the registry and not the rooms, because a connection that is still joining is in no room.

        Args:
            user: The id of the user; None for all users.
            kick: The instruction, with the close code and the reason.
        """
        given_at = asyncio.get_running_loop().time() - kick.age_s
        if not kick.only:  # a connection that has no id yet can't be meant
            self._kept.keep(user, kick, given_at)
            for arrival in self._arrivals:
                if user in (None, arrival.user) and arrival.began_at <= given_at:
                    arrival.kick = kick
        for connection in tuple(self._registry) if user is None else self._registry.of_user(user):
            session = session_of(connection)
            if session.began_at <= given_at and kick.only in ("", session.id) and session.id not in kick.spared:
                # With None, all clients are only asked to reconnect, so their users stay present.
                session.socket.close_soon(Closed(kick.code, kick.reason), grace=user is None)


def _over(limit: int | None, count: int) -> bool:
    return limit is not None and count >= limit
