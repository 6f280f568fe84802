from fastapi import FastAPI, WebSocket

from hubbub import ConnectionManager, History, RoomOptions

app = FastAPI()
manager = ConnectionManager(rooms={"chat:*": RoomOptions(history=History(500, ttl_s=86_400))})
manager.install(app)


@app.websocket("/ws/{room}")  # the clients that exist
async def chat(websocket: WebSocket, room: str) -> None:
    async with manager.connect(websocket, room=f"chat:{room}") as connection:
        async for text in connection.iter_text():
            await manager.broadcast(text, room=f"chat:{room}")


live = manager.endpoint("/live", auth=None)  # new clients, with an SDK


@live.room("chat:{room}", sends=str)
async def may_read(room: str) -> bool:
    return True


@live.publish("chat:{room}")
async def publish(text: str, room: str) -> str:
    return text


@app.post("/rooms/{room}/news")
async def news(room: str, text: str) -> None:
    await manager.broadcast(text, room=f"chat:{room}")
