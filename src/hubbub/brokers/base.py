"""The contracts of a broker: `PubSub`, `Log` and `Presence`. A `Broker` fulfills all three.

`hubbub.testing.broker_suite` checks everything that is said here and can be seen from outside.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import Final, NamedTuple, TypeAlias

from ..envelope import Announcement, Envelope, Instruction, Page, Relabel, Reset
from ..options import RoomTable
from ..positions import Position
from ..presence import Info, Member, PresentConnection

Delivery: TypeAlias = Envelope | Announcement | Instruction | Relabel | Reset

MAX_REQUEST_BYTES: Final = 64 * 1024
"""How large a request to another worker, and its answer, may be."""

MAX_REQUESTS: Final = 256
"""How many requests of one worker may wait for a reply, and how many a worker answers at once."""

MAX_SILENT: Final = 4096
"""How many empty rooms, in which nothing was said, keep their position. A client can visit any number of rooms."""


class Receiver(ABC):
    """Takes what a broker delivers to a worker. Called on the event loop; must not block, and never raises."""

    @abstractmethod
    def deliver(self, channel: str, delivery: Delivery) -> None:
        """Takes what comes in on a channel."""

    @abstractmethod
    async def settled(self) -> None:
        """Waits until what was delivered is on its way.

        A broker that delivers much awaits this now and then, so that clients that read are not taken for slow.
        """

    async def answer(self, payload: bytes) -> bytes:
        """Answers a request of another worker. Cancelled when that worker does not wait any more.

        By default, this worker answers nothing.

        Args:
            payload: The request.

        Returns:
            The answer, of at most `MAX_REQUEST_BYTES`.
        """
        raise NotImplementedError("this worker answers no requests")


class BrokerState(NamedTuple):
    """The state of a broker.

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


class PubSub(ABC):
    """Brings messages to the workers that subscribe to their channel, instructions to all workers, requests to one.

    A *channel* is a room's name at the broker.

    *Delivery*: a message reaches each subscribed worker at most once, the publishing one included. An instruction
    reaches every worker, including one that is cut off and comes back. A worker that has just started or come back may
    get some again, with all that follow them. A request reaches the worker at most once.
    *Order*: the messages of a channel arrive in the same order on every worker. In a channel with positions, it is the
    order of the positions.
    *Cancellation*: a cancelled call may or may not have taken effect.
    """

    @abstractmethod
    async def subscribe(self, channel: str) -> Position | None:
        """Begins to deliver a channel: everything that is published after the call returns. Idempotent.

        Args:
            channel: The channel to deliver.

        Returns:
            The channel's position, such that every later message is delivered (an earlier one may be too); None if the
            room has no positions.

        Raises:
            BrokerUnavailable: The broker can't be reached.
        """

    @abstractmethod
    async def unsubscribe(self, channel: str) -> None:
        """Ends the delivery of a channel. Idempotent.

        Args:
            channel: The channel that is delivered.
        """

    @abstractmethod
    async def publish(self, channel: str, envelope: Envelope, *, keep: bool = True) -> Position | None:
        """Publishes a message.

        Args:
            channel: The channel to publish to.
            envelope: The message, without a position.
            keep: Number the message and keep it, as the room's options say. False for what matters only now.

        Returns:
            The position of the message, where it was numbered.

        Raises:
            BrokerUnavailable: The message could not be published.
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
            BrokerUnavailable: The publish could not even begin.
        """
        return self.publish(channel, envelope)

    @abstractmethod
    async def instruct(self, channel: str, instruction: Instruction) -> None:
        """Gives an instruction to all workers, subscribed to the channel or not.

        A worker that is cut off gets the instruction when it is back, with its age, and before it gets anything else.
        If it was cut off for so long that instructions are forgotten, it gets a `Kick` on the channel of everyone
        instead.

        Args:
            channel: The channel of the user whose connections the instruction is for.
            instruction: What the workers do with those connections.

        Raises:
            BrokerUnavailable: Other workers may not have got the instruction. This worker has.
        """

    @property
    @abstractmethod
    def worker(self) -> str:
        """The name of this worker, by which others can `ask` it once it has subscribed to a channel.

        No other worker has it. It may change with `start`.
        """

    @abstractmethod
    async def ask(self, worker: str, payload: bytes, timeout_s: float) -> bytes:
        """Asks a worker, which may be this one, and waits for its answer (`Receiver.answer`).

        Requests are answered concurrently, in no order. If the caller is cancelled, the request may still be answered.

        Args:
            worker: The name of the worker.
            payload: The request, of at most `MAX_REQUEST_BYTES`.
            timeout_s: How many seconds to wait for the answer.

        Raises:
            InvalidArgument: The request is too large.
            NoSuchWorker: No worker of that name is connected to the broker now.
            BrokerUnavailable: The answer did not come in time, the worker failed to answer, or it, or this one, has
                `MAX_REQUESTS` under way.
        """


