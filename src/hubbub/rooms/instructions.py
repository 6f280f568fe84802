"""Does what instructions to all workers say about the connections of one user on this worker.

Theory of operation. An instruction affects the connections that began before it was given, which a worker that was cut
off learns late. The right of a user to a room is also taken from attempts to join it. A room that a user is put into
counts as an attempt of its own, which begins with the instruction: so a later instruction can revoke it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final, Protocol

from starlette.websockets import WebSocketDisconnect

from ..connections.session import Session
from ..envelope import Instruction, Kick, Refresh, Subscribe, Unsubscribe
from ..errors import BrokerUnavailable, shown
from ..names import EVERYONE_NAME, user_of
from ..positions import Joined, Position
from ..presence import Info
from ..tasks import Tasks
from .attempts import Attempt, Attempts
from .attendance import Attendance
from .refusals import JoinRefused

logger: Final = logging.getLogger("hubbub")


class Memberships(Protocol):
    """The part of the rooms of this worker that instructions use."""

    attempts: Attempts

    def sessions_of(self, user: str) -> list[Session]:
        """Returns the sessions of a user."""

    def dismiss(self, session: Session, channel: str) -> object:
        """Removes a session from a room, and tells its client."""

    async def join(
        self, session: Session, channel: str, since: Position | None, attempt: Attempt, *, room_info: Info
    ) -> Joined:
        """Adds a session to a room."""


class Obedience:
    """Does what instructions say.

    Args:
        memberships: The rooms of this worker.
        attendance: The grace periods of users.
        tasks: The owner of joins.
        send_away: Closes the connections of a user, or of everyone if the user is None.
    """

    def __init__(
        self,
        memberships: Memberships,
        attendance: Attendance,
        tasks: Tasks,
        send_away: Callable[[str | None, Kick], None],
    ) -> None:
        self._memberships = memberships
        self._attendance = attendance
        self._tasks = tasks
        self._send_away = send_away

    def obey(self, channel: str, instruction: Instruction) -> None:
        """Does what an instruction says. The connections and grace periods that began after it are not affected."""
        user = user_of(channel)
        given_at = asyncio.get_running_loop().time() - instruction.age_s
        if isinstance(instruction, Kick) and (user is not None or channel == EVERYONE_NAME):
            self._send_away(user, instruction)
            self._attendance.end_graces(channel, given_at, only=instruction.only, spared=instruction.spared)
        elif isinstance(instruction, Unsubscribe) and user is not None:
            self._revoke(user, instruction, given_at)
            self._attendance.end_graces(channel, given_at, instruction.room, only=instruction.only)
        elif isinstance(instruction, Subscribe) and user is not None:
            for session in self._affected(user, instruction, given_at):
                self._subscribe(session, instruction)
        elif isinstance(instruction, Refresh) and user is not None:
            for session in self._affected(user, instruction, given_at):
                session.authorize_until(instruction.expires_at)
        else:
            logger.debug("ignored an instruction that this release does not support: %s", shown(instruction))

    def _affected(self, user: str, instruction: Subscribe | Refresh, given_at: float) -> list[Session]:
        sessions = self._memberships.sessions_of(user)
        return [each for each in sessions if each.began_at <= given_at and instruction.only in ("", each.id)]

    def _revoke(self, user: str, instruction: Unsubscribe, given_at: float) -> None:
        """Removes the sessions of a user from a room, and keeps those out that are about to join it."""
        channel, only = instruction.room, instruction.only
        self._memberships.attempts.revoke(user, channel, given_at, only)
        for session in self._memberships.sessions_of(user):
            membership = session.memberships.get(channel)
            if (
                membership is not None
                and membership.joined is not None
                and membership.began_at <= given_at
                and only in ("", session.id)
            ):
                self._memberships.dismiss(session, channel)

    def _subscribe(self, session: Session, instruction: Subscribe) -> None:
        """Joins a session to a room, in a task. The attempt begins now, before later instructions."""
        attempt = ExitStack()
        entered = attempt.enter_context(self._memberships.attempts.begin(session.user_id, session.id))
        self._tasks.spawn(self._join(session, instruction, entered, attempt), "subscribe")

    async def _join(self, session: Session, instruction: Subscribe, attempt: Attempt, under_way: ExitStack) -> None:
        room = instruction.room
        since = None if session.listener is None else session.listener.presents(room)
        with under_way:
            try:
                await self._memberships.join(session, room, since, attempt, room_info=instruction.info)
            except WebSocketDisconnect:
                pass
            except JoinRefused as refusal:
                logger.warning("can't subscribe a connection to %s: %s", shown(room), shown(refusal.cause.reason))
            except BrokerUnavailable as error:
                logger.warning("can't subscribe a connection to %s: %s", shown(room), str(error))
