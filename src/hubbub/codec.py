"""Messages to bytes and back: what an app may send, and how it travels.

``str`` is a text frame as it is, ``bytes`` a binary frame, and whatever JSON can say (dict, list, dataclass,
Pydantic model, datetime, UUID, ...) a text frame of JSON. Times are ISO 8601: a naive datetime stays naive, an aware one
has its offset. A model is encoded as Pydantic encodes it.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from enum import IntEnum
from typing import Any, NamedTuple, TypeAlias

import orjson
from pydantic_core import to_jsonable_python

from .errors import InvalidArgument, shown
from .frames import Opcode, frame

Message: TypeAlias = object
"""What an app sends: str, bytes, or what goes to JSON."""

_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS
_WIDE_OPTIONS = _OPTIONS | orjson.OPT_PASSTHROUGH_DATACLASS
_MIN_INTEGER, _MAX_INTEGER = -(2**63), 2**64 - 1


class Kind(IntEnum):
    """How the bytes of a message are to be read."""

    TEXT = 0
    JSON = 1
    BINARY = 2


class Payload(NamedTuple):
    """A message, encoded once."""

    kind: Kind
    data: bytes

    def frame(self) -> bytes:
        """The message as it goes to a client when it has no position."""
        return frame(Opcode.BINARY if self.kind is Kind.BINARY else Opcode.TEXT, self.data)


def encode(message: Message) -> Payload:
    """Encodes a message of the app.

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
    return orjson.loads(payload.data)


def dumps(value: object) -> bytes:
    """JSON of a value, in UTF-8.

    orjson does the work; what it does not know goes through Pydantic, which FastAPI's users have taught their types.

    Raises:
        InvalidArgument: JSON can't say the value.
    """
    try:
        return orjson.dumps(value, default=to_jsonable_python, option=_OPTIONS)
    except TypeError as error:
        problem = str(error.__cause__ or error)
    try:
        return orjson.dumps(_widened(value), default=_widened_unknown, option=_WIDE_OPTIONS)
    except (TypeError, ValueError, RecursionError):
        raise InvalidArgument(
            "message",
            f"can't be encoded as JSON: {problem} (got {shown(value)})",
            "str, bytes, or what goes to JSON: dict, list, dataclass, Pydantic model, datetime, UUID",
        ) from None


def _widened(value: Any) -> Any:
    """The value with its integers of more than 64 bits, which orjson refuses, written out."""
    if isinstance(value, int) and not _MIN_INTEGER <= value <= _MAX_INTEGER:
        return orjson.Fragment(str(value))
    if isinstance(value, dict):
        return {key: _widened(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_widened(each) for each in value]
    return value


def _widened_unknown(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _widened(getattr(value, field.name)) for field in fields(value)}
    return _widened(to_jsonable_python(value))
