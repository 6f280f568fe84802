"""A page that reconnects by itself and receives the messages it missed."""

from fastapi import FastAPI, WebSocket
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field, ValidationError

from hubbub import ConnectionManager, History, Resume, RoomOptions
from hubbub.client import BrowserClient

app = FastAPI()
manager = ConnectionManager(rooms={"chat:*": RoomOptions(history=History(size=500, ttl_s=3600), positions=True)})
manager.install(app)
app.mount("/hubbub", BrowserClient())

PAGE = """<!doctype html>
<title>Chat</title>
<p id="state"></p>
<form><input autofocus placeholder="Say something"></form>
<ul></ul>
<script type="module">
  import { HubbubClient } from "/hubbub/hubbub.js";

  const client = new HubbubClient("/ws/lobby");
  client.on("message", ({ text }) => {
    const item = document.createElement("li");
    item.textContent = text;
    document.querySelector("ul").append(item);
  });
  client.on("state", (state) => { document.querySelector("#state").textContent = state; });
  client.on("reset", () => location.reload());  // messages are missing: load the page's state again
  document.querySelector("form").onsubmit = (event) => {
    event.preventDefault();
    client.send({ text: document.querySelector("input").value });  // false: not connected, nothing was sent
    event.target.reset();
  };
</script>
"""


class Say(BaseModel):
    text: str = Field(max_length=2000)


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    return PAGE


@app.websocket("/ws/{room}")
async def chat(websocket: WebSocket, room: str) -> None:
    since = Resume.from_query(websocket)
    async with manager.connect(websocket, room=f"chat:{room}", since=since) as connection:
        async for message in connection.iter_json():
            try:
                say = Say.model_validate(message)
            except ValidationError as error:
                await connection.send({"type": "error", "message": error.errors()[0]["msg"]})
            else:
                await manager.broadcast({"type": "said", "text": say.text}, room=f"chat:{room}")
