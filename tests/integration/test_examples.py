"""Every example is run, and does what the docs say of it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from fastapi import Depends, FastAPI, WebSocket
from websockets.asyncio.client import ClientConnection

from examples import (
    app_state,
    chat,
    databases,
    delivery,
    event_stream,
    fast_path,
    getting_started,
    limits,
    newest_tab,
    notifications,
    own_lifespan,
    page_client,
    quickstart,
    readiness,
    rooms,
    slow_clients,
)
from examples import events as events_example
from hubbub import Position
from hubbub.brokers import MemoryBroker
from hubbub.envelope import Reset
from tests.integration.conftest import Clock
from tests.integration.events import events
from tests.integration.support import (
    LiveServer,
    assert_nothing_left,
    client,
    closed,
    eventually,
    receive,
    receive_until,
    serving,
)
from tests.integration.test_drop_in import SHAPES

pytestmark = pytest.mark.anyio

CHECKOUT = Path(__file__).parents[2]
EXAMPLES = CHECKOUT / "examples"


def test_every_example_has_a_test() -> None:
    tests = [*(CHECKOUT / "tests").rglob("test_*.py"), *EXAMPLES.glob("test_*.py")]
    text = "\n".join(path.read_text() for path in tests)
    # test_auth_docs.py runs those of auth, whatever their names.
    examples = {path.stem for path in EXAMPLES.glob("*.py") if not path.stem.startswith("auth_")}
    assert not [name for name in examples if not re.search(rf"\b{name}\b", text)]
    shapes = {path.stem.rpartition("_")[0] for path in (EXAMPLES / "replace").glob("*.py")}
    assert shapes == SHAPES.keys()  # test_drop_in.py runs them by shape


def test_the_support_desk_and_its_test_have_the_same_npm_packages() -> None:
    tested = json.loads((CHECKOUT / "tests" / "js" / "package.json").read_text())["dependencies"]
    page = json.loads((EXAMPLES / "support_desk" / "page" / "package.json").read_text())
    wanted = page["dependencies"] | page["devDependencies"]
    assert {name: tested[name] for name in wanted} == wanted


def serve(app: FastAPI) -> Iterator[LiveServer]:
    with serving(app) as server:
        yield server


async def ask(server: LiveServer, path: str, method: str = "GET", **options: Any) -> Any:
    async with httpx.AsyncClient(trust_env=False) as http:
        response = await http.request(method, server.http(path), **options)
    assert response.is_success, response.text
    return response.json() if response.content else None


async def say(connection: ClientConnection, message: Any) -> None:
    await connection.send(json.dumps(message))


class TestQuickstart:
    @pytest.fixture
    def server(self) -> Iterator[LiveServer]:
        yield from serve(quickstart.app)

    def token(self, **claims: Any) -> str:
        claims = {"sub": "1", "name": "Ann", "exp": time.time() + 60, **claims}
        return jwt.encode(claims, os.environ["JWT_KEY"], "HS256")

    async def test_chat_and_notification(self, server: LiveServer) -> None:
        ann, bob = (["bearer", self.token(sub=sub)] for sub in ("1", "2"))
        async with (
            client(server, "/ws/lobby", subprotocols=ann) as tab1,
            client(server, "/ws/other", subprotocols=ann) as tab2,
            client(server, "/ws/lobby", subprotocols=bob) as tab3,
        ):
            await say(tab3, {"body": "Hello"})
            for tab in (tab1, tab3):
                assert await receive(tab) == {"type": "message", "user_id": "2", "body": "Hello"}
            headers = {"Authorization": f"Bearer {bob[1]}"}
            assert await ask(server, "/users/1/notify", "POST", headers=headers) == {"online": True}
            for tab in (tab1, tab2):
                assert await receive(tab) == {"type": "notification", "by": "2"}
            assert await ask(server, "/users/3/notify", "POST", headers=headers) == {"online": False}
        await eventually(lambda: not quickstart.manager.active_connections)
        assert_nothing_left(quickstart.manager)

    async def test_nobody_comes_in_without_a_token(self, server: LiveServer) -> None:
        async with client(server, "/ws/lobby") as connection:
            code, reason = await closed(connection)
        assert (code, reason) == (1008, "unauthorized: no token")


class TestGettingStarted:
    @pytest.fixture
    def server(self) -> Iterator[LiveServer]:
        yield from serve(getting_started.app)

    async def test_page_is_there(self, server: LiveServer) -> None:
        async with httpx.AsyncClient(trust_env=False) as http:
            page = (await http.get(server.http("/"))).text
        assert "new WebSocket" in page
        assert "/ws`" in page

    async def test_everybody_hears_what_is_said(self, server: LiveServer) -> None:
        async with client(server, "/ws") as one:
            assert await receive(one) == {"type": "welcome", "online": 1}
            async with client(server, "/ws") as two:
                assert await receive(two) == {"type": "welcome", "online": 2}
                await one.send("Hello")
                for tab in (one, two):
                    assert await receive(tab) == {"type": "message", "text": "Hello"}

    async def test_routes_and_threads_push(self, server: LiveServer) -> None:
        async with client(server, "/ws") as one:
            await receive(one)
            await ask(server, "/news", "POST", json={"title": "It works"})
            assert await receive(one) == {"type": "news", "title": "It works"}
            await ask(server, "/alarm", "POST")
            assert await receive(one) == {"type": "alarm"}
            await ask(server, "/reports", "POST")
            assert await receive(one) == {"type": "report", "ready": True}


class TestRooms:
    @pytest.fixture
    def server(self) -> Iterator[LiveServer]:
        yield from serve(rooms.app)

    async def test_users_come_and_go_once_however_many_tabs_they_have(
        self, server: LiveServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        exits, asked_in_grace = MemoryBroker.exit, threading.Event()

        async def exits_when_asked(*leaving: Any) -> None:
            while not asked_in_grace.is_set():  # noqa: ASYNC110 - set by another thread
                await asyncio.sleep(0.01)
            await exits(*leaving)

        monkeypatch.setattr(MemoryBroker, "exit", exits_when_asked)
        async with client(server, "/ws/ann") as ann:
            joined = await receive(ann)
            assert joined.pop("timestamp")
            assert joined == {
                "type": "user_joined",
                "room": "chat:lobby",
                "user_id": "ann",
                "info": {"name": "Ann"},
                "count": 1,
            }
            async with client(server, "/ws/bob"), client(server, "/ws/bob"):
                assert (await receive(ann))["count"] == 2
                members = await ask(server, "/rooms/lobby")
                assert [(each["user_id"], each["connections"]) for each in members] == [("ann", 1), ("bob", 2)]
                assert await ask(server, "/online") == {"users": 2, "connections": 3}
                assert await ask(server, "/users/bob") == {"online": True}
            await eventually(lambda: rooms.manager.active_user_count == 1)
            # In grace: still present, but with nobody to send to.
            assert await ask(server, "/users/bob") == {"online": True}
            assert await ask(server, "/users/bob/notices", "POST", json={"text": "Hm"}) == {"delivered": False}
            asked_in_grace.set()
            left = await receive(ann)
            assert (left["type"], left["user_id"], left["count"]) == ("user_left", "bob", 1)
            assert await ask(server, "/users/bob") == {"online": False}

    async def test_rooms_are_joined_and_left_by_message(self, server: LiveServer) -> None:
        async with client(server, "/ws/ann") as ann, client(server, "/ws/bob") as bob:
            await receive_until(ann, lambda frame: frame["user_id"] == "bob")
            await say(ann, {"type": "join", "room": "red"})
            assert (await receive(ann))["room"] == "chat:red"
            await say(ann, {"type": "say", "room": "red", "text": "Anybody?"})
            assert await receive(ann) == {"type": "said", "room": "red", "by": "ann", "text": "Anybody?"}
            await say(bob, {"type": "say", "room": "red", "text": "Not a member"})
            frames = await receive_until(bob, lambda frame: frame["type"] == "error")
            assert frames[-1]["code"] == "unknown"
            await say(ann, {"type": "leave", "room": "red"})
            await say(ann, {"type": "say", "room": "red", "text": "Gone"})
            assert (await receive(ann))["type"] == "error"

    async def test_who_types_does_not_hear_it(self, server: LiveServer) -> None:
        async with client(server, "/ws/ann") as ann, client(server, "/ws/bob") as bob:
            await receive_until(ann, lambda frame: frame["user_id"] == "bob")
            await receive(bob)
            await say(ann, {"type": "typing", "room": "lobby"})
            await say(ann, {"type": "say", "room": "lobby", "text": "Hi"})
            assert (await receive(ann))["type"] == "said"
            assert await receive(bob) == {"type": "typing", "room": "lobby", "by": "ann"}

    async def test_user_is_told_and_signed_out_in_every_tab(self, server: LiveServer) -> None:
        assert await ask(server, "/users/ann/notices", "POST", json={"text": "Hm"}) == {"delivered": False}
        assert await ask(server, "/users/ann/connections", "DELETE") == {"was_online": False}
        async with client(server, "/ws/ann") as one, client(server, "/ws/ann") as two:
            await receive(one)
            assert await ask(server, "/users/ann/notices", "POST", json={"text": "Hi"}) == {"delivered": True}
            for tab in (one, two):
                assert (await receive(tab))["text"] == "Hi"
            assert await ask(server, "/users/ann/connections", "DELETE") == {"was_online": True}
            for tab in (one, two):
                assert await closed(tab) == (1008, "signed out")
            assert await ask(server, "/users/ann") == {"online": False}  # a kick has no grace

    async def test_private_room_holds_two(self) -> None:
        assert rooms.manager._hubbub.options_of("private:1").max_members == 2


class TestDelivery:
    @pytest.fixture
    def server(self) -> Iterator[LiveServer]:
        yield from serve(delivery.app)

    async def test_newcomer_receives_the_last_messages_before_the_live_ones(self, server: LiveServer) -> None:
        for n in range(60):
            await server.acall(delivery.manager.broadcast({"n": n}, room="chat:busy"))
        async with client(server, "/ws/busy") as one:
            await say(one, {"text": "live"})
            assert [(await receive(one)).get("n", "live") for _ in range(51)] == [*range(10, 60), "live"]

    async def test_a_gap_is_told(self, server: LiveServer) -> None:
        async with client(server, "/ws/lost") as one:
            await say(one, {"text": "here"})
            assert (await receive(one))["text"] == "here"

            async def lose() -> None:
                delivery.manager._hubbub.deliveries.deliver("chat:lost", Reset(Position("abcdefgh", 7)))

            await server.acall(lose())
            assert await receive(one) == {"type": "reload"}

    async def test_history_is_there_for_who_comes_late(self, server: LiveServer) -> None:
        async with client(server, "/ws/green") as one:
            for text in ("a", "b", "c"):
                await say(one, {"text": text})
                await receive(one)
        recent = await ask(server, "/rooms/green/messages?limit=2")
        assert [(each["offset"], each["message"]["text"]) for each in recent] == [(2, "b"), (3, "c")]

    async def test_positions_can_be_given_by_hand(self, server: LiveServer) -> None:
        position = await server.acall(delivery.manager.broadcast("x", room="chat:hand"))
        assert isinstance(position, Position)
        recorded = await server.acall(delivery.manager.history("chat:hand", since=Position(position.epoch, 0)))
        assert [each.message for each in recorded] == ["x"]


class TestSlowClients:
    @pytest.fixture
    def server(self) -> Iterator[LiveServer]:
        yield from serve(slow_clients.app)

    async def test_prices_come_by_themselves(self, server: LiveServer) -> None:
        async with client(server, "/ws/ticker") as one:
            assert {(await receive(one))["symbol"] for _ in range(2)} == {"ACME", "INIT"}
            assert await ask(server, "/health/slow") == {"queued_bytes": 0, "dropped": 0, "slow": 0, "stalled": 0}
        await eventually(lambda: not slow_clients.manager.active_connections)

    async def test_who_does_not_read_gets_the_latest_of_each_symbol(
        self, server: LiveServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "hubbub.connections.pacing.PATIENCE_S", 0.1
        )  # that the flood has with who reads slowly: all is used up
        async with client(server, "/ws/ticker", max_queue=1) as one:
            await receive(one)
            padding = "x" * 16 * 1024

            async def flood() -> None:
                for number in range(640):
                    for symbol in ("FULL", "LATE"):  # not those that the example itself has prices of
                        message = {"symbol": symbol, "number": number, "padding": padding}
                        await slow_clients.manager.broadcast(message, room="ticker:all", key=symbol)

            await server.acall(flood())  # 20 MiB, more than the kernel's buffers take
            assert slow_clients.manager.stats().queued_bytes <= 256 * 1024
            assert slow_clients.manager.stats().dropped > 0
            last: dict[str, int] = {}
            while last != {"FULL": 639, "LATE": 639}:
                frame = await receive(one)
                if "number" in frame:
                    assert frame["number"] > last.get(frame["symbol"], -1)
                    last[frame["symbol"]] = frame["number"]


class TestLimits:
    @pytest.fixture
    def server(self) -> Iterator[LiveServer]:
        yield from serve(limits.app)

    async def test_bad_messages_are_answered_and_then_end_it(self, server: LiveServer) -> None:
        async with client(server, "/ws/ann") as one:
            await one.send("{")
            error = await receive(one)
            assert (error["type"], error["code"]) == ("error", "invalid_json")
            await one.send('"x' + "x" * 4096 + '"')
            assert (await receive(one))["code"] == "message_too_big"
            await one.send('"fine"')
            assert await receive(one) == "fine"
            await one.send(b"\x00")
            assert (await receive(one))["code"] == "text_expected"
            assert await closed(one) == (1007, "too many invalid messages")
        found = await ask(server, "/refused")
        assert found["errors"] == {"invalid_json": 1, "message_too_big": 1, "text_expected": 1}
        assert found["refused"] == {"invalid_data": 1}

    async def test_too_fast_is_told_and_then_ended(self, server: LiveServer, clock: Clock) -> None:
        async with client(server, "/ws/bob") as one:
            for _ in range(60):
                await one.send("1")
            frames = await receive_until(one, lambda frame: isinstance(frame, dict))
            assert frames[:-1] == [1] * 25  # five seconds' worth
            assert frames[-1]["code"] == "rate_limited"
            assert await closed(one) == (1008, "too many messages")

    async def test_third_tab_is_refused(self, server: LiveServer) -> None:
        async with client(server, "/ws/cid"), client(server, "/ws/cid"), client(server, "/ws/cid") as third:
            assert await closed(third) == (1008, "too many connections of this user")
        assert (await ask(server, "/refused"))["refused"] == {"too_many_user_connections": 1}


class TestNewestTab:
    async def test_takes_the_place_of_the_old_one(self) -> None:
        with serving(newest_tab.app) as server:
            async with client(server, "/ws/7") as other, client(server, "/ws/8") as bystander:
                await other.send("hello")
                assert await receive(other) == "You said: hello"
                async with client(server, "/ws/7") as newest:
                    assert await closed(other) == (4001, "opened in another tab")
                    for each in (newest, bystander):
                        await each.send("still here")
                        assert await receive(each) == "You said: still here"


class TestAppState:
    async def test_a_factory_makes_an_app_with_a_manager_of_its_own(self) -> None:
        one, other = app_state.create_app(), app_state.create_app()
        with serving(one) as first, serving(other) as second:
            async with client(first, "/ws") as here, client(second, "/ws") as there:
                await eventually(lambda: len(one.state.manager.active_connections) == 1)
                await eventually(lambda: len(other.state.manager.active_connections) == 1)
                async with httpx.AsyncClient() as http:
                    for server, text in ((first, "of the first"), (second, "of the second")):
                        assert (await http.post(server.http("/news"), params={"text": text})).status_code == 200
                assert await receive(here) == "of the first"
                assert await receive(there) == "of the second"


async def test_the_smallest_app_sends_every_message_to_everybody() -> None:
    with serving(chat.app) as server:
        async with client(server, "/ws") as one, client(server, "/ws") as two:
            await eventually(lambda: len(chat.manager.active_connections) == 2)
            await one.send("Hello")
            assert [await one.recv(), await two.recv()] == ["Hello", "Hello"]


async def test_a_route_reports_the_share_of_direct_writes() -> None:
    with serving(fast_path.app) as server:
        async with client(server, "/ws") as one:
            await one.send("Hello")
            assert await one.recv() == "Hello"
            assert await ask(server, "/fast-path") == 1.0


async def test_a_drain_ends_readiness() -> None:
    with serving(readiness.app) as server:
        async with client(server, "/ws/red") as one:
            await one.send("Hello")
            assert await one.recv() == "Hello"
            assert await ask(server, "/ready") is True
            await server.acall(readiness.manager.drain(over_s=0))
            assert (await closed(one))[0] == 1012
        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.get(server.http("/ready"))).status_code == 503


async def test_an_endpoint_streams_its_rooms_and_the_page_reads_one_of_them() -> None:
    with serving(events_example.app) as server:
        async with httpx.AsyncClient(trust_env=False) as http:
            (path,) = re.findall(r'new EventSource\("(.+)"\)', (await http.get(server.http("/"))).text)
            async with events(server, path) as stream:
                said = await http.post(server.http("/chat/lobby"), params={"text": "Hello", "name": "ann"})
                assert said.status_code == 200
                assert (await stream.next()).json == {"user_id": "ann", "text": "Hello"}
            assert (await http.get(server.http("/live/events?room=chat:staff"))).status_code == 403


async def test_a_route_streams_the_progress_of_a_job() -> None:
    with serving(event_stream.app) as server:
        async with httpx.AsyncClient(trust_env=False) as http, events(server, "/jobs/a/events") as stream:
            await http.post(server.http("/jobs/a"), params={"percent": 50})
            assert (await stream.next()).json == {"percent": 50}
            assert (await http.get(server.http("/jobs/secret/events"))).status_code == 403


async def test_the_page_of_the_client_for_pages_finds_its_module_and_its_room() -> None:
    with serving(page_client.app) as server:
        async with httpx.AsyncClient(trust_env=False) as http:
            page = (await http.get(server.http("/"))).text
            (module,) = re.findall(r'import .* from "(.+)"', page)
            assert "class Centrifuge" in (await http.get(server.http(module))).text
        (socket,) = re.findall(r'new Centrifuge\("(.+)"\)', page)
        (room,) = re.findall(r'newSubscription\("(.+)"\)', page)
        async with client(server, socket) as one:
            await say(one, {"id": 1, "connect": {}})
            assert "connect" in await receive(one)
            await say(one, {"id": 2, "subscribe": {"channel": room}})
            *_, reply = await receive_until(one, lambda message: message.get("id") == 2)
            assert reply["subscribe"]["recoverable"] is True
            await say(one, {"id": 3, "publish": {"channel": room, "data": {"text": "Hello"}}})
            *_, pushed = await receive_until(one, lambda message: "push" in message)
            assert pushed["push"]["pub"]["data"] == {"text": "Hello"}


def test_tests_of_the_examples_pass() -> None:
    files = ["test_posts.py", "test_likes.py", "test_tickets.py", "test_async_tickets.py", "support_desk"]
    tests = [f"examples/{file}" for file in files]
    options = ["-p", "no:cacheprovider", "-p", "no:timeout", "-W", "error"]  # without our own plugins, as a user has it
    command = [sys.executable, "-m", "pytest", "-q", *options, *tests]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=CHECKOUT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "32 passed" in done.stdout


class TestDatabases:
    @pytest.fixture
    def server(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveServer]:
        monkeypatch.setattr(databases, "database", str(tmp_path / "chat.db"))
        yield from serve(databases.app)

    async def test_what_is_said_is_stored_and_numbered(self, server: LiveServer) -> None:
        async with client(server, "/ws/red") as one, client(server, "/ws/red") as two:
            for number, body in enumerate(("a", "b"), 1):
                await say(one, {"body": body})
                for tab in (one, two):
                    assert await receive(tab) == {"type": "message", "id": number, "body": body}
        assert await ask(server, "/rooms/red/messages") == ["a", "b"]
        assert await ask(server, "/rooms/blue/messages") == []

    async def test_requests_at_the_same_time_are_all_answered(self, server: LiveServer) -> None:
        async with httpx.AsyncClient(trust_env=False) as http:
            url = server.http("/rooms/red/messages")
            answers = await asyncio.gather(*(http.get(url) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}

    async def test_open_sockets_hold_no_session(self, server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
        in_use, most = 0, 0
        opened = sqlite3.connect

        class Counted(sqlite3.Connection):
            def close(self) -> None:
                nonlocal in_use
                in_use -= 1
                super().close()

        def connect(path: str, **options: Any) -> Any:
            nonlocal in_use, most
            in_use += 1
            most = max(most, in_use)
            return opened(path, factory=Counted, **options)

        monkeypatch.setattr(sqlite3, "connect", connect)
        async with (
            client(server, "/ws/red") as one,
            client(server, "/ws/red") as two,
            client(server, "/ws/red") as three,
        ):
            assert in_use == 0
            for speaker in (one, two, three):
                await say(speaker, {"body": "x"})
                for tab in (one, two, three):
                    assert (await receive(tab))["type"] == "message"
            assert (in_use, most) == (0, 1)

    async def test_session_of_a_dependency_lives_as_long_as_its_socket(self) -> None:
        """Not our doing: why the docs advise against it."""
        app = FastAPI()
        in_use = 0

        def session() -> Iterator[None]:
            nonlocal in_use
            in_use += 1
            yield
            in_use -= 1

        @app.websocket("/ws")
        async def endpoint(websocket: WebSocket, db: None = Depends(session)) -> None:
            await websocket.accept()
            async for text in websocket.iter_text():
                await websocket.send_text(text)

        with serving(app) as server:
            async with client(server, "/ws") as one, client(server, "/ws") as two:
                for tab in (one, two):
                    await tab.send("x")
                    await receive(tab)
                assert in_use == 2
            await eventually(lambda: in_use == 0)


class TestNotifications:
    @pytest.fixture
    def server(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveServer]:
        monkeypatch.setattr(notifications, "notifications", notifications.Notifications())
        monkeypatch.setattr(notifications, "mails", [])
        yield from serve(notifications.app)

    async def test_who_was_away_gets_it_later_and_a_mail_now(self, server: LiveServer) -> None:
        await ask(server, "/users/ann/notifications?text=One", "POST")
        assert notifications.mails == [("ann", "One")]
        async with client(server, "/ws/ann") as ann:
            assert (await receive(ann))["text"] == "One"
            await ask(server, "/users/ann/notifications?text=Two", "POST")
            assert (await receive(ann))["text"] == "Two"
        assert notifications.mails == [("ann", "One")]

    async def test_what_was_read_in_one_tab_is_read_in_all(self, server: LiveServer) -> None:
        await ask(server, "/users/ann/notifications?text=One", "POST")
        async with client(server, "/ws/ann") as one, client(server, "/ws/ann") as two:
            for tab in (one, two):
                assert (await receive(tab))["text"] == "One"
            await say(one, {"type": "read", "up_to": 1})
            for tab in (one, two):
                assert await receive(tab) == {"type": "read", "up_to": 1}
        async with client(server, "/ws/ann") as again:
            await ask(server, "/users/ann/notifications?text=Two", "POST")
            assert (await receive(again))["text"] == "Two"


async def test_an_app_enters_its_own_lifespan_on_a_server_that_runs_none() -> None:
    with serving(own_lifespan.application, lifespan="off") as server:
        async with client(server, "/ws") as one, client(server, "/ws") as two:
            await one.send("hello")
            assert [await receive(each) for each in (one, two)] == ["hello", "hello"]
        await eventually(lambda: not own_lifespan.manager.stats().connections)
