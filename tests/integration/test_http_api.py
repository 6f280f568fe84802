"""The HTTP API, with the clients that others wrote for it: on one worker, and on a fleet."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import cent
import pytest
from cent.exceptions import CentUnauthorizedError
from fastapi import WebSocket
from websockets.asyncio.client import ClientConnection

from tests.integration.http_clients import ByCent, ByCentJs, CentJs, Failed, HttpClient, by_cent
from tests.integration.live import Live, live_app, token
from tests.integration.redis_server import RedisServer, fresh_prefix
from tests.integration.sdk_js import require_packages
from tests.integration.support import client, closed, eventually, receive, receive_until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_sweeps")]

KEY = "a-key-for-tests-0123456789"


class Workers(NamedTuple):
    """Where requests go, and where clients are connected: two workers of a fleet, or one and the same."""

    asked: Live
    serving: Live

    @property
    def url(self) -> str:
        return self.asked.server.http("/api")


def worker(url: str = "memory://") -> Live:
    live = Live(url)
    live.manager.http_api(live.app, "/api", key=["another-key-0123456789", KEY])

    @live.app.websocket("/raw/{room}")
    async def raw(websocket: WebSocket, room: str) -> None:
        async with live.manager.connect(websocket, "raw", room=room) as connection:
            await connection.wait_gone()

    return live


@pytest.fixture(scope="module", params=["alone", "fleet"])
def workers(request: pytest.FixtureRequest, redis: RedisServer) -> Iterator[Workers]:
    if request.param == "alone":
        with live_app(worker()) as alone:
            yield Workers(alone, alone)
        return
    url = redis.url(prefix=fresh_prefix())
    with live_app(worker(url)) as one, live_app(worker(url)) as two:
        yield Workers(one, two)


@pytest.fixture(scope="module")
def cent_js() -> Iterator[CentJs]:
    require_packages("cent.js")
    node = CentJs()
    yield node
    node.stop()


@pytest.fixture(params=["cent", "cent.js"])
async def api(request: pytest.FixtureRequest, workers: Workers) -> AsyncIterator[HttpClient]:
    if request.param == "cent.js":
        yield ByCentJs(request.getfixturevalue("cent_js"), workers.url, KEY)
        return
    async with by_cent(workers.url, KEY) as found:
        yield found


class Client:
    """A client of the endpoint.

    Attributes:
        id: The id of its connection.
    """

    def __init__(self, websocket: ClientConnection, connection_id: str) -> None:
        self._websocket = websocket
        self.id = connection_id

    async def pushed(self, kind: str) -> dict[str, Any]:
        """The next push of a kind, with the channel. The pushes before it are dropped."""
        found = await receive_until(self._websocket, lambda reply: kind in reply.get("push", {}))
        push: dict[str, Any] = found[-1]["push"]
        return push

    async def closed(self) -> tuple[int | None, str | None]:
        return await closed(self._websocket)

    async def is_open(self) -> bool:
        """Whether it is answered."""
        await self._websocket.send(json.dumps({"id": 99, "rpc": {"method": "aside", "data": "still here"}}))
        found = await receive_until(self._websocket, lambda reply: reply.get("id") == 99)
        return bool(found[-1]["rpc"] == {"data": "still here"})


@asynccontextmanager
async def connected(live: Live, user: str, *rooms: str) -> AsyncIterator[Client]:
    async with client(live.server, "/live") as websocket:
        await websocket.send(json.dumps({"id": 1, "connect": {"token": token(user)}}))
        connection_id = (await receive(websocket))["connect"]["client"]
        for number, room in enumerate(rooms, 2):
            await websocket.send(json.dumps({"id": number, "subscribe": {"channel": room}}))
            found = await receive_until(websocket, lambda reply, number=number: reply.get("id") == number)  # type: ignore[misc]
            assert "subscribe" in found[-1], found
        yield Client(websocket, connection_id)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name that no other test has."""
    return f"{request.node.name}".replace("[", "-").replace("]", "")


async def test_a_published_message_reaches_clients_of_all_kinds_and_has_a_position(
    workers: Workers, api: HttpClient, name: str
) -> None:
    room = f"chat:{name}"
    async with connected(workers.serving, "ann", room) as ann, client(workers.serving.server, f"/raw/{room}") as raw:
        await eventually(lambda: len(workers.serving.manager.connections(room=room)) == 2)
        first = await api.call("publish", channel=room, data={"n": 1})
        second = await api.call("publish", channel=room, data="text")
        assert (first["offset"], second["offset"], len(first["epoch"])) == (1, 2, 8)
        assert (await ann.pushed("pub"))["pub"] == {"data": {"n": 1}, "offset": 1}
        assert (await ann.pushed("pub"))["pub"] == {"data": "text", "offset": 2}
        got = [await receive(raw) for _ in range(3)]
        assert [each for each in got if each not in ({"type": "presence"},)][-2:] == [{"n": 1}, "text"]
        assert await api.call("publish", channel=f"ticker:{name}", data=[1]) in ({"offset": 0, "epoch": ""}, {})


