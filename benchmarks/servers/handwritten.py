"""The usual hand-written manager, with rooms and users, on FastAPI and uvicorn's defaults."""

from collections import defaultdict

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from benchmarks.servers.ticker import watch


class ConnectionManager:
    def __init__(self) -> None:
        self.rooms: dict[str, list[WebSocket]] = defaultdict(list)

    async def connect(self, websocket: WebSocket, room: str) -> None:
        await websocket.accept()
        self.rooms[room].append(websocket)

    def disconnect(self, websocket: WebSocket, room: str) -> None:
        self.rooms[room].remove(websocket)

    async def broadcast(self, message: str, room: str) -> None:
        for connection in self.rooms[room]:
            await connection.send_text(message)


app = FastAPI()
manager = ConnectionManager()
watch(app)


@app.websocket("/room/{room}")
async def chat(websocket: WebSocket, room: str) -> None:
    await manager.connect(websocket, room)
    try:
        while True:
            message = await websocket.receive_text()
            await manager.broadcast(message, room)
    except WebSocketDisconnect:
        manager.disconnect(websocket, room)


@app.websocket("/user/{user}")
async def user(websocket: WebSocket, user: str) -> None:
    await chat(websocket, user)


@app.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        pass
