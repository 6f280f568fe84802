"""How the page of an endpoint is served. tests/browser/test_docs_page.py uses it."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from starlette.testclient import TestClient

from hubbub import ConnectionManager

FILES = ("docs", "docs/page.js", "docs/hubbub.js", "docs/style.css")


def client_of(path: str = "/live", **arguments: Any) -> TestClient:
    app, manager = FastAPI(), ConnectionManager()
    manager.install(app)
    manager.endpoint(path, auth=None, **arguments)
    return TestClient(app)


@pytest.mark.parametrize("name", FILES)
def test_a_browser_may_cache_each_file_and_revalidates_it(name: str) -> None:
    client = client_of()
    answer = client.get(f"/live/{name}")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = client.get(f"/live/{name}", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.head(f"/live/{name}").headers["content-length"] == answer.headers["content-length"]
    assert client.post(f"/live/{name}").status_code == 405


def test_the_page_has_the_client_of_the_package() -> None:
    served = client_of().get("/live/docs/hubbub.js")
    assert served.content == files("hubbub").joinpath("client", "hubbub.js").read_bytes()
    assert served.headers["content-type"] == "text/javascript; charset=utf-8"


def test_the_page_loads_nothing_from_elsewhere_and_runs_nothing_of_a_message() -> None:
    answer = client_of().get("/live/docs", headers={"Host": "example.org:8000"})
    policy = dict(each.split(" ", 1) for each in answer.headers["content-security-policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self' ws://example.org:8000 wss://example.org:8000",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
    }
    assert not re.search(r"<style|<script>|\son\w+=|\sstyle=|https?:(?!//www\.w3\.org)", answer.text)


@pytest.mark.parametrize("host", ["example.org; script-src *", "a b", "'unsafe-eval'", "", "[::1"])
def test_a_host_that_is_none_is_not_in_the_policy(host: str) -> None:
    policy = client_of().get("/live/docs", headers={"Host": host}).headers["content-security-policy"]
    assert "connect-src 'self'; " in policy


@pytest.mark.parametrize("name", FILES)
def test_docs_false_serves_no_page(name: str) -> None:
    assert client_of(docs=False).get(f"/live/{name}").status_code == 404


def test_a_guard_applies_to_the_page_and_to_all_of_its_files() -> None:
    async def only_staff() -> None:
        raise HTTPException(401, "who are you?", {"WWW-Authenticate": "Basic"})

    async def everyone() -> None: ...

    client = client_of(docs=only_staff)
    for name in (*FILES, "asyncapi.json"):
        answer = client.get(f"/live/{name}")
        assert (answer.status_code, answer.json()) == (401, {"detail": "who are you?"})
        assert answer.headers["www-authenticate"] == "Basic"
    client.app.dependency_overrides[only_staff] = everyone  # type: ignore[attr-defined]  # a FastAPI app
    for name in FILES:
        assert client.get(f"/live/{name}").status_code == 200


@pytest.mark.parametrize(
    ("path", "at"), [("/shops/{shop}/live", "/shops/acme/live"), ("/live/", "/live"), ("/a/b/{c:path}", "/a/b/c/d")]
)
def test_the_files_are_beside_the_page(path: str, at: str) -> None:
    client = client_of(path)
    page = client.get(f"{at}/docs")
    assert set(re.findall(r'(?:src|href)="(docs/[^"]+)"', page.text)) == {"docs/page.js", "docs/style.css"}
    for name in FILES:
        assert client.get(f"{at}/{name}").status_code == 200
