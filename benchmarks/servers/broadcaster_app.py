"""broadcaster in memory, with two tasks per client as in its README; Starlette on uvicorn."""

# mypy: disable-error-code="import-not-found"

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from broadcaster import Broadcast
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

broadcast = Broadcast("memory://")


async def chat(websocket: WebSocket) -> None:
    await websocket.accept()
    channel = websocket.url.path
    async with anyio.create_task_group() as tasks:

        async def receive() -> None:
            async for message in websocket.iter_text():
                await broadcast.publish(channel=channel, message=message)
            tasks.cancel_scope.cancel()

        tasks.start_soon(receive)
        async with broadcast.subscribe(channel=channel) as subscriber:
            async for event in subscriber:
                await websocket.send_text(event.message)


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for message in websocket.iter_text():
        await websocket.send_text(message)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with broadcast:
        yield


app = Starlette(
    routes=[WebSocketRoute("/echo", echo), WebSocketRoute("/{path:path}", chat)],
    lifespan=lifespan,
)
