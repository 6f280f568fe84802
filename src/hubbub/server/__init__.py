"""The server that runs an app: its workers, draining, and `hubbub run`."""

from .draining import drain_first

__all__ = ["drain_first"]
