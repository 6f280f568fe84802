"""What a manager counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields


@dataclass(frozen=True, slots=True)
class Stats:
    """A snapshot of what this process holds, and of what happened since the manager started.

    Attributes:
        connections: Open connections.
        users: Distinct users among them.
        rooms: Rooms with members here.
        queued_bytes: Bytes in the outboxes of slow connections.
        published: Messages published by this process.
        failed_publishes: Messages of `broadcast_nowait` and `send_to_user_nowait` that the broker did not take.
        received: Messages received from clients.
        dropped: Messages that a room's overflow policy dropped for a slow connection.
        slow: Connections closed because their outbox was full (1013).
        stalled: Connections aborted because their outbox, or their close, did not move.
        vanished: Connections aborted because they answered no ping when their user reached a limit.
        errors: Bad messages of clients, by the code of the error frame.
        refused: Connections refused or closed by a limit or a check, by what refused them.
        fast_path: The share of the open connections whose frames go straight to the socket, from 0 to 1.
        broker_up: Whether the broker is connected, as far as is known; `ConnectionManager.broker_healthy` asks it.
        broker_reconnects: Connections to the broker that were lost and made again.
        local_only: Messages that the broker's absence kept to this worker's members (`when_away="local"`).
        broker_skipped: Messages, log entries and presence entries that were read at the broker and skipped, because
            they were not written by this release of hubbub.
    """

    connections: int
    users: int
    rooms: int
    queued_bytes: int
    published: int
    failed_publishes: int
    received: int
    dropped: int
    slow: int
    stalled: int
    vanished: int
    errors: Mapping[str, int]
    refused: Mapping[str, int]
    fast_path: float
    broker_up: bool
    broker_reconnects: int
    local_only: int
    broker_skipped: int


@dataclass(slots=True)
class Counters:
    """What goes up while a manager runs."""

    published: int = 0
    failed_publishes: int = 0
    received: int = 0
    dropped: int = 0
    slow: int = 0
    stalled: int = 0
    vanished: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def reset(self) -> None:
        """Begins at zero again."""
        fresh = Counters()
        for each in fields(self):
            setattr(self, each.name, getattr(fresh, each.name))

    def frozen_errors(self) -> Mapping[str, int]:
        return dict(self.errors)

    def frozen_refused(self) -> Mapping[str, int]:
        return dict(self.refused)
