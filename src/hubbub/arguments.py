"""Checks and converts the arguments that apps pass to the manager."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final, TypeGuard

from .close import is_sendable
from .codec import dumps, loads
from .errors import InvalidArgument, InvalidName, shown
from .names import RoomName, UserId, is_connection_id, is_name, room_name, user_name, user_room
from .presence import Info

MAX_KEY_BYTES: Final = 65_534
MAX_CLIENT_INFO_BYTES: Final = 4096
EXCLUDABLE: Final = "a Connection, a WebSocket, a connection's id, or several of them; users by exclude_users="
_FAR_FUTURE_S = 1e12


def room_names(room: RoomName | None, rooms: Iterable[RoomName], *, takes_room: bool = True) -> list[str]:
    """Returns the names of the rooms to join, each once, in order.

    Args:
        room: A room, beside the others.
        rooms: The others.
        takes_room: Whether the app can name one room with ``room=``, for errors.
    """
    if isinstance(rooms, (str, bytes)):
        one = "room=" if takes_room else f"rooms=[{shown(rooms)}]"
        raise InvalidArgument("rooms", f"got {shown(rooms)}", f"several room names; one alone is {one}")
    try:
        several = list(rooms)
    except TypeError:
        raise InvalidArgument("rooms", f"got {shown(rooms)}", "an iterable of room names") from None
    names = [] if room is None else [room_name(room)]
    names += [room_name(each, f"rooms[{index}]") for index, each in enumerate(several)]
    return list(dict.fromkeys(names))


def detached_info(info: object) -> Info:
    """Returns a copy of ``info`` after a round trip through JSON, as every broker returns it."""
    if info is None:
        return None
    if not isinstance(info, Mapping):
        raise InvalidArgument("info", f"got {shown(info)}", "a mapping that can be written as JSON, or None")
    try:
        detached: Info = loads(dumps(info if isinstance(info, dict) else dict(info)))
        return detached
    except InvalidArgument as error:
        raise InvalidArgument("info", error.problem, "a mapping that can be written as JSON, or None") from None


def client_info(info: object) -> Info:
    """Checks the data about a client that many messages carry, and returns a copy of it."""
    detached = detached_info(info)
    if detached is not None and len(dumps(detached)) > MAX_CLIENT_INFO_BYTES:
        raise InvalidArgument("info", "it is too large as JSON", f"at most {MAX_CLIENT_INFO_BYTES} bytes")
    return detached


def is_text(value: object) -> TypeGuard[str]:
    """Returns whether a value is a str that can be encoded as UTF-8. One with a lone surrogate can't."""
    try:
        return isinstance(value, str) and bool(value.isascii() or value.encode())
    except UnicodeEncodeError:
        return False


def connection_id(item: str) -> str:
    """Checks the id of a connection that a publish excludes, and returns it."""
    if not is_connection_id(item):
        raise InvalidArgument("exclude", f"{shown(item)} is not the id of a connection", EXCLUDABLE)
    return item


def excluded_users(users: UserId | Iterable[UserId] | None) -> frozenset[str]:
    """Returns the names of the own rooms of the users that a publish excludes. No connection id looks like one."""
    if users is None:
        return frozenset()
    if is_name(users):
        users = (users,)
    # A WebSocket is a mapping too: the keys of its ASGI scope would be taken for users.
    elif isinstance(users, (bytes, Mapping)) or not isinstance(users, Iterable):
        raise InvalidArgument("exclude_users", f"got {shown(users)}", "a user id, or several of them")
    return frozenset(user_room(user_name(user, "exclude_users")) for user in users)


def message_key(key: object) -> str | None:
    """Checks the key by which ``overflow="latest"`` replaces messages, and returns it."""
    if key is not None and (not is_text(key) or len(key.encode()) > MAX_KEY_BYTES):
        error = InvalidName if isinstance(key, str) else InvalidArgument
        raise error("key", f"got {shown(key)}", f"a str of at most {MAX_KEY_BYTES} bytes, or None")
    return key


def timestamp(expires_at: datetime | float | None) -> float | None:
    """Converts ``expires_at`` to seconds since the epoch. A naive datetime is in UTC."""
    if expires_at is None:
        return None
    if isinstance(expires_at, datetime):
        return (expires_at if expires_at.tzinfo else expires_at.replace(tzinfo=UTC)).timestamp()
    known = isinstance(expires_at, (int, float)) and not isinstance(expires_at, bool)
    if not known or not abs(expires_at) < _FAR_FUTURE_S:
        raise InvalidArgument("expires_at", f"got {shown(expires_at)}", "a datetime, or seconds since the epoch")
    return float(expires_at)


def check_handshake(subprotocol: object, headers: object) -> None:
    """Checks the subprotocol and the headers of the accept response."""
    if subprotocol is not None and (not isinstance(subprotocol, str) or not subprotocol):
        raise InvalidArgument(
            "subprotocol", f"got {shown(subprotocol)}", "a subprotocol that the client offered, or None"
        )
    if headers is None:
        return
    pairs = headers if isinstance(headers, (list, tuple)) else None
    if pairs is None or not all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(part, bytes) for part in pair)
        for pair in pairs
    ):
        raise InvalidArgument("headers", f"got {shown(headers)}", "a list of pairs of bytes, (name, value)")


def close_code(code: int) -> int:
    """Checks a close code that an app may send (RFC 6455 section 7.4), and returns it."""
    if not is_sendable(code):
        raise InvalidArgument("code", f"got {shown(code)}", "a close code of RFC 6455, or one from 3000 to 4999")
    return code


def close_reason(reason: str | None) -> str:
    """Checks the reason for a Close frame (RFC 6455 section 5.5), and returns it."""
    if reason is None:
        return ""
    try:
        if isinstance(reason, str) and len(reason.encode()) <= 123:
            return reason
    except UnicodeEncodeError:
        pass
    raise InvalidArgument("reason", f"got {shown(reason)}", "a str of at most 123 bytes")
