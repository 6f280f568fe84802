"""The work that the commands of one client cause: its order, and its bounds.

Theory of operation. Commands that have to be handled in order wait in a queue. One task handles them one after the
other. It lives only while the queue is not empty, so an idle client has no task. Any other work is a task of its own.

Both are bounded, in number and in bytes: each may exceed its bytes by one message. At a bound, the conversation waits
for `until`, and reads nothing from its client meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Coroutine
from functools import partial
from math import inf
from typing import Any, Final

from ..connections.socket import Socket
from ..protocols.centrifugo.messages import Command
from ..tasks import Tasks
from .client import Ended

MAX_WAITING: Final = 64
"""Maximum number of requests of one client that are queued or run concurrently."""

MAX_TASKS: Final = 512
"""Maximum number of tasks of one client, including those of subscriptions and refreshes."""


class Workload:
    """The queue and the tasks of one client.

    Args:
        tasks: The owner of the tasks.
        socket: The client's socket. Once it is closed, nothing more is taken from the queue.
        answer: Handles a command, and replies to it.
        max_bytes: From how many bytes of commands on nothing more begins: of those that are queued or run concurrently,
            and of those that other tasks handle. None for no bound.
    """

    def __init__(
        self,
        tasks: Tasks,
        socket: Socket,
        answer: Callable[[Command], Coroutine[Any, Any, None]],
        max_bytes: int | None = None,
    ) -> None:
        self._owner = tasks
        self._socket = socket
        self._answer = answer
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: deque[tuple[Command, Collection[asyncio.Future[None]]]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._concurrent = 0
        self._max_bytes = inf if max_bytes is None else max_bytes
        self._waiting_bytes = 0
        self._task_bytes = 0
        self._change: asyncio.Event | None = None

    def has_turn(self) -> bool:
        """Returns whether one more request may be queued, or begin concurrently."""
        return len(self._waiting) + self._concurrent < MAX_WAITING and self._waiting_bytes < self._max_bytes

    def has_room(self) -> bool:
        """Returns whether one more task may begin."""
        return len(self._tasks) < MAX_TASKS and self._task_bytes < self._max_bytes

    async def until(self, may_begin: Callable[[], bool]) -> None:
        """Waits until `has_turn` or `has_room` says yes.

        Raises:
            Ended: The connection has ended.
        """
        try:
            while not may_begin():
                if self._socket.closed is not None:
                    raise Ended
                self._change = asyncio.Event()
                await self._change.wait()
        finally:
            self._change = None

    def queue(self, command: Command, after: Collection[asyncio.Future[None]] = ()) -> None:
        """Appends a command to the queue.

        Args:
            command: The command.
            after: The command also waits for these to be done.
        """
        self._waiting.append((command, after))
        self._waiting_bytes += command.size
        if self._worker is None:
            self._worker = self._owner.spawn(self._work(), "endpoint")

    def begin(self, command: Command) -> None:
        """Handles a command at once, concurrently with the queue."""
        self._concurrent += 1
        self._waiting_bytes += command.size
        self.spawn(self._answer(command)).add_done_callback(partial(self._end, command.size))

    def spawn(self, work: Coroutine[Any, Any, None], size: int = 0) -> asyncio.Task[None]:
        """Starts a task that is no request.

        Args:
            work: What it does.
            size: The size of the command that it handles.
        """
        task = self._owner.spawn(work, "endpoint")
        self._tasks.add(task)
        self._task_bytes += size
        task.add_done_callback(partial(self._done, size))
        return task

    def stop(self, timeout_s: float | None) -> None:
        """Drops the queue, and cancels the tasks that are still running after ``timeout_s``; None for never."""
        self._waiting.clear()
        self._wake()
        tasks = tuple(self._tasks) if self._worker is None else (self._worker, *self._tasks)
        if tasks:
            self._owner.spawn(_abandon(tasks, timeout_s), "endpoint")

    async def _work(self) -> None:
        try:
            while self._waiting and self._socket.closed is None:
                command, after = self._waiting.popleft()
                self._waiting_bytes -= command.size
                self._wake()
                if after:
                    await asyncio.wait(after)
                await self._answer(command)
        finally:
            self._worker = None

    def _end(self, size: int, task: asyncio.Task[None]) -> None:
        self._concurrent -= 1
        self._waiting_bytes -= size
        self._wake()

    def _done(self, size: int, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._task_bytes -= size
        self._wake()

    def _wake(self) -> None:
        if self._change is not None:
            self._change.set()


async def _abandon(tasks: tuple[asyncio.Task[None], ...], timeout_s: float | None) -> None:
    _, running = await asyncio.wait(tasks, timeout=timeout_s)
    for task in running:
        task.cancel()
