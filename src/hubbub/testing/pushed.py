"""Records the messages that an app pushes, for the app's own tests. No socket needs to be connected.

Inside `record`, the manager publishes through a broker that records each message and passes it on to the real broker,
so connected test clients still receive it. Messages to a single connection (``send_personal``, ``connection.send``) are
not recorded, because the test has that client; nor are announcements.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..brokers import Broker
from ..brokers.base import BrokerState, Receiver
from ..codec import decode
from ..envelope import Envelope, Instruction, Kick, Page
from ..errors import InvalidArgument, counted, shown
from ..manager import ConnectionManager
from ..names import EVERYONE_NAME, RoomName, UserId, room_name, user_name, user_of, user_room
from ..options import RoomTable
from ..positions import Position
from ..presence import Info, Member, PresentConnection


@dataclass(frozen=True, slots=True)
class Push:
    """One message that the app pushed.

    Attributes:
        room: The room; ``"$everyone"``, or ``"$user:<user id>"``.
        message: What clients see: str, bytes, or the value of the JSON (a dict for a dataclass or a model).
        exclude: Ids of the connections that were excluded.
        key: The key by which ``overflow="latest"`` replaces an older message.
        exclude_users: Ids of the users that were excluded.
    """

    room: str
    message: Any
    exclude: frozenset[str] = frozenset()
    key: str | None = None
    exclude_users: frozenset[str] = frozenset()


class Pushed(Collection[Push]):
    """The messages that the app pushed since `record` began, in order. Safe in any thread.

        with record(manager) as pushed:
            client.post("/posts/1/like")
            assert pushed.to_user("ann") == [{"type": "like", "post": 1}]

    It is a collection of `Push` objects: ``len``, iteration and ``in`` work.
    """

    def __init__(self) -> None:
        self._pushes: list[Push] = []
        self._kicks: list[tuple[str, Kick]] = []
        self._changed = threading.Condition()

    def to_user(self, user_id: UserId) -> list[Any]:
        """Returns the messages of ``send_to_user`` for a user. The ids 42 and ``"42"`` are the same user.

        Args:
            user_id: The user.
        """
        return self._to(user_room(user_name(user_id)))

    def to_room(self, room: RoomName) -> list[Any]:
        """Returns the messages that were broadcast to a room.

        Args:
            room: The name of the room.
        """
        return self._to(room_name(room))

    def to_everyone(self) -> list[Any]:
        """Returns the messages that were broadcast to everyone."""
        return self._to(EVERYONE_NAME)

    def disconnected(self, user_id: UserId) -> list[tuple[int, str]]:
        """Returns the code and the reason of each ``disconnect_user`` for a user.

        Args:
            user_id: The user.
        """
        channel = user_room(user_name(user_id))
        with self._changed:
            return [(kick.code, kick.reason) for to, kick in self._kicks if to == channel]

    def wait(self, count: int = 1, timeout_s: float = 5.0) -> None:
        """Waits until the app has pushed a number of messages, in a handler or a task that runs beside the test.

        It blocks its thread, as tests with TestClient do. Do not call it on the app's event loop.

        Args:
            count: The number of messages since `record` began.
            timeout_s: Seconds to wait at most.

        Raises:
            AssertionError: Fewer messages were pushed in that time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._pushes) >= count, timeout_s):
                raise AssertionError(f"{count} messages were not pushed in {timeout_s:g} s: {self!r}")

    def clear(self) -> None:
        """Forgets the messages that were pushed until now."""
        with self._changed:
            self._pushes.clear()
            self._kicks.clear()

    def __len__(self) -> int:
        return len(self._pushes)

    def __iter__(self) -> Iterator[Push]:
        return iter(tuple(self._pushes))

    def __contains__(self, push: object) -> bool:
        return push in tuple(self._pushes)

    def __repr__(self) -> str:
        pushes = "".join(f"\n  {push.room}: {push.message!r}" for push in self)
        return f"<Pushed, {counted(len(self), 'messages')}{':' if pushes else ''}{pushes}>"

    def _note(self, channel: str, noted: Envelope | Kick) -> None:
        """Records a message or an instruction; the recording broker calls it."""
        with self._changed:
            if isinstance(noted, Kick):
                self._kicks.append((channel, noted))
            else:
                ids = frozenset(name for name in noted.exclude if user_of(name) is None)
                users = frozenset(user for name in noted.exclude if (user := user_of(name)) is not None)
                self._pushes.append(Push(channel, decode(noted.payload), ids, noted.key, users))
            self._changed.notify_all()

    def _to(self, channel: str) -> list[Any]:
        return [push.message for push in self if push.room == channel]


