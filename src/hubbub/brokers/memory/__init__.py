"""The embedded broker: one process, no server."""

from .broker import MemoryBroker

__all__ = ["MemoryBroker"]
