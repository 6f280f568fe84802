"""Functions that answer clients: where their parameters come from, and which declarations are refused."""

from __future__ import annotations

import dataclasses
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from enum import Enum
from functools import partial, wraps
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

import pytest
from fastapi import BackgroundTasks, Body, Depends, File, Form, Response, UploadFile
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from typing_extensions import TypeAliasType, TypedDict

from hubbub import Connection, InvalidArgument
from hubbub.codec import Kind, Payload
from hubbub.endpoints.functions import MISSING, Function, authenticator
from hubbub.endpoints.refusals import MessageInvalid, ReplyInvalid, RoomUnknown
from hubbub.endpoints.results import Grant, Welcome, anything, grant, nothing, reply, welcome
from tests.unit.endpoints.support import a_caller, a_connection, run

if TYPE_CHECKING:
    from decimal import Decimal


class Say(BaseModel):
    room: str
    text: Annotated[str, StringConstraints(min_length=1)]


class Said(BaseModel):
    user_id: str
    text: str


class Wave(BaseModel):
    kind: Literal["wave"]


class Nod(BaseModel):
    kind: Literal["nod"]


class Move(TypedDict):
    x: int


@dataclasses.dataclass
class Point:
    x: int


class Colour(Enum):
    RED = "red"


def made(function: Callable[..., Any], **arguments: Any) -> Function[Any]:
    return Function(function, arguments.pop("returns", anything), declared="@on('say')", **arguments)


def refused(function: Callable[..., Any], **arguments: Any) -> str:
    with pytest.raises(InvalidArgument) as caught:
        made(function, **arguments)
    error = caught.value
    assert function.__name__ in error.argument
    assert "@on('say')" in error.argument
    assert error.accepted
    return error.problem


# Parameters


def test_the_parameter_without_a_marker_is_the_message() -> None:
    async def say(message: Say) -> Say:
        return message

    assert run(made(say)(a_caller(), {"room": "lobby", "text": "hi"})) == Say(room="lobby", text="hi")


@pytest.mark.parametrize(
    ("annotation", "sent", "got"),
    [
        (Say, {"room": "a", "text": "b"}, Say(room="a", text="b")),
        (Wave | Nod, {"kind": "nod"}, Nod(kind="nod")),
        (Annotated[Wave | Nod, Field(discriminator="kind")], {"kind": "wave"}, Wave(kind="wave")),
        (list[Say], [{"room": "a", "text": "b"}], [Say(room="a", text="b")]),
        (Move, {"x": "1"}, {"x": 1}),
        (Point, {"x": 1}, Point(1)),
        (str, "hi", "hi"),
        (Annotated[str, StringConstraints(strip_whitespace=True)], " hi ", "hi"),
        (Say | None, None, None),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (UUID, "12345678-1234-5678-1234-567812345678", UUID("12345678-1234-5678-1234-567812345678")),
        (Any, [1, {}], [1, {}]),
        (bytes, "hi", b"hi"),
    ],
    ids=str,
)
def test_a_message_is_of_any_type_that_pydantic_validates(annotation: Any, sent: Any, got: Any) -> None:
    async def say(message: Any) -> Any:
        return message

    say.__annotations__["message"] = annotation
    assert run(made(say)(a_caller(), sent)) == got


def test_a_message_without_an_annotation_is_taken_as_it_is() -> None:
    async def say(message):  # type: ignore[no-untyped-def]  # that is the point
        return message

    assert run(made(say)(a_caller(), {"a": [1]})) == {"a": [1]}


def test_an_encoded_message_is_read_as_json_or_given_as_it_is_to_a_function_of_bytes() -> None:
    async def say(message: Say) -> str:
        return message.text

    async def upload(data: bytes) -> bytes:
        return data

    assert run(made(say)(a_caller(), b'{"room":"a","text":"b"}', is_encoded=True)) == "b"
    assert run(made(upload)(a_caller(), b"\xff\x00", is_encoded=True)) == b"\xff\x00"
    with pytest.raises(MessageInvalid, match="not JSON"):
        run(made(say)(a_caller(), b"\xff\x00", is_encoded=True))


def test_a_message_that_is_not_sent_is_its_default_or_null() -> None:
    async def with_default(message: str = "nothing") -> str:
        return message

    async def optional(message: Say | None) -> Say | None:
        return message

    async def required(message: Say) -> Say:
        return message

    assert run(made(with_default)(a_caller())) == "nothing"
    assert run(made(with_default)(a_caller(), "hi")) == "hi"
    assert run(made(optional)(a_caller(), MISSING)) is None
    with pytest.raises(MessageInvalid):
        run(made(required)(a_caller()))


