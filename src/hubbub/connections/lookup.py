"""From what an app names, a WebSocket, a `Connection` or an id, to the connections of this process."""

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
"""Whom a broadcast leaves out: connections, WebSockets or connection ids, one or several."""

ExcludeUsers: TypeAlias = UserId | Iterable[UserId] | None
"""The users whom a broadcast leaves out: ids, one or several."""

NOBODY: Final[frozenset[str]] = frozenset()


class Lookup:
    """Finds the connections that an app names.

    Args:
        registry: The connections of the manager.
    """

    def __init__(self, registry: Registry[Connection]) -> None:
        self.registry = registry

    def find(self, websocket: object) -> Connection | None:
        """The connection of a WebSocket, or one as it is, if it is registered here."""
        if isinstance(websocket, Connection):
            return websocket if websocket in self.registry else None
        socket = socket_of(websocket)
        return None if socket is None else self.connection_of(socket)

    def connection_of(self, socket: Socket) -> Connection | None:
        """The connection that a socket has here."""
        for each in socket.sessions:
            connection = self.registry.get(each.id)
            if connection is not None:
                return connection
        return None

    def connected(self, websocket: object) -> Connection:
        """The connection of a socket that the app names.

        Raises:
            InvalidArgument: It is no socket, or not connected here.
            WebSocketDisconnect: It was, and is gone.
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
        """The session of a socket that the app sends to; None if it is gone.

        Raises:
            InvalidArgument: The socket is open, and no manager has connected it yet.
        """
        connection, socket = self.find(websocket), socket_of(websocket)
        if connection is None and socket is not None and socket.closed is None:
            known = socket.sessions or socket.former_ids  # another manager's, or a connection that was disconnected
            if not known:
                raise InvalidArgument(
                    "websocket",
                    "is not connected yet",
                    "a WebSocket after `await manager.connect(websocket)`; before, `await websocket.send_text(...)`",
                )
        return None if connection is None else session_of(connection)

    def excluded(self, exclude: Exclude) -> frozenset[str]:
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


def socket_of(websocket: object) -> Socket | None:
    """The socket below a WebSocket or a connection; None where there is none (a stand-in of a test has no scope)."""
    if isinstance(websocket, Connection):
        return session_of(websocket).socket
    scope = getattr(websocket, "scope", None) if isinstance(websocket, WebSocket) else None
    socket = scope.get("hubbub") if isinstance(scope, dict) else None
    return socket if isinstance(socket, Socket) else None


def _ids_of(websocket: WebSocket) -> Iterable[str]:
    """The ids that a socket has, or had: its client may come back, and present them."""
    socket = socket_of(websocket)
    if socket is None:
        return ()
    return (*(each.id for each in socket.sessions), *socket.former_ids)
