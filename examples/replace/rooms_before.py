from collections import defaultdict

from fastapi import FastAPI, WebSocket, WebSocketDisconnect


class ConnectionManager:
    def __init__(self) -> None:
        self.rooms: dict[str, list[WebSocket]] = defaultdict(list)

    async def connect(self, websocket: WebSocket, room: str) -> None:
        await websocket.accept()
        self.rooms[room].append(websocket)

    def disconnect(self, websocket: WebSocket, room: str) -> None:
        self.rooms[room].remove(websocket)
        if not self.rooms[room]:
            del self.rooms[room]

    async def broadcast_to_room(self, room: str, message: str) -> None:
        for websocket in self.rooms.get(room, []):
            await websocket.send_text(message)


app = FastAPI()
manager = ConnectionManager()


@app.websocket("/ws/{room}")
async def chat(websocket: WebSocket, room: str) -> None:
    await manager.connect(websocket, room)
    await manager.broadcast_to_room(room, "Somebody came")
    try:
        async for text in websocket.iter_text():
            await manager.broadcast_to_room(room, text)
    finally:
        manager.disconnect(websocket, room)
    await manager.broadcast_to_room(room, "Somebody left")


@app.websocket("/ws/{room}/json")
async def chat_in_json(websocket: WebSocket, room: str) -> None:
    await manager.connect(websocket, room)
    try:
        while True:
            data = await websocket.receive_json()
            await websocket.send_json({"received": data})
            await manager.broadcast_to_room(room, data["text"])
    except WebSocketDisconnect:
        manager.disconnect(websocket, room)


@app.get("/rooms")
async def rooms() -> list[str]:
    return sorted(manager.rooms)
