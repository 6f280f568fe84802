"""The demo: a small real app, with one module per use case. ``hubbub demo`` serves it."""

from .app import create_app

__all__ = ["create_app"]
