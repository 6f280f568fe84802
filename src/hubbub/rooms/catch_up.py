"""Catching up: a member that comes back is given what it missed before it goes live.

Theory of operation. The member presents a position. It is given the room's history after that position page by page, as
its socket drains, and goes live at the message where the history ends. What is published meanwhile is in the history,
so nothing is held back and nothing is sent twice. Where the history does not reach back to the position, the member is
told so and goes live at once.

After a restart thousands of clients come back to one room, most of them from the same position. They share the pages
that were read a moment ago, and the frames made from them.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from ..brokers.base import Broker
from ..close import CloseCode
from ..connections.session import Session
from ..envelope import Relabel
from ..errors import BrokerUnavailable, shown
from ..positions import Joined, Position
from ..tasks import Tasks
from ..timers import Timers
from .replay import Replay
from .room import CatchUp, Room

logger: Final = logging.getLogger("hubbub")

_PAGE_MESSAGES = 128
_FRESH_S = 0.5
_FRESH_PAGES = 64
_RETRY_S = 0.5


class Recovery:
    """Replays histories to the members that come back.

    Args:
        broker: The broker that keeps the histories.
        tasks: The owner of the replays that take more than one write.
        timers: For forgetting pages.
    """

    def __init__(self, broker: Broker, tasks: Tasks, timers: Timers) -> None:
        self._broker = broker
        self._tasks = tasks
        self._timers = timers
        self._replays: dict[Room, dict[Position, Replay]] = {}  # read a moment ago, by the position before them

    def forget(self, room: Room | None = None) -> None:
        """Forgets the pages that were read, of one room or of all."""
        if room is None:
            self._replays.clear()
        else:
            self._replays.pop(room, None)

    async def read(self, room: Room, after: Position) -> Replay:
        """Reads a page of the history. One that was read a moment ago is as good, if nothing came since.

        Raises:
            BrokerUnavailable: The broker can't be asked.
        """
        known = self._replays.get(room, {})
        replay = known.get(after)
        if replay is None or replay.page.head != room.head:
            replay = Replay(room, await self._broker.history(room.name, after, _PAGE_MESSAGES))
            if not self._replays:
                self._timers.call_later(_FRESH_S, self._replays.clear)
            known = self._replays.setdefault(room, {})
            if after in known or len(known) < _FRESH_PAGES:
                known[after] = replay
        return replay

    def begin(self, session: Session, room: Room, catch_up: CatchUp, replay: Replay) -> Joined:
        """Answers a join with the first page of what was missed; the rest follows as the socket drains."""
        joined = Joined(_head_of(room, replay), replay.page.whole)
        say_joined(session, room, joined)
        _say_epoch(session, room, catch_up.cursor, replay)
        if not (_replay(session, room, catch_up, replay) and room.caught_up(catch_up)):
            self.go_on(session, room, catch_up)
        return joined

    def go_on(self, session: Session, room: Room, catch_up: CatchUp) -> None:
        """Goes on with a replay, in the background."""
        self._tasks.spawn(self._catch_up_or_close(session, room, catch_up), "catch up")

    async def _catch_up_or_close(self, session: Session, room: Room, catch_up: CatchUp) -> None:
        try:
            await self._catch_up(session, room, catch_up)
        except Exception:
            if room.is_catching_up(catch_up):  # it would hear nothing, and never know
                session.socket.close_soon(CloseCode.INTERNAL_ERROR)
            raise

    async def _catch_up(self, session: Session, room: Room, catch_up: CatchUp) -> None:
        while room.is_catching_up(catch_up):
            await session.writer.uncongested()
            cursor, catch_up.doubted = catch_up.cursor, False
            try:
                replay = await self.read(room, cursor)
            except BrokerUnavailable as error:
                logger.info("a replay of %s waits: %s", shown(room.name), str(error))
                await asyncio.sleep(_RETRY_S)
                continue
            if not room.is_catching_up(catch_up):
                return
            if not replay.page.whole:
                logger.info("the history of %s was trimmed under a replay, or begun anew", shown(room.name))
                say_joined(session, room, Joined(_head_of(room, replay), recovered=False))
            _say_epoch(session, room, cursor, replay)
            if _replay(session, room, catch_up, replay) and room.caught_up(catch_up):
                return
            await asyncio.sleep(0)  # a socket that takes everything must not keep the loop for a whole history


def say_joined(session: Session, room: Room, joined: Joined) -> None:
    """Tells a client where it is in a room, if its protocol has a word for that."""
    frame = session.protocol.joined(room, joined, session.id)
    if frame is not None:
        session.writer.write(frame)


def _say_epoch(session: Session, room: Room, cursor: Position, replay: Replay) -> None:
    """Tells a client that the messages after its position have another epoch, if none is missing."""
    head = replay.page.head
    if replay.page.whole and head is not None and head.epoch != cursor.epoch:
        frame = session.protocol.renumbering(room, Relabel(Position(head.epoch, cursor.offset)))
        if frame is not None:
            session.writer.write(frame)


def _head_of(room: Room, replay: Replay) -> Position:
    """The room's position when a page was read. It has none where the broker lost the room since it was joined."""
    head = replay.page.head or room.head
    assert head is not None
    return head


def _replay(session: Session, room: Room, catch_up: CatchUp, replay: Replay) -> bool:
    """Writes a page of history.

    Returns:
        Whether nothing comes after it. The cursor says how far it got: the socket may not have taken all.
    """
    page, head = replay.page, _head_of(room, replay)
    if not page.whole:
        catch_up.cursor = head
        return True
    if catch_up.cursor.epoch != head.epoch:
        catch_up.cursor = Position(head.epoch, catch_up.cursor.offset)
    for piece in replay.pieces(session):
        if session.writer.congested:
            return False
        if piece.data:
            session.writer.write(piece.data, room)
        catch_up.cursor = Position(head.epoch, piece.reaches)
    return page.last
