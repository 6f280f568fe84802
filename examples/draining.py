"""Drains the sockets on SIGTERM under plain uvicorn or gunicorn, and answers readiness checks."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Response, WebSocket

from hubbub import ConnectionManager
from hubbub.server import drain_first


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    with drain_first(over_s=5):
        yield


app = FastAPI(lifespan=lifespan)
manager = ConnectionManager()
manager.install(app)


@app.get("/ready")
async def ready(response: Response) -> bool:
    response.status_code = 200 if manager.ready else 503
    return manager.ready


@app.websocket("/ws/{room}")
async def chat(websocket: WebSocket, room: str) -> None:
    async with manager.connect(websocket, room=room) as connection:
        async for message in connection:
            await manager.broadcast(message, room=room)
