"""Checks the messages of rooms against the types that rules declare with ``sends=``, under development and in tests.

Theory of operation. A manager that checks has a `Sends`; one that does not check has none, so production pays nothing.
Rules are looked up when a message is published, because modules declare them after the manager exists.

A message is accepted if it is an instance of the declared type, or plain data with the JSON of one. Pydantic validates
the message itself strictly, or else its JSON leniently. The JSON of the value that results must then have the same keys
and the same kinds of values as what is sent. The values are not compared: a datetime may be written in several ways.
Nor is the order, if the type has sets: a set that is made again may have another.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import is_dataclass
from functools import partial
from types import UnionType
from typing import Annotated, Any, Final, ForwardRef, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import SchemaValidator

from ..codec import Kind, Payload, dumps, loads
from ..errors import InvalidArgument, shown
from .functions import Function
from .refusals import MessageInvalid
from .routing import MessageRouter, RoomRule, Rules

_WRONG: Final = object()
_NOT_JSON_VALUE: Final = "invalid-json-value"  # what Pydantic says of an instance for a JsonValue, whose JSON is right


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
                    f"got {shown(message)} for the room {shown(room)}{problem.reason and f' ({problem.reason})'}",
                    f"{declared}, which {rule.function.name} declares with sends= ({_place(rule.function.function)}); "
                    "ConnectionManager(check_sends=False) turns this check off",
                ) from problem.cause

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


class _Problem(NamedTuple):
    """Why a message is not of a type.

    Attributes:
        reason: The reason, which may be empty.
        cause: What a validator or a serializer of the app raised, if it failed.
    """

    reason: str = ""
    cause: Exception | None = None


class _Type:
    """A type of messages: one, or a union of several."""

    def __init__(self, declared: Any) -> None:
        self._whole = TypeAdapter[Any](declared)
        members = list(_members(declared))
        self._text = " | ".join(map(_name, members))
        adapters = [TypeAdapter[Any](member) for member in members] if len(members) > 1 else [self._whole]
        self._members = list(map(_Member, adapters))

    def __str__(self) -> str:
        return self._text

    def made_of(self, returned: object) -> object:
        """Returns what a function with this return annotation sends for what it returned, as replies are made."""
        return self._whole.validator.validate_python(returned, from_attributes=True)

    def problem(self, message: object, payload: Payload) -> _Problem | None:
        """Returns None for a message of this type; else the reason why it is none."""
        if isinstance(message, (bytearray, memoryview)):
            message = bytes(message)
        problems = []
        for member in self._members:
            problem = member.problem(message, payload)
            if problem is None:
                return None
            problems.append(problem)
        if len(problems) == 1:
            return problems[0]
        return _Problem(cause=next((each.cause for each in problems if each.cause is not None), None))


class _Member:
    """A type of messages that is no union."""

    def __init__(self, adapter: TypeAdapter[Any]) -> None:
        schema = dict(adapter.core_schema)  # which builds that of a model with ``defer_build``
        has_json = _has(schema, {"json"})
        self._validator = SchemaValidator(_without_json(schema)) if has_json else adapter.validator
        self._is_ordered = not _has(schema, {"set", "frozenset"})

    def problem(self, message: object, payload: Payload) -> _Problem | None:
        """Returns None for a message of this type; else the reason why it is none."""
        value, error = self._validated(message, strict=True)
        cause = None if isinstance(error, ValidationError) else error
        if value is message or (_is_model(value) and isinstance(message, type(value))):
            return None
        is_any_json = isinstance(error, ValidationError) and error.errors()[0]["type"] == _NOT_JSON_VALUE
        if _is_model(message) and not isinstance(value, type(message)) and not is_any_json:
            return _Problem(cause=cause)  # nor is it of the generic model of the type
        if payload.kind is Kind.BINARY:
            return None if isinstance(value, bytes) else _Problem(cause=cause)
        if value is _WRONG and (place := self._other_model(message)):
            return _Problem(f"{place}: is an instance of another model", cause)
        sent = loads(payload.data) if payload.kind is Kind.JSON else payload.data.decode()
        try:
            if value is _WRONG:
                value = self._validator.validate_json(dumps(sent))
            if isinstance(value, bytes) and value == payload.data:  # not decoded from the text, as Base64Bytes are
                return _Problem("is a string, not bytes")
            right = loads(dumps(value))
        except ValidationError as error:
            return _Problem(_told(error))
        except PydanticUserError:
            raise
        except Exception as error:  # of a validator or a serializer
            return _Problem(cause=error)
        difference = _difference(sent, right)
        if difference is None or (not self._is_ordered and _difference(_sorted(sent), _sorted(right)) is None):
            return None
        return _Problem(difference)

    def _validated(self, message: object, *, strict: bool) -> tuple[object, Exception | None]:
        """Returns the value of a message; or else _WRONG, and what was raised."""
        try:
            return self._validator.validate_python(message, strict=strict, from_attributes=False), None
        except PydanticUserError:  # the type is at fault, not the message
            raise
        except Exception as error:  # a validator of the app may raise anything
            return _WRONG, error

    def _other_model(self, message: object) -> str:
        """Returns where plain data has an instance of a model that the type does not have there; "" if nowhere."""
        if not isinstance(message, (dict, list, tuple, set, frozenset, deque)):
            return ""
        _, error = self._validated(message, strict=False)
        if not isinstance(error, ValidationError):  # it is right, or the JSON shows what is wrong
            return ""
        found = error.errors(include_url=False, include_context=False)
        models = (each for each in found if _is_model(each["input"]) and each["type"] != _NOT_JSON_VALUE)
        return next((".".join(map(str, each["loc"])) for each in models), "")


def _told(error: ValidationError) -> str:
    return str(MessageInvalid(error.errors(include_url=False, include_context=False, include_input=False)))


def _has(schema: Any, types: set[str]) -> bool:
    """Whether a schema of Pydantic has one of some types, at any depth."""
    if isinstance(schema, dict):
        kind = schema.get("type")
        return (isinstance(kind, str) and kind in types) or any(_has(each, types) for each in schema.values())
    return isinstance(schema, (list, tuple)) and any(_has(each, types) for each in schema)


def _without_json(schema: Any) -> Any:
    """Returns a schema of Pydantic for the values of `Json`, which clients receive, instead of for their text."""
    if isinstance(schema, dict):
        if schema.get("type") == "json":
            return _without_json(schema.get("schema", {"type": "any"}))
        return {key: value if key == "default" else _without_json(value) for key, value in schema.items()}
    if isinstance(schema, (list, tuple)):
        return type(schema)(map(_without_json, schema))
    return schema


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
    elif _kind(sent) is not _kind(right):
        return f"{at}is {_NAMES[_kind(sent)]}, not {_NAMES[_kind(right)]}"
    elif isinstance(sent, float) and isinstance(right, int):
        return f"{at}is {sent!r}, not an integer"
    elif isinstance(sent, str) and sent != right and not _is_written_like(sent, right):
        return f"{at}is {shown(sent)}, not written like {shown(right)}"
    else:
        return None
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


_TIME = r"\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?"  # Pydantic writes naive times too, without an offset
_FORMATS: Final = [
    re.compile(pattern)
    for pattern in (
        rf"\d{{4}}-\d\d-\d\d[Tt]{_TIME}",
        r"\d{4}-\d\d-\d\d",
        _TIME,
        r"[+-]?P(\d+(\.\d+)?[YMWD])*(T(\d+(\.\d+)?[HMS])+)?",
        r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    )
]
"""The formats of JSON Schema: date-time, date, time (RFC 3339), duration (ISO 8601), uuid (RFC 9562)."""


def _is_written_like(sent: str, right: str) -> bool:
    """Whether a string has the format of the right one, if that has one. Pydantic reads more than clients may."""
    return all(form.fullmatch(sent) for form in _FORMATS if form.fullmatch(right))


def _sorted(value: Any) -> Any:
    """Returns a value for JSON with each list in an order that depends on its parts alone."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return sorted(map(_sorted, value), key=lambda part: (_NAMES[_kind(part)], dumps(part)))
    return value


