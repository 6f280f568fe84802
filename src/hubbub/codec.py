"""Messages to bytes and back: what an app may send, and how it travels.

``str`` is a text frame as it is, ``bytes`` a binary frame, and whatever JSON can say (dict, list, dataclass,
Pydantic model, datetime, UUID, ...) a text frame of JSON: the JSON that a FastAPI route annotated ``-> Any`` answers
with when it returns the value.

Theory of operation. orjson writes what it and Pydantic write alike: dict, list, str, numbers, datetime, enum, UUID.
Everything else is Pydantic's to write, at any depth: a model or a dataclass may have excluded fields, aliases and
serializers, which must hold here too. orjson takes Pydantic's JSON over as a fragment. Values that orjson refuses,
such as integers of more than 64 bits, are rare, and cost a second pass.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from ipaddress import IPv4Address, IPv6Address
from math import isfinite
from pathlib import PurePath
from types import GeneratorType
from typing import Any, ClassVar, Final, NamedTuple, Protocol, TypeAlias
from uuid import UUID

import orjson
from pydantic_core import SchemaSerializer, core_schema, to_jsonable_python

from .errors import InvalidArgument, shown


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


class _PydanticModel(Protocol):
    __pydantic_serializer__: ClassVar[SchemaSerializer]


class _TypedDict(Protocol):
    """A TypedDict, which is no ``dict`` to a type checker. Other mappings, such as a WebSocket, lack a method."""

    def copy(self) -> Any: ...
    def setdefault(self, key: Any, default: Any, /) -> Any: ...


_Binary: TypeAlias = bytes | bytearray | memoryview
_Time: TypeAlias = date | time | timedelta
_Scalar: TypeAlias = int | float | Decimal | UUID | Enum | PurePath | IPv4Address | IPv6Address
_Array: TypeAlias = Sequence[Any] | set[Any] | frozenset[Any] | deque[Any] | Iterator[Any]
_Object: TypeAlias = dict[Any, Any] | _TypedDict | _Dataclass | _PydanticModel

Message: TypeAlias = str | _Binary | _Object | _Array | _Scalar | _Time | None
"""Anything an app can send: str is a text frame, bytes a binary frame, and everything else a text frame of JSON.

