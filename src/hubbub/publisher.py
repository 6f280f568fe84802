"""Publishes from processes that serve no sockets: workers of a task queue, cron jobs, scripts.

Their messages are numbered and kept in histories like those of a worker, because the workers leave the options of the
rooms at the broker. Needs ``hubbub[redis]``, and a Redis server on which a worker of the app has started before.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from . import arguments
from .close import CloseCode
from .codec import Message, encode
from .envelope import Envelope, Kick, Unsubscribe
from .errors import BrokerUnavailable, InvalidArgument, WrongLoop, shown
from .names import EVERYONE, EVERYONE_NAME, Everyone, RoomName, UserId, channel_of, room_name, user_name, user_room
from .options import RoomTable
from .positions import Position

if TYPE_CHECKING:
    from .brokers.redis.commands import Argument

logger: Final = logging.getLogger("hubbub")

_ROOMS_TTL_S: Final = 10.0
_RETRY_S: Final = 0.05


class _Publishing:
    """The common part of both publishers: their settings, the rooms' options, and the arguments of calls."""

    def __init__(self, url: str, prefix: str, timeout_s: float) -> None:
        try:
            from .brokers.redis import channel, commands
        except ImportError:
            raise InvalidArgument("url", "redis-py is not installed", "pip install 'hubbub[redis]'") from None
        self._commands = commands
        self._roll_call = channel.pack_roll_call()
        self._server, settings = commands.settings_in(url, prefix=prefix, timeout_s=timeout_s)
        self._timeout_s: float = settings["timeout_s"]
        self._keys = channel.Keys(settings["prefix"], commands.database_in(self._server))
        self._prefix: str = settings["prefix"]
        self._rooms: RoomTable | None = None
        self._unknown: set[str] = set()
        self._rooms_at = 0.0

    def _known_rooms(self) -> RoomTable | None:
        """Returns the options of the rooms, if they were read a moment ago."""
        return self._rooms if time.monotonic() - self._rooms_at < _ROOMS_TTL_S else None

    def _read_rooms(self, text: bytes | None, asked_at: float) -> RoomTable | None:
        """Reads the options of the rooms. Returns None if Redis does not have them, but may have them in time.

        If Redis lost its data, they are missing until a worker notices. A roll call makes the workers check at once.

        Raises:
            BrokerUnavailable: The options can't be read, or are still missing after ``timeout_s``.
        """
        if text is not None:
            try:
                self._rooms, self._rooms_at = RoomTable.from_json(text), time.monotonic()
            except ValueError as error:
                raise BrokerUnavailable(
                    f"the rooms' options at {self._keys.rooms} can't be read ({shown(str(error))}); "
                    "run publishers and workers of the same release of hubbub"
                ) from None
            if unknown := self._rooms.unknown - self._unknown:
                self._unknown |= unknown
                logger.warning(
                    "ignored options of rooms that this release does not know, from workers of another release: %s",
                    shown(sorted(unknown)),
                )
            return self._rooms
        if time.monotonic() + _RETRY_S < asked_at + self._timeout_s:
            return None
        raise BrokerUnavailable(
            f"no worker has started on this server with the prefix {self._prefix!r}, so the options of its rooms "
            f"are unknown (waited {self._timeout_s:g} s); start the app first, or pass the prefix that it uses"
        )

    @staticmethod
    def _envelope(
        message: Message,
        exclude: str | Iterable[str] | None = None,
        exclude_users: UserId | Iterable[UserId] | None = None,
        key: str | None = None,
    ) -> Envelope:
        given = () if exclude is None else (exclude,) if isinstance(exclude, str) else exclude
        ids = tuple(given) if isinstance(given, Iterable) else (given,)
        if not all(isinstance(each, str) for each in ids):
            raise InvalidArgument("exclude", f"got {shown(exclude)}", "ids of connections; for users, exclude_users=")
        excluded = frozenset(map(arguments.connection_id, ids)) | arguments.excluded_users(exclude_users)
        return Envelope(encode(message), excluded, arguments.message_key(key))

    @staticmethod
    def _kick(code: int, reason: str) -> Kick:
        return Kick(arguments.close_code(code), arguments.close_reason(reason))


