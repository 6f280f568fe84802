"""Reads how a message declares its fields: dataclass fields whose type is ``Annotated[type, number]``.

The type is ``str``, ``bool``, `Payload`, another message, a ``tuple`` of one of these or a ``Mapping`` from ``str`` to
one of these; or ``int``, with its width behind the number.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Final, NamedTuple, get_args, get_origin, get_type_hints

from ...codec import Payload


class Scalar(Enum):
    """The types of values other than messages; the names are those of Protobuf."""

    STRING = "string"
    BOOL = "bool"
    BYTES = "bytes"
    INT32 = "int32"
    UINT32 = "uint32"
    INT64 = "int64"
    UINT64 = "uint64"


class Shape(Enum):
    """Whether a field has one value or several."""

    ONE = "one"
    MANY = "tuple"
    BY_NAME = "mapping with names as keys"


class Field(NamedTuple):
    """The declaration of a field.

    Attributes:
        name: Its name, the same in both encodings.
        number: Its number in Protobuf.
        type: The type of a value: a scalar, or another message.
        shape: Whether it has one value or several.
    """

    name: str
    number: int
    type: Scalar | type[Any]
    shape: Shape


_SCALARS: Final[dict[type[Any], Scalar]] = {str: Scalar.STRING, bool: Scalar.BOOL, Payload: Scalar.BYTES}


def fields_of(message: type[Any]) -> tuple[Field, ...]:
    """The fields of a type of messages, as it declares them."""
    found = []
    for name, annotation in get_type_hints(message, include_extras=True).items():
        declared, number, *scalar = get_args(annotation)
        shape, value = Shape.ONE, declared
        origin = get_origin(declared)
        if origin is UnionType:
            value = next(each for each in get_args(declared) if each is not NoneType)
        elif origin is tuple:
            shape, value = Shape.MANY, get_args(declared)[0]
        elif origin is not None:
            shape, value = Shape.BY_NAME, get_args(declared)[1]
        found.append(Field(name, number, scalar[0] if scalar else _SCALARS.get(value, value), shape))
    assert all(isinstance(each.type, Scalar) or is_dataclass(each.type) for each in found)
    return tuple(found)


def with_parts(types: Iterable[type[Any]]) -> dict[type[Any], tuple[Field, ...]]:
    """The fields of these types of messages, and of all the messages that they are made of."""
    found: dict[type[Any], tuple[Field, ...]] = {}
    waiting = list(types)
    while waiting:
        message = waiting.pop()
        if message not in found:
            found[message] = fields_of(message)
            waiting += [each.type for each in found[message] if not isinstance(each.type, Scalar)]
    return found
