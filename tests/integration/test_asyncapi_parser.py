"""AsyncAPI documents, as the official parser reads them: no error, no warning, no hint."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from examples import asyncapi, endpoints
from examples.support_desk import live as support_desk
from hubbub.demo.app import create_app
from hubbub.demo.live import live as demo
from hubbub.endpoints.documentation import Site, written
from hubbub.endpoints.endpoint import Endpoint
from tests.integration.sdk_js import JS, NODE, require_packages
from tests.unit.endpoints.everything import GOLDEN


def findings(*files: Path) -> list[list[str]]:
    """What the parser finds in each file."""
    require_packages("@asyncapi/parser")
    done = subprocess.run(
        [str(NODE), "asyncapi.mjs", *map(str, files)],
        cwd=JS,
        env={**os.environ, "NODE_NO_WARNINGS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[list[str]] = json.loads(done.stdout)
    return found


def test_the_parser_finds_nothing_in_the_document_of_an_app_that_uses_everything() -> None:
    assert findings(GOLDEN) == [[]]


@pytest.mark.slow  # each document takes the parser a second
def test_the_parser_finds_a_parameter_that_is_missing(tmp_path: Path) -> None:
    document: dict[str, Any] = json.loads(GOLDEN.read_text("utf-8"))
    del document["channels"]["room.item_color_id"]["parameters"]["id"]
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(document))
    (faults,) = findings(broken)
    assert [fault for fault in faults if "asyncapi3-channel-parameters" in fault]


@pytest.mark.slow
def test_the_parser_finds_nothing_in_the_documents_of_examples_and_demo(tmp_path: Path) -> None:
    create_app()  # the demo's
    apps: dict[str, Endpoint] = {
        "endpoints": endpoints.live,
        "asyncapi": asyncapi.live,
        "support_desk": support_desk.live,
        "demo": demo,
    }
    files = []
    for name, live in apps.items():
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(written(live._documentation.document(Site.of("ws://localhost:8000"))), "utf-8")
    assert dict(zip(apps, findings(*files), strict=True)) == {name: [] for name in apps}
