"""Patterns of room names. Every argument that takes a pattern has this syntax.

==================  ================================================================================
``{name}``          one or more characters without ``:``, and binds them to the name
``{name:path}``     one or more characters, ``:`` included, and binds them to the name
``*``               any characters, or none
``?``               one character
``[abc]``, ``[!a]`` one character in the set, or not in it; ``[*]`` and ``[?]`` are a literal ``*`` and ``?``
==================  ================================================================================

Everything else is literal, and so is a brace that does not enclose a name. Case matters.

``:`` separates the parts of a room's name, as ``/`` separates those of a path. So a rule for ``doc:{id}`` never applies
to ``doc:5:private``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import translate
from typing import Final

from .errors import InvalidArgument, shown

NAME: Final = re.compile(r"\{([A-Za-z_]\w*)(:path)?\}", re.ASCII)
_SIGN: Final = re.compile(r"\[!?\]?[^]]*\]|[*?]", re.DOTALL)
_ANYTHING, _END = 5, 9  # ranks in `_rank`; those of the other parts are lower than _ANYTHING


class Pattern:
    """A compiled pattern.

    Args:
        text: The pattern as the app wrote it.

    Attributes:
        text: The pattern as the app wrote it.
        names: The names that the pattern binds, in order.
        is_literal: Whether the pattern matches exactly one room's name, namely ``text``.
        shape: The pattern without the names that it binds. It is equal for patterns that match the same rooms.
        rank: A sort key that puts specific patterns first. Patterns are compared from the left, and the first
            difference decides: a character, then ``[...]``, ``?``, ``{name}``, ``{name:path}``, ``*``. A longer
            pattern comes before its own prefix.

    Raises:
        InvalidArgument: The pattern is empty, or binds a name twice.
    """

    __slots__ = ("_fullmatch", "is_literal", "names", "rank", "shape", "text")

    def __init__(self, text: str) -> None:
        if not isinstance(text, str) or not text:
            raise InvalidArgument("pattern", f"got {shown(text)}", "a room name, or a pattern like 'chat:{room}'")
        self.text: str = text
        self.names: tuple[str, ...] = tuple(found[1] for found in NAME.finditer(text))
        if len(set(self.names)) != len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise InvalidArgument("pattern", f"{shown(text)} binds {twice!r} twice", "each name once")
        self.shape: str = NAME.sub(lambda found: f"{{{found[2] or ''}}}", text)
        self.is_literal: bool = not self.names and _SIGN.search(text) is None
        self.rank: tuple[int, ...] = _rank(text)
        self._fullmatch = re.compile(_expression(text)).fullmatch

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"

    def match(self, name: str) -> Mapping[str, str] | None:
        """Returns the parts of a room's name by the names that the pattern binds; None if it does not match."""
        found = self._fullmatch(name)
        return None if found is None else found.groupdict()


def _expression(text: str) -> str:
    expression, at = "", 0
    for found in NAME.finditer(text):
        characters = "(?s:.)" if found[2] else "[^:]"
        expression += f"{_shell(text[at : found.start()])}(?P<{found[1]}>{characters}+)"
        at = found.end()
    return expression + _shell(text[at:])


def _shell(text: str) -> str:
    """Returns the regular expression of a part without names, without the end that fnmatch adds."""
    return translate(text)[:-2] if text else ""


def _rank(text: str) -> tuple[int, ...]:
    ranks: list[int] = []
    at = 0
    while at < len(text):
        found = NAME.match(text, at)
        if found is not None:
            ranks.append(4 if found[2] else 3)
        else:
            found = _SIGN.match(text, at)
            ranks.append(0 if found is None else {"*": _ANYTHING, "?": 2}.get(found[0], 1))
        at = at + 1 if found is None else found.end()
    return (*ranks, _END)
