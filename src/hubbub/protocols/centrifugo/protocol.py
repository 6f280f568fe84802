"""The events of rooms, as frames for clients that speak the Centrifugo protocol."""

from __future__ import annotations

from ...close import Closed
from ...codec import Payload
from ...envelope import Announcement, Envelope
from ..base import ClientProtocol, RoomInfo
from .codes import closed_as
from .encoding import Encoding
from .infos import announced_info, author_info
from .messages import Join, Leave, Message, Push


class CentrifugoProtocol(ClientProtocol):
    """One encoding of the Centrifugo client protocol.

    The endpoint writes what concerns one connection, with `encoding`: replies, pings, the end.

    Attributes:
        encoding: Parses commands and writes replies.
    """

    __slots__ = ("_publication", "encoding")

    def __init__(self, encoding: Encoding) -> None:
        self.encoding: Encoding = encoding
        self._publication = encoding.publication

    def publication(self, room: RoomInfo, message: Envelope) -> bytes:
        position = message.position
        offset = 0 if position is None else position.offset
        return self._publication(room.label, message.payload, offset, author_info(message.author))

    def announcement(self, room: RoomInfo, event: Announcement) -> bytes:
        info = announced_info(event)
        return self.encoding.encode([Push(room.label, Join(info) if event.kind == "joined" else Leave(info))])

    def message(self, payload: Payload) -> bytes:
        return self.encoding.encode([Push("", Message(payload))])

    def error(self, code: str, problem: str) -> None:
        """Nothing: errors are answers to commands."""

    def closed(self, code: int, reason: str) -> Closed:
        return closed_as(code, reason)

    def reply(self, text: str | None, data: bytes | None) -> None:
        """Nothing: the endpoint handles every message from a client."""
