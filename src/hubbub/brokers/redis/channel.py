"""The binary format of messages at Redis, and the names of keys and channels. Used by workers and publishers. Pure.

The publisher packs a message once; the workers that receive it frame it for their clients::

    message   "M"  kind (1)  sender (8)  number (8)  key length + 1, 0 for none (2)  excluded length (4)
              key  excluded names, separated by 0xFF, which never occurs in UTF-8  payload
    of client "F"  as a message; before the payload: author length (4)  author as JSON
    numbered  "P"  epoch (8, ASCII)  offset (8), then the message; the publish script prepends this
    announce  "A"  kind (1)  sender (8)  number (8)  time in µs (8)  user length (2)  user; the script appends
              count of users (4)  connection id length (2)  connection id  info as JSON, and, if there is an info of
              the room, 0xFF and this info as JSON
    instruct  "I"  time (8)  id (8)  kind (1)  channel length (2)  channel  fields as JSON
              the script inserts the letter and the time
    request   "Q"  sender (8)  number (8)  id (8)  how long the sender waits, in ms (4)  payload
    reply     "Y"  id of the request (8)  1 for an answer, 0 for a problem (1)  answer, or problem as text
    reset     "R"  epoch (8)  offset (8): the room has a new epoch from here on
    canary    "C"  number (8)
    roll call "W"

The first letter identifies the format of the rest. A release that changes a format uses a new letter. A release that
does not know a letter skips the message (`foreign`). The same rule applies to the field names of a log's entries
(``m``, ``t``).

Numbers are big endian. ``kind`` is the kind of payload in `hubbub.codec`. ``sender`` is random, and ``number`` counts
the messages of that sender. A message that is published again, because its answer was lost, keeps its number, so that
receivers recognize the repetition.
"""

from __future__ import annotations

import secrets
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from struct import Struct
from struct import error as StructError
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from ...codec import Kind, Payload, dumps, loads
from ...envelope import Announcement, Author, Envelope, Instruction, Kick, Refresh, Reply, Reset, Subscribe, Unsubscribe
from ...positions import EPOCH_CHARS, Position

SENDER_BYTES: Final = 8

_MESSAGE: Final = Struct(">cB8sQHI")
_NUMBERED: Final = Struct(">c8sQ")
_ANNOUNCED: Final = Struct(">cc8sQQH")
_COUNTED: Final = Struct(">IH")
_AUTHORED: Final = Struct(">I")
_INSTRUCTED: Final = Struct(">8scH")
_GIVEN: Final = Struct(">cQ")
_REQUESTED: Final = Struct(">c8sQQI")
_REPLIED: Final = Struct(">cQ?")
_CANARY: Final = Struct(">cQ")
_KINDS: Final = tuple(Kind)
_NO_NAMES: Final[frozenset[str]] = frozenset()
_BETWEEN: Final = b"\xff"
_JOINED: Final = b"j"
_LEFT: Final = b"l"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_LETTERS: Final[dict[type[Instruction], bytes]] = {Kick: b"K", Subscribe: b"S", Unsubscribe: b"U", Refresh: b"R"}


class Stamp(NamedTuple):
    """The sender of a message, and its sequence number at that sender."""

    sender: bytes
    number: int

    def packed(self) -> bytes:
        """Returns the stamp in the binary format of messages."""
        return self.sender + self.number.to_bytes(8, "big")


class Sender:
    """Stamps the messages of one process with sequence numbers, in the order in which it publishes them.

    Messages published by scripts have their own ids and numbers: one for those with positions, and one for those
    without, which `once.lua` publishes. A server that has lost the scripts, or accepts no
    writes, refuses these messages but publishes the others, so the refused ones arrive later, out of order.

    Attributes:
        id: The id for plain messages.
        scripted: The id for messages that scripts publish.
    """

    def __init__(self) -> None:
        self.id: bytes = secrets.token_bytes(SENDER_BYTES)
        self.scripted: bytes = secrets.token_bytes(SENDER_BYTES)
        self._once = secrets.token_bytes(SENDER_BYTES)
        self._numbers = [0, 0]
        self._number_once = 0

    def stamp(self, *, scripted: bool) -> Stamp:
        """Returns the next stamp, for a message that a script publishes or for a plain one."""
        self._numbers[scripted] += 1
        return Stamp(self.scripted if scripted else self.id, self._numbers[scripted])

    def stamp_once(self) -> Stamp:
        """Returns the next stamp, for a message without a position that a script publishes once."""
        self._number_once += 1
        return Stamp(self._once, self._number_once)


class Canary(NamedTuple):
    """A worker's message to itself."""

    number: int


class Arrival(NamedTuple):
    """A message that arrived."""

    envelope: Envelope
    stamp: Stamp


class Announced(NamedTuple):
    """An announcement that arrived."""

    announcement: Announcement
    stamp: Stamp


class Instructed(NamedTuple):
    """An instruction to all workers.

    Attributes:
        channel: The channel of the user that it affects.
        instruction: The instruction.
        at: When Redis published it, in ms by the clock of Redis.
    """

    channel: str
    instruction: Instruction
    at: int = 0


