"""Records the connections that one worker has reported to Redis, and decides what it reports next or again. Pure.

Theory of operation. A *statement* reports that a connection enters, lingers or exits. It carries the worker's name, a
sequence number, and the last number that Redis confirmed. Redis stores the worker's last number with the name, and
answers a statement in one of three ways:

- *done*: the statement is in effect. A repetition receives the same answer.
- *overtaken*: a later statement arrived first, as can happen with two connections. The statement had no effect, so the
  worker repeats it under a new number.
- *unknown*: Redis does not have the name, or not everything that it confirmed. It has lost data, or the worker was
  declared dead. Redis accepts nothing more under this name. The worker takes a new name and reports all its
  connections again.

The lease of the old name decides how they are reported again. *Claimed*: another worker removed the connections, and
the rooms received announcements that the users left. So the connections are announced again, and connections in their
grace period are not reported. *Lost*: nothing was announced. So all connections are reported silently, including those
about to leave. Afterwards, the entries that Redis may still have under the former name are removed, silently too.

An exit that could not be reported is *owed*, and is reported when Redis is available again.

An eviction can remove the entries of one room alone, all together. The connection that was reported first has been
there the longest, so it is the *witness* of its room: if it is missing, the room is reported again. Anonymous
connections are stored separately, with a witness of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal, NamedTuple, TypeAlias

UNKNOWN: Final = 0
DONE: Final = 1
OVERTAKEN: Final = 2

LeaseAnswer: TypeAlias = Literal["kept", "claimed", "lost"]
Manner: TypeAlias = Literal["aloud", "silently"]


class Place(NamedTuple):
    """A connection in a room. The user of an anonymous one is None."""

    room: str
    user: str | None
    connection_id: str


class Entry(NamedTuple):
    """The data that is reported for a connection.

    Attributes:
        info: The app's data about the user, as JSON.
        since: When the connection entered the room, as ISO 8601.
        room_info: The app's data about the connection in this room, as JSON; empty if there is none.
        lingers_until: When its grace period ends, if the connection was lost; in seconds of the caller's clock.
    """

    info: bytes
    since: str
    room_info: bytes = b""
    lingers_until: float | None = None


class Statement(NamedTuple):
    """The identity of a statement.

    Attributes:
        worker: The worker's name.
        number: The sequence number among the worker's statements.
        confirmed: The last number that Redis had confirmed when the statement was made.
    """

    worker: str
    number: int
    confirmed: int


class Ledger:
    """Records what one worker has reported, and decides what it reports next.

    Attributes:
        worker: The worker's name at Redis. It changes when Redis no longer knows it.
        confirmed: The number of the last statement that Redis confirmed.
        unsaid: How all connections have to be reported again; None while Redis has them.
        former: Names under which Redis may still have connections that are gone, or reported under another name.

    Args:
        new_name: Returns a name that no worker had before.
    """

    def __init__(self, new_name: Callable[[], str]) -> None:
        self._new_name = new_name
        self.worker: str = new_name()
        self.confirmed: int = 0
        self.unsaid: Manner | None = None
        self.former: set[str] = set()
        self._number = 0
        self._outstanding = 0
        self._entries: dict[str, dict[str | None, dict[str, Entry]]] = {}  # by room, user and connection
        self._firsts: dict[tuple[str, str | None], str] = {}
        self._entering: Counter[str] = Counter()
        self._owed: dict[str, dict[tuple[str | None, str], Entry | None]] = {}  # by room
        self._to_look_after: list[str] = []  # the rooms to check before the next round

    # Statements

    def state(self) -> Statement:
        """Numbers a new statement. The caller must call `answered` afterwards, even without an answer."""
        self._number += 1
        self._outstanding += 1
        return Statement(self.worker, self._number, self.confirmed)

    def answered(self, statement: Statement, answer: int | None) -> Literal["done", "repeat", "unknown", "failed"]:
        """Records Redis' answer to a statement, or None if there was no answer. Returns what the caller does next."""
        self._outstanding -= 1
        if answer is None:
            return "failed"
        if answer == UNKNOWN:
            return "unknown"
        self.confirmed = max(self.confirmed, statement.number)
        return "repeat" if answer == OVERTAKEN else "done"

    @property
    def newest(self) -> int:
        """The number of the newest statement, with which a new name begins."""
        return self._number

    # Connections

    def begin_entering(self, place: Place) -> None:
        """Records that a connection is about to be reported; `end_entering` follows. Settles an exit owed for it."""
        self.settle(place)
        self._entering[place.room] += 1

    def end_entering(self, place: Place, entry: Entry | None) -> None:
        """Records that a connection was reported, or, if the entry is None, that it was not.

        When a user returns, the grace period ends, and Redis forgets the user's lingering connections. Anonymous
        connections are independent of each other.
        """
        self._entering[place.room] -= 1
        if not self._entering[place.room]:
            del self._entering[place.room]
        if entry is not None and place.user is not None:
            for connection_id, each in tuple(self._of(place).items()):
                if each.lingers_until is not None:
                    self.forget(place._replace(connection_id=connection_id))
        if entry is not None:
            self._remember(place, entry)

    def linger(self, place: Place, until: float) -> None:
        """Records that a connection was lost, and stays until the end of its grace period.

        A connection that is about to leave lingers until the current time.
        """
        entries = self._of(place)
        if place.connection_id in entries:
            entries[place.connection_id] = entries[place.connection_id]._replace(lingers_until=until)

    def forget(self, place: Place) -> Entry | None:
        """Forgets a connection that has left or is about to. Returns its entry, if there was one."""
        users = self._entries.get(place.room, {})
        entries = users.get(place.user, {})
        entry = entries.pop(place.connection_id, None)
        if not entries:
            self._firsts.pop((place.room, place.user), None)
        if entry is not None and not entries:
            del users[place.user]
            if not users:
                del self._entries[place.room]
        return entry

    def restore(self, place: Place, entry: Entry, now: float) -> None:
        """Undoes `forget`, so that a connection that is about to leave is reported again first."""
        self._remember(place, entry._replace(lingers_until=now))

    def has(self, place: Place) -> bool:
        """Returns whether a connection is reported, or has to be reported again."""
        return place.connection_id in self._of(place)

    def note_first(self, place: Place, connection_id: str) -> None:
        """Records with which connection the presence of a user began. For most users that is their only one."""
        if connection_id == place.connection_id:
            self._firsts.pop((place.room, place.user), None)
        elif place.room in self._entering or self.has(place):  # it may have left since it was reported again
            self._firsts[place.room, place.user] = connection_id

    def first(self, place: Place) -> str:
        """Returns the connection with which the presence of a user began, as far as Redis told this worker."""
        return self._firsts.get((place.room, place.user), place.connection_id)

    def is_last(self, room: str) -> bool:
        """Returns whether no connection of this worker is in a room, is entering it, or owes an exit."""
        return room not in self._entries and room not in self._entering and room not in self._owed

    @property
    def is_empty(self) -> bool:
        """Whether Redis certainly has no connections of this worker."""
        return not self._entries and not self._owed and not self._outstanding

    def longest_grace_s(self, now: float) -> float:
        """Returns the seconds until the last grace period ends; 0 if there is none."""
        return max([entry.lingers_until - now for entry in self._all() if entry.lingers_until is not None], default=0.0)

    def places(self, room: str | None = None) -> list[Place]:
        """Returns the reported connections, of one room or of all."""
        return [
            Place(each, user, connection_id)
            for each in (self._entries if room is None else (room,))
            for user, entries in self._entries.get(each, {}).items()
            for connection_id in entries
        ]

    # Exits that could not be reported

    @property
    def owes(self) -> bool:
        """Whether an exit is owed."""
        return bool(self._owed)

    def owe(self, place: Place, entry: Entry | None) -> None:
        """Records an exit that could not be reported. The entry is the last one reported; None if unknown."""
        self._owed.setdefault(place.room, {})[place.user, place.connection_id] = entry

    def is_owed(self, place: Place) -> bool:
        """Returns whether the exit of a connection is owed."""
        return (place.user, place.connection_id) in self._owed.get(place.room, {})

    def settle(self, place: Place) -> Entry | None:
        """Records that the exit of a connection is no longer owed. Returns the entry that `owe` recorded."""
        owed = self._owed.get(place.room, {})
        entry = owed.pop((place.user, place.connection_id), None)
        if not owed:
            self._owed.pop(place.room, None)
        return entry

    def debts(self) -> list[Place]:
        """Returns the connections whose exits are owed."""
        return [Place(room, *connection) for room, owed in self._owed.items() for connection in owed]

    # Reporting again

    def lease_answered(self, answer: LeaseAnswer) -> bool:
        """Records the state of the worker's lease.

        Returns:
            Whether the worker has a new name, for which it must take a lease.
        """
        if answer == "kept":
            return False
        if answer == "claimed":
            self.unsaid = "aloud"
        else:
            self.unsaid = self.unsaid or "silently"
            self.former.add(self.worker)
        self.worker = self._new_name()
        return True

    def begin_again(self, now: float) -> list[Place]:
        """Returns the connections to report again.

        If they are reported silently, they include the connections whose exit is owed: only a reported connection can
        be announced to leave.
        """
        if self.unsaid == "silently":
            for room, owed in self._owed.items():
                for (user, connection_id), entry in owed.items():
                    if entry is not None:
                        self.restore(Place(room, user, connection_id), entry, now)
        return self.places()

    def again(self, place: Place, manner: Manner) -> tuple[Entry, Literal["here", "lingers"]] | None:
        """Decides how a connection is reported again. Returns None if it is not, because it has left meanwhile.

        If the reports are announced, a connection in its grace period is not reported: the rooms received an
        announcement that it left, and that is true.
        """
        entry = self._of(place).get(place.connection_id)
        if entry is None:
            return None
        if entry.lingers_until is None:
            return entry, "here"
        if manner == "aloud":
            self.forget(place)
            return None
        return entry, "lingers"

    def end_again(self) -> None:
        """Records that all connections are reported again, and the entries of former names are removed."""
        self.unsaid = None

    # Checking what Redis keeps

    def witnesses(self, most: int) -> list[Place]:
        """Chooses the next rooms to check, and returns their witnesses.

        A connection in its grace period is no witness: Redis rightly forgets it when its user returns elsewhere.

        Args:
            most: Maximum number of rooms. If there are more, the next call continues with the others.
        """
        if not self._to_look_after:
            self._to_look_after = list(self._entries)
        rooms = [room for room in self._to_look_after[-most:] if room in self._entries]
        del self._to_look_after[-most:]
        return self.witnesses_of(rooms)

    def witnesses_of(self, rooms: Iterable[str]) -> list[Place]:
        """Returns the witnesses of some rooms: if Redis has lost any entries of a room, it has lost its witness."""
        chosen = [(room, anonymous) for room in rooms for anonymous in (False, True)]
        return [witness for each in chosen if (witness := self._witness(*each)) is not None]

    def _witness(self, room: str, anonymous: bool) -> Place | None:
        live = (
            Place(room, user, connection_id)
            for user, entries in self._entries.get(room, {}).items()
            if (user is None) == anonymous
            for connection_id, entry in entries.items()
            if entry.lingers_until is None
        )
        return next(live, None)

    def _remember(self, place: Place, entry: Entry) -> None:
        self._entries.setdefault(place.room, {}).setdefault(place.user, {})[place.connection_id] = entry

    def _of(self, place: Place) -> dict[str, Entry]:
        return self._entries.get(place.room, {}).get(place.user, {})

    def _all(self) -> Iterator[Entry]:
        for users in self._entries.values():
            for entries in users.values():
                yield from entries.values()
