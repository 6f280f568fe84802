"""The manager, and helpers for the sockets of all pages.

A page has one socket, in the page's room. The socket belongs to a user, so it also receives the messages of
`ConnectionManager.send_to_user`. That is how a notification reaches every tab, whichever page it shows.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from .. import Connection, ConnectionManager, History, Limits, RoomOptions

M = TypeVar("M")
_DAY_S = 24 * 3600

manager: Final = ConnectionManager(
    os.environ.get("HUBBUB_BROKER") or "memory://",  # `hubbub demo --broker` sets it for its workers
    rooms={
        # Messages and drawings are kept: clients that reconnect recover them, and new clients receive the recent ones.
        "chat:*": RoomOptions(history=History(500, ttl_s=_DAY_S), replay=50, announce=True, positions=True),
        "posts": RoomOptions(history=History(200, ttl_s=_DAY_S), positions=True),
        "board:*": RoomOptions(history=History(5000, ttl_s=_DAY_S), announce=True, positions=True),
        # Presence, typing and metrics are outdated after a moment: a slow client receives only the latest.
        "live:*": RoomOptions(overflow="latest"),
        "dashboard:*": RoomOptions(overflow="latest"),
    },
    # A notification that is sent while a socket is down is replayed when its client reconnects.
    users=RoomOptions(history=History(50, ttl_s=_DAY_S), positions=True),
    limits=Limits(max_message_bytes=16 * 1024, max_messages_per_s=100, max_connections_per_user=50),
    app_ping=True,
)


async def tell_who_is_here(room: str) -> None:
    """Publishes who is in a room, with how many tabs. Announcements report only each user's first and last tab."""
    here = {"type": "here", "members": await manager.presence(room)}
    await manager.broadcast(here, room=f"live:{room}", key="here")


async def messages(connection: Connection, kind: TypeAdapter[M]) -> AsyncIterator[M]:
    """Iterates over a client's valid messages. Others are answered with an error frame."""
    async for value in connection.iter_json():
        try:
            message = kind.validate_python(value)
        except ValidationError as error:
            await refuse(connection, error.errors()[0]["msg"])
        else:
            yield message


async def refuse(connection: Connection, problem: str) -> None:
    """Tells a client that its message was not accepted, and why."""
    await connection.send({"type": "error", "code": "invalid_message", "message": problem})
