from fastapi import FastAPI, WebSocket, WebSocketDisconnect


class ConnectionManager:
    def __init__(self) -> None:
        self.active_connections: dict[str, WebSocket] = {}

    async def connect(self, websocket: WebSocket, user_id: str) -> None:
        await websocket.accept()
        self.active_connections[user_id] = websocket

    def disconnect(self, user_id: str) -> None:
        del self.active_connections[user_id]

    async def send_personal_message(self, message: str, user_id: str) -> None:
        if user_id in self.active_connections:
            await self.active_connections[user_id].send_text(message)

    async def broadcast(self, message: str) -> None:
        for websocket in self.active_connections.values():
            await websocket.send_text(message)


app = FastAPI()
manager = ConnectionManager()


@app.websocket("/ws/{user_id}")
async def chat(websocket: WebSocket, user_id: str) -> None:
    await manager.connect(websocket, user_id)
    try:
        while True:
            data = await websocket.receive_json()
            if "to" in data:
                await manager.send_personal_message(f"{user_id} to you: {data['text']}", data["to"])
            else:
                await manager.broadcast(f"{user_id}: {data['text']}")
    except WebSocketDisconnect:
        manager.disconnect(user_id)
        await manager.broadcast(f"{user_id} left")


@app.get("/online/{user_id}")
async def online(user_id: str) -> bool:
    return user_id in manager.active_connections
