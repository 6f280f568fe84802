"""Server-Sent Events as sse-starlette's users write them: a queue per client, and a generator that reads it."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from sse_starlette import EventSourceResponse

app = FastAPI()
rooms: dict[str, set[asyncio.Queue[str]]] = defaultdict(set)


@app.get("/live/events")
async def events(room: str) -> EventSourceResponse:
    queue: asyncio.Queue[str] = asyncio.Queue(1000)

    async def read() -> AsyncIterator[dict[str, str]]:
        rooms[room].add(queue)
        try:
            while True:
                yield {"data": await queue.get()}
        finally:
            rooms[room].discard(queue)

    return EventSourceResponse(read())


@app.websocket("/publish/{room}")
async def publish(websocket: WebSocket, room: str) -> None:
    await websocket.accept()
    try:
        while True:
            message = await websocket.receive_text()
            for queue in rooms[room]:
                queue.put_nowait(message)
    except WebSocketDisconnect:
        pass
