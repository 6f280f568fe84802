"""Encodes the messages of an app to bytes, and decodes them.

``str`` becomes a text frame and ``bytes`` a binary frame, both unchanged. Everything else that JSON can represent
(dict, list, dataclass, Pydantic model, datetime, UUID, ...) becomes a text frame of JSON: the same JSON with which a
FastAPI route that is annotated ``-> Any`` answers when it returns the value.

Theory of operation. orjson encodes the types that it and Pydantic encode alike: dict, list, str, numbers, datetime,
enum, UUID. Pydantic encodes everything else, at any depth: a model or a dataclass may have excluded fields, aliases and
serializers, which must apply here too. orjson inserts Pydantic's JSON as a fragment. Values that orjson refuses, such
as integers of more than 64 bits, are rare, and cost a second pass.
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
    """A TypedDict, which type checkers do not accept as a ``dict``. A WebSocket, also a mapping, has no ``copy``."""

    def copy(self) -> Any: ...
    def setdefault(self, key: Any, default: Any, /) -> Any: ...


_Binary: TypeAlias = bytes | bytearray | memoryview
_Time: TypeAlias = date | time | timedelta
_Scalar: TypeAlias = int | float | Decimal | UUID | Enum | PurePath | IPv4Address | IPv6Address
_Array: TypeAlias = Sequence[Any] | set[Any] | frozenset[Any] | deque[Any] | Iterator[Any]
_Object: TypeAlias = dict[Any, Any] | _TypedDict | _Dataclass | _PydanticModel

Message: TypeAlias = str | _Binary | _Object | _Array | _Scalar | _Time | None
"""A message of an app. str becomes a text frame, bytes a binary frame, and everything else a text frame of JSON.

JSON can represent a dict, list, tuple, set, iterator, dataclass, Pydantic model, TypedDict, number, bool, None, date,
time, UUID or Enum. A `Connection`, a WebSocket or a coroutine is an error for type checkers, and raises
`InvalidArgument`.
"""

_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS
_MAX_SENT_DEPTH = 254  # the limit of orjson
MAX_DEPTH: Final = 200
"""The maximum nesting of a client's JSON. It is lower than the encoder's, so an app can send the value on, nested."""

_MIN_INTEGER, _MAX_INTEGER = -(2**63), 2**64 - 1
_PYDANTIC = SchemaSerializer(core_schema.any_schema())
_DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER = b"0" * 19  # digits of the shortest integer of more than 64 bits
_RARE = re.compile(rb"\\u[dD][89a-fA-F]|[0-9]{300}")
_ESCAPE = re.compile(
    rb"\\u[dD][89abAB]XX\\u[dD][c-fC-F]XX|(\\u[dD][89a-fA-F]XX)|\\.".replace(b"XX", b"[0-9a-fA-F]{2}"), re.DOTALL
)


class Kind(IntEnum):
    """The type of the bytes in a payload."""

    TEXT = 0
    JSON = 1
    BINARY = 2


class Payload(NamedTuple):
    """An encoded message."""

    kind: Kind
    data: bytes


def encode(message: object) -> Payload:
    """Encodes a message of the app. Accepts a `Message`, and checks that it is one.

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
    """Returns the message that `encode` was given: str, bytes, or the value of its JSON."""
    if payload.kind is Kind.BINARY:
        return payload.data
    if payload.kind is Kind.TEXT:
        return payload.data.decode()
    return loads(payload.data)


def dumps(value: object) -> bytes:
    """Encodes a value as JSON in UTF-8, as a FastAPI route that is annotated ``-> Any`` does.

    Pydantic encodes models and dataclasses, by alias and without excluded fields. Times are ISO 8601: a naive datetime
    stays naive, an aware one has its offset, UTC is ``Z``, and a timedelta is a duration such as ``PT1.5S``. Unlike in
    FastAPI, NaN and infinity are ``null`` even if a model's configuration says ``NaN``, which is not JSON, and the key
    ``None`` is ``"null"``.

    Raises:
        InvalidArgument: JSON can't represent the value.
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
            "str, bytes, or a value for JSON: dict, list, dataclass, Pydantic model, datetime, UUID",
        ) from None


def loads(data: str | bytes) -> Any:
    """Decodes JSON.

    Integers of any size are exact, up to the 4,300 digits that Python reads. A lone surrogate, such as half of an emoji
    that a page cut apart, becomes U+FFFD, as in any conversion to UTF-8. If a key is repeated, the last value wins. NaN
    and infinity are not JSON, and neither is a number with a fraction or an exponent that is too large for a float.

    Raises:
        ValueError: The data is not JSON.
    """
    if isinstance(data, str):
        data = data.encode()
    try:
        value = orjson.loads(data)
    except ValueError as error:
        if _RARE.search(data) is None:
            raise
        try:
            return _exactly(_ESCAPE.sub(_without_lone_surrogate, data))
        except (ValueError, RecursionError):
            raise error from None
    # orjson turns an integer of more than 64 bits into a float. There is none without a long run of digits.
    if len(data) >= len(_LONG_NUMBER) and _LONG_NUMBER in data.translate(_DIGITS_TO_ZERO):
        return _exactly(data)
    return value


def loads_from_client(data: str | bytes) -> Any:
    """Decodes a client's JSON as `loads` does. The app can send every value that is accepted here on.

    Raises:
        ValueError: The message is not JSON, or is nested over `MAX_DEPTH` levels. The text is a sentence for the
            developer of the client.
    """
    try:
        data = data.encode() if isinstance(data, str) else data
        value = loads(data)
        if len(data) > 2 * MAX_DEPTH and data.count(b"[") + data.count(b"{") > MAX_DEPTH:
            nested = value
            for _ in range(_MAX_SENT_DEPTH - MAX_DEPTH):
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
        raise ValueError(f"{text[:20]} is not a number that fits a float")
    return value


def _without_lone_surrogate(escape: re.Match[bytes]) -> bytes:
    return escape[0] if escape[1] is None else rb"\ufffd"


def _by_pydantic(value: Any) -> Any:
    """Encodes a value of a type that orjson does not know or must not encode."""
    if type(value) is GeneratorType:
        raise TypeError("a generator can be read only once: the second pass encodes it")
    data = _PYDANTIC.to_json(value, by_alias=True)
    if b"NaN" in data or b"Infinity" in data:
        try:
            orjson.loads(data)
        except ValueError:  # a model with ser_json_inf_nan="constants"
            return to_jsonable_python(value)
    return orjson.Fragment(data)


def _widened(value: Any) -> Any:
    """Returns the value with the parts encoded that orjson refuses: wide integers, times with an offset, rare keys."""
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
