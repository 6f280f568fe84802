"""Paths: which sockets a manager serves."""

from __future__ import annotations

from typing import Any

import pytest

from hubbub.errors import InvalidArgument
from hubbub.paths import Paths, path_within


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        pytest.param("/ws", "/ws", True, id="exact"),
        pytest.param("/ws", "/ws/", False, id="slash"),
        pytest.param("/ws", "/wsx", False, id="longer"),
        pytest.param("/ws", "/a/ws", False, id="prefix"),
        pytest.param("/ws/{room}", "/ws/lobby", True, id="segment"),
        pytest.param("/ws/{room}", "/ws/a b\n", True, id="any-character"),
        pytest.param("/ws/{room}", "/ws/", False, id="empty-segment"),
        pytest.param("/ws/{room}", "/ws/a/b", False, id="two-segments"),
        pytest.param("/ws/{room}/{user}", "/ws/a/b", True, id="two-names"),
        pytest.param("/ws/{room:int}", "/ws/7", True, id="convertor"),
        pytest.param("/ws/{rest:path}", "/ws/a/b", True, id="path"),
        pytest.param("/ws/*", "/ws/a/b", True, id="star"),
        pytest.param("/ws/*", "/ws", False, id="star-needs-the-slash"),
        pytest.param("/*", "/a\nb", True, id="star-newline"),
        pytest.param("/a.b", "/axb", False, id="no-expression"),
        pytest.param("/{}", "/{}", True, id="braces"),
    ],
)
def test_a_pattern_is_that_of_a_route(pattern: str, path: str, matches: bool) -> None:
    assert (path in Paths(pattern)) is matches
    assert (path in Paths(["/other", pattern])) is matches


@pytest.mark.parametrize(
    ("patterns", "problem"),
    [
        ([], "is empty"),
        ("", "'' is not a path"),
        ("ws", "'ws' is not a path"),
        (["/ws", 5], "5 is not a path"),
        (b"/ws", "got b'/ws'"),
        (5, "got 5"),
    ],
)
def test_a_pattern_that_is_no_path_is_refused_by_name(patterns: Any, problem: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^only: {problem}"):
        Paths(patterns)


@pytest.mark.parametrize(
    ("path", "root", "within"),
    [
        ("/ws", "", "/ws"),
        ("/api/ws", "/api", "/ws"),
        ("/api", "/api", "/"),
        ("/apix/ws", "/api", "/apix/ws"),
        ("/ws", "/api", "/ws"),  # a proxy has stripped the prefix
    ],
)
def test_the_path_is_that_within_the_app(path: str, root: str, within: str) -> None:
    assert path_within(path, root) == within
