"""A bound on what a request may send: FastAPI reads a body whole, however large it is."""

from __future__ import annotations

from typing import Final

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES: Final = 16 * 1024


class BoundedBodies:
    """Refuses request bodies of over `MAX_BODY_BYTES` with 413, as they are read: a header may say less than comes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request; WebSockets have limits of their own."""
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
