"""What users may touch is what they see: the public names, held against docs/reference.md, and their docstrings."""

from __future__ import annotations

import inspect
import pydoc
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from hubbub import Connection, ConnectionManager

REFERENCE = (Path(__file__).parents[2] / "docs" / "reference.md").read_text()
MODULES = ["hubbub", "hubbub.auth", "hubbub.brokers", "hubbub.client", "hubbub.testing"]


def documented(heading: str) -> set[str]:
    """The names in the first column of the table with this heading."""
    rows = REFERENCE.partition(f"\n| {heading} |")[2].partition("\n\n")[0]
    cells = re.findall(r"^\| (.+?) \|", rows, re.MULTILINE)
    return {re.sub(r"^await |\(.*", "", code) for cell in cells for code in re.findall(r"`([^`]+)`", cell)}


def visible(thing: object) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


def test_the_manager_shows_the_documented_names_and_no_others() -> None:
    assert visible(ConnectionManager) == documented("`ConnectionManager`")
    assert visible(ConnectionManager()) == documented("`ConnectionManager`")


@pytest.mark.parametrize("public", [ConnectionManager, Connection])
def test_help_shows_the_documented_names_and_no_others(public: type) -> None:
    shown = pydoc.plain(pydoc.render_doc(public))
    listed = set(re.findall(r"^ \|  (?:async )?([a-z]\w*)(?:\(| = |$)", shown, re.MULTILINE))
    assert listed == documented(f"`{public.__name__}`")


def test_a_connection_shows_the_documented_names_and_no_others() -> None:
    assert visible(Connection) == documented("`Connection`")


def test_the_modules_export_the_documented_names() -> None:
    exported = {f"{module}.{name}" for module in MODULES for name in import_module(module).__all__}
    assert exported - {"hubbub.ConnectionManager", "hubbub.Connection", "hubbub.__version__"} == documented("name")


def public_things() -> Iterator[tuple[str, Any]]:
    """All that is reachable by public names: the classes and functions, and the public members of the classes."""
    for module in MODULES:
        for name in import_module(module).__all__:
            thing = getattr(import_module(module), name)
            if inspect.isclass(thing) or inspect.isfunction(thing):
                yield f"{module}.{name}", thing
            if inspect.isclass(thing):
                yield from members(f"{module}.{name}", thing)
    for name in ("from_thread", "active_connections"):
        made = getattr(ConnectionManager(), name)
        yield from members(f"hubbub.ConnectionManager.{name}", type(made))


def members(name: str, thing: type) -> Iterator[tuple[str, Any]]:
    for member in sorted(visible(thing)):
        owner = next(each for each in thing.__mro__ if member in vars(each))
        found = inspect.getattr_static(thing, member)
        described = inspect.isroutine(found) or isinstance(found, (property, classmethod, staticmethod))
        if described and owner.__module__.startswith("hubbub"):
            yield f"{name}.{member}", getattr(thing, member)


THINGS = dict(public_things())


@pytest.mark.parametrize("name", THINGS)
def test_every_public_name_has_a_docstring(name: str) -> None:
    text = inspect.getdoc(THINGS[name]) or ""
    first, *rest = text.splitlines()
    assert first.endswith("."), "the first line is a sentence"
    assert not rest or not rest[0], "the first line is a sentence of its own"
    assert not re.match(r"(As|What|Who|It|Its|They) ", first), "a docstring stands alone"


CALLS = [name for name, thing in THINGS.items() if inspect.isroutine(thing)]


@pytest.mark.parametrize("name", CALLS)
def test_a_docstring_describes_each_argument(name: str) -> None:
    text = inspect.getdoc(THINGS[name]) or ""
    arguments = [each for each in inspect.signature(THINGS[name]).parameters if each not in {"self", "cls"}]
    section = text.partition("Args:\n")[2].partition("\n\n")[0]
    assert re.findall(r"^    (\w+): \S", section, re.MULTILINE) == arguments
