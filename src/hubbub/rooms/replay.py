"""A page of a room's history, ready to be written to members that catch up: framed once for each protocol.

After a restart, thousands of clients come back to one room at once, most of them from the same position.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ..envelope import Page
from ..positions import Position
from ..protocols import ClientProtocol
from .audience import Outgoing, RoomMember
from .room import Room

PIECE_BYTES: Final = 16 * 1024
"""The size of a single write. A piece ends with the message that reaches it."""


class Piece(NamedTuple):
    """Some messages of a page.

    Attributes:
        data: The frames of the messages.
        reaches: The offset of the last message.
    """

    data: bytes
    reaches: int


class Replay:
    """The frames of a page of history.

    Args:
        room: The room.
        page: The page.

    Attributes:
        page: The page.
        start: The position before the page, if it begins the replay of a member that joins anew.
    """

    __slots__ = ("_for_all", "_room", "page", "start")

    def __init__(self, room: Room, page: Page, start: Position | None = None) -> None:
        self.page: Page = page
        self.start: Position | None = start
        self._room = room
        self._for_all: dict[ClientProtocol, list[Piece]] = {}

    def pieces(self, member: RoomMember) -> list[Piece]:
        """Returns the pieces of the page for a member, in order; no piece if messages are missing before it."""
        if not self.page.whole:
            return []
        pieces = self._for_all.get(member.protocol)
        if pieces is None:
            pieces = self._pieces(member)
            if member.protocol.is_shared and not any(entry.envelope.exclude for entry in self.page.entries):
                self._for_all[member.protocol] = pieces
        return pieces

    def _pieces(self, member: RoomMember) -> list[Piece]:
        pieces: list[Piece] = []
        frames: list[bytes] = []
        size = reached = 0
        for entry in self.page.entries:
            data = Outgoing(self._room, entry.envelope).frame_for(member)
            if data:
                frames.append(data)
                size += len(data)
            reached = entry.offset
            if size >= PIECE_BYTES:
                pieces.append(Piece(b"".join(frames), reached))
                frames.clear()
                size = 0
        if self.page.entries and (not pieces or pieces[-1].reaches != reached):
            pieces.append(Piece(b"".join(frames), reached))  # without bytes if the rest excludes the member
        return pieces


def beginning(room: Room, page: Page, after: Position) -> Replay:
    """Returns the first page for a member that joins anew. To such a member, nothing is missing before the page.

    Args:
        room: The room.
        page: The page that was read.
        after: The position from which it was read.
    """
    head = page.head or room.head
    assert head is not None
    if page.whole:
        return Replay(room, page, Position(head.epoch, after.offset))
    entries = page.entries
    first = len(entries)
    while first and (first == len(entries) or entries[first].offset == entries[first - 1].offset + 1):
        first -= 1
    start = entries[first].offset - 1 if entries else head.offset
    return Replay(room, Page(entries[first:], page.head, whole=True), Position(head.epoch, start))
