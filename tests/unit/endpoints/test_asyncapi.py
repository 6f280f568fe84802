"""The AsyncAPI document of an endpoint."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from math import inf, nan
from typing import Annotated, Any, cast

import httpx
import pytest
from fastapi import Depends, FastAPI, Header, HTTPException, WebSocket, WebSocketException
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, create_model
from starlette.applications import Starlette
from starlette.testclient import TestClient

from hubbub import Connection, ConnectionManager, Endpoint, History, InvalidArgument, MessageRouter, RoomOptions
from hubbub.auth import JWTAuth
from hubbub.demo.app import create_app
from hubbub.endpoints import asyncapi
from hubbub.endpoints.documentation import Site, written
from hubbub.endpoints.typescript import typescript
from tests.unit.endpoints import everything


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


EXAMPLES: Any = [{"at": datetime(2020, 1, 1, tzinfo=UTC)}, {"numbers": [inf]}]


class Number(float, Enum):
    ONE = 1.0
    INFINITE = inf


class Unusual(BaseModel):
    """Has values that JSON can't represent, and values that look like references."""

    model_config = ConfigDict(json_schema_extra={"examples": EXAMPLES})
    at: datetime
    number: Number = Number.INFINITE
    numbers: list[float] = [inf]
    by_name: dict[str, float] = {"a": nan}
    some: float = Field(examples=[inf, 1.5])
    price: Decimal = Field(examples=[Decimal("1.5")])
    entry: dict[str, str] = Field({"$ref": "foo"}, examples=[{"$ref": "#/components/schemas/Unusual-Input"}])
    outside: Annotated[dict[str, Any], WithJsonSchema({"$ref": "https://example.org/schema.json"})]
    reference: int = Field(1, alias="$ref")


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


@pytest.mark.parametrize("path", ["/live/", "/"])
def test_a_path_keeps_the_slash_at_its_end(path: str) -> None:
    app, manager = FastAPI(), ConnectionManager()
    manager.install(app)
    manager.endpoint(path, auth=None)
    (server,) = document(app, path.rstrip("/"))["servers"].values()
    assert server["pathname"] == path


def test_the_parameters_of_a_path_are_those_of_the_request() -> None:
    app, manager = FastAPI(), ConnectionManager()
    manager.install(app)
    manager.endpoint("/shops/{shop}/live", auth=None)
    assert document(app, "/shops/acme/live")["servers"]["shops_shop_live"]["pathname"] == "/shops/acme/live"


def test_the_demo_is_described() -> None:
    found = document(create_app())
    assert set(found["channels"]) >= {"room.chat_room", "room.typing_room", "method.watch", "connect"}


# The whole


def test_the_document_of_an_app_that_uses_everything_is_the_golden_one() -> None:
    """After a change on purpose, write it anew: ``python -m tests.unit.endpoints.everything``."""
    assert everything.document() == everything.GOLDEN.read_text("utf-8")


def test_nothing_of_a_hidden_function_is_in_the_document() -> None:
    assert "idden" not in everything.document()


# Types


class Tree(BaseModel):
    branches: list[Tree]


class Counted(Tree):
    """Differs in both directions, and so does each model that has one."""

    count: Annotated[int, Field(validation_alias="in", serialization_alias="out")]
    more: list[Counted] = []


class Crate(BaseModel):
    contents: list[Counted | Tree]


def test_a_model_has_two_schemas_only_if_they_differ() -> None:
    app, live = an_app()

    @live.on("tree")
    async def tree(tree: Tree) -> Tree:
        raise NotImplementedError

    @live.on("crate")
    async def crate(crate: Crate) -> Crate:
        raise NotImplementedError

    schemas = document(app)["components"]["schemas"].keys() - {"hubbub.Error"}
    assert schemas == {"Tree", "Counted-Input", "Counted-Output", "Crate-Input", "Crate-Output"}


class Odd(BaseModel):
    call: Callable[[], int]


def test_a_type_without_a_schema_names_its_function_and_a_way_out() -> None:
    app, live = an_app()

    @live.on("fine")
    async def fine(message: Say) -> None: ...

    @live.on("odd")
    async def odd(message: Odd) -> None: ...

    with pytest.raises(InvalidArgument) as caught:
        document(app)
    assert caught.value.argument.endswith("odd() of @on('odd')")
    assert "Odd" in caught.value.problem
    assert "CallableSchema" in caught.value.problem
    assert "WithJsonSchema" in caught.value.accepted
    assert "include_in_schema=False" in caught.value.accepted


async def say_yes() -> None: ...


