"""The names of the types of messages, for rooms whose messages are of several types: the names of events."""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from ..codec import Kind, Payload

_UNIONS: Final = (Union, UnionType)


def type_namer(sends: Any) -> Callable[[Payload], str] | None:
    """Returns a function that gives the name of a message's type, if a room sends several; None for one type.

    A message is of the type that Pydantic makes of its JSON. It has no name if it is of none of the types, or of one
    whose values do not tell it, such as a TypedDict.

    Args:
        sends: The type of the room's messages.
    """
    declared = get_args(sends)[0] if get_origin(sends) is Annotated else sends
    kinds = [each for each in get_args(declared) if each is not NoneType]
    if get_origin(declared) not in _UNIONS or len(kinds) < 2:
        return None
    validate = TypeAdapter[Any](sends).validator.validate_json
    last: tuple[Payload, str] | None = None

    def name_of(payload: Payload) -> str:
        nonlocal last
        if last is not None and last[0] is payload:  # a message is framed once more for each stream of several rooms
            return last[1]
        name = _name(validate, payload)
        last = payload, name
        return name

    return name_of


def _name(validate: Callable[[bytes], Any], payload: Payload) -> str:
    if payload.kind is not Kind.JSON:
        return ""
    try:
        value = validate(payload.data)
    except ValidationError:
        return ""
    kind = type(value)
    return "" if kind.__module__ == "builtins" else kind.__name__
