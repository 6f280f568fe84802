"""How a manager joins an app: its lifespan, and the middleware."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from starlette.applications import Starlette

from .errors import InvalidArgument, NotInstalled, shown
from .middleware import HubbubMiddleware

if TYPE_CHECKING:
    from starlette.types import Lifespan

    from .manager import ConnectionManager


def install(manager: ConnectionManager, app: Starlette) -> None:
    """What `ConnectionManager.install` does."""
    if not isinstance(app, Starlette):
        raise InvalidArgument(
            "app",
            f"got {shown(app)}",
            "a FastAPI or Starlette app; around another, HubbubMiddleware(app, [manager]) and manager.lifespan()",
        )
    managers = _managers_of(app)
    if manager in managers:
        return
    if app.middleware_stack is not None:
        raise NotInstalled(
            "the app has started already, and neither its middleware nor its lifespan can change any more: call "
            "`manager.install(app)` right after `app = FastAPI()`, at import time and not in the lifespan"
        )
    if not managers:
        app.add_middleware(HubbubMiddleware, managers=managers)
    managers.append(manager)
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(of: Any) -> AsyncIterator[Mapping[str, Any] | None]:
        async with manager.lifespan(of), inner(of) as state:
            yield state

    app.router.lifespan_context = cast("Lifespan[Any]", lifespan)
    manager.installed = True


def _managers_of(app: Starlette) -> list[ConnectionManager]:
    """The managers that an app's middleware has: one list, that later installs add to."""
    for middleware in app.user_middleware:
        if cast("object", middleware.cls) is HubbubMiddleware:
            return cast("list[ConnectionManager]", middleware.kwargs["managers"])
    return []
