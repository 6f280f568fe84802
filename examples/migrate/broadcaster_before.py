from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from broadcaster import Broadcast
from fastapi import FastAPI, WebSocket

broadcast = Broadcast("memory://")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with broadcast:
        yield


app = FastAPI(lifespan=lifespan)


@app.websocket("/ws/{room}")
async def chat(websocket: WebSocket, room: str) -> None:
    await websocket.accept()
    async with anyio.create_task_group() as tasks:

        async def receive() -> None:
            async for text in websocket.iter_text():
                await broadcast.publish(channel=f"chat:{room}", message=text)
            tasks.cancel_scope.cancel()

        tasks.start_soon(receive)
        async with broadcast.subscribe(channel=f"chat:{room}") as subscriber:
            async for event in subscriber:
                await websocket.send_text(event.message)


@app.post("/rooms/{room}/news")
async def news(room: str, text: str) -> None:
    await broadcast.publish(channel=f"chat:{room}", message=text)
