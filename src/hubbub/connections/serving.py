"""Serves one socket: runs its handler, and closes the socket however the handler ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from starlette.websockets import WebSocketDisconnect

from ..close import CloseCode
from ..errors import InvalidName
from .connecting import close_for, invalid_name_in, is_disconnect
from .handshake import answer
from .socket import Socket


class Admission(Protocol):
    """The part of an admission that begins and ends the handshake of a client whose user is not known yet."""

    def begin_handshake(self, socket: Socket) -> None: ...
    def end_handshake(self, socket: Socket) -> None: ...


class Engine(Protocol):
    """The part of a manager's engine that serves a socket."""

    @property
    def admission(self) -> Admission: ...


def begin_handshake(engines: Sequence[Engine], socket: Socket) -> None:
    """Lets the admission of each manager know of a client whose user is not known yet."""
    for engine in engines:
        engine.admission.begin_handshake(socket)


def end_handshake(engines: Sequence[Engine], socket: Socket) -> None:
    """Ends what `begin_handshake` began. Idempotent."""
    for engine in engines:
        engine.admission.end_handshake(socket)


async def serve(socket: Socket, engines: Sequence[Engine], handle: Callable[[], Awaitable[None]]) -> None:
    """Runs the handler of a socket in the current task.

    Args:
        socket: The socket, in its handshake.
        engines: The engines of the managers that may connect it.
        handle: The handler.

    Raises:
        Exception: The handler raised it, and it says something else than that the client is gone.
    """
    socket.manager.sweeper.watch(socket)
    begin_handshake(engines, socket)
    ended: BaseException | None = None
    try:
        await handle()
    except (WebSocketDisconnect, RuntimeError, InvalidName, BaseExceptionGroup) as error:
        ended = error
        if not is_disconnect(error, informed=socket.handler.informed):
            closed = answer(invalid_name_in(error))
            if closed is None:
                raise
            await socket.reject(CloseCode.INVALID_NAME, closed)
    except asyncio.CancelledError as error:
        ended = error
        if not socket.handler.cancelled:
            raise
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
    except BaseException as error:
        ended = error
        raise
    finally:
        end_handshake(engines, socket)
        await _end(socket, ended)


async def _end(socket: Socket, ended: BaseException | None) -> None:
    socket.handler.end()
    for session in tuple(socket.sessions):
        session.flush()
        session.end(grace=True)
    try:
        if socket.accepted:
            await socket.close(*close_for(ended, stopping=socket.transport.restarting is not False))
        else:
            # Uvicorn records a denial one pass of the loop late. Without this pass, it would log an error.
            await asyncio.sleep(0)
    finally:
        for manager in socket.managers:
            manager.sweeper.release(socket)
        socket.on_handler_end()
