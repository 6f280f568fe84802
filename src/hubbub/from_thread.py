"""`FromThread`: blocking versions of the manager's calls that publish and query, for threads without an event loop.

FastAPI runs ``def`` routes in worker threads, and other libraries have threads of their own. A call from there runs on
the manager's event loop, while the thread waits for it with a timeout.
"""

# mypy: disable-error-code="empty-body"
# Methods that `blocking` decorates are signatures and docstrings only: the manager's method runs.

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, TypeVar, cast, overload

from starlette.websockets import WebSocket

from .close import CloseCode
from .codec import Message
from .connections.connection import Connection
from .connections.lookup import Exclude, ExcludeUsers
from .envelope import Recorded
from .errors import NotRunning, ThreadTimeout, WrongThread
from .lifecycle import Lifecycle
from .names import EVERYONE, Everyone, RoomName, UserId
from .positions import Position
from .presence import Member

F = TypeVar("F", bound=Callable[..., object])


def blocking(method: F) -> F:
    """Makes a method of a `Blocking` run the coroutine method of the same name, looked up at each call.

    The arguments are passed on unchanged, because a subclass may override the manager's method with other arguments.
    """

    @wraps(method)
    def run(self: Blocking, *args: Any, **kwargs: Any) -> Any:
        return self._run(method.__name__, args, kwargs)

    return cast(F, run)


