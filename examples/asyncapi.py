"""An endpoint that describes itself."""

from typing import Annotated

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

from hubbub import Connection, ConnectionManager, History, RoomOptions

app = FastAPI(title="Chat", version="1.0.0")
manager = ConnectionManager(rooms={"chat:*": RoomOptions(history=History(500), replay=50)})
manager.install(app)
live = manager.endpoint("/live", auth=None)


class Say(BaseModel):
    room: str
    text: Annotated[str, Field(min_length=1, max_length=2000, examples=["hello"])]


class Said(BaseModel):
    """A message in a chat room."""

    text: str


@live.room("chat:{room}", sends=Said, tags=["chat"])
async def may_read(room: Annotated[str, Field(description="The name of the room")]) -> bool:
    """Everybody reads every room but the one of the staff."""
    return room != "staff"


@live.on("say", tags=["chat"], errors={403: "the client is not subscribed to the room"})
async def say(message: Say, connection: Connection) -> Said:
    """Says something to all in a room."""
    if not connection.is_subscribed(f"chat:{message.room}"):
        raise HTTPException(403, "subscribe to the room first")
    said = Said(text=message.text)
    await manager.broadcast(said, room=f"chat:{message.room}")
    return said
