"""What is sent is what FastAPI would answer: values through `encode`, and through a route annotated ``-> Any``."""

from __future__ import annotations

import enum
import json
import re
from collections import OrderedDict, deque, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Generic, TypeVar
from uuid import UUID

import pytest
from fastapi import FastAPI, WebSocket
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    AnyUrl,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    SecretBytes,
    SecretStr,
    SerializeAsAny,
    computed_field,
    field_serializer,
    model_serializer,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass

from hubbub import EVERYONE, ConnectionManager, RoomOptions
from hubbub.codec import encode
from tests.integration.support import client, eventually, receive, running

NAIVE = datetime(2026, 1, 2, 3, 4, 5, 6)  # noqa: DTZ001 - is what is tested
HASH = "the-hash-of-a-password"
T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Rights(enum.IntFlag):
    READ = 1
    WRITE = 2


class Name(enum.StrEnum):
    ANN = "ann"


class Huge(enum.Enum):
    HUGE = 2**80


class OddInt(int):
    def __str__(self) -> str:
        return "not a number"


Pair = namedtuple("Pair", "x y")


class Account(BaseModel):
    name: str = "ann"
    password_hash: str = Field(default=HASH, exclude=True)
    born: date = date(2000, 1, 2)


class Admin(Account):
    note: str = "a field that Account does not have"


class Team(BaseModel):
    lead: Account = Admin()
    anyone: SerializeAsAny[Account] = Account()
    whatever: Any = None


@pydantic_dataclass
class User:
    name: str = "ann"
    password_hash: str = Field(default=HASH, exclude=True)
    shown_as: str = Field(default="Ann", serialization_alias="shownAs")

    @field_serializer("name")
    def shout(self, name: str) -> str:
        return name.upper()


@pydantic_dataclass(config=ConfigDict(ser_json_timedelta="float", ser_json_bytes="base64"), slots=True, frozen=True)
class Configured:
    took: timedelta = timedelta(seconds=90)
    data: bytes = b"\xff"
    nested: User = Field(default_factory=User)


@pydantic_dataclass
class Box(Generic[T]):
    content: T


@dataclass
class Plain:
    value: Any = None
    _private: int = 1
    many: list[Any] = field(default_factory=list)


@dataclass(slots=True, frozen=True)
class Slotted:
    value: Any = None


class Tags(RootModel[list[str]]):
    pass


class Page(BaseModel, Generic[T]):
    items: list[T]
    next: T | None = None


class Rectangle(BaseModel):
    model_config = ConfigDict(serialize_by_alias=False)

    width: int = Field(default=2, alias="w")

    @computed_field  # type: ignore[prop-decorator]  # as Pydantic's docs have it
    @property
    def area(self) -> int:
        return self.width**2


class Odd(BaseModel):
    model_config = ConfigDict(
        ser_json_timedelta="float", ser_json_bytes="base64", ser_json_inf_nan="strings", extra="allow"
    )

    took: timedelta = timedelta(milliseconds=1500)
    data: bytes = b"\x00\xff"
    ratio: float = float("nan")
    secret: SecretStr = SecretStr(HASH)
    secrets: list[SecretBytes] = [SecretBytes(HASH.encode())]
    user: User = User()
    big: int = 2**80
    by_key: dict[tuple[int, int], Color] = {(1, 2): Color.RED}


class Whole(BaseModel):
    value: int = 1

    @model_serializer
    def as_text(self) -> str:
        return f"Whole {self.value}"


