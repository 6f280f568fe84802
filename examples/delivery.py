"""Rooms with history: clients receive the last messages when they connect, and raw sockets are told of a gap."""

from typing import Annotated, Any

from fastapi import FastAPI, Query, WebSocket
from pydantic import BaseModel, Field, ValidationError

from hubbub import ConnectionManager, History, RoomOptions

app = FastAPI()
manager = ConnectionManager(rooms={"chat:*": RoomOptions(history=History(size=500, ttl_s=3600), replay=50)})
manager.install(app)


class Say(BaseModel):
    text: str = Field(max_length=2000)


@app.websocket("/ws/{room}")
async def chat(websocket: WebSocket, room: str) -> None:
    async with manager.connect(websocket, room=f"chat:{room}") as connection:
        async for message in connection.iter_json():
            try:
                say = Say.model_validate(message)
            except ValidationError as error:
                await connection.send({"type": "error", "message": error.errors()[0]["msg"]})
            else:
                await manager.broadcast({"type": "said", "text": say.text}, room=f"chat:{room}")


@manager.on_gap
async def reload(room: str) -> None:
    for connection in manager.connections(room=room):
        await connection.send({"type": "reload"})


@app.get("/rooms/{room}/messages")
async def recent(room: str, limit: Annotated[int, Query(ge=1, le=500)] = 50) -> list[dict[str, Any]]:
    recorded = await manager.history(f"chat:{room}", limit=limit)
    return [{"at": each.sent_at, "offset": each.position.offset, "message": each.message} for each in recorded]
