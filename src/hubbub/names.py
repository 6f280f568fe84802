"""Names: of rooms, of users, and of the rooms that everybody and each user are.

Everything that a message can go to is a room. Names that start with ``$`` are ours, so that one namespace holds all.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias
from uuid import UUID

from .errors import InvalidArgument, shown

MAX_NAME_BYTES = 255

UserId: TypeAlias = str | int | UUID
"""A user's id, compared as ``str(user_id)``: 42 and ``"42"`` are one user."""


class Everyone:
    """The type of `EVERYONE`."""

    def __repr__(self) -> str:
        return "EVERYONE"


EVERYONE: Final = Everyone()
"""The room that every connection is in."""

EVERYONE_NAME: Final[Literal["$everyone"]] = "$everyone"
USER_LABEL: Final[Literal["$user"]] = "$user"
_USER_PREFIX = "$user:"
_SUSPECT: Final = frozenset(("", "$"))


def room_name(room: object, argument: str = "room") -> str:
    """Checks the name of a room.

    Raises:
        InvalidArgument: It is not a str, is empty, has over 255 bytes, or starts with ``$``.
    """
    if isinstance(room, str) and room[:1] not in _SUSPECT and len(room) <= MAX_NAME_BYTES and room.isascii():
        return room
    accepted = f"a str of 1 to {MAX_NAME_BYTES} bytes that does not start with '$'"
    if room is None:
        raise InvalidArgument(
            argument, "got None (a missing room must not reach everybody)", f"{accepted}, or EVERYONE"
        )
    if not isinstance(room, str):
        raise InvalidArgument(argument, f"got {shown(room)}", accepted)
    _check(room, argument, accepted)
    if room[0] == "$":
        raise InvalidArgument(argument, f"{shown(room)} starts with '$', which is reserved", accepted)
    return room


def user_name(user_id: object) -> str:
    """Checks a user's id and gives it as a str.

    Raises:
        InvalidArgument: It is no str, int or UUID, or it is empty or over 255 bytes.
    """
    accepted = f"a str of 1 to {MAX_NAME_BYTES} bytes, an int or a UUID"
    if not isinstance(user_id, (str, int, UUID)) or isinstance(user_id, bool):
        raise InvalidArgument("user_id", f"got {shown(user_id)}", accepted)
    try:
        name = str(user_id)
    except ValueError:  # an int of thousands of digits
        raise InvalidArgument("user_id", "an int with too many digits", accepted) from None
    _check(name, "user_id", accepted)
    return name


def user_room(user: str) -> str:
    """The name of the room that a user's connections are in."""
    return _USER_PREFIX + user


def is_user_room(name: str) -> bool:
    return name.startswith(_USER_PREFIX)


def label(name: str) -> str:
    """A room's name as clients see it: a user's own room does not say whose it is."""
    return USER_LABEL if name.startswith(_USER_PREFIX) else name


def _check(name: str, argument: str, accepted: str) -> None:
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidArgument(argument, f"{shown(name)} is not valid Unicode", accepted) from None
    if not name:
        raise InvalidArgument(argument, "is empty", accepted)
    if size > MAX_NAME_BYTES:
        raise InvalidArgument(argument, f"has {size} bytes", accepted)
