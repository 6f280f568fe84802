"""Catching up: a member receives the messages that its client missed, or the newest ones, and then goes live.

Theory of operation. A client that was away presents a position. The member receives the room's history after that
position, page by page, as fast as the client reads, and goes live at the message where the history ends. Messages that
are published meanwhile are in the history too, so none is held back and none is sent twice. If the history does not
reach back to the position, the client is told so, and the member begins anew.

A member that begins anew goes live immediately, or, in a room with `RoomOptions.replay`, catches up from the position
before the newest messages. That position is the client's own, so nothing counts as missing before it.

After a restart, thousands of clients join one room, most of them from the same position. They share the pages that were
read a moment ago, and the frames made from them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from ..brokers.base import Broker
from ..close import CloseCode
from ..connections.session import Session
from ..envelope import Entry
from ..errors import BrokerUnavailable, shown
from ..positions import Joined, Position
from ..tasks import Tasks
from ..timers import Timers
from .audience import Outgoing
from .replay import Replay, beginning
from .room import CatchUp, Room

logger: Final = logging.getLogger("hubbub")

_PAGE_MESSAGES = 128
_PAGE_TTL_S = 0.5
_MAX_PAGES = 64  # of one room
_RETRY_S = 0.5
_REPLY_BYTES = 64 * 1024

JoinReply: TypeAlias = Callable[[Joined, Sequence[Entry]], bytes]
"""Makes the frame that tells a client that it is in a room, with the first messages that it missed."""


class Recovery:
    """Sends members the messages they missed.

    Args:
        broker: The broker that keeps the histories.
        tasks: The owner of the catch-ups that take more than one write.
        timers: Forgets pages.
        report_gap: Reports that a raw member of a room with history lacks messages.
    """

    def __init__(self, broker: Broker, tasks: Tasks, timers: Timers, report_gap: Callable[[str], None]) -> None:
        self._broker = broker
        self._tasks = tasks
        self._timers = timers
        self._report_gap = report_gap
        # Read a moment ago, by the position before them; under None: what members that join anew receive first.
        self._replays: dict[Room, dict[Position | None, Replay]] = {}

    def forget(self, room: Room | None = None) -> None:
        """Forgets the shared pages of one room, or of all rooms."""
        if room is None:
            self._replays.clear()
        else:
            self._replays.pop(room, None)

    async def first(self, room: Room, since: Position | None) -> Replay:
        """Reads the page with which a member begins.

        Args:
            room: The room.
            since: The position that the client presents, if any.

        Raises:
            BrokerUnavailable: The broker can't be asked.
        """
        if since is None:
            return await self.read_newest(room)
        missed = await self.read(room, since)
        if missed.page.whole or not room.options.replay:
            return missed
        newest = await self.read_newest(room)
        start = newest.start
        assert start is not None
        # A client that is past the start would receive messages twice, and what it can't recover still lies ahead.
        return missed if start.epoch == since.epoch and start.offset <= since.offset else newest

    async def read(self, room: Room, after: Position) -> Replay:
        """Reads a page of the history, or takes one that was read a moment ago, if no message came since.

        Raises:
            BrokerUnavailable: The broker can't be asked.
        """
        replay = self._known(room, after)
        if replay is None:
            replay = Replay(room, await self._broker.history(room.channel, after, _PAGE_MESSAGES))
            self._remember(room, after, replay)
        return replay

    async def read_newest(self, room: Room) -> Replay:
        """Reads the first page of the newest messages: of as many as `RoomOptions.replay` says and the history has.

        Raises:
            BrokerUnavailable: The broker can't be asked.
        """
        newest = self._known(room, None)
        if newest is None:
            head = room.head
            newest = await self._read_last(room, room.options.replay)
            if newest.page.head == head:  # otherwise it holds more messages than the next newcomer is to receive
                self._remember(room, None, newest)
        return newest

    async def _read_last(self, room: Room, count: int) -> Replay:
        assert room.head is not None
        start = Position(room.head.epoch, max(0, room.head.offset - count))
        page = (await self.read(room, start)).page
        if not page.whole and page.entries and page.entries[0].offset <= start.offset:
            # Not because it was trimmed: an entry can't be read, or the room's messages were lost a moment ago.
            page = await self._broker.history(room.channel, None, min(count, _PAGE_MESSAGES))
        return beginning(room, page, start)

    def _known(self, room: Room, after: Position | None) -> Replay | None:
        replay = self._replays.get(room, {}).get(after)
        return None if replay is None or replay.page.head != room.head else replay

    def _remember(self, room: Room, after: Position | None, replay: Replay) -> None:
        if not self._replays:
            self._timers.call_later(_PAGE_TTL_S, self._replays.clear)
        known = self._replays.setdefault(room, {})
        if after in known or len(known) < _MAX_PAGES:
            known[after] = replay

    def begin(self, session: Session, room: Room, catch_up: CatchUp, replay: Replay, reply: JoinReply | None) -> Joined:
        """Answers a join with the first page. The other pages follow in the background, as fast as the client reads."""
        if replay.start is None:
            joined = Joined(_head_of(room, replay), replay.page.whole)
        else:
            catch_up.cursor = replay.start
            joined = Joined(replay.start, recovered=False)
        catch_up.answered = True
        if reply is not None:
            is_last = _write_reply(session, room, catch_up, replay, joined, reply)
        else:
            reached = catch_up.cursor.offset if replay.page.whole else _head_of(room, replay).offset
            write_joined(session, room, Position(_head_of(room, replay).epoch, reached))
            is_last = _write_page(session, room, catch_up, replay)
        if not (is_last and room.caught_up(catch_up)):
            self.continue_catch_up(session, room, catch_up)
        return joined

    def continue_catch_up(self, session: Session, room: Room, catch_up: CatchUp) -> None:
        """Continues a catch-up in the background."""
        self._tasks.spawn(self._catch_up_or_close(session, room, catch_up), "catch up")

    async def _catch_up_or_close(self, session: Session, room: Room, catch_up: CatchUp) -> None:
        try:
            await self._catch_up(session, room, catch_up)
        except Exception:
            if room.is_catching_up(catch_up):  # otherwise it would receive nothing, and not know
                session.socket.close_soon(CloseCode.INTERNAL_ERROR)
            raise

    async def _catch_up(self, session: Session, room: Room, catch_up: CatchUp) -> None:
        while room.is_catching_up(catch_up):
            await session.writer.uncongested()
            cursor, catch_up.doubted = catch_up.cursor, False
            try:
                replay = await self.read(room, cursor)
            except BrokerUnavailable as error:
                logger.info("the replay of room %s is delayed: %s", shown(room.channel), str(error))
                await asyncio.sleep(_RETRY_S)
                continue
            if not room.is_catching_up(catch_up):
                return
            if not replay.page.whole:
                logger.info("the history of room %s was trimmed or lost during a replay", shown(room.channel))
                if session.listener is not None:
                    session.listener.lost_place(room.channel)
                    return
                self._report_gap(room.channel)
                kept = beginning(room, replay.page, cursor)
                assert kept.start is not None
                if kept.start.epoch == cursor.epoch and kept.start.offset >= cursor.offset:  # nothing comes twice
                    replay, catch_up.cursor = kept, kept.start
            elif session.listener is not None and cursor.epoch != _head_of(room, replay).epoch:
                tell_renumbered(session, room, Position(_head_of(room, replay).epoch, cursor.offset))
                if not room.is_catching_up(catch_up):
                    return  # its client subscribes again
            if _write_page(session, room, catch_up, replay) and room.caught_up(catch_up):
                return
            await asyncio.sleep(0)  # a client that reads fast must not keep the loop busy for a whole history


def write_joined(session: Session, room: Room, position: Position | None) -> None:
    """Tells a client that it is in a room, if it subscribes to rooms itself.

    Args:
        session: The session.
        room: The room.
        position: The position after which messages follow, in a room that has positions.
    """
    if session.listener is not None:
        frame = session.listener.joined(room.channel, position)
        if frame is not None:
            session.writer.write(frame)


def tell_renumbered(session: Session, room: Room, position: Position) -> None:
    """Tells a client that subscribes to rooms itself that its position in a room has another epoch now."""
    assert session.listener is not None
    frame = session.listener.renumbered(room.channel, position)
    if frame is not None:
        session.writer.write(frame)


def _head_of(room: Room, replay: Replay) -> Position:
    """Returns the room's position when a page was read. The page has none if the broker has lost the room since."""
    head = replay.page.head or room.head
    assert head is not None
    return head


