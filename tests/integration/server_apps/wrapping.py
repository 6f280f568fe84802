"""A middleware that wraps ``send``, as tracing does."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Wrapping:
    """Hides the server's own ``send`` from whatever it wraps."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def wrapped(message: Message) -> None:
            await send(message)

        await self.app(scope, receive, wrapped)
