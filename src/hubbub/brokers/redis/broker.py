"""The broker on Redis or Valkey, for many workers on many machines.

Theory of operation. A worker has two connections. Over one it sends commands, pipelined (`link`). Over the other it
receives the messages of its subscriptions (`inbox`). A script publishes each message to a room with positions: it
numbers, keeps and publishes the message atomically. Any other message is a plain PUBLISH.

While a connection is lost, messages to rooms without positions are lost too. After the reconnect, a warning says for
how long. Rooms with positions catch up from their last position.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, get_args

from ...envelope import Envelope, Instruction, Page
from ...errors import BrokerUnavailable, InvalidArgument, shown
from ...options import RoomOptions, RoomTable
from ...positions import Position
from ...presence import Info, Member, PresentConnection
from ...tasks import Tasks
from ..base import Broker, BrokerState, Receiver
from ..requests import Requests
from .channel import Keys, Sender, pack_request
from .commands import (
    SENDER_TTL_S,
    Argument,
    database_in,
    finding,
    instructing,
    lining_up,
    position_in,
    publishing,
    settings_in,
)
from .foreign import Foreign
from .inbox import Inbox
from .instructions import Instructions
from .leases import CHECKS
from .link import Link, pool_from
from .logs import Logs
from .presence import Presence
from .server import CannotServe, evicts

logger: Final = logging.getLogger("hubbub")

WhenAway = Literal["raise", "local"]
"""The behavior of a publish while Redis is unavailable: see `RedisBroker`."""

_PLAIN: Final = RoomOptions()
_REMEMBER_S: Final = 1200.0
"""Interval at which the numberings of rooms with members are kept alive. They expire after three times as long."""


class RedisBroker(Broker):
    """Keeps rooms, history and presence at a Redis server (7.0 or newer) or a Valkey server.

    *Delivery*: while Redis is unavailable, a publish waits for up to ``timeout_s`` and then raises
    `BrokerUnavailable`. A message that was in flight may have been published.
    *Order*: the order in which the server received the messages.

    Args:
        url: ``redis://[user:password@]host[:port][/database]``, ``rediss://`` for TLS, or ``unix://``. Its query may
            contain the arguments below, and options of redis-py's connections (``ssl_ca_certs=...``).
        prefix: The beginning of every key and channel, so that several apps can share a server.
        lease_s: Seconds after which a worker that stops responding is considered dead, and its users gone. With less
            than 5, after a pause of Redis longer than ``lease_s``, workers that are still reconnecting may be
            considered dead.
        timeout_s: Seconds that a call waits for Redis.
        when_away: ``"raise"`` raises `BrokerUnavailable`, as above. With ``"local"``, while there is no connection, a
            message to a room without positions reaches the members on this worker only, at once, and is counted
            (`Stats.local_only`).

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
        self._keys = Keys(settings["prefix"], database_in(server))
        self._lease_s: float = settings["lease_s"]
        self._timeout_s: float = settings["timeout_s"]
        self._when_away: WhenAway = settings["when_away"]
        self._sender = Sender()
        self._running = False

    # Life

    async def start(self, receiver: Receiver, rooms: RoomTable) -> None:
        self._receiver = receiver
        self._rooms = rooms
        self._sender = Sender()
        self._tasks = Tasks()
        self._local_only = 0
        self._begun = self._is_local = False
        self._memory_known = False
        self._evicts: str | None = None
        self._renew_now = asyncio.Event()
        self._commands = Link(self._pool, self._timeout_s, self._commands_up, line_up=self._line_up)
        self._foreign = Foreign()
        self._logs = Logs(self._commands, self._keys, rooms, self._foreign)
        self._requests = Requests(receiver, self._tasks)
        self._instructions = instructions = Instructions(self._keys, receiver, self._foreign)
        self._inbox = Inbox(
            self._commands,
            self._pool,
            self._timeout_s,
            keys=self._keys,
            worker=self._keys.own_channel(self.worker),
            rooms=rooms,
            logs=self._logs,
            foreign=self._foreign,
            receiver=receiver,
            tasks=self._tasks,
            instructions=instructions,
            requests=self._requests,
            roll_call=self._renew_now.set,
        )
        self._presence = Presence(
            self._commands, self._keys, self._lease_s, self._sender, rooms, self._tasks, instructions, self._foreign
        )
        self._running = True
        try:
            begun = await asyncio.gather(self._commands.start(), self._inbox.start(), return_exceptions=True)
            if (denied := next(filter(None, begun), None)) is not None:
                raise denied
            if self._commands.up:
                try:
                    await self._begin()
                except CannotServe:
                    raise
                except BrokerUnavailable as error:  # `_keep_lease` retries
                    logger.warning("can't register this worker at Redis yet: %s", str(error))
        except BaseException:
            await self.close()
            raise
        self._tasks.spawn(self._again(self._lease_s / CHECKS, self._keep_lease, self._renew_now), "lease")
        self._tasks.spawn(self._again(min(2.0, self._timeout_s / 2), self._inbox.send_canary), "canary")
        self._tasks.spawn(self._again(_REMEMBER_S, self._remember), "remember")

    async def close(self) -> None:
        if not self._running:
            return
        self._running = False
        self._requests.close()
        await self._tasks.close(0.0)
        if self._commands.up:
            with contextlib.suppress(BrokerUnavailable, TimeoutError):
                async with asyncio.timeout(self._timeout_s):
                    await self._presence.end()
        await self._inbox.close()
        await self._commands.close()

    @property
    def state(self) -> BrokerState:
        if not self._running:
            return BrokerState(up=False, reconnects=0, local_only=0)
        up = self._commands.up and self._inbox.up
        reconnects = max(0, self._commands.reconnects) + self._inbox.reconnects
        return BrokerState(up, reconnects, self._local_only, self._foreign.count)

    async def healthy(self) -> bool:
        if not self._running or not self._inbox.up:
            return False
        try:
            async with asyncio.timeout(min(1.0, self._timeout_s)):
                await self._presence.writable()
        except (BrokerUnavailable, TimeoutError):
            return False
        return self._inbox.up

    async def _again(
        self, every_s: float, work: Callable[[], Awaitable[None]], now: asyncio.Event | None = None
    ) -> None:
        """Repeats some work at an interval, even if it fails. Setting ``now`` repeats it immediately."""
        failed, now = False, now or asyncio.Event()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await now.wait()
            now.clear()
            try:
                await work()
                failed = False
            except BrokerUnavailable as error:
                if self._commands.up and not failed:  # while it is down, the link logs why
                    logger.warning("the housekeeping at Redis is delayed: %s", str(error))
                    failed = True
            except Exception:
                logger.exception("the housekeeping at Redis failed")

    def _commands_up(self, down_s: float) -> None:
        self._is_local = self._memory_known = False
        self._presence.connected_anew()
        self._renew_now.set()

    def _line_up(self, line: int) -> list[Argument]:
        return lining_up(self._keys, self._sender.scripted, line)

    async def _remember(self) -> None:
        """Extends the lifetime at Redis of this sender, and of the numberings of rooms with members here."""
        await self._commands.call("PEXPIRE", self._keys.sender(self._sender.scripted), int(SENDER_TTL_S * 1000))
        await self._inbox.remember()

    async def _begin(self) -> None:
        """Registers this worker at Redis: its room options and its lease."""
        await self._commands.call("SET", self._keys.rooms, self._rooms.to_json())  # the newest worker's options apply
        await self._presence.begin()
        self._begun = True

    async def _keep_lease(self) -> None:
        if not self._begun:
            await self._begin()
        if not self._memory_known:
            self._memory_known = True
            await self._look_at_memory()
        await self._presence.renew()
        await self._commands.call("SET", self._keys.rooms, self._rooms.to_json(), "NX")  # in case Redis lost its data

    async def _look_at_memory(self) -> None:
        """Warns if the server may evict keys, once for each policy."""
        try:
            policy = evicts(await self._commands.call("INFO", "memory"))
        except BrokerUnavailable as error:
            logger.info("can't read the maxmemory-policy of Redis, which must be noeviction: %s", str(error))
            return
        if policy is not None and policy != self._evicts:
            logger.warning(
                "Redis may evict keys (maxmemory-policy %s): presence, positions and history can be lost at any time. "
                "Set `maxmemory-policy noeviction` in redis.conf, or run `redis-cli CONFIG SET maxmemory-policy "
                "noeviction`",
                shown(policy),
            )
        self._evicts = policy

    # Subscriptions

    async def subscribe(self, channel: str) -> Position | None:
        return await self._inbox.subscribe(channel)

    async def unsubscribe(self, channel: str) -> None:
        self._inbox.unsubscribe(channel)

    # Publishing

    async def publish(
        self, channel: str, envelope: Envelope, *, keep: bool = True, once: str | None = None
    ) -> Position | None:
        options = self._rooms(channel) if keep else _PLAIN
        if options.numbered:
            answer = await self._publish(channel, envelope, options, once)
            if len(answer) > 2:
                self._foreign.skip("a log", self._keys.log(channel), "it has entries after the room's last message")
            return position_in(answer)
        if self._stays_local():
            self._keep_local(channel, envelope)
            return None
        await self._publish(channel, envelope, options, once)
        return None

    def publish_nowait(self, channel: str, envelope: Envelope) -> Awaitable[object] | None:
        options = self._rooms(channel)
        if not options.numbered and self._stays_local():
            self._keep_local(channel, envelope)
            return None
        return self._publish(channel, envelope, options)

    def _stays_local(self) -> bool:
        return self._when_away == "local" and not self._commands.up

    def _publish(
        self, channel: str, envelope: Envelope, options: RoomOptions, once: str | None = None
    ) -> asyncio.Future[Any]:
        command = publishing(self._keys, self._sender, channel, envelope, options, once=once)
        return self._commands.call(*command.arguments, number=command.number)

    def _keep_local(self, channel: str, envelope: Envelope) -> None:
        if not self._is_local:
            self._is_local = True
            logger.warning("Redis is unavailable: published messages reach only the members on this worker")
        self._local_only += 1
        self._receiver.deliver(channel, envelope)

    async def instruct(self, channel: str, instruction: Instruction) -> None:
        try:
            if self._when_away == "local" and not self._commands.up:
                raise BrokerUnavailable("Redis can't be reached, so only this worker received the instruction")
            at: int = await self._commands.call(*instructing(self._keys, channel, instruction))
        except BrokerUnavailable:
            self._receiver.deliver(channel, instruction)  # this worker follows it in any case
            raise
        if not await self._instructions.received(at, self._timeout_s):
            self._receiver.deliver(channel, instruction)  # and once more when its subscription is restored

    @property
    def worker(self) -> str:
        return self._sender.id.hex()

    async def workers(self) -> list[str]:
        own = self._keys.own_channel("")
        found: list[bytes] = await self._commands.call("PUBSUB", "CHANNELS", f"{_escaped(own)}*")
        return [channel.decode().removeprefix(own) for channel in found]

    async def ask(self, worker: str, payload: bytes, timeout_s: float) -> bytes:
        async def send(number: int) -> bool:
            await self._inbox.can_hear_replies()
            packed = pack_request(payload, number, timeout_s, self._sender.stamp(scripted=False))
            listeners: int = await self._commands.call("PUBLISH", self._keys.own_channel(worker), packed)
            return listeners > 0

        if not self._running:
            raise BrokerUnavailable("the broker is closed")
        return await self._requests.ask(worker, payload, timeout_s, send)

    # History

    async def history(self, channel: str, after: Position | None = None, limit: int | None = None) -> Page:
        if not self._rooms(channel).numbered:
            return Page([], None, whole=False)
        page = await self._logs.page(channel, after, limit)
        if page.head is None and self._inbox.subscribes(channel):  # its members need a position
            return Page([], await self._logs.position(channel), whole=False)
        return page

    async def clear_history(self, channel: str) -> None:
        await self._commands.call("DEL", self._keys.log(channel))

    async def position(self, channel: str) -> Position | None:
        return await self._logs.known_position(channel) if self._rooms(channel).numbered else None

    # Presence

    async def enter(
        self, channel: str, user: str | None, connection_id: str, info: Info, room_info: Info = None
    ) -> None:
        await self._presence.enter(channel, user, connection_id, info, room_info)

    def presence_id(self, channel: str, user: str | None, connection_id: str) -> str:
        return self._presence.presence_id(channel, user, connection_id)

    async def linger(self, channel: str, user: str, connection_id: str, grace_s: float) -> None:
        await self._presence.linger(channel, user, connection_id, grace_s)

    async def exit(self, channel: str, user: str | None, connection_id: str) -> None:
        await self._presence.exit(channel, user, connection_id)

    async def members(self, channel: str) -> list[Member]:
        return await self._presence.members(channel)

    async def connections(self, channel: str) -> list[PresentConnection]:
        return await self._presence.connections(channel)

    async def count(self, channel: str) -> int:
        return await self._presence.count(channel)

    async def connected(self, channel: str, user: str) -> bool:
        return bool(await self._commands.call(*finding(self._keys, channel, user)))

    async def present(self, channel: str, user: str) -> bool:
        return await self._presence.has(channel, user)


def _escaped(text: str) -> str:
    """Escapes a text in a pattern of Redis."""
    return re.sub(r"[*?\[\]^\\-]", r"\\\g<0>", text)
