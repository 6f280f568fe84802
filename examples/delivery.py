"""Rooms that a client can come back to: history, positions and recovery."""

from typing import Any

from fastapi import FastAPI, WebSocket

from hubbub import ConnectionManager, History, Resume, RoomOptions

app = FastAPI()
manager = ConnectionManager(
    rooms={"chat:*": RoomOptions(history=History(size=500, ttl_s=3600), positions=True)},
)
manager.install(app)


@app.websocket("/ws/{room}")
async def chat(websocket: WebSocket, room: str) -> None:
    since = Resume.from_query(websocket)
    async with manager.connect(websocket, room=f"chat:{room}", since=since) as connection:
        async for message in connection.iter_json():
            said = {"type": "said", "text": str(message["text"])}
            await manager.broadcast(said, room=f"chat:{room}")


@app.get("/rooms/{room}/messages")
async def recent(room: str, limit: int = 50) -> list[dict[str, Any]]:
    recorded = await manager.history(f"chat:{room}", limit=limit)
    return [{"at": each.sent_at, "offset": each.position.offset, "message": each.message} for each in recorded]
