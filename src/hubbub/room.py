"""One room on this worker: its members, and what they are about to get."""

from __future__ import annotations

import asyncio
from typing import NamedTuple, Protocol

from .envelope import Envelope
from .names import label
from .options import Overflow, RoomOptions
from .outbox import Lane
from .pace import Patience
from .positions import Position, position_only, positioned


class MemberWriter(Protocol):
    """Where a member's frames go."""

    @property
    def queued_bytes(self) -> int: ...

    @property
    def congested(self) -> bool: ...

    def write_now(self, data: bytes) -> bool:
        """Writes if nothing waits and the socket takes it."""

    def write(self, data: bytes, lane: Lane, key: str | None = None) -> bool:
        """Writes or queues."""


class RoomMember(Protocol):
    """What a room needs of a connection."""

    @property
    def id(self) -> str: ...

    @property
    def excluded_as(self) -> frozenset[str]:
        """The ids by which a publish may exclude it: its own, and those of the connections it continues."""

    @property
    def writer(self) -> MemberWriter: ...


class Outgoing(NamedTuple):
    """A message on its way to the members.

    Attributes:
        data: Its frame.
        key: What ``overflow="latest"`` replaces by.
        exclude: Connection ids that do not get it.
        instead: The frame that those get; None for nothing.
    """

    data: bytes
    key: str | None
    exclude: frozenset[str]
    instead: bytes | None

    def frame_for(self, member: RoomMember) -> bytes | None:
        """The frame that a member is to get."""
        if self.exclude and not self.exclude.isdisjoint(member.excluded_as):
            return self.instead
        return self.data


class CatchUp:
    """A member that does not get the live messages yet: it is being replayed what it missed.

    Attributes:
        cursor: The offset up to which it was given everything.
        at_head: Whether the history had nothing after the cursor; the next live message after it ends the catch-up.
    """

    __slots__ = ("at_head", "cursor", "member")

    def __init__(self, member: RoomMember, cursor: int) -> None:
        self.member = member
        self.cursor = cursor
        self.at_head = False


class Room:
    """A room that has members here, or is about to.

    Attributes:
        name: Its name, which is its channel at the broker.
        label: Its name as clients see it.
        options: How it behaves.
        members: Who gets what is published, by connection id.
        newcomers: Members that came when something was pending: each with how much of it came before them.
        catching_up: Who will, after a replay.
        pending: What the members get at the end of this pass of the event loop.
        head: The position of the newest message that came from the broker.
    """

    __slots__ = (
        "catching_up",
        "head",
        "joining",
        "label",
        "lock",
        "members",
        "name",
        "newcomers",
        "options",
        "patience",
        "pending",
        "subscribed",
    )

    def __init__(self, name: str, options: RoomOptions) -> None:
        self.name = name
        self.label = label(name)
        self.options = options
        self.members: dict[str, RoomMember] = {}
        self.newcomers: dict[str, tuple[RoomMember, int]] = {}
        self.catching_up: dict[str, CatchUp] = {}
        self.pending: list[Outgoing] = []
        self.patience: Patience | None = None
        self.head: Position | None = None
        self.subscribed = False
        self.joining = 0
        self.lock = asyncio.Lock()

    @property
    def overflow(self) -> Overflow:
        return self.options.overflow

    @property
    def vacant(self) -> bool:
        """Whether nobody is here or about to be."""
        return not self.size and not self.joining

    @property
    def size(self) -> int:
        return len(self.members) + len(self.newcomers) + len(self.catching_up)

    def everybody(self) -> list[RoomMember]:
        """All that are here, live or not yet."""
        newcomers = (member for member, _ in self.newcomers.values())
        return [*self.members.values(), *newcomers, *(each.member for each in self.catching_up.values())]

    def add(self, member: RoomMember) -> None:
        """Makes somebody a member from here on: what is pending came before."""
        if self.pending:
            self.newcomers[member.id] = member, len(self.pending)
        else:
            self.members[member.id] = member

    def settle(self) -> None:
        """What was pending is written: who came meanwhile is a member like any other."""
        if self.newcomers:
            self.members.update((member.id, member) for member, _ in self.newcomers.values())
            self.newcomers.clear()

    def outgoing(self, envelope: Envelope) -> Outgoing:
        """Frames a message, once for all members."""
        if not self.options.positions or envelope.position is None:
            return Outgoing(envelope.payload.frame(), envelope.key, envelope.exclude, None)
        return Outgoing(
            positioned(envelope.payload, self.label, envelope.position),
            envelope.key,
            envelope.exclude,
            position_only(self.label, envelope.position) if envelope.exclude else None,
        )

    def remove(self, member: RoomMember) -> None:
        """Takes a member out. Idempotent."""
        self.members.pop(member.id, None)
        self.newcomers.pop(member.id, None)
        self.catching_up.pop(member.id, None)

    def go_live(self, catch_up: CatchUp) -> None:
        """Ends a catch-up: from here on the member gets what is published."""
        if self.is_catching_up(catch_up):
            member = catch_up.member
            del self.catching_up[member.id]
            self.add(member)

    def is_catching_up(self, catch_up: CatchUp) -> bool:
        """Whether a catch-up goes on: its member may have left, and even come back with another."""
        return self.catching_up.get(catch_up.member.id) is catch_up

    def caught_up(self, catch_up: CatchUp, head: Position | None) -> bool:
        """The history has nothing after the cursor: goes live now, or with the first live message that is new.

        Returns:
            False where a message came live since the history was asked: it has to be asked again.
        """
        if self.head is None or head is None or self.head.epoch != head.epoch or self.head.offset == catch_up.cursor:
            self.go_live(catch_up)
        elif self.head.offset > catch_up.cursor:
            return False
        else:
            catch_up.at_head = True
        return True

    def started_at(self, position: Position | None) -> None:
        """The broker's answer to the subscription; messages may have come before it."""
        head = self.head
        if head is None or position is None or head.epoch != position.epoch or head.offset < position.offset:
            self.head = position

    def advance(self, position: Position) -> None:
        """A live message came: those who were given everything before it go live."""
        self.head = position
        for catch_up in tuple(self.catching_up.values()):
            if catch_up.at_head and position.offset > catch_up.cursor:
                self.go_live(catch_up)
