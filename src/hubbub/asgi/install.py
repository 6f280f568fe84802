"""Installs a manager on a FastAPI or Starlette app: adds the middleware and wraps the app's lifespan."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Router

from ..errors import InvalidArgument, InvalidName, NotInstalled, shown
from ..origin import OriginPolicy
from ..paths import Paths
from .middleware import HubbubMiddleware, Manager, Outermost

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Lifespan

logger: Final = logging.getLogger("hubbub")


class Installable(Manager, Protocol):
    """The part of a `ConnectionManager` that `install` uses."""

    def lifespan(self, app: object = None) -> AbstractAsyncContextManager[None]:
        """Runs the manager while the app runs."""


def install(manager: Installable, app: Starlette, only: Paths | None) -> None:
    """Implements `ConnectionManager.install`.

    Args:
        manager: The manager to add.
        app: The app to add it to.
        only: The paths that the manager serves; None for all paths.

    Raises:
        InvalidArgument: ``app`` is not a Starlette app, or the manager is already installed with other paths.
        NotInstalled: The app has already started.
    """
    if not isinstance(app, Starlette):
        raise InvalidArgument(
            "app",
            f"got {shown(app)}",
            "a FastAPI or Starlette app; for any other ASGI app, HubbubMiddleware(app, [manager]) and "
            "manager.lifespan()",
        )
    managers = _managers_of(app)
    engine = manager._hubbub
    if any(each is manager for each in managers):
        if only is not None and (engine.lifecycle.only is None or only.patterns != engine.lifecycle.only.patterns):
            raise InvalidArgument("only", "the manager is already installed with other paths", "one call of install")
        return
    if app.middleware_stack is not None:
        raise NotInstalled(
            "the app has already started, so its middleware and its lifespan can no longer change: call "
            "`manager.install(app)` right after `app = FastAPI()`, at import time and not in the lifespan"
        )
    if not managers:
        app.add_middleware(HubbubMiddleware, managers=managers)
        _keep_outermost(app, managers)
        _answer_invalid_names(app)
    managers.append(manager)
    engine.lifecycle.only = only
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(of: Any) -> AsyncIterator[Mapping[str, Any] | None]:
        if not engine.origins_given:
            engine.origins = origins_of_cors(app)
        _answer_invalid_names(app)  # again, for the apps that were mounted after `install`
        for documentation in engine.documentation:  # again, because the app may have another `openapi` meanwhile
            documentation.link(app)
        async with manager.lifespan(of), inner(of) as state:
            yield state

    app.router.lifespan_context = cast("Lifespan[Any]", lifespan)
    app.router.routes += [*engine.endpoints.values(), *engine.http_routes]
    for documentation in engine.documentation:
        documentation.mount(app)
    engine.app = app
    engine.lifecycle.installed = True


def _answer_invalid_names(app: Starlette) -> None:
    """Makes the app, and the apps mounted below it, answer `InvalidName` with 422, unless they have a handler for it.

    The search passes through routers, and through middleware that keeps the wrapped app as ``app``.
    """
    seen: set[int] = set()
    ahead: list[Any] = [app]
    while ahead:
        node = ahead.pop()
        if id(node) in seen:  # mounts can form a cycle
            continue
        seen.add(id(node))
        if isinstance(node, Starlette):
            node.exception_handlers.setdefault(InvalidName, _unprocessable)
        inner = node.routes if isinstance(node, (Starlette, Router)) else [node]
        ahead += [below for each in inner if (below := getattr(each, "app", None)) is not None]


async def _unprocessable(request: HTTPConnection, error: Exception) -> Response:
    """Answers an HTTP request that uses an invalid name. The middleware answers WebSockets."""
    if not isinstance(request, Request) or not isinstance(error, InvalidName):
        raise error
    detail = {"type": "invalid_name", "loc": [error.argument], "msg": f"{error.problem}; accepted: {error.accepted}"}
    return JSONResponse({"detail": [detail]}, 422)


def _keep_outermost(app: Starlette, managers: Sequence[Manager]) -> None:
    """Keeps `HubbubMiddleware` outermost, even if the app adds more middleware later.

    Middleware that wraps ``send`` would hide the server's socket. Starlette builds the stack at the first request.
    """
    build = app.build_middleware_stack

    def build_middleware_stack() -> ASGIApp:
        app.user_middleware.sort(key=lambda middleware: cast(object, middleware.cls) is not HubbubMiddleware)
        return Outermost(build(), managers)

    # Patched on this one instance: the app exists already, so a subclass would come too late.
    app.build_middleware_stack = build_middleware_stack  # type: ignore[method-assign]  # on purpose


def _managers_of(app: Starlette) -> list[Manager]:
    """Returns the list of managers that the app's middleware holds. Later calls of `install` append to it."""
    middleware: Any
    for middleware in app.user_middleware:
        if middleware.cls is HubbubMiddleware:
            given: Sequence[Manager] = middleware.kwargs.pop("managers", None) or middleware.args[0]
            middleware.args = ()
            middleware.kwargs["managers"] = managers = list(given)
            return managers
    return []


def origins_of_cors(app: Starlette) -> OriginPolicy:
    """Derives the allowed origins from the app's CORSMiddleware: the origins that it lists with credentials.

    Browsers do not apply CORS to WebSockets, so CORSMiddleware never checks them. An app that lists the origins of its
    pages there has already said that it trusts them. Wildcards and regular expressions are ignored: over a WebSocket,
    any matching page could read everything that the user's cookies give access to.
    """
    allowed: list[str] = []
    for options in _cors_options(app):
        named = [each for each in options["allow_origins"] if isinstance(each, str)]
        if "*" in named or options["allow_origin_regex"] is not None:
            _warn_ignored('every origin ("*")' if "*" in named else "the origins of a regular expression")
        elif options["allow_credentials"]:
            allowed += [each for each in named if _is_origin(each)]
        elif named:
            _warn_ignored(f"pages of {shown(named, limit=500)} without credentials")
    if allowed:
        logger.info(
            "pages of %s may open WebSockets, because CORSMiddleware allows them with credentials; to change this: "
            "ConnectionManager(allowed_origins=[...])",
            shown(allowed, limit=500),
        )
    return OriginPolicy(allowed)


def _warn_ignored(whom: str) -> None:
    logger.warning(
        "CORSMiddleware allows %s, but for HTTP only: only pages of this app's own host may open WebSockets. "
        "List the pages that may open them: ConnectionManager(allowed_origins=[...]), or pass [] to allow only this "
        "host and silence this warning",
        whom,
    )


def _cors_options(app: Starlette) -> Iterable[Mapping[str, Any]]:
    for middleware in app.user_middleware:
        cls: Any = middleware.cls
        if isinstance(cls, type) and issubclass(cls, CORSMiddleware):
            try:
                given = inspect.signature(cls).bind(app, *middleware.args, **middleware.kwargs)
            except TypeError:  # the app fails to start with the same error
                continue
            given.apply_defaults()
            yield {"allow_origins": (), "allow_origin_regex": None, "allow_credentials": False, **given.arguments}


def _is_origin(entry: str) -> bool:
    """Whether an entry of ``allow_origins`` is exactly one origin. Logs the problem if it is not."""
    try:
        OriginPolicy([entry])
    except InvalidArgument as error:
        problem = error.problem
    else:
        if entry != "null" and "*" not in entry:
            return True
        problem = f"{shown(entry)} is not one origin"
    logger.warning("CORSMiddleware(allow_origins=...) has an entry that is ignored for WebSockets: %s", problem)
    return False
