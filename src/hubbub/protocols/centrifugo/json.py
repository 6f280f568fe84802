"""Commands and replies in JSON: one object a line, in a text frame.

Data of the app is embedded as it is. Data from a client is parsed and serialized again: compact, without line breaks,
which separate commands, and safe to embed.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any, ClassVar, Final, Literal, NamedTuple, TypeAlias

from orjson import Fragment

from ...codec import Kind, Payload, dumps, loads_from_client
from ...errors import shown
from ..frames import Opcode
from .encoding import MAX_COMMAND_ID, MAX_COMMANDS, BadRequest, Encoding, Post, command
from .fields import Field, Scalar, Shape
from .messages import FIELDS, NAMES, REQUESTS, ClientInfo, Command, Publication, Push, Reply, RPCResult

_JSON, _BINARY = Kind.JSON, Kind.BINARY
_ENCODING_TAG: Final = "encoding"
_BASE64: Final = "base64"

_Reader: TypeAlias = Callable[[Any], Any]
_Writer: TypeAlias = Callable[[Any], Any]


class JsonEncoding(Encoding):
    """JSON."""

    __slots__ = ()

    name: ClassVar[Literal["json", "protobuf"]] = "json"
    subprotocol: ClassVar[str] = "centrifuge-json"
    opcode: ClassVar[Opcode] = Opcode.TEXT
    media_type: ClassVar[str] = "application/json"
    empty: ClassVar[bytes] = b"{}"

    def decode(self, data: str | bytes) -> list[Command]:
        try:
            lines = (data.encode() if isinstance(data, str) else data).removesuffix(b"\n").split(b"\n", MAX_COMMANDS)
            if len(lines) > MAX_COMMANDS:
                raise BadRequest(f"over {MAX_COMMANDS} commands in one message")
            return [_command(line) for line in lines]
        except BadRequest:
            raise
        except ValueError as error:
            raise BadRequest(str(error)) from None

    def posted(self, body: bytes) -> Post:
        try:
            value = loads_from_client(body)
        except ValueError as error:
            raise BadRequest(str(error)) from None
        if type(value) is not dict:
            raise BadRequest(f"got {shown(value)}; accepted: an object with session, node and data")
        session, node, said = value.get("session"), value.get("node"), value.get("data")
        if not (isinstance(session, str) and isinstance(node, str) and isinstance(said, str)):
            raise BadRequest("session, node and data are strings")
        return Post(session, node, said)

    def written(self, reply: Reply | Push) -> bytes:
        if isinstance(reply, Push):
            push = {NAMES[type(reply.event)]: plain(reply.event)}
            return dumps({"push": {"channel": reply.channel, **push} if reply.channel else push})
        result = reply.result
        if type(result) is RPCResult and result.data is not None:  # the most frequent one, in half the time
            return b'{"id":%d,"rpc":{"data":%b}}' % (reply.id, _embedded(result.data))
        return dumps({"id": reply.id, NAMES[type(result)]: plain(result)})

    def joined(self, written: Sequence[bytes]) -> bytes:
        return b"\n".join(written)

    def publication(
        self,
        channel: str,
        payload: Payload,
        offset: int = 0,
        info: ClientInfo | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> bytes:
        text = _push_to(channel) + _embedded(payload)
        if info is not None:
            text += b',"info":' + dumps(plain(info))
        if offset:
            text += b',"offset":%d' % offset
        if payload.kind is _BINARY:
            tags = {**(tags or {}), _ENCODING_TAG: _BASE64}
        if tags:
            text += b',"tags":' + dumps(tags)
        return self._framed(text + b"}}}")


@lru_cache(maxsize=1024)
def _push_to(channel: str) -> bytes:
    """The beginning of a push of a publication."""
    return b'{"push":{"channel":%b,"pub":{"data":' % dumps(channel)


# Data of the app


def _embedded(payload: Payload) -> bytes:
    """The data as a value in JSON."""
    return _one_line(payload.data) if payload.kind is _JSON else _quoted(payload)


def _one_line(data: bytes) -> bytes:
    """JSON without line breaks, which separate replies. They are only between its tokens: strings escape them."""
    return data.replace(b"\n", b" ")


def _quoted(payload: Payload) -> bytes:
    """Text as a string in JSON, and bytes as base64."""
    return b'"%b"' % b64encode(payload.data) if payload.kind is _BINARY else dumps(payload.data.decode())


# Writing


class _Writing(NamedTuple):
    name: str
    value_of: Callable[[Any], Any]
    write: _Writer | None  # None for a value that goes as it is
    always: bool


def _writer(declared: Field) -> _Writer | None:
    one: _Writer
    if declared.type is Scalar.BYTES:
        one = _fragment
    elif isinstance(declared.type, Scalar):
        return None
    else:
        one = plain
    if declared.shape is Shape.MANY:
        return lambda values: [one(each) for each in values]
    if declared.shape is Shape.BY_NAME:
        return lambda values: {name: one(each) for name, each in values.items()}
    return one


def _fragment(payload: Payload) -> Fragment:
    return Fragment(_embedded(payload))


def plain(message: Any) -> dict[str, Any]:
    """A message as a dict for JSON, without absent fields."""
    values = {}
    for name, value_of, write, always in _WRITINGS[type(message)]:
        value = value_of(message)
        if value or always:
            values[name] = value if write is None else write(value)
    if type(message) is Publication and message.data is not None and message.data.kind is _BINARY:
        values["tags"] = {**message.tags, _ENCODING_TAG: _BASE64}
    return values


_WRITINGS: Final[Mapping[type[Any], Sequence[_Writing]]] = {
    message: [
        _Writing(each.name, attrgetter(each.name), _writer(each), message is ClientInfo and each.type is Scalar.STRING)
        for each in fields
    ]
    for message, fields in FIELDS.items()
}


# Reading


def _command(line: bytes) -> Command:
    value = loads_from_client(line)
    if type(value) is not dict:
        raise BadRequest(f"a command is an object (got {shown(value)})")
    number = value.get("id")
    if number is None:
        number = 0
    elif type(number) is not int or not 0 <= number <= MAX_COMMAND_ID:
        raise BadRequest(f"id: got {shown(number)}; accepted: a whole number up to {MAX_COMMAND_ID}")
    requests = []
    for name, said in value.items():
        choice = REQUESTS.get(name)
        if choice is not None and said is not None:
            requests.append(built(choice.type, said, name))
    return command(number, requests, len(line))


def built(message: type[Any], value: Any, where: str) -> Any:
    """Makes a message of an object. Unknown keys are ignored."""
    if type(value) is not dict:
        raise BadRequest(f"{where}: got {shown(value)}; accepted: an object")
    readers = _READERS[message]
    found = {}
    for name, said in value.items():
        if name in readers:
            read, nullable = readers[name]
            if said is not None or nullable:
                try:
                    found[name] = read(said)
                except _WrongType as error:
                    raise BadRequest(f"{where}.{name}: got {shown(said)}; accepted: {error}") from None
    return message(**found)


class _WrongType(Exception):
    """A value has the wrong type; the text names the accepted values."""


def _text(value: Any) -> str:
    if type(value) is not str:
        raise _WrongType("a string")
    return value


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise _WrongType("true or false")
    return value


def _data(value: Any) -> Payload:
    return Payload(_JSON, dumps(value))


def _number(low: int, high: int) -> _Reader:
    def read(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise _WrongType(f"a whole number from {low} to {high}")
        return value

    return read


_SCALAR_READERS: Final[Mapping[Scalar, _Reader]] = {
    Scalar.STRING: _text,
    Scalar.BOOL: _flag,
    Scalar.BYTES: _data,
    Scalar.INT32: _number(-(2**31), 2**31 - 1),
    Scalar.UINT32: _number(0, 2**32 - 1),
    Scalar.INT64: _number(-(2**63), 2**63 - 1),
    Scalar.UINT64: _number(0, 2**64 - 1),
}


def _all(read: _Reader, values: Any) -> tuple[Any, ...]:
    if type(values) is not list:
        raise _WrongType("a list")
    return tuple(map(read, values))


def _all_by_name(read: _Reader, values: Any) -> dict[str, Any]:
    if type(values) is not dict:
        raise _WrongType("an object")
    return {name: read(each) for name, each in values.items()}


def _reader(declared: Field) -> _Reader:
    kind = declared.type
    one = _SCALAR_READERS[kind] if isinstance(kind, Scalar) else lambda value: built(kind, value, declared.name)
    if declared.shape is Shape.MANY:
        return lambda values: _all(one, values)
    return one if declared.shape is Shape.ONE else lambda values: _all_by_name(one, values)


_READERS: Final[Mapping[type[Any], Mapping[str, tuple[_Reader, bool]]]] = {
    message: {each.name: (_reader(each), each.type is Scalar.BYTES) for each in fields}
    for message, fields in FIELDS.items()
}
"""The reader of each field, by its name, and whether null is a value for it."""
