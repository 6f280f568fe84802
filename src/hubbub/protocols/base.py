"""The contract of a client protocol: how what happens looks on the wire of one kind of client.

Theory of operation. Rooms, fan-out, outboxes and brokers carry events: an `Envelope`, an `Announcement`, a `Reset`, a
`Relabel`. Each member of a room speaks one protocol, and an event becomes one frame for each protocol that has members
there, made when it is first needed. A protocol is one object for all connections that speak it. It keeps no state of
any of them.

Every method that returns ``bytes`` returns whole frames, ready to be written to the socket. ``None`` means that this
protocol says nothing of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from ..codec import Payload
from ..envelope import Announcement, Envelope, Relabel, Reset
from ..options import RoomOptions
from ..positions import Joined


class RoomInfo(Protocol):
    """What a protocol may know of a room."""

    @property
    def label(self) -> str:
        """The room's name as clients see it."""

    @property
    def options(self) -> RoomOptions: ...


class ClientProtocol(ABC):
    """One wire format."""

    __slots__ = ()

    # To the members of a room

    @abstractmethod
    def publication(self, room: RoomInfo, message: Envelope) -> bytes | None:
        """A message that was published in a room."""

    @abstractmethod
    def exclusion(self, room: RoomInfo, message: Envelope) -> bytes | None:
        """What a member gets in place of a message that it is excluded from."""

    @abstractmethod
    def announcement(self, room: RoomInfo, news: Announcement) -> bytes | None:
        """A user joined the room, or left it."""

    @abstractmethod
    def renumbering(self, room: RoomInfo, news: Reset | Relabel) -> bytes | None:
        """The room goes on at another position: with `Reset` some messages are lost, with `Relabel` none is."""

    # To one connection

    @abstractmethod
    def message(self, payload: Payload) -> bytes:
        """A message that is sent to this connection alone."""

    @abstractmethod
    def joined(self, room: RoomInfo, joined: Joined, connection_id: str) -> bytes | None:
        """The connection is in a room from here on; comes before anything from that room."""

    @abstractmethod
    def dropped(self, room: str, count: int) -> bytes | None:
        """A slow connection has caught up, and missed so many messages of a room, which overflow dropped."""

    @abstractmethod
    def error(self, code: str, problem: str) -> bytes | None:
        """A message of the client was refused; ``problem`` is a sentence for its developer."""

    # From a client

    @abstractmethod
    def reply(self, text: str | None, data: bytes | None) -> bytes | None:
        """Answers a message that is for the protocol itself, such as a ping; None for a message that is for the app.

        Args:
            text: The message, if it came in a text frame.
            data: The message, if it came in a binary frame.
        """
