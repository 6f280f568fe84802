"""What one client, user or address may use: each bound with its code, its reason and its counter."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from hubbub import ConnectionManager, Limits, RoomOptions
from hubbub.connections.checks import check as check_socket
from hubbub.connections.connection import session_of
from tests.integration.conftest import Clock
from tests.integration.support import DEADLINE_S, Handler, Live, client, closed, eventually, receive, running

pytestmark = pytest.mark.anyio

NO_GRACE = RoomOptions(grace_s=0)
Make = Callable[[ConnectionManager], Handler]


def limited(**limits: Any) -> ConnectionManager:
    return ConnectionManager(limits=Limits(**limits), everyone=NO_GRACE, rooms={"*": NO_GRACE})


def named_by_query(manager: ConnectionManager) -> Handler:
    """A handler that echoes JSON; user and rooms are in the query."""

    async def handler(websocket: WebSocket) -> None:
        user = websocket.query_params.get("user")
        rooms = websocket.query_params.getlist("room")
        async with manager.connect(websocket, user, rooms=rooms) as connection:
            await connection.send("in")
            async for message in connection.iter_json():
                await connection.send({"echo": message})

    return handler


def by_hand(manager: ConnectionManager) -> Handler:
    """The same, in the style of FastAPI's tutorial."""

    async def handler(websocket: WebSocket) -> None:
        await manager.connect(websocket, websocket.query_params.get("user"))
        await websocket.send_text("in")
        try:
            while True:
                await websocket.send_json({"echo": await websocket.receive_json()})
        except WebSocketDisconnect:
            manager.disconnect(websocket)

    return handler


async def enter(stack: AsyncExitStack, live: Live, path: str) -> ClientConnection:
    """Connects for as long as the stack lasts, and sees that it is in."""
    websocket = await stack.enter_async_context(client(live.server, path))
    assert await receive(websocket) == "in"
    return websocket


async def refused(live: Live, path: str) -> tuple[int | None, str | None]:
    async with client(live.server, path) as websocket:
        return await closed(websocket)


