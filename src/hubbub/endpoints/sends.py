"""Checks the messages of rooms against the types that rules declare with ``sends=``, under development and in tests.

Theory of operation. A manager that checks has a `Sends`; one that does not check has none, so production pays nothing.
Rules are looked up when a message is published, because modules declare them after the manager exists.

A message is accepted if it is an instance of the declared type, or plain data with the JSON of one. Pydantic validates
the message itself strictly, or else its JSON leniently. The JSON of the value that results must then have the same keys
and the same kinds of values as what is sent. The values are not compared: a datetime may be written in several ways.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import is_dataclass
from functools import partial
from types import UnionType
from typing import Annotated, Any, Final, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

from ..codec import Kind, Payload, dumps, loads
from ..errors import InvalidArgument, shown
from .functions import Function
from .refusals import MessageInvalid
from .routing import MessageRouter, RoomRule, Rules

_WRONG: Final = object()


class Sends:
    """Checks what is published into rooms, for all endpoints of a manager.

    A room may have a rule on several endpoints. A message has to be right for each of them, because each tells its
    clients what they receive. Of the rules of one endpoint, the most specific one applies.

    Args:
        endpoints: The endpoints. More may be appended later.
    """

    def __init__(self, endpoints: Sequence[MessageRouter]) -> None:
        self._endpoints = endpoints
        self._rules: dict[MessageRouter, tuple[int, Rules[RoomRule]]] = {}
        self._types: dict[int, tuple[Any, _Type]] = {}

    def check(self, room: str, message: object, payload: Payload) -> None:
        """Checks a message, and its encoded form.

        Raises:
            InvalidArgument: A rule for the room declares another type.
        """
        for rule in self._rules_for(room):
            declared = self._type(rule.sends)
            problem = declared.problem(message, payload)
            if problem is not None:
                raise InvalidArgument(
                    "message",
                    f"got {shown(message)} for the room {shown(room)}{problem and f' ({problem})'}",
                    f"{declared}, which {rule.function.name} declares with sends= ({_place(rule.function.function)}); "
                    "ConnectionManager(check_sends=False) turns this check off",
                )

    def checked(self, room: str, function: Function[Payload | None]) -> Function[Payload | None]:
        """Returns a function under ``@live.publish`` that also checks what it publishes into a room."""

        def check(returned: object, payload: Payload | None) -> None:
            if payload is not None:
                self.check(room, self._type(function.returned).made_of(returned), payload)

        return function.watched(check)

    def _rules_for(self, room: str) -> Iterator[RoomRule]:
        for endpoint in self._endpoints:
            count, rules = self._rules.get(endpoint, (-1, None))
            if rules is None or count != len(endpoint._rooms):  # more were declared
                rules = Rules(endpoint._rooms.values())
                self._rules[endpoint] = (len(endpoint._rooms), rules)
            match = rules.match(room)
            if match is not None and match.rule.sends is not None:
                yield match.rule

    def _type(self, declared: Any) -> _Type:
        kept, made = self._types.get(id(declared), (None, None))
        if made is None or kept is not declared:
            made = _Type(Any if declared is inspect.Signature.empty else declared)
            self._types[id(declared)] = (declared, made)
        return made


class _Type:
    """A type of messages: one, or a union of several."""

    def __init__(self, declared: Any) -> None:
        self._whole = TypeAdapter[Any](declared)
        members = list(_members(declared))
        self._text = " | ".join(map(_name, members))
        self._members = [TypeAdapter[Any](member) for member in members] if len(members) > 1 else [self._whole]

    def __str__(self) -> str:
        return self._text

    def made_of(self, returned: object) -> object:
        """Returns what a function with this return annotation sends for what it returned, as replies are made."""
        return self._whole.validator.validate_python(returned, from_attributes=True)

    def problem(self, message: object, payload: Payload) -> str | None:
        """Returns None for a message of this type; else the reason why it is none, which may be empty."""
        if isinstance(message, (bytearray, memoryview)):
            message = bytes(message)
        problems = []
        for member in self._members:
            problem = _problem(member, message, payload)
            if problem is None:
                return None
            problems.append(problem)
        return problems[0] if len(problems) == 1 else ""


def _problem(member: TypeAdapter[Any], message: object, payload: Payload) -> str | None:
    try:
        value = member.validator.validate_python(message, strict=True)
    except Exception:  # a validator of the app may raise anything
        value = _WRONG
    if value is message or (_is_model(value) and isinstance(message, type(value))):
        return None
    if _is_model(message) and not isinstance(value, type(message)):  # nor is it of the generic model of the type
        return ""
    if value is _WRONG and payload.kind is Kind.BINARY:
        return ""
    sent = loads(payload.data) if payload.kind is Kind.JSON else payload.data.decode()
    try:
        return _difference(
            sent, loads(dumps(member.validator.validate_json(dumps(sent)) if value is _WRONG else value))
        )
    except ValidationError as error:
        return str(MessageInvalid(error.errors(include_url=False, include_context=False, include_input=False)))
    except Exception:
        return ""


def _difference(sent: Any, right: Any, place: str = "") -> str | None:
    """Returns where a value for JSON has other names or kinds of values than the right one; None if it has the same."""
    at = f"{place}: " if place else ""
    if isinstance(sent, dict) and isinstance(right, dict):
        if missing := right.keys() - sent.keys():
            return f"{at}lacks {_listed(missing)}"
        if extra := sent.keys() - right.keys():
            return f"{at}has {_listed(extra)} besides"
        pairs: Iterable[tuple[Any, Any, Any]] = ((key, sent[key], right[key]) for key in sent)
    elif isinstance(sent, list) and isinstance(right, list):
        if len(sent) != len(right):
            return f"{at}has {len(sent)} parts, and {len(right)} differ"
        pairs = zip(range(len(sent)), sent, right, strict=True)
    else:
        return None if _kind(sent) is _kind(right) else f"{at}is {_NAMES[_kind(sent)]}, not {_NAMES[_kind(right)]}"
    found = (_difference(one, other, f"{place}.{key}" if place else str(key)) for key, one, other in pairs)
    return next((each for each in found if each is not None), None)


_NAMES: Final[dict[type, str]] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _kind(value: Any) -> type:
    return float if type(value) is int else type(value)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(shown, sorted(names)))


def _is_model(value: object) -> bool:
    return isinstance(value, BaseModel) or (is_dataclass(value) and not isinstance(value, type))


def _members(declared: Any) -> Iterator[Any]:
    """The members of a union, or the type itself."""
    origin = get_origin(declared)
    if origin in (typing.Union, UnionType):
        for member in get_args(declared):
            yield from _members(member)
    elif origin is Annotated and get_origin(get_args(declared)[0]) in (typing.Union, UnionType):
        yield from _members(get_args(declared)[0])
    elif type(declared).__name__ == "TypeAliasType":  # `type Event = Opened | Closed`, of typing or typing_extensions
        yield from _members(declared.__value__)
    else:
        yield declared


def _name(declared: Any) -> str:
    if isinstance(declared, type) and not get_args(declared):
        return declared.__name__
    return shown(declared).replace("typing.", "")


def _place(function: Any) -> str:
    """Returns where a function is defined."""
    while isinstance(function, partial):
        function = function.func
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return f"in {type(function).__module__}"
    return f"{code.co_filename}:{code.co_firstlineno}"
