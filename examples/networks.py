"""An endpoint that networks that break WebSockets reach, too. Serve with ``uvicorn examples.networks:app``."""

from typing import Any

from fastapi import FastAPI

from hubbub import ConnectionManager, History, RoomOptions

app = FastAPI()
manager = ConnectionManager(rooms={"chat:*": RoomOptions(history=History(500, ttl_s=3600))})
manager.install(app)
live = manager.endpoint("/live", auth=None)  # in a real app, a JWTAuth


@live.room("chat:{room}")
async def may_read(room: str) -> bool:
    return True


@live.publish("chat:{room}")
async def say(message: Any, room: str) -> Any:
    return message