class TestConnections:
    @pytest.mark.parametrize("make", [named_by_query, by_hand])
    async def test_in_all(self, make: Make, caplog: pytest.LogCaptureFixture) -> None:
        manager = limited(max_connections=2)
        with running(manager) as live:
            path = live.at(make(manager))
            async with AsyncExitStack() as stack:
                await enter(stack, live, path)
                await enter(stack, live, path)
                for _ in range(3):
                    assert await refused(live, path) == (1013, "too many connections")
                assert manager.stats().connections == 2
            await live.nothing_left()
            async with AsyncExitStack() as stack:
                await enter(stack, live, path)
            assert dict(manager.stats().refused) == {"too_many_connections": 3}
            assert not any(record.exc_info for record in caplog.records)
            await live.nothing_left()

    async def test_in_all_holds_when_many_come_at_once(self) -> None:
        manager = limited(max_connections=5)
        with running(manager) as live:
            path = live.at(named_by_query(manager))
            most: list[int] = []

            async def come() -> str:
                async with client(live.server, path) as websocket:
                    most.append(manager.stats().connections)
                    try:
                        return str(await receive(websocket))
                    except Exception:
                        return str(websocket.close_code)
                    finally:
                        await eventually(lambda: manager.stats().refused.get("too_many_connections", 0) == 15)

            outcomes = await asyncio.gather(*(come() for _ in range(20)))
            assert sorted(outcomes) == ["1013"] * 15 + ["in"] * 5
            assert max(most) <= 5
            await live.nothing_left()

    @pytest.mark.parametrize("make", [named_by_query, by_hand])
    async def test_of_a_user(self, make: Make) -> None:
        manager = limited(max_connections_per_user=2)
        with running(manager) as live:
            path = live.at(make(manager))
            async with AsyncExitStack() as stack:
                await enter(stack, live, f"{path}?user=ann")
                await enter(stack, live, f"{path}?user=ann")
                assert await refused(live, f"{path}?user=ann") == (1008, "too many connections of this user")
                await enter(stack, live, f"{path}?user=bob")
                await enter(stack, live, path)
                await enter(stack, live, path)
                await enter(stack, live, path)
            await live.nothing_left()
            assert dict(manager.stats().refused) == {"too_many_user_connections": 1}

    async def test_of_an_address(self) -> None:
        manager = limited(max_connections_per_address=2)
        with running(manager) as live:
            path = live.at(named_by_query(manager))
            async with AsyncExitStack() as stack:
                await enter(stack, live, path)
                await enter(stack, live, path)
                assert await refused(live, path) == (1008, "too many connections from this address")
            await live.nothing_left()
            assert dict(manager.stats().refused) == {"too_many_address_connections": 1}

    async def test_of_an_address_are_counted_by_network_however_it_is_written(self) -> None:
        manager = limited(max_connections_per_address=1)
        spellings = (["::ffff:192.0.2.7", "192.0.2.7"], ["2001:db8:1:2::a", "2001:0DB8:1:2:ffff::b"])
        with running(manager) as live:
            path = live.at(named_by_query(manager))
            async with AsyncExitStack() as stack:
                for first, second in spellings:
                    one = client(live.server, path, additional_headers={"X-Forwarded-For": first})
                    assert await receive(await stack.enter_async_context(one)) == "in"
                    async with client(live.server, path, additional_headers={"X-Forwarded-For": second}) as two:
                        assert await closed(two) == (1008, "too many connections from this address")
                elsewhere = client(live.server, path, additional_headers={"X-Forwarded-For": "2001:db8:1:3::a"})
                assert await receive(await stack.enter_async_context(elsewhere)) == "in"
            await live.nothing_left()

    async def test_of_an_address_are_not_bounded_by_default(self) -> None:
        assert Limits().max_connections_per_address is None
        assert Limits().max_message_bytes == 1024 * 1024
        assert Limits().max_errors == 10


class TestRooms:
    async def test_of_a_connection_at_connect(self) -> None:
        manager = limited(max_rooms_per_connection=2)
        with running(manager) as live:
            path = live.at(named_by_query(manager))
            async with AsyncExitStack() as stack:
                await enter(stack, live, f"{path}?room=a&room=b&room=a")
                assert await refused(live, f"{path}?room=a&room=b&room=c") == (1008, "too many rooms")
            await live.nothing_left()
            assert dict(manager.stats().refused) == {"too_many_rooms": 1}

    async def test_of_a_connection_at_join(self) -> None:
        manager = limited(max_rooms_per_connection=2)
        steps: list[Any] = []

        async def handler(websocket: WebSocket) -> None:
            async with manager.connect(websocket, "ann", room="a") as connection:
                await connection.join("b")
                await connection.join("b")
                await connection.leave("a")
                await connection.join("c")
                steps.append(connection.rooms)
                await connection.join("d")
                steps.append("not reached")

        with running(manager) as live:
            assert await refused(live, live.at(handler)) == (1008, "too many rooms")
            await live.nothing_left()
        assert steps == [{"b", "c"}]
        assert dict(manager.stats().refused) == {"too_many_rooms": 1}

    async def test_with_many_members_turn_the_next_one_away(self) -> None:
        rooms = {"small": RoomOptions(max_members=2, announce=True, grace_s=0)}
        manager = ConnectionManager(rooms=rooms, everyone=NO_GRACE)
        with running(manager) as live:
            path = live.at(named_by_query(manager))
            async with AsyncExitStack() as stack:
                first = await stack.enter_async_context(client(live.server, f"{path}?user=ann&room=small"))
                assert (await receive(first))["type"] == "user_joined"
                second = await stack.enter_async_context(client(live.server, f"{path}?user=bob&room=small"))
                assert (await receive(second))["type"] == "user_joined"
                assert await refused(live, f"{path}?user=eve&room=small") == (1008, "the room is full")
                assert await receive(first) == "in"
                assert (await receive(first))["user_id"] == "bob"
                await live.server.acall(manager.broadcast("next", room="small"))
                assert await receive(first) == "next"  # and nothing of eve
            await live.nothing_left()
            assert dict(manager.stats().refused) == {"room_full": 1}