class Publisher(_Publishing):
    """Publishes to the clients of an app from a process that serves no sockets and runs no event loop.

        with Publisher("redis://localhost") as publisher:
            publisher.broadcast({"type": "report", "ready": True}, room="reports")

    Safe in threads, and after a fork.

    *Delivery*: at most once, to each current member. *Order*: that of the calls, over all threads of the process.

    Args:
        url: The URL of the app's broker: ``redis://...``.
        prefix: The prefix of the app's broker.
        timeout_s: Seconds that a call waits for Redis. A call may first wait as long for those of other threads.

    Raises:
        InvalidArgument: The URL is not acceptable, or redis-py is not installed.
    """

    def __init__(self, url: str, *, prefix: str = "hubbub", timeout_s: float = 5.0) -> None:
        super().__init__(url, prefix, timeout_s)
        from .brokers.redis.sync import SENDER_TTL_S, SyncLink

        self._sender_ttl_s = SENDER_TTL_S
        self._link = SyncLink(self._server, self._keys, self._timeout_s)

    def broadcast(
        self,
        message: Message,
        *,
        room: RoomName | Everyone = EVERYONE,
        exclude: str | Iterable[str] | None = None,
        exclude_users: UserId | Iterable[UserId] | None = None,
        key: str | None = None,
    ) -> Position | None:
        """Publishes a message to everyone, or to a room.

            publisher.broadcast({"type": "score", "points": 3}, room="game:7")

        Args:
            message: str, bytes, or anything that can be written as JSON.
            room: The room. An explicit None raises, because a missing room must not reach everyone.
            exclude: Ids of connections that do not receive the message (`Connection.id`).
            exclude_users: A user id, or several: none of their connections receives the message.
            key: With ``overflow="latest"``, a waiting message with the same key is replaced.

        Returns:
            The position of the message, if the room has positions.

        Raises:
            InvalidArgument: The message can't be encoded, or another argument is not acceptable.
            BrokerUnavailable: Redis can't be reached in time; the message may have been published.
        """
        return self._publish(channel_of(room), self._envelope(message, exclude, exclude_users, key))

    def send_to_user(self, user_id: UserId, message: Message) -> bool:
        """Sends a message to every connection of a user, on every worker.

        Args:
            user_id: The user.
            message: str, bytes, or anything that can be written as JSON.

        Returns:
            Whether the user has an open connection on any worker.

        Raises:
            InvalidArgument: The message can't be encoded, or the id is not acceptable.
            BrokerUnavailable: Redis can't be reached in time; the message may have been published.
        """
        user = user_name(user_id)
        self._publish(user_room(user), self._envelope(message))
        return self._connected(user)

    def is_online(self, user_id: UserId) -> bool:
        """Returns whether a user is connected on any worker, or in the grace period after a disconnect.

        While no worker runs, the answer is the last one that the workers left in Redis.

        Args:
            user_id: The user.

        Raises:
            InvalidArgument: The id is not acceptable.
            BrokerUnavailable: Redis can't be reached in time.
        """
        user = user_name(user_id)
        return bool(self._call("HEXISTS", self._keys.here(EVERYONE_NAME), user))

    def disconnect_user(
        self, user_id: UserId, code: int = CloseCode.KICKED.code, reason: str = CloseCode.KICKED.reason
    ) -> bool:
        """Closes all connections of a user, on every worker. The user's presence ends immediately.

        Args:
            user_id: The user.
            code: A close code of RFC 6455, or one from 3000 to 4999.
            reason: A text for the client, at most 123 bytes.

        Returns:
            Whether the user had an open connection on any worker.

        Raises:
            InvalidArgument: An argument is not acceptable.
            BrokerUnavailable: Redis can't be reached in time; the connections may have been closed.
        """
        user, kick = user_name(user_id), self._kick(code, reason)
        had = self._connected(user)
        self._call(*self._commands.instructing(self._keys, user_room(user), kick))
        return had

    def unsubscribe(self, user_id: UserId, room: RoomName) -> bool:
        """Removes all connections of a user from a room, on every worker. They stay open.

        Args:
            user_id: The user.
            room: The name of the room.

        Returns:
            Whether the user had a connection in the room, on any worker.

        Raises:
            InvalidArgument: The id or the name is not acceptable.
            BrokerUnavailable: Redis can't be reached in time; the connections may have been removed.
        """
        user, name = user_name(user_id), room_name(room)
        had = self._connected(user, name)
        self._call(*self._commands.instructing(self._keys, user_room(user), Unsubscribe(name)))
        return had

    def close(self) -> None:
        """Closes the connection to Redis. The next call opens another one."""
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _publish(self, channel: str, envelope: Envelope) -> Position | None:
        options = (self._known_rooms() or self._ask_for_rooms())(channel)
        answer = self._link.call(
            lambda sender: self._commands.publishing(self._keys, sender, channel, envelope, options, self._sender_ttl_s)
        )
        return self._commands.position_in(answer) if options.numbered else None

    def _ask_for_rooms(self) -> RoomTable:
        asked_at = time.monotonic()
        while (rooms := self._read_rooms(self._call("GET", self._keys.rooms), asked_at)) is None:
            self._call("PUBLISH", self._keys.all_workers, self._roll_call)
            time.sleep(_RETRY_S)
        return rooms

    def _connected(self, user: str, channel: str = EVERYONE_NAME) -> bool:
        return bool(self._call(*self._commands.finding(self._keys, channel, user)))

    def _call(self, *command: Argument) -> Any:
        return self._link.call(lambda sender: self._commands.Command(list(command)))


