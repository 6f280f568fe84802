"""One client of an endpoint, as far as the functions of the app are concerned, whatever the client speaks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, MutableMapping
from contextlib import suppress
from typing import Any, Final, TypeVar

from starlette.websockets import WebSocket

from ..connections.session import Session
from ..connections.socket import Socket
from ..names import UserId
from .caller import Caller
from .functions import Function
from .served import Engine, Served

logger: Final = logging.getLogger("hubbub")

T = TypeVar("T")


class AppClient:
    """Runs functions of the app for one client.

    Args:
        served: The functions and settings of the endpoint.
        engine: The engine of the manager.
        websocket: The client's socket.

    Attributes:
        served: The functions and settings of the endpoint.
        engine: The engine of the manager.
        websocket: The client's socket, for functions of the app.
        socket: The client's socket.
        session: The connection in the manager. Exists once the client has authenticated.
        caller: The client as functions and their dependencies see it. None until ``@connect`` has returned.
    """

    session: Session

    def __init__(self, served: Served, engine: Engine, websocket: WebSocket) -> None:
        self.served: Served = served
        self.engine: Engine = engine
        self.websocket: WebSocket = websocket
        self.socket: Socket = websocket.scope["hubbub"]
        self.caller: Caller | None = None

    def is_subscribed(self, name: str) -> bool:
        """Returns whether the client is in a room, other than those whose names are the server's own."""
        return name[:1] != "$" and name in self.session.memberships

    async def identify(
        self, authenticate: Function[Any], scope: MutableMapping[str, Any], token: str | None = None
    ) -> tuple[Any, UserId | None]:
        """Runs the ``auth=`` dependency. Returns the user and the user's id.

        Args:
            authenticate: The dependency.
            scope: The ASGI scope of the handshake.
            token: The token that the client sent after its handshake, if any.

        Raises:
            Exception: The dependency raised it.
        """
        user = await self.awaited(authenticate, authenticate(Caller(scope, app=self.served.app, token=token)))
        return user, self.served.user_id_of(user)

    async def awaited(self, function: Function[T], call: Awaitable[T]) -> T:
        """Awaits the call of a function of the app.

        If the function raises CancelledError on its own, cancels its own task, or raises another BaseException, that is
        an error of the app: a RuntimeError. SystemExit and KeyboardInterrupt still end the process. If the function is
        canceled, that is logged and counted: it ran for too long after the end of its client, or of the server.
        """
        task = asyncio.current_task()
        assert task is not None
        try:
            result = await call
            if task.cancelling() and self._is_served:
                await _uncancel(task)
            return result
        except asyncio.CancelledError as error:
            if not task.cancelling():
                raise RuntimeError("it awaited something that was canceled") from error
            if self._is_served:
                await _uncancel(task)
                raise RuntimeError("it canceled the task that it runs in") from error
            self.engine.counters.errors["function"] += 1
            logger.warning("%s was canceled: its client is gone, and it did not return in time", function.name)
            raise
        except (Exception, SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            if not _is_current(task):
                raise  # the event loop is gone, and Python closes what still waits
            raise RuntimeError(f"it raised {type(error).__name__}") from error

    @property
    def _is_served(self) -> bool:
        """Whether the client has connected, and is still there: then nothing of hubbub cancels a function."""
        return self.caller is not None and self.session.is_open

    async def end(self) -> None:
        """Runs ``@disconnect``, if ``@connect`` returned. Called once, after the socket is gone."""
        function = self.served.routes.disconnect
        if function is None or self.caller is None:
            return
        # The socket's handler knows that its client is gone, so nothing else would ever cancel it.
        timeout = asyncio.timeout(self.engine.limits.handler_timeout_s)
        try:
            async with timeout:
                await self.awaited(function, function(self.caller))
        except Exception as error:
            if timeout.expired() and isinstance(error, TimeoutError):
                return  # which is logged and counted
            self.engine.counters.errors["function"] += 1
            logger.error("%s failed", function.name, exc_info=error)


async def _uncancel(task: asyncio.Task[Any]) -> None:
    """Takes back that the current task was canceled, so that what else it has to do is done."""
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)  # where a cancellation that has not arrived yet does
    while task.uncancel():
        pass


def _is_current(task: asyncio.Task[Any]) -> bool:
    try:
        return asyncio.current_task() is task
    except RuntimeError:
        return False
