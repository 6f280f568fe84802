from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from hubbub import ConnectionManager

app = FastAPI()
manager = ConnectionManager()
manager.install(app)


@app.websocket("/ws/{user_id}")
async def chat(websocket: WebSocket, user_id: str) -> None:
    await manager.connect(websocket, user_id)
    try:
        while True:
            data = await websocket.receive_json()
            if "to" in data:
                await manager.send_to_user(data["to"], f"{user_id} to you: {data['text']}")
            else:
                await manager.broadcast(f"{user_id}: {data['text']}")
    except WebSocketDisconnect:
        manager.disconnect(websocket)
        await manager.broadcast(f"{user_id} left")


@app.get("/online/{user_id}")
async def online(user_id: str) -> bool:
    return await manager.is_online(user_id)
