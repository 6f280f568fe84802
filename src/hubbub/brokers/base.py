"""What a broker is: the contract that every one keeps, and that `hubbub.testing.broker_suite` checks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import NamedTuple, TypeAlias

from ..envelope import Envelope, Kick, Page, Relabel, Reset
from ..options import RoomTable
from ..positions import Position
from ..presence import Info, Member

Delivery: TypeAlias = Envelope | Kick | Relabel | Reset


class Receiver(ABC):
    """What a worker does with what its broker brings. Called on the event loop; must not block, and never raises."""

    @abstractmethod
    def deliver(self, channel: str, delivery: Delivery) -> None:
        """Takes what comes in on a channel."""

    @abstractmethod
    async def settled(self) -> None:
        """Waits until what was delivered is on its way.

        For a broker to await now and then while it delivers much, so that clients that read are not taken for slow.
        """


class BrokerState(NamedTuple):
    """How a broker is.

    Attributes:
        up: Whether what is published gets to other workers, and what they publish gets here.
        reconnects: How often a connection was lost and made again.
        local_only: Messages that went to this worker's members only.
        skipped: Messages and entries that could not be read, because another release or program wrote them.
    """

    up: bool
    reconnects: int
    local_only: int
    skipped: int = 0


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
    async def start(self, receiver: Receiver, rooms: RoomTable) -> None:
        """Begins. Called once before anything else, on the loop that all other calls come from; again after `close`.

        A broker that can't be reached is no reason to fail: it is tried again.

        Args:
            receiver: Who gets what comes in.
            rooms: The options of the rooms, by the names of their channels.

        Raises:
            BrokerUnavailable: The broker denies access, or can't serve: which trying again does not change.
        """

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

        Raises:
            BrokerUnavailable: The broker can't be reached.
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

    def publish_nowait(self, channel: str, envelope: Envelope) -> Awaitable[object] | None:
        """Begins to publish a message, for callers that do not await.

        A broker that sends a command in the call keeps the order of all calls, awaited or not. This default begins when
        the result is awaited.

        Args:
            channel: The channel to publish to.
            envelope: The message, without a position.

        Returns:
            None if the message is published. Otherwise an awaitable that finishes the publish, and raises
            BrokerUnavailable if it fails.

        Raises:
            BrokerUnavailable: It can't even begin.
        """
        return self.publish(channel, envelope)

    @abstractmethod
    async def order(self, channel: str, kick: Kick) -> None:
        """Gives an order to all workers: those that have the user's connections, or its graces, obey.

        A worker that is cut off gets it when it is back, with its age, and before it gets anything else. One that was
        cut off for so long that orders are forgotten gets one on the channel of everyone instead.

        Raises:
            BrokerUnavailable: It could not be given; this worker has got it.
        """

    @abstractmethod
    async def history(self, channel: str, after: Position | None = None, limit: int | None = None) -> Page:
        """Reads what is kept after a position, oldest first; without one, the newest ``limit`` messages.

        Anybody may ask for any room, so this writes nothing: a room that was never published to or subscribed to has no
        position afterwards either, and nothing is kept longer for being read. A channel that is subscribed here always
        has a position.
        """

    @abstractmethod
    async def position(self, channel: str) -> Position | None:
        """Gives a channel's position now; None where the room has none (yet). As `history`, it writes nothing."""

    @abstractmethod
    async def enter(self, channel: str, user: str, connection_id: str, info: Info) -> None:
        """A connection of a user comes into a room. Whatever comes of it, the caller calls `exit` in the end.

        Where the room's options say so, the room is told of a user's first connection, and by `exit` of the last one to
        go: in the order in which it was so.

        Raises:
            BrokerUnavailable: It could not be told.
        """

    @abstractmethod
    async def linger(self, channel: str, user: str, connection_id: str, grace_s: float) -> None:
        """A connection was lost; its user stays present until `exit`, which the caller calls after the grace.

        Where the caller closes the broker before that, and so can't, the broker sees to it.
        """

    @abstractmethod
    async def exit(self, channel: str, user: str, connection_id: str) -> None:
        """A connection leaves a room for good. Idempotent. Where it can't be told now, the broker goes on trying."""

    @abstractmethod
    async def members(self, channel: str) -> list[Member]:
        """The users in a room, over all workers. Each ``info`` is a new copy of what its JSON says."""

    @abstractmethod
    async def count(self, channel: str) -> int:
        """Distinct users in a room, over all workers."""

    @abstractmethod
    async def connected(self, channel: str, user: str) -> bool:
        """Whether a user has a live connection in a room, on any worker that is not taken for dead.

        A connection in its grace is not live.
        """

    @abstractmethod
    async def present(self, channel: str, user: str) -> bool:
        """Whether a user is in a room, connected or in grace, on any worker."""

    @property
    @abstractmethod
    def state(self) -> BrokerState:
        """How it is, without asking."""

    @abstractmethod
    async def healthy(self) -> bool:
        """Whether the broker answers."""
