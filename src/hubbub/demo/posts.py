"""Posts that people like: plain HTTP routes, which tell every page that shows the posts, and the author.

The routes are ``def``: FastAPI runs them in threads, as it does with those that use a database, and from there
``manager.from_thread`` has the manager's calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from threading import Lock
from typing import Annotated

from fastapi import APIRouter, HTTPException, WebSocket
from pydantic import BaseModel, StringConstraints

from .. import Resume
from .live import manager
from .notifications import inboxes
from .signin import User

ROOM = "posts"
_KEPT = 100


@dataclass(frozen=True)
class Post:
    """A post. Of two that a page has heard of, the one with the higher version is the newer."""

    id: int
    author_id: str
    author: str
    text: str
    at: datetime
    liked_by: frozenset[str] = frozenset()
    version: int = 1


class Posts:
    """All posts: where an app would have its database. Safe to use from threads."""

    def __init__(self) -> None:
        self._posts: dict[int, Post] = {}
        self._ids = count(1)
        self._lock = Lock()

    def add(self, user_id: str, name: str, text: str) -> Post:
        """Stores a new post, and forgets the oldest one when there are too many."""
        with self._lock:
            post = Post(next(self._ids), user_id, name, text, datetime.now(UTC))
            self._posts[post.id] = post
            if len(self._posts) > _KEPT:
                del self._posts[min(self._posts)]
            return post

    def change(self, post_id: int, liked_by: Callable[[frozenset[str]], frozenset[str]]) -> tuple[Post, Post]:
        """Changes who likes a post. Gives it as it was and as it is.

        Raises:
            KeyError: There is no such post.
        """
        with self._lock:
            old = self._posts[post_id]
            new = replace(old, liked_by=liked_by(old.liked_by), version=old.version + 1)
            self._posts[post_id] = new
            return old, new

    def newest_first(self) -> list[Post]:
        """All of them."""
        with self._lock:
            return sorted(self._posts.values(), key=lambda post: -post.id)


class Draft(BaseModel):
    """What a page sends to post something."""

    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


posts = Posts()
router = APIRouter()


@router.get("/api/posts")
def all_posts(user: User) -> list[Post]:
    """What a page shows when it is opened."""
    return posts.newest_first()


@router.post("/api/posts", status_code=201)
def publish(draft: Draft, user: User) -> Post:
    """Posts something."""
    post = posts.add(user.sub, user["name"], draft.text)
    manager.from_thread.broadcast({"type": "post", "post": post}, room=ROOM)
    return post


@router.put("/api/posts/{post_id}/like")
def like(post_id: int, user: User) -> Post:
    """Likes a post, and tells its author: in every tab, on whatever page."""
    old, post = _changed(post_id, lambda liked_by: liked_by | {user.sub})
    if user.sub not in old.liked_by and user.sub != post.author_id:
        pushed = inboxes.add(post.author_id, f"{user['name']} liked your post “{_shortened(post.text)}”", "/posts")
        manager.from_thread.send_to_user(post.author_id, pushed)
    return post


@router.delete("/api/posts/{post_id}/like")
def unlike(post_id: int, user: User) -> Post:
    """Takes a like back."""
    return _changed(post_id, lambda liked_by: liked_by - {user.sub})[1]


def _changed(post_id: int, liked_by: Callable[[frozenset[str]], frozenset[str]]) -> tuple[Post, Post]:
    try:
        old, new = posts.change(post_id, liked_by)
    except KeyError:
        raise HTTPException(404, "there is no such post") from None
    manager.from_thread.broadcast({"type": "post", "post": new}, room=ROOM)
    return old, new


def _shortened(text: str, most: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


@router.websocket("/ws/posts")
async def watch(websocket: WebSocket, user: User) -> None:
    """A page that shows the posts."""
    since = Resume.from_query(websocket)
    async with manager.connect(websocket, user.sub, room=ROOM, info={"name": user["name"]}, since=since) as connection:
        async for _ in connection:
            pass  # what it has to say comes by HTTP
