"""An endpoint: functions that answer the clients of the Centrifugo SDKs."""

from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query
from pydantic import BaseModel, StringConstraints

from hubbub import Connection, ConnectionManager, History, RoomOptions

app = FastAPI()
manager = ConnectionManager(rooms={"chat:*": RoomOptions(history=History(500, ttl_s=86_400), replay=50, announce=True)})
manager.install(app)


async def current_user(name: Annotated[str, Query()] = "guest") -> str:
    return name  # in a real app, a JWTAuth


User = Annotated[str, Depends(current_user)]
live = manager.endpoint("/live", auth=current_user)


class Say(BaseModel):
    room: str
    text: Annotated[str, StringConstraints(min_length=1, max_length=2000)]


class Said(BaseModel):
    user_id: str
    text: str


@live.room("chat:{room}", sends=Said)
async def may_read(room: str, user: User) -> bool:
    return room != "staff" or user == "ann"


@live.on("say")
async def say(message: Say, connection: Connection, user: User) -> Said:
    if not connection.is_subscribed(f"chat:{message.room}"):
        raise HTTPException(403, "subscribe to the room first")
    said = Said(user_id=user, text=message.text)
    await manager.broadcast(said, room=f"chat:{message.room}")
    return said