class TestMessages:
    @pytest.mark.parametrize("make", [named_by_query, by_hand])
    async def test_that_are_too_big_are_answered_and_in_the_end_1009(self, make: Make) -> None:
        manager = limited(max_message_bytes=10, max_errors=3)
        with running(manager) as live:
            async with client(live.server, live.at(make(manager))) as websocket:
                assert await receive(websocket) == "in"
                await websocket.send('"12345678"')
                assert await receive(websocket) == {"echo": "12345678"}
                for message in ('"123456789"', '"ééééé"'):
                    await websocket.send(message)
                    told = await receive(websocket)
                    assert told.keys() == {"type", "code", "message"}
                    assert (told["type"], told["code"]) == ("error", "message_too_big")
                    assert "the limit is 10" in told["message"]
                await websocket.send('"éééé"')
                assert await receive(websocket) == {"echo": "éééé"}
                await websocket.send(b"x" * 11)
                assert (await receive(websocket))["code"] == "message_too_big"
                assert await closed(websocket) == (1009, "message too big")
            await live.nothing_left()
            stats = manager.stats()
            assert (dict(stats.errors), dict(stats.refused)) == ({"message_too_big": 3}, {"message_too_big": 1})

    async def test_over_what_the_server_takes_are_1009_too(self) -> None:
        manager = limited(max_message_bytes=None)
        with running(manager, ws_max_size=1000) as live:
            async with client(live.server, live.at(named_by_query(manager))) as websocket:
                assert await receive(websocket) == "in"
                await websocket.send("x" * 1001)
                assert (await closed(websocket))[0] == 1009
            await live.nothing_left()

    @pytest.mark.parametrize("make", [named_by_query, by_hand])
    async def test_that_come_too_fast_are_answered_and_in_the_end_1008(self, make: Make, clock: Clock) -> None:
        manager = limited(max_messages_per_s=2, max_errors=3)
        with running(manager) as live:
            async with client(live.server, live.at(make(manager))) as websocket:
                assert await receive(websocket) == "in"
                for number in range(13):
                    await websocket.send(str(number))
                assert [await receive(websocket) for _ in range(10)] == [{"echo": number} for number in range(10)]
                for _ in range(3):
                    told = await receive(websocket)
                    assert (told["type"], told["code"]) == ("error", "rate_limited")
                    assert told["message"] == "over 2 messages a second"
                assert await closed(websocket) == (1008, "too many messages")
            await live.nothing_left()
            stats = manager.stats()
            assert (dict(stats.errors), dict(stats.refused)) == ({"rate_limited": 3}, {"rate_limited": 1})

    async def test_that_slow_down_are_let_in_again(self, clock: Clock) -> None:
        manager = limited(max_messages_per_s=20, max_errors=None)
        with running(manager) as live:
            async with client(live.server, live.at(named_by_query(manager))) as websocket:
                assert await receive(websocket) == "in"
                for _ in range(105):
                    await websocket.send("1")
                told = [await receive(websocket) for _ in range(105)]
                assert told[:100] == [{"echo": 1}] * 100
                assert [each.get("code") for each in told[100:]] == ["rate_limited"] * 5
                clock.now_s += 0.06  # of which each twentieth of a second is good for one more
                for _ in range(2):
                    await websocket.send("2")
                assert await receive(websocket) == {"echo": 2}
                assert (await receive(websocket)).get("code") == "rate_limited"

    async def test_at_less_than_one_a_second_have_a_first_one(self, clock: Clock) -> None:
        manager = limited(max_messages_per_s=0.1)
        with running(manager) as live:
            async with client(live.server, live.at(named_by_query(manager))) as websocket:
                assert await receive(websocket) == "in"
                await websocket.send("1")
                assert await receive(websocket) == {"echo": 1}
                await websocket.send("2")
                assert (await receive(websocket))["code"] == "rate_limited"

    async def test_are_bounded_for_each_connection_alone(self, clock: Clock) -> None:
        manager = limited(max_messages_per_s=1, max_errors=2)
        with running(manager) as live:
            path = live.at(named_by_query(manager))
            async with AsyncExitStack() as stack:
                one = await enter(stack, live, path)
                other = await enter(stack, live, path)
                for _ in range(7):
                    await one.send("1")
                assert (await closed(one))[0] == 1008
                await other.send("1")
                assert await receive(other) == {"echo": 1}

    @pytest.mark.parametrize(
        "receiving", ["receive_text", "receive_json", "iter_text", "receive", "connection.receive", "connection"]
    )
    async def test_are_bounded_however_they_are_received(self, receiving: str) -> None:
        manager = limited(max_message_bytes=10, max_errors=2)
        got: list[Any] = []

        async def handler(websocket: WebSocket) -> None:
            connection = await manager.connect(websocket)
            if receiving == "iter_text":
                async for text in websocket.iter_text():
                    got.append(text)
            elif receiving == "connection":
                async for message in connection:
                    got.append(message)
            elif receiving == "connection.receive":
                while True:
                    got.append(await connection.receive())
            elif receiving == "receive":
                while (event := await websocket.receive())["type"] != "websocket.disconnect":
                    got.append(event["text"])
            else:
                while True:
                    got.append(str(await getattr(websocket, receiving)()))

        with running(manager) as live:
            async with client(live.server, live.at(handler)) as websocket:
                for message in ("1", "2" * 11, "3", "4" * 11):
                    await websocket.send(message)
                assert [(await receive(websocket))["code"] for _ in range(2)] == ["message_too_big"] * 2
                assert await closed(websocket) == (1009, "message too big")
            await live.nothing_left()
        assert got == ["1", "3"]

    async def test_are_not_bounded_where_the_bounds_are_off(self) -> None:
        manager = limited(max_message_bytes=None, max_messages_per_s=None, max_errors=None)
        with running(manager) as live:
            async with client(live.server, live.at(named_by_query(manager)), max_size=None) as websocket:
                assert await receive(websocket) == "in"
                await websocket.send(f'"{"x" * 2_000_000}"')
                assert len((await receive(websocket))["echo"]) == 2_000_000
                for _ in range(200):
                    await websocket.send("not JSON")
                assert {(await receive(websocket))["code"] for _ in range(200)} == {"invalid_json"}
                await websocket.send("1")
                assert await receive(websocket) == {"echo": 1}

    async def test_are_bounded_by_the_manager_that_connects(self) -> None:
        strict, loose = limited(max_message_bytes=5), limited(max_message_bytes=50)
        app = FastAPI()
        strict.install(app)
        with running(loose, app=app) as live:
            async with AsyncExitStack() as stack:
                one = await enter(stack, live, live.at(named_by_query(loose)))
                other = await enter(stack, live, live.at(named_by_query(strict)))
                for websocket in (one, other):
                    await websocket.send('"1234567"')
                assert await receive(one) == {"echo": "1234567"}
                assert (await receive(other))["code"] == "message_too_big"


