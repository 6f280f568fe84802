"""An app factory that creates the manager. Handlers receive the manager as a dependency."""

from typing import Annotated, cast

from fastapi import APIRouter, Depends, FastAPI, WebSocket
from starlette.requests import HTTPConnection

from hubbub import ConnectionManager

router = APIRouter()


def manager_of(connection: HTTPConnection) -> ConnectionManager:  # the same for HTTP routes and WebSockets
    return cast(ConnectionManager, connection.app.state.manager)


Manager = Annotated[ConnectionManager, Depends(manager_of)]


@router.websocket("/ws")
async def news(websocket: WebSocket, manager: Manager) -> None:
    async with manager.connect(websocket) as connection:
        await connection.wait_gone()


@router.post("/news")
async def publish(text: str, manager: Manager) -> None:
    await manager.broadcast(text)


def create_app(broker: str = "memory://") -> FastAPI:
    app = FastAPI()
    app.state.manager = ConnectionManager(broker)
    app.state.manager.install(app)
    app.include_router(router)
    return app
