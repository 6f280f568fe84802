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
    assert (kicks.began_at(early), kicks.began_at(late)) == (100.0, 102.0)
    assert kicks.given_since("ann", 100.0) == OUT
    assert kicks.given_since("ann", 102.0) is None
    assert kicks.given_since("bob", 100.0) is None
    assert kicks.given_since(None, 100.0) is None
    kicks.end(early)
    assert len(kicks) == 0
    kicks.end(early)
    assert kicks.began_at(early) is None


def test_an_instruction_for_all_users_concerns_each(now: Any) -> None:
    kicks = KeptKicks()
    kicks.begin(waiting())
    kicks.keep(None, OUT, 100.0)
    assert kicks.given_since("ann", 100.0) == kicks.given_since(None, 100.0) == OUT


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
    assert kicks.given_since("bob", 100.0) is None
    assert kicks.given_since("ann", 101.0) == Kick(4006, "again")
    kicks.end(second)
    assert len(kicks) == 0


def test_nothing_is_kept_if_nobody_waits(now: Any) -> None:
    kicks = KeptKicks()
    kicks.keep("ann", OUT, 100.0)
    assert len(kicks) == 0


def test_a_client_that_was_accepted_in_its_handshake_waits_no_longer(now: Any) -> None:
    kicks, socket = KeptKicks(), waiting()
    kicks.begin_handshake(socket)
    socket.accepted = True
    assert kicks.began_at(socket) is None
    kicks.keep("ann", OUT, 100.0)
    assert len(kicks) == 0
    kicks.begin(socket)
    assert kicks.began_at(socket) == 100.0, "an endpoint looks up the user of a client that it has accepted"


def test_an_instruction_that_is_older_than_all_that_wait_is_not_kept(now: Any) -> None:
    """A broker may deliver it late."""
    kicks = KeptKicks()
    kicks.begin(waiting())
    kicks.keep("ann", OUT, 99.0)
    assert len(kicks) == 0


def test_a_handler_does_not_mean_its_own_client(now: Any) -> None:
    async def handler(kicks: KeptKicks, socket: Any) -> None:
        kicks.begin_handshake(socket)
        now.now_s += 1.0
        kicks.keep("ann", OUT, now.now_s)
        kicks.begin_again()

    kicks, others, own = KeptKicks(), waiting(), waiting()
    kicks.begin_handshake(others)
    context = contextvars.copy_context()
    with pytest.raises(StopIteration):
        context.run(handler(kicks, own).send, None)
    began_at = kicks.began_at(own)
    assert began_at == pytest.approx(101.0)
    assert kicks.given_since("ann", began_at or 0.0) is None
    assert kicks.began_at(others) == 100.0
    assert kicks.given_since("ann", 100.0) == OUT
    own.accepted = True
    kicks.end(own)
    context.run(kicks.begin_again)
    assert kicks.began_at(own) is None
    gone = weakref.ref(own)
    del own
    assert gone() is None, "the context of a handler may live on, and its socket does not"
