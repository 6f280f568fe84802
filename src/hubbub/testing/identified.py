"""Lets a test client of an endpoint be a user without a token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from starlette.routing import Match, WebSocketRoute

from ..endpoints.endpoint import Endpoint
from ..errors import InvalidArgument, shown

if TYPE_CHECKING:  # it needs httpx2, and tests without clients do not
    from starlette.testclient import TestClient


@contextmanager
def identified_as(client: TestClient, path: str, user: Any) -> Iterator[None]:
    """Lets the ``auth=`` dependency of an endpoint return a user, while a client connects.

    Afterwards the endpoint has stored the user, and functions get the stored one.

    Args:
        client: The test client of the app.
        path: The path of the endpoint.
        user: The user.

    Raises:
        InvalidArgument: There is no endpoint with an ``auth=`` dependency at the path.
    """
    app, endpoint = _endpoint_at(client.app, _handshake(path))
    if endpoint is None or endpoint._auth is None:
        problem = f"there is no endpoint with an auth= dependency at {shown(path)}"
        raise InvalidArgument("user", problem, "the path of one; without auth= there are no users")
    overrides = app.dependency_overrides

    async def identify() -> Any:
        return user

    had, before = endpoint._auth in overrides, overrides.get(endpoint._auth)
    overrides[endpoint._auth] = identify
    try:
        yield
    finally:
        del overrides[endpoint._auth]
        if had:
            overrides[endpoint._auth] = before


def _handshake(path: str) -> dict[str, Any]:
    return {"type": "websocket", "path": path.partition("?")[0], "root_path": "", "headers": []}


def _endpoint_at(app: Any, scope: dict[str, Any]) -> tuple[Any, Endpoint | None]:
    """Finds the endpoint at a path, and the app that it is part of: this one, or one that is mounted below it."""
    for route in getattr(app, "routes", ()):
        match, found = route.matches(scope)
        if match is Match.NONE:
            continue
        if isinstance(route, WebSocketRoute):
            endpoint = getattr(route.endpoint, "__self__", None)
            return app, endpoint if isinstance(endpoint, Endpoint) else None
        inner = getattr(route, "app", None)
        if hasattr(inner, "dependency_overrides"):
            return _endpoint_at(inner, {**scope, **found})
    return app, None
