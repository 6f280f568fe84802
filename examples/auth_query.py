"""A token in the URL, for clients that can set neither headers nor subprotocols, and can handle a refused handshake."""

import os
from typing import Annotated

from fastapi import Depends, FastAPI, WebSocket

from hubbub import ConnectionManager
from hubbub.auth import Claims, JWTAuth

app = FastAPI()
manager = ConnectionManager()
manager.install(app)
device = JWTAuth(
    key=os.environ["JWT_KEY"],
    algorithms=["HS256"],
    audience="devices",
    query="token",
    refuse="http",
)
Device = Annotated[Claims, Depends(device)]


@app.websocket("/devices")
async def readings(websocket: WebSocket, device: Device) -> None:
    async with manager.connect(websocket, device.sub) as connection:
        async for reading in connection.iter_json():
            await manager.broadcast({"device": device.sub, "reading": reading}, room="readings")
