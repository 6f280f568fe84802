"""What every integration test gets: a backend for async tests, both event loops, and a watch for what leaks."""

from __future__ import annotations

import asyncio
import functools
import gc
import sys
import time
import weakref
from collections.abc import Generator, Iterator

import pytest

from hubbub import Connection
from hubbub.connections.session import Session
from tests.integration.redis_server import canaries as canaries  # fixtures
from tests.integration.redis_server import name as name
from tests.integration.redis_server import prefix as prefix
from tests.integration.redis_server import redis_that_forgets as redis_that_forgets
from tests.integration.redis_server import redis_that_remembers as redis_that_remembers
from tests.integration.redis_server import served as served
from tests.integration.redis_server import shared_redis as shared_redis
from tests.integration.redis_server import workers_that_are_left_empty as workers_that_are_left_empty

_DEADLINE_S = 15.0
_failed = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    """The event loop of the server: for tests that are to hold on both."""
    name: str = request.param
    if name == "uvloop":
        pytest.importorskip("uvloop")
    return name


@pytest.fixture(scope="module", params=["uvloop", pytest.param("asyncio", marks=pytest.mark.slow)])
def either_loop(request: pytest.FixtureRequest) -> str:
    """The event loop of the server, for tests that hardly depend on it: one of the two is for ``--full``."""
    name: str = request.param
    if name == "uvloop":
        pytest.importorskip("uvloop")
    return name


@pytest.fixture(scope="module")
def quick_sweeps() -> Iterator[None]:
    """Lets the managers look once in 50 ms, not once a second, for who is gone and who does not read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hubbub.connections.sweeper._SWEEP_S", 0.05)
        yield


class Clock:
    """The time by which servers in this process judge how fast messages come. It moves when a test moves it."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("hubbub.connections.socket.monotonic", clock)
    return clock


class WallClock:
    """The time of day by which tokens expire in this process. It moves when a test moves it."""

    def __init__(self) -> None:
        self.now_s = float(int(time.time()))

    def time(self) -> float:
        return self.now_s


@pytest.fixture
def wall_clock(monkeypatch: pytest.MonkeyPatch) -> WallClock:
    clock = WallClock()
    monkeypatch.setattr("hubbub.connections.socket.time", clock.time)
    monkeypatch.setattr("hubbub.auth.jwt.time", clock)
    return clock


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report


_born: set[weakref.ref[object]] = set()


def _watched(made: type[Connection] | type[Session]) -> None:
    """Records each connection or session that is made from now on."""
    init = made.__init__

    @functools.wraps(init)
    def recorded(self: object, *args: object, **kwargs: object) -> None:
        init(self, *args, **kwargs)  # type: ignore[arg-type]  # whatever it takes
        _born.add(weakref.ref(self, _born.discard))

    setattr(made, "__init__", recorded)  # noqa: B010 - a type checker allows no assignment to it


_watched(Connection)
_watched(Session)


def _tasks() -> list[asyncio.Task[object]]:
    """The tasks of all event loops. asyncio's own function gives those of one loop."""
    if sys.version_info >= (3, 14):
        return [each for each in gc.get_objects() if type(each) is asyncio.Task]
    known = getattr(asyncio.tasks, "_scheduled_tasks" if sys.version_info >= (3, 12) else "_all_tasks")
    while True:
        try:
            return list(known)
        except RuntimeError:  # the thread of a server made a task meanwhile
            pass


def _living() -> dict[weakref.ref[object], object]:
    """The connections that exist, and hubbub's tasks; garbage that was not collected yet among them."""
    found: dict[weakref.ref[object], object] = {each: made for each in tuple(_born) if (made := each()) is not None}
    found |= {weakref.ref(each): each for each in _tasks() if each.get_name().startswith("hubbub:")}
    return found


@pytest.fixture(scope="session", autouse=True)
def _imports_are_no_garbage() -> Iterator[None]:
    """Takes what exists before the first test out of the collector's sight, so that looking for leaks is quick."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _nothing_leaks(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fails a test after which a connection or a task of hubbub's lives on."""
    before = set(_living())
    yield
    if request.node.stash.get(_failed, False):
        return  # the traceback holds on to what the test held
    for record in (*caplog.get_records("call"), *caplog.records):
        record.exc_info = None  # and so does that of a log record
    deadline = time.monotonic() + _DEADLINE_S
    while left := [repr(made) for each, made in _living().items() if each not in before]:
        if time.monotonic() > deadline:
            pytest.fail("left behind: " + ", ".join(left), pytrace=False)
        time.sleep(0.01)
        gc.collect()  # not before there is a reason to: it takes longer than most tests do
