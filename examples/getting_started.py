"""A first app: a page, a WebSocket, and routes that push to it."""

import threading

from fastapi import FastAPI, WebSocket
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from hubbub import ConnectionManager

app = FastAPI()
manager = ConnectionManager()
manager.install(app)

PAGE = """<!doctype html>
<title>First chat</title>
<form><input autofocus placeholder="Say something"></form>
<ul></ul>
<script>
  const socket = new WebSocket(`${location.protocol.replace("http", "ws")}//${location.host}/ws`);
  socket.onmessage = ({ data }) => {
    const item = document.createElement("li");
    item.textContent = data;
    document.querySelector("ul").append(item);
  };
  document.querySelector("form").onsubmit = (event) => {
    event.preventDefault();
    socket.send(document.querySelector("input").value);
    event.target.reset();
  };
</script>
"""


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    return PAGE


@app.websocket("/ws")
async def chat(websocket: WebSocket) -> None:
    async with manager.connect(websocket) as connection:
        await connection.send({"type": "welcome", "online": len(manager.active_connections)})
        async for text in connection.iter_text():
            await manager.broadcast({"type": "message", "text": text})


class News(BaseModel):
    type: str = "news"
    title: str


@app.post("/news")
async def publish(news: News) -> None:
    await manager.broadcast(news)


@app.post("/alarm")
def alarm() -> None:
    manager.from_thread.broadcast({"type": "alarm"})


@app.post("/reports", status_code=202)
async def report() -> None:
    threading.Thread(target=write_report).start()


def write_report() -> None:
    manager.from_thread.broadcast({"type": "report", "ready": True})