async def test_bytes_reach_clients_as_bytes(workers: Workers, api: HttpClient, name: str) -> None:
    room = f"ticker:{name}"
    async with connected(workers.serving, "ann", room) as ann, client(workers.serving.server, f"/raw/{room}") as raw:
        await eventually(lambda: len(workers.serving.manager.connections(room=room)) == 2)
        data = bytes(range(256))
        fields = {"data": None} if isinstance(api, ByCent) else {}
        await api.call("publish", channel=room, b64data=base64.b64encode(data).decode(), **fields)
        pub = (await ann.pushed("pub"))["pub"]
        assert (base64.b64decode(pub["data"]), pub["tags"]) == (data, {"encoding": "base64"})
        assert await receive(raw) == data


async def test_a_broadcast_reaches_rooms_users_and_everyone_and_answers_for_each(
    workers: Workers, api: HttpClient, name: str
) -> None:
    one, other = f"chat:{name}", f"ticker:{name}"
    channels = [one, "$nobody", other, f"$user:{name}", "$everyone"]
    async with connected(workers.serving, name, one, other) as ann:
        answers = (await api.call("broadcast", channels=channels, data=7))["responses"]
        assert [set(each) - {"error"} == {"result"} for each in answers] == [True, False, True, True, True]
        assert answers[1]["error"]["code"] == 102
        pushes = [await ann.pushed("pub") for _ in range(4)]
        assert {each["channel"] for each in pushes} == {one, other, "$user", "$everyone"}
        assert {each["pub"]["data"] for each in pushes} == {7}


async def test_a_repeated_request_publishes_once_on_all_workers(workers: Workers, api: HttpClient, name: str) -> None:
    room = f"chat:{name}"
    async with (
        connected(workers.serving, "ann", room) as ann,
        by_cent(workers.serving.server.http("/api"), KEY) as elsewhere,
    ):
        first = await api.call("publish", channel=room, data="once", idempotency_key=name)
        for repeating in (api, elsewhere):
            assert await repeating.call("publish", channel=room, data="once", idempotency_key=name) == first
        await api.call("publish", channel=room, data="last")
        assert [(await ann.pushed("pub"))["pub"]["data"] for _ in range(2)] == ["once", "last"]


async def test_a_message_may_skip_the_history(workers: Workers, api: HttpClient, name: str) -> None:
    room = f"chat:{name}"
    async with connected(workers.serving, "ann", room) as ann:
        await api.call("publish", channel=room, data="kept")
        await api.call("publish", channel=room, data="not kept", skip_history=True)
        assert (await ann.pushed("pub"))["pub"]["offset"] == 1
        assert (await ann.pushed("pub"))["pub"] == {"data": "not kept"}
        page = await api.call("history", channel=room, limit=-1)
        assert [each["data"] for each in page["publications"]] == ["kept"]


async def test_a_user_is_put_into_a_room_and_taken_out_of_it(workers: Workers, api: HttpClient, name: str) -> None:
    room = f"ticker:{name}"
    async with connected(workers.serving, name) as one, connected(workers.serving, name) as other:
        await api.call("subscribe", user=name, channel=room, client=one.id)
        assert "subscribe" in await one.pushed("subscribe")
        await api.call("publish", channel=room, data="for one")
        assert (await one.pushed("pub"))["pub"] == {"data": "for one"}
        await api.call("subscribe", user=name, channel=room)
        assert (await other.pushed("subscribe"))["channel"] == room, "its first push about the room"
        await api.call("publish", channel=room, data="for both")
        assert [(await each.pushed("pub"))["pub"]["data"] for each in (one, other)] == ["for both"] * 2
        await api.call("unsubscribe", user=name, channel=room, client=other.id)
        assert (await other.pushed("unsubscribe"))["unsubscribe"]["code"] == 2000
        assert (await api.call("presence_stats", channel=room)) == {"num_clients": 1, "num_users": 1}
        await api.call("unsubscribe", user=name, channel=room)
        await one.pushed("unsubscribe")
        assert (await api.call("presence_stats", channel=room)) == {"num_clients": 0, "num_users": 0}


async def test_the_connections_of_a_user_are_closed_all_or_some(workers: Workers, api: HttpClient, name: str) -> None:
    async with AsyncExitStack() as stack:
        one, two, three = [await stack.enter_async_context(connected(workers.serving, name)) for _ in range(3)]
        stranger = await stack.enter_async_context(connected(workers.serving, f"not {name}"))
        await api.call("disconnect", user=name, client=one.id, disconnect={"code": 4501, "reason": "moved"})
        assert await one.closed() == (4501, "moved")
        await api.call("disconnect", user=name, whitelist=[three.id])
        assert (await two.closed())[0] == 3503
        assert await three.is_open()
        await api.call("disconnect", user=name)
        assert (await three.closed())[0] == 3503
        assert await stranger.is_open()