def test_a_message_that_no_parameter_takes_is_ignored() -> None:
    async def ping() -> str:
        return "pong"

    assert run(made(ping)(a_caller(), {"any": "thing"})) == "pong"


def test_a_connection_parameter_is_the_connection() -> None:
    async def say(message: str, connection: Connection, again: Annotated[Connection, "a note"]) -> Any:
        return connection, again

    connection = a_connection()
    first, second = run(made(say)(a_caller(connection=connection), "hi"))
    assert first is second is connection


def test_names_of_the_pattern_are_converted() -> None:
    async def may(room: int, key: UUID, colour: Colour, note: str, plain) -> Any:  # type: ignore[no-untyped-def]
        return room, key, colour, note, plain

    function = made(may, names=("room", "key", "colour", "note", "plain"))
    key = UUID("12345678-1234-5678-1234-56781234567a")
    texts = {"room": "7", "key": str(key), "colour": "red", "note": "07", "plain": "x"}
    assert run(function(a_caller(), names=texts)) == (7, key, Colour.RED, "07", "x")


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "07"),
        (int, "+7"),
        (int, " 7"),
        (int, "1_0"),
        (int, "7.0"),
        (int, "x"),
        (UUID, "12345678-1234-5678-1234-56781234567A"),
        (UUID, "12345678123456781234567812345678"),
        (bool, "yes"),
        (bool, "1"),
        (Colour, "blue"),
        (Annotated[str, StringConstraints(to_lower=True)], "Lobby"),
        (Annotated[str, StringConstraints(strip_whitespace=True)], "lobby "),
        (Annotated[int, Field(ge=1)], "0"),
    ],
)
def test_a_name_whose_value_is_written_differently_is_no_room(annotation: Any, text: str) -> None:
    async def may(room: Any) -> None: ...

    may.__annotations__["room"] = annotation
    with pytest.raises(RoomUnknown):
        run(made(may, names=("room",))(a_caller(), names={"room": text}))


def test_the_message_of_a_rule_is_the_parameter_that_is_no_name() -> None:
    async def may(message: Say, room: str) -> Any:
        return room, message.text

    function = made(may, names=("room",))
    assert run(function(a_caller(), {"room": "a", "text": "b"}, {"room": "lobby"})) == ("lobby", "b")


def test_a_message_that_does_not_validate_is_answered_with_locations_and_reasons() -> None:
    async def say(message: Say) -> None: ...

    with pytest.raises(MessageInvalid) as caught:
        run(made(say)(a_caller(), {"text": ""}))
    assert str(caught.value) == "room: Field required; text: String should have at least 1 character"


# Ways to be called


def test_a_function_that_is_not_async_runs_in_a_thread_with_the_context() -> None:
    tenant: ContextVar[str] = ContextVar("tenant")

    def say(message: str) -> Any:
        return threading.get_ident(), tenant.get(), message

    async def call() -> Any:
        tenant.set("acme")
        return await made(say)(a_caller(), "hi")

    thread, found, message = run(call())
    assert thread != threading.get_ident()
    assert (found, message) == ("acme", "hi")


def test_callables_of_every_kind_can_be_functions() -> None:
    class Counter:
        async def __call__(self, message: int) -> int:
            return message + 1

        async def method(self, message: int) -> int:
            return message + 2

    async def add(step: int, message: int) -> int:
        return message + step

    several: list[tuple[Callable[..., Any], int]] = [(Counter(), 2), (Counter().method, 3), (partial(add, 3), 4)]
    for function, result in several:
        assert run(Function(function, anything, declared="@on('add')")(a_caller(), 1)) == result


# Declarations


def test_two_messages_are_refused() -> None:
    async def say(message: Say, other: Say) -> None: ...

    assert "message, other" in refused(say)


def test_a_message_where_there_is_none_is_refused() -> None:
    async def bye(message: Say) -> None: ...

    assert "message" in refused(bye, takes_message=False)


def test_a_name_of_the_pattern_without_a_parameter_is_refused() -> None:
    async def may(rom: str) -> bool:
        return True

    assert "'room'" in refused(may, names=("room",))


