"""python-socketio on uvicorn, WebSocket only, with its Redis manager if HUBBUB_BENCH_REDIS is set.

The path of the other servers is a query parameter here.
"""

# mypy: disable-error-code="import-not-found,import-untyped,untyped-decorator"

import os
from typing import Any
from urllib.parse import parse_qs

import socketio

from benchmarks.servers.typed import Say, said


def manager() -> socketio.AsyncManager | None:
    url = os.environ.get("HUBBUB_BENCH_REDIS")
    if url is None:
        return None
    # No limits, as before redis-py 8: its defaults fail if a hundred publish at once, or if connecting takes 5 s.
    limits = {"max_connections": 10_000, "socket_timeout": None, "socket_connect_timeout": None}
    return socketio.AsyncRedisManager(url, redis_options=limits)


server = socketio.AsyncServer(async_mode="asgi", client_manager=manager())
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
async def ask(sid: str, data: dict[str, Any]) -> dict[str, Any]:
    return said(Say.model_validate(data)).model_dump(mode="json")


@server.event
async def say(sid: str, data: dict[str, Any]) -> None:
    answer = said(Say.model_validate(data))
    await server.emit("said", answer.model_dump(mode="json"), room=paths[sid])


@server.event
async def disconnect(sid: str) -> None:
    del paths[sid]
