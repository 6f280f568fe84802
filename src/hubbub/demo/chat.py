"""Chat in rooms, with presence, typing indicators, and the messages from before a page was opened.

Messages go to ``chat:<room>``, which keeps history, and whose subscribers may ask who is there. Typing goes to
``typing:<room>``, which keeps none. The server adds the author's name to what a client publishes, so no message has it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import HTTPException
from pydantic import BaseModel, StringConstraints

from .. import MessageRouter

_ROOM = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


class Say(BaseModel):
    """A text to say. The nonce is sent back with it, so that the page recognizes its own message."""

    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
    nonce: Annotated[str, StringConstraints(max_length=40)] = ""


class Said(Say):
    """A message to the room."""

    at: datetime


class Typing(BaseModel):
    """The author of this message is typing."""


live: Final = MessageRouter()


@live.room("chat:{room}", sends=Said)
@live.room("typing:{room}", sends=Typing)
async def enter(room: str) -> None:
    """Lets everybody into every room that can exist."""
    if not _ROOM.fullmatch(room):
        raise HTTPException(404, "a room's name is 1 to 32 of a-z, 0-9 and -")


@live.publish("chat:{room}")
async def say(message: Say, room: str) -> Said:
    """Publishes a message, with the time of the server."""
    return Said(text=message.text, nonce=message.nonce, at=datetime.now(UTC))


@live.publish("typing:{room}")
async def types(message: Typing, room: str) -> Typing:
    """Publishes that a user is typing."""
    return message
