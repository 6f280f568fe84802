"""A shared whiteboard on a plain WebSocket. A stroke is sent in pieces while it is drawn, each a binary frame.

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

The room's history is the drawing. A page that connects receives all pieces that are kept, in order with the live ones:
see `RoomOptions.replay`. A greeting lists the people at the board, and announcements tell of later ones. The text
``clear`` clears the board.
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, WebSocket

from .live import manager
from .users import User

DRAWING: Final = "board"
PEOPLE: Final = "board:people"
_HEADER_BYTES = 5
_POINT_BYTES = 4
_MAX_POINTS = 256
_MAX_WIDTH = 64


def is_piece(data: str | bytes) -> bool:
    """Returns whether a frame is a piece of a stroke."""
    if isinstance(data, str):
        return False
    points, rest = divmod(len(data) - _HEADER_BYTES, _POINT_BYTES)
    return rest == 0 and 1 <= points <= _MAX_POINTS and data[0] == 1 and 1 <= data[1] <= _MAX_WIDTH


router: Final = APIRouter()


@router.websocket("/ws/board")
async def board(websocket: WebSocket, user: User) -> None:
    """Serves a tab that shows the board."""
    info = {"name": user["name"]}
    async with manager.connect(websocket, user.sub, rooms=[DRAWING, PEOPLE], info=info) as connection:
        await connection.send({"type": "hello", "people": await manager.presence(PEOPLE)})
        async for message in connection:
            if is_piece(message):
                # Not to the page that drew it, which has already shown it.
                await manager.broadcast(message, room=DRAWING, exclude=connection)
            elif message == "clear":
                await manager.broadcast({"type": "cleared"}, room=DRAWING)
                await manager.broadcast({"type": "cleared_by", "name": user["name"]}, room=PEOPLE)
            else:
                problem = 'neither a piece of a stroke nor "clear"'
                await connection.send({"type": "error", "code": "invalid_message", "message": problem})
