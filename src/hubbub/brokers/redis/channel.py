"""What travels on a channel at Redis, and how its keys are called: shared by workers and publishers. Pure.

What is published is packed once, by who publishes it, and framed by the workers that get it::

    message   "M"  kind (1)  sender (8)  number (8)  key length + 1, 0 for none (2)  excluded length (4)
              key  excluded names, between bytes that UTF-8 has not  payload
    numbered  "P"  epoch (8, ASCII)  offset (8), and the message; the publish script puts this in front
    announce  "A"  kind (1)  sender (8)  number (8)  time in µs (8)  user length (2)  user, and from the script
              count of users (4)  length (2) of and the connection id  info as JSON
    instruct  "I"  time (8)  id (8)  kind (1)  channel length (2)  channel  fields as JSON
              the script puts in the time
    request   "Q"  sender (8)  number (8)  id (8)  how long the sender waits, in ms (4)  payload
    reply     "Y"  id of the request (8)  1 for an answer, 0 for a problem (1)  answer, or problem as text
    reset     "R"  epoch (8)  offset (8): the room's numbering begins anew after this
    canary    "C"  number (8)
    roll call "W"

The first letter of each also says how the rest is packed: a release that packs otherwise takes another letter, and one
that does not know a letter skips what begins with it (`foreign`). The same holds for the names of the fields of a log's
entries (``m``, ``t``).

Numbers are big endian. ``kind`` is that of `hubbub.codec`. ``sender`` is random, and ``number`` counts what it
publishes: what is published again because its answer was lost has the number that it had, by which it is known.
"""

from __future__ import annotations

import secrets
from dataclasses import astuple
from datetime import UTC, datetime, timedelta
from struct import Struct
from struct import error as StructError
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from ...codec import Kind, Payload, dumps, loads
from ...envelope import Announcement, Envelope, Instruction, Kick, Refresh, Reply, Reset, Subscribe, Unsubscribe
from ...positions import EPOCH_CHARS, Position

SENDER_BYTES: Final = 8

_MESSAGE: Final = Struct(">cB8sQHI")
_NUMBERED: Final = Struct(">c8sQ")
_ANNOUNCED: Final = Struct(">cc8sQQH")
_COUNTED: Final = Struct(">IH")
_INSTRUCTED: Final = Struct(">8scH")
_GIVEN: Final = Struct(">cQ")
_REQUESTED: Final = Struct(">c8sQQI")
_REPLIED: Final = Struct(">cQ?")
_CANARY: Final = Struct(">cQ")
_KINDS: Final = tuple(Kind)
_NOBODY: Final[frozenset[str]] = frozenset()
_BETWEEN: Final = b"\xff"
_JOINED: Final = b"j"
_LEFT: Final = b"l"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_LETTERS: Final[dict[type[Instruction], bytes]] = {Kick: b"K", Subscribe: b"S", Unsubscribe: b"U", Refresh: b"R"}


class Stamp(NamedTuple):
    """Who published a message, and its how-manieth it is."""

    sender: bytes
    number: int

    def packed(self) -> bytes:
        """As it stands in a message."""
        return self.sender + self.number.to_bytes(8, "big")


class Sender:
    """Stamps what one process publishes, in the order in which it does.

    What scripts publish is counted by itself: a server that does not know them, or takes no writes, refuses those and
    publishes the rest, and they are sent again behind it.
    """

    def __init__(self) -> None:
        self.id: bytes = secrets.token_bytes(SENDER_BYTES)
        self.scripted: bytes = secrets.token_bytes(SENDER_BYTES)
        self._numbers = [0, 0]

    def stamp(self, *, scripted: bool) -> Stamp:
        self._numbers[scripted] += 1
        return Stamp(self.scripted if scripted else self.id, self._numbers[scripted])


class Canary(NamedTuple):
    """A worker's message to itself."""

    number: int


