"""One client of an endpoint that sends commands: what the parts of its conversation share.

`Client` writes replies and pushes to the client, closes its socket, and runs functions of the app for it. An exception
of a function becomes the reply to the client, or closes its socket.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final, NoReturn, TypeVar

from starlette.exceptions import WebSocketException
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..close import Closed
from ..codec import Payload
from ..errors import BrokerUnavailable, InvalidName, shown
from ..protocols.centrifugo import CentrifugoProtocol
from ..protocols.centrifugo.codes import DisconnectCode, ErrorCode, closed_as
from ..protocols.centrifugo.encoding import Encoding
from ..protocols.centrifugo.messages import Error, Push, Reply, Result
from ..rooms.refusals import JoinRefused
from .app_client import AppClient
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


class Client(AppClient):
    """Answers one client, and runs functions of the app for it.

    Args:
        served: The functions and settings of the endpoint.
        engine: The engine of the manager.
        websocket: The client's socket.
        protocol: The protocol of the client.

    Attributes:
        encoding: The encoding of commands and replies.
    """

    def __init__(self, served: Served, engine: Engine, websocket: WebSocket, protocol: CentrifugoProtocol) -> None:
        super().__init__(served, engine, websocket)
        self.encoding: Encoding = protocol.encoding
        self._replies: list[Reply | Push] = []

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
