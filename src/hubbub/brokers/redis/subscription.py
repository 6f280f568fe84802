"""One room's channel on one worker: what comes is put in order. Pure.

Theory of operation. Messages of a room without positions are delivered as they come. Those of a room with positions are
numbered, so that it shows when something is not right:

* The next number: it is delivered.
* A number further on: something was missed, and is to be read from the room's history (*behind*).
* A number that was delivered: while the worker catches up, history and channel overlap, and it is dropped. Otherwise
  the server has gone back, as one does that took over without the newest (*gone back*): the numbering is renewed. So it
  is where the history has another message than the one that was delivered under the last number.
* Another epoch: the room was begun anew, and what is between is lost: a `Reset`, and it is delivered.

While it is behind, what comes is held, up to a bound; what is dropped then is in the history too, or shows as a gap.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Literal, NamedTuple

from ...envelope import Reset
from ...positions import Position
from ..base import Delivery
from .channel import Arrival, Stamp

HELD: Final = 1024

Verdict = Literal["delivered", "behind", "gone back"]


class Read(NamedTuple):
    """What was read of a room's history after a position.

    Attributes:
        head: The room's position.
        whole: Whether nothing is missing between.
        same: Whether the message at that position is the one that was delivered, as far as it is kept.
        arrivals: The messages, oldest first.
    """

    head: Position
    whole: bool
    same: bool
    arrivals: list[Arrival]


class Subscription:
    """What one worker knows of a channel.

    Attributes:
        last: The position up to which everything was delivered; None in a room without positions, or before the first.
        stamp: That of the message that was delivered there; None where it is not known.
        catching_up: Whether the history is being read.
        overlap: The canary after which nothing comes any more that the history has brought.
    """

    __slots__ = ("_held", "catching_up", "confirmed", "last", "overlap", "renumbering", "stamp")

    def __init__(self) -> None:
        self.last: Position | None = None
        self.stamp: Stamp | None = None
        self.catching_up = False
        self.renumbering = False
        self.overlap = 0
        self.confirmed = False
        self._held: deque[Arrival] = deque(maxlen=HELD)

    def start_at(self, position: Position) -> None:
        """The channel's position when it was subscribed. What came before it was known goes on by itself."""
        if self.last is None or self.last.epoch != position.epoch:
            self.last, self.stamp = position, None

    def take(self, arrival: Arrival, canary: int) -> tuple[list[Delivery], Verdict]:
        """Takes a numbered message.

        Args:
            arrival: The message.
            canary: The last canary that came.

        Returns:
            What to deliver, and whether all is well.
        """
        envelope, last = arrival.envelope, self.last
        position = envelope.position
        assert position is not None
        if self.catching_up:
            self._held.append(arrival)
            return [], "delivered"
        if last is None or position == (last.epoch, last.offset + 1):
            self.last, self.stamp = position, arrival.stamp
            return [envelope], "delivered"
        if position.epoch != last.epoch:
            self.last, self.stamp = position, arrival.stamp
            self.renumbering = False
            return [Reset(Position(position.epoch, position.offset - 1)), envelope], "delivered"
        if position.offset > last.offset:
            self._held.append(arrival)
            return [], "behind"
        if self.renumbering or canary < self.overlap:
            return [], "delivered"
        return [], "gone back"

    def reset(self, position: Position) -> list[Delivery]:
        """The room's numbering begins anew."""
        if self.last == position:
            return []
        self.last, self.stamp = position, None
        self.renumbering = False
        # What is held of another epoch came before it ended.
        self._held = deque((each for each in self._held if _epoch(each) == position.epoch), maxlen=HELD)
        return [Reset(position)]

    def catch_up(self, read: Read) -> tuple[list[Delivery], Verdict]:
        """Takes what was read of the history after `last`.

        Returns:
            What to deliver; "behind" where there is more, "gone back" where the server lost what was delivered.
        """
        head, last = read.head, self.last
        if last is not None and head.epoch == last.epoch and (head.offset < last.offset or not read.same):
            return [], "gone back"
        if not read.whole:
            return self.reset(head), "delivered"
        if read.arrivals:
            newest = read.arrivals[-1]
            self.last, self.stamp = newest.envelope.position, newest.stamp
        deliveries: list[Delivery] = [arrival.envelope for arrival in read.arrivals]
        return deliveries, "delivered" if self.last == head or not read.arrivals else "behind"

    def caught_up(self, overlap: int) -> tuple[list[Delivery], Verdict]:
        """Nothing more is in the history: goes on with what was held."""
        self.catching_up = False
        self.overlap = overlap
        held, self._held = self._held, deque(maxlen=HELD)
        deliveries: list[Delivery] = []
        verdict: Verdict = "delivered"
        while held:
            more, verdict = self.take(held.popleft(), overlap - 1)
            deliveries += more
            if verdict != "delivered":
                self._held.extend(held)
                break
        return deliveries, verdict


def _epoch(arrival: Arrival) -> str | None:
    position = arrival.envelope.position
    return None if position is None else position.epoch
