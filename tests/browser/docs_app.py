"""An app whose endpoint uses everything that its page has, mounted in another app."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Cookie, Depends, FastAPI, HTTPException, Query
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, create_model

from hubbub import Connection, ConnectionManager, Grant, History, MessageRouter, RoomOptions, Welcome
from tests.unit.endpoints import everything

TOKEN = "let-me-in"
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
MARKUP = "<img src=x onerror=alert(1)>"
"""The name of a user, and a text: to be shown as they are."""

app = FastAPI(
    title="Order desk",
    version="2.1.0",
    description="Chat and orders of a small shop.\n\nTry it with the token `let-me-in`. [More](https://example.org)",
    openapi_tags=[{"name": "chat", "description": "Rooms where people talk"}, {"name": "orders"}],
)
manager = ConnectionManager(
    rooms={
        "chat:*": RoomOptions(
            history=History(100, ttl_s=600),
            replay=5,
            announce=True,
            grace_s=0,
            client_presence=True,
            client_history=True,
        ),
        "ticker:*": RoomOptions(overflow="latest"),
    }
)
manager.install(app)
bearer = HTTPBearer(auto_error=False)


async def current_user(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    name: Annotated[str, Query()] = "ann",
    session: Annotated[str, Cookie()] = "",
) -> str:
    """Takes a token, or the cookie of a session."""
    if session:
        return session
    if credentials is None or credentials.credentials != TOKEN:
        raise HTTPException(401, "no such token")
    return name


User = Annotated[str, Depends(current_user)]
live = manager.endpoint("/live", auth=current_user)
orders = MessageRouter()


class Greeting(BaseModel):
    """Data with which a client connects."""

    language: Literal["de", "en"] = "en"


class Say(BaseModel):
    """A text for the room."""

    text: Annotated[str, Field(min_length=1, max_length=80, description="The text, as it is", examples=["Hello"])]


class Said(Say):
    """A text that somebody said."""

    user: str
    at: datetime


class Topic(BaseModel):
    """What the room is about."""

    topic: str


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


class Card(BaseModel):
    kind: Literal["card"] = "card"
    number: Annotated[str, Field(pattern=r"^\d{4}$")]


class Transfer(BaseModel):
    kind: Literal["transfer"] = "transfer"
    iban: str


class Address(BaseModel):
    street: str
    country: Annotated[str, Field(min_length=2, max_length=2)] = "DE"


class Item(BaseModel):
    """An item, perhaps with parts, which are items as well."""

    name: str
    count: Annotated[int, Field(ge=1, le=99)] = 1
    parts: list[Item] = []


class Order(BaseModel):
    """An order of a customer."""

    items: Annotated[list[Item], Field(min_length=1)]
    size: Size
    address: Address | None = None
    payment: Annotated[Card | Transfer, Field(discriminator="kind")]
    gift: bool = False
    note: Annotated[str | None, Field(max_length=60)] = None
    budget: Annotated[Decimal | None, Field(gt=0)] = None
    tags: dict[str, int] = {}
    corner: tuple[int, int] = (0, 0)
    reference: UUID | None = None
    extra: Any = None
    discount: Annotated[float | None, Field(deprecated=True)] = None


class Branch(BaseModel):
    """A tree, whose form would have no end."""

    left: Branch | int
    right: Branch | int


class Receipt(BaseModel):
    id: int
    order: Order


@live.connect
async def welcome(user: User, greeting: Greeting | None = None) -> Welcome:
    """Greets a client, and joins it to the news."""
    text = "Hallo" if greeting is not None and greeting.language == "de" else "Hello"
    return Welcome(data={"text": f"{text}, {user}"}, info={"name": MARKUP}, rooms=["news"])


@live.room("chat:{room}", sends=Said | Topic, tags=["chat"])
async def may_read(room: Annotated[str, Field(description="The name of the room")], user: User) -> Grant | bool:
    """Lets everybody read, except in `staff`. A room has a history, so a client that comes back misses nothing."""
    return False if room == "staff" else Grant(data={"topic": MARKUP}, info={"role": "guest"})


@live.publish("chat:{room}", tags=["chat"])
async def publish(message: Say, room: str, user: User) -> Said:
    """Publishes a text, with its author and the time."""
    return Said(text=message.text, user=user, at=NOON)


class Since(BaseModel):
    price: float


@live.room("ticker:{number}", tags=["chat"], sends=float)
async def ticker(number: Annotated[int, Field(ge=1)], since: Since | None = None) -> bool:
    """Prices of a stock."""
    return since is None or since.price > 0


@live.room("logs:*")
async def logs() -> None:
    """Logs of all kinds."""


@live.on("say", tags=["chat"], errors={403: "not subscribed to the room"})
async def say(message: Say, user: User, connection: Connection) -> Said:
    """Says a text in the lobby."""
    if not connection.is_subscribed("chat:lobby"):
        raise HTTPException(403, "subscribe to the lobby first")
    said = Said(text=message.text, user=user, at=NOON)
    await manager.broadcast(said, room="chat:lobby")
    return said


@orders.on("create", tags=["orders"], summary="Creates an order")
async def create(order: Order) -> Receipt:
    """Creates an order of one or more items.

    - The items are reserved at once.
    - **Nothing** is paid yet.

    ### In short
    1. *Choose* the items,
       of an order_of_items.
    2. Pay __later__.

    > The _customer_
    > is right: 2 * 3 * 4.
    """
    return Receipt(id=1, order=order)


@orders.on("cancel", tags=["orders"], deprecated=True)
async def cancel(number: Annotated[int, Field(examples=[7])]) -> None:
    """Cancels an order. Use `orders.create` with care instead."""


@live.on("echo")
async def echo(message: Any) -> Any:
    """Answers with the message."""
    return message


def twin(module: str, kind: type) -> type[BaseModel]:
    """A model of a name that another model has, too."""
    model: type[BaseModel] = create_model("Twin", __module__=module, value=(kind, ...))
    return model


class Inner(BaseModel):
    model_config = ConfigDict(title="Outer")
    depth: int


class Outer(BaseModel):
    inner: Inner


FirstTwin, SecondTwin = twin("first", int), twin("second", str)


async def twins(message: Any) -> None: ...


twins.__annotations__["message"] = FirstTwin | SecondTwin
live.on("twins")(twins)


@live.on("outer")
async def outer(message: Outer) -> None: ...


@live.on("grow")
async def grow(tree: Branch) -> Branch:
    """Answers with a tree.

    It is the tree that came.
    """
    return tree


@live.on("notify")
async def notify(connection: Connection) -> None:
    """Sends a message to this connection alone, and one to everybody."""
    await connection.send({"alone": True})
    await manager.broadcast({"all": True}, room="news")


live.include_router(orders, prefix="orders.")

manager.describe("/ws/{room}", receives=Say, sends=Said | Topic, endpoint=live, description="A plain socket.")

root = FastAPI(lifespan=manager.lifespan)
root.mount("/shop", app)
root.mount("/everything", everything.app)


# Guards


class Gate:
    """Says whether the guarded documentation may be read."""

    is_open = True


async def gate() -> None:
    if not Gate.is_open:
        raise HTTPException(403, "only for staff")


guarded = manager.endpoint("/guarded", auth=None, docs=gate)
hidden = manager.endpoint("/hidden", auth=None, docs=False)

manager.describe("/ws/{room}", receives=Say, endpoint=guarded)
