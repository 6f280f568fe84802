"""Reports the presence of this worker's sessions to the broker.

Theory of operation. The broker holds the presence of all workers. Each worker reports its own sessions: `enter` when
one joins a room, `linger` when its socket is lost, and `exit` when its grace period is over, or immediately after a
leave, a kick or an expired token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from ..brokers.base import Presence
from ..connections.session import Session
from ..names import is_user_room, user_room
from ..tasks import Tasks
from ..timers import Timers


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
        # What ends each grace period, in one room or in all, and when its session began, by the user's own room.
        self._graces: dict[str, dict[Callable[[str | None], None], float]] = {}

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
            # The session left while `enter` was in flight, so its `exit` may have arrived first. Send `exit` again.
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

    def end_graces(self, user_channel: str, given_at: float, room: str | None = None) -> None:
        """Ends the grace periods of a user at once: those of sessions that began until ``given_at``.

        Args:
            user_channel: The user's own room.
            given_at: The time of the instruction, on the loop's clock.
            room: The room in which they end; None for all rooms.
        """
        for end, began_at in tuple(self._graces.get(user_channel, {}).items()):
            if began_at <= given_at:
                end(room)

    def _begin_grace(self, grace_s: float, user: str, session: Session, channels: list[str]) -> None:
        own, connection_id = user_room(user), session.id

        def end(room: str | None) -> None:
            if room is not None and channels != [room]:
                if room in channels:
                    channels.remove(room)
                    self._tasks.spawn(self._exit(user, connection_id, [room]), "grace")
                return
            graces = self._graces[own]
            del graces[end]
            if not graces:
                del self._graces[own]
            timer.cancel()
            self._tasks.spawn(self._exit(user, connection_id, channels), "grace")

        timer = self._timers.call_later(grace_s, lambda: end(None))
        self._graces.setdefault(own, {})[end] = session.began_at

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
