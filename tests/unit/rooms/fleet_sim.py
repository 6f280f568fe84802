"""A fleet in one process without sockets and without time: the real broker and memberships over a model of Redis.

Nothing moves by itself. A `Fleet` is told what happens next: that the server executes the next command of a connection,
that a worker gets the next answer, that a connection is cut, that the server goes back, that time goes by.
"""

from __future__ import annotations

import asyncio
import json
import selectors
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from math import inf
from typing import Any, TypeVar, cast

import pytest
from redis.exceptions import ConnectionError as LostConnection
from starlette.websockets import WebSocketDisconnect

from hubbub import BrokerUnavailable, History, Position, RoomOptions
from hubbub.brokers.redis import RedisBroker
from hubbub.brokers.redis.channel import Keys, unpack_message
from hubbub.brokers.redis.scripts import ALL
from hubbub.codec import encode
from hubbub.connections.outbox import Lane
from hubbub.connections.session import Manager, Session
from hubbub.connections.socket import Socket
from hubbub.envelope import Envelope
from hubbub.options import RoomTable
from hubbub.protocols import ClientProtocol
from hubbub.protocols.frames import split
from hubbub.rooms.attempts import Attempt
from hubbub.rooms.catch_up import Recovery
from hubbub.rooms.deliveries import Deliveries
from hubbub.rooms.fanout import Fanout
from hubbub.rooms.memberships import Memberships
from hubbub.tasks import Tasks
from hubbub.timers import Timers
from tests.unit.brokers.redis.redis_model import RedisModel
from tests.unit.rooms.subscriber import OTHER, PLACED, reply_in, subscribing

T = TypeVar("T")

ROOMS = RoomTable(
    {
        "kept:*": RoomOptions(history=History(1000)),
        "short:*": RoomOptions(history=History(2)),
    }
)
NAMES = ("kept:a", "short:a")
CLIENTS = ("kept:a", "kept:a", "short:a", "short:a", "kept:a", "short:a")
"""The room of each client."""


class StillLoop(asyncio.SelectorEventLoop):
    """An event loop whose time goes by when it is told to."""

    def __init__(self) -> None:
        class NoWaiting(selectors.SelectSelector):
            def select(self, timeout: float | None = None) -> Any:
                return super().select(0)

        super().__init__(NoWaiting())
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def settle(self) -> None:
        """Runs until nothing is left to do at this time."""
        ready: deque[asyncio.Handle] = self._ready  # type: ignore[attr-defined]  # the loop does not say it
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        for _ in range(10_000):
            if not ready and not (scheduled and scheduled[0].when() <= self.now):
                return
            self.call_soon(self.stop)
            self.run_forever()
        raise AssertionError("it never comes to rest")

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0].when() <= until:
            self.now = max(self.now, scheduled[0].when())
            self.settle()
        self.now = until
        self.settle()

    def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs something that has all it needs."""
        task = self.create_task(work)
        self.settle()
        assert task.done(), "it waits for something"
        return task.result()


class FakeConnection:
    """A connection of redis-py's, as far as `Link` uses it."""

    def __init__(self, fleet: Fleet, worker: int) -> None:
        self.worker = worker
        self.requests: deque[list[Any]] = deque()  # on their way to the server
        self.answers: deque[Any] = deque()  # on their way to the worker
        self.channels: set[str] = set()
        self.given_up = False  # by the worker
        self.lost = False  # for the server
        self.held = False
        self._arrived: deque[Any] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._fleet = fleet
        self._writer = self
        self._parser = self
        self._push: Callable[[list[Any]], Coroutine[Any, Any, object]] | None = None

    # What `Link` calls

    @property
    def transport(self) -> FakeConnection:
        return self

    def abort(self) -> None:
        self.given_up = True

    async def connect(self) -> None:
        self._fleet.connections.append(self)

    async def disconnect(self, *, nowait: bool = False) -> None:
        self.given_up = True

    def pack_commands(self, commands: Sequence[Sequence[Any]]) -> list[list[Any]]:
        return [[each if isinstance(each, bytes) else str(each).encode() for each in command] for command in commands]

    async def send_packed_command(self, commands: list[list[Any]], *, check_health: bool) -> None:
        if self.lost:
            raise LostConnection("Connection lost")
        self.requests.extend(commands)

    def set_pubsub_push_handler(self, handler: Callable[[list[Any]], Coroutine[Any, Any, object]]) -> None:
        self._push = handler

    async def read_response(self, *, timeout: float, push_request: bool = False) -> Any:
        while not self._arrived:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        answer = self._arrived.popleft()
        if isinstance(answer, LostConnection):
            self._arrived.append(answer)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, _Push):
            assert self._push is not None
            return await self._push(answer.parts)
        return answer

    # What the fleet does

    @property
    def subscribes(self) -> bool:
        return bool(self.channels)

    def serve(self, model: RedisModel) -> None:
        """The server executes the next command."""
        command = self.requests.popleft()
        name = command[0]
        if name in (b"SUBSCRIBE", b"UNSUBSCRIBE"):
            for channel in command[1:]:
                (self.channels.add if name == b"SUBSCRIBE" else self.channels.discard)(channel.decode())
                self.answers.append(_Push([name.lower(), channel, 1]))
            return
        try:
            answer = model.execute(command)
        except Exception as error:
            answer = error
        self.answers.append(answer)

    def arrive(self) -> None:
        """The worker gets the next answer."""
        answer = self.answers.popleft()
        if not self.given_up:
            self._arrived.append(answer)
            self._wake()

    def lose(self) -> None:
        """It is cut: nothing comes any more."""
        self.lost = True
        self.answers.clear()
        self.channels.clear()
        self._arrived.append(LostConnection("Connection lost"))
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class _Push:
    def __init__(self, parts: list[Any]) -> None:
        self.parts = parts


