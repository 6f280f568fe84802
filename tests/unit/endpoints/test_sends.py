"""What ``sends=`` accepts, type by type, and which rule speaks for a room."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, computed_field, field_serializer, field_validator
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


class Color(Enum):
    RED = "red"


Event = TypeAliasType("Event", Said | Closed)
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
]


@pytest.mark.parametrize(("sends", "message", "reason"), WRONG)
def test_something_else_is_wrong(sends: Any, message: object, reason: str) -> None:
    error = problem_of(sends, message)
    assert error is not None
    assert reason in error.problem
    assert ("(" in error.problem.partition("'room'")[2]) == bool(reason), "a reason is given where there is one"


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