class Blocking:
    """Blocking versions of an object's coroutine methods, which run on the manager's event loop.

    Args:
        target: The object.
        lifecycle: The state of the manager.
        timeout_s: Seconds that a call may take.
    """

    __slots__ = ("_lifecycle", "_target", "_timeout_s")

    _called = "manager"

    def __init__(self, target: object, lifecycle: Lifecycle, timeout_s: float) -> None:
        self._target = target
        self._lifecycle = lifecycle
        self._timeout_s = timeout_s

    def _run(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise WrongThread(
                f"from_thread.{name}() would block the event loop that runs in this thread: "
                f"`await {self._called}.{name}(...)` instead (from_thread is for `def` routes and threads)"
            )
        loop = self._lifecycle.check_running()
        method: Callable[..., Coroutine[Any, Any, Any]] = getattr(self._target, name)
        work = method(*args, **kwargs)
        try:
            future = asyncio.run_coroutine_threadsafe(work, loop)
        except RuntimeError:  # the loop has been closed meanwhile
            work.close()
            raise NotRunning("the manager's event loop has ended") from None
        try:
            return future.result(self._timeout_s)
        except TimeoutError:
            if future.done() and not future.cancelled():
                raise
            future.cancel()
            raise ThreadTimeout(
                f"from_thread.{name}() took more than {self._timeout_s:g} s (thread_timeout_s): "
                "is the event loop blocked, or is the app shutting down?"
            ) from None


class FromThread(Blocking):
    """Blocking versions of a manager's calls that publish and query: `ConnectionManager.from_thread`.

    Each method does what the manager's method of the same name does, and blocks until that is done:

        @app.post("/alarm")
        def alarm() -> None:  # a `def` route: FastAPI runs it in a thread
            manager.from_thread.broadcast({"type": "alarm"})

    Every method also raises:

    * `WrongThread` at once in a thread that runs an event loop, because it would block that loop.
    * `NotInstalled` or `NotRunning` if the app's lifespan has not started the manager.
    * `ThreadTimeout` after the manager's ``thread_timeout_s``; the call is cancelled, and may or may not have taken
      effect.
    """

    __slots__ = ()

    @blocking
    def broadcast(
        self,
        message: Message,
        *,
        room: RoomName | Everyone = EVERYONE,
        exclude: Exclude = None,
        exclude_users: ExcludeUsers = None,
        key: str | None = None,
    ) -> Position | None:
        """Publishes a message to everyone or to a room, as `ConnectionManager.broadcast` does, and blocks meanwhile.

            manager.from_thread.broadcast({"type": "report", "ready": True}, room="reports")

        Args:
            message: str, bytes, or anything that can be written as JSON.
            room: The room. An explicit None raises, because a missing room must not reach everyone.
            exclude: Connections, WebSockets or connection ids that do not receive the message.
            exclude_users: A user id, or several: none of their connections receives the message.
            key: The key by which ``overflow="latest"`` replaces an older message.

        Returns:
            The position of the message, if the room has positions.

        Raises:
            InvalidArgument: The message can't be encoded, is not what ``sends=`` of the room's rule says (where that is
                checked, see ``check_sends``), or another argument is not acceptable.
            BrokerUnavailable: The broker can't be reached in time; the message may have been published.
        """

    @blocking
    def broadcast_to_room(
        self, room: RoomName, message: Message, *, exclude: Exclude = None, exclude_users: ExcludeUsers = None
    ) -> Position | None:
        """Publishes a message to a room: `broadcast` with the room first.

        Args:
            room: The room.
            message: str, bytes, or anything that can be written as JSON.
            exclude: Connections, WebSockets or connection ids that do not receive the message.
            exclude_users: A user id, or several: none of their connections receives the message.

        Returns:
            The position of the message, if the room has positions.

        Raises:
            InvalidArgument: The message can't be encoded, is not what ``sends=`` of the room's rule says (where that is
                checked, see ``check_sends``), or another argument is not acceptable.
            BrokerUnavailable: The broker can't be reached in time; the message may have been published.
        """

    @blocking
    def send_to_user(self, user_id: UserId, message: Message) -> bool:
        """Sends a message to every connection of a user, on every worker, and blocks meanwhile.

            online = manager.from_thread.send_to_user(order.user_id, {"type": "paid", "order": order.id})

        Args:
            user_id: The user.
            message: str, bytes, or anything that can be written as JSON.

        Returns:
            Whether the user has an open connection on any worker.

        Raises:
            InvalidArgument: The message can't be encoded, or the id is not acceptable.
            BrokerUnavailable: The broker can't be reached in time; the message may have been published.
        """

    @overload
    def send_personal(self, message: Message, websocket: WebSocket | Connection) -> bool: ...
    @overload
    def send_personal(self, websocket: WebSocket | Connection, message: Message, /) -> bool: ...
    @blocking
    def send_personal(
        self, message: Message | WebSocket | Connection, websocket: Message | WebSocket | Connection
    ) -> bool:
        """Sends a message to one connection of this process. The two arguments may come in either order.

        Args:
            message: str, bytes, or anything that can be written as JSON.
            websocket: The WebSocket or its `Connection`.

        Returns:
            False if the client is gone or the message was dropped.

        Raises:
            InvalidArgument: Neither argument is a WebSocket or a `Connection`, the socket is open and was not connected
                yet, or the message can't be encoded.
        """

    send_personal_message = send_personal
    """The name that FastAPI's tutorial has for `send_personal`."""

    @blocking
    def disconnect_user(
        self, user_id: UserId, code: int = CloseCode.KICKED.code, reason: str = CloseCode.KICKED.reason
    ) -> bool:
        """Closes all connections of a user, on every worker, and blocks meanwhile. The user's presence ends at once.

        Args:
            user_id: The user.
            code: A close code of RFC 6455, or one from 3000 to 4999.
            reason: A text for the client, at most 123 bytes.

        Returns:
            Whether the user had an open connection on any worker.

        Raises:
            InvalidArgument: An argument is not acceptable.
            BrokerUnavailable: The broker can't be reached in time. The connections on this worker are closed; those on
                others may not be.
        """

    @blocking
    def unsubscribe(self, user_id: UserId, room: RoomName) -> bool:
        """Removes all connections of a user from a room, on every worker, and blocks meanwhile. They stay open.

        Args:
            user_id: The user.
            room: The name of the room.

        Returns:
            Whether the user had a connection in the room, on any worker.

        Raises:
            InvalidArgument: The id or the name is not acceptable.
            BrokerUnavailable: The broker can't be reached in time. The connections on this worker are removed; those on
                others may not be.
        """

    @blocking
    def presence(self, room: RoomName | Everyone = EVERYONE) -> list[Member]:
        """Returns the users in a room, or everywhere, on all workers: those connected and those in their grace period.

        Args:
            room: The room; by default the room that every connection is in.

        Raises:
            InvalidArgument: The room's name is not acceptable.
            BrokerUnavailable: The broker can't be reached in time.
        """

    @blocking
    def count_users(self, *, room: RoomName | Everyone = EVERYONE) -> int:
        """Counts the distinct users in a room, or everywhere, on all workers: connected or in their grace period.

        Args:
            room: The room; by default the room that every connection is in.

        Raises:
            InvalidArgument: The room's name is not acceptable.
            BrokerUnavailable: The broker can't be reached in time.
        """

    @blocking
    def is_online(self, user_id: UserId) -> bool:
        """Returns whether a user is connected on any worker, or in the grace period after a disconnect.

        Args:
            user_id: The user.

        Raises:
            InvalidArgument: The id is not acceptable.
            BrokerUnavailable: The broker can't be reached in time.
        """

    @blocking
    def history(
        self, room: RoomName | Everyone, since: Position | None = None, limit: int | None = None
    ) -> list[Recorded]:
        """Returns the recent messages of a room, oldest first.

        Args:
            room: The room.
            since: Only messages after this position. If the history does not reach back to it: all that is kept.
            limit: At most this many messages: the newest, or with ``since`` the oldest after it.

        Raises:
            InvalidArgument: An argument is not acceptable.
            BrokerUnavailable: The broker can't be reached in time.
        """

    @blocking
    def broker_healthy(self) -> bool:
        """Returns whether the broker answers.

        A broker that does not answer is no reason to take a worker out of service, because its clients stay connected.
        """
