"""Who is in a room of an endpoint: rights that are taken back, and rooms that the app joins a client to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from fastapi import WebSocket

from hubbub import Connection
from hubbub.endpoints.results import Grant, Welcome
from tests.integration.json_client import Wire, error, rpc, subscribe, unsubscribe, wire
from tests.integration.live import User, current_user, live_app, pass_time, token
from tests.integration.redis_server import RedisServer, fresh_prefix
from tests.integration.sdk import Sdk
from tests.integration.sdks import node as node  # fixtures
from tests.integration.sdks import sdk as sdk
from tests.integration.support import client, eventually, receive
from tests.integration.test_endpoint_wire import Wired

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_sweeps")]
OUT = {"code": 2000, "reason": "server unsubscribe"}


class Rights(Wired):
    """An app that joins its clients to rooms, and removes them."""

    def _declare(self) -> None:
        super()._declare()
        live, manager = self.live, self.manager

        @live.on("leave", concurrent=True)
        async def leave(message: str, connection: Connection) -> bool:
            await connection.leave(message)
            return connection.is_subscribed(message)

        @live.on("join between")
        async def join_between(message: str, connection: Connection) -> bool:
            await manager.broadcast("before", room=message)
            await connection.join(message)
            await manager.broadcast("after", room=message)
            return connection.is_subscribed(message)

        @live.publish("gate:{room}")
        async def publish(message: str, room: str) -> str:
            self.began.append(message)
            await self.pause("publish")
            return message

        async def late(name: str) -> str:
            self.began.append(name)
            await self.pause("auth")
            return name

        manager.endpoint("/late", auth=late)
        early = manager.endpoint("/early", auth=current_user)

        @early.connect
        async def come(connection: Connection, user: User) -> Welcome:
            await self.comes(connection)
            return self.welcome

        @self.app.websocket("/raw/{user}/{room}")
        async def raw(websocket: WebSocket, user: str, room: str) -> None:
            async with manager.connect(websocket, user, room=room) as connection:
                await connection.send("here")
                async for _ in connection:
                    pass

    def reset(self) -> None:
        super().reset()

        async def nothing(connection: Connection) -> None:
            pass

        self.comes: Callable[[Connection], Awaitable[None]] = nothing

    def connection(self, user: str = "ann") -> Connection:
        (connection,) = self.manager.connections(user=user)
        return connection

    def hold_broker(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Holds back what the broker answers to one question, until `release` of ``broker``."""
        real = getattr(self.manager._hubbub.broker, name)

        async def ask(*arguments: Any, **options: Any) -> Any:
            answer = await real(*arguments, **options)
            self.began.append(name)
            await self.pause("broker")
            return answer

        self.hold("broker")
        monkeypatch.setattr(self.manager._hubbub.broker, name, ask)

    async def unsubscribe(self, user: str, room: str) -> tuple[bool, list[Connection]]:
        """What the call returns, and who is in the room here right after it."""

        async def unsubscribe() -> tuple[bool, list[Connection]]:
            had = await self.manager.unsubscribe(user, room)
            return had, self.manager.connections(user=user, room=room)

        return await self.server.acall(unsubscribe())


@pytest.fixture(scope="module", params=["memory", "redis"])
def served(request: pytest.FixtureRequest, redis: RedisServer) -> Iterator[tuple[Rights, Rights]]:
    """Two workers on Redis; in memory it is one twice."""
    with ExitStack() as stack:
        url = "memory://" if request.param == "memory" else redis.url(prefix=fresh_prefix())
        one = stack.enter_context(live_app(Rights(url)))
        assert isinstance(one, Rights)
        two = one if request.param == "memory" else stack.enter_context(live_app(Rights(url)))
        assert isinstance(two, Rights)
        yield one, two


@pytest.fixture
async def workers(served: tuple[Rights, Rights]) -> AsyncIterator[tuple[Rights, Rights]]:
    """The workers, on which nothing may be left of a test's clients."""
    for each in served:
        each.reset()
    yield served
    for each in served:
        await eventually(lambda each=each: each.empty)  # type: ignore[misc]
        each.reset()


@pytest.fixture
def live(workers: tuple[Rights, Rights]) -> Rights:
    return workers[0]


async def handled(wire: Wire, number: int) -> None:
    """Waits until everything that the server said before has arrived."""
    await wire.ask(number, rpc={"method": "aside", "data": "x"})


# Taking a right back


