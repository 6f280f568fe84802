"""A session: what it writes and in which order, and that it ends once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hubbub.codec import Payload, encode
from hubbub.connections.session import Session
from hubbub.protocols import ClientProtocol, RawProtocol
from tests.wrapping import ARRAYS

RAW = RawProtocol(app_ping=False, client_frames=True)
HELLO = encode("hello")


class Writer:
    """A writer that notes what it is given, and takes it unless it is gone."""

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.congested = False
        self.gone = False

    def write(self, data: bytes) -> bool:
        self.calls.append(data)
        return not self.gone

    async def pace(self) -> None:
        self.calls.append("pace")


class World:
    """A session on a fake socket of a fake manager."""

    def __init__(self, *, speaks: ClientProtocol | None = None) -> None:
        self.writer = Writer()
        self.ended: list[bool] = []
        self.socket = SimpleNamespace(
            writer=self.writer,
            protocol=speaks,
            has_own_protocol=speaks is not None,
            sessions=[],
            flush=lambda: self.writer.calls.append("flush"),
        )
        self.protocol: ClientProtocol = RAW
        self.session = self.another()

    def another(self) -> Session:
        session = Session(cast(Any, self), cast(Any, self.socket), "ann", {"name": "Ann"}, 5.0)
        self.socket.sessions.append(session)
        return session

    def flush(self, session: Session) -> None:
        self.writer.calls.append("flush")

    def forget(self, session: Session, *, grace: bool) -> None:
        self.ended.append(grace)


def run(test: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        await test(World())

    asyncio.run(main())


def test_a_session_has_an_id_that_nobody_guesses() -> None:
    ids = {World().session.id for _ in range(100)}
    assert len(ids) == 100
    assert {len(each) for each in ids} == {22}


def test_a_message_is_framed_and_goes_behind_what_was_published_before() -> None:
    world = World()
    assert world.session.write(HELLO)
    assert world.writer.calls == ["flush", RAW.message(HELLO)]


def test_a_message_to_a_session_that_has_ended_is_not_written() -> None:
    world = World()
    world.session.mark_gone()
    assert not world.session.write(HELLO)
    assert RAW.message(HELLO) not in world.writer.calls


def test_a_session_that_ends_by_the_flush_before_its_message_is_not_written_to() -> None:
    world = World()
    world.socket.flush = world.session.mark_gone
    assert not world.session.write(HELLO)
    assert world.writer.calls == []


@pytest.mark.parametrize(("congested", "pauses"), [(False, []), (True, ["pace"])])
def test_a_send_pauses_only_where_much_waits(congested: bool, pauses: list[str]) -> None:
    async def test(world: World) -> None:
        world.writer.congested = congested
        assert await world.session.send(HELLO)
        assert world.writer.calls == ["flush", RAW.message(HELLO), *pauses]

    run(test)


def test_a_send_that_is_not_taken_says_so() -> None:
    async def test(world: World) -> None:
        world.writer.gone = True
        assert not await world.session.send(HELLO)

    run(test)


@pytest.mark.parametrize("speaks", [None, ARRAYS])
def test_a_session_speaks_the_protocol_of_its_socket_or_else_the_managers(speaks: ClientProtocol | None) -> None:
    world = World(speaks=speaks)
    payload: Payload = encode({"n": 1})
    world.session.write(payload)
    assert world.writer.calls[-1] == (RAW if speaks is None else ARRAYS).message(payload)


def test_the_end_of_its_socket_is_the_managers_to_handle() -> None:
    world = World()
    world.session.flush()
    world.session.end(grace=True)
    world.session.end(grace=False)
    assert (world.writer.calls, world.ended) == (["flush"], [True, False])


def test_a_session_ends_once_and_wakes_those_who_wait() -> None:
    async def test(world: World) -> None:
        session = world.session
        assert repr(session) == f"<Session {session.id} user_id='ann' open>"
        session.gone = asyncio.Event()
        assert session.mark_gone()
        assert not session.mark_gone()
        assert session.gone.is_set()
        assert repr(session).endswith(" closed>")
        assert world.socket.sessions == []

    run(test)


def test_the_end_of_one_session_leaves_those_of_other_managers_on_the_socket() -> None:
    world = World()
    other = world.another()
    world.session.mark_gone()
    assert world.socket.sessions == [other]
    assert other.is_open
