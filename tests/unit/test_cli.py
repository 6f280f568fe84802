"""The command line: what its arguments may be, and the demo as a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

import hubbub.cli
from hubbub.__about__ import __version__

TIMEOUT_S = 60


def hubbub_command(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hubbub", *args], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


@contextmanager
def demo(*args: str, workers: int = 1) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """A running demo, its address as its log says it, and its log so far."""
    command = [sys.executable, "-m", "hubbub", "demo", "--port", "0", "--workers", str(workers), *args]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    with process:
        try:
            assert process.stderr is not None
            log: list[str] = []
            address, started = None, 0
            for line in process.stderr:
                log.append(line)
                if found := re.search(r"running on (http://\S+)", line):
                    address = found[1]
                started += "Application startup complete" in line
                if address and started == workers:
                    yield process, address, log
                    return
            pytest.fail("the demo did not start:\n" + "".join(log))
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_version_is_printed_and_nothing_else() -> None:
    done = hubbub_command("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"hubbub {__version__}\n", "")


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        ((), "required: command"),
        (("nonsense",), "invalid choice: 'nonsense'"),
        (("demo", "--port", "http"), "'http' is not a port (0 to 65535)"),
        (("demo", "--port", "65536"), "'65536' is not a port (0 to 65535)"),
        (("demo", "--port=-1"), "'-1' is not a port (0 to 65535)"),
        (("demo", "--workers", "0"), "'0' is not a number of processes (1 or more)"),
        (("demo", "--workers", "two"), "'two' is not a number of processes (1 or more)"),
        (("demo", "--drain-s=-1"), "'-1' is not a number of seconds (0 or more)"),
        (("demo", "--drain-s", "soon"), "'soon' is not a number of seconds (0 or more)"),
        (("demo", "--drain-s", "inf"), "'inf' is not a number of seconds (0 or more)"),
        (("demo", "--broker", "nothing://secret"), "argument --broker: a URL of the scheme 'nothing'; accepted: "),
        (("run",), "required: app"),
        (("run", "app:app", "--timeout-worker-healthcheck", "0"), "'0' is not a whole number of seconds (1 or more)"),
        (
            ("run", "app:app", "--timeout-worker-healthcheck", "1.5"),
            "'1.5' is not a whole number of seconds (1 or more)",
        ),
        (("run", "app:app", "--log-level", "loud"), "invalid choice: 'loud'"),
    ],
)
def test_wrong_arguments_are_named(args: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        hubbub.cli.main(args)
    assert stopped.value.code == 2
    assert problem in (error := capsys.readouterr().err)
    assert "secret" not in error


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where an app may be, and the process is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (("app",), "'app' is not MODULE:NAME, as in app:app"),
        (("app:",), "'app:' is not MODULE:NAME, as in app:app"),
        ((":app",), "':app' is not MODULE:NAME, as in app:app"),
        (("./app:app",), "'./app:app' is not MODULE:NAME, as in app:app"),
        (("cli_nowhere:app",), "no module 'cli_nowhere' in {folder} or among the installed packages"),
        (("cli_nowhere.api:app",), "no module 'cli_nowhere.api' in {folder} or among the installed packages"),
        (("cli_things.py:app",), "no module 'cli_things.py' in {folder} or among the installed packages"),
        (("cli_things:nothing",), "the module 'cli_things' has no attribute 'nothing'"),
        (("cli_things:number",), "'cli_things:number' (int) is not an ASGI app"),
        (("cli_things:wsgi",), "'cli_things:wsgi' (function) is not an ASGI app"),
        (
            ("cli_things:make",),
            "'cli_things:make' (function) is not an ASGI app; if it is a function that creates the app, add --factory",
        ),
        (
            ("cli_things:asgi", "--factory"),
            "--factory: 'cli_things:asgi' (function) can't be called without arguments",
        ),
        (("cli_things:asgi", "--ssl-keyfile", "key.pem"), "--ssl-keyfile needs --ssl-certfile"),
        (
            ("cli_things:asgi", "--ssl-certfile", "no.pem"),
            "can't load the certificate and key no.pem: No such file or directory",
        ),
    ],
)
def test_what_can_not_be_served_is_one_clear_line(
    args: tuple[str, ...], problem: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "cli_things.py").write_text(
        "number = 1\ndef make(): ...\ndef wsgi(environ, start_response): ...\n"
        "async def asgi(scope, receive, send): ...\n"
    )
    with pytest.raises(SystemExit) as stopped:
        hubbub.cli.main(["run", "--port", "0", *args])
    assert stopped.value.code == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"hubbub: {problem.format(folder=folder)}\n")


def test_what_a_module_fails_with_is_its_own_to_say(folder: Path) -> None:
    (folder / "cli_broken.py").write_text("import cli_nowhere\n")
    with pytest.raises(ModuleNotFoundError, match="No module named 'cli_nowhere'"):
        hubbub.cli.main(["run", "--port", "0", "cli_broken:app"])


def test_run_serves_what_it_was_told_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "cli_app.py").write_text(
        "class things:\n    @staticmethod\n    async def app(scope, receive, send): ...\n"
    )
    told: dict[str, Any] = {}

    class Config:
        def __init__(self, app: str, **options: Any) -> None:
            told.update(options, app=app)

    monkeypatch.setattr("hubbub.cli.Config", Config)
    monkeypatch.setattr("hubbub.cli.serve", lambda config: 7)
    line = "run cli_app:things.app --port 0 --workers 3 --drain-s 2.5 --log-level warning --no-proxy-headers"
    with pytest.raises(SystemExit) as stopped:
        hubbub.cli.main(line.split())
    assert stopped.value.code == 7
    assert told == {
        "app": "cli_app:things.app",
        "factory": False,
        "host": "127.0.0.1",
        "port": 0,
        "workers": 3,
        "drain_s": 2.5,
        "log_level": "warning",
        "proxy_headers": False,
        "forwarded_allow_ips": None,
        "timeout_worker_healthcheck": 30,
        "ssl_certfile": None,
        "ssl_keyfile": None,
    }


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = hubbub_command("demo", "--port", str(port))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"hubbub: can't listen on 127.0.0.1 port {port}: Address already in use\n"


def test_a_host_that_is_not_ours_is_one_clear_line() -> None:
    done = hubbub_command("run", "app:app", "--host", "203.0.113.1")  # TEST-NET-3: nobody's
    assert done.returncode == 1
    assert done.stderr.startswith("hubbub: can't listen on 203.0.113.1 port 8000: ")
    assert done.stderr.count("\n") == 1


def test_demo_serves_and_ends_on_sigterm() -> None:
    with demo() as (process, address, _):
        with urlopen(address, timeout=TIMEOUT_S) as response:
            assert response.status == 200
            assert response.headers.get_content_type() == "text/html"
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0
        assert "Traceback" not in log


@pytest.mark.slow  # the browser tests have the demo on four
def test_demo_with_workers_has_one_database_and_says_what_memory_loses() -> None:
    with demo(workers=2) as (process, address, log):

        def ask(path: str, body: object = None, token: str = "") -> Any:
            data = None if body is None else json.dumps(body).encode()
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
            with urlopen(Request(address + path, data, headers), timeout=TIMEOUT_S) as response:
                return json.load(response)

        token = ask("/api/session", {"name": "Ann"})["token"]
        posts = [ask("/api/posts", {"text": f"Number {number}"}, token) for number in range(10)]
        for _ in range(10):  # whichever worker takes it
            assert ask("/api/posts", token=token) == posts[::-1]
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=TIMEOUT_S)
    said = "".join(log) + rest
    assert process.returncode == 0
    assert "Traceback" not in said
    warnings = [line for line in said.splitlines() if "LOST" in line]
    assert len(warnings) == 2, said
    assert all(line.endswith('ConnectionManager("redis://localhost")') for line in warnings), warnings


# hubbub asyncapi


APP = """
from fastapi import FastAPI
from hubbub import ConnectionManager

