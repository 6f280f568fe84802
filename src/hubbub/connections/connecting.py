"""What ``manager.connect(...)`` gives: awaitable, and an async context manager."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, NoReturn

from starlette.websockets import WebSocketDisconnect

from ..close import CloseCode
from ..errors import BrokerUnavailable, InvalidName
from .connection import Connection, session_of
from .handshake import answer

_PATIENCE_S = 2.0
# The texts of Starlette's WebSocketDisconnected, which older versions do not have: a plain RuntimeError there.
_USED_AGAIN = ('Cannot call "send" once', 'Cannot call "receive" once')


class Connecting:
    """A connection to be: ``await`` it, or enter it with ``async with``."""

    __slots__ = ("_connect", "_connection")

    def __init__(self, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._connect: Callable[[], Awaitable[Connection]] | None = connect
        self._connection: Connection | None = None

    def __await__(self) -> Generator[Any, None, Connection]:
        if self._connect is None:
            raise RuntimeError("this connect() was awaited already")
        connecting, self._connect = self._connect(), None  # it holds what connect() was given; we live long
        return connecting.__await__()

    def __del__(self) -> None:
        if self._connect is not None:
            warnings.warn(
                "manager.connect(...) was never awaited, so nothing is connected: `await` it, or use `async with`",
                RuntimeWarning,
                stacklevel=2,
            )

    async def __aenter__(self) -> Connection:
        self._connection = await self
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        assert self._connection is not None
        session = session_of(self._connection)
        socket = session.socket
        await socket.close(*close_for(error, stopping=socket.transport.restarting is not False))
        if session.departure is not None:
            # Presence is what it says once the block is left, unless the broker is away.
            await asyncio.wait([session.departure], timeout=_PATIENCE_S)
        return is_disconnect(error)


class Done(Coroutine[Any, Any, None]):
    """An awaitable that has finished. It can be awaited, made a task, or ignored without a warning."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()

    def send(self, value: object) -> NoReturn:
        """Ends at once."""
        raise StopIteration

    def throw(self, *error: Any) -> NoReturn:
        """Ends with the error."""
        raise error[-1] if isinstance(error[-1], BaseException) else error[0]

    def close(self) -> None:
        """Does nothing."""


def is_disconnect(error: BaseException | None, *, told: bool = False) -> bool:
    """Whether an exception, or all that a task group collected, only says that the client is gone.

    Args:
        error: The exception.
        told: Whether the handler was told before: then it includes the RuntimeError that Starlette raises when a
            handler uses its WebSocket again.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(is_disconnect(each, told=told) for each in error.exceptions)
    return isinstance(error, WebSocketDisconnect) or (
        told and isinstance(error, RuntimeError) and str(error).startswith(_USED_AGAIN)
    )


def invalid_name_in(error: BaseException | None) -> InvalidName | None:
    """The name that a client can't use, where an exception, or all that a task group collected, only says so."""
    if isinstance(error, BaseExceptionGroup):
        if error.split((InvalidName, WebSocketDisconnect))[1] is not None:
            return None
        return next(filter(None, map(invalid_name_in, error.exceptions)), None)
    return error if isinstance(error, InvalidName) else None


def close_for(error: BaseException | None, *, stopping: bool) -> tuple[int, str]:
    """The close code and reason for how a handler ended.

    Args:
        error: What it raised.
        stopping: Whether the server may be about to stop: then that is why the handler was cancelled.
    """
    answered = answer(invalid_name_in(error) or error)
    if answered is not None:
        return answered
    if error is None or is_disconnect(error):
        cause = CloseCode.NORMAL
    elif isinstance(error, BrokerUnavailable):
        cause = CloseCode.BROKER_UNAVAILABLE
    elif isinstance(error, asyncio.CancelledError) and stopping:
        cause = CloseCode.SERVICE_RESTART
    else:
        cause = CloseCode.INTERNAL_ERROR
    return cause.code, cause.reason
