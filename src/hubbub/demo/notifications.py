"""Notifications: kept for the user, and pushed to every tab that is open.

To push alone would lose what comes while nobody is there. So it is stored first; the page loads what is stored, and
hears of the rest. Each push says how many are unread, so that all tabs show the same number.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock
from typing import Any
from uuid import UUID, uuid4

from fastapi import APIRouter, WebSocket

from .. import Resume
from .live import manager
from .signin import User

_KEPT = 50


@dataclass(frozen=True)
class Notification:
    """Something that a user is told."""

    id: UUID
    text: str
    link: str
    at: datetime


@dataclass
class Inbox:
    """A user's notifications, newest first."""

    unread: int = 0
    items: deque[Notification] = field(default_factory=lambda: deque(maxlen=_KEPT))


class Inboxes:
    """Everybody's: where an app would have its database. Safe to use from threads."""

    def __init__(self) -> None:
        self._inboxes: dict[str, Inbox] = {}
        self._lock = Lock()

    def add(self, user_id: str, text: str, link: str) -> dict[str, Any]:
        """Stores a notification, and gives the message that tells the user's tabs."""
        with self._lock:
            inbox = self._inboxes.setdefault(user_id, Inbox())
            item = Notification(uuid4(), text, link, datetime.now(UTC))
            inbox.items.appendleft(item)
            inbox.unread += 1
            return {"type": "notification", "item": item, "unread": inbox.unread}

    def of(self, user_id: str) -> Inbox:
        """What a user has, as of now."""
        with self._lock:
            inbox = self._inboxes.get(user_id, Inbox())
            return Inbox(inbox.unread, inbox.items.copy())

    def mark_read(self, user_id: str) -> None:
        """The user has seen them."""
        with self._lock:
            if user_id in self._inboxes:
                self._inboxes[user_id].unread = 0


inboxes = Inboxes()
router = APIRouter()


@router.get("/api/notifications")
def my_notifications(user: User) -> Inbox:
    """What a page shows when it is opened."""
    return inboxes.of(user.sub)


@router.post("/api/notifications/read", status_code=204)
def mark_read(user: User) -> None:
    """Marks all as read, in every tab."""
    inboxes.mark_read(user.sub)
    manager.from_thread.send_to_user(user.sub, {"type": "notifications_read"})


@router.websocket("/ws/notifications")
async def listen(websocket: WebSocket, user: User) -> None:
    """A page without a room of its own. It is its user's nonetheless, and `send_to_user` reaches it."""
    since = Resume.from_query(websocket)
    async with manager.connect(websocket, user.sub, info={"name": user["name"]}, since=since) as connection:
        async for _ in connection:
            pass  # it has nothing to say; but to receive is how one learns that it is gone