async def test_a_right_that_is_taken_back_ends_what_a_user_has_in_one_room(workers: tuple[Rights, Rights]) -> None:
    one, two = workers
    async with (
        wire(one) as ann,
        wire(two) as tab,
        wire(one, "bob") as bob,
        client(two.server, "/raw/ann/short:x") as raw,
    ):
        assert await receive(raw) == "here"
        for each in (ann, tab, bob):
            await each.ask(2, subscribe={"channel": "short:x"})
            await each.ask(3, subscribe={"channel": "short:y"})
        had, here = await one.unsubscribe("ann", "short:x")
        assert had
        assert here == []
        for each in (ann, tab):
            assert await each.pushed("short:x", "unsubscribe") == OUT
        await eventually(lambda: two.manager.connections(room="short:x", user="ann") == [])
        await one.publish("short:x", "not for ann")
        await bob.pushed("short:x")
        await one.publish("short:y", "for all")
        for each in (ann, tab):
            assert (await each.pushed("short:y"))["data"] == "for all"
            assert each.publications("short:x") == []
        assert await one.server.acall(one.manager.send_to_user("ann", "still open"))
        assert await receive(raw) == "still open"
        assert "subscribe" in await tab.ask(4, subscribe={"channel": "short:x"})
        assert (await one.unsubscribe("ann", "short:z"))[0] is False
        await one.publish("short:x", "granted again")
        assert (await tab.pushed("short:x"))["data"] == "granted again"


async def test_a_subscription_that_is_being_authorized_is_refused(workers: tuple[Rights, Rights]) -> None:
    one, two = workers
    two.hold("door", "other")
    async with wire(two) as ann, wire(two, "bob") as bob:
        await ann.ask(2, subscribe={"channel": "short:sign"})
        for each in (ann, bob):
            await each.send(subscribe(3, "gate:door"), subscribe(4, "gate:other"))
        await eventually(lambda: sorted(two.began) == ["door", "door", "other", "other"])
        await one.unsubscribe("ann", "gate:door")
        await one.unsubscribe("ann", "short:sign")
        await ann.pushed("short:sign", "unsubscribe")  # so it knows of the first, too
        await two.release("door")
        await two.release("other")
        refused, other = await ann.answers(3, 4)
        assert error(refused) == 103
        assert "subscribe" in other
        assert "subscribe" in (await bob.answers(3))[0]
        assert not two.connection().is_subscribed("gate:door")
        assert "subscribe" in await ann.ask(5, subscribe={"channel": "gate:door"})


async def test_rooms_that_a_connect_function_gives_can_be_taken_back_before_it_returns(
    workers: tuple[Rights, Rights],
) -> None:
    one, two = workers
    one.welcome = Welcome(rooms=["short:given", "short:kept"])
    one.hold("come")

    async def comes(connection: Connection) -> None:
        await connection.join("short:joined")
        one.began.append("comes")
        await one.pause("come")

    one.comes = comes
    async with wire(one, None, "/early") as ann:
        await ann.send({"id": 1, "connect": {"token": token("ann")}})
        await eventually(lambda: one.began == ["comes"])
        for room in ("short:given", "short:joined"):
            await two.unsubscribe("ann", room)
        await eventually(lambda: not one.connection().is_subscribed("short:joined"))
        await one.release("come")
        connected = (await ann.answers(1))[0]["connect"]
        assert set(connected["subs"]) == {"$user", "$everyone", "short:kept"}
        await handled(ann, 2)
        assert [each.get("id") for each in ann.told] == [1, 2]
        assert one.connection().rooms == {"short:kept"}


async def test_a_room_that_the_server_joined_a_client_to_can_be_taken_back(workers: tuple[Rights, Rights]) -> None:
    one, two = workers
    async with wire(one) as ann:
        assert (await two.unsubscribe("ann", "ticker:news"))[0] is True
        assert await ann.pushed("ticker:news", "unsubscribe") == OUT
        assert not one.connection().is_subscribed("ticker:news")


async def test_an_sdk_does_not_subscribe_again_by_itself(sdk: Sdk, workers: tuple[Rights, Rights]) -> None:
    one, two = workers
    async with sdk.connected(two) as ann:
        room = await ann.subscribed("short:sdk")
        await one.unsubscribe("ann", "short:sdk")
        await eventually(lambda: room.unsubscribed == [(2000, "server unsubscribe")])
        assert await room.state() == "unsubscribed"
        await one.unsubscribe("ann", "ticker:news")
        await eventually(lambda: ann.left == ["ticker:news"])
        await room.subscribe()
        await eventually(lambda: len(room.subscribed) == 2)
        await one.publish("short:sdk", "again")
        await eventually(lambda: room.got == ["again"])