@pytest.mark.parametrize("kind", ["*rest: str", "**rest: str", "message: str, /"])
def test_parameters_that_have_no_name_are_refused(kind: str) -> None:
    scope: dict[str, Any] = {}
    exec(f"async def say({kind}): ...", scope)
    assert "by name" in refused(scope["say"])


def test_types_that_no_message_can_have_are_refused() -> None:
    async def strange(message: threading.Lock) -> None: ...

    async def unknown(message: Decimal) -> None: ...

    async def unconvertible(room: threading.Thread) -> None: ...

    refused(strange)
    assert "Decimal" in refused(unknown)
    assert "'room'" in refused(unconvertible, names=("room",))


@pytest.mark.parametrize("marker", [Body(), Form(), File()])
def test_parts_of_a_request_body_are_refused(marker: Any) -> None:
    async def say(message: str) -> None: ...

    say.__annotations__["message"] = Annotated[str, marker]
    assert "message" in refused(say)


def test_what_belongs_to_a_response_is_refused() -> None:
    async def say(response: Response) -> None: ...

    async def later(message: str, tasks: BackgroundTasks) -> None: ...

    assert "Response" in refused(say)
    assert "BackgroundTasks" in refused(later)


def test_a_default_that_says_how_to_validate_is_refused() -> None:
    async def say(message: str = Field(min_length=1)) -> None: ...

    assert "default" in refused(say)


def test_functions_that_yield_are_refused() -> None:
    async def many(message: str) -> AsyncIterator[str]:
        yield message

    def more(message: str) -> Iterator[str]:
        yield message

    assert "yield" in refused(many)
    assert "yield" in refused(more)


def test_annotations_of_dependencies_need_not_exist_at_runtime() -> None:
    async def say(message: Say, price: Decimal = Depends(lambda: 5)) -> Said | None: ...

    function = made(say, returns=reply)
    assert function.returned == Said | None
    assert run(function(a_caller(), {"room": "a", "text": "b"})) is None


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        Function(5, anything, declared="@on('say')")  # type: ignore[arg-type]  # that is the point


# Replies


class Row:
    """An object of a database."""

    def __init__(self) -> None:
        self.user_id = "ann"
        self.text = "hi"
        self.secret = "s"


class Child(Said):
    secret: str = "s"


def answered(value: Any, annotation: Any) -> Any:
    async def say() -> Any:
        return value

    say.__annotations__["return"] = annotation
    return run(made(say, returns=reply)(a_caller()))


@pytest.mark.parametrize(
    ("value", "annotation", "kind", "data"),
    [
        (Said(user_id="ann", text="hi"), Said, Kind.JSON, b'{"user_id":"ann","text":"hi"}'),
        (Row(), Said, Kind.JSON, b'{"user_id":"ann","text":"hi"}'),
        ({"user_id": "ann", "text": "hi", "secret": "s"}, Said, Kind.JSON, b'{"user_id":"ann","text":"hi"}'),
        (Child(user_id="ann", text="hi"), Said, Kind.JSON, b'{"user_id":"ann","text":"hi"}'),
        ([Row()], list[Said], Kind.JSON, b'[{"user_id":"ann","text":"hi"}]'),
        ("5", int, Kind.JSON, b"5"),
        ("hi", str, Kind.TEXT, b"hi"),
        (b"\xff", bytes, Kind.BINARY, b"\xff"),
        ({"a": 1}, Any, Kind.JSON, b'{"a":1}'),
        (float("nan"), float, Kind.JSON, b"null"),
        (2**80, int, Kind.JSON, str(2**80).encode()),
    ],
)
def test_a_reply_is_validated_and_serialized_by_its_annotation(
    value: Any, annotation: Any, kind: Kind, data: bytes
) -> None:
    assert answered(value, annotation) == Payload(kind, data)


def test_aliases_and_strange_numbers_are_written_as_json() -> None:
    class Reading(BaseModel):
        model_config = ConfigDict(ser_json_inf_nan="constants")
        value: float = Field(serialization_alias="v")

    assert answered(Reading(value=float("inf")), Reading).data == b'{"v":null}'


@pytest.mark.parametrize("annotation", [None, Said | None, Any])
def test_none_is_no_message(annotation: Any) -> None:
    assert answered(None, annotation) is None