async def test_the_authorization_of_a_user_is_extended_or_ended(workers: Workers, api: HttpClient, name: str) -> None:
    async with connected(workers.serving, name) as one, connected(workers.serving, name) as other:
        await api.call("refresh", user=name, client=one.id, expire_at=int(time.time()) + 1000)
        push = (await one.pushed("refresh"))["refresh"]
        assert push["expires"]
        assert 900 < push["ttl"] <= 1000
        await api.call("refresh", user=name, client=other.id, expired=True)
        assert (await other.closed())[0] == 3005
        assert await one.is_open()


async def test_presence_is_that_of_all_workers(workers: Workers, api: HttpClient, name: str) -> None:
    room = f"chat:{name}"
    async with (
        connected(workers.serving, "ann", room) as one,
        connected(workers.asked, "ann", room) as other,
        connected(workers.asked, "bob", room) as bob,
    ):

        async def present() -> dict[str, str]:
            found = (await api.call("presence", channel=room))["presence"]
            return {each["client"]: each["user"] for each in found.values()}

        expected = {one.id: "ann", other.id: "ann", bob.id: "bob"}

        async def all_are_present() -> bool:
            return await present() == expected

        await eventually(all_are_present)
        assert await api.call("presence_stats", channel=room) == {"num_clients": 3, "num_users": 2}


async def test_a_history_is_read_in_parts_and_removed(workers: Workers, api: HttpClient, name: str) -> None:
    room = f"chat:{name}"
    places = [await api.call("publish", channel=room, data=n) for n in range(5)]

    async def read(**fields: Any) -> list[int]:
        page = await api.call("history", channel=room, **fields)
        assert (page["offset"], page["epoch"]) == (5, places[0]["epoch"])
        return [each["data"] for each in page.get("publications", [])]

    assert await read() == []
    assert await read(limit=-1) == [0, 1, 2, 3, 4]
    assert await read(limit=2) == [0, 1]
    assert await read(limit=2, since=places[1]) == [2, 3]
    assert await read(limit=2, reverse=True) == [4, 3]
    assert await read(limit=2, reverse=True, since=places[2]) == [1, 0]
    with pytest.raises(Failed, match=_error(api, 112)):
        await api.call("history", channel=room, limit=1, since={"offset": 1, "epoch": "another1"})
    await api.call("history_remove", channel=room)
    assert await read(limit=-1) == []
    assert (await api.call("publish", channel=room, data="next"))["offset"] == 6


async def test_rooms_with_members_and_workers_are_listed(workers: Workers, api: HttpClient, name: str) -> None:
    one, other = f"chat:{name}", f"ticker:{name}"
    async with connected(workers.serving, "ann", one, other), connected(workers.asked, "bob", one):
        found = await api.call("channels", pattern=f"*:{name}")
        assert found == {"channels": {one: {"num_clients": 2}, other: {"num_clients": 1}}}
        everything = await api.call("channels", pattern="")
        assert everything["channels"][one] == {"num_clients": 2}
        assert not [each for each in everything["channels"] if each.startswith("$")]
        nodes = (await api.call("info"))["nodes"]
        assert len({each["uid"] for each in nodes}) == len(set(workers))
        assert sum(each["num_clients"] for each in nodes) >= 2
        assert sum(each["num_subs"] for each in nodes) >= 3


async def test_an_error_is_told_to_the_client(workers: Workers, api: HttpClient) -> None:
    for code, method, fields in (
        (108, "publish", {"channel": "chat:x", "data": 1, "tags": {"a": "b"}}),
        (108, "history", {"channel": "ticker:x", "limit": 1}),
        (107, "refresh", {"user": "ann"}),
        (107, "disconnect", {"user": "ann", "disconnect": {"code": 99, "reason": ""}}),
        (102, "subscribe", {"user": "ann", "channel": "$everyone"}),
        (107, "channels", {"pattern": "{"}),
    ):
        with pytest.raises(Failed, match=_error(api, code)):
            await api.call(method, **fields)


def _error(api: HttpClient, code: int) -> str:
    return f"^{code}: " if isinstance(api, ByCent) else "object Object"


async def test_a_batch_of_the_official_client_is_done_in_order_or_at_once(workers: Workers, name: str) -> None:
    room = f"chat:{name}"
    async with by_cent(workers.url, KEY) as api:
        publishes = [cent.PublishRequest(channel=room, data=n) for n in range(20)]
        for parallel in (False, True):
            requests = [*publishes, cent.PresenceStatsRequest(channel=room), cent.InfoRequest()]
            replies = (await api.client.batch(cent.BatchRequest(requests=requests, parallel=parallel))).replies
            offsets = [each.offset for each in replies[:20] if isinstance(each, cent.PublishResult)]
            first = 21 if parallel else 1
            assert sorted(offsets) == list(range(first, first + 20))
            assert parallel or offsets == sorted(offsets)
            assert isinstance(replies[20], cent.PresenceStatsResult)


async def test_a_client_with_a_wrong_key_is_unauthorized(workers: Workers) -> None:
    async with by_cent(workers.url, "another-key-0123456788") as api:
        with pytest.raises(CentUnauthorizedError):
            await api.call("info")
    async with by_cent(workers.url, "another-key-0123456789") as api:
        assert (await api.call("info"))["nodes"]
