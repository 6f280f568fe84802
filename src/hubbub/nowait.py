"""Python's warning of a coroutine that was never awaited, with the call to use instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])


def or_nowait(name: str) -> Callable[[F], F]:
    """Has Python's warning of a coroutine that was never awaited name the call to use where nothing can be awaited.

    The warning says the qualified name of the function that made the coroutine; this adds to it, and costs no call
    anything.
    """

    def named(method: F) -> F:
        method.__qualname__ += f" (in a plain function: {name})"
        return method

    return named
