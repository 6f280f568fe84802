"""Patterns of room names: what they match, what they bind, and which is the more specific."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub import InvalidArgument
from hubbub.patterns import Pattern


@pytest.mark.parametrize(
    ("pattern", "name", "names"),
    [
        ("lobby", "lobby", {}),
        ("lobby", "Lobby", None),
        ("chat:{room}", "chat:lobby", {"room": "lobby"}),
        ("chat:{room}", "chat:a/b\n ü", {"room": "a/b\n ü"}),
        ("chat:{room}", "chat:", None),
        ("chat:{room}", "chat:a:b", None),
        ("chat:{room}", "chat:lobby\n", {"room": "lobby\n"}),
        ("chat:{room:path}", "chat:a:b", {"room": "a:b"}),
        ("chat:{room:path}", "chat:", None),
        ("{kind}:{id}", "doc:5", {"kind": "doc", "id": "5"}),
        ("doc:{id}:comments", "doc:5:comments", {"id": "5"}),
        ("doc:{id}-{part}", "doc:a-b-c", {"id": "a-b", "part": "c"}),
        ("{room}", "lobby", {"room": "lobby"}),
        ("{tenant}:*", "acme:a:b", {"tenant": "acme"}),
        ("{tenant}:*", "acme:", {"tenant": "acme"}),
        ("ticker:*", "ticker:", {}),
        ("ticker:*", "ticker:a:b", {}),
        ("t?:{id}", "t1:x", {"id": "x"}),
        ("t[0-9]:{id}", "tx:x", None),
        ("a.b+(c){x}", "a.b+(c)d", {"x": "d"}),
        ("*{x}", "ab", {"x": "b"}),
        # Braces that enclose no name stand for themselves.
        ("{}", "{}", {}),
        ("{1}", "{1}", {}),
        ("{a b}", "{a b}", {}),
        ("{a:int}", "{a:int}", {}),
        ("a{", "a{", {}),
    ],
)
def test_what_a_pattern_matches(pattern: str, name: str, names: dict[str, str] | None) -> None:
    assert Pattern(pattern).match(name) == names


@given(st.text("ab:*?[]!-\n{}", min_size=1), st.text("ab:*?[]!-\n{}"))
def test_patterns_without_names_are_those_of_the_shell(pattern: str, name: str) -> None:
    compiled = Pattern(pattern) if "{a}" not in pattern and "{b}" not in pattern else None
    if compiled is not None and not compiled.names:
        assert (compiled.match(name) is not None) == fnmatchcase(name, pattern)
        assert not compiled.is_literal or (compiled.match(name) is not None) == (name == pattern)


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters=":"), min_size=1), min_size=2, max_size=2
    )
)
def test_names_bind_the_parts_of_a_name(parts: list[str]) -> None:
    assert Pattern("x:{a}:{b}").match(f"x:{parts[0]}:{parts[1]}") == {"a": parts[0], "b": parts[1]}


@pytest.mark.parametrize(
    "patterns",
    [
        ["chat:lobby", "chat:{room}", "chat:{room:path}", "chat:*", "*"],
        ["chat:[ab]", "chat:?", "chat:{room}"],
        ["chat:{room}", "{kind}:lobby", "{kind}:{id}", "{kind}:*", "*:lobby", "*"],
        ["doc:{id}-draft", "doc:{id}", "doc:*"],
        ["chat:*:staff", "chat:*"],
    ],
)
def test_the_more_specific_pattern_comes_first(patterns: list[str]) -> None:
    turned = patterns[::-1]
    assert sorted(turned, key=lambda text: Pattern(text).rank) == patterns


def test_patterns_that_match_the_same_have_one_shape() -> None:
    assert Pattern("chat:{room}").shape == Pattern("chat:{id}").shape
    others = ["chat:{room:path}", "chat:*", "chat:{}", "chat:{room}:x"]
    assert len({Pattern(each).shape for each in ("chat:{room}", *others[:2], others[3])}) == 4


@pytest.mark.parametrize("text", ["", None, 5, b"chat", "{a}:{a}", "{a}{a:path}"])
def test_wrong_patterns_are_refused(text: object) -> None:
    with pytest.raises(InvalidArgument):
        Pattern(text)  # type: ignore[arg-type]  # some are no str
