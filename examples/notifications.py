"""Notifications that no user misses: stored first, then pushed. Users fetch the unread ones when they connect."""

import itertools
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fastapi import FastAPI, WebSocket
from pydantic import BaseModel, ValidationError

from hubbub import ConnectionManager

app = FastAPI()
manager = ConnectionManager()
manager.install(app)


@dataclass
class Notification:
    id: int
    user_id: str
    text: str
    read: bool = False


class Notifications:
    """A stand-in for a database table."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._rows: dict[int, Notification] = {}

    async def add(self, user_id: str, text: str) -> Notification:
        row = Notification(next(self._ids), user_id, text)
        self._rows[row.id] = row
        return row

    async def unread(self, user_id: str) -> list[Notification]:
        return [row for row in self._rows.values() if row.user_id == user_id and not row.read]

    async def mark_read(self, user_id: str, up_to: int) -> None:
        for row in self._rows.values():
            if row.user_id == user_id and row.id <= up_to:
                row.read = True


notifications = Notifications()
mails: list[tuple[str, str]] = []


def pushable(row: Notification) -> dict[str, Any]:
    return {"type": "notification", **asdict(row)}


@app.post("/users/{user_id}/notifications")
async def notify(user_id: str, text: str) -> None:
    row = await notifications.add(user_id, text)
    if not await manager.send_to_user(user_id, pushable(row)):
        mails.append((user_id, text))


class Read(BaseModel):
    type: Literal["read"]
    up_to: int


@app.websocket("/ws/{user_id}")
async def inbox(websocket: WebSocket, user_id: str) -> None:
    async with manager.connect(websocket, user_id) as connection:
        for row in await notifications.unread(user_id):  # after `connect`, so that none is missed
            await connection.send(pushable(row))
        async for message in connection.iter_json():
            try:
                read = Read.model_validate(message)
            except ValidationError as error:
                await connection.send({"type": "error", "message": error.errors()[0]["msg"]})
            else:
                await notifications.mark_read(user_id, read.up_to)
                await manager.send_to_user(user_id, read)
