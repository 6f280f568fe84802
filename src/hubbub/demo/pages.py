"""The pages, which share one shell, and the headers that keep foreign scripts out."""

from __future__ import annotations

from importlib.resources import files
from string import Template
from typing import Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from starlette.datastructures import MutableHeaders
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PACKAGE = files(__package__)
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "Cache-Control": "no-cache",  # cache, but revalidate
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_PAGES = {"home": "Welcome", "chat": "Chat", "posts": "Posts", "dashboard": "Dashboard", "board": "Whiteboard"}


def _page(name: str, title: str) -> str:
    source = _PACKAGE / "pages"
    shell, part = ((source / f"{each}.html").read_text("utf-8") for each in ("shell", name))
    page = Template(shell).substitute(name=name, title=title, part=part)
    return page.replace(f'href="/{name}"', f'href="/{name}" aria-current="page"', 1)


router: Final = APIRouter(default_response_class=HTMLResponse)


def _add(path: str, name: str, title: str) -> None:
    page = _page(name, title)

    @router.get(path, name=name)
    def show() -> str:
        return page


for _name, _title in _PAGES.items():
    _add("/" if _name == "home" else f"/{_name}", _name, _title)


def static_files() -> StaticFiles:
    """Returns the app that serves scripts, styles and the icon."""
    return StaticFiles(packages=[("hubbub.demo", "static")])


class SecurityHeaders:
    """Adds the headers to every response, unless it has them. Scripts and styles are files, and never inline."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request. WebSockets pass unchanged."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)  # the page of the endpoint has its own, which are stricter
            await send(message)

        await self._app(scope, receive, with_headers)
