"""Checks of what `ConnectionManager.connect` is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final, TypeGuard

from .close import is_sendable
from .codec import dumps, loads
from .errors import InvalidArgument, InvalidName, shown
from .names import RoomName, UserId, is_connection_id, is_name, room_name, user_name, user_room
from .positions import Position, as_position, is_position, since_for
from .presence import Info

MAX_KEY_BYTES: Final = 65_534
EXCLUDABLE: Final = "a Connection, a WebSocket, a connection's id, or several of them; users by exclude_users="
_FAR_FUTURE_S = 1e12


def room_names(room: RoomName | None, rooms: Iterable[RoomName]) -> list[str]:
    """The rooms to join, each once, in order."""
    if isinstance(rooms, (str, bytes)):
        raise InvalidArgument("rooms", f"got {shown(rooms)}", "several room names; one alone is room=")
    try:
        several = list(rooms)
    except TypeError:
        raise InvalidArgument("rooms", f"got {shown(rooms)}", "an iterable of room names") from None
    names = [] if room is None else [room_name(room)]
    names += [room_name(each, f"rooms[{index}]") for index, each in enumerate(several)]
    return list(dict.fromkeys(names))


def places(since: object, names: list[str]) -> dict[str, Position]:
    """The position to come back from, by room."""
    if since is None:
        return {}
    if isinstance(since, Mapping) and not is_position(since):
        found = {str(room): place for room, place in since.items()}
        return {room: as_position(place, f"since[{room!r}]") for room, place in found.items()}
    place = since_for(since, "")
    if len(names) != 1:
        problem = f"one position, and {len(names)} rooms to join"
        raise InvalidArgument("since", problem, "a mapping of room to Position where there is not exactly one room")
    return {} if place is None else {names[0]: place}


def detached_info(info: Info) -> Info:
    """A copy of what is said of a user, as JSON says it: what any broker gives back."""
    if info is None:
        return None
    if not isinstance(info, Mapping):
        raise InvalidArgument("info", f"got {shown(info)}", "a mapping that goes to JSON, or None")
    try:
        detached: Info = loads(dumps(info if isinstance(info, dict) else dict(info)))
        return detached
    except InvalidArgument as error:
        raise InvalidArgument("info", error.problem, "a mapping that goes to JSON, or None") from None


def is_text(value: object) -> TypeGuard[str]:
    """Whether it is a str that goes to UTF-8: one with half a surrogate pair does not."""
    try:
        return isinstance(value, str) and bool(value.isascii() or value.encode())
    except UnicodeEncodeError:
        return False


def connection_id(item: str) -> str:
    """The id of a connection that a publish leaves out."""
    if not is_connection_id(item):
        raise InvalidArgument("exclude", f"{shown(item)} is not the id of a connection", EXCLUDABLE)
    return item


def excluded_users(users: UserId | Iterable[UserId] | None) -> frozenset[str]:
    """The users whom a publish leaves out, as names that no connection's id is like: those of their own rooms."""
    if users is None:
        return frozenset()
    if is_name(users):
        users = (users,)
    # A WebSocket is a mapping too: its keys, those of an ASGI scope, would be taken for users.
    elif isinstance(users, (bytes, Mapping)) or not isinstance(users, Iterable):
        raise InvalidArgument("exclude_users", f"got {shown(users)}", "a user id, or several of them")
    return frozenset(user_room(user_name(user, "exclude_users")) for user in users)


def message_key(key: object) -> str | None:
    """What ``overflow="latest"`` replaces by."""
    if key is not None and (not is_text(key) or len(key.encode()) > MAX_KEY_BYTES):
        wrong = InvalidName if isinstance(key, str) else InvalidArgument
        raise wrong("key", f"got {shown(key)}", f"a str of at most {MAX_KEY_BYTES} bytes, or None")
    return key


def timestamp(expires_at: datetime | float | None) -> float | None:
    """Seconds since the epoch. A naive datetime is taken as UTC."""
    if expires_at is None:
        return None
    if isinstance(expires_at, datetime):
        return (expires_at if expires_at.tzinfo else expires_at.replace(tzinfo=UTC)).timestamp()
    known = isinstance(expires_at, (int, float)) and not isinstance(expires_at, bool)
    if not known or not abs(expires_at) < _FAR_FUTURE_S:
        raise InvalidArgument("expires_at", f"got {shown(expires_at)}", "a datetime, or seconds since the epoch")
    return float(expires_at)


def check_handshake(subprotocol: object, headers: object) -> None:
    """What goes into the accept response."""
    if subprotocol is not None and (not isinstance(subprotocol, str) or not subprotocol):
        raise InvalidArgument(
            "subprotocol", f"got {shown(subprotocol)}", "one of those that the client offered, or None"
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
    """A code that an application may send (RFC 6455 section 7.4)."""
    if not is_sendable(code):
        raise InvalidArgument("code", f"got {shown(code)}", "a close code of RFC 6455, or one from 3000 to 4999")
    return code


def close_reason(reason: str | None) -> str:
    """What goes into a Close frame (RFC 6455 section 5.5)."""
    if reason is None:
        return ""
    try:
        if isinstance(reason, str) and len(reason.encode()) <= 123:
            return reason
    except UnicodeEncodeError:
        pass
    raise InvalidArgument("reason", f"got {shown(reason)}", "a str of at most 123 bytes")
