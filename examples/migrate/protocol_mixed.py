from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, HTTPException, Query, WebSocket
from pydantic import BaseModel, Field

from hubbub import Connection, ConnectionManager, History, RoomOptions

app = FastAPI()
manager = ConnectionManager(rooms={"chat:*": RoomOptions(history=History(500, ttl_s=86_400))})
manager.install(app)


async def current_user(name: Annotated[str, Query()]) -> str:
    return name  # in a real app, a JWTAuth


User = Annotated[str, Depends(current_user)]
live = manager.endpoint("/live", auth=current_user)


class Say(BaseModel):
    room: str
    text: str = Field(min_length=1)


class Said(BaseModel):
    type: Literal["said"] = "said"  # for the old pages; delete it with them
    user_id: str
    text: str


async def broadcast(room: str, user: str, text: str) -> None:
    await manager.broadcast(Said(user_id=user, text=text), room=f"chat:{room}")


# New clients


@live.room("chat:{room}", sends=Said)
async def may_join(room: str, user: User) -> bool:
    return room != "staff" or user == "ann"


@live.on("say")
async def say(message: Say, connection: Connection, user: User) -> None:
    if not connection.is_subscribed(f"chat:{message.room}"):
        raise HTTPException(403, "join first")
    await broadcast(message.room, user, message.text)


# Old clients, at their old address: delete this part when the last one is gone


@app.websocket("/ws")
async def old(websocket: WebSocket, user: User) -> None:
    async with manager.connect(websocket, user_id=user) as connection:
        async for message in connection.iter_json():
            if (answer := await old_answer(message, connection, user)) is not None:
                await connection.send(answer)


async def old_answer(message: Any, connection: Connection, user: str) -> dict[str, Any] | None:
    error = {"type": "error", "id": message.get("id")}
    room = message.get("room")
    match message.get("type"):
        case "join":
            if not await may_join(room, user):
                return {**error, "error": "forbidden"}
            await connection.join(f"chat:{room}")
            return {"type": "joined", "id": message.get("id"), "room": room}
        case "say":
            text = message.get("text")
            if not connection.is_subscribed(f"chat:{room}"):
                return {**error, "error": "join first"}
            if not isinstance(text, str) or not text:
                return {**error, "error": "no text"}
            await broadcast(room, user, text)
        case "leave":
            await connection.leave(f"chat:{room}")
        case "ping":
            return {"type": "pong"}
        case _:
            return {**error, "error": "unknown type"}
    return None
