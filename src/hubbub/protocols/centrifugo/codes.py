"""The codes of the protocol: errors, ends of subscriptions, and ends of connections.

An SDK decides by the close code alone whether it reconnects. It does after 3000 to 3499 and 4000 to 4499, with
backoff, and never after 3500 to 3999 and 4500 to 4999. Below 3000 it retries forever, except after 1009, so the codes
of RFC 6455 can't end the connection of an SDK. `closed_as` translates them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from typing import Final

from ...close import MAX_REASON_BYTES, CloseCode, Closed, reason_text
from .messages import Error, Unsubscribe

APP_ERROR_CODES: Final = range(400, 2000)
"""The codes of errors that are the app's own."""


class ErrorCode(Enum):
    """Reasons for refusing a request.

    Attributes:
        code: The number.
        message: The text for the developer of the client.
        temporary: Whether an SDK may retry, as it does for subscribing and for refreshing a token.
    """

    INTERNAL = 100, "internal server error", True
    UNAUTHORIZED = 101, "unauthorized", False
    UNKNOWN_CHANNEL = 102, "unknown channel", False
    PERMISSION_DENIED = 103, "permission denied", False
    METHOD_NOT_FOUND = 104, "method not found", False
    ALREADY_SUBSCRIBED = 105, "already subscribed", False
    LIMIT_EXCEEDED = 106, "limit exceeded", False
    BAD_REQUEST = 107, "bad request", False
    NOT_AVAILABLE = 108, "not available", False
    TOKEN_EXPIRED = 109, "token expired", False
    EXPIRED = 110, "expired", False
    TOO_MANY_REQUESTS = 111, "too many requests", True
    UNRECOVERABLE_POSITION = 112, "unrecoverable position", False
    CONCURRENT_PAGINATION = 113, "concurrent pagination", True

    def __init__(self, code: int, message: str, temporary: bool) -> None:
        self.code = code
        self.message = message
        self.temporary = temporary

    def error(self, message: str | None = None) -> Error:
        """Makes the reply, with a more specific message if there is one."""
        return Error(self.code, self.message if message is None else message, self.temporary)


class UnsubscribeCode(Enum):
    """Reasons for ending a subscription.

    Attributes:
        code: The number.
        reason: The text for the developer of the client.
    """

    SERVER = 2000, "server unsubscribe"
    INSUFFICIENT_STATE = 2500, "insufficient state"
    EXPIRED = 2501, "subscription expired"
    STATE_INVALIDATED = 2502, "state invalidated"

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason

    @property
    def resubscribes(self) -> bool:
        """Whether the SDK subscribes again."""
        return self.code >= 2500

    def push(self) -> Unsubscribe:
        return Unsubscribe(self.code, self.reason)


class DisconnectCode(Enum):
    """Reasons for ending a connection.

    Attributes:
        code: The number in the Close frame.
        reason: The text in the Close frame.
    """

    CLOSED = 3000, "connection closed"
    SHUTDOWN = 3001, "shutdown"
    INTERNAL = 3004, "internal server error"
    EXPIRED = 3005, "connection expired"
    SUBSCRIPTION_EXPIRED = 3006, "subscription expired"
    SLOW = 3008, "slow"
    WRITE_ERROR = 3009, "write error"
    INSUFFICIENT_STATE = 3010, "insufficient state"
    FORCE_RECONNECT = 3011, "force reconnect"
    NO_PONG = 3012, "no pong"
    TOO_MANY_REQUESTS = 3013, "too many requests"
    STATE_INVALIDATED = 3014, "state invalidated"

    INVALID_TOKEN = 3500, "invalid token"
    BAD_REQUEST = 3501, "bad request"
    STALE = 3502, "stale"
    FORCE_DISCONNECT = 3503, "force disconnect"
    CONNECTION_LIMIT = 3504, "connection limit"
    CHANNEL_LIMIT = 3505, "channel limit"
    INAPPROPRIATE_PROTOCOL = 3506, "inappropriate protocol"
    PERMISSION_DENIED = 3507, "permission denied"
    NOT_AVAILABLE = 3508, "not available"
    TOO_MANY_ERRORS = 3509, "too many errors"

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason

    @property
    def reconnects(self) -> bool:
        """Whether the SDK reconnects."""
        return reconnects(self.code)

    def closed(self, reason: str = "") -> Closed:
        """The content of the Close frame, with a more specific reason if there is one."""
        return Closed(self.code, safe_reason(reason) or self.reason)


