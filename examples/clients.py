"""An endpoint for the clients of docs/clients.md, and a page with the official JavaScript SDK."""

import os
import time
from typing import Annotated

import jwt
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field

from hubbub import Connection, ConnectionManager, History, RoomOptions
from hubbub.auth import Claims, JWTAuth

SECRET = os.environ["JWT_KEY"]

app = FastAPI()
manager = ConnectionManager(rooms={"chat:*": RoomOptions(history=History(500, ttl_s=86_400))})
manager.install(app)
current_user = JWTAuth(SECRET, algorithms=["HS256"])
User = Annotated[Claims, Depends(current_user)]
live = manager.endpoint("/live", auth=current_user)
app.mount("/sdk", StaticFiles(directory="node_modules/centrifuge/build", check_dir=False))  # npm install centrifuge


@app.post("/token")
async def token(name: str) -> str:  # a real one checks a password, or uses an identity provider
    return jwt.encode({"sub": name, "exp": int(time.time()) + 900}, SECRET, "HS256")


class Say(BaseModel):
    room: str
    text: str = Field(min_length=1, max_length=2000)


class Said(BaseModel):
    user_id: str
    text: str


@live.room("chat:{room}", sends=Said)
async def may_read(room: str, user: User) -> bool:
    return room != "staff" or user.sub == "ann"


@live.on("say")
async def say(message: Say, connection: Connection, user: User) -> Said:
    if not connection.is_subscribed(f"chat:{message.room}"):
        raise HTTPException(403, "subscribe to the room first")
    said = Said(user_id=user.sub, text=message.text)
    await manager.broadcast(said, room=f"chat:{message.room}")
    return said


PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Chat</title>
<link rel="icon" href="data:,">
<p id="state"></p>
<form><input autofocus placeholder="Say something"></form>
<ul></ul>
<script type="module">
  import { Centrifuge } from "/sdk/index.mjs";

  async function getToken() {
    const response = await fetch("/token?name=ann", { method: "POST" });
    if (!response.ok) throw new Error(`no token: ${response.status}`);  // the SDK tries again
    return response.json();
  }
  const show = (selector, text) => { document.querySelector(selector).textContent = text; };

  const client = new Centrifuge(`${location.origin.replace("http", "ws")}/live`, { getToken });
  client.on("state", ({ newState }) => show("#state", newState));
  client.on("disconnected", ({ code, reason }) => show("#state", `${reason} (${code})`));  // it does not reconnect
  const chat = client.newSubscription("chat:lobby");
  chat.on("publication", ({ data }) => {
    const item = document.createElement("li");
    item.textContent = `${data.user_id}: ${data.text}`;
    document.querySelector("ul").append(item);
  });
  chat.on("subscribed", ({ wasRecovering, recovered }) => {
    if (wasRecovering && !recovered) location.reload();  // messages are missing: load the page's state again
  });
  chat.subscribe();
  client.connect();

  document.querySelector("form").onsubmit = async (event) => {
    event.preventDefault();
    const text = document.querySelector("input").value;
    event.target.reset();
    try {
      await client.rpc("say", { room: "lobby", text });
    } catch (error) {
      show("#state", `${error.message} (${error.code})`);
    }
  };
</script>
"""


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    return PAGE