@pytest.mark.parametrize(
    ("value", "annotation"),
    [({"user_id": 5}, Said), (1, None), ("x", int), (None, Said), (object(), Any), ("\ud800", str)],
)
def test_a_reply_that_its_annotation_does_not_allow_is_a_fault_of_the_function(value: Any, annotation: Any) -> None:
    with pytest.raises(ReplyInvalid, match="say"):
        answered(value, annotation)


@pytest.mark.parametrize(
    "annotation", [Response, Iterator[str], AsyncIterator[str], Connection, threading.Thread, "Decimal"], ids=str
)
def test_a_return_annotation_that_is_no_message_is_refused(annotation: Any) -> None:
    async def say() -> Any: ...

    say.__annotations__["return"] = annotation
    refused(say, returns=reply)


@pytest.mark.parametrize(
    ("returns", "value", "result"),
    [
        (grant, True, Grant()),
        (grant, None, Grant()),
        (grant, False, None),
        (grant, Grant(data={"a": 1}), Grant(data={"a": 1})),
        (welcome, None, Welcome()),
        (welcome, Welcome(rooms=["a"]), Welcome(rooms=["a"])),
        (nothing, None, None),
    ],
)
def test_rules_and_hooks_may_return_what_their_kind_knows(returns: Any, value: Any, result: Any) -> None:
    async def rule():  # type: ignore[no-untyped-def]  # no annotation: anything is checked when it is returned
        return value

    assert run(made(rule, returns=returns)(a_caller())) == result


@pytest.mark.parametrize("returns", [grant, welcome, nothing])
@pytest.mark.parametrize("value", ["yes", 1, 0, {}, object])
def test_anything_else_is_a_fault_of_the_function(returns: Any, value: Any) -> None:
    async def rule():  # type: ignore[no-untyped-def]  # see above
        return value

    with pytest.raises(ReplyInvalid, match="rule"):
        run(made(rule, returns=returns)(a_caller()))


@pytest.mark.parametrize(
    ("returns", "annotation"),
    [(grant, str), (grant, Said | bool), (grant, Welcome), (welcome, bool), (welcome, Grant | None), (nothing, bool)],
)
def test_a_return_annotation_of_another_kind_is_refused(returns: Any, annotation: Any) -> None:
    async def rule() -> Any: ...

    rule.__annotations__["return"] = annotation
    assert "return annotation" in refused(rule, returns=returns)


@pytest.mark.parametrize(
    ("returns", "annotation"),
    [(grant, bool), (grant, bool | None), (grant, Grant | Literal[False]), (grant, None), (welcome, Welcome | None)],
)
def test_a_return_annotation_of_the_kind_is_accepted(returns: Any, annotation: Any) -> None:
    async def rule() -> Any: ...

    rule.__annotations__["return"] = annotation
    made(rule, returns=returns)


def test_a_dependency_may_be_left_to_fastapi_by_its_default() -> None:
    async def say(message: str, user: str = Depends(lambda: "ann")) -> str:
        return f"{user}: {message}"

    assert run(made(say)(a_caller(), "hi")) == "ann: hi"


def test_welcomes_and_grants_are_checked() -> None:
    assert Welcome(rooms=["a", "b", "a", 5]).names == ["a", "b", "5"]
    assert Grant(expires_at=5).expires_at_s == 5.0
    mutable = {"roles": ["owner"]}
    granted, welcomed = Grant(info=mutable), Welcome(info=mutable)
    mutable["roles"].clear()
    assert granted.info == welcomed.info == {"roles": ["owner"]}
    several: list[tuple[Any, dict[str, Any]]] = [
        (Welcome, {"rooms": "lobby"}),
        (Welcome, {"rooms": ["$everyone"]}),
        (Grant, {"expires_at": "soon"}),
        *((kind, {"info": info}) for kind in (Grant, Welcome) for info in ("Ann", {"a": object()}, {"a": "x" * 4096})),
    ]
    for kind, arguments in several:
        with pytest.raises(InvalidArgument):
            kind(**arguments)


# Decorated functions


