"""Posts that people like: plain HTTP routes, which tell every page that shows the posts, and the author.

The routes are ``def``: FastAPI runs them in threads, since they use a database, and from there ``manager.from_thread``
has the manager's calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import APIRouter, HTTPException, WebSocket
from pydantic import BaseModel, StringConstraints, TypeAdapter

from .. import Resume
from .database import database
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


_AsJson = TypeAdapter(Post)


class Posts:
    """All posts, in the database. Safe to use from threads, and from several processes."""

    def add(self, user_id: str, name: str, text: str) -> Post:
        """Stores a new post, and forgets the oldest one when there are too many."""
        with database().transaction() as db:
            (newest,) = db.execute("SELECT coalesce(max(id), 0) FROM posts").fetchone()
            # Not from 1 on: a room's history may outlive this database, and the pages know posts by their id.
            number = max(newest + 1, time.time_ns() // 1_000_000)
            post = Post(number, user_id, name, text, datetime.now(UTC))
            db.execute("INSERT INTO posts VALUES (?, ?)", (post.id, _AsJson.dump_json(post)))
            db.execute("DELETE FROM posts WHERE id NOT IN (SELECT id FROM posts ORDER BY id DESC LIMIT ?)", (_KEPT,))
            return post

    def change(self, post_id: int, liked_by: Callable[[frozenset[str]], frozenset[str]]) -> tuple[Post, Post]:
        """Changes who likes a post. Gives it as it was and as it is.

        Raises:
            KeyError: There is no such post.
        """
        with database().transaction() as db:
            row = db.execute("SELECT post FROM posts WHERE id = ?", (post_id,)).fetchone()
            if row is None:
                raise KeyError(post_id)
            old = _AsJson.validate_json(row[0])
            new = replace(old, liked_by=liked_by(old.liked_by), version=old.version + 1)
            db.execute("UPDATE posts SET post = ? WHERE id = ?", (_AsJson.dump_json(new), post_id))
            return old, new

    def newest_first(self) -> list[Post]:
        """All of them."""
        with database().transaction() as db:
            return [_AsJson.validate_json(post) for (post,) in db.execute("SELECT post FROM posts ORDER BY id DESC")]


class Draft(BaseModel):
    """What a page sends to post something."""

    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


posts: Final = Posts()
router: Final = APIRouter()


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
    except (KeyError, OverflowError):  # SQLite's numbers end where Python's go on
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