def test_two_models_of_one_name_stay_apart() -> None:
    app, live = an_app()
    other = create_model("Say", __module__="elsewhere", loudly=(bool, ...))

    @live.on("say")
    async def say() -> Say:
        raise NotImplementedError

    live.room("said", sends=other)(say_yes)

    found = document(app)["components"]["schemas"]
    assert {name for name in found if name.endswith("Say")} == {"elsewhere__Say", f"{__name__.replace('.', '__')}__Say"}


# Raw sockets


def test_raw_sockets_are_described_in_the_documents_of_all_endpoints() -> None:
    app, manager = FastAPI(), ConnectionManager()
    manager.install(app)
    for path in ("/live", "/raw"):
        manager.endpoint(path, auth=None)
    assert set(document(app)["servers"]) == {"live"}
    manager.describe("/ws/{room}", receives=Say, sends=Said | Ticket, summary="A socket", tags=["old"], deprecated=True)
    found = document(app)
    channel = found["channels"]["raw.ws_room"]
    assert (channel["address"], channel["servers"]) == ("/ws/{room}", [{"$ref": "#/servers/raw"}])
    assert list(channel["messages"]) == ["Say", "Said", "Ticket"]
    assert (channel["summary"], channel["tags"]) == ("A socket", [{"name": "old"}])
    assert channel["x-hubbub"] == {
        "kind": "raw",
        "pattern": "/ws/{room}",
        "parameters": {"room": {"type": "string"}},
        "deprecated": True,
    }
    assert found["operations"]["raw.ws_room.receive"]["action"] == "receive"
    assert len(found["operations"]["raw.ws_room.send"]["messages"]) == 2
    assert set(document(app, "/raw")["servers"]) == {"raw", "raw_sockets"}


@pytest.mark.parametrize(
    ("path", "arguments", "name"),
    [
        ("ws", {}, "path"),
        (5, {}, "path"),
        ("/ws/{room:sort}", {}, "path"),
        ("/taken", {}, "described already"),
        ("/ws", {"sends": "Said"}, "sends"),
        ("/ws", {"receives": object()}, "receives"),
        ("/ws", {"tags": 5}, "tags"),
    ],
)
def test_wrong_descriptions_of_raw_sockets_are_refused(path: Any, arguments: Any, name: str) -> None:
    manager = ConnectionManager()
    manager.describe("/taken")
    with pytest.raises(InvalidArgument, match=name):
        manager.describe(path, **arguments)


# Security


def test_a_jwt_auth_is_a_scheme_for_each_place_of_its_token() -> None:
    app, manager = FastAPI(), ConnectionManager()
    manager.install(app)
    manager.endpoint("/live", auth=JWTAuth(b"0" * 32, algorithms=["HS256"], cookie="session", query="token"))
    found = document(app)
    assert found["components"]["securitySchemes"] == {
        "JWTAuth": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
        "JWTAuth-cookie": {"type": "httpApiKey", "in": "cookie", "name": "session"},
        "JWTAuth-query": {"type": "httpApiKey", "in": "query", "name": "token"},
    }
    names = [each["$ref"].rpartition("/")[2] for each in found["servers"]["live"]["security"]]
    assert names == list(found["components"]["securitySchemes"])


def test_what_is_no_security_scheme_is_not_made_one() -> None:
    async def by_name(name: str) -> str:
        return name

    app, manager = FastAPI(), ConnectionManager()
    manager.install(app)
    manager.endpoint("/live", auth=by_name)
    found = document(app)
    assert "securitySchemes" not in found["components"]
    assert "security" not in found["servers"]["live"]


# Serving


def test_a_guard_may_be_a_dependency_that_was_written_for_sockets() -> None:
    async def of_sockets(websocket: WebSocket, x_key: Annotated[str, Header()]) -> None:
        if x_key != "secret":
            raise WebSocketException(1008, "a wrong key")

    app, _ = an_app(docs=of_sockets)
    client = TestClient(app)
    assert client.get("/live/asyncapi.json").status_code == 422
    assert client.get("/live/asyncapi.json", headers={"x-key": "a"}).json() == {"detail": "a wrong key"}
    assert client.get("/live/asyncapi.json", headers={"x-key": "secret"}).status_code == 200


def test_a_jwt_auth_that_guards_reads_no_token_from_the_query() -> None:
    app, _ = an_app(docs=JWTAuth(b"0" * 32, algorithms=["HS256"], query="token"))
    response = TestClient(app).get("/live/asyncapi.json?token=a.b.c")
    assert (response.status_code, response.json()) == (401, {"detail": "unauthorized: no token"})


def test_an_app_of_starlette_has_a_document() -> None:
    app, manager = Starlette(), ConnectionManager()
    manager.install(app)
    manager.endpoint("/", auth=None)
    response = TestClient(app).get("/asyncapi.json")
    assert response.json()["info"] == {"title": "ASGI app", "version": "0.1.0"}
    assert response.json()["servers"]["root"]["pathname"] == "/"


