from collections import defaultdict
from typing import Any

from fastapi import FastAPI, WebSocket, WebSocketDisconnect


class ConnectionManager:
    def __init__(self) -> None:
        self.rooms: dict[str, dict[str, list[WebSocket]]] = defaultdict(dict)

    async def connect(self, websocket: WebSocket, room: str, user_id: str) -> None:
        await websocket.accept()
        self.rooms[room].setdefault(user_id, []).append(websocket)

    def disconnect(self, websocket: WebSocket, room: str, user_id: str) -> None:
        self.rooms[room][user_id].remove(websocket)
        if not self.rooms[room][user_id]:
            del self.rooms[room][user_id]

    async def broadcast_to_room(self, room: str, message: dict[str, Any]) -> None:
        for websockets in self.rooms[room].values():
            for websocket in websockets:
                await websocket.send_json(message)

    async def send_to_user(self, user_id: str, message: dict[str, Any]) -> None:
        for users in self.rooms.values():
            for websocket in users.get(user_id, []):
                await websocket.send_json(message)


app = FastAPI()
manager = ConnectionManager()


@app.websocket("/ws/{room}/{user_id}")
async def chat(websocket: WebSocket, room: str, user_id: str) -> None:
    await manager.connect(websocket, room, user_id)
    await manager.broadcast_to_room(room, {"type": "joined", "user": user_id})
    try:
        while True:
            data = await websocket.receive_json()
            if "to" in data:
                await manager.send_to_user(data["to"], {"type": "whisper", "user": user_id, "text": data["text"]})
            else:
                await manager.broadcast_to_room(room, {"type": "said", "user": user_id, "text": data["text"]})
    except WebSocketDisconnect:
        manager.disconnect(websocket, room, user_id)
        await manager.broadcast_to_room(room, {"type": "left", "user": user_id})
