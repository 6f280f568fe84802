"""The embedded broker, for an app that runs in one process. It needs no server."""

from .broker import MemoryBroker

__all__ = ["MemoryBroker"]
