"""`hubbub.testing.record`: what was pushed, without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from fastapi import BackgroundTasks, FastAPI, WebSocket
from pydantic import BaseModel
from starlette.testclient import TestClient

from hubbub import ConnectionManager, InvalidArgument, NotRunning, RoomOptions
from hubbub.testing import Push, Pushed, record

pytestmark = pytest.mark.anyio

manager = ConnectionManager(rooms={"kept": RoomOptions(history=10)})
SOMEBODY = "abcdefghijklmnopqrst_-"

app = FastAPI()
manager.install(app)


@dataclass
class Like:
    post: int


class Comment(BaseModel):
    text: str


@app.post("/async")
async def from_a_coroutine() -> bool:
    return await manager.send_to_user(42, {"type": "like"})


@app.post("/thread")
def from_a_thread() -> bool:
    return manager.from_thread.send_to_user("42", {"type": "like"})


@app.post("/background")
async def in_the_background(tasks: BackgroundTasks) -> None:
    tasks.add_task(manager.broadcast, "done")


@app.post("/many")
async def many() -> None:
    await manager.broadcast(Like(1), room="lobby", key="1", exclude=SOMEBODY, exclude_users=[7, "ann"])
    await manager.broadcast_to_room("lobby", Comment(text="hm"))
    await manager.broadcast(b"\x00", room="kept")
    await manager.broadcast("all")


@app.delete("/users/{user_id}")
async def kick(user_id: int) -> bool:
    return await manager.disconnect_user(user_id, 4001, "bye")


@app.websocket("/ws")
async def chat(websocket: WebSocket) -> None:
    async with manager.connect(websocket, 42, room="lobby") as connection:
        async for text in connection.iter_text():
            await manager.broadcast(text, room="lobby")


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize("path", ["/async", "/thread"])
def test_message_to_a_user_is_recorded_from_wherever_it_is_sent(client: TestClient, path: str) -> None:
    with record(manager) as pushed:
        assert client.post(path).json() is False
    assert pushed.to_user(42) == pushed.to_user("42") == [{"type": "like"}]
    assert pushed.to_user(43) == []
    assert list(pushed) == [Push("$user:42", {"type": "like"})]


def test_messages_are_recorded_as_clients_would_see_them(client: TestClient) -> None:
    with record(manager) as pushed:
        client.post("/many")
    assert pushed.to_room("lobby") == [{"post": 1}, {"text": "hm"}]
    assert pushed.to_room("kept") == [b"\x00"]
    assert pushed.to_everyone() == ["all"]
    assert len(pushed) == 4
    assert Push("lobby", {"post": 1}, frozenset({SOMEBODY}), "1", frozenset({"7", "ann"})) in pushed
    assert "lobby: {'post': 1}" in repr(pushed)


def test_what_runs_after_the_response_is_recorded(client: TestClient) -> None:
    with record(manager) as pushed:
        client.post("/background")
        assert pushed.to_everyone() == ["done"]
        pushed.clear()
        assert not pushed


def test_recording_may_begin_before_the_app_and_end_after_it() -> None:
    with record(manager) as pushed:
        with TestClient(app) as client:
            client.post("/async")
        with TestClient(app) as client:
            client.post("/async")
    assert len(pushed) == 2


def test_nothing_is_recorded_before_and_after(client: TestClient) -> None:
    broker = manager._hubbub.broker
    client.post("/async")
    with record(manager) as pushed:
        pass
    client.post("/async")
    assert not pushed
    assert manager._hubbub.broker is broker


def test_connected_clients_get_their_messages_too(client: TestClient) -> None:
    with record(manager) as pushed, client.websocket_connect("/ws") as socket:
        assert client.post("/thread").json() is True
        assert socket.receive_json() == {"type": "like"}
        socket.send_text("hello")
        assert socket.receive_text() == "hello"
        assert pushed.to_user(42) == [{"type": "like"}]
        assert pushed.to_room("lobby") == ["hello"]


def test_wait_waits_for_what_a_handler_does(client: TestClient) -> None:
    with record(manager) as pushed, client.websocket_connect("/ws") as socket:
        socket.send_text("one")
        socket.send_text("two")
        pushed.wait(2)
        assert pushed.to_room("lobby") == ["one", "two"]
        with pytest.raises(AssertionError, match="3 messages were not pushed"):
            pushed.wait(3, timeout_s=0.01)


def test_disconnected_users_are_recorded(client: TestClient) -> None:
    with record(manager) as pushed:
        assert client.delete("/users/42").json() is False
    assert pushed.disconnected(42) == [(4001, "bye")]
    assert pushed.disconnected(43) == []
    assert not pushed


@pytest.mark.parametrize("user", [42, "42"], ids=repr)
def test_users_can_be_said_to_be_online(client: TestClient, user: int | str) -> None:
    with record(manager, online=[user]):
        assert client.post("/async").json() is True
        assert client.delete("/users/42").json() is True
        assert manager.from_thread.is_online(42)
        assert not manager.from_thread.is_online(43)
    assert client.post("/async").json() is False
    assert not manager.from_thread.is_online(42)


def test_history_is_kept_as_ever(client: TestClient) -> None:
    with record(manager):
        client.post("/many")
        assert [each.message for each in manager.from_thread.history("kept")] == [b"\x00"]


def test_recordings_nest(client: TestClient) -> None:
    with record(manager) as outer:
        client.post("/async")
        with record(manager) as inner:
            client.post("/thread")
    assert (len(outer), len(inner)) == (2, 1)


def test_manager_that_does_not_run_says_so() -> None:
    with record(manager) as pushed, pytest.raises(NotRunning, match=r"with TestClient\(app\)"):
        TestClient(app).post("/async")
    assert not pushed


async def test_app_code_is_tested_without_an_app() -> None:
    alone = ConnectionManager()
    async with alone.lifespan():
        with record(alone) as pushed:
            await asyncio.gather(*(alone.send_to_user(UUID(int=1), {"n": n}) for n in range(3)))
    assert pushed.to_user(UUID(int=1)) == [{"n": 0}, {"n": 1}, {"n": 2}]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [((None,), "manager"), ((manager, "ann"), "online"), ((manager, [None]), "user_id")],
    ids=["manager", "online", "user"],
)
def test_wrong_arguments_are_named(arguments: tuple[Any, ...], named: str) -> None:
    with pytest.raises(InvalidArgument) as caught, record(arguments[0], online=arguments[1] if arguments[1:] else ()):
        pass
    assert caught.value.argument == named


def test_pushed_asks_for_names_that_can_be() -> None:
    with pytest.raises(InvalidArgument):
        Pushed().to_room("")
    with pytest.raises(InvalidArgument):
        Pushed().to_user("")
