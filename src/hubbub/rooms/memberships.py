"""The rooms of a worker, which sessions join and leave.

Theory of operation. A room exists here while it has local members, and is subscribed at the broker exactly then. The
first member that joins subscribes it. A member that joins goes live immediately. If its client presents a position, or
the room replays its newest messages, the member catches up first (`hubbub.rooms.catch_up`). `hubbub.rooms.attendance`
reports to the broker who is present. What the broker delivers reaches the members by `hubbub.rooms.deliveries`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from starlette.websockets import WebSocketDisconnect

from ..brokers.base import Broker
from ..connections.session import Membership, Session
from ..envelope import Instruction, Kick
from ..names import user_room
from ..options import RoomOptions
from ..positions import Joined, Position
from ..presence import Info
from ..tasks import Tasks, together
from ..timers import Timers
from .attempts import Attempt, Attempts
from .attendance import Attendance
from .catch_up import JoinReply, Recovery, write_joined
from .fanout import Fanout
from .instructions import Obedience
from .refusals import RoomIsFull, TooManyRooms
from .room import CatchUp, Room

logger: Final = logging.getLogger("hubbub")

_LEAVE_TIMEOUT_S = 2.0
_UNNUMBERED: Final = Joined(None, recovered=False)

T = TypeVar("T")


class Memberships:
    """The rooms of this worker, by channel.

    Args:
        broker: Connects the workers.
        fanout: Writes to the members.
        tasks: The owner of background work.
        timers: Ends grace periods.
        options_of: Returns the options of a room, by its channel.
        send_away: Closes the connections of a user, or of everyone if the user is None.
        recovery: Sends members what they missed, or the newest messages.
        max_rooms: The maximum number of rooms of one session. Everyone's room and the user's own do not count.

    Attributes:
        attempts: The attempts to join rooms that are under way.
    """

    def __init__(
        self,
        broker: Broker,
        fanout: Fanout,
        tasks: Tasks,
        timers: Timers,
        options_of: Callable[[str], RoomOptions],
        send_away: Callable[[str | None, Kick], None],
        recovery: Recovery,
        max_rooms: int | None = None,
    ) -> None:
        self._broker = broker
        self._fanout = fanout
        self._tasks = tasks
        self._options_of = options_of
        self._max_rooms = max_rooms
        self.attempts: Attempts = Attempts()
        self._rooms: dict[str, Room] = {}
        self._attendance = Attendance(broker, tasks, timers)
        self._obedience = Obedience(self, self._attendance, tasks, send_away)
        self._recovery = recovery

    @property
    def rooms(self) -> dict[str, Room]:
        """The rooms that have members here, are about to have some, or had some a moment ago."""
        return self._rooms

    def flush(self, session: Session) -> None:
        """Writes the pending messages of a session, so that the caller can write something behind them."""
        if self._fanout.busy:
            self._fanout.flush(session, [self._rooms[channel] for channel in session.memberships])

    def clear(self) -> None:
        """Forgets all rooms, without leaving them."""
        self._rooms.clear()
        self._attendance.clear()
        self._recovery.forget()

    # Instructions

    def obey(self, channel: str, instruction: Instruction) -> None:
        """Does what an instruction says. The connections and grace periods that began after it are not affected."""
        self._obedience.obey(channel, instruction)

    def sessions_of(self, user: str) -> list[Session]:
        own = self._rooms.get(user_room(user))  # a session is in it before it is in any other room
        return [] if own is None else [each for each in own.everybody() if isinstance(each, Session)]

    def has(self, user: str, channel: str) -> bool:
        """Whether a user has a session in a room here."""
        return any(channel in session.memberships for session in self.sessions_of(user))

    # Joining

    def full(self, session: Session, channels: Iterable[str]) -> list[str]:
        """Returns the channels of those rooms that are full, and that the session is not in."""
        rooms = [self._rooms.get(channel) for channel in channels if channel not in session.memberships]
        return [room.channel for room in rooms if room is not None and room.full]

    async def join(
        self,
        session: Session,
        channel: str,
        since: Position | None,
        attempt: Attempt,
        *,
        reply: JoinReply | None = None,
        room_info: Info = None,
    ) -> Joined:
        """Adds a session to a room. Idempotent. Does nothing if the attempt has lost its right to the room.

        Args:
            session: The session.
            channel: The channel of the room.
            since: The position that the client presents.
            attempt: The attempt that the join belongs to.
            reply: Makes the frame that tells the client that it is in, instead of the protocol's own frame.
            room_info: The app's data about the connection in this room, for its presence.

        Raises:
            RoomIsFull: The room has as many members as its options allow.
            TooManyRooms: The session is in, or is joining, as many rooms as the limits allow.
            WebSocketDisconnect: The client is gone.
            BrokerUnavailable: The broker can't be asked.
        """
        joined, new = await self._become_member(session, channel, since, attempt, reply)
        if new:
            if channel in session.memberships:
                session.memberships[channel].room_info = room_info
            try:
                await self._enter(session, channel)
            except BaseException:
                self._leave(session, channel)
                raise
        return joined

    async def describe(self, session: Session, info: Info) -> None:
        """Sets the app's data about a session, also for its presence in the rooms that it is in."""
        session.info = info
        for channel in tuple(session.memberships):
            await self._enter(session, channel)

    async def join_all(self, session: Session, positions: Mapping[str, Position | None], attempt: Attempt) -> None:
        """Adds a session to rooms, in their order, and asks the broker about all of them at once.

        All or none: if one room can't be joined, the session leaves those that it has just joined. Rooms to which the
        attempt has lost its right are left out.

        Args:
            session: The session.
            positions: The channels of the rooms, and the position that the client presents for each.
            attempt: The attempt that the joins belong to.

        Raises:
            As `join`.
        """
        rooms = [self._room(channel) for channel in positions]
        new: list[str] = []
        for room in rooms:
            room.joining += 1  # so that a room that is subscribed now stays subscribed until it has a member
        try:
            requests = [(room, positions[room.channel]) for room in rooms]
            await self._for_all(self._prepare, [each for each in requests if not _is_prepared(*each)])
            for channel, since in positions.items():
                if (await self._become_member(session, channel, since, attempt))[1]:
                    new.append(channel)
            await self._for_all(partial(self._enter, session), new)
        except BaseException:
            self._leave(session, *new)
            raise
        finally:
            for room in rooms:
                room.joining -= 1
                self._release_soon(room)

    async def _for_all(self, do: Callable[[T], Coroutine[Any, Any, None]], items: Sequence[T]) -> None:
        """Calls ``do`` for each item, in order; concurrently if the broker is remote, as each answer takes time."""
        if len(items) > 1 and self._broker.distributed:
            await together(map(do, items))
        else:
            for item in items:
                await do(item)

    async def _prepare(self, request: tuple[Room, Position | None]) -> None:
        """Asks the broker for everything that a join needs."""
        room, since = request
        await self._subscribe(room)
        if _catches_up(room, since):
            await self._recovery.first(room, since)

    async def _become_member(
        self,
        session: Session,
        channel: str,
        since: Position | None,
        attempt: Attempt,
        reply: JoinReply | None = None,
    ) -> tuple[Joined, bool]:
        """Adds a session to a room, except for its presence. Also returns whether it is new there."""
        if session.joining is not None:
            await self.pending_join(session, channel)
        before = session.memberships.get(channel)
        if before is not None and before.joined is not None:
            return before.joined, False
        self._check_count(session, channel)
        room = self._rooms.get(channel)
        if room is not None and _is_prepared(room, since):
            return self._add(session, room, attempt, reply), True
        return await self._join(session, channel, since, attempt, reply), True

    def _check_count(self, session: Session, channel: str) -> None:
        """Raises if a session is in too many rooms. Joins that are under way count too."""
        if self._max_rooms is None or channel[0] == "$" or session.listener is not None:
            return  # the listener counts what its client asks for
        rooms = frozenset(each for each in session.memberships if each[0] != "$")
        if session.joining is not None:
            rooms = rooms.union(each for each in session.joining if each[0] != "$")
        if len(rooms) >= self._max_rooms:
            raise TooManyRooms(channel)

    def _room(self, channel: str) -> Room:
        room = self._rooms.get(channel)
        if room is None:
            room = self._rooms[channel] = Room(channel, self._options_of(channel))
        return room

    async def pending_join(self, session: Session, channel: str) -> None:
        """Waits for a pending join of a session to a room."""
        while session.joining is not None and (join := session.joining.get(channel)) is not None:
            await asyncio.wait([join])

    async def _join(
        self, session: Session, channel: str, since: Position | None, attempt: Attempt, reply: JoinReply | None
    ) -> Joined:
        """Joins a room about which the broker has to be asked first."""
        room = self._room(channel)
        if session.joining is None:
            session.joining = {}
        done = session.joining[channel] = asyncio.get_running_loop().create_future()
        room.joining += 1
        try:
            await self._subscribe(room)
            if _catches_up(room, since):
                return await self._add_behind(session, room, since, attempt, reply)
            return self._add(session, room, attempt, reply)
        finally:
            room.joining -= 1
            self._release_soon(room)
            del session.joining[channel]
            if not session.joining:
                session.joining = None
            done.set_result(None)

    def _begin_membership(self, session: Session, room: Room, attempt: Attempt) -> Membership | None:
        """Begins a membership; None if the attempt has lost its right to the room."""
        if room.channel in attempt.revoked:
            return None
        if room.full:
            raise RoomIsFull(room.channel)
        if not session.is_open:
            raise WebSocketDisconnect(*(session.socket.closed or (1006, "")))
        membership = session.memberships[room.channel] = Membership(attempt.began_at)
        return membership

    def _add(self, session: Session, room: Room, attempt: Attempt, reply: JoinReply | None) -> Joined:
        """Makes a session a live member."""
        membership = self._begin_membership(session, room, attempt)
        if membership is None:
            return _UNNUMBERED
        joined = membership.joined = _UNNUMBERED if room.head is None else Joined(room.head, recovered=False)
        room.add(session)  # before the write, which may find that the client is gone, and remove it
        if reply is None:
            write_joined(session, room, room.head)
        else:
            session.writer.write(reply(joined, ()))
        return joined

    async def _subscribe(self, room: Room) -> None:
        if room.subscribed:
            return
        async with room.lock:
            if not room.subscribed:
                room.started_at(await self._broker.subscribe(room.channel))
                room.subscribed = True
                self._rooms[room.channel] = room

    async def _add_behind(
        self, session: Session, room: Room, since: Position | None, attempt: Attempt, reply: JoinReply | None
    ) -> Joined:
        """Makes a session a member that catches up before it goes live."""
        membership = self._begin_membership(session, room, attempt)
        if membership is None:
            return _UNNUMBERED
        assert room.head is not None
        catch_up = room.catching_up[session.id] = CatchUp(session, since or room.head, answered=False)
        try:
            replay = await self._recovery.first(room, since)
        except BaseException:
            self._remove(session, room.channel)
            raise
        if not session.is_open:
            raise WebSocketDisconnect(*(session.socket.closed or (1006, "")))
        if room.channel in attempt.revoked:  # its client has not been told that it is in
            self._remove(session, room.channel)
            return _UNNUMBERED
        membership.joined = self._recovery.begin(session, room, catch_up, replay, reply)
        return membership.joined

    # Leaving

    async def leave(self, session: Session, channel: str) -> None:
        """Removes a session from a room, without a grace period, and tells its client. Idempotent."""
        await self.pending_join(session, channel)
        await _reported(self.dismiss(session, channel))

    def left(self, session: Session, channel: str) -> Coroutine[Any, Any, None]:
        """Removes a session from a room at once, as its client asked. Returns what waits until that is reported."""
        return _reported(self._leave(session, channel))

    def dismiss(self, session: Session, channel: str) -> asyncio.Task[None] | None:
        """Removes a session from a room, and tells its client."""
        was_in = channel in session.memberships
        leaving = self._leave(session, channel)
        frame = None if session.listener is None else session.listener.left(channel)
        if frame is not None and was_in:
            session.writer.write(frame)
        return leaving

    def _leave(self, session: Session, *channels: str) -> asyncio.Task[None] | None:
        left = [(channel, self._remove(session, channel)) for channel in channels]
        present = [channel for channel, each in left if each is not None and each.grace_s is not None]
        return self._attendance.leave(session, present)

    def forget(self, session: Session, *, grace: bool) -> None:
        """Removes a session, whose socket is gone, from all its rooms.

        Args:
            session: The session.
            grace: Whether its user stays present for the grace periods of the rooms.
        """
        channels_by_grace: dict[float, list[str]] = {}
        for channel in tuple(session.memberships):
            left = self._remove(session, channel)
            if left is not None and left.grace_s is not None:
                channels_by_grace.setdefault(left.grace_s if grace else 0.0, []).append(channel)
        self._attendance.lose(session, channels_by_grace)

    def _remove(self, session: Session, channel: str) -> Membership | None:
        membership = session.memberships.get(channel)
        if membership is None:
            return None
        room = self._rooms[channel]  # it exists as long as it has a member
        self._fanout.flush_room(room, session)  # this may find that the client is gone, and remove the session
        session.memberships.pop(channel, None)
        room.remove(session)
        self._release_soon(room)
        return membership

    def _release_soon(self, room: Room) -> None:
        if room.vacant and self._rooms.get(room.channel) is room:
            self._tasks.spawn(self._release(room), "release")

    async def _release(self, room: Room) -> None:
        """Unsubscribes a room that has no members here any more, and forgets it."""
        async with room.lock:
            if room.vacant and self._rooms.get(room.channel) is room:
                if room.subscribed:
                    room.subscribed = False
                    await self._broker.unsubscribe(room.channel)
                if room.vacant:
                    self._rooms.pop(room.channel, None)

    async def _enter(self, session: Session, channel: str) -> None:
        if channel in session.memberships:  # the room exists as long as it has a member
            options = self._rooms[channel].options
            anonymous = options.client_presence or options.announce  # no other room tells of anonymous ones
            await self._attendance.enter(session, channel, options.grace_s, anonymous=anonymous)


async def _reported(leaving: asyncio.Task[None] | None) -> None:
    if leaving is not None:
        # A session that leaves does not wait long for a broker that is away.
        await asyncio.wait([leaving], timeout=_LEAVE_TIMEOUT_S)


def _is_prepared(room: Room, since: Position | None) -> bool:
    """Returns whether a member can join without asking the broker anything."""
    return room.subscribed and not _catches_up(room, since)


def _catches_up(room: Room, since: Position | None) -> bool:
    """Returns whether a member that joins receives messages of the history first."""
    options = room.options
    return options.numbered if since is not None else options.replay > 0
