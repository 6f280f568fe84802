"""Rooms with announcements, users with several tabs, and routes for administrators."""

from typing import Any

from fastapi import FastAPI, WebSocket
from pydantic import BaseModel

from hubbub import Connection, ConnectionManager, Member, RoomOptions

app = FastAPI()
manager = ConnectionManager(
    rooms={
        "chat:*": RoomOptions(announce=True, grace_s=2.0),
        "private:*": RoomOptions(max_members=2),
    },
    everyone=RoomOptions(grace_s=2.0),  # `is_online` and `count_users()` still count a lost user for 2 s
)
manager.install(app)


@app.websocket("/ws/{user_id}")
async def chat(websocket: WebSocket, user_id: str) -> None:
    async with manager.connect(websocket, user_id, room="chat:lobby", info={"name": user_id.title()}) as connection:
        async for message in connection.iter_json():
            await handle(connection, message)


async def handle(connection: Connection, message: dict[str, Any]) -> None:
    match message:
        case {"type": "join", "room": str(room)}:
            await connection.join(f"chat:{room}")
        case {"type": "leave", "room": str(room)}:
            await connection.leave(f"chat:{room}")
        case {"type": "say", "room": str(room), "text": str(text)} if f"chat:{room}" in connection.rooms:
            said = {"type": "said", "room": room, "by": connection.user_id, "text": text}
            await manager.broadcast(said, room=f"chat:{room}")
        case {"type": "typing", "room": str(room)} if f"chat:{room}" in connection.rooms:
            typing = {"type": "typing", "room": room, "by": connection.user_id}
            await manager.broadcast(typing, room=f"chat:{room}", exclude=connection)
        case _:
            await connection.send({"type": "error", "code": "unknown", "message": "no such message"})


@app.get("/rooms/{room}")
async def who_is_here(room: str) -> list[Member]:
    return await manager.presence(f"chat:{room}")


@app.get("/online")
async def online() -> dict[str, int]:
    return {"users": await manager.count_users(), "connections": len(manager.active_connections)}


@app.get("/users/{user_id}")
async def user(user_id: str) -> dict[str, bool]:
    return {"online": await manager.is_online(user_id)}


class Notice(BaseModel):
    text: str


@app.post("/users/{user_id}/notices")
async def notify(user_id: str, notice: Notice) -> dict[str, bool]:
    return {"delivered": await manager.send_to_user(user_id, {"type": "notice", "text": notice.text})}


@app.delete("/users/{user_id}/connections")
async def sign_out(user_id: str) -> dict[str, bool]:
    return {"was_online": await manager.disconnect_user(user_id, reason="signed out")}