def _kind(value: Any) -> type:
    return float if type(value) is int else type(value)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(shown, sorted(names)))


def _is_model(value: object) -> bool:
    return isinstance(value, BaseModel) or (is_dataclass(value) and not isinstance(value, type))


def _members(declared: Any, within: tuple[Any, ...] = ()) -> Iterator[Any]:
    """The members of a union, or the type itself."""
    origin = get_origin(declared)
    if origin in (typing.Union, UnionType):
        for member in get_args(declared):
            yield from _members(member, within)
    elif origin is Annotated and get_origin(get_args(declared)[0]) in (typing.Union, UnionType):
        yield from _members(get_args(declared)[0], within)
    elif type(declared).__name__ != "TypeAliasType" or not _is_resolved(declared.__value__):
        yield declared
    elif declared not in within:  # `type Event = Opened | Closed`, of typing or typing_extensions
        yield from _members(declared.__value__, (*within, declared))


def _is_resolved(declared: Any) -> bool:
    """Whether a type has no names in quotes, which only Pydantic can look up, and only for the whole alias."""
    if get_origin(declared) is Literal:
        return True
    parts = get_args(declared)[:1] if get_origin(declared) is Annotated else get_args(declared)
    return not isinstance(declared, (str, ForwardRef)) and all(map(_is_resolved, parts))


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
