"""The demo app, put together."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from ..client import BrowserClient
from . import board, chat, dashboard, notifications, pages, posts, signin
from .bodies import BoundedBodies
from .live import live, manager

for _part in (chat.live, posts.live, dashboard.live):
    live.include_router(_part)


def create_app() -> FastAPI:
    """Creates the demo app.

    Its data and its manager belong to the process: create one app, and run it once at a time.
    """
    app = FastAPI(title="hubbub demo", lifespan=dashboard.lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    manager.install(app)
    app.add_exception_handler(RequestValidationError, in_words)
    app.add_middleware(BoundedBodies)
    app.add_middleware(pages.SecurityHeaders)
    for module in (signin, posts, notifications, board, pages):
        app.include_router(module.router)
    app.mount("/static", pages.static_files())
    app.mount("/hubbub", BrowserClient())
    return app


def in_words(request: Request, error: Exception) -> JSONResponse:
    """Answers an invalid request with a sentence. The input is not repeated, because it may not even be text."""
    assert isinstance(error, RequestValidationError)
    return JSONResponse({"detail": error.errors()[0]["msg"]}, 422)