class _Pool:
    def __init__(self, fleet: Fleet, worker: int) -> None:
        self._fleet = fleet
        self._worker = worker

    def make_connection(self) -> FakeConnection:
        return FakeConnection(self._fleet, self._worker)


class SimWriter:
    """Where a member's frames go; it may be slow."""

    def __init__(self, take: Callable[[dict[str, Any]], None]) -> None:
        self._take = take
        self._queued: list[dict[str, Any]] = []
        self._going = asyncio.Event()
        self._going.set()

    @property
    def congested(self) -> bool:
        return not self._going.is_set()

    def be_slow(self, slow: bool) -> None:
        if slow:
            self._going.clear()
            return
        self._going.set()
        queued, self._queued = self._queued, []
        for message in queued:
            self._take(message)

    def stalled_for(self, now: float) -> float:
        return inf if self.congested else 0.0

    async def uncongested(self) -> None:
        await self._going.wait()

    @property
    def transport(self) -> SimWriter:
        return self

    def write(self, data: bytes, lane: Lane | None = None, key: str | None = None) -> bool:
        for _, payload in split(data):
            message = json.loads(payload)
            if self.congested:
                self._queued.append(message)
            else:
                self._take(message)
        return True


class _Socket:
    """What is below a connection, as far as memberships see it."""

    closed = (1006, "")
    where = "/ws"
    address = None
    has_own_protocol = True

    def __init__(self, writer: SimWriter, close: Callable[[], None], protocol: ClientProtocol) -> None:
        self.writer = writer
        self.protocol = protocol
        self.close_soon = lambda *_, **__: close()
        self.sessions: list[Session] = []


