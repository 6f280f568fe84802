"""`ConnectionManager(check_sends=)`: what is published into a room is what its rule declares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, WebSocket
from fastapi.testclient import TestClient
from pydantic import BaseModel

from hubbub import ConnectionManager, Endpoint, History, InvalidArgument, RoomOptions
from hubbub.testing import EndpointClient, Publication, RequestRefused, endpoint_client, record
from tests.integration.support import serving


class Said(BaseModel):
    text: str
    volume: int = 1


class Row:
    """An object of a database."""

    text = "from the database"
    volume = 2


class App:
    """An app that publishes into a room in every way there is.

    Attributes:
        answers: What is returned under ``@live.publish("chat:any")``.
    """

    def __init__(self, **options: Any) -> None:
        self.debug = options.pop("debug", False)
        rooms = {"chat:*": RoomOptions(history=History(10, ttl_s=60), replay=10, announce=True)}
        self.manager = ConnectionManager(rooms=rooms, **options)
        self.app = FastAPI(debug=self.debug)
        self.manager.install(self.app)
        self.live: Endpoint = self.manager.endpoint("/live", auth=None)
        self.answers: list[Any] = []
        self._declare(self.live)

    def _declare(self, live: Endpoint) -> None:
        manager = self.manager

        @live.room("chat:{room}", sends=Said)
        async def may_read(room: str) -> None: ...

        @live.publish("chat:{room}")
        async def publish(message: str, room: str) -> Said | None:
            return Row() if message == "row" else Said(text=message) if message else None  # type: ignore[return-value]

        @live.publish("chat:any")
        async def publish_any(message: str):  # type: ignore[no-untyped-def]  # no annotation: the point of it
            return self.answers.pop()

        @live.publish("chat:text")
        async def publish_text(message: str) -> str:
            return message

        @live.on("broadcast")
        async def broadcast(message: Any) -> None:
            await manager.broadcast(message, room="chat:lobby")

        @self.app.websocket("/raw")
        async def raw(websocket: WebSocket) -> None:
            async with manager.connect(websocket, "ann", room="chat:lobby") as connection:
                await connection.send_bytes(b"\xff")
                await connection.send({"not": "said"})
                await manager.send_personal(1, websocket)
                await manager.broadcast("to everyone")
                await manager.send_to_user("ann", ["to a user"])
                await manager.broadcast({"no": "rule"}, room="other")
                await connection.join("other")
                await connection.wait_gone()

        @self.app.post("/from-thread")
        def from_thread(message: dict[str, Any]) -> None:
            manager.from_thread.broadcast(message, room="chat:lobby")


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def client(app: App) -> Iterator[TestClient]:
    with TestClient(app.app) as client:
        yield client


@pytest.fixture
def ann(client: TestClient) -> Iterator[EndpointClient]:
    with endpoint_client(client, "/live") as ann:
        yield ann


def test_every_call_that_publishes_into_a_room_is_checked(app: App, client: TestClient) -> None:
    portal, manager = client.portal, app.manager
    assert portal is not None
    with record(manager) as pushed:
        for call in (
            lambda: portal.call(lambda: manager.broadcast({"text": 1}, room="chat:lobby")),
            lambda: portal.call(manager.broadcast_to_room, "chat:lobby", {"text": 1}),
            lambda: portal.call(lambda: manager.broadcast_nowait({"text": 1}, room="chat:lobby")),
            lambda: manager.from_thread.broadcast({"text": 1}, room="chat:lobby"),
            lambda: manager.from_thread.broadcast_to_room("chat:lobby", {"text": 1}),
            lambda: client.post("/from-thread", json={"text": 1}),
        ):
            with pytest.raises(InvalidArgument, match=r"room 'chat:lobby' .*Said, .*@room\('chat:\{room\}'\)"):
                call()
        assert not pushed, "what is wrong is not published"
        portal.call(lambda: manager.broadcast(Said(text="hello"), room="chat:lobby"))
        portal.call(manager.broadcast_to_room, "chat:lobby", Said(text="hello"))
        portal.call(lambda: manager.broadcast_nowait({"text": "hello", "volume": 1}, room="chat:lobby"))
        client.post("/from-thread", json={"text": "hello", "volume": 1})
        assert pushed.to_room("chat:lobby") == [{"text": "hello", "volume": 1}] * 4


def test_what_is_no_publication_into_a_room_is_not_checked(app: App, client: TestClient) -> None:
    with client.websocket_connect("/raw") as raw:
        assert raw.receive_json()["type"] == "user_joined"
        received = [raw.receive() for _ in range(5)]
        assert [each.get("bytes") or each["text"] for each in received] == [
            b"\xff",
            '{"not":"said"}',
            "1",
            "to everyone",
            '["to a user"]',
        ]


def test_a_function_that_broadcasts_something_else_fails(ann: EndpointClient, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RequestRefused) as refused:
        ann.rpc("broadcast", {"text": 1})
    assert refused.value.code == 100
    assert "the room 'chat:lobby'" in caplog.text
    ann.rpc("broadcast", Said(text="hello"))


def test_what_a_client_publishes_is_checked_as_it_is_sent(
    app: App, ann: EndpointClient, caplog: pytest.LogCaptureFixture
) -> None:
    for room in ("chat:lobby", "chat:any", "chat:text"):
        ann.subscribe(room)
        ann.receive()  # its own join
    ann.publish("chat:lobby", "hello")
    ann.publish("chat:lobby", "row")
    ann.publish("chat:lobby", "")
    app.answers = [None, {"text": "a dict", "volume": 1}, Said(text="a model")]
    for _ in range(3):
        ann.publish("chat:any", "")
    for room, answer in (("chat:any", {"text": "a dict"}), ("chat:any", Row()), ("chat:text", "a text")):
        app.answers = [answer]
        with pytest.raises(RequestRefused) as refused:
            ann.publish(room, "a text")
        assert refused.value.code == 100
    assert caplog.text.count("declares with sends=") == 2, "the third can't be sent at all"
    assert [each.data for each in ann.unread() if isinstance(each, Publication)] == [
        {"text": "hello", "volume": 1},
        {"text": "from the database", "volume": 2},
        {"text": "a model", "volume": 1},
        {"text": "a dict", "volume": 1},
    ]


@pytest.mark.parametrize(
    ("options", "environment", "checks"),
    [
        ({}, {"PYTEST_VERSION": "9.0.0"}, True),
        ({"check_sends": False}, {"PYTEST_VERSION": "9.0.0"}, False),
        ({}, {}, False),
        ({"check_sends": True}, {}, True),
        ({"debug": True}, {}, True),
        ({"debug": True, "check_sends": False}, {}, False),
        ({}, {"FASTAPI_ENV": "development"}, True),
        ({}, {"FASTAPI_ENV": "production"}, False),
    ],
    ids=str,
)
def test_it_is_on_in_development_unless_the_app_says_otherwise(
    options: dict[str, Any], environment: dict[str, str], checks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PYTEST_VERSION", "FASTAPI_ENV"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    app = App(**options)
    unchanged = app.manager._hubbub.addressed
    with TestClient(app.app):
        assert (app.manager._hubbub.addressed == unchanged) != checks, "it costs nothing where it is off"
        if checks:
            with pytest.raises(InvalidArgument, match="check_sends=False"):
                app.manager.from_thread.broadcast({"text": 1}, room="chat:lobby")
        else:
            app.manager.from_thread.broadcast({"text": 1}, room="chat:lobby")
    assert app.manager._hubbub.addressed == unchanged


@pytest.mark.parametrize("reload", [True, False])
def test_it_is_on_under_a_server_that_reloads(reload: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTEST_VERSION", "FASTAPI_ENV"):
        monkeypatch.delenv(name, raising=False)
    with serving(App().app, reload=reload) as server:
        answer = httpx.post(server.http("/from-thread"), json={"text": 1})
    assert answer.status_code == (500 if reload else 200)


def test_the_switch_is_checked() -> None:
    with pytest.raises(InvalidArgument, match="check_sends: got 1; accepted: True, False, or None"):
        ConnectionManager(check_sends=1)  # type: ignore[arg-type]