class AsyncPublisher(_Publishing):
    """Publishes to the clients of an app from an event loop that serves no sockets, such as that of a bot or a worker.

        async with AsyncPublisher("redis://localhost") as publisher:
            await publisher.broadcast({"type": "report", "ready": True}, room="reports")

    It belongs to the event loop of its first call. Use it as an async context manager, or call `aclose`.

    *Delivery*: at most once, to each current member. *Order*: that of the calls.

    Args:
        url: The URL of the app's broker: ``redis://...``.
        prefix: The prefix of the app's broker.
        timeout_s: Seconds that a call waits for Redis. The first call may first wait as long for a connection.

    Raises:
        InvalidArgument: The URL is not acceptable, or redis-py is not installed.
    """

    def __init__(self, url: str, *, prefix: str = "hubbub", timeout_s: float = 5.0) -> None:
        super().__init__(url, prefix, timeout_s)
        from .brokers.redis.channel import Sender
        from .brokers.redis.link import Link, pool_from

        self._sender = Sender()
        self._link = Link(
            pool_from(self._server),
            self._timeout_s,
            lambda down_s: None,
            line_up=lambda line: self._commands.lining_up(self._keys, self._sender.scripted, line),
        )
        self._starting: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def broadcast(
        self,
        message: Message,
        *,
        room: RoomName | Everyone = EVERYONE,
        exclude: str | Iterable[str] | None = None,
        exclude_users: UserId | Iterable[UserId] | None = None,
        key: str | None = None,
    ) -> Position | None:
        """Publishes a message to everyone, or to a room.

            await publisher.broadcast({"type": "score", "points": 3}, room="game:7")

        Args:
            message: str, bytes, or anything that can be written as JSON.
            room: The room. An explicit None raises, because a missing room must not reach everyone.
            exclude: Ids of connections that do not receive the message (`Connection.id`).
            exclude_users: A user id, or several: none of their connections receives the message.
            key: With ``overflow="latest"``, a waiting message with the same key is replaced.

        Returns:
            The position of the message, if the room has positions.

        Raises:
            InvalidArgument: The message can't be encoded, or another argument is not acceptable.
            BrokerUnavailable: Redis can't be reached in time; the message may have been published.
            WrongLoop: The publisher belongs to another event loop.
        """
        return await self._publish(channel_of(room), self._envelope(message, exclude, exclude_users, key))

    async def send_to_user(self, user_id: UserId, message: Message) -> bool:
        """Sends a message to every connection of a user, on every worker.

        Args:
            user_id: The user.
            message: str, bytes, or anything that can be written as JSON.

        Returns:
            Whether the user has an open connection on any worker.

        Raises:
            InvalidArgument: The message can't be encoded, or the id is not acceptable.
            BrokerUnavailable: Redis can't be reached in time; the message may have been published.
            WrongLoop: The publisher belongs to another event loop.
        """
        user = user_name(user_id)
        await self._publish(user_room(user), self._envelope(message))
        return await self._connected(user)

    async def is_online(self, user_id: UserId) -> bool:
        """Returns whether a user is connected on any worker, or in the grace period after a disconnect.

        While no worker runs, the answer is the last one that the workers left in Redis.

        Args:
            user_id: The user.

        Raises:
            InvalidArgument: The id is not acceptable.
            BrokerUnavailable: Redis can't be reached in time.
            WrongLoop: The publisher belongs to another event loop.
        """
        user = user_name(user_id)
        return bool(await self._call("HEXISTS", self._keys.here(EVERYONE_NAME), user))

    async def disconnect_user(
        self, user_id: UserId, code: int = CloseCode.KICKED.code, reason: str = CloseCode.KICKED.reason
    ) -> bool:
        """Closes all connections of a user, on every worker. The user's presence ends immediately.

        Args:
            user_id: The user.
            code: A close code of RFC 6455, or one from 3000 to 4999.
            reason: A text for the client, at most 123 bytes.

        Returns:
            Whether the user had an open connection on any worker.

        Raises:
            InvalidArgument: An argument is not acceptable.
            BrokerUnavailable: Redis can't be reached in time; the connections may have been closed.
            WrongLoop: The publisher belongs to another event loop.
        """
        user, kick = user_name(user_id), self._kick(code, reason)
        had = await self._connected(user)
        await self._call(*self._commands.instructing(self._keys, user_room(user), kick))
        return had

    async def unsubscribe(self, user_id: UserId, room: RoomName) -> bool:
        """Removes all connections of a user from a room, on every worker. They stay open.

        Args:
            user_id: The user.
            room: The name of the room.

        Returns:
            Whether the user had a connection in the room, on any worker.

        Raises:
            InvalidArgument: The id or the name is not acceptable.
            BrokerUnavailable: Redis can't be reached in time; the connections may have been removed.
            WrongLoop: The publisher belongs to another event loop.
        """
        user, name = user_name(user_id), room_name(room)
        had = await self._connected(user, name)
        await self._call(*self._commands.instructing(self._keys, user_room(user), Unsubscribe(name)))
        return had

    async def aclose(self) -> None:
        """Closes the connection to Redis, for good. Idempotent."""
        self._closed = True
        if self._starting is not None:
            self._starting.cancel()
        await self._link.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _publish(self, channel: str, envelope: Envelope) -> Position | None:
        options = (self._known_rooms() or await self._ask_for_rooms())(channel)
        await self._started()  # before the message is numbered: messages must be sent in the order of their numbers
        command = self._commands.publishing(self._keys, self._sender, channel, envelope, options)
        answer = await self._link.call(*command.arguments, number=command.number)
        return self._commands.position_in(answer) if options.numbered else None

    async def _ask_for_rooms(self) -> RoomTable:
        asked_at = time.monotonic()
        while (rooms := self._read_rooms(await self._call("GET", self._keys.rooms), asked_at)) is None:
            await self._call("PUBLISH", self._keys.all_workers, self._roll_call)
            await asyncio.sleep(_RETRY_S)
        return rooms

    async def _connected(self, user: str, channel: str = EVERYONE_NAME) -> bool:
        return bool(await self._call(*self._commands.finding(self._keys, channel, user)))

    async def _call(self, *command: Argument) -> Any:
        await self._started()
        return await self._link.call(*command)

    async def _started(self) -> None:
        loop = asyncio.get_running_loop()
        if self._closed:
            raise BrokerUnavailable("this publisher is closed")
        if self._starting is None:
            self._loop, self._starting = loop, loop.create_task(self._link.start())
        elif loop is not self._loop:
            raise WrongLoop("this AsyncPublisher belongs to the event loop of its first call; make one for each loop")
        if not self._link.up:
            await asyncio.shield(self._starting)
