from fastapi import FastAPI
from pydantic import BaseModel, PositiveInt

from hubbub import ConnectionManager, History, Room, RoomOptions

app = FastAPI()
manager = ConnectionManager(rooms={"ticket:*": RoomOptions(history=History(100, ttl_s=86_400))})
manager.install(app)
live = manager.endpoint("/live", auth=None)


class Note(BaseModel):
    text: str


@live.room("ticket:{id}", sends=Note)
async def may_read(id: PositiveInt) -> bool:
    return True  # in a real app, whether the user may


def ticket(id: int) -> Room[Note]:
    return live.room_of("ticket:{id}", id=id)


@app.post("/tickets/{id}/notes")
async def add_note(id: int, note: Note) -> None:
    await ticket(id).broadcast(note)


@app.get("/tickets/{id}/notes")
def notes(id: int) -> list[Note]:
    return [recorded.message for recorded in ticket(id).from_thread.history()]
