"""Serves the methods of the HTTP API as routes of a FastAPI app.

Theory of operation. Each method is a route, with Pydantic models of its request and its answer, so OpenAPI describes
it. A request that does not reach its method is answered with a status: 401 without a key, 413 for a large body, 415 for
a body that is not JSON. Everything else is answered with 200, as Centrifugo does: with a result, or with an error.

The guard is asked before the body matters. A key is compared before the body is read. A dependency of the app is solved
by FastAPI, which wants the body first; so a bad body is answered only once the dependency has admitted the request.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Depends, FastAPI, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader
from starlette.requests import ClientDisconnect

from ..codec import dumps, loads_from_client
from ..errors import InvalidArgument, shown
from ..protocols.centrifugo.codes import ErrorCode
from . import models
from .catalog import METHODS
from .keys import Keys
from .methods import Methods
from .refusals import Refused, refusal_of

MAX_BODY_BYTES: Final = 1024 * 1024
"""Maximum size of a request. A message has to fit the outboxes of clients as well."""

_HEADER: Final = "X-API-Key"
_REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    401: {"model": models.ApiRefusal, "description": "The key is missing or wrong."},
    413: {"model": models.ApiRefusal, "description": f"The body has over {MAX_BODY_BYTES} bytes."},
    415: {"model": models.ApiRefusal, "description": "The body is not JSON."},
}

_Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class _BadBody(Exception):
    """A body can't be used."""

    def __init__(self, status: int, code: ErrorCode, message: str, *, closes: bool = False) -> None:
        self.answer = _refusal(status, Refused(code, message))
        if closes:
            self.answer.headers["Connection"] = "close"


class _Parsed(Request):
    """A request whose body was read and parsed. A bad body is null, which no method accepts.

    Attributes:
        data: The body, for a dependency that verifies a signature of it.
        value: Its content.
    """

    data: bytes = b"null"
    value: Any = None

    async def body(self) -> bytes:
        return self.data

    async def json(self) -> Any:
        return self.value


def _route_of(keys: Keys | None) -> type[APIRoute]:
    """Returns the class of the routes."""

    class Route(APIRoute):
        def get_route_handler(self) -> _Handler:
            handle = super().get_route_handler()

            async def handler(request: Request) -> Response:
                if keys is not None and not keys.accepts(request.headers.get(_HEADER)):
                    refused = Refused(ErrorCode.UNAUTHORIZED, f"the header {_HEADER} needs a key of this API")
                    return _refusal(401, refused)
                parsed, bad = _Parsed(request.scope, request.receive), None
                try:
                    parsed.data = await _read(request)
                    parsed.value = _parsed(parsed.data)
                except _BadBody as error:
                    bad = error.answer
                try:
                    return await handle(parsed)
                except RequestValidationError as error:
                    if any(each["loc"][0] != "body" for each in error.errors()):  # what the dependency asks for
                        raise
                    return bad or _answer({"error": _dumped(refusal_of(list(error.errors())))})

            return handler

    return Route


