"""Names of rooms and users. Everyone is a room, and so is each user.

A message always goes to a room, so one namespace holds them all. Names that start with ``$`` are reserved for hubbub:
``$everyone``, and ``$user:<id>`` for each user's own room.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, NoReturn, TypeAlias, TypeGuard
from uuid import UUID

from .errors import InvalidArgument, InvalidName, NotSupported, shown

MAX_NAME_BYTES = 255

UserId: TypeAlias = str | int | UUID
"""A user's id. Ids are compared as ``str(user_id)``: 42 and ``"42"`` are the same user."""

RoomName: TypeAlias = str | int | UUID
"""A room's name. Names are compared as ``str(room)``: 5 and ``"5"`` are the same room."""


class RoomNames(frozenset[str]):
    """A set of room names. ``in`` accepts every type of `RoomName`: ``5 in rooms`` finds ``"5"``.

    A hand-written manager has a dict here. The methods of a dict raise, and the message has the line to write instead.
    """

    __slots__ = ()

    if not TYPE_CHECKING:

        def __getitem__(self, room: object, value: object = None) -> NoReturn:
            raise NotSupported(f"rooms[{shown(room)}]: `rooms` is a set of names; {_MEMBERS}; {_USERS}")

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
    "`manager.connections(room=room)` returns the connections in a room, and connections `join` and `leave` a room"
)
_USERS: Final = "`await manager.count_users(room=room)` counts its users"
_SUSPECT: Final = frozenset(("", "$"))


def room_name(room: object, argument: str = "room") -> str:
    """Checks the name of a room, and returns it as a str.

    Raises:
        InvalidName: The name is empty, has over 255 bytes, is not valid Unicode, or starts with ``$``.
        InvalidArgument: The name is not a str, int or UUID.
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
    """Returns the channel of a room, which may be `EVERYONE`, at the broker. Raises as `room_name` does."""
    return EVERYONE_NAME if isinstance(room, Everyone) else room_name(room)


def user_name(user_id: object, argument: str = "user_id") -> str:
    """Checks a user's id, and returns it as a str.

    Raises:
        InvalidName: The id is empty, has over 255 bytes, or is not valid Unicode.
        InvalidArgument: The id is not a str, int or UUID.
    """
    return _checked(user_id, argument, f"a str of 1 to {MAX_NAME_BYTES} bytes, an int or a UUID")


def user_room(user: str) -> str:
    """Returns the name of a user's own room, which contains all connections of the user."""
    return _USER_PREFIX + user


def user_of(name: str) -> str | None:
    """Returns the user whose own room has this name; None for any other room."""
    return name[len(_USER_PREFIX) :] if name.startswith(_USER_PREFIX) else None


def is_user_room(name: str) -> bool:
    """Returns whether a room is a user's own."""
    return name.startswith(_USER_PREFIX)


def is_connection_id(text: str) -> bool:
    """Returns whether a text has the form of a connection id."""
    return _CONNECTION_ID.fullmatch(text) is not None


def label(name: str) -> str:
    """Returns a room's name as its clients see it. For a user's own room it is ``$user``, without the id."""
    return USER_LABEL if name.startswith(_USER_PREFIX) else name


def is_name(value: object) -> TypeGuard[UserId]:
    """Returns whether a value has a type that a room's name or a user's id may have."""
    return isinstance(value, (str, int, UUID)) and not isinstance(value, bool)


def text_of(name: UserId) -> str:
    """Returns a name as the str by which names are compared. A member of a ``str`` or ``int`` Enum is its value.

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
