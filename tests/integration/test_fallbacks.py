"""The fallbacks for networks that break WebSockets, by hand: streams, and the posts of friends and of strangers."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

import pytest
from starlette.middleware.gzip import GZipMiddleware

from hubbub.auth import JWTAuth
from tests.integration.events import Stream, request
from tests.integration.live import KEY, Hostile, Live, live_app, token
from tests.integration.nginx import behind_nginx
from tests.integration.redis_server import RedisServer, fresh_prefix
from tests.integration.sdk_js import JsSdk, Node
from tests.integration.sdks import FALLBACKS, sdk_of
from tests.integration.sdks import node as node  # a fixture
from tests.integration.support import DEADLINE_S, assert_nothing_left, eventually, serving, through_asgi

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_sweeps")]

JSON = "application/json"


class FallbackLive(Live):
    """The app, with an endpoint whose users are known by a cookie."""

    def _declare(self) -> None:
        super()._declare()
        kept = self.manager.endpoint("/kept", auth=JWTAuth(KEY, algorithms=["HS256"], cookie="session"))
        got: list[Any] = []
        self.got = got

        @self.live.on("note")
        @kept.on("note")
        async def note(message: Any) -> int:
            got.append(message)
            return len(got)


@pytest.fixture(scope="module")
def live() -> Iterator[FallbackLive]:
    limits: dict[str, Any] = {"max_message_bytes": 200_000, "max_messages_per_s": 500, "message_timeout_s": 0.25}
    live = FallbackLive(**limits, max_connections_per_user=2)
    with live_app(live):
        yield live


@pytest.fixture(autouse=True)
async def _nothing_is_left(live: FallbackLive) -> AsyncIterator[None]:
    live.got.clear()
    yield
    await eventually(lambda: not live.server.server.server_state.tasks)
    await eventually(lambda: live.manager.stats().rooms == 0)
    assert_nothing_left(live.manager)
    emulation = live.manager._hubbub.emulation
    assert (emulation._mailboxes, emulation._queues, emulation._waiting_bytes, emulation._forwarded) == ({}, {}, 0, 0)


class Client:
    """A client that has a stream.

    Attributes:
        stream: The stream.
        session: What the reply to ``connect`` tells.
        node: The same.
    """

    session: str
    node: str

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    async def next(self) -> Any:
        """The next reply or push."""
        if self.stream.headers["content-type"] == "text/event-stream":
            return (await self.stream.next()).json
        async with asyncio.timeout(DEADLINE_S):
            while (end := self.stream.raw.find(b"\n", self.stream._at)) < 0:
                if not await self.stream._more():
                    raise EOFError("the stream ended")
        line, self.stream._at = self.stream.raw[self.stream._at : end], end + 1
        return json.loads(line)

    async def reply(self, number: int) -> Any:
        """The reply to a command."""
        while (said := await self.next()).get("id") != number:
            pass
        return said

    async def disconnected(self) -> tuple[int, str]:
        """The last push, behind which the stream ends."""
        while "disconnect" not in (said := await self.next()).get("push", {}):
            pass
        with pytest.raises(EOFError):
            await self.next()
        return said["push"]["disconnect"]["code"], said["push"]["disconnect"].get("reason", "")


def connect(user: str | None = "ann") -> dict[str, Any]:
    return {"id": 1, "connect": {} if user is None else {"token": token(user)}}


def rpc(number: int, data: Any, method: str = "note") -> str:
    return json.dumps({"id": number, "rpc": {"method": method, "data": data}})


@asynccontextmanager
async def stream_of(
    live: Live, kind: str = "http_stream", *, command: Any = None, path: str = "/live", **headers: str
) -> AsyncIterator[Client]:
    """Opens a stream, which must succeed, and connects."""
    said = json.dumps(connect() if command is None else command)
    if kind == "sse":
        opening = request(live.server, f"{path}/sse?{urlencode({'cf_connect': said})}", **headers)
    else:
        headers = {"Content_Type": JSON, "Content_Length": str(len(said)), **headers}
        opening = request(live.server, f"{path}/http_stream", method="POST", body=said, **headers)
    async with opening as stream:
        assert stream.status == 200, await stream.body()
        client = Client(stream)
        reply = await client.next()
        client.session, client.node = reply["connect"]["session"], reply["connect"]["node"]
        yield client


async def posted(
    live: Live, body: str, *, path: str = "/live/emulation", method: str = "POST", **headers: str
) -> tuple[int, dict[str, str]]:
    """Posts a body. Returns the status and the headers of the answer."""
    headers = {"Content_Type": JSON, "Content_Length": str(len(body.encode())), **headers}
    async with request(live.server, path, method=method, body=body, **headers) as answer:
        return answer.status, answer.headers


async def post(live: Live, client: Client, data: str, *, path: str = "/live/emulation", **headers: str) -> int:
    """Posts commands of a client."""
    body = json.dumps({"session": client.session, "node": client.node, "data": data})
    return (await posted(live, body, path=path, **headers))[0]


@pytest.mark.parametrize("kind", ["http_stream", "sse"])
async def test_commands_are_posted_and_answered_on_the_stream(live: FallbackLive, kind: str) -> None:
    async with stream_of(live, kind) as client:
        assert client.stream.headers["cache-control"] == "no-store"
        assert client.stream.headers["x-accel-buffering"] == "no"
        assert len(client.session) == 32
        both = rpc(2, "a") + "\n" + rpc(3, "b")
        assert await post(live, client, both) == 204
        assert [(await client.reply(number))["rpc"]["data"] for number in (2, 3)] == [1, 2]
        assert live.got == ["a", "b"]


async def test_json_of_the_app_never_breaks_a_line(live: FallbackLive) -> None:
    async with stream_of(live, "sse") as client:
        await post(live, client, '{"id":2,"subscribe":{"channel":"chat:lines"}}')
        await client.reply(2)
        await live.publish("chat:lines", "one\r\ntwo\rthree\u2028four")
        while "pub" not in (said := await client.next()).get("push", {}):
            pass
        assert said["push"]["pub"]["data"] == "one\r\ntwo\rthree\u2028four"


async def test_posts_are_handled_in_the_order_of_their_arrival(live: FallbackLive) -> None:
    async with stream_of(live) as client:
        for number in range(2, 52):
            assert await post(live, client, rpc(number, number)) == 204
        await client.reply(51)
        assert live.got == [*range(2, 52)]


async def test_a_stranger_can_post_nothing(live: FallbackLive) -> None:
    async with stream_of(live) as client:
        good = {"session": client.session, "node": client.node, "data": rpc(2, "stranger")}
        other = ("0" if client.session[0] != "0" else "1") + client.session[1:]
        for wrong in (
            {"session": other},
            {"session": ""},
            {"session": client.session[:-1]},
            {"session": client.session + "0"},
            {"session": client.session.upper() + "é"},
            {"node": "0" * 16},
            {"node": "*"},
            {"node": ""},
            {"node": client.node + ":"},
        ):
            assert (await posted(live, json.dumps({**good, **wrong})))[0] == 404
        assert await post(live, client, rpc(2, "stranger"), path="/open/emulation") == 404
        for malformed in ("", "[]", "{}", '{"session":1,"node":2,"data":3}', json.dumps({**good, "data": {}})):
            assert (await posted(live, malformed))[0] == 400
        assert await post(live, client, rpc(2, "friend")) == 204
        await client.reply(2)
        assert live.got == ["friend"]
    await eventually(lambda: not live.manager.active_connections)
    assert await post(live, client, rpc(3, "late")) == 404


@pytest.mark.parametrize("kind", ["http_stream", "sse"])
async def test_the_posts_of_a_client_with_a_cookie_come_from_its_user(live: FallbackLive, kind: str) -> None:
    cookies = {user: f"session={token(user)}" for user in ("ann", "bob")}
    async with stream_of(live, kind, path="/kept", command=connect(None), Cookie=cookies["ann"]) as client:
        path = "/kept/emulation"
        assert await post(live, client, rpc(2, "nobody"), path=path) == 403
        assert await post(live, client, rpc(2, "bob"), path=path, Cookie=cookies["bob"]) == 403
        assert await post(live, client, rpc(2, "?"), path=path, Cookie="session=nonsense") == 403
        unbound = Client(client.stream)
        unbound.session, unbound.node = client.session.removesuffix(".user"), client.node
        assert unbound.session != client.session
        assert await post(live, unbound, rpc(2, "nobody"), path=path) == 403
        assert await post(live, unbound, rpc(2, "bob"), path=path, Cookie=cookies["bob"]) == 403
        renewed = f"other=1; session={token('ann', lasts_s=1000)}"
        assert await post(live, client, rpc(2, "ann"), path=path, Cookie=renewed) == 204
        await client.reply(2)
        assert live.got == ["ann"]


async def test_a_token_in_connect_needs_no_cookie(live: FallbackLive) -> None:
    async with stream_of(live, path="/kept", command=connect("bob"), Cookie=f"session={token('ann')}") as client:
        assert live.manager.connections(user="bob")
        assert await post(live, client, rpc(2, "bob"), path="/kept/emulation") == 204
        await client.reply(2)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://testserver", "Sec_Fetch_Site": "same-origin"}, 204),
        ({}, 204),
    ],
)
async def test_pages_of_other_sites_open_and_post_nothing(
    live: FallbackLive, headers: dict[str, str], status: int
) -> None:
    said = json.dumps(connect())
    query = urlencode({"cf_connect": said})
    async with stream_of(live) as client:
        assert await post(live, client, rpc(2, 0), **headers) == status
        if status == 204:
            return
        assert (await posted(live, said, path="/live/http_stream", **headers))[0] == status
        async with request(live.server, f"/live/sse?{query}", **headers) as answer:
            assert answer.status == status
        assert len(live.manager.active_connections) == 1


async def test_a_browser_is_told_what_a_page_may_send(live: FallbackLive) -> None:
    own = {"Origin": "http://testserver"}
    for path, method in (("http_stream", "POST"), ("emulation", "POST"), ("sse", "GET")):
        status, headers = await posted(live, "", path=f"/live/{path}", method="OPTIONS", **own)
        assert (status, headers["access-control-allow-methods"]) == (204, method)
        assert "content-type" in headers["access-control-allow-headers"]
    async with stream_of(live, **own) as client:
        assert client.stream.headers["access-control-allow-origin"] == own["Origin"]


@pytest.mark.parametrize("path", ["/live/http_stream", "/live/emulation"])
async def test_bodies_that_a_form_can_send_are_refused(live: FallbackLive, path: str) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        assert (await posted(live, json.dumps(connect()), path=path, Content_Type=kind))[0] == 415
    for method in ("GET", "PUT", "HEAD"):
        assert (await posted(live, "", path=path, method=method))[0] == 405
    assert not live.manager.active_connections


@pytest.mark.parametrize(
    "query",
    [
        "",
        "cf_connect=",
        "cf_connect={}",
        "cf_connect=[]",
        urlencode([("cf_connect", json.dumps(connect()))] * 2),
        urlencode({"cf_connect": json.dumps(connect()) + "\n" + rpc(2, 0)}),
        urlencode({"cf_connect": rpc(2, 0)}),
        "cf_connect=%ff",
    ],
)
async def test_a_query_holds_one_connect_and_nothing_else(live: FallbackLive, query: str) -> None:
    async with request(live.server, f"/live/sse?{query}") as answer:
        assert answer.status == 400
    async with request(live.server, f"/live/sse?{query}", method="POST", Content_Length="0") as answer:
        assert answer.status == 405


@pytest.mark.parametrize("path", ["/live/http_stream", "/live/emulation"])
async def test_bodies_are_bounded_in_size_and_in_time(live: FallbackLive, path: str) -> None:
    assert (await posted(live, "x", path=path, Content_Length="100000000"))[0] == 413
    chunked = {"Content_Type": JSON, "Transfer_Encoding": "chunked"}
    huge = "7a120\r\n" + "x" * 500_000  # more than its limit, of a chunk that has not ended
    async with request(live.server, path, method="POST", body=huge, **chunked) as answer:
        assert answer.status == 413
    for endless in ("", "1\r\nx\r\n"):
        async with request(live.server, path, method="POST", body=endless, **chunked) as answer:
            assert answer.status == 408


async def test_a_message_over_the_limit_ends_the_connection(live: FallbackLive) -> None:
    async with stream_of(live) as client:
        assert await post(live, client, rpc(2, "x" * 200_000)) == 204
        assert (await client.disconnected())[1] == "message too big"


async def test_a_flood_ends_the_connection(live: FallbackLive) -> None:
    async with stream_of(live) as client:
        frame = "\n".join(rpc(number, 0) for number in range(2, 502))
        statuses = [await post(live, client, frame) for _ in range(8)]
        assert set(statuses) <= {204, 404}
        assert (await client.disconnected())[1] == "too many messages"


async def test_posts_that_nobody_takes_are_bounded(live: FallbackLive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.endpoints.emulation.MAX_POSTS", 10)
    monkeypatch.setattr("hubbub.endpoints.workload.MAX_WAITING", 1)
    live.gates["flood"] = asyncio.Event()
    async with stream_of(live) as client:
        await post(live, client, rpc(2, "flood", "wait"))
        await eventually(lambda: "flood" in live.began)
        statuses = [await post(live, client, rpc(number, 0)) for number in range(3, 18)]
        assert statuses.count(204) in range(11, 14)
        assert 429 in statuses
        assert (await client.disconnected())[1] == "too many messages"
    await live.let_go("flood")


@pytest.mark.parametrize("kind", ["http_stream", "sse"])
async def test_a_disconnect_is_the_last_push(live: FallbackLive, kind: str) -> None:
    async with stream_of(live, kind) as client:
        await live.server.acall(live.manager.disconnect_user("ann"))
        assert await client.disconnected() == (3503, "disconnected by the server")


async def test_a_user_has_no_more_streams_than_sockets(live: FallbackLive) -> None:
    said = json.dumps(connect())
    headers = {"Content_Type": JSON, "Content_Length": str(len(said))}
    async with (
        stream_of(live),
        stream_of(live, "sse"),
        request(live.server, "/live/http_stream", method="POST", body=said, **headers) as third,
    ):
        assert (await Client(third).disconnected())[1] == "too many connections of this user"


@pytest.mark.slow
async def test_five_hundred_connects_and_losses_leave_nothing_behind(live: FallbackLive) -> None:
    async def come_and_go(number: int) -> None:
        for kind in ("http_stream", "sse") * 25:
            async with stream_of(live, kind, command=connect(f"user {number}")) as client:
                assert await post(live, client, rpc(2, number)) == 204

    async with asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(come_and_go(number))


async def test_a_wrong_token_is_told_on_the_stream(live: FallbackLive) -> None:
    said = json.dumps({"id": 1, "connect": {"token": "nonsense"}})
    headers = {"Content_Type": JSON, "Content_Length": str(len(said))}
    async with request(live.server, "/live/http_stream", method="POST", body=said, **headers) as stream:
        assert (await Client(stream).disconnected())[0] == 3500


async def test_secrets_are_not_in_the_access_log(live: FallbackLive, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with stream_of(live, "sse") as client:
        assert await post(live, client, rpc(2, 0), path="/live/emulation?token=secret") == 204
        await client.reply(2)
    await eventually(lambda: "/live/emulation" in caplog.text)
    assert "/live/sse?cf_connect=***" in caplog.text
    for secret in (token("ann")[:20], client.session, "connect%22", "secret"):
        assert secret not in caplog.text


@pytest.mark.parametrize("http", ["httptools", "h11"])
async def test_a_server_that_shuts_down_says_so(http: str) -> None:
    stopping = FallbackLive()
    with live_app(stopping, http=http):
        async with stream_of(stopping) as client:
            stopping.server.server.should_exit = True
            assert await client.disconnected() == (3001, "shutdown")


async def test_a_middleware_that_compresses_or_hides_the_server_keeps_nothing_back() -> None:
    zipped = FallbackLive()
    zipped.app.add_middleware(GZipMiddleware, minimum_size=1)
    with serving(through_asgi(zipped.app)) as zipped.server:
        for kind in ("http_stream", "sse"):
            async with stream_of(zipped, kind, Accept_Encoding="gzip") as client:
                assert await post(zipped, client, rpc(2, 0)) == 204
                await client.reply(2)
        await eventually(lambda: not zipped.manager.active_connections)


# The official SDK, whose whole suite runs over the fallbacks too: `sdks`


@pytest.mark.parametrize("name", FALLBACKS)
async def test_the_sdk_asks_publishes_and_is_sent_away(live: FallbackLive, node: Node, name: str) -> None:
    sdk = sdk_of(name, node)
    assert isinstance(sdk, JsSdk)
    async with sdk.connected(live) as ann:
        assert ann.transports == [name.rpartition("-")[2]]
        room = await ann.subscribed(f"chat:{name}")
        assert await ann.rpc("say", {"room": name, "text": "hello"}) == {"user_id": "ann", "text": "hello"}
        await room.publish({"text": "published"})
        await eventually(lambda: [each["text"] for each in room.got] == ["hello", "published"])
        await live.server.acall(live.manager.disconnect_user("ann"))
        await eventually(lambda: [code for code, _ in ann.disconnected] == [3503])


@pytest.mark.parametrize("module", ["json", "protobuf", "ours"])
async def test_the_sdk_gets_past_a_proxy_that_breaks_websockets(
    live: FallbackLive, node: Node, module: Literal["json", "protobuf", "ours"]
) -> None:
    sdk = JsSdk(node.at, sdk=module, transports=["websocket", "http_stream"])
    async with Hostile(live.server.port) as proxy, sdk.connected(live, port=proxy.port) as ann:
        assert await ann.rpc("note", "hello") == 1
        proxy.cut()
        await eventually(lambda: not live.manager.active_connections)
        proxy.mend()
        await eventually(lambda: ann.transports == ["http_stream"] * 2)  # it stays with it


async def test_the_sdk_answers_pings(live: FallbackLive, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.endpoints.heartbeat.PING_S", 0.05)
    sdk = JsSdk(node.at, sdk="json", transports=["sse"])
    async with sdk.connected(live) as ann:
        before = live.manager.stats().received
        await eventually(lambda: live.manager.stats().received >= before + 3)
        assert len(ann.connected) == 1


# A fleet


@pytest.fixture(scope="module")
def workers(redis: RedisServer) -> Iterator[tuple[FallbackLive, FallbackLive]]:
    url = redis.url(prefix=fresh_prefix())
    one, two = FallbackLive(url), FallbackLive(url)
    with live_app(one), live_app(two, loop="uvloop"):
        yield one, two


async def test_posts_find_the_worker_that_has_the_stream(workers: tuple[FallbackLive, FallbackLive]) -> None:
    one, two = workers
    async with stream_of(one) as client:
        async with asyncio.TaskGroup() as group:  # an SDK does not wait
            posts = [group.create_task(post(two, client, rpc(number, number))) for number in range(2, 42)]
        assert {each.result() for each in posts} == {204}
        for number in range(42, 52):
            assert await post(workers[number % 2], client, rpc(number, number)) == 204
        await client.reply(51)
        assert sorted(one.got[:40]) == [*range(2, 42)]
        assert one.got[40:] == [*range(42, 52)]
        large = "é" * 150_000  # several requests between the workers
        assert await post(two, client, rpc(60, large)) == 204
        await client.reply(60)
        assert one.got[-1] == large
        other = Client(client.stream)
        other.session, other.node = "0" * 32, client.node
        assert await post(two, other, rpc(61, 0)) == 404
        assert await post(two, client, rpc(61, 0), path="/open/emulation") == 404
    await eventually(lambda: not one.manager.active_connections)
    assert await post(two, client, rpc(62, 0)) == 404
    client.node = "0" * len(client.node)
    assert await post(two, client, rpc(62, 0)) == 404


async def test_the_other_worker_authenticates_posts_too(workers: tuple[FallbackLive, FallbackLive]) -> None:
    one, two = workers
    one.got.clear()
    ann, bob = (f"session={token(user)}" for user in ("ann", "bob"))
    async with stream_of(one, path="/kept", command=connect(None), Cookie=ann) as client:
        assert await post(two, client, rpc(2, "nobody"), path="/kept/emulation") == 403
        assert await post(two, client, rpc(2, "bob"), path="/kept/emulation", Cookie=bob) == 403
        assert await post(two, client, rpc(2, "ann"), path="/kept/emulation", Cookie=ann) == 204
        await client.reply(2)
        assert one.got == ["ann"]


@pytest.mark.parametrize("name", FALLBACKS)
async def test_the_sdk_posts_to_any_worker(workers: tuple[FallbackLive, FallbackLive], node: Node, name: str) -> None:
    one, two = workers
    one.got.clear()
    sdk = sdk_of(name, node)
    assert isinstance(sdk, JsSdk)
    async with sdk.connected(one, posts_to=f"127.0.0.1:{two.server.port}") as ann:
        room = await ann.subscribed(f"chat:fleet-{name}")
        assert await ann.rpc("note", "x" * 100_000) == 1
        await two.publish(room.name, "from the other worker")
        await eventually(lambda: room.got == ["from the other worker"])
        assert (await room.presence_stats()) == (1, 1)


@pytest.mark.parametrize("name", ["node-protobuf-http_stream", "node-json-sse", "node-ours-http_stream"])
async def test_nginx_needs_no_setting_and_no_sticky_sessions(
    workers: tuple[FallbackLive, FallbackLive], node: Node, name: str, tmp_path: Path
) -> None:
    sdk = sdk_of(name, node)
    async with behind_nginx([each.server.port for each in workers], tmp_path) as proxy:
        async with sdk.connected(workers[0], port=proxy.port) as ann:
            room = await ann.subscribed(f"chat:nginx-{name}")
            for number in range(4):  # each post goes to the next worker
                assert await ann.rpc("aside", f"{number}") == f"{number}"
            await workers[1].publish(room.name, "at once")
            await eventually(lambda: room.got == ["at once"])
        # nginx passes on that the client is gone
        await eventually(lambda: not any(each.manager.active_connections for each in workers))
