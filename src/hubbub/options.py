"""What can be set: per room (`RoomOptions`), and per connection and process (`Limits`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from math import inf
from typing import Any, Final, Literal, NamedTuple, get_args

import orjson

from .errors import InvalidArgument, shown
from .names import EVERYONE_NAME

Overflow = Literal["close", "drop_oldest", "drop_newest", "latest"]
"""What happens when a slow connection's outbox is full: see `RoomOptions.overflow`."""

RefuseWith = Literal["close", "http"]
"""How a refused handshake is answered: see `ConnectionManager`."""

OVERFLOWS: tuple[str, ...] = get_args(Overflow)


class History(NamedTuple):
    """How much of a room is kept for those who come back.

    Attributes:
        size: Messages, at most.
        ttl_s: Seconds that a message is kept, and that the room's position outlives its last use.
    """

    size: int
    ttl_s: float = 300.0


def _history(value: object) -> History | None:
    accepted = "History(size, ttl_s), (size, ttl_s), a size, or None"
    if value is None:
        return None
    if _is_int(value):
        value = (value,)
    if not isinstance(value, tuple) or not 1 <= len(value) <= 2:
        raise InvalidArgument("history", f"got {shown(value)}", accepted)
    history = History(*value)
    if not _is_int(history.size) or history.size < 1 or not _is_number(history.ttl_s) or history.ttl_s <= 0:
        raise InvalidArgument("history", f"got {shown(value)}", f"{accepted}; a size from 1 and a ttl_s over 0")
    return history


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomOptions:
    """How the rooms of one name pattern behave.

    Args:
        history: Messages to keep: `History`, a ``(size, ttl_s)`` pair, or a size (with 300 s). None keeps none.
        announce: Tell the room when a user's first connection comes and last one goes.
        grace_s: Seconds that a user whose last connection was lost still counts as present (a page reload).
        overflow: What a connection's full outbox does with the room's messages. ``"close"``: close the
            connection (1013); it reconnects and recovers. ``"drop_oldest"`` and ``"drop_newest"`` lose a message.
            ``"latest"`` keeps one message per room and key. The three that lose messages can't go with
            ``history``, which promises that nothing is missing.
        positions: Send each message with its position, so that a plain browser client can come back.
        max_members: Connections in the room on this process, at most. None is unbounded.

    Raises:
        InvalidArgument: An option is out of range, or two contradict each other.
    """

    history: History | tuple[int, float] | int | None = None
    announce: bool = False
    grace_s: float = 5.0
    overflow: Overflow = "close"
    positions: bool = False
    max_members: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "history", _history(self.history))
        if self.overflow not in OVERFLOWS:
            raise InvalidArgument("overflow", f"got {shown(self.overflow)}", f"one of {', '.join(OVERFLOWS)}")
        if self.history is not None and self.overflow != "close":
            raise InvalidArgument(
                "overflow",
                f"{self.overflow!r} loses messages, and history promises that none is missing",
                "overflow='close' together with history, or no history",
            )
        for name in ("announce", "positions"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidArgument(name, f"got {shown(getattr(self, name))}", "True or False")
        if not _is_number(self.grace_s) or not 0 <= self.grace_s < inf:
            raise InvalidArgument("grace_s", f"got {shown(self.grace_s)}", "seconds, 0 or more")
        if self.max_members is not None and (not _is_int(self.max_members) or self.max_members < 1):
            raise InvalidArgument("max_members", f"got {shown(self.max_members)}", "a whole number from 1, or None")

    @property
    def kept(self) -> History | None:
        """`history`, normalised."""
        assert self.history is None or isinstance(self.history, History)
        return self.history

    @property
    def numbered(self) -> bool:
        """Whether messages of the room have positions at all."""
        return self.positions or self.history is not None


_DEFAULT = RoomOptions()


class RoomPatterns:
    """Finds a room's options by its name: an exact name first, then the patterns in the order given.

    Patterns are those of the shell (`fnmatch`): ``*``, ``?`` and ``[...]``; case matters.
    """

    def __init__(self, patterns: Mapping[str, RoomOptions]) -> None:
        if not isinstance(patterns, Mapping):
            raise InvalidArgument("rooms", f"got {shown(patterns)}", "a mapping of pattern to RoomOptions")
        for pattern, options in patterns.items():
            if not isinstance(pattern, str) or not pattern or pattern[0] == "$":
                raise InvalidArgument(
                    "rooms", f"the pattern {shown(pattern)}", "a room name or a pattern like 'ticker:*'"
                )
            if not isinstance(options, RoomOptions):
                raise InvalidArgument(f"rooms[{pattern!r}]", f"got {shown(options)}", "RoomOptions(...)")
        self.patterns: dict[str, RoomOptions] = dict(patterns)

    def match(self, name: str) -> RoomOptions:
        exact = self.patterns.get(name)
        if exact is not None:
            return exact
        for pattern, options in self.patterns.items():
            if fnmatchcase(name, pattern):
                return options
        return _DEFAULT


_TABLE_VERSION: Final = 1
"""Of the JSON. A new option is no reason for a new version: readers that do not know it ignore it."""


class RoomTable:
    """The options of all rooms of an app, by the name of their channel; and as JSON, for a broker to keep.

    Args:
        rooms: Options by name or pattern.
        everyone: Those of the room that everybody is in.
        users: Those of each user's own room.

    Attributes:
        unknown: Names of options that were left out by `from_json`.
    """

    def __init__(
        self,
        rooms: Mapping[str, RoomOptions] | None = None,
        everyone: RoomOptions = _DEFAULT,
        users: RoomOptions = _DEFAULT,
    ) -> None:
        self._rooms = RoomPatterns(rooms or {})
        self._everyone = everyone
        self._users = users
        self.unknown: frozenset[str] = frozenset()

    def __call__(self, name: str) -> RoomOptions:
        if name[0] != "$":
            return self._rooms.match(name)
        return self._everyone if name == EVERYONE_NAME else self._users

    def to_json(self) -> bytes:
        """The table, for `from_json`."""
        rooms = list(self._rooms.patterns.items())  # in their order, which a mapping in JSON does not promise
        table = {"v": _TABLE_VERSION, "rooms": rooms, "everyone": self._everyone, "users": self._users}
        return orjson.dumps(table, default=list)

    @classmethod
    def from_json(cls, text: bytes) -> RoomTable:
        """Gives back what `to_json` was given.

        Options that this release does not know are left out (`unknown`): a newer one may have written the table.

        Raises:
            ValueError: It is nothing of the kind, or of a version that means something else.
        """
        unknown: set[str] = set()
        try:
            value = orjson.loads(text)
            if value["v"] != _TABLE_VERSION:
                raise ValueError(f"a table of rooms of version {shown(value['v'])}")
            rooms = {pattern: _options(fields, unknown) for pattern, fields in value["rooms"]}
            table = cls(rooms, _options(value["everyone"], unknown), _options(value["users"], unknown))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"no table of rooms: {shown(error)}") from None
        table.unknown = frozenset(unknown)
        return table


