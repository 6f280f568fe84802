"""Attendance: what a worker reports to the broker about the presence of its sessions, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from hubbub.brokers.base import Presence
from hubbub.connections.session import Manager, Membership, Session
from hubbub.connections.socket import Socket
from hubbub.names import EVERYONE_NAME, user_room
from hubbub.rooms.attendance import Attendance
from hubbub.tasks import Tasks
from hubbub.timers import Timers
from tests.unit.rooms.subscriber import RAW
from tests.unit.rooms.test_room import FakeSocket, FakeWriter

HOUR_S = 3600.0

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Reports:
    """The broker's presence: notes what is reported, and answers an ``enter`` when a test lets it."""

    def __init__(self) -> None:
        self.made: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
        self.going = asyncio.Event()
        self.going.set()

    async def enter(self, channel: str, user: str | None, connection_id: str, info: Any, room_info: Any) -> None:
        self.made.put_nowait(("enter", channel, user, connection_id))
        await self.going.wait()

    async def linger(self, channel: str, user: str, connection_id: str, grace_s: float) -> None:
        self.made.put_nowait(("linger", channel, user, connection_id, grace_s))

    async def exit(self, channel: str, user: str | None, connection_id: str) -> None:
        self.made.put_nowait(("exit", channel, user, connection_id))

    async def next(self) -> tuple[Any, ...]:
        return await asyncio.wait_for(self.made.get(), 5.0)


class Worker:
    def __init__(self) -> None:
        self.reports, self.tasks, self.timers = Reports(), Tasks(), Timers()
        self.timers.start(asyncio.get_running_loop())
        self.attendance = Attendance(cast(Presence, self.reports), self.tasks, self.timers)

    def session(self, user: str | None = "ann", *channels: str, began_at: float = 0.0) -> Session:
        socket = cast(Socket, FakeSocket(FakeWriter(lambda message: None), RAW))
        session = Session(cast(Manager, self), socket, user, None, began_at=began_at)
        for channel in channels:
            session.memberships[channel] = Membership(began_at)
        return session


@asynccontextmanager
async def serving() -> AsyncIterator[Worker]:
    worker = Worker()
    try:
        yield worker
    finally:
        await worker.tasks.close(1.0)
        worker.timers.stop()


async def test_a_session_enters_with_the_grace_period_of_the_room() -> None:
    async with serving() as worker:
        ann = worker.session("ann", "lobby")
        await worker.attendance.enter(ann, "lobby", 5.0)
        assert await worker.reports.next() == ("enter", "lobby", "ann", ann.id)
        assert ann.memberships["lobby"].grace_s == 5.0


async def test_only_users_in_rooms_of_the_app_and_of_everyone_are_reported() -> None:
    async with serving() as worker:
        own = user_room("ann")
        ann, anonymous, gone = (
            worker.session("ann", own, EVERYONE_NAME),
            worker.session(None, "lobby"),
            worker.session(),
        )
        await worker.attendance.enter(ann, own, 5.0)
        await worker.attendance.enter(anonymous, "lobby", 5.0)
        await worker.attendance.enter(gone, "lobby", 5.0)
        await worker.attendance.enter(ann, EVERYONE_NAME, 5.0)
        assert await worker.reports.next() == ("enter", EVERYONE_NAME, "ann", ann.id)
        assert worker.reports.made.empty()


async def test_a_session_that_leaves_while_it_enters_exits_again() -> None:
    async with serving() as worker:
        ann = worker.session("ann", "lobby")
        worker.reports.going.clear()
        entering = asyncio.create_task(worker.attendance.enter(ann, "lobby", 5.0))
        assert (await worker.reports.next())[0] == "enter"
        del ann.memberships["lobby"]
        assert worker.attendance.leave(ann, ["lobby"])
        assert await worker.reports.next() == ("exit", "lobby", "ann", ann.id)
        worker.reports.going.set()
        await entering
        assert await worker.reports.next() == ("exit", "lobby", "ann", ann.id)


