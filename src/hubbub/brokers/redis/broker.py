"""The broker on Redis, or Valkey: many workers, on many machines.

Theory of operation. A worker has two connections. Over one it publishes and asks, pipelined (`link`). The other is
subscribed to the channels of the rooms that have members here, and to one of its own. A message into a room with
positions goes through a script, which numbers, keeps and publishes it in one step; any other is a plain PUBLISH. What
comes in is put in order (`subscription`) and handed to the fan-out at once, as much as came together, so that it is
written together.

What is lost while a connection is: messages to rooms without history, for which a warning says how long it was. Rooms
with history are read from where they were left. That a connection is silent is no sign that it works: a *canary*, which
the worker sends to itself, tells a deaf subscription.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

from ...envelope import Entry, Envelope, Kick, Page, Reset
from ...errors import BrokerUnavailable, InvalidArgument, shown
from ...options import RoomOptions, RoomTable
from ...positions import Position, new_epoch
from ...presence import Info, Member
from ...tasks import Tasks
from ..base import Broker, BrokerState, Delivery, Receiver
from .channel import Arrival, Canary, Keys, Order, Sender, Stamp, pack_canary, unpack, unpack_message
from .commands import counting, ordering, position_in, publishing, settings_in, ttl_ms
from .link import Link, pool_from
from .presence import CHECKS, Presence
from .scripts import HEAD, READ, RENUMBER
from .subscription import Read, Subscription

logger = logging.getLogger("hubbub")

WhenAway = Literal["raise", "local"]
"""What a publish does while Redis is away: see `RedisBroker`."""

_PLAIN: Final = RoomOptions()
_PAGE: Final = 128
_CHANNELS_AT_ONCE: Final = 500
_MAX_SENDERS: Final = 4096
_REMEMBER_S: Final = 1200.0
"""How often a room's numbering is told that it still has members; it lives three times as long."""


