import os
import secrets

from fastapi import FastAPI

from hubbub import ConnectionManager, RoomOptions

app = FastAPI()
manager = ConnectionManager(rooms={"news:*": RoomOptions(history=100)})
manager.install(app)
live = manager.endpoint("/live", auth=None)

# Without an API_KEY, the key is one that nobody knows.
manager.http_api(app, "/api", key=os.environ.get("API_KEY") or secrets.token_urlsafe(32))


@live.room("news:{topic}")
async def anybody(topic: str) -> bool:
    return True
