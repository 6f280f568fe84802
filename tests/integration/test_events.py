"""Streams of events: the rooms of an endpoint for clients that only read, over a socket of their own."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
from fastapi import HTTPException, Request, Response, WebSocketException
from pydantic import BaseModel, Field
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware

from hubbub import EVERYONE, ConnectionManager, History, InvalidArgument, NotInstalled, Position, RoomOptions
from hubbub.endpoints.results import Grant
from hubbub.envelope import Refresh, Relabel, Reset, Subscribe
from hubbub.errors import InvalidName
from tests.integration.events import Event, Stream, events, request, url
from tests.integration.live import Live, Said, by_hand, live_app, token
from tests.integration.nginx import behind_nginx
from tests.integration.support import assert_nothing_left, eventually, receive, serving, through_asgi

pytestmark = pytest.mark.anyio

PATH = "/live/events"


class Moved(BaseModel):
    kind: str = "moved"
    to: str


class EventsLive(Live):
    """The app, with rooms that show what a stream can be told."""

    rooms: ClassVar[Mapping[str, RoomOptions]] = {
        **Live.rooms,
        "replay:*": RoomOptions(history=History(100, 600), replay=3),
        "latest:*": RoomOptions(overflow="latest"),
    }
    users: ClassVar[RoomOptions] = RoomOptions(history=History(50, 600))

    def __init__(self, url: str = "memory://", **limits: Any) -> None:
        self.grants: dict[str, Any] = {}
        super().__init__(url, **limits)

    def _declare(self) -> None:
        super()._declare()

        @self.live.room("union:{room}", sends=Annotated[Said | Moved, Field()])
        async def may_read_union(room: str) -> bool:
            return True

        @self.live.room("grant:{room}")
        async def may_read_granted(room: str) -> bool | Grant:
            answer = self.grants.get(room, True)
            if isinstance(answer, tuple):
                kind, *arguments = answer
                raise kind(*arguments)
            return answer  # type: ignore[no-any-return]  # the test chose it

        @self.live.room("number:{number}")
        async def may_read_number(number: int) -> bool:
            return True

        @self.live.room("replay:{room}")
        async def may_read_replay(room: str) -> bool:
            return True

        @self.live.room("latest:{room}")
        async def may_read_latest(room: str) -> bool:
            return True

        @self.app.get("/raw/{user}")
        async def raw(request: Request, user: str) -> Response:
            rooms = request.query_params.getlist("room")
            return self.manager.event_stream(request, user if user != "nobody" else None, rooms=rooms)


@pytest.fixture(scope="module")
def live(quick_sweeps: None) -> Iterator[EventsLive]:
    made = EventsLive(max_connections_per_user=3, max_rooms_per_connection=20)
    with live_app(made):
        yield made


@pytest.fixture(autouse=True)
async def _nothing_is_left(live: EventsLive) -> Any:
    yield
    await eventually(lambda: not live.server.server.server_state.tasks)  # and what a function raised is logged
    await eventually(lambda: live.manager.stats().connections == 0)
    await eventually(lambda: live.manager.stats().rooms == 0)
    assert_nothing_left(live.manager)


def auth(user: str = "ann", **claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(user, **claims)}"}


async def publish(live: Live, *messages: tuple[str, Any]) -> None:
    """Publishes messages to rooms, one after the other, as one that the server itself publishes."""

    async def all_of_them() -> None:
        for room, message in messages:
            await live.manager.broadcast(message, room=room)

    await live.server.acall(all_of_them())


async def of(stream: Stream, name: str = "message") -> Event:
    """The next event with a name."""
    while (event := await stream.next()).name != name:
        pass
    return event


async def numbers(stream: Stream, count: int) -> list[int]:
    return [(await of(stream)).json for _ in range(count)]


# Messages


async def test_messages_arrive_with_their_positions(live: EventsLive) -> None:
    async with events(live.server, PATH, "chat:messages", **auth()) as stream:
        assert stream.headers["cache-control"] == "no-store"
        assert stream.headers["x-accel-buffering"] == "no"
        assert stream.retry_ms is not None
        epoch = stream.id.partition(":")[0]
        assert stream.id == f"{epoch}:0"
        for message in ({"n": 1}, "two\nlines", b"\0\1"):
            await live.publish("chat:messages", message)
        assert await of(stream) == Event("message", '{"n":1}', f"{epoch}:1")
        assert await of(stream) == Event("message", "two\nlines", f"{epoch}:2")
        assert await of(stream, "base64") == Event("base64", "AAE=", f"{epoch}:3")


async def test_a_client_hears_of_its_welcome_and_of_others(live: EventsLive) -> None:
    async with events(live.server, PATH, "chat:others", **auth("ann")) as ann:
        assert (await of(ann, "connected")).json == {"hello": "ann"}
        assert (await of(ann, "join")).json["user_id"] == "ann"
        async with events(live.server, PATH, "chat:others", **auth("bob")):
            assert (await of(ann, "join")).json["user_id"] == "bob"
        await live.server.acall(live.manager.disconnect_user("bob"))  # ends its grace
        assert (await of(ann, "leave")).json["user_id"] == "bob"


async def test_messages_of_rooms_that_it_did_not_name_have_the_name_of_the_room(live: EventsLive) -> None:
    async with events(live.server, PATH, "chat:unnamed", **auth()) as stream:
        before = stream.id
        await live.server.acall(live.manager.send_to_user("ann", "for you"))
        assert await of(stream, "$user") == Event("$user", "for you", before)
        await live.server.acall(live.manager.broadcast("for all", room=EVERYONE))
        assert await of(stream, "$everyone") == Event("$everyone", "for all", before)
        await live.publish("ticker:news", "news")  # @connect joined it
        assert await of(stream, "ticker:news") == Event("ticker:news", "news", before)


async def test_the_type_of_a_message_is_its_event_where_a_room_sends_several(live: EventsLive) -> None:
    async with events(live.server, PATH, "union:a", **auth()) as stream:
        await live.publish("union:a", Said(user_id="ann", text="hi"))
        await live.publish("union:a", {"kind": "moved", "to": "there"})
        assert (await of(stream, "Said")).json == {"user_id": "ann", "text": "hi"}
        assert (await of(stream, "Moved")).json == {"kind": "moved", "to": "there"}


async def test_a_room_has_members_that_speak_differently(live: EventsLive) -> None:
    room = "ticker:mixed"
    async with (
        events(live.server, PATH, room, **auth("ann")) as one,
        events(live.server, PATH, room, "chat:mixed", **auth("bob")) as two,
        by_hand(live, "carl") as other,
    ):
        await other.send('{"id":2,"subscribe":{"channel":"ticker:mixed"}}')
        assert "subscribe" in await receive(other)
        await live.publish(room, {"n": 1})
        assert (await of(one)).json == (await of(two)).json == {"n": 1}
        assert (await receive(other))["push"]["pub"]["data"] == {"n": 1}
        assert two.id.startswith("0,,")


# Recovery


async def test_a_client_that_comes_back_receives_what_it_missed(live: EventsLive) -> None:
    async with events(live.server, PATH, "chat:back", **auth()) as stream:
        await live.publish("chat:back", 1)
        assert (await of(stream)).json == 1
        last = stream.id
    await publish(live, *[("chat:back", number) for number in range(2, 400)])  # more than a page
    for since, header in ((last, True), (last, False)):
        extra = {} if header else {"since": since}
        headers = {"Last_Event_ID": since} if header else {}
        async with request(live.server, url(PATH, "chat:back", **extra), **auth(), **headers) as stream:
            assert await numbers(stream, 398) == list(range(2, 400))
    async with events(live.server, PATH, "chat:back", since=last, **auth()) as stream:
        await live.publish("chat:back", 400)
        assert await numbers(stream, 399) == list(range(2, 401))


async def test_a_client_recovers_each_of_its_rooms(live: EventsLive) -> None:
    rooms = ["chat:x", "ticker:x", "short:x", "$user"]
    async with events(live.server, PATH, *rooms, **auth()) as stream:
        await live.publish("chat:x", "x1")
        await live.publish("short:x", "y1")
        await live.server.acall(live.manager.send_to_user("ann", "u1"))
        assert [await of(stream) for _ in range(3)]
        last = stream.id
        assert last.startswith("3,")
    for number in (2, 3):
        await live.publish("chat:x", f"x{number}")
        await live.server.acall(live.manager.send_to_user("ann", f"u{number}"))
    for number in range(2, 9):  # the history keeps five
        await live.publish("short:x", f"y{number}")
    async with events(live.server, PATH, *rooms, since=last, **auth()) as stream:
        assert (await of(stream, "reset")).data == "short:x"
        got = {(await of(stream)).data for _ in range(4)}
        assert got == {"x2", "x3", "u2", "u3"}
        await live.publish("short:x", "y9")
        assert (await of(stream)).data == "y9"
        last = stream.id
        await live.publish("chat:x", "x4")
        assert (await of(stream)).data == "x4"
    async with events(live.server, PATH, *rooms, since=last, **auth()) as stream:
        assert (await of(stream)).data == "x4"


@pytest.mark.parametrize("since", ["unknown!:3", "nonsense", "1,a:1,b:2", "x" * 5000])
async def test_a_place_that_is_not_of_the_room_resets(live: EventsLive, since: str) -> None:
    await live.publish("chat:reset", 1)
    async with events(live.server, PATH, "chat:reset", since=since, **auth()) as stream:
        assert (await of(stream, "reset")).data == "chat:reset"
        last = stream.id
    await live.publish("chat:reset", 2)
    async with events(live.server, PATH, "chat:reset", since=last, **auth()) as stream:
        assert (await of(stream)).json == 2


async def test_a_newcomer_receives_the_newest_messages(live: EventsLive) -> None:
    await publish(live, *[("replay:a", number) for number in range(10)])
    async with events(live.server, PATH, "replay:a", **auth()) as stream:
        await live.publish("replay:a", 10)
        assert await numbers(stream, 4) == [7, 8, 9, 10]


@pytest.mark.parametrize(("rooms", "before", "after"), [(["chat:gap"], "", ""), (["chat:gap", "$user"], "0,", ",")])
async def test_a_gap_and_a_new_epoch_are_told_to_a_client_that_stays(
    live: EventsLive, rooms: list[str], before: str, after: str
) -> None:
    async def deliver(event: Reset | Relabel) -> None:
        live.manager._hubbub.deliveries.deliver("chat:gap", event)

    async with events(live.server, PATH, *rooms, **auth("gap")) as stream:
        await live.publish("chat:gap", 1)
        assert (await of(stream)).json == 1
        await live.server.acall(deliver(Reset(Position("another1", 5))))
        lost = await of(stream, "reset")
        assert lost.data == "chat:gap"
        assert lost.id.startswith(f"{before}another1:5{after}")
        await live.server.acall(deliver(Relabel(Position("another2", 5))))
        await live.server.acall(live.manager.broadcast("news", room=EVERYONE))
        assert (await of(stream, "$everyone")).id.startswith(f"{before}another2:5{after}")


# Refusals


@pytest.mark.parametrize(
    ("rooms", "status", "detail"),
    [
        ([], 400, "name at least one room"),
        (["chat:a", "chat:a"], 400, "named twice"),
        ([f"chat:{n}" for n in range(21)], 400, "at most 20"),
        ([f"chat:{n}" for n in range(129)], 400, "at most 128"),
        (["chat:a", "chat:secret"], 403, "'chat:secret'"),
        (["no-rule"], 403, "'no-rule'"),
        (["$other"], 400, "reserved"),
        (["number:x"], 404, "'number:x'"),
        (["chat:" + "x" * 300], 400, "has 305 bytes"),
    ],
)
async def test_rooms_that_are_refused(live: EventsLive, rooms: list[str], status: int, detail: str) -> None:
    async with request(live.server, url(PATH, *rooms), **auth()) as stream:
        assert stream.status == status
        assert detail in await stream.body()


@pytest.mark.parametrize(
    ("method", "body", "headers", "status"),
    [
        ("HEAD", "", {}, 405),
        ("POST", "", {"Content_Length": "0"}, 405),
        ("PUT", "xx", {"Content_Length": "2"}, 405),
        ("GET", "xx", {"Content_Length": "2"}, 400),
        ("GET", "2\r\nxx\r\n", {"Transfer_Encoding": "chunked"}, 400),
    ],
)
async def test_requests_that_are_no_question_for_a_stream(
    live: EventsLive, method: str, body: str, headers: dict[str, str], status: int
) -> None:
    async with request(live.server, url(PATH, "chat:a"), method=method, body=body, **auth(), **headers) as stream:
        assert stream.status == status
        assert status != 405 or stream.headers["allow"] == "GET"


async def test_a_client_without_a_valid_token_gets_401(live: EventsLive) -> None:
    for headers in ({}, {"Authorization": "Bearer nonsense"}, auth(lasts_s=-60.0)):
        async with request(live.server, url(PATH, "chat:a"), Accept="text/event-stream", **headers) as stream:
            assert stream.status == 401
            assert "www-authenticate" in stream.headers


async def test_the_token_may_be_in_the_query_and_no_log_shows_it(
    live: EventsLive, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = token("ann")
    for path in (url(PATH, "chat:a", token=secret, since="place:1"), url(PATH, token=secret)):
        async with request(live.server, path) as stream:
            assert stream.status in (400, 401)
    assert "/live/events?" in caplog.text
    assert secret not in caplog.text
    assert "place:1" not in caplog.text


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (False, 403),
        (Grant(expires_at=1.0), 403),
        ((HTTPException, 402, "pay first"), 402),
        ((WebSocketException, 1008, "go away"), 403),
        ((InvalidName, "room", "is odd", "even ones"), 422),
    ],
)
async def test_a_rule_answers_with_a_status(live: EventsLive, answer: Any, status: int) -> None:
    live.grants["asked"] = answer
    async with request(live.server, url(PATH, "chat:a", "grant:asked"), **auth()) as stream:
        assert stream.status == status
        await stream.body()
    assert live.ended[-1] == "ann", "@disconnect runs where @connect ran"


@pytest.mark.usefixtures("caplog")
async def test_a_rule_that_fails_is_a_500(live: EventsLive) -> None:
    before = live.manager.stats().errors.get("function", 0)
    async with request(live.server, url(PATH, "chat:broken"), **auth()) as stream:
        assert stream.status == 500
    assert live.manager.stats().errors["function"] == before + 1


async def test_a_limit_tells_curl_a_status_and_event_source_when_to_come_back(live: EventsLive) -> None:
    async with (
        events(live.server, PATH, "chat:a", **auth()),
        events(live.server, PATH, "chat:a", **auth()),
        events(live.server, PATH, "chat:a", **auth()),
    ):
        async with request(live.server, url(PATH, "chat:a"), **auth()) as stream:
            assert stream.status == 429
            assert 1 <= int(stream.headers["retry-after"]) <= 4
            assert "too many connections of this user" in await stream.body()
        async with request(live.server, url(PATH, "chat:a"), Accept="text/event-stream", **auth()) as stream:
            assert stream.status == 200
            assert stream.headers["content-type"] == "text/event-stream"
            body = await stream.body()
            assert ": too many connections of this user\nretry: " in body


async def test_a_full_room_is_a_503(live: EventsLive) -> None:
    async with (
        events(live.server, PATH, "small:a", **auth("ann")),
        request(live.server, url(PATH, "small:a"), **auth("bob")) as stream,
    ):
        assert stream.status == 503
        assert "the room is full" in await stream.body()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://testserver"}, 200),
        ({"Origin": "http://other.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-origin"}, 200),
    ],
)
async def test_pages_of_other_sites_read_nothing(live: EventsLive, headers: dict[str, str], status: int) -> None:
    async with request(live.server, url(PATH, "chat:a"), **auth(), **headers) as stream:
        assert stream.status == status
        if status == 200 and "Origin" in headers:
            assert stream.headers["access-control-allow-origin"] == headers["Origin"]
            assert stream.headers["access-control-allow-credentials"] == "true"
            assert stream.headers["vary"] == "Origin"
    async with request(live.server, url(PATH, "chat:a"), method="OPTIONS", **headers) as stream:
        assert stream.status == (204 if status == 200 else 403)
        assert status != 200 or "last-event-id" in stream.headers["access-control-allow-headers"]


# The end


async def test_a_client_that_is_gone_leaves_at_once(live: EventsLive) -> None:
    before = live.ended.count("gone")
    async with events(live.server, PATH, "chat:gone", **auth("gone")):
        assert await live.server.acall(live.manager.is_online("gone"))
    await eventually(lambda: live.ended.count("gone") == before + 1)
    assert live.manager.stats().connections == 0


async def test_a_user_who_is_disconnected_has_no_stream_any_more(live: EventsLive) -> None:
    async with events(live.server, PATH, "chat:a", **auth("kicked")) as stream:
        await live.server.acall(live.manager.disconnect_user("kicked"))
        await stream.ended()
        assert "disconnected by the server" in stream.comments


async def test_a_stream_ends_with_the_token(live: EventsLive) -> None:
    async with events(live.server, PATH, "ticker:a", **auth(lasts_s=1.5)) as stream:
        await stream.ended()
        assert "token expired" in stream.comments


async def test_a_stream_ends_with_the_permission_for_one_of_its_rooms(live: EventsLive) -> None:
    live.grants["soon"] = Grant(expires_at=time.time() + 0.7)
    async with events(live.server, PATH, "ticker:a", "grant:soon", **auth()) as stream:
        await stream.ended()
        assert "no longer allowed in a room of this stream" in stream.comments


async def test_a_stream_ends_when_the_user_is_taken_out_of_a_room(live: EventsLive) -> None:
    async with events(live.server, PATH, "ticker:a", "chat:out", **auth()) as stream:
        await live.server.acall(live.manager.unsubscribe("ann", "chat:out"))
        await stream.ended()


async def test_instructions_reach_the_streams_of_a_user(live: EventsLive) -> None:
    """Those that the HTTP API gives to all workers: one more room, and another end of the authorization."""
    broker = live.manager._hubbub.broker
    async with events(live.server, PATH, "ticker:a", **auth()) as stream:
        await live.server.acall(broker.instruct("$user:ann", Subscribe("ticker:b")))
        await eventually(lambda: len(live.manager.connections(room="ticker:b")) == 1)
        await publish(live, ("ticker:b", 1), ("ticker:a", 2))
        assert (await of(stream, "ticker:b")).json == 1
        assert (await of(stream)).json == 2
        await live.server.acall(broker.instruct("$user:ann", Refresh(time.time() - 1)))
        await stream.ended()
        assert "token expired" in stream.comments


async def test_comments_keep_an_idle_stream_open(live: EventsLive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.streams.stream.COMMENT_S", 0.01)
    async with events(live.server, PATH, "ticker:a", **auth()) as stream:
        await live.publish("ticker:a", 1)
        while len(stream.comments) < 3:
            await stream._more()
            for block in stream.raw[stream._at :].split(b"\n\n")[:-1]:
                stream._parsed(block.decode())
        assert set(stream.comments) == {""}


async def test_a_client_that_does_not_read_is_closed_and_delays_nobody() -> None:
    with live_app(EventsLive(max_outbox_bytes=64 * 1024, stall_timeout_s=0.5, close_timeout_s=0.5)) as live:
        async with (
            events(live.server, PATH, "chat:slow", **auth("slow")) as slow,
            events(live.server, PATH, "latest:slow", **auth("drops")),
            events(live.server, PATH, "chat:slow", **auth("fast")) as fast,
        ):
            slow.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a _SelectorTransport has it
            reading = asyncio.create_task(numbers_of_long(fast, 400))
            for number in range(400):
                await publish(live, ("chat:slow", f"{number} " + "x" * 20_000))
            assert await reading == list(range(400))
            await eventually(lambda: live.manager.stats().slow == 1)
            await eventually(lambda: live.manager.stats().connections == 2)
        await eventually(lambda: live.manager.stats().connections == 0)


async def numbers_of_long(stream: Stream, count: int) -> list[int]:
    return [int((await of(stream)).data.split(" ")[0]) for _ in range(count)]


async def test_a_drain_ends_streams_and_tells_newcomers_to_wait() -> None:
    live = EventsLive()
    with live_app(live):
        async with events(live.server, PATH, "chat:a", **auth()) as stream:
            assert await live.server.acall(live.manager.drain(0.0))
            await stream.ended()
            assert stream.retry_ms is not None
            assert 1000 <= stream.retry_ms <= 10_000
        async with request(live.server, url(PATH, "chat:a"), **auth()) as stream:
            assert stream.status == 503
            assert "retry-after" in stream.headers
        async with request(live.server, url(PATH, "chat:a"), Accept="text/event-stream", **auth()) as stream:
            assert stream.status == 200
            assert "retry: " in await stream.body()


@pytest.mark.parametrize("http", ["httptools", "h11"])
async def test_a_server_that_shuts_down_ends_its_streams(http: str, quick_sweeps: None) -> None:
    with live_app(EventsLive(), http=http, timeout_graceful_shutdown=None) as live:
        async with events(live.server, PATH, "chat:a", **auth()) as stream:
            live.server.server.should_exit = True
            await stream.ended()


# The ways to the socket


def gzipped(app: Any) -> Any:
    return GZipMiddleware(app, minimum_size=1)


async def seen(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    response.headers["x-seen"] = "yes"
    return response


@pytest.mark.parametrize(
    ("outer", "inner", "config", "is_direct"),
    [
        (None, None, {"http": "h11", "loop": "uvloop"}, True),
        (None, None, {"http": "httptools", "loop": "uvloop"}, True),
        (None, Middleware(GZipMiddleware), {}, True),
        (None, Middleware(BaseHTTPMiddleware, dispatch=seen), {}, False),
        (through_asgi, None, {}, False),
        (gzipped, None, {}, False),
    ],
    ids=["h11", "httptools", "gzip inside", "base inside", "wrapped", "gzip outside"],
)
async def test_every_way_to_the_socket_gives_the_same(
    outer: Any, inner: Middleware | None, config: dict[str, Any], is_direct: bool
) -> None:
    live = EventsLive()
    if inner is not None:
        live.app.user_middleware.append(inner)
    with serving(live.app if outer is None else outer(live.app), **config) as live.server:
        async with events(live.server, PATH, "chat:way", "ticker:way", **auth()) as stream:
            assert live.manager.stats().fast_path == float(is_direct)
            long = {"long": "x" * 5000}
            await publish(live, *[each for n in range(100) for each in (("chat:way", n), ("ticker:way", long))])
            got = [await of(stream) for _ in range(200)]
            assert [each.json for each in got if not each.data.startswith("{")] == list(range(100))
            last = stream.id
            await live.server.acall(live.manager.disconnect_user("ann"))
            await stream.ended()
            assert stream._ended, "the body has its end"
        await live.publish("chat:way", "missed")
        async with events(live.server, PATH, "chat:way", "ticker:way", since=last, **auth()) as stream:
            assert (await of(stream)).data == "missed"
        await eventually(lambda: live.manager.stats().connections == 0)


async def test_a_client_of_http_1_0_reads_to_the_end_of_the_connection(live: EventsLive) -> None:
    async with request(live.server, url(PATH, "chat:old"), version="1.0", **auth()) as stream:
        assert stream.status == 200
        await live.publish("chat:old", 1)
        assert (await of(stream)).json == 1


async def test_nginx_with_its_defaults_passes_events_on_at_once(live: EventsLive, tmp_path: Path) -> None:
    async with behind_nginx([live.server.port], tmp_path) as proxy:
        for rooms in (["chat:nginx"], ["chat:nginx", "ticker:nginx"]):
            async with events(proxy, PATH, *rooms, **auth()) as stream:
                for number in range(3):
                    await live.publish("chat:nginx", number)
                    assert (await of(stream)).json == number
            await eventually(lambda: live.manager.stats().connections == 0)  # nginx passes on that it is gone
        async with events(proxy, PATH, "chat:nginx", **auth()) as stream:
            await live.server.acall(live.manager.disconnect_user("ann"))
            await stream.ended()


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_five_thousand_idle_streams_are_served_and_leave_nothing_behind(live: EventsLive) -> None:
    async with AsyncExitStack() as stack:
        opened: list[Stream] = []
        for first in range(0, 5000, 100):
            opening = [
                stack.enter_async_context(request(live.server, url(PATH, "ticker:idle"), **auth(f"user{number}")))
                for number in range(first, first + 100)
            ]
            opened += await asyncio.gather(*opening)
        assert {each.status for each in opened} == {200}
        await live.publish("ticker:idle", 1)
        assert [(await of(each)).json for each in opened] == [1] * 5000
        assert live.manager.stats().connections == 5000
    await eventually(lambda: live.manager.stats().connections == 0, timeout_s=120)


async def test_connects_and_losses_leave_nothing_behind(live: EventsLive) -> None:
    await _come_and_go(live, 60)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_thousand_connects_and_losses_leave_nothing_behind(live: EventsLive) -> None:
    await _come_and_go(live, 1000)


async def _come_and_go(live: EventsLive, count: int) -> None:
    turns = asyncio.Semaphore(20)

    async def come(number: int) -> None:
        rooms = ["chat:come", "ticker:come"][: 1 + number % 2]
        async with turns, request(live.server, url(PATH, *rooms), **auth(f"user{number}")) as stream:
            assert stream.status == 200
            if number % 3:
                await of(stream, "connected")

    await asyncio.gather(*map(come, range(count)))
    await eventually(lambda: live.manager.stats().connections == 0)

    def forgotten() -> bool:
        gc.collect()
        return not live.manager._hubbub.one_room_streams

    await eventually(forgotten)


# Routes of the app


async def test_a_route_returns_a_stream(live: EventsLive) -> None:
    async with events(live.server, "/raw/ann", "chat:raw", "$user") as stream:
        await live.publish("chat:raw", 1)
        assert (await of(stream)).json == 1
        await live.server.acall(live.manager.send_to_user("ann", 2))
        assert (await of(stream)).json == 2
        assert await live.server.acall(live.manager.is_online("ann"))
        last = stream.id
    await live.publish("chat:raw", 3)
    async with events(live.server, "/raw/ann", "chat:raw", "$user", since=last) as stream:
        assert (await of(stream)).json == 3
    async with request(live.server, url("/raw/ann", "chat:raw"), Origin="http://other.example") as stream:
        assert stream.status == 403


@pytest.mark.parametrize(
    ("path", "rooms", "status"),
    [("/raw/ann", ["$x"], 422), ("/raw/ann", [], 500), ("/raw/nobody", ["$user"], 500), ("/raw/ann", ["small:b"], 503)],
)
async def test_a_route_that_can_return_no_stream(live: EventsLive, path: str, rooms: list[str], status: int) -> None:
    async with (
        events(live.server, "/raw/bob", "small:b"),
        request(live.server, url(path, *rooms)) as stream,
    ):
        assert stream.status == status


async def test_a_manager_that_is_not_installed_says_so() -> None:
    live, other = EventsLive(), ConnectionManager()
    raised: list[Exception] = []

    @live.app.get("/other")
    async def stream(request: Request) -> Response:
        try:
            return other.event_stream(request, rooms=["a"])
        except Exception as error:
            raised.append(error)
            raise HTTPException(500) from None

    async with other.lifespan():
        with pytest.raises(InvalidArgument, match="request: got 'text'"):
            other.event_stream("text", rooms=["a"])  # type: ignore[arg-type]  # on purpose
        with pytest.raises(NotInstalled, match="not installed on the app that serves this request"):
            other.event_stream(Request({"type": "http", "path": "/"}), rooms=["a"])
    with live_app(live):
        async with request(live.server, "/other") as answer:
            assert answer.status == 500
    assert isinstance(raised[0], NotInstalled)
