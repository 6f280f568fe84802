"""The AsyncAPI document of an endpoint."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, Field
from starlette.testclient import TestClient

from hubbub import Connection, ConnectionManager, Endpoint, History, InvalidArgument, MessageRouter, RoomOptions
from hubbub.demo.app import create_app


class Say(BaseModel):
    """A text to say."""

    text: str


class Said(Say):
    user_id: str


class Ticket(BaseModel):
    id: int


class Secret(BaseModel):
    plan: str


class Order(BaseModel):
    item: str
    count: int = 1
    note: str = Field("", exclude_if=lambda note: not note)
    price: Decimal = Decimal(0)


def an_app(**arguments: Any) -> tuple[FastAPI, Endpoint]:
    app = FastAPI()
    options = RoomOptions(history=History(50), replay=10, client_presence=True)
    manager = ConnectionManager(rooms={"chat:*": options})
    manager.install(app)
    return app, manager.endpoint("/live", auth=None, **arguments)


def document(app: FastAPI, path: str = "/live") -> dict[str, Any]:
    response = TestClient(app).get(f"{path}/asyncapi.json")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def test_a_method_has_a_request_a_reply_and_errors() -> None:
    app, live = an_app()

    @live.on("say", tags=["chat"], summary="Says it", deprecated=True, errors={403: "not in the room"})
    async def say(message: Say, connection: Connection) -> Said:
        """Says it to all.

        In their language.
        \f
        Not for readers.
        """
        raise NotImplementedError

    found = document(app)
    assert found["asyncapi"] == "3.0.0"
    assert found["channels"]["method.say"] == {
        "address": "say",
        "servers": [{"$ref": "#/servers/live"}],
        "messages": {
            "request": {"$ref": "#/components/messages/Say"},
            "reply": {"$ref": "#/components/messages/Said"},
            "error": {"$ref": "#/components/messages/hubbub.Error"},
        },
        "x-hubbub": {"kind": "method", "method": "say"},
    }
    at = "#/channels/method.say"
    assert found["operations"] == {
        "method.say": {
            "action": "receive",
            "channel": {"$ref": at},
            "summary": "Says it",
            "description": "Says it to all.\n\nIn their language.",
            "tags": [{"name": "chat"}],
            "messages": [{"$ref": f"{at}/messages/request"}],
            "reply": {
                "channel": {"$ref": at},
                "messages": [{"$ref": f"{at}/messages/reply"}, {"$ref": f"{at}/messages/error"}],
            },
            "x-hubbub": {
                "kind": "rpc",
                "concurrent": False,
                "message": {"required": True},
                "reply": True,
                "errors": {"403": "not in the room", "422": "the message does not validate"},
                "deprecated": True,
            },
        }
    }
    assert found["components"]["messages"]["Say"] == {
        "name": "Say",
        "title": "Say",
        "payload": {"$ref": "#/components/schemas/Say"},
    }
    assert found["components"]["schemas"]["Say"]["description"] == "A text to say."


def test_a_method_without_message_and_reply_says_so() -> None:
    app, live = an_app()

    @live.on("ping")
    async def ping() -> None: ...

    operation = document(app)["operations"]["method.ping"]
    assert operation["messages"] == []
    assert [each["$ref"].rpartition("/")[2] for each in operation["reply"]["messages"]] == ["error"]
    assert (operation["x-hubbub"]["message"], operation["x-hubbub"]["reply"]) == (None, False)


def test_a_room_has_its_parameters_its_publications_and_what_may_be_published() -> None:
    app, live = an_app()

    @live.room("chat:{room}", sends=Said | Ticket)
    async def may_read(room: Annotated[int, Field(description="Its number")], since: int = 0) -> bool:
        raise NotImplementedError

    @live.publish("chat:{name}")
    async def publish(message: Say, name: str) -> Said | None:
        raise NotImplementedError

    found = document(app)
    channel = found["channels"]["room.chat_room"]
    assert channel["address"] == "chat:{room}"
    assert channel["parameters"] == {"room": {"description": "Its number"}}
    assert list(channel["messages"]) == ["Said", "Ticket", "publish", "error", "subscribe"]
    assert channel["x-hubbub"] == {
        "kind": "room",
        "pattern": "chat:{room}",
        "parameters": {"room": {"description": "Its number", "type": "integer"}},
        "subscribe": {
            "data": True,
            "required": False,
            "token": False,
            "errors": {"103": "the function says no", "422": "the message does not validate"},
        },
        "deprecated": False,
        "options": {
            "history": 50,
            "replay": 10,
            "announce": False,
            "client_presence": True,
            "client_history": False,
        },
    }
    kinds = {key: (each["action"], each["x-hubbub"]["kind"]) for key, each in found["operations"].items()}
    assert kinds == {
        "room.chat_room.publications": ("send", "publications"),
        "room.chat_room.publish": ("receive", "publish"),
        "room.chat_room.subscribe": ("receive", "subscribe"),
    }


def test_routers_add_tags_deprecate_and_hide() -> None:
    app, live = an_app()
    router, hidden = MessageRouter(), MessageRouter()

    @router.on("create", tags=["writing"])
    async def create(message: Say) -> None: ...

    @hidden.on("spy")
    @hidden.connect
    async def spy(message: Secret) -> None: ...

    @hidden.room("spies", sends=Secret)
    async def spies() -> None: ...

    live.include_router(router, prefix="orders.", tags=["orders"], deprecated=True)
    live.include_router(hidden, include_in_schema=False)
    found = document(app)
    operation = found["operations"]["method.orders.create"]
    assert operation["tags"] == [{"name": "orders"}, {"name": "writing"}]
    assert operation["x-hubbub"]["deprecated"] is True
    for word in ("spy", "spies", "Secret"):
        assert word not in str(found)


def test_what_the_server_always_sends_is_required() -> None:
    app, live = an_app()

    @live.on("order")
    async def order(message: Order) -> Order:
        raise NotImplementedError

    schemas = document(app)["components"]["schemas"]
    assert schemas["Order-Input"]["required"] == ["item"]
    assert schemas["Order-Output"]["required"] == ["item", "count", "price"]
    assert schemas["Order-Output"]["properties"]["price"]["format"] == "decimal"


def test_docs_false_serves_nothing() -> None:
    app, _ = an_app(docs=False)
    assert TestClient(app).get("/live/asyncapi.json").status_code == 404


def test_a_dependency_guards_the_document() -> None:
    async def only_staff() -> None:
        raise HTTPException(401, "who are you?")

    async def everyone() -> None: ...

    app, _ = an_app(docs=only_staff)
    client = TestClient(app)
    assert client.get("/live/asyncapi.json").json() == {"detail": "who are you?"}
    app.dependency_overrides[only_staff] = everyone
    assert client.get("/live/asyncapi.json").status_code == 200


@pytest.mark.parametrize("docs", [None, "yes", Depends(an_app)])
def test_docs_that_are_neither_a_bool_nor_a_dependency_are_refused(docs: Any) -> None:
    with pytest.raises(InvalidArgument, match="docs"):
        an_app(docs=docs)


@pytest.mark.parametrize(
    "arguments",
    [
        {"tags": "chat"},
        {"tags": [1]},
        {"summary": 5},
        {"description": b""},
        {"deprecated": "yes"},
        {"errors": {"403": "no"}},
        {"errors": {103: "no"}},
        {"errors": {403: 5}},
        {"errors": [403]},
        {"include_in_schema": 1},
    ],
    ids=str,
)
def test_wrong_descriptions_are_refused(arguments: dict[str, Any]) -> None:
    router = MessageRouter()
    name = next(iter(arguments))
    for declare in (router.on, router.room, router.publish):
        with pytest.raises(InvalidArgument, match=name):
            declare("say", **arguments)


def test_the_server_is_where_the_client_found_the_document() -> None:
    inner, _ = an_app()
    app = FastAPI()
    app.mount("/v1", inner)
    proxied = TestClient(app, base_url="https://example.org", root_path="/proxied")
    server = proxied.get("/proxied/v1/live/asyncapi.json").json()["servers"]["live"]
    assert (server["host"], server["protocol"], server["pathname"]) == ("example.org", "wss", "/proxied/v1/live")


def test_a_proxy_may_take_its_prefix_away() -> None:
    app, _ = an_app()
    app.root_path = "/proxied"
    assert document(app)["servers"]["live"]["pathname"] == "/proxied/live"


def test_the_parameters_of_a_path_are_those_of_the_request() -> None:
    app, manager = FastAPI(), ConnectionManager()
    manager.install(app)
    manager.endpoint("/shops/{shop}/live", auth=None)
    assert document(app, "/shops/acme/live")["servers"]["shops_shop_live"]["pathname"] == "/shops/acme/live"


def test_the_demo_is_described() -> None:
    found = document(create_app())
    assert set(found["channels"]) >= {"room.chat_room", "room.typing_room", "method.watch", "connect"}
