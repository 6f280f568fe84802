"""What is built is what was written: a wheel and an sdist, and an installation of the wheel."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from zipfile import ZipFile

import pytest

from hubbub.__about__ import __version__

CHECKOUT = Path(__file__).parents[2]
PACKAGE = CHECKOUT / "src" / "hubbub"


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=CHECKOUT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sources() -> set[str]:
    """The files of the package, from src/ on."""
    files = (path for path in PACKAGE.rglob("*") if path.is_file())
    return {str(path.relative_to(CHECKOUT / "src")) for path in files if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that is built from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, CHECKOUT)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    return dist / f"hubbub-{__version__}-py3-none-any.whl"


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as archive:
        return message_from_bytes(archive.read(f"hubbub-{__version__}.dist-info/METADATA"))


def test_wheel_holds_the_whole_package_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == sources()


@pytest.mark.parametrize(
    "pattern",
    ["py.typed", "client/*.js", "client/*.d.ts", "endpoints/typescript/*.ts", "demo/**/*.html", "demo/**/*.js"],
)
def test_package_has_its_data_files(pattern: str) -> None:
    assert list(PACKAGE.glob(pattern))


def test_sdist_can_be_checked_as_the_checkout_can(dist: Path) -> None:
    root = f"hubbub-{__version__}"
    with tarfile.open(dist / f"{root}.tar.gz") as archive:
        names = {name.removeprefix(f"{root}/") for name in archive.getnames()}
    assert {f"src/{name}" for name in sources()} <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "scripts/test", "tests/unit/test_cli.py"} <= names
    assert not [name for name in names if name.startswith((".venv", ".git/")) or "__pycache__" in name]


def test_every_requirement_has_an_upper_bound(metadata: Message) -> None:
    requirements = metadata.get_all("Requires-Dist", [])
    assert requirements
    assert not [line for line in requirements if not re.match(r"hubbub\[", line) and "<" not in line.split(";")[0]]


def test_metadata_says_what_it_is(metadata: Message) -> None:
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"


def test_installed_wheel_runs(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path, symlinks=True)
    python = tmp_path / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps", wheel)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(tmp_path), "installed_base": str(tmp_path)}))
    # The dependencies come from here, after the wheel's own folder.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    assert run(tmp_path / "bin" / "hubbub", "--version") == f"hubbub {__version__}\n"
    assert run(python, "-m", "hubbub", "--version") == f"hubbub {__version__}\n"
    assert Path(run(python, "-c", "import hubbub; print(hubbub.__file__)").strip()).is_relative_to(site)
