"""The manager from plain threads: what publishes and what asks, blocking.

FastAPI runs ``def`` routes in worker threads, and other libraries have threads of their own. A call from there is
handed to the manager's event loop and waited for, with a timeout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, Protocol, TypeVar

from .close import CloseCode
from .codec import Message
from .envelope import Recorded
from .errors import NotRunning, ThreadTimeout, WrongThread
from .lifecycle import Lifecycle
from .names import EVERYONE, Everyone, RoomName, UserId
from .positions import Position
from .presence import Member
from .registrar import Exclude, ExcludeUsers

P = ParamSpec("P")
R = TypeVar("R")


class Manager(Protocol):
    """The calls of a `ConnectionManager` that threads may make."""

    async def broadcast(
        self,
        message: Message,
        *,
        room: RoomName | Everyone = EVERYONE,
        exclude: Exclude = None,
        exclude_users: ExcludeUsers = None,
        key: str | None = None,
    ) -> Position | None: ...
    async def broadcast_to_room(
        self, room: RoomName, message: Message, *, exclude: Exclude = None, exclude_users: ExcludeUsers = None
    ) -> Position | None: ...
    async def send_to_user(self, user_id: UserId, message: Message) -> bool: ...
    async def send_personal(self, message: Message, websocket: Message) -> bool: ...
    async def disconnect_user(
        self, user_id: UserId, code: int = CloseCode.KICKED.code, reason: str = CloseCode.KICKED.reason
    ) -> bool: ...
    async def presence(self, room: RoomName | Everyone = EVERYONE) -> list[Member]: ...
    async def count_users(self, *, room: RoomName | Everyone = EVERYONE) -> int: ...
    async def is_online(self, user_id: UserId) -> bool: ...
    async def history(
        self, room: RoomName | Everyone, since: Position | None = None, limit: int | None = None
    ) -> list[Recorded]: ...
    async def broker_healthy(self) -> bool: ...


class FromThread:
    """``manager.from_thread``: the manager's calls that publish and ask, for threads that run no event loop.

    Each takes and gives what the manager's does, and also raises:

    * `WrongThread` at once in a thread that runs an event loop, which a blocking call would stop.
    * `ThreadTimeout` after ``timeout_s``; the call is cancelled, and may or may not have taken effect.
    """

    def __init__(self, manager: Manager, lifecycle: Lifecycle, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._lifecycle = lifecycle
        self._manager = manager
        self.broadcast = self._blocking("broadcast", lambda: manager.broadcast)
        self.broadcast_to_room = self._blocking("broadcast_to_room", lambda: manager.broadcast_to_room)
        self.send_to_user = self._blocking("send_to_user", lambda: manager.send_to_user)
        self.send_personal = self.send_personal_message = self._blocking("send_personal", lambda: manager.send_personal)
        self.disconnect_user = self._blocking("disconnect_user", lambda: manager.disconnect_user)
        self.presence = self._blocking("presence", lambda: manager.presence)
        self.count_users = self._blocking("count_users", lambda: manager.count_users)
        self.is_online = self._blocking("is_online", lambda: manager.is_online)
        self.history = self._blocking("history", lambda: manager.history)
        self.broker_healthy = self._blocking("broker_healthy", lambda: manager.broker_healthy)

    def _blocking(self, name: str, method: Callable[[], Callable[P, Coroutine[Any, Any, R]]]) -> Callable[P, R]:
        """A blocking twin of a method, which is looked up at the call: a subclass may override it, or use its name."""

        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            return self._run(lambda: method()(*args, **kwargs), name)

        run.__name__ = run.__qualname__ = name
        run.__doc__ = getattr(type(self._manager), name).__doc__
        return run

    def _run(self, call: Callable[[], Coroutine[Any, Any, R]], name: str) -> R:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise WrongThread(
                f"from_thread.{name}() would block the event loop that runs in this thread: "
                f"`await manager.{name}(...)` instead (from_thread is for `def` routes and threads)"
            )
        loop = self._lifecycle.check_running()
        work = call()
        try:
            future = asyncio.run_coroutine_threadsafe(work, loop)
        except RuntimeError:  # the loop was closed since
            work.close()
            raise NotRunning("the manager's event loop has ended") from None
        try:
            return future.result(self.timeout_s)
        except TimeoutError:
            if future.done() and not future.cancelled():
                raise
            future.cancel()
            raise ThreadTimeout(
                f"from_thread.{name}() took more than {self.timeout_s:g} s (thread_timeout_s): "
                "is the event loop blocked, or the app shutting down?"
            ) from None
