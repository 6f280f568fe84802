"""Links the documentation of endpoints from an app's OpenAPI document, as its ``externalDocs``.

FastAPI's own argument, ``openapi_external_docs``, takes absolute URLs only, and no app knows its own. So the link is
relative to the OpenAPI document. With ``FastAPI(root_path=...)`` it is the path as clients see it, because Swagger UI
would look for a relative link beside that path instead of below it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette


class _Linked:
    """``app.openapi``, with a link in the document.

    Args:
        app: The app.
        build: What ``app.openapi`` was.
        up: The way from the OpenAPI document to the root of the app.
    """

    def __init__(self, app: Any, build: Callable[[], dict[str, Any]], up: str) -> None:
        self._app = app
        self._build = build
        self._up = up
        self.paths: list[str] = []

    def __call__(self) -> dict[str, Any]:
        """The OpenAPI document. A link that the app itself has set stays."""
        document = self._build()
        root_path: str = getattr(self._app, "root_path", "").rstrip("/")
        document.setdefault(
            "externalDocs",
            {
                "description": f"The WebSocket API, as AsyncAPI: {', '.join(self.paths)}",
                "url": root_path + self.paths[0] if root_path else self._up + self.paths[0].removeprefix("/"),
            },
        )
        return document


def link(app: Starlette, path: str) -> None:
    """Links a document from the OpenAPI document of an app that has one.

    OpenAPI has room for one link. It leads to the document that was added first, and its text names all of them.

    Args:
        app: The app.
        path: The path of the document in the app.
    """
    openapi_url: str | None = getattr(app, "openapi_url", None)
    build: Any = getattr(app, "openapi", None)
    if not openapi_url or not callable(build):
        return
    if not isinstance(build, _Linked):
        build = _Linked(app, build, "../" * (openapi_url.count("/") - 1))
        app.openapi = build  # type: ignore[attr-defined]  # a FastAPI app
    if path not in build.paths:
        build.paths.append(path)
