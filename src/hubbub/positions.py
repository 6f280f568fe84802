"""Positions: where in a room's stream of messages somebody is, and how a position travels.

A room that keeps history, or has ``positions=True``, numbers its messages: 1, 2, 3, ... within an epoch. The epoch is a
random string made with the numbering, so that a room that was lost and begun again is not mistaken for the old one. A
server that was restarted goes on counting in a new epoch, and knows where the former one ended. So positions of
different epochs are compared by the broker, and nowhere else.

To a client a text message travels as ``{"room", "epoch", "offset", "data"}``, a binary one behind this header::

    0   4 bytes   "HUB1"
    4   1 byte    n, the length of the room's name
    5   8 bytes   epoch, ASCII
    13  8 bytes   offset, unsigned, big endian
    21  n bytes   room, UTF-8
    21+n          the message
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from .codec import Kind, Payload, dumps, loads
from .errors import InvalidArgument, shown
from .frames import Opcode, frame

if TYPE_CHECKING:
    from typing import Protocol

    class Handshake(Protocol):
        """What `Resume.from_query` reads: a WebSocket or a request."""

        @property
        def query_params(self) -> Mapping[str, str]: ...


logger = logging.getLogger("hubbub")

EPOCH_CHARS = 8
_MAX_EPOCH_CHARS = 64  # in what a client presents
MAX_RESUME_IDS = 8
MAX_RESUME_ROOMS = 1024


def new_epoch() -> str:
    """A new epoch: 48 random bits in 8 URL-safe characters."""
    return secrets.token_urlsafe(6)


class Position(NamedTuple):
    """A place in a room's stream: after the message ``offset`` of ``epoch``.

    Attributes:
        epoch: Names the numbering; 8 characters.
        offset: The number of the last message before this place; 0 is before the first.
    """

    epoch: str
    offset: int


class Joined(NamedTuple):
    """What a join gave.

    Attributes:
        position: The room's position when it was joined; None in a room that has none.
        recovered: Whether everything since the position that was presented is delivered. False where none was
            presented, the history does not reach back, or the epoch differs.
    """

    position: Position | None
    recovered: bool


class Resume(Mapping[str, Position]):
    """What a client that comes back presents: its position in each room, and the ids of its old connections.

    A mapping of room name to `Position`, for ``connect(..., since=...)``. The old ids are for ``exclude``: a
    message that a client was excluded from is not replayed to it.
    """

    def __init__(self, positions: Mapping[str, Position], connection_ids: tuple[str, ...] = ()) -> None:
        self._positions = dict(positions)
        self.connection_ids = connection_ids

    @classmethod
    def from_query(cls, websocket: Handshake) -> Resume | None:
        """Reads the query parameter ``since`` that the browser client sends.

        Its value is JSON: ``{"ids": ["<connection id>", ...], "rooms": {"<room>": ["<epoch>", <offset>]}}``.

        Returns:
            None where there is no such parameter, or it makes no sense (a client may send anything).
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


def as_position(value: object, argument: str = "since") -> Position:
    """Takes a `Position`, an ``(epoch, offset)`` pair, or ``{"epoch": ..., "offset": ...}`` as a client has it.

    Raises:
        InvalidArgument: It is none of these.
    """
    pair = (value.get("epoch"), value.get("offset")) if isinstance(value, Mapping) else value
    if isinstance(pair, (tuple, list)) and len(pair) == 2:
        epoch, offset = pair
        known = isinstance(epoch, str) and epoch.isascii() and len(epoch) <= _MAX_EPOCH_CHARS
        if known and isinstance(offset, int) and not isinstance(offset, bool) and 0 <= offset < 2**63:
            return Position(epoch, offset)
    raise InvalidArgument(
        argument, f"{shown(value)} is no position", "Position(epoch, offset), or a mapping of room to Position"
    )


def is_place(since: Mapping[object, object]) -> bool:
    """Whether a mapping is one position as clients write it, and not a mapping of room to position."""
    return since.keys() == {"epoch", "offset"} and isinstance(since["epoch"], str)


def since_for(since: object, room: str) -> Position | None:
    """The position that ``since`` (as `connect` and `join` take it) has for a room.

    Raises:
        InvalidArgument: It is no position.
    """
    if since is None:
        return None
    if isinstance(since, Mapping) and not is_place(since):
        places = {str(name): place for name, place in since.items()}
        return None if room not in places else as_position(places[room], f"since[{room!r}]")
    return as_position(since)


def positioned(payload: Payload, room: str, position: Position) -> bytes:
    """The frame of a message in a room with ``positions=True``."""
    if payload.kind is Kind.BINARY:
        name = room.encode()
        header = b"HUB1%c%b%b%b" % (len(name), position.epoch.encode(), position.offset.to_bytes(8, "big"), name)
        return frame(Opcode.BINARY, header + payload.data)
    data = payload.data if payload.kind is Kind.JSON else dumps(payload.data.decode())
    return frame(Opcode.TEXT, b'%b,"data":%b}' % (_head(room, position), data))


def position_only(room: str, position: Position) -> bytes:
    """The frame for those whom a message excludes: it moves their position, and says no more."""
    return frame(Opcode.TEXT, _head(room, position) + b"}")


def _head(room: str, position: Position) -> bytes:
    return b'{"room":%b,"epoch":"%b","offset":%d' % (dumps(room), position.epoch.encode(), position.offset)
