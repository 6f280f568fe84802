"""The result of ``manager.connect(...)``: an awaitable that is also an async context manager.

Also decides how a handler's exception closes its socket.
"""

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
# The texts of Starlette's WebSocketDisconnected. Older versions raise a plain RuntimeError with the same text.
_USED_AGAIN = ('Cannot call "send" once', 'Cannot call "receive" once')


class Connecting:
    """A pending connection: ``await`` it, or enter it with ``async with``."""

    __slots__ = ("_connect", "_connection")

    def __init__(self, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._connect: Callable[[], Awaitable[Connection]] | None = connect
        self._connection: Connection | None = None

    def __await__(self) -> Generator[Any, None, Connection]:
        if self._connect is None:
            raise RuntimeError("this connect() was already awaited: call `manager.connect(...)` again")
        connecting, self._connect = self._connect(), None  # frees connect()'s arguments: this object may live long
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
            # After the block, presence no longer lists the connection, unless the broker is unavailable.
            await asyncio.wait([session.departure], timeout=_PATIENCE_S)
        return is_disconnect(error)


class Done(Coroutine[Any, Any, None]):
    """An awaitable that is already done. It can be awaited, wrapped in a task, or ignored without a warning."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()

    def send(self, value: object) -> NoReturn:
        """Finishes immediately."""
        raise StopIteration

    def throw(self, *error: Any) -> NoReturn:
        """Raises the error."""
        raise error[-1] if isinstance(error[-1], BaseException) else error[0]

    def close(self) -> None:
        """Does nothing."""


def is_disconnect(error: BaseException | None, *, informed: bool = False) -> bool:
    """Whether an exception only says that the client is gone. In a group, every exception must say so.

    Args:
        error: The exception.
        informed: Whether the handler already knew that its client is gone. Then the RuntimeError counts too that
            Starlette raises when a handler uses its WebSocket again.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(is_disconnect(each, informed=informed) for each in error.exceptions)
    return isinstance(error, WebSocketDisconnect) or (
        informed and isinstance(error, RuntimeError) and str(error).startswith(_USED_AGAIN)
    )


def invalid_name_in(error: BaseException | None) -> InvalidName | None:
    """Returns the `InvalidName` that ended a handler; None for any other end.

    A group counts if it holds nothing but such errors and disconnects.
    """
    if isinstance(error, BaseExceptionGroup):
        if error.split((InvalidName, WebSocketDisconnect))[1] is not None:
            return None
        return next(filter(None, map(invalid_name_in, error.exceptions)), None)
    return error if isinstance(error, InvalidName) else None


def close_for(error: BaseException | None, *, stopping: bool) -> tuple[int, str]:
    """Returns the close code and the reason for a handler that ended.

    Args:
        error: The exception that the handler raised; None if it returned.
        stopping: Whether the server may be shutting down, which explains a cancelled handler.
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
