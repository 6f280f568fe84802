"""One room on this worker: its live members, and those that still catch up."""

from __future__ import annotations

import asyncio

from ..options import RoomOptions
from ..positions import Position
from .audience import Audience, RoomMember


class CatchUp:
    """A member that is not live yet: it receives messages from the history.

    Attributes:
        member: The member.
        cursor: The position up to which the member has received everything.
        answered: Whether the client was told that it joined. Before that, it receives nothing of the room.
        at_head: Whether the history had nothing after the cursor, so that the next live message ends the catch-up.
        doubted: Whether live messages do not follow the cursor any more, so that the history must be read again.
    """

    __slots__ = ("answered", "at_head", "cursor", "doubted", "member")

    def __init__(self, member: RoomMember, cursor: Position, *, answered: bool = True) -> None:
        self.member: RoomMember = member
        self.cursor: Position = cursor
        self.answered: bool = answered
        self.at_head: bool = False
        self.doubted: bool = False


class Room(Audience):
    """A room that has members here, or is about to have some.

    Attributes:
        catching_up: The members that are not live yet, by connection id.
        head: The position of the newest message that the broker delivered.
        subscribed: Whether the broker delivers the room's channel.
        joining: The number of joins that are under way.
        lock: Held while the room is subscribed or unsubscribed.
    """

    __slots__ = ("catching_up", "head", "joining", "lock", "subscribed")

    def __init__(self, channel: str, options: RoomOptions) -> None:
        super().__init__(channel, options)
        self.catching_up: dict[str, CatchUp] = {}
        self.head: Position | None = None
        self.subscribed: bool = False
        self.joining: int = 0
        self.lock: asyncio.Lock = asyncio.Lock()

    @property
    def vacant(self) -> bool:
        """Whether the room has no members, and none is joining."""
        return not self.size and not self.joining

    @property
    def size(self) -> int:
        """The number of members, live or catching up."""
        return len(self.members) + len(self.catching_up)

    @property
    def full(self) -> bool:
        """Whether the room has as many members as its options allow."""
        return self.options.max_members is not None and self.size >= self.options.max_members

    def everybody(self) -> list[RoomMember]:
        """Returns all members, live or catching up. Safe in any thread."""
        return [*self.members.values(), *[each.member for each in tuple(self.catching_up.values())]]

    def remove(self, member: RoomMember) -> None:
        """Removes a member, live or catching up. Idempotent."""
        super().remove(member)
        self.catching_up.pop(member.id, None)

    def go_live(self, catch_up: CatchUp) -> None:
        """Ends a catch-up: from now on, the member receives live messages."""
        if self.is_catching_up(catch_up):
            member = catch_up.member
            del self.catching_up[member.id]
            self.add(member)

    def is_catching_up(self, catch_up: CatchUp) -> bool:
        """Returns whether a catch-up is still under way. Its member may have left, and even begun another one."""
        return self.catching_up.get(catch_up.member.id) is catch_up

    def caught_up(self, catch_up: CatchUp) -> bool:
        """Handles the end of the history: the member goes live now, or with the next new message.

        Returns:
            False if a live message came since the history was read, so that it must be read again.
        """
        if catch_up.doubted:
            return False
        head, cursor = self.head, catch_up.cursor
        if head == cursor:
            self.go_live(catch_up)
        elif head is not None and head.epoch == cursor.epoch and head.offset > cursor.offset:
            return False
        else:  # live messages are behind the history, or have not reached its epoch yet
            catch_up.at_head = True
        return True

    def started_at(self, position: Position | None) -> None:
        """Records the position at which the subscription began. Newer messages may have come before this answer."""
        head = self.head
        if head is None or position is None or head.epoch != position.epoch or head.offset < position.offset:
            self.head = position

    def advance(self, position: Position) -> None:
        """Records the position of a live message. Members that have everything before it go live."""
        self.head = position
        if self.catching_up:
            for catch_up in tuple(self.catching_up.values()):
                cursor = catch_up.cursor
                if catch_up.at_head and position.epoch == cursor.epoch and position.offset > cursor.offset:
                    self.go_live(catch_up)

    def change_epoch(self, position: Position) -> list[CatchUp]:
        """Handles a gap in the live messages: the epoch changed, or some are missing.

        Returns:
            The catch-ups that had reached the end of the history, and waited for a live message. There is a gap for
            them too, so they must read the history again.
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
