"""Endpoints, with a client that writes its own JSON: what no SDK does, and the order of what comes back."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from copy import copy
from typing import Any

import jwt
import pytest
from fastapi import HTTPException, WebSocketException
from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import ConnectionClosed

from hubbub import BrokerUnavailable, Connection, ConnectionManager
from hubbub.auth import JWTAuth
from hubbub.endpoints.results import Grant, Welcome
from hubbub.envelope import Relabel, Reset
from hubbub.positions import Position
from tests.integration.json_client import error, rpc, subscribe, unsubscribe, wire
from tests.integration.live import KEY, Live, live_app, pass_time, token
from tests.integration.redis_server import Proxy, RedisServer, fresh_prefix
from tests.integration.support import closed, eventually, opened

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_sweeps")]
HERE = "hubbub.endpoints"
UNSENDABLE: Any = object()


def shortly(value: object) -> str:
    return repr(value)[:60]


class Unusual(BaseException):
    """What no function should raise."""


class Wired(Live):
    """An app whose functions do what functions should not do."""

    def _declare(self) -> None:
        super()._declare()
        self.reset()
        live = self.live

        async def identified() -> str:
            self.authenticated += 1
            await self.pause("auth")
            self.fail("auth")
            return "eve"

        ways = JWTAuth(KEY, algorithms=["HS256"], query="token", cookie="session")
        self.manager.endpoint("/ways", auth=ways)
        self.hooked = self.manager.endpoint("/hooked", auth=identified)

        async def dated(ends: str) -> dict[str, Any]:
            return {"sub": "ann", "exp": float(ends)}

        self.manager.endpoint("/dated", auth=dated)

        @self.hooked.connect
        async def connect(connection: Connection) -> Welcome:
            self.began.append("connect")
            await connection.send("too early")
            await self.pause("connect")
            self.fail("connect")
            return self.welcome

        @self.hooked.disconnect
        async def disconnect() -> None:
            self.ended.append("hooked")
            self.fail("disconnect")

        @live.room("gate:{room}")
        async def gated(room: str) -> Any:
            self.began.append(room)
            await self.pause(room)
            self.fail(room)
            return self.grants.get(room, True)

        @live.on("pause", concurrent=True)
        async def pause(message: str) -> str:
            self.began.append(message)
            await self.pause(message)
            return message

        @live.on("raise")
        async def fail(message: str) -> None:
            self.fail(message)

        @live.on("cancel itself")
        async def cancel_itself(message: str) -> str:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            if message == "twice":
                task.cancel()
            if message != "return":
                await asyncio.Event().wait()
            return message

        @live.on("stubborn")
        async def stubborn(message: str) -> str:
            self.began.append(message)
            try:
                await self.pause(message)
            except asyncio.CancelledError:
                self.began.append("canceled")
            return "done"

        @live.on("wrong")
        async def wrong() -> int:
            return "no number"  # type: ignore[return-value]  # that is the fault

        @live.on("join", concurrent=True)
        async def join(message: str, connection: Connection) -> None:
            await connection.join(message)

        @live.on("is in")
        async def is_in(message: str, connection: Connection) -> bool:
            return connection.is_subscribed(message)

        @live.on("is in now", concurrent=True)
        async def is_in_now(message: str, connection: Connection) -> bool:
            return connection.is_subscribed(message)

        @live.on("note")
        async def note(message: Any) -> None:
            self.began.append(message)

    def reset(self) -> None:
        self.raises: dict[str, BaseException] = {}
        self.grants: dict[str, Any] = {}
        self.authenticated = 0
        self.welcome = Welcome(data={"hello": "eve"}, rooms=["ticker:news"])
        self.ended.clear()
        self.began.clear()
        self.gates.clear()

    async def pause(self, name: str) -> None:
        gate = self.gates.get(name)
        if gate is not None:
            await gate.wait()

    def fail(self, name: str) -> None:
        """Raises a copy, so that no traceback holds on to a connection."""
        if name in self.raises:
            raise copy(self.raises[name])

    def hold(self, *names: str) -> None:
        for name in names:
            self.gates[name] = asyncio.Event()

    async def release(self, name: str) -> None:
        async def release() -> None:
            self.gates.pop(name).set()

        await self.server.acall(release())

    async def do(self, action: Callable[[], Any]) -> Any:
        async def do() -> Any:
            return action()

        return await self.server.acall(do())

    @property
    def empty(self) -> bool:
        engine = self.manager._hubbub
        stats = self.manager.stats()
        return (
            (stats.connections, stats.users, stats.rooms, stats.queued_bytes) == (0, 0, 0, 0)
            and not engine.memberships.rooms
            and not any(True for _ in engine.sweeper.sockets)
            and not self.server.server.server_state.tasks
            and not [task for task in tuple(engine.tasks._tasks) if task.get_name() == "hubbub:endpoint"]
        )


@pytest.fixture(scope="module")
def loop(either_loop: str) -> str:
    return either_loop


@pytest.fixture(scope="module")
def served(loop: str) -> Iterator[Wired]:
    with live_app(Wired(), loop=loop) as live:
        assert isinstance(live, Wired)
        yield live


@pytest.fixture
async def live(served: Wired) -> AsyncIterator[Wired]:
    """The app, in which nothing may be left of a test's clients."""
    served.reset()
    yield served
    await eventually(lambda: served.empty)
    served.reset()


# Before connect


async def test_a_request_waits_for_the_subscriptions_before_it_and_not_for_those_after_it(live: Wired) -> None:
    live.hold("before", "after")
    async with wire(live) as ann:
        await ann.send(subscribe(2, "gate:before"), rpc(3, "is in", "gate:before"), subscribe(4, "gate:after"))
        await ann.send(rpc(5, "is in now", "gate:before"))
        assert (await ann.answers(5))[0]["rpc"]["data"] is False
        assert {each.get("id") for each in ann.told} == {1, 5}
        await live.release("before")
        assert [each["rpc"]["data"] for each in await ann.answers(3)] == [True]
        assert 4 not in {each.get("id") for each in ann.told}
        await live.release("after")
        assert "subscribe" in (await ann.answers(4))[0]


async def test_a_request_does_not_wait_for_a_subscription_that_was_refused_or_given_up(live: Wired) -> None:
    live.hold("refused", "left")
    live.grants["refused"] = False
    async with wire(live) as ann:
        await ann.send(subscribe(2, "gate:refused"), rpc(3, "is in", "gate:refused"))
        await live.release("refused")
        assert (await ann.answers(3))[0]["rpc"]["data"] is False
        await ann.send(subscribe(4, "gate:left"), rpc(5, "is in", "gate:left"), unsubscribe(6, "gate:left"))
        assert (await ann.answers(5))[0]["rpc"]["data"] is False
        await live.release("left")
        assert error((await ann.answers(4))[0]) == 103