class TestErrors:
    """Wrong frames are answered, the loop goes on, and too many of them are 1007."""

    @pytest.mark.parametrize(
        ("receiving", "bad", "code"),
        [
            ("iter_json", "not JSON", "invalid_json"),
            ("iter_json", "", "invalid_json"),
            ("iter_json", '{"a": NaN}', "invalid_json"),
            ("iter_json", "[" * 100_000, "invalid_json"),
            ("iter_json", "[" * 300 + "]" * 300, "invalid_json"),
            ("iter_json", "[1e999]", "invalid_json"),
            ("iter_json", b"{}", "text_expected"),
            ("iter_text", b"\xff", "text_expected"),
            ("iter_bytes", "text", "binary_expected"),
        ],
        ids=["no JSON", "nothing", "NaN", "endless", "deep", "infinite", "binary JSON", "binary", "text"],
    )
    async def test_of_each_kind(self, receiving: str, bad: str | bytes, code: str) -> None:
        manager = limited(max_errors=3)
        got: list[Any] = []

        async def handler(websocket: WebSocket) -> None:
            async with manager.connect(websocket) as connection:
                async for message in getattr(connection, receiving)():
                    got.append(message)

        good: str | bytes = b"1" if receiving == "iter_bytes" else "1"
        with running(manager) as live:
            async with client(live.server, live.at(handler)) as websocket:
                for message in (bad, good, bad, bad, good):
                    await websocket.send(message)
                for _ in range(3):
                    told = await receive(websocket)
                    assert told.keys() == {"type", "code", "message"}
                    assert (told["type"], told["code"]) == ("error", code)
                    assert told["message"]
                    assert len(told["message"]) < 300
                assert await closed(websocket) == (1007, "too many invalid messages")
            await live.nothing_left()
            assert dict(manager.stats().errors) == {code: 3}
            assert dict(manager.stats().refused) == {"invalid_data": 1}
        assert got == [1 if receiving == "iter_json" else good]

    async def test_are_not_what_can_be_sent_on(self) -> None:
        """Half of an emoji, a wide integer, and deep JSON are taken, sent on, and kept, as they were understood."""
        manager = ConnectionManager(rooms={"kept": RoomOptions(history=10)}, limits=Limits(max_errors=1))
        deep: Any = "innermost"
        for _ in range(200):
            deep = [deep]

        async def handler(websocket: WebSocket) -> None:
            async with manager.connect(websocket, room="kept") as connection:
                async for message in connection.iter_json():
                    await manager.broadcast({"type": "said", "message": message}, room="kept")

        with running(manager) as live:
            async with client(live.server, live.at(handler)) as websocket:
                for text, value in ((r'"hi \ud83d"', "hi \ufffd"), (str(2**64), 2**64), (json.dumps(deep), deep)):
                    await websocket.send(text)
                    said = {"type": "said", "message": value}
                    assert await receive(websocket) == said
                    (kept,) = await live.server.acall(manager.history("kept", limit=1))
                    assert kept.message == said
                    assert type(kept.message["message"]) is type(value)
            assert not manager.stats().errors

    async def test_are_told_to_nobody_who_wants_no_frames_of_ours(self, caplog: pytest.LogCaptureFixture) -> None:
        """They count all the same, and in the end they close the connection."""
        caplog.set_level(logging.DEBUG, "hubbub")
        manager = ConnectionManager(limits=Limits(max_errors=3), client_frames=False, everyone=NO_GRACE)
        with running(manager) as live:
            async with client(live.server, live.at(named_by_query(manager))) as websocket:
                assert await receive(websocket) == "in"
                for message in ("not JSON", b"binary", "1"):
                    await websocket.send(message)
                assert await receive(websocket) == {"echo": 1}
                await websocket.send("[")
                with pytest.raises(ConnectionClosed):
                    await receive(websocket)
                assert await closed(websocket) == (1007, "too many invalid messages")
            await live.nothing_left()
            assert dict(manager.stats().errors) == {"invalid_json": 2, "text_expected": 1}
        refusals = [each for each in caplog.records if each.getMessage().startswith("refused a message on ")]
        assert [each.levelname for each in refusals] == ["DEBUG"] * 3

    async def test_take_nobody_else_down(self) -> None:
        manager = limited(max_errors=2)
        with running(manager) as live:
            path = live.at(named_by_query(manager))
            async with AsyncExitStack() as stack:
                good = await enter(stack, live, f"{path}?room=a")
                bad = await enter(stack, live, f"{path}?room=a")
                await bad.send("{")
                await bad.send("}")
                assert (await closed(bad))[0] == 1007
                await good.send("1")
                assert await receive(good) == {"echo": 1}

    async def test_may_be_json_in_binary_frames_where_that_is_asked_for(self) -> None:
        manager = limited()

        async def handler(websocket: WebSocket) -> None:
            async with manager.connect(websocket) as connection:
                async for message in connection.iter_json(mode="binary"):
                    await connection.send_json(message, mode="binary")

        with running(manager) as live:
            async with client(live.server, live.at(handler)) as websocket:
                await websocket.send(b'{"a":1}')
                assert await receive(websocket) == b'{"a":1}'


