"""How a manager joins an app: its lifespan, and the middleware."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from starlette.applications import Starlette

from .errors import InvalidArgument, NotInstalled, NotRunning, shown
from .middleware import HubbubMiddleware

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Lifespan

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
        _keep_outermost(app)
    managers.append(manager)
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(of: Any) -> AsyncIterator[Mapping[str, Any] | None]:
        async with manager.lifespan(of), inner(of) as state:
            yield state

    app.router.lifespan_context = cast("Lifespan[Any]", lifespan)
    manager.installed = True


def _keep_outermost(app: Starlette) -> None:
    """Sees to it that no middleware that is added later stands between the server and ours.

    One that wraps ``send`` would hide the server's socket. The stack is built at the first request, once.
    """
    build = app.build_middleware_stack

    def build_middleware_stack() -> ASGIApp:
        app.user_middleware.sort(key=lambda middleware: cast(object, middleware.cls) is not HubbubMiddleware)
        return build()

    # On this app alone, and not in a subclass: the app is the user's own object, and exists already.
    app.build_middleware_stack = build_middleware_stack  # type: ignore[method-assign]


def why_not_running(*, installed: bool, mounted: bool) -> NotInstalled | NotRunning:
    """The error for a manager that is used and does not run: what to do about it.

    Args:
        installed: Whether it was installed on an app.
        mounted: Whether it is used by an app that is mounted below another one.
    """
    if not installed:
        return NotInstalled(
            "this ConnectionManager is not installed: add `manager.install(app)` after `app = FastAPI()`. " + _TWO
        )
    hint = (
        "The app is mounted below another one, and the lifespan of a mounted app does not run: "
        "`manager.install(app)` on the outermost app. "
        if mounted
        else "In tests, use the client as a context manager: `with TestClient(app) as client:`. The lifespan of a "
        "mounted app does not run: install on the outermost app. A server has to run the lifespan "
        "(not daphne, nor `uvicorn --lifespan off`). "
    )
    return NotRunning(
        "this ConnectionManager is not running, because the app's lifespan has not started it. " + hint + _TWO
    )


def not_installed_here() -> NotInstalled:
    """The error for a manager that runs, but not on the app that serves a socket."""
    return NotInstalled(
        "this ConnectionManager is not installed on the app that serves this socket: add `manager.install(app)`. "
        + _TWO
    )


_TWO = "If you did, are there two instances? The one that is used must be the one that is installed"


def _managers_of(app: Starlette) -> list[ConnectionManager]:
    """The managers that an app's middleware has: one list, that later installs add to."""
    middleware: Any
    for middleware in app.user_middleware:
        if middleware.cls is HubbubMiddleware:
            given: Sequence[ConnectionManager] = middleware.kwargs.pop("managers", None) or middleware.args[0]
            middleware.args = ()
            middleware.kwargs["managers"] = managers = list(given)
            return managers
    return []
