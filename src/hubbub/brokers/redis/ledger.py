"""The connections that one worker has reported to Redis, and what it has to report next or again. Pure.

Theory of operation. A *statement* says that a connection comes, lingers or goes. It carries the worker's name, its own
number, and the last number that Redis confirmed. Redis keeps the worker's last number beside the name, so it answers a
statement in one of three ways:

- *done*: the statement is in effect. A repetition is answered the same.
- *overtaken*: a later statement came first, as happens over two connections. The statement did nothing, so it is
  repeated under a new number.
- *unknown*: Redis does not have the name, or not all that it confirmed. It has lost data, or the worker was taken for
  dead. Nothing is done under this name any more. The worker takes a new one and reports all its connections again.

How they are reported again depends on what the lease says of the old name. *Claimed*: another worker took the
connections out and the rooms heard that they left, so they are announced again, and connections in their grace are not
reported. *Lost*: nobody heard anything, so all are reported in silence, those that are about to leave included, and
what Redis may still keep under the former name is cleared afterwards, in silence too.

An exit that could not be said is *owed*, and is said when Redis is back. An eviction can take away a room's entries
alone. They go together, and the connection that was reported first is there the longest, so it is the *witness* for its
room: if it is missing, the room is reported again. The anonymous connections are kept apart, with a witness of their
own.
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
    """What is reported of a connection.

    Attributes:
        info: What the app says of the user, as JSON.
        since: When the connection came into the room, as ISO 8601.
        room_info: What the app says of the connection in this room, as JSON; empty for nothing.
        lingers_until: When its grace ends, if it was lost; in the seconds of the caller's clock.
    """

    info: bytes
    since: str
    room_info: bytes = b""
    lingers_until: float | None = None


class Statement(NamedTuple):
    """The identity of a statement.

    Attributes:
        worker: The worker's name.
        number: Counts the worker's statements.
        confirmed: The last number that Redis had confirmed when this was said.
    """

    worker: str
    number: int
    confirmed: int


class Ledger:
    """Keeps what one worker has reported, and decides what it reports next.

    Attributes:
        worker: The worker's name at Redis. It changes when Redis does not know it any more.
        confirmed: The number of the last statement that Redis confirmed.
        unsaid: How all connections are to be reported again; None while Redis has them.
        former: Names under which Redis may keep connections that are reported under another name, or gone.

    Args:
        new_name: Makes a name that no worker had before.
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
        self._entering: Counter[str] = Counter()
        self._owed: dict[str, dict[tuple[str | None, str], Entry | None]] = {}  # by room
        self._to_look_after: list[str] = []  # rooms, until each had its turn

    # Statements

    def state(self) -> Statement:
        """Numbers a statement. `answered` follows, whatever comes of it."""
        self._number += 1
        self._outstanding += 1
        return Statement(self.worker, self._number, self.confirmed)

    def answered(self, statement: Statement, answer: int | None) -> Literal["done", "repeat", "unknown", "failed"]:
        """Takes Redis' answer to a statement; None if there is none."""
        self._outstanding -= 1
        if answer is None:
            return "failed"
        if answer == UNKNOWN:
            return "unknown"
        self.confirmed = max(self.confirmed, statement.number)
        return "repeat" if answer == OVERTAKEN else "done"

    @property
    def newest(self) -> int:
        """The number of the newest statement: a new name begins with it."""
        return self._number

    # Connections

    def begin_entering(self, place: Place) -> None:
        """A connection is about to be reported; `end_entering` follows. An exit that is owed for it is settled."""
        self.settle(place)
        self._entering[place.room] += 1

    def end_entering(self, place: Place, entry: Entry | None) -> None:
        """A connection was reported, or with None was not.

        A user that comes again is no longer in grace, and Redis has forgotten its lingering connections. Anonymous
        connections have nothing to do with each other.
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
        """A connection was lost, and stays until the end of its grace, or now, if it is about to leave."""
        entries = self._of(place)
        if place.connection_id in entries:
            entries[place.connection_id] = entries[place.connection_id]._replace(lingers_until=until)

    def forget(self, place: Place) -> Entry | None:
        """A connection has left, or is said to."""
        users = self._entries.get(place.room, {})
        entries = users.get(place.user, {})
        entry = entries.pop(place.connection_id, None)
        if entry is not None and not entries:
            del users[place.user]
            if not users:
                del self._entries[place.room]
        return entry

    def restore(self, place: Place, entry: Entry, now: float) -> None:
        """Takes back `forget`, for as long as it takes to report a connection that is about to leave."""
        self._remember(place, entry._replace(lingers_until=now))

    def has(self, place: Place) -> bool:
        """Tells whether a connection is reported, or is to be."""
        return place.connection_id in self._of(place)

    def is_last(self, room: str) -> bool:
        """Tells whether no connection of this worker is in a room, is about to be, or owes an exit."""
        return room not in self._entries and room not in self._entering and room not in self._owed

    @property
    def is_empty(self) -> bool:
        """Whether Redis can't have anything of this worker."""
        return not self._entries and not self._owed and not self._outstanding

    def longest_grace_s(self, now: float) -> float:
        """How long the longest grace still lasts; 0 without any."""
        return max([entry.lingers_until - now for entry in self._all() if entry.lingers_until is not None], default=0.0)

    def places(self, room: str | None = None) -> list[Place]:
        """The connections that are reported; those in one room, if a room is given."""
        return [
            Place(each, user, connection_id)
            for each in (self._entries if room is None else (room,))
            for user, entries in self._entries.get(each, {}).items()
            for connection_id in entries
        ]

    # Exits that could not be said

    @property
    def owes(self) -> bool:
        """Whether an exit is owed."""
        return bool(self._owed)

    def owe(self, place: Place, entry: Entry | None) -> None:
        """An exit could not be said. The entry is what Redis was told last; None if that is not known."""
        self._owed.setdefault(place.room, {})[place.user, place.connection_id] = entry

    def is_owed(self, place: Place) -> bool:
        """Tells whether the exit of a connection is owed."""
        return (place.user, place.connection_id) in self._owed.get(place.room, {})

    def settle(self, place: Place) -> Entry | None:
        """The exit of a connection is not owed any more; gives what `owe` was given."""
        owed = self._owed.get(place.room, {})
        entry = owed.pop((place.user, place.connection_id), None)
        if not owed:
            self._owed.pop(place.room, None)
        return entry

    def debts(self) -> list[Place]:
        """The connections whose exits are owed."""
        return [Place(room, *who) for room, owed in self._owed.items() for who in owed]

    # Reporting again

    def lease_answered(self, answer: LeaseAnswer) -> bool:
        """Takes what the lease says of the name.

        Returns:
            Whether the worker has a new name, for which it has to take a lease.
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
        """Gives the connections that are to be reported again.

        In silence, these include those whose exit is owed: they are reported first, so that it can be heard that they
        leave.
        """
        if self.unsaid == "silently":
            for room, owed in self._owed.items():
                for (user, connection_id), entry in owed.items():
                    if entry is not None:
                        self.restore(Place(room, user, connection_id), entry, now)
        return self.places()

    def again(self, place: Place, manner: Manner) -> tuple[Entry, Literal["here", "lingers"]] | None:
        """Decides how a connection is reported again; None if it is not, because it has left meanwhile.

        Aloud, one in its grace is not: the rooms heard that it left, and it has.
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
        """All connections are reported again, and what is under the former names is cleared."""
        self.unsaid = None

    # Looking after what Redis keeps

    def witnesses(self, most: int) -> list[Place]:
        """Chooses the next rooms to look after, and gives the witnesses of each.

        A connection in its grace is no witness: it ends, rightly, when its user comes back to another worker.

        Args:
            most: How many rooms. Where there are more, the next call goes on with the others.
        """
        if not self._to_look_after:
            self._to_look_after = list(self._entries)
        rooms = [room for room in self._to_look_after[-most:] if room in self._entries]
        del self._to_look_after[-most:]
        return self.witnesses_of(rooms)

    def witnesses_of(self, rooms: Iterable[str]) -> list[Place]:
        """Gives the connections by which rooms are looked after: they are missing at Redis if any of the room are."""
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
