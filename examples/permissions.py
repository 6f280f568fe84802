"""An endpoint whose rooms are groups: members read and write, and lose the room at once when they are removed."""

from typing import Annotated

from fastapi import Depends, FastAPI, Query
from pydantic import BaseModel, StringConstraints

from hubbub import ConnectionManager, History, RoomOptions

app = FastAPI()
manager = ConnectionManager(
    rooms={"group:{group_id}": RoomOptions(history=History(500, ttl_s=86_400), announce=True, client_presence=True)}
)
manager.install(app)
members: dict[int, set[str]] = {1: {"ann", "bob"}, 2: {"bob"}}  # in a real app, a database


async def current_user(name: Annotated[str, Query()]) -> str:
    return name  # in a real app, a JWTAuth


User = Annotated[str, Depends(current_user)]
live = manager.endpoint("/live", auth=current_user)


class Note(BaseModel):
    text: Annotated[str, StringConstraints(min_length=1, max_length=2000)]


class Noted(BaseModel):
    by: str
    text: str


@live.room("group:{group_id}", sends=Noted)
async def may_read(group_id: int, user: User) -> bool:
    return user in members.get(group_id, ())


@live.publish("group:{group_id}")
async def note(message: Note, group_id: int, user: User) -> Noted:
    return Noted(by=user, text=message.text)


@app.delete("/groups/{group_id}/members/{user_id}")
async def remove(group_id: int, user_id: str) -> dict[str, bool]:
    members.get(group_id, set()).discard(user_id)  # first, so that a rule that runs now refuses
    return {"was_connected": await manager.unsubscribe(user_id, f"group:{group_id}")}
