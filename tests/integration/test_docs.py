"""The words hold: examples are what the tests run, tables say what the code says, links lead somewhere."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import symtable
import sys
import textwrap
import types
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from examples import rooms
from hubbub import CloseCode, ConnectionManager, Limits, RoomOptions, Stats
from hubbub.options import OVERFLOWS
from hubbub.protocols.centrifugo.codes import closed_as
from tests.integration.endpoints import free_port
from tests.integration.sdk_js import JS, NODE, require_packages
from tests.integration.support import client, receive, serving

pytestmark = pytest.mark.anyio

CHECKOUT = Path(__file__).parents[2]
DOCS = sorted((CHECKOUT / "docs").glob("*.md"))
PAGES = [CHECKOUT / "README.md", CHECKOUT / "CHANGELOG.md", CHECKOUT / "CONTRIBUTING.md", *DOCS]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
A_FEW_LINES = 3


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page."""
    return [text.rstrip("\n") for found, text in FENCE.findall(page.read_text()) if found == language]


def words(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text())


def table(page: str, heading: str) -> list[list[str]]:
    """The rows of the table whose first column has this heading."""
    lines = iter(words(CHECKOUT / page).splitlines())
    for line in lines:
        if line.startswith(f"| {heading} |"):
            next(lines)
            break
    else:
        raise AssertionError(f"{page} has no table of {heading}")
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def named(page: Path) -> str:
    return str(page.relative_to(CHECKOUT))


# Examples


SOURCES = [path.read_text() for path in (CHECKOUT / "examples").rglob("*.py")]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_python_in_the_docs_is_in_an_example(page: Path) -> None:
    for block in blocks(page, "python"):
        ast.parse(textwrap.dedent(block))
        if len(block.splitlines()) > A_FEW_LINES:
            assert any(f"\n{block}\n" in f"\n{source}" for source in SOURCES), f"{page.name}: no example has\n{block}"


def test_typescript_in_the_docs_is_in_an_example() -> None:
    examples = CHECKOUT / "examples"
    desk = examples / "support_desk" / "page"
    sources = [path.read_text() for path in (*examples.glob("*.ts"), *desk.glob("*.ts"), *desk.glob("src/*.ts*"))]
    for page in PAGES:
        for block in (*blocks(page, "ts"), *blocks(page, "tsx")):
            if len(block.splitlines()) > A_FEW_LINES:
                assert any(f"\n{block}\n" in f"\n{source}" for source in sources), f"{page.name}: no file has\n{block}"


WITHOUT_A_PROGRAM = {"architecture.md"}  # it is for people who change hubbub


@pytest.mark.parametrize("page", [page for page in DOCS if page.name not in WITHOUT_A_PROGRAM], ids=named)
def test_every_page_opens_with_a_program_that_runs_when_pasted(page: Path) -> None:
    opening = page.read_text().partition("\n## ")[0]
    (found, program), *_ = FENCE.findall(opening)
    assert found == "python"
    assert isinstance(pasted(program)["app"], FastAPI)


OTHERS = {"broadcaster", "socketio"}  # no dependencies of hubbub: a program that has to be replaced may need them
BELOW_ANOTHER = {"testing.md"}  # its tests are one file, which the page explains test by test
PACKAGES = {"tutorial.md": "examples.support_desk"}  # its blocks are the modules of one package


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=named)
def test_all_python_of_a_page_runs_when_pasted(page: Path) -> None:
    above = ""
    for block in blocks(page, "python"):
        if undefined(block) and page.name in BELOW_ANOTHER:
            block = f"{above}\n{block}"
        assert undefined(block) == set(), f"{page.name}: an import or a definition is missing in\n{block}"
        try:
            pasted(block, PACKAGES.get(page.name))
        except ModuleNotFoundError as missing:
            if missing.name not in OTHERS:
                raise
        above = block


def pasted(program: str, package: str | None = None) -> dict[str, Any]:
    """Runs a program as the module `app`, of a package or alone, and returns what it defines."""
    module = types.ModuleType("app")
    module.__package__, module.__file__ = package, "app.py"
    before = dict(sys.modules)
    sys.modules["app"] = module  # where dataclasses and annotations look names up
    try:
        exec(compile(program, "app.py", "exec"), module.__dict__)
    finally:
        del sys.modules["app"]
        for name in [name for name in sys.modules if package and name.startswith(package)]:
            if name not in before:
                del sys.modules[name]  # each block gets the package anew
    return module.__dict__


def undefined(program: str) -> set[str]:
    """The names that a program uses, in functions too, and never defines."""
    used, defined = set(), {*dir(builtins), "__file__"}
    tables = [symtable.symtable(program, "app.py", "exec")]
    for table in tables:
        tables += table.get_children()
        for symbol in table.get_symbols():
            is_global = symbol.is_global() or table.get_type() == "module"
            if is_global and symbol.is_referenced():
                used.add(symbol.get_name())
            if is_global and (symbol.is_assigned() or symbol.is_imported()):
                defined.add(symbol.get_name())
    return used - defined


