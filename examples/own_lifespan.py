"""An app for a server that runs no lifespan, such as daphne: the first request enters the lifespan."""

import asyncio
from contextlib import AsyncExitStack

from fastapi import FastAPI, WebSocket
from starlette.types import Receive, Scope, Send

from hubbub import ConnectionManager

app = FastAPI()
manager = ConnectionManager()
manager.install(app)
lifespan = AsyncExitStack()
entering = asyncio.Lock()


@app.websocket("/ws")
async def everybody(websocket: WebSocket) -> None:
    async with manager.connect(websocket) as connection:
        async for message in connection:
            await manager.broadcast(message)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    async with entering:
        if not manager.running:
            await lifespan.enter_async_context(app.router.lifespan_context(app))
    await app(scope, receive, send)
