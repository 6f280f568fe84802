"""The contract of an encoding: it parses the commands of a client, and writes replies and pushes as frames.

Every byte string is either a list of commands or a `BadRequest`, in time and memory proportional to its length.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal

from ...codec import Payload
from ...errors import HubbubError
from ..frames import Opcode, frame
from .messages import ClientInfo, Command, Pong, Push, Reply, SendRequest

MAX_COMMANDS: Final = 512
"""Commands in one frame. A client that reconnects sends one, and one for each of its 256 rooms."""

MAX_COMMAND_ID: Final = 2**32 - 1


class BadRequest(HubbubError, ValueError):
    """A message from a client is not a list of commands. The text says why. The connection is closed with 3501."""


class Encoding(ABC):
    """One wire format for messages. Keeps no state.

    Attributes:
        name: The name that clients use.
        subprotocol: The WebSocket subprotocol that selects it.
        opcode: The kind of its frames.
        ping: The frame that asks a client for a `Pong`.
    """

    __slots__ = ()

    name: ClassVar[Literal["json", "protobuf"]]
    subprotocol: ClassVar[str]
    opcode: ClassVar[Opcode]
    ping: ClassVar[bytes]

    @abstractmethod
    def decode(self, data: str | bytes) -> list[Command]:
        """Parses a message from a client: one or more commands, in order.

        Args:
            data: A text or binary message. JSON may come as either.

        Raises:
            BadRequest: The message is anything else, or has more than `MAX_COMMANDS` commands.
        """

    def encode(self, replies: Iterable[Reply | Push]) -> bytes:
        """Writes replies and pushes, in order, as one frame."""
        return frame(self.opcode, self.joined([self.written(each) for each in replies]))

    @abstractmethod
    def written(self, reply: Reply | Push) -> bytes:
        """Writes one reply or push, without a frame around it."""

    @abstractmethod
    def joined(self, written: Sequence[bytes]) -> bytes:
        """Joins written replies and pushes into one message."""

    @abstractmethod
    def publication(
        self,
        channel: str,
        payload: Payload,
        offset: int = 0,
        info: ClientInfo | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> bytes:
        """Writes the frame of a `Push` with a `Publication`. It does the same as `encode`, faster."""


_PONG: Final = Command(0, Pong())


def command(number: int, requests: Sequence[Any], size: int) -> Command:
    """Makes a command of its id, the known requests in it, and its size.

    Raises:
        BadRequest: The command is malformed.
    """
    if not requests:
        if number:
            raise BadRequest("a command with an id and no request that is known here")
        return _PONG
    if len(requests) > 1:
        raise BadRequest(f"a command with {len(requests)} requests")
    (request,) = requests
    if not number and type(request) is not SendRequest:
        raise BadRequest(f"{type(request).__name__} without an id")
    if getattr(request, "channel", None) == "":
        raise BadRequest(f"{type(request).__name__} without a channel")
    return Command(number, request, size)
