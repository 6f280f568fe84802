"""Who may import whom, and who may import what from outside: the tables, held against the imports as written."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "hubbub"

# Bottom to top. A part is a module of the package, or a folder as a whole; it may import from its own layer and from
# those below, without going round in a circle. `__init__` is the public names: `from hubbub import ...`.
LAYERS = [
    "__about__ errors close names patterns options subprotocols",
    "addresses arguments claims codec envelope lifecycle nowait origin paths positions presence read_only redaction "
    "tasks timers "
    "metrics",
    "protocols brokers",
    "connections",
    "asgi endpoints from_thread http_api rooms streams",
    "server",
    "engine",
    "manager",
    "auth publisher client",
    "__init__",
    "testing demo cli",
    "__main__",
]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts.split()}

# Stricter than the layers: all that these parts may import of ours.
NO_MORE_THAN = {"auth": {"auth", "claims", "errors", "close", "names", "subprotocols"}}

# From outside, and where alone it may be imported: a part, or a module.
_PURE = {part for part in LEVEL if LEVEL[part] < LEVEL["protocols"]} - {"lifecycle", "tasks", "timers"} | {"protocols"}
ONLY_IN = {
    "redis": {"brokers.redis.link", "brokers.redis.sync"},
    "uvicorn": {"connections.transports.trial", "connections.transports.uvicorn_http", "server.serve", "cli"},
    "starlette": {
        "connections",
        "asgi",
        "endpoints",
        "http_api",
        "streams",
        "rooms",
        "engine",
        "from_thread",
        "lifecycle",
        "manager",
        "auth",
        "client",
        "cli",
        "demo",
        "testing",
    },
    "fastapi": {"manager", "auth", "demo", "testing", "endpoints.dependencies", "http_api.router"},
    "google": {"protocols.centrifugo.protobuf"},
    "asyncio": LEVEL.keys() - _PURE,
}


def name_of(path: Path) -> str:
    """The module's name below `hubbub`; `__init__` for `hubbub` itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def part_of(module: str) -> str:
    return module.split(".")[0]


class Import(NamedTuple):
    """A name that is imported, absolute, and where; whether for real or for type checkers only makes no difference."""

    name: str
    where: str


def imports(module: str) -> Iterator[Import]:
    """All that a module imports, anywhere in it."""
    path = MODULES[module]
    package = ("hubbub", *path.relative_to(PACKAGE).parent.parts)
    tree = ast.parse(path.read_bytes(), str(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            source = ""
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            source = ".".join((*base, *filter(None, [node.module]))) + "."
        else:
            continue
        for alias in node.names:
            yield Import(source + alias.name, f"{path}:{node.lineno}")


def ours(module: str) -> Iterator[Import]:
    """What a module imports of the package, with the names of the modules."""
    for found in imports(module):
        if part_of(found.name) == "hubbub":
            target = found.name.removeprefix("hubbub").removeprefix(".")
            while target and target not in MODULES:
                target = target.rpartition(".")[0]
            yield found._replace(name=target or "__init__")


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    part = part_of(module)
    assert part in LEVEL, f"{part!r} has no layer yet: add it to LAYERS in {Path(__file__).name}"
    for found in ours(module):
        above = LEVEL.get(part_of(found.name), 0) > LEVEL[part]
        assert not above, f"{found.where} imports {found.name}, which is in a layer above"


@pytest.mark.parametrize("module", [module for module in MODULES if part_of(module) in NO_MORE_THAN])
def test_imports_are_no_more_than_allowed(module: str) -> None:
    allowed = NO_MORE_THAN[part_of(module)]
    for found in ours(module):
        assert part_of(found.name) in allowed, f"{found.where} imports {found.name}; allowed: {sorted(allowed)}"


@pytest.mark.parametrize("module", MODULES)
def test_imports_from_outside_stay_in_their_place(module: str) -> None:
    for found in imports(module):
        places = ONLY_IN.get(part_of(found.name))
        allowed = places is None or part_of(module) in places or module in places
        assert allowed, f"{found.where} imports {found.name}, which only {sorted(places or ())} may"


def test_no_imports_go_in_circles() -> None:
    modules: dict[str, set[str]] = {}
    parts: dict[str, set[str]] = {}
    for module in MODULES:
        targets = {found.name for found in ours(module)}
        modules[module] = targets - {module}
        parts.setdefault(part_of(module), set()).update({part_of(target) for target in targets} - {part_of(module)})
    for graph in (modules, parts):
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            pytest.fail("imports go in a circle: " + " <- ".join(error.args[1]))
