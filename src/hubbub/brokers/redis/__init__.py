"""The distributed broker, on Redis or Valkey."""

from __future__ import annotations

from .broker import RedisBroker, WhenAway

__all__ = ["RedisBroker", "WhenAway"]
