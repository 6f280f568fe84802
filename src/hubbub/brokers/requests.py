"""Requests between workers, and their replies: bounded in size, number and time. Independent of the broker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from ..envelope import Reply
from ..errors import BrokerUnavailable, InvalidArgument, NoSuchWorker, shown
from ..tasks import Tasks
from .base import MAX_REQUEST_BYTES, MAX_REQUESTS, Receiver

logger: Final = logging.getLogger("hubbub")


class Requests:
    """Sends requests to other workers, matches replies to them, and answers the requests of other workers.

    Args:
        receiver: Answers the requests of other workers.
        tasks: Owns the tasks that answer.
    """

    def __init__(self, receiver: Receiver, tasks: Tasks) -> None:
        self._receiver = receiver
        self._tasks = tasks
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._answering = 0

    async def ask(self, worker: str, payload: bytes, timeout_s: float, send: Callable[[int], Awaitable[bool]]) -> bytes:
        """Sends a request to another worker, and waits for its answer.

        Args:
            worker: The worker's name.
            payload: The request.
            timeout_s: Seconds to wait for the reply.
            send: Sends the request under a number. Returns False if there is no such worker.

        Raises:
            InvalidArgument: The request is too large.
            NoSuchWorker: There is no such worker.
            BrokerUnavailable: No answer arrived in time, the worker failed to answer, or too many requests wait.
        """
        if len(payload) > MAX_REQUEST_BYTES:
            raise InvalidArgument("payload", f"{len(payload)} bytes", f"at most {MAX_REQUEST_BYTES} bytes")
        if len(self._waiting) >= MAX_REQUESTS:
            raise BrokerUnavailable(
                f"{MAX_REQUESTS} requests of this worker already wait for a reply, which is the limit; try again later"
            )
        self._number += 1
        number = self._number
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                if not await send(number):
                    raise NoSuchWorker(worker)
                reply: Reply = await waiting
        except TimeoutError:
            raise BrokerUnavailable(f"the worker {shown(worker)} did not reply within {timeout_s:g} s") from None
        finally:
            del self._waiting[number]
        if reply.problem:
            raise BrokerUnavailable(f"the worker {shown(worker)} did not answer: {reply.problem}")
        return reply.answer

    def replied(self, number: int, reply: Reply) -> None:
        """Resolves the request that a reply answers. Ignores a late or duplicate reply."""
        waiting = self._waiting.get(number)
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)

    def answer(self, payload: bytes, timeout_s: float, reply: Callable[[Reply], Awaitable[None]]) -> None:
        """Answers a request of another worker, in a task. Rejects it if too many requests are in progress.

        Args:
            payload: The request.
            timeout_s: How long the requesting worker waits, in seconds.
            reply: Sends the reply.
        """
        self._tasks.spawn(self._answer(payload, timeout_s, reply), "answer")

    async def _answer(self, payload: bytes, timeout_s: float, reply: Callable[[Reply], Awaitable[None]]) -> None:
        if self._answering >= MAX_REQUESTS:
            await self._send(reply, Reply(b"", f"it is already answering {MAX_REQUESTS} requests, which is the limit"))
            return
        self._answering += 1
        try:
            async with asyncio.timeout(timeout_s) as timeout:
                answer = await self._receiver.answer(payload)
        except Exception:
            if timeout.expired():
                logger.debug("gave up answering a request of another worker: that worker has stopped waiting")
                return
            logger.exception("a request of another worker could not be answered")
            answer, problem = b"", "it failed"
        else:
            problem = ""
        finally:
            self._answering -= 1
        if len(answer) > MAX_REQUEST_BYTES:
            answer, problem = b"", f"its answer has {len(answer)} bytes; at most {MAX_REQUEST_BYTES} are allowed"
        await self._send(reply, Reply(answer, problem))

    @staticmethod
    async def _send(send: Callable[[Reply], Awaitable[None]], reply: Reply) -> None:
        try:
            await send(reply)
        except BrokerUnavailable as error:
            logger.debug("could not reply to another worker: %s", str(error))

    def close(self) -> None:
        """Fails all requests that wait for a reply."""
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(Reply(b"", "the broker is closed"))
