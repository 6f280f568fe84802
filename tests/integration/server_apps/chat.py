"""What every server is to serve the same: a chat, handlers that end in every way, and what the manager counts."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException

import hubbub.connections.sweeper
from hubbub import Connection, ConnectionManager, Limits
from hubbub.metrics.counters import Stats

# A handler of its own: what servers do to the root logger differs.
_printed = logging.StreamHandler()
_printed.setFormatter(logging.Formatter("[%(name)s] %(levelname)s %(message)s"))
logging.getLogger("hubbub").addHandler(_printed)
logging.getLogger("hubbub").setLevel(logging.INFO)
logging.getLogger("hubbub").propagate = False

app = FastAPI()
# No test is to wait long for a server that takes no close, nor for a client that vanished.
hubbub.connections.sweeper._SWEEP_S = 0.1
manager = ConnectionManager(limits=Limits(close_timeout_s=1.0))
manager.install(app)
seen: dict[str, list[Any]] = {}
"""What the handlers learnt, by what the client called itself."""


@app.get("/stats")
async def stats() -> Stats:
    return manager.stats()


@app.get("/loop")
async def loop() -> str:
    return type(asyncio.get_running_loop()).__module__


@app.get("/seen/{name}")
async def what_was_seen(name: str) -> list[Any]:
    return seen.get(name, [])


@app.websocket("/ws/{room}/{user}")
async def chat(websocket: WebSocket, room: str, user: str) -> None:
    async with manager.connect(websocket, user, room=room) as connection:
        await connection.send({"welcome": user})
        async for message in connection:
            if isinstance(message, bytes):
                await manager.broadcast(message, room=room)
            else:
                await obey(connection, room, **json.loads(message))


async def obey(connection: Connection, room: str, do: str, body: Any = None, to: str = "") -> None:
    """Does what a client of the chat asks for."""
    message = {"from": connection.user_id, "body": body}
    match do:
        case "broadcast":
            await manager.broadcast(message, room=room)
        case "tell others":
            await manager.broadcast(message, room=room, exclude=connection)
        case "tell":
            await connection.send({"reached": await manager.send_to_user(to, message)})
        case "echo":
            await connection.send(message)
        case "echo by hand":
            await connection.websocket.send_json(message)
        case "kick":
            await manager.disconnect_user(to)
        case "crash":
            raise RuntimeError("crashed as it was told to")


@app.websocket("/crashing")
async def crashing(websocket: WebSocket) -> None:
    """Crashes outside of any block, so that the middleware has to close."""
    await manager.connect(websocket)
    await websocket.receive_text()
    raise RuntimeError("crashed as it was told to")


@app.websocket("/closing/{name}")
async def closing(websocket: WebSocket, name: str) -> None:
    """Closes, and goes on as if nothing had happened."""
    connection = await manager.connect(websocket)
    await connection.close(4001, "enough")
    seen[name] = await sent_after_the_end(connection)


@app.websocket("/refusing")
async def refusing(websocket: WebSocket) -> None:
    """Refuses before it accepts."""
    raise WebSocketException(4003, "not your room")


@app.websocket("/receiving/{name}")
async def receiving(websocket: WebSocket, name: str) -> None:
    """Hears that its client is gone, and goes on as if nothing had happened."""
    connection = await manager.connect(websocket)
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect as error:
        seen[name] = [error.code, *await sent_after_the_end(connection)]


@app.websocket("/pushing/{name}")
async def pushing(websocket: WebSocket, name: str) -> None:
    """Never receives."""
    async with manager.connect(websocket) as connection:
        while await connection.send("tick"):  # noqa: ASYNC110 - it is the sending that tells
            await asyncio.sleep(0.01)
        seen[name] = await sent_after_the_end(connection)


@app.websocket("/pushing-by-hand/{name}")
async def pushing_by_hand(websocket: WebSocket, name: str) -> None:
    """Never receives, and sends past the manager."""
    connection = await manager.connect(websocket)
    try:
        while True:
            await websocket.send_text("tick")
            await asyncio.sleep(0.01)
    except WebSocketDisconnect:
        seen[name] = await sent_after_the_end(connection)


async def sent_after_the_end(connection: Connection) -> list[Any]:
    """What sends and closes give on a socket that is gone."""
    given: list[Any] = [await connection.send("too late"), await connection.send_bytes(b"too late")]
    try:
        await connection.websocket.send_text("too late")
    except (WebSocketDisconnect, RuntimeError) as error:
        given.append("WebSocketDisconnect" if isinstance(error, WebSocketDisconnect) else "RuntimeError")
    await connection.close()
    return given
