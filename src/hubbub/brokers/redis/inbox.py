"""Receives messages from Redis for one worker: subscribes to channels, and dispatches what arrives on them.

Theory of operation. One connection is subscribed to the channels of the rooms that have members here, to the channel of
this worker, and to the channel of all workers. Messages are put in order (`subscription`) and handed to the fan-out at
once, so that messages that arrive together are written together.

After a reconnect, the worker first reads the instructions that it missed (`instructions`). Then it subscribes to all
rooms again. Rooms with positions catch up from their last position. For the other rooms, a warning says how long there
was no subscription.

A subscription can stop working without an error. So the worker regularly sends itself a message, the *canary*, and
reconnects if it does not arrive. The canaries' numbers also bound the overlap of history and channel: once a canary has
arrived that was sent after the history was read, the channel brings no more messages that the history already brought.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from ...envelope import Reply, Reset
from ...errors import BrokerUnavailable, counted, shown
from ...options import RoomTable
from ...positions import Position
from ...tasks import Tasks
from ..base import Delivery, Receiver
from ..requests import Requests
from .channel import (
    Announced,
    Arrival,
    Canary,
    Instructed,
    Keys,
    Replied,
    Request,
    RollCall,
    Stamp,
    pack_canary,
    pack_reply,
    unpack,
)
from .foreign import Foreign
from .instructions import Instructions
from .link import Link, Pool
from .logs import Logs
from .subscription import Subscription

logger: Final = logging.getLogger("hubbub")

_CHANNELS_AT_ONCE: Final = 500
_MAX_SENDERS: Final = 4096
_RETRY_S: Final = 1.0


class Inbox:
    """The subscriptions of one worker.

    Args:
        link: The connection over which the worker publishes. Canaries are sent over it.
        pool: Makes the connection for subscriptions.
        timeout_s: Seconds that a subscribe may take.
        keys: The names of the channels.
        worker: The channel of this worker.
        rooms: The options of the rooms.
        logs: Reads the messages that were missed.
        foreign: Counts messages that can't be read.
        receiver: Receives the deliveries.
        tasks: Owns the background tasks.
        instructions: Receives the instructions to all workers.
        requests: Answers the requests of other workers, and receives replies.
        roll_call: Checks whether Redis still knows this worker.
    """

    def __init__(
        self,
        link: Link,
        pool: Pool,
        timeout_s: float,
        *,
        keys: Keys,
        worker: str,
        rooms: RoomTable,
        logs: Logs,
        foreign: Foreign,
        receiver: Receiver,
        tasks: Tasks,
        instructions: Instructions,
        requests: Requests,
        roll_call: Callable[[], None],
    ) -> None:
        self._commands = link
        self._link = Link(pool, timeout_s, self._up_again, self._pushed, receiver.settled)
        self._timeout_s = timeout_s
        self._keys = keys
        self._own_channel = worker
        self._rooms = rooms
        self._logs = logs
        self._foreign = foreign
        self._receiver = receiver
        self._tasks = tasks
        self._instructions = instructions
        self._requests = requests
        self._roll_call = roll_call
        self._own_subscribed = asyncio.Event()
        self._listening = False  # whether this connection subscribes to rooms already, after the instructions
        self._returning: asyncio.Task[None] | None = None
        self._subscriptions: dict[str, Subscription] = {}
        self._asked: dict[str, deque[Subscription]] = {}  # subscriptions to be confirmed, in order
        self._waiting: dict[Subscription, asyncio.Future[None]] = {}
        self._seen: dict[bytes, int] = {}  # the last sequence number of each sender
        self._canary_sent = self._canary_seen = 0
        self._heard_at = asyncio.get_running_loop().time()

    async def start(self) -> None:
        """Starts to connect, and waits for the first connection for a limited time. Then keeps trying.

        Raises:
            BrokerUnavailable: The server denies access.
        """
        await self._link.start()

    async def close(self) -> None:
        """Closes the connection. Calls that wait for a subscription fail."""
        await self._link.close()
        for waiting in self._waiting.values():
            waiting.cancel()
        self._waiting.clear()
        self._subscriptions.clear()
        self._returning = None

    @property
    def up(self) -> bool:
        """Whether the connection for subscriptions is up."""
        return self._link.up

    @property
    def reconnects(self) -> int:
        """The number of times that the connection was restored."""
        return max(0, self._link.reconnects)

    async def can_hear_replies(self) -> None:
        """Waits until the channel of this worker is subscribed. A reply that arrived earlier would be lost."""
        if not self._link.up:
            self._own_subscribed.clear()
        await self._own_subscribed.wait()

    async def subscribe(self, room: str) -> Position | None:
        """Subscribes to a room. Returns its position; None if the room has no positions.

        Raises:
            BrokerUnavailable: The server did not confirm the subscription in time. The room is not subscribed.
        """
        subscription = self._subscriptions.get(room)
        if subscription is None:
            subscription = self._subscriptions[room] = Subscription()
            if self._link.up and self._listening:  # otherwise `_listen` subscribes to all rooms later
                self._ask(room)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._confirmation(subscription)
            if not self._rooms(room).numbered:
                return None
            position = await self._logs.position(room)
        except TimeoutError:
            self._drop(room, subscription)
            raise BrokerUnavailable(f"Redis can't be reached (waited {self._timeout_s:g} s)") from None
        except BaseException:
            self._drop(room, subscription)
            raise
        if subscription.start_at(position) == "behind":
            self._catch_up_soon(room, subscription)
        subscription.overlap = self._canary_sent + 1
        return subscription.last

    def _ask(self, *rooms: str) -> None:
        """Sends a subscribe for some rooms. The confirmations arrive in the order of the rooms."""
        for room in rooms:
            self._asked.setdefault(room, deque()).append(self._subscriptions[room])
        self._link.send("SUBSCRIBE", *(self._keys.channel(room) for room in rooms))

    async def _confirmation(self, subscription: Subscription) -> None:
        if not subscription.confirmed:
            waiting = self._waiting.get(subscription)
            if waiting is None:
                waiting = self._waiting[subscription] = asyncio.get_running_loop().create_future()
            await asyncio.shield(waiting)

    def _drop(self, room: str, subscription: Subscription) -> None:
        """Ends a subscription, unless it has ended already. Calls that wait for it fail."""
        if self._subscriptions.get(room) is subscription:
            del self._subscriptions[room]
            self._link.send("UNSUBSCRIBE", self._keys.channel(room))
            waiting = self._waiting.pop(subscription, None)
            if waiting is not None and not waiting.done():
                waiting.cancel()

    def subscribes(self, room: str) -> bool:
        """Returns whether a room is subscribed, or about to be."""
        return room in self._subscriptions

    def unsubscribe(self, room: str) -> None:
        """Unsubscribes from a room. Calls that wait for its subscription fail."""
        subscription = self._subscriptions.get(room)
        if subscription is not None:
            self._drop(room, subscription)

    def _up_again(self, down_s: float) -> None:
        """Starts over on a new connection: instructions first, then all rooms."""
        now = asyncio.get_running_loop().time()
        self._asked.clear()
        self._own_subscribed.clear()
        self._listening = False
        self._instructions.cut()
        if self._returning is not None:
            self._returning.cancel()
        self._link.send("SUBSCRIBE", self._own_channel, self._keys.all_workers)
        self._returning = self._tasks.spawn(self._listen(), "listen")
        down_s = max(down_s, now - self._heard_at)  # the subscription may have failed long before the connection
        self._heard_at, self._canary_seen = now, self._canary_sent
        plain = sum(each.confirmed and not self._rooms(room).numbered for room, each in self._subscriptions.items())
        if plain and self._link.reconnects > 0:
            logger.warning(
                "there was no subscription at Redis for %.1f s: members on this worker missed the messages published "
                "meanwhile to %s without history",
                down_s,
                counted(plain, "rooms"),
            )

    async def _listen(self) -> None:
        """Catches up on instructions, then subscribes to all rooms.

        The instructions come first, so that connections to be closed receive nothing more from the rooms.
        """
        try:
            await self._instructions.catch_up(self._link, subscribed=True)
        except BrokerUnavailable as error:
            logger.warning("can't read the instructions that this worker missed from Redis: %s", str(error))
        except Exception:  # a bug in hubbub must not keep the worker from subscribing to the rooms
            logger.exception("could not read the instructions that this worker missed from Redis")
        self._listening, self._returning = True, None
        rooms = tuple(self._subscriptions)
        for first in range(0, len(rooms), _CHANNELS_AT_ONCE):
            self._ask(*rooms[first : first + _CHANNELS_AT_ONCE])

    async def send_canary(self) -> None:
        """Sends a canary. Reconnects if the last ones did not arrive. Called regularly.

        Raises:
            BrokerUnavailable: The canary did not reach the server.
        """
        if not (self._commands.up and self._link.up) or self._link.held:
            return
        if self._canary_sent > self._canary_seen + 1:
            self._link.drop("the subscription delivers nothing")
            return
        self._canary_sent += 1
        try:
            await self._commands.call("PUBLISH", self._own_channel, pack_canary(self._canary_sent))
        except BrokerUnavailable:
            self._canary_seen = self._canary_sent  # the other connection failed, not the subscription
            raise

    async def remember(self) -> None:
        """Extends the lifetime of the numberings of rooms that have members here.

        Raises:
            BrokerUnavailable: The server did not answer.
        """
        for room in tuple(self._subscriptions):
            if self._rooms(room).numbered:
                await self._logs.position(room)

    # Incoming

    def _pushed(self, push: list[Any]) -> None:
        kind = push[0]
        if kind == b"message":
            channel = push[1]
            try:
                packed = unpack(push[2])
            except ValueError as error:
                self._skip_unreadable(channel, error)
                return
            room = self._keys.room_of(channel)
            if isinstance(packed, Canary):
                self._canary_seen, self._heard_at = packed.number, asyncio.get_running_loop().time()
                self._instructions.heard_canary()
            elif isinstance(packed, Instructed):
                self._instructions.receive(packed)
            elif isinstance(packed, Request):
                self._answer(packed)
            elif isinstance(packed, Replied):
                self._requests.replied(*packed)
            elif isinstance(packed, RollCall):
                self._roll_call()
            elif room is not None:
                self._receive(room, packed)
        elif kind == b"subscribe":
            room = self._keys.room_of(push[1])
            if room is not None:
                self._confirmed(room)
            elif push[1].decode() == self._own_channel:
                self._own_subscribed.set()

    def _confirmed(self, room: str) -> None:
        asked = self._asked[room]
        subscription = asked.popleft()
        if not asked:
            del self._asked[room]
        if self._subscriptions.get(room) is not subscription:
            return
        known, subscription.confirmed = subscription.confirmed, True
        if known:
            self._catch_up_soon(room, subscription)
        waiting = self._waiting.pop(subscription, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def _skip_unreadable(self, channel: bytes, error: ValueError) -> None:
        """Skips a message of another release. In a room with positions, the history shows what was missed."""
        self._foreign.skip("a message", channel, error)
        room = self._keys.room_of(channel)
        subscription = self._subscriptions.get(room) if room is not None else None
        if room is not None and subscription is not None and self._rooms(room).numbered:
            self._catch_up_soon(room, subscription)

    def _receive(self, room: str, packed: Arrival | Announced | Reset) -> None:
        subscription = self._subscriptions.get(room)
        if subscription is None:
            return
        if isinstance(packed, Reset):
            if subscription.last is not None and subscription.last.epoch != packed.position.epoch:
                self._catch_up_soon(room, subscription)
        elif isinstance(packed, Announced):
            if self._is_new(packed.stamp):
                self._receiver.deliver(room, packed.announcement)
        elif packed.envelope.position is None:
            if self._is_new(packed.stamp):
                self._receiver.deliver(room, packed.envelope)
        else:
            deliveries, verdict = subscription.take(packed, self._canary_seen)
            self._deliver_all(room, deliveries)
            if verdict == "behind":
                self._catch_up_soon(room, subscription)
            elif verdict == "gone back":
                self._renumber_soon(room, subscription)

    def _answer(self, request: Request) -> None:
        """Answers a request of another worker."""
        channel = self._keys.own_channel(request.stamp.sender.hex())

        async def send_reply(reply: Reply) -> None:
            await self._commands.call("PUBLISH", channel, pack_reply(request.number, reply))

        if self._is_new(request.stamp):
            self._requests.answer(request.payload, request.timeout_s, send_reply)

    def _is_new(self, stamp: Stamp) -> bool:
        """Returns whether a message without a position is new, and not a needless repetition.

        The messages of a sender arrive in order, so the last sequence number is enough to know.
        """
        sender, number = stamp
        last = self._seen.get(sender)
        if last is None:
            if len(self._seen) >= _MAX_SENDERS:
                del self._seen[next(iter(self._seen))]
        elif number <= last:
            return False
        self._seen[sender] = number
        return True

    def _deliver_all(self, room: str, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            self._receiver.deliver(room, delivery)

    def _catch_up_soon(self, room: str, subscription: Subscription) -> None:
        """Reads missed messages from the history, in a task. If a read is in progress, it is repeated afterwards."""
        subscription.doubted = True
        if subscription.last is not None and not subscription.catching_up:
            subscription.catching_up = True
            self._tasks.spawn(self._catch_up(room, subscription), "catch up")

    async def _catch_up(self, room: str, subscription: Subscription) -> None:
        """Reads missed messages from the room's history, until nothing is missing."""

        async def next_page() -> bool:
            subscription.asks()
            read = await self._logs.missed(room, subscription.last, subscription.stamp)
            if self._subscriptions.get(room) is not subscription:
                return False
            deliveries, verdict = subscription.catch_up(read)
            if verdict == "gone back":
                await self._renumber(room, subscription)
                return True
            for delivery in deliveries:
                self._receiver.deliver(room, delivery)
                await self._receiver.settled()
            return verdict == "behind"

        while self._subscriptions.get(room) is subscription:
            try:
                while await next_page() or subscription.doubted:  # noqa: ASYNC110  lets other tasks run
                    await asyncio.sleep(0)
            except BrokerUnavailable as error:
                logger.debug("can't catch up in %s yet: %s", shown(room), str(error))
                await asyncio.sleep(min(1.0, self._timeout_s / 4))
                continue
            except Exception:  # a bug in hubbub must not leave the members with an unnoticed gap
                logger.exception("could not read the missed messages of %s: its members receive a reset", shown(room))
                try:
                    self._deliver_all(room, subscription.reset(await self._logs.position(room)))
                except Exception:
                    await asyncio.sleep(_RETRY_S)
                    continue
            deliveries, verdict = subscription.caught_up(self._canary_sent + 1)
            self._deliver_all(room, deliveries)
            if verdict == "delivered":
                return
            subscription.catching_up = True

    def _renumber_soon(self, room: str, subscription: Subscription) -> None:
        if not subscription.renumbering:
            self._tasks.spawn(self._try_renumber(room, subscription), "renumber")

    async def _try_renumber(self, room: str, subscription: Subscription) -> None:
        with contextlib.suppress(BrokerUnavailable):
            await self._renumber(room, subscription)
            if self._subscriptions.get(room) is subscription:
                self._catch_up_soon(room, subscription)

    async def _renumber(self, room: str, subscription: Subscription) -> None:
        """Begins a new epoch, because the server has lost messages. Does nothing if another worker was faster."""
        assert subscription.last is not None
        subscription.renumbering = True
        logger.warning("Redis has lost messages of %s that were delivered: the room begins a new epoch", shown(room))
        try:
            await self._logs.renumber(room, subscription.last.epoch)
        except BaseException:
            subscription.renumbering = False
            raise
