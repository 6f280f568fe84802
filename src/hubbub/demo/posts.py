"""Posts and likes: plain HTTP routes that notify every page that shows the posts, and the author.

The routes are plain functions, which FastAPI runs in threads, because they use a database. In a thread,
``manager.from_thread`` offers the manager's calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, StringConstraints, TypeAdapter

from .. import MessageRouter
from .database import database
from .live import manager
from .notifications import inboxes
from .users import User

ROOM = "posts"
_KEPT = 100


@dataclass(frozen=True)
class Post:
    """A post. If a page has received it twice, the higher version is the newer one."""

    id: int
    author_id: str
    author: str
    text: str
    at: datetime
    liked_by: frozenset[str] = frozenset()
    version: int = 1


_AsJson = TypeAdapter(Post)


class Posts:
    """All posts, in the database. Safe to use from threads and from several processes."""

    def add(self, user_id: str, name: str, text: str) -> Post:
        """Stores a new post, and deletes the oldest one if there are too many."""
        with database().transaction() as db:
            (newest,) = db.execute("SELECT coalesce(max(id), 0) FROM posts").fetchone()
            # Not from 1: a room's history may outlive this database, and pages identify posts by their id.
            number = max(newest + 1, time.time_ns() // 1_000_000)
            post = Post(number, user_id, name, text, datetime.now(UTC))
            db.execute("INSERT INTO posts VALUES (?, ?)", (post.id, _AsJson.dump_json(post)))
            db.execute("DELETE FROM posts WHERE id NOT IN (SELECT id FROM posts ORDER BY id DESC LIMIT ?)", (_KEPT,))
            db.execute("DELETE FROM first_likes WHERE post_id NOT IN (SELECT id FROM posts)")
            return post

    def change(self, post_id: int, liked_by: Callable[[frozenset[str]], frozenset[str]]) -> Post:
        """Changes the likes of a post, and returns the changed post.

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
            return new

    def is_first_like(self, post_id: int, user_id: str) -> bool:
        """Records that a user likes a post, and returns whether it is the first time, even if the like was removed."""
        with database().transaction() as db:
            return db.execute("INSERT OR IGNORE INTO first_likes VALUES (?, ?)", (post_id, user_id)).rowcount > 0

    def newest_first(self) -> list[Post]:
        """Returns all posts, newest first."""
        with database().transaction() as db:
            return [_AsJson.validate_json(post) for (post,) in db.execute("SELECT post FROM posts ORDER BY id DESC")]


class Draft(BaseModel):
    """The body of a request to publish a post."""

    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


posts: Final = Posts()
router: Final = APIRouter()
live: Final = MessageRouter()


@live.room(ROOM, sends=Post)
async def watch() -> None:
    """Lets every page receive new and changed posts."""


@router.get("/api/posts")
def all_posts(user: User) -> list[Post]:
    """Returns the posts for a page that was opened."""
    return posts.newest_first()


@router.post("/api/posts", status_code=201)
def publish(draft: Draft, user: User) -> Post:
    """Publishes a post."""
    post = posts.add(user.sub, user["name"], draft.text)
    manager.from_thread.broadcast(post, room=ROOM)
    return post


@router.put("/api/posts/{post_id}/like")
def like(post_id: int, user: User) -> Post:
    """Adds a like to a post. The first time, it notifies the author in every tab, whichever page the tab shows."""
    post = _changed(post_id, lambda liked_by: liked_by | {user.sub})
    if user.sub != post.author_id and posts.is_first_like(post.id, user.sub):
        pushed = inboxes.add(post.author_id, f"{user['name']} liked your post “{_shortened(post.text)}”", "/posts")
        manager.from_thread.send_to_user(post.author_id, pushed)
    return post


@router.delete("/api/posts/{post_id}/like")
def unlike(post_id: int, user: User) -> Post:
    """Removes a like."""
    return _changed(post_id, lambda liked_by: liked_by - {user.sub})


def _changed(post_id: int, liked_by: Callable[[frozenset[str]], frozenset[str]]) -> Post:
    try:
        changed = posts.change(post_id, liked_by)
    except (KeyError, OverflowError):  # the id is larger than SQLite's integers
        raise HTTPException(404, "there is no such post") from None
    manager.from_thread.broadcast(changed, room=ROOM)
    return changed


def _shortened(text: str, most: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"