class SimClient:
    """A client in one room, which keeps its position as the SDKs do, and comes back with it.

    Attributes:
        position: Where it is; None before it was ever told.
        began: The offset after which it has everything.
        bodies: What it got since then.
        all_bodies: Whatever it got, ever.
        told: How often it was told of a loss.
        faults: Frames that do not follow.
    """

    def __init__(self, room: str, protocol: ClientProtocol = PLACED) -> None:
        self.room = room
        self.protocol = protocol
        self.position: Position | None = None
        self.began = 0
        self.bodies: list[str] = []
        self.all_bodies: Counter[str] = Counter()
        self.told = 0
        self.faults: list[str] = []
        self.connection: Session | None = None
        self.writer: SimWriter | None = None
        self.worker: SimWorker | None = None
        self.joining: asyncio.Task[None] | None = None

    def take(self, message: dict[str, Any]) -> None:
        offset = message["offset"]
        if message.get("type") == "sync":
            place = Position(message["epoch"], offset)
            if message["recovered"]:
                assert self.position is not None
                self.position = Position(place.epoch, self.position.offset)
            else:
                self.told += self.position is not None
                self._begin(place)
            return
        if self.position is None or offset != self.position.offset + 1:
            self.faults.append(f"{offset} after {self.position}")
        else:
            self.position = Position(self.position.epoch, offset)
        self.bodies.append(message["data"])
        self.all_bodies[message["data"]] += 1

    def _begin(self, place: Position) -> None:
        self.position, self.began = place, place.offset
        self.bodies.clear()

    @property
    def here(self) -> bool:
        return self.connection is not None


class SimWorker:
    """A worker: the real broker and memberships. It can end, and begin anew."""

    def __init__(self, fleet: Fleet, number: int) -> None:
        self._fleet = fleet
        self.number = number
        self.options_of = ROOMS
        self.publishes: list[tuple[str, str, asyncio.Task[Any]]] = []
        self.gaps: list[str] = []

    def start(self) -> None:
        loop = self._fleet.loop
        self.tasks, self.timers, self.fanout = Tasks(), Timers(), Fanout()
        self.broker = RedisBroker("redis://model", timeout_s=2.0, lease_s=600.0)
        self.broker._pool = cast(Any, _Pool(self._fleet, self.number))
        recovery = Recovery(self.broker, self.tasks, self.timers, self.gaps.append)
        self.memberships = Memberships(
            self.broker, self.fanout, self.tasks, self.timers, self.options_of, lambda *_: None, recovery
        )
        self.deliveries = Deliveries(self.memberships, self.fanout, recovery, self.gaps.append)
        self.fanout.start(loop)
        self.timers.start(loop)
        starting = loop.create_task(self.broker.start(self.deliveries, ROOMS))
        self._fleet.run(lambda: starting.done())
        starting.result()

    def publish(self, room: str, body: str) -> None:
        publishing = self._fleet.loop.create_task(self.broker.publish(room, Envelope(encode(body))))
        self.publishes.append((room, body, publishing))

    def end(self) -> None:
        """Ends without a goodbye."""
        for client in self._fleet.clients:
            if client.worker is self:
                self._fleet.leave(client)
        ending = self._fleet.loop.create_task(self._end())
        self._fleet.run(lambda: ending.done())
        ending.result()

    async def _end(self) -> None:
        await self.tasks.close(0.0)
        self.fanout.stop()
        self.timers.stop()
        await self.broker.close()


