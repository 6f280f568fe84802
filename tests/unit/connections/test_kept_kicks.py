"""Instructions to disconnect users are kept as long as they may concern a client whose user is not known yet."""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from typing import Any, cast

import pytest

from hubbub.connections.kept_kicks import KeptKicks
from hubbub.connections.socket import Socket
from hubbub.envelope import Kick

OUT = Kick(4005, "out")


class Waiting:
    """A socket, as far as it matters here."""

    accepted = False


def waiting() -> Any:
    return cast("Socket", Waiting())


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Any:
    class Loop:
        now_s = 100.0

        def time(self) -> float:
            return self.now_s

    loop = Loop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    return loop


@pytest.mark.parametrize("begin", [KeptKicks.begin_handshake, KeptKicks.begin])
def test_an_instruction_is_kept_for_clients_that_waited_when_it_was_given(begin: Any, now: Any) -> None:
    kicks, early, late = KeptKicks(), waiting(), waiting()
    begin(kicks, early)
    now.now_s = 101.0
    kicks.keep("ann", OUT, 101.0)
    now.now_s = 102.0
    begin(kicks, late)
    assert kicks.missed(early, "ann") == (100.0, OUT)
    assert kicks.missed(late, "ann") == (102.0, None)
    assert kicks.missed(early, "bob") == kicks.missed(early, None) == (100.0, None)
    kicks.end(early)
    assert len(kicks) == 0
    kicks.end(early)
    now.now_s = 103.0
    assert kicks.missed(early, "ann") == (103.0, None)


def test_an_instruction_for_all_users_concerns_each(now: Any) -> None:
    kicks, socket = KeptKicks(), waiting()
    kicks.begin(socket)
    kicks.keep(None, OUT, 100.0)
    assert kicks.missed(socket, "ann") == kicks.missed(socket, None) == (100.0, OUT)


def test_the_latest_instruction_for_a_user_is_kept_while_anybody_waits_for_it(now: Any) -> None:
    kicks, first, second = KeptKicks(), waiting(), waiting()
    kicks.begin(first)
    kicks.keep("ann", OUT, 100.0)
    kicks.keep("bob", OUT, 100.5)
    now.now_s = 101.0
    kicks.begin(second)
    kicks.keep("ann", Kick(4006, "again"), 102.0)
    assert len(kicks) == 2
    kicks.end(first)
    assert len(kicks) == 1
    assert kicks.missed(second, "ann") == (101.0, Kick(4006, "again"))
    kicks.end(second)
    assert len(kicks) == 0


def test_nothing_is_kept_if_nobody_waits(now: Any) -> None:
    kicks = KeptKicks()
    kicks.keep("ann", OUT, 100.0)
    assert len(kicks) == 0


def test_an_accepted_client_waits_for_a_time(now: Any) -> None:
    """Its handler may look up the user from now on, or never."""
    kicks, socket = KeptKicks(), waiting()
    kicks.begin_handshake(socket)
    socket.accepted = True
    now.now_s = 130.0
    kicks.keep("ann", OUT, 129.0)
    assert kicks.missed(socket, "ann") == (100.0, OUT)
    now.now_s = 131.0
    assert kicks.missed(socket, "ann") == (131.0, None)
    kicks.keep("bob", OUT, 131.0)
    assert len(kicks) == 0
    kicks.begin(socket)
    assert kicks.missed(socket, "ann") == (131.0, None), "an endpoint looks up the user of a client it has accepted"


def test_an_instruction_that_is_older_than_all_that_wait_is_not_kept(now: Any) -> None:
    """A broker may deliver it late."""
    kicks = KeptKicks()
    kicks.begin(waiting())
    kicks.keep("ann", OUT, 99.0)
    assert len(kicks) == 0


class Handler:
    """A handler of a client in its handshake, in a context of its own."""

    def __init__(self, kicks: KeptKicks) -> None:
        self.kicks, self.socket = kicks, waiting()
        self.context = contextvars.copy_context()
        self.context.run(kicks.begin_handshake, self.socket)

    def disconnects(self, user: str, at: float) -> None:
        def disconnect() -> None:
            with self.kicks.own(user):
                self.kicks.keep(user, Kick(4001, "opened in another tab"), at)

        self.context.run(disconnect)


def test_a_handler_does_not_mean_its_own_client(now: Any) -> None:
    kicks, others = KeptKicks(), waiting()
    kicks.begin_handshake(others)
    handler = Handler(kicks)
    now.now_s = 101.0
    handler.disconnects("ann", 101.0)
    began_at, kick = kicks.missed(handler.socket, "ann")
    assert kick is None
    assert 101.0 < began_at < 101.001
    assert kicks.missed(others, "ann") == (100.0, Kick(4001, "opened in another tab"))
    now.now_s = 102.0
    kicks.keep("ann", OUT, 102.0)
    assert kicks.missed(handler.socket, "ann")[1] == OUT, "which is given later, and not by the handler"


@pytest.mark.parametrize("disconnected", ["ann", "bob"])
def test_what_others_said_before_a_handler_disconnects_a_user_holds(now: Any, disconnected: str) -> None:
    kicks = KeptKicks()
    handler = Handler(kicks)
    kicks.keep("ann", OUT, 100.5)
    now.now_s = 101.0
    for _ in range(2):
        handler.disconnects(disconnected, 101.0)
    assert kicks.missed(handler.socket, "ann")[1] == OUT


def test_a_context_that_lives_on_holds_no_socket(now: Any) -> None:
    kicks = KeptKicks()
    handler = Handler(kicks)
    kicks.end(handler.socket)
    handler.disconnects("ann", 101.0)
    assert kicks.missed(handler.socket, "ann") == (100.0, None)
    gone = weakref.ref(handler.socket)
    del handler.socket
    assert gone() is None
