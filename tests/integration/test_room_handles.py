"""`Endpoint.room_of`: the name of a room, and the calls that concern it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from enum import Enum
from typing import Annotated, Any
from uuid import UUID

import pytest
from fastapi import Depends, FastAPI, Query
from fastapi.testclient import TestClient
from pydantic import BaseModel, PositiveInt

from examples import room_handles
from hubbub import (
    Connection,
    ConnectionManager,
    History,
    InvalidArgument,
    InvalidName,
    MessageRouter,
    NotRunning,
    Room,
    RoomOptions,
    WrongThread,
)
from hubbub.testing import EndpointClient, Publication, RequestRefused, Unsubscribed, endpoint_client, record


class Kind(Enum):
    BUG = "bug"
    WISH = "wish"


class Said(BaseModel):
    text: str


class Hides(ConnectionManager):
    """A manager with calls of its own, as hand-written managers have them. Handles do not use them."""

    async def broadcast(self, text: str) -> None:  # type: ignore[override]
        raise AssertionError

    async def presence(self) -> None:  # type: ignore[override]
        raise AssertionError


def current_user(name: Annotated[str, Query()] = "ann") -> str:
    return name


app = FastAPI()
manager = Hides(rooms={"chat:*": RoomOptions(history=History(10, ttl_s=60))})
manager.install(app)
live = manager.endpoint("/live", auth=current_user)
router = MessageRouter()


@live.room("chat:{room}", sends=Said)
async def may_read(room: str) -> None: ...


def ticket_id(id: PositiveInt) -> int:
    return id


@router.room("ticket:{id}")
async def may_read_ticket(number: Annotated[int, Depends(ticket_id)]) -> None: ...


@live.room("{kind}:{id}:{day}")
async def may_read_kind(kind: Kind, id: UUID, day: date) -> None: ...


@live.room("score:{id}")
async def may_read_score(id: float | int | None) -> None: ...


@live.room("doc:{path:path}")
async def may_read_doc(path: str) -> None: ...


@live.room("news")
async def may_read_news() -> None: ...


@live.room("ticker:*")
async def may_read_ticker() -> None: ...


live.include_router(router)


def chat(room: str) -> Room[Said]:
    return live.room_of("chat:{room}", room=room)


@live.on("say")
async def say(message: Said, connection: Connection) -> None:
    await chat("lobby").broadcast(message, exclude=connection)


@live.on("say in")
async def say_in(room: str) -> None:
    await chat(room).broadcast(Said(text="hello"))


@live.on("from thread")
def from_thread(message: str) -> list[Any]:
    lobby = chat("lobby").from_thread
    lobby.broadcast(Said(text=message))
    texts = [recorded.message["text"] for recorded in lobby.history(limit=1)]
    return [texts, [member.user_id for member in lobby.presence()], lobby.count_users(), lobby.unsubscribe("ann")]


@live.on("blocks")
async def blocks() -> str:
    with pytest.raises(WrongThread, match=r"`await room.presence\(\.\.\.\)` instead"):
        chat("lobby").from_thread.presence()
    return "refused"


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.fixture
def ann(client: TestClient) -> Iterator[EndpointClient]:
    with endpoint_client(client, "/live?name=ann") as ann:
        ann.subscribe("chat:lobby")
        yield ann


ID = UUID(int=1)


@pytest.mark.parametrize(
    ("pattern", "names", "name"),
    [
        ("chat:{room}", {"room": "lobby"}, "chat:lobby"),
        ("ticket:{id}", {"id": 7}, "ticket:7"),
        ("ticket:{id}", {"id": "7"}, "ticket:7"),
        ("{kind}:{id}:{day}", {"kind": Kind.BUG, "id": ID, "day": date(2026, 1, 2)}, f"bug:{ID}:2026-01-02"),
        ("{kind}:{id}:{day}", {"kind": "bug", "id": str(ID), "day": "2026-01-02"}, f"bug:{ID}:2026-01-02"),
        ("score:{id}", {"id": 1.5}, "score:1.5"),
        ("doc:{path:path}", {"path": "a:b"}, "doc:a:b"),
        ("news", {}, "news"),
    ],
)
def test_a_name_is_made_of_the_values_that_the_rule_takes(
    client: TestClient, pattern: str, names: dict[str, Any], name: str
) -> None:
    room = live.room_of(pattern, **names)
    assert room.name == str(room) == name
    assert repr(room) == f"<Room {name!r}>"
    with endpoint_client(client, "/live") as ann:
        assert ann.subscribe(name).room == name, "the rule takes what the name says"


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("chat:{room}", {"room": ""}),
        ("chat:{room}", {"room": "a:b"}),
        ("chat:{room}", {"room": 7}),
        ("chat:{room}", {"room": None}),
        ("chat:{room}", {"room": "x" * 255}),
        ("ticket:{id}", {"id": "07"}),
        ("ticket:{id}", {"id": "seven"}),
        ("ticket:{id}", {"id": 7.0}),
        ("ticket:{id}", {"id": True}),
        ("ticket:{id}", {"id": 0}),
        ("ticket:{id}", {"id": object()}),
        ("{kind}:{id}:{day}", {"kind": "other", "id": ID, "day": date(2026, 1, 2)}),
        ("{kind}:{id}:{day}", {"kind": Kind.BUG, "id": 1, "day": date(2026, 1, 2)}),
        ("score:{id}", {"id": None}),
    ],
)
def test_values_without_a_room_are_refused_as_names_of_clients_are(pattern: str, names: dict[str, Any]) -> None:
    with pytest.raises(InvalidName):
        live.room_of(pattern, **names)


@pytest.mark.parametrize(
    ("pattern", "names", "reason"),
    [
        (
            "chat:{name}",
            {"name": "lobby"},
            r"room_of\(\): there is no @room\('chat:\{name\}'\); accepted: .*'chat:\{room\}'",
        ),
        ("chat:lobby", {}, "there is no @room"),
        ("chat:{room}", {}, "got no names; accepted: room="),
        ("chat:{room}", {"id": "lobby"}, "got id; accepted: room="),
        ("chat:{room}", {"room": "lobby", "id": "lobby"}, "got room, id; accepted: room="),
        ("news", {"id": 1}, "got id; accepted: no names"),
        ("ticker:*", {}, r"'\*', which binds no name"),
    ],
)
def test_wrong_patterns_and_names_are_refused(pattern: str, names: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidArgument, match=reason) as refused:
        live.room_of(pattern, **names)
    assert not isinstance(refused.value, InvalidName)


def test_a_pattern_that_is_declared_later_is_found_then() -> None:
    later = ConnectionManager().endpoint("/live", auth=None)
    with pytest.raises(InvalidArgument, match="accepted: the patterns none yet"):
        later.room_of("chat:{room}", room="lobby")
    later.room("chat:{room}")(may_read)
    assert later.room_of("chat:{room}", room="lobby").name == "chat:lobby"


def test_each_call_is_the_managers_for_the_room(client: TestClient, ann: EndpointClient) -> None:
    assert client.portal is not None
    call, lobby = client.portal.call, chat("lobby")
    with endpoint_client(client, "/live?name=bob") as bob, record(manager) as pushed:
        bob.subscribe(lobby.name)
        first = call(lobby.broadcast, Said(text="one"))
        call(lambda: lobby.broadcast_nowait(Said(text="two"), exclude_users="bob", key="k"))
        ann.rpc("say", Said(text="three"))
        assert [each.data["text"] for each in ann.unread() if isinstance(each, Publication)] == ["one", "two"]
        assert [each.message["text"] for each in call(lobby.history)] == ["one", "two", "three"]
        assert [each.message["text"] for each in call(lobby.history, first, 1)] == ["two"]
        assert sorted(str(member.user_id) for member in call(lobby.presence)) == ["ann", "bob"]
        assert call(lobby.count_users) == 2
        assert {each.user_id for each in lobby.connections()} == {"ann", "bob"}
        assert [each.user_id for each in lobby.connections(user="bob")] == ["bob"]
        assert call(lobby.unsubscribe, "bob")
        assert [type(each) for each in (bob.receive(), bob.receive(), bob.receive())][-1] is Unsubscribed
        assert [(push.room, push.key, push.exclude_users) for push in pushed][:2] == [
            ("chat:lobby", None, frozenset()),
            ("chat:lobby", "k", frozenset({"bob"})),
        ]


def test_from_a_thread_the_calls_block(ann: EndpointClient) -> None:
    assert ann.rpc("from thread", "hello") == [["hello"], ["ann"], 1, True]
    assert ann.rpc("blocks") == "refused"


def test_a_room_that_a_client_makes_up_is_its_own_error(ann: EndpointClient) -> None:
    with pytest.raises(RequestRefused, match="has no room with room='a:b'") as refused:
        ann.rpc("say in", "a:b")
    assert refused.value.code == 107


def test_a_handle_checks_what_it_sends(client: TestClient) -> None:
    room: Room[Any] = live.room_of("chat:{room}", room="lobby")
    with pytest.raises(InvalidArgument, match=r"Said, which may_read\(\) of @room"):
        room.from_thread.broadcast({"txt": "hello"})


def test_the_example() -> None:
    with TestClient(room_handles.app) as client, endpoint_client(client, "/live") as reader:
        reader.subscribe("ticket:7")
        assert client.post("/tickets/7/notes", json={"text": "hello"}).status_code == 200
        event = reader.receive()
        assert isinstance(event, Publication)
        assert (event.room, event.data) == ("ticket:7", {"text": "hello"})
        assert client.get("/tickets/7/notes").json() == [{"text": "hello"}]
        assert client.post("/tickets/0/notes", json={"text": "hello"}).status_code == 422


def test_a_handle_of_a_manager_that_does_not_run_says_so() -> None:
    other = ConnectionManager()
    live = other.endpoint("/live", auth=None)
    live.room("news")(may_read_news)
    other.install(FastAPI())
    with pytest.raises(NotRunning):
        live.room_of("news").from_thread.broadcast("hello")