@pytest.mark.parametrize(
    "said",
    [
        json.dumps(subscribe(1, "chat:x")),
        json.dumps(rpc(1, "say")),
        "{}",
        "",
        "\n",
        "no json",
        "[]",
        "1",
        '{"id":1}',
        '{"id":-1,"connect":{}}',
        '{"id":1,"connect":[]}',
        '{"connect":{}}',
        '{"id":1,"connect":{},"rpc":{}}',
        b"",
        b"\x00\xff\xfe",
        b"\x80" * 100,
    ],
    ids=shortly,
)
async def test_a_first_message_that_is_no_connect_ends_the_connection(said: str | bytes, live: Wired) -> None:
    async with wire(live, None) as ann:
        await ann.socket.send(said)
        assert await ann.close_code() == 3501
        assert not ann.told


@pytest.mark.parametrize(
    "said",
    [
        json.dumps({"id": 2, "connect": {"token": "x"}}),
        "{}",
        "nonsense",
        '{"id":2,"unknown":{}}',
        '{"id":2,"subscribe":{"channel":""}}',
        '{"subscribe":{"channel":"chat:x"}}',
        b"\x00\xff",
        "\n".join(json.dumps(rpc(number, "wait", "never")) for number in range(2, 515)),
    ],
    ids=shortly,
)
async def test_what_is_no_command_ends_the_connection(said: str | bytes, live: Wired) -> None:
    async with wire(live) as ann:
        await ann.socket.send(said)
        assert await ann.close_code() == 3501
    await eventually(lambda: live.ended == ["ann"])


async def test_a_client_that_does_not_connect_is_closed(live: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{HERE}.conversation.CONNECT_S", 0.1)
    async with wire(live, None) as ann:
        assert await ann.close_code() == 3502


async def test_a_slow_authentication_is_no_missing_connect(live: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    live.hold("auth")
    async with wire(live, None, "/hooked") as eve:
        await eve.send({"id": 1, "connect": {}})
        monkeypatch.setattr(f"{HERE}.conversation.CONNECT_S", 0.0)
        sweeps = live.manager._hubbub.sweeper._turn
        await eventually(lambda: live.manager._hubbub.sweeper._turn != sweeps)
        await asyncio.sleep(0.1)  # two sweeps
        await live.release("auth")
        assert "connect" in (await eve.answers(1))[0]


async def test_a_connect_that_fails_drops_the_rest_of_its_frame(live: Wired) -> None:
    async with wire(live, None) as ann:
        expired = {"id": 1, "connect": {"token": token("ann", lasts_s=-60)}}
        await ann.send(expired, subscribe(2, "chat:x"), rpc(3, "say", {"room": "x", "text": "no"}))
        assert error((await ann.answers(1))[0]) == 109
        assert "connect" in await ann.ask(4, connect={"token": token("ann")})
        assert [each["id"] for each in ann.told] == [1, 4]


@pytest.mark.parametrize(
    ("raises", "code", "close"),
    [
        (HTTPException(403, "go away"), 403, 3507),
        (HTTPException(503, "later"), 503, 3004),
        (ZeroDivisionError(), 100, 3004),
        (asyncio.CancelledError(), 100, 3004),
        (WebSocketDisconnect(), 100, 3004),
        (WebSocketException(4321, "mine"), None, 4321),
        (BrokerUnavailable("away"), 100, 3004),
    ],
    ids=shortly,
)
async def test_a_connect_function_that_fails(raises: BaseException, code: int | None, close: int, live: Wired) -> None:
    live.raises["connect"] = raises
    async with wire(live, None, "/hooked") as eve:
        await eve.send({"id": 1, "connect": {}})
        assert await eve.close_code() == close
        if code is not None:
            assert error(eve.told[0]) == code
    await eventually(lambda: live.empty)
    assert not live.ended


@pytest.mark.parametrize(
    ("raises", "outcome"),
    [
        (HTTPException(401), 3500),
        (HTTPException(403), 3507),
        (ZeroDivisionError(), {"code": 100, "message": "internal server error", "temporary": True}),
        (asyncio.CancelledError(), {"code": 100, "message": "internal server error", "temporary": True}),
        (HTTPException(503, "db \ud800"), {"code": 503, "message": "db ?", "temporary": True}),
        (WebSocketException(1008, "no"), 3507),
    ],
    ids=shortly,
)
async def test_an_authentication_that_fails(raises: BaseException, outcome: Any, live: Wired) -> None:
    live.raises["auth"] = raises
    async with wire(live, None, "/hooked") as eve:
        await eve.send({"id": 1, "connect": {}})
        if isinstance(outcome, int):
            assert await eve.close_code() == outcome
        else:
            assert (await eve.answers(1))[0]["error"] == outcome


async def test_data_that_can_not_be_sent_is_a_fault_of_the_function(live: Wired) -> None:
    live.welcome = Welcome(data=UNSENDABLE)
    async with wire(live, None, "/hooked") as eve:
        await eve.send({"id": 1, "connect": {}})
        assert await eve.close_code() == 3004
        assert error(eve.told[0]) == 100
    live.grants["unsendable"] = Grant(data=UNSENDABLE)
    async with wire(live) as ann:
        assert error(await ann.ask(2, **_request(subscribe(2, "gate:unsendable")))) == 100
        live.grants.clear()
        assert "subscribe" in await ann.ask(3, **_request(subscribe(3, "gate:unsendable")))


def _request(command: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in command.items() if name != "id"}


async def test_nothing_comes_before_the_reply_to_connect(live: Wired) -> None:
    live.hold("connect")
    async with wire(live, None, "/hooked") as eve:
        await eve.send({"id": 1, "connect": {}})
        await eventually(lambda: live.began == ["connect"])
        await live.server.acall(live.manager.send_to_user("eve", "early as well"))
        await live.release("connect")
        assert "connect" in await eve.next()
        await eve.pushed("$user")
        assert [each.get("push", {}).get("message") for each in eve.told[1:2]] == [{"data": "too early"}]
    await eventually(lambda: live.ended == ["hooked"])


@pytest.mark.parametrize("gate", ["auth", "connect"])
async def test_a_client_that_leaves_while_it_connects_ends_once(gate: str, live: Wired) -> None:
    live.hold(gate)
    async with wire(live, None, "/hooked") as eve:
        await eve.send({"id": 1, "connect": {}})
        if gate == "connect":
            await eventually(lambda: live.began == ["connect"])
    if gate == "connect":
        await eventually(lambda: not live.manager.stats().connections)
    await live.release(gate)
    await eventually(lambda: live.empty)
    assert live.ended == (["hooked"] if gate == "connect" else [])
    assert live.began in ([], ["connect"])


async def test_a_disconnect_function_that_fails_harms_nothing(live: Wired) -> None:
    live.raises["disconnect"] = asyncio.CancelledError()
    before = live.manager.stats().errors.get("function", 0)
    async with wire(live, None, "/hooked") as eve:
        await eve.ask(1, connect={})
    await eventually(lambda: live.ended == ["hooked"])
    await eventually(lambda: live.manager.stats().errors.get("function", 0) == before + 1)


async def test_connect_and_256_subscriptions_in_one_frame(live: Wired) -> None:
    async with wire(live, None) as ann:
        numbers = range(2, 258)
        frame = [subscribe(number, f"chat:{number}") for number in numbers]
        await ann.send({"id": 1, "connect": {"token": token("ann")}}, *frame, subscribe(258, "chat:one too many"))
        answers = await ann.answers(*numbers)
        assert all("subscribe" in each for each in answers)
        assert ann.told[0]["id"] == 1
        assert error((await ann.answers(258))[0]) == 106
        assert "unsubscribe" in await ann.ask(259, unsubscribe={"channel": "chat:2"})
        assert "subscribe" in await ann.ask(260, subscribe={"channel": "chat:there is room again"})


# Pings


async def test_pings_are_answered_and_a_missing_pong_ends_the_connection(
    live: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{HERE}.heartbeat.PING_S", 0.05)
    monkeypatch.setattr(f"{HERE}.heartbeat.PONG_S", 0.5)
    async with wire(live) as ann:
        while ann.pings < 3:
            await ann.read()
        await ann.ask(2, **_request(rpc(2, "aside", "alive")))
        ann.pongs = False
        assert await ann.close_code() == 3012
    await eventually(lambda: live.ended == ["ann"])


async def test_a_client_that_is_not_read_from_may_be_late_with_its_pongs(
    live: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.hold("slow")
    async with wire(live) as ann:
        await ann.send(*[rpc(number, "wait", "slow") for number in range(2, 90)])
        await eventually(lambda: live.began == ["slow"])
        ann.pongs = False
        monkeypatch.setattr(f"{HERE}.heartbeat.PING_S", 0.1)
        monkeypatch.setattr(f"{HERE}.heartbeat.PONG_S", 0.05)
        await live.do(lambda: _conversation(live)._heartbeat.__setattr__("_ping_at", 0.0))
        while ann.pings < 3:
            await ann.read()
        monkeypatch.setattr(f"{HERE}.heartbeat.PING_S", 600.0)
        monkeypatch.setattr(f"{HERE}.heartbeat.PONG_S", 10.0)
        await live.do(lambda: _conversation(live)._heartbeat.__setattr__("_ping_at", time.monotonic() + 600.0))
        await ann.send(*[{}] * ann.pings)
        await live.do(lambda: live.gates["slow"].set())
        await ann.answers(*range(2, 90))
        assert "rpc" in await ann.ask(100, **_request(rpc(100, "aside", "still here")))


def _conversation(live: Wired) -> Any:
    (socket,) = live.manager._hubbub.sweeper.sockets
    return socket.listener


# Subscribing


async def test_a_room_is_subscribed_to_once_also_while_it_is_asked_for(live: Wired) -> None:
    live.hold("first")
    async with wire(live) as ann:
        await ann.send(subscribe(2, "gate:first"), subscribe(3, "gate:first"))
        assert error((await ann.answers(3))[0]) == 105
        await live.release("first")
        assert "subscribe" in (await ann.answers(2))[0]
        assert error(await ann.ask(4, subscribe={"channel": "gate:first"})) == 105
        assert error(await ann.ask(5, subscribe={"channel": "ticker:news"})) == 105


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"channel": "chat:" + "x" * 251}, 107),
        ({"channel": "chat:" + "é" * 126}, 107),
        ({"channel": "$user"}, 103),
        ({"channel": "$everyone"}, 103),
        ({"channel": "$user:bob"}, 103),
        ({"channel": "chat:x", "tf": {}}, 107),
        ({"channel": "chat:x", "type": 1}, 108),
    ],
)
async def test_what_can_not_be_subscribed_to(request_: dict[str, Any], code: int, live: Wired) -> None:
    async with wire(live) as ann:
        assert error(await ann.ask(2, subscribe=request_)) == code
        assert set(live.manager.rooms) <= {"ticker:news"}


