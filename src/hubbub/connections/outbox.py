"""What waits for one slow connection: a queue bounded in bytes and in count.

Theory of operation. A connection whose socket takes everything has no outbox. Once its socket stops taking, each frame
goes here with the *lane* (the room) that it came by, and the lane's overflow policy says what a full outbox does:

* ``close``: nothing of the lane may be lost. Frames of lanes that may lose some make room first; if that is not
  enough, the outbox has overflowed and the connection is to be closed.
* ``drop_oldest``: the lane's own oldest frames make room, then those of other lanes that may lose some, else the
  new frame is dropped.
* ``drop_newest``: the new frame is dropped.
* ``latest``: a new frame replaces the waiting one of the same lane and key, full or not; then as ``drop_oldest``.

What was dropped is counted per lane, for `take_dropped` to tell the client once the outbox is empty.

Invariants: ``bytes`` is the sum over the frames that wait; a frame that waits is in `_entries` once, and in the queue
of its lane in `_loose` if that lane may lose frames (no queue there is empty); dropped entries stay in `_entries` as
tombstones (no data) and never outnumber the living by more than `_SLACK`. Pure: no clock, no loop, no socket.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, Literal, Protocol, TypeVar

from ..options import Overflow

MAX_FRAMES = 16_384
_SLACK = 64

Outcome = Literal["queued", "dropped", "overflow"]


class Lane(Protocol):
    """Where a frame came by: a room, or what is sent to one connection directly."""

    @property
    def label(self) -> str: ...

    @property
    def overflow(self) -> Overflow: ...


class Direct:
    """The lane of what is sent to one connection only."""

    label: str = "$direct"
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
    """The frames that wait for one connection, and the places (*turns*) of sends that wait among them.

    Args:
        max_bytes: The bound; a frame larger than that is taken only when next to nothing else waits.
        max_frames: The bound in count.
    """

    def __init__(self, max_bytes: int, max_frames: int = MAX_FRAMES) -> None:
        self.max_bytes = max_bytes
        self.max_frames = max_frames
        self.bytes: int = 0
        self.frames: int = 0
        self.dropped_frames: int = 0
        self._entries: deque[_Entry[TurnT]] = deque()
        self._turns = 0
        self._loose: dict[Lane, deque[_Entry[TurnT]]] = {}
        self._latest: dict[tuple[Lane, str | None], _Entry[TurnT]] = {}
        self._dropped: dict[str, int] = {}

    def __bool__(self) -> bool:
        """Whether anything is to go out: what waits, or word of what was dropped."""
        return self.frames + self._turns > 0 or bool(self._dropped)

    def push(self, data: bytes, lane: Lane, key: str | None = None, *, buffered: int = 0) -> Outcome:
        """Queues a frame, or whole frames in one piece.

        Args:
            data: The frame.
            lane: Where it came by.
            key: What ``overflow="latest"`` replaces by.
            buffered: Bytes that wait below, in the transport's own buffer: they count against the bound.

        Returns:
            ``"queued"``; ``"dropped"`` where this very frame was dropped; ``"overflow"`` where the connection is
            to be closed (nothing was queued).
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
            self._count(lane)
            return "dropped"
        entry: _Entry[TurnT] = _Entry(data, lane, key, None)
        self._entries.append(entry)
        self.bytes += len(data)
        self.frames += 1
        if policy != "close":
            self._loose.setdefault(lane, deque()).append(entry)
            if policy == "latest":
                self._latest[lane, key] = entry
        return "queued"

    def push_turn(self, turn: TurnT) -> None:
        """Queues the place of a send that somebody waits for: not bounded, not dropped."""
        self._entries.append(_Entry(None, DIRECT, None, turn))
        self._turns += 1

    def take(self, max_bytes: int) -> bytes | TurnT | None:
        """Takes what is next: frames joined up to ``max_bytes`` (one at least), or a turn; None if empty."""
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
                self._forget(entry)
            self._entries.popleft()
        self._compact()
        if not taken:
            return None
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def clear(self) -> list[TurnT]:
        """Drops everything, uncounted (the connection is gone), and gives back the turns."""
        turns = [entry.turn for entry in self._entries if entry.turn is not None]
        self._entries.clear()
        self._loose.clear()
        self._latest.clear()
        self._dropped.clear()
        self.bytes = self.frames = self._turns = 0
        return turns

    def take_dropped(self) -> dict[str, int]:
        """What was dropped since the last call: messages by the label of their lane."""
        dropped, self._dropped = self._dropped, {}
        return dropped

    def _fits(self, data: bytes, buffered: int) -> bool:
        if self.frames >= self.max_frames:
            return False
        if self.bytes + buffered + len(data) <= self.max_bytes:
            return True
        # Alone, a frame may be larger than the bound: else an app that sends large ones could never reach anybody.
        return self.frames == 0 and buffered <= self.max_bytes // 4

    def _make_room(self, data: bytes, lane: Lane, buffered: int) -> bool:
        for queue in sorted(self._loose.values(), key=lambda queue: queue[0].lane is not lane):
            while queue and not self._fits(data, buffered):
                self._drop(queue[0])
        return self._fits(data, buffered)

    def _drop(self, entry: _Entry[TurnT]) -> None:
        self._forget(entry)
        entry.data = None
        self._count(entry.lane)
        self._compact()

    def _compact(self) -> None:
        """Keeps the tombstones few."""
        if len(self._entries) > 2 * (self.frames + self._turns) + _SLACK:
            self._entries = deque(each for each in self._entries if each.data is not None or each.turn is not None)

    def _forget(self, entry: _Entry[TurnT]) -> None:
        """Takes a frame out of the accounts; the caller takes it out of `_entries` or makes it a tombstone."""
        assert entry.data is not None
        self.bytes -= len(entry.data)
        self.frames -= 1
        lane = entry.lane
        queue = self._loose.get(lane)
        if queue is not None:
            queue.remove(entry)  # nearly always the first one
            if not queue:
                del self._loose[lane]
            if self._latest.get((lane, entry.key)) is entry:
                del self._latest[lane, entry.key]

    def _count(self, lane: Lane) -> None:
        self.dropped_frames += 1
        self._dropped[lane.label] = self._dropped.get(lane.label, 0) + 1
