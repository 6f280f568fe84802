"""The parts that the conversations with all clients of an endpoint share: its functions, and the manager's engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.websockets import WebSocket

from ..brokers.base import Broker
from ..codec import Message
from ..connections.admission import Admission
from ..connections.connection import Connection
from ..connections.lookup import Exclude, ExcludeUsers
from ..envelope import Envelope, Recorded
from ..lifecycle import Lifecycle
from ..metrics.counters import Counters
from ..names import Everyone, RoomName, UserId
from ..options import Limits, RoomOptions
from ..origin import OriginPolicy
from ..positions import Position
from ..presence import Info, Member
from ..rooms.memberships import Memberships
from ..tasks import Tasks
from .functions import Function
from .raw_sockets import RawSocket
from .routing import Routes
from .sends import Sends


class Engine(Protocol):
    """The part of a manager's engine that an endpoint uses."""

    limits: Limits
    counters: Counters
    tasks: Tasks
    broker: Broker
    memberships: Memberships
    admission: Admission
    origins: OriginPolicy
    app: Starlette | None
    raw_sockets: dict[str, RawSocket]
    sends: Sends | None
    lifecycle: Lifecycle
    thread_timeout_s: float

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

    def addressed(
        self,
        message: Message,
        room: RoomName | Everyone,
        exclude: Exclude,
        exclude_users: ExcludeUsers,
        key: str | None,
    ) -> tuple[str, Envelope]:
        """Returns the channel and the envelope of a broadcast."""

    async def publish(self, name: str, envelope: Envelope) -> Position | None:
        """Publishes a message."""

    def publish_nowait(self, name: str, envelope: Envelope) -> None:
        """Begins to publish a message."""

    async def unsubscribe(self, user_id: UserId, room: RoomName) -> bool:
        """Removes all connections of a user from a room."""

    def connections(self, room: RoomName | Everyone, user: UserId | Everyone) -> list[Connection]:
        """Returns the connections of this process in a room, of a user, or both."""

    async def presence(self, room: RoomName | Everyone) -> list[Member]:
        """Returns the users in a room."""

    async def count_users(self, room: RoomName | Everyone) -> int:
        """Counts the users in a room."""

    async def history(self, room: RoomName | Everyone, since: Position | None, limit: int | None) -> list[Recorded]:
        """Returns the recent messages of a room."""


@dataclass(frozen=True, slots=True)
class Served:
    """The functions and settings of an endpoint, shared by the conversations with all its clients.

    Attributes:
        routes: The functions of the endpoint.
        authenticate: Runs the ``auth=`` dependency. None if everyone may connect.
        user_id_of: Returns the id of the user that the dependency yields.
        app: The app, for its ``dependency_overrides``.
    """

    routes: Routes
    authenticate: Function[Any] | None
    user_id_of: Callable[[Any], UserId | None]
    app: object
