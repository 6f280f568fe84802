"""The types that travel between workers: envelopes and other events of a room, and instructions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple, TypeAlias

from .codec import Payload, decode
from .positions import Position
from .presence import Info


class Author(NamedTuple):
    """The client that published a message itself.

    Attributes:
        user_id: The id of its user; None if it has none.
        client_id: The id under which joins, leaves and presence know it (`PresentConnection.presence_id`).
        info: The ``info`` of its connection, as JSON.
        room_info: The ``info`` of its connection in the room, as JSON.
    """

    user_id: str | None
    client_id: str
    info: bytes = b"null"
    room_info: bytes = b"null"


class Envelope(NamedTuple):
    """A message on a channel.

    Attributes:
        payload: The encoded message.
        exclude: The connections that do not receive the message, by id, and the users of whom no connection does, by
            the names of their own rooms.
        key: With ``overflow="latest"``, a waiting message with the same key is replaced.
        position: The position of the message; None in a room without positions.
        author: The client that published it; None if the server did.
    """

    payload: Payload
    exclude: frozenset[str] = frozenset()
    key: str | None = None
    position: Position | None = None
    author: Author | None = None


@dataclass(frozen=True, slots=True)
class Announcement:
    """The event that a user, or an anonymous connection, joined or left a room.

    Attributes:
        kind: Whether it joined or left.
        user_id: The id of the user; None for an anonymous connection.
        connection_id: The id of the connection with which the user's presence began. It is the same in both events, so
            that a client can match them, unless the broker lost its data in between. For an anonymous connection, its
            own id.
        info: The ``info`` of the user's latest connection, as JSON.
        count: The number of distinct users in the room now. For an anonymous connection, the number of those.
        at: The time of the event (UTC).
        room_info: The ``info`` in this room, as JSON, of the connection that came or went.
    """

    kind: Literal["joined", "left"]
    user_id: str | None
    connection_id: str
    info: bytes
    count: int
    at: datetime
    room_info: bytes = b"null"


@dataclass(frozen=True, slots=True)
class Kick:
    """An instruction: close a user's connections, on every worker.

    Attributes:
        code: The close code.
        reason: The reason.
        age_s: Seconds since the instruction was given, if the broker kept it for a worker that was cut off. Newer
            connections are not affected.
        only: The id of the one connection that is affected. Empty for all of the user.
        spared: The ids of connections that are not affected.
    """

    code: int
    reason: str
    age_s: float = 0.0
    only: str = ""
    spared: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Subscribe:
    """An instruction: put a user's connections into a room, on every worker.

    Attributes:
        room: The room's name.
        age_s: As for `Kick`.
        only: As for `Kick`.
        info: The app's data about the connections in this room, for presence.
    """

    room: str
    age_s: float = 0.0
    only: str = ""
    info: Info = None


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """An instruction: take a user's connections out of a room, on every worker.

    Attributes:
        room: The room's name.
        age_s: As for `Kick`.
        only: As for `Kick`.
    """

    room: str
    age_s: float = 0.0
    only: str = ""


@dataclass(frozen=True, slots=True)
class Refresh:
    """An instruction: change how long a user's connections are authorized, on every worker.

    Attributes:
        expires_at: The end of the authorization, as a Unix time in seconds; None for no end.
        age_s: As for `Kick`.
        only: As for `Kick`.
    """

    expires_at: float | None
    age_s: float = 0.0
    only: str = ""


Instruction: TypeAlias = Kick | Subscribe | Unsubscribe | Refresh
"""An order to all workers about the connections of one user."""


@dataclass(frozen=True, slots=True)
class Reset:
    """The event that messages of a room are lost: later messages do not follow the earlier ones.

    Attributes:
        position: The position of the room. Messages up to it that did not arrive are lost.
    """

    position: Position


@dataclass(frozen=True, slots=True)
class Relabel:
    """The event that a room has a new epoch, and nothing is lost.

    Attributes:
        position: The position of the room as before, in the new epoch.
    """

    position: Position


class Reply(NamedTuple):
    """A reply to a request of another worker.

    Attributes:
        answer: The answer of the worker.
        problem: The reason why it could not answer; empty if it did.
    """

    answer: bytes
    problem: str = ""


class Recorded(NamedTuple):
    """A message in a room's history.

    Attributes:
        position: The position of the message.
        message: The message as it was sent: str, bytes, or a new copy of the value of its JSON.
        sent_at: The time at which the message was published (UTC).
    """

    position: Position
    message: Any
    sent_at: datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """An envelope in a history, and the time at which it was published."""

    envelope: Envelope
    sent_at: datetime

    @property
    def offset(self) -> int:
        """The number of the message."""
        assert self.envelope.position is not None
        return self.envelope.position.offset

    def recorded(self) -> Recorded:
        """Returns the entry as apps see it."""
        assert self.envelope.position is not None
        return Recorded(self.envelope.position, decode(self.envelope.payload), self.sent_at)


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a room's history.

    Attributes:
        entries: Messages, oldest first.
        head: The position of the room when the page was read; None in a room without positions.
        whole: Whether no message is missing between the requested position and the first entry.
    """

    entries: list[Entry]
    head: Position | None
    whole: bool

    @property
    def last(self) -> bool:
        """Whether this is the last page: it ends at the position of the room."""
        if not self.entries:
            return True
        return self.entries[-1].envelope.position == self.head
