"""Functions in a router, which a module of its own would hold, and a path parameter of the endpoint."""

from typing import Annotated

from fastapi import FastAPI, Path
from pydantic import BaseModel, PositiveInt

from hubbub import ConnectionManager, MessageRouter

router = MessageRouter()


class Order(BaseModel):
    item: str
    count: PositiveInt = 1


@router.on("create")
async def create(order: Order, shop: Annotated[str, Path()]) -> str:
    return f"{order.count} × {order.item} from {shop}"


@router.room("shop:{name}")
async def may_watch(name: str, shop: Annotated[str, Path()]) -> bool:
    return name == shop


app = FastAPI()
manager = ConnectionManager()
manager.install(app)
live = manager.endpoint("/shops/{shop}/live", auth=None)
live.include_router(router, prefix="orders.")  # clients call "orders.create"
