"""The token is the first message, for protocols that require it."""

import asyncio
import os

from fastapi import FastAPI, WebSocket

from hubbub import ConnectionManager
from hubbub.auth import InvalidToken, JWTAuth

app = FastAPI()
manager = ConnectionManager()
manager.install(app)
auth = JWTAuth(key=os.environ["JWT_KEY"], algorithms=["HS256"])


@app.websocket("/ws")
async def chat(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        async with asyncio.timeout(5):
            user = auth.verify(await websocket.receive_text())
    except (TimeoutError, KeyError):  # no message within 5 seconds, or a binary one
        await websocket.close(1008, "unauthorized: no token")
        return
    except InvalidToken as error:
        await websocket.close(error.code, error.reason)
        return
    async with manager.connect(websocket, user.sub, expires_at=user.expires_at) as connection:
        async for text in connection.iter_text():
            await manager.broadcast({"from": user.sub, "text": text})
