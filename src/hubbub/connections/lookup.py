"""Finds the connections of this process by what an app passes: a WebSocket, a `Connection` or an id."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias

from starlette.websockets import WebSocket, WebSocketDisconnect

from ..arguments import EXCLUDABLE, connection_id
from ..errors import InvalidArgument, shown
from ..names import UserId
from .connection import Connection, session_of
from .registry import Registry
from .session import Session
from .socket import Socket

Exclude: TypeAlias = Connection | WebSocket | str | Iterable[Connection | WebSocket | str] | None
"""The connections that a broadcast leaves out: one or several connections, WebSockets or connection ids."""

ExcludeUsers: TypeAlias = UserId | Iterable[UserId] | None
"""The users that a broadcast leaves out: one or several user ids."""

NOBODY: Final[frozenset[str]] = frozenset()


class Lookup:
    """Finds connections by what an app passes.

    Args:
        registry: The connections of the manager.
    """

    def __init__(self, registry: Registry[Connection]) -> None:
        self.registry = registry

    def find(self, websocket: object) -> Connection | None:
        """Returns the connection of a WebSocket, or a `Connection` itself; None if it is not registered here."""
        if isinstance(websocket, Connection):
            return websocket if websocket in self.registry else None
        socket = socket_of(websocket)
        return None if socket is None else self.connection_of(socket)

    def connection_of(self, socket: Socket) -> Connection | None:
        """Returns the connection of a socket; None if this manager has not connected it."""
        for each in socket.sessions:
            connection = self.registry.get(each.id)
            if connection is not None:
                return connection
        return None

    def connected(self, websocket: object) -> Connection:
        """Returns the connection of a WebSocket, which must be connected.

        Raises:
            InvalidArgument: The argument is neither a WebSocket nor a `Connection`, or it is not connected here.
            WebSocketDisconnect: The client is gone.
        """
        connection = self.find(websocket)
        if connection is not None:
            return connection
        socket = socket_of(websocket)
        if socket is not None and socket.closed is not None:
            raise WebSocketDisconnect(*socket.closed)
        known = isinstance(websocket, (WebSocket, Connection))
        problem = "is not connected to this manager" if known else f"got {shown(websocket)}"
        raise InvalidArgument(
            "websocket", problem, "a WebSocket after `await manager.connect(websocket)`, or a Connection"
        )

    def addressee(self, websocket: WebSocket | Connection) -> Session | None:
        """Returns the session of a WebSocket that the app sends to; None if its client is gone.

        Raises:
            InvalidArgument: The socket is open, but no manager has connected it yet.
        """
        connection, socket = self.find(websocket), socket_of(websocket)
        if connection is None and socket is not None and socket.closed is None and not socket.was_connected:
            raise InvalidArgument(
                "websocket",
                "is not connected yet",
                "a WebSocket after `await manager.connect(websocket)`; before that, use "
                "`await websocket.send_text(...)`",
            )
        return None if connection is None else session_of(connection)

    def excluded(self, exclude: Exclude) -> frozenset[str]:
        """Returns the ids of the connections that a broadcast leaves out.

        Raises:
            InvalidArgument: ``exclude`` has an item that is not a connection, a WebSocket or a connection id.
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
        """Checks an id. The connection may be on another worker or gone, but a user id is a mistake."""
        if self.registry.count_of_user(item):
            raise InvalidArgument("exclude", f"{shown(item)} is a user", EXCLUDABLE)
        return connection_id(item)


def socket_of(websocket: object) -> Socket | None:
    """Returns the socket below a WebSocket or a connection; None if there is none, as for a test's fake."""
    if isinstance(websocket, Connection):
        return session_of(websocket).socket
    scope = getattr(websocket, "scope", None) if isinstance(websocket, WebSocket) else None
    socket = scope.get("hubbub") if isinstance(scope, dict) else None
    return socket if isinstance(socket, Socket) else None


def _ids_of(websocket: WebSocket) -> Iterable[str]:
    """Returns the ids of the connections of a socket: one for each manager that has connected it."""
    socket = socket_of(websocket)
    return () if socket is None else [each.id for each in socket.sessions]
