from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

from hubbub import Connection, ConnectionManager, History, RoomOptions

app = FastAPI()
manager = ConnectionManager(rooms={"chat:*": RoomOptions(history=History(500, ttl_s=86_400))})
manager.install(app)
live = manager.endpoint("/live", auth=None)  # everybody may connect; auth= takes a dependency that returns the user


class Say(BaseModel):
    room: str
    text: str = Field(min_length=1, max_length=2000)


@live.room("chat:{room}", sends=Say)
async def may_read(room: str) -> bool:
    return room != "staff"


@live.on("say")
async def say(message: Say, connection: Connection) -> Say:
    if not connection.is_subscribed(f"chat:{message.room}"):
        raise HTTPException(403, "subscribe to the room first")
    await manager.broadcast(message, room=f"chat:{message.room}")
    return message
