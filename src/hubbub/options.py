"""The settings of rooms (`RoomOptions`), and those of connections and processes (`Limits`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import inf
from typing import Any, Final, Literal, NamedTuple, get_args

import orjson

from .errors import InvalidArgument, shown
from .names import EVERYONE_NAME
from .patterns import Pattern

Overflow = Literal["close", "drop_oldest", "drop_newest", "latest"]
"""The policy for a slow connection whose outbox is full: see `RoomOptions.overflow`."""

RefuseWith = Literal["close", "http"]
"""The way to answer a handshake that the app refuses: see `ConnectionManager`."""

OVERFLOWS: tuple[str, ...] = get_args(Overflow)


class History(NamedTuple):
    """The bounds of a room's history, from which clients that reconnect receive the messages they missed.

    Attributes:
        size: The maximum number of messages.
        ttl_s: Seconds for which a message is kept, and for which the room's position is kept after its last use.
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
    """The options of the rooms that match one name or pattern.

    Args:
        history: Messages to keep: `History`, a ``(size, ttl_s)`` pair, or a size (with 300 s). None keeps none.
        announce: Tell the members of the room when a user's first connection joins and when its last one leaves.
            Clients of endpoints are also told of each anonymous connection.
        grace_s: Seconds for which a user stays present after its last connection is lost (a page reload).
        overflow: The policy for the room's messages when the outbox of a connection is full. ``"close"`` closes the
            connection (1013); the client reconnects and recovers. ``"drop_oldest"`` and ``"drop_newest"`` drop a
            message. ``"latest"`` keeps one message per room and key. The last three lose messages, so they can't be
            combined with ``history``, which promises that nothing is missing.
        replay: The number of messages that a connection receives first when it joins the room: the newest ones that the
            history still holds, in order, followed by the live ones. A connection that recovers receives what it missed
            instead. Needs ``history``, and is at most its size.
        max_members: The maximum number of connections in the room on this process. None means no limit.
        client_presence: Lets the clients of an endpoint ask who is in the room, if they are subscribed to it.
        client_history: Lets the clients of an endpoint read the room's history, if they are subscribed to it.

    Raises:
        InvalidArgument: An option is out of range, or two options contradict each other.
    """

    history: History | tuple[int, float] | int | None = None
    announce: bool = False
    grace_s: float = 5.0
    overflow: Overflow = "close"
    replay: int = 0
    max_members: int | None = None
    client_presence: bool = False
    client_history: bool = False

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
        self._check_replay()
        for name in ("announce", "client_presence", "client_history"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidArgument(name, f"got {shown(getattr(self, name))}", "True or False")
        if not _is_number(self.grace_s) or not 0 <= self.grace_s < inf:
            raise InvalidArgument("grace_s", f"got {shown(self.grace_s)}", "seconds, 0 or more")
        if self.max_members is not None and (not _is_int(self.max_members) or self.max_members < 1):
            raise InvalidArgument("max_members", f"got {shown(self.max_members)}", "a whole number from 1, or None")

    def _check_replay(self) -> None:
        kept = self.kept
        if not _is_int(self.replay) or self.replay < 0:
            raise InvalidArgument("replay", f"got {shown(self.replay)}", "a number of messages, 0 or more")
        if self.replay and kept is None:
            raise InvalidArgument("replay", "the room keeps no messages to replay", "replay together with history")
        if kept is not None and self.replay > kept.size:
            raise InvalidArgument(
                "replay", f"{self.replay} is more than the history keeps", f"at most its size, {kept.size}"
            )

    @property
    def kept(self) -> History | None:
        """The value of ``history`` as a `History`, in whatever form it was given."""
        assert self.history is None or isinstance(self.history, History)
        return self.history

    @property
    def numbered(self) -> bool:
        """Whether messages of the room have positions: with ``history``."""
        return self.history is not None


_DEFAULT = RoomOptions()


class RoomPatterns:
    """Finds the options of a room by its name: an exact name first, then the patterns in their order.

    `hubbub.patterns` describes the syntax.
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
        self._compiled = [(_compiled(text), options) for text, options in self.patterns.items()]

    def match(self, name: str) -> RoomOptions:
        exact = self.patterns.get(name)
        if exact is not None:
            return exact
        for pattern, options in self._compiled:
            if pattern.match(name) is not None:
                return options
        return _DEFAULT


def _compiled(text: str) -> Pattern:
    try:
        return Pattern(text)
    except InvalidArgument as error:
        raise InvalidArgument(f"rooms[{text!r}]", error.problem, error.accepted) from None


_TABLE_VERSION: Final = 1
"""The version of the JSON format. A new option does not need a new version: older readers ignore it."""


class RoomTable:
    """The options of all rooms of an app, looked up by channel. A broker keeps the table as JSON.

    Args:
        rooms: Options by name or pattern.
        everyone: Options of the room that contains every connection.
        users: Options of the rooms that contain the connections of one user each.

    Attributes:
        unknown: Names of options that `from_json` ignored.
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

    def __call__(self, channel: str) -> RoomOptions:
        if channel[0] != "$":
            return self._rooms.match(channel)
        return self._everyone if channel == EVERYONE_NAME else self._users

    def to_json(self) -> bytes:
        """Returns the table as JSON, for `from_json`."""
        rooms = list(self._rooms.patterns.items())  # a list: the order matters, and a JSON object has none
        table = {"v": _TABLE_VERSION, "rooms": rooms, "everyone": self._everyone, "users": self._users}
        return orjson.dumps(table, default=list)

    @classmethod
    def from_json(cls, text: bytes) -> RoomTable:
        """Reads a table that `to_json` wrote.

        Ignores options that this release does not know, and lists them in ``unknown``: a newer release may have written
        the table.

        Raises:
            ValueError: The text is not such a table, or has another version.
        """
        unknown: set[str] = set()
        try:
            value = orjson.loads(text)
            if value["v"] != _TABLE_VERSION:
                raise ValueError(f"version {shown(value['v'])} of the table, not version {_TABLE_VERSION}")
            rooms = {pattern: _options(fields, unknown) for pattern, fields in value["rooms"]}
            table = cls(rooms, _options(value["everyone"], unknown), _options(value["users"], unknown))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a table of rooms: {shown(error)}") from None
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
    """Bounds on what one client, one user and one process may use. None removes a bound, where that is possible.

    Args:
        max_message_bytes: The size of a message from a client (1 MiB). A larger message is answered with an error
            frame. After ``max_errors`` of them the connection is closed with 1009. Under uvicorn, a message of more
            than twice this size and 64 KiB closes the connection with 1009 before it is complete.
        max_messages_per_s: Messages per second from one connection (1,000). A client that sends less may save up five
            seconds' worth for a burst. Under uvicorn, pings and continuation frames count as messages. Each command of
            an endpoint's client counts, also where several share a frame. Each message above the rate is answered with
            an error frame. After ``max_errors`` of them the connection is closed with 1008.
        max_errors: Bad messages (not JSON, wrong kind, too big, too many) before a connection is closed (10).
        max_connections: Connections of this process (50,000). Above it: 1013.
        max_connections_per_user: Connections of one user on this process (100). Above it: 1008.
        max_connections_per_address: Connections from one IPv4 address, or one /64 network of IPv6, on this process.
            Off by default, because all clients share one address behind a proxy that does not forward theirs. Above
            it: 1008.
        max_rooms_per_connection: Rooms that one connection may be in (256). Above it: 1008.
        max_outbox_bytes: Bytes that may wait for a slow connection, including the server's write buffer (1 MiB).
        stall_timeout_s: Seconds without progress after which an outbox's connection is aborted (20).
        message_timeout_s: Seconds from the beginning of a client's message to its end (60). Above it: 1009. Under
            uvicorn only, because no other server shows the beginning.
        idle_timeout_s: Seconds without a message from a client after which its connection is closed with 1013, "idle".
            Off by default, because most clients only listen. Set it if your clients send something regularly, such as
            ``{"type": "ping"}``. If the server sends no WebSocket pings, nothing else notices a client that vanished.
            Streams of events stay open, because their clients can't send.
        close_timeout_s: Seconds for which a closing connection waits until the client has read what is queued (5).
        handler_timeout_s: Seconds until a handler is cancelled if its client is gone and it does not receive, so that
            it can't notice (30). Also until an async function under `ConnectionManager.on_gap` is cancelled.
        shutdown_timeout_s: Replaces ``handler_timeout_s`` while the server shuts down (3).

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
