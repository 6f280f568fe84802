"""The clients that the events of a room tell of, as `ClientInfo`."""

from __future__ import annotations

from typing import Final

from ...codec import Kind, Payload
from ...envelope import Announcement, Author
from .messages import ClientInfo

_NULL: Final = b"null"


def author_info(author: Author | None) -> ClientInfo | None:
    """Returns the client that published a message; None if the server published it."""
    if author is None:
        return None
    return ClientInfo(author.user_id or "", author.client_id, _payload(author.info), _payload(author.room_info))


def announced_info(event: Announcement) -> ClientInfo:
    """Returns the client that joined or left a room."""
    return ClientInfo(event.user_id or "", event.connection_id, _payload(event.info), _payload(event.room_info))


def _payload(info: bytes) -> Payload | None:
    return None if info == _NULL else Payload(Kind.JSON, info)
