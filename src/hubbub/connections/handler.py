"""The app's handler of one socket: what it knows of the end, and when it is cancelled.

A handler that knows that its client is gone has all the time it needs to clean up. A handler that does not know, since
it neither receives nor sends, has a bounded time; so has one that sends again after it was told. Then it is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final


class HandlerState(Enum):
    """What a handler knows of the end of its socket."""

    RUNNING = "it does not know of an end"
    CLOSED = "it closed the socket itself"
    INFORMED = "it received the disconnect, or a send of it raised"
    IGNORING = "it sent again after that"
    CANCELLED = "it was cancelled"


_RUNNING, _CLOSED, _INFORMED, _IGNORING, _CANCELLED = HandlerState

TRANSITIONS: Final[Mapping[HandlerState, frozenset[HandlerState]]] = {
    _RUNNING: frozenset({_CLOSED, _INFORMED, _CANCELLED}),
    _CLOSED: frozenset({_INFORMED, _CANCELLED}),
    _INFORMED: frozenset({_IGNORING, _CANCELLED}),
    _IGNORING: frozenset({_CANCELLED}),
    _CANCELLED: frozenset(),
}
"""Where each state may lead."""


class Handler:
    """The handler that runs in the current task."""

    __slots__ = ("_ignoring_at", "_task", "state")

    def __init__(self) -> None:
        self.state: HandlerState = _RUNNING
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._ignoring_at = 0.0

    @property
    def informed(self) -> bool:
        """Whether it was told that its client is gone."""
        return self.state is not _RUNNING and self.state is not _CLOSED

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled because its client is gone."""
        return self.state is _CANCELLED

    def closes(self) -> None:
        """The socket is closed from the current task, which is the handler's or another."""
        if self.state is _RUNNING and asyncio.current_task() is self._task:
            self._enter(_CLOSED)

    def inform(self) -> None:
        """It receives the disconnect."""
        if not self.informed:
            self._enter(_INFORMED)

    def sends_in_vain(self, now: float) -> None:
        """It sends after the end, and is told so."""
        if not self.informed:
            self._enter(_INFORMED)
        elif self.state is _INFORMED:
            self._enter(_IGNORING)
            self._ignoring_at = now

    def overdue(self, now: float, ended_at: float, patience_s: float | None) -> bool:
        """Whether its time is over. The clock starts when the socket ended, or when the handler was told in vain."""
        if patience_s is None or self.state is _CLOSED or self.state is _INFORMED:
            return False
        return now - (self._ignoring_at if self.state is _IGNORING else ended_at) >= patience_s

    def cancel(self) -> bool:
        """Cancels it. False where it has ended, or was cancelled before."""
        task = self._task
        if task is None or task.done() or self.state is _CANCELLED:
            return False
        self._enter(_CANCELLED)
        task.cancel("the client is gone")
        return True

    def end(self) -> None:
        """It has ended: from here on nothing cancels its task, which is the server's."""
        self._task = None

    def _enter(self, state: HandlerState) -> None:
        assert state in TRANSITIONS[self.state], f"a handler can't go from {self.state} to {state}"
        self.state = state
