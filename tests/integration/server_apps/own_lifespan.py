"""The chat for a server that runs no lifespan (daphne): the first request enters it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from starlette.types import Receive, Scope, Send

from tests.integration.server_apps.chat import app as chat
from tests.integration.server_apps.chat import manager

_lifespan = AsyncExitStack()  # never left: such a server does not say when it stops
_entering = asyncio.Lock()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    async with _entering:
        if not manager.running:
            await _lifespan.enter_async_context(chat.router.lifespan_context(chat))
    await chat(scope, receive, send)
