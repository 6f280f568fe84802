from collections import defaultdict
from typing import Any

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()
rooms: dict[str, set[WebSocket]] = defaultdict(set)


async def send_to(room: str, message: dict[str, Any]) -> None:
    for websocket in list(rooms[room]):
        await websocket.send_json(message)


@app.websocket("/ws")
async def socket(websocket: WebSocket, name: str) -> None:
    await websocket.accept()
    try:
        while True:
            message = await websocket.receive_json()
            kind, room = message.get("type"), message.get("room")
            if kind == "join":
                if room == "staff" and name != "ann":
                    await websocket.send_json({"type": "error", "id": message.get("id"), "error": "forbidden"})
                else:
                    rooms[room].add(websocket)
                    await websocket.send_json({"type": "joined", "id": message.get("id"), "room": room})
            elif kind == "say":
                text = message.get("text")
                if websocket not in rooms[room]:
                    await websocket.send_json({"type": "error", "id": message.get("id"), "error": "join first"})
                elif not isinstance(text, str) or not text:
                    await websocket.send_json({"type": "error", "id": message.get("id"), "error": "no text"})
                else:
                    await send_to(room, {"type": "said", "user_id": name, "text": text})
            elif kind == "leave":
                rooms[room].discard(websocket)
            elif kind == "ping":
                await websocket.send_json({"type": "pong"})
            else:
                await websocket.send_json({"type": "error", "id": message.get("id"), "error": "unknown type"})
    except WebSocketDisconnect:
        for members in rooms.values():
            members.discard(websocket)
