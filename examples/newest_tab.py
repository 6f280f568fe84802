"""One tab for each user: a new tab replaces the old one."""

from fastapi import FastAPI, WebSocket

from hubbub import ConnectionManager

app = FastAPI()
manager = ConnectionManager()
manager.install(app)


@app.websocket("/ws/{user_id}")
async def player(websocket: WebSocket, user_id: int) -> None:
    await manager.disconnect_user(user_id, code=4001, reason="opened in another tab")
    async with manager.connect(websocket, user_id) as connection:
        async for text in connection.iter_text():
            await connection.send(f"You said: {text}")
