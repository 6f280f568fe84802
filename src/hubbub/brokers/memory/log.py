"""One room's numbering and recent messages, in memory.

Theory of operation. Offsets count from 1 within an epoch without holes; the entries that are kept are the newest ones,
so that a position is recoverable exactly when its epoch is this one and every offset after it is still kept. Time is
given by the caller, in seconds of a monotonic clock.
"""

from __future__ import annotations

from collections import deque
from datetime import datetime
from itertools import islice

from ...envelope import Entry, Envelope, Page
from ...options import History
from ...positions import Position, new_epoch


class RoomLog:
    """The stream of one room.

    Args:
        kept: How much to keep; None numbers the messages and keeps none.
        now: The time, in seconds.
    """

    __slots__ = ("_entries", "_times", "epoch", "kept", "offset", "used_at")

    def __init__(self, kept: History | None, now: float) -> None:
        self.kept: History | None = kept
        self.epoch: str = new_epoch()
        self.offset: int = 0
        self.used_at: float = now
        self._entries: deque[Entry] = deque()
        self._times: deque[float] = deque()

    @property
    def head(self) -> Position:
        """The position after the newest message."""
        return Position(self.epoch, self.offset)

    def append(self, envelope: Envelope, now: float, sent_at: datetime) -> Envelope:
        """Numbers a message, keeps it, and gives it back with its position."""
        self.offset += 1
        self.used_at = now
        envelope = envelope._replace(position=self.head)
        if self.kept is not None:
            # orjson's bytes hold 4 KiB however short they are; a copy holds what it says.
            payload = envelope.payload._replace(data=bytes(memoryview(envelope.payload.data)))
            self._entries.append(Entry(envelope._replace(payload=payload), sent_at))
            self._times.append(now)
            self._trim(now)
        return envelope

    def read(self, after: Position | None, limit: int | None, now: float) -> Page:
        """Reads what is kept after a position.

        Args:
            after: The position, or None for the newest ``limit`` messages.
            limit: Messages, at most; None gives all.
            now: The time.
        """
        self._trim(now)
        kept = len(self._entries)
        if after is None:
            skip = 0 if limit is None else max(0, kept - limit)
            return Page(list(islice(self._entries, skip, None)), self.head, whole=False)
        missed = self.offset - after.offset
        whole = after.epoch == self.epoch and 0 <= missed <= kept
        skip = kept - missed if whole else 0
        entries = islice(self._entries, skip, None if limit is None else skip + limit)
        return Page(list(entries), self.head, whole)

    def expired(self, now: float, ttl_s: float) -> bool:
        """Whether nothing is kept any more, and the room was not used for ``ttl_s``. Reading is not use."""
        self._trim(now)
        return not self._entries and now - self.used_at >= ttl_s

    def _trim(self, now: float) -> None:
        assert self.kept is not None or not self._entries
        while self._entries and self.kept is not None:
            if len(self._entries) <= self.kept.size and now - self._times[0] < self.kept.ttl_s:
                break
            self._entries.popleft()
            self._times.popleft()
