"""An app that uses everything that a document can say.

Run as a module, it writes the golden file anew: ``python -m tests.unit.endpoints.everything``.
"""

# No `from __future__ import annotations`: the models refer to each other as they are.

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from math import inf
from pathlib import Path
from typing import Annotated, Any, Final, Generic, Literal, NamedTuple, TypeVar
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException, WebSocket
from fastapi.security import APIKeyHeader, OAuth2PasswordBearer
from pydantic import AnyUrl, BaseModel, ConfigDict, Field, RootModel, SecretStr, computed_field
from typing_extensions import TypedDict  # Pydantic needs it before Python 3.12

from hubbub import Connection, ConnectionManager, Grant, History, MessageRouter, RoomOptions, Welcome
from hubbub.auth import Claims, JWTAuth
from hubbub.endpoints.documentation import Site, written
from tests.unit.endpoints import everything_else

GOLDEN: Final = Path(__file__).parent / "golden" / "everything.asyncapi.json"

T = TypeVar("T")


class Color(Enum):
    """The color of an item."""

    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Item(BaseModel):
    """An item, as clients send it and as they receive it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"id": 5, "kind": "item", "itemName": "a cup"}]})

    kind: Literal["item"] = "item"
    id: int
    name: Annotated[str, Field(alias="itemName", min_length=1, description="Its name", examples=["a cup"])]
    color: Annotated[Color, Field(description="Its color")] = Color.RED
    level: Level | None = None
    price: Decimal = Decimal("1.50")
    weight: float = inf
    tags: set[str] = set()
    size: tuple[int, int] | None = None
    parts: tuple[str, Annotated[int, Field(gt=0)]] = ("wheel", 1)
    code: Annotated[str, Field(pattern=r"^[A-Z]{2}\d+$", deprecated=True)] = "AB1"
    data: bytes = b""

    @computed_field  # type: ignore[prop-decorator]  # Pydantic's documentation has it so
    @property
    def label(self) -> str:
        """Its label."""
        return f"{self.name} #{self.id}"


class Folder(BaseModel):
    kind: Literal["folder"] = "folder"
    items: list["Item | Folder"] = []
    by_name: dict[str, "Folder"] = {}


Node = Annotated[Item | Folder, Field(discriminator="kind")]


class Page(BaseModel, Generic[T]):
    entries: list[T]
    next: UUID | None = None


class Tree(RootModel[dict[str, list["Tree"]]]):
    """A tree, as deep as you like."""


@dataclass
class Moved:
    """Where something is now."""

    at: datetime
    x: float
    y: float = 0.0


class Options(TypedDict, total=False):
    since: date
    wait: timedelta
    link: AnyUrl


class Pair(NamedTuple):
    left: int
    right: str


class Password(BaseModel):
    model_config = ConfigDict(extra="forbid")

    secret: SecretStr


class Hidden(BaseModel):
    plan: str


api_key = APIKeyHeader(name="X-Key", description="For machines", auto_error=False)
password = OAuth2PasswordBearer(tokenUrl="token", scopes={"read": "Read everything"}, auto_error=False)
token = JWTAuth(b"0" * 32, algorithms=["HS256"], cookie="session", query="token")


async def current_user(
    key: Annotated[str | None, Depends(api_key)],
    password: Annotated[str | None, Depends(password)],
    claims: Annotated[Claims, Depends(token)],
) -> Claims:
    raise NotImplementedError


app = FastAPI(
    title="Everything",
    version="1.2.3",
    summary="An app that uses everything.",
    description="It has *all* of it.",
    contact={"name": "Ann", "url": "https://example.org/ann", "email": "ann@example.org"},
    license_info={"name": "MIT", "identifier": "MIT"},
    terms_of_service="https://example.org/terms",
    openapi_tags=[{"name": "items", "description": "All about items"}],
)
manager = ConnectionManager(
    rooms={
        "item:*": RoomOptions(
            history=History(100), replay=10, announce=True, client_presence=True, client_history=True
        ),
        "ticker:*": RoomOptions(overflow="latest"),
    }
)
manager.install(app)
live = manager.endpoint("/live/{tenant}", auth=current_user)


@live.connect
async def hello(options: Options, tenant: str) -> Welcome:
    """Greets a client."""
    raise NotImplementedError


@live.disconnect
async def bye() -> None: ...


@live.room("item:{color}:{id}", sends=Node | Moved | list[Item] | None, tags=["items"], errors={404: "no such item"})
async def may_read(
    color: Annotated[Color, Field(description="Of which color")], id: Annotated[int, Field(examples=[5])]
) -> Grant | bool:
    """Shows an item."""
    raise NotImplementedError


@live.publish("item:{color}:{id}", summary="Move an item", description="It moves.", deprecated=True)
async def move(color: Color, id: int, where: Moved) -> Moved | None:
    """This text is not shown."""
    raise NotImplementedError


@live.room("ticker:*", token=JWTAuth(b"1" * 32, algorithms=["HS256"]), deprecated=True)
async def may_watch(options: Options | None = None) -> None: ...


def of_file(path: str) -> str:
    return path


@live.room("file:{path:path}", sends=bytes)
async def may_open(of: Annotated[str, Depends(of_file)]) -> bool:
    raise NotImplementedError


@live.publish("[{]odd[}] #?")
async def odd(message: Any) -> str:
    raise NotImplementedError


@live.on("add", concurrent=True, errors={409: "it exists", 403: "not yours"})
async def add(item: Item, connection: Connection) -> Item:
    """Adds an item.

    And tells everybody.
    \f
    Not for clients.
    """
    raise HTTPException(409)


@live.on("node")
async def node(node: Node) -> Node | None:
    raise NotImplementedError


@live.on("list")
async def pages(other: everything_else.Item | None = None) -> Page[Item]:
    raise NotImplementedError


@live.on("names")
async def names(page: Page[str]) -> list[str]:
    raise NotImplementedError


@live.on("tree")
async def tree(tree: Tree) -> Mapping[str, Tree]:
    raise NotImplementedError


@live.on("pair")
async def pair(pair: Pair) -> tuple[int, ...]:
    raise NotImplementedError


@live.on("bytes")
async def swap(data: bytes) -> bytes:
    raise NotImplementedError


@live.on("any")
async def anything(data):  # type: ignore[no-untyped-def]  # an app that annotates nothing
    raise NotImplementedError


@live.on("what is it?")
async def what() -> Any:
    raise NotImplementedError


@live.on("what_is_it_")
async def nothing(password: Password) -> None:
    raise NotImplementedError


@live.on("hidden", include_in_schema=False)
async def hidden(hidden: Hidden) -> Hidden:
    raise NotImplementedError


router = MessageRouter()


@router.on("create", tags=["items"])
def create(count: Annotated[int, Field(gt=0, description="How many")]) -> Literal["done", "later"]:
    raise NotImplementedError


live.include_router(router, prefix="orders.", tags=["orders"])
live.include_router(router, prefix="old.", deprecated=True)
live.include_router(router, prefix="hidden.", include_in_schema=False)


@app.websocket("/ws/{room}/{number:int}")
async def raw(websocket: WebSocket, room: str, number: int) -> None: ...


manager.describe(
    "/ws/{room}/{number:int}",
    receives=Moved,
    sends=Moved | str,
    summary="Moves",
    description="A plain one.",
    tags=["items"],
)
manager.describe("/ws/hidden", receives=Hidden, include_in_schema=False)


def document() -> str:
    """The document of the app, as a file."""
    return written(live._documentation.document(Site.of("wss://example.org/v1")))


if __name__ == "__main__":
    from tests.unit.endpoints import everything  # under its own name, which schemas may show

    everything.GOLDEN.write_text(everything.document(), "utf-8", newline="\n")
