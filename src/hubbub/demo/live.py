"""The manager, and the endpoint to which the pages connect.

A page has one connection, on which it subscribes to the rooms that it shows. The connection belongs to a user, so it
also receives the messages of `ConnectionManager.send_to_user`. That is how a notification reaches every tab, whichever
page it shows. Only the whiteboard has a WebSocket of its own instead, for its binary frames.
"""

from __future__ import annotations

import os
from typing import Final

from .. import ConnectionManager, History, Limits, RoomOptions, Welcome
from .users import User, current_user

_DAY_S = 24 * 3600

manager: Final = ConnectionManager(
    os.environ.get("HUBBUB_BROKER") or "memory://",  # `hubbub demo --broker` sets it for its workers
    rooms={
        # Messages and drawings are kept: clients that reconnect recover them, and new clients receive the recent ones.
        "chat:*": RoomOptions(history=History(500, ttl_s=_DAY_S), replay=50, announce=True, client_presence=True),
        "posts": RoomOptions(history=History(200, ttl_s=_DAY_S)),
        "board": RoomOptions(history=History(5000, ttl_s=_DAY_S), replay=5000),
        "board:people": RoomOptions(announce=True),
        # Typing and metrics are outdated after a moment: a slow client receives only the latest.
        "typing:*": RoomOptions(overflow="latest"),
        "dashboard:*": RoomOptions(overflow="latest"),
    },
    # A notification that is sent while a page is offline is recovered when its client reconnects.
    users=RoomOptions(history=History(50, ttl_s=_DAY_S)),
    limits=Limits(max_message_bytes=16 * 1024, max_messages_per_s=100, max_connections_per_user=50),
    app_ping=True,
)
live: Final = manager.endpoint("/live", auth=current_user)


@live.connect
async def welcome(user: User) -> Welcome:
    """Lets others see the user's name, in lists of people and with each message."""
    return Welcome(info={"name": user["name"]})
