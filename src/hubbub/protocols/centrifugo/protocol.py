"""The events of rooms, as frames for clients that speak the Centrifugo protocol."""

from __future__ import annotations

from ...close import Closed
from ...codec import Payload
from ...envelope import Announcement, Envelope, Relabel, Reset
from ...positions import Joined
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

    def exclusion(self, room: RoomInfo, message: Envelope) -> None:
        """Nothing: SDKs accept gaps between offsets."""

    def announcement(self, room: RoomInfo, event: Announcement) -> bytes:
        info = announced_info(event)
        return self.encoding.encode([Push(room.label, Join(info) if event.kind == "joined" else Leave(info))])

    def renumbering(self, room: RoomInfo, event: Reset | Relabel) -> None:
        """Nothing. After a `Reset`, the endpoint ends the subscription, so that the SDK learns that it can't recover.

        A `Relabel` loses no message: the SDK keeps the old epoch until it subscribes again.
        """

    def message(self, payload: Payload) -> bytes:
        return self.encoding.encode([Push("", Message(payload))])

    def joined(self, room: RoomInfo, joined: Joined, connection_id: str) -> None:
        """Nothing: the reply to the subscribe command says where the client is."""

    def dropped(self, room: str, count: int) -> None:
        """Nothing: the protocol has no message for it."""

    def error(self, code: str, problem: str) -> None:
        """Nothing: errors are answers to commands."""

    def closed(self, code: int, reason: str) -> Closed:
        return closed_as(code, reason)

    def reply(self, text: str | None, data: bytes | None) -> None:
        """Nothing: the endpoint handles every message from a client."""
