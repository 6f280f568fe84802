"""Fakes for the unit tests: a clock, an event loop whose time stands still, and two workers over one broker."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import TypeVarTuple

from hubbub import InvalidArgument
from hubbub.brokers import Broker, MemoryBroker
from hubbub.brokers.base import BrokerState, Delivery, Receiver
from hubbub.brokers.requests import Requests
from hubbub.envelope import Envelope, Instruction, Page, Reply
from hubbub.options import RoomTable
from hubbub.positions import Position
from hubbub.presence import Info, Member, PresentConnection
from hubbub.tasks import Tasks

Ts = TypeVarTuple("Ts")


@contextmanager
def may_refuse(argument: str) -> Iterator[None]:
    """The block may end with an InvalidArgument that names this argument, and with no other error."""
    try:
        yield
    except InvalidArgument as error:
        if error.argument != argument:
            raise


class FakeClock:
    """A clock that goes when it is told to."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class FakeLoop(asyncio.AbstractEventLoop):
    """As much of an event loop as timers need. Time stands still but for `advance`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._scheduled: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._ready: list[asyncio.Handle] = []
        self._sequence = 0

    def time(self) -> float:
        return self.now

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._sequence += 1
        heapq.heappush(self._scheduled, (when, self._sequence, handle))
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def get_debug(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    @property
    def armed(self) -> int:
        """Timers that are waiting and not cancelled."""
        return sum(not handle.cancelled() for _, _, handle in self._scheduled)

    def turn(self) -> None:
        """One pass of the loop: what was called soon before it."""
        ready, self._ready = self._ready, []
        for handle in ready:
            if not handle.cancelled():
                handle._run()

    def advance(self, seconds: float) -> None:
        """Lets time go by, and calls what is due at its time."""
        until = self.now + seconds
        while self._scheduled and self._scheduled[0][0] <= until:
            when, _, handle = heapq.heappop(self._scheduled)
            self.now = max(self.now, when)
            if not handle.cancelled():
                handle._run()
        self.now = until


def fake_loop() -> FakeLoop:
    return FakeLoop()  # type: ignore[abstract]  # what it lacks raises NotImplementedError


class Hub(Receiver):
    """What two workers share: one memory broker, behind a network that takes a pass of the loop each way."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.inner = MemoryBroker(clock)
        self.nodes: list[Node] = []
        self.started = 0

    def nodes_of(self, count: int) -> list[Node]:
        self.nodes = [Node(self) for _ in range(count)]
        return self.nodes

    def deliver(self, channel: str, delivery: Delivery) -> None:
        for node in self.nodes:
            node.take(channel, delivery)

    async def settled(self) -> None:
        return

    def subscribers(self, channel: str) -> Iterable[Node]:
        return [node for node in self.nodes if channel in node.subscribed]


