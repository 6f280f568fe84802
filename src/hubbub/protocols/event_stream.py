"""Server-Sent Events, in the format of the WHATWG HTML standard (section 9.2): what `EventSource` and curl read.

An event is a few lines and an empty line. ``data`` is the message of the app, as a raw WebSocket receives it: a str, or
JSON. Bytes are base64, in an event ``base64``.

``id`` is the place of the stream: a client that presents it again receives exactly what follows. In a stream of one
room it is the position of the room, ``epoch:offset``, and all streams of the room share their frames (`OneRoom`). In a
stream of several rooms it is the index of the event's room, and the positions in all rooms, in the order in which the
client named them: ``1,epoch:offset,epoch:offset``. These streams are framed one by one (`SeveralRooms`).

Messages of rooms that the client did not name (its user's own, everyone's, those that the app joined it to) are events
with the name of the room. They have no ``id``, and do not change the place.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from ..close import Closed
from ..codec import Kind, Payload, dumps
from ..envelope import Announcement, Envelope
from ..errors import InvalidArgument
from ..positions import Position, as_position
from .base import RoomInfo, StreamProtocol
from .chunks import chunk

MAX_ROOMS: Final = 128
"""Rooms of one stream, so that an ``id`` stays below 4 KB: a position has at most 8 + 1 + 19 characters."""

MAX_ID_CHARS: Final = 4096

_BREAKS: Final = re.compile(rb"\r\n|\r|\n")
_UNSAFE: Final = re.compile(rb"[\x00-\x1f\x7f]")


class Asked(NamedTuple):
    """A room that the client named.

    Attributes:
        label: The name of the room, as clients know it.
        type_of: Returns the name of a message's type, for its event, because the room has messages of several types.
            Empty for a message of none of them. None if events have no names.
    """

    label: str
    type_of: Callable[[Payload], str] | None = None

    def name_of(self, payload: Payload) -> str:
        """Returns the name of the event that has a message of the room; empty for none."""
        return "" if self.type_of is None else self.type_of(payload)


class EventStreamProtocol(StreamProtocol):
    """The parts that all streams of events have in common."""

    __slots__ = ()

    @property
    def media_type(self) -> str:
        return "text/event-stream"

    def message(self, payload: Payload) -> bytes:
        return chunk(_event(payload))

    def announcement(self, room: RoomInfo, event: Announcement) -> bytes:
        # The info is JSON already.
        names = (room.label, event.user_id, event.connection_id)
        start = b'{"room":%b,"user_id":%b,"client":%b' % tuple(map(dumps, names))
        end = b',"info":%b,"count":%d,"timestamp":%b}' % (event.info, event.count, dumps(event.at))
        return chunk(b"event: %b\ndata: %b%b\n\n" % (b"join" if event.kind == "joined" else b"leave", start, end))

    def error(self, code: str, problem: str) -> None:
        """Nothing: clients send no messages."""

    def reply(self, text: str | None, data: bytes | None) -> None:
        """Nothing: clients send no messages."""

    def ending(self, closed: Closed, retry_ms: int) -> bytes:
        return chunk(b": %b\nretry: %d\n\n" % (_line(closed.reason or "the server ends the stream"), retry_ms))

    @abstractmethod
    def moved(self, label: str, position: Position | None) -> bytes:
        """Records the place in a room that the client named, and returns the ``id`` line for it."""

    @abstractmethod
    def beginning(self, positions: Sequence[Position | None]) -> bytes:
        """Returns the ``id`` line for the place at which a stream begins: a position in each room that it named."""


class OneRoom(EventStreamProtocol):
    """The protocol of all streams of one room.

    Args:
        room: The room.
    """

    __slots__ = ("__weakref__", "_label", "_room")

    def __init__(self, room: Asked) -> None:
        self._room = room
        self._label = room.label

    def publication(self, room: RoomInfo, message: Envelope) -> bytes:
        if room.label != self._label:
            return chunk(_event(message.payload, room.label))
        event = _event(message.payload, self._room.name_of(message.payload))
        position = message.position
        return chunk(event if position is None else b"id: %b\n%b" % (_text(position), event))

    def moved(self, label: str, position: Position | None) -> bytes:
        return b"" if position is None or label != self._label else b"id: %b\n" % _text(position)

    def beginning(self, positions: Sequence[Position | None]) -> bytes:
        return self.moved(self._label, positions[0])


class Place(NamedTuple):
    """The place of a client in a room.

    Attributes:
        is_live: Whether the client has caught up, so that each frame is written at once. It then stays so.
        position: The position up to which everything was written, if it is not live; None for none.
    """

    is_live: bool
    position: Position | None = None


class SeveralRooms(EventStreamProtocol):
    """The protocol of one stream of several rooms. It keeps the place of its client.

    In a room in which the client is live, that is the last message that was framed, because frames are written at once.
    Before that it is not: the frames of a page of history wait until the client has read those before.

    Args:
        rooms: The rooms that the client named, in their order.
        presented: The positions that it presented.
        place_of: Returns the place of the client in a room. It is asked until the client is live there.
    """

    __slots__ = ("_beginning", "_behind", "_index", "_place_of", "_rooms", "_texts")

    is_shared = False

    def __init__(
        self, rooms: Sequence[Asked], presented: Sequence[Position | None], place_of: Callable[[str], Place]
    ) -> None:
        self._rooms = rooms
        self._index = {room.label: index for index, room in enumerate(rooms)}
        self._beginning = [_text(position) for position in presented]
        self._texts = list(self._beginning)
        self._behind = set(range(len(rooms)))
        self._place_of = place_of

    def publication(self, room: RoomInfo, message: Envelope) -> bytes:
        index = self._index.get(room.label)
        if index is None:
            return chunk(_event(message.payload, room.label))
        if message.position is not None:
            self._texts[index] = _text(message.position)
        return chunk(self._id(index) + _event(message.payload, self._rooms[index].name_of(message.payload)))

    def moved(self, label: str, position: Position | None) -> bytes:
        index = self._index.get(label)
        if index is None:
            return b""
        self._texts[index] = _text(position)
        return self._id(index)

    def begin(self, label: str, position: Position | None) -> None:
        """Records the place at which the client begins in a room, unless a message was framed since."""
        index = self._index[label]
        if self._texts[index] is self._beginning[index]:
            self._texts[index] = _text(position)

    def beginning(self, positions: Sequence[Position | None]) -> bytes:
        return b"id: 0,%b\n" % b",".join(map(_text, positions))

    def _id(self, index: int) -> bytes:
        texts = self._texts
        if self._behind:
            texts = texts.copy()
            for each in tuple(self._behind):
                is_live, position = self._place_of(self._rooms[each].label)
                if is_live:
                    self._behind.discard(each)
                elif each != index:
                    texts[each] = _text(position)
        return b"id: %d,%b\n" % (index, b",".join(texts))


class Presented(NamedTuple):
    """The place that a client presents.

    Attributes:
        positions: The position in each room, or None where it has none.
        is_valid: Whether it is a place of these rooms. If not, the client can recover nothing.
    """

    positions: Sequence[Position | None]
    is_valid: bool = True


def presented(text: str, rooms: int) -> Presented:
    """Reads the ``id`` that a client presents. Never raises.

    Args:
        text: The ``id``; empty if the client has none.
        rooms: The number of rooms that it named.
    """
    nothing: list[Position | None] = [None] * rooms
    if not text:
        return Presented(nothing)
    if len(text) > MAX_ID_CHARS:
        return Presented(nothing, is_valid=False)
    parts = [text] if rooms == 1 else text.split(",")[1:]
    try:
        positions = [_position(part) if part else None for part in parts]
    except (InvalidArgument, ValueError):
        return Presented(nothing, is_valid=False)
    return Presented(positions) if len(positions) == rooms else Presented(nothing, is_valid=False)


def _position(text: str) -> Position:
    epoch, _, offset = text.rpartition(":")
    if not epoch or "," in epoch or not (offset.isascii() and offset.isdigit() and len(offset) <= 19):
        raise ValueError
    return as_position((epoch, int(offset)))


def opening(retry_ms: int, lines: bytes = b"") -> bytes:
    """Returns the beginning of a stream: when to come back if it breaks, and the place."""
    return chunk(b"retry: %d\n%b\n" % (retry_ms, lines))


def reset(label: str, lines: bytes = b"") -> bytes:
    """Returns the event that messages of a room are lost.

    Args:
        label: The name of the room.
        lines: The new place, if it changes.
    """
    return chunk(b"%bevent: reset\n%b\n" % (lines, _data(label.encode())))


def place(lines: bytes) -> bytes:
    """Returns a frame that changes the place of the client, without an event; nothing if there are no lines."""
    return chunk(lines + b"\n") if lines else b""


def named(name: str, payload: Payload) -> bytes:
    """Returns an event with a name of ours."""
    return chunk(_event(payload, name))


COMMENT: Final = chunk(b":\n\n")
"""What keeps a proxy from cutting a stream in which nothing is said. Clients ignore it."""


def _event(payload: Payload, name: str = "") -> bytes:
    data = payload.data
    if payload.kind is Kind.BINARY:
        return b"event: base64\ndata: %b\n\n" % b64encode(data)
    lines = _data(data) if b"\n" in data or b"\r" in data else b"data: %b\n" % data
    return b"event: %b\n%b\n" % (_line(name), lines) if name else lines + b"\n"


def _data(data: bytes) -> bytes:
    return b"".join([b"data: %b\n" % line for line in _BREAKS.split(data)])


def _line(text: str) -> bytes:
    """Returns a text as a part of one line: a name may hold a line break, which would begin another field."""
    return _UNSAFE.sub(b"?", text.encode())


def _text(position: Position | None) -> bytes:
    return b"" if position is None else b"%b:%d" % (position.epoch.encode(), position.offset)
