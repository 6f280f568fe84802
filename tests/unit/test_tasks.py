"""Background tasks have an owner."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from hubbub.tasks import Tasks


async def forever() -> None:
    await asyncio.Event().wait()


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await main()

    asyncio.run(bounded())


def test_a_task_runs_and_is_forgotten_when_it_ends() -> None:
    async def main() -> None:
        tasks = Tasks()
        done = asyncio.Event()

        async def work() -> None:
            done.set()

        task = tasks.spawn(work(), "work")
        assert task.get_name() == "hubbub:work"
        assert len(tasks) == 1
        await task
        await asyncio.sleep(0)
        assert done.is_set()
        assert len(tasks) == 0

    run(main)


def test_a_task_that_fails_is_logged_and_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        tasks = Tasks()

        async def fail() -> None:
            raise RuntimeError("a mistake")

        other = tasks.spawn(forever(), "other")
        task = tasks.spawn(fail(), "fails")
        await asyncio.wait([task])
        await asyncio.sleep(0)
        assert len(tasks) == 1
        assert not other.done()
        await tasks.close(0.0)

    run(main)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("hubbub", logging.ERROR)
    assert "hubbub:fails" in record.getMessage()
    assert record.exc_info is not None


def test_close_waits_for_what_ends_in_time() -> None:
    async def main() -> None:
        tasks = Tasks()
        steps: list[str] = []

        async def work() -> None:
            for _ in range(5):
                await asyncio.sleep(0)
            steps.append("done")

        tasks.spawn(work(), "work")
        await tasks.close(5.0)
        assert steps == ["done"]
        assert len(tasks) == 0

    run(main)


def test_close_cancels_what_does_not_end_in_time(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        tasks = Tasks()
        task = tasks.spawn(forever(), "work")
        await tasks.close(0.0)
        assert task.cancelled()
        assert len(tasks) == 0

    run(main)
    assert not caplog.records, "a cancelled task has not failed"


def test_close_without_tasks_is_nothing() -> None:
    async def main() -> None:
        tasks = Tasks()
        await tasks.close(5.0)
        await tasks.close(5.0)

    run(main)


def test_close_waits_for_what_a_task_begins_as_it_ends() -> None:
    """A connection that is closed at shutdown says that its user leaves, in a task of its own."""

    async def main() -> None:
        tasks = Tasks()
        steps: list[str] = []

        async def depart() -> None:
            for _ in range(5):
                await asyncio.sleep(0)
            steps.append("departed")

        async def close() -> None:
            await asyncio.sleep(0)
            tasks.spawn(depart(), "depart")

        tasks.spawn(close(), "close")
        await tasks.close(5.0)
        assert steps == ["departed"]
        assert len(tasks) == 0

    run(main)


def test_close_leaves_no_task_that_another_began_when_it_was_cancelled() -> None:
    async def main() -> None:
        tasks = Tasks()

        async def work() -> None:
            try:
                await forever()
            finally:
                tasks.spawn(forever(), "late")

        tasks.spawn(work(), "work")
        await asyncio.sleep(0)
        await tasks.close(0.0)
        left = [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("hubbub:")]
        assert left == []
        assert len(tasks) == 0

    run(main)
