"""The open connections of this process, by id, user and network. Pure: no event loop, no socket."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class Registered(Protocol):
    """The part of a connection that the registry uses."""

    @property
    def id(self) -> str: ...

    @property
    def user_id(self) -> str | None: ...

    @property
    def network(self) -> str | None:
        """The network of the client's address. Limits count connections per network."""


ConnectionT = TypeVar("ConnectionT", bound=Registered)


class Registry(Generic[ConnectionT]):
    """The open connections, by id, by user and by network.

    Invariant: a user or a network is in the tables exactly while it has a connection.
    """

    def __init__(self) -> None:
        self._connections: dict[str, ConnectionT] = {}
        self._by_user: dict[str, tuple[ConnectionT, ...]] = {}
        self._per_network: dict[str, int] = {}

    def add(self, connection: ConnectionT) -> None:
        """Registers a connection."""
        if connection.id in self._connections:
            raise ValueError(f"{connection!r} is registered already")
        self._connections[connection.id] = connection
        if connection.user_id is not None:
            self._by_user[connection.user_id] = (*self._by_user.get(connection.user_id, ()), connection)
        if connection.network is not None:
            self._per_network[connection.network] = self._per_network.get(connection.network, 0) + 1

    def get(self, connection_id: str) -> ConnectionT | None:
        """Returns the connection with an id; None if there is none."""
        return self._connections.get(connection_id)

    def remove(self, connection_id: str) -> bool:
        """Removes a connection. Returns False if it was not registered."""
        connection = self._connections.pop(connection_id, None)
        if connection is None:
            return False
        if connection.user_id is not None:
            left = tuple(each for each in self._by_user[connection.user_id] if each.id != connection.id)
            if left:
                self._by_user[connection.user_id] = left
            else:
                del self._by_user[connection.user_id]
        if connection.network is not None:
            count = self._per_network[connection.network] - 1
            if count:
                self._per_network[connection.network] = count
            else:
                del self._per_network[connection.network]
        return True

    def __iter__(self) -> Iterator[ConnectionT]:
        return iter(tuple(self._connections.values()))

    def __len__(self) -> int:
        return len(self._connections)

    def __contains__(self, connection: object) -> bool:
        return getattr(connection, "id", None) in self._connections

    @property
    def user_count(self) -> int:
        """The number of distinct users."""
        return len(self._by_user)

    def of_user(self, user_id: str) -> list[ConnectionT]:
        """Returns the connections of a user."""
        return list(self._by_user.get(user_id, ()))

    def count_of_user(self, user_id: str) -> int:
        return len(self._by_user.get(user_id, ()))

    def count_of_network(self, network: str) -> int:
        return self._per_network.get(network, 0)
