"""An app that declares everything that a typed client can say: tests/js/typed/live.ts is generated from it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypeVar
from uuid import UUID

from fastapi import FastAPI, HTTPException
from pydantic import AnyUrl, BaseModel, ConfigDict, Field, Json, JsonValue, computed_field
from typing_extensions import TypedDict

from hubbub import ConnectionManager, Grant, History, RoomOptions

T = TypeVar("T")


class Color(Enum):
    """The color of a tag."""

    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Point(NamedTuple):
    x: float
    y: float
    label: str = ""


class Meta(TypedDict):
    source: str
    trace: NotRequired[str]


@dataclass
class Place:
    city: str
    at: tuple[float, float] | None = None


class Node(BaseModel):
    """A tree. */ // `${not}` code"""

    value: int
    children: list[Node] = []


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    friend: Pet | None = None


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


class Page(BaseModel, Generic[T]):
    items: list[T]
    next: int | None


class Live(BaseModel):
    """A model with a name of the module."""

    on: bool


class Open(BaseModel):
    """A model with more properties than are declared."""

    model_config = ConfigDict(extra="allow")
    name: str


class Empty(BaseModel):
    """Nothing."""


class Everything(BaseModel):
    """All kinds of fields.

    In two paragraphs.
    """

    text: str
    number: float
    flag: bool
    nothing: None
    anything: Any
    when: datetime
    day: date
    span: timedelta
    uuid: UUID
    price: Decimal
    raw: bytes
    url: AnyUrl
    color: Color
    level: Level
    choice: Literal["a", 'b"`', 1, True, None]
    maybe: int | None = Field(description="Perhaps a number.")
    numbers: set[int] = Field(examples=[[1, 2]])
    pair: tuple[int, str]
    many: tuple[int, ...]
    none: tuple[()]
    options: list[int | str]
    point: Point
    by_name: dict[str, Node]
    by_color: dict[Color, int]
    by_number: dict[int, list[Pet]]
    by_prefix: dict[Annotated[str, Field(pattern="^x-")], bool]
    meta: Meta
    place: Place
    json_text: Json[list[int]]
    json_value: JsonValue
    old: str = Field("", deprecated=True)
    code: Annotated[str, Field(pattern=r"^[A-Z]+*/$|^\d+$")] = "A"
    dashed: int = Field(1, alias="with-dash")
    count: int = 3

    @computed_field(description="Twice the count.")  # type: ignore[prop-decorator]  # mypy: decorators above a property
    @property
    def double(self) -> int:
        return 2 * self.count


class Say(BaseModel):
    """A text to say."""

    text: str
    nonce: str = ""


class Said(Say):
    at: datetime


class Left(BaseModel):
    user: str


app = FastAPI(title="Everything")
manager = ConnectionManager(
    rooms={
        "chat:*": RoomOptions(history=History(50), replay=5, announce=True, client_presence=True, client_history=True),
    }
)
manager.install(app)
live = manager.endpoint("/live", auth=None)
NOW = datetime(2026, 1, 2, tzinfo=UTC)


@live.connect
async def hello(data: Meta | None = None) -> None: ...


@live.on("echo", summary="Returns what it receives", tags=["tests"], errors={409: "never", 403: "if it is not on"})
async def echo(message: Everything) -> Everything:
    """The description,

    in two paragraphs.
    """
    return message


@live.on("say", deprecated=True)
async def say(message: Say) -> Said:
    return Said(text=message.text, nonce=message.nonce, at=NOW)


@live.on("pets.first")
async def first(pets: list[Pet]) -> Pet:
    if not pets:
        raise HTTPException(404, "no pets")
    return pets[0]


@live.on("page")
async def page(number: int = 1) -> Page[Node]:
    return Page[Node](items=[Node(value=number)], next=number + 1)


@live.on("switch")
async def switch(message: Live) -> Open:
    return Open(name="x", on=message.on)  # type: ignore[call-arg]  # an extra


seen: list[str] = []


@live.on("mark")
async def mark(word: str) -> None:
    """Marks a word."""
    seen.append(word)


@live.on("marks")
async def marks() -> list[str]:
    return seen


@live.on("raw bytes")
async def raw(data: bytes) -> bytes:
    return data


@live.room("chat:{room}", sends=Said | Left, errors={404: "no such room"})
async def may_chat(room: str, since: int = 0) -> Grant:
    """A room to talk in."""
    return Grant(data={"since": since})


@live.publish("chat:{room}", errors={403: "a rude word"})
async def publish(message: Say, room: str) -> Said:
    return Said(text=message.text, nonce=message.nonce, at=NOW)


@live.room("chat:{room}:staff", sends=Live)
async def may_chat_as_staff(room: str, code: str) -> None: ...


@live.room("ticket:{number}:{color}:{part:path}", sends=Node)
async def may_read_ticket(number: int, color: Color, part: str) -> bool:
    return True


@live.room("tags:{color}:{uuid}", sends=list[Pet])
async def may_read_tags(color: Literal["x", "y"], uuid: UUID) -> None: ...


@live.room("news", sends=Empty)
async def may_read_news() -> None: ...


@live.room("log`$[{]*")
async def may_read_logs() -> bool:
    return False


@live.room("twin:{name}", sends=Node)
async def twin(name: str) -> None: ...


@live.room("twin:{name:path}", sends=Live)
async def twin_of_any_name(name: str) -> None: ...


@live.room("a[{]b[}]", sends=str)
async def may_read_braces() -> None: ...


@live.on("publish")
async def send_news(room: str) -> None:
    await manager.broadcast(Left(user="ann"), room=room)
