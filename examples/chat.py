"""The smallest app: every message goes to every connected client."""

from fastapi import FastAPI, WebSocket

from hubbub import ConnectionManager

app = FastAPI()
manager = ConnectionManager()
manager.install(app)


@app.websocket("/ws")
async def chat(websocket: WebSocket) -> None:
    async with manager.connect(websocket) as connection:
        async for text in connection.iter_text():
            await manager.broadcast(text)
