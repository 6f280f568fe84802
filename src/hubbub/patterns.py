"""Patterns of room names. Every argument that takes a pattern has this syntax.

==================  ================================================================================
``{name}``          one or more characters without ``:``, and binds them to the name
``{name:path}``     one or more characters, ``:`` included, and binds them to the name
``*``               any characters, or none
``?``               one character
``[abc]``, ``[!a]`` one character in the set, or not in it; ``[*]`` and ``[?]`` are a literal ``*`` and ``?``
==================  ================================================================================

Everything else is literal. A literal brace is written ``[{]`` or ``[}]``. Case matters. If a pattern matches in several
ways, each part, from the left, takes as much as it can: ``{id}-{part}`` binds ``a-b`` and ``c`` of ``a-b-c``.

``:`` separates the parts of a room's name, as ``/`` separates those of a path. So a rule for ``doc:{id}`` never applies
to ``doc:5:private``.

Clients choose the names that are matched, so a match must not take long. A regular expression tries every combination
of the places where the parts of a pattern may end. It serves the patterns in which at most one part has such a choice.
`_Places` matches the others, in time proportional to the length of the name and the number of parts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import translate
from typing import Final, NamedTuple

from .errors import InvalidArgument, InvalidName, shown

NAME: Final = re.compile(r"\{([A-Za-z_]\w*)(:path)?\}", re.ASCII)
_SIGN: Final = re.compile(r"\[!?\]?[^]]*\]|[*?]", re.DOTALL)
_CHOOSES: Final = re.compile(r"\{[A-Za-z_]\w*\}(?!:|\Z)|\{[A-Za-z_]\w*:path\}(?!\Z)|\*+(?!\Z)", re.ASCII)
"""A part that may end in several places, so that a regular expression tries them all."""
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
        InvalidArgument: The pattern is empty, binds a name twice, or has a brace that encloses no name.
    """

    __slots__ = ("_matched", "is_literal", "names", "rank", "shape", "text")

    def __init__(self, text: str) -> None:
        if not isinstance(text, str) or not text:
            raise InvalidArgument("pattern", f"got {shown(text)}", "a room name, or a pattern like 'chat:{room}'")
        self.text: str = text
        self.names: tuple[str, ...] = tuple(found[1] for found in NAME.finditer(text))
        if len(set(self.names)) != len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise InvalidArgument("pattern", f"{shown(text)} binds {twice!r} twice", "each name once")
        rest = _SIGN.sub("", NAME.sub("", text))
        if "{" in rest or "}" in rest:
            raise InvalidArgument(
                "pattern",
                f"{shown(text)} has a brace that encloses no name",
                "a name in braces, such as 'chat:{room}'; for a literal brace: [{] or [}]",
            )
        self.shape: str = NAME.sub(lambda found: f"{{{found[2] or ''}}}", text)
        self.is_literal: bool = not self.names and _SIGN.search(text) is None
        self.rank: tuple[int, ...] = _rank(text)
        self._matched = _Places(text) if len(_CHOOSES.findall(text)) > 1 else _Expression(text)

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"

    def match(self, name: str) -> Mapping[str, str] | None:
        """Returns the parts of a room's name by the names that the pattern binds; None if it does not match."""
        return self._matched(name)

    def name_of(self, parts: Mapping[str, str]) -> str:
        """Returns the room's name that has these parts: the inverse of `match`.

        Args:
            parts: A text for each name that the pattern binds.

        Raises:
            InvalidName: No room has these parts: one is empty, or contains ``:``, or a later part would take it.
            InvalidArgument: The pattern has a part without a name, such as ``*``.
        """
        name, at = "", 0
        while at < len(self.text):
            found = NAME.match(self.text, at) or _SIGN.match(self.text, at)
            if found is None:
                name += self.text[at]
            elif found.re is NAME:
                name += parts[found[1]]
            elif len(found[0]) == len("[*]"):
                name += found[0][1]
            else:
                problem = f"{shown(self.text)} has {found[0]!r}, which binds no name"
                raise InvalidArgument("pattern", problem, "a pattern of names and text, such as 'chat:{room}'")
            at = at + 1 if found is None else found.end()
        if self.match(name) != parts:
            given = ", ".join(f"{key}={shown(text)}" for key, text in parts.items())
            raise InvalidName(
                "room",
                f"{shown(self.text)} has no room with {given}",
                "parts of one or more characters without ':'; with ':', for a part that is written as {name:path}",
            )
        return name


class _Expression:
    """Matches names with one regular expression."""

    __slots__ = ("_fullmatch",)

    def __init__(self, text: str) -> None:
        expression, at = "", 0
        for found in NAME.finditer(text):
            characters = "(?s:.)" if found[2] else "[^:]"
            expression += f"{_shell(text[at : found.start()])}(?P<{found[1]}>{characters}+)"
            at = found.end()
        self._fullmatch = re.compile(expression + _shell(text[at:])).fullmatch

    def __call__(self, name: str) -> Mapping[str, str] | None:
        found = self._fullmatch(name)
        return None if found is None else found.groupdict()


class _Part(NamedTuple):
    """A part of a pattern between the places of a name.

    Attributes:
        fixed: Matches a part of a fixed length at a place; None for a part of any length.
        name: The name that the part binds; empty if it binds none.
        crosses: Whether the part may contain ``:``.
        least: The fewest characters of the part.
    """

    fixed: re.Pattern[str] | None
    name: str = ""
    crosses: bool = True
    least: int = 0

    def ends(self, name: str, goals: list[bool]) -> list[int]:
        """Returns for each place of a name the last place where a part that begins there may end, or -1.

        Args:
            name: The name of a room.
            goals: For each place, whether the rest of the pattern matches from there.
        """
        ends = [-1] * len(goals)
        if self.fixed is not None:
            for found in self.fixed.finditer(name):
                at, end = found.span(1)
                if goals[end]:
                    ends[at] = end
            return ends
        last = -1
        for at in range(len(name), -1, -1):
            if not self.crosses and name[at : at + 1] == ":":
                last = -1
            if goals[at] and last < 0:
                last = at
            if last >= at + self.least:
                ends[at] = last
        return ends


class _Places:
    """Matches names part by part. From the right, it finds the places from which the rest of the pattern matches."""

    __slots__ = ("_parts",)

    def __init__(self, text: str) -> None:
        self._parts: list[_Part] = []
        fixed, at = "", 0
        while at < len(text):
            found, sign = NAME.match(text, at), _SIGN.match(text, at)
            if found is None and text[at] != "*":
                end = at + 1 if sign is None else sign.end()
                fixed += text[at:end]
            else:
                self._add_fixed(fixed)
                fixed = ""
                end = at + 1 if found is None else found.end()
                self._parts.append(_Part(None) if found is None else _Part(None, found[1], bool(found[2]), 1))
            at = end
        self._add_fixed(fixed)

    def _add_fixed(self, text: str) -> None:
        if text:
            self._parts.append(_Part(re.compile(f"(?=({_shell(text)}))")))

    def __call__(self, name: str) -> Mapping[str, str] | None:
        goals = [False] * len(name) + [True]
        steps: list[list[int]] = []
        for part in reversed(self._parts):
            ends = part.ends(name, goals)
            steps.append(ends)
            goals = [end >= 0 for end in ends]
        if not goals[0]:
            return None
        names, at = {}, 0
        for part, ends in zip(self._parts, reversed(steps), strict=True):
            if part.name:
                names[part.name] = name[at : ends[at]]
            at = ends[at]
        return names


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
