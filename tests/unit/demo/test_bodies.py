"""The demo reads no request that is larger than what its pages send."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from hubbub.demo.app import create_app
from hubbub.demo.bodies import MAX_BODY_BYTES


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(create_app())


def chunks(size: int) -> Iterator[bytes]:
    """A body whose length no header says."""
    yield b'{"name": "'
    for _ in range(size // 1024):
        yield b"x" * 1024
    yield b'"}'


def test_a_body_that_is_too_large_is_refused_by_its_size(client: TestClient) -> None:
    answer = client.post("/api/session", json={"name": "x" * MAX_BODY_BYTES})
    assert answer.status_code == 413
    assert answer.json() == {"detail": "the request has over 16384 bytes"}
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_body_that_does_not_say_its_size_is_refused_once_it_is_too_large(client: TestClient) -> None:
    headers = {"Content-Type": "application/json"}
    assert client.post("/api/session", content=chunks(MAX_BODY_BYTES), headers=headers).status_code == 413
    assert client.post("/api/session", content=chunks(MAX_BODY_BYTES // 2), headers=headers).status_code == 422


def test_a_body_of_a_page_is_read(client: TestClient) -> None:
    assert client.post("/api/session", json={"name": "Ann"}).status_code == 201