async def test_a_room_that_is_not_held_is_unsubscribed_from(live: Wired) -> None:
    async with wire(live) as ann:
        for number, room in enumerate(("chat:x", "ticker:news", "$user", "x" * 1000), 2):
            assert await ann.ask(number, unsubscribe={"channel": room}) == {"id": number, "unsubscribe": {}}
        await live.publish("ticker:news", "still")
        assert (await ann.pushed("ticker:news"))["data"] == "still"


async def test_a_room_can_be_left_while_it_is_asked_for_and_asked_for_again(live: Wired) -> None:
    live.hold("door")
    async with wire(live) as ann:
        await ann.send(subscribe(2, "gate:door"))
        await eventually(lambda: live.began == ["door"])
        await ann.send(unsubscribe(3, "gate:door"), subscribe(4, "gate:door"))
        await ann.answers(3)
        await eventually(lambda: live.began == ["door", "door"])
        await live.do(lambda: live.gates["door"].set())
        refused, taken = await ann.answers(2, 4)
        assert error(refused) == 103
        assert "subscribe" in taken
        await live.publish("gate:door", "hello")
        assert (await ann.pushed("gate:door"))["data"] == "hello"


async def test_leaving_and_subscribing_in_one_frame_is_a_new_subscription(live: Wired) -> None:
    async with wire(live) as ann:
        await ann.ask(2, subscribe={"channel": "chat:again"})
        frame = [
            each
            for number in range(3, 23, 2)
            for each in (unsubscribe(number, "chat:again"), subscribe(number + 1, "chat:again"))
        ]
        await ann.send(*frame)
        answers = await ann.answers(*range(3, 23))
        assert "subscribe" in answers[-1]
        assert all("unsubscribe" in each for each in answers[::2])
        await live.publish("chat:again", "hello")
        assert (await ann.pushed("chat:again"))["data"] == "hello"
        await ann.ask(30, **_request(rpc(30, "aside", "x")))
        assert ann.publications("chat:again") == ["hello"]


async def test_a_room_that_the_app_joins_meanwhile_is_answered(live: Wired) -> None:
    live.hold("both")
    async with wire(live) as ann:
        await ann.send(subscribe(2, "gate:both"))
        await eventually(lambda: "both" in live.began)
        await ann.ask(3, **_request(rpc(3, "join", "gate:both")))
        await live.release("both")
        assert error((await ann.answers(2))[0]) == 105


