"""The members of a room as its messages see them: who gets what, framed once for each protocol that they speak."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

from ..connections.backpressure import Patience
from ..connections.outbox import Lane
from ..envelope import Announcement, Envelope, Relabel, Reset
from ..names import label, user_of, user_room
from ..options import Overflow, RoomOptions
from ..protocols import ClientProtocol, RoomInfo

_NOBODY: Final[frozenset[str]] = frozenset()


class Target(Protocol):
    """Where a member's frames go while nothing of it waits: its transport."""

    def write(self, data: bytes) -> bool:
        """Writes if nothing waits and the socket takes it."""


class MemberWriter(Protocol):
    """Where a member's frames go."""

    @property
    def congested(self) -> bool: ...

    def stalled_for(self, now: float) -> float: ...

    @property
    def transport(self) -> Target: ...

    def write(self, data: bytes, lane: Lane, key: str | None = None) -> bool:
        """Writes or queues."""


class RoomMember(Protocol):
    """What a room needs of a connection."""

    @property
    def id(self) -> str: ...

    @property
    def user_id(self) -> str | None: ...

    @property
    def continues(self) -> frozenset[str]:
        """The ids of the connections before it, by which a publish may exclude it too."""

    @property
    def protocol(self) -> ClientProtocol:
        """The wire format that its client speaks."""

    @property
    def writer(self) -> MemberWriter: ...


class Outgoing:
    """A message or news of a room, on its way to the members.

    Attributes:
        size: Bytes of the message: what its frames come to, give or take a header.
        key: What ``overflow="latest"`` replaces by.
        exclude: Ids of connections, and own rooms of users, that do not get it.
    """

    __slots__ = ("_event", "_frame", "_frames", "_protocol", "_room", "exclude", "key", "size")

    def __init__(self, room: RoomInfo, event: Envelope | Announcement | Reset | Relabel) -> None:
        self._room = room
        self._event = event
        self._protocol: ClientProtocol | None = None  # nearly all rooms have members of one
        self._frame = b""
        self._frames: dict[ClientProtocol, bytes] | None = None
        if isinstance(event, Envelope):
            self.size: int = len(event.payload.data)
            self.key = event.key
            self.exclude: frozenset[str] = event.exclude
        else:
            self.size = len(event.info) + len(event.user_id) if isinstance(event, Announcement) else 0
            self.key = None
            self.exclude = _NOBODY

    def frame(self, protocol: ClientProtocol) -> bytes:
        """Its frame for members that speak a protocol, made once; empty where that protocol says nothing of it."""
        if protocol is self._protocol:
            return self._frame
        if self._protocol is None:
            self._protocol = protocol
            self._frame = self._framed(protocol)
            return self._frame
        if self._frames is None:
            self._frames = {}
        frame = self._frames.get(protocol)
        if frame is None:
            frame = self._frames[protocol] = self._framed(protocol)
        return frame

    def _framed(self, protocol: ClientProtocol) -> bytes:
        event, room = self._event, self._room
        if isinstance(event, Envelope):
            return protocol.publication(room, event) or b""
        if isinstance(event, Announcement):
            return protocol.announcement(room, event) or b""
        return protocol.renumbering(room, event) or b""

    def frame_for(self, member: RoomMember) -> bytes:
        """The frame that a member is to get; empty for nothing."""
        if self.exclude and self._excludes(member):
            assert isinstance(self._event, Envelope)
            return member.protocol.exclusion(self._room, self._event) or b""
        return self.frame(member.protocol)

    def _excludes(self, member: RoomMember) -> bool:
        exclude, user = self.exclude, member.user_id
        return (
            member.id in exclude
            or not exclude.isdisjoint(member.continues)
            or (user is not None and user_room(user) in exclude)
        )


class _Taken:
    """In the place of a member that a flight no longer goes to."""

    def write(self, data: bytes) -> bool:
        return True


_TAKEN = _Taken()


class Run(NamedTuple):
    """Members of a roster, side by side, that speak the same protocol: from ``first`` to before ``end``."""

    protocol: ClientProtocol
    first: int
    end: int


class Roster:
    """The members of a room at some time, as a fan-out needs them: what it writes to, side by side.

    Attributes:
        members: The members, those of each protocol together.
        targets: What is written to, in the same order.
        runs: Where the members of each protocol are.
    """

    __slots__ = ("_ids", "_places", "members", "runs", "targets")

    def __init__(self, members: Iterable[RoomMember]) -> None:
        self.members: list[RoomMember] = list(members)
        self.runs: list[Run] = []
        protocols = dict.fromkeys([member.protocol for member in self.members])
        if len(protocols) > 1:
            order = {protocol: place for place, protocol in enumerate(protocols)}
            self.members.sort(key=lambda member: order[member.protocol])
        end = 0
        for protocol in protocols:
            first = end
            if len(protocols) == 1:
                end = len(self.members)
            else:
                end += sum(member.protocol is protocol for member in self.members)
            self.runs.append(Run(protocol, first, end))
        self.targets: list[Target] = [member.writer.transport for member in self.members]
        self._places: dict[str, int] | None = None
        self._ids: dict[str, list[str]] | None = None

    def ids_of(self, user: str) -> Sequence[str]:
        """The connection ids of a user's members."""
        if self._ids is None:
            self._ids = {}
            for member in self.members:
                if member.user_id is not None:
                    self._ids.setdefault(member.user_id, []).append(member.id)
        return self._ids.get(user, ())

    def place(self, name: str) -> int | None:
        """Where a member is, by its connection id."""
        if self._places is None:
            self._places = {member.id: index for index, member in enumerate(self.members)}
        return self._places.get(name)


