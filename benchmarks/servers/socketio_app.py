"""python-socketio on uvicorn, WebSocket only. The path that the others have is a query parameter here."""

# mypy: disable-error-code="import-not-found,untyped-decorator"

from typing import Any
from urllib.parse import parse_qs

import socketio

server = socketio.AsyncServer(async_mode="asgi")
app = socketio.ASGIApp(server)
paths: dict[str, str] = {}


@server.event
async def connect(sid: str, environ: dict[str, Any]) -> None:
    paths[sid] = path = parse_qs(environ["QUERY_STRING"])["path"][0]
    await server.enter_room(sid, path)


@server.event
async def message(sid: str, data: str) -> None:
    path = paths[sid]
    await server.emit("message", data, room=sid if path == "/echo" else path)


@server.event
async def disconnect(sid: str) -> None:
    del paths[sid]