def test_no_function_can_be_declared_once_the_endpoint_is_documented() -> None:
    app, live = an_app()
    document(app)
    with pytest.raises(InvalidArgument, match="documented"):
        live.on("late")(document)


def test_the_event_loop_runs_while_the_document_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    app, _ = an_app()
    app.get("/alive")(lambda: "yes")
    gate, made = threading.Event(), 0
    describe = asyncapi.described

    def described(*args: Any, **kwargs: Any) -> Any:
        nonlocal made
        made += 1
        assert gate.wait(30)
        return describe(*args, **kwargs)

    monkeypatch.setattr("hubbub.endpoints.documentation.described", described)

    async def visit() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            many = [asyncio.create_task(client.get("/live/asyncapi.json")) for _ in range(60)]  # more than threads
            try:
                assert (await client.get("/alive")).json() == "yes"
            finally:
                gate.set()
            assert {response.status_code for response in await asyncio.gather(*many)} == {200}

    asyncio.run(visit())
    assert made == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example",
        "wss://",
        "a.example",
        "wss://a.example:port",
        "wss://a.example?b",
        "wss://me@a.example",
        "ws://[a",
    ],
)
def test_a_server_is_the_url_of_an_app(url: str) -> None:
    with pytest.raises(InvalidArgument, match="server"):
        Site.of(url)


# The link from OpenAPI


def openapi(app: FastAPI, url: str = "/openapi.json") -> dict[str, Any]:
    found: dict[str, Any] = TestClient(app).get(url).json()
    return found


def test_openapi_links_the_document() -> None:
    app, _ = an_app()
    link = {"description": "The WebSocket API, as AsyncAPI: /live/asyncapi.json", "url": "live/asyncapi.json"}
    assert openapi(app)["externalDocs"] == link


def test_openapi_links_the_first_of_several_documents_and_names_all() -> None:
    app = FastAPI(openapi_url="/api/v1/openapi.json")
    assert app.openapi()["info"]
    manager = ConnectionManager()
    manager.endpoint("/a", auth=None)
    manager.endpoint("/hidden", auth=None, docs=False)
    manager.endpoint("/guarded", auth=None, docs=say_yes)
    manager.endpoint("/of/{tenant}", auth=None)
    manager.install(app)
    manager.endpoint("/b", auth=None)
    assert openapi(app, "/api/v1/openapi.json")["externalDocs"] == {
        "description": "The WebSocket API, as AsyncAPI: /a/asyncapi.json, /b/asyncapi.json",
        "url": "../../a/asyncapi.json",
    }


def test_openapi_links_below_the_root_path_of_the_app() -> None:
    app, _ = an_app()
    app.root_path = "/proxied"
    assert openapi(app)["externalDocs"]["url"] == "/proxied/live/asyncapi.json"


def test_openapi_keeps_the_link_of_the_app() -> None:
    app, _ = an_app()
    app.openapi_external_docs = {"url": "https://example.org/"}
    assert openapi(app)["externalDocs"] == {"url": "https://example.org/"}


def test_a_later_openapi_of_the_app_is_linked_when_it_starts() -> None:
    app, _ = an_app()
    build = app.openapi
    app.openapi = lambda: {**FastAPI.openapi(app), "x-own": True}  # type: ignore[method-assign]  # as FastAPI's docs do
    with TestClient(app) as client:
        found = client.get("/openapi.json").json()
    assert (found["x-own"], found["externalDocs"]) == (True, build()["externalDocs"])


def test_a_file_and_an_answer_have_the_same_values_for_those_that_json_does_not_have() -> None:
    app, live = an_app()

    @live.on("odd")
    async def odd(message: Unusual) -> Unusual:
        raise NotImplementedError

    found = document(app)
    file = json.loads(written(live_document(app)))
    assert file["components"] == found["components"]
    for side in ("Input", "Output"):
        schema = found["components"]["schemas"][f"Unusual-{side}"]
        properties = schema["properties"]
        assert schema["examples"] == [{"at": "2020-01-01T00:00:00Z"}]
        assert [name for name, each in properties.items() if "default" in each] == ["entry", "$ref"]
        assert properties["some"]["examples"] == [1.5]
        assert properties["price"]["examples"] == ["1.5"]
        assert properties["entry"]["default"] == {"$ref": "foo"}
        assert properties["entry"]["examples"] == [{"$ref": "#/components/schemas/Unusual-Input"}]
        assert properties["outside"]["allOf"] == [{"$ref": "https://example.org/schema.json"}]
    assert found["components"]["schemas"]["Number"]["enum"] == [1.0]
    assert "outside: unknown;" in typescript(found)