class Arrival(NamedTuple):
    """A message that came."""

    envelope: Envelope
    stamp: Stamp


class Announced(NamedTuple):
    """An announcement that came."""

    announcement: Announcement
    stamp: Stamp


class Instructed(NamedTuple):
    """An instruction to all workers.

    Attributes:
        channel: The channel of the user that it is about.
        instruction: The instruction.
        at: When it was given, by the clock of Redis in ms.
    """

    channel: str
    instruction: Instruction
    at: int = 0


class Request(NamedTuple):
    """A request to this worker.

    Attributes:
        payload: What is asked.
        number: The id of the request at the worker that asks.
        timeout_s: How long that worker waits.
        stamp: Names that worker, and recognizes a repetition.
    """

    payload: bytes
    number: int
    timeout_s: float
    stamp: Stamp


class Replied(NamedTuple):
    """A reply to a request of this worker."""

    number: int
    reply: Reply


class RollCall(NamedTuple):
    """All workers are to look whether Redis knows them still."""


Packed: TypeAlias = Arrival | Announced | Instructed | Reset | Request | Replied | Canary | RollCall


class Keys:
    """The names of keys and channels of one app.

    A room's keys carry its name as their hash tag, so that they can live together on one node of a cluster. A channel
    carries the number of the database too: Redis keeps the keys of its databases apart, but not their channels.

    Attributes:
        all_workers: The channel of all workers.
        workers: A hash of the workers: name to the number of what it said last of its connections.
        dead: A set: those whose connections are being taken out.
        rooms: The options of the rooms, as JSON.
        instructions: A sorted set: the newest instructions to all workers, by when they were given.
        forgotten: When the newest instruction was given that is not kept any more.
        silent: A sorted set: rooms with a position in which nothing was said, by their last use (``head.lua``).
        room_prefix: What the keys of all rooms begin with; the room's name and ``}`` follow.
        channel_prefix: What the channels of all rooms begin with; the room's name and ``}`` follow.

    Args:
        prefix: What all begin with, so that apps can share a server.
        database: The number of the database.
    """

    def __init__(self, prefix: str, database: int = 0) -> None:
        self._prefix = prefix
        self.room_prefix: str = f"{prefix}:{{"
        self._channels = f"{prefix}:{database}:"
        self.channel_prefix: str = f"{self._channels}{{"
        self.workers: str = f"{prefix}:workers"
        self.dead: str = f"{prefix}:dead"
        self.rooms: str = f"{prefix}:rooms"
        self.instructions: str = f"{prefix}:instructions"
        self.forgotten: str = f"{prefix}:instructions:forgotten"
        self.silent: str = f"{prefix}:silent"
        self.all_workers: str = f"{self._channels}workers"

    def channel(self, room: str) -> str:
        """The channel of a room."""
        return f"{self.channel_prefix}{room}}}"

    def own_channel(self, worker: str) -> str:
        """The channel that one worker alone subscribes to."""
        return f"{self._channels}worker:{worker}"

    def room_of(self, channel: bytes) -> str | None:
        """The room of a channel; None for one of the workers' own."""
        name = channel.decode()
        return name[len(self.channel_prefix) : -1] if name.startswith(self.channel_prefix) else None

    def head(self, room: str) -> str:
        """A hash: the room's epoch ``e`` and offset ``o``."""
        return f"{self.room_prefix}{room}}}:head"

    def log(self, room: str) -> str:
        """A stream of what is kept: id ``<offset>-0``, message ``m``, time ``t`` in ms."""
        return f"{self.room_prefix}{room}}}:log"

    def sender(self, sender: bytes) -> str:
        """A sender's line, the last number taken in it, and the last that was published."""
        return f"{self._prefix}:sender:{sender.hex()}"

    def here(self, room: str) -> str:
        """A hash of who is present: user to an entry of JSON, see ``enter.lua``."""
        return f"{self.room_prefix}{room}}}:here"

    def anonymous(self, room: str) -> str:
        """A hash of the anonymous connections: connection id to an entry of JSON, as if each were a user."""
        return f"{self.room_prefix}{room}}}:anonymous"

    def lease(self, worker: str) -> str:
        """The lease of a worker."""
        return f"{self._prefix}:worker:{worker}"

    def worker_rooms(self, worker: str) -> str:
        """A set: the rooms in which a worker has present users."""
        return f"{self._prefix}:worker:{worker}:rooms"

    def claimed(self, worker: str) -> str:
        """That a worker was taken for dead."""
        return f"{self._prefix}:worker:{worker}:claimed"

    def cleaner(self, worker: str) -> str:
        """That somebody is at taking its connections out."""
        return f"{self._prefix}:worker:{worker}:cleaner"


