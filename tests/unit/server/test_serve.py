"""The supervisor's end. What a server does with signals is in tests/integration/test_run.py."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import hubbub.server.serve
from hubbub.server.serve import Supervisor


class Worker:
    """A process that ends when it is told to, or only when it is killed."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.sentinel, self._end = os.pipe()
        self.alive = True
        self.hangs = hangs
        self.told: list[str] = []

    def is_alive(self) -> bool:
        return self.alive

    def terminate(self) -> None:
        self.told.append("terminate")
        if not self.hangs:
            self.alive = False

    def kill(self) -> None:
        self.told.append("kill")
        self.alive = False

    def close(self) -> None:
        os.close(self.sentinel)
        os.close(self._end)


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    workers = [Worker(), Worker(hangs=True)]
    yield workers
    for worker in workers:
        worker.close()


def supervisor_of(workers: list[Worker], *signals: int) -> Supervisor:
    supervisor: Any = object.__new__(Supervisor)  # its constructor takes the process's signals
    supervisor.config = SimpleNamespace(drain_s=0.0)
    supervisor.signal_queue = [*signals]
    supervisor.processes = [SimpleNamespace(process=worker, join=lambda: None) for worker in workers]
    made: Supervisor = supervisor
    return made


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_waits_goes_on_to_the_workers(number: int, workers: list[Worker]) -> None:
    workers[1].hangs = False
    supervisor_of(workers, number).join_all()
    assert [worker.told for worker in workers] == [["terminate"], ["terminate"]]


def test_a_worker_that_hangs_is_killed(workers: list[Worker], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubbub.server.serve, "_WORKER_TIMEOUT_S", 0.0)
    supervisor_of(workers[1:], signal.SIGTERM).join_all()
    assert workers[1].told == ["terminate", "kill"]


def test_other_signals_do_not_hasten(workers: list[Worker], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubbub.server.serve, "_WORKER_TIMEOUT_S", 0.0)
    supervisor_of(workers, signal.SIGWINCH).join_all()
    assert [worker.told for worker in workers] == [["kill"], ["kill"]]
