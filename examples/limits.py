"""Limits below the defaults, and a route that reports how often they applied."""

from fastapi import FastAPI, WebSocket

from hubbub import ConnectionManager, Limits

app = FastAPI()
manager = ConnectionManager(
    limits=Limits(
        max_message_bytes=4096,
        max_messages_per_s=5,
        max_errors=3,
        max_connections_per_user=2,
        max_rooms_per_connection=8,
    ),
)
manager.install(app)


@app.websocket("/ws/{user_id}")
async def echo(websocket: WebSocket, user_id: str) -> None:
    async with manager.connect(websocket, user_id) as connection:
        async for message in connection.iter_json():
            await connection.send(message)


@app.get("/refused")
def refused() -> dict[str, dict[str, int]]:
    stats = manager.stats()
    return {"refused": dict(stats.refused), "errors": dict(stats.errors)}
