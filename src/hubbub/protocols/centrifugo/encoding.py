"""The contract of an encoding: it parses the commands of a client, and writes replies and pushes as frames.

Its frames are those of a WebSocket, or those of a stream for a client that has none (`streams`).

Every byte string is either a list of commands or a `BadRequest`, in time and memory proportional to its length.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final, Literal, NamedTuple

from ...codec import Payload
from ...errors import HubbubError
from ..frames import Opcode, frame
from .messages import ClientInfo, Command, Pong, Push, Reply, SendRequest

MAX_COMMANDS: Final = 512
"""Commands in one frame. A client that reconnects sends one, and one for each of its 256 rooms."""

MAX_COMMAND_ID: Final = 2**32 - 1


class BadRequest(HubbubError, ValueError):
    """A message from a client is not a list of commands. The text says why. The connection is closed with 3501."""


class Post(NamedTuple):
    """A request with the commands of a client that has a stream in the place of a WebSocket.

    Attributes:
        session: The secret of its connection.
        node: The worker that has the connection.
        data: A message from the client: one or more commands.
    """

    session: str
    node: str
    data: str | bytes


class Encoding(ABC):
    """One wire format for messages. Keeps no state.

    Args:
        framed: Makes a frame of a message; None for the frames of a WebSocket.

    Attributes:
        name: The name that clients use.
        subprotocol: The WebSocket subprotocol that selects it.
        media_type: The ``Content-Type`` of a request with commands.
        opcode: The kind of its frames.
        empty: The message without replies, which asks a client for a `Pong`.
        ping: The frame of that message.
    """

    __slots__ = ("_framed", "ping")

    name: ClassVar[Literal["json", "protobuf"]]
    subprotocol: ClassVar[str]
    media_type: ClassVar[str]
    opcode: ClassVar[Opcode]
    empty: ClassVar[bytes]

    def __init__(self, framed: Callable[[bytes], bytes] | None = None) -> None:
        self._framed = partial(frame, self.opcode) if framed is None else framed
        self.ping: bytes = self._framed(self.empty)

    @abstractmethod
    def decode(self, data: str | bytes) -> list[Command]:
        """Parses a message from a client: one or more commands, in order.

        Args:
            data: A text or binary message. JSON may come as either.

        Raises:
            BadRequest: The message is anything else, or has more than `MAX_COMMANDS` commands.
        """

    @abstractmethod
    def posted(self, body: bytes) -> Post:
        """Parses the body of a request with commands.

        Raises:
            BadRequest: The body is anything else.
        """

    def encode(self, replies: Iterable[Reply | Push]) -> bytes:
        """Writes replies and pushes, in order, as one frame."""
        return self._framed(self.joined([self.written(each) for each in replies]))

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
