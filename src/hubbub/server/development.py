"""Tells development from production, for checks that only developers need."""

from __future__ import annotations

import os

from .workers import reloads


def in_development(debug: bool) -> bool:
    """Returns whether the app runs for its developer. Called on the event loop of the server.

    That is so under pytest, under ``fastapi dev``, under a server that reloads on changes, and in debug mode.

    Args:
        debug: Whether the app is in debug mode: ``FastAPI(debug=True)``.
    """
    return debug or "PYTEST_VERSION" in os.environ or os.environ.get("FASTAPI_ENV") == "development" or reloads()