def pack(envelope: Envelope, stamp: Stamp) -> bytes:
    """Packs a message."""
    key = b"" if envelope.key is None else envelope.key.encode()
    excluded = _BETWEEN.join([name.encode() for name in envelope.exclude])
    key_size = 0 if envelope.key is None else len(key) + 1
    kind, data = envelope.payload
    header = _MESSAGE.pack(b"M", kind, stamp.sender, stamp.number, key_size, len(excluded))
    return b"".join((header, key, excluded, data))


def pack_announcement(kind: Literal["joined", "left"], user: str, at: datetime, stamp: Stamp) -> bytes:
    """Packs an announcement as far as the script that publishes it: the script adds what is known only there."""
    name = user.encode()
    letter = _JOINED if kind == "joined" else _LEFT
    return _ANNOUNCED.pack(b"A", letter, stamp.sender, stamp.number, (at - _EPOCH) // _MICROSECOND, len(name)) + name


def _unpack_announcement(data: bytes) -> Announced:
    _, letter, sender, number, at, size = _ANNOUNCED.unpack_from(data)
    if letter not in (_JOINED, _LEFT):
        raise ValueError(f"an announcement of kind {letter!r}")
    end = _ANNOUNCED.size + size
    count, id_size = _COUNTED.unpack_from(data, end)
    begin, info_at = end + _COUNTED.size, end + _COUNTED.size + id_size
    info = data[info_at:]
    loads(info)  # it becomes a part of what clients get
    announcement = Announcement(
        "joined" if letter == _JOINED else "left",
        data[_ANNOUNCED.size : end].decode(),
        data[begin:info_at].decode(),
        info,
        count,
        _EPOCH + at * _MICROSECOND,
    )
    return Announced(announcement, Stamp(sender, number))


def pack_instruction(channel: str, instruction: Instruction) -> bytes:
    """Packs an instruction under a random id, by which one that is sent again is recognized."""
    name, fields = channel.encode(), astuple(instruction)[:-1]  # its age is known where it is read
    header = _INSTRUCTED.pack(secrets.token_bytes(8), _LETTERS[type(instruction)], len(name))
    return b"".join((header, name, dumps(fields)))


def unpack_instruction(data: bytes, *, at: int = 0, age_s: float = 0.0) -> Instructed:
    """Gives back an instruction.

    Args:
        data: What was packed.
        at: When it was given.
        age_s: How long ago that was, where it was kept since.

    Raises:
        ValueError: It is not an instruction, or one of another release.
    """
    try:
        _, letter, size = _INSTRUCTED.unpack_from(data)
        end = _INSTRUCTED.size + size
        return Instructed(data[_INSTRUCTED.size : end].decode(), _instruction(letter, loads(data[end:]), age_s), at)
    except StructError as error:
        raise ValueError(str(error)) from None


def _instruction(letter: bytes, fields: Any, age_s: float) -> Instruction:
    match letter, fields:
        case b"K", [int(code), str(reason)]:
            return Kick(code, reason, age_s)
        case b"S", [str(room)]:
            return Subscribe(room, age_s)
        case b"U", [str(room)]:
            return Unsubscribe(room, age_s)
        case b"R", [(int() | float() | None) as expires_at]:
            return Refresh(expires_at, age_s)
    raise ValueError(f"an instruction of kind {letter!r}")


def pack_request(payload: bytes, number: int, timeout_s: float, stamp: Stamp) -> bytes:
    """Packs a request."""
    timeout_ms = min(max(0, int(timeout_s * 1000)), 2**32 - 1)
    return _REQUESTED.pack(b"Q", stamp.sender, stamp.number, number, timeout_ms) + payload


def pack_reply(number: int, reply: Reply) -> bytes:
    """Packs a reply."""
    return _REPLIED.pack(b"Y", number, not reply.problem) + (reply.problem.encode() or reply.answer)


def _unpack_request(data: bytes) -> Request:
    _, sender, stamped, number, timeout_ms = _REQUESTED.unpack_from(data)
    return Request(data[_REQUESTED.size :], number, timeout_ms / 1000, Stamp(sender, stamped))


def _unpack_reply(data: bytes) -> Replied:
    _, number, answered = _REPLIED.unpack_from(data)
    rest = data[_REPLIED.size :]
    return Replied(number, Reply(rest) if answered else Reply(b"", rest.decode() or "it did not say why"))


def pack_canary(number: int) -> bytes:
    """Packs a canary."""
    return _CANARY.pack(b"C", number)


def pack_roll_call() -> bytes:
    """Packs a roll call."""
    return b"W"


def unpack(data: bytes) -> Packed:
    """Gives back what was packed.

    Raises:
        ValueError: It is nothing of ours, or of a release that packs otherwise.
    """
    try:
        kind = data[:1]
        if kind == b"P":
            _, epoch, offset = _NUMBERED.unpack_from(data)
            return _unpack_message(data, _NUMBERED.size, Position(epoch.decode(), offset))
        if kind == b"A":
            return _unpack_announcement(data)
        if kind == b"I":
            return unpack_instruction(data[_GIVEN.size :], at=_GIVEN.unpack_from(data)[1])
        if kind == b"Q":
            return _unpack_request(data)
        if kind == b"Y":
            return _unpack_reply(data)
        if kind == b"R":
            _, epoch, offset = _NUMBERED.unpack_from(data)
            return Reset(Position(epoch.decode(), offset))
        if kind == b"C":
            return Canary(_CANARY.unpack_from(data)[1])
        if data == b"W":
            return RollCall()
        return _unpack_message(data, 0, None)
    except (StructError, IndexError, UnicodeDecodeError, OverflowError) as error:
        raise ValueError(str(error)) from None


def unpack_message(data: bytes, at: int, position: Position | None) -> Arrival:
    """Gives back a message that begins at some byte.

    Raises:
        ValueError: It is nothing of ours, or of a release that packs otherwise.
    """
    try:
        return _unpack_message(data, at, position)
    except (StructError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from None


def _unpack_message(data: bytes, at: int, position: Position | None) -> Arrival:
    mark, kind, sender, number, key_size, excluded_size = _MESSAGE.unpack_from(data, at)
    if mark != b"M":
        raise ValueError(f"a message that begins with {mark!r}")
    at += _MESSAGE.size
    if len(data) < at + max(0, key_size - 1) + excluded_size:
        raise ValueError("a message that ends early")
    key = None
    if key_size:
        key = data[at : at + key_size - 1].decode()
        at += key_size - 1
    exclude = _NOBODY
    if excluded_size:
        exclude = frozenset([name.decode() for name in data[at : at + excluded_size].split(_BETWEEN)])
        at += excluded_size
    payload = Payload(_KINDS[kind], data[at:])
    if payload.kind is not Kind.BINARY:
        str(payload.data, "utf-8")  # a browser would close the connection that gets it
    return Arrival(Envelope(payload, exclude, key, position), Stamp(sender, number))


assert EPOCH_CHARS == 8
