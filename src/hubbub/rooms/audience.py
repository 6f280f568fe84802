"""The audience of a room: which member receives which messages, framed once for each protocol in the room."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from ..connections.outbox import Lane
from ..connections.pacing import Patience
from ..envelope import Announcement, Envelope
from ..names import label, user_of, user_room
from ..options import Overflow, RoomOptions
from ..protocols import ClientProtocol, RoomInfo


class Target(Protocol):
    """The transport of a member, to which frames are written while its outbox is empty."""

    def write(self, data: bytes) -> bool:
        """Writes frames. Returns False if the outbox is not empty or the socket does not take them."""


class MemberWriter(Protocol):
    """The writer of a member, which queues frames that its transport does not take."""

    @property
    def congested(self) -> bool: ...

    def stalled_for(self, now: float) -> float: ...

    @property
    def transport(self) -> Target: ...

    def write(self, data: bytes, lane: Lane, key: str | None = None) -> bool:
        """Writes or queues a frame. Returns False if it was dropped."""


class RoomMember(Protocol):
    """A session, as far as a room needs it."""

    @property
    def id(self) -> str: ...

    @property
    def user_id(self) -> str | None: ...

    @property
    def protocol(self) -> ClientProtocol:
        """The protocol that its client speaks."""

    @property
    def writer(self) -> MemberWriter: ...


class Outgoing:
    """An event of a room on its way to the members.

    Attributes:
        size: The size of the message in bytes: about that of its frame.
        key: With ``overflow="latest"``, a waiting message with the same key is replaced.
        exclude: The members that do not receive it, as in `Envelope.exclude`.
    """

    __slots__ = ("_event", "_frame", "_frames", "_protocol", "_room", "exclude", "key", "size")

    def __init__(self, room: RoomInfo, event: Envelope | Announcement) -> None:
        self._room = room
        self._event = event
        self._protocol: ClientProtocol | None = None  # nearly all rooms have one protocol
        self._frame = b""
        self._frames: dict[ClientProtocol, bytes] | None = None
        if isinstance(event, Envelope):
            self.size: int = len(event.payload.data)
            self.key = event.key
            self.exclude: frozenset[str] = event.exclude
        else:
            self.size = len(event.info) + len(event.user_id or "")
            # News of a user replace older news of the user, and never a message of the app.
            self.key = f"\0{event.connection_id}"
            self.exclude = frozenset()

    def frame(self, protocol: ClientProtocol) -> bytes:
        """Returns the frame for members that speak a protocol, made once. Empty if the protocol has none for it."""
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
        return protocol.announcement(room, event) or b""

    def frame_for(self, member: RoomMember) -> bytes:
        """Returns the frame for one member; empty if it receives nothing."""
        return b"" if self.exclude and self._excludes(member) else self.frame(member.protocol)

    def _excludes(self, member: RoomMember) -> bool:
        user = member.user_id
        return member.id in self.exclude or (user is not None and user_room(user) in self.exclude)


class _Taken:
    """Stands in a flight for a member that does not receive it any more."""

    def write(self, data: bytes) -> bool:
        return True


_TAKEN = _Taken()


class Run(NamedTuple):
    """Consecutive members of a roster that speak the same protocol: from ``first`` until before ``end``."""

    protocol: ClientProtocol
    first: int
    end: int


class Roster:
    """A snapshot of the members of a room, sorted for the fan-out.

    Attributes:
        members: The members, grouped by protocol.
        targets: The transports of the members, in the same order.
        runs: The ranges of the members of each protocol.
    """

    __slots__ = ("_ids", "_indexes", "members", "runs", "targets")

    def __init__(self, members: Iterable[RoomMember]) -> None:
        self.members: list[RoomMember] = list(members)
        self.runs: list[Run] = []
        counts = Counter([member.protocol for member in self.members])
        if len(counts) > 1:
            order = {protocol: place for place, protocol in enumerate(counts)}
            self.members.sort(key=lambda member: order[member.protocol])
        end = 0
        for protocol, count in counts.items():
            first, end = end, end + count
            self.runs.append(Run(protocol, first, end))
        self.targets: list[Target] = [member.writer.transport for member in self.members]
        self._indexes: dict[str, int] | None = None
        self._ids: dict[str, list[str]] | None = None

    def ids_of(self, user: str) -> Sequence[str]:
        """Returns the connection ids of a user's members."""
        if self._ids is None:
            self._ids = {}
            for member in self.members:
                if member.user_id is not None:
                    self._ids.setdefault(member.user_id, []).append(member.id)
        return self._ids.get(user, ())

    def index(self, connection_id: str) -> int | None:
        """Returns the index of a member; None if there is no such member."""
        if self._indexes is None:
            self._indexes = {member.id: index for index, member in enumerate(self.members)}
        return self._indexes.get(connection_id)


