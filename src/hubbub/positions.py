"""Positions: places in a room's messages.

A room that keeps history numbers its messages within an epoch: 1, 2, 3, ... An epoch is a random string that identifies
one numbering, so that a room that was lost and created again is not mistaken for the old one. A Redis server that
restarts continues to count in a new epoch, and records where the former one ended. So only the broker can compare
positions of different epochs.
"""

from __future__ import annotations

import secrets
from typing import NamedTuple

from .errors import InvalidArgument, shown

EPOCH_CHARS = 8
_MAX_EPOCH_CHARS = 64  # in a position that a client presents


def new_epoch() -> str:
    """Returns a new epoch: 48 random bits in 8 URL-safe characters."""
    return secrets.token_urlsafe(6)


class Position(NamedTuple):
    """A position in a room's messages: just after message ``offset`` of ``epoch``.

    Attributes:
        epoch: The id of the numbering: 8 characters. It changes when the numbers start again.
        offset: The number of the last message before this position; 0 is before the first.
    """

    epoch: str
    offset: int


class Joined(NamedTuple):
    """The result of a join.

    Attributes:
        position: The position of the room at the join. If the connection receives the newest messages first
            (`RoomOptions.replay`), the position before them. None if the room has no positions.
        recovered: Whether the client received everything after the position that it presented. False if it presented
            none, the history does not reach back that far, or the epoch differs.
    """

    position: Position | None
    recovered: bool


def as_position(value: object, argument: str = "since") -> Position:
    """Converts an ``(epoch, offset)`` pair to a `Position`.

    Raises:
        InvalidArgument: The value is no such pair.
    """
    if isinstance(value, (tuple, list)) and len(value) == 2:
        epoch, offset = value
        known = isinstance(epoch, str) and epoch.isascii() and len(epoch) <= _MAX_EPOCH_CHARS
        if known and isinstance(offset, int) and not isinstance(offset, bool) and 0 <= offset < 2**63:
            return Position(epoch, offset)
    raise InvalidArgument(argument, f"{shown(value)} is not a position", "Position(epoch, offset)")
