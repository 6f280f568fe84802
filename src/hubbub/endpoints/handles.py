"""`Room`: the calls of a manager that concern one room. `Endpoint.room_of` returns it.

Type checkers can't derive the type of a room's messages from the text of a pattern. So ``room_of`` returns
``Room[Any]``, and the app annotates what it does with it: ``Room[Said]``.
"""

# mypy: disable-error-code="empty-body"
# Methods that `blocking` decorates are signatures and docstrings only: those of `Room` run.

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from ..codec import Message
from ..connections.connection import Connection
from ..connections.lookup import Exclude, ExcludeUsers
from ..envelope import Recorded
from ..errors import InvalidArgument, InvalidName, shown
from ..from_thread import Blocking, blocking
from ..names import EVERYONE, Everyone, UserId, room_name
from ..nowait import or_nowait
from ..patterns import Pattern
from ..positions import Position
from ..presence import Member
from .names import Names
from .refusals import RoomUnknown
from .served import Engine

M = TypeVar("M", bound=Message, contravariant=True)


class Naming:
    """Builds the names of the rooms of a pattern.

    Args:
        pattern: The pattern.
        annotations: The types of its names.
        function: Names the function that takes them in errors.
    """

    __slots__ = ("_declared", "_function", "_names", "_pattern")

    def __init__(self, pattern: Pattern, annotations: Mapping[str, Any], function: str) -> None:
        self._pattern = pattern
        self._names = Names(annotations.items(), function)
        self._function = function
        self._declared = f"room_of({shown(pattern.text)})"

    def name_of(self, values: Mapping[str, Any]) -> str:
        """Returns the name of the room with these values. Raises as `Endpoint.room_of` does."""
        if values.keys() != self._names.keys:
            wanted = ", ".join(f"{name}=..." for name in self._pattern.names)
            raise InvalidArgument(self._declared, f"got {', '.join(values) or 'no names'}", wanted or "no names")
        try:
            texts = self._names.texts(values)
        except RoomUnknown as error:
            raise InvalidName(self._declared, str(error), f"what {self._function} takes") from None
        return room_name(self._pattern.name_of(texts))


