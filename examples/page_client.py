"""A chat whose page needs no bundler: it reconnects by itself, and receives the messages it missed."""

from typing import Annotated

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, StringConstraints

from hubbub import ConnectionManager, History, RoomOptions
from hubbub.client import BrowserClient

app = FastAPI()
manager = ConnectionManager(rooms={"chat:*": RoomOptions(history=History(size=500, ttl_s=3600))})
manager.install(app)
app.mount("/hubbub", BrowserClient())
live = manager.endpoint("/live", auth=None)

PAGE = """<!doctype html>
<title>Chat</title>
<p id="state"></p>
<form><input autofocus placeholder="Say something"></form>
<ul></ul>
<script type="module">
  import { Centrifuge } from "/hubbub/hubbub.js";

  const client = new Centrifuge("/live");
  const chat = client.newSubscription("chat:lobby");
  const [list, state, form] = ["ul", "#state", "form"].map((found) => document.querySelector(found));
  chat.on("publication", ({ data }) => {
    const item = document.createElement("li");
    item.textContent = data.text;
    list.append(item);
  });
  chat.on("subscribed", ({ wasRecovering, recovered }) => {
    if (wasRecovering && !recovered) location.reload();  // messages are missing: load the page's state again
  });
  client.on("state", ({ newState }) => { state.textContent = newState; });
  form.onsubmit = async (event) => {
    event.preventDefault();
    const { value } = form.elements[0];
    try {
      await chat.publish({ text: value });
      form.reset();
    } catch ({ message }) {
      state.textContent = `not sent: ${message}`;
    }
  };
  chat.subscribe();
  client.connect();
</script>
"""


class Said(BaseModel):
    text: Annotated[str, StringConstraints(min_length=1, max_length=2000)]


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    return PAGE


@live.room("chat:{room}", sends=Said)
async def everybody(room: str) -> bool:
    return True


@live.publish("chat:{room}")
async def say(said: Said, room: str) -> Said:
    return said
