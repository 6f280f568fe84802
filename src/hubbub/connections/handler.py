"""Tracks whether the app's handler knows that its socket has ended, and cancels a handler that does not.

A handler that knows that its client is gone has all the time it needs to clean up. A handler that neither receives nor
sends can't know, so it has a limited time. So has a handler that keeps sending after a send has raised. Then the
handler is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final


class HandlerState(Enum):
    """The state of a handler: whether it knows that its socket has ended."""

    RUNNING = "the handler does not know that the socket has ended, or it has not"
    CLOSED = "the handler closed the socket itself"
    INFORMED = "the handler received the disconnect, or one of its sends raised"
    IGNORING = "the handler sent again after that"
    CANCELLED = "the handler was cancelled"


_RUNNING, _CLOSED, _INFORMED, _IGNORING, _CANCELLED = HandlerState

TRANSITIONS: Final[Mapping[HandlerState, frozenset[HandlerState]]] = {
    _RUNNING: frozenset({_CLOSED, _INFORMED, _CANCELLED}),
    _CLOSED: frozenset({_INFORMED, _CANCELLED}),
    _INFORMED: frozenset({_IGNORING, _CANCELLED}),
    _IGNORING: frozenset({_CANCELLED}),
    _CANCELLED: frozenset(),
}
"""The allowed transitions from each state."""


class Handler:
    """The handler that runs in the current task, and its state."""

    __slots__ = ("_ignoring_at", "_task", "state")

    def __init__(self) -> None:
        self.state: HandlerState = _RUNNING
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._ignoring_at = 0.0

    @property
    def informed(self) -> bool:
        """Whether the handler knows that its client is gone."""
        return self.state is not _RUNNING and self.state is not _CLOSED

    @property
    def cancelled(self) -> bool:
        """Whether hubbub cancelled the handler because its client is gone."""
        return self.state is _CANCELLED

    def on_close(self) -> None:
        """Records that the current task closes the socket, if that task is the handler's."""
        if self.state is _RUNNING and asyncio.current_task() is self._task:
            self._enter(_CLOSED)

    def on_disconnect(self) -> None:
        """Records that the handler receives the disconnect."""
        if not self.informed:
            self._enter(_INFORMED)

    def on_failed_send(self, now: float) -> None:
        """Records that the handler sends after the end of the socket, and that the send raises."""
        if not self.informed:
            self._enter(_INFORMED)
        elif self.state is _INFORMED:
            self._enter(_IGNORING)
            self._ignoring_at = now

    def overdue(self, now: float, ended_at: float, patience_s: float | None) -> bool:
        """Whether the handler has used up its time.

        Args:
            now: The loop's time.
            ended_at: When the socket ended. For a handler that ignores the end, its second failed send counts instead.
            patience_s: How much time the handler has; None for no limit.
        """
        if patience_s is None or self.state is _CLOSED or self.state is _INFORMED:
            return False
        return now - (self._ignoring_at if self.state is _IGNORING else ended_at) >= patience_s

    def cancel(self) -> bool:
        """Cancels the handler. Returns False if it has already ended or was already cancelled."""
        task = self._task
        if task is None or task.done() or self.state is _CANCELLED:
            return False
        self._enter(_CANCELLED)
        task.cancel("the client is gone")
        return True

    def end(self) -> None:
        """Records that the handler has ended. Its task belongs to the server, and is never cancelled after this."""
        self._task = None

    def _enter(self, state: HandlerState) -> None:
        assert state in TRANSITIONS[self.state], f"a handler can't go from {self.state} to {state}"
        self.state = state
