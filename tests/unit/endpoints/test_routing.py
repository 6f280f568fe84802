"""Declaring functions, and finding the one that answers."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import Depends
from pydantic import BaseModel

from hubbub import ConnectionManager, InvalidArgument
from hubbub.auth import Claims, JWTAuth
from hubbub.codec import Kind, Payload
from hubbub.endpoints.results import Grant, Welcome
from hubbub.endpoints.routing import MessageRouter
from tests.unit.endpoints.support import a_caller, run


class Item(BaseModel):
    id: int


async def yes() -> bool:
    return True


async def of_room(room: str) -> str:
    return room


def refused(call: Any, *arguments: Any, **options: Any) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as caught:
        call(*arguments, **options)
    return caught.value


def test_each_kind_of_function_is_found() -> None:
    router = MessageRouter()

    @router.connect
    async def hello() -> Welcome:
        return Welcome(rooms=["news"])

    @router.disconnect
    async def bye() -> None: ...

    @router.on("add", concurrent=True)
    async def add(item: Item) -> Item:
        return Item(id=item.id + 1)

    @router.room("chat:{room}", sends=Item)
    async def may(room: str) -> Grant:
        return Grant(data=room)

    @router.publish("chat:{room}")
    async def say(message: Item, room: str) -> Item | None:
        return message if room == "lobby" else None

    routes = router._routes()
    caller = a_caller()
    assert routes.connect is not None
    assert run(routes.connect(caller)).names == ["news"]
    assert routes.disconnect is not None
    assert run(routes.disconnect(caller)) is None
    assert routes.methods["add"].concurrent
    assert run(routes.methods["add"].function(caller, {"id": 1})) == Payload(Kind.JSON, b'{"id":2}')
    match = routes.rooms.match("chat:lobby")
    assert match is not None
    assert (match.rule.sends, match.names) == (Item, {"room": "lobby"})
    assert run(match.rule.function(caller, names=match.names)) == Grant(data="lobby")
    published = routes.publishing.match("chat:other")
    assert published is not None
    assert run(published.rule.function(caller, {"id": 1}, published.names)) is None


def test_declaring_leaves_the_function_as_it_is() -> None:
    assert MessageRouter().on("yes")(yes) is yes
    assert MessageRouter().room("a")(yes) is yes
    assert MessageRouter().connect(nothing) is nothing


async def nothing() -> None: ...


def test_of_several_rules_the_most_specific_applies_in_any_order() -> None:
    patterns = ["*", "chat:*", "chat:{room}", "chat:lobby", "{kind}:{id}"]
    for order in (patterns, [*reversed(patterns)]):
        router = MessageRouter()
        for pattern in order:
            functions: dict[str, Any] = {"chat:{room}": of_chat, "{kind}:{id}": of_kind}
            router.room(pattern)(functions.get(pattern, yes))
        rooms = router._routes().rooms
        assert len(rooms) == 5
        found = {name: rooms.match(name) for name in ("chat:lobby", "chat:a", "chat:a:b", "doc:5", "x")}
        assert [match and match.rule.pattern.text for match in found.values()] == [
            "chat:lobby", "chat:{room}", "chat:*", "{kind}:{id}", "*",
        ]  # fmt: skip


async def of_chat(room: str) -> bool:
    return True


async def of_kind(kind: str, id: str) -> bool:
    return True


def test_a_room_without_a_rule_has_none_nor_has_one_of_the_servers_own() -> None:
    router = MessageRouter()
    router.room("chat:*")(yes)
    assert router._routes().rooms.match("news") is None
    everything = MessageRouter()
    everything.room("*")(yes)
    rooms = everything._routes().rooms
    assert rooms.match("news") is not None
    for name in ("$everyone", "$user", "$user:ann"):
        assert rooms.match(name) is None


def test_rooms_that_clients_make_up_take_bounded_memory() -> None:
    router = MessageRouter()
    router.room("chat:{room}")(of_chat)
    rooms = router._routes().rooms
    for number in range(10_000):
        rooms.match(f"chat:{number}")
        rooms.match(f"no:{number}")
    assert rooms._found.cache_info().currsize <= 4096
    before = rooms._found.cache_info().misses
    assert rooms.match("chat:" + "x" * 65_000) is None
    assert rooms._found.cache_info().misses == before, "a name that no room can have is kept"


# Routers of routers


def test_a_router_is_included_with_a_prefix_for_its_methods() -> None:
    orders, items, live = MessageRouter(), MessageRouter(), MessageRouter()
    items.on("add")(yes)
    orders.on("create")(yes)
    orders.room("order:{room}")(of_chat)
    orders.publish("order:{room}")(of_room)
    orders.connect(nothing)
    orders.disconnect(nothing)
    orders.include_router(items, prefix="items.")
    live.include_router(orders, prefix="orders.")
    live.include_router(items)
    routes = live._routes()
    assert set(routes.methods) == {"orders.create", "orders.items.add", "add"}
    assert routes.methods["orders.items.add"].name == "orders.items.add"
    assert routes.rooms.match("order:5") is not None
    assert routes.publishing.match("order:5") is not None
    assert routes.connect is not None
    assert routes.disconnect is not None


async def current_user() -> str:
    raise AssertionError("the user is stored")


def test_functions_of_an_included_router_are_given_the_user_of_the_endpoint() -> None:
    async def who(user: Annotated[str, Depends(current_user)]) -> str:
        return user

    class Live(MessageRouter):
        _auth = staticmethod(current_user)

    router, live = MessageRouter(), Live()
    router.on("who")(who)
    live.on("own")(who)
    live.include_router(router)
    for method in live._routes().methods.values():
        assert run(method.function(a_caller(user="ann"))).data == b"ann"


# Declarations


def test_a_method_and_a_pattern_and_a_hook_are_declared_once() -> None:
    router = MessageRouter()
    router.on("say")(yes)
    router.room("chat:{room}")(of_chat)
    router.publish("chat:{room}")(of_room)
    router.connect(nothing)
    router.disconnect(nothing)

    async def again() -> None: ...

    async def with_id(id: str) -> None: ...

    for error in (
        refused(router.on("say"), again),
        refused(router.room("chat:{id}"), with_id),
        refused(router.publish("chat:{id}"), with_id),
        refused(router.connect, nothing),
    ):
        assert "()" in error.argument
        assert "of @" in error.problem, "names the other function"
    assert "nothing" in refused(router.disconnect, nothing).argument
    other = MessageRouter()
    other.on("say")(nothing)
    assert "nothing() of @on('say')" in refused(router.include_router, other).argument


def test_a_wrong_function_is_refused_where_it_is_declared() -> None:
    async def say(message: Item, other: Item) -> None: ...

    error = refused(MessageRouter().on("say"), say)
    assert "say() of @on('say')" in error.argument
    assert "message, other" in error.problem


def test_what_comes_after_the_start_is_refused() -> None:
    router = MessageRouter()
    router._routes()
    for call, arguments in [
        (router.on("say"), yes), (router.room("a"), yes), (router.publish("a"), yes), (router.connect, nothing),
        (router.disconnect, nothing), (router.include_router, MessageRouter()),
    ]:  # fmt: skip
        assert "started" in refused(call, arguments).problem


def test_what_comes_after_the_router_is_included_is_refused() -> None:
    router = MessageRouter()
    MessageRouter().include_router(router)
    assert "included" in refused(router.on("say"), yes).problem


@pytest.mark.parametrize("method", ["", None, 5, b"say", "x" * 256, "\ud800"], ids=repr)
def test_wrong_methods_are_refused(method: Any) -> None:
    refused(MessageRouter().on, method)


@pytest.mark.parametrize("pattern", ["", None, "$everyone", "$*", "{a}{a}", "chat:{room-id}", "chat:{room", "a}", "{}"])
@pytest.mark.parametrize("kind", ["room", "publish"])
def test_wrong_patterns_are_refused(kind: str, pattern: Any) -> None:
    refused(getattr(MessageRouter(), kind), pattern)


def test_a_rule_with_a_token_has_a_jwt_auth_to_verify_it_with() -> None:
    manager, ways = ConnectionManager(), JWTAuth("x" * 32, algorithms=["HS256"])
    nobody = manager.endpoint("/nobody", auth=None)
    assert "auth=None" in refused(nobody.room("a", token=True), yes).problem
    assert "current_user" in refused(manager.endpoint("/other", auth=current_user).room("a", token=True), yes).problem
    router = MessageRouter()
    router.room("a", token=True)(yes)
    error = refused(nobody.include_router, router)
    assert "yes() of @room('a')" in error.argument
    assert "JWTAuth(...)" in error.accepted
    live = manager.endpoint("/live", auth=ways)
    live.include_router(router)
    nobody.room("b", token=ways)(yes)
    for endpoint, name in ((live, "a"), (nobody, "b")):
        match = endpoint._routes().rooms.match(name)
        assert match is not None
        assert match.rule.tokens is ways


def test_a_function_takes_the_claims_of_a_token_that_there_is() -> None:
    async def may_read(claims: Claims) -> bool:
        return bool(claims["role"] == "reader")

    router = MessageRouter()
    assert "token=True" in refused(router.room("a"), may_read).accepted
    assert "token=True" in refused(router.on("say"), may_read).accepted
    router.room("a", token=True)(may_read)
    match = router._routes().rooms.match("a")
    assert match is not None
    assert run(match.rule.function(a_caller().with_claims(Claims({"role": "reader"})))) == Grant()


def test_wrong_options_are_refused() -> None:
    router = MessageRouter()
    refused(router.room, "a", token="secret")
    refused(router.on, "say", concurrent=1)
    refused(router.room, "a", sends=object())
    refused(router.include_router, router)
    refused(router.include_router, 5)
    refused(router.include_router, MessageRouter(), prefix=5)
    refused(router.connect, None)


@pytest.mark.parametrize("hook", ["connect", "disconnect"])
def test_a_hook_with_parentheses_says_to_write_none(hook: str) -> None:
    with pytest.raises(InvalidArgument, match=f"write it without parentheses: `@live.{hook}`"):
        getattr(MessageRouter(), hook)()


@pytest.mark.parametrize("taken", ["method", "room", "publish", "connect", "disconnect"])
def test_a_router_that_can_not_be_included_adds_nothing(taken: str) -> None:
    async def anything() -> None: ...

    def declare(router: MessageRouter, *kinds: str) -> None:
        for kind in kinds:
            declared: Any = {
                "method": router.on("taken"),
                "room": router.room("taken"),
                "publish": router.publish("taken"),
                "connect": router.connect,
                "disconnect": router.disconnect,
            }[kind]
            declared(anything)

    one, two = MessageRouter(), MessageRouter()
    declare(one, taken)
    two.on("free")(anything)
    two.room("free")(anything)
    declare(two, "method", "room", "publish", "connect", "disconnect")
    with pytest.raises(InvalidArgument, match=r"taken by|already"):
        one.include_router(two)
    two.on("later")(anything)  # it may still be mended
    routes = one._routes()
    assert set(routes.methods) <= {"taken"}
    patterns = [rule.pattern for rule in routes.rooms.all] + [rule.pattern for rule in routes.publishing.all]
    assert {pattern.text for pattern in patterns} <= {"taken"}
    found = (routes.methods, routes.rooms.all, routes.publishing.all, routes.connect, routes.disconnect)
    assert sum(map(bool, found)) == 1
