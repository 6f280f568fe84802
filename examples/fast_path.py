"""Reports the share of the connections that hubbub writes to directly."""

import logging

from fastapi import FastAPI, WebSocket

from hubbub import ConnectionManager

logging.basicConfig(level=logging.INFO)  # if the share is not 1.0, one line of the log says why

app = FastAPI()
manager = ConnectionManager()
manager.install(app)


@app.websocket("/ws")
async def chat(websocket: WebSocket) -> None:
    async with manager.connect(websocket) as connection:
        async for text in connection.iter_text():
            await manager.broadcast(text)


@app.get("/fast-path")
def fast_path() -> float:
    return manager.stats().fast_path
