"""Converts the return values of functions into answers.

A return annotation is read once, when the function is declared: it gives a converter. Replies are validated and
serialized by the annotation as FastAPI does it with the response of a route: a function that is annotated ``-> Said``
and returns an object of its database answers with the fields of ``Said`` and no others.
"""

from __future__ import annotations

import typing
from collections import abc
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime
from inspect import Signature
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar, get_args, get_origin

from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError, ValidationError

from ..arguments import client_info, room_names, timestamp
from ..codec import Kind, Message, Payload, dumps, encode
from ..errors import InvalidArgument, shown
from ..names import RoomName
from ..presence import Info
from .refusals import MessageInvalid, ReplyInvalid

T = TypeVar("T")

Convert: TypeAlias = Callable[[object], T]
"""Turns what a function returned into its answer. Raises `ReplyInvalid`."""

Returns: TypeAlias = Callable[[Any, str], Convert[T]]
"""The return types that functions of one kind may have: returns the converter for a return annotation.

The second argument names the function in errors. Raises `InvalidArgument` for an annotation that makes no sense.
"""

_STREAMS: Final = (abc.Iterator, abc.Generator, abc.AsyncIterable, abc.AsyncIterator, abc.AsyncGenerator)
_BINARY: Final = (bytes, bytearray, memoryview)
_JSON: Final = Kind.JSON  # an Enum's attribute costs as much as the rest of a Payload
_TEXTS: Final = (str, *_BINARY)
_OPEN: Final = (Any, Signature.empty, typing.NoReturn, typing.Never)


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """Data and rooms for a new client. A function under ``@live.connect`` returns it.

    Args:
        data: A message for the client, which its SDK hands to the app with the ``connected`` event.
        info: The app's data about the user, as in `ConnectionManager.connect`: a mapping, of at most 4,096 bytes of
            JSON. Presence shows it, and so do joins, leaves, and what the client publishes.
        rooms: Rooms that the server joins the client to. The client need not subscribe to them, and no rule is asked.

    Attributes:
        payload: The data as it is sent, once the function has returned.

    Raises:
        InvalidName: A room's name is empty, too long, or starts with ``$``.
        InvalidArgument: ``rooms`` is not an iterable of names, or ``info`` is not a mapping that JSON can represent,
            or is too large.
    """

    data: Message = None
    info: Info = None
    rooms: Iterable[RoomName] = ()
    payload: Payload | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "info", client_info(self.info))
        object.__setattr__(self, "rooms", tuple(room_names(None, self.rooms, takes_room=False)))

    @property
    def names(self) -> list[str]:
        """The rooms by name, each once."""
        return room_names(None, self.rooms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A yes to a subscription, with more than ``True`` says. A function under ``@live.room`` returns it.

    Args:
        data: A message for the client, which its SDK hands to the app with the ``subscribed`` event.
        info: The app's data about this connection in this room, such as a role: a mapping, of at most 4,096 bytes of
            JSON. The presence of the room shows it, and so do joins, leaves, and what the client publishes there.
        expires_at: When the permission ends: a datetime (naive is UTC) or seconds since the epoch. The subscription
            then ends; an SDK subscribes again by itself, and the function is asked again.

    Attributes:
        payload: The data as it is sent, once the function has returned.

    Raises:
        InvalidArgument: ``expires_at`` is not a time, or ``info`` is not a mapping that JSON can represent, or is too
            large.
    """

    data: Message = None
    info: Info = None
    expires_at: datetime | float | None = None
    payload: Payload | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "info", client_info(self.info))
        timestamp(self.expires_at)

    @property
    def expires_at_s(self) -> float | None:
        """When the permission ends, in seconds since the epoch."""
        return timestamp(self.expires_at)


A = TypeVar("A", Welcome, Grant)


def reply(annotation: Any, function: str) -> Convert[Payload | None]:
    """Gives the converter to a message or None: the answer to a request, or what is published instead."""
    if any(annotation is each for each in _OPEN):
        return lambda value: _encoded(value, function)
    if annotation is None:
        annotation = NoneType
    if (get_origin(annotation) or annotation) in _STREAMS:
        raise InvalidArgument(
            function, f"returns {shown(annotation)}", "a reply is one message: a list of them, for example"
        )
    try:
        adapter = TypeAdapter[Any](annotation)
        validate, to_json = adapter.validator.validate_python, adapter.serializer.to_json
    except Exception as error:
        raise InvalidArgument(
            function,
            f"Pydantic can't serialize its return annotation {shown(annotation)} ({shown(str(error), limit=200)})",
            "a model, a dataclass, a TypedDict, str, bytes, a list of these, None, or no annotation",
        ) from None

    def convert(value: object) -> Payload | None:
        try:
            value = validate(value, from_attributes=True)
            if value is None:
                return None
            if isinstance(value, _TEXTS):
                return encode(value if isinstance(value, _BINARY) else adapter.dump_python(value, mode="json"))
            data = to_json(value, by_alias=True)
            if b"NaN" in data or b"Infinity" in data:  # perhaps of a model with ser_json_inf_nan="constants": no JSON
                data = dumps(adapter.dump_python(value, mode="json", by_alias=True))
            return Payload(_JSON, data)
        except ValidationError as error:
            problems = str(MessageInvalid(error.errors(include_url=False, include_input=False)))
        except (InvalidArgument, PydanticSerializationError) as error:
            problems = str(error)
        raise ReplyInvalid(f"{function} returned what its return annotation does not allow: {problems}")

    return convert


def _encoded(value: object, function: str) -> Payload | None:
    if value is None:
        return None
    try:
        return encode(value)
    except InvalidArgument as error:
        raise ReplyInvalid(f"{function} returned what can't be sent: {error}") from None


def _with_payload(value: A, function: str) -> A:
    """Returns a copy, because the app may return the same one again, with other data in it."""
    if value.data is None:
        return value
    answer = copy(value)
    object.__setattr__(answer, "payload", _encoded(value.data, function))
    return answer


def _one_of(*kinds: type, accepted: str) -> Callable[[Any, str], None]:
    """A check of a return annotation that may be any of some types, or a union of them."""

    def check(annotation: Any, function: str) -> None:
        for each in members(annotation):
            if not any(each is kind for kind in (*_OPEN, *kinds)):
                raise InvalidArgument(function, f"its return annotation is {shown(annotation)}", accepted)

    return check


def members(annotation: Any) -> Iterable[Any]:
    """The types of which a union is made, and the types of the values of a literal."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from members(get_args(annotation)[0])
    elif origin in (typing.Union, UnionType):
        for each in get_args(annotation):
            yield from members(each)
    elif origin is Literal:
        yield from map(type, get_args(annotation))
    else:
        yield NoneType if annotation is None else annotation


_GRANTS: Final = "True or None for yes, False for no, or a Grant(...)"
_WELCOMES: Final = "nothing, or a Welcome(...)"
_check_grant = _one_of(bool, NoneType, Grant, accepted=_GRANTS)
_check_welcome = _one_of(NoneType, Welcome, accepted=_WELCOMES)
_check_nothing = _one_of(NoneType, accepted="nothing")
_YES: Final = Grant()
_HELLO: Final = Welcome()


def grant(annotation: Any, function: str) -> Convert[Grant | None]:
    """Gives the converter to a `Grant`, or None where the function refuses."""
    _check_grant(annotation, function)

    def convert(value: object) -> Grant | None:
        if value is True or value is None:
            return _YES
        if value is False:
            return None
        if isinstance(value, Grant):
            return _with_payload(value, function)
        raise ReplyInvalid(f"{function} returned {shown(value)}; accepted: {_GRANTS}")

    return convert


def welcome(annotation: Any, function: str) -> Convert[Welcome]:
    """Gives the converter to a `Welcome`."""
    _check_welcome(annotation, function)

    def convert(value: object) -> Welcome:
        if value is None:
            return _HELLO
        if isinstance(value, Welcome):
            return _with_payload(value, function)
        raise ReplyInvalid(f"{function} returned {shown(value)}; accepted: {_WELCOMES}")

    return convert


def nothing(annotation: Any, function: str) -> Convert[None]:
    """Gives the converter for functions that answer nothing."""
    _check_nothing(annotation, function)

    def convert(value: object) -> None:
        if value is not None:
            raise ReplyInvalid(f"{function} returned {shown(value)}; accepted: nothing")

    return convert


def anything(annotation: Any, function: str) -> Convert[Any]:
    """Gives the converter that leaves a value as it is."""
    return lambda value: value
