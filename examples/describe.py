"""A raw socket in the document, which only those with a key may read."""

import os
import secrets
from typing import Annotated

from fastapi import FastAPI, Header, HTTPException, WebSocket
from pydantic import BaseModel, ValidationError

from hubbub import ConnectionManager

app = FastAPI()
manager = ConnectionManager()
manager.install(app)
KEY = os.environ.get("DOCS_KEY") or secrets.token_hex()


async def with_key(x_key: Annotated[str, Header()]) -> None:
    if not secrets.compare_digest(x_key.encode(), KEY.encode()):
        raise HTTPException(403, "a wrong key")


live = manager.endpoint("/live", auth=None, docs=with_key)


class Stroke(BaseModel):
    x: int
    y: int


class Problem(BaseModel):
    problem: str


@app.websocket("/ws/{board}")
async def draw(websocket: WebSocket, board: str) -> None:
    async with manager.connect(websocket, room=board) as connection:
        async for message in connection.iter_json():
            try:
                stroke = Stroke.model_validate(message)
            except ValidationError as error:
                await connection.send(Problem(problem=error.errors()[0]["msg"]))
            else:
                await manager.broadcast(stroke, room=board)


manager.describe("/ws/{board}", receives=Stroke, sends=Stroke | Problem, summary="A whiteboard")
