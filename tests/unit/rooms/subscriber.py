"""Clients that see positions, as the clients of endpoints do, in frames that tests can read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hubbub.codec import Payload, dumps, loads
from hubbub.connections.session import Session
from hubbub.envelope import Announcement, Entry, Envelope
from hubbub.positions import Joined, Position
from hubbub.protocols import ClientProtocol, RawProtocol, RoomInfo
from hubbub.protocols.frames import Opcode, frame
from hubbub.rooms.catch_up import JoinReply

RAW = RawProtocol(app_ping=False, client_frames=True)


class PlacedProtocol(ClientProtocol):
    """Says ``{"room", "offset", "data"}`` of a message in a room with positions. Otherwise as the raw protocol."""

    def publication(self, room: RoomInfo, message: Envelope) -> bytes:
        if message.position is None:
            return RAW.publication(room, message)
        return told(room=room.label, offset=message.position.offset, data=_data_of(message.payload))

    def announcement(self, room: RoomInfo, event: Announcement) -> bytes | None:
        return RAW.announcement(room, event)

    def message(self, payload: Payload) -> bytes:
        return RAW.message(payload)

    def error(self, code: str, problem: str) -> bytes | None:
        return RAW.error(code, problem)

    def reply(self, text: str | None, data: bytes | None) -> None:
        """Nothing: a client says nothing to the protocol."""


class OtherPlacedProtocol(PlacedProtocol):
    """The same, for members of another protocol in the same room."""


PLACED, OTHER = PlacedProtocol(), OtherPlacedProtocol()


def told(**fields: object) -> bytes:
    return frame(Opcode.TEXT, dumps(fields))


def _data_of(payload: Payload) -> object:
    text = payload.data.decode()
    try:
        return loads(text)
    except ValueError:
        return text


def reply_in(room: str, protocol: ClientProtocol = PLACED) -> JoinReply:
    """The reply to a client that subscribes to a room: whether it recovered, its place, and what it missed."""

    def reply(joined: Joined, entries: Sequence[Entry]) -> bytes:
        assert joined.position is not None
        epoch, offset = joined.position
        frames = [told(type="sync", room=room, epoch=epoch, offset=offset, recovered=joined.recovered)]
        for entry in entries:
            frames.append(told(room=room, offset=entry.offset, data=_data_of(entry.envelope.payload)))
        return b"".join(frames)

    return reply


class Subscriber:
    """The handler of a client that subscribes to rooms itself.

    Args:
        again: Ends the subscription, and has the client subscribe again. None for a room that the app joined it to.

    Attributes:
        heard: What it heard, each with the room.
        places: The positions after which it has everything, in the rooms that the app joined it to.
    """

    def __init__(self, again: Callable[[], None] | None = None) -> None:
        self.heard: list[tuple[str, str]] = []
        self.places: list[Position | None] = []
        self._again = again

    def presents(self, channel: str) -> Position | None:
        return None

    def joined(self, channel: str, position: Position | None) -> bytes | None:
        self.places.append(position)
        self.heard.append(("joined", channel))
        return told(type="in", room=channel)

    def left(self, channel: str) -> bytes | None:
        self.heard.append(("left", channel))
        return told(type="out", room=channel)

    def authorized_until(self, ends_at: float | None) -> bool:
        self.heard.append(("authorized until", str(ends_at)))
        return ends_at is not None

    def lost_place(self, channel: str) -> None:
        self.heard.append(("lost its place", channel))
        if self._again is not None:
            self._again()

    def renumbered(self, channel: str, position: Position) -> bytes | None:
        self.heard.append(("renumbered", channel))
        if self._again is not None:
            self._again()
            return None
        return told(type="renumbered", room=channel, epoch=position.epoch, offset=position.offset)

    def ended(self) -> None:
        """Nothing: nobody waits for it."""


def subscribing(session: Session, again: Callable[[], None] | None = None) -> Subscriber:
    """Makes a session that of a client that subscribes to rooms itself, and again where it is told to."""
    session.listener = subscriber = Subscriber(again)
    return subscriber
