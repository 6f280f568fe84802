"""A shared whiteboard. A stroke is sent in pieces while it is drawn, each an independent binary frame.

The layout of a piece, in network byte order:

    ======  ======  ===========================================================
    offset  bytes   what
    ======  ======  ===========================================================
    0       1       1: a piece of a stroke, in this layout
    1       1       the width of the line, 1 to 64
    2       3       its color: red, green, blue
    5       4 × n   n points, 1 to 256: x and y as uint16; 65535 is the right
                    or the bottom edge. The first point is the end of the
                    previous piece; a single point is a dot
    ======  ======  ===========================================================

The room's history is the drawing: a client that joins receives the pieces since the board was last cleared.
"""

from __future__ import annotations

from typing import Final, Literal

from fastapi import APIRouter, WebSocket
from pydantic import BaseModel, TypeAdapter, ValidationError

from .. import Position, Resume
from .live import manager, refuse, tell_who_is_here
from .signin import User

ROOM: Final = "board:main"
_HEADER_BYTES = 5
_POINT_BYTES = 4
_MAX_POINTS = 256
_MAX_WIDTH = 64


class Clear(BaseModel):
    """A page's message, as JSON: clear the board."""

    type: Literal["clear"]


FromPage: TypeAdapter[Clear] = TypeAdapter(Clear)


def is_piece(data: bytes) -> bool:
    """Returns whether a frame is a piece of a stroke."""
    points, rest = divmod(len(data) - _HEADER_BYTES, _POINT_BYTES)
    return rest == 0 and 1 <= points <= _MAX_POINTS and data[0] == 1 and 1 <= data[1] <= _MAX_WIDTH


async def resume_or_start(websocket: WebSocket) -> Resume:
    """Returns the position from which a client resumes, or that of the first piece for a client that is new.

    So recovery brings a new client the pieces: in order with the live ones, and without duplicates.
    """
    resume = Resume.from_query(websocket) or Resume({})
    start = None if ROOM in resume else await drawing()
    return resume if start is None else Resume({**resume, ROOM: start}, resume.connection_ids)


async def drawing() -> Position | None:
    """Returns the position before the first piece that is on the board now."""
    start = None
    for position, message, _ in await manager.history(ROOM):
        if not isinstance(message, bytes):
            start = position  # cleared
        elif start is None:
            start = Position(position.epoch, position.offset - 1)
    return start


router: Final = APIRouter()


@router.websocket("/ws/board")
async def board(websocket: WebSocket, user: User) -> None:
    """Serves a tab that shows the board."""
    since = await resume_or_start(websocket)
    try:
        async with manager.connect(
            websocket, user.sub, rooms=[ROOM, f"live:{ROOM}"], info={"name": user["name"]}, since=since
        ) as connection:
            await tell_who_is_here(ROOM)
            async for message in connection:
                if isinstance(message, bytes):
                    if is_piece(message):
                        # Not to the page that drew it, which has already shown it.
                        await manager.broadcast(message, room=ROOM, exclude=connection)
                    else:
                        await refuse(connection, "not a piece of a stroke")
                    continue
                try:
                    FromPage.validate_json(message)
                except ValidationError as error:
                    await refuse(connection, error.errors()[0]["msg"])
                else:
                    await manager.broadcast({"type": "cleared", "by": user["name"]}, room=ROOM)
    finally:
        await tell_who_is_here(ROOM)