def reconnects(code: int) -> bool:
    """Whether an SDK reconnects after a Close frame with this code."""
    return code != 1009 and not (3500 <= code <= 3999 or 4500 <= code <= 4999)


_REASONS: Final = {each.code: each.reason for each in DisconnectCode}
_BY_NUMBER: Final[Mapping[int, DisconnectCode]] = {
    1000: DisconnectCode.FORCE_DISCONNECT,  # the app has done with the client
    1001: DisconnectCode.SHUTDOWN,
    1002: DisconnectCode.BAD_REQUEST,
    1003: DisconnectCode.BAD_REQUEST,
    1007: DisconnectCode.BAD_REQUEST,
    1008: DisconnectCode.PERMISSION_DENIED,
    1009: DisconnectCode.BAD_REQUEST,
    1010: DisconnectCode.BAD_REQUEST,
    1011: DisconnectCode.INTERNAL,
    1012: DisconnectCode.SHUTDOWN,
    1013: DisconnectCode.INTERNAL,
    1014: DisconnectCode.INTERNAL,
}
_BY_CAUSE: Final[Mapping[CloseCode, DisconnectCode]] = {
    CloseCode.INVALID_DATA: DisconnectCode.TOO_MANY_ERRORS,
    CloseCode.UNAUTHORIZED: DisconnectCode.INVALID_TOKEN,
    CloseCode.TOKEN_EXPIRED: DisconnectCode.EXPIRED,
    CloseCode.KICKED: DisconnectCode.FORCE_DISCONNECT,
    # It reconnects, with backoff: a burst must not end an app for good. A client that sends invalid messages is final.
    CloseCode.RATE_LIMITED: DisconnectCode.TOO_MANY_REQUESTS,
    CloseCode.TOO_MANY_USER_CONNECTIONS: DisconnectCode.CONNECTION_LIMIT,
    CloseCode.TOO_MANY_ADDRESS_CONNECTIONS: DisconnectCode.CONNECTION_LIMIT,
    CloseCode.TOO_MANY_ROOMS: DisconnectCode.CHANNEL_LIMIT,
    CloseCode.MESSAGE_TOO_SLOW: DisconnectCode.SLOW,
    CloseCode.SLOW_CONSUMER: DisconnectCode.SLOW,
}
_BY_CLOSE_FRAME: Final = {(cause.code, cause.reason): code for cause, code in _BY_CAUSE.items()}


def closed_as(code: int, reason: str = "") -> Closed:
    """Translates a close code of hubbub or of the app for an SDK.

    Codes from 3000 to 4999 stay: with them an app decides whether the SDK reconnects. A `CloseCode` is recognized by
    its code and reason, since an instruction from another worker carries no more. A reason that was given stays. There
    always is one: without a reason, the JavaScript SDK reconnects whatever the code.
    """
    if 3000 <= code <= 4999:
        return Closed(code, safe_reason(reason) or _REASONS.get(code, "closed by the app"))
    found = _BY_CLOSE_FRAME.get((code, reason)) or _BY_NUMBER.get(code, DisconnectCode.INTERNAL)
    return found.closed(reason)


def safe_reason(reason: str) -> str:
    """Makes a reason fit into a Close frame, and not valid JSON, which an SDK would parse."""
    text = reason_text(reason)
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text.encode()[: MAX_REASON_BYTES - 1].decode(errors="ignore") + "."
