"""Reports the presence of this worker's sessions to the broker.

Theory of operation. The broker holds the presence of all workers. Each worker reports its own sessions: `enter` when
one joins a room, `linger` when its socket is lost, and `exit` when its grace period is over, or immediately after a
leave, a kick or an expired token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ..brokers.base import Presence
from ..connections.session import Session
from ..names import is_user_room, user_room
from ..tasks import Tasks
from ..timers import Timer, Timers


@dataclass(eq=False, slots=True)
class _Grace:
    """A grace period: the user of a lost session stays present in these rooms until the timer runs out."""

    user: str
    connection_id: str
    began_at: float  # when the session began
    channels: list[str]
    timer: Timer


class Attendance:
    """The presence of this worker's sessions.

    Args:
        presence: The broker's presence.
        tasks: The owner of the calls to the broker.
        timers: Ends grace periods.
    """

    def __init__(self, presence: Presence, tasks: Tasks, timers: Timers) -> None:
        self._presence = presence
        self._tasks = tasks
        self._timers = timers
        self._graces: dict[str, list[_Grace]] = {}  # by the user's own room

    def clear(self) -> None:
        """Forgets all grace periods."""
        self._graces.clear()

    async def enter(self, session: Session, channel: str, grace_s: float, *, anonymous: bool = False) -> None:
        """Reports that a session joined a room.

        Args:
            session: The session.
            channel: The channel of the room.
            grace_s: How long its user stays when the session is lost.
            anonymous: Whether to report a session without a user too.

        Raises:
            BrokerUnavailable: The broker can't be asked.
        """
        user, membership = session.user_id, session.memberships.get(channel)
        if membership is None or is_user_room(channel) or (user is None and not anonymous):
            return
        membership.grace_s = grace_s
        await self._presence.enter(channel, user, session.id, session.info, membership.room_info)
        membership = session.memberships.get(channel)
        if membership is None or membership.grace_s is None:
            # The session left or was lost while `enter` was in flight, so the report of that may have arrived first.
            # Send it again.
            if user is not None and self._is_in_grace(user, session.id, channel):
                await self._presence.linger(channel, user, session.id, grace_s)
            else:
                await self._exit(user, session.id, [channel])

    def leave(self, session: Session, channels: Iterable[str]) -> asyncio.Task[None] | None:
        """Reports that a session left rooms, without a grace period. None if it was not present in any of them."""
        if not channels:
            return None
        return self._tasks.spawn(self._exit(session.user_id, session.id, channels), "leave")

    def lose(self, session: Session, channels_by_grace: Mapping[float, list[str]]) -> None:
        """Reports that the socket of a session is gone, and begins the grace periods.

        Args:
            session: The session.
            channels_by_grace: The rooms in which it was present, by their grace periods in seconds. 0 exits at once.
        """
        user = session.user_id
        if not channels_by_grace:
            return
        for grace_s, channels in channels_by_grace.items():
            if grace_s and user is not None:
                self._begin_grace(grace_s, user, session, channels)
        session.departure = self._tasks.spawn(self._depart(user, session.id, channels_by_grace), "depart")

    def end_graces(
        self,
        user_channel: str,
        given_at: float,
        room: str | None = None,
        *,
        only: str = "",
        spared: Collection[str] = (),
    ) -> None:
        """Ends the grace periods of a user at once: those of sessions that began until ``given_at``.

        Args:
            user_channel: The user's own room.
            given_at: The time of the instruction, on the loop's clock.
            room: The room in which they end; None for all rooms.
            only: The id of the one connection whose grace period ends; empty for all.
            spared: The ids of connections whose grace periods do not end.
        """
        for grace in tuple(self._graces.get(user_channel, ())):
            named = only in ("", grace.connection_id) and grace.connection_id not in spared
            if named and grace.began_at <= given_at:
                self._end_grace(grace, room)

    def _begin_grace(self, grace_s: float, user: str, session: Session, channels: list[str]) -> None:
        timer = self._timers.call_later(grace_s, lambda: self._end_grace(grace))
        grace = _Grace(user, session.id, session.began_at, channels, timer)
        self._graces.setdefault(user_room(user), []).append(grace)

    def _end_grace(self, grace: _Grace, room: str | None = None) -> None:
        """Ends a grace period, in one room or in all."""
        ended = [channel for channel in grace.channels if room in (None, channel)]
        if not ended:
            return
        grace.channels[:] = [channel for channel in grace.channels if channel not in ended]
        if not grace.channels:
            own = user_room(grace.user)
            self._graces[own].remove(grace)
            if not self._graces[own]:
                del self._graces[own]
            grace.timer.cancel()
        self._tasks.spawn(self._exit(grace.user, grace.connection_id, ended), "grace")

    def _is_in_grace(self, user: str, connection_id: str, channel: str) -> bool:
        graces = self._graces.get(user_room(user), ())
        return any(grace.connection_id == connection_id and channel in grace.channels for grace in graces)

    async def _depart(self, user: str | None, connection_id: str, channels_by_grace: Mapping[float, list[str]]) -> None:
        await asyncio.gather(
            *(
                self._presence.linger(channel, user, connection_id, grace_s)
                if grace_s and user is not None
                else self._presence.exit(channel, user, connection_id)
                for grace_s, channels in channels_by_grace.items()
                for channel in channels
            )
        )

    async def _exit(self, user: str | None, connection_id: str, channels: Iterable[str]) -> None:
        """Exits rooms, all at once: a broker that is away then knows all of them when it is back."""
        await asyncio.gather(*(self._presence.exit(channel, user, connection_id) for channel in channels))
