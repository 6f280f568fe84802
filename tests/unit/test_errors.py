"""Errors say what was wrong, and can be caught as what Python users know."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hubbub
from hubbub import HubbubError, InvalidArgument
from hubbub.errors import counted, shown

ERRORS = [each for each in vars(hubbub).values() if isinstance(each, type) and issubclass(each, Exception)]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_is_a_hubbub_error(error: type[Exception]) -> None:
    assert issubclass(error, HubbubError)


@pytest.mark.parametrize(
    ("name", "known_as"),
    [
        ("InvalidArgument", ValueError),
        ("NotInstalled", RuntimeError),
        ("NotRunning", RuntimeError),
        ("WrongLoop", RuntimeError),
        ("WrongThread", RuntimeError),
        ("ThreadTimeout", TimeoutError),
        ("BrokerUnavailable", ConnectionError),
    ],
)
def test_it_can_be_caught_as_python_users_know_it(name: str, known_as: type[Exception]) -> None:
    assert issubclass(getattr(hubbub, name), known_as)


def test_an_invalid_argument_names_it_says_what_was_wrong_and_what_is_accepted() -> None:
    error = InvalidArgument("room", "is empty", "a name")
    assert (error.argument, error.problem, error.accepted) == ("room", "is empty", "a name")
    assert str(error) == "room: is empty; accepted: a name"


class Awkward:
    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("the app's own mistake")


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("a\nb\x1b[31m\u2028ü\ud800", id="text"),
        pytest.param("x" * 100_000, id="long text"),
        pytest.param(b"\0" * 1000, id="bytes"),
        pytest.param(Awkward("a\nb\r\x1b[31m\u2028ü"), id="a repr of several lines"),
        pytest.param(Unshowable(), id="a repr that fails"),
        pytest.param(deep(), id="a repr that goes too deep"),
        pytest.param(10**5000, id="a number that Python does not print"),
    ],
)
def test_a_value_is_shown_in_one_bounded_line(value: object) -> None:
    """Log lines can't be forged by it, and an error's message never raises one of its own."""
    text = shown(value)
    assert len(text) <= 81
    assert all(" " <= character <= "~" for character in text.removesuffix("…")), ascii(text)


@given(st.text(), st.integers(1, 100))
def test_any_text_is_shown_in_one_bounded_line(text: str, limit: int) -> None:
    found = shown(text, limit=limit)
    assert len(found) <= limit + 1
    assert found.removesuffix("…").isprintable()


@pytest.mark.parametrize(
    ("number", "things", "text"),
    [(0, "rooms", "0 rooms"), (1, "rooms", "1 room"), (2, "rooms", "2 rooms"), (1, "bad messages", "1 bad message")],
)
def test_a_number_agrees_with_its_noun(number: int, things: str, text: str) -> None:
    assert counted(number, things) == text
