"""Names: of rooms, of users, and of the rooms that everybody and each user are.

Everything that a message can go to is a room. Names that start with ``$`` are ours, so that one namespace holds all.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, NoReturn, TypeAlias, TypeGuard
from uuid import UUID

from .errors import InvalidArgument, InvalidName, NotSupported, shown

MAX_NAME_BYTES = 255

UserId: TypeAlias = str | int | UUID
"""A user's id, compared as ``str(user_id)``: 42 and ``"42"`` are one user."""

RoomName: TypeAlias = str | int | UUID
"""A room's name, compared as ``str(room)``: 5 and ``"5"`` are one room."""


class RoomNames(frozenset[str]):
    """Names of rooms. ``in`` takes what a room is called by: 5 for ``"5"`` too.

    The lookups of the dict that a hand-written manager has in this place raise, with the line to write.
    """

    __slots__ = ()

    if not TYPE_CHECKING:

        def __getitem__(self, room: object, value: object = None) -> NoReturn:
            raise NotSupported(f"rooms[{shown(room)}]: these are names; {_MEMBERS}; {_USERS}")

        __setitem__ = __delitem__ = __getitem__

        def __getattr__(self, name: str) -> NoReturn:
            if name in _OF_A_DICT:
                raise NotSupported(f"rooms has no {name}(): it is a set of names, `list(manager.rooms)`; {_MEMBERS}")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def __contains__(self, room: object) -> bool:
        return super().__contains__(text_of(room) if is_name(room) else room)


class Everyone:
    """The type of `EVERYONE`."""

    def __repr__(self) -> str:
        return "EVERYONE"


EVERYONE: Final = Everyone()
"""The room that every connection is in."""

EVERYONE_NAME: Final[Literal["$everyone"]] = "$everyone"
USER_LABEL: Final[Literal["$user"]] = "$user"
_USER_PREFIX = "$user:"
_CONNECTION_ID: Final = re.compile(r"[A-Za-z0-9_-]{22}")
_OF_A_DICT: Final = frozenset(
    "get items keys values pop popitem setdefault update append add remove discard clear".split()  # noqa: SIM905
)
_MEMBERS: Final = (
    "`manager.connections(room=room)` gives the connections in a room, and connections `join` and `leave` a room"
)
_USERS: Final = "`await manager.count_users(room=room)` counts its users"
_SUSPECT: Final = frozenset(("", "$"))


def room_name(room: object, argument: str = "room") -> str:
    """Checks the name of a room, and gives it as a str.

    Raises:
        InvalidName: It is empty, has over 255 bytes, is not valid Unicode, or starts with ``$``.
        InvalidArgument: It is no str, int or UUID.
    """
    if type(room) is str and room[:1] not in _SUSPECT and len(room) <= MAX_NAME_BYTES and room.isascii():
        return room
    accepted = f"a str of 1 to {MAX_NAME_BYTES} bytes that does not start with '$', an int or a UUID"
    if room is None:
        raise InvalidArgument(
            argument, "got None (a missing room must not reach everybody)", f"{accepted}, or EVERYONE"
        )
    name = _checked(room, argument, accepted)
    if name[0] == "$":
        raise InvalidName(argument, f"{shown(room)} starts with '$', which is reserved", accepted)
    return name


def channel_of(room: object) -> str:
    """The name that a room has at the broker, of one that may be `EVERYONE`."""
    return EVERYONE_NAME if isinstance(room, Everyone) else room_name(room)


def user_name(user_id: object, argument: str = "user_id") -> str:
    """Checks a user's id, and gives it as a str.

    Raises:
        InvalidName: It is empty, has over 255 bytes, or is not valid Unicode.
        InvalidArgument: It is no str, int or UUID.
    """
    return _checked(user_id, argument, f"a str of 1 to {MAX_NAME_BYTES} bytes, an int or a UUID")


def user_room(user: str) -> str:
    """The name of the room that a user's connections are in."""
    return _USER_PREFIX + user


def user_of(name: str) -> str | None:
    """The user whose own room it is; None for any other room."""
    return name[len(_USER_PREFIX) :] if name.startswith(_USER_PREFIX) else None


def is_user_room(name: str) -> bool:
    return name.startswith(_USER_PREFIX)


def is_connection_id(text: str) -> bool:
    """Whether a text has the form of the ids that connections have."""
    return _CONNECTION_ID.fullmatch(text) is not None


def label(name: str) -> str:
    """A room's name as clients see it: a user's own room does not say whose it is."""
    return USER_LABEL if name.startswith(_USER_PREFIX) else name


def is_name(value: object) -> TypeGuard[UserId]:
    """Whether a value is of a type that names of rooms and users have."""
    return isinstance(value, (str, int, UUID)) and not isinstance(value, bool)


def text_of(name: UserId) -> str:
    """A name as it is compared. A member of a ``str`` or ``int`` Enum is its value.

    Raises:
        ValueError: An int has thousands of digits.
    """
    if isinstance(name, str):
        return str.__str__(name)
    return int.__repr__(name) if isinstance(name, int) else str(name)


def _checked(value: object, argument: str, accepted: str) -> str:
    if not is_name(value):
        raise InvalidArgument(argument, f"got {shown(value)}", accepted)
    try:
        name = text_of(value)
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidName(argument, f"{shown(value)} is not valid Unicode", accepted) from None
    except ValueError:
        raise InvalidName(argument, "an int with too many digits", accepted) from None
    if not name:
        raise InvalidName(argument, "is empty", accepted)
    if size > MAX_NAME_BYTES:
        raise InvalidName(argument, f"has {size} bytes", accepted)
    return name
