"""Chat in rooms, with presence, typing indicators, and the messages from before a page was opened.

Messages go to ``chat:<room>``, which keeps history. Presence and typing go to ``live:chat:<room>``, which keeps none.
Both rooms have the same members, but different options.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, WebSocket, WebSocketException
from pydantic import BaseModel, Field, StringConstraints, TypeAdapter

from .. import Resume
from .live import manager, messages, tell_who_is_here
from .signin import User

_ROOM = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


class Say(BaseModel):
    """A page's message: a text to say. The nonce is sent back with it, so that the page recognizes its own message."""

    type: Literal["say"]
    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
    nonce: Annotated[str, StringConstraints(max_length=40)] = ""


class Typing(BaseModel):
    """A page's message: its user is typing."""

    type: Literal["typing"]


FromPage: TypeAdapter[Say | Typing] = TypeAdapter(Annotated[Say | Typing, Field(discriminator="type")])


class Said(BaseModel):
    """A message to the room."""

    type: Literal["said"] = "said"
    user_id: str
    name: str
    text: str
    nonce: str
    at: datetime


async def room_name(websocket: WebSocket, room: str) -> str:
    """Checks the name of a room. The socket is accepted before it is refused, so that the page can read the reason."""
    if not _ROOM.fullmatch(room):
        await websocket.accept()
        raise WebSocketException(1008, "a room's name is 1 to 32 of a-z, 0-9 and -")
    return f"chat:{room}"


router: Final = APIRouter()


@router.websocket("/ws/chat/{room}")
async def chat(websocket: WebSocket, user: User, room: Annotated[str, Depends(room_name)]) -> None:
    """Serves a tab of a user in a room."""
    rooms = [room, f"live:{room}"]
    since = Resume.from_query(websocket)
    try:
        async with manager.connect(
            websocket, user.sub, rooms=rooms, info={"name": user["name"]}, since=since
        ) as connection:
            await tell_who_is_here(room)
            async for message in messages(connection, FromPage):
                match message:
                    case Say(text=text, nonce=nonce):
                        said = Said(user_id=user.sub, name=user["name"], text=text, nonce=nonce, at=datetime.now(UTC))
                        await manager.broadcast(said, room=room)
                    case Typing():
                        typing = {"type": "typing", "user_id": user.sub, "name": user["name"]}
                        await manager.broadcast(
                            typing, room=f"live:{room}", exclude=connection, key=f"typing:{user.sub}"
                        )
    finally:
        await tell_who_is_here(room)