class Flight:
    """What was pending together, on its way to the members.

    Attributes:
        batch: The messages.
        targets: What is written to, in the order of the roster.
        runs: Where the members of each protocol are.
        at: How many of these are done.
    """

    __slots__ = ("_data", "_roster", "at", "batch", "runs", "targets")

    def __init__(self, batch: list[Outgoing], roster: Roster) -> None:
        self.batch: list[Outgoing] = batch
        self.targets: list[Target] = roster.targets.copy()
        self.runs: list[Run] = roster.runs
        self.at: int = 0
        self._roster = roster
        self._data: dict[ClientProtocol, bytes] = {}

    def data(self, protocol: ClientProtocol) -> bytes:
        """The frames of the batch in a protocol, joined once for all its members."""
        data = self._data.get(protocol)
        if data is None:
            batch = self.batch
            data = batch[0].frame(protocol) if len(batch) == 1 else b"".join([each.frame(protocol) for each in batch])
            self._data[protocol] = data
        return data

    @property
    def members(self) -> list[RoomMember]:
        return self._roster.members

    def take(self, name: str) -> RoomMember | None:
        """Takes somebody out who has not got it yet; None where there is no such member."""
        place = self._roster.place(name)
        if place is None or place < self.at or self.targets[place] is _TAKEN:
            return None
        self.targets[place] = _TAKEN
        return self._roster.members[place]


class Audience:
    """The members of a room, and what they are about to get.

    Attributes:
        name: The room's name, which is its channel at the broker.
        label: Its name as clients see it.
        options: How it behaves.
        members: Who gets what is published, by connection id.
        aliases: Members by the ids of the connections that they continue.
        pending: What the members get at the end of this pass of the event loop.
        ahead: How many leading pending messages each member skips, because it joined later or already has them.
        flight: What is being written, where that takes more than one slice.
        patience: The budget of pauses of its publishers.
    """

    __slots__ = (
        "_roster",
        "ahead",
        "aliases",
        "flight",
        "label",
        "members",
        "name",
        "options",
        "patience",
        "pending",
    )

    def __init__(self, name: str, options: RoomOptions) -> None:
        self.name: str = name
        self.label: str = label(name)
        self.options: RoomOptions = options
        self.members: dict[str, RoomMember] = {}
        self.aliases: dict[str, set[str]] = {}
        self.pending: list[Outgoing] = []
        self.ahead: dict[str, int] = {}
        self.flight: Flight | None = None
        self.patience: Patience | None = None
        self._roster: Roster | None = None

    @property
    def overflow(self) -> Overflow:
        return self.options.overflow

    def add(self, member: RoomMember) -> None:
        """Makes somebody a member from here on: what is pending came before."""
        self.members[member.id] = member
        self._roster = None
        if self.pending:
            self.ahead[member.id] = len(self.pending)
        for alias in member.continues:
            self.aliases.setdefault(alias, set()).add(member.id)

    def remove(self, member: RoomMember) -> None:
        """Takes a member out. Idempotent."""
        known = self.members.pop(member.id, None)
        self._roster = None
        self.ahead.pop(member.id, None)
        if known is not None:
            for alias in member.continues:
                names = self.aliases.get(alias, set())
                names.discard(member.id)
                if not names:
                    self.aliases.pop(alias, None)

    @property
    def roster(self) -> Roster:
        """The members as they are now."""
        if self._roster is None:
            self._roster = Roster(self.members.values())
        return self._roster

    def launch(self) -> tuple[Flight, list[tuple[RoomMember, list[Outgoing]]]]:
        """Takes what is pending.

        Returns:
            The flight, and who does not get just that, with what it gets: who is excluded from a message or ahead.
        """
        batch, self.pending = self.pending, []
        flight = self.flight = Flight(batch, self.roster)
        excluded = {name for outgoing in batch if outgoing.exclude for name in outgoing.exclude}
        if not excluded and not self.ahead:
            return flight, []
        apart, self.ahead = self.ahead, {}
        for name in excluded:
            user = user_of(name)
            also = self.aliases.get(name, ()) if user is None else self.roster.ids_of(user)
            for each in (name, *also):
                apart.setdefault(each, 0)
        members = [(flight.take(name), since) for name, since in apart.items()]
        return flight, [(member, batch[since:]) for member, since in members if member is not None]