@pytest.mark.parametrize("ended", [False, True], ids=["in its grace period", "after its grace period"])
async def test_a_session_that_is_lost_while_it_enters_stays_for_its_grace_period(ended: bool) -> None:
    async with serving() as worker:
        ann = worker.session("ann", "lobby")
        worker.reports.going.clear()
        entering = asyncio.create_task(worker.attendance.enter(ann, "lobby", HOUR_S))
        assert (await worker.reports.next())[0] == "enter"
        del ann.memberships["lobby"]
        worker.attendance.lose(ann, {HOUR_S: ["lobby"]})
        assert await worker.reports.next() == ("linger", "lobby", "ann", ann.id, HOUR_S)
        if ended:
            worker.attendance.end_graces(user_room("ann"), HOUR_S)
            assert (await worker.reports.next())[0] == "exit"
        worker.reports.going.set()
        await entering
        again = ("exit", "lobby", "ann", ann.id) if ended else ("linger", "lobby", "ann", ann.id, HOUR_S)
        assert await worker.reports.next() == again


async def test_a_session_that_was_present_nowhere_has_nothing_to_leave() -> None:
    async with serving() as worker:
        assert worker.attendance.leave(worker.session(None), []) is None
        assert worker.attendance.leave(worker.session("ann"), []) is None
        worker.attendance.lose(worker.session(None), {})
        worker.attendance.lose(worker.session("ann"), {})
        assert not len(worker.tasks)
        assert not len(worker.timers)


async def test_a_lost_session_lingers_and_exits_when_its_grace_period_is_over() -> None:
    async with serving() as worker:
        ann = worker.session("ann")
        worker.attendance.lose(ann, {0.01: ["lobby"], 0.0: ["kitchen"]})
        made = {await worker.reports.next() for _ in range(2)}
        assert made == {("linger", "lobby", "ann", ann.id, 0.01), ("exit", "kitchen", "ann", ann.id)}
        assert ann.departure is not None
        assert await worker.reports.next() == ("exit", "lobby", "ann", ann.id)
        assert not len(worker.timers)


async def test_a_kick_ends_the_grace_periods_of_sessions_that_began_before_it() -> None:
    async with serving() as worker:
        old, new, other = worker.session("ann"), worker.session("ann", began_at=20.0), worker.session("bob")
        for each in (old, new, other):
            worker.attendance.lose(each, {HOUR_S: ["lobby"]})
            assert (await worker.reports.next())[0] == "linger"
        worker.attendance.end_graces(user_room("ann"), 10.0)
        assert await worker.reports.next() == ("exit", "lobby", "ann", old.id)
        worker.attendance.end_graces(user_room("ann"), 30.0)
        assert await worker.reports.next() == ("exit", "lobby", "ann", new.id)
        worker.attendance.end_graces(user_room("ann"), 30.0)
        assert worker.reports.made.empty()
        assert len(worker.timers) == 1


async def test_a_right_that_is_taken_back_ends_the_grace_period_of_one_room() -> None:
    async with serving() as worker:
        ann = worker.session("ann")
        worker.attendance.lose(ann, {HOUR_S: ["lobby", "kitchen"], HOUR_S / 2: ["hall"]})
        assert {(await worker.reports.next())[:2] for _ in range(3)} == {
            ("linger", room) for room in ("lobby", "kitchen", "hall")
        }
        worker.attendance.end_graces(user_room("ann"), 10.0, "lobby")
        assert await worker.reports.next() == ("exit", "lobby", "ann", ann.id)
        worker.attendance.end_graces(user_room("ann"), 10.0, "lobby")
        worker.attendance.end_graces(user_room("ann"), 10.0, "hall")
        assert await worker.reports.next() == ("exit", "hall", "ann", ann.id)
        assert len(worker.timers) == 1
        worker.attendance.end_graces(user_room("ann"), 10.0)
        assert await worker.reports.next() == ("exit", "kitchen", "ann", ann.id)
        assert not len(worker.timers)
