from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from hubbub import ConnectionManager

app = FastAPI()
manager = ConnectionManager()
manager.install(app)


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
