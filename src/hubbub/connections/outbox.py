"""The queue of frames for one slow client, bounded in bytes and in count.

Theory of operation. While the socket takes every frame, there is no outbox. Once the socket takes no more, frames wait
here. Each frame belongs to a *lane*: its room, or `DIRECT`. If the outbox is full, the overflow policy of the lane
decides:

* ``close``: no frame of this lane may be lost. Frames of lossy lanes are dropped to make room. If that is not enough,
  the outbox overflows and the caller closes the connection.
* ``drop_oldest``: the lane's own oldest frames are dropped to make room, then those of other lossy lanes. If that is
  not enough, the new frame is dropped.
* ``drop_newest``: the new frame is dropped.
* ``latest``: a new frame replaces the queued frame of the same lane and key, even if the outbox is not full. After
  that, as ``drop_oldest``.

The outbox counts the frames that it drops.

Invariants:

* ``bytes`` is the total size of the queued frames.
* A queued frame is in `_entries` once. If its lane is lossy, it is also in that lane's queue in `_lossy`. No queue in
  `_lossy` is empty.
* A dropped entry stays in `_entries` as a tombstone without data. There are at most `_SLACK` more tombstones than live
  entries.

Pure: no clock, no event loop, no socket.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, Literal, Protocol, TypeVar

from ..options import Overflow

MAX_FRAMES = 16_384
_SLACK = 64

Outcome = Literal["queued", "dropped", "overflow"]


class Lane(Protocol):
    """The origin of a frame, with an overflow policy: a room, or `DIRECT`."""

    @property
    def overflow(self) -> Overflow: ...


class Direct:
    """The lane of the frames that are sent to one connection only."""

    overflow: Overflow = "close"


DIRECT = Direct()

TurnT = TypeVar("TurnT")


class _Entry(Generic[TurnT]):
    __slots__ = ("data", "key", "lane", "turn")

    def __init__(self, data: bytes | None, lane: Lane, key: str | None, turn: TurnT | None) -> None:
        self.data = data
        self.lane = lane
        self.key = key
        self.turn = turn


class Outbox(Generic[TurnT]):
    """The queued frames of one connection, and the places (*turns*) of the handler's own sends between them.

    Args:
        max_bytes: The bound in bytes. A larger frame is accepted only if almost nothing else waits.
        max_frames: The bound in frames.
    """

    def __init__(self, max_bytes: int, max_frames: int = MAX_FRAMES) -> None:
        self.max_bytes = max_bytes
        self.max_frames = max_frames
        self.bytes: int = 0
        self.frames: int = 0
        self.dropped_frames: int = 0
        self._entries: deque[_Entry[TurnT]] = deque()
        self._turns = 0
        self._lossy: dict[Lane, deque[_Entry[TurnT]]] = {}
        self._latest: dict[tuple[Lane, str | None], _Entry[TurnT]] = {}

    def __bool__(self) -> bool:
        """Whether anything is left to send: a frame or a turn."""
        return self.frames + self._turns > 0

    def push(self, data: bytes, lane: Lane, key: str | None = None, *, buffered: int = 0) -> Outcome:
        """Queues a frame, or several whole frames as one piece.

        Args:
            data: The frame or frames.
            lane: The lane of the frame.
            key: The key by which ``overflow="latest"`` replaces frames.
            buffered: Bytes in the transport's own buffer. They count against the bound.

        Returns:
            ``"queued"``; ``"dropped"`` if the new frame was dropped; ``"overflow"`` if the connection must be closed.
        """
        policy = lane.overflow
        if policy == "latest":
            stale = self._latest.get((lane, key))
            if stale is not None and stale.data is not None:
                self._drop(stale)
        makes_room = policy != "drop_newest"
        if not self._fits(data, buffered) and not (makes_room and self._make_room(data, lane, buffered)):
            if policy == "close":
                return "overflow"
            self.dropped_frames += 1
            return "dropped"
        entry: _Entry[TurnT] = _Entry(data, lane, key, None)
        self._entries.append(entry)
        self.bytes += len(data)
        self.frames += 1
        if policy != "close":
            self._lossy.setdefault(lane, deque()).append(entry)
            if policy == "latest":
                self._latest[lane, key] = entry
        return "queued"

    def push_first(self, data: bytes) -> None:
        """Queues a frame ahead of everything that waits: not bounded, not dropped."""
        self._entries.appendleft(_Entry(data, DIRECT, None, None))
        self.bytes += len(data)
        self.frames += 1

    def push_turn(self, turn: TurnT) -> None:
        """Queues the place of a send that somebody waits for: not bounded, not dropped."""
        self._entries.append(_Entry(None, DIRECT, None, turn))
        self._turns += 1

    def take(self, max_bytes: int) -> bytes | TurnT | None:
        """Removes and returns the next item.

        Returns:
            Frames joined up to ``max_bytes``, but at least one; or a turn; None if the outbox is empty.
        """
        taken: list[bytes] = []
        size = 0
        while self._entries:
            entry = self._entries[0]
            if entry.turn is not None:
                if taken:
                    break
                self._entries.popleft()
                self._turns -= 1
                return entry.turn
            if entry.data is not None:
                if taken and size + len(entry.data) > max_bytes:
                    break
                taken.append(entry.data)
                size += len(entry.data)
                self._uncount(entry)
            self._entries.popleft()
        self._compact()
        if not taken:
            return None
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def clear(self) -> list[TurnT]:
        """Discards everything and returns the turns. Counts nothing as dropped, because the connection has ended."""
        turns = [entry.turn for entry in self._entries if entry.turn is not None]
        self._entries.clear()
        self._lossy.clear()
        self._latest.clear()
        self.bytes = self.frames = self._turns = 0
        return turns

    def _fits(self, data: bytes, buffered: int) -> bool:
        if self.frames >= self.max_frames:
            return False
        if self.bytes + buffered + len(data) <= self.max_bytes:
            return True
        # A single frame may be larger than the bound. Otherwise a large message could never reach a slow client.
        return self.frames == 0 and buffered <= self.max_bytes // 4

    def _make_room(self, data: bytes, lane: Lane, buffered: int) -> bool:
        for queue in sorted(self._lossy.values(), key=lambda queue: queue[0].lane is not lane):
            while queue and not self._fits(data, buffered):
                self._drop(queue[0])
        return self._fits(data, buffered)

    def _drop(self, entry: _Entry[TurnT]) -> None:
        self._uncount(entry)
        entry.data = None
        self.dropped_frames += 1
        self._compact()

    def _compact(self) -> None:
        """Removes the tombstones once there are too many."""
        if len(self._entries) > 2 * (self.frames + self._turns) + _SLACK:
            self._entries = deque(each for each in self._entries if each.data is not None or each.turn is not None)

    def _uncount(self, entry: _Entry[TurnT]) -> None:
        """Removes a frame from all but `_entries`. The caller removes it there, or makes it a tombstone."""
        assert entry.data is not None
        self.bytes -= len(entry.data)
        self.frames -= 1
        lane = entry.lane
        queue = self._lossy.get(lane)
        if queue is not None:
            queue.remove(entry)  # fast, because it is nearly always the first entry
            if not queue:
                del self._lossy[lane]
            if self._latest.get((lane, entry.key)) is entry:
                del self._latest[lane, entry.key]
