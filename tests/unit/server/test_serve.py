"""The supervisor: workers that do not answer, and its end. tests/integration/test_run.py has what a server does."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from multiprocessing import Pipe
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

import hubbub.server.serve
from hubbub.server.serve import Config, End, Supervisor


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


# Workers that do not answer


class Answering:
    """The supervisor's end of a worker whose answers the test sends."""

    def __init__(self) -> None:
        self.parent_conn, self.worker = Pipe()
        self.pid = 4711
        self.killed = False

    def kill(self) -> None:
        self.killed = True

    def close(self) -> None:
        self.parent_conn.close()
        self.worker.close()


@pytest.fixture
def answering() -> Iterator[Answering]:
    process = Answering()
    yield process
    process.close()


def checked(process: Any, *signals: int, timeout_s: float = 600.0) -> bool:
    """What the supervisor finds; a test that waits for the timeout of ten minutes fails."""
    supervisor = supervisor_of([], *signals)
    supervisor.config.timeout_worker_healthcheck = timeout_s  # type: ignore[assignment]  # a shorter one than uvicorn's
    return supervisor._answers(process)


def test_a_worker_has_longer_than_uvicorn_gives_it() -> None:
    assert Config("app:app", drain_s=5.0).timeout_worker_healthcheck == 30
    assert Config("app:app", drain_s=5.0, timeout_worker_healthcheck=90).timeout_worker_healthcheck == 90


def test_a_worker_that_answers_is_kept(answering: Answering) -> None:
    for _ in range(3):
        answering.worker.send(True)
        assert checked(answering)
        assert answering.worker.recv() == b"ping"
    assert not answering.parent_conn.poll()
    assert not answering.killed


def test_a_worker_that_does_not_answer_in_time_is_killed(
    answering: Answering, caplog: pytest.LogCaptureFixture
) -> None:
    assert not checked(answering, timeout_s=0.0)
    assert answering.killed
    assert caplog.messages == ["worker 4711 has not answered for 0 s: replacing it"]


def test_a_worker_that_has_ended_is_noticed_at_once(answering: Answering) -> None:
    answering.worker.close()
    assert not checked(answering)
    assert not answering.killed


def test_a_signal_is_not_kept_waiting_by_a_worker_that_does_not_answer(answering: Answering) -> None:
    assert checked(answering, signal.SIGTERM)
    assert not answering.killed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_end_is_not_kept_waiting_by_a_restart(number: int) -> None:
    signals: list[int] = [signal.SIGWINCH]
    end = End(signals)
    assert not end.is_set()
    signals.append(number)
    assert end.is_set()  # `Process.wait_until_ready` asks for this
    signals.clear()
    assert not end.is_set()
    end.set()
    assert end.is_set()


def test_at_the_end_no_answer_is_awaited(answering: Answering) -> None:
    supervisor: Any = supervisor_of([])
    supervisor.processes = [answering]
    supervisor.should_exit = Event()
    supervisor.should_exit.set()
    supervisor.keep_subprocess_alive()
    assert not answering.worker.poll()
