"""The contract of a client protocol: how events look to one kind of client.

Theory of operation. Rooms, fan-out, outboxes and brokers carry events: an `Envelope` or an `Announcement`. Each member
of a room speaks one protocol. An event becomes one frame for each protocol that has members in the room, made when it
is first needed. A protocol is one object for all connections that speak it, and keeps no state of any of them, unless
it says that it is of one connection only (`is_shared`).

Every method that returns ``bytes`` returns whole frames, ready to be written to the socket. ``None`` means that the
protocol has no frame for the event.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

from ..close import Closed
from ..codec import Payload
from ..envelope import Announcement, Envelope


class RoomInfo(Protocol):
    """A room, as far as a protocol needs it."""

    @property
    def label(self) -> str:
        """The room's name as its clients see it."""


class ClientProtocol(ABC):
    """A wire format: makes the frames of events, and reads the messages of clients that are for hubbub.

    Attributes:
        is_shared: Whether it is the protocol of several connections, so that its frames are worth keeping.
    """

    __slots__ = ()

    is_shared: ClassVar[bool] = True

    # To the members of a room

    @abstractmethod
    def publication(self, room: RoomInfo, message: Envelope) -> bytes | None:
        """Returns the frame of a message that was published to a room."""

    @abstractmethod
    def announcement(self, room: RoomInfo, event: Announcement) -> bytes | None:
        """Returns the frame that tells that a user or an anonymous connection joined or left the room."""

    # To one connection

    @abstractmethod
    def message(self, payload: Payload) -> bytes:
        """Returns the frame of a message that is sent to one connection only."""

    @abstractmethod
    def error(self, code: str, problem: str) -> bytes | None:
        """Returns the frame that tells a client that its message was refused. ``problem`` is for its developer."""

    def closed(self, code: int, reason: str) -> Closed:
        """Returns the code and reason of the Close frame for a code and reason of hubbub or of the app."""
        return Closed(code, reason)

    # From a client

    @abstractmethod
    def reply(self, text: str | None, data: bytes | None) -> bytes | None:
        """Returns the answer to a message for the protocol itself, such as a ping; None if it is for the app.

        Args:
            text: The message, if it came in a text frame.
            data: The message, if it came in a binary frame.
        """


class StreamProtocol(ClientProtocol):
    """The protocol of clients that read an HTTP response. All frames are chunks."""

    __slots__ = ()

    @property
    @abstractmethod
    def media_type(self) -> str:
        """The ``Content-Type`` of the response."""

    @abstractmethod
    def ending(self, closed: Closed, retry_ms: int) -> bytes:
        """Returns the last frame of a stream that the server ends.

        Args:
            closed: The cause.
            retry_ms: Milliseconds after which the client should come back.
        """