async def test_a_join_that_fails_after_its_reply_is_told(live: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    async def enter(*_: Any, **__: Any) -> None:
        raise BrokerUnavailable("away")

    async with wire(live) as ann:
        with monkeypatch.context() as patch:
            patch.setattr(type(live.manager._hubbub.broker), "enter", enter)
            assert "subscribe" in await ann.ask(2, subscribe={"channel": "chat:unsaid"})
            assert (await ann.pushed("chat:unsaid", "unsubscribe"))["code"] == 2500
        assert [each.get("id") for each in ann.told] == [1, 2, None]
        assert "subscribe" in await ann.ask(3, subscribe={"channel": "chat:unsaid"})


async def test_own_join_comes_after_the_reply_and_leaves_are_told(live: Wired) -> None:
    async with wire(live) as ann:
        await ann.send(subscribe(2, "chat:joins"))
        await ann.pushed("chat:joins", "join")
        assert [each.get("id") for each in ann.told] == [1, 2, None]
        async with wire(live, "bob") as bob:
            await bob.ask(2, subscribe={"channel": "chat:joins"})
            await bob.ask(3, unsubscribe={"channel": "chat:joins"})
        left = await ann.pushed("chat:joins", "leave")
        assert left["info"]["user"] == "bob"


@pytest.mark.parametrize(
    ("raises", "code"),
    [
        (HTTPException(403, "no"), 403),
        (ZeroDivisionError(), 100),
        (asyncio.CancelledError(), 100),
        (BaseExceptionGroup("several", [ValueError()]), 100),
        (WebSocketDisconnect(), 100),
    ],
    ids=shortly,
)
async def test_a_rule_that_fails_is_an_answer(raises: BaseException, code: int, live: Wired) -> None:
    async with wire(live) as ann:
        live.raises["faulty"] = raises
        assert error(await ann.ask(2, subscribe={"channel": "gate:faulty"})) == code
        live.raises.clear()
        live.grants["faulty"] = "yes"
        assert error(await ann.ask(3, subscribe={"channel": "gate:faulty"})) == 100
        live.grants["faulty"] = Grant(expires_at=time.time() - 1)
        assert error(await ann.ask(4, subscribe={"channel": "gate:faulty"})) == 110
        live.grants.clear()
        assert "subscribe" in await ann.ask(5, subscribe={"channel": "gate:faulty"})


async def test_rules_run_side_by_side_but_only_so_many(live: Wired) -> None:
    live.hold("many")
    async with wire(live) as ann:
        await ann.send(*[subscribe(number, f"gate:{number}") for number in range(2, 10)])
        await ann.answers(*range(2, 10))
        live.began.clear()
        live.gates.update({str(number): live.gates["many"] for number in range(100, 130)})
        await ann.send(*[subscribe(number, f"gate:{number}") for number in range(100, 130)])
        await eventually(lambda: len(live.began) == 16)
        assert "rpc" in await ann.ask(200, **_request(rpc(200, "aside", "beside")))
        assert len(live.began) == 16
        await live.release("many")
        await ann.answers(*range(100, 130))


async def test_what_a_client_begins_is_bounded(live: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that subscribes and leaves again and again has at most so many subscriptions under way."""
    monkeypatch.setattr(f"{HERE}.workload.MAX_TASKS", 40)
    live.hold("flood")
    async with wire(live) as ann:
        for number in range(2, 402, 2):
            await ann.send(subscribe(number, "gate:flood"), unsubscribe(number + 1, "gate:flood"))
        await eventually(lambda: len(_conversation(live)._workload._tasks) == 40)
        await live.do(lambda: live.gates["flood"].set())
        await ann.answers(*range(2, 402))
        assert "subscribe" in await ann.ask(500, subscribe={"channel": "gate:flood"})


@pytest.mark.parametrize("what", ["wait", "pause", "gate"])
async def test_a_client_that_leaves_while_functions_run_leaves_nothing(what: str, live: Wired) -> None:
    live.hold("stay")
    async with wire(live, "ann") as ann:
        begins = (lambda n: subscribe(n, "gate:stay")) if what == "gate" else (lambda n: rpc(n, what, "stay"))
        await ann.send(*map(begins, range(2, 30)))
        await eventually(lambda: "stay" in live.began)
    await eventually(lambda: live.ended == ["ann"])
    began = len(live.began)
    await live.do(lambda: live.gates["stay"].set())
    await eventually(lambda: live.empty)
    assert len(live.began) == began  # nothing was begun for a client that is gone
    assert live.ended == ["ann"]


async def test_a_client_that_leaves_while_it_is_not_read_from(live: Wired) -> None:
    live.hold("stay")
    async with wire(live, "ann") as ann:
        await ann.send(*[rpc(number, "wait", "stay") for number in range(2, 200)])
        await eventually(lambda: "stay" in live.began)
    await eventually(lambda: live.ended == ["ann"])
    await live.do(lambda: live.gates["stay"].set())
    await eventually(lambda: live.empty)
    assert live.began == ["stay"]


# Requests


@pytest.mark.parametrize(
    ("raises", "code", "temporary"),
    [
        (asyncio.CancelledError(), 100, True),
        (WebSocketDisconnect(), 100, True),
        (HTTPException(200), 100, True),
        (HTTPException(429, "slow down"), 429, True),
        (HTTPException(400, {"detail": ["\ud800"]}), 400, False),
        (BrokerUnavailable("away"), 100, True),
        (TimeoutError(), 100, True),
        (ExceptionGroup("several", [ValueError(), HTTPException(400)]), 100, True),
        (GeneratorExit(), 100, True),
        (Unusual("no Exception"), 100, True),
    ],
    ids=shortly,
)
async def test_a_method_that_fails_is_an_answer_and_the_next_is_handled(
    raises: BaseException, code: int, temporary: bool, live: Wired
) -> None:
    async with wire(live) as ann:
        live.raises["it"] = raises
        await ann.send(rpc(2, "raise", "it"), rpc(3, "wrong"), rpc(4, "say", {"room": "x", "text": "next"}))
        failed, wrong, fine = await ann.answers(2, 3, 4)
        assert (error(failed), failed["error"].get("temporary", False)) == (code, temporary)
        assert error(wrong) == 100
        assert "rpc" in fine


@pytest.mark.parametrize("then", ["return", "wait", "twice"])
async def test_a_method_that_cancels_its_own_task_holds_up_nothing(then: str, live: Wired) -> None:
    before = live.manager.stats().errors.get("function", 0)
    async with wire(live) as ann:
        await ann.send(rpc(2, "cancel itself", then), rpc(3, "say", {"room": "x", "text": "next"}))
        canceled, fine = await ann.answers(2, 3)
        assert "rpc" in fine
        assert ("rpc" in canceled) == (then == "return")
        assert live.manager.stats().errors.get("function", 0) == before + (then != "return")
        assert "subscribe" in await ann.ask(4, subscribe={"channel": "chat:after"})


async def test_a_method_that_closes_the_connection_is_the_last_one(live: Wired) -> None:
    async with wire(live) as ann:
        live.raises["it"] = WebSocketException(4444, '{"not":"json"}')
        await ann.send(rpc(2, "aside", "first"), rpc(3, "raise", "it"), rpc(4, "note", "after the end"))
        assert await ann.close_code() == 4444
        with pytest.raises(ValueError, match="Extra data"):
            json.loads(ann.socket.close_reason or "")
    await eventually(lambda: live.ended == ["ann"])
    assert live.began == []


async def test_a_kicked_user_has_nothing_more_handled(live: Wired) -> None:
    live.hold("last")
    async with wire(live) as ann:
        await ann.send(rpc(2, "wait", "last"), rpc(3, "note", "after the kick"))
        await eventually(lambda: live.began == ["last"])
        await live.server.acall(live.manager.disconnect_user("ann"))
        await live.do(lambda: live.gates["last"].set())
        assert await ann.close_code() == 3503
    await eventually(lambda: live.ended == ["ann"])
    assert live.began == ["last"]


async def test_reading_stops_where_64_requests_wait_and_goes_on(live: Wired) -> None:
    live.hold("slow")
    async with wire(live) as ann:
        await ann.send(*[rpc(number, "wait", "slow") for number in range(2, 200)])
        await eventually(lambda: len(_conversation(live)._workload._waiting) == 64)
        await ann.send(rpc(300, "aside", "behind"))
        await live.do(lambda: None)
        assert len(_conversation(live)._workload._waiting) == 64
        await live.do(lambda: live.gates["slow"].set())
        answers = await ann.answers(*range(2, 200), 300)
        assert all("rpc" in each for each in answers)
        assert [each["id"] for each in ann.told if 2 <= each.get("id", 0) < 200] == list(range(2, 200))


async def test_messages_without_an_answer_run_beside_the_others_too(live: Wired) -> None:
    live.hold("first")
    async with wire(live) as ann:
        sends = [{"send": {"data": {"method": "pause", "data": each}}} for each in ("first", "second")]
        await ann.send(*sends, rpc(2, "aside", "x"))
        await ann.answers(2)
        await eventually(lambda: live.began == ["first", "second"])
        await live.release("first")


async def test_requests_that_run_beside_the_others_are_bounded_too(live: Wired) -> None:
    live.hold("beside")
    async with wire(live) as ann:
        await ann.send(*[rpc(number, "pause", "beside") for number in range(2, 200)])
        await eventually(lambda: len(live.began) == 64)
        await live.do(lambda: live.gates["beside"].set())
        await ann.answers(*range(2, 200))


@pytest.mark.parametrize("data", [{"method": "nope"}, {"method": ["note"]}, ["note"], "note", None, {"method": None}])
async def test_a_message_without_a_method_ends_the_connection(data: Any, live: Wired) -> None:
    async with wire(live) as ann:
        await ann.send({"send": {} if data is None else {"data": data}})
        assert await ann.close_code() == 3508


async def test_a_message_without_an_answer_carries_any_json(live: Wired) -> None:
    async with wire(live) as ann:
        values = ["text", {"a": [1, None]}, 12, True, ["\u2028"]]
        await ann.send(*[{"send": {"data": {"method": "note", "data": each}}} for each in values])
        await ann.ask(2, **_request(rpc(2, "say", {"room": "x", "text": "behind"})))
        assert live.began == values
        assert [each.get("id") for each in ann.told] == [1, 2]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"ping": {}}, 108),
        ({"sub_refresh": {"channel": "chat:mine", "token": "x"}}, 108),
        ({"presence": {"channel": "chat:other"}}, 103),
        ({"presence_stats": {"channel": "chat:other"}}, 103),
        ({"history": {"channel": "chat:other", "limit": -1}}, 103),
        ({"history": {"channel": "$user", "limit": -1}}, 103),
        ({"history": {"channel": "ticker:news", "limit": -1}}, 108),
        ({"presence": {"channel": "ticker:news"}}, 108),
        ({"publish": {"channel": "chat:other", "data": {}}}, 103),
        ({"publish": {"channel": "$everyone", "data": {}}}, 103),
        ({"publish": {"channel": "chat:mine", "data": "no object"}}, 422),
        ({"history": {"channel": "chat:mine", "limit": 1, "since": {"offset": 1, "epoch": "another"}}}, 112),
    ],
)
async def test_requests_that_are_refused(request_: dict[str, Any], code: int, live: Wired) -> None:
    async with wire(live) as ann:
        await ann.ask(2, subscribe={"channel": "chat:mine"})
        await live.publish("chat:mine", 1)
        assert error(await ann.ask(3, **request_)) == code


@pytest.mark.parametrize("where", ["memory", "redis"])
async def test_history_by_position(where: str, live: Wired, redis: RedisServer) -> None:
    if where == "redis":
        with live_app(Wired(redis.url(prefix=fresh_prefix()))) as other:
            await _history_by_position(other)
    else:
        await _history_by_position(live)


async def _history_by_position(live: Live) -> None:
    name = "chat:history"
    async with wire(live) as ann:
        epoch = (await ann.ask(2, subscribe={"channel": name}))["subscribe"]["epoch"]
        for n in range(1, 6):
            await live.publish(name, n)
        numbers = iter(range(3, 100))

        async def history(**more: Any) -> list[int]:
            answer = await ann.ask(next(numbers), history={"channel": name, **more})
            assert (answer["history"]["epoch"], answer["history"]["offset"]) == (epoch, 5)
            return [each["data"] for each in answer["history"].get("publications", [])]

        assert await history() == []
        assert await history(limit=-1) == [1, 2, 3, 4, 5]
        assert await history(limit=2, since={"offset": 2, "epoch": epoch}) == [3, 4]
        assert await history(limit=2) == [1, 2]
        assert await history(limit=2, reverse=True) == [5, 4]
        assert await history(limit=-1, since={"offset": 3}) == [4, 5]
        assert await history(limit=-1, since={"offset": 3}, reverse=True) == [2, 1]
        assert await history(limit=-1, since={"offset": 5, "epoch": epoch}) == []
        assert await history(limit=-1, since={"offset": 7, "epoch": epoch}) == []
        assert await history(limit=-1, since={"offset": 2**64 - 1, "epoch": epoch}) == []
        assert await history(limit=1, since={"offset": 3}, reverse=True) == [2]
        assert await history(limit=2, since={"offset": 2**64 - 1}, reverse=True) == [5, 4]
        assert await history(limit=2, since={"offset": 1, "epoch": epoch}, reverse=True) == []
        assert await history(limit=2, since={"offset": 0, "epoch": epoch}, reverse=True) == []
        again = await ann.ask(200, unsubscribe={"channel": name})
        assert "unsubscribe" in again
        for number, offset, recovered in ((201, 3, [4, 5]), (203, 2**64 - 1, None)):
            recovers = {"channel": name, "recover": True, "offset": offset}
            answer = (await ann.ask(number, subscribe=recovers))["subscribe"]
            assert answer["was_recovering"]
            assert answer.get("recovered", False) is (recovered is not None)
            assert [each["data"] for each in answer.get("publications", [])] == (recovered or [])
            await ann.ask(number + 1, unsubscribe={"channel": name})


async def test_one_answer_holds_a_bounded_part_of_the_history(live: Wired) -> None:
    """The client asks for the rest from the position of the last message."""
    few, large = "chat:many", "chat:large"
    for n in range(1, 702):
        await live.publish(few, n)
    for _ in range(3):
        await live.publish(large, "x" * 200_000)  # the outbox holds 1 MiB
    async with wire(live) as ann:
        for number, name in enumerate((few, large), 2):
            epoch = (await ann.ask(number, subscribe={"channel": name}))["subscribe"]["epoch"]
        numbers = iter(range(4, 100))

        async def history(name: str, **more: Any) -> list[int]:
            answer = await ann.ask(next(numbers), history={"channel": name, **more})
            return [each["offset"] for each in answer["history"].get("publications", [])]

        for reverse in (False, True):
            whole = [*range(1, 702)]
            if reverse:
                whole.reverse()
            got = await history(few, limit=-1, reverse=reverse)
            while page := await history(few, limit=2**31 - 1, reverse=reverse, since={"offset": got[-1]}):
                assert len(page) == min(300, 701 - len(got))
                got += page
            assert got == whole
        assert await history(large, limit=-1) == [1]
        assert await history(large, limit=3, since={"offset": 1, "epoch": epoch}) == [2]


# Tokens


async def test_a_token_is_refreshed_in_place(live: Wired) -> None:
    async with wire(live, None) as ann:
        connected = (await ann.ask(1, connect={"token": token("ann", lasts_s=50.0)}))["connect"]
        assert connected["expires"]
        assert 45 <= connected["ttl"] <= 50
        refreshed = (await ann.ask(2, refresh={"token": token("ann", lasts_s=500.0)}))["refresh"]
        assert 490 <= refreshed["ttl"] <= 500
        assert refreshed["client"] == connected["client"]
        far = (await ann.ask(3, refresh={"token": token("ann", lasts_s=1e12)}))["refresh"]
        assert far["ttl"] == 2**31 - 1


@pytest.mark.parametrize(
    ("user", "lasts_s", "code"), [("bob", 600.0, 3500), ("ann", -60.0, 3005), (None, 0.0, 3500)], ids=shortly
)
async def test_a_token_that_does_not_refresh(user: str | None, lasts_s: float, code: int, live: Wired) -> None:
    async with wire(live) as ann:
        await ann.send({"id": 2, "refresh": {"token": "junk" if user is None else token(user, lasts_s=lasts_s)}})
        assert await ann.close_code() == code


async def test_a_token_that_is_not_refreshed_ends_the_connection(live: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    async with wire(live, None) as ann:
        await ann.ask(1, connect={"token": token("ann")})
        assert "rpc" in await ann.ask(2, **_request(rpc(2, "aside", "in its grace")))
        monkeypatch.setattr(f"{HERE}.expiry.REFRESH_GRACE_S", -86_401.0)
        assert await ann.close_code() == 3005


@pytest.mark.parametrize("way", ["header", "query", "cookie", "subprotocol"])
async def test_a_token_of_the_handshake_ends_the_connection(
    way: str, live: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = token("ann")
    ways: dict[str, dict[str, Any]] = {
        "header": {"additional_headers": {"Authorization": f"Bearer {given}"}},
        "cookie": {"additional_headers": {"Cookie": f"session={given}"}},
        "subprotocol": {"subprotocols": ["bearer", given]},
        "query": {},
    }
    path = f"/ways?token={given}" if way == "query" else "/ways"
    async with wire(live, None, path, **ways[way]) as ann:
        assert ann.socket.subprotocol == ("bearer" if way == "subprotocol" else None)
        connected = (await ann.ask(1, connect={}))["connect"]
        assert "expires" not in connected  # an SDK could not refresh it
        monkeypatch.setattr("hubbub.connections.socket.time", lambda: time.time() + 86_401)
        assert await ann.close_code() == 3005


async def test_the_end_of_what_a_custom_dependency_found_in_the_handshake_ends_the_connection(
    live: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with wire(live, None, f"/dated?ends={time.time() + 600}") as ann:
        assert "expires" not in (await ann.ask(1, connect={}))["connect"]
        monkeypatch.setattr("hubbub.connections.socket.time", lambda: time.time() + 601)
        assert await ann.close_code() == 3005


async def test_a_token_whose_end_is_a_numeric_string_ends(live: Wired) -> None:
    given = jwt.encode({"sub": "ann", "exp": str(int(time.time()) + 50)}, KEY, "HS256")
    async with wire(live, None) as ann:
        assert 45 <= (await ann.ask(1, connect={"token": given}))["connect"]["ttl"] <= 50


async def test_the_token_of_the_command_wins(live: Wired) -> None:
    headers = {"Authorization": f"Bearer {token('bob', lasts_s=1.0)}"}
    async with wire(live, None, additional_headers=headers) as ann:
        assert (await ann.connect("ann"))["data"] == {"hello": "ann"}


# The end


async def test_a_grant_that_ends_ends_the_subscription(live: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    live.grants["brief"] = Grant(expires_at=time.time() + 600)
    async with wire(live) as ann:
        answer = (await ann.ask(2, subscribe={"channel": "gate:brief"}))["subscribe"]
        assert "expires" not in answer  # an SDK without `getToken` could not refresh it, and would give up
        pass_time(monkeypatch, 601)
        assert (await ann.pushed("gate:brief", "unsubscribe"))["code"] == 2501
        live.grants.clear()
        assert "subscribe" in await ann.ask(3, subscribe={"channel": "gate:brief"})


async def test_a_shutdown_is_told(loop: str) -> None:
    live = Wired()
    with live_app(live, loop=loop):
        async with wire(live) as ann:
            await live.server.acall(live.manager._hubbub.drain(0.0))
            assert await ann.close_code() == 3001
        await eventually(lambda: live.ended == ["ann"])


async def test_a_function_that_swallows_its_cancellation_is_waited_for(loop: str) -> None:
    live = Wired(handler_timeout_s=0.1)
    live.hold("stuck", "gone")
    with live_app(live, loop=loop):
        async with wire(live) as ann:
            await ann.send(rpc(2, "stubborn", "stuck"), subscribe(3, "gate:gone"))
            await eventually(lambda: set(live.began) == {"stuck", "gone"})
        await eventually(lambda: live.empty)
        assert "canceled" in live.began
        assert live.ended == ["ann"]


async def test_a_slow_subscriber_is_closed_and_recovers(live: Wired) -> None:
    async with wire(live, "bob") as bob:
        first = (await bob.ask(2, subscribe={"channel": "chat:burst"}))["subscribe"]
        _, writer, status = await opened(live.server, "/live", receive_buffer=4096)
        assert status == 101
        try:
            frame = [{"id": 1, "connect": {"token": token("ann")}}, subscribe(2, "chat:burst")]
            writer.write(_masked("\n".join(map(json.dumps, frame)).encode()))
            await eventually(lambda: len(live.manager.connections(room="chat:burst")) == 2)
            before = live.manager.stats().slow
            burst = asyncio.create_task(live.server.acall(_burst(live.manager, 120), 30.0))
            await eventually(lambda: live.manager.stats().slow == before + 1)
        finally:
            writer.transport.abort()
        while len(bob.publications("chat:burst")) < 120:
            await bob.read()
        await burst
    async with wire(live) as ann:
        recovers = {"recover": True, "epoch": first["epoch"], "offset": first.get("offset", 0)}
        answer = (await ann.ask(2, subscribe={"channel": "chat:burst", **recovers}))["subscribe"]
        assert answer["recovered"]
        got = len(answer["publications"])
        assert 1 <= got < 120
        while got + len(ann.publications("chat:burst")) < 120:
            await ann.read()


async def _burst(manager: ConnectionManager, count: int) -> None:
    for n in range(count):
        await manager.broadcast([n, "x" * 60_000], room="chat:burst")


def _masked(payload: bytes) -> bytes:
    assert 126 <= len(payload) < 65536
    return bytes([0x81, 0x80 | 126]) + len(payload).to_bytes(2, "big") + b"\0\0\0\0" + payload


async def test_a_message_over_a_limit_is_not_dropped_without_a_word(loop: str) -> None:
    live = Wired(max_message_bytes=1000, max_messages_per_s=2.0)
    with live_app(live, loop=loop):
        async with wire(live) as ann:
            await ann.send(rpc(2, "aside", "x" * 2000))
            assert await ann.close_code() == 3501
        async with wire(live) as ann:
            for number in range(2, 30):
                await ann.send(rpc(number, "aside", "x"))
            assert await ann.close_code() == 3013


async def test_every_command_of_a_frame_counts_for_the_rate(loop: str) -> None:
    with live_app(Wired(max_messages_per_s=10.0), loop=loop) as live:
        async with wire(live) as ann:
            await ann.send(*[rpc(number, "aside", "x") for number in range(2, 32)])
            await ann.answers(*range(2, 32))
            await ann.send(*[rpc(number, "aside", "x") for number in range(32, 82)])
            assert await ann.close_code() == 3013


@pytest.mark.parametrize("kind", ["rpc", "concurrent", "subscribe"])
async def test_reading_stops_where_waiting_commands_are_large_and_goes_on(kind: str, live: Wired) -> None:
    live.hold("full")
    commands: dict[str, Callable[[int], dict[str, Any]]] = {
        "rpc": lambda number: rpc(number, "say", {"room": "x", "text": "x" * 400_000}),
        "concurrent": lambda number: rpc(number, "pause", "x" * 400_000),
        "subscribe": lambda number: subscribe(number, f"gate:{number}", data="x" * 400_000),
    }
    async with wire(live) as ann:
        if kind == "rpc":
            await ann.send(rpc(2, "stubborn", "full"))
        live.gates.update({f"{number}": live.gates["full"] for number in range(10, 20)})
        live.gates["x" * 400_000] = live.gates["full"]
        for number in range(10, 20):
            await ann.send(commands[kind](number))
        workload = _conversation(live)._workload
        size = "_task_bytes" if kind == "subscribe" else "_waiting_bytes"
        await eventually(lambda: getattr(workload, size) >= 2**20)
        assert getattr(workload, size) <= 2**20 + 400_200
        await ann.send({"id": 30, "rpc": {"method": "aside", "data": "not read yet"}})
        await live.release("full")
        await ann.answers(*range(10, 20), 30)
        await eventually(lambda: getattr(workload, size) == 0)


async def test_refreshes_run_one_after_the_other(live: Wired) -> None:
    async with wire(live, None, "/hooked") as eve:
        await eve.ask(1, connect={})
        live.hold("auth")
        await eve.send(*[{"id": number, "refresh": {"token": "x"}} for number in range(2, 12)])
        await eve.ask(20, rpc={"method": "none"})
        assert live.authenticated == 2
        await live.release("auth")
        assert all("refresh" in each for each in await eve.answers(*range(2, 12)))
        assert live.authenticated == 11
        live.hold("auth")
        await eve.send(*[{"id": number, "refresh": {"token": "x"}} for number in range(30, 40)])
        await eventually(lambda: live.authenticated == 12)
    await eventually(lambda: not live.manager.stats().connections)
    await live.release("auth")
    await eventually(lambda: live.empty)
    assert live.authenticated == 12, "none begins after the end"


@pytest.mark.parametrize("name", ["chat:lost", "ticker:news", "$user"])
async def test_a_room_that_lost_messages_is_subscribed_to_anew(name: str, live: Wired) -> None:
    async with wire(live) as ann:
        await ann.ask(2, subscribe={"channel": "chat:lost"})
        await live.publish("chat:lost", 1)
        channel = "$user:ann" if name == "$user" else name
        channel = next(each for each in live.manager._hubbub.memberships.rooms if each in (channel, "$" + channel))
        reset = Reset(Position("another", 1))
        await live.do(lambda: live.manager._hubbub.deliveries.deliver(channel, reset))
        if name == "chat:lost":
            assert (await ann.pushed(name, "unsubscribe"))["code"] == 2500
            recovers = {"recover": True, "epoch": "old", "offset": 1}
            answer = (await ann.ask(3, subscribe={"channel": name, **recovers}))["subscribe"]
            assert answer["was_recovering"]
            assert "recovered" not in answer
            await live.publish(name, 2)
            await ann.until(lambda each: each.get("push", {}).get("pub", {}).get("data") == 2)
        else:
            assert await ann.close_code() == 3010
            # An SDK that is told of an end would forget the room, and not recover when it is back.
            assert not [each for each in ann.told if "unsubscribe" in each.get("push", {})]


async def test_a_client_of_a_room_in_a_new_epoch_subscribes_again_and_recovers(live: Wired) -> None:
    """Nothing is lost. But without the new epoch, the client could not recover from later offsets."""
    async with wire(live) as ann:
        place = (await ann.ask(2, subscribe={"channel": "chat:anew"}))["subscribe"]
        await live.publish("chat:anew", 1)
        relabel = Relabel(Position("another", 1))
        await live.do(lambda: live.manager._hubbub.deliveries.deliver("chat:anew", relabel))
        assert (await ann.pushed("chat:anew", "unsubscribe"))["code"] == 2500
        assert ann.publications("chat:anew") == [1], "which was pending, comes before the end"
        recovers = {"recover": True, "epoch": place["epoch"], "offset": 1}
        again = (await ann.ask(3, subscribe={"channel": "chat:anew", **recovers}))["subscribe"]
        assert (again["was_recovering"], again["recovered"]) == (True, True)


async def test_a_client_that_the_server_joined_to_a_room_is_told_its_new_epoch(live: Wired) -> None:
    async with wire(live) as ann:
        relabel = Relabel(Position("another", 7))
        await live.do(lambda: live.manager._hubbub.deliveries.deliver("$user:ann", relabel))
        place = await ann.pushed("$user", "subscribe")
        assert (place["epoch"], place["offset"], place["positioned"]) == ("another", 7, True)
        await live.do(lambda: live.manager.broadcast_nowait("hello", room="ticker:news"))
        await ann.pushed("ticker:news")
        assert not [each for each in ann.told if "unsubscribe" in each.get("push", {})]


# On Redis


@pytest.fixture
def fleet(redis: RedisServer, loop: str) -> Iterator[tuple[Wired, Wired]]:
    url = redis.url(prefix=fresh_prefix())
    with live_app(Wired(url), loop=loop) as one, live_app(Wired(url)) as two:
        assert isinstance(one, Wired)
        assert isinstance(two, Wired)
        yield one, two


async def test_two_workers_are_one_server(fleet: tuple[Wired, Wired]) -> None:
    one, two = fleet
    async with wire(one) as ann, wire(two, "bob") as bob:
        await ann.ask(2, subscribe={"channel": "chat:both"})
        await bob.ask(2, subscribe={"channel": "chat:both"})
        await ann.until(lambda each: each.get("push", {}).get("join", {}).get("info", {}).get("user") == "bob")
        await bob.ask(3, publish={"channel": "chat:both", "data": {"n": 1}})
        assert (await ann.pushed("chat:both"))["data"] == {"n": 1, "by": "bob"}
        assert (await ann.ask(4, presence_stats={"channel": "chat:both"}))["presence_stats"]["num_clients"] == 2
        await one.server.acall(one.manager.disconnect_user("bob"))
        assert await bob.close_code() == 3503
        await ann.pushed("chat:both", "leave")
    await eventually(lambda: one.empty and two.empty)
    assert (one.ended, two.ended) == (["ann"], ["bob"])


@pytest.fixture
def held(redis: RedisServer) -> Iterator[tuple[Wired, Proxy]]:
    """A worker whose Redis can be made to keep its answers."""
    with Proxy(redis) as proxy, live_app(Wired(redis.url(through=proxy, prefix=fresh_prefix()))) as live:
        assert isinstance(live, Wired)
        yield live, proxy


async def test_publications_wait_for_the_reply_also_where_redis_is_slow(held: tuple[Wired, Proxy]) -> None:
    live, proxy = held
    async with wire(live, "bob") as bob, wire(live) as ann:
        await bob.ask(2, subscribe={"channel": "chat:slow"})
        position = (await ann.ask(2, subscribe={"channel": "chat:slow"}))["subscribe"]
        await ann.ask(3, unsubscribe={"channel": "chat:slow"})
        ann.told.clear()
        proxy.hold("answers")
        recovers = {"recover": True, "epoch": position["epoch"], "offset": position.get("offset", 0)}
        await ann.send(subscribe(4, "chat:slow", **recovers))
        publishing = [asyncio.create_task(live.publish("chat:slow", n)) for n in range(3)]
        while len(bob.publications("chat:slow")) < 3:
            await bob.read()
        proxy.release()
        await asyncio.gather(*publishing)
        answer = (await ann.answers(4))[0]
        assert not [each for each in ann.told[: ann.told.index(answer)] if "push" in each]
        recovered = [each["data"] for each in answer["subscribe"].get("publications", [])]
        while len(recovered) + len(ann.publications("chat:slow")) < 3:
            await ann.read()
        assert sorted([*recovered, *ann.publications("chat:slow")]) == [0, 1, 2]
    await eventually(lambda: live.empty)


async def test_a_room_is_left_and_asked_for_again_while_redis_is_slow(held: tuple[Wired, Proxy]) -> None:
    live, proxy = held
    async with wire(live) as ann:
        live.grants["slow"] = Grant(expires_at=time.time() + 600)
        proxy.hold("answers")
        await ann.send(subscribe(2, "chat:held"), unsubscribe(3, "chat:held"), subscribe(4, "chat:held"))
        await ann.send(rpc(5, "aside", "read"))
        await ann.answers(5)
        proxy.release()
        await ann.answers(2, 3, 4)
        assert "subscribe" in (await ann.answers(4))[0]
        await live.publish("chat:held", "hello")
        assert (await ann.pushed("chat:held"))["data"] == "hello"
    await eventually(lambda: live.empty)


@pytest.mark.parametrize("command", ["connect", "subscribe"])
async def test_a_client_that_leaves_while_redis_is_asked_leaves_nothing(
    command: str, held: tuple[Wired, Proxy]
) -> None:
    live, proxy = held
    async with wire(live, None) as ann:
        if command == "connect":
            proxy.hold("messages")
            await ann.send({"id": 1, "connect": {"token": token("ann")}}, subscribe(2, "chat:x"))
            await eventually(lambda: bool(live.manager._hubbub.memberships.rooms))
        else:
            await ann.connect()
            proxy.hold("answers")
            await ann.send(subscribe(2, "chat:x"))
            await eventually(lambda: "chat:x" in live.manager._hubbub.memberships.rooms)
    await eventually(lambda: not live.manager.stats().connections)
    proxy.release()
    await eventually(lambda: live.empty)
    assert live.ended == ([] if command == "connect" else ["ann"])


async def test_a_redis_that_lost_a_room_is_told(held: tuple[Wired, Proxy], redis: RedisServer) -> None:
    live, _ = held
    async with wire(live) as ann:
        position = (await ann.ask(2, subscribe={"channel": "short:wiped"}))["subscribe"]
        await live.publish("short:wiped", 1)
        assert (await ann.pushed("short:wiped"))["data"] == 1
        assert redis.command("DEL", *redis.command("KEYS", "*short:wiped*"))
        await live.publish("short:wiped", 2)
        assert (await ann.pushed("short:wiped", "unsubscribe"))["code"] == 2500
        recovers = {"recover": True, "epoch": position["epoch"], "offset": 1}
        answer = (await ann.ask(3, subscribe={"channel": "short:wiped", **recovers}))["subscribe"]
        assert answer["was_recovering"]
        assert "recovered" not in answer
        await live.publish("short:wiped", 3)
        await ann.until(lambda each: each.get("push", {}).get("pub", {}).get("data") == 3)


# Anything at all


@pytest.mark.parametrize("seed", range(4))
async def test_any_commands_in_any_order_have_documented_ends_and_leave_nothing(seed: int, live: Wired) -> None:
    random_ = random.Random(seed)
    live.grants["brief"] = Grant(expires_at=time.time() + 0.5)
    live.raises.update(bad=ZeroDivisionError(), odd=asyncio.CancelledError())
    for _ in range(12):
        asked: list[int] = []
        async with wire(live) as ann:
            code = None
            try:
                for _ in range(random_.randrange(1, 12)):
                    frame = [_any_command(random_, asked) for _ in range(random_.randrange(1, 20))]
                    await ann.send(*frame)
                if random_.random() < 0.7:
                    await ann.answers(*asked)
            except ConnectionClosed:
                code = (await closed(ann.socket))[0]
            assert code in (None, 3501, 3507, 3508)
            answered = Counter(each["id"] for each in ann.told if "id" in each)
            assert not [number for number, times in answered.items() if times > 1]
            errors = {error(each) for each in ann.told if "error" in each}
            assert errors <= {100, 103, 104, 105, 106, 107, 108, 110, 112, 403, 422, 503}
            assert "connect" in ann.told[0]
        await eventually(lambda: live.empty)
    assert len(live.ended) == 12


def _any_command(random_: random.Random, asked: list[int]) -> Any:
    number = len(asked) + 2
    room = random_.choice(["chat:a", "chat:b", "gate:bad", "gate:odd", "gate:brief", "gate:c", "chat:secret", "$user"])
    choices: list[Any] = [
        *[{"subscribe": {"channel": room, "recover": random_.random() < 0.3, "offset": random_.randrange(3)}}] * 4,
        *[{"unsubscribe": {"channel": room}}] * 3,
        {"publish": {"channel": room, "data": {"n": number}}},
        {"presence": {"channel": room}},
        {"presence_stats": {"channel": room}},
        {"history": {"channel": room, "limit": random_.choice([-1, 0, 2]), "reverse": random_.random() < 0.5}},
        {"rpc": {"method": random_.choice(["say", "aside", "fail", "forbid", "busy", "none", "wrong"]), "data": "x"}},
        {"rpc": {"method": "say", "data": {"room": "a", "text": "t"}}},
        {"refresh": {"token": token("ann")}},
        {"send": {"data": {"method": "note", "data": number}}},
    ]
    if random_.random() < 0.004:
        return random_.choice([{}, {"id": number, "connect": {}}, {"id": number}, {"send": {"data": 1}}])
    command = random_.choice(choices)
    if "send" in command:
        return command
    asked.append(number)
    return {"id": number, **command}
