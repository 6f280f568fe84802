"""The smallest support desk: one room per ticket, for its customer and for an agent."""

from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from hubbub import Connection, ConnectionManager, History, RoomOptions
from hubbub.client import BrowserClient

app = FastAPI()
manager = ConnectionManager(rooms={"ticket:{ticket_id}": RoomOptions(history=History(100, ttl_s=86_400), replay=20)})
manager.install(app)
app.mount("/hubbub", BrowserClient())  # the module that the page imports
customers = {1: "ann", 2: "bob"}  # of the tickets


async def current_user(name: Annotated[str, Query()]) -> str:
    return name


User = Annotated[str, Depends(current_user)]
live = manager.endpoint("/live", auth=current_user)


class Say(BaseModel):
    ticket_id: int
    text: str = Field(min_length=1, max_length=2000)


class Said(BaseModel):
    by: str
    text: str


@live.room("ticket:{ticket_id}", sends=Said)
async def look_at(ticket_id: int, user: User) -> bool:
    return user in ("dana", customers.get(ticket_id))


@live.on("say")
async def say(message: Say, connection: Connection, user: User) -> Said:
    room = f"ticket:{message.ticket_id}"
    if not connection.is_subscribed(room):
        raise HTTPException(403, "open the ticket first")
    said = Said(by=user, text=message.text)
    await manager.broadcast(said, room=room)
    return said


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(Path(__file__).with_name("smallest.html"))
