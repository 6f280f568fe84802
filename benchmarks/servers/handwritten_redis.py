"""The usual hand-written manager over redis-py Pub/Sub: one task reads, and loops over the sockets of the room.

A room is subscribed while it has members. A member's message is published, and is sent to all when it comes back.
"""

# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-call"

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from redis.asyncio import Redis


class ConnectionManager:
    def __init__(self, url: str) -> None:
        # No limits, as before redis-py 8: its defaults fail if a hundred publish at once, or if connecting takes 5 s.
        self.redis = Redis.from_url(
            url, decode_responses=True, max_connections=10_000, socket_timeout=None, socket_connect_timeout=None
        )
        self.pubsub = self.redis.pubsub(ignore_subscribe_messages=True)
        self.rooms: dict[str, list[WebSocket]] = defaultdict(list)

    async def connect(self, websocket: WebSocket, room: str) -> None:
        await websocket.accept()
        self.rooms[room].append(websocket)
        if len(self.rooms[room]) == 1:
            await self.pubsub.subscribe(room)

    async def disconnect(self, websocket: WebSocket, room: str) -> None:
        self.rooms[room].remove(websocket)
        if not self.rooms[room]:
            await self.pubsub.unsubscribe(room)

    async def broadcast(self, message: str, room: str) -> None:
        await self.redis.publish(room, message)

    async def read(self) -> None:
        async for message in self.pubsub.listen():
            for connection in self.rooms[message["channel"]]:
                await connection.send_text(message["data"])


manager = ConnectionManager(os.environ["HUBBUB_BENCH_REDIS"])


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    await manager.pubsub.subscribe("everyone")
    reader = asyncio.create_task(manager.read())
    yield
    reader.cancel()
    await manager.pubsub.aclose()
    await manager.redis.aclose()


app = FastAPI(lifespan=lifespan)


@app.websocket("/room/{room}")
async def chat(websocket: WebSocket, room: str) -> None:
    await manager.connect(websocket, room)
    try:
        while True:
            message = await websocket.receive_text()
            await manager.broadcast(message, room)
    except WebSocketDisconnect:
        await manager.disconnect(websocket, room)
