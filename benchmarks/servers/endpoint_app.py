"""hubbub with an endpoint, and with raw sockets in the same rooms. No configuration beyond ``manager.install(app)``."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI, WebSocket

from benchmarks.servers.typed import Said, Say, said
from hubbub import ConnectionManager

app = FastAPI()
manager = ConnectionManager()
manager.install(app)
live = manager.endpoint("/live", auth=None)


@app.websocket("/room/{room}")
async def chat(websocket: WebSocket, room: str) -> None:
    async with manager.connect(websocket, room=room) as connection:
        async for message in connection:
            await manager.broadcast(message, room=room)


@app.websocket("/publish/{room}")
async def publish(websocket: WebSocket, room: str) -> None:
    async with manager.connect(websocket) as connection:
        async for message in connection:
            await manager.broadcast(message, room=room)


@live.room("{room}")
async def may_read(room: str) -> bool:
    return True


@live.on("say")
async def say(message: Say) -> None:
    await manager.broadcast(said(message), room="r")


@live.on("ask")
async def ask(message: Say) -> Said:
    return said(message)


async def one() -> str:
    return "one"


async def two(first: Annotated[str, Depends(one)]) -> str:
    return first


async def closed() -> AsyncIterator[str]:
    yield "closed"


def threaded() -> str:
    return "threaded"


@live.on("ask, one dependency")
async def ask_one(message: Say, value: Annotated[str, Depends(one)]) -> Said:
    return said(message)


@live.on("ask, a dependency of a dependency")
async def ask_two(message: Say, value: Annotated[str, Depends(two)]) -> Said:
    return said(message)


@live.on("ask, a dependency with yield")
async def ask_closed(message: Say, value: Annotated[str, Depends(closed)]) -> Said:
    return said(message)


@live.on("ask, a dependency in a thread")
async def ask_threaded(message: Say, value: Annotated[str, Depends(threaded)]) -> Said:
    return said(message)
