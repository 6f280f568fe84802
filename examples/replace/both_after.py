from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from hubbub import ConnectionManager

app = FastAPI()
manager = ConnectionManager()
manager.install(app)


@app.websocket("/ws/{room}/{user_id}")
async def chat(websocket: WebSocket, room: str, user_id: str) -> None:
    await manager.connect(websocket, user_id, room=room)
    await manager.broadcast_to_room(room, {"type": "joined", "user": user_id})
    try:
        while True:
            data = await websocket.receive_json()
            if "to" in data:
                await manager.send_to_user(data["to"], {"type": "whisper", "user": user_id, "text": data["text"]})
            else:
                await manager.broadcast_to_room(room, {"type": "said", "user": user_id, "text": data["text"]})
    except WebSocketDisconnect:
        manager.disconnect(websocket)
        await manager.broadcast_to_room(room, {"type": "left", "user": user_id})