class Request(NamedTuple):
    """A request to this worker.

    Attributes:
        payload: The content of the request.
        number: The id of the request at the requesting worker.
        timeout_s: How long the requesting worker waits, in seconds.
        stamp: Identifies the requesting worker, and repetitions.
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
    """Tells all workers to check whether Redis still knows them."""


Packed: TypeAlias = Arrival | Announced | Instructed | Reset | Request | Replied | Canary | RollCall


class Keys:
    """The names of keys and channels of one app.

    The keys of a room carry its name as their hash tag, so that a cluster could keep them on one node. A channel also
    carries the number of the database, because the databases of a Redis server share their channels.

    Attributes:
        all_workers: The channel of all workers.
        workers: A hash of the workers: name to the number of the worker's last statement about its connections.
        dead: A set: the dead workers whose connections are being removed.
        rooms: The options of the rooms, as JSON.
        instructions: A sorted set: the newest instructions to all workers, by the time when they were published.
        forgotten: The time of the newest instruction that is no longer kept.
        silent: A sorted set: rooms with a position and without messages, by their last use (``head.lua``).
        room_prefix: The beginning of every room's keys; the room's name and ``}`` follow.
        channel_prefix: The beginning of every room's channel; the room's name and ``}`` follow.

    Args:
        prefix: The beginning of every key and channel, so that several apps can share a server.
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
        """Returns the channel of a room."""
        return f"{self.channel_prefix}{room}}}"

    def own_channel(self, worker: str) -> str:
        """Returns the channel to which only one worker subscribes."""
        return f"{self._channels}worker:{worker}"

    def room_of(self, channel: bytes) -> str | None:
        """Returns the room of a channel; None for the channel of a worker, or of all workers."""
        name = channel.decode()
        return name[len(self.channel_prefix) : -1] if name.startswith(self.channel_prefix) else None

    def head(self, room: str) -> str:
        """Returns the key of a hash: the room's epoch ``e``, offset ``o``, server run ``r`` and former epochs ``f``."""
        return f"{self.room_prefix}{room}}}:head"

    def log(self, room: str) -> str:
        """Returns the key of a stream: the kept messages, with id ``<offset>-0``, message ``m``, time ``t`` in ms."""
        return f"{self.room_prefix}{room}}}:log"

    def once(self, room: str, key: str) -> str:
        """Returns the key of a message that is published once: its position, or ``-`` if it has none."""
        return f"{self.room_prefix}{room}}}:once:{sha256(key.encode()).hexdigest()}"

    def sender(self, sender: bytes) -> str:
        """Returns the key of a sender: its line, the last number accepted in the line, and the last one published."""
        return f"{self._prefix}:sender:{sender.hex()}"

    def here(self, room: str) -> str:
        """Returns the key of a hash of the present users: user to an entry in JSON, see ``enter.lua``."""
        return f"{self.room_prefix}{room}}}:here"

    def anonymous(self, room: str) -> str:
        """Returns the key of a hash of the anonymous connections: connection id to an entry, as if it were a user."""
        return f"{self.room_prefix}{room}}}:anonymous"

    def lease(self, worker: str) -> str:
        """Returns the key of a worker's lease."""
        return f"{self._prefix}:worker:{worker}"

    def worker_rooms(self, worker: str) -> str:
        """Returns the key of a set: the rooms in which a worker has connections."""
        return f"{self._prefix}:worker:{worker}:rooms"

    def claimed(self, worker: str) -> str:
        """Returns the key that exists after a worker was declared dead."""
        return f"{self._prefix}:worker:{worker}:claimed"

    def cleaner(self, worker: str) -> str:
        """Returns the key that exists while another worker removes the connections of a dead worker."""
        return f"{self._prefix}:worker:{worker}:cleaner"


def pack(envelope: Envelope, stamp: Stamp) -> bytes:
    """Packs a message."""
    key = b"" if envelope.key is None else envelope.key.encode()
    excluded = _BETWEEN.join([name.encode() for name in envelope.exclude])
    key_size = 0 if envelope.key is None else len(key) + 1
    kind, data = envelope.payload
    mark, author = b"M", b""
    if envelope.author is not None:
        mark, author = b"F", _packed_author(envelope.author)
    header = _MESSAGE.pack(mark, kind, stamp.sender, stamp.number, key_size, len(excluded))
    return b"".join((header, key, excluded, author, data))


def _packed_author(author: Author) -> bytes:
    data = dumps([author.user_id, author.client_id, author.info.decode(), author.room_info.decode()])
    return _AUTHORED.pack(len(data)) + data


def _author(data: bytes) -> Author:
    match loads(data):
        case [(str() | None) as user_id, str(client_id), str(info), str(room_info)]:
            loads(info), loads(room_info)  # checks them, because clients receive them
            return Author(user_id, client_id, info.encode(), room_info.encode())
    raise ValueError("an author of another form")


