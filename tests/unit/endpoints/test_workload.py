from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from hubbub.endpoints.workload import Workload
from hubbub.protocols.centrifugo.messages import Command, Pong
from hubbub.tasks import Tasks

NO_SOCKET: Any = None  # only a queue asks for it


async def no_answer(command: object) -> None:
    raise NotImplementedError


def test_a_task_that_ends_as_its_client_does_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        tasks = Tasks()
        workload = Workload(tasks, NO_SOCKET, no_answer)
        ending = workload.spawn(asyncio.sleep(0))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert ending.done()  # in this pass of the loop, so the workload does not know yet
        workload.stop(30.0)
        await tasks.close(30.0)
        assert not ending.cancelled()

    asyncio.run(main())
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []


def test_what_still_runs_too_long_after_its_client_is_gone_is_canceled() -> None:
    async def main() -> None:
        tasks = Tasks()
        workload = Workload(tasks, NO_SOCKET, no_answer)
        hanging = workload.spawn(asyncio.Event().wait())  # type: ignore[arg-type]  # its result is not used
        workload.stop(0.01)
        await asyncio.wait([hanging])
        assert hanging.cancelled()
        await tasks.close(30.0)

    asyncio.run(main())


OPEN: Any = SimpleNamespace(closed=None)


def test_queued_commands_share_a_task_that_ends_with_the_queue() -> None:
    async def main() -> None:
        handled: list[tuple[object, object]] = []

        async def answer(command: object) -> None:
            await asyncio.sleep(0)
            handled.append((command, asyncio.current_task()))

        tasks = Tasks()
        workload = Workload(tasks, OPEN, answer)
        for number in range(3):
            workload.queue(Command(number, Pong()))
        assert len(tasks) == 1
        await tasks.close(30.0)
        assert [command for command, _ in handled] == [Command(number, Pong()) for number in range(3)]
        assert len({task for _, task in handled}) == 1
        workload.queue(Command(3, Pong()))
        await tasks.close(30.0)
        assert len(handled) == 4

    asyncio.run(main())


def test_a_queued_command_that_runs_too_long_after_its_client_is_gone_is_canceled() -> None:
    async def main() -> None:
        ended: list[BaseException] = []

        async def answer(command: object) -> None:
            try:
                await asyncio.Event().wait()
            except BaseException as error:
                ended.append(error)
                raise

        tasks = Tasks()
        workload = Workload(tasks, OPEN, answer)
        workload.queue(Command(1, Pong()))
        workload.queue(Command(2, Pong()))
        await asyncio.sleep(0)
        workload.stop(0.01)
        await tasks.close(30.0)
        assert [type(error) for error in ended] == [asyncio.CancelledError], "the second one was dropped"

    asyncio.run(main())
