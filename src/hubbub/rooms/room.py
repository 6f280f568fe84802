"""One room on this worker: its members, and those that are still replayed what they missed."""

from __future__ import annotations

import asyncio

from ..options import RoomOptions
from ..positions import Position
from .audience import Audience, RoomMember


class CatchUp:
    """A member that does not get the live messages yet: it is being replayed what it missed.

    Attributes:
        cursor: The position up to which it was given everything.
        at_head: Whether the history had nothing after the cursor; the next live message after it ends the catch-up.
        doubted: Whether what comes live no longer follows the cursor: the history is to be asked again.
    """

    __slots__ = ("at_head", "cursor", "doubted", "member")

    def __init__(self, member: RoomMember, cursor: Position) -> None:
        self.member: RoomMember = member
        self.cursor: Position = cursor
        self.at_head: bool = False
        self.doubted: bool = False


class Room(Audience):
    """A room that has members here, or is about to.

    Attributes:
        catching_up: Who will be a member, after a replay.
        head: The position of the newest message that came from the broker.
        subscribed: Whether the broker delivers its channel.
        joining: Joins that are under way.
        lock: Held while the room is subscribed or unsubscribed.
    """

    __slots__ = ("catching_up", "head", "joining", "lock", "subscribed")

    def __init__(self, name: str, options: RoomOptions) -> None:
        super().__init__(name, options)
        self.catching_up: dict[str, CatchUp] = {}
        self.head: Position | None = None
        self.subscribed: bool = False
        self.joining: int = 0
        self.lock: asyncio.Lock = asyncio.Lock()

    @property
    def vacant(self) -> bool:
        """Whether nobody is here or about to be."""
        return not self.size and not self.joining

    @property
    def size(self) -> int:
        return len(self.members) + len(self.catching_up)

    @property
    def full(self) -> bool:
        """Whether it has as many members as it may have."""
        return self.options.max_members is not None and self.size >= self.options.max_members

    def everybody(self) -> list[RoomMember]:
        """All that are here, live or not yet. Safe in any thread."""
        return [*self.members.values(), *[each.member for each in tuple(self.catching_up.values())]]

    def remove(self, member: RoomMember) -> None:
        """Takes a member out, live or not yet. Idempotent."""
        super().remove(member)
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

    def caught_up(self, catch_up: CatchUp) -> bool:
        """The history has nothing after the cursor: goes live now, or with the first live message that is new.

        Returns:
            False where something came live since the history was asked: it has to be asked again.
        """
        if catch_up.doubted:
            return False
        head, cursor = self.head, catch_up.cursor
        if head == cursor:
            self.go_live(catch_up)
        elif head is not None and head.epoch == cursor.epoch and head.offset > cursor.offset:
            return False
        else:  # what comes live is behind the history, or has yet to come to its epoch
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
        if self.catching_up:
            for catch_up in tuple(self.catching_up.values()):
                cursor = catch_up.cursor
                if catch_up.at_head and position.epoch == cursor.epoch and position.offset > cursor.offset:
                    self.go_live(catch_up)

    def change_epoch(self, position: Position) -> list[CatchUp]:
        """Handles live messages that do not follow the earlier ones: the epoch changed, or some are missing.

        Returns:
            The replays that had everything until now and waited for live messages. These do not follow for them either,
            so the history has to be read again.
        """
        self.head = position
        waiting: list[CatchUp] = []
        for catch_up in self.catching_up.values():
            cursor = catch_up.cursor
            if cursor.epoch != position.epoch or cursor.offset < position.offset:
                catch_up.doubted = True
                if catch_up.at_head:
                    catch_up.at_head = False
                    waiting.append(catch_up)
        return waiting
