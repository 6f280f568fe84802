"""What ``sends=`` accepts, type by type, and which rule speaks for a room."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from itertools import permutations
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

import pytest
from pydantic import (
    AfterValidator,
    Base64Bytes,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    JsonValue,
    PydanticUserError,
    RootModel,
    computed_field,
    field_serializer,
    field_validator,
)
from typing_extensions import TypeAliasType, TypedDict

from hubbub import InvalidArgument
from hubbub.codec import encode
from hubbub.endpoints.routing import MessageRouter
from hubbub.endpoints.sends import Sends

T = TypeVar("T")


class Said(BaseModel):
    user_id: str
    text: str = ""


class Shouted(Said):
    volume: int = 11


class SameFields(BaseModel):
    user_id: str
    text: str = ""


class Closed(BaseModel):
    kind: Literal["closed"] = "closed"
    at: datetime


class Camel(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    user_id: str = Field(alias="userId")


class OneWay(BaseModel):
    """Its JSON does not validate as the model."""

    model_config = ConfigDict(extra="forbid")

    when: datetime = Field(serialization_alias="at")

    @field_serializer("when")
    def as_number(self, when: datetime) -> float:
        return when.timestamp()

    @computed_field
    def year(self) -> int:
        return self.when.year


class Always(BaseModel):
    model_config = ConfigDict(revalidate_instances="always")

    id: int


class FromAttributes(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    text: str


class Fussy(BaseModel):
    text: str

    @field_validator("text")
    @classmethod
    def never(cls, text: str) -> str:
        raise KeyError(text)


class Page(BaseModel, Generic[T]):
    items: list[T]


class Ids(RootModel[list[int]]):
    pass


@dataclass
class Point:
    x: int
    y: float = 0.0


class Typed(TypedDict):
    user: Said
    at: datetime


class Tagged(BaseModel):
    id: int
    tags: set[int | str]


class Envelope(BaseModel):
    said: Said


class Deferred(BaseModel):
    model_config = ConfigDict(defer_build=True)

    tags: frozenset[int | str]


class Color(Enum):
    RED = "red"


Event = TypeAliasType("Event", Said | Closed)
Named = TypeAliasType("Named", Literal["opened"] | Closed)
Tree = TypeAliasType("Tree", int | list["Tree"])  # type: ignore[misc]  # mypy reads no recursive alias in this form
Branches = TypeAliasType("Branches", str | dict[str, "Branches"])  # type: ignore[misc]  # mypy reads no recursive alias in this form
NOW = datetime(2026, 1, 1, microsecond=1, tzinfo=UTC)


def numbers() -> Iterator[int]:
    yield from (1, 2)


def problem_of(sends: Any, message: object) -> InvalidArgument | None:
    router = MessageRouter()

    @router.room("room", sends=sends)
    async def may_read() -> None: ...

    try:
        Sends([router]).check("room", message, encode(message))
    except InvalidArgument as error:
        return error
    return None


RIGHT: list[tuple[Any, Any]] = [
    (Said, Said(user_id="ann")),
    (Said, Shouted(user_id="ann")),
    (Said, {"user_id": "ann", "text": "hello"}),
    (Said | Closed, Closed(at=NOW)),
    (Said | Closed, {"kind": "closed", "at": NOW}),
    (Annotated[Said | Closed, Field(description="an event")], {"user_id": "ann", "text": ""}),
    (Event, Closed(at=NOW)),
    (Closed, {"kind": "closed", "at": "2026-01-01T00:00:00.123+00:00"}),
    (Camel, Camel(userId="ann")),
    (Camel, {"userId": "ann"}),
    (OneWay, OneWay(when=NOW)),
    (list[OneWay], [OneWay(when=NOW)]),
    (Always, Always(id=1)),
    (Fussy, Fussy.model_construct(text="made")),
    (Page[int], Page[int](items=[1])),
    (Page[Said], Page(items=[Said(user_id="ann")])),
    (Page[Said], {"items": [{"user_id": "ann", "text": ""}]}),
    (Ids, Ids([1, 2])),
    (Ids, [1, 2]),
    (Point, Point(1)),
    (Point, {"x": 1, "y": 2}),
    (Typed, {"user": Said(user_id="ann"), "at": NOW}),
    (Typed, {"user": {"user_id": "ann", "text": ""}, "at": NOW.isoformat()}),
    (list[int], [1, 2]),
    (list[int], (1, 2)),
    (list[int], []),
    (list[Said], [Shouted(user_id="ann")]),
    (dict[str, int], {"a": 1}),
    (Color, Color.RED),
    (Color, "red"),
    (Decimal, Decimal("1.50")),
    (UUID, UUID(int=1)),
    (float, 1),
    (bool, True),
    (str, "hello"),
    (Annotated[str, Field(max_length=5)], "hello"),
    (bytes, b"\xff"),
    (bytes, bytearray(b"\xff")),
    (bytes, memoryview(b"\xff")),
    (str | None, None),
    (Any, 5),
    (dict[str, Any], {"a": Said(user_id="ann")}),
    (Named, "opened"),
    (Named, Closed(at=NOW)),
    (JsonValue, {"a": [1, None, {"b": 1.5}]}),
    (JsonValue, ["a", [True]]),
    (JsonValue, Said(user_id="ann")),
    (JsonValue, [Said(user_id="ann"), NOW]),
    (dict[str, JsonValue], {"a": Said(user_id="ann")}),
    (Said | JsonValue, {"user_id": ["ann"]}),
    (JsonValue | None, [None]),
    (Tree, 1),
    (Tree, [1, [2, []]]),
    (Tree | Said, [[1]]),
    (Tree | Branches, {"a": {"b": "c"}}),
    (list[Tree], [1, [2]]),
    (Json, {"a": [1]}),
    (Json[list[int]], [1]),
    (Json[Said], {"user_id": "ann", "text": ""}),
    (Json[Said], Said(user_id="ann")),
    (Json[Said] | None, Said(user_id="ann")),
    (list[Json[int]], [1, 2]),
    (Base64Bytes, "aGVsbG8="),
    (list[bytes], ["text"]),
    (Annotated[bytes, AfterValidator(bytes.strip)], b"\xff "),
    (list[float], [1, 1.5]),
    (set[float], [1, 1.5]),
    (datetime, "2026-01-01T10:00:00"),
    (datetime, "2026-01-01T10:00:00.5-05:00"),
    (date, "2026-01-01"),
    (time, "10:00:00"),
    (timedelta, timedelta(days=1, seconds=1.5)),
    (timedelta, "P1DT0.5S"),
    (timedelta, "P1W"),
    (UUID, "00000000-0000-0000-0000-00000000000A"),
    (Envelope, {"said": Said(user_id="ann")}),
    (list[Said], (Said(user_id="ann"),)),
]


@pytest.mark.parametrize(("sends", "message"), RIGHT)
def test_a_message_of_the_type_is_right(sends: Any, message: object) -> None:
    assert problem_of(sends, message) is None


WRONG: list[tuple[Any, Any, str]] = [
    (Said, {"user_id": "ann"}, "lacks 'text'"),
    (Said, {"user_id": "ann", "text": "", "more": 1}, "has 'more' besides"),
    (Said, {"user_id": 1, "text": ""}, "user_id: Input should be a valid string"),
    (Said, SameFields(user_id="ann"), ""),
    (Said, Point(1), ""),
    (Said, Said(user_id="ann").model_dump_json(), "Input should be an object"),
    (Said, b"{}", ""),
    (Said, None, "Input should be an object"),
    (Shouted, Said(user_id="ann"), ""),
    (Said | Closed, {"kind": "closed"}, ""),
    (Camel, {"user_id": "ann"}, "lacks 'userId'"),
    (FromAttributes, SameFields(user_id="ann", text="hello"), ""),
    (Page[int], Page[str](items=["a"]), ""),
    (Page[int], {"items": ["1"]}, "items.0: is a string, not a number"),
    (Point, {"x": 1}, "lacks 'y'"),
    (Typed, {"user": Said(user_id="ann"), "at": NOW, "more": 1}, "has 'more' besides"),
    (list[int], [1, "2"], "1: is a string, not a number"),
    (list[int], 1, "Input should be a valid array"),
    (dict[str, int], {"a": 1.5}, "a: Input should be a valid integer"),
    (int, True, "is true or false, not a number"),
    (str, 1, "Input should be a valid string"),
    (str, {"text": "hello"}, "Input should be a valid string"),
    (Annotated[str, Field(max_length=4)], "hello", "String should have at most 4 characters"),
    (bytes, ["a"], "Input should be a valid bytes"),
    (Fussy, {"text": "hello"}, ""),
    (JsonValue, b"{}", ""),
    (Tree, [1, ["a"]], "valid"),
    (Json[list[int]], "[1]", "Input should be a valid array"),
    (Json[list[int]], ["1"], "0: is a string, not a number"),
    (bytes, "not base64!", "is a string, not bytes"),
    (bytes, "aGVsbG8=", "is a string, not bytes"),
    (list[Said], [SameFields(user_id="ann")], "0: is an instance of another model"),
    (list[Said], (SameFields(user_id="ann"),), "0: is an instance of another model"),
    (dict[str, Said], {"a": SameFields(user_id="ann")}, "a: is an instance of another model"),
    (Envelope, {"said": SameFields(user_id="ann")}, "said: is an instance of another model"),
    (list[Said | Closed], [SameFields(user_id="ann")], "is an instance of another model"),
    (list[FromAttributes], [SameFields(user_id="ann")], "0: is an instance of another model"),
    (list[dict[str, str]], [SameFields(user_id="ann")], "0: is an instance of another model"),
    (int, 1.0, "is 1.0, not an integer"),
    (list[int], [1, 1.0], "1: is 1.0, not an integer"),
    (Tagged, {"id": 1.0, "tags": [1, "a"]}, "id: is 1.0, not an integer"),
    (Tagged, {"id": 1, "tags": [1, "a", 1.5]}, "tags"),
    (tuple[Decimal, float], [1, "2"], "0: is a number, not a string"),
    (datetime, "2026-01-01", "is '2026-01-01', not written like '2026-01-01T00:00:00'"),
    (datetime, "2026-01-01 10:00:00+00:00", "not written like"),
    (date, "2026-01-01T00:00:00", "not written like '2026-01-01'"),
    (time, "10:00", "not written like '10:00:00'"),
    (timedelta, "1 day, 0:00:00", "not written like 'P1D'"),
    (UUID, "0" * 32, "not written like"),
]


@pytest.mark.parametrize(("sends", "message", "reason"), WRONG)
def test_something_else_is_wrong(sends: Any, message: object, reason: str) -> None:
    error = problem_of(sends, message)
    assert error is not None
    assert reason in error.problem
    assert ("(" in error.problem.partition("'room'")[2]) == bool(reason), "a reason is given where there is one"


@pytest.mark.parametrize("sends", [set[int | str], frozenset[int | str], Json[set[int | str]]])
def test_the_parts_of_a_set_may_have_any_order(sends: Any) -> None:
    for parts in permutations([1, "b", "zz", 70, "q"]):  # some of them differ from the set's, at any PYTHONHASHSEED
        assert problem_of(sends, list(parts)) is None
    tags = ["b", 1, "zz", 7]
    assert problem_of(list[Tagged], [{"id": 1, "tags": tags}, {"id": 2, "tags": tags[::-1]}]) is None
    assert problem_of(Deferred, {"tags": tags}) is None
    assert problem_of(Deferred, {"tags": tags[::-1]}) is None
    assert problem_of(sends, {1, "b", "zz", 70, "q"}) is None


def test_what_a_validator_raises_is_the_cause_of_the_error() -> None:
    for sends in (Fussy, Fussy | Closed):
        error = problem_of(sends, {"text": "hello"})
        assert error is not None
        assert isinstance(error.__cause__, KeyError)


def test_a_type_that_pydantic_can_not_build_is_an_error_of_its_own() -> None:
    unknown = TypeAliasType("unknown", list["Unknown"])  # type: ignore[name-defined]  # noqa: F821  # the point of it
    with pytest.raises(PydanticUserError, match="unknown"):
        problem_of(unknown | int, ["a"])


def test_an_iterator_is_read_once_and_checked_as_what_was_sent() -> None:
    assert problem_of(list[int], numbers()) is None
    assert problem_of(list[str], numbers()) is not None


def test_the_error_says_all_that_is_needed_to_mend_it() -> None:
    router = MessageRouter()

    @router.room("chat:{room}", sends=Said | list[int])
    async def may_read(room: str) -> None: ...

    with pytest.raises(InvalidArgument) as caught:
        Sends([router]).check("chat:lobby", {"text": 1}, encode({"text": 1}))
    line = may_read.__code__.co_firstlineno
    assert str(caught.value) == (
        "message: got {'text': 1} for the room 'chat:lobby'; accepted: Said | list[int], which "
        "test_the_error_says_all_that_is_needed_to_mend_it.may_read() of @room('chat:{room}') declares with sends= "
        f"({__file__}:{line}); ConnectionManager(check_sends=False) turns this check off"
    )


class Rule:
    """An object that is called as a rule."""

    async def __call__(self, room: str) -> None: ...


@pytest.mark.parametrize("rule", [Rule(), partial(Rule.__call__, Rule())])
def test_the_error_names_rules_that_are_no_plain_functions(rule: Any) -> None:
    router = MessageRouter()
    router.room("chat:{room}", sends=Said)(rule)
    with pytest.raises(InvalidArgument, match=r"test_sends"):
        Sends([router]).check("chat:lobby", 1, encode(1))


def test_the_most_specific_rule_of_an_endpoint_speaks_and_each_endpoint_has_one() -> None:
    one, other = MessageRouter(), MessageRouter()

    @one.room("chat:{room}", sends=Said)
    @one.room("free:{room}")
    @other.room("chat:{room}", sends=dict[str, Any])
    async def may_read(room: str) -> None: ...

    @one.room("chat:news", sends=str)
    @one.room("chat:open")
    async def may_read_news() -> None: ...

    def accepts(message: object, room: str, *endpoints: MessageRouter) -> bool:
        try:
            Sends(endpoints).check(room, message, encode(message))
        except InvalidArgument:
            return False
        return True

    said = {"user_id": "ann", "text": ""}
    assert accepts(said, "chat:lobby", one, other)
    assert accepts({}, "chat:lobby", other)
    assert not accepts({}, "chat:lobby", one, other)
    assert not accepts(said, "chat:news", one)
    assert accepts("text", "chat:news", one)
    assert not accepts("text", "chat:news", one, other)
    assert accepts(1, "chat:open", one)
    assert accepts(1, "free:for all", one)
    assert accepts(1, "no rule", one)
    assert accepts(1, "$everyone", one)
    assert accepts(1, "$user:ann", one)


def test_rules_that_are_declared_later_count() -> None:
    endpoint, endpoints = MessageRouter(), list[MessageRouter]()
    sends = Sends(endpoints)
    sends.check("chat:lobby", 1, encode(1))
    endpoints.append(endpoint)
    sends.check("chat:lobby", 1, encode(1))
    router = MessageRouter()
    router.room("chat:*", sends=Said)(lambda: None)
    endpoint.include_router(router)
    with pytest.raises(InvalidArgument, match="Said"):
        sends.check("chat:lobby", 1, encode(1))