def test_a_name_that_a_program_lacks_is_found() -> None:
    assert undefined("def f(a: Annotated[int, 5]) -> None:\n    b: C = [a for d in e]\n    g.h(len(i))") == {
        *("Annotated", "C", "e", "g", "i")
    }
    assert undefined("import a, b as c\nclass D:\n    e = 1\n    f = e\ndef g(h=c): return (h, a, D, g)") == set()


# Links


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", words(page), re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", words(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(linked), f"{page.name} links to {target}; there are {sorted(anchors(linked))}"


def test_tutorial_counts_the_lines_of_its_plumbing() -> None:
    count = lines_of_code(CHECKOUT / "examples" / "support_desk" / "live.py")
    assert count < 60
    assert f"has {count} lines of code" in " ".join(words(CHECKOUT / "docs" / "tutorial.md").split())


def lines_of_code(path: Path) -> int:
    """How many lines a Python file has without its docstring, comments and blank lines."""
    source = path.read_text()
    docstring = ast.get_docstring(ast.parse(source), clean=False) or ""
    lines = (line.strip() for line in source.replace(f'"""{docstring}"""', "", 1).splitlines())
    return sum(1 for line in lines if line and not line.startswith("#"))


def test_index_has_every_page() -> None:
    index = (CHECKOUT / "docs" / "index.md").read_text()
    assert not [page.name for page in DOCS if page.name != "index.md" and f"({page.name})" not in index]


def test_readme_opens_with_the_two_commands() -> None:
    commands = [line.split()[0] for line in blocks(CHECKOUT / "README.md", "sh")[0].splitlines()]
    assert commands == ["scripts/demo", "scripts/test"]
    assert all(os.access(CHECKOUT / command, os.X_OK) for command in commands)


# Tables


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_row_is_in_a_table(page: Path) -> None:
    for rows in re.findall(r"(?:^\|.*\n?)+", words(page), re.MULTILINE):
        assert re.search(r"\A.*\n\|[-|: ]+\|$", rows, re.MULTILINE), f"{page.name}: no table has\n{rows}"


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_limits_and_their_defaults_are_those_of_the_code() -> None:
    documented = {quoted(row[0])[0]: ast.literal_eval(quoted(row[1])[0]) for row in table("docs/limits.md", "limit")}
    assert documented == dataclasses.asdict(Limits())
    assert list(documented) == [field.name for field in dataclasses.fields(Limits)]


def test_codes_and_counters_of_limits_are_those_of_the_code() -> None:
    causes = {(cause.code, cause.reason): cause.name.lower() for cause in CloseCode}
    counted_plainly = {field.name for field in dataclasses.fields(Stats)}
    for limit, _, _, close, in_endpoint, counters in table("docs/limits.md", "limit"):
        found = re.fullmatch(r'(\d{4}) "(.+)"', close)
        assert found or not close
        if found and quoted(limit)[0] not in {"max_errors", "max_rooms_per_connection"}:  # without a Close frame there
            assert in_endpoint == str(closed_as(int(found[1]), found[2]).code)
        for counter in quoted(counters):
            kind, _, key = counter.rstrip('"]').partition('["')
            assert kind in counted_plainly
            if kind == "refused":
                assert found
                assert causes[int(found[1]), found[2]] == key


def test_room_options_and_their_defaults_are_those_of_the_code() -> None:
    rows = table("docs/rooms-and-users.md", "option")
    documented = {quoted(row[0])[0]: ast.literal_eval(quoted(row[1])[0]) for row in rows}
    assert documented == dataclasses.asdict(RoomOptions())


def test_overflow_policies_are_those_of_the_code() -> None:
    rows = table("docs/slow-clients.md", "`overflow`")
    assert [ast.literal_eval(quoted(row[0])[0]) for row in rows] == list(OVERFLOWS)


def test_names_of_other_managers_are_not_ours_and_those_beside_them_are() -> None:
    for theirs, ours in table("docs/replace-your-manager.md", "yours"):
        for call in quoted(theirs):
            name = re.sub(r"\W.*", "", call.removeprefix("len("))
            assert not hasattr(ConnectionManager, name), f"{name} needs no other name"
        names = re.findall(r"manager\.(\w+)", ours)
        assert names
        assert all(hasattr(ConnectionManager, name) for name in names), ours


# Frames


def documented(page: str, wanted: str) -> dict[str, Any]:
    for block in blocks(CHECKOUT / "docs" / page, "json"):
        if wanted in block:
            frame: dict[str, Any] = json.loads(block)
            return frame
    raise AssertionError(f"{page} has no frame with {wanted}")


def same_shape(found: Any, shown: Any) -> bool:
    """Whether two values have the same keys in the same order, and values of the same kinds."""
    if isinstance(shown, dict):
        return list(found) == list(shown) and all(same_shape(found[key], shown[key]) for key in shown)
    return type(found) is type(shown)


async def test_announcement_is_as_documented() -> None:
    with serving(rooms.app) as server:
        async with client(server, "/ws/ann") as one:
            joined, shown = await receive(one), documented("rooms-and-users.md", "user_joined")
            assert same_shape(joined, shown)
            assert {**joined, "timestamp": ""} == {**shown, "timestamp": ""}


async def test_error_is_as_documented() -> None:
    with serving(rooms.app) as server:
        async with client(server, "/ws/ann") as one:
            await receive(one)
            await one.send("{")
            error, shown = await receive(one), documented("limits.md", "invalid_json")
            assert same_shape(error, shown)
            assert error["code"] == shown["code"]


# The quick start, as somebody pastes it


class Pasted:
    """A program of the docs in a folder of its own, under the uvicorn that its command starts."""

    def __init__(self, folder: Path, program: str, serve: str) -> None:
        self.port = free_port()
        module = re.findall(r"uvicorn (\w+):app", serve)[0]
        (folder / f"{module}.py").write_text(program + "\n")
        self.folder = folder
        self.serve = serve
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        python_path = os.pathsep.join(filter(None, [str(CHECKOUT / "src"), os.environ.get("PYTHONPATH")]))
        self.environment = {**os.environ, "PATH": path, "PYTHONPATH": python_path, "NO_PROXY": "127.0.0.1"}

    @contextmanager
    def shell(self, *pasted: str | None) -> Iterator[subprocess.Popen[str]]:
        """Runs what was pasted; after the block nothing of it runs."""
        script = "\n".join(block for block in pasted if block).replace("127.0.0.1:8000", f"127.0.0.1:{self.port}")
        with subprocess.Popen(
            ("sh", "-c", script),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # the shell, and what it runs

    def output(self, *pasted: str | None) -> str:
        with self.shell(*pasted) as process:
            return process.communicate()[0]

    @contextmanager
    def served(self) -> Iterator[None]:
        with self.shell(f"{self.serve} --port {self.port}") as server:
            assert server.stdout is not None
            while "Uvicorn running" not in (line := server.stdout.readline()):
                assert line, "the server ended"
            yield
            os.killpg(server.pid, signal.SIGTERM)
            server.communicate()


README = CHECKOUT / "README.md"


def test_readme_installs_the_checkout_in_a_virtual_environment() -> None:
    assert blocks(README, "sh")[1].splitlines() == [
        "python3 -m venv .venv",
        ". .venv/bin/activate",
        "pip install '.[standard]'",
    ]


def test_the_handler_of_the_readme_runs_as_printed(tmp_path: Path) -> None:
    _, _, serve, client, *_ = blocks(README, "sh")
    handler = Pasted(tmp_path, blocks(README, "python")[0], serve)
    with handler.served(), handler.shell(client) as talking:
        assert talking.stdin is not None
        assert talking.stdout is not None
        talking.stdin.write("Hello\n")
        talking.stdin.flush()
        assert any("< Hello" in line for line in talking.stdout)


def test_the_endpoint_of_the_readme_runs_as_printed(tmp_path: Path) -> None:
    require_packages()
    *_, serve, install_and_run = blocks(README, "sh")
    install, run = install_and_run.splitlines()
    assert install == "npm install centrifuge"
    (tmp_path / "node_modules").symlink_to(JS / "node_modules")
    program = (CHECKOUT / "examples" / "first_endpoint.py").read_text()
    assert blocks(README, "python")[1] == program.rstrip()
    endpoint = Pasted(tmp_path, program, serve)
    client = blocks(README, "js")[0].replace("127.0.0.1:8000", f"127.0.0.1:{endpoint.port}")
    (tmp_path / "client.mjs").write_text(client)
    with endpoint.served(), endpoint.shell(run.replace("node", f"exec {NODE}")) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "{ room: 'lobby', text: 'hello' }\n"


def test_users_rooms_and_tokens_run_as_printed(tmp_path: Path) -> None:
    page = CHECKOUT / "docs" / "getting-started.md"
    *_, serve, token, listen, notify = blocks(page, "sh")
    app = Pasted(tmp_path, blocks(page, "python")[1], serve)
    with app.served(), app.shell(token, listen) as listening:
        assert listening.stdout is not None
        assert json.loads(listening.stdout.readline()) == {"type": "message", "user_id": "1", "body": "Hello"}
        assert push(app, token, notify) == {"online": True}
        assert json.loads(listening.stdout.readline()) == {"type": "notification", "by": "1"}


def push(app: Pasted, make_token: str, notify: str) -> Any:
    if shutil.which("curl"):
        return json.loads(app.output(make_token, notify.replace("curl", "curl --silent")))
    # No curl here: the request that it would make.
    token = app.output(make_token, 'printf %s "$TOKEN"')
    url = f"http://127.0.0.1:{app.port}/users/1/notify"
    return httpx.post(url, headers={"Authorization": f"Bearer {token}"}, trust_env=False).json()
