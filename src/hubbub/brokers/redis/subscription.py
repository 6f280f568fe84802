"""Puts the messages of one room's channel in order, on one worker. Pure.

Theory of operation. Messages of a room without positions are delivered as they arrive. Messages of a room with
positions are numbered, and the number decides:

* The next number of the same epoch: the message is delivered.
* A later number, or another epoch: messages were missed, or the server is another one. The worker reads the room's
  history (*behind*), which shows whether the delivered messages are part of what the server has.
* A number that was already delivered: while the worker catches up, history and channel overlap, so the message is
  dropped. Otherwise the server has lost messages without a new epoch, for example because an operator replaced its
  data (*gone back*). The worker begins a new epoch. It does the same if the history has a different message under the
  last delivered number.

This module never compares positions of different epochs. Only the server can, because it knows where each epoch ended
(``common.lua``). So reading the history has one of three outcomes. If the history contains the delivered messages and
nothing is missing, the later messages are delivered, after a `Relabel` if the epoch is new. If something is missing,
members receive a `Reset`. If the server has lost delivered messages, it has gone back.

While the worker is behind, it holds arriving messages, up to a bound. A message dropped at the bound is in the history
too, or shows as a gap. A message that was held before the history was requested, and whose epoch differs from that of
the history, belongs to an epoch that has ended.

A message delivered in an epoch that has ended may be published again, because its answer was lost with the data. Its
sequence number identifies it, and a `Reset` is delivered instead: the position is new, but the message is not.
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
    """The part of a room's history after a position.

    Attributes:
        head: The position of the room's newest message.
        known: Whether the position is part of the room's numbering: it belongs to the current epoch, or to a former
            one and is not past its end.
        whole: Whether the position is known, and no message after it is missing.
        same: Whether the message at that position, if it is kept, is the one that was delivered.
        arrivals: The messages, oldest first.
    """

    head: Position
    known: bool
    whole: bool
    same: bool
    arrivals: list[Arrival]


class Subscription:
    """The state of one channel on one worker.

    Attributes:
        last: The position up to which everything was delivered; None in a room without positions, or before the first.
        stamp: The stamp of the message delivered at that position; None if it is unknown.
        catching_up: Whether the history is being read.
        renumbering: Whether a new epoch was requested, because the server has gone back.
        overlap: The number of a canary. Until it arrives, the channel may repeat messages that the history brought.
        confirmed: Whether the server has confirmed the subscription.
        doubted: Whether messages may have been missed since the history was last requested.
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
        self._asked = 0  # how many of the held messages arrived before the history was requested
        self._seen: dict[bytes, int] = {}  # the last delivered sequence number of each sender

    def start_at(self, position: Position) -> Verdict:
        """Sets the position at which the channel was subscribed, unless messages have arrived before it was known."""
        if self.last is None:
            self.last, self.stamp = position, None
        return "behind" if self.doubted or self.last.epoch != position.epoch else "delivered"

    def take(self, arrival: Arrival, canary: int) -> tuple[list[Delivery], Verdict]:
        """Receives a numbered message.

        Args:
            arrival: The message.
            canary: The number of the last canary that arrived.

        Returns:
            What to deliver, and the verdict.
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
        """Records that the history is being requested: the messages held now arrived before the answer."""
        self._asked = len(self._held)
        self.doubted = False

    def catch_up(self, read: Read) -> tuple[list[Delivery], Verdict]:
        """Receives the part of the history after `last`.

        Returns:
            What to deliver, and the verdict: "behind" if there is more to read, "gone back" if the server has lost
            delivered messages.
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
        """Continues with the held messages, after the history was read to its end."""
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
        """Moves to a position that does not follow the delivered messages. Returns the `Reset` to deliver, if any."""
        if self.last == position:
            return []
        self.last, self.stamp = position, None
        self.renumbering = False
        return [Reset(position)]

    def _relabel(self, epoch: str) -> list[Delivery]:
        """Moves to the same offset in another epoch. Returns the `Relabel` to deliver, if any."""
        if self.last is None or self.last.epoch == epoch:
            return []
        self.last = Position(epoch, self.last.offset)
        self.renumbering = False
        return [Relabel(self.last)]

    def _deliver(self, arrival: Arrival) -> list[Delivery]:
        """Delivers the next message. A repetition, possible only in a new epoch, becomes a `Reset`."""
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
        """Drops held messages of epochs that have ended: held before the history was requested, of another epoch."""
        held = [each for at, each in enumerate(self._held) if at >= self._asked or each[0].epoch == epoch]
        self._held, self._asked = deque(held), 0

    def _held_from(self, head: Position) -> Position:
        """Returns the position after which nothing is missing: before the held messages, or else the history's head."""
        first = next((position for position, _ in self._held if position.epoch == head.epoch), head)
        return Position(head.epoch, min(head.offset, max(0, first.offset - 1))) if first is not head else head


def _position(arrival: Arrival) -> Position:
    position = arrival.envelope.position
    assert position is not None
    return position
