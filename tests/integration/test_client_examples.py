"""The clients that the docs show run as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI

from examples import clients, endpoints
from tests.integration.sdk_js import JS, NODE, require_packages
from tests.integration.support import serving

CHECKOUT = Path(__file__).parents[2]
EXAMPLES = CHECKOUT / "examples"
REFUSED = "422 text: String should have at least 1 character\n"


@contextmanager
def lines_of(program: str, app: FastAPI, folder: Path, *interpreter: str | Path) -> Iterator[Iterator[str]]:
    """Runs a program for a server on port 8000, for as long as the block lasts."""
    with serving(app) as server:
        file = folder / "program.mjs"
        file.write_text(program.replace("localhost:8000", f"127.0.0.1:{server.port}"))
        with subprocess.Popen([*interpreter, file], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
            assert run.stdout is not None
            yield iter(run.stdout.readline, "")
            run.kill()


@pytest.fixture
def with_sdk(tmp_path: Path) -> Path:
    """A folder in which ``npm install centrifuge`` was run."""
    require_packages()
    (tmp_path / "node_modules").symlink_to(JS / "node_modules")
    return tmp_path


def javascript(page: str) -> str:
    """The first block of JavaScript in a page."""
    text = (CHECKOUT / "docs" / page).read_text()
    blocks: list[str] = re.findall(r"^```js\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return blocks[0]


def test_the_client_in_node_runs_as_printed(with_sdk: Path) -> None:
    program = (EXAMPLES / "clients_node.mjs").read_text()
    assert javascript("clients.md") == program
    with lines_of(program, clients.app, with_sdk, NODE) as lines:
        assert next(lines) == "bob: Hello from Node.js\n"
        assert next(lines) == REFUSED


def test_the_client_in_python_runs_as_printed(tmp_path: Path) -> None:
    program = (EXAMPLES / "clients_python.py").read_text()
    with lines_of(program, clients.app, tmp_path, sys.executable, "-u") as lines:
        assert next(lines) == "carl: Hello from Python\n"
        assert next(lines) == f"Error {REFUSED.replace(' ', ': ', 1)}".replace("\n", " (temporary: False)\n")


def test_the_client_of_the_endpoint_runs_as_printed(with_sdk: Path) -> None:
    with lines_of(javascript("endpoints.md"), endpoints.app, with_sdk, NODE) as lines:
        assert next(lines) == "{ user_id: 'ann', text: 'hello' }\n"
