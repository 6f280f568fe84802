"""Who is present in which room: users, each with one or more connections, some of them in grace.

Theory of operation. A user is present in a room from the first `enter` to the `exit` of the last connection. A
connection that was lost does not exit at once: it *lingers* for the room's grace (a page reload), still holding its
user in the room but no longer counted as a connection. If the user enters again meanwhile, the new connection takes
over and the lingering ones are forgotten, so that nobody hears of it.

An anonymous connection is present by itself: it has no grace, and never counts as a user.

Pure: the caller decides when grace is over; no loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from .codec import dumps, loads

Info = Mapping[str, Any] | None
"""What the app says of a user when it connects; it goes to JSON."""

_NULL = b"null"


@dataclass(frozen=True, slots=True)
class Member:
    """A user in a room.

    Attributes:
        user_id: The id of the user, as a str.
        info: The ``info`` of the user's latest connection, as read back from JSON: the same on every broker.
        connections: Open connections in this room, over all processes. 0 in the grace period after a disconnect.
        since: When the user's first connection joined (UTC).
    """

    user_id: str
    info: Info
    connections: int
    since: datetime


@dataclass(frozen=True, slots=True)
class PresentConnection:
    """A connection in a room.

    Attributes:
        connection_id: The id of the connection.
        user_id: Its user; None if it is anonymous.
        info: The ``info`` of the connection, after a round trip through JSON.
        room_info: The ``info`` that the connection has in this room, likewise.
        live: False while the connection is lost and its user is in grace.
        presence_id: The id of the connection with which the presence of its user began, as in an `Announcement`. An
            anonymous connection's own id.
    """

    connection_id: str
    user_id: str | None
    info: Info
    room_info: Info
    live: bool
    presence_id: str


class Change(NamedTuple):
    """What entering or leaving did.

    Attributes:
        turned: Whether the user's presence began or ended by it.
        users: Distinct users in the room afterwards.
        info: The user's info, as JSON.
        first: The connection with which the user's presence began; empty if the user was not present.
    """

    turned: bool
    users: int
    info: bytes
    first: str


@dataclass(slots=True)
class _User:
    since: datetime
    info: bytes
    first: str
    live: tuple[str, ...] = ()  # a tuple: most have one connection, and a set of one holds 200 bytes
    lingering: tuple[str, ...] = ()
    apart: dict[str, tuple[bytes, bytes]] | None = None
    """Info and room info of the connections that do not say just ``info``: most users say the same everywhere."""

    def say(self, connection_id: str, info: bytes, room_info: bytes) -> None:
        """Notes what a connection says, which from now on is the info of its user."""
        if info != self.info:
            self.apart = dict.fromkeys(self.live + self.lingering, (self.info, _NULL)) | (self.apart or {})
            self.info = info
        if room_info != _NULL:
            self.apart = {**(self.apart or {}), connection_id: (info, room_info)}
        elif self.apart is not None:
            self.apart.pop(connection_id, None)

    def said(self, connection_id: str) -> tuple[bytes, bytes]:
        """The info and room info of a connection."""
        plain = (self.info, _NULL)
        return plain if self.apart is None else self.apart.get(connection_id, plain)

    def tidy(self) -> None:
        """Forgets what connections said that are gone."""
        if self.apart is not None:
            self.apart = {each: self.apart[each] for each in self.live + self.lingering if each in self.apart} or None


class PresenceTable:
    """Presence in any number of rooms."""

    def __init__(self) -> None:
        self._rooms: dict[str, dict[str, _User]] = {}
        self._anonymous: dict[str, dict[str, tuple[bytes, bytes]]] = {}  # info and room info, by room and connection

    def enter(
        self, room: str, user: str | None, connection_id: str, info: Info, now: datetime, room_info: Info = None
    ) -> Change:
        """A connection comes into a room."""
        said, about = _packed(info), _packed(room_info)
        if user is None:
            self._anonymous.setdefault(room, {})[connection_id] = said, about
            return Change(False, self.count(room), said, connection_id)
        users = self._rooms.setdefault(room, {})
        entry = users.get(user)
        first = entry is None
        if entry is None:
            entry = users[user] = _User(now, said, connection_id)
        entry.say(connection_id, said, about)
        if connection_id not in entry.live:
            entry.live += (connection_id,)
        entry.lingering = ()
        entry.tidy()
        return Change(first, len(users), said, entry.first)

    def linger(self, room: str, user: str, connection_id: str) -> None:
        """A connection was lost; its user stays until `exit`. Without effect where it is not in the room."""
        entry = self._rooms.get(room, {}).get(user)
        if entry is not None and connection_id in entry.live:
            entry.live = _without(entry.live, connection_id)
            entry.lingering += (connection_id,)

    def exit(self, room: str, user: str | None, connection_id: str) -> Change:
        """A connection leaves for good, at once or when its grace is over. Idempotent."""
        if user is None:
            anonymous = self._anonymous.get(room, {})
            said, _ = anonymous.pop(connection_id, (_NULL, _NULL))
            if not anonymous:
                self._anonymous.pop(room, None)
            return Change(False, self.count(room), said, connection_id)
        users = self._rooms.get(room, {})
        entry = users.get(user)
        if entry is None:
            return Change(False, len(users), _NULL, "")
        entry.live = _without(entry.live, connection_id)
        entry.lingering = _without(entry.lingering, connection_id)
        entry.tidy()
        if entry.live or entry.lingering:
            return Change(False, len(users), entry.info, entry.first)
        del users[user]
        if not users:
            del self._rooms[room]
        return Change(True, len(users), entry.info, entry.first)

    def members(self, room: str) -> list[Member]:
        """The users in a room, in the order they came."""
        return [
            Member(user, loads(entry.info), len(entry.live), entry.since)
            for user, entry in self._rooms.get(room, {}).items()
        ]

    def connections(self, room: str) -> list[PresentConnection]:
        """The connections in a room: those of users, then the anonymous ones."""
        of_users = [
            _present(each, user, entry.said(each), live=each in entry.live, first=entry.first)
            for user, entry in self._rooms.get(room, {}).items()
            for each in entry.live + entry.lingering
        ]
        return of_users + [
            _present(each, None, said, live=True, first=each) for each, said in self._anonymous.get(room, {}).items()
        ]

    def count(self, room: str) -> int:
        """Distinct users in a room, connected or in grace."""
        return len(self._rooms.get(room, ()))

    def has(self, room: str, user: str) -> bool:
        """Whether a user is in a room, connected or in grace."""
        return user in self._rooms.get(room, ())

    def connected(self, room: str, user: str) -> bool:
        """Whether a user has a live connection in a room."""
        entry = self._rooms.get(room, {}).get(user)
        return entry is not None and bool(entry.live)

    def clear(self) -> None:
        self._rooms.clear()
        self._anonymous.clear()

    def __len__(self) -> int:
        return len(self._rooms.keys() | self._anonymous.keys())


def _present(
    connection_id: str, user: str | None, said: tuple[bytes, bytes], *, live: bool, first: str
) -> PresentConnection:
    info, room_info = said
    return PresentConnection(connection_id, user, loads(info), loads(room_info), live, first)


def _packed(info: Info) -> bytes:
    # As JSON, so that later changes of the object are no changes here, as they are none in a server.
    return _NULL if info is None else bytes(memoryview(dumps(info)))  # a copy: orjson's bytes hold 4 KiB


def _without(ids: tuple[str, ...], gone: str) -> tuple[str, ...]:
    return tuple(each for each in ids if each != gone) if gone in ids else ids