def live_document(app: FastAPI) -> dict[str, Any]:
    """The document as the command has it."""
    (middleware,) = app.user_middleware
    (manager,) = cast("list[ConnectionManager]", middleware.kwargs["managers"])
    (documentation,) = manager._hubbub.documentation
    return documentation.document(Site("ws", "testserver"))


@pytest.mark.parametrize("part", [{"examples": [object()]}, {"description": "\ud83d"}, {"x-part": {"\ud83d": 1}}])
def test_a_model_with_a_part_that_json_can_not_represent_is_named(part: dict[str, Any]) -> None:
    app, live = an_app()
    model = create_model("Wrong", __config__=ConfigDict(json_schema_extra=part), a=(int, ...))

    async def wrong(message: Any) -> None: ...

    wrong.__annotations__["message"] = model
    live.on("wrong")(wrong)
    with pytest.raises(InvalidArgument, match=r"^the model Wrong: its JSON schema can't be encoded"):
        live_document(app)


def test_a_docstring_that_can_not_be_encoded_is_refused_with_the_name_of_the_function() -> None:
    _, live = an_app()

    async def half() -> None: ...

    half.__doc__ = "\ud83d"
    with pytest.raises(InvalidArgument, match=r"half\(\): its docstring is"):
        live.on("half")(half)


def test_a_model_named_like_the_output_of_another_is_told_apart() -> None:
    app, live = an_app()
    order, named = create_model("Order", count=(int, 1)), create_model("Order-Output", other=(int, ...))

    async def both(message: Any) -> Any: ...

    both.__annotations__ |= {"message": order | named, "return": order | named}
    live.on("both")(both)
    assert document(app)["components"]["schemas"].keys() == {
        "Order-Input",
        "Order-Output",
        "Order_Output",
        "hubbub.Error",
    }


def test_rooms_whose_names_have_one_type_have_no_exceptions_for_each_other() -> None:
    app, live = an_app()

    async def rule(name: str) -> None: ...
    async def number_rule(name: int) -> None: ...

    for pattern in ("a:{name}", "a:{name:path}", "b:{name:path}"):
        live.room(pattern)(rule)
    live.room("b:{name}")(number_rule)
    text = typescript(document(app))
    found = dict(re.findall(r'  "(.*)": \{\n.*\n    except: (.*);', text))
    assert found == {
        "a:{name}": "never",
        "a:{name:path}": "never",
        "b:{name:path}": "`b:${number}`",
        "b:{name}": "never",
    }


def test_a_public_document_shows_no_raw_sockets_once_another_one_is_not_public() -> None:
    app = FastAPI()
    manager = ConnectionManager()
    manager.install(app)
    public = manager.endpoint("/public", auth=None)
    manager.describe("/ws/any", receives=Say)
    assert "/ws/any" in str(document(app, "/public"))

    async def guard() -> None: ...

    guarded = manager.endpoint("/guarded", auth=None, docs=guard)
    manager.describe("/ws/guarded", receives=Secret, endpoint=guarded)
    manager.describe("/ws/public", sends=Ticket, endpoint=public)

    def sockets(path: str) -> list[str]:
        found = document(app, path)
        return [each["x-hubbub"]["pattern"] for each in found["channels"].values() if each["x-hubbub"]["kind"] == "raw"]

    assert sockets("/public") == ["/ws/public"]
    assert "Secret" not in str(document(app, "/public"))
    assert sockets("/guarded") == ["/ws/any", "/ws/guarded"]


@pytest.mark.parametrize("endpoint", ["/live", ConnectionManager().endpoint("/live", auth=None)])
def test_the_endpoint_of_a_raw_socket_is_one_of_its_manager(endpoint: Any) -> None:
    manager = ConnectionManager()
    manager.endpoint("/live", auth=None)
    with pytest.raises(InvalidArgument, match="an endpoint of this manager, or None"):
        manager.describe("/ws", endpoint=endpoint)


def test_the_address_of_an_endpoint_is_percent_encoded() -> None:
    app = FastAPI()
    manager = ConnectionManager()
    manager.install(app)
    manager.endpoint("/live/{shop}", auth=None)
    found = document(app, "/live/a%7Bx%7D%3Fz%20%C3%BC")
    assert found["servers"]["live_shop"]["pathname"] == "/live/a%7Bx%7D%3Fz%20%C3%BC"


def test_the_document_is_not_kept_by_caches() -> None:
    app, _ = an_app()
    response = TestClient(app).get("/live/asyncapi.json")
    assert response.headers["cache-control"] == "no-cache, private"
