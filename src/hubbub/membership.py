"""Who is in which room: joining, leaving, being replayed what was missed, and the presence that follows from it.

Theory of operation. A room exists here while it has local members, and is subscribed at the broker exactly then. To
join is to subscribe (the first here), to flush what was published before, and then either to go live, or, with a
position to come back from, to *catch up*: the member is given the room's history page by page, as its socket drains,
and goes live at the message where the history ends. What is published meanwhile is in the history, so that nothing
needs to be held back and nothing is sent twice.

Presence is the broker's. Here is only when to say what: enter at the join, linger when the socket is lost, exit when
the grace is over, or at once on a leave, a kick or an expired token.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from starlette.websockets import WebSocketDisconnect

from .brokers.base import Broker, Delivery
from .close import CloseCode
from .codec import Kind, Payload, dumps
from .connection import Connection
from .envelope import Envelope, Kick, Page
from .fanout import Fanout
from .frames import Opcode, frame
from .names import is_user_room, label
from .options import RoomOptions
from .positions import Joined, Position
from .presence import Change
from .room import CatchUp, Membership, Room
from .tasks import Tasks
from .timers import Timers
from .wire import Closed

logger = logging.getLogger("hubbub")

_PAGE_MESSAGES = 128
_UNNUMBERED: Final = Joined(None, recovered=False)


class RoomIsFull(Exception):
    """A join would be one too many."""


class Memberships:
    """The rooms of this process.

    Args:
        broker: Where rooms live.
        fanout: Who writes.
        tasks: Who owns what goes on in the background.
        timers: When graces end.
        options_of: Gives the options of a room.
    """

    def __init__(
        self,
        broker: Broker,
        fanout: Fanout,
        tasks: Tasks,
        timers: Timers,
        options_of: Callable[[str], RoomOptions],
    ) -> None:
        self._broker = broker
        self._fanout = fanout
        self._tasks = tasks
        self._timers = timers
        self._options_of = options_of
        self._rooms: dict[str, Room] = {}
        self._graces: dict[str, list[Callable[[], None]]] = {}

    @property
    def rooms(self) -> dict[str, Room]:
        """The rooms that have members here, are about to, or had them a moment ago."""
        return self._rooms

    def clear(self) -> None:
        self._rooms.clear()
        self._graces.clear()

    # What comes from the broker

    def deliver(self, channel: str, delivery: Delivery) -> None:
        """Takes a message from the broker; the fan-out writes it at the end of the pass."""
        room = self._rooms.get(channel)
        if room is None:
            return
        if isinstance(delivery, Kick):
            self._kick(room, delivery)
            return
        if delivery.position is not None:
            room.advance(delivery.position)
        elif room.catching_up:
            # Not in the history, so that a replay would not bring it.
            for catch_up in tuple(room.catching_up.values()):  # a write may find that the peer is gone
                data = room.outgoing(delivery).frame_for(catch_up.member)
                if data is not None:
                    catch_up.member.writer.write(data, room, delivery.key)
        if room.members:
            self._fanout.add(room, room.outgoing(delivery))

    def _kick(self, room: Room, kick: Kick) -> None:
        for member in room.everybody():
            assert isinstance(member, Connection)
            member.wire.close_soon(Closed(kick.code, kick.reason), grace=False)
            if member.user_id is not None:
                self.end_graces(member.user_id)

    # Joining

    async def join(self, connection: Connection, name: str, since: Position | None) -> Joined:
        """Puts a connection into a room. Idempotent."""
        if connection.joining is not None:
            await self._joined(connection, name)
        before = connection.memberships.get(name)
        if before is not None and before.joined is not None:
            return before.joined
        room = self._rooms.get(name)
        if room is not None and room.subscribed and (since is None or not room.options.numbered):
            joined = self._go_in(connection, room)
        else:
            joined = await self._join(connection, name, since)
        if connection.user_id is not None:
            await self._enter(connection, name)
        return joined

    async def _joined(self, connection: Connection, name: str) -> None:
        """Waits until no join of the room is under way."""
        while connection.joining is not None and (join := connection.joining.get(name)) is not None:
            await asyncio.wait([join])

    async def _join(self, connection: Connection, name: str, since: Position | None) -> Joined:
        """A join that has to ask the broker."""
        room = self._rooms.get(name)
        if room is None:
            room = self._rooms[name] = Room(name, self._options_of(name))
        if connection.joining is None:
            connection.joining = {}
        done = connection.joining[name] = asyncio.get_running_loop().create_future()
        room.joining += 1
        try:
            await self._subscribe(room)
            if since is None or not room.options.numbered:
                return self._go_in(connection, room)
            return await self._come_back(connection, room, since)
        finally:
            room.joining -= 1
            self._release_soon(room)
            del connection.joining[name]
            if not connection.joining:
                connection.joining = None
            done.set_result(None)

    def _check_in(self, connection: Connection, room: Room) -> Membership:
        limit = room.options.max_members
        if limit is not None and room.size >= limit:
            raise RoomIsFull(room.name)
        if not connection.is_open:
            raise WebSocketDisconnect(*(connection.wire.closed or (1006, "")))
        membership = connection.memberships[room.name] = Membership(room)
        return membership

    def _go_in(self, connection: Connection, room: Room) -> Joined:
        """Makes a connection a member from here on."""
        membership = self._check_in(connection, room)
        joined = membership.joined = _UNNUMBERED if room.head is None else Joined(room.head, recovered=False)
        room.add(connection)  # before anything is written: a write may find that the peer is gone, and take it out
        self._say_sync(connection, room, joined)
        return joined

    async def _subscribe(self, room: Room) -> None:
        if room.subscribed:
            return
        async with room.lock:
            if not room.subscribed:
                room.started_at(await self._broker.subscribe(room.name))
                room.subscribed = True
                self._rooms[room.name] = room

    async def _come_back(self, connection: Connection, room: Room, since: Position) -> Joined:
        """Makes a connection a member that first catches up."""
        membership = self._check_in(connection, room)
        catch_up = CatchUp(connection, since.offset)
        room.catching_up[connection.id] = catch_up
        try:
            page = await self._broker.history(room.name, since, _PAGE_MESSAGES)
        except BaseException:
            self._take_out(connection, room.name)
            raise
        if not connection.is_open:
            raise WebSocketDisconnect(*(connection.wire.closed or (1006, "")))
        joined = membership.joined = Joined(page.head, page.whole)
        self._say_sync(connection, room, joined)
        if not page.whole:
            catch_up.cursor = page.head.offset if page.head is not None else 0
        if not (self._replay(connection, room, catch_up, page) and room.caught_up(catch_up, page.head)):
            self._tasks.spawn(self._catch_up_or_close(connection, room, catch_up, page.head), "catch up")
        return joined

    def _replay(self, connection: Connection, room: Room, catch_up: CatchUp, page: Page) -> bool:
        """Writes a page of history.

        Returns:
            Whether nothing comes after it. The cursor tells how far it got: the socket may not have taken all.
        """
        for envelope in (entry.envelope for entry in page.entries if page.whole):
            if connection.writer.congested:
                return False
            data = room.outgoing(envelope).frame_for(connection)
            if data is not None:
                connection.writer.write(data, room)
            assert envelope.position is not None
            catch_up.cursor = envelope.position.offset
        return page.last or not page.whole

    async def _catch_up_or_close(
        self, connection: Connection, room: Room, catch_up: CatchUp, head: Position | None
    ) -> None:
        try:
            await self._catch_up(connection, room, catch_up, head)
        except Exception:
            if room.is_catching_up(catch_up):  # it would hear nothing, and never know
                connection.wire.close_soon(CloseCode.INTERNAL_ERROR)
            raise

    async def _catch_up(self, connection: Connection, room: Room, catch_up: CatchUp, head: Position | None) -> None:
        """Goes on with a replay, as the socket drains."""
        assert head is not None
        epoch = head.epoch
        while room.is_catching_up(catch_up):
            await connection.writer.uncongested()
            page = await self._broker.history(room.name, Position(epoch, catch_up.cursor), _PAGE_MESSAGES)
            if not room.is_catching_up(catch_up):
                return
            if not page.whole:
                logger.info("the history of %s was trimmed under a replay", room.name)
                catch_up.cursor = page.head.offset if page.head is not None else 0
                self._say_sync(connection, room, Joined(page.head, recovered=False))
            if self._replay(connection, room, catch_up, page) and room.caught_up(catch_up, page.head):
                return
            await asyncio.sleep(0)  # a socket that takes everything must not keep the loop for a whole history

    def _say_sync(self, connection: Connection, room: Room, joined: Joined) -> None:
        if room.options.positions and joined.position is not None:
            fields = {
                "type": "sync",
                "room": room.label,
                "epoch": joined.position.epoch,
                "offset": joined.position.offset,
                "recovered": joined.recovered,
                "connection_id": connection.id,
            }
            connection.writer.write(frame(Opcode.TEXT, dumps(fields)))

    # Leaving

    async def leave(self, connection: Connection, name: str) -> None:
        """Takes a connection out of a room, without grace. Idempotent."""
        await self._joined(connection, name)
        left = self._take_out(connection, name)
        user = connection.user_id
        if left is not None and user is not None and left.grace_s is not None:
            await self._exit(user, connection.id, [name])

    def forget(self, connection: Connection, *, grace: bool) -> None:
        """Takes a connection out of all its rooms: its socket is gone."""
        presences: dict[str, float] = {}
        for name in tuple(connection.memberships):
            left = self._take_out(connection, name)
            if left is not None and left.grace_s is not None:
                presences[name] = left.grace_s if grace else 0.0
        user = connection.user_id
        if user is not None and presences:
            connection.departure = self._tasks.spawn(self._depart(user, connection.id, presences), "depart")

    def _take_out(self, connection: Connection, name: str) -> Membership | None:
        membership = connection.memberships.get(name)
        if membership is None:
            return None
        room = membership.room
        self._fanout.give_of(room, connection)  # by which it may turn out to be gone
        connection.memberships.pop(name, None)
        room.remove(connection)
        self._release_soon(room)
        return membership

    def _release_soon(self, room: Room) -> None:
        if room.vacant and self._rooms.get(room.name) is room:
            self._tasks.spawn(self._release(room), "release")

    async def _release(self, room: Room) -> None:
        """Unsubscribes a room that nobody here is in any more."""
        async with room.lock:
            if room.vacant and self._rooms.get(room.name) is room:
                if room.subscribed:
                    room.subscribed = False
                    await self._broker.unsubscribe(room.name)
                if room.vacant:
                    self._rooms.pop(room.name, None)

    # Presence

    async def _enter(self, connection: Connection, name: str) -> None:
        user, membership = connection.user_id, connection.memberships.get(name)
        if user is None or membership is None or is_user_room(name):
            return
        room = membership.room
        membership.grace_s = room.options.grace_s
        change = await self._broker.enter(name, user, connection.id, connection.info)
        if change.turned and room.options.announce:
            await self._announce("user_joined", name, user, change)
        now = connection.memberships.get(name)
        if now is None or now.grace_s is None:
            # It left while the broker was told that it came: what said that it goes may have been too early.
            await self._exit(user, connection.id, [name])

    async def _depart(self, user: str, connection_id: str, presences: dict[str, float]) -> None:
        by_grace: dict[float, list[str]] = {}
        for name, grace_s in presences.items():
            by_grace.setdefault(grace_s, []).append(name)
        for grace_s, names in by_grace.items():
            if not grace_s:
                await self._exit(user, connection_id, names)
                continue
            for name in names:
                await self._broker.linger(name, user, connection_id)

            self._begin_grace(grace_s, user, connection_id, names)

    def _begin_grace(self, grace_s: float, user: str, connection_id: str, names: list[str]) -> None:
        def over() -> None:
            graces = self._graces[user]
            graces.remove(over)
            if not graces:
                del self._graces[user]
            timer.cancel()
            self._tasks.spawn(self._exit(user, connection_id, names), "grace")

        timer = self._timers.call_later(grace_s, over)
        self._graces.setdefault(user, []).append(over)

    def end_graces(self, user: str) -> None:
        """A user was sent away: who is only in grace leaves at once too."""
        for over in tuple(self._graces.get(user, ())):
            over()

    async def _exit(self, user: str, connection_id: str, names: list[str]) -> None:
        for name in names:
            change = await self._broker.exit(name, user, connection_id)
            if change.turned and self._options_of(name).announce:
                await self._announce("user_left", name, user, change)

    async def _announce(self, kind: str, name: str, user: str, change: Change) -> None:
        fields = {
            "type": kind,
            "room": label(name),
            "user_id": user,
            "info": change.info,
            "count": change.users,
            "timestamp": datetime.now(UTC),
        }
        await self._broker.publish(name, Envelope(Payload(Kind.JSON, dumps(fields))), keep=False)
