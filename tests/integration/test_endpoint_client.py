"""`hubbub.testing.endpoint_client`: a client of an endpoint, over Starlette's TestClient."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Annotated, Any

import anyio.from_thread
import anyio.to_thread
import jwt
import pytest
from fastapi import Cookie, Depends, FastAPI, Header, HTTPException, Query, WebSocketException
from pydantic import BaseModel
from starlette.responses import Response
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from hubbub import Connection, ConnectionManager, Grant, History, InvalidArgument, Position, RoomOptions, Welcome
from hubbub.auth import Claims, JWTAuth
from hubbub.endpoints.heartbeat import Heartbeat
from hubbub.testing import (
    ClientInfo,
    Disconnected,
    EndpointClient,
    Join,
    Leave,
    PersonalMessage,
    Publication,
    RequestRefused,
    Subscribed,
    Unsubscribed,
    endpoint_client,
)
from tests.integration.live import KEY, token

manager = ConnectionManager(
    rooms={
        "chat:*": RoomOptions(history=History(100, ttl_s=60), client_history=True),
        "group:*": RoomOptions(announce=True, client_presence=True),
    }
)
app = FastAPI()
manager.install(app)
current_user = JWTAuth(KEY, algorithms=["HS256"])
User = Annotated[Claims, Depends(current_user)]
live = manager.endpoint("/live", auth=current_user)
ended: list[str] = []
gate = threading.Event()


class Typing(BaseModel):
    room: str


@live.connect
async def hello(user: User, message: dict[str, Any] | None = None) -> Welcome:
    if user.sub == "mallory":
        raise HTTPException(503, "not today")
    return Welcome(data={"hello": user.sub, "said": message}, info={"name": user.sub.title()}, rooms=["chat:news"])


@live.disconnect
async def bye(user: User) -> None:
    ended.append(user.sub)
    gate.set()


@live.room("chat:{room}")
async def may_chat(room: str, message: str | None = None) -> bool | Grant:
    return room != "secret" and Grant(data={"room": room, "said": message})


@live.room("group:{group_id}")
async def may_join(group_id: int) -> Grant:
    return Grant(info={"role": "guest"})


@live.room("film:{film}", token=True)
async def may_watch(film: str, claims: Claims) -> bool:
    return True


@live.publish("chat:{room}")
@live.publish("group:{room}")
async def say(message: dict[str, Any], room: str) -> dict[str, Any]:
    return message


@live.on("typing")
async def typing(message: Typing, user: User) -> None:
    await manager.broadcast({"typing": user.sub}, room=message.room)


@live.on("echo")
async def echo(message: Any = None) -> Any:
    return message


@live.on("greet")
async def greet(connection: Connection, user: User) -> None:
    await connection.send({"hi": 1})
    await manager.send_to_user(user.sub, b"\x00")


@live.on("enter")
async def enter(message: str, connection: Connection) -> None:
    await connection.join(message)


@live.on("leave")
async def leave(message: str, connection: Connection) -> None:
    await connection.leave(message)


@live.on("busy")
async def busy() -> None:
    raise HTTPException(503, "later")


@live.on("close")
async def close(message: int, connection: Connection) -> None:
    await connection.send("bye")
    raise WebSocketException(message, "enough")


@live.on("never")
def never() -> None:
    gate.wait(10)


seen = manager.endpoint("/seen", auth=None)


@seen.connect
async def tell(
    page: Annotated[str, Query()] = "", x_app: Annotated[str, Header()] = "", session: Annotated[str, Cookie()] = ""
) -> Welcome:
    return Welcome(data=[page, x_app, session])


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.fixture
def ann(client: TestClient) -> Iterator[EndpointClient]:
    with endpoint_client(client, "/live", token=token("ann")) as ann:
        yield ann


@pytest.fixture
def bob(client: TestClient) -> Iterator[EndpointClient]:
    with endpoint_client(client, "/live", token=token("bob"), data={"from": "home"}) as bob:
        yield bob


# Connecting


def test_the_welcome_is_known(ann: EndpointClient, bob: EndpointClient) -> None:
    assert ann.connected.data == {"hello": "ann", "said": None}
    assert bob.connected.data == {"hello": "bob", "said": {"from": "home"}}
    assert ann.connected.client != bob.connected.client
    assert ann.connected.rooms.keys() == {"$everyone", "$user", "chat:news"}
    assert isinstance(ann.connected.rooms["chat:news"].position, Position)


def test_a_client_may_be_refused(client: TestClient) -> None:
    with pytest.raises(RequestRefused) as refused, endpoint_client(client, "/live", token=token("mallory")):
        pass
    assert (refused.value.code, refused.value.message, refused.value.temporary) == (503, "not today", True)
    assert str(refused.value) == "503: not today (temporary)"


def test_a_client_may_be_turned_away(client: TestClient) -> None:
    with pytest.raises(Disconnected) as closed, endpoint_client(client, "/live", token="forged"):
        pass
    assert closed.value.code == 3500


def test_a_path_without_an_endpoint_is_named(client: TestClient) -> None:
    with pytest.raises(Disconnected, match="is there an endpoint at '/lives'"), endpoint_client(client, "/lives"):
        pass


def test_a_handshake_that_is_answered_over_http_is_seen_as_it_is() -> None:
    async def deny(scope: Scope, receive: Receive, send: Send) -> None:
        await WebSocket(scope, receive, send).send_denial_response(Response("closed", 503))

    with pytest.raises(Exception) as denied, endpoint_client(TestClient(deny), "/live"):  # noqa: PT011 - httpx's class
        pass
    assert getattr(denied.value, "status_code", None) == 503


def test_headers_cookies_and_the_query_are_those_of_the_handshake(client: TestClient) -> None:
    client.cookies.set("session", "s")
    try:
        with endpoint_client(client, "/seen?page=p", headers={"X-App": "a"}) as ann:
            assert ann.connected.data == ["p", "a", "s"]
    finally:
        client.cookies.clear()


def test_a_token_may_come_in_the_handshake(client: TestClient) -> None:
    with endpoint_client(client, "/live", headers={"Authorization": f"Bearer {token('ann')}"}) as ann:
        assert ann.connected.data["hello"] == "ann"
    with endpoint_client(client, "/live", subprotocols=["centrifuge-json", "bearer", token("bob")]) as bob:
        assert bob.connected.data["hello"] == "bob"


def test_dependencies_may_be_overridden(client: TestClient) -> None:
    app.dependency_overrides[current_user] = lambda: Claims({"sub": "zoe"})
    try:
        with endpoint_client(client, "/live") as zoe:
            assert zoe.connected.data["hello"] == "zoe"
    finally:
        app.dependency_overrides.clear()


def test_protobuf_is_not_spoken(client: TestClient) -> None:
    with pytest.raises(InvalidArgument), endpoint_client(client, "/live", subprotocols=["centrifuge-protobuf"]):
        pass


def test_the_end_of_the_block_disconnects(client: TestClient) -> None:
    ended.clear()
    gate.clear()
    with endpoint_client(client, "/live", token=token("ann")) as ann:
        ann.rpc("echo")
    assert gate.wait(5)
    assert ended == ["ann"]
    with pytest.raises(Disconnected, match="the block of endpoint_client has ended"):
        ann.rpc("echo")
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("client of")]


# Requests


@pytest.mark.parametrize("value", [None, 1, "text", {"a": [1, None]}], ids=repr)
def test_a_method_is_called(ann: EndpointClient, value: Any) -> None:
    assert ann.rpc("echo", value) == value


def test_models_are_messages_too(ann: EndpointClient) -> None:
    assert ann.rpc("echo", Typing(room="lobby")) == {"room": "lobby"}


def test_an_error_has_its_code_and_whether_it_is_temporary(ann: EndpointClient) -> None:
    with pytest.raises(RequestRefused) as refused:
        ann.rpc("busy")
    assert (refused.value.code, refused.value.message, refused.value.temporary) == (503, "later", True)
    with pytest.raises(RequestRefused, match="room: Field required") as refused:
        ann.rpc("typing", {})
    assert (refused.value.code, refused.value.temporary) == (422, False)
    with pytest.raises(RequestRefused, match="104: method not found"):
        ann.rpc("nothing")
    assert ann.rpc("echo", 1) == 1


def test_what_was_sent_is_handled_before_the_next_request(ann: EndpointClient) -> None:
    ann.subscribe("group:1")
    ann.send("typing", Typing(room="group:1"))
    ann.rpc("echo")
    assert ann.unread()[-1] == Publication("group:1", {"typing": "ann"})


def test_a_subscription_has_what_the_function_grants(ann: EndpointClient) -> None:
    subscribed = ann.subscribe("chat:lobby", data="please")
    assert subscribed.data == {"room": "lobby", "said": "please"}
    assert (subscribed.was_recovering, subscribed.recovered) == (False, False)
    assert ann.subscribe("group:1") == Subscribed("group:1")
    with pytest.raises(RequestRefused, match="103"):
        ann.subscribe("chat:secret")
    with pytest.raises(RequestRefused, match="105"):
        ann.subscribe("chat:lobby")


def test_a_room_may_ask_for_a_token(ann: EndpointClient) -> None:
    with pytest.raises(RequestRefused, match="103"):
        ann.subscribe("film:1", token="forged")
    film = jwt.encode({"sub": "ann", "channel": "film:1", "exp": time.time() + 60}, KEY, "HS256")
    assert ann.subscribe("film:1", token=film) == Subscribed("film:1")


def test_a_client_that_returns_recovers(ann: EndpointClient, bob: EndpointClient) -> None:
    position = ann.subscribe("chat:recovery").position
    bob.subscribe("chat:recovery")
    assert position is not None
    ann.unsubscribe("chat:recovery")
    bob.publish("chat:recovery", {"n": 1})
    bob.publish("chat:recovery", {"n": 2})
    again = ann.subscribe("chat:recovery", since=position)
    assert (again.was_recovering, again.recovered) == (True, True)
    assert [each.data for each in again.publications] == [{"n": 1}, {"n": 2}]
    assert ann.unread() == []


def test_history_is_read_from_where_the_client_is(ann: EndpointClient) -> None:
    ann.subscribe("chat:history")
    for n in (1, 2, 3):
        ann.publish("chat:history", {"n": n})
    page = ann.history("chat:history")
    assert [each.data["n"] for each in page.publications] == [1, 2, 3]
    assert page.position is not None
    assert page.position.offset == 3
    assert [each.offset for each in ann.history("chat:history", limit=1, reverse=True).publications] == [3]
    after = ann.history("chat:history", since=Position(page.position.epoch, 2))
    assert [each.data["n"] for each in after.publications] == [3]
    assert ann.history("chat:history", limit=0).publications == ()
    ann.subscribe("group:1")
    with pytest.raises(RequestRefused, match="108"):
        ann.history("group:1")


def test_those_who_are_present_are_listed(ann: EndpointClient, bob: EndpointClient) -> None:
    for each in (ann, bob):
        each.subscribe("group:3")
    present = ann.presence("group:3")
    assert {each.user for each in present.values()} == {"ann", "bob"}
    assert all(client == each.client for client, each in present.items())
    (one,) = (each for each in present.values() if each.user == "bob")
    assert one == ClientInfo("bob", one.client, {"name": "Bob"}, {"role": "guest"})


# Events


def test_joins_publications_and_leaves_arrive_in_order(ann: EndpointClient, bob: EndpointClient) -> None:
    ann.subscribe("group:2")
    bob.subscribe("group:2")
    bob.publish("group:2", {"text": "hello"})
    bob.unsubscribe("group:2")
    own, join, publication, left = (ann.receive() for _ in range(4))
    assert isinstance(join, Join)
    info = join.info
    assert info == ClientInfo("bob", info.client, {"name": "Bob"}, {"role": "guest"})
    assert isinstance(own, Join)
    assert own.info.user == "ann"
    assert publication == Publication("group:2", {"text": "hello"}, info=info)
    assert left == Leave("group:2", info)


def test_messages_to_a_connection_and_to_its_user_arrive(ann: EndpointClient) -> None:
    ann.rpc("greet")
    assert {repr(ann.receive()), repr(ann.receive())} == {
        repr(PersonalMessage({"hi": 1})),
        repr(Publication("$user", "AA==", tags={"encoding": "base64"})),
    }


def test_rooms_that_the_app_joins_and_leaves_are_told(ann: EndpointClient) -> None:
    ann.rpc("enter", "chat:entered")
    entered = ann.receive()
    assert isinstance(entered, Subscribed)
    assert (entered.room, entered.data) == ("chat:entered", None)
    assert entered.position is not None
    ann.rpc("leave", "chat:entered")
    assert ann.receive() == Unsubscribed("chat:entered", 2000, "server unsubscribe")


def test_a_client_that_is_not_in_a_room_receives_nothing(ann: EndpointClient, bob: EndpointClient) -> None:
    ann.subscribe("chat:lobby")
    ann.publish("chat:lobby", {"text": "hello"})
    bob.rpc("echo")
    assert bob.unread() == []
    received = ann.receive()
    assert isinstance(received, Publication)
    assert received.data == {"text": "hello"}
    assert ann.unread() == []


# Waiting, and the end


def test_waiting_ends_and_names_what_did_not_arrive(client: TestClient) -> None:
    gate.clear()
    with endpoint_client(client, "/live", token=token("ann")) as ann:
        ann._timeout_s = 0.05
        with pytest.raises(AssertionError, match=r"an event did not arrive in 0\.05 s$"):
            ann.receive()
        with pytest.raises(AssertionError, match=r"the reply to 'never' did not arrive in 0\.05 s$"):
            ann.rpc("never")
        ann._timeout_s = 5.0
        gate.set()
        assert ann.rpc("echo", "the reply that came too late is skipped") == "the reply that came too late is skipped"


def test_what_came_before_the_end_is_received_and_then_every_call_says_how_it_ended(ann: EndpointClient) -> None:
    with pytest.raises(Disconnected, match="4500 enough") as closed:
        ann.rpc("close", 4500)
    assert (closed.value.code, closed.value.reason) == (4500, "enough")
    assert ann.receive() == PersonalMessage("bye")
    for call in (ann.receive, lambda: ann.rpc("echo")):
        with pytest.raises(Disconnected, match="4500 enough"):
            call()


def test_a_user_who_is_disconnected_sees_it(client: TestClient, ann: EndpointClient) -> None:
    manager.from_thread.disconnect_user("ann")
    with pytest.raises(Disconnected, match="3503"):
        ann.receive()


def test_pings_are_answered_even_while_the_test_does_something_else(
    client: TestClient, quick_sweeps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()
    pong = Heartbeat.pong

    def noted(heartbeat: Heartbeat) -> bool:
        answered.set()
        return pong(heartbeat)

    monkeypatch.setattr("hubbub.endpoints.heartbeat.PING_S", 0.05)
    monkeypatch.setattr(Heartbeat, "pong", noted)
    with endpoint_client(client, "/live", token=token("ann")) as ann:
        assert answered.wait(5)
        assert ann.rpc("echo", 1) == 1
        assert ann.unread() == []


def test_an_app_that_fails_ends_the_wait() -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), endpoint_client(TestClient(fail), "/live"):
        pass


def test_the_newest_tab_replaces_the_others_in_the_auth_dependency() -> None:
    app, manager = FastAPI(), ConnectionManager()
    manager.install(app)

    async def newest_tab() -> str:
        await manager.disconnect_user("ann", 4001, "opened in another tab")
        return "ann"

    newest = manager.endpoint("/live", auth=newest_tab)

    @newest.on("hello")
    async def answer() -> str:
        return "hello"

    with TestClient(app) as http, endpoint_client(http, "/live") as first:
        assert first.rpc("hello") == "hello"
        with endpoint_client(http, "/live") as second:
            assert second.rpc("hello") == "hello"
            with pytest.raises(Disconnected) as ended:
                first.rpc("hello")
            assert ended.value.code == 4001
            assert len(manager.connections(user="ann")) == 1


# Types


class Greeting(BaseModel):
    at: datetime
    names: list[str] = []


HELLO = Greeting(at=datetime(2026, 1, 2, tzinfo=UTC), names=["Ann"])


def test_a_reply_is_returned_as_its_type(ann: EndpointClient) -> None:
    assert ann.rpc("echo", HELLO, returns=Greeting) == HELLO
    assert ann.rpc("echo", [HELLO], returns=list[Greeting]) == [HELLO]
    assert ann.rpc("echo", HELLO, returns=Greeting | None) == HELLO
    assert ann.rpc("echo", returns=Greeting | None) is None
    assert ann.rpc("echo", HELLO) == {"at": "2026-01-02T00:00:00Z", "names": ["Ann"]}


def test_a_reply_of_another_type_fails_the_test(ann: EndpointClient) -> None:
    with pytest.raises(AssertionError, match=r"the reply to 'echo' is \{'at': 1.* not a Greeting: names: Input"):
        ann.rpc("echo", {"at": 1, "names": 2}, returns=Greeting)
    with pytest.raises(AssertionError, match="the reply to 'echo' is None, not a Greeting: Input"):
        ann.rpc("echo", returns=Greeting)


def test_messages_of_a_room_are_received_as_their_type(ann: EndpointClient, bob: EndpointClient) -> None:
    for room in ("group:1", "group:2"):
        bob.subscribe(room)
        ann.subscribe(room)
    for room, number in (("group:1", 1), ("group:2", 2), ("group:1", 3)):
        bob.publish(room, {"at": HELLO.at, "names": [str(number)]})
    assert ann.receive_from("group:2", Greeting).names == ["2"]
    assert ann.receive_from("group:1", Greeting | str).names == ["1"]
    assert ann.receive_from("group:1")["names"] == ["3"]
    assert [type(event) for event in ann.unread()] == [Join, Join], "other events stay"
    ann.rpc("greet")
    assert ann.receive_from("$user", str) == "AA=="
    bob.publish("group:1", {})
    with pytest.raises(AssertionError, match=r"the message in 'group:1' is \{\}, not a list\[int\]: Input"):
        ann.receive_from("group:1", list[int])


def test_a_call_may_wait_for_another_time(ann: EndpointClient) -> None:
    with pytest.raises(AssertionError, match=r"an event did not arrive in 0\.01 s"):
        ann.receive(timeout_s=0.01)
    with pytest.raises(AssertionError, match=r"a message in 'chat:lobby' did not arrive in 0\.01 s"):
        ann.receive_from("chat:lobby", timeout_s=0.01)
    gate.clear()
    try:
        with pytest.raises(AssertionError, match=r"the reply to 'never' did not arrive in 0\.01 s"):
            ann.rpc("never", timeout_s=0.01)
    finally:
        gate.set()


def test_threads_that_use_a_client_receive_their_own_replies_and_events(ann: EndpointClient) -> None:
    ann.subscribe("chat:threads")
    with ThreadPoolExecutor(8) as pool:
        received = [pool.submit(ann.receive_from, "chat:threads") for _ in range(3)]
        replies = [pool.submit(ann.rpc, "echo", n) for n in range(100)]
        assert [reply.result() for reply in replies] == list(range(100))
        for n in range(3):
            ann.publish("chat:threads", {"n": n})
        assert sorted(each.result()["n"] for each in received) == [0, 1, 2]
        closed = pool.submit(ann.receive)
        with pytest.raises(Disconnected, match="4500 enough"):
            ann.rpc("close", 4500)
        assert closed.result() == PersonalMessage("bye")


# Users


def test_each_client_may_be_a_user_without_a_token(client: TestClient) -> None:
    with (
        endpoint_client(client, "/live?page=1", user=Claims({"sub": "ann"})) as ann,
        endpoint_client(client, "/live", user=Claims({"sub": "bob"})) as bob,
        endpoint_client(client, "/live", token=token("cem")) as cem,
    ):
        assert [each.connected.data["hello"] for each in (ann, bob, cem)] == ["ann", "bob", "cem"]
        for each, name in ((ann, "ann"), (bob, "bob"), (cem, "cem")):
            each.subscribe("chat:lobby")
            each.rpc("typing", {"room": "chat:lobby"})
            assert ann.receive_from("chat:lobby") == {"typing": name}, "functions know the user too"
    assert not app.dependency_overrides
    with pytest.raises(Disconnected), endpoint_client(client, "/live"):
        pass


def test_a_user_replaces_the_override_of_the_app_for_one_client(client: TestClient) -> None:
    app.dependency_overrides[current_user] = override = lambda: Claims({"sub": "eve"})
    try:
        with endpoint_client(client, "/live", user=Claims({"sub": "ann"})) as ann:
            assert ann.connected.data["hello"] == "ann"
            assert app.dependency_overrides == {current_user: override}
            with endpoint_client(client, "/live") as eve:
                assert eve.connected.data["hello"] == "eve"
    finally:
        app.dependency_overrides.clear()


def test_the_override_ends_if_the_user_is_refused(client: TestClient) -> None:
    with pytest.raises(RequestRefused), endpoint_client(client, "/live", user=Claims({"sub": "mallory"})):
        pass
    assert not app.dependency_overrides


@pytest.mark.parametrize("path", ["/seen", "/lives", "/"])
def test_a_user_needs_an_endpoint_that_asks_for_one(client: TestClient, path: str) -> None:
    with (
        pytest.raises(InvalidArgument, match="no endpoint with an auth= dependency at"),
        endpoint_client(client, path, user=Claims({"sub": "ann"})),
    ):
        pass


def test_a_user_of_an_endpoint_below_another_app() -> None:
    inner, manager = FastAPI(), ConnectionManager()
    manager.install(inner)
    live = manager.endpoint("/live/{tenant}", auth=current_user)

    @live.on("who")
    async def who(user: User, tenant: str) -> list[str]:
        return [tenant, user.sub]

    outer = FastAPI(lifespan=manager.lifespan)
    outer.mount("/other", FastAPI())
    outer.mount("/inner", inner)
    with (
        TestClient(outer) as client,
        endpoint_client(client, "/inner/live/acme", user=Claims({"sub": "ann"})) as ann,
    ):
        assert ann.rpc("who") == ["acme", "ann"]


# Async tests


@pytest.mark.anyio
async def test_an_async_test_runs_the_client_in_a_thread() -> None:
    came = anyio.Event()

    def use() -> Any:
        with TestClient(other_app) as client, endpoint_client(client, "/live", user=Claims({"sub": "ann"})) as ann:
            anyio.from_thread.run_sync(came.set)  # the event loop of the test runs meanwhile
            return ann.rpc("who")

    other_app, manager = FastAPI(), ConnectionManager()
    manager.install(other_app)
    live = manager.endpoint("/live", auth=current_user)

    @live.on("who")
    async def who(user: User) -> str:
        return user.sub

    assert await anyio.to_thread.run_sync(use) == "ann"
    assert came.is_set()
