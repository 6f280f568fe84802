"""The close codes that hubbub uses, each with its reason.

The codes are those of RFC 6455 section 7.4.1 and the IANA registry. A browser shows a page both the code and the
reason, so several causes may share a code and differ in the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, NamedTuple

MAX_REASON_BYTES: Final = 123
"""The longest reason that a Close frame can carry (RFC 6455 section 5.5)."""

_STANDARD = frozenset((1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014))


def is_sendable(code: object) -> bool:
    """Returns whether a Close frame may carry a code: a defined one, or 3000 to 4999 (RFC 6455 section 7.4)."""
    return isinstance(code, int) and not isinstance(code, bool) and (code in _STANDARD or 3000 <= code <= 4999)


def sendable(code: int) -> int:
    """Returns the code, or 1011 if a Close frame can't carry it."""
    return code if is_sendable(code) else 1011


def reason_text(value: object) -> str:
    """Returns the reason for a Close frame, cut off at `MAX_REASON_BYTES`.

    Args:
        value: A str, or a list of validation errors. The reason has the locations and messages of these errors, but not
            the input. Any other value gives an empty reason.
    """
    if isinstance(value, (list, tuple)):
        value = "; ".join(_problem(each) for each in value if isinstance(each, Mapping))
    if not isinstance(value, str):
        return ""
    return value.encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore")


def _problem(error: Mapping[object, object]) -> str:
    place = error.get("loc")
    parts = [str(part) for part in place] if isinstance(place, (list, tuple)) else []
    return f"{'.'.join(parts)}: {error.get('msg')}" if parts else str(error.get("msg"))


class CloseCode(Enum):
    """A cause for which a connection is closed, with the code and the reason that its Close frame carries.

    Attributes:
        code: The number in the Close frame.
        reason: The text in the Close frame, at most 123 bytes.
    """

    NORMAL = 1000, ""
    GOING_AWAY = 1001, ""
    INVALID_DATA = 1007, "too many invalid messages"
    UNAUTHORIZED = 1008, "unauthorized"
    ORIGIN = 1008, "origin not allowed"
    TOKEN_EXPIRED = 1008, "token expired"
    KICKED = 1008, "disconnected by the server"
    INVALID_NAME = 1008, "not an acceptable name"
    RATE_LIMITED = 1008, "too many messages"
    TOO_MANY_USER_CONNECTIONS = 1008, "too many connections of this user"
    TOO_MANY_ADDRESS_CONNECTIONS = 1008, "too many connections from this address"
    TOO_MANY_ROOMS = 1008, "too many rooms"
    ROOM_FULL = 1008, "the room is full"
    MESSAGE_TOO_BIG = 1009, "message too big"
    MESSAGE_TOO_SLOW = 1009, "message not complete in time"
    INTERNAL_ERROR = 1011, ""
    SERVICE_RESTART = 1012, ""
    IDLE = 1013, "idle"
    SLOW_CONSUMER = 1013, "slow consumer"
    BROKER_UNAVAILABLE = 1013, "try again later"
    TOO_MANY_CONNECTIONS = 1013, "too many connections"

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason


class Closed(NamedTuple):
    """The code and the reason with which a socket has ended or will end."""

    code: int
    reason: str
