"""Helpers for the tests of apps and of brokers."""

from .pushed import Push, Pushed, record

__all__ = ["Push", "Pushed", "record"]
