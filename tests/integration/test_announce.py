"""Who is told of whose coming and going, and who counts as present."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import WebSocket
from websockets.asyncio.client import ClientConnection

from hubbub import BrokerUnavailable, ConnectionManager, Limits, RoomOptions
from hubbub.brokers import MemoryBroker
from hubbub.presence import Info
from tests.integration.conftest import WallClock
from tests.integration.support import Live, client, closed, eventually, receive, receive_until, reset, running

pytestmark = pytest.mark.anyio

GRACE_S = 0.15


@pytest.fixture(scope="module")
def served() -> Iterator[Live]:
    rooms = {
        "long:*": RoomOptions(announce=True, grace_s=60),
        "quiet:*": RoomOptions(grace_s=0),
        "*": RoomOptions(announce=True, grace_s=GRACE_S),
    }
    with running(ConnectionManager(rooms=rooms, everyone=RoomOptions(grace_s=0))) as live:
        yield live


@pytest.fixture
async def live(served: Live) -> AsyncIterator[Live]:
    yield served
    await served.nothing_left()
    served.forget_handlers()


@pytest.fixture
def room(request: pytest.FixtureRequest) -> str:
    """A room of the test's own: the graces of another test's users are not over yet."""
    name: str = request.node.name
    return name[:100]


@asynccontextmanager
async def tab(
    live: Live,
    user: str | int | None,
    room: str,
    *,
    info: dict[str, Any] | None = None,
    expires_at: float | None = None,
) -> AsyncIterator[ClientConnection]:
    """A tab of a user that is in a room, and can be told to leave, or to come back."""

    async def handler(websocket: WebSocket) -> None:
        async with live.manager.connect(websocket, user, room=room, info=info, expires_at=expires_at) as connection:
            await connection.send({"type": "here"})
            async for command in connection.iter_text():
                await (connection.leave(room) if command == "leave" else connection.join(room))
                await connection.send({"type": "done"})

    async with client(live.server, live.at(handler), max_queue=None) as websocket:
        yield websocket


def is_here(message: Any) -> bool:
    return bool(message["type"] == "here")


def summary(message: dict[str, Any]) -> tuple[str, str, int]:
    return (message["type"], message["user_id"], message["count"])


async def news(websocket: ClientConnection) -> tuple[str, str, int]:
    return summary(await receive(websocket))


async def tell(websocket: ClientConnection, command: str) -> list[tuple[str, str, int]]:
    """Gives a tab a command; what it was told until that was done."""
    await websocket.send(command)
    return [summary(each) for each in (await receive_until(websocket, lambda got: got["type"] == "done"))[:-1]]


class TestJoining:
    async def test_is_heard_by_the_one_who_joins(self, live: Live, room: str) -> None:
        before = datetime.now(UTC)
        async with tab(live, 42, room, info={"name": "Ann"}) as ann:
            told = await receive(ann)
            then = datetime.fromisoformat(told.pop("timestamp"))
            assert told == {
                "type": "user_joined",
                "room": room,
                "user_id": "42",
                "info": {"name": "Ann"},
                "count": 1,
            }
            assert before <= then <= datetime.now(UTC)
            assert then.utcoffset() is not None
            assert await receive(ann) == {"type": "here"}

    async def test_is_announced_on_the_first_tab_only(self, live: Live, room: str) -> None:
        async with tab(live, "ann", room) as first:
            assert await news(first) == ("user_joined", "ann", 1)
            await receive_until(first, is_here)
            async with tab(live, "ann", room) as second, tab(live, "bob", room) as bob:
                assert await receive(second) == {"type": "here"}
                assert await news(first) == ("user_joined", "bob", 2)
                assert await news(second) == ("user_joined", "bob", 2)
                assert await news(bob) == ("user_joined", "bob", 2)
                assert await live.server.acall(live.manager.count_users(room=room)) == 2

    async def test_42_and_its_text_are_one_user(self, live: Live, room: str) -> None:
        async with tab(live, 42, room) as first:
            await receive_until(first, is_here)
            async with tab(live, "42", room) as second:
                assert await receive(second) == {"type": "here"}
                (member,) = await live.server.acall(live.manager.presence(room))
                assert (member.user_id, member.connections) == ("42", 2)

    async def test_of_nobody_is_not_announced_and_not_counted(self, live: Live, room: str) -> None:
        async with tab(live, "ann", room) as ann:
            await receive_until(ann, is_here)
            async with tab(live, None, room) as nobody:
                assert await receive(nobody) == {"type": "here"}
                assert await live.server.acall(live.manager.count_users(room=room)) == 1
                assert live.manager.active_user_count == 1
                await live.server.acall(live.manager.broadcast("to all here", room=room))
                assert await receive(nobody) == await receive(ann) == "to all here"

    async def test_twice_is_announced_once(self, live: Live, room: str) -> None:
        async with tab(live, "ann", room) as ann:
            await receive_until(ann, is_here)
            assert await tell(ann, "join") == []

    async def test_is_not_announced_in_other_rooms(self, live: Live) -> None:
        async with tab(live, "ann", "a") as ann, tab(live, "bob", "b") as bob:
            await receive_until(ann, is_here)
            await receive_until(bob, is_here)
            async with tab(live, "eve", "b"):
                assert await news(bob) == ("user_joined", "eve", 2)
            assert await news(bob) == ("user_left", "eve", 1)
            await ann.send("leave")
            assert await receive(ann) == {"type": "done"}

    async def test_is_not_announced_where_the_room_does_not_say_so(self, live: Live) -> None:
        async with tab(live, "ann", "quiet:1") as ann:
            assert await receive(ann) == {"type": "here"}
            members = await live.server.acall(live.manager.presence("quiet:1"))
            assert [member.user_id for member in members] == ["ann"]

    async def test_names_the_latest_info(self, live: Live, room: str) -> None:
        async with tab(live, "ann", room, info={"name": "Ann"}) as first:
            await receive_until(first, is_here)
            async with tab(live, "ann", room, info={"name": "Anna"}) as second:
                await receive_until(second, is_here)
                (member,) = await live.server.acall(live.manager.presence(room))
                assert member.info == {"name": "Anna"}
                assert member.since <= datetime.now(UTC)


class TestGoing:
    async def test_is_announced_on_the_last_tab_only(self, live: Live, room: str) -> None:
        async with tab(live, "bob", room) as bob:
            await receive_until(bob, is_here)
            async with tab(live, "ann", room):
                assert await news(bob) == ("user_joined", "ann", 2)
                async with tab(live, "ann", room) as second:
                    await receive_until(second, is_here)
                await eventually(lambda: live.manager.stats().connections == 2)
                async with tab(live, "eve", room):
                    assert await news(bob) == ("user_joined", "eve", 3)
                assert await news(bob) == ("user_left", "eve", 2)  # a grace later, and nothing of ann
            assert await news(bob) == ("user_left", "ann", 1)

    @pytest.mark.parametrize("how", ["close", "reset"])
    async def test_is_announced_after_the_grace(self, live: Live, room: str, how: str) -> None:
        async with tab(live, "bob", room) as bob:
            await receive_until(bob, is_here)
            async with tab(live, "ann", room) as ann:
                assert await news(bob) == ("user_joined", "ann", 2)
                since = time.monotonic()
                if how == "reset":
                    reset(ann.transport)
            assert await news(bob) == ("user_left", "ann", 1)
            assert time.monotonic() - since >= GRACE_S - 0.01

    async def test_within_the_grace_counts_as_present(self, live: Live) -> None:
        async with tab(live, "bob", "long:1") as bob:
            await receive_until(bob, is_here)
            async with tab(live, "ann", "long:1"):
                assert await news(bob) == ("user_joined", "ann", 2)
            await eventually(lambda: live.manager.active_user_count == 1)
            members = await live.server.acall(live.manager.presence("long:1"))
            assert {member.user_id: member.connections for member in members} == {"bob": 1, "ann": 0}
            assert await live.server.acall(live.manager.count_users(room="long:1")) == 2
            assert await live.server.acall(live.manager.send_to_user("ann", "lost")) is False

    async def test_and_coming_back_within_the_grace_is_not_announced_at_all(self, live: Live) -> None:
        async with tab(live, "bob", "long:2") as bob:
            await receive_until(bob, is_here)
            for _ in range(3):
                async with tab(live, "ann", "long:2") as ann:
                    await receive_until(ann, is_here)
                await eventually(lambda: live.manager.active_user_count == 1)
            assert await news(bob) == ("user_joined", "ann", 2)
            async with tab(live, "eve", "long:2"):
                assert await news(bob) == ("user_joined", "eve", 3)

    async def test_by_leave_is_announced_at_once(self, live: Live) -> None:
        async with tab(live, "bob", "long:3") as bob, tab(live, "ann", "long:3") as ann:
            await receive_until(bob, lambda got: got.get("user_id") == "ann")
            await receive_until(ann, is_here)
            assert await tell(ann, "leave") == []  # nothing comes from a room that one has left
            assert await news(bob) == ("user_left", "ann", 1)
            assert (await tell(ann, "join"))[0] == ("user_joined", "ann", 2)

    async def test_by_leave_of_one_tab_is_not_announced_while_another_is_there(self, live: Live) -> None:
        async with tab(live, "ann", "long:4") as first:
            await receive_until(first, is_here)
            async with tab(live, "ann", "long:4") as second:
                await receive_until(second, is_here)
                await tell(second, "leave")
                assert await tell(first, "join") == []
            assert await tell(first, "join") == []

    async def test_by_a_kick_is_announced_at_once(self, live: Live) -> None:
        async with tab(live, "bob", "long:5") as bob:
            await receive_until(bob, is_here)
            async with tab(live, "ann", "long:5") as first, tab(live, "ann", "long:5") as second:
                await receive_until(second, is_here)
                assert await live.server.acall(live.manager.disconnect_user("ann")) is True
                assert await closed(first) == await closed(second) == (1008, "disconnected by the server")
            assert await news(bob) == ("user_joined", "ann", 2)
            assert await news(bob) == ("user_left", "ann", 1)
            assert await live.server.acall(live.manager.is_online("ann")) is False
            assert await live.server.acall(live.manager.disconnect_user("ann")) is False

    async def test_by_an_expired_token_is_announced_at_once(self, live: Live, wall_clock: WallClock) -> None:
        async with tab(live, "bob", "long:6") as bob:
            await receive_until(bob, is_here)
            async with tab(live, "ann", "long:6", expires_at=wall_clock.now_s + 1) as ann:
                await receive_until(ann, is_here)
                wall_clock.now_s += 1
                assert (await closed(ann))[1] == "token expired"
            assert await news(bob) == ("user_joined", "ann", 2)
            assert await news(bob) == ("user_left", "ann", 1)

    async def test_by_a_kick_spares_no_tab_in_grace(self, live: Live) -> None:
        """One tab was lost a moment ago, the other is kicked: nothing of the user is to stay for the grace."""
        async with tab(live, "bob", "long:7") as bob:
            await receive_until(bob, is_here)
            async with tab(live, "ann", "long:7") as second:
                async with tab(live, "ann", "long:7") as first:
                    await receive_until(first, is_here)
                await eventually(lambda: live.manager.stats().connections == 2)
                await live.server.acall(live.manager.disconnect_user("ann"))
                await closed(second)
            assert await news(bob) == ("user_joined", "ann", 2)
            assert await news(bob) == ("user_left", "ann", 1)

    async def test_in_a_crash_is_announced_once(self, live: Live, room: str) -> None:
        async def handler(websocket: WebSocket) -> None:
            async with live.manager.connect(websocket, "ann", room=room):
                live.manager.disconnect(websocket)
                raise ZeroDivisionError

        async with tab(live, "bob", room) as bob:
            await receive_until(bob, is_here)
            async with client(live.server, live.at(handler)) as ann:
                assert (await closed(ann))[0] == 1011
            assert [await news(bob), await news(bob)] == [("user_joined", "ann", 2), ("user_left", "ann", 1)]
            async with tab(live, "eve", room):
                assert await news(bob) == ("user_joined", "eve", 2)


class TestWhoIsHere:
    async def test_is_online_while_connected_and_in_grace(self, live: Live) -> None:
        manager, acall = live.manager, live.server.acall
        assert await acall(manager.is_online("zoe")) is False
        async with tab(live, "zoe", "quiet:2") as zoe:
            await receive_until(zoe, is_here)
            assert await acall(manager.is_online("zoe")) is True
            assert [member.user_id for member in await acall(manager.presence())] == ["zoe"]
            assert await acall(manager.count_users()) == 1

        async def gone() -> bool:
            return not await acall(manager.is_online("zoe"))

        await eventually(gone)

    async def test_everyone_and_users_can_be_announced_to_as_well(self, room: str) -> None:
        everyone = RoomOptions(announce=True, grace_s=0)
        with running(ConnectionManager(everyone=everyone)) as live:
            async with tab(live, "bob", room) as bob:
                told = await receive(bob)
                assert (told["type"], told["room"], told["count"]) == ("user_joined", "$everyone", 1)
                await receive_until(bob, is_here)
                async with tab(live, "ann", room):
                    assert await news(bob) == ("user_joined", "ann", 2)
                assert await news(bob) == ("user_left", "ann", 1)
            await live.nothing_left()

    async def test_many_users_at_once_add_up(self, live: Live, room: str) -> None:
        """Twenty users with two tabs each come and go at once: one announcement each, and the counts are right."""
        async with tab(live, "watcher", room) as watcher:
            await receive_until(watcher, is_here)

            async def come_and_go(user: str) -> None:
                async with tab(live, user, room) as first, tab(live, user, room) as second:
                    await receive_until(first, is_here)
                    await receive_until(second, is_here)

            users = [f"user{number}" for number in range(20)]
            await asyncio.gather(*(come_and_go(user) for user in users))
            told = await receive_until(watcher, lambda got: got["type"] == "user_left" and got["count"] == 1)
            assert sorted(each["user_id"] for each in told if each["type"] == "user_joined") == sorted(users)
            assert sorted(each["user_id"] for each in told if each["type"] == "user_left") == sorted(users)
            count = 1
            for each in told:
                count += 1 if each["type"] == "user_joined" else -1
                assert each["count"] == count
            members = await live.server.acall(live.manager.presence(room))
            assert [member.user_id for member in members] == ["watcher"]


# A broker whose answer is lost


class Speechless(MemoryBroker):
    """Knows who comes, and then says that it does not, or says nothing, while it is told to."""

    refuses = False
    hangs = False

    async def enter(
        self, channel: str, user: str | None, connection_id: str, info: Info, room_info: Info = None
    ) -> None:
        await super().enter(channel, user, connection_id, info, room_info)
        if self.hangs:
            await asyncio.Event().wait()
        if self.refuses:
            raise BrokerUnavailable("not now")


@pytest.fixture
def speechless() -> Iterator[tuple[Live, Speechless]]:
    broker = Speechless()
    options = RoomOptions(announce=True, grace_s=0)
    limits = Limits(handler_timeout_s=0.2)
    manager = ConnectionManager(broker, rooms={"*": options}, everyone=options, limits=limits)
    with running(manager) as live:
        yield live, broker


async def test_who_can_not_be_made_present_is_sent_away_and_is_not(speechless: tuple[Live, Speechless]) -> None:
    live, broker = speechless
    broker.refuses = True
    async with tab(live, "ann", "lobby") as ann:
        assert (await closed(ann))[0] == 1013
    await live.nothing_left()
    assert await live.server.acall(live.manager.presence()) == []


async def test_a_join_that_is_cancelled_leaves_nobody_present(
    speechless: tuple[Live, Speechless],
) -> None:
    live, broker = speechless
    broker.hangs = True
    async with tab(live, "ann", "lobby"):

        async def present() -> bool:
            return await live.server.acall(live.manager.is_online("ann"))

        await eventually(present)
    await live.nothing_left()
    assert await live.server.acall(live.manager.presence()) == []
