"""The servers that run an app: their workers, draining, and `hubbub run`."""

from .draining import drain_first

__all__ = ["drain_first"]