def _write_reply(
    session: Session, room: Room, catch_up: CatchUp, replay: Replay, joined: Joined, reply: JoinReply
) -> bool:
    """Writes a reply with the first messages of a page, and moves the cursor.

    Returns:
        Whether nothing follows these messages.
    """
    page, head = replay.page, _head_of(room, replay)
    taken: list[Entry] = []
    size, reached, is_last = 0, catch_up.cursor.offset, page.last
    for entry in page.entries if page.whole else ():
        # The first replies to a client that joins many rooms may fill its outbox. The others contain no messages.
        if session.writer.congested or (taken and size + len(entry.envelope.payload.data) > _REPLY_BYTES):
            is_last = False
            break
        reached = entry.offset
        if Outgoing(room, entry.envelope).frame_for(session):
            taken.append(entry)
            size += len(entry.envelope.payload.data)
    catch_up.cursor = Position(head.epoch, reached) if page.whole else head
    session.writer.write(reply(joined, taken))  # it is no message, so the room's `overflow` may not drop it
    return is_last or not page.whole


def _write_page(session: Session, room: Room, catch_up: CatchUp, replay: Replay) -> bool:
    """Writes a page of history, until the member's writer is congested, and moves the cursor.

    Returns:
        Whether the page was written completely and is the last one.
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
