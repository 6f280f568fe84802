"""The reasons for which a room does not take a session."""

from __future__ import annotations

from ..close import CloseCode


class JoinRefused(Exception):
    """A join exceeds a limit.

    Attributes:
        cause: The close code for the connection.
    """

    cause: CloseCode


class RoomIsFull(JoinRefused):
    """The room has as many members as its options allow."""

    cause = CloseCode.ROOM_FULL


class TooManyRooms(JoinRefused):
    """The session is in as many rooms as the limits allow."""

    cause = CloseCode.TOO_MANY_ROOMS
