"""Who is let in, and who is gone: the registry with its limits and its housekeeping."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Final, NoReturn, Protocol

from starlette.websockets import WebSocket, WebSocketDisconnect

from .arguments import EXCLUDABLE, connection_id
from .close import CloseCode, Closed
from .connection import Connection, session_of
from .connection import Manager as ConnectionsManager
from .envelope import Kick
from .errors import InvalidArgument, shown
from .names import UserId
from .presence import Info
from .probing import Prober
from .registry import Registry
from .session import Manager as SessionsManager
from .session import Session
from .timers import Timers
from .transports import Transport
from .wire import Manager as SocketsManager
from .wire import Wire

logger = logging.getLogger("hubbub")

_SWEEP_S = 1.0
_PARTS = 31  # so that a look at very many connections does not keep the loop; a prime, since hashes are addresses


Exclude = Connection | WebSocket | str | Iterable[Connection | WebSocket | str] | None
"""Whom a broadcast leaves out: connections, WebSockets or connection ids, one or several."""

ExcludeUsers = UserId | Iterable[UserId] | None
"""The users whom a broadcast leaves out: ids, one or several."""

NOBODY: Final[frozenset[str]] = frozenset()

_MAKES_ROOM: Final = {
    CloseCode.TOO_MANY_CONNECTIONS,
    CloseCode.TOO_MANY_USER_CONNECTIONS,
    CloseCode.TOO_MANY_ADDRESS_CONNECTIONS,
}


class Arrival:
    """A user whose socket is being accepted, and is not a connection yet.

    Attributes:
        user: Whose it is.
        began_at: When it came to the manager, on the loop's clock.
        kick: The instruction to close it, where one came meanwhile.
    """

    __slots__ = ("began_at", "kick", "user")

    def __init__(self, user: str | None) -> None:
        self.user = user
        self.began_at = asyncio.get_running_loop().time()
        self.kick: Kick | None = None


class Manager(SocketsManager, SessionsManager, ConnectionsManager, Protocol):
    """What the registrar needs of its manager."""

    @property
    def running(self) -> bool:
        """Whether it is between start and stop."""


class Registrar:
    """The connections of one manager, and the sockets below them until their handlers end."""

    def __init__(self, manager: Manager, timers: Timers) -> None:
        self.registry: Registry[Connection] = Registry()
        self._wires: tuple[dict[Wire, None], ...] = tuple({} for _ in range(_PARTS))
        self._turn = 0
        self._arrivals: set[Arrival] = set()
        self._draining: dict[Transport, float] = {}
        self._prober = Prober()
        self._manager = manager
        self._timers = timers

    @property
    def wires(self) -> Iterator[Wire]:
        """The sockets from accept to the end of their handler: this manager's, and those that none has connected."""
        watched = chain.from_iterable(tuple(part) for part in self._wires)
        return (wire for wire in watched if wire.accepted)

    def _part_of(self, wire: Wire) -> dict[Wire, None]:
        return self._wires[hash(wire) % _PARTS]

    def watch(self, wire: Wire) -> None:
        """Checks a socket regularly from here on, whether or not `connect` is called for it."""
        self._part_of(wire)[wire] = None

    def unwatch(self, wire: Wire) -> None:
        """Stops checking a socket."""
        self._part_of(wire).pop(wire, None)

    def start(self) -> None:
        """Begins the housekeeping."""
        self._timers.call_later(_SWEEP_S / _PARTS, self._sweep)

    def stop(self) -> None:
        """Ends every socket that is still there."""
        for transport in (*self._draining, *(wire.transport for wire in self.wires)):
            if transport.buffered:
                transport.abort()
        self._draining.clear()
        for part in self._wires:
            part.clear()

    def find(self, websocket: object) -> Connection | None:
        """The connection of a WebSocket, or one as it is, if it is registered here."""
        if isinstance(websocket, Connection):
            return websocket if websocket in self.registry else None
        wire = wire_of(websocket)
        return None if wire is None else self.connection_of(wire)

    def connection_of(self, wire: Wire) -> Connection | None:
        """The connection that a socket has here."""
        for each in wire.sessions:
            connection = self.registry.get(each.id)
            if connection is not None:
                return connection
        return None

    def ids(self, exclude: Exclude) -> frozenset[str]:
        """The ids of the connections that a broadcast leaves out.

        Raises:
            InvalidArgument: It is nothing that can be left out.
        """
        if exclude is None:
            return NOBODY
        if isinstance(exclude, (str, Connection, WebSocket)):
            exclude = (exclude,)
        elif not isinstance(exclude, Iterable):
            raise InvalidArgument("exclude", f"got {shown(exclude)}", EXCLUDABLE)
        ids: set[str] = set()
        for item in exclude:
            if isinstance(item, WebSocket):
                ids.update(_ids_of(item))
            elif isinstance(item, Connection):
                ids.add(item.id)
            elif isinstance(item, str):
                ids.add(self._connection_id(item))
            else:
                raise InvalidArgument("exclude", f"got {shown(item)}", EXCLUDABLE)
        return frozenset(ids)

    def _connection_id(self, item: str) -> str:
        """A connection's id, of here or elsewhere, now or formerly; a user's may look like one."""
        if self.registry.count_of_user(item):
            raise InvalidArgument("exclude", f"{shown(item)} is a user", EXCLUDABLE)
        return connection_id(item)

    async def check_limits(self, wire: Wire, user: str | None, rooms: Sequence[str]) -> None:
        """Refuses a connection that would be one too many, unless one of the same user has vanished and makes room.

        Raises:
            WebSocketDisconnect: It was refused, and is closed.
        """
        cause = self._refusal(wire, user, rooms)
        if user is not None and cause in _MAKES_ROOM:
            await self._prober.make_room(user, [session_of(each).wire for each in self.registry.of_user(user)])
            cause = self._refusal(wire, user, rooms)
        if cause is not None:
            await self.refuse(wire, cause)

    def _refusal(self, wire: Wire, user: str | None, rooms: Sequence[str]) -> CloseCode | None:
        limits, registry, network = self._manager.limits, self.registry, wire.network
        if self._manager.draining:
            return CloseCode.SERVICE_RESTART
        if _over(limits.max_connections, len(registry)):
            return CloseCode.TOO_MANY_CONNECTIONS
        if user is not None and _over(limits.max_connections_per_user, registry.count_of_user(user)):
            return CloseCode.TOO_MANY_USER_CONNECTIONS
        if network is not None and _over(limits.max_connections_per_address, registry.count_of_network(network)):
            return CloseCode.TOO_MANY_ADDRESS_CONNECTIONS
        if _over(limits.max_rooms_per_connection, len(rooms) - 1):
            return CloseCode.TOO_MANY_ROOMS
        if wire.expired:
            return CloseCode.TOKEN_EXPIRED
        return None

    async def make_room(self, session: Session, rooms: Collection[str]) -> None:
        """Has connections of the same user that vanished leave rooms that are full."""
        user = session.user_id
        if user is not None:
            others = [session_of(each) for each in self.registry.of_user(user)]
            others = [each for each in others if each.wire is not session.wire]
            await self._prober.make_room(
                user, [each.wire for each in others if not each.memberships.keys().isdisjoint(rooms)]
            )

    async def refuse(self, wire: Wire, cause: CloseCode) -> NoReturn:
        """Closes a socket that a limit refuses, counted and with a word.

        Raises:
            WebSocketDisconnect: Always, for the handler to end.
        """
        self._manager.counters.refused[cause.name.lower()] += 1
        logger.info("refused a connection on %s: %s", wire.where, cause.reason)
        await wire.close(cause.code, cause.reason)
        raise WebSocketDisconnect(cause.code, cause.reason)

    @contextmanager
    def arriving(self, user: str | None) -> Iterator[Arrival]:
        """For as long as a socket is accepted: a kick that comes meanwhile is for it too."""
        arrival = Arrival(user)
        self._arrivals.add(arrival)
        try:
            yield arrival
        finally:
            self._arrivals.discard(arrival)

    def knows(self, user: str) -> bool:
        """Whether a user has a connection here, or is about to."""
        return self.registry.count_of_user(user) > 0 or any(each.user == user for each in self._arrivals)

    def send_away(self, user: str | None, kick: Kick) -> None:
        """Closes what a user, or with None everybody, had here when an instruction was given.

        By the registry, and not by rooms: whoever is still joining is in none.
        """
        given_at = asyncio.get_running_loop().time() - kick.age_s
        for arrival in self._arrivals:
            if user in (None, arrival.user) and arrival.began_at <= given_at:
                arrival.kick = kick
        for connection in tuple(self.registry) if user is None else self.registry.of_user(user):
            session = session_of(connection)
            if session.began_at <= given_at:
                # Everybody is only asked to come again.
                session.wire.close_soon(Closed(kick.code, kick.reason), grace=user is None)

    def register(
        self,
        arrival: Arrival,
        wire: Wire,
        websocket: WebSocket,
        info: Info,
        since: object,
    ) -> Connection:
        """Makes the connection of an accepted socket.

        Raises:
            WebSocketDisconnect: The client is gone, or its user was sent away meanwhile.
        """
        if arrival.kick is not None:
            wire.close_soon(Closed(arrival.kick.code, arrival.kick.reason), grace=False)
        if wire.transport.closing:
            wire.lost()
        if wire.closed is not None:
            raise WebSocketDisconnect(*wire.closed)
        wire.adopt(self._manager)
        session = Session(self._manager, wire, arrival.user, info, since, arrival.began_at)
        connection = Connection(self._manager, session, websocket)
        wire.sessions.append(session)
        self.registry.add(connection)
        self.watch(wire)
        return connection

    def unregister(self, session: Session) -> bool:
        """Takes a connection out. False where it was not in."""
        return session.mark_gone() and self.registry.remove(session.id)

    def release(self, wire: Wire) -> None:
        """The handler of a socket ended. Sees to it that a peer that does not read can't hold the socket open."""
        self.unwatch(wire)
        if not wire.transport.lingers:
            return
        if self._manager.running:
            self._draining[wire.transport] = asyncio.get_running_loop().time() + self._manager.limits.close_timeout_s
        else:
            wire.transport.abort()

    def _sweep(self) -> None:
        """Notices who is gone, who does not read, and which handler does not know: everybody once in `_SWEEP_S`."""
        self._timers.call_later(_SWEEP_S / _PARTS, self._sweep)
        now = asyncio.get_running_loop().time()
        self._turn = (self._turn + 1) % _PARTS
        for wire in tuple(self._wires[self._turn]):
            wire.check(now)
        for transport, deadline in tuple(self._draining.items()):
            if not transport.lingers:
                del self._draining[transport]
            elif now >= deadline:
                del self._draining[transport]
                if transport.buffered or transport.deaf:  # else the server waits for the peer's Close, with a bound
                    transport.abort()


def wire_of(websocket: object) -> Wire | None:
    """The socket below a WebSocket or a connection; None where there is none (a stand-in of a test has no scope)."""
    if isinstance(websocket, Connection):
        return session_of(websocket).wire
    scope = getattr(websocket, "scope", None) if isinstance(websocket, WebSocket) else None
    wire = scope.get("hubbub") if isinstance(scope, dict) else None
    return wire if isinstance(wire, Wire) else None


def _ids_of(websocket: WebSocket) -> Iterable[str]:
    """The ids that a socket has, or had: its client may come back, and present them."""
    wire = wire_of(websocket)
    if wire is None:
        return ()
    return (*(each.id for each in wire.sessions), *wire.former_ids)


def _over(limit: int | None, count: int) -> bool:
    return limit is not None and count >= limit
