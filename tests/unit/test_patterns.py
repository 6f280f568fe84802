"""Patterns of room names: what they match, what they bind, and which is the more specific."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub import InvalidArgument, InvalidName
from hubbub.patterns import Pattern, _Expression, _Places


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
        ("a[{]b[}]", "a{b}", {}),
        ("[{]{a}[}]", "{x}", {"a": "x"}),
        # Each part takes as much as it can, from the left.
        ("{a}-{b}-{c}", "1-2-3-4", {"a": "1-2", "b": "3", "c": "4"}),
        ("{a:path}:{b:path}:{c}", "1:2:3:4", {"a": "1:2", "b": "3", "c": "4"}),
        ("*{a}*{b}x", "12345x", {"a": "4", "b": "5"}),
        ("*-{a:path}-*-?", "1-2-3-4-5", {"a": "3"}),
        ("{a}-{b}-{c}", "1-2:3-4", None),
    ],
)
def test_what_a_pattern_matches(pattern: str, name: str, names: dict[str, str] | None) -> None:
    assert Pattern(pattern).match(name) == names


@given(st.text("ab:*?[]!-\n", min_size=1) | st.sampled_from(["[{]", "a[}*]b*"]), st.text("ab:*?[]!-\n{}"))
def test_patterns_without_names_are_those_of_the_shell(pattern: str, name: str) -> None:
    compiled = Pattern(pattern)
    assert not compiled.names
    assert (compiled.match(name) is not None) == fnmatchcase(name, pattern)
    assert not compiled.is_literal or (compiled.match(name) is not None) == (name == pattern)


PARTS = ["{a}", "{b}", "{c:path}", "{d:path}", "*", "?", "[ab]", "[!a]", ":", "-", "a"]


@given(st.lists(st.sampled_from(PARTS), min_size=1, max_size=7, unique_by=lambda part: part[:2]), st.text("ab:-\n"))
def test_both_ways_of_matching_agree(parts: list[str], name: str) -> None:
    text = "".join(parts)
    assert _Places(text)(name) == _Expression(text)(name)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("x:{a:path}:{b:path}:{c:path}:{d:path}:end", f"x{':' * 250}"),
        ("{a}-{b}-{c}-{d}-{e}:", "-" * 250),
        ("*{a}*{b}*{c}*{d}x", "a" * 250),
        ("{a}{b}{c}{d}{e}{f}:", "a" * 250),
        ("?{a:path}[:a]{b:path}[:a]{c:path}[:a]*x", ":a" * 125),
        ("*a*a*a*a*a*a*b", "a" * 250),
    ],
)
def test_no_name_takes_long_to_match(pattern: str, name: str) -> None:
    assert isinstance(Pattern(pattern)._matched, _Places), "a regular expression would take seconds"
    assert Pattern(pattern).match(name) is None


@pytest.mark.parametrize("pattern", ["lobby", "chat:{room}", "{kind}:{id}", "doc:{a}:{b}:{c:path}", "{tenant}:*", "*"])
def test_patterns_of_which_no_two_parts_choose_their_end_are_matched_by_one_expression(pattern: str) -> None:
    assert isinstance(Pattern(pattern)._matched, _Expression)


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters=":"), min_size=1), min_size=2, max_size=2
    )
)
def test_names_bind_the_parts_of_a_name(parts: list[str]) -> None:
    assert Pattern("x:{a}:{b}").match(f"x:{parts[0]}:{parts[1]}") == {"a": parts[0], "b": parts[1]}


@given(
    st.sampled_from(["x:{a}:{b}", "{a}-{b}", "{a:path}/{b}", "{a}{b:path}", "[{]{a}[*]{b}[?][[]"]),
    st.lists(st.text("ab-:/*?[]{}", max_size=5), min_size=2, max_size=2),
)
def test_a_name_is_made_of_the_parts_that_it_gives_back(pattern: str, parts: list[str]) -> None:
    compiled = Pattern(pattern)
    named = dict(zip("ab", parts, strict=True))
    name = re.sub(r"\[(.)\]|\{(.).*?\}", lambda found: found[1] or named[found[2]], pattern)
    found = compiled.match(name)
    if found is not None:
        assert compiled.name_of(found) == name
    if found == named:
        assert compiled.name_of(named) == name
    else:
        with pytest.raises(InvalidName):
            compiled.name_of(named)


@pytest.mark.parametrize(
    ("pattern", "parts", "name"),
    [
        ("lobby", {}, "lobby"),
        ("chat:{room}", {"room": "a/b\n ü"}, "chat:a/b\n ü"),
        ("doc:{id:path}:x", {"id": "a:b"}, "doc:a:b:x"),
        ("[*]{a}[?][{][[]", {"a": "*"}, "**?{["),
    ],
)
def test_a_name_is_made_of_its_parts(pattern: str, parts: dict[str, str], name: str) -> None:
    assert Pattern(pattern).name_of(parts) == name


@pytest.mark.parametrize("part", ["", "a:b", ":"])
def test_no_name_is_made_of_a_part_that_belongs_to_another_room(part: str) -> None:
    with pytest.raises(InvalidName, match=r"'chat:\{room\}' has no room with room="):
        Pattern("chat:{room}").name_of({"room": part})


@pytest.mark.parametrize("pattern", ["ticker:*", "t?", "t[ab]", "t[!a]{x}", "{x}:*"])
def test_no_name_is_made_for_parts_without_a_name(pattern: str) -> None:
    with pytest.raises(InvalidArgument, match="which binds no name; accepted: a pattern of names and text"):
        Pattern(pattern).name_of({"x": "1"})


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


@pytest.mark.parametrize(
    "text", ["", None, 5, b"chat", "{a}:{a}", "{a}{a:path}", "{}", "{1}", "{a b}", "{a:int}", "a{", "a}", "chat:{room"]
)
def test_wrong_patterns_are_refused(text: object) -> None:
    with pytest.raises(InvalidArgument):
        Pattern(text)  # type: ignore[arg-type]  # some are no str


@pytest.mark.parametrize("text", ["{}", "{1}", "{a b}", "{a:int}", "a{", "a}", "chat:{room", "{a}}"])
def test_a_brace_that_encloses_no_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="has a brace that encloses no name"):
        Pattern(text)
