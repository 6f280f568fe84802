"""The description of a declaration: what a decorator is told for the documentation of the endpoint."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from ..arguments import is_text
from ..errors import InvalidArgument, shown

_NO_ERRORS: Final[Mapping[int, str]] = MappingProxyType({})
_CODES: Final = range(400, 2000)  # those of `refusals.refusal_of`


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """The description of a function, for the documentation of its endpoint.

    Attributes:
        tags: The groups to which it belongs.
        summary: One line.
        description: The whole text, in Markdown.
        deprecated: Whether clients should stop using it.
        errors: The codes with which the function refuses, and when.
        is_included: Whether the documentation shows it.
    """

    tags: tuple[str, ...] = ()
    summary: str | None = None
    description: str | None = None
    deprecated: bool = False
    errors: Mapping[int, str] = field(default_factory=lambda: _NO_ERRORS)
    is_included: bool = True

    def of(self, function: Callable[..., Any]) -> About:
        """Returns the same with the docstring of a function, unless there is another description.

        Raises:
            InvalidArgument: The docstring can't be encoded. Names the function.
        """
        if self.description is not None:
            return self
        text = _docstring(function)
        if text is not None and not is_text(text):
            name = getattr(function, "__qualname__", type(function).__name__)
            raise InvalidArgument(f"{name}()", f"its docstring is {shown(text)}", "text without lone surrogates")
        return replace(self, description=text)

    def within(self, router: About) -> About:
        """Returns the same in a router, which adds its tags, and may deprecate or hide all of its functions."""
        return replace(
            self,
            tags=tuple(dict.fromkeys((*router.tags, *self.tags))),
            deprecated=self.deprecated or router.deprecated,
            is_included=self.is_included and router.is_included,
        )


def about(
    declared: str,
    *,
    tags: Sequence[str] | None = None,
    summary: str | None = None,
    description: str | None = None,
    deprecated: bool | None = None,
    errors: Mapping[int, str] | None = None,
    include_in_schema: bool = True,
) -> About:
    """Checks the arguments of a decorator.

    Args:
        declared: Names the decorator in errors.
        tags: The groups to which the function belongs.
        summary: One line.
        description: The whole text.
        deprecated: Whether clients should stop using it.
        errors: The codes with which the function refuses, and when.
        include_in_schema: Whether the documentation shows it.

    Raises:
        InvalidArgument: An argument is wrong.
    """
    if tags is not None and (isinstance(tags, str) or not isinstance(tags, Sequence) or not all(map(is_text, tags))):
        raise InvalidArgument(declared, f"tags is {shown(tags)}", "a list of str")
    for name, text in (("summary", summary), ("description", description)):
        if text is not None and not is_text(text):
            raise InvalidArgument(declared, f"{name} is {shown(text)}", "a str, or None")
    for name, flag in (("deprecated", bool(deprecated) if deprecated is None else deprecated),
                       ("include_in_schema", include_in_schema)):  # fmt: skip
        if not isinstance(flag, bool):
            raise InvalidArgument(declared, f"{name} is {shown(flag)}", "True or False")
    return About(
        tags=tuple(tags or ()),
        summary=summary,
        description=description,
        deprecated=bool(deprecated),
        errors=_checked_errors(errors, declared),
        is_included=include_in_schema,
    )


def _checked_errors(errors: object, declared: str) -> Mapping[int, str]:
    if errors is None:
        return _NO_ERRORS
    accepted = "codes from 400 to 1999, those of HTTPException, with a text each: {403: 'not a member'}"
    if not isinstance(errors, Mapping):
        raise InvalidArgument(declared, f"errors is {shown(errors)}", accepted)
    for code, text in errors.items():
        if isinstance(code, bool) or not isinstance(code, int) or code not in _CODES or not is_text(text):
            raise InvalidArgument(declared, f"errors has {shown(code)}: {shown(text)}", accepted)
    return MappingProxyType({int(code): text for code, text in sorted(errors.items())})


def _docstring(function: Any) -> str | None:
    while isinstance(function, partial):
        function = function.func
    text: object = getattr(function, "__doc__", None)
    return (inspect.cleandoc(text).partition("\f")[0].strip() or None) if isinstance(text, str) else None