JSON can be made of a dict, list, tuple, set, iterator, dataclass, Pydantic model, TypedDict, number, bool, None, date,
time, UUID or Enum. A `Connection`, a WebSocket or a coroutine is an error for type checkers, and raises
`InvalidArgument`.
"""

_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS
_DEEPEST_SENT = 254  # what orjson writes
MAX_DEPTH: Final = 200
"""Levels that JSON of a client may be nested: what it says can be sent on, in a message that nests it further."""

_MIN_INTEGER, _MAX_INTEGER = -(2**63), 2**64 - 1
_PYDANTIC = SchemaSerializer(core_schema.any_schema())
_DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER = b"0" * 19  # digits of the shortest integer of more than 64 bits
_RARE = re.compile(rb"\\u[dD][89a-fA-F]|[0-9]{300}")
_ESCAPE = re.compile(
    rb"\\u[dD][89abAB]XX\\u[dD][c-fC-F]XX|(\\u[dD][89a-fA-F]XX)|\\.".replace(b"XX", b"[0-9a-fA-F]{2}"), re.DOTALL
)


class Kind(IntEnum):
    """How the bytes of a message are to be read."""

    TEXT = 0
    JSON = 1
    BINARY = 2


class Payload(NamedTuple):
    """A message, encoded once."""

    kind: Kind
    data: bytes


def encode(message: object) -> Payload:
    """Encodes a message of the app: a `Message`, which is checked here.

    Raises:
        InvalidArgument: The message can't be encoded.
    """
    if isinstance(message, str):
        try:
            return Payload(Kind.TEXT, message.encode())
        except UnicodeEncodeError as error:
            raise InvalidArgument(
                "message", f"not valid Unicode ({error.reason})", "text without lone surrogates"
            ) from None
    if isinstance(message, (bytes, bytearray, memoryview)):
        return Payload(Kind.BINARY, bytes(message))
    return Payload(Kind.JSON, dumps(message))


def decode(payload: Payload) -> Any:
    """Gives back what `encode` was given: str, bytes, or the value that its JSON says."""
    if payload.kind is Kind.BINARY:
        return payload.data
    if payload.kind is Kind.TEXT:
        return payload.data.decode()
    return loads(payload.data)


def dumps(value: object) -> bytes:
    """JSON of a value, in UTF-8, as a FastAPI route annotated ``-> Any`` writes it.

    Models and dataclasses are written by Pydantic, by alias, without excluded fields. Times are ISO 8601: a naive
    datetime stays naive, an aware one has its offset, UTC is ``Z``, and a timedelta is a duration such as ``PT1.5S``.
    Unlike in FastAPI, NaN and infinity are ``null`` even where a model's configuration says ``NaN``, which is no JSON,
    and the key ``None`` is ``"null"``.

    Raises:
        InvalidArgument: JSON can't say the value.
    """
    try:
        return orjson.dumps(value, default=_by_pydantic, option=_OPTIONS)
    except TypeError:
        pass
    try:
        return orjson.dumps(_widened(value), default=_by_pydantic, option=_OPTIONS)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument(
            "message",
            f"can't be encoded as JSON: {error.__cause__ or error} (got {shown(value)})",
            "str, bytes, or what goes to JSON: dict, list, dataclass, Pydantic model, datetime, UUID",
        ) from None


def loads(data: str | bytes) -> Any:
    """The value that JSON says.

    Integers of any size are exact, up to the 4,300 digits that Python reads. A lone surrogate, such as half of an emoji
    that a page has cut apart, becomes U+FFFD, as wherever text becomes UTF-8. Of a key that comes twice the last value
    holds. NaN and infinity are not JSON, nor is a number with a fraction or an exponent that no float can hold.

    Raises:
        ValueError: It is not JSON.
    """
    if isinstance(data, str):
        data = data.encode()
    try:
        value = orjson.loads(data)
    except ValueError as error:
        if _RARE.search(data) is None:
            raise
        try:
            return _exactly(_ESCAPE.sub(_mended, data))
        except (ValueError, RecursionError):
            raise error from None
    # orjson makes an integer of more than 64 bits a float. There is none where no run of digits is long enough.
    if len(data) >= len(_LONG_NUMBER) and _LONG_NUMBER in data.translate(_DIGITS_TO_ZERO):
        return _exactly(data)
    return value


def loads_from_client(data: str | bytes) -> Any:
    """The value that a client's JSON says, as `loads` gives it. A value that is accepted can be sent on.

    Raises:
        ValueError: The message is not JSON, or nested over `MAX_DEPTH` levels; says so in a sentence.
    """
    try:
        data = data.encode() if isinstance(data, str) else data
        value = loads(data)
        if len(data) > 2 * MAX_DEPTH and data.count(b"[") + data.count(b"{") > MAX_DEPTH:
            nested = value
            for _ in range(_DEEPEST_SENT - MAX_DEPTH):
                nested = [nested]
            dumps(nested)
    except (InvalidArgument, RecursionError):
        raise ValueError(f"the message is nested over {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise ValueError(f"the message is not JSON: {error}") from None
    return value


def _exactly(data: bytes) -> Any:
    return json.loads(data.decode(), parse_float=_finite, parse_constant=_finite)


def _finite(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"{text[:20]} is not a number that JSON can say")
    return value


def _mended(escape: re.Match[bytes]) -> bytes:
    return escape[0] if escape[1] is None else rb"\ufffd"


def _by_pydantic(value: Any) -> Any:
    """Writes what orjson does not know, or is not to write."""
    if type(value) is GeneratorType:
        raise TypeError("a generator is left to the second pass: it can be read only once")
    data = _PYDANTIC.to_json(value, by_alias=True)
    if b"NaN" in data or b"Infinity" in data:
        try:
            orjson.loads(data)
        except ValueError:  # a model with ser_json_inf_nan="constants"
            return to_jsonable_python(value)
    return orjson.Fragment(data)


def _widened(value: Any) -> Any:
    """The value with those parts written out that orjson refuses: wide integers, times with an offset, rare keys."""
    while isinstance(value, Enum):
        value = value.value
    if isinstance(value, int) and not _MIN_INTEGER <= value <= _MAX_INTEGER:
        return orjson.Fragment(int.__repr__(value))
    if isinstance(value, dict):
        return {_key(key): _widened(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, GeneratorType)):
        return [_widened(each) for each in value]
    if isinstance(value, time):
        return _by_pydantic(value)
    return value


def _key(key: Any) -> Any:
    if key is None or isinstance(key, (str, float)):
        return key
    text: str = next(iter(to_jsonable_python({key: None})))
    return text