class TestAppPing:
    @pytest.mark.parametrize("make", [named_by_query, by_hand])
    async def test_is_answered_and_kept_from_the_handler(self, make: Make) -> None:
        manager = ConnectionManager(app_ping=True)
        with running(manager) as live:
            async with client(live.server, live.at(make(manager))) as websocket:
                assert await receive(websocket) == "in"
                for ping in ('{"type":"ping"}', ' { "type" : "ping" } '):
                    await websocket.send(ping)
                    assert await receive(websocket) == {"type": "pong"}
                for other in ({"type": "ping", "n": 1}, ["ping"], "ping"):
                    await websocket.send(f"{other!r}".replace("'", '"'))
                    assert await receive(websocket) == {"echo": other}

    async def test_is_the_handlers_by_default(self) -> None:
        manager = ConnectionManager()
        with running(manager) as live:
            async with client(live.server, live.at(named_by_query(manager))) as websocket:
                assert await receive(websocket) == "in"
                await websocket.send('{"type":"ping"}')
                assert await receive(websocket) == {"echo": {"type": "ping"}}

    @pytest.mark.usefixtures("quick_sweeps")
    async def test_is_answered_for_a_handler_that_does_not_receive(self) -> None:
        manager = ConnectionManager(app_ping=True)

        async def handler(websocket: WebSocket) -> None:
            async with manager.connect(websocket) as connection:
                await connection.wait_gone()

        with running(manager) as live:
            async with client(live.server, live.at(handler)) as websocket:
                for _ in range(3):
                    await websocket.send('{"type":"ping"}')
                    assert await receive(websocket) == {"type": "pong"}


