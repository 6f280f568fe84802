"""Patterns of room names, with one syntax for all that takes a pattern.

==================  ================================================================================
``{name}``          one or more characters without ``:``, and binds them to the name
``{name:path}``     one or more characters, ``:`` included, and binds them to the name
``*``               any characters, or none
``?``               one character
``[abc]``, ``[!a]`` one character of the set, or one outside of it; ``[*]`` and ``[?]`` are the signs themselves
==================  ================================================================================

Everything else stands for itself, and so does a brace that encloses no name. Case matters.

``:`` separates the parts of a room's name as ``/`` separates those of a path. A rule for ``doc:{id}`` therefore never
answers for ``doc:5:private``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import translate
from typing import Final

from .errors import InvalidArgument, shown

NAME: Final = re.compile(r"\{([A-Za-z_]\w*)(:path)?\}", re.ASCII)
_SIGN: Final = re.compile(r"\[!?\]?[^]]*\]|[*?]", re.DOTALL)
_ANYTHING, _END = 5, 9  # what `_ranks` gives for these; in between lie the kinds of part, from narrow to wide


class Pattern:
    """A compiled pattern.

    Args:
        text: The pattern as the app wrote it.

    Attributes:
        text: The same.
        names: The names that the pattern binds, in order.
        is_literal: Whether the pattern matches exactly one name, which is `text`.
        shape: What the pattern matches, without the names that it binds: equal for patterns that match the same.
        rank: Sorts patterns, the more specific first. Patterns are compared from the left, and the first difference
            decides: a character, then ``[...]``, ``?``, ``{name}``, ``{name:path}``, ``*``; a longer pattern comes
            before its own beginning.

    Raises:
        InvalidArgument: The pattern is empty, or binds a name twice.
    """

    __slots__ = ("_fullmatch", "is_literal", "names", "rank", "shape", "text")

    def __init__(self, text: str) -> None:
        if not isinstance(text, str) or not text:
            raise InvalidArgument("pattern", f"got {shown(text)}", "a room name, or a pattern like 'chat:{room}'")
        self.text = text
        self.names: tuple[str, ...] = tuple(found[1] for found in NAME.finditer(text))
        if len(set(self.names)) != len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise InvalidArgument("pattern", f"{shown(text)} binds {twice!r} twice", "each name once")
        self.shape = NAME.sub(lambda found: f"{{{found[2] or ''}}}", text)
        self.is_literal = not self.names and _SIGN.search(text) is None
        self.rank = _rank(text)
        self._fullmatch = re.compile(_expression(text)).fullmatch

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"

    def match(self, name: str) -> Mapping[str, str] | None:
        """What the pattern's names stand for in a room's name; None if the name does not match."""
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
    """The regular expression of a part without names, without fnmatch's mark of the end."""
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
