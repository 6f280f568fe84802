"""The manager, and helpers for the sockets of all pages.

A page has one socket, in the page's room. The socket belongs to a user, so it also receives the messages of
`ConnectionManager.send_to_user`. That is how a notification reaches every tab, whichever page it shows.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

from pydantic import TypeAdapter, ValidationError
from starlette.websockets import WebSocket

from .. import Connection, ConnectionManager, History, Limits, Position, Resume, RoomOptions

M = TypeVar("M")
_DAY_S = 24 * 3600

manager: Final = ConnectionManager(
    os.environ.get("HUBBUB_BROKER") or "memory://",  # `hubbub demo --broker` sets it for its workers
    rooms={
        # Messages and drawings are kept: clients that reconnect recover them, and new clients receive the recent ones.
        "chat:*": RoomOptions(history=History(500, ttl_s=_DAY_S), announce=True, positions=True),
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


async def resume_or_start(websocket: WebSocket, room: str, start: Callable[[], Awaitable[Position | None]]) -> Resume:
    """Returns the position from which a client resumes, or the start for a client that is new in the room.

    If the start is a few messages ago, recovery brings a new client the recent messages: in order with the live ones,
    and without duplicates.
    """
    resume = Resume.from_query(websocket) or Resume({})
    position = None if room in resume else await start()
    return resume if position is None else Resume({**resume, room: position}, resume.connection_ids)


async def recent(room: str, count: int) -> Position | None:
    """Returns the position before the last ``count`` messages of a room; None if it has no messages."""
    messages = await manager.history(room, limit=count)
    return before(messages[0].position) if messages else None


def before(position: Position) -> Position:
    """Returns the position just before the message at ``position``."""
    return Position(position.epoch, position.offset - 1)


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
