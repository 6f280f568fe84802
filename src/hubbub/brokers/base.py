"""The contracts of a broker: `PubSub`, `Log` and `Presence`. A `Broker` fulfills all three.

`hubbub.testing.broker_suite` checks every promise of these contracts that can be observed from outside.
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
"""Maximum size of a request to another worker, and of its answer."""

MAX_REQUESTS: Final = 256
"""Maximum number of requests of one worker that wait for a reply, and of requests that a worker answers at once."""

ONCE_S: Final = 300.0
"""Seconds for which a message that is published once is known."""

MAX_SILENT: Final = 4096
"""Number of empty rooms without messages that keep their position. Bounded, because a client can visit any room."""


class Receiver(ABC):
    """Receives what a broker delivers to a worker. Called on the event loop. It must not block and must not raise."""

    @abstractmethod
    def deliver(self, channel: str, delivery: Delivery) -> None:
        """Receives a delivery.

        Args:
            channel: The channel on which it arrived.
            delivery: A message, an announcement, an instruction, or a change of the channel's numbering.
        """

    @abstractmethod
    async def settled(self) -> None:
        """Waits while too many delivered messages are pending.

        A broker that delivers many messages awaits this regularly. Otherwise clients that do read would look slow.
        """

    async def answer(self, payload: bytes) -> bytes:
        """Answers a request of another worker. Cancelled when that worker stops waiting.

        The default implementation raises NotImplementedError.

        Args:
            payload: The request.

        Returns:
            The answer, of at most `MAX_REQUEST_BYTES`.
        """
        raise NotImplementedError("this worker answers no requests")


class BrokerState(NamedTuple):
    """The state of a broker, as one worker sees it.

    Attributes:
        up: Whether messages travel between this worker and the others, in both directions.
        reconnects: How often a connection was lost and restored.
        local_only: Number of messages that reached only the members on this worker.
        skipped: Number of messages and entries that could not be read, because another release or program wrote them.
    """

    up: bool
    reconnects: int
    local_only: int
    skipped: int = 0


class PubSub(ABC):
    """Carries messages to the workers that subscribe to a channel, instructions to all workers, and requests to one.

    A *channel* is a room's name at the broker.

    *Delivery*: a message reaches each subscribed worker at most once, including the worker that published it. An
    instruction reaches every worker, including a worker that is cut off and reconnects. A worker that has just started
    or reconnected may receive an instruction again, together with all later ones. A request reaches its worker at most
    once.
    *Order*: the messages of a channel arrive in the same order on every worker. In a channel with positions, that is
    the order of the positions.
    *Cancellation*: a cancelled call may or may not have taken effect.
    """

    @abstractmethod
    async def subscribe(self, channel: str) -> Position | None:
        """Subscribes to a channel: everything published after the call returns is delivered. Idempotent.

        Args:
            channel: The channel to subscribe to.

        Returns:
            A position of the channel after which every message is delivered; earlier messages may be delivered too.
            None if the room has no positions.

        Raises:
            BrokerUnavailable: The broker can't be reached.
        """

    @abstractmethod
    async def unsubscribe(self, channel: str) -> None:
        """Unsubscribes from a channel. Idempotent.

        Args:
            channel: The channel to unsubscribe from.
        """

    @abstractmethod
    async def publish(
        self, channel: str, envelope: Envelope, *, keep: bool = True, once: str | None = None
    ) -> Position | None:
        """Publishes a message.

        Args:
            channel: The channel to publish to.
            envelope: The message, without a position.
            keep: Whether to number and keep the message, if the room's options say so. False for a message that
                matters only now, such as a typing indicator.
            once: A key that the publisher repeats when it repeats the message. If any worker has published a message
                with this key on the channel within `ONCE_S`, nothing is published.

        Returns:
            The position of the message, or of the first one with the same ``once``; None if it was not numbered.

        Raises:
            BrokerUnavailable: The message could not be published.
        """

    def publish_nowait(self, channel: str, envelope: Envelope) -> Awaitable[object] | None:
        """Starts to publish a message, for callers that do not await.

        A broker that sends its command within this call keeps all publishes in the order of the calls, awaited or not.
        The default implementation starts only when the result is awaited.

        Args:
            channel: The channel to publish to.
            envelope: The message, without a position.

        Returns:
            None if the message is published. Otherwise an awaitable that finishes the publish, and raises
            BrokerUnavailable if it fails.

        Raises:
            BrokerUnavailable: The publish could not be started.
        """
        return self.publish(channel, envelope)

    @abstractmethod
    async def instruct(self, channel: str, instruction: Instruction) -> None:
        """Sends an instruction to all workers, whether or not they are subscribed to the channel.

        This worker has received the instruction when the call returns or raises. A worker that is cut off receives it
        after it reconnects, with its age, and before anything else. If it was cut off for so long that instructions
        were forgotten, it receives a `Kick` on the channel of everyone instead.

        Args:
            channel: The channel of the user whose connections the instruction affects.
            instruction: What the workers do with those connections.

        Raises:
            BrokerUnavailable: Other workers may not have received the instruction. This worker has.
        """

    @property
    @abstractmethod
    def worker(self) -> str:
        """The unique name of this worker, for `ask`. It may change with each `start`.

        Other workers can `ask` this worker once it has subscribed to a channel.
        """

    @abstractmethod
    async def workers(self) -> list[str]:
        """Lists the workers that can be asked now, in no particular order, this worker among them.

        A worker whose machine has just failed may still be listed.

        Raises:
            BrokerUnavailable: The broker can't be reached.
        """

    @abstractmethod
    async def ask(self, worker: str, payload: bytes, timeout_s: float) -> bytes:
        """Sends a request to a worker, possibly to this one, and waits for its answer (`Receiver.answer`).

        Workers answer requests concurrently, in no particular order. If the caller is cancelled, the worker may still
        answer the request.

        Args:
            worker: The name of the worker.
            payload: The request, of at most `MAX_REQUEST_BYTES`.
            timeout_s: Seconds to wait for the answer.

        Raises:
            InvalidArgument: The request is too large.
            NoSuchWorker: No worker of that name is connected to the broker now.
            BrokerUnavailable: The answer did not arrive in time, the worker failed to answer, or one of the two workers
                already has `MAX_REQUESTS` requests in flight.
        """


class Log(ABC):
    """Keeps the newest messages of channels whose rooms have a history, and the position of every numbered channel.

    `PubSub.publish` and `clear_history` write the log. Reading the log never writes, because clients can ask for any
    room: reading a room that was never published or subscribed to gives it no position, and reading extends no
    lifetime.

    Clients can visit any number of rooms. So a broker may forget the position of a channel that has no messages and no
    subscribers, the least recently used first. It remembers about `MAX_SILENT` such channels.

    *Order*: messages are kept in the order of their positions, without gaps.
    *Cancellation*: safe at any time.
    """

    @abstractmethod
    async def history(self, channel: str, after: Position | None = None, limit: int | None = None) -> Page:
        """Reads the kept messages, oldest first. A channel that this worker subscribes to always has a position.

        Args:
            channel: The channel to read.
            after: Read the messages after this position. If one of them is missing, the page is not whole, and begins
                with the oldest message that is kept. None reads the newest messages.
            limit: Maximum number of messages. None reads all.

        Raises:
            BrokerUnavailable: The broker can't be reached.
        """

    @abstractmethod
    async def clear_history(self, channel: str) -> None:
        """Removes the kept messages of a channel. Its position stays, and later messages continue its numbering.

        Args:
            channel: The channel to clear.

        Raises:
            BrokerUnavailable: The broker can't be reached. The messages may have been removed.
        """

    @abstractmethod
    async def position(self, channel: str) -> Position | None:
        """Returns the current position of a channel. None if the room has no positions, or none yet.

        Args:
            channel: The channel to look up.

        Raises:
            BrokerUnavailable: The broker can't be reached.
        """


class Presence(ABC):
    """Tracks which users and connections are in which rooms, based on the connections that the workers report.

    A user is present from the first `enter` until the `exit` of their last connection. If the room's options say
    ``announce``, the start and the end are delivered to its subscribers, each as an `Announcement`. An anonymous
    connection, whose user is None, is present and announced by itself. It appears only in `connections`: it does not
    count as a user, and has no grace period.

    *Delivery*: the start and the end of a presence are each announced at most once to each subscribed worker.
    *Order*: announcements arrive in the order in which presences started and ended. Each carries the number of users at
    that moment, or of anonymous connections if it tells of one.
    *Cancellation*: a cancelled `enter` may or may not have taken effect, so the caller calls `exit`. A cancelled `exit`
    takes effect, now or later.
    """

    @abstractmethod
    async def enter(
        self, channel: str, user: str | None, connection_id: str, info: Info, room_info: Info = None
    ) -> None:
        """Adds a connection to a room. The caller must call `exit` later, even if this call fails.

        Args:
            channel: The channel of the room.
            user: The user of the connection; None for an anonymous one.
            connection_id: The id of the connection.
            info: The app's data about the user: a value that JSON can represent.
            room_info: The app's data about this connection in this room: a value that JSON can represent.

        Raises:
            BrokerUnavailable: The broker did not confirm the connection.
        """

    @abstractmethod
    def presence_id(self, channel: str, user: str | None, connection_id: str) -> str:
        """Returns the id under which joins, leaves and `connections` know a connection of this worker.

        It is `PresentConnection.presence_id`. If the broker lost data and was told again who is present, it may differ
        from that until the connection enters again.

        Args:
            channel: The channel of the room.
            user: The user of the connection; None for an anonymous one.
            connection_id: The id of a connection for which `enter` returned. Its own id is returned for any other.
        """

    @abstractmethod
    async def linger(self, channel: str, user: str, connection_id: str, grace_s: float) -> None:
        """Marks a connection as lost. Its user stays present until the caller calls `exit` after the grace period.

        If the broker is closed before that, the presence ends by itself after the grace period.

        Args:
            channel: The channel of the room.
            user: The user's id.
            connection_id: The id of a connection that has entered.
            grace_s: The grace period in seconds.
        """

    @abstractmethod
    async def exit(self, channel: str, user: str | None, connection_id: str) -> None:
        """Removes a connection from a room for good. Idempotent.

        While the broker is unavailable, the removal is postponed until it is available again.

        Args:
            channel: The channel of the room.
            user: The user of the connection; None for an anonymous one.
            connection_id: The id of a connection for which `enter` was called.
        """

    @abstractmethod
    async def members(self, channel: str) -> list[Member]:
        """Lists the users in a room, over all workers. Each ``info`` is a new copy.

        Args:
            channel: The channel of the room.

        Raises:
            BrokerUnavailable: The broker can't be reached.
        """

    @abstractmethod
    async def connections(self, channel: str) -> list[PresentConnection]:
        """Lists the connections in a room, over all workers: those of users, including the grace period, and anonymous.

        Each ``info`` and ``room_info`` is a new copy.

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
        """Returns whether a user has a live connection in a room, on any worker that is alive.

        A connection in its grace period is not live.

        Args:
            channel: The channel of the room.
            user: The user's id.

        Raises:
            BrokerUnavailable: The broker can't be reached.
        """

    @abstractmethod
    async def present(self, channel: str, user: str) -> bool:
        """Returns whether a user is in a room on any worker, either connected or in the grace period.

        Args:
            channel: The channel of the room.
            user: The user's id.

        Raises:
            BrokerUnavailable: The broker can't be reached.
        """


