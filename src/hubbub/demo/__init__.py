"""The demo: a small real app, one module for each thing that people build. ``hubbub demo`` serves it."""

from .app import create_app

__all__ = ["create_app"]