@pytest.mark.parametrize(
    ("question", "asks"),
    [("history", "history"), ("history", "position"), ("presence", "connections"), ("presence_stats", "connections")],
)
async def test_an_answer_that_comes_after_a_right_was_taken_back_is_refused(
    question: str, asks: str, live: Rights, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with wire(live) as ann:
        await ann.ask(2, subscribe={"channel": "chat:asked"})
        await live.publish("chat:asked", "secret")
        live.hold_broker(asks, monkeypatch)
        limit = {"limit": 10} if asks == "history" else {}
        await ann.send({"id": 3, question: {"channel": "chat:asked", **limit}})
        await eventually(lambda: live.began[-1:] == [asks])
        await live.unsubscribe("ann", "chat:asked")
        await live.release("broker")
        assert error((await ann.answers(3))[0]) == 103


@pytest.mark.parametrize("how", ["take back", "leave", "kick"])
async def test_a_publication_whose_function_returns_after_the_right_was_taken_back_is_not_published(
    how: str, live: Rights
) -> None:
    live.hold("publish")
    async with wire(live) as ann, wire(live, "bob") as bob:
        for each in (ann, bob):
            await each.ask(2, subscribe={"channel": "gate:told"})
        await ann.send({"id": 3, "publish": {"channel": "gate:told", "data": "too late"}})
        await eventually(lambda: "too late" in live.began)
        match how:
            case "take back":
                await live.unsubscribe("ann", "gate:told")
            case "leave":
                await live.server.acall(live.connection().leave("gate:told"))
            case _:
                await live.server.acall(live.manager.disconnect_user("ann"))
        await live.release("publish")
        if how == "kick":
            assert await ann.close_code() == 3503
        else:
            assert error((await ann.answers(3))[0]) == 103
        await live.publish("gate:told", "last")
        await bob.pushed("gate:told")
        assert bob.publications("gate:told") == ["last"]


# Rooms that the app joins a client to


async def test_a_client_is_told_of_a_room_before_its_messages_and_of_the_end_after_them(live: Rights) -> None:
    async with wire(live) as ann:
        await live.publish("short:app", "early")
        assert await ann.ask(2, **_data(rpc(2, "join between", "short:app"))) == {"id": 2, "rpc": {"data": True}}
        assert (await ann.pushed("short:app"))["data"] == "after"
        kinds = [
            kind for each in ann.told if each.get("push", {}).get("channel") == "short:app" for kind in each["push"]
        ]
        assert kinds == ["channel", "subscribe", "channel", "pub"]
        told = await ann.pushed("short:app", "subscribe")
        assert told == {"recoverable": True, "epoch": told["epoch"], "offset": 2, "positioned": True}
        assert (await ann.pushed("short:app"))["offset"] == 3
        await ann.ask(3, **_data(rpc(3, "join", "short:app")))
        assert error(await ann.ask(4, subscribe={"channel": "short:app"})) == 105
        await ann.ask(5, **_data(rpc(5, "join", "ticker:app")))
        assert await ann.pushed("ticker:app", "subscribe") == {}
        assert await ann.ask(6, **_data(rpc(6, "leave", "short:app"))) == {"id": 6, "rpc": {"data": False}}
        assert await ann.pushed("short:app", "unsubscribe") == OUT
        await ann.ask(7, **_data(rpc(7, "leave", "short:app")))
        await live.publish("short:app", "late")
        await handled(ann, 8)
        assert ann.publications("short:app") == ["after"]
        pushes = [each["push"] for each in ann.told if each.get("push", {}).get("channel") == "short:app"]
        assert [kind for push in pushes for kind in push if kind != "channel"] == ["subscribe", "pub", "unsubscribe"]


async def test_a_client_that_subscribed_is_unsubscribed_by_a_leave_and_may_subscribe_again(live: Rights) -> None:
    live.grants["own"] = Grant(expires_at=time.time() + 600)
    async with wire(live) as ann:
        await ann.ask(2, subscribe={"channel": "gate:own"})
        await ann.send(rpc(3, "leave", "gate:own"))
        assert await ann.pushed("gate:own", "unsubscribe") == OUT
        assert "subscribe" in await ann.ask(4, subscribe={"channel": "gate:own"})
        assert await ann.ask(5, unsubscribe={"channel": "gate:own"}) == {"id": 5, "unsubscribe": {}}
        assert sum("unsubscribe" in each.get("push", {}) for each in ann.told) == 1


async def test_a_leave_ends_a_subscription_that_is_being_authorized(live: Rights) -> None:
    live.hold("door")
    async with wire(live) as ann:
        await ann.send(subscribe(2, "gate:door"))
        await eventually(lambda: live.began == ["door"])
        await ann.ask(3, **_data(rpc(3, "leave", "gate:door")))
        await live.release("door")
        assert error((await ann.answers(2))[0]) == 103
        assert [each.get("id") for each in ann.told] == [1, 3, 2]


async def test_a_room_that_the_app_joins_while_the_client_subscribes_is_the_servers(live: Rights) -> None:
    """The client is told at once, and its own subscription is refused as a second one."""
    live.hold("both")
    async with wire(live) as ann:
        await ann.send(subscribe(2, "gate:both"))
        await eventually(lambda: live.began == ["both"])
        await ann.ask(3, **_data(rpc(3, "join", "gate:both")))
        assert await ann.pushed("gate:both", "subscribe") == {}
        await live.publish("gate:both", "before the rule has answered")
        assert (await ann.pushed("gate:both"))["data"] == "before the rule has answered"
        await live.release("both")
        assert error((await ann.answers(2))[0]) == 105
        await ann.ask(4, unsubscribe={"channel": "gate:both"})
        assert live.connection().is_subscribed("gate:both")
        await ann.ask(5, **_data(rpc(5, "leave", "gate:both")))
        assert await ann.pushed("gate:both", "unsubscribe") == OUT
        assert "subscribe" in await ann.ask(6, subscribe={"channel": "gate:both"})


@pytest.mark.parametrize(
    ("how", "since"),
    [("unsubscribe", {}), ("leave", {}), ("take back", {}), ("unsubscribe", {"epoch": "e", "offset": 1})],
    ids=["unsubscribe", "leave", "take back", "unsubscribe that recovers"],
)
async def test_a_subscription_that_ends_while_the_broker_is_asked_does_not_join(
    how: str, since: dict[str, Any], live: Rights, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.hold_broker("history" if since else "position", monkeypatch)
    async with wire(live) as ann:
        await ann.send(subscribe(2, "short:left", recover=True, **since))
        await eventually(lambda: bool(live.began))
        match how:
            case "unsubscribe":
                await ann.send(unsubscribe(3, "short:left"))
                await handled(ann, 4)
            case "leave":
                await live.server.acall(live.connection().leave("short:left"))
            case _:
                await live.unsubscribe("ann", "short:left")
        await live.release("broker")
        assert error((await ann.answers(2))[0]) == 103
        assert not live.connection().is_subscribed("short:left")
        assert "subscribe" in await ann.ask(5, subscribe={"channel": "short:left"})
        await live.publish("short:left", "hello")
        assert (await ann.pushed("short:left"))["data"] == "hello"


async def test_a_client_that_unsubscribes_does_not_end_what_the_app_joined_it_to_meanwhile(live: Rights) -> None:
    live.hold("both")
    async with wire(live) as ann:
        await ann.send(subscribe(2, "gate:both"))
        await eventually(lambda: live.began == ["both"])
        await ann.ask(3, **_data(rpc(3, "join", "gate:both")))
        assert await ann.ask(4, unsubscribe={"channel": "gate:both"}) == {"id": 4, "unsubscribe": {}}
        assert error(await ann.ask(5, subscribe={"channel": "gate:both"})) == 105
        await live.release("both")
        assert error((await ann.answers(2))[0]) == 103
        assert live.connection().is_subscribed("gate:both")
        await live.publish("gate:both", "still here")
        assert (await ann.pushed("gate:both"))["data"] == "still here"


async def test_rooms_that_a_connect_function_joins_are_in_the_reply(live: Rights) -> None:
    live.welcome = Welcome(rooms=["short:joined", "ticker:named"])

    async def comes(connection: Connection) -> None:
        await connection.join("short:joined")
        await connection.join("ticker:joined")
        await connection.join("ticker:left")
        await connection.leave("ticker:left")

    live.comes = comes
    async with wire(live, None, "/early") as ann:
        subs = (await ann.connect())["subs"]
        assert set(subs) == {"$user", "$everyone", "short:joined", "ticker:joined", "ticker:named"}
        place = subs["short:joined"]
        assert (place["recoverable"], place["positioned"], place.get("offset", 0)) == (True, True, 0)
        await live.publish("short:joined", 1)
        await ann.pushed("short:joined")
        await handled(ann, 2)
        assert not [each for each in ann.told if "subscribe" in each.get("push", {})]
    await live.publish("short:joined", 2)
    async with wire(live, None, "/early") as ann:
        known = {"short:joined": {"recover": True, "epoch": place["epoch"], "offset": 1}}
        connected = (await ann.ask(1, connect={"token": token("ann"), "subs": known}))["connect"]
        assert connected["subs"]["short:joined"]["recovered"]
        assert (await ann.pushed("short:joined"))["data"] == 2


async def test_a_join_of_a_connect_function_that_takes_longer_is_told_afterwards(live: Rights) -> None:
    joins: list[asyncio.Task[Any]] = []
    live.hold("joins")

    async def comes(connection: Connection) -> None:
        async def join() -> None:
            await live.pause("joins")
            await connection.join("short:later")

        joins.append(asyncio.create_task(join()))

    live.comes = comes
    async with wire(live, None, "/early") as ann:
        assert "short:later" not in (await ann.connect())["subs"]
        await live.release("joins")
        assert (await ann.pushed("short:later", "subscribe"))["positioned"]


async def test_an_sdk_reads_rooms_that_the_app_joins_it_to(sdk: Sdk, live: Rights) -> None:
    async with sdk.connected(live) as ann:
        assert await ann.rpc("join between", "short:pushed")
        await eventually(lambda: ("short:pushed", "after") in ann.published)
        (told,) = [each for each in ann.joined if each.room == "short:pushed"]
        assert told.recoverable
        assert told.positioned
        assert await ann.rpc("leave", "short:pushed") is False
        await eventually(lambda: ann.left == ["short:pushed"])


# The end of a connection


@pytest.mark.parametrize(
    ("how", "code"), [("kick", 3503), ("token", 3005), ("grant", 2501), ("unsubscribe", 2000), ("leave", 2000)]
)
async def test_whoever_loses_a_right_is_not_in_the_room_any_more(
    how: str, code: int, workers: tuple[Rights, Rights], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = workers
    async with wire(one) as ann:
        if how == "grant":
            one.grants["end"] = Grant(expires_at=time.time() + 600)
        await ann.ask(2, subscribe={"channel": "gate:end"})
        connection = one.connection()
        assert connection.is_subscribed("gate:end")
        match how:
            case "grant":
                pass_time(monkeypatch, 601)
            case "kick":
                assert await two.server.acall(two.manager.disconnect_user("ann"))
            case "token":
                monkeypatch.setattr("hubbub.endpoints.expiry.REFRESH_GRACE_S", -86_401.0)
            case "unsubscribe":
                await two.unsubscribe("ann", "gate:end")
            case "leave":
                await one.server.acall(connection.leave("gate:end"))
        if code < 3000:
            assert (await ann.pushed("gate:end", "unsubscribe"))["code"] == code
            assert connection.is_open
        else:
            assert await ann.close_code() == code
            assert not connection.is_open
        assert not connection.is_subscribed("gate:end")


async def test_a_user_who_is_sent_away_while_it_is_authenticated_does_not_stay(workers: tuple[Rights, Rights]) -> None:
    one, two = workers
    admission = one.manager._hubbub.admission
    one.hold("auth")
    async with wire(one) as tab, wire(one, None, "/late?name=ann") as ann, wire(one, None, "/late?name=bob") as bob:
        for each in (ann, bob):
            await each.send({"id": 1, "connect": {}})
        await eventually(lambda: sorted(one.began) == ["ann", "bob"])
        await two.server.acall(two.manager.disconnect_user("ann"))
        assert await tab.close_code() == 3503  # so its worker knows
        async with wire(one, None, "/late?name=ann") as later:
            await later.send({"id": 1, "connect": {}})
            await eventually(lambda: len(one.began) == 3)
            await one.release("auth")
            assert await ann.close_code() == 3503
            assert [each.get("id") for each in ann.told] == []
            for each in (bob, later):
                assert "connect" in (await each.answers(1))[0]
                await each.send(rpc(2, "none"))
                await each.answers(2)
    await eventually(lambda: len(admission._kept) == 0)


async def test_a_user_is_sent_away_from_every_worker_with_the_same_code(workers: tuple[Rights, Rights]) -> None:
    one, two = workers
    async with wire(one) as ann, wire(two) as tab, wire(two, "bob") as bob:

        async def send_away() -> list[Connection]:
            await one.manager.disconnect_user("ann")
            return one.manager.connections(user="ann")

        assert await one.server.acall(send_away()) == []
        assert [await each.close_code() for each in (ann, tab)] == [3503, 3503]
        await handled(bob, 2)


def _data(command: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in command.items() if key != "id"}
