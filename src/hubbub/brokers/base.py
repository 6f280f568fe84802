"""What a broker is: the contract that every one keeps, and that `hubbub.testing.broker_suite` checks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

from ..envelope import Envelope, Kick, Page
from ..options import RoomOptions
from ..positions import Position
from ..presence import Change, Info, Member

Delivery: TypeAlias = Envelope | Kick
Deliver: TypeAlias = Callable[[str, Delivery], None]
"""Takes what comes in on a channel. Called on the event loop, must not block, never raises."""

OptionsOf: TypeAlias = Callable[[str], RoomOptions]
"""Gives the options of the room that a channel belongs to."""


class Broker(ABC):
    """Gets messages from publishers to the workers that have members, and keeps what outlives a worker.

    A *channel* is a room's name at the broker. The manager encodes and frames, counts local members, and speaks to
    sockets; the broker numbers, keeps and distributes.

    *Delivery*: at most once to each subscribed worker, the publishing one included.
    *Order*: per channel the same on every worker, that of the positions where there are any.
    *Cancellation*: a cancelled call may or may not have taken effect.
    """

    name: str
    """For messages: the scheme."""

    distributed: bool
    """Whether other processes are reached."""

    @abstractmethod
    async def start(self, deliver: Deliver, options_of: OptionsOf) -> None:
        """Begins. Called once before anything else, on the loop that all other calls come from; again after `close`."""

    @abstractmethod
    async def close(self) -> None:
        """Ends: nothing is delivered afterwards."""

    @abstractmethod
    async def subscribe(self, channel: str) -> Position | None:
        """Begins to deliver a channel.

        Everything that is published after this returns is delivered. Idempotent.

        Returns:
            The channel's position, such that every later message is delivered (an earlier one may be too); None where
            the room has no positions.
        """

    @abstractmethod
    async def unsubscribe(self, channel: str) -> None:
        """Ends the delivery of a channel. Idempotent."""

    @abstractmethod
    async def publish(self, channel: str, envelope: Envelope, *, keep: bool = True) -> Position | None:
        """Publishes a message.

        Args:
            channel: Where to.
            envelope: The message, without a position.
            keep: Number it, and keep it as the room's options say; False for what is only news now.

        Returns:
            Its position, where it was numbered.

        Raises:
            BrokerUnavailable: It could not be published.
        """

    @abstractmethod
    async def order(self, channel: str, kick: Kick) -> None:
        """Gives an order to all workers that are subscribed to a channel."""

    @abstractmethod
    async def history(self, channel: str, after: Position | None = None, limit: int | None = None) -> Page:
        """Reads what is kept after a position, oldest first; without one, the newest ``limit`` messages."""

    @abstractmethod
    async def position(self, channel: str) -> Position | None:
        """A channel's position now; None where the room has none."""

    @abstractmethod
    async def enter(self, channel: str, user: str, connection_id: str, info: Info) -> Change:
        """A connection of a user comes into a room."""

    @abstractmethod
    async def linger(self, channel: str, user: str, connection_id: str) -> None:
        """A connection was lost; its user stays present until `exit`, which the caller calls after the grace."""

    @abstractmethod
    async def exit(self, channel: str, user: str, connection_id: str) -> Change:
        """A connection leaves a room for good. Idempotent."""

    @abstractmethod
    async def members(self, channel: str) -> list[Member]:
        """The users in a room, over all workers."""

    @abstractmethod
    async def count(self, channel: str) -> int:
        """Distinct users in a room, over all workers."""

    @abstractmethod
    async def connected(self, channel: str) -> bool:
        """Whether any worker has a member in a room right now."""

    @abstractmethod
    async def present(self, channel: str, user: str) -> bool:
        """Whether a user is in a room, connected or in grace, on any worker."""

    @abstractmethod
    async def healthy(self) -> bool:
        """Whether the broker answers."""
