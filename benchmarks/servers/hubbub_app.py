"""hubbub as in its README, with no configuration beyond ``manager.install(app)``.

The environment may contain the URL of a Redis server, and options of rooms (JSON: pattern to options).
"""

import json
import os
from itertools import count

from fastapi import FastAPI, WebSocket

from benchmarks.servers.ticker import watch
from hubbub import ConnectionManager, RoomOptions

app = FastAPI()
rooms = json.loads(os.environ.get("HUBBUB_BENCH_ROOMS", "{}"))
manager = ConnectionManager(
    os.environ.get("HUBBUB_BENCH_REDIS", "memory://"),
    rooms={pattern: RoomOptions(**options) for pattern, options in rooms.items()},
)
manager.install(app)
watch(app)
received = count(1)


@app.websocket("/room/{room}")
async def chat(websocket: WebSocket, room: str) -> None:
    async with manager.connect(websocket, room=room) as connection:
        async for message in connection:
            await manager.broadcast(message, room=room)


@app.websocket("/user/{user}")
async def user(websocket: WebSocket, user: str) -> None:
    async with manager.connect(websocket, user) as connection:
        async for message in connection:
            await manager.send_to_user(user, message)


@app.websocket("/member/{room}/{user}")
async def member(websocket: WebSocket, room: str, user: str) -> None:
    async with manager.connect(websocket, user, room=room) as connection:
        async for message in connection:
            await manager.broadcast(message, room=room)


@app.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    async with manager.connect(websocket) as connection:
        async for message in connection:
            await connection.send(message)


@app.websocket("/read/text")
async def read_text(websocket: WebSocket) -> None:
    async with manager.connect(websocket) as connection:
        async for _ in connection:
            if not next(received) % 100:
                await connection.send("#")


@app.websocket("/read/json")
async def read_json(websocket: WebSocket) -> None:
    async with manager.connect(websocket) as connection:
        async for _ in connection.iter_json():
            if not next(received) % 100:
                await connection.send("#")
