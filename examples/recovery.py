"""An endpoint with a room that clients recover: those that reconnect miss nothing, new ones get the last headlines."""

from fastapi import FastAPI
from pydantic import BaseModel

from hubbub import ConnectionManager, History, RoomOptions

app = FastAPI()
manager = ConnectionManager(rooms={"news:*": RoomOptions(history=History(1_000, ttl_s=3_600), replay=20)})
manager.install(app)
live = manager.endpoint("/live", auth=None)  # everybody may connect


class Headline(BaseModel):
    title: str


@live.room("news:{topic}", sends=Headline)
async def everybody(topic: str) -> bool:
    return True


@app.post("/news/{topic}")
async def publish(topic: str, headline: Headline) -> None:
    await manager.broadcast(headline, room=f"news:{topic}")
