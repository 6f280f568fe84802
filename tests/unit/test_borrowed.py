"""Undocumented names of other packages: those of the table in CONTRIBUTING.md, each of which exists, and no others."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[2]
PACKAGE = CHECKOUT / "src" / "hubbub"
MODULES = [path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")]

BORROWED = re.findall(r"^\| `([\w.]+)` \| `", (CHECKOUT / "CONTRIBUTING.md").read_text(), re.MULTILINE)

# What is imported of these packages, and documented by them.
DOCUMENTED = {
    "fastapi": "FastAPI HTTPException Depends Query Request Response WebSocket Form APIRouter WebSocketException "
    "UploadFile Body Security",
    "fastapi.exceptions": "RequestValidationError",
    "fastapi.routing": "APIRoute",
    "fastapi.security": "APIKeyHeader SecurityScopes",
    "fastapi.responses": "HTMLResponse JSONResponse RedirectResponse Response",
    "redis": "ConnectionPool",
    "redis.asyncio": "Connection ConnectionPool",
    "redis.asyncio.retry": "Retry",
    "redis.retry": "Retry",
    "redis.backoff": "NoBackoff",
    "redis.exceptions": "AuthenticationError AuthorizationError NoPermissionError NoScriptError ReadOnlyError "
    "RedisError ResponseError TimeoutError",
    "starlette.applications": "Starlette",
    "starlette.background": "BackgroundTasks",
    "starlette.concurrency": "run_in_threadpool",
    "starlette.datastructures": "Headers MutableHeaders QueryParams",
    "starlette.exceptions": "HTTPException WebSocketException",
    "starlette.middleware.cors": "CORSMiddleware",
    "starlette.requests": "ClientDisconnect HTTPConnection Request",
    "starlette.responses": "JSONResponse Response",
    "starlette.routing": "Route Router WebSocketRoute",
    "starlette.staticfiles": "StaticFiles",
    "starlette.testclient": "TestClient",
    "starlette.types": "ASGIApp Lifespan Message Receive Scope Send",
    "starlette.websockets": "WebSocket WebSocketDisconnect WebSocketState",
    "uvicorn": "Config Server",
    "websockets.exceptions": "PayloadTooBig",
    "websockets.frames": "Opcode",
    "websockets.protocol": "State",
    "websockets.server": "ServerProtocol",
}
WATCHED = {name.split(".")[0] for name in DOCUMENTED}


def found(name: str) -> bool:
    """Whether a dotted name exists: what a module has, a class, or an instance as the class's source sets it."""
    *modules, last = name.split(".")
    rest: list[str] = [last]
    while modules:
        try:
            thing: Any = importlib.import_module(".".join(modules))
            break
        except ImportError:
            rest.insert(0, modules.pop())
    else:
        return False
    for part in rest[:-1]:
        thing = getattr(thing, part, None)
    if hasattr(thing, rest[-1]):
        return True
    kinds = thing.__mro__[:-1] if inspect.isclass(thing) else ()
    return any(re.search(rf"self\.{rest[-1]}\b.* = ", inspect.getsource(kind)) for kind in kinds)


@pytest.mark.parametrize("name", BORROWED)
def test_borrowed_name_exists(name: str) -> None:
    assert found(name), f"{name} is gone: see what CONTRIBUTING.md says, and mend what leans on it"


def test_name_that_is_gone_is_noticed() -> None:
    assert not found("uvicorn.config.Config.loaded_thing")
    assert not found("uvicorn.gone.Config")


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse((PACKAGE / module).read_bytes())


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] in WATCHED:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in WATCHED and "." in alias.name)


@pytest.mark.parametrize("module", MODULES)
def test_what_is_imported_is_documented_or_in_the_table(module: str) -> None:
    documented = {f"{package}.{name}" for package, names in DOCUMENTED.items() for name in names.split()}
    assert set(imported(parsed(module))) <= documented | set(BORROWED)


@cache
def names_of_ours() -> frozenset[str]:
    """Private names that this package gives to its own: its definitions, what it assigns to self, its slots."""
    names = {"_replace", "_exit"}  # of named tuples; and `os._exit`, which is documented
    for module in MODULES:
        for node in ast.walk(parsed(module)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                names.add(node.name)
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "cls"):
                names.add(node.attr)
    return frozenset(names)


@pytest.mark.parametrize("module", MODULES)
def test_no_private_name_is_used_that_is_not_in_the_table(module: str) -> None:
    borrowed = {name.rpartition(".")[2] for name in BORROWED}
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            known = node.attr in borrowed if ast.unparse(node.value) not in ("self", "cls") else True
            assert known or node.attr in names_of_ours(), f"{module}:{node.lineno} uses {ast.unparse(node)}"


def test_table_names_nothing_that_is_not_used() -> None:
    sources = " ".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    for name in BORROWED:
        assert re.search(rf"\b{name.rpartition('.')[2]}\b", sources), f"{name} is not used any more"
