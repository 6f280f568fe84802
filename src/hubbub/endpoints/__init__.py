"""Functions that answer clients, with FastAPI's dependency injection."""

from .endpoint import Endpoint
from .handles import Room
from .results import Grant, Welcome
from .routing import MessageRouter

__all__ = ["Endpoint", "Grant", "MessageRouter", "Room", "Welcome"]
