"""Attempts to join rooms: from before the permission of a user is looked up until its session is in the rooms.

Theory of operation. An instruction to take a right back finds members by their rooms, but not sessions that are about
to join: a socket that is being accepted, a rule that is being asked, a room that is being subscribed at the broker. The
permission of such a session may have been looked up before the right was taken back. So each join belongs to an
attempt, which began before that, and the instruction is recorded in all attempts of the user.
"""

from __future__ import annotations

import asyncio


class Attempt:
    """An attempt of a user to join rooms. It is under way in a ``with`` block.

    Args:
        user: The id of the user; None for an anonymous one.
        pending: The attempts that are under way.
        session_id: The id of the session; empty while it has none.

    Attributes:
        user: The id of the user; None for an anonymous one.
        session_id: The id of the session that joins. Empty while it has none, which nobody can name then.
        began_at: When it began, on the loop's clock: before the permission was looked up.
        revoked: The rooms that instructions have taken from the user since. It must not join them.
    """

    __slots__ = ("_pending", "began_at", "revoked", "session_id", "user")

    def __init__(self, user: str | None, pending: set[Attempt] | None = None, session_id: str = "") -> None:
        self.session_id: str = session_id
        self.user: str | None = user
        self.began_at: float = asyncio.get_running_loop().time()
        self.revoked: set[str] = set()
        self._pending = set() if pending is None else pending

    def __enter__(self) -> Attempt:
        self._pending.add(self)
        return self

    def __exit__(self, *exc: object) -> None:
        self._pending.discard(self)


class Attempts:
    """The attempts that are under way on this worker."""

    def __init__(self) -> None:
        self._pending: set[Attempt] = set()

    def begin(self, user: str | None, session_id: str = "") -> Attempt:
        """Returns an attempt, for a ``with`` block."""
        return Attempt(user, self._pending, session_id)

    def revoke(self, user: str, room: str, given_at: float, only: str = "") -> None:
        """Takes a room from the attempts of a user that began before an instruction was given.

        Args:
            user: The id of the user.
            room: The room.
            given_at: The time of the instruction, on the loop's clock.
            only: The id of the one session that the instruction affects; empty for all.
        """
        for attempt in self._pending:
            if attempt.user == user and attempt.began_at <= given_at and only in ("", attempt.session_id):
                attempt.revoked.add(room)
