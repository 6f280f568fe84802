"""The embedded broker, for an app that runs in one process. It needs no server.

A publish delivers before it returns. So if a handler publishes and then sends, clients receive the two in that order.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from math import inf
from typing import Literal

from ...envelope import Announcement, Envelope, Instruction, Page, Reply
from ...options import RoomTable
from ...positions import Position
from ...presence import Change, Info, Member, PresenceTable, PresentConnection
from ...tasks import Tasks
from ..base import MAX_SILENT, ONCE_S, Broker, BrokerState, Receiver
from ..requests import Requests
from .log import RoomLog

_SWEEP_EVERY = 256
_MAX_ONCE = 65_536
"""Maximum number of messages published once that are known. Above it, the oldest are forgotten early."""


class MemoryBroker(Broker):
    """Keeps rooms, history and presence in this process. Everything is lost when the process ends.

    Args:
        clock: Returns a monotonic time in seconds; for tests.
    """

    name = "memory"
    distributed = False

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._receiver: Receiver | None = None
        self._rooms: RoomTable | None = None
        self._subscribed: dict[str, RoomLog | None] = {}  # with the log, so that a publish matches no room patterns
        self._logs: dict[str, RoomLog] = {}
        self._silent: dict[str, None] = {}  # rooms with a log, no message and no member, longest empty first
        self._once: dict[tuple[str, str], tuple[float, Position | None]] = {}  # oldest first
        self._presence = PresenceTable()
        self._until_sweep = _SWEEP_EVERY
        self._worker = secrets.token_hex(8)
        self._tasks = Tasks()
        self._requests: Requests | None = None

    async def start(self, receiver: Receiver, rooms: RoomTable) -> None:
        self._receiver, self._rooms = receiver, rooms
        self._requests = Requests(receiver, self._tasks)

    async def close(self) -> None:
        self._receiver = None
        if self._requests is not None:
            self._requests.close()
        await self._tasks.close(0.0)
        self._subscribed.clear()
        self._logs.clear()
        self._silent.clear()
        self._once.clear()
        self._presence.clear()

    async def subscribe(self, channel: str) -> Position | None:
        log = self._subscribed[channel] = self._log(channel)
        return None if log is None else log.head

    async def unsubscribe(self, channel: str) -> None:
        log = self._subscribed.pop(channel, None)
        if log is None:
            return
        log.used_at = self._clock()
        if not log.offset:
            self._silent[channel] = None
            if len(self._silent) > MAX_SILENT:
                longest_empty = next(iter(self._silent))
                del self._silent[longest_empty], self._logs[longest_empty]

    async def publish(
        self, channel: str, envelope: Envelope, *, keep: bool = True, once: str | None = None
    ) -> Position | None:
        if once is None:
            return self._publish(channel, envelope, keep=keep)
        now, key = self._clock(), (channel, once)
        published_at, position = self._once.get(key, (-inf, None))
        if now - published_at < ONCE_S:
            return position
        self._once.pop(key, None)
        while self._once:
            oldest, (published_at, _) = next(iter(self._once.items()))
            if now - published_at < ONCE_S and len(self._once) < _MAX_ONCE:
                break
            del self._once[oldest]
        position = self._publish(channel, envelope, keep=keep)
        self._once[key] = now, position
        return position

    def publish_nowait(self, channel: str, envelope: Envelope) -> None:
        self._publish(channel, envelope, keep=True)

    def _publish(self, channel: str, envelope: Envelope, *, keep: bool) -> Position | None:
        subscribed = channel in self._subscribed
        if keep:
            log = self._subscribed[channel] if subscribed else self._log(channel)
            if log is not None:
                envelope = log.append(envelope, self._clock(), datetime.now(UTC))
        if subscribed and self._receiver is not None:
            self._receiver.deliver(channel, envelope)
        return envelope.position

    async def instruct(self, channel: str, instruction: Instruction) -> None:
        if self._receiver is not None:
            self._receiver.deliver(channel, instruction)

    @property
    def worker(self) -> str:
        return self._worker

    async def workers(self) -> list[str]:
        return [self._worker]

    async def ask(self, worker: str, payload: bytes, timeout_s: float) -> bytes:
        requests = self._requests
        assert requests is not None, "the broker is used before start()"

        async def send(number: int) -> bool:
            async def send_reply(reply: Reply) -> None:
                requests.replied(number, reply)

            if worker != self._worker:
                return False
            requests.answer(payload, timeout_s, send_reply)
            return True

        return await requests.ask(worker, payload, timeout_s, send)

    async def history(self, channel: str, after: Position | None = None, limit: int | None = None) -> Page:
        log = self._logs.get(channel)
        return Page([], None, whole=False) if log is None else log.read(after, limit, self._clock())

    async def clear_history(self, channel: str) -> None:
        if (log := self._logs.get(channel)) is not None:
            log.clear()

    async def position(self, channel: str) -> Position | None:
        log = self._logs.get(channel)
        return None if log is None else log.head

    async def enter(
        self, channel: str, user: str | None, connection_id: str, info: Info, room_info: Info = None
    ) -> None:
        change = self._presence.enter(channel, user, connection_id, info, datetime.now(UTC), room_info)
        if change.turned:
            self._announce("joined", channel, user, change)

    def presence_id(self, channel: str, user: str | None, connection_id: str) -> str:
        return (None if user is None else self._presence.first(channel, user)) or connection_id

    async def linger(self, channel: str, user: str, connection_id: str, grace_s: float) -> None:
        self._presence.linger(channel, user, connection_id)

    async def exit(self, channel: str, user: str | None, connection_id: str) -> None:
        change = self._presence.exit(channel, user, connection_id)
        if change.turned:
            self._announce("left", channel, user, change)

    def _announce(self, kind: Literal["joined", "left"], channel: str, user: str | None, change: Change) -> None:
        assert self._rooms is not None, "the broker is used before start()"
        if self._receiver is not None and channel in self._subscribed and self._rooms(channel).announce:
            event = Announcement(
                kind, user, change.first, change.info, change.total, datetime.now(UTC), change.room_info
            )
            self._receiver.deliver(channel, event)

    async def members(self, channel: str) -> list[Member]:
        return self._presence.members(channel)

    async def connections(self, channel: str) -> list[PresentConnection]:
        return self._presence.connections(channel)

    async def count(self, channel: str) -> int:
        return self._presence.count(channel)

    async def connected(self, channel: str, user: str) -> bool:
        return self._presence.connected(channel, user)

    async def present(self, channel: str, user: str) -> bool:
        return self._presence.has(channel, user)

    @property
    def state(self) -> BrokerState:
        return BrokerState(self._receiver is not None, 0, 0)

    async def healthy(self) -> bool:
        return self._receiver is not None

    def _log(self, channel: str) -> RoomLog | None:
        """Returns the log of a room, for a subscribe or a publish. Creates it, so that every member has a position."""
        log = self._logs.get(channel)
        now = self._clock()
        if log is None:
            assert self._rooms is not None, "the broker is used before start()"
            kept = self._rooms(channel).kept
            if kept is None:
                return None
            self._sweep(now)
            log = self._logs[channel] = RoomLog(kept, now)
        log.used_at = now
        self._silent.pop(channel, None)
        return log

    def _sweep(self, now: float) -> None:
        """Deletes expired logs of rooms without members. Runs once per a few hundred new logs, to keep its cost low."""
        self._until_sweep -= 1
        if self._until_sweep > 0:
            return
        self._until_sweep = max(_SWEEP_EVERY, len(self._logs) // 2)
        for channel, log in list(self._logs.items()):
            if channel not in self._subscribed and log.expired(now):
                del self._logs[channel]
                self._silent.pop(channel, None)
