"""The counters of a manager, and the snapshots that apps see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields


@dataclass(frozen=True, slots=True)
class Stats:
    """The state of a manager in this process, and its counters since it started.

    Attributes:
        connections: Open connections.
        users: Distinct users of these connections.
        rooms: Rooms with members on this process.
        queued_bytes: Bytes in the outboxes of slow connections.
        published: Messages published by this process.
        failed_publishes: Messages of `broadcast_nowait` and `send_to_user_nowait` that the broker did not accept.
        received: Messages received from clients.
        dropped: Messages that a room's overflow policy dropped for a slow connection.
        gaps: Gaps in rooms with history that members on raw sockets can't recover; see `ConnectionManager.on_gap`.
        slow: Connections closed because their outbox was full (1013).
        stalled: Connections aborted because their outbox, or their closing, made no progress.
        vanished: Connections aborted because they did not answer a ping when their user reached a limit.
        errors: Bad messages from clients, by the code of the error frame.
        refused: Connections refused or closed by a limit or a check, by its name.
        fast_path: The share of the open connections whose frames go straight to the socket, from 0 to 1.
        broker_up: Whether the broker is connected, without asking it; `ConnectionManager.broker_healthy` asks it.
        broker_reconnects: How often a connection to the broker was lost and made again.
        local_only: Messages that reached only this worker's members while the broker was away
            (``when_away="local"``).
        broker_skipped: Messages, history entries and presence entries of the broker that were skipped, because another
            release of hubbub, or another program, wrote them.
    """

    connections: int
    users: int
    rooms: int
    queued_bytes: int
    published: int
    failed_publishes: int
    received: int
    dropped: int
    gaps: int
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
    """The counters of a running manager."""

    published: int = 0
    failed_publishes: int = 0
    received: int = 0
    dropped: int = 0
    gaps: int = 0
    slow: int = 0
    stalled: int = 0
    vanished: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def reset(self) -> None:
        """Sets all counters to zero."""
        fresh = Counters()
        for each in fields(self):
            setattr(self, each.name, getattr(fresh, each.name))

    def frozen_errors(self) -> Mapping[str, int]:
        """Returns a copy of ``errors``."""
        return dict(self.errors)

    def frozen_refused(self) -> Mapping[str, int]:
        """Returns a copy of ``refused``."""
        return dict(self.refused)
