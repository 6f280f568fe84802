"""The demo's posts notify an author once of each user who likes a post."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from hubbub.demo import database, posts
from hubbub.demo.app import create_app


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.delenv("HUBBUB_DEMO_DATABASE", raising=False)
    database.database.cache_clear()
    with TestClient(create_app()) as client:
        yield client
    database.database.cache_clear()


def sign_in(client: TestClient, name: str) -> dict[str, str]:
    """The headers of a new user's requests."""
    return {"Authorization": f"Bearer {client.post('/api/session', json={'name': name}).json()['token']}"}


def test_an_author_is_notified_once_of_each_user_who_likes_a_post(client: TestClient) -> None:
    ann = sign_in(client, "Ann")
    of_ann = [client.post("/api/posts", json={"text": text}, headers=ann).json()["id"] for text in ("One", "Two")]
    for likes, name in enumerate(("Bob", "Cleo"), 1):
        headers = sign_in(client, name)
        for post in of_ann:
            for method in ("PUT", "PUT", "DELETE", "PUT", "DELETE", "PUT"):
                liked = client.request(method, f"/api/posts/{post}/like", headers=headers).json()
            assert len(liked["liked_by"]) == likes
    inbox = client.get("/api/notifications", headers=ann).json()
    told = [item["text"] for item in inbox["items"]]
    assert told == [f"{name} liked your post “{post}”" for name in ("Cleo", "Bob") for post in ("Two", "One")]
    assert inbox["unread"] == len(told)


def test_first_likes_are_forgotten_with_their_post(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posts, "_KEPT", 1)
    ann, bob = sign_in(client, "Ann"), sign_in(client, "Bob")
    post = client.post("/api/posts", json={"text": "One"}, headers=ann).json()["id"]
    client.put(f"/api/posts/{post}/like", headers=bob).raise_for_status()
    assert first_likes() == [(post,)]
    client.post("/api/posts", json={"text": "Two"}, headers=ann).raise_for_status()
    assert first_likes() == []


def first_likes() -> list[tuple[int]]:
    """The posts that the database has first likes of."""
    with database.database().transaction() as db:
        return db.execute("SELECT post_id FROM first_likes").fetchall()
