"""Tests for the app in examples/posts.py."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from examples.posts import app, current_user, mails, manager
from hubbub.auth import Claims
from hubbub.testing import Pushed, record


@pytest.fixture
def client() -> Iterator[TestClient]:
    app.dependency_overrides[current_user] = lambda: Claims({"sub": "bob", "name": "Bob"})
    with TestClient(app) as client:  # runs the lifespan, and gives all sockets one event loop
        yield client
    app.dependency_overrides.clear()


@pytest.fixture
def pushed() -> Iterator[Pushed]:
    with record(manager) as pushed:
        yield pushed


def test_a_like_tells_the_author(client: TestClient, pushed: Pushed) -> None:
    client.post("/posts/1/like")

    assert pushed.to_user("ann") == [{"type": "like", "post": 1, "by": "bob"}]
    assert pushed.to_room("post:1") == [{"type": "liked", "post": 1}]
    assert pushed.to_everyone() == []


def test_a_like_of_nothing_pushes_nothing(client: TestClient, pushed: Pushed) -> None:
    assert client.post("/posts/3/like").status_code == 404
    assert not pushed


def test_an_absent_author_gets_a_mail(client: TestClient) -> None:
    mails.clear()
    client.post("/posts/1/like")
    assert mails == ["ann"]


def test_an_online_author_gets_no_mail(client: TestClient) -> None:
    mails.clear()
    with record(manager, online=["ann"]):
        client.post("/posts/1/like")
    assert mails == []


def test_a_comment_reaches_all_watchers(client: TestClient) -> None:
    with client.websocket_connect("/ws/posts/1") as first, client.websocket_connect("/ws/posts/1") as second:
        first.send_json({"text": "Well said"})
        for socket in (first, second):
            assert socket.receive_json() == {"type": "comment", "by": "bob", "text": "Well said"}


def test_a_comment_is_pushed(client: TestClient, pushed: Pushed) -> None:
    with client.websocket_connect("/ws/posts/2") as socket:
        socket.send_json({"text": "Hm"})
        pushed.wait(1)
    assert pushed.to_room("post:2") == [{"type": "comment", "by": "bob", "text": "Hm"}]