class Log(ABC):
    """Keeps the newest messages of channels whose rooms have a history, and the position of every numbered channel.

    `PubSub.publish` writes the log; reading it writes nothing. Anybody may ask for any room, so a room that was never
    published or subscribed to has no position afterwards either, and nothing is kept longer for being read.

    Clients can visit any number of rooms, so a broker may forget the position of a channel that has no message and is
    subscribed nowhere, the one that was used longest ago first. It remembers about `MAX_SILENT`.

    *Order*: messages are kept in the order of their positions, without holes.
    *Cancellation*: safe at any time.
    """

    @abstractmethod
    async def history(self, channel: str, after: Position | None = None, limit: int | None = None) -> Page:
        """Reads the kept messages, oldest first. A channel that is subscribed here always has a position.

        Args:
            channel: The channel to read.
            after: Read what follows this position; without one, read the newest messages.
            limit: Read at most this many messages. None reads all.

        Raises:
            BrokerUnavailable: The broker can't be reached.
        """

    @abstractmethod
    async def position(self, channel: str) -> Position | None:
        """Returns the current position of a channel, or None if the room has none, or none yet.

        Args:
            channel: The channel to look up.

        Raises:
            BrokerUnavailable: The broker can't be reached.
        """


class Presence(ABC):
    """Knows which users and connections are in which rooms, by the connections that the workers report.

    A user is present from the first `enter` to the `exit` of the last connection. If the room's options say
    ``announce``, both are delivered to its subscribers, as an `Announcement`. Anonymous connections, whose user is
    None, are only listed by `connections`: they never count as users, have no grace, and are never announced.

    *Delivery*: each begin and end of a presence is announced at most once to each subscribed worker.
    *Order*: announcements arrive in the order in which presences began and ended, and carry the count of that moment.
    *Cancellation*: a cancelled `enter` may or may not have taken effect, and the caller calls `exit`. A cancelled
    `exit` takes effect, now or later.
    """

    @abstractmethod
    async def enter(
        self, channel: str, user: str | None, connection_id: str, info: Info, room_info: Info = None
    ) -> None:
        """Adds a connection to a room. Whatever the outcome, the caller calls `exit` in the end.

        Args:
            channel: The channel of the room.
            user: The user of the connection; None for an anonymous one.
            connection_id: The id of the connection.
            info: What the app says of the user, as JSON can express it.
            room_info: What the app says of this connection in this room, likewise.

        Raises:
            BrokerUnavailable: The broker could not be told.
        """

    @abstractmethod
    async def linger(self, channel: str, user: str, connection_id: str, grace_s: float) -> None:
        """Marks a connection as lost. Its user stays present until `exit`, which follows after the grace period.

        If the caller closes the broker before that, the broker ends the presence after the grace period.

        Args:
            channel: The channel of the room.
            user: The user's id.
            connection_id: The id of a connection that has entered.
            grace_s: The grace period in seconds.
        """

    @abstractmethod
    async def exit(self, channel: str, user: str | None, connection_id: str) -> None:
        """Removes a connection from a room for good. Idempotent.

        If the broker is unavailable, it is told when it is back.

        Args:
            channel: The channel of the room.
            user: The user of the connection; None for an anonymous one.
            connection_id: The id of a connection for which `enter` was called.
        """

    @abstractmethod
    async def members(self, channel: str) -> list[Member]:
        """Lists the users in a room, over all workers. Each ``info`` is a new copy of the value of its JSON.

        Args:
            channel: The channel of the room.

        Raises:
            BrokerUnavailable: The broker can't be reached.
        """

    @abstractmethod
    async def connections(self, channel: str) -> list[PresentConnection]:
        """Lists the connections in a room, over all workers: those of users, in grace too, and anonymous ones.

        Each ``info`` and ``room_info`` is a new copy of the value of its JSON.

        Args:
            channel: The channel of the room.

        Raises:
            BrokerUnavailable: The broker can't be reached.
        """

    @abstractmethod
    async def count(self, channel: str) -> int:
        """Counts the distinct users in a room, over all workers.

        Args:
            channel: The channel of the room.

        Raises:
            BrokerUnavailable: The broker can't be reached.
        """

    @abstractmethod
    async def connected(self, channel: str, user: str) -> bool:
        """Returns whether a user has a live connection in a room, on any worker that is not considered dead.

        A connection in its grace period is not live.

        Args:
            channel: The channel of the room.
            user: The user's id.

        Raises:
            BrokerUnavailable: The broker can't be reached.
        """

    @abstractmethod
    async def present(self, channel: str, user: str) -> bool:
        """Returns whether a user is in a room, connected or in the grace period, on any worker.

        Args:
            channel: The channel of the room.
            user: The user's id.

        Raises:
            BrokerUnavailable: The broker can't be reached.
        """


class Broker(PubSub, Log, Presence):
    """Connects the workers of an app: brings messages to them, keeps history, and knows who is present.

    The manager encodes and frames messages, counts local members, and writes to sockets. The broker numbers, keeps and
    distributes. The contracts `PubSub`, `Log` and `Presence` say how.
    """

    name: str
    """For messages: the scheme."""

    distributed: bool
    """Whether other processes are reached."""

    @abstractmethod
    async def start(self, receiver: Receiver, rooms: RoomTable) -> None:
        """Starts the broker. Called once before anything else, on the loop of all other calls; again after `close`.

        A broker that can't be reached is no reason to fail: it keeps trying.

        Args:
            receiver: Takes what comes in.
            rooms: The options of the rooms, by the names of their channels.

        Raises:
            BrokerUnavailable: The broker denies access, or can't serve, and trying again does not change that.
        """

    @abstractmethod
    async def close(self) -> None:
        """Stops the broker: nothing is delivered afterwards."""

    @property
    @abstractmethod
    def state(self) -> BrokerState:
        """The state of the broker, as this worker knows it without asking."""

    @abstractmethod
    async def healthy(self) -> bool:
        """Asks the broker whether it works."""