class Broker(PubSub, Log, Presence):
    """Connects the workers of an app: distributes messages, keeps history, and tracks presence.

    The manager encodes and frames messages, counts local members, and writes to sockets. The broker numbers, keeps and
    distributes messages, under the contracts `PubSub`, `Log` and `Presence`.
    """

    name: str
    """The broker's name in log lines and errors: the scheme of its URL."""

    distributed: bool
    """Whether the broker connects several processes."""

    @abstractmethod
    async def start(self, receiver: Receiver, rooms: RoomTable) -> None:
        """Starts the broker. Called once, before anything else, on the event loop of all later calls.

        After `close`, the broker can be started again. If its server can't be reached, `start` succeeds, and the broker
        keeps trying to connect.

        Args:
            receiver: Receives the deliveries.
            rooms: The options of the rooms, by the names of their channels.

        Raises:
            BrokerUnavailable: The server denies access or can't serve workers, and retrying can't change that.
        """

    @abstractmethod
    async def close(self) -> None:
        """Stops the broker. Nothing is delivered afterwards."""

    @property
    @abstractmethod
    def state(self) -> BrokerState:
        """The state of the broker, from what this worker knows without asking."""

    @abstractmethod
    async def healthy(self) -> bool:
        """Asks the broker whether it works, and returns True if it does."""
