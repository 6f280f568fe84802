"""Patterns of paths, written as FastAPI writes the paths of routes. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from .errors import InvalidArgument, shown

_ACCEPTED: Final = "a path as in `@app.websocket(...)`, such as '/ws/{room}' or '/live/*', or a list of them"
_PARTS: Final = re.compile(r"\{[A-Za-z_]\w*(?::(\w+))?\}|\*")


class Paths:
    """The set of all paths that match one of some patterns.

    Args:
        patterns: One pattern or several. ``{name}`` stands for one segment of the path, as in a route. ``{name:path}``
            and ``*`` stand for anything, including slashes.

    Raises:
        InvalidArgument: A pattern is not a path, or there are no patterns.
    """

    __slots__ = ("_matches", "patterns")

    def __init__(self, patterns: str | Iterable[str]) -> None:
        several = [patterns] if isinstance(patterns, str) else patterns
        if isinstance(several, bytes) or not isinstance(several, Iterable):
            raise InvalidArgument("only", f"got {shown(patterns)}", _ACCEPTED)
        self.patterns: tuple[str, ...] = tuple(several)
        if not self.patterns:
            raise InvalidArgument("only", "is empty, so no path would be served", _ACCEPTED)
        for pattern in self.patterns:
            if not isinstance(pattern, str) or not pattern.startswith("/"):
                raise InvalidArgument("only", f"{shown(pattern)} is not a path", _ACCEPTED)
        self._matches = re.compile("|".join(map(_expression, self.patterns))).fullmatch

    def __contains__(self, path: str) -> bool:
        return self._matches(path) is not None

    def __repr__(self) -> str:
        return f"Paths({', '.join(map(repr, self.patterns))})"


def _expression(pattern: str) -> str:
    expression, at = "", 0
    for part in _PARTS.finditer(pattern):
        expression += re.escape(pattern[at : part.start()])
        expression += "(?s:.*)" if part[0] == "*" or part[1] == "path" else "[^/]+"
        at = part.end()
    return expression + re.escape(pattern[at:])


def path_within(scope_path: str, root_path: str) -> str:
    """Returns the path of a request as the routes of an app see it.

    Args:
        scope_path: The ASGI scope's ``path``.
        root_path: The ASGI scope's ``root_path``: the path at which the app is mounted, or that a proxy strips.
    """
    if root_path and scope_path.startswith(root_path) and scope_path[len(root_path) :][:1] in ("", "/"):
        return scope_path[len(root_path) :] or "/"
    return scope_path