def an_app(*paths):
    app, manager = FastAPI(title=" and ".join(paths) or "none"), ConnectionManager()
    manager.install(app)
    for path in paths:
        manager.endpoint(path, auth=None, docs=False)
    return app

greek = an_app("/live")
greek.title = "\u03ba\u03b1\u03bb\u03b7\u03bc\u03ad\u03c1\u03b1"
half = an_app("/live")
half.title = "\\ud83d"

none, one, two = an_app(), an_app("/live"), an_app("/live", "/admin")
outer = an_app("/live")
outer.mount("/v1", an_app("/live"))

def make():
    return an_app("/made")

def odd(message: type): ...

wrong = FastAPI()
manager = ConnectionManager()
manager.install(wrong)
manager.endpoint("/live", auth=None).on("odd")(odd)
"""


@pytest.fixture
def documents(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.delitem(sys.modules, "cli_documents", raising=False)
    (folder / "cli_documents.py").write_text(APP)

    def call(name: str, *args: str) -> str:
        try:
            hubbub.cli.main(["asyncapi", f"cli_documents:{name}", *args])
        except SystemExit:
            return capsys.readouterr().err
        return capsys.readouterr().out

    return call


def test_asyncapi_writes_the_document_of_the_endpoint_without_serving_it(documents: Callable[..., str]) -> None:
    found = json.loads(documents("one"))
    assert (found["asyncapi"], found["info"]["title"]) == ("3.0.0", "/live")
    server = found["servers"]["live"]
    assert (server["host"], server["protocol"], server["pathname"]) == ("localhost:8000", "ws", "/live")


@pytest.mark.parametrize(
    ("name", "args", "path"),
    [
        ("two", ("--endpoint", "/admin"), "/base/admin"),
        ("make", ("--factory",), "/base/made"),
        ("outer", ("--endpoint", "/v1/live"), "/base/v1/live"),
    ],
)
def test_asyncapi_finds_the_endpoint(documents: Callable[..., str], name: str, args: list[str], path: str) -> None:
    (server,) = json.loads(documents(name, *args, "--server", "wss://example.org/base/"))["servers"].values()
    assert (server["host"], server["protocol"], server["pathname"]) == ("example.org", "wss", path)


@pytest.mark.parametrize(
    ("name", "args", "problem"),
    [
        ("none", (), "'cli_documents:none' has no endpoint: manager.install(app), and live = manager.endpoint(...)"),
        ("two", (), "'cli_documents:two' has several endpoints: add --endpoint with one of /live, /admin"),
        ("one", ("--endpoint", "/a"), "'cli_documents:one' has no endpoint /a; it has /live"),
        ("gone", (), "the module 'cli_documents' has no attribute 'gone'"),
        ("one", ("--check",), "--check needs --out, the file to check"),
        ("one", ("--out", "no/such/folder.json"), "can't write no/such/folder.json: No such file or directory"),
        ("one", ("--check", "--out", "."), "can't read .: Is a directory"),
        (
            "wrong",
            (),
            "odd() of @on('odd'): Pydantic has no JSON schema for <class 'type'> (\"Cannot generate a JsonSchema for "
            "core_schema.IsInstanceSchema (<class 'type'>)\"); accepted: a type with a JSON schema. Describe the part "
            "that has none: Annotated[..., WithJsonSchema({'type': 'string'})]; or leave the function out of the "
            "documentation: include_in_schema=False",
        ),
    ],
)
def test_a_problem_of_asyncapi_is_one_line(
    documents: Callable[..., str], name: str, args: list[str], problem: str
) -> None:
    assert documents(name, *args) == f"hubbub: {problem}\n"


@pytest.mark.parametrize(
    "url", ["http://a", "wss://:p@x", "wss://u@x", "wss://a b", "wss://{a}", "wss://a/{b}", "wss://[::1]x"]
)
def test_a_server_that_is_no_url_is_refused(documents: Callable[..., str], url: str) -> None:
    assert f"--server: got '{url}'; accepted: " in documents("one", "--server", url)


@pytest.mark.parametrize("host", ["a_b.example:80", "[::1]:8000", "münchen.example"])
def test_a_server_may_have_any_host(documents: Callable[..., str], host: str) -> None:
    assert json.loads(documents("one", "--server", f"wss://{host}/"))["servers"]["live"]["host"] == host


def test_check_fails_unless_the_file_is_up_to_date(documents: Callable[..., str], folder: Path) -> None:
    file = folder / "live.json"
    args = ("--out", str(file))
    stale = f"hubbub: {file} is not up to date: run the same command without --check\n"
    assert documents("one", *args, "--check") == stale
    assert documents("one", *args) == ""
    assert file.read_text("utf-8") == documents("one")
    assert documents("one", *args, "--check") == ""
    assert documents("one", *args, "--check", "--server", "wss://example.org") == stale
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))  # as Git may check it out
    assert documents("one", *args, "--check") == ""


def test_a_write_that_fails_leaves_the_file_as_it_was(
    documents: Callable[..., str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder / "live"
    file.write_text("old")

    def fails(path: Path, to: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fails)
    assert documents("one", "--out", str(file)) == f"hubbub: can't write {file}: No space left on device\n"
    assert file.read_text() == "old"
    assert [each.name for each in folder.iterdir() if each.name.startswith(".")] == []


def test_a_file_that_is_replaced_keeps_its_mode_and_its_links(documents: Callable[..., str], folder: Path) -> None:
    file, link = folder / "live.json", folder / "link.json"
    file.write_text("old")
    file.chmod(0o640)
    link.symlink_to(file)
    assert documents("one", "--out", str(link)) == ""
    assert link.is_symlink()
    assert file.read_text("utf-8") == documents("one")
    assert file.stat().st_mode & 0o777 == 0o640


def test_standard_output_is_utf_8_whatever_the_locale(documents: Callable[..., str], folder: Path) -> None:
    assert documents("one")  # the module is there
    command = [sys.executable, "-m", "hubbub", "asyncapi", "cli_documents:greek"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=TIMEOUT_S, check=True)
    assert json.loads(done.stdout.decode("utf-8"))["info"]["title"] == "καλημέρα"


def test_a_text_that_can_not_be_encoded_is_named(documents: Callable[..., str], folder: Path) -> None:
    file = folder / "live.json"
    file.write_text("old")
    problem = "the title, description, contact, license or tags of the app: "
    assert documents("half", "--out", str(file)).startswith(f"hubbub: {problem}")
    assert file.read_text() == "old"