class Room(Generic[M]):
    """A room, with the calls that concern it. `Endpoint.room_of` returns it.

    ```python
    def chat(room: str) -> Room[Said]:
        return live.room_of("chat:{room}", room=room)


    await chat("lobby").broadcast(Said(user_id="ann", text="hello"))
    ```

    The type in brackets is that of the messages: what ``sends=`` of the rule says. Type checkers then refuse other
    messages. Each method does what the manager's method of the same name does.

    Attributes:
        name: The name of the room, for the calls that take one: ``connection.join(chat("lobby").name)``.
    """

    __slots__ = ("_engine", "name")

    name: str

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self.name = name

    def __repr__(self) -> str:
        return f"<Room {self.name!r}>"

    def __str__(self) -> str:
        return self.name

    @or_nowait("broadcast_nowait")
    async def broadcast(
        self, message: M, *, exclude: Exclude = None, exclude_users: ExcludeUsers = None, key: str | None = None
    ) -> Position | None:
        """Publishes a message to the room.

        *Delivery*: at most once, to each current member. *Order*: that of the calls.

        Args:
            message: The message.
            exclude: Connections, WebSockets or connection ids that do not receive the message.
            exclude_users: A user id, or several: none of their connections receives the message.
            key: With ``overflow="latest"``, a waiting message with the same key is replaced.

        Returns:
            The position of the message, if the room has positions.

        Raises:
            InvalidArgument: The message can't be encoded, is not what ``sends=`` says (where that is checked), or
                another argument is not acceptable.
            NotInstalled: The manager is not installed.
            NotRunning: The manager is not running.
            BrokerUnavailable: The broker can't be reached in time; the message may have been published.
        """
        return await self._engine.publish(*self._engine.addressed(message, self.name, exclude, exclude_users, key))

    def broadcast_nowait(
        self, message: M, *, exclude: Exclude = None, exclude_users: ExcludeUsers = None, key: str | None = None
    ) -> None:
        """Publishes a message to the room from a plain function that runs on the event loop.

        *Delivery*: at most once. Later failures are reported as by `ConnectionManager.broadcast_nowait`.

        Args:
            message: The message.
            exclude: Connections, WebSockets or connection ids that do not receive the message.
            exclude_users: A user id, or several: none of their connections receives the message.
            key: With ``overflow="latest"``, a waiting message with the same key is replaced.

        Raises:
            InvalidArgument: The message can't be encoded, is not what ``sends=`` says (where that is checked), or
                another argument is not acceptable.
            NotInstalled: The manager is not installed.
            NotRunning: The manager is not running.
            WrongThread: No event loop runs in this thread; use `from_thread`.
            BrokerUnavailable: Too many messages already wait for the broker. The message is not published.
        """
        self._engine.publish_nowait(*self._engine.addressed(message, self.name, exclude, exclude_users, key))

    async def unsubscribe(self, user_id: UserId) -> bool:
        """Removes all connections of a user from the room, on every worker. They stay open.

        Args:
            user_id: The user.

        Returns:
            Whether the user had a connection in the room, on any worker.

        Raises:
            InvalidArgument: The id is not acceptable.
            NotInstalled: The manager is not installed.
            NotRunning: The manager is not running.
            BrokerUnavailable: The broker can't be reached in time. The connections on this worker are removed; those on
                others may not be.
        """
        return await self._engine.unsubscribe(user_id, self.name)

    def connections(self, *, user: UserId | Everyone = EVERYONE) -> list[Connection]:
        """Returns the open connections of this process that are in the room.

        Args:
            user: Only connections of this user.

        Raises:
            InvalidArgument: The id is not acceptable.
        """
        return self._engine.connections(self.name, user)

    async def presence(self) -> list[Member]:
        """Returns the users in the room, on all workers: those connected and those in their grace period.

        Raises:
            NotInstalled: The manager is not installed.
            NotRunning: The manager is not running.
            BrokerUnavailable: The broker can't be reached in time.
        """
        return await self._engine.presence(self.name)

    async def count_users(self) -> int:
        """Counts the distinct users in the room, on all workers: connected or in their grace period.

        Raises:
            NotInstalled: The manager is not installed.
            NotRunning: The manager is not running.
            BrokerUnavailable: The broker can't be reached in time.
        """
        return await self._engine.count_users(self.name)

    async def history(self, since: Position | None = None, limit: int | None = None) -> list[Recorded]:
        """Returns the recent messages of the room, oldest first.

        Args:
            since: Only messages after this position. If the history does not reach back to it: all that is kept.
            limit: At most this many messages: the newest, or with ``since`` the oldest after it.

        Raises:
            InvalidArgument: An argument is not acceptable.
            NotInstalled: The manager is not installed.
            NotRunning: The manager is not running.
            BrokerUnavailable: The broker can't be reached in time.
        """
        return await self._engine.history(self.name, since, limit)

    @property
    def from_thread(self) -> RoomFromThread[M]:
        """Blocking versions of the async calls, for ``def`` functions and threads, as `ConnectionManager.from_thread`.

        @live.on("say")
        def say(message: Say) -> None:
            chat(message.room).from_thread.broadcast(Said(text=message.text))
        """
        return RoomFromThread(self, self._engine.lifecycle, self._engine.thread_timeout_s)


class RoomFromThread(Blocking, Generic[M]):
    """Blocking versions of the async calls of a `Room`: `Room.from_thread`.

    Every method also raises:

    * `WrongThread` at once in a thread that runs an event loop, because it would block that loop.
    * `ThreadTimeout` after the manager's ``thread_timeout_s``; the call is canceled, and may or may not have taken
      effect.
    """

    __slots__ = ()

    _called = "room"

    @blocking
    def broadcast(
        self, message: M, *, exclude: Exclude = None, exclude_users: ExcludeUsers = None, key: str | None = None
    ) -> Position | None:
        """Publishes a message to the room, as `Room.broadcast` does, and blocks meanwhile.

        Args:
            message: The message.
            exclude: Connections, WebSockets or connection ids that do not receive the message.
            exclude_users: A user id, or several: none of their connections receives the message.
            key: With ``overflow="latest"``, a waiting message with the same key is replaced.

        Returns:
            The position of the message, if the room has positions.
        """

    @blocking
    def unsubscribe(self, user_id: UserId) -> bool:
        """Removes all connections of a user from the room, on every worker, and blocks meanwhile. They stay open.

        Args:
            user_id: The user.

        Returns:
            Whether the user had a connection in the room, on any worker.
        """

    @blocking
    def presence(self) -> list[Member]:
        """Returns the users in the room, on all workers: those connected and those in their grace period."""

    @blocking
    def count_users(self) -> int:
        """Counts the distinct users in the room, on all workers: connected or in their grace period."""

    @blocking
    def history(self, since: Position | None = None, limit: int | None = None) -> list[Recorded]:
        """Returns the recent messages of the room, oldest first.

        Args:
            since: Only messages after this position. If the history does not reach back to it: all that is kept.
            limit: At most this many messages: the newest, or with ``since`` the oldest after it.
        """
