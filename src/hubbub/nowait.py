"""Adds to Python's warning about a coroutine that was never awaited the name of the call to use instead."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])


def or_nowait(name: str) -> Callable[[F], F]:
    """Decorates a coroutine function so that Python's "never awaited" warning names the call for plain functions.

    The function itself does not change, and calls cost nothing extra.

    Args:
        name: The call for code that can't await.
    """

    def named(method: F) -> F:
        method.__qualname__ = _Hinted(method.__qualname__, name)
        return method

    return named


class _Hinted(str):
    """A qualified name that adds a hint only when the warning formats it.

    A coroutine has the qualified name of its function. So do TypeErrors about wrong arguments, tasks and tracebacks,
    and a hint would garble those.
    """

    __slots__ = ("_instead",)

    _instead: str

    def __new__(cls, name: str, instead: str) -> _Hinted:
        hinted = super().__new__(cls, name)
        hinted._instead = instead
        return hinted

    def __format__(self, spec: str) -> str:
        text = super().__format__(spec)
        here = inspect.currentframe()
        formatting = here and here.f_back
        if formatting is None or formatting.f_code.co_name != "_warn_unawaited_coroutine":  # of Python's `warnings`
            return text
        return f"{text} (in a plain function: {self._instead})"

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)  # a pickled method is found by its plain name
