"""Server-Sent Events by hand, on FastAPI's StreamingResponse: a queue per client, and a generator that reads it."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse

app = FastAPI()
rooms: dict[str, set[asyncio.Queue[str]]] = defaultdict(set)


@app.get("/live/events")
async def events(room: str) -> StreamingResponse:
    queue: asyncio.Queue[str] = asyncio.Queue(1000)

    async def read() -> AsyncIterator[str]:
        rooms[room].add(queue)
        try:
            yield ": welcome\n\n"
            while True:
                yield f"data: {await queue.get()}\n\n"
        finally:
            rooms[room].discard(queue)

    return StreamingResponse(read(), media_type="text/event-stream")


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
