from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from hubbub import ConnectionManager

app = FastAPI()
manager = ConnectionManager()
manager.install(app)


@app.websocket("/ws/{room}")
async def chat(websocket: WebSocket, room: str) -> None:
    await manager.connect(websocket, room=room)
    await manager.broadcast_to_room(room, "Somebody came")
    try:
        async for text in websocket.iter_text():
            await manager.broadcast_to_room(room, text)
    finally:
        manager.disconnect(websocket, room)
    await manager.broadcast_to_room(room, "Somebody left")


@app.websocket("/ws/{room}/json")
async def chat_in_json(websocket: WebSocket, room: str) -> None:
    await manager.connect(websocket, room=room)
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
