"""One room's numbering and recent messages, in memory.

Theory of operation. Offsets count from 1 within an epoch, without gaps, and the log keeps the newest entries. So a
position is recoverable exactly if its epoch is the log's epoch and every offset after it is still kept. The caller
passes the time, in seconds of a monotonic clock.
"""

from __future__ import annotations

from collections import deque
from datetime import datetime
from itertools import islice

from ...envelope import Entry, Envelope, Page
from ...options import History
from ...positions import Position, new_epoch


class RoomLog:
    """The log of one room: numbers its messages, and keeps the newest.

    Args:
        kept: How much to keep.
        now: The time in seconds.
    """

    __slots__ = ("_entries", "_times", "epoch", "kept", "offset", "used_at")

    def __init__(self, kept: History, now: float) -> None:
        self.kept: History = kept
        self.epoch: str = new_epoch()
        self.offset: int = 0
        self.used_at: float = now
        self._entries: deque[Entry] = deque()
        self._times: deque[float] = deque()

    @property
    def head(self) -> Position:
        """The position of the newest message; offset 0 before the first."""
        return Position(self.epoch, self.offset)

    def append(self, envelope: Envelope, now: float, sent_at: datetime) -> Envelope:
        """Numbers a message, keeps it, and returns it with its position."""
        self.offset += 1
        self.used_at = now
        envelope = envelope._replace(position=self.head)
        # The bytes that orjson returns occupy at least 4 KiB. A copy occupies only its length.
        payload = envelope.payload._replace(data=bytes(memoryview(envelope.payload.data)))
        self._entries.append(Entry(envelope._replace(payload=payload), sent_at))
        self._times.append(now)
        self._trim(now)
        return envelope

    def read(self, after: Position | None, limit: int | None, now: float) -> Page:
        """Reads the kept messages after a position.

        Args:
            after: The position, or None for the newest ``limit`` messages.
            limit: Maximum number of messages. None reads all.
            now: The time in seconds.
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

    def clear(self) -> None:
        """Removes the kept messages. The numbering goes on."""
        self._entries.clear()
        self._times.clear()

    def expired(self, now: float) -> bool:
        """Returns whether the log is empty and was not used for as long as it keeps messages. Reading is not use."""
        self._trim(now)
        return not self._entries and now - self.used_at >= self.kept.ttl_s

    def _trim(self, now: float) -> None:
        while self._entries:
            if len(self._entries) <= self.kept.size and now - self._times[0] < self.kept.ttl_s:
                break
            self._entries.popleft()
            self._times.popleft()