async def _read(request: Request) -> bytes:
    """Reads the body of a request. An empty body is an empty object."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise _BadBody(415, ErrorCode.BAD_REQUEST, f"the Content-Type is {shown(kind)}; accepted: application/json")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and len(length) < 20 and int(length) > MAX_BODY_BYTES:
        raise _BadBody(413, ErrorCode.LIMIT_EXCEEDED, f"the body has {length} bytes; at most {MAX_BODY_BYTES}")
    data = bytearray()
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > MAX_BODY_BYTES:
                # It may never end, so the server must not read on.
                message = f"the body has over {MAX_BODY_BYTES} bytes"
                raise _BadBody(413, ErrorCode.LIMIT_EXCEEDED, message, closes=True)
    except ClientDisconnect:
        raise _BadBody(400, ErrorCode.BAD_REQUEST, "the body is not complete") from None
    return bytes(data) or b"{}"


def _parsed(data: bytes) -> Any:
    try:
        value = loads_from_client(data)
    except ValueError as error:
        raise _BadBody(200, ErrorCode.BAD_REQUEST, str(error)) from None
    if not isinstance(value, dict):
        raise _BadBody(200, ErrorCode.BAD_REQUEST, "the body is JSON, but no object")
    return value


def _answer(content: Any, status: int = 200) -> Response:
    return Response(dumps(content), status, media_type="application/json")


def _refusal(status: int, refused: Refused) -> Response:
    return _answer({"error": _dumped(refused)}, status)


def _dumped(refused: Refused) -> dict[str, Any]:
    return refused.error.model_dump(exclude_unset=True)


def _endpoint(methods: Methods, name: str) -> Callable[..., Coroutine[Any, Any, Response]]:
    async def endpoint(request: Any) -> Response:
        try:
            result = await methods.done(name, request)
        except Refused as refused:
            return _answer({"error": _dumped(refused)})
        content = result.model_dump(exclude_unset=True)
        return _answer(content if name == "batch" else {"result": content})

    endpoint.__annotations__ = {"request": Annotated[METHODS[name].request, Body()], "return": Response}
    return endpoint


def router_of(
    methods: Methods, path: str, keys: Keys | None, dependency: Callable[..., Any] | None, *, include_in_schema: bool
) -> APIRouter:
    """Returns the routes of the API.

    Args:
        methods: The methods.
        path: The beginning of their paths.
        keys: The keys that are accepted; None if a dependency guards the API.
        dependency: The dependency that guards it.
        include_in_schema: Whether OpenAPI describes them.
    """
    documented = APIKeyHeader(name=_HEADER, auto_error=False, scheme_name="HTTP API key")
    router = APIRouter(
        prefix=path,
        tags=["HTTP API"],
        dependencies=[Security(documented) if dependency is None else Depends(dependency)],
        route_class=_route_of(keys),
        include_in_schema=include_in_schema,
        responses=_REFUSALS,
    )
    for name, method in METHODS.items():
        router.add_api_route(
            f"/{name}",
            _endpoint(methods, name),
            methods=["POST"],
            response_model=method.answer,
            name=f"http_api_{name}",
            summary=method.summary,
            description=method.description,
        )
    return router


def serve(
    app: object,
    methods: Methods,
    path: str,
    served: list[tuple[object, str]],
    *,
    key: Any,
    dependency: Callable[..., Any] | None,
    include_in_schema: bool,
) -> None:
    """Implements `ConnectionManager.http_api`.

    Args:
        app: The app.
        methods: The methods.
        path: The beginning of the paths.
        served: The apps and paths of the manager's APIs, to which this one is added.
        key: The key, or the keys.
        dependency: The dependency in their place.
        include_in_schema: Whether OpenAPI describes the routes.

    Raises:
        InvalidArgument: An argument is not acceptable.
    """
    if not isinstance(app, FastAPI):
        raise InvalidArgument("app", f"got {shown(app)}", "a FastAPI app")
    if not isinstance(path, str) or not path.startswith("/") or path.endswith("/") or "{" in path:
        raise InvalidArgument("path", f"got {shown(path)}", "a path without parameters, such as '/api'")
    if (key is None) == (dependency is None):
        given = "neither key= nor dependency= is given" if key is None else "both key= and dependency= are given"
        raise InvalidArgument(
            "key", f"{given}, and everybody could use the API" if key is None else given, "one of them"
        )
    if dependency is not None and not callable(dependency):
        raise InvalidArgument("dependency", f"got {shown(dependency)}", "a FastAPI dependency")
    if any(each is app and at == path for each, at in served):
        raise InvalidArgument("path", f"there is an API at {shown(path)} already", "one API for each path")
    keys = None if key is None else Keys(key)
    app.include_router(router_of(methods, path, keys, dependency, include_in_schema=include_in_schema))
    served.append((app, path))
