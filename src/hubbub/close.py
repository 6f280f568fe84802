"""The close codes that hubbub uses, and what each means.

Codes are those of RFC 6455 section 7.4.1 and the IANA registry. A browser sees the code and the reason, so
that several causes share a code and differ in the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, NamedTuple

MAX_REASON_BYTES: Final = 123
"""The longest reason that a Close frame carries (RFC 6455 section 5.5)."""

_STANDARD = frozenset((1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014))


def is_sendable(code: object) -> bool:
    """Whether a Close frame may carry a code: the defined ones and 3000 to 4999 (RFC 6455 section 7.4)."""
    return isinstance(code, int) and not isinstance(code, bool) and (code in _STANDARD or 3000 <= code <= 4999)


def sendable(code: int) -> int:
    """The code, or 1011 where a Close frame can't carry it."""
    return code if is_sendable(code) else 1011


def reason_text(value: object) -> str:
    """Gives a reason that a Close frame carries; what is too long is cut off.

    Args:
        value: A str; or the errors of a validation, of which only the places and messages are told, not the input.
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
    """Why a connection is closed.

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
    """How a socket ended, or is to end: what the Close frame says."""

    code: int
    reason: str