class Flight:
    """A batch of messages on its way to the members of a roster.

    Attributes:
        batch: The messages.
        targets: The transports of the members, in the order of the roster.
        runs: The ranges of the members of each protocol.
        at: The number of targets that have been written to.
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
        """Returns the frames of the batch in a protocol, joined once."""
        data = self._data.get(protocol)
        if data is None:
            batch = self.batch
            data = batch[0].frame(protocol) if len(batch) == 1 else b"".join([each.frame(protocol) for each in batch])
            self._data[protocol] = data
        return data

    @property
    def members(self) -> list[RoomMember]:
        """The members, in the order of the targets."""
        return self._roster.members

    def take(self, connection_id: str) -> RoomMember | None:
        """Removes a member that has not received the batch, and returns it; None if there is no such member."""
        index = self._roster.index(connection_id)
        if index is None or index < self.at or self.targets[index] is _TAKEN:
            return None
        self.targets[index] = _TAKEN
        return self._roster.members[index]


class Audience:
    """The live members of a room, and the messages that they have not received yet.

    Attributes:
        channel: The room's channel at the broker.
        label: The room's name as its clients see it.
        options: The options of the room.
        members: The live members, by connection id.
        pending: The events that the members receive at the end of this pass of the event loop.
        ahead: How many leading pending messages each member skips, because it joined later or already has them.
        flight: The batch that is being written, if that takes more than one slice.
        patience: The budget of pauses for publishers to the room.
    """

    __slots__ = (
        "_roster",
        "ahead",
        "channel",
        "flight",
        "label",
        "members",
        "options",
        "patience",
        "pending",
    )

    def __init__(self, channel: str, options: RoomOptions) -> None:
        self.channel: str = channel
        self.label: str = label(channel)
        self.options: RoomOptions = options
        self.members: dict[str, RoomMember] = {}
        self.pending: list[Outgoing] = []
        self.ahead: dict[str, int] = {}
        self.flight: Flight | None = None
        self.patience: Patience | None = None
        self._roster: Roster | None = None

    @property
    def overflow(self) -> Overflow:
        """The room's policy for a full outbox."""
        return self.options.overflow

    def add(self, member: RoomMember) -> None:
        """Adds a live member. It does not receive messages that are already pending."""
        self.members[member.id] = member
        self._roster = None
        if self.pending:
            self.ahead[member.id] = len(self.pending)

    def remove(self, member: RoomMember) -> None:
        """Removes a member. Idempotent."""
        self.members.pop(member.id, None)
        self._roster = None
        self.ahead.pop(member.id, None)

    @property
    def roster(self) -> Roster:
        """A snapshot of the members, kept until they change."""
        if self._roster is None:
            self._roster = Roster(self.members.values())
        return self._roster

    def launch(self) -> tuple[Flight, list[tuple[RoomMember, list[Outgoing]]]]:
        """Turns the pending messages into a flight.

        Returns:
            The flight, and its exceptions: members that are ahead, or that a message excludes, with the messages that
            may be theirs.
        """
        batch, self.pending = self.pending, []
        flight = self.flight = Flight(batch, self.roster)
        excluded = {name for outgoing in batch if outgoing.exclude for name in outgoing.exclude}
        if not excluded and not self.ahead:
            return flight, []
        skipped, self.ahead = self.ahead, {}  # how many messages of the batch each exception skips, by connection id
        for name in excluded:  # a connection id, or the own room of a user
            user = user_of(name)
            for connection_id in (name,) if user is None else self.roster.ids_of(user):
                skipped.setdefault(connection_id, 0)
        exceptions = [(flight.take(connection_id), count) for connection_id, count in skipped.items()]
        return flight, [(member, batch[count:]) for member, count in exceptions if member is not None]
