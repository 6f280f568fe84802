from typing import Annotated, Literal

from fastapi import Depends, FastAPI, HTTPException, Query
from pydantic import BaseModel, Field

from hubbub import Connection, ConnectionManager, History, RoomOptions

app = FastAPI()
manager = ConnectionManager(rooms={"chat:*": RoomOptions(history=History(500, ttl_s=86_400))})
manager.install(app)


async def current_user(name: Annotated[str, Query(min_length=1)]) -> str:
    return name  # in a real app, a JWTAuth


User = Annotated[str, Depends(current_user)]
live = manager.endpoint("/live", auth=current_user)


class Say(BaseModel):
    room: str
    text: str = Field(min_length=1, max_length=2000)


class Said(BaseModel):
    type: Literal["said"] = "said"
    user_id: str
    text: str


class Closed(BaseModel):
    type: Literal["closed"] = "closed"
    room: str


@live.room("chat:{room}", sends=Said | Closed)
async def may_join(room: str, user: User) -> bool:
    return room != "staff" or user == "ann"


@live.on("say")
async def say(message: Say, connection: Connection, user: User) -> Said:
    if not connection.is_subscribed(f"chat:{message.room}"):
        raise HTTPException(403, "join the room first")
    said = Said(user_id=user, text=message.text)
    await manager.broadcast(said, room=f"chat:{message.room}")
    return said


@app.post("/rooms/{room}/close")
async def close(room: str) -> None:
    await manager.broadcast(Closed(room=room), room=f"chat:{room}")