@contextmanager
def record(manager: ConnectionManager, *, online: Iterable[UserId] = ()) -> Iterator[Pushed]:
    """Records what a manager publishes, until the end of the block.

        with TestClient(app) as client, record(manager) as pushed:
            client.post("/posts/1/like")
        assert pushed.to_user("ann") == [{"type": "like", "post": 1}]

    The manager has to run, as it does in the app: use ``with TestClient(app) as client:`` around the block or inside
    it. Connected clients still receive the messages.

    Args:
        manager: The app's manager.
        online: Users that ``send_to_user``, ``disconnect_user`` and ``is_online`` report as connected.

    Raises:
        InvalidArgument: An argument is not acceptable.
    """
    if not isinstance(manager, ConnectionManager):
        raise InvalidArgument("manager", f"got {shown(manager)}", "the app's ConnectionManager")
    if isinstance(online, (str, bytes)):
        raise InvalidArgument("online", f"got {shown(online)}", "several user ids")
    pushed = Pushed()
    broker = manager._hubbub.broker
    manager._hubbub.broker = _Recording(broker, pushed, frozenset(user_name(user) for user in online))
    try:
        yield pushed
    finally:
        manager._hubbub.broker = broker


class _Recording(Broker):
    """A broker that records messages and instructions, and passes everything on."""

    def __init__(self, broker: Broker, pushed: Pushed, online: frozenset[str]) -> None:
        self.name = broker.name
        self.distributed = broker.distributed or bool(online)
        self._broker = broker
        self._pushed = pushed
        self._online = online

    async def publish(
        self, channel: str, envelope: Envelope, *, keep: bool = True, once: str | None = None
    ) -> Position | None:
        self._pushed._note(channel, envelope)
        return await self._broker.publish(channel, envelope, keep=keep, once=once)

    def publish_nowait(self, channel: str, envelope: Envelope) -> Awaitable[object] | None:
        self._pushed._note(channel, envelope)
        return self._broker.publish_nowait(channel, envelope)

    async def instruct(self, channel: str, instruction: Instruction) -> None:
        if isinstance(instruction, Kick):
            self._pushed._note(channel, instruction)
        await self._broker.instruct(channel, instruction)

    async def connected(self, channel: str, user: str) -> bool:
        return (channel == EVERYONE_NAME and user in self._online) or await self._broker.connected(channel, user)

    async def present(self, channel: str, user: str) -> bool:
        return (channel == EVERYONE_NAME and user in self._online) or await self._broker.present(channel, user)

    async def start(self, receiver: Receiver, rooms: RoomTable) -> None:
        await self._broker.start(receiver, rooms)

    @property
    def state(self) -> BrokerState:
        return self._broker.state

    async def close(self) -> None:
        await self._broker.close()

    async def subscribe(self, channel: str) -> Position | None:
        return await self._broker.subscribe(channel)

    async def unsubscribe(self, channel: str) -> None:
        await self._broker.unsubscribe(channel)

    @property
    def worker(self) -> str:
        return self._broker.worker

    async def workers(self) -> list[str]:
        return await self._broker.workers()

    async def ask(self, worker: str, payload: bytes, timeout_s: float) -> bytes:
        return await self._broker.ask(worker, payload, timeout_s)

    async def history(self, channel: str, after: Position | None = None, limit: int | None = None) -> Page:
        return await self._broker.history(channel, after, limit)

    async def clear_history(self, channel: str) -> None:
        await self._broker.clear_history(channel)

    async def position(self, channel: str) -> Position | None:
        return await self._broker.position(channel)

    async def enter(
        self, channel: str, user: str | None, connection_id: str, info: Info, room_info: Info = None
    ) -> None:
        await self._broker.enter(channel, user, connection_id, info, room_info)

    def presence_id(self, channel: str, user: str | None, connection_id: str) -> str:
        return self._broker.presence_id(channel, user, connection_id)

    async def linger(self, channel: str, user: str, connection_id: str, grace_s: float) -> None:
        await self._broker.linger(channel, user, connection_id, grace_s)

    async def exit(self, channel: str, user: str | None, connection_id: str) -> None:
        await self._broker.exit(channel, user, connection_id)

    async def members(self, channel: str) -> list[Member]:
        return await self._broker.members(channel)

    async def connections(self, channel: str) -> list[PresentConnection]:
        return await self._broker.connections(channel)

    async def count(self, channel: str) -> int:
        return await self._broker.count(channel)

    async def healthy(self) -> bool:
        return await self._broker.healthy()