class Fleet:
    """Workers, clients and the server.

    Attributes:
        lossless: Whether the server has lost nothing so far.
    """

    def __init__(self, model: type[RedisModel] = RedisModel, *, workers: int = 2) -> None:
        self.loop = StillLoop()
        asyncio.set_event_loop(self.loop)
        self.model = model(self._published)
        self.snapshots = [self.model.snapshot()]
        self.connections: list[FakeConnection] = []
        protocols = cycle((PLACED, OTHER))
        self.clients = [SimClient(room, protocol) for room, protocol in zip(CLIENTS, protocols, strict=False)]
        self.lossless = True
        self.numbers: Counter[str] = Counter()
        self.outcomes: list[tuple[int, str, str, bool]] = []  # worker, room, body, whether it was acknowledged
        self.workers = [SimWorker(self, number) for number in range(workers)]
        for worker in self.workers:
            worker.start()

    # What happens

    def publish(self, worker: int, room: str, count: int = 1) -> None:
        for _ in range(count):
            self.numbers[room] += 1
            self.workers[worker].publish(room, f"{room} {self.numbers[room]} of {worker}")
        self.loop.settle()

    def join(self, client: SimClient, worker: int) -> None:
        if not client.here:
            self._begin_to_join(client, self.workers[worker])
            self.loop.settle()

    def _begin_to_join(self, client: SimClient, worker: SimWorker) -> None:
        client.worker = worker
        client.writer = SimWriter(client.take)
        socket = _Socket(client.writer, lambda: self.leave(client), client.protocol)
        home = cast(Manager, client.worker)
        client.connection = Session(home, cast(Socket, socket), None, None)
        subscribing(client.connection, lambda: self._come_again(client))
        client.joining = self.loop.create_task(self._join(client, client.connection, client.worker))

    async def _join(self, client: SimClient, connection: Session, worker: SimWorker) -> None:
        try:
            reply = reply_in(client.room)
            await worker.memberships.join(connection, client.room, client.position, Attempt(None), reply=reply)
        except (BrokerUnavailable, WebSocketDisconnect):
            if client.connection is connection:
                self.leave(client)

    def _come_again(self, client: SimClient) -> None:
        """What an SDK does when it is told to: it subscribes again, with its position."""
        self._leave(client)
        self.loop.call_soon(self._join_again, client)

    def _join_again(self, client: SimClient) -> None:
        if not client.here:
            assert client.worker is not None
            self._begin_to_join(client, client.worker)

    def leave(self, client: SimClient) -> None:
        if self.loop.is_running():
            self._leave(client)
        else:
            self.loop.call_soon(self._leave, client)
            self.loop.settle()

    def _leave(self, client: SimClient) -> None:
        connection, client.connection = client.connection, None
        if connection is not None:
            assert client.worker is not None
            connection.mark_gone()
            client.worker.memberships.forget(connection, grace=False)

    def be_slow(self, client: SimClient, slow: bool) -> None:
        if client.here and client.writer is not None:
            client.writer.be_slow(slow)
            self.loop.settle()

    def step(self, number: int, count: int) -> None:
        """Something on its way gets where it goes: the next of one connection."""
        for _ in range(count):
            moves = self._moves()
            if not moves:
                return
            moves[number % len(moves)]()
            self.loop.settle()

    def arrive(self) -> None:
        """All that is on its way gets where it goes."""
        while moves := self._moves():
            for move in moves:
                move()
            self.loop.settle()

    def cut_subscription(self, worker: int) -> None:
        """A worker's subscription is cut."""
        for each in self.connections:
            if each.worker == worker and each.subscribes:
                each.lose()
        self.loop.settle()

    def hold(self, worker: int, *, subscription: bool) -> None:
        """What the server says to a worker is late: to its subscription, or its answers."""
        for each in self.connections:
            each.held = each.held or (each.worker == worker and each.subscribes == subscription)

    def release(self) -> None:
        """Ends `hold`."""
        for each in self.connections:
            each.held = False

    def _moves(self) -> list[Callable[[], None]]:
        self.connections = [each for each in self.connections if each.requests or not each.lost]
        moves: list[Callable[[], None]] = []
        for each in self.connections:
            if each.requests:
                moves.append(lambda each=each: each.serve(self.model))  # type: ignore[misc]
            if each.answers and not each.held:
                moves.append(each.arrive)
        return moves

    def cut(self, number: int, *, late: bool) -> None:
        """A connection is cut. What is on its way to the server may arrive late, or never."""
        alive = [each for each in self.connections if not each.lost]
        if alive:
            connection = alive[number % len(alive)]
            if not late:
                connection.requests.clear()
            connection.lose()
            self.loop.settle()

    def snapshot(self) -> None:
        self.snapshots.append(self.model.snapshot())

    def restart(self, back: int, *, cut: bool) -> None:
        """Another run of the server takes over: without loss, or from a snapshot. Connections may outlive that."""
        if cut:
            for connection in self.connections:
                connection.requests.clear()
                if not connection.lost:
                    connection.lose()
            self.model.scripts.clear()
        self.model.renew_run()
        if back:
            self.lossless = False
            self.snapshots = self.snapshots[: max(1, len(self.snapshots) - back + 1)]
            self.model.data = self.snapshots[-1]
            self.snapshots[-1] = self.model.snapshot()
        self.loop.settle()

    def flush(self) -> None:
        """Its data is deleted."""
        self.lossless = False
        self.model.data = type(self.model.data)()

    def forget_scripts(self) -> None:
        self.model.scripts.clear()

    def load_scripts(self) -> None:
        """As another worker does that connects."""
        for script in ALL:
            self.model.load(script)

    def pass_time(self, seconds: float) -> None:
        self.loop.pass_time(seconds)

    def replace_worker(self, number: int) -> None:
        worker = self.workers[number]
        self.release()
        worker.end()
        self._note_outcomes(worker)
        worker.start()

    def _published(self, channel: str, message: bytes) -> None:
        for each in self.connections:
            if channel in each.channels:
                each.answers.append(_Push([b"message", channel.encode(), message]))

    # Until all is well

    def run(self, done: Callable[[], bool]) -> None:
        """Lets everything arrive, and time go by, until something is so."""
        for _ in range(100):
            self.loop.settle()
            self.arrive()
            if done():
                return
            self.loop.pass_time(0.5)
        raise AssertionError("it never becomes so")

    def heal(self) -> None:
        """Everything is connected again, everybody reads, and all that is on its way arrives."""
        self.release()
        for client in self.clients:
            self.be_slow(client, False)
        until = self.loop.now + 4.0
        self.run(lambda: self.loop.now >= until)
        for worker in self.workers:
            self._note_outcomes(worker)

    def _note_outcomes(self, worker: SimWorker) -> None:
        for room, body, publishing in worker.publishes:
            assert publishing.done(), f"{body} is published for ever"
            failed = publishing.cancelled() or publishing.exception() is not None
            self.outcomes.append((worker.number, room, body, not failed))
        worker.publishes.clear()

    def check(self) -> None:
        """The invariants of docs/architecture.md. Call `heal` before."""
        truths = {room: self._truth(room) for room in NAMES}
        for client in self.clients:
            name = f"a client in {client.room}"
            assert client.faults == [], f"{name} got {client.faults}"
            repeated = [body for body, times in client.all_bodies.items() if times > 1]
            assert not repeated, f"{name} got {repeated} again"
            if self.lossless and client.room == "kept:a":
                assert not client.told, f"{name} was told of a loss that was none"
            if client.here:
                head = self.model.data.heads.get(Keys("hubbub").head(client.room))
                assert head is not None
                assert client.position == (head.epoch, head.offset), f"{name} is at {client.position}, not at {head}"
                after = [body for offset, body in truths[client.room] if offset > client.began]
                assert client.bodies == after, f"{name} has {client.bodies}, not {after}"
        for room, truth in truths.items():
            bodies = [body for _, body in truth]
            assert len(bodies) == len(set(bodies)), f"published twice: {bodies}"
            for worker in range(len(self.workers)):
                mine = [body for each, into, body, _ in self.outcomes if (each, into) == (worker, room)]
                found = [body for body in bodies if body in set(mine)]
                assert found == [body for body in mine if body in set(found)], f"{found} is not in the order of {mine}"
            lost = [body for _, into, body, done in self.outcomes if into == room and done and body not in set(bodies)]
            assert not (lost and self.lossless), f"lost: {lost}"

    def _truth(self, room: str) -> list[tuple[int, str]]:
        told = self.model.data.truth.get(Keys("hubbub").head(room), [])
        return [(offset, unpack_message(message, 0, None).envelope.payload.data.decode()) for offset, message in told]

    def end(self) -> None:
        for worker in self.workers:
            worker.end()
        self.loop.settle()
        self.loop.close()
        asyncio.set_event_loop(None)


@contextmanager
def still_fleet(model: type[RedisModel] = RedisModel) -> Iterator[Fleet]:
    """A fleet for as long as the block lasts, whose histories are read in small pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hubbub.rooms.catch_up._PAGE_MESSAGES", 2)
        patch.setattr("hubbub.brokers.redis.logs._AT_ONCE", 2)
        patch.setattr("hubbub.brokers.redis.link.random.uniform", lambda low, high: high)
        fleet = Fleet(model)
        try:
            yield fleet
        finally:
            fleet.end()
