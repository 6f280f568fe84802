"""Notifications: stored for the user, and pushed to every open tab.

A push alone would be lost while the user is away, so a notification is stored first. A page loads the stored ones and
receives the new ones as they are pushed. Each push has the number of unread ones, so all tabs show the same number.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid4

from fastapi import APIRouter
from pydantic import TypeAdapter

from .database import database
from .live import manager
from .users import User

_KEPT = 50


@dataclass(frozen=True)
class Notification:
    """A notification of a user."""

    id: UUID
    text: str
    link: str
    at: datetime


@dataclass(frozen=True)
class Inbox:
    """A user's notifications, newest first."""

    unread: int
    items: list[Notification]


_AsJson = TypeAdapter(Notification)


class Inboxes:
    """The inboxes of all users, in the database. Safe to use from threads and from several processes."""

    def add(self, user_id: str, text: str, link: str) -> dict[str, Any]:
        """Stores a notification, and returns the message for the user's tabs."""
        item = Notification(uuid4(), text, link, datetime.now(UTC))
        with database().transaction() as db:
            db.execute("INSERT INTO notifications (user_id, item) VALUES (?, ?)", (user_id, _AsJson.dump_json(item)))
            db.execute(
                "DELETE FROM notifications WHERE user_id = ?1 AND number NOT IN "
                "(SELECT number FROM notifications WHERE user_id = ?1 ORDER BY number DESC LIMIT ?2)",
                (user_id, _KEPT),
            )
            (unread,) = db.execute("SELECT sum(unread) FROM notifications WHERE user_id = ?", (user_id,)).fetchone()
        return {"type": "notification", "item": item, "unread": unread}

    def of(self, user_id: str) -> Inbox:
        """Returns the inbox of a user."""
        with database().transaction() as db:
            found = db.execute(
                "SELECT unread, item FROM notifications WHERE user_id = ? ORDER BY number DESC", (user_id,)
            ).fetchall()
        return Inbox(sum(unread for unread, _ in found), [_AsJson.validate_json(item) for _, item in found])

    def mark_read(self, user_id: str) -> None:
        """Marks all notifications of a user as read."""
        with database().transaction() as db:
            db.execute("UPDATE notifications SET unread = 0 WHERE user_id = ?", (user_id,))


inboxes: Final = Inboxes()
router: Final = APIRouter()


@router.get("/api/notifications")
def my_notifications(user: User) -> Inbox:
    """Returns the inbox for a page that was opened."""
    return inboxes.of(user.sub)


@router.post("/api/notifications/read", status_code=204)
def mark_read(user: User) -> None:
    """Marks all notifications as read, in every tab."""
    inboxes.mark_read(user.sub)
    manager.from_thread.send_to_user(user.sub, {"type": "notifications_read"})