def wrapped_async(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    async def inner(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    return inner


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


def plain_say(message: str) -> str:
    return message


async def async_say(message: str) -> str:
    return message


class Sayer:
    async def __call__(self, message: str) -> str:
        return message

    async def say(self, message: str) -> str:
        return message

    def say_plainly(self, message: str) -> str:
        return message


DECORATED: dict[str, Callable[..., Any]] = {
    "async around plain": wrapped_async(plain_say),
    "async around async": wrapped_async(async_say),
    "plain around plain": wrapped(plain_say),
    "plain around async": wrapped(async_say),
    "three layers": wrapped(wrapped_async(wrapped(plain_say))),
    "partial of async around plain": partial(wrapped_async(plain_say)),
    "async around partial": wrapped_async(partial(plain_say)),
    "object": Sayer(),
    "plain around method": wrapped(Sayer().say),
    "async around method": wrapped_async(Sayer().say_plainly),
    "partial of method": partial(Sayer().say),
}


@pytest.mark.parametrize("name", DECORATED)
def test_a_decorated_function_is_called_as_in_a_route(name: str) -> None:
    assert run(made(DECORATED[name])(a_caller(), "hi")) == "hi"


def test_a_function_around_a_generator_returns() -> None:
    def numbers(message: int) -> Iterator[int]:
        yield from range(message)

    @wraps(numbers)
    async def collected(message: int) -> list[int]:
        return list(numbers(message))

    assert run(made(collected)(a_caller(), 2)) == [0, 1]
    assert "yield" in refused(wrapped(numbers))


def test_a_method_of_a_class_is_refused() -> None:
    class Service:
        async def say(self, message: str) -> str:
            return message

        async def hear(self) -> None: ...

    assert "'self'" in refused(Service.say)
    assert "'self'" in refused(Service.hear)
    assert "'self'" in refused(wrapped(Service.hear))
    assert run(made(Service().say)(a_caller(), "hi")) == "hi"
    assert run(made(partial(Service.say, Service()))(a_caller(), "hi")) == "hi"


def test_a_method_of_a_class_is_refused_as_a_dependency() -> None:
    class Service:
        async def user(self) -> str:
            return "ann"

    async def say(user: str = Depends(Service.user)) -> None: ...

    assert "'self'" in refused(say)
    with pytest.raises(InvalidArgument, match="nothing fills 'self'"):
        authenticator(Service.user)


@pytest.mark.parametrize(
    "annotation",
    [UploadFile, UploadFile | None, list[UploadFile], Annotated[UploadFile, "a file"], dict[str, list[UploadFile]]],
)
def test_an_uploaded_file_is_no_message(annotation: Any) -> None:
    async def say(file: Any) -> None: ...

    say.__annotations__["file"] = annotation
    assert "uploaded file" in refused(say)


Nested = TypeAliasType("Nested", "list[Nested] | dict[str, Nested] | int")


def test_a_message_may_have_a_recursive_type() -> None:
    async def say(message: Nested) -> Any:
        return message

    assert run(made(say)(a_caller(), [1, {"a": [2]}])) == [1, {"a": [2]}]


def current_user() -> str:
    return "ann"


@pytest.mark.parametrize("auth", [Depends(current_user), Annotated[str, Depends(current_user)], list[str], "ann"])
def test_an_annotation_is_no_auth_dependency(auth: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"without Depends\(\.\.\.\)"):
        authenticator(auth)


# Path parameters of the endpoint


def test_a_path_parameter_of_the_endpoint_comes_from_its_path() -> None:
    async def of_tenant(tenant: str, lang: str) -> str:
        return f"{tenant} {lang}"

    async def say(tenant: str, message: str, other: str = Depends(of_tenant)) -> tuple[str, str, str]:
        return tenant, message, other

    path = frozenset(("tenant",))
    assert run(made(say, path=path)(a_caller(), "hi")) == ("acme", "hi", "acme de")

    async def hear(tenant: str, other: str = Depends(of_tenant)) -> tuple[str, str]:
        return tenant, other

    assert run(made(hear).bound(None, path)(a_caller(), "evil")) == ("acme", "acme de")
    assert run(made(hear).bound(of_tenant, path)(a_caller(user="ann"), "evil")) == ("acme", "ann")
    assert run(authenticator(of_tenant, path)(a_caller())) == "acme de"


def test_a_path_parameter_of_the_endpoint_is_no_name_of_a_pattern() -> None:
    async def may(tenant: str) -> bool:
        return True

    path = frozenset(("tenant",))
    assert "path parameter" in refused(may, names=["tenant"], path=path)
    with pytest.raises(InvalidArgument, match="path parameter of its endpoint"):
        made(may, names=["tenant"]).bound(None, path)


def test_one_room_of_a_welcome_is_written_as_a_list() -> None:
    with pytest.raises(InvalidArgument, match=r"one alone is rooms=\['agents'\]"):
        Welcome(rooms="agents")
