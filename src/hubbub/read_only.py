"""Properties that an app can't assign. The error says how to get the effect instead."""

from __future__ import annotations

from typing import NoReturn

from .errors import NotSupported


def read_only(attribute: property, instead: str) -> property:
    """Returns a property with a setter and a deleter that raise `NotSupported`.

    Use it under ``if not TYPE_CHECKING``, so that type checkers still see a property without a setter.

    Args:
        attribute: The property.
        instead: The end of the error text: how to get the effect of an assignment.
    """
    getter = attribute.fget
    assert getter is not None

    def refuse(self: object, value: object = None) -> NoReturn:
        raise NotSupported(f"{type(self).__name__}.{getter.__name__} can't be assigned: {instead}")

    return property(getter, refuse, refuse, attribute.__doc__)
