"""Positions: places in a room's stream of messages.

A room that keeps history, or has ``positions=True``, numbers its messages: 1, 2, 3, ... within an epoch. The epoch is a
random string made with the numbering, so that a room that was lost and begun again is not mistaken for the old one. A
server that was restarted goes on counting in a new epoch, and knows where the former one ended. So positions of
different epochs are compared by the broker, and nowhere else.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import NamedTuple

from .errors import InvalidArgument, shown

EPOCH_CHARS = 8
_MAX_EPOCH_CHARS = 64  # in what a client presents


def new_epoch() -> str:
    """A new epoch: 48 random bits in 8 URL-safe characters."""
    return secrets.token_urlsafe(6)


class Position(NamedTuple):
    """A position in the stream of messages of a room: just after message ``offset`` of ``epoch``.

    Attributes:
        epoch: The id of the numbering: 8 characters. It changes when the numbers start again.
        offset: The number of the last message before this position; 0 is before the first.
    """

    epoch: str
    offset: int


class Joined(NamedTuple):
    """The result of a join.

        joined = await connection.join("chat:lobby", since=position)
        if not joined.recovered:
            await connection.send({"type": "reload"})

    Attributes:
        position: The position of the room at the join; None if the room has no positions.
        recovered: Whether the client received everything after the position that it presented. False if it presented
            none, the history does not reach back that far, or the epoch differs.
    """

    position: Position | None
    recovered: bool


def as_position(value: object, argument: str = "since") -> Position:
    """Takes a `Position`, an ``(epoch, offset)`` pair, or ``{"epoch": ..., "offset": ...}`` as a client has it.

    Raises:
        InvalidArgument: It is none of these.
    """
    pair = (value.get("epoch"), value.get("offset")) if isinstance(value, Mapping) else value
    if isinstance(pair, (tuple, list)) and len(pair) == 2:
        epoch, offset = pair
        known = isinstance(epoch, str) and epoch.isascii() and len(epoch) <= _MAX_EPOCH_CHARS
        if known and isinstance(offset, int) and not isinstance(offset, bool) and 0 <= offset < 2**63:
            return Position(epoch, offset)
    raise InvalidArgument(
        argument, f"{shown(value)} is no position", "Position(epoch, offset), or a mapping of room to Position"
    )


def is_place(since: Mapping[object, object]) -> bool:
    """Whether a mapping is one position as clients write it, and not a mapping of room to position."""
    return since.keys() == {"epoch", "offset"} and isinstance(since["epoch"], str)


def since_for(since: object, room: str) -> Position | None:
    """The position that ``since`` (as `connect` and `join` take it) has for a room.

    Raises:
        InvalidArgument: It is no position.
    """
    if since is None:
        return None
    if isinstance(since, Mapping) and not is_place(since):
        places = {str(name): place for name, place in since.items()}
        return None if room not in places else as_position(places[room], f"since[{room!r}]")
    return as_position(since)