def pack_announcement(kind: Literal["joined", "left"], user: str | None, at: datetime, stamp: Stamp) -> bytes:
    """Packs the beginning of an announcement. The script that publishes it appends the rest, known only there."""
    name = (user or "").encode()  # no user has an empty name
    letter = _JOINED if kind == "joined" else _LEFT
    return _ANNOUNCED.pack(b"A", letter, stamp.sender, stamp.number, (at - _EPOCH) // _MICROSECOND, len(name)) + name


def _unpack_announcement(data: bytes) -> Announced:
    _, letter, sender, number, at, size = _ANNOUNCED.unpack_from(data)
    if letter not in (_JOINED, _LEFT):
        raise ValueError(f"an announcement of kind {letter!r}")
    end = _ANNOUNCED.size + size
    count, id_size = _COUNTED.unpack_from(data, end)
    begin, info_at = end + _COUNTED.size, end + _COUNTED.size + id_size
    info, _, room_info = data[info_at:].partition(_BETWEEN)
    loads(info), loads(room_info or b"null")  # checks them, because clients receive them
    announcement = Announcement(
        "joined" if letter == _JOINED else "left",
        data[_ANNOUNCED.size : end].decode() or None,
        data[begin:info_at].decode(),
        info,
        count,
        _EPOCH + at * _MICROSECOND,
        room_info or b"null",
    )
    return Announced(announcement, Stamp(sender, number))


def pack_instruction(channel: str, instruction: Instruction) -> bytes:
    """Packs an instruction with a random id, which identifies it if it is sent again."""
    name = channel.encode()
    # Without its age, which the reader measures.
    values = [getattr(instruction, each.name) for each in fields(instruction) if each.name != "age_s"]
    header = _INSTRUCTED.pack(secrets.token_bytes(8), _LETTERS[type(instruction)], len(name))
    return b"".join((header, name, dumps(values)))


def unpack_instruction(data: bytes, *, at: int = 0, age_s: float = 0.0) -> Instructed:
    """Unpacks an instruction.

    Args:
        data: The packed instruction.
        at: When Redis published it, in ms by the clock of Redis.
        age_s: Its age in seconds, if it was read from the kept instructions.

    Raises:
        ValueError: The data is not an instruction, or another release packed it.
    """
    try:
        _, letter, size = _INSTRUCTED.unpack_from(data)
        end = _INSTRUCTED.size + size
        return Instructed(data[_INSTRUCTED.size : end].decode(), _instruction(letter, loads(data[end:]), age_s), at)
    except StructError as error:
        raise ValueError(str(error)) from None


def _instruction(letter: bytes, values: Any, age_s: float) -> Instruction:
    match letter, values:
        case b"K", [int(code), str(reason), str(only), list(spared)]:
            return Kick(code, reason, age_s, only, tuple(map(str, spared)))
        case b"S", [str(room), str(only), (dict() | None) as info]:
            return Subscribe(room, age_s, only, info)
        case b"U", [str(room), str(only)]:
            return Unsubscribe(room, age_s, only)
        case b"R", [(int() | float() | None) as expires_at, str(only)]:
            return Refresh(expires_at, age_s, only)
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
    return Replied(number, Reply(rest) if answered else Reply(b"", rest.decode() or "it gave no reason"))


def pack_canary(number: int) -> bytes:
    """Packs a canary."""
    return _CANARY.pack(b"C", number)


def pack_roll_call() -> bytes:
    """Packs a roll call."""
    return b"W"


def unpack(data: bytes) -> Packed:
    """Unpacks anything that arrives on a channel.

    Raises:
        ValueError: The data is not hubbub's, or another release packed it in another format.
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
    """Unpacks a message that begins at byte ``at``.

    Raises:
        ValueError: The data is not hubbub's, or another release packed it in another format.
    """
    try:
        return _unpack_message(data, at, position)
    except (StructError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from None


def _unpack_message(data: bytes, at: int, position: Position | None) -> Arrival:
    mark, kind, sender, number, key_size, excluded_size = _MESSAGE.unpack_from(data, at)
    if mark != b"M" and mark != b"F":
        raise ValueError(f"a message that begins with {mark!r}")
    at += _MESSAGE.size
    if len(data) < at + max(0, key_size - 1) + excluded_size:
        raise ValueError("a message that ends early")
    key = None
    if key_size:
        key = data[at : at + key_size - 1].decode()
        at += key_size - 1
    exclude = _NO_NAMES
    if excluded_size:
        exclude = frozenset([name.decode() for name in data[at : at + excluded_size].split(_BETWEEN)])
        at += excluded_size
    author = None
    if mark == b"F":
        begin = at + _AUTHORED.size
        at = begin + _AUTHORED.unpack_from(data, at)[0]
        if len(data) < at:
            raise ValueError("a message that ends early")
        author = _author(data[begin:at])
    payload = Payload(_KINDS[kind], data[at:])
    if payload.kind is not Kind.BINARY:
        str(payload.data, "utf-8")  # raises for invalid UTF-8, on which a browser would close its connection
    return Arrival(Envelope(payload, exclude, key, position, author), Stamp(sender, number))


assert EPOCH_CHARS == 8
