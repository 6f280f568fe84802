"""A page of a room's history, ready to be written to members that catch up: framed once for each protocol.

After a restart, thousands of clients come back to one room at once, most of them from the same position.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ..envelope import Page
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
    """

    __slots__ = ("_for_all", "_room", "page")

    def __init__(self, room: Room, page: Page) -> None:
        self.page: Page = page
        self._room = room
        self._for_all: dict[ClientProtocol, list[Piece]] = {}

    def pieces(self, member: RoomMember) -> list[Piece]:
        """Returns the pieces of the page for a member, in order; no piece if messages are missing before it."""
        if not self.page.whole:
            return []
        pieces = self._for_all.get(member.protocol)
        if pieces is None:
            pieces = self._pieces(member)
            if not any(entry.envelope.exclude for entry in self.page.entries):
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
            assert entry.envelope.position is not None
            reached = entry.envelope.position.offset
            if size >= PIECE_BYTES:
                pieces.append(Piece(b"".join(frames), reached))
                frames.clear()
                size = 0
        if self.page.entries and (not pieces or pieces[-1].reaches != reached):
            pieces.append(Piece(b"".join(frames), reached))  # without bytes if the rest excludes the member
        return pieces