@pytest.fixture
def no_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The managers look at nobody by themselves, so that a test can say what time it is."""
    monkeypatch.setattr("hubbub.connections.sweeper._SWEEP_S", 1_000_000)


@pytest.mark.usefixtures("no_sweeps")
class TestSilence:
    @staticmethod
    async def look(live: Live, after_s: float) -> None:
        """Looks at every connection, as a sweep does, so long after now."""

        async def check() -> None:
            now = asyncio.get_running_loop().time()
            for part in live.manager._hubbub.sweeper._sockets:
                for socket in tuple(part):
                    check_socket(socket, now + after_s)

        await live.server.acall(check())

    @pytest.mark.parametrize("make", [named_by_query, by_hand])
    async def test_that_is_too_long_closes(self, make: Make, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO", "hubbub")
        manager = limited(idle_timeout_s=1000)
        with running(manager) as live:
            async with client(live.server, live.at(make(manager))) as websocket:
                assert await receive(websocket) == "in"
                await self.look(live, 0)
                await self.look(live, 999)
                await websocket.send('"still here"')
                assert await receive(websocket) == {"echo": "still here"}
                await self.look(live, 1001)
                await self.look(live, 2000)
                assert manager.stats().connections == 1
                await self.look(live, 2002)
                assert await closed(websocket) == (1013, "idle")
            assert manager.stats().refused == {"idle": 1}
            await live.nothing_left()
        assert "no message in 1000 s" in caplog.text

    async def test_is_broken_by_pings_of_the_app(self) -> None:
        manager = ConnectionManager(limits=Limits(idle_timeout_s=1000), app_ping=True)
        with running(manager) as live:
            async with client(live.server, live.at(named_by_query(manager))) as websocket:
                assert await receive(websocket) == "in"
                await self.look(live, 0)
                await websocket.send('{"type":"ping"}')
                assert await receive(websocket) == {"type": "pong"}
                await self.look(live, 1001)
                assert manager.stats().connections == 1

    async def test_of_any_length_is_fine_by_default(self) -> None:
        manager = ConnectionManager()
        with running(manager) as live:
            async with client(live.server, live.at(named_by_query(manager))) as websocket:
                assert await receive(websocket) == "in"
                await self.look(live, 0)
                await self.look(live, 1e9)
                assert manager.stats().connections == 1

    async def test_before_the_accept_does_not_count(self) -> None:
        manager = limited(idle_timeout_s=1000)
        waiting, gate = threading.Event(), threading.Event()

        async def handler(websocket: WebSocket) -> None:
            waiting.set()
            await asyncio.to_thread(gate.wait, DEADLINE_S)
            async with manager.connect(websocket) as connection:
                await connection.send("in")
                await connection.receive()

        with running(manager) as live:
            path = live.at(handler)

            async def come() -> None:
                async with client(live.server, path) as websocket:
                    assert await receive(websocket) == "in"

            coming = asyncio.create_task(come())
            await eventually(waiting.is_set)
            await self.look(live, 0)
            await self.look(live, 1001)
            gate.set()
            await coming
            assert not manager.stats().refused

    async def test_of_a_client_that_is_not_read_from_does_not_count(self) -> None:
        manager = limited(idle_timeout_s=1000, max_messages_per_s=None)

        async def handler(websocket: WebSocket) -> None:
            async with manager.connect(websocket) as connection:
                await connection.send("in")
                await connection.wait_gone()

        with running(manager) as live:
            async with client(live.server, live.at(handler)) as websocket:
                assert await receive(websocket) == "in"
                await self.look(live, 0)
                await self.look(live, 0)  # from here on what it sends is read for the handler
                for _ in range(70):
                    await websocket.send("more than is read ahead")
                (connection,) = manager.active_connections

                def full() -> bool:
                    ahead = session_of(connection).socket.reader._ahead
                    return ahead is not None and ahead.full

                await eventually(full)
                await self.look(live, 1001)
                await self.look(live, 2002)
                await self.look(live, 3003)
                assert manager.stats().connections == 1

                async def abort() -> None:  # neither side would read a goodbye
                    session_of(connection).socket.transport.abort()

                await live.server.acall(abort())
                await self.look(live, 0)


class TestAServerThatPingsNobody:
    @pytest.mark.parametrize(
        ("settings", "advice"),
        [
            ({"ws_ping_interval": 0}, "uvicorn sends no WebSocket pings: leave out --ws-ping-interval, or give it 20."),
            ({"ws_ping_interval": None}, "uvicorn sends no WebSocket pings"),
            ({"ws_ping_timeout": None}, "uvicorn does not wait for pongs: leave out --ws-ping-timeout"),
            (
                {"ws": "wsproto"},
                "uvicorn sends no WebSocket pings with wsproto: install websockets, and leave out --ws",
            ),
        ],
    )
    async def test_is_told_of_at_the_start(
        self, settings: dict[str, Any], advice: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with running(ConnectionManager(), **settings):
            (line,) = [record for record in caplog.records if record.name == "hubbub"]
        assert line.levelname == "WARNING"
        assert advice in line.getMessage()

    @pytest.mark.parametrize(
        ("limits", "settings"), [(Limits(), {}), (Limits(idle_timeout_s=60), {"ws_ping_interval": 0})]
    )
    async def test_is_not_told_of_where_silence_is_noticed(
        self, limits: Limits, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        with running(ConnectionManager(limits=limits), **settings):
            assert not [record for record in caplog.records if record.name == "hubbub"]
