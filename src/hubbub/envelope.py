"""What travels between workers: messages that are encoded once, instructions, and news of a room."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple, TypeAlias

from .codec import Payload, decode
from .positions import Position


class Envelope(NamedTuple):
    """A message on a channel.

    Attributes:
        payload: The encoded message.
        exclude: Ids of the connections that are not to get it, and the own rooms of users none of whose may.
        key: What ``overflow="latest"`` replaces by.
        position: Its place in the room's stream; None in a room without positions.
    """

    payload: Payload
    exclude: frozenset[str] = frozenset()
    key: str | None = None
    position: Position | None = None


@dataclass(frozen=True, slots=True)
class Announcement:
    """News of a room: the presence of a user began or ended.

    Attributes:
        kind: Whether the user joined or left.
        user_id: The user.
        connection_id: The connection with which the presence began. The same for both kinds, so that a client can match
            them, unless the broker lost its data in between.
        info: The ``info`` of the user's latest connection, as JSON.
        count: Distinct users in the room now.
        at: When it happened (UTC).
    """

    kind: Literal["joined", "left"]
    user_id: str
    connection_id: str
    info: bytes
    count: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Kick:
    """An instruction: close a user's connections, on every worker.

    Attributes:
        code: The close code.
        reason: The reason.
        age_s: For how many seconds it was kept for a worker that was cut off. Younger connections are not affected.
    """

    code: int
    reason: str
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Subscribe:
    """An instruction: put a user's connections into a room, on every worker.

    Attributes:
        room: The room's name.
        age_s: As for `Kick`.
    """

    room: str
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """An instruction: take a user's connections out of a room, on every worker.

    Attributes:
        room: The room's name.
        age_s: As for `Kick`.
    """

    room: str
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Refresh:
    """An instruction: change how long a user's connections are authorized, on every worker.

    Attributes:
        expires_at: The end of the authorization, as a Unix time in seconds; None for no end.
        age_s: As for `Kick`.
    """

    expires_at: float | None
    age_s: float = 0.0


Instruction: TypeAlias = Kick | Subscribe | Unsubscribe | Refresh
"""What all workers do with the connections of one user."""


@dataclass(frozen=True, slots=True)
class Reset:
    """News of a room: what comes after this position does not follow what came before it.

    Attributes:
        position: Where the room is; what is up to it and did not come is lost.
    """

    position: Position


@dataclass(frozen=True, slots=True)
class Relabel:
    """News of a room: its place has a new epoch, and nothing is lost.

    Attributes:
        position: The same place as before, in the new epoch.
    """

    position: Position


class Recorded(NamedTuple):
    """A message of a room's history.

    Attributes:
        position: Its place in the room's stream.
        message: The message as it was sent: str, bytes, or a new copy of what its JSON says.
        sent_at: When it was published (UTC).
    """

    position: Position
    message: Any
    sent_at: datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """An envelope that is kept, and when it was published."""

    envelope: Envelope
    sent_at: datetime

    def recorded(self) -> Recorded:
        assert self.envelope.position is not None
        return Recorded(self.envelope.position, decode(self.envelope.payload), self.sent_at)


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a room's history.

    Attributes:
        entries: Kept messages, oldest first.
        head: The room's position when this was read; None in a room without positions.
        whole: Whether nothing is missing between the position asked for and the first entry.
    """

    entries: list[Entry]
    head: Position | None
    whole: bool

    @property
    def last(self) -> bool:
        """Whether there is nothing after this page."""
        if not self.entries:
            return True
        return self.entries[-1].envelope.position == self.head
