"""One room's channel on one worker: what comes is put in order. Pure.

Theory of operation. Messages of a room without positions are delivered as they come. Those of a room with positions are
numbered, so that it shows when something is not right:

* The next number of the same epoch: it is delivered.
* A number further on, or another epoch: something was missed, or the server is another one. The room's history is read
  (*behind*), and says whether what was delivered is a part of what the server has.
* A number that was delivered: while the worker catches up, history and channel overlap, and it is dropped. Otherwise
  the server has gone back without a new epoch, as one does whose data was replaced by hand (*gone back*): the numbering
  is renewed. The same holds where the history has another message than the one that was delivered under the last
  number.

Positions of different epochs are never compared here. Only the server can: it knows where each epoch ended
(``common.lua``). So a history that was read gives one of three answers. What was delivered is a part of it, and nothing
is missing: what comes after is delivered, after a `Relabel` where the epoch is new. Or something is missing: a `Reset`.
Or the server lacks what it had: gone back.

While it is behind, what comes is held, up to a bound; what is dropped then is in the history too, or shows as a gap.
What was held before the history was asked for, and is of another epoch than the history, is of an epoch that ended.

A message that was delivered in an epoch that ended may be published again, because its answer was lost with the data.
Its sender's number tells, and it is a `Reset` then: the place is new, the message is not.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Literal, NamedTuple

from ...envelope import Relabel, Reset
from ...positions import Position
from ..base import Delivery
from .channel import Arrival, Stamp

HELD: Final = 1024
MAX_SENDERS: Final = 256

Verdict = Literal["delivered", "behind", "gone back"]


class Read(NamedTuple):
    """What was read of a room's history after a position.

    Attributes:
        head: The room's position.
        known: Whether the position is of the room's numbering: it was handed out in this epoch, or in one that this one
            continues, before that one ended.
        whole: Whether it is known, and nothing is missing after it.
        same: Whether the message at that position is the one that was delivered, as far as it is kept.
        arrivals: The messages, oldest first.
    """

    head: Position
    known: bool
    whole: bool
    same: bool
    arrivals: list[Arrival]


class Subscription:
    """What one worker knows of a channel.

    Attributes:
        last: The position up to which everything was delivered; None in a room without positions, or before the first.
        stamp: That of the message that was delivered there; None where it is not known.
        catching_up: Whether the history is being read.
        doubted: Whether something may have been missed since the history was last asked for.
        overlap: The canary after which nothing comes any more that the history has brought.
    """

    __slots__ = (
        "_asked",
        "_held",
        "_seen",
        "catching_up",
        "confirmed",
        "doubted",
        "last",
        "overlap",
        "renumbering",
        "stamp",
    )

    def __init__(self) -> None:
        self.last: Position | None = None
        self.stamp: Stamp | None = None
        self.catching_up: bool = False
        self.renumbering: bool = False
        self.overlap: int = 0
        self.confirmed: bool = False
        self.doubted: bool = False
        self._held: deque[tuple[Position, Arrival]] = deque()
        self._asked = 0  # how many of these came before the history was asked for
        self._seen: dict[bytes, int] = {}  # of each sender the number that was delivered last

    def start_at(self, position: Position) -> Verdict:
        """Takes the channel's position when it was subscribed. What came before that was known goes on by itself."""
        if self.last is None:
            self.last, self.stamp = position, None
        return "behind" if self.doubted or self.last.epoch != position.epoch else "delivered"

    def take(self, arrival: Arrival, canary: int) -> tuple[list[Delivery], Verdict]:
        """Takes a numbered message.

        Args:
            arrival: The message.
            canary: The last canary that came.

        Returns:
            What to deliver, and whether all is well.
        """
        position, last = _position(arrival), self.last
        if self.catching_up:
            self._hold(position, arrival)
            return [], "delivered"
        if last is None or position == (last.epoch, last.offset + 1):
            return self._deliver(arrival), "delivered"
        if position.epoch != last.epoch or position.offset > last.offset:
            self._hold(position, arrival)
            return [], "behind"
        if self.renumbering or canary < self.overlap:
            return [], "delivered"
        return [], "gone back"

    def asks(self) -> None:
        """The history is being asked for: what is held now came before the answer."""
        self._asked = len(self._held)
        self.doubted = False

    def catch_up(self, read: Read) -> tuple[list[Delivery], Verdict]:
        """Takes what was read of the history after `last`.

        Returns:
            What to deliver; "behind" where there is more, "gone back" where the server lost what was delivered.
        """
        head, last = read.head, self.last
        if last is not None and head.epoch == last.epoch and (head.offset < last.offset or not read.same):
            return [], "gone back"
        self._drop_ended(head.epoch)
        if read.whole:
            deliveries = self._relabel(head.epoch)
            for arrival in read.arrivals:
                deliveries += self._deliver(arrival)
            return deliveries, "delivered" if self.last == head or not read.arrivals else "behind"
        place = self._held_from(head)
        if read.known and last is not None and place.offset == last.offset:
            return self._relabel(head.epoch), "delivered"
        return self.reset(place), "delivered"

    def caught_up(self, overlap: int) -> tuple[list[Delivery], Verdict]:
        """Nothing more is in the history: goes on with what was held."""
        self.catching_up = False
        self.overlap = overlap
        held, self._held, self._asked = self._held, deque(), 0
        deliveries: list[Delivery] = []
        verdict: Verdict = "delivered"
        while held:
            more, verdict = self.take(held.popleft()[1], overlap - 1)
            deliveries += more
            if verdict != "delivered":
                self._held.extend(held)
                break
        return deliveries, verdict

    def reset(self, position: Position) -> list[Delivery]:
        """What comes does not follow what was delivered."""
        if self.last == position:
            return []
        self.last, self.stamp = position, None
        self.renumbering = False
        return [Reset(position)]

    def _relabel(self, epoch: str) -> list[Delivery]:
        """The place is the same, whatever its epoch is called now."""
        if self.last is None or self.last.epoch == epoch:
            return []
        self.last = Position(epoch, self.last.offset)
        self.renumbering = False
        return [Relabel(self.last)]

    def _deliver(self, arrival: Arrival) -> list[Delivery]:
        """The next message. Within an epoch the server publishes none twice."""
        self.last, self.stamp = _position(arrival), arrival.stamp
        sender, number = arrival.stamp
        before = self._seen.get(sender)
        if before is not None and number <= before:
            return [Reset(self.last)]
        if before is None and len(self._seen) >= MAX_SENDERS:
            del self._seen[next(iter(self._seen))]
        self._seen[sender] = number
        return [arrival.envelope]

    def _hold(self, position: Position, arrival: Arrival) -> None:
        if len(self._held) == HELD:
            self._held.popleft()
            self._asked = max(0, self._asked - 1)
        self._held.append((position, arrival))

    def _drop_ended(self, epoch: str) -> None:
        """What came before the history was asked for, and is of another epoch, came before this one."""
        held = [each for at, each in enumerate(self._held) if at >= self._asked or each[0].epoch == epoch]
        self._held, self._asked = deque(held), 0

    def _held_from(self, head: Position) -> Position:
        """The place from which on nothing is missing: the head of the history, or where what is held begins."""
        first = next((position for position, _ in self._held if position.epoch == head.epoch), head)
        return Position(head.epoch, min(head.offset, max(0, first.offset - 1))) if first is not head else head


def _position(arrival: Arrival) -> Position:
    position = arrival.envelope.position
    assert position is not None
    return position
