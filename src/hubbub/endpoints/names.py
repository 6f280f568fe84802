"""The names of a room's pattern, converted to what functions take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from ..errors import InvalidArgument, shown
from .refusals import RoomUnknown


class Names:
    """Converts the texts that a pattern's names stand for, and makes sure that each value says its text again.

    Args:
        annotations: Pairs of name and annotation. A name may come more than once.
        function: Names the function in errors.

    Attributes:
        annotations: The first annotation of each name.
        keys: The names.

    Raises:
        InvalidArgument: Pydantic can't convert a text to an annotation.
    """

    __slots__ = ("_adapters", "_unconstrained", "annotations", "keys")

    def __init__(self, annotations: Iterable[tuple[str, Any]], function: str) -> None:
        pairs = list(annotations)
        self.annotations: dict[str, Any] = dict(reversed(pairs))
        self.keys: frozenset[str] = frozenset(self.annotations)
        self._adapters = [(name, _adapter(name, annotation, function)) for name, annotation in pairs]
        self._unconstrained = [_adapter(name, _unconstrained(annotation), function) for name, annotation in pairs]

    def converted(self, texts: Mapping[str, str]) -> dict[str, Any]:
        """The values by name.

        Raises:
            RoomUnknown: A text does not convert, or its value is written differently.
        """
        return {
            name: texts[name] if adapter is None else _value(name, texts[name], adapter)
            for name, adapter in self._adapters
        }

    def texts(self, values: Mapping[str, Any]) -> dict[str, str]:
        """The texts that stand for values: the inverse of `converted`. A text may be given in the place of its value.

        Raises:
            RoomUnknown: A text does not convert, or a value is not of its annotation: its text means another value.
        """
        return {name: _text(name, values[name], adapter) for name, adapter in self._adapters}

    def check(self, texts: Mapping[str, str]) -> None:
        """Checks all names, and keeps no value, because FastAPI converts them.

        A text that converts to the type, but not within its constraints, is left to FastAPI, which says why.

        Raises:
            RoomUnknown: A text does not convert to the type, or its value is written differently.
        """
        for (name, adapter), unconstrained in zip(self._adapters, self._unconstrained, strict=True):
            if adapter is None:
                continue
            try:
                adapter.validate_python(texts[name])
            except ValidationError:
                adapter = unconstrained
            if adapter is not None:
                _value(name, texts[name], adapter)


def _unconstrained(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _adapter(name: str, annotation: Any, function: str) -> TypeAdapter[Any] | None:
    if annotation is str:
        return None
    try:
        adapter = TypeAdapter[Any](annotation)
        _ = adapter.core_schema  # raises where a model in it is not complete
    except Exception as error:
        raise InvalidArgument(
            function,
            f"the name {name!r} of its pattern can't be converted to {shown(annotation)}",
            "str, int, UUID, an Enum, or another type that Pydantic makes of a text",
        ) from error
    return adapter


def _value(name: str, text: str, adapter: TypeAdapter[Any]) -> Any:
    try:
        value = adapter.validate_python(text)
    except ValidationError:
        raise RoomUnknown(f"{name} can't be {shown(text)}") from None
    if adapter.dump_python(value, mode="json") != text and adapter.dump_json(value).decode() != text:
        raise RoomUnknown(f"{name} can't be {shown(text)}: it is written {shown(value)}")
    return value


def _text(name: str, value: Any, adapter: TypeAdapter[Any] | None) -> str:
    if adapter is None or type(value) is str:
        if not isinstance(value, str):
            raise RoomUnknown(f"{name} can't be {shown(value)}: it is a str")
        if adapter is not None:
            _value(name, value, adapter)
        return str.__str__(value)  # the text of a member of an Enum is its value
    try:
        text = adapter.dump_python(value, mode="json", warnings=False)
        if not isinstance(text, str):
            text = adapter.dump_json(value, warnings=False).decode()
    except PydanticSerializationError:
        raise RoomUnknown(f"{name} can't be {shown(value)}") from None
    same = _value(name, text, adapter)
    if same != value or isinstance(same, bool) != isinstance(value, bool):  # True == 1
        raise RoomUnknown(f"{name} can't be {shown(value)}: {shown(text)} is another value")
    return text
