"""Functions that answer clients, with FastAPI's dependency injection."""

from .endpoint import Endpoint
from .results import Grant, Welcome
from .routing import MessageRouter

__all__ = ["Endpoint", "Grant", "MessageRouter", "Welcome"]