class RedisBroker(Broker):
    """Rooms, history and presence at a Redis or Valkey server (7.0 or newer).

    *Delivery*: while Redis is away, a publish waits for up to ``timeout_s`` and then raises `BrokerUnavailable`: the
    message may have got there, if it was on its way. *Order*: that in which the server took the messages.

    Args:
        url: ``redis://[user:password@]host[:port][/database]``, ``rediss://`` for TLS, or ``unix://``. Its query may
            have the arguments below, and what redis-py's connections take (``ssl_ca_certs=...``).
        prefix: What all keys and channels begin with, so that apps can share a server.
        lease_s: Seconds after which a worker that says nothing is taken for dead, and its users for gone. Under 5, a
            pause of Redis that is longer than it may make workers look dead that only wait before they connect again.
        timeout_s: Seconds that a call waits for Redis.
        when_away: ``"raise"``; or ``"local"``: while there is no connection, a message into a room without positions
            reaches the members on this worker at once, is counted (`Stats.local_only`), and goes no further.

    Raises:
        InvalidArgument: The URL or another argument is not acceptable.
    """

    name = "redis"
    distributed = True

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "hubbub",
        lease_s: float = 15.0,
        timeout_s: float = 5.0,
        when_away: WhenAway = "raise",
    ) -> None:
        server, settings = settings_in(url, prefix=prefix, lease_s=lease_s, timeout_s=timeout_s, when_away=when_away)
        if settings["when_away"] not in get_args(WhenAway):
            raise InvalidArgument("when_away", f"got {shown(settings['when_away'])}", "'raise' or 'local'")
        self._pool = pool_from(server)
        self._keys = Keys(settings["prefix"])
        self._lease_s: float = settings["lease_s"]
        self._timeout_s: float = settings["timeout_s"]
        self._when_away: WhenAway = settings["when_away"]
        self._running = False

    # Life

    async def start(self, receiver: Receiver, rooms: RoomTable) -> None:
        self._receiver = receiver
        self._rooms = rooms
        self._sender = Sender()
        self._seen: dict[bytes, int] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._asked: dict[str, deque[Subscription]] = {}  # whose confirmations are to come, in their order
        self._waiting: dict[Subscription, asyncio.Future[None]] = {}
        self._tasks = Tasks()
        self._canary_sent = self._canary_seen = 0
        self._heard_at = asyncio.get_running_loop().time()
        self._local_only = 0
        self._server = ""
        self._doubtful = self._begun = self._is_local = False
        self._commands = Link(self._pool, self._timeout_s, self._commands_up)
        self._inbox = Link(self._pool, self._timeout_s, self._inbox_up, self._pushed, receiver.settled)
        self._presence = Presence(self._commands, self._keys, self._lease_s, self._sender, rooms)
        self._running = True
        try:
            begun = await asyncio.gather(self._commands.start(), self._inbox.start(), return_exceptions=True)
            if (denied := next(filter(None, begun), None)) is not None:
                raise denied
            if self._commands.up:
                with contextlib.suppress(BrokerUnavailable):
                    await self._begin()
        except BaseException:
            await self.close()
            raise
        self._tasks.spawn(self._again(self._lease_s / CHECKS, self._keep_lease), "lease")
        self._tasks.spawn(self._again(self._lease_s / CHECKS, self._presence.clean_up), "clean up")
        self._tasks.spawn(self._again(min(2.0, self._timeout_s / 2), self._send_canary), "canary")
        self._tasks.spawn(self._again(_REMEMBER_S, self._remember), "remember")

    async def close(self) -> None:
        if not self._running:
            return
        self._running = False
        await self._tasks.close(0.0)
        if self._commands.up:
            with contextlib.suppress(BrokerUnavailable, TimeoutError):
                async with asyncio.timeout(self._timeout_s):
                    await self._presence.end()
        await self._inbox.close()
        await self._commands.close()
        for waiting in self._waiting.values():
            waiting.cancel()
        self._waiting.clear()
        self._subscriptions.clear()

    @property
    def state(self) -> BrokerState:
        if not self._running:
            return BrokerState(False, 0, 0)
        up = self._commands.up and self._inbox.up
        return BrokerState(up, max(0, self._commands.reconnects) + max(0, self._inbox.reconnects), self._local_only)

    async def healthy(self) -> bool:
        if not self._running or not self._inbox.up:
            return False
        try:
            async with asyncio.timeout(min(1.0, self._timeout_s)):
                await self._presence.writable()
        except (BrokerUnavailable, TimeoutError):
            return False
        return self._inbox.up

    async def _again(self, every_s: float, work: Callable[[], Awaitable[None]]) -> None:
        """Does something again and again, whatever comes of it."""
        failed = False
        while True:
            await asyncio.sleep(every_s)
            try:
                await work()
                failed = False
            except BrokerUnavailable as error:
                if self._commands.up and not failed:  # else the link has said it
                    logger.warning("the housekeeping at Redis waits: %s", str(error))
                    failed = True
            except Exception:
                logger.exception("the housekeeping at Redis failed")

    def _commands_up(self, down_s: float) -> None:
        self._doubtful, self._is_local = True, False

    async def _begin(self) -> None:
        """Says what others need to know of this worker, once it has a connection."""
        await self._commands.call("SET", self._keys.rooms, self._rooms.to_json())  # the newest worker's hold
        await self._presence.begin()
        self._begun = True

    async def _keep_lease(self) -> None:
        if not self._begun:
            await self._begin()
        doubtful = False
        if self._doubtful:
            try:
                server = await self._server_id()
            except BrokerUnavailable:  # INFO may be forbidden
                server = None
            doubtful, self._server = server is None or self._server not in ("", server), server or ""
        await self._presence.renew(doubtful=doubtful)
        self._doubtful = False
        await self._commands.call("SET", self._keys.rooms, self._rooms.to_json(), "NX")  # lost with the data

    async def _server_id(self) -> str:
        """Which run of which server it is."""
        about: Any = await self._commands.call("INFO", "server")
        lines = (about.decode() if isinstance(about, bytes) else str(about)).splitlines()
        return next((line for line in lines if line.startswith("run_id:")), "")

    async def _send_canary(self) -> None:
        if not (self._commands.up and self._inbox.up) or self._inbox.held:
            return
        if self._canary_sent > self._canary_seen + 1:
            self._inbox.drop("the subscription is deaf")
            return
        self._canary_sent += 1
        try:
            await self._commands.call("PUBLISH", self._own_channel, pack_canary(self._canary_sent))
        except BrokerUnavailable:
            self._canary_seen = self._canary_sent  # it is not the subscription that did not get it
            raise

    @property
    def _own_channel(self) -> str:
        return self._keys.node(self._sender.id.hex())

    async def _remember(self) -> None:
        """Keeps alive the numberings of rooms that have members here."""
        for channel in tuple(self._subscriptions):
            if self._rooms(channel).numbered:
                await self._position(channel)

    # Subscriptions

    async def subscribe(self, channel: str) -> Position | None:
        subscription = self._subscriptions.get(channel)
        if subscription is None:
            subscription = self._subscriptions[channel] = Subscription()
            if self._inbox.up:  # else all are asked for once it is
                self._ask(channel)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._confirmation(subscription)
        except TimeoutError:
            self._drop(channel, subscription)
            raise BrokerUnavailable(f"Redis can't be reached (waited {self._timeout_s:g} s)") from None
        except BaseException:
            self._drop(channel, subscription)
            raise
        if not self._rooms(channel).numbered:
            return None
        try:
            position = await self._position(channel)
        except BaseException:
            self._drop(channel, subscription)
            raise
        subscription.start_at(position)
        subscription.overlap = self._canary_sent + 1
        return subscription.last

    def _ask(self, *rooms: str) -> None:
        """Subscribes. The confirmations come in this order."""
        for room in rooms:
            self._asked.setdefault(room, deque()).append(self._subscriptions[room])
        self._inbox.tell("SUBSCRIBE", *(self._keys.channel(room) for room in rooms))

    async def _confirmation(self, subscription: Subscription) -> None:
        if not subscription.confirmed:
            waiting = self._waiting.get(subscription)
            if waiting is None:
                waiting = self._waiting[subscription] = asyncio.get_running_loop().create_future()
            await asyncio.shield(waiting)

    def _drop(self, channel: str, subscription: Subscription) -> None:
        """Ends a subscription, unless it was ended before. Whoever waits for it fails."""
        if self._subscriptions.get(channel) is subscription:
            del self._subscriptions[channel]
            self._inbox.tell("UNSUBSCRIBE", self._keys.channel(channel))
            waiting = self._waiting.pop(subscription, None)
            if waiting is not None and not waiting.done():
                waiting.cancel()

    async def unsubscribe(self, channel: str) -> None:
        subscription = self._subscriptions.get(channel)
        if subscription is not None:
            self._drop(channel, subscription)

    def _inbox_up(self, down_s: float) -> None:
        """The inbox has a new connection: subscribes to everything."""
        now, rooms = asyncio.get_running_loop().time(), tuple(self._subscriptions)
        self._asked.clear()
        self._inbox.tell("SUBSCRIBE", self._own_channel, self._keys.workers)
        for first in range(0, len(rooms), _CHANNELS_AT_ONCE):
            self._ask(*rooms[first : first + _CHANNELS_AT_ONCE])
        down_s = max(down_s, now - self._heard_at)  # it may have been deaf for long
        self._heard_at, self._canary_seen = now, self._canary_sent
        plain = sum(each.confirmed and not self._rooms(room).numbered for room, each in self._subscriptions.items())
        if plain and self._inbox.reconnects > 0:
            logger.warning(
                "there was no subscription at Redis for %.1f s: what was published meanwhile into %d rooms without "
                "history did not get to the members here",
                down_s,
                plain,
            )

    # What comes in

    def _pushed(self, push: list[Any]) -> None:
        kind = push[0]
        if kind == b"message":
            channel = push[1]
            try:
                packed = unpack(push[2])
            except ValueError as error:
                logger.warning("a message on %s is not of this version of hubbub: %s", shown(channel), shown(error))
                return
            room = self._keys.room_of(channel)
            if isinstance(packed, Canary):
                self._canary_seen, self._heard_at = packed.number, asyncio.get_running_loop().time()
            elif isinstance(packed, Order):
                self._receiver.deliver(packed.room, packed.kick)
            elif room is not None:
                self._came(room, packed)
        elif kind == b"subscribe" and (room := self._keys.room_of(push[1])) is not None:
            self._confirmed(room)

    def _confirmed(self, channel: str) -> None:
        asked = self._asked[channel]
        subscription = asked.popleft()
        if not asked:
            del self._asked[channel]
        if self._subscriptions.get(channel) is not subscription:
            return
        known, subscription.confirmed = subscription.confirmed, True
        if known and subscription.last is not None:
            self._catch_up_soon(channel, subscription)
        waiting = self._waiting.pop(subscription, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def _came(self, channel: str, packed: Arrival | Reset) -> None:
        subscription = self._subscriptions.get(channel)
        if subscription is None:
            return
        if isinstance(packed, Reset):
            self._deliver_all(channel, subscription.reset(packed.position))
        else:
            self._message_came(channel, subscription, packed)

    def _message_came(self, channel: str, subscription: Subscription, arrival: Arrival) -> None:
        new, position, last = self._is_new(arrival.stamp), arrival.envelope.position, subscription.last
        if position is None:
            if new:
                self._receiver.deliver(channel, arrival.envelope)
        elif not new:
            # It was lost with its epoch after it had come here, and was published again: the place is new, it is not.
            if last is None or last.epoch != position.epoch or last.offset < position.offset:
                self._deliver_all(channel, subscription.reset(position))
        else:
            deliveries, verdict = subscription.take(arrival, self._canary_seen)
            self._deliver_all(channel, deliveries)
            if verdict == "behind":
                self._catch_up_soon(channel, subscription)
            elif verdict == "gone back":
                self._renumber_soon(channel, subscription)

    def _is_new(self, stamp: Stamp) -> bool:
        """Whether a message is not one that came before, and was published again because its answer was lost.

        A sender's messages come in its order, so that the last number says it all.
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

    def _deliver_all(self, channel: str, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            self._receiver.deliver(channel, delivery)

    def _catch_up_soon(self, channel: str, subscription: Subscription) -> None:
        if not subscription.catching_up:
            subscription.catching_up = True
            self._tasks.spawn(self._catch_up(channel, subscription), "catch up")

    async def _catch_up(self, channel: str, subscription: Subscription) -> None:
        """Reads what was missed from the room's history."""

        async def next_page() -> bool:
            after = subscription.last
            answer = await self._read(channel, after, _PAGE, subscription.stamp)
            if self._subscriptions.get(channel) is not subscription:
                return False
            if subscription.last != after:
                return True  # the room was begun anew meanwhile: this is of another question
            head = position_in(answer)
            arrivals = [unpack_message(packed, 0, Position(head.epoch, offset)) for offset, packed, _ in answer[4]]
            deliveries, verdict = subscription.catch_up(Read(head, bool(answer[2]), bool(answer[3]), arrivals))
            if verdict == "gone back":
                await self._renumber(channel, subscription)
                return True
            for delivery in deliveries:
                self._receiver.deliver(channel, delivery)
                await self._receiver.settled()
            return verdict == "behind"

        while self._subscriptions.get(channel) is subscription:
            try:
                while await next_page():  # noqa: ASYNC110  others have their turn in between
                    await asyncio.sleep(0)
            except BrokerUnavailable as error:
                logger.debug("can't catch up in %s yet: %s", shown(channel), str(error))
                await asyncio.sleep(min(1.0, self._timeout_s / 4))
                continue
            deliveries, verdict = subscription.caught_up(self._canary_sent + 1)
            self._deliver_all(channel, deliveries)
            if verdict == "delivered":
                return
            subscription.catching_up = True

    def _renumber_soon(self, channel: str, subscription: Subscription) -> None:
        if not subscription.renumbering:
            self._tasks.spawn(self._try_renumber(channel, subscription), "renumber")

    async def _try_renumber(self, channel: str, subscription: Subscription) -> None:
        with contextlib.suppress(BrokerUnavailable):
            await self._renumber(channel, subscription)

    async def _renumber(self, channel: str, subscription: Subscription) -> None:
        """The server has less than it had: begins a new epoch, unless another worker was faster."""
        assert subscription.last is not None
        subscription.renumbering = True
        logger.warning("Redis has gone back in %s: its numbering begins anew", shown(channel))
        keys, epoch = (self._keys.head(channel),), subscription.last.epoch
        try:
            await self._script(RENUMBER, keys, self._keys.channel(channel), epoch, new_epoch())
        except BaseException:
            subscription.renumbering = False
            raise

    # Publishing

    async def publish(self, channel: str, envelope: Envelope, *, keep: bool = True) -> Position | None:
        options = self._rooms(channel) if keep else _PLAIN
        if options.numbered:
            return position_in(await self._publish(channel, envelope, options))
        if self._when_away == "local" and not self._commands.up:
            self._keep_local(channel, envelope)
            return None
        await self._publish(channel, envelope, options)
        return None

    def _publish(self, channel: str, envelope: Envelope, options: RoomOptions) -> asyncio.Future[Any]:
        return self._commands.call(*publishing(self._keys, self._sender, channel, envelope, options))

    def _keep_local(self, channel: str, delivery: Delivery) -> None:
        if not self._is_local:
            self._is_local = True
            logger.warning("Redis is away: what is published reaches the members on this worker only")
        self._local_only += 1
        self._receiver.deliver(channel, delivery)

    async def order(self, channel: str, kick: Kick) -> None:
        if self._when_away == "local" and not self._commands.up:
            self._keep_local(channel, kick)
            return
        try:
            await self._commands.call(*ordering(self._keys, channel, kick))
        except BrokerUnavailable:
            self._receiver.deliver(channel, kick)  # here at any rate
            raise

    # History

    async def history(self, channel: str, after: Position | None = None, limit: int | None = None) -> Page:
        if not self._rooms(channel).numbered:
            return Page([], None, whole=False)
        answer = await self._read(channel, after, limit, None)
        head = position_in(answer)
        return Page([_entry(head.epoch, *each) for each in answer[4]], head, bool(answer[2]))

    def _read(
        self, channel: str, after: Position | None, limit: int | None, stamp: Stamp | None
    ) -> asyncio.Future[Any]:
        epoch, offset = after or ("", 0)
        keys, expected = (self._keys.head(channel), self._keys.log(channel)), b"" if stamp is None else stamp.packed()
        ttl = ttl_ms(self._rooms(channel))
        return self._script(READ, keys, new_epoch(), ttl, epoch, offset, limit or 0, expected)

    async def position(self, channel: str) -> Position | None:
        return await self._position(channel) if self._rooms(channel).numbered else None

    async def _position(self, channel: str) -> Position:
        keys = self._keys.head(channel), self._keys.log(channel)
        return position_in(await self._script(HEAD, keys, new_epoch(), ttl_ms(self._rooms(channel))))

    def _script(self, script: Any, keys: tuple[str, ...], *arguments: Any) -> asyncio.Future[Any]:
        return self._commands.call("EVALSHA", script.sha, len(keys), *keys, *arguments)

    # Presence

    async def enter(self, channel: str, user: str, connection_id: str, info: Info) -> None:
        await self._presence.enter(channel, user, connection_id, info)

    async def linger(self, channel: str, user: str, connection_id: str, grace_s: float) -> None:
        await self._presence.linger(channel, user, connection_id, grace_s)

    async def exit(self, channel: str, user: str, connection_id: str) -> None:
        await self._presence.exit(channel, user, connection_id)

    async def members(self, channel: str) -> list[Member]:
        return await self._presence.members(channel)

    async def count(self, channel: str) -> int:
        return await self._presence.count(channel)

    async def connected(self, channel: str) -> bool:
        return bool((await self._commands.call(*counting(self._keys, channel)))[-1])

    async def present(self, channel: str, user: str) -> bool:
        return await self._presence.has(channel, user)


def _entry(epoch: str, offset: int, packed: bytes, time_ms: int) -> Entry:
    envelope = unpack_message(packed, 0, Position(epoch, offset)).envelope
    return Entry(envelope, datetime.fromtimestamp(time_ms / 1000, UTC))
