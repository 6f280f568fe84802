"""Members of rooms: joining, leaving, and the presence that follows from it.

Theory of operation. A room exists here while it has local members, and is subscribed at the broker exactly then. To
join is to subscribe (the first member here does), to flush what was published before, and then either to go live, or,
with a position to come back from, to catch up first (`hubbub.rooms.catch_up`).

Presence is the broker's. Here is only when to say what: enter at the join, linger when the socket is lost, exit when
the grace is over, or at once on a leave, a kick or an expired token.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from starlette.websockets import WebSocketDisconnect

from ..brokers.base import Broker, Delivery, Receiver
from ..close import CloseCode
from ..connections.session import Membership, Session
from ..envelope import Announcement, Instruction, Kick, Relabel, Reset
from ..errors import shown
from ..names import EVERYONE_NAME, is_user_room, user_of, user_room
from ..options import RoomOptions
from ..positions import Joined, Position
from ..tasks import Tasks, together
from ..timers import Timers
from .audience import Outgoing
from .catch_up import Recovery, say_joined
from .fanout import Fanout
from .room import CatchUp, Room

logger: Final = logging.getLogger("hubbub")

_PATIENCE_S = 2.0
_UNNUMBERED: Final = Joined(None, recovered=False)


T = TypeVar("T")


class JoinRefused(Exception):
    """A join would be one too many.

    Attributes:
        cause: What to close the connection with.
    """

    cause: CloseCode


class RoomIsFull(JoinRefused):
    """A join would be one too many for the room."""

    cause = CloseCode.ROOM_FULL


class TooManyRooms(JoinRefused):
    """A join would be one too many for the session."""

    cause = CloseCode.TOO_MANY_ROOMS


class Memberships(Receiver):
    """The rooms of this process.

    Args:
        broker: Where rooms live.
        fanout: Who writes.
        tasks: Who owns what goes on in the background.
        timers: When graces end.
        options_of: Gives the options of a room.
        send_away: Closes the connections of a user, or with None of everybody.
        max_rooms: Rooms of one session, at most; those of everybody and of a user not counted.
    """

    def __init__(
        self,
        broker: Broker,
        fanout: Fanout,
        tasks: Tasks,
        timers: Timers,
        options_of: Callable[[str], RoomOptions],
        send_away: Callable[[str | None, Kick], None],
        max_rooms: int | None = None,
    ) -> None:
        self._broker = broker
        self._fanout = fanout
        self._tasks = tasks
        self._timers = timers
        self._options_of = options_of
        self._send_away = send_away
        self._max_rooms = max_rooms
        self._rooms: dict[str, Room] = {}
        self._graces: dict[str, dict[Callable[[], None], float]] = {}  # with when their connections began
        self._latest: Room | None = None
        self._recovery = Recovery(broker, tasks, timers)

    @property
    def rooms(self) -> dict[str, Room]:
        """The rooms that have members here, are about to, or had them a moment ago."""
        return self._rooms

    def flush(self, session: Session) -> None:
        """Writes what is pending for a session, before something else is written to it."""
        if self._fanout.busy:
            self._fanout.give(session, [self._rooms[name] for name in session.memberships])

    def clear(self) -> None:
        self._rooms.clear()
        self._graces.clear()
        self._latest = None
        self._recovery.forget()

    # What comes from the broker

    def deliver(self, channel: str, delivery: Delivery) -> None:
        """Takes a message from the broker; the fan-out writes it at the end of the pass."""
        if isinstance(delivery, Instruction):
            self._obey(channel, delivery)
            return
        room = self._rooms.get(channel)
        if room is None:
            return
        if isinstance(delivery, Reset | Relabel):
            self._change_epoch(room, delivery)
            return
        outgoing = Outgoing(room, delivery)
        position = None if isinstance(delivery, Announcement) else delivery.position
        if position is not None:
            room.advance(position)
        elif room.catching_up:
            # Not in the history, so that a replay would not bring it.
            for catch_up in tuple(room.catching_up.values()):  # a write may find that the peer is gone
                data = outgoing.frame_for(catch_up.member)
                if data:
                    catch_up.member.writer.write(data, room, outgoing.key)
        if room.members:
            self._fanout.add(room, outgoing)
            self._latest = room

    async def settled(self) -> None:
        """Waits until what the broker delivered is on its way: what comes in is paced like what is published here."""
        if self._fanout.crowded and self._latest is not None:
            await self._fanout.pace(self._latest)

    def _change_epoch(self, room: Room, news: Reset | Relabel) -> None:
        """Another epoch begins, or something is missing: says so to the members who know positions.

        Who catches up is not told here. The history says whether anything is missing for it.
        """
        position = news.position
        self._recovery.forget(room)
        for catch_up in room.change_epoch(position):
            member = catch_up.member
            assert isinstance(member, Session)
            self._recovery.go_on(member, room, catch_up)
        if room.members:
            self._fanout.add(room, Outgoing(room, news))

    def _obey(self, channel: str, kick: Instruction) -> None:
        """Closes the connections of a user, and ends its graces at once. On the channel of everyone, closes all."""
        if not isinstance(kick, Kick):
            logger.debug("ignored an instruction that this release does not act on: %s", shown(kick))
            return
        user = user_of(channel)
        if user is not None or channel == EVERYONE_NAME:
            self._send_away(user, kick)
        given_at = asyncio.get_running_loop().time() - kick.age_s
        for over, began_at in tuple(self._graces.get(channel, {}).items()):
            if began_at <= given_at:
                over()

    # Joining

    def full(self, session: Session, names: Iterable[str]) -> list[str]:
        """Those of some rooms that would refuse a session, because they have as many members as they may have."""
        rooms = [self._rooms[name] for name in names if name in self._rooms and name not in session.memberships]
        return [room.name for room in rooms if room.full]

    async def join(self, session: Session, name: str, since: Position | None) -> Joined:
        """Puts a connection into a room. Idempotent.

        Raises:
            RoomIsFull: The room is.
            TooManyRooms: The connection is in as many as it may be, or about to be.
            WebSocketDisconnect: The client is gone.
            BrokerUnavailable: The broker can't be asked.
        """
        joined, new = await self._become_member(session, name, since)
        if new:
            try:
                await self._enter(session, name)
            except BaseException:
                self._leave(session, name)
                raise
        return joined

    async def join_all(self, session: Session, places: Mapping[str, Position | None]) -> None:
        """Puts a connection into rooms, in their order. The broker is asked for all at once.

        All or none: where one can't be joined, those that are new are left again.

        Args:
            session: The connection.
            places: The rooms, and where the connection was in each.

        Raises:
            As `join`.
        """
        rooms = [self._room(name) for name in places]
        new: list[str] = []
        for room in rooms:
            room.joining += 1  # so that what is subscribed here stays so until it has a member
        try:
            await self._for_all(self._prepare, [(room, places[room.name]) for room in rooms])
            for name, since in places.items():
                if (await self._become_member(session, name, since))[1]:
                    new.append(name)
            await self._for_all(partial(self._enter, session), new)
        except BaseException:
            self._leave(session, *new)
            raise
        finally:
            for room in rooms:
                room.joining -= 1
                self._release_soon(room)

    async def _for_all(self, do: Callable[[T], Coroutine[Any, Any, None]], items: Sequence[T]) -> None:
        """Does something for each, in order; at once, where the broker is elsewhere and an answer takes its time."""
        if len(items) > 1 and self._broker.distributed:
            await together(map(do, items))
        else:
            for item in items:
                await do(item)

    async def _prepare(self, asked: tuple[Room, Position | None]) -> None:
        """Asks the broker for what a join will need."""
        room, since = asked
        await self._subscribe(room)
        if since is not None and room.options.numbered:
            await self._recovery.read(room, since)

    async def _become_member(self, session: Session, name: str, since: Position | None) -> tuple[Joined, bool]:
        """Puts a connection into a room, but for its presence; tells whether it was not in before."""
        if session.joining is not None:
            await self._joined(session, name)
        before = session.memberships.get(name)
        if before is not None and before.joined is not None:
            return before.joined, False
        self._check_count(session, name)
        room = self._rooms.get(name)
        if room is not None and room.subscribed and (since is None or not room.options.numbered):
            return self._go_in(session, room), True
        return await self._join(session, name, since), True

    def _check_count(self, session: Session, name: str) -> None:
        """Counts the rooms that are being joined too: several joins may be under way."""
        if self._max_rooms is None or name[0] == "$":
            return
        rooms = frozenset(each for each in session.memberships if each[0] != "$")
        if session.joining is not None:
            rooms = rooms.union(each for each in session.joining if each[0] != "$")
        if len(rooms) >= self._max_rooms:
            raise TooManyRooms(name)

    def _room(self, name: str) -> Room:
        room = self._rooms.get(name)
        if room is None:
            room = self._rooms[name] = Room(name, self._options_of(name))
        return room

    async def _joined(self, session: Session, name: str) -> None:
        """Waits until no join of the room is under way."""
        while session.joining is not None and (join := session.joining.get(name)) is not None:
            await asyncio.wait([join])

    async def _join(self, session: Session, name: str, since: Position | None) -> Joined:
        """A join that has to ask the broker."""
        room = self._room(name)
        if session.joining is None:
            session.joining = {}
        done = session.joining[name] = asyncio.get_running_loop().create_future()
        room.joining += 1
        try:
            await self._subscribe(room)
            if since is None or not room.options.numbered:
                return self._go_in(session, room)
            return await self._come_back(session, room, since)
        finally:
            room.joining -= 1
            self._release_soon(room)
            del session.joining[name]
            if not session.joining:
                session.joining = None
            done.set_result(None)

    def _check_in(self, session: Session, room: Room) -> Membership:
        if room.full:
            raise RoomIsFull(room.name)
        if not session.is_open:
            raise WebSocketDisconnect(*(session.socket.closed or (1006, "")))
        membership = session.memberships[room.name] = Membership()
        return membership

    def _go_in(self, session: Session, room: Room) -> Joined:
        """Makes a connection a member from here on."""
        membership = self._check_in(session, room)
        joined = membership.joined = _UNNUMBERED if room.head is None else Joined(room.head, recovered=False)
        room.add(session)  # before anything is written: a write may find that the peer is gone, and take it out
        say_joined(session, room, joined)
        return joined

    async def _subscribe(self, room: Room) -> None:
        if room.subscribed:
            return
        async with room.lock:
            if not room.subscribed:
                room.started_at(await self._broker.subscribe(room.name))
                room.subscribed = True
                self._rooms[room.name] = room

    async def _come_back(self, session: Session, room: Room, since: Position) -> Joined:
        """Makes a connection a member that first catches up."""
        membership = self._check_in(session, room)
        catch_up = CatchUp(session, since)
        room.catching_up[session.id] = catch_up
        try:
            replay = await self._recovery.read(room, since)
        except BaseException:
            self._take_out(session, room.name)
            raise
        if not session.is_open:
            raise WebSocketDisconnect(*(session.socket.closed or (1006, "")))
        membership.joined = self._recovery.begin(session, room, catch_up, replay)
        return membership.joined

    # Leaving

    async def leave(self, session: Session, name: str) -> None:
        """Takes a connection out of a room, without grace. Idempotent."""
        await self._joined(session, name)
        leaving = self._leave(session, name)
        if leaving is not None:
            # Whoever leaves does not wait for a broker that is away.
            await asyncio.wait([leaving], timeout=_PATIENCE_S)

    def _leave(self, session: Session, *names: str) -> asyncio.Task[None] | None:
        left = [(name, self._take_out(session, name)) for name in names]
        present = [name for name, each in left if each is not None and each.grace_s is not None]
        user = session.user_id
        if user is None or not present:
            return None
        return self._tasks.spawn(self._exit(user, session.id, present), "leave")

    def forget(self, session: Session, *, grace: bool) -> None:
        """Takes a connection out of all its rooms: its socket is gone."""
        by_grace: dict[float, list[str]] = {}
        for name in tuple(session.memberships):
            left = self._take_out(session, name)
            if left is not None and left.grace_s is not None:
                by_grace.setdefault(left.grace_s if grace else 0.0, []).append(name)
        user = session.user_id
        if user is not None and by_grace:
            for grace_s, names in by_grace.items():
                if grace_s:
                    self._begin_grace(grace_s, user, session.id, names, session.began_at)
            session.departure = self._tasks.spawn(self._depart(user, session.id, by_grace), "depart")

    def _take_out(self, session: Session, name: str) -> Membership | None:
        membership = session.memberships.get(name)
        if membership is None:
            return None
        room = self._rooms[name]  # which stays while it has a member
        self._fanout.give_of(room, session)  # by which it may turn out to be gone
        session.memberships.pop(name, None)
        room.remove(session)
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
                    if self._latest is room:
                        self._latest = None

    # Presence

    async def _enter(self, session: Session, name: str) -> None:
        user, membership = session.user_id, session.memberships.get(name)
        if user is None or membership is None or is_user_room(name):
            return
        membership.grace_s = self._rooms[name].options.grace_s
        await self._broker.enter(name, user, session.id, session.info)
        now = session.memberships.get(name)
        if now is None or now.grace_s is None:
            # It left while the broker was told that it came: what said that it goes may have been too early.
            await self._exit(user, session.id, [name])

    async def _depart(self, user: str, connection_id: str, by_grace: dict[float, list[str]]) -> None:
        await asyncio.gather(
            *(
                self._broker.linger(name, user, connection_id, grace_s)
                if grace_s
                else self._broker.exit(name, user, connection_id)
                for grace_s, names in by_grace.items()
                for name in names
            )
        )

    def _begin_grace(self, grace_s: float, user: str, connection_id: str, names: list[str], began_at: float) -> None:
        channel = user_room(user)

        def over() -> None:
            graces = self._graces[channel]
            del graces[over]
            if not graces:
                del self._graces[channel]
            timer.cancel()
            self._tasks.spawn(self._exit(user, connection_id, names), "grace")

        timer = self._timers.call_later(grace_s, over)
        self._graces.setdefault(channel, {})[over] = began_at

    async def _exit(self, user: str, connection_id: str, names: list[str]) -> None:
        """Leaves rooms: all at once, so that a broker that is away knows of all of them when it is back."""
        await asyncio.gather(*(self._broker.exit(name, user, connection_id) for name in names))
