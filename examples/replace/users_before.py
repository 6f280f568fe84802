from typing import Any

from fastapi import FastAPI, WebSocket, WebSocketDisconnect


class ConnectionManager:
    def __init__(self) -> None:
        self.users: dict[int, list[WebSocket]] = {}

    async def connect(self, websocket: WebSocket, user_id: int) -> None:
        await websocket.accept()
        self.users.setdefault(user_id, []).append(websocket)

    def disconnect(self, websocket: WebSocket, user_id: int) -> None:
        self.users[user_id].remove(websocket)
        if not self.users[user_id]:
            del self.users[user_id]

    async def send_to_user(self, user_id: int, message: dict[str, Any]) -> None:
        for websocket in self.users.get(user_id, []):
            await websocket.send_json(message)

    async def broadcast(self, message: dict[str, Any]) -> None:
        for user_id in list(self.users):
            await self.send_to_user(user_id, message)

    @property
    def active_user_count(self) -> int:
        return len(self.users)


app = FastAPI()
manager = ConnectionManager()


@app.websocket("/ws/{user_id}")
async def inbox(websocket: WebSocket, user_id: int) -> None:
    await manager.connect(websocket, user_id)
    await manager.broadcast({"type": "online", "count": manager.active_user_count})
    try:
        while True:
            data = await websocket.receive_json()
            await manager.send_to_user(data["to"], {"type": "message", "from": user_id, "text": data["text"]})
            await websocket.send_json({"type": "sent"})
    except WebSocketDisconnect:
        manager.disconnect(websocket, user_id)
        await manager.broadcast({"type": "online", "count": manager.active_user_count})


@app.post("/users/{user_id}/poke")
async def poke(user_id: int) -> int:
    await manager.send_to_user(user_id, {"type": "poke"})
    return manager.active_user_count
