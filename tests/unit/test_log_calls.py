"""No log line holds what a client or a broker sent without being escaped and bounded: `hubbub.errors.shown`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "hubbub"
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}

# What escapes and bounds a text, or makes one of nothing from outside.
SAFE_CALLS = {"shown", "counted", "_where", "_detail", "said"}
# Texts of our own: what they hold of others went through `shown` when they were made.
SAFE_TEXTS = {
    "function.name": "the name of a function of the app, and what declares it",
    "self.where": "made with shown",
    "socket.where": "made with shown",
    "str(error)": "a HubbubError, whose text is made with shown",
    "refusal": "OriginPolicy's line",
    "problem": "OriginPolicy's, Guard's",
    "why": "a constant, or made with said",
    "whom": "a constant, or made with shown",
    "lost_by": "made with said",
    "detour.text": "made with shown, or a constant of transports",
    "pings": "a constant of server",
    "cause.reason": "a constant of CloseCode",
    "error.reason": "a constant of InvalidToken",
    "self.broker.name": "a constant of the broker",
    "broker.name": "a constant of the broker",
    "task.get_name()": "a constant",
}


MODULES = [path.relative_to(PACKAGE).as_posix() for path in sorted(PACKAGE.rglob("*.py")) if "log" in path.read_text()]


@cache
def log_calls(module: str) -> list[ast.Call]:
    """The calls of a logger in a module, each without its level."""
    found = []
    for node in ast.walk(ast.parse((PACKAGE / module).read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in LEVELS
            and ast.unparse(node.func.value) in {"logger", "_logger", "logging"}
        ):
            if node.func.attr == "log":  # the level comes first
                del node.args[0]
            found.append(node)
    return found


def texts(call: ast.Call) -> Iterator[ast.expr]:
    """The arguments that a ``%s`` or ``%r`` of the line takes."""
    line = ast.literal_eval(call.args[0])
    kinds = [next(filter(str.isalpha, part)) for part in line.replace("%%", "").split("%")[1:]]
    assert len(kinds) == len(call.args) - 1, f"{line!r} takes {len(kinds)} arguments"
    for kind, argument in zip(kinds, call.args[1:], strict=True):
        if kind not in "dgfi":  # a number can't forge a line
            yield argument


def is_safe(argument: ast.expr) -> bool:
    if isinstance(argument, ast.Constant):
        return True
    if isinstance(argument, ast.IfExp):
        return is_safe(argument.body) and is_safe(argument.orelse)
    if isinstance(argument, ast.Call) and isinstance(argument.func, ast.Name) and argument.func.id in SAFE_CALLS:
        return True
    return ast.unparse(argument) in SAFE_TEXTS


@pytest.mark.parametrize("module", MODULES)
def test_every_text_in_a_log_line_is_bounded_and_escaped(module: str) -> None:
    for call in log_calls(module):
        where = f"{module}:{call.lineno}"
        assert isinstance(call.args[0], ast.Constant), f"{where}: an argument of the line is part of its literal"
        for argument in texts(call):
            assert is_safe(argument), f"{where}: {ast.unparse(argument)} is not made by one of {sorted(SAFE_CALLS)}"


def test_every_text_that_is_let_through_is_in_some_line() -> None:
    used = {ast.unparse(each) for module in MODULES for call in log_calls(module) for each in texts(call)}
    assert set(SAFE_TEXTS) - used == set()
