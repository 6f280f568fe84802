"""The page ``{path}/docs``, which shows the AsyncAPI document of an endpoint, and where its reader tries the endpoint.

It is the same for all endpoints. In the browser, the module finds the document and the endpoint beside its own address.
It has a copy of ``hubbub.js`` there too, since an app need not serve one.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Final

from ...asgi.static_file import StaticFile

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

_FILES: Final = {
    "page.js": ("endpoints/docs_page/page.js", "text/javascript"),
    "hubbub.js": ("client/hubbub.js", "text/javascript"),
    "style.css": ("endpoints/docs_page/style.css", "text/css"),
}
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


@cache
def pages() -> Mapping[str, Callable[[Request], Awaitable[Response]]]:
    """Returns what answers requests for the page and for its files, by their addresses below that of the endpoint."""
    return {"docs": _page(), **{f"docs/{name}": _file(*each) for name, each in _FILES.items()}}


def _page() -> Callable[[Request], Awaitable[Response]]:
    page = StaticFile("endpoints/docs_page/page.html", "text/html")

    async def serve(request: Request) -> Response:
        return page.answer(
            request,
            {
                "Content-Security-Policy": _policy(request.headers.get("host", "")),
                "Cross-Origin-Opener-Policy": "same-origin",
                "Referrer-Policy": "no-referrer",
            },
        )

    return serve


def _file(path: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    file = StaticFile(path, kind)

    async def serve(request: Request) -> Response:
        return file.answer(request)

    return serve


def _policy(host: str) -> str:
    """The content security policy. Safari before 15.4 does not count the WebSockets of a host as 'self'."""
    sockets = f" ws://{host} wss://{host}" if _HOST.fullmatch(host) else ""
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'{sockets}; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    )