def _options(given: dict[str, Any], unknown: set[str]) -> RoomOptions:
    known = {field.name for field in fields(RoomOptions)}
    unknown |= given.keys() - known
    options = {name: value for name, value in given.items() if name in known}
    history = options["history"]
    return RoomOptions(**{**options, "history": None if history is None else History(*history)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what one client, one user and one process may use. None switches a bound off, where that is possible.

    Args:
        max_message_bytes: A message from a client (1 MiB). Over it: an error frame, in the end 1009. Over twice that
            and 64 KiB: 1009 at once under uvicorn, before it is all there.
        max_messages_per_s: Messages a second from one connection (1,000), of which five seconds' worth can be
            saved up for a burst. Pings, and the frames that continue a message, count as messages under uvicorn. Over
            it: an error frame, in the end 1008.
        max_errors: Bad messages (not JSON, wrong kind, too big, too many) before a connection is closed (10).
        max_connections: Connections of this process (50,000). Over it: 1013.
        max_connections_per_user: Connections of one user on this process (100). Over it: 1008.
        max_connections_per_address: Connections from one IPv4 address, or one /64 network of IPv6, on this process.
            Off by default: behind a proxy that does not say whom it speaks for, all clients share one address. Over
            it: 1008.
        max_rooms_per_connection: Rooms that one connection is in (256). Over it: 1008.
        max_outbox_bytes: What may wait for a slow connection, the server's own write buffer counted in (1 MiB).
        stall_timeout_s: Seconds that an outbox may stand still before its connection is aborted (20).
        message_timeout_s: Seconds from the beginning of a client's message to its end (60). Over it: 1009. Under
            uvicorn only: no other server shows the beginning.
        idle_timeout_s: Seconds without a message from a client until its connection is closed with 1013, "idle". Off by
            default: most clients only listen. For clients that send something regularly, such as ``{"type": "ping"}``;
            with a server that sends no WebSocket pings, nothing else notices a client that vanished.
        close_timeout_s: Seconds that a closing connection has to take what is written to it (5).
        handler_timeout_s: Seconds that a handler goes on whose client is gone and which does not receive, so that it
            was never told; then it is cancelled (30).
        shutdown_timeout_s: The same while the server shuts down (3).

    Raises:
        InvalidArgument: A bound is not a positive number.
    """

    max_message_bytes: int | None = 1024 * 1024
    max_messages_per_s: float | None = 1000.0
    max_errors: int | None = 10
    max_connections: int | None = 50_000
    max_connections_per_user: int | None = 100
    max_connections_per_address: int | None = None
    max_rooms_per_connection: int | None = 256
    max_outbox_bytes: int = 1024 * 1024
    stall_timeout_s: float = 20.0
    message_timeout_s: float | None = 60.0
    idle_timeout_s: float | None = None
    close_timeout_s: float = 5.0
    handler_timeout_s: float | None = 30.0
    shutdown_timeout_s: float = 3.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            optional = "None" in str(field.type)
            if value is None and optional:
                continue
            whole = "int" in str(field.type)
            if not (_is_int(value) if whole else _is_number(value)) or value <= 0:
                kind = "a whole number from 1" if whole else "a number over 0"
                raise InvalidArgument(field.name, f"got {shown(value)}", f"{kind}, or None" if optional else kind)
