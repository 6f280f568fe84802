"""One client of an endpoint: what the parts of its conversation share.

`Client` writes replies and pushes to the client, closes its socket, and runs functions of the app for it. An exception
of a function becomes the reply to the client, or closes its socket.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NoReturn, TypeVar

from starlette.exceptions import WebSocketException
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..close import Closed
from ..codec import Payload
from ..connections.session import Session
from ..connections.socket import Socket
from ..errors import BrokerUnavailable, InvalidName, shown
from ..protocols.centrifugo import CentrifugoProtocol
from ..protocols.centrifugo.codes import DisconnectCode, ErrorCode, closed_as
from ..protocols.centrifugo.encoding import Encoding
from ..protocols.centrifugo.messages import Error, Push, Reply, Result
from ..rooms.memberships import JoinRefused
from .caller import Caller
from .functions import MISSING, NO_NAMES, Function
from .refusals import RoomUnknown, refusal_of
from .served import Engine, Served

logger: Final = logging.getLogger("hubbub")

T = TypeVar("T")


class Ended(Exception):
    """Raised to end the conversation."""


class Refused(Exception):
    """Raised to answer a request with an error."""

    def __init__(self, error: Error) -> None:
        self.error = error


def denied(room: str, why: str) -> Refused:
    """Returns the refusal of a room (103), and logs why for the developer of the app. The client is not told."""
    logger.debug("refused what a client asks of the room %s: %s", shown(room), shown(why, limit=500))
    return Refused(ErrorCode.PERMISSION_DENIED.error())


class Client:
    """Answers one client, and runs functions of the app for it.

    Args:
        served: The functions and settings of the endpoint.
        engine: The engine of the manager.
        websocket: The client's socket.
        protocol: The protocol of the client.

    Attributes:
        served: The functions and settings of the endpoint.
        engine: The engine of the manager.
        websocket: The client's socket, for functions of the app.
        socket: The client's socket.
        encoding: The encoding of commands and replies.
        session: The connection in the manager. Exists once the client has authenticated.
        caller: The client as functions and their dependencies see it. None until ``@connect`` has returned.
    """

    session: Session

    def __init__(self, served: Served, engine: Engine, websocket: WebSocket, protocol: CentrifugoProtocol) -> None:
        self.served = served
        self.engine = engine
        self.websocket = websocket
        self.socket: Socket = websocket.scope["hubbub"]
        self.encoding: Encoding = protocol.encoding
        self.caller: Caller | None = None
        self._replies: list[Reply | Push] = []

    def is_subscribed(self, name: str) -> bool:
        """Returns whether the client is in a room, other than those whose names are the server's own."""
        return name[:1] != "$" and name in self.session.memberships

    # Out

    def say(self, reply: Reply | Push) -> None:
        """Queues a reply or push. All of one pass of the event loop are written together, at its end."""
        if not self._replies:
            asyncio.get_running_loop().call_soon(self.write)
        self._replies.append(reply)

    def write(self) -> None:
        """Writes the queued replies and pushes."""
        if self._replies and self.socket.closed is None:
            self.socket.flush()  # so that the replies arrive after the messages that the functions published
            replies, self._replies = self._replies, []
            self.socket.writer.write(self._encoded(replies))

    def _encoded(self, replies: Sequence[Reply | Push]) -> bytes:
        try:
            return self.encoding.encode(replies)
        except Exception:
            return self.encoding.encode([self._sound(each) for each in replies])

    def _sound(self, reply: Reply | Push) -> Reply | Push:
        """Returns the reply, or an error in its place if it can't be encoded, so that the others are not lost."""
        try:
            self.encoding.written(reply)
        except Exception as error:
            self.engine.counters.errors["function"] += 1
            logger.error("a reply can't be encoded", exc_info=error)
            if isinstance(reply, Reply):
                return Reply(reply.id, ErrorCode.INTERNAL.error())
            raise
        return reply

    async def close(self, cause: DisconnectCode | Closed, reason: str = "") -> NoReturn:
        """Closes the socket, and ends the conversation.

        Raises:
            Ended: Always.
        """
        self.write()
        await self.socket.close(*(cause.closed(reason) if isinstance(cause, DisconnectCode) else cause))
        raise Ended

    async def answer(self, number: int, work: Coroutine[Any, Any, Result | Error | None]) -> None:
        """Replies to a command with the result of its work, or with the error that the work raises.

        Args:
            number: The id of the command.
            work: Returns None if no reply is needed, or if it has replied itself.
        """
        try:
            result = await work
        except (Ended, WebSocketDisconnect):
            return
        except Refused as refused:
            result = refused.error
        except JoinRefused:
            result = ErrorCode.LIMIT_EXCEEDED.error()
        except BrokerUnavailable:
            result = ErrorCode.INTERNAL.error("the broker is unavailable")
        except Exception as error:
            self.engine.counters.errors["function"] += 1
            logger.error("a command can't be answered", exc_info=error)
            result = ErrorCode.INTERNAL.error()
        if result is not None:
            self.say(Reply(number, result))

    # Functions of the app

    async def call(
        self,
        function: Function[T],
        data: Payload | None,
        names: Mapping[str, str] = NO_NAMES,
        caller: Caller | None = None,
    ) -> T:
        """Calls a function of the app.

        Args:
            function: The function.
            data: The message.
            names: The parts of the room's name.
            caller: The client, before ``caller`` is set.

        Raises:
            Refused: The function refused or failed. The exception holds the reply.
            Ended: The function closed the connection.
        """
        caller = caller or self.caller
        assert caller is not None
        message = MISSING if data is None else data.data
        try:
            return await self.awaited(function, function(caller, message, names, is_encoded=data is not None))
        except Exception as error:
            raise Refused(await self.error(error, function)) from error

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

    async def error(self, error: Exception, function: Function[Any]) -> Error:
        """Converts an exception of a function into the error that the client receives.

        Raises:
            Ended: The connection has ended, or the exception says to end it.
        """
        if isinstance(error, WebSocketDisconnect) and self.socket.closed is not None:
            raise Ended from error
        if isinstance(error, WebSocketException) and _is_sound(error.code, error.reason):
            await self.close(closed_as(error.code, error.reason))
        if isinstance(error, RoomUnknown):
            return ErrorCode.UNKNOWN_CHANNEL.error()
        refusal = refusal_of(error)
        if refusal is not None:
            return Error(refusal.code, refusal.reason, refusal.temporary)
        if isinstance(error, InvalidName):
            return ErrorCode.BAD_REQUEST.error(str(error))
        if isinstance(error, BrokerUnavailable):
            return ErrorCode.INTERNAL.error()
        self.engine.counters.errors["function"] += 1
        logger.error("%s failed", function.name, exc_info=error)
        return ErrorCode.INTERNAL.error()


def _is_sound(code: object, reason: object) -> bool:
    """Returns whether an app's WebSocketException can become a Close frame. Otherwise, it is an error of the app."""
    return isinstance(code, int) and isinstance(reason, str)


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
