"""Streams of events: the rooms of an endpoint for clients that only read, such as EventSource and curl."""

from typing import Annotated

from fastapi import Depends, FastAPI, Query
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from hubbub import ConnectionManager, History, RoomOptions

app = FastAPI()
manager = ConnectionManager(rooms={"chat:*": RoomOptions(history=History(500, ttl_s=86_400))})
manager.install(app)


async def current_user(name: Annotated[str, Query()] = "guest") -> str:
    return name  # in a real app, a JWTAuth


User = Annotated[str, Depends(current_user)]
live = manager.endpoint("/live", auth=current_user)


class Said(BaseModel):
    user_id: str
    text: str


@live.room("chat:{room}", sends=Said)
async def may_read(room: str, user: User) -> bool:
    return room != "staff" or user == "ann"


@app.post("/chat/{room}")
async def say(room: str, text: str, user: User) -> None:
    await manager.broadcast(Said(user_id=user, text=text), room=f"chat:{room}")


PAGE = """
<!doctype html>
<title>events</title>
<ul id="said"></ul>
<script>
  const source = new EventSource("/live/events?room=chat:lobby");
  source.onmessage = ({ data }) => show(JSON.parse(data).text);
  source.addEventListener("reset", () => show("some messages are lost: load the page again"));
  source.onerror = () => source.readyState === EventSource.CLOSED && show("refused");

  function show(text) {
    document.querySelector("#said").append(Object.assign(document.createElement("li"), { textContent: text }));
  }
</script>
"""


@app.get("/")
async def page() -> HTMLResponse:
    return HTMLResponse(PAGE)
