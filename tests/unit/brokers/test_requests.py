"""Requests to other workers and from them, without a broker: what is bounded, and what is ignored."""

from __future__ import annotations

import asyncio
import logging

import pytest

from hubbub.brokers.base import MAX_REQUESTS, Delivery, Receiver
from hubbub.brokers.requests import Requests
from hubbub.envelope import Reply
from hubbub.errors import BrokerUnavailable
from hubbub.tasks import Tasks

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Answerer(Receiver):
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.began = 0

    def deliver(self, channel: str, delivery: Delivery) -> None:
        raise AssertionError((channel, delivery))

    async def settled(self) -> None:
        return

    async def answer(self, payload: bytes) -> bytes:
        self.began += 1
        await self.go.wait()
        return payload


class Silent(Receiver):
    """A receiver that knows of no requests."""

    def deliver(self, channel: str, delivery: Delivery) -> None:
        raise AssertionError((channel, delivery))

    async def settled(self) -> None:
        return


async def answered(requests: Requests, payload: bytes) -> Reply:
    """The reply to a request that came from another worker."""
    replies: asyncio.Queue[Reply] = asyncio.Queue()
    requests.answer(payload, 5.0, replies.put)
    return await replies.get()


async def test_a_worker_that_answers_as_many_as_it_may_refuses_more_at_once() -> None:
    answerer, tasks, replies = Answerer(), Tasks(), asyncio.Queue[Reply]()
    requests = Requests(answerer, tasks)
    for number in range(MAX_REQUESTS + 1):
        requests.answer(b"%d" % number, 5.0, replies.put)
    async with asyncio.timeout(30):
        refused = await replies.get()
        assert str(MAX_REQUESTS) in refused.problem
        assert answerer.began == MAX_REQUESTS
        answerer.go.set()
        answers = {(await replies.get()).answer for _ in range(MAX_REQUESTS)}
        assert answers == {b"%d" % number for number in range(MAX_REQUESTS)}
        assert await answered(requests, b"again") == Reply(b"again")
    await tasks.close(0.0)


async def test_a_receiver_that_knows_of_no_requests_fails_to_answer(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks()
    reply = await answered(Requests(Silent(), tasks), b"?")
    assert reply.problem
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    await tasks.close(0.0)


async def test_a_reply_that_can_not_be_sent_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "hubbub")
    answerer, tasks, tried = Answerer(), Tasks(), asyncio.Event()
    answerer.go.set()

    async def unsendable(what: Reply) -> None:
        tried.set()
        raise BrokerUnavailable("it is gone")

    Requests(answerer, tasks).answer(b"?", 5.0, unsendable)
    await tasks.close(5.0)
    assert tried.is_set()
    assert [(record.levelno, "it is gone" in record.getMessage()) for record in caplog.records] == [
        (logging.DEBUG, True)
    ]


async def test_of_several_replies_the_first_counts_and_a_late_one_is_ignored() -> None:
    requests = Requests(Silent(), Tasks())

    async def send(number: int) -> bool:
        for reply in (Reply(b"first"), Reply(b"second"), Reply(b"", "third")):
            requests.replied(number, reply)
        return True

    assert await requests.ask("other", b"?", 5.0, send) == b"first"
    requests.replied(1, Reply(b"late"))


async def test_a_cancelled_request_makes_room_for_another() -> None:
    requests, sent = Requests(Silent(), Tasks()), asyncio.Event()

    async def send(number: int) -> bool:
        sent.set()
        return True

    for _ in range(MAX_REQUESTS + 1):
        sent.clear()
        asking = asyncio.ensure_future(requests.ask("other", b"?", 5.0, send))
        await sent.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
