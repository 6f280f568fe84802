"""A chat that stores its messages: a database session for each message, not for each socket."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, WebSocket
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field, ValidationError

from hubbub import ConnectionManager

app = FastAPI()
manager = ConnectionManager()
manager.install(app)

database = "chat.db"


@contextmanager
def session() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(database, check_same_thread=False)  # several threads use it, one at a time
    try:
        with connection:  # commits, or rolls back
            connection.execute("CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY, room TEXT, body TEXT)")
            yield connection
    finally:
        connection.close()


def save(room: str, body: str) -> dict[str, Any]:
    with session() as db:
        cursor = db.execute("INSERT INTO messages (room, body) VALUES (?, ?)", (room, body))
        return {"type": "message", "id": cursor.lastrowid, "body": body}


class Say(BaseModel):
    body: str = Field(max_length=2000)


@app.websocket("/ws/{room}")
async def chat(websocket: WebSocket, room: str) -> None:
    async with manager.connect(websocket, room=room) as connection:
        async for message in connection.iter_json():
            try:
                say = Say.model_validate(message)
            except ValidationError as error:
                await connection.send({"type": "error", "message": error.errors()[0]["msg"]})
            else:
                saved = await run_in_threadpool(save, room, say.body)
                await manager.broadcast(saved, room=room)


def per_request() -> Iterator[sqlite3.Connection]:
    with session() as db:
        yield db


@app.get("/rooms/{room}/messages")
def messages(room: str, db: Annotated[sqlite3.Connection, Depends(per_request)]) -> list[str]:
    rows = db.execute("SELECT body FROM messages WHERE room = ? ORDER BY id", (room,))
    return [body for (body,) in rows]
