"""The same routes on FastAPI alone: the cost of a connection and of a received message without hubbub."""

import json
from itertools import count

from fastapi import FastAPI, WebSocket

from benchmarks.servers.typed import Say, said

app = FastAPI()
received = count(1)


@app.websocket("/room/{room}")
async def chat(websocket: WebSocket, room: str) -> None:
    await websocket.accept()
    async for _ in websocket.iter_text():
        pass


@app.websocket("/member/{room}/{user}")
async def member(websocket: WebSocket, room: str, user: str) -> None:
    await websocket.accept()
    async for _ in websocket.iter_text():
        pass


@app.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for message in websocket.iter_text():
        await websocket.send_text(message)


@app.websocket("/ask")
async def ask(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        message = Say.model_validate(json.loads(text))
        await websocket.send_text(said(message).model_dump_json())


@app.websocket("/read/text")
async def read_text(websocket: WebSocket) -> None:
    await websocket.accept()
    async for _ in websocket.iter_text():
        if not next(received) % 100:
            await websocket.send_text("#")


@app.websocket("/read/json")
async def read_json(websocket: WebSocket) -> None:
    await websocket.accept()
    async for _ in websocket.iter_json():
        if not next(received) % 100:
            await websocket.send_text("#")
