"""The command line, as a process of its own."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import urlopen

import pytest

import hubbub.cli
from hubbub.__about__ import __version__

TIMEOUT_S = 20


def hubbub_command(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hubbub", *args], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


@contextmanager
def demo(*args: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running demo, and its address as its log says it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hubbub", "demo", "--port", "0", *args], stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stderr is not None
            log: list[str] = []
            for line in process.stderr:
                log.append(line)
                if found := re.search(r"running on (http://\S+)", line):
                    yield process, found[1]
                    return
            pytest.fail("the demo did not start:\n" + "".join(log))
        finally:
            process.kill()


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
    ],
)
def test_wrong_arguments_are_named(args: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        hubbub.cli.main(args)
    assert stopped.value.code == 2
    assert problem in capsys.readouterr().err


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = hubbub_command("demo", "--port", str(port))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"hubbub: can't listen on 127.0.0.1 port {port}: Address already in use\n"


def test_a_host_that_is_not_ours_is_one_clear_line() -> None:
    done = hubbub_command("demo", "--host", "203.0.113.1")  # TEST-NET-3: nobody's
    assert done.returncode == 1
    assert done.stderr.startswith("hubbub: can't listen on 203.0.113.1 port 8000: ")
    assert done.stderr.count("\n") == 1


def test_demo_serves_and_ends_on_sigterm() -> None:
    with demo() as (process, address):
        with urlopen(address, timeout=TIMEOUT_S) as response:
            assert response.status == 200
            assert response.headers.get_content_type() == "text/html"
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode in (0, -signal.SIGTERM)
        assert "Traceback" not in log
