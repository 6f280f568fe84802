from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query
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
    user_id: str
    text: str


@live.room("chat:{room}", sends=Said)  # join and leave
async def may_join(room: str, user: User) -> bool:
    return room != "staff" or user == "ann"


@live.on("say")
async def say(message: Say, connection: Connection, user: User) -> None:
    if not connection.is_subscribed(f"chat:{message.room}"):
        raise HTTPException(403, "join first")
    await manager.broadcast(Said(user_id=user, text=message.text), room=f"chat:{message.room}")
