"""A bound on the size of request bodies: FastAPI reads a body of any size into memory."""

from __future__ import annotations

from typing import Final

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES: Final = 16 * 1024


class BoundedBodies:
    """Refuses request bodies of over `MAX_BODY_BYTES` with 413 while they are read, because a header may lie."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request. WebSockets have limits of their own."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        left = MAX_BODY_BYTES

        async def bounded() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, f"the request has over {MAX_BODY_BYTES} bytes")
            return message

        await self._app(scope, bounded, send)