ZOO: dict[str, Any] = {
    "naive": NAIVE,
    "aware": NAIVE.replace(tzinfo=UTC),
    "zoned": NAIVE.replace(tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
    "year 1": datetime(1, 1, 1, tzinfo=UTC),
    "date": date(2026, 1, 2),
    "time": time(3, 4, 5, 6),
    "aware time": time(3, 4, 5, tzinfo=UTC),
    "timedelta": timedelta(days=-1, microseconds=7),
    "decimal": Decimal("1.50"),
    "uuid": UUID(int=5),
    "bytes": b"abc",
    "set": {"a"},
    "frozenset": frozenset({1}),
    "deque": deque([1, 2]),
    "pair": Pair(1, Color.RED),
    "ordered": OrderedDict(b=1, a=2),
    "enum": Color.RED,
    "int enum": Level.HIGH,
    "flags": Rights.READ | Rights.WRITE,
    "str enum": Name.ANN,
    "huge enum": Huge.HUGE,
    "huge": -(2**80),
    "huge odd": OddInt(2**80),
    "path": Path("/a/b"),
    "pattern": re.compile("a+"),
    "address": ip_address("::1"),
    "url": AnyUrl("http://a.example/b"),
    "secret": SecretStr(HASH),
    "account": Account(),
    "team": Team(whatever=User()),
    "team of plain": Team(whatever=[Plain(User())]),
    "user": User(),
    "configured": Configured(),
    "box": Box[User](User()),
    "bare box": Box(Account()),
    "plain": Plain(User(), many=[Account(), NAIVE, 2**80]),
    "slotted": Slotted({"user": User(), "at": NAIVE}),
    "tags": Tags(["a", "b"]),
    "page": Page[Account](items=[Account(), Admin()], next=Account()),
    "rectangle": Rectangle(w=3),
    "odd": Odd(extra=User()),  # type: ignore[call-arg]  # extra="allow"
    "whole": Whole(),
}
KEYS: dict[str, Any] = {
    "int": 1,
    "big int": 2**80,
    "bool": True,
    "float": 1.5,
    "enum": Color.RED,
    "int enum": Level.HIGH,
    "str enum": Name.ANN,
    "uuid": UUID(int=5),
    "naive": NAIVE,
    "aware": NAIVE.replace(tzinfo=UTC),
    "date": date(2026, 1, 2),
    "time": time(3, 4),
    "aware time": time(3, 4, tzinfo=UTC),
    "timedelta": timedelta(1),
    "decimal": Decimal("1.50"),
    "tuple": (1, "a"),
    "bytes": b"abc",
}

Answer = Callable[[Any], Any]


@pytest.fixture(scope="module")
def answered() -> Iterator[Answer]:
    """Gives the JSON that a FastAPI route answers with."""
    app = FastAPI()
    value: Any = None

    @app.get("/")
    def route() -> Any:
        return value

    with TestClient(app) as client:

        def ask(returned: Any) -> Any:
            nonlocal value
            value = returned
            return json.loads(client.get("/").raise_for_status().text)

        yield ask


def sent(value: Any) -> Any:
    text = encode(value if not isinstance(value, (str, bytes)) else [value]).data.decode()
    assert HASH not in text
    return json.loads(text) if not isinstance(value, (str, bytes)) else json.loads(text)[0]


@pytest.mark.parametrize("name", ZOO)
def test_a_value_is_sent_as_fastapi_answers_it(name: str, answered: Answer) -> None:
    for value in (ZOO[name], {"data": [ZOO[name]]}, [ZOO[name], 2**70], Plain(ZOO[name]), Team(whatever=ZOO[name])):
        assert sent(value) == answered(value)


def test_a_subclass_in_a_field_is_sent_as_its_field_says(answered: Answer) -> None:
    account = {"name": "ann", "born": "2000-01-02"}
    assert sent(Team()) == answered(Team()) == {"lead": account, "anyone": account, "whatever": None}


@pytest.mark.parametrize("name", KEYS)
def test_a_key_is_sent_as_fastapi_answers_it(name: str, answered: Answer) -> None:
    for value in ({KEYS[name]: 1}, {KEYS[name]: 2**70}, {"a": [{KEYS[name]: Account()}]}):
        assert sent(value) == answered(value)


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.sampled_from([ZOO[name] for name in ZOO])
        | st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.tuples(inner, inner)
            | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])) | st.integers(), inner, max_size=3)
            | inner.map(Plain)
            | inner.map(Slotted)
            | inner.map(Box)
            | inner.map(lambda value: Team(whatever=value))
        ),
        max_leaves=8,
    )
)
def test_whatever_is_nested_is_sent_as_fastapi_answers_it(answered: Answer, value: Any) -> None:
    assert sent(value) == answered(value)


@pytest.mark.parametrize(
    "around",
    [
        pytest.param(lambda user: user, id="alone"),
        pytest.param(lambda user: {"user": user}, id="dict"),
        pytest.param(lambda user: [user, 2**70], id="beside a big number"),
        pytest.param(lambda user: (user,), id="tuple"),
        pytest.param(lambda user: deque([user]), id="deque"),
        pytest.param(lambda user: {"deep": [{"er": {"user": user}}]}, id="deep"),
        pytest.param(lambda user: Plain(user), id="dataclass"),
        pytest.param(lambda user: Slotted([Plain(user), 2**70]), id="dataclasses"),
        pytest.param(lambda user: Box(user), id="generic dataclass"),
        pytest.param(lambda user: Team(whatever={"user": user}), id="model"),
        pytest.param(lambda user: Pair(user, time(1, tzinfo=UTC)), id="named tuple"),
        pytest.param(lambda user: (each for each in [user, 2**70]), id="generator"),
    ],
)
@pytest.mark.parametrize("user", [User(), Account(), Admin(), Configured()], ids=lambda user: type(user).__name__)
def test_an_excluded_field_is_never_sent(user: Any, around: Callable[[Any], Any]) -> None:
    assert HASH not in encode(around(user)).data.decode()


def test_a_generator_is_read_once_wherever_it_is() -> None:
    assert sent({"first": (each for each in [1, 2]), "n": 2**70}) == {"first": [1, 2], "n": 2**70}
    assert sent(each for each in [User()]) == [{"name": "ANN", "shownAs": "Ann"}]


# What the app says of a user


@pytest.mark.anyio
async def test_info_is_one_copy_for_all_who_ask() -> None:
    manager = ConnectionManager(rooms={"lobby": RoomOptions(announce=True)})
    info: dict[Any, Any] = {"at": NAIVE, "user": User(), 7: (2**70, Color.RED)}
    said = {"at": NAIVE.isoformat(), "user": {"name": "ANN", "shownAs": "Ann"}, "7": [2**70, "red"]}
    seen: list[Any] = []

    async def handler(websocket: WebSocket) -> None:
        async with manager.connect(websocket, "ann", room="lobby", info=info) as connection:
            info["at"] = None
            seen.append(connection.info)
            for room in ("lobby", EVERYONE):
                (member,) = await manager.presence(room)
                seen.append(member.info)
            async for _ in connection:
                pass

    with running(manager) as live:
        async with client(live.server, live.at(handler)) as websocket:
            assert (await receive(websocket))["info"] == said
            await eventually(lambda: len(seen) == 3)
    assert seen == [said] * 3
    assert len({id(each) for each in seen}) == 3


# Where FastAPI is not followed


class Constant(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="constants")

    ratio: float = float("inf")
    text: str = "NaN and Infinity"


def test_what_is_no_json_is_null() -> None:
    """FastAPI answers with ``Infinity`` here, which a page can't parse."""
    assert encode(Constant()).data == b'{"ratio":null,"text":"NaN and Infinity"}'
    assert encode([Constant(), 2**70, Slotted(float("nan"))]).data == (
        b'[{"ratio":null,"text":"NaN and Infinity"},1180591620717411303424,{"value":null}]'
    )
