"""The official SDKs behind one interface, so that one test runs with each of them. `sdks` has them all."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

from tests.integration.live import token
from tests.integration.support import LiveServer, eventually

RECONNECT_MS: Final = (10, 50)
"""The shortest and the longest time after which clients reconnect."""


class Refused(Exception):
    """The server answered with an error."""

    def __init__(self, code: int, message: str, temporary: bool) -> None:
        super().__init__(code, message, temporary)
        self.code = code
        self.message = message
        self.temporary = temporary


@dataclass(frozen=True)
class Subscribed:
    """The reply to a subscribe, or a server-side subscription."""

    room: str
    data: Any
    recoverable: bool
    positioned: bool
    was_recovering: bool
    recovered: bool


@dataclass(frozen=True)
class Info:
    """A client that an event tells of."""

    user: str
    client: str
    of_connection: Any
    of_room: Any


@dataclass(frozen=True)
class Publication:
    data: Any
    offset: int
    tags: dict[str, str]
    info: Info | None = None


@dataclass(frozen=True)
class History:
    """The answer to a request for the history."""

    publications: list[Publication]
    offset: int
    epoch: str


@dataclass(eq=False)
class Room(ABC):
    """A subscription, and what it was told.

    Attributes:
        name: The name of the room.
        tokens: The subscription tokens that it fetches; None if it has no way to fetch any.
    """

    name: str
    tokens: list[str] | None = None
    subscribed: list[Subscribed] = field(default_factory=list)
    subscribing: list[int] = field(default_factory=list)
    unsubscribed: list[tuple[int, str]] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)
    publications: list[Publication] = field(default_factory=list)
    came: list[Info] = field(default_factory=list)
    gone: list[Info] = field(default_factory=list)

    @property
    def joins(self) -> list[str]:
        return [each.user for each in self.came]

    @property
    def leaves(self) -> list[str]:
        return [each.user for each in self.gone]

    @property
    def got(self) -> list[Any]:
        return [each.data for each in self.publications]

    @property
    def offsets(self) -> list[int]:
        return [each.offset for each in self.publications]

    @abstractmethod
    async def subscribe(self) -> None: ...

    @abstractmethod
    async def unsubscribe(self) -> None: ...

    @abstractmethod
    async def state(self) -> str:
        """The state that the SDK says it is in."""

    @abstractmethod
    async def publish(self, value: Any) -> None: ...

    @abstractmethod
    async def presence(self) -> dict[str, str]:
        """The user of each client."""

    @abstractmethod
    async def presence_stats(self) -> tuple[int, int]:
        """How many clients and users there are."""

    @abstractmethod
    async def history(self, limit: int = 0, since: tuple[int, str] | None = None, reverse: bool = False) -> History: ...


Fetched: TypeAlias = str | Callable[[], str] | None
"""A token that a client fetches, or what makes it; None for a fetch that is never answered."""


@dataclass(eq=False)
class Client(ABC):
    """A client of an SDK, and what it was told. Data is parsed.

    Attributes:
        user: The user whose tokens it has.
        protobuf: Whether it speaks Protobuf.
        tokens: The tokens that it fetches before good ones, or calls that make them then; None is never answered.
    """

    user: str | None
    protobuf: bool
    tokens: list[Fetched]
    connected: list[Any] = field(default_factory=list)
    connecting: list[int] = field(default_factory=list)
    disconnected: list[tuple[int, str]] = field(default_factory=list)
    joined: list[Subscribed] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    published: list[tuple[str, Any]] = field(default_factory=list)

    def next_token(self) -> str | None:
        fetched = self.tokens.pop(0) if self.tokens else token(self.user or "")
        return fetched() if callable(fetched) else fetched

    def encoded(self, more: dict[str, Any]) -> dict[str, Any]:
        """The options of a client, with its data as the SDK sends it."""
        return {name: self.sent(each) if name == "data" else each for name, each in more.items()}

    def sent(self, value: Any) -> Any:
        """A value as the SDK sends it. Bytes stay as they are."""
        return json.dumps(value).encode() if self.protobuf and not isinstance(value, bytes) else value

    def parsed(self, data: Any) -> Any:
        """Data from the SDK. Bytes that are not JSON stay as they are."""
        if isinstance(data, bytes):
            with suppress(ValueError):
                return json.loads(data)
        return data

    @abstractmethod
    async def connect(self) -> None:
        """Begins to connect."""

    @abstractmethod
    async def disconnect(self) -> None: ...

    @abstractmethod
    async def rpc(self, method: str, value: Any = None) -> Any: ...

    @abstractmethod
    async def publish(self, room: str, value: Any) -> None:
        """Publishes into a room that it may not be subscribed to."""

    @abstractmethod
    async def history(self, room: str) -> History:
        """Asks for the history of a room that it may not be subscribed to."""

    @abstractmethod
    async def room(self, name: str, tokens: list[str] | None = None) -> Room:
        """Makes a subscription that is not subscribed yet."""

    async def subscribed(self, name: str, tokens: list[str] | None = None) -> Room:
        room = await self.room(name, tokens)
        await room.subscribe()
        await eventually(lambda: bool(room.subscribed))
        return room


class Served(Protocol):
    """An app that is served."""

    server: LiveServer


class Sdk(ABC):
    """Makes clients of one SDK in one encoding."""

    @abstractmethod
    def client(
        self,
        live: Served,
        user: str | None = "ann",
        *,
        path: str = "/live",
        port: int = 0,
        tokens: Sequence[Fetched] = (),
        **more: Any,
    ) -> AbstractAsyncContextManager[Client]:
        """A client that has not begun to connect. It is disconnected at the end.

        Args:
            live: The app.
            user: The user of its tokens; None for a client without tokens.
            path: The path of the endpoint.
            port: The port to connect to, if not that of the app.
            tokens: The tokens that it fetches before good ones, or calls that make them then; None is never answered.
            more: ``token`` and ``data``, as the SDKs have them.
        """

    @asynccontextmanager
    async def connected(self, live: Served, user: str | None = "ann", **options: Any) -> AsyncIterator[Client]:
        """A client that is connected. Takes the arguments of `client`."""
        async with self.client(live, user, **options) as client:
            await client.connect()
            await eventually(lambda: bool(client.connected))
            yield client
