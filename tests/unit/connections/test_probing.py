"""Probes: a user's connections that give no sign of life make room, and the others stay. The sockets are fakes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, cast

import pytest

from hubbub.connections import probing
from hubbub.connections.probing import FRESH_S, Prober


class OpenPing:
    """A ping to a socket, until it is ended."""

    def __init__(self, socket: Socket, on_data: Callable[[], None]) -> None:
        self.socket = socket
        self.heard = on_data
        self.answered = False
        self.ended = False

    def answer(self) -> None:
        self.answered = True
        self.heard()

    def end(self) -> bool:
        self.ended = True
        return self.answered or self.socket.drains


class Socket:
    """A socket that can be asked, and notes when it is aborted.

    Attributes:
        pings: Those that it was asked.
        answers: Whether its client answers at once.
        drains: Whether its client takes what waits for it, which is seen at the end.
        askable: Cleared, the server gives no way to ask.
    """

    def __init__(self, *, answers: bool = False, drains: bool = False, askable: bool = True) -> None:
        self.pings: list[OpenPing] = []
        self.answers, self.drains, self.askable = answers, drains, askable
        self.answered_at = -inf
        self.aborts = 0

    def ping(self, on_data: Callable[[], None]) -> OpenPing | None:
        if not self.askable:
            return None
        self.pings.append(ping := OpenPing(self, on_data))
        if self.answers:
            asyncio.get_running_loop().call_soon(ping.answer)
        return ping

    def on_vanished(self) -> None:
        self.aborts += 1


async def make_room(prober: Prober, *sockets: Socket, user: str = "ann") -> None:
    await prober.make_room(user, cast(Any, sockets))


def run(test: Callable[[Prober], Awaitable[None]]) -> None:
    async def main() -> None:
        prober = Prober()
        await test(prober)
        assert not prober._under_way, "no probe is left"

    asyncio.run(main())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that do not answer in this pass of the loop have had their time."""
    monkeypatch.setattr(probing, "PATIENCE_S", 0.0)
    monkeypatch.setattr(probing, "_CATCH_UP_S", 0.0)


async def asked(socket: Socket) -> OpenPing:
    """The ping to a socket, once it was asked."""
    async with asyncio.timeout(30):
        while not socket.pings:  # noqa: ASYNC110 - it takes a pass or two
            await asyncio.sleep(0)
    return socket.pings[-1]


@pytest.mark.usefixtures("impatient")
def test_only_a_connection_that_gives_no_sign_of_life_is_aborted() -> None:
    async def test(prober: Prober) -> None:
        silent, draining, unaskable = Socket(), Socket(drains=True), Socket(askable=False)
        await make_room(prober, silent, draining, unaskable)
        assert [each.aborts for each in (silent, draining, unaskable)] == [1, 0, 0]
        assert all(ping.ended for each in (silent, draining) for ping in each.pings)

    run(test)


def test_the_wait_ends_with_the_last_answer() -> None:
    async def test(prober: Prober) -> None:
        first, last = Socket(), Socket()
        probe = asyncio.create_task(make_room(prober, first, last))
        (await asked(first)).answer()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not probe.done()
        (await asked(last)).answer()
        await probe
        assert (first.aborts, last.aborts) == (0, 0)

    run(test)


def test_a_connection_that_answered_a_moment_ago_is_not_asked_again() -> None:
    async def test(prober: Prober) -> None:
        socket = Socket(answers=True)
        await make_room(prober, socket)
        await make_room(prober, socket)
        assert len(socket.pings) == 1
        socket.answered_at -= FRESH_S
        await make_room(prober, socket)
        assert len(socket.pings) == 2
        assert socket.aborts == 0

    run(test)


def test_a_user_without_connections_is_not_waited_for() -> None:
    async def test(prober: Prober) -> None:
        await make_room(prober)

    run(test)


def test_each_user_has_one_probe_at_a_time_and_does_not_wait_for_anothers() -> None:
    async def test(prober: Prober) -> None:
        one, two, of_bob = Socket(), Socket(), Socket(answers=True)
        first = asyncio.create_task(make_room(prober, one))
        ping = await asked(one)
        second = asyncio.create_task(make_room(prober, two))
        await make_room(prober, of_bob, user="bob")
        assert two.pings == []
        ping.answer()
        await first
        (await asked(two)).answer()
        await second

    run(test)


def test_a_probe_that_is_cancelled_ends_its_questions_and_aborts_nobody() -> None:
    async def test(prober: Prober) -> None:
        socket = Socket()
        first = asyncio.create_task(make_room(prober, socket))
        ping = await asked(socket)
        second = asyncio.create_task(make_room(prober, of_second := Socket(answers=True)))
        first.cancel()
        await asyncio.wait([first])
        assert first.cancelled()
        assert (ping.ended, socket.aborts) == (True, 0)
        await second
        assert of_second.pings

    run(test)
