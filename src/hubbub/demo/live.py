"""The manager, and what the sockets of all pages have in common.

A page has one socket, in the page's room. Being a user's, it also gets what `ConnectionManager.send_to_user` sends, so
that a notification reaches every tab, whatever page is open in it.
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
    os.environ.get("HUBBUB_BROKER") or "memory://",  # what `hubbub demo --broker` tells its workers
    rooms={
        # What is said and drawn: kept, so that who was cut off gets what was missed, and who is new what was before.
        "chat:*": RoomOptions(history=History(500, ttl_s=_DAY_S), announce=True, positions=True),
        "posts": RoomOptions(history=History(200, ttl_s=_DAY_S), positions=True),
        "board:*": RoomOptions(history=History(5000, ttl_s=_DAY_S), announce=True, positions=True),
        # What is worth nothing a moment later (who is here, who types, numbers): for a slow client, the newest only.
        "live:*": RoomOptions(overflow="latest"),
        "dashboard:*": RoomOptions(overflow="latest"),
    },
    # A notification that comes while the socket is down is replayed when it is back.
    users=RoomOptions(history=History(50, ttl_s=_DAY_S), positions=True),
    limits=Limits(max_message_bytes=16 * 1024, max_messages_per_s=100, max_connections_per_user=50),
    app_ping=True,
)


async def resume_or_start(websocket: WebSocket, room: str, start: Callable[[], Awaitable[Position | None]]) -> Resume:
    """Where a client comes back from; for one that is new in the room, where it starts.

    With a start a few messages ago, the replay that serves those who come back brings a newcomer the recent messages:
    in order with the live ones, and none of them twice.
    """
    resume = Resume.from_query(websocket) or Resume({})
    position = None if room in resume else await start()
    return resume if position is None else Resume({**resume, room: position}, resume.connection_ids)


async def recent(room: str, count: int) -> Position | None:
    """The position before the last ``count`` messages of a room; None where it is silent."""
    messages = await manager.history(room, limit=count)
    return before(messages[0].position) if messages else None


def before(position: Position) -> Position:
    """The position of which the message at ``position`` is the next."""
    return Position(position.epoch, position.offset - 1)


async def tell_who_is_here(room: str) -> None:
    """Tells a room who is in it, with how many tabs. The room's own announcements only tell of first and last tabs."""
    here = {"type": "here", "members": await manager.presence(room)}
    await manager.broadcast(here, room=f"live:{room}", key="here")


async def messages(connection: Connection, kind: TypeAdapter[M]) -> AsyncIterator[M]:
    """A client's messages, as far as they are what they should be. Others are answered with an error frame."""
    async for value in connection.iter_json():
        try:
            message = kind.validate_python(value)
        except ValidationError as error:
            await refuse(connection, error.errors()[0]["msg"])
        else:
            yield message


async def refuse(connection: Connection, problem: str) -> None:
    """Tells a client that its message was not taken, and why."""
    await connection.send({"type": "error", "code": "invalid_message", "message": problem})
