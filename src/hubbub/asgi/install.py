"""How a manager joins an app: its lifespan, and the middleware."""

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
from .middleware import HubbubMiddleware, Manager

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Lifespan

logger: Final = logging.getLogger("hubbub")


class Installable(Manager, Protocol):
    """What `install` needs of a `ConnectionManager`."""

    def lifespan(self, app: object = None) -> AbstractAsyncContextManager[None]:
        """Runs the manager."""


def install(manager: Installable, app: Starlette, only: Paths | None) -> None:
    """What `ConnectionManager.install` does."""
    if not isinstance(app, Starlette):
        raise InvalidArgument(
            "app",
            f"got {shown(app)}",
            "a FastAPI or Starlette app; around another, HubbubMiddleware(app, [manager]) and manager.lifespan()",
        )
    managers = _managers_of(app)
    engine = manager._hubbub
    if any(each is manager for each in managers):
        if only is not None and (engine.lifecycle.only is None or only.patterns != engine.lifecycle.only.patterns):
            raise InvalidArgument("only", "the manager is installed already, with other paths", "one call of install")
        return
    if app.middleware_stack is not None:
        raise NotInstalled(
            "the app has started already, and neither its middleware nor its lifespan can change any more: call "
            "`manager.install(app)` right after `app = FastAPI()`, at import time and not in the lifespan"
        )
    if not managers:
        app.add_middleware(HubbubMiddleware, managers=managers)
        _keep_outermost(app)
        _answer_invalid_names(app)
    managers.append(manager)
    engine.lifecycle.only = only
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(of: Any) -> AsyncIterator[Mapping[str, Any] | None]:
        if not engine.origins_given:
            engine.origins = origins_of_cors(app)
        _answer_invalid_names(app)  # now that other apps are mounted below it
        async with manager.lifespan(of), inner(of) as state:
            yield state

    app.router.lifespan_context = cast("Lifespan[Any]", lifespan)
    engine.lifecycle.installed = True


def _answer_invalid_names(app: Starlette) -> None:
    """Answers names that can't be used with 422, in the app and those mounted below it, unless they do so themselves.

    Between two apps may be routers, and middleware that keeps what it wraps as ``app``, as Starlette's does.
    """
    seen: set[int] = set()
    ahead: list[Any] = [app]
    while ahead:
        node = ahead.pop()
        if id(node) in seen:  # a mounted app may hold the one that it is mounted below
            continue
        seen.add(id(node))
        if isinstance(node, Starlette):
            node.exception_handlers.setdefault(InvalidName, _unprocessable)
        inner = node.routes if isinstance(node, (Starlette, Router)) else [node]
        ahead += [below for each in inner if (below := getattr(each, "app", None)) is not None]


async def _unprocessable(request: HTTPConnection, error: Exception) -> Response:
    """Answers a request that names what can't be named. A WebSocket's is the middleware's to answer."""
    if not isinstance(request, Request) or not isinstance(error, InvalidName):
        raise error
    detail = {"type": "invalid_name", "loc": [error.argument], "msg": f"{error.problem}; accepted: {error.accepted}"}
    return JSONResponse({"detail": [detail]}, 422)


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


def _managers_of(app: Starlette) -> list[Manager]:
    """The managers that an app's middleware has: one list, that later installs add to."""
    middleware: Any
    for middleware in app.user_middleware:
        if middleware.cls is HubbubMiddleware:
            given: Sequence[Manager] = middleware.kwargs.pop("managers", None) or middleware.args[0]
            middleware.args = ()
            middleware.kwargs["managers"] = managers = list(given)
            return managers
    return []


def origins_of_cors(app: Starlette) -> OriginPolicy:
    """The origins that an app lets read its HTTP answers with credentials: these pages may open WebSockets too.

    A browser asks nobody before it opens a WebSocket, so CORSMiddleware does not run. But an app that names its front
    end there has said who its pages are. A wildcard or a regular expression is not taken over: with a WebSocket the
    page could read everything that the user's cookies give access to.
    """
    allowed: list[str] = []
    for options in _cors_options(app):
        named = [each for each in options["allow_origins"] if isinstance(each, str)]
        if "*" in named or options["allow_origin_regex"] is not None:
            _say_not_taken('every origin ("*")' if "*" in named else "the origins of a regular expression")
        elif options["allow_credentials"]:
            allowed += [each for each in named if _is_origin(each)]
        elif named:
            _say_not_taken(f"pages of {shown(named, limit=500)} without credentials")
    if allowed:
        logger.info(
            "pages of %s may open WebSockets, as CORSMiddleware lets them in with credentials; to say otherwise: "
            "ConnectionManager(allowed_origins=[...])",
            shown(allowed, limit=500),
        )
    return OriginPolicy(allowed)


def _say_not_taken(whom: str) -> None:
    logger.warning(
        "CORSMiddleware lets in %s, which holds for HTTP only: WebSockets are open to pages of this app's own host. "
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
            except TypeError:  # the app's start fails with it
                continue
            given.apply_defaults()
            yield {"allow_origins": (), "allow_origin_regex": None, "allow_credentials": False, **given.arguments}


def _is_origin(entry: str) -> bool:
    """Whether an entry of ``allow_origins`` names one origin; says what is wrong with it if it does not."""
    try:
        OriginPolicy([entry])
    except InvalidArgument as error:
        problem = error.problem
    else:
        if entry != "null" and "*" not in entry:
            return True
        problem = f"{shown(entry)} is not one origin"
    logger.warning("CORSMiddleware(allow_origins=...) has what WebSockets do not take over: %s", problem)
    return False
