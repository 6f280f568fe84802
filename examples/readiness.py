"""An app for `hubbub run`, with the readiness check that a load balancer asks for."""

from fastapi import FastAPI, Response, WebSocket

from hubbub import ConnectionManager

app = FastAPI()
manager = ConnectionManager()
manager.install(app)


@app.get("/ready")
async def ready(response: Response) -> bool:
    response.status_code = 200 if manager.ready else 503
    return manager.ready


@app.websocket("/ws/{room}")
async def chat(websocket: WebSocket, room: str) -> None:
    async with manager.connect(websocket, room=room) as connection:
        async for message in connection:
            await manager.broadcast(message, room=room)
