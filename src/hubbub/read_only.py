"""Attributes that an app reads and can't assign, with an error that says so."""

from __future__ import annotations

from typing import NoReturn

from .errors import NotSupported


def read_only(attribute: property, instead: str) -> property:
    """The property, with a setter and a deleter that raise.

    For use under ``if not TYPE_CHECKING``: to a type checker it stays a property that has neither.

    Args:
        attribute: The property.
        instead: The end of the error's text: how to get the effect of an assignment.
    """
    getter = attribute.fget
    assert getter is not None

    def refuse(self: object, value: object = None) -> NoReturn:
        raise NotSupported(f"{type(self).__name__}.{getter.__name__} can't be assigned: {instead}")

    return property(getter, refuse, refuse, attribute.__doc__)
