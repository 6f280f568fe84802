"""Posts of clients without a WebSocket, and their way to the worker that has the mailbox."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from hubbub.brokers.base import MAX_REQUEST_BYTES, PubSub
from hubbub.endpoints import emulation as module
from hubbub.endpoints.emulation import Emulation, Mailbox
from hubbub.errors import BrokerUnavailable, NoSuchWorker
from hubbub.protocols.centrifugo.encoding import Post

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Wire:
    """The requests between workers.

    Attributes:
        workers: The workers, by name.
        asked: The requests that were sent.
        gate: A request waits for it before it arrives.
        lost: The numbers of the requests that never arrive.
    """

    def __init__(self) -> None:
        self.workers: dict[str, Emulation] = {}
        self.asked: list[bytes] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.lost: set[int] = set()

    def worker(self, name: str) -> Emulation:
        self.workers[name] = emulation = Emulation(cast(PubSub, _Broker(self, name)))
        return emulation


class _Broker:
    def __init__(self, wire: Wire, name: str) -> None:
        self._wire = wire
        self.worker = name

    async def ask(self, worker: str, payload: bytes, timeout_s: float) -> bytes:
        assert len(payload) <= MAX_REQUEST_BYTES
        number = len(self._wire.asked)
        self._wire.asked.append(payload)
        await self._wire.gate.wait()
        if number in self._wire.lost:
            raise BrokerUnavailable("lost")
        if worker not in self._wire.workers:
            raise NoSuchWorker(worker)
        assert payload[:1] == module.LETTER
        return await self._wire.workers[worker].answer(payload[1:])


async def nobody() -> str | None:
    return None


def mailbox(node: str = "a", first: str = "first", limit: int | None = None, **more: Any) -> Mailbox:
    overflow: Callable[[], None] = more.get("on_overflow", lambda: None)
    return Mailbox("/live", node, first, limit, overflow)


async def taken(box: Mailbox, count: int) -> list[str | bytes]:
    events = [await asyncio.wait_for(box.receive(), 5) for _ in range(count)]
    return [event["text"] if "text" in event else event["bytes"] for event in events]


@asynccontextmanager
async def opened(emulation: Emulation, box: Mailbox) -> AsyncIterator[str]:
    with emulation.holding(box):
        assert (await box.receive())["type"] == "websocket.connect"
        assert await taken(box, 1) == ["first"]
        yield box.bind("ann", by_handshake=False)
    assert (await box.receive())["type"] == "websocket.disconnect"
    assert (emulation._mailboxes, emulation._queues, emulation._waiting_bytes) == ({}, {}, 0)


async def test_posts_of_one_session_keep_their_order_between_workers() -> None:
    wire = Wire()
    a, b = wire.worker("a"), wire.worker("b")
    box = mailbox()
    async with opened(a, box) as session:
        wire.gate.clear()
        texts = [f"{number}" * (MAX_REQUEST_BYTES // 2 + number) for number in range(4)]
        posts = [asyncio.create_task(b.post("/live", Post(session, "a", text), nobody)) for text in texts]
        await asyncio.sleep(0)
        assert len(wire.asked) == 1  # the others wait for their turn
        wire.gate.set()
        assert await asyncio.gather(*posts) == [204] * 4
        assert await taken(box, 4) == texts
    assert await b.post("/live", Post(session, "a", "late"), nobody) == 404


@pytest.mark.parametrize(
    "data", ["é" * 200_000, b"\xff" * 200_000, "", b""], ids=["text", "bytes", "no text", "no bytes"]
)
async def test_posts_of_any_size_arrive_whole(data: str | bytes) -> None:
    wire = Wire()
    a, b = wire.worker("a"), wire.worker("b")
    box = mailbox()
    async with opened(a, box) as session:
        assert await b.post("/live", Post(session, "a", data), nobody) == 204
        assert await taken(box, 1) == [data]


async def test_a_post_whose_part_is_lost_is_not_taken_and_the_next_is() -> None:
    wire = Wire()
    a, b = wire.worker("a"), wire.worker("b")
    box = mailbox()
    async with opened(a, box) as session:
        wire.lost = {1}
        assert await b.post("/live", Post(session, "a", "x" * 200_000), nobody) == 503
        assert await b.post("/live", Post(session, "a", "y" * 200_000), nobody) == 204
        assert await taken(box, 1) == ["y" * 200_000]
        assert await b.post("/live", Post(session, "c", "z"), nobody) == 404


async def test_a_bound_session_takes_posts_of_its_user_alone() -> None:
    wire = Wire()
    a, b = wire.worker("a"), wire.worker("b")
    box = mailbox()

    async def bob() -> str | None:
        return "bob"

    async def ann() -> str | None:
        return "ann"

    async with opened(a, box):
        session = box.bind("ann", by_handshake=True)
        for worker in (a, b):
            assert await worker.post("/live", Post(session, "a", "x"), bob) == 403
            assert await worker.post("/live", Post(session, "a", "x"), nobody) == 403
            assert await worker.post("/live", Post(session.removesuffix(".user"), "a", "x"), ann) == 403
            assert await worker.post("/live", Post(session, "a", "x"), ann) == 204
        assert await taken(box, 2) == ["x", "x"]


async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_POSTS", 3)
    wire = Wire()
    a, b = wire.worker("a"), wire.worker("b")
    full: list[bool] = []
    box = mailbox(on_overflow=lambda: full.append(True))
    async with opened(a, box) as session:
        wire.gate.clear()
        posts = [asyncio.create_task(b.post("/live", Post(session, "a", "x"), nobody)) for _ in range(5)]
        await asyncio.sleep(0)
        assert b._queues[next(iter(b._queues))].posts == 3
        wire.gate.set()
        assert sorted(await asyncio.gather(*posts)) == [204, 204, 204, 429, 429]
        assert not full
        assert await a.post("/live", Post(session, "a", "x"), nobody) == 429
        assert full


async def test_a_post_of_many_parts_is_bounded() -> None:
    wire = Wire()
    a, b = wire.worker("a"), wire.worker("b")
    box = mailbox(limit=50_000)
    async with opened(a, box) as session:
        assert await b.post("/live", Post(session, "a", "x" * 1_000_000), nobody) == 413
        assert await b.post("/live", Post(session, "a", "x" * 100_000), nobody) == 204
        assert await taken(box, 1) == ["x" * 100_000]


async def test_requests_to_other_workers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FORWARDED", 2)
    wire = Wire()
    b = wire.worker("b")
    wire.gate.clear()
    posts = [asyncio.create_task(b.post("/live", Post(f"{number:032x}", "a", "x"), nobody)) for number in range(4)]
    await asyncio.sleep(0)
    wire.gate.set()
    assert sorted(await asyncio.gather(*posts)) == [404, 404, 503, 503]
