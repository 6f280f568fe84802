"""The raw protocol: clients receive the messages of the app unchanged. It is the default.

A message is one frame: ``str`` and JSON are text, ``bytes`` are binary. Depending on the manager's options, hubbub also
sends small JSON objects with a ``type``: ``pong``, ``error`` and ``dropped``, and in a room with ``announce=True``
``user_joined`` and ``user_left``.

In a room with ``positions=True`` each message travels with its position. A text message is then
``{"room", "epoch", "offset", "data"}``, a binary one follows this header::

    0   4 bytes   "HUB1"
    4   1 byte    n, the length of the room's name
    5   8 bytes   epoch, ASCII
    13  8 bytes   offset, unsigned, big endian
    21  n bytes   room, UTF-8
    21+n          the message

The objects ``sync``, ``reset`` and ``epoch`` tell the client its position. A client that reconnects presents its
positions as a `Resume`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

from ..codec import Kind, Payload, dumps, loads
from ..envelope import Announcement, Envelope, Relabel, Reset
from ..errors import shown
from ..positions import Joined, Position, as_position
from .base import ClientProtocol, RoomInfo
from .frames import Opcode, frame

logger: Final = logging.getLogger("hubbub")

MAX_RESUME_IDS = 8
MAX_RESUME_ROOMS = 1024

_MAX_PING_CHARS = 64
_PONG = frame(Opcode.TEXT, b'{"type":"pong"}')


class RawProtocol(ClientProtocol):
    """The protocol of clients that receive the messages of the app unchanged.

    Args:
        app_ping: Answer a client's ``{"type":"ping"}`` with ``{"type":"pong"}`` instead of passing it to the app.
        client_frames: Send ``error`` and ``dropped`` objects.
    """

    __slots__ = ("_app_ping", "_client_frames")

    def __init__(self, *, app_ping: bool, client_frames: bool) -> None:
        self._app_ping = app_ping
        self._client_frames = client_frames

    def publication(self, room: RoomInfo, message: Envelope) -> bytes:
        if not room.options.positions or message.position is None:
            return self.message(message.payload)
        return positioned(message.payload, room.label, message.position)

    def exclusion(self, room: RoomInfo, message: Envelope) -> bytes | None:
        if not room.options.positions or message.position is None:
            return None
        return position_only(room.label, message.position)

    def announcement(self, room: RoomInfo, event: Announcement) -> bytes | None:
        if event.user_id is None:  # raw clients hear of users
            return None
        # The info is JSON already.
        start = b'{"type":"user_%b","room":%b,"user_id":%b' % (
            event.kind.encode(),
            dumps(room.label),
            dumps(event.user_id),
        )
        end = b',"info":%b,"count":%d,"timestamp":%b}' % (event.info, event.count, dumps(event.at))
        return frame(Opcode.TEXT, start + end)

    def renumbering(self, room: RoomInfo, event: Reset | Relabel) -> bytes | None:
        if not room.options.positions:
            return None
        epoch, offset = event.position
        return _control(
            type="reset" if isinstance(event, Reset) else "epoch", room=room.label, epoch=epoch, offset=offset
        )

    def message(self, payload: Payload) -> bytes:
        return frame(Opcode.BINARY if payload.kind is Kind.BINARY else Opcode.TEXT, payload.data)

    def joined(self, room: RoomInfo, joined: Joined, connection_id: str) -> bytes | None:
        if not room.options.positions or joined.position is None:
            return None
        epoch, offset = joined.position
        return _control(
            type="sync",
            room=room.label,
            epoch=epoch,
            offset=offset,
            recovered=joined.recovered,
            connection_id=connection_id,
        )

    def dropped(self, room: str, count: int) -> bytes | None:
        return _control(type="dropped", room=room, count=count) if self._client_frames else None

    def error(self, code: str, problem: str) -> bytes | None:
        return _control(type="error", code=code, message=problem) if self._client_frames else None

    def reply(self, text: str | None, data: bytes | None) -> bytes | None:
        if self._app_ping and text is not None and len(text) < _MAX_PING_CHARS and _is_ping(text):
            return _PONG
        return None


def _control(**fields: Any) -> bytes:
    """Returns the frame of an object that hubbub sends on its own."""
    return frame(Opcode.TEXT, dumps(fields))


def _is_ping(text: str) -> bool:
    if '"ping"' not in text:
        return False
    try:
        return bool(loads(text) == {"type": "ping"})
    except ValueError:
        return False


def positioned(payload: Payload, room: str, position: Position) -> bytes:
    """Returns the frame of a message in a room with ``positions=True``."""
    if payload.kind is Kind.BINARY:
        name = room.encode()
        header = b"HUB1%c%b%b%b" % (len(name), position.epoch.encode(), position.offset.to_bytes(8, "big"), name)
        return frame(Opcode.BINARY, header + payload.data)
    data = payload.data if payload.kind is Kind.JSON else dumps(payload.data.decode())
    return frame(Opcode.TEXT, b'%b,"data":%b}' % (_opening(room, position), data))


def position_only(room: str, position: Position) -> bytes:
    """Returns the frame for a member that a message excludes. It has the position of the message, but no data."""
    return frame(Opcode.TEXT, _opening(room, position) + b"}")


def _opening(room: str, position: Position) -> bytes:
    return b'{"room":%b,"epoch":"%b","offset":%d' % (dumps(room), position.epoch.encode(), position.offset)


class Handshake(Protocol):
    """The part of a WebSocket or a request that `Resume.from_query` reads."""

    @property
    def query_params(self) -> Mapping[str, str]: ...


class Resume(Mapping[str, Position]):
    """The state that a returning client presents: its position in each room, and the ids of its former connections.

        async with manager.connect(websocket, room=room, since=Resume.from_query(websocket)) as connection:
            ...

    It is a mapping of room to `Position`. The former ids matter for ``exclude``: a message that excluded one of them is
    not replayed to the client.
    """

    def __init__(self, positions: Mapping[str, Position], connection_ids: tuple[str, ...] = ()) -> None:
        self._positions = dict(positions)
        self.connection_ids = connection_ids

    @classmethod
    def from_query(cls, websocket: Handshake) -> Resume | None:
        """Reads the query parameter ``since``, which the browser client sends.

        Its value is JSON: ``{"ids": ["<connection id>", ...], "rooms": {"<room>": ["<epoch>", <offset>]}}``.

        Args:
            websocket: The handler's WebSocket, or a request.

        Returns:
            The state, or None if there is no such parameter or it is malformed. A client may send anything.
        """
        text = websocket.query_params.get("since")
        if not text:
            return None
        try:
            value = loads(text)
            ids = tuple(each for each in value.get("ids", [])[:MAX_RESUME_IDS] if isinstance(each, str))
            rooms = list(value["rooms"].items())[:MAX_RESUME_ROOMS]
            return cls({room: as_position(place) for room, place in rooms}, ids)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            logger.debug("ignored a client's since=%s: %s", shown(text), shown(error))
            return None

    def __getitem__(self, room: str) -> Position:
        return self._positions[room]

    def __iter__(self) -> Iterator[str]:
        return iter(self._positions)

    def __len__(self) -> int:
        return len(self._positions)

    def __repr__(self) -> str:
        return f"Resume({self._positions!r}, {self.connection_ids!r})"
