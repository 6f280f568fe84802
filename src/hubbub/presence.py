"""The presence of users in rooms: a table of users and their connections, open or in a grace period.

Theory of operation. A user is present in a room from the first `enter` to the `exit` of the last connection. A
connection that was lost does not exit immediately: it *lingers* for the room's grace period (a page reload). It keeps
its user in the room, but no longer counts as a connection. If the user enters again meanwhile, the lingering
connections are forgotten, and nothing is announced.

An anonymous connection is present by itself: it is announced, but has no grace period, and never counts as a user.

Pure: no event loop. The caller decides when a grace period is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from .codec import dumps, loads

Info = Mapping[str, Any] | None
"""Data about a user that an app passes to `connect`, for presence and announcements. It is serialized to JSON."""

_NULL = b"null"


@dataclass(frozen=True, slots=True)
class Member:
    """A user in a room.

    Attributes:
        user_id: The id of the user, as a str.
        info: The ``info`` of the user's latest connection, after a round trip through JSON.
        connections: Open connections in this room, on all workers. 0 in the grace period after a disconnect.
        since: The time at which the user's first connection joined (UTC).
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
        user_id: The id of its user; None if it is anonymous.
        info: The ``info`` of the connection, after a round trip through JSON.
        room_info: The ``info`` of the connection in this room, after a round trip through JSON.
        live: False if the connection is lost and its user is in the grace period.
        presence_id: The id of the connection with which the presence of its user began, as in an `Announcement`. For
            an anonymous connection, its own id.
    """

    connection_id: str
    user_id: str | None
    info: Info
    room_info: Info
    live: bool
    presence_id: str


class Change(NamedTuple):
    """The effect of `PresenceTable.enter` or `PresenceTable.exit`.

    Attributes:
        turned: Whether the presence of the user, or of the anonymous connection, began or ended.
        total: The number of distinct users in the room afterwards; for an anonymous connection, of those.
        info: The user's info, as JSON.
        first: The id of the connection with which the user's presence began; empty if the user was not present. For an
            anonymous connection, its own id.
        room_info: The info of the connection in this room, as JSON, for an announcement.
    """

    turned: bool
    total: int
    info: bytes
    first: str
    room_info: bytes = _NULL


@dataclass(slots=True)
class _User:
    since: datetime
    info: bytes
    first: str
    live: tuple[str, ...] = ()  # a tuple: most users have one connection, and a set of one takes 200 bytes
    lingering: tuple[str, ...] = ()
    infos: dict[str, tuple[bytes, bytes]] | None = None
    """Info and room info of the connections that differ from ``info`` alone. Most users have none, so None."""

    def set_infos(self, connection_id: str, info: bytes, room_info: bytes) -> None:
        """Records the infos of a connection. Its info becomes that of the user."""
        if info != self.info:
            self.infos = dict.fromkeys(self.live + self.lingering, (self.info, _NULL)) | (self.infos or {})
            self.info = info
        if room_info != _NULL:
            self.infos = {**(self.infos or {}), connection_id: (info, room_info)}
        elif self.infos is not None:
            self.infos.pop(connection_id, None)

    def infos_of(self, connection_id: str) -> tuple[bytes, bytes]:
        """Returns the info and the room info of a connection."""
        plain = (self.info, _NULL)
        return plain if self.infos is None else self.infos.get(connection_id, plain)

    def drop_infos(self) -> None:
        """Drops the infos of the connections that are gone."""
        if self.infos is not None:
            self.infos = {each: self.infos[each] for each in self.live + self.lingering if each in self.infos} or None


class PresenceTable:
    """Presence in any number of rooms."""

    def __init__(self) -> None:
        self._rooms: dict[str, dict[str, _User]] = {}
        self._anonymous: dict[str, dict[str, tuple[bytes, bytes]]] = {}  # info and room info, by room and connection

    def enter(
        self, room: str, user: str | None, connection_id: str, info: Info, now: datetime, room_info: Info = None
    ) -> Change:
        """Adds a connection to a room."""
        packed, packed_room_info = _packed(info), _packed(room_info)
        if user is None:
            anonymous = self._anonymous.setdefault(room, {})
            new = connection_id not in anonymous
            anonymous[connection_id] = packed, packed_room_info
            return Change(new, len(anonymous), packed, connection_id, packed_room_info)
        users = self._rooms.setdefault(room, {})
        entry = users.get(user)
        first = entry is None
        if entry is None:
            entry = users[user] = _User(now, packed, connection_id)
        entry.set_infos(connection_id, packed, packed_room_info)
        if connection_id not in entry.live:
            entry.live += (connection_id,)
        entry.lingering = ()
        entry.drop_infos()
        return Change(first, len(users), packed, entry.first, packed_room_info)

    def linger(self, room: str, user: str, connection_id: str) -> None:
        """Marks a connection as lost. Its user stays until `exit`. No effect if it is not in the room."""
        entry = self._rooms.get(room, {}).get(user)
        if entry is not None and connection_id in entry.live:
            entry.live = _without(entry.live, connection_id)
            entry.lingering += (connection_id,)

    def exit(self, room: str, user: str | None, connection_id: str) -> Change:
        """Removes a connection, when it leaves or its grace period is over. Idempotent."""
        if user is None:
            anonymous = self._anonymous.get(room, {})
            turned = connection_id in anonymous
            info, room_info = anonymous.pop(connection_id, (_NULL, _NULL))
            if not anonymous:
                self._anonymous.pop(room, None)
            return Change(turned, len(anonymous), info, connection_id, room_info)
        users = self._rooms.get(room, {})
        entry = users.get(user)
        if entry is None:
            return Change(False, len(users), _NULL, "")
        _, room_info = entry.infos_of(connection_id)
        entry.live = _without(entry.live, connection_id)
        entry.lingering = _without(entry.lingering, connection_id)
        entry.drop_infos()
        if entry.live or entry.lingering:
            return Change(False, len(users), entry.info, entry.first)
        del users[user]
        if not users:
            del self._rooms[room]
        return Change(True, len(users), entry.info, entry.first, room_info)

    def members(self, room: str) -> list[Member]:
        """Returns the users in a room, in the order in which they joined."""
        return [
            Member(user, loads(entry.info), len(entry.live), entry.since)
            for user, entry in self._rooms.get(room, {}).items()
        ]

    def connections(self, room: str) -> list[PresentConnection]:
        """Returns the connections in a room: those of users, then the anonymous ones."""
        of_users = [
            _present(each, user, entry.infos_of(each), live=each in entry.live, first=entry.first)
            for user, entry in self._rooms.get(room, {}).items()
            for each in entry.live + entry.lingering
        ]
        return of_users + [
            _present(each, None, infos, live=True, first=each) for each, infos in self._anonymous.get(room, {}).items()
        ]

    def first(self, room: str, user: str) -> str | None:
        """Returns the id of the connection with which a user's presence began; None if the user is not present."""
        entry = self._rooms.get(room, {}).get(user)
        return None if entry is None else entry.first

    def count(self, room: str) -> int:
        """Counts the distinct users in a room, connected or in their grace period."""
        return len(self._rooms.get(room, ()))

    def has(self, room: str, user: str) -> bool:
        """Returns whether a user is in a room, connected or in the grace period."""
        return user in self._rooms.get(room, ())

    def connected(self, room: str, user: str) -> bool:
        """Returns whether a user has an open connection in a room."""
        entry = self._rooms.get(room, {}).get(user)
        return entry is not None and bool(entry.live)

    def clear(self) -> None:
        self._rooms.clear()
        self._anonymous.clear()

    def __len__(self) -> int:
        return len(self._rooms.keys() | self._anonymous.keys())


def _present(
    connection_id: str, user: str | None, infos: tuple[bytes, bytes], *, live: bool, first: str
) -> PresentConnection:
    info, room_info = infos
    return PresentConnection(connection_id, user, loads(info), loads(room_info), live, first)


def _packed(info: Info) -> bytes:
    # As JSON, so that later changes to the object have no effect, as with a broker that is a server.
    return _NULL if info is None else bytes(memoryview(dumps(info)))  # a copy: orjson's bytes hold 4 KiB


def _without(ids: tuple[str, ...], gone: str) -> tuple[str, ...]:
    return tuple(each for each in ids if each != gone) if gone in ids else ids
