"""The look at every socket once a second, on a clock that stands still but for `advance`."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, cast

import pytest

from hubbub.connections import sweeper as sweeper_module
from hubbub.connections.socket import Socket
from hubbub.connections.sweeper import Sweeper
from hubbub.lifecycle import Lifecycle
from hubbub.options import Limits
from hubbub.timers import Timers
from tests.unit.support import fake_loop

LIMITS = Limits(close_timeout_s=5.0)


class Transport:
    """What is left of a socket after its handler."""

    def __init__(self) -> None:
        self.lingers = False
        self.buffered = 0
        self.reading_stopped = False
        self.aborts = 0

    def abort(self) -> None:
        self.aborts += 1


class FakeSocket:
    """A socket that notes when it is checked."""

    def __init__(self, accepted: bool = True) -> None:
        self.accepted = accepted
        self.transport = Transport()
        self.checks: list[float] = []


def record_check(socket: FakeSocket, now: float) -> None:
    socket.checks.append(now)


class World:
    """A sweeper whose time a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, running: bool = True) -> None:
        self.loop = fake_loop()
        monkeypatch.setattr(asyncio, "get_running_loop", lambda: self.loop)
        monkeypatch.setattr(sweeper_module, "check", record_check)
        lifecycle, timers = Lifecycle(), Timers()
        timers.start(self.loop)
        if running:
            lifecycle.start()
        self.sweeper = Sweeper(LIMITS, lifecycle, timers)
        self.sweeper.start()

    def watch(self, *sockets: FakeSocket) -> None:
        for socket in sockets:
            self.sweeper.watch(cast(Socket, socket))

    def release(self, socket: FakeSocket) -> None:
        self.sweeper.release(cast(Socket, socket))

    @property
    def sockets(self) -> list[Any]:
        return list(self.sweeper.sockets)


def test_every_socket_is_checked_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    world, sockets = World(monkeypatch), [FakeSocket() for _ in range(100)]
    world.watch(*sockets)
    for _ in range(4 * sweeper_module._PARTS):
        world.loop.advance(1.0 / sweeper_module._PARTS)
    assert Counter(len(socket.checks) for socket in sockets).keys() <= {3, 4}
    for socket in sockets:
        gaps = [later - earlier for earlier, later in zip(socket.checks, socket.checks[1:], strict=False)]
        assert all(0.9 < gap < 1.1 for gap in gaps)


def test_a_socket_that_is_not_watched_any_more_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    world, socket = World(monkeypatch), FakeSocket()
    world.watch(socket, socket)
    world.sweeper.unwatch(cast(Socket, socket))
    world.sweeper.unwatch(cast(Socket, socket))
    world.loop.advance(3.0)
    assert socket.checks == []


def test_the_sockets_that_count_are_those_that_were_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    world, accepted, arriving = World(monkeypatch), FakeSocket(), FakeSocket(accepted=False)
    world.watch(accepted, arriving)
    assert world.sockets == [accepted]
    world.release(accepted)
    assert world.sockets == []


@pytest.mark.parametrize("left", ["buffered", "reading_stopped", "nothing but the answer to the close"])
def test_what_outlives_its_handler_is_aborted_in_time_unless_only_the_close_is_awaited(
    left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, socket = World(monkeypatch), FakeSocket()
    world.watch(socket)
    transport = socket.transport
    transport.lingers = True
    transport.buffered, transport.reading_stopped = int(left == "buffered"), left == "reading_stopped"
    world.release(socket)
    for _ in range(4):
        world.loop.advance(1.0)
    assert transport.aborts == 0
    for _ in range(4):
        world.loop.advance(1.0)
    assert transport.aborts == int(left in ("buffered", "reading_stopped"))


def test_what_is_over_in_time_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    world, socket = World(monkeypatch), FakeSocket()
    socket.transport.lingers, socket.transport.buffered = True, 1
    world.release(socket)
    world.loop.advance(1.0)
    socket.transport.lingers = False
    world.loop.advance(1.0)
    socket.transport.lingers = True  # another life, which is not the sweeper's to end
    for _ in range(9):
        world.loop.advance(1.0)
    assert socket.transport.aborts == 0


def test_a_handler_that_ends_after_its_manager_leaves_no_socket_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    world, socket = World(monkeypatch, running=False), FakeSocket()
    socket.transport.lingers = True
    world.release(socket)
    assert socket.transport.aborts == 1


def test_stop_aborts_what_has_not_gone_out(monkeypatch: pytest.MonkeyPatch) -> None:
    world, idle, full, lingering = World(monkeypatch), FakeSocket(), FakeSocket(), FakeSocket()
    world.watch(idle, full)
    full.transport.buffered = 1
    lingering.transport.lingers, lingering.transport.buffered = True, 1
    world.release(lingering)
    world.sweeper.stop()
    assert [each.transport.aborts for each in (idle, full, lingering)] == [0, 1, 1]
    assert world.sockets == []