class Node(Broker):
    """One of several workers over a `Hub`: shows that a suite works for brokers that deliver later and elsewhere."""

    name = "hub"
    distributed = True

    def __init__(self, hub: Hub) -> None:
        self.subscribed: set[str] = set()
        self._hub = hub
        self._broker = hub.inner
        self._receiver: Receiver | None = None
        self._began = 0
        self._tasks = Tasks()
        self._requests: Requests | None = None

    def take(self, channel: str, delivery: Delivery) -> None:
        if channel in self.subscribed:
            self.arrives(channel, delivery)

    def arrives(self, channel: str, delivery: Delivery) -> None:
        began = self._began

        def arrive() -> None:
            if self._receiver is not None and began == self._began:
                self._receiver.deliver(channel, delivery)

        asyncio.get_running_loop().call_soon(arrive)

    async def _answer(self) -> None:
        """Slower than a delivery: what is published meanwhile comes before the answer does."""
        for _ in range(3):
            await asyncio.sleep(0)

    @property
    def state(self) -> BrokerState:
        return BrokerState(self._receiver is not None, 0, 0)

    async def start(self, receiver: Receiver, rooms: RoomTable) -> None:
        self._receiver = receiver
        self._requests = Requests(receiver, self._tasks)
        self._began += 1
        self._hub.started += 1
        if self._hub.started == 1:
            await self._broker.start(self._hub, rooms)

    async def close(self) -> None:
        if self._receiver is None:
            return
        self._receiver = None
        if self._requests is not None:
            self._requests.close()
        await self._tasks.close(0.0)
        self.subscribed.clear()
        self._hub.started -= 1
        if not self._hub.started:
            await self._broker.close()

    async def subscribe(self, channel: str) -> Position | None:
        await asyncio.sleep(0)
        self.subscribed.add(channel)
        position = await self._broker.subscribe(channel)
        await self._answer()
        return position

    async def unsubscribe(self, channel: str) -> None:
        await asyncio.sleep(0)
        self.subscribed.discard(channel)
        if not self._hub.subscribers(channel):
            await self._broker.unsubscribe(channel)

    async def publish(
        self, channel: str, envelope: Envelope, *, keep: bool = True, once: str | None = None
    ) -> Position | None:
        await asyncio.sleep(0)
        position = await self._broker.publish(channel, envelope, keep=keep, once=once)
        await self._answer()
        return position

    async def instruct(self, channel: str, instruction: Instruction) -> None:
        await asyncio.sleep(0)
        for node in self._hub.nodes:
            node.arrives(channel, instruction)
        await self._answer()

    @property
    def worker(self) -> str:
        return f"node {id(self)}"

    async def workers(self) -> list[str]:
        return [each.worker for each in self._hub.nodes if each._receiver is not None]

    async def ask(self, worker: str, payload: bytes, timeout_s: float) -> bytes:
        requests = self._requests
        assert requests is not None

        async def send(number: int) -> bool:
            async def reply(what: Reply) -> None:
                await asyncio.sleep(0)
                requests.replied(number, what)

            await asyncio.sleep(0)
            others = [
                each._requests for each in self._hub.nodes if each.worker == worker and each._receiver is not None
            ]
            for other in others:
                assert other is not None
                other.answer(payload, timeout_s, reply)
            return bool(others)

        return await requests.ask(worker, payload, timeout_s, send)

    async def history(self, channel: str, after: Position | None = None, limit: int | None = None) -> Page:
        await asyncio.sleep(0)
        page = await self._broker.history(channel, after, limit)
        await self._answer()
        return page

    async def clear_history(self, channel: str) -> None:
        await asyncio.sleep(0)
        await self._broker.clear_history(channel)

    async def position(self, channel: str) -> Position | None:
        return await self._broker.position(channel)

    async def enter(
        self, channel: str, user: str | None, connection_id: str, info: Info, room_info: Info = None
    ) -> None:
        await asyncio.sleep(0)
        await self._broker.enter(channel, user, connection_id, info, room_info)

    def presence_id(self, channel: str, user: str | None, connection_id: str) -> str:
        return self._broker.presence_id(channel, user, connection_id)

    async def linger(self, channel: str, user: str, connection_id: str, grace_s: float) -> None:
        await self._broker.linger(channel, user, connection_id, grace_s)

    async def exit(self, channel: str, user: str | None, connection_id: str) -> None:
        await asyncio.sleep(0)
        await self._broker.exit(channel, user, connection_id)

    async def members(self, channel: str) -> list[Member]:
        return await self._broker.members(channel)

    async def connections(self, channel: str) -> list[PresentConnection]:
        return await self._broker.connections(channel)

    async def count(self, channel: str) -> int:
        return await self._broker.count(channel)

    async def connected(self, channel: str, user: str) -> bool:
        return await self._broker.connected(channel, user)

    async def present(self, channel: str, user: str) -> bool:
        return await self._broker.present(channel, user)

    async def healthy(self) -> bool:
        return await self._broker.healthy()
