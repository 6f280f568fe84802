"""What all workers are asked for: over a broker that answers later, and workers that do not answer."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from hubbub import BrokerUnavailable, InvalidArgument
from hubbub.brokers.base import MAX_REQUEST_BYTES, Delivery, Receiver
from hubbub.options import RoomTable
from hubbub.rooms import census as module
from hubbub.rooms.census import LETTER, Census, TooMany
from tests.unit.support import FakeClock, Hub, Node

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Sized:
    size: int


class Registered:
    user_count = 2

    def __len__(self) -> int:
        return 3


class Worker(Receiver):
    """A worker with rooms.

    Attributes:
        asked: How often it was asked.
        answers: What it does instead of answering.
    """

    def __init__(self, broker: Node, rooms: Mapping[str, int]) -> None:
        self.broker = broker
        self.census = Census(broker, {name: Sized(size) for name, size in rooms.items()}, Registered())
        self.asked = 0
        self.hangs = False
        self.answers: list[int] = []

    def deliver(self, channel: str, delivery: Delivery) -> None:
        raise AssertionError

    async def settled(self) -> None: ...

    async def answer(self, payload: bytes) -> bytes:
        assert payload[:1] == LETTER
        if self.hangs:
            await asyncio.Event().wait()
        answer = await self.census.answer(payload[1:])
        self.answers.append(len(answer))
        return answer


@asynccontextmanager
async def fleet(*rooms: Mapping[str, int]) -> AsyncIterator[list[Worker]]:
    hub = Hub(FakeClock())
    hub.nodes = [Node(hub) for _ in rooms]
    workers = [Worker(node, own) for node, own in zip(hub.nodes, rooms, strict=True)]
    for worker in workers:
        await worker.broker.start(worker, RoomTable())
    try:
        yield workers
    finally:
        for worker in workers:
            await worker.broker.close()


async def test_connections_in_a_room_are_those_of_all_workers() -> None:
    async with fleet({"a": 1, "b": 2, "$everyone": 9, "$user:ann": 1}, {"a": 3, "empty": 0}, {}) as workers:
        for worker in workers:
            assert await worker.census.rooms("", 10) == {"a": 4, "b": 2}
            assert await worker.census.rooms("[b]*", 10) == {"b": 2}
            assert await worker.census.rooms("c*", 10) == {}
            with pytest.raises(InvalidArgument):
                await worker.census.rooms("{", 10)


async def test_many_rooms_come_in_pages_that_fit_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PER_SLICE", 100)
    names = {f"{number:04} {'ü' * 100}\x01": number for number in range(1, 2501)}
    async with fleet({}, names) as (asking, other):
        assert await asking.census.rooms("", 2500) == names
        assert len(other.answers) > 3
        assert max(other.answers) <= MAX_REQUEST_BYTES
        with pytest.raises(TooMany):
            await asking.census.rooms("", 2499)
        assert list(await asking.census.rooms("2*", 2500)) == [name for name in names if name[0] == "2"]


async def test_rooms_without_members_hide_none_of_those_behind_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PER_PAGE", 10)
    empty = {f"{number:04}": 0 for number in range(100)}
    async with fleet({}, {**empty, "last": 1}) as (asking, other):
        assert await asking.census.rooms("", 10) == {"last": 1}
        assert len(other.answers) == 11


async def test_workers_are_described() -> None:
    async with fleet({"a": 1, "b": 2, "$everyone": 3}, {}) as (one, other):
        nodes = {node.uid: node for node in await other.census.nodes()}
        assert nodes.keys() == {one.broker.worker, other.broker.worker}
        node = nodes[one.broker.worker]
        assert (node.num_clients, node.num_users, node.num_subs, node.num_channels) == (3, 2, 3, 2)
        assert node.name
        assert node.version


async def test_a_worker_that_does_not_answer_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_ANSWER_S", 0.01)
    async with fleet({"a": 1}, {"a": 1, "b": 1}) as (one, other):
        other.hangs = True
        assert await one.census.rooms("", 10) == {"a": 1}
        assert [node.uid for node in await one.census.nodes()] == [one.broker.worker]
        assert "1 worker did not answer" in caplog.text


async def test_a_question_of_another_release_is_answered_with_a_failure() -> None:
    async with fleet({"a": 1}) as (worker,):
        with pytest.raises(ValueError, match="another release"):
            await worker.census.answer(json.dumps({"about": "the weather"}).encode())


async def test_no_answer_at_all_is_an_error(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr(module, "_ANSWER_S", 0.01)
    async with fleet({"a": 1}, {"b": 1}) as (one, other):
        other.hangs = True

        async def workers() -> list[str]:
            return [other.broker.worker]  # this worker has just reconnected under another name

        monkeypatch.setattr(one.broker, "workers", workers)
        with pytest.raises(BrokerUnavailable):
            await one.census.rooms("", 10)
