"""The client for pages: one ES module, its types, and the ASGI app that serves both.

After ``app.mount("/hubbub", BrowserClient())``, a page can ``import { Centrifuge } from "/hubbub/hubbub.js"``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route, Router

from ..asgi.static_file import StaticFile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

__all__ = ["BrowserClient"]

_FILES = {"hubbub.js": "text/javascript", "hubbub.d.ts": "application/typescript"}


class BrowserClient:
    """An ASGI app that serves ``hubbub.js`` and ``hubbub.d.ts``, and nothing else.

    Browsers may cache the files, but revalidate them each time (``ETag``, ``Cache-Control: no-cache``), so every page
    has the new client when it is loaded after an upgrade of the server.
    """

    def __init__(self) -> None:
        self._router = Router([Route(f"/{name}", _endpoint(name, kind)) for name, kind in _FILES.items()])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        await self._router(scope, receive, send)


def _endpoint(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    file = StaticFile(f"client/{name}", kind)

    async def serve(request: Request) -> Response:
        return file.answer(request)

    return serve
