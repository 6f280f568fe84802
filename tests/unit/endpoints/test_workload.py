from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from hubbub.endpoints.workload import Workload
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
