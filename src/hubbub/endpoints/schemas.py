"""JSON schemas of the types of messages, in the dialect of AsyncAPI, which is a superset of draft 07.

Pydantic writes the schemas of all types at once. So a model that several messages have in common is written once, and
two models of one name are told apart. The schema of a type differs between what clients send (the mode "validation")
and what they receive ("serialization"), where a model has defaults or computed fields. Only such a model is written
twice, as ``Order-Input`` and ``Order-Output``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import isfinite
from typing import Any, Final, ForwardRef, Literal, NamedTuple, TypeVar

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, JsonSchemaWarningKind
from pydantic_core import core_schema

from ..errors import InvalidArgument, shown
from .dependencies import plain

REF: Final = "#/components/schemas/"
Schema = dict[str, Any]
Mode = Literal["validation", "serialization"]

_Adapter = tuple[int, Mode, TypeAdapter[Any]]
T = TypeVar("T")

_BINARY: Final[Mapping[Mode, Schema]] = {
    "validation": {"description": "Bytes, or any JSON, of which the function receives the text."},
    "serialization": {"type": "string", "contentEncoding": "base64"},
}


def check_type(annotation: Any, declared: str, argument: str) -> None:
    """Checks that Pydantic can serialize a type.

    Raises:
        InvalidArgument: It can't. Names the declaration and its argument.
    """
    accepted = "a type that Pydantic serializes, such as a model"
    if isinstance(annotation, (str, ForwardRef)):
        raise InvalidArgument(declared, f"{argument} is {shown(annotation)}", f"{accepted}, and not its name")
    try:
        _ = TypeAdapter[Any](annotation).core_schema
    except Exception as error:
        raise InvalidArgument(declared, f"{argument} is {shown(annotation)}", accepted) from error


class Type(NamedTuple):
    """A type of which a schema is wanted.

    Attributes:
        annotation: The type.
        mode: Whether clients send it ("validation") or receive it ("serialization").
        function: Names the function in errors.
    """

    annotation: Any
    mode: Mode
    function: str


class _Generator(GenerateJsonSchema):
    # A default without a JSON value is left out of the schema. Nobody could act on the warning.
    ignored_warning_kinds: set[JsonSchemaWarningKind] = {  # noqa: RUF012  # Pydantic has it so
        "skipped-choice",
        "non-serializable-default",
    }

    def field_is_required(self, field: Any, total: bool) -> bool:
        """Requires what the server always sends: a field with a default, too."""
        required = super().field_is_required(field, total)
        if self.mode == "validation" or field["type"] == "typed-dict-field":
            return required
        return field.get("serialization_exclude_if") is None

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        """Names the format of a number that is sent as text, as OpenAPI does."""
        found = super().decimal_schema(schema)
        for each in found.get("anyOf", [found]):
            if each.get("type") == "string":
                each["format"] = "decimal"
        return found


class Schemas:
    """Collects types, then has Pydantic write the schemas of all of them.

    Attributes:
        definitions: The schemas of models and other named types, for ``components.schemas``.
    """

    def __init__(self) -> None:
        self.definitions: dict[str, Schema] = {}
        self._types: list[Type] = []
        self._written: dict[int, Schema] = {}

    def add(self, annotation: Any, mode: Mode, function: str) -> int:
        """Adds a type, and returns its number."""
        self._types.append(Type(annotation, mode, function))
        return len(self._types) - 1

    def __getitem__(self, number: int) -> Schema:
        """The schema of a type, once `write` was called. Often only a reference to a definition."""
        return self._written[number]

    def write(self) -> None:
        """Writes all schemas.

        Raises:
            InvalidArgument: Pydantic can't describe a type. Names the function that uses it.
        """
        adapters: list[_Adapter] = []
        for number, each in enumerate(self._types):
            if plain(each.annotation) in (bytes, bytearray, memoryview):
                self._written[number] = dict(_BINARY[each.mode])
            else:
                adapters.append((number, each.mode, self._adapter(each)))
        try:
            written, rest = _json_schemas(adapters)
        except Exception:
            for number, mode, adapter in adapters:  # the error names only a part of the type
                self._check(self._types[number], partial(_json_schemas, [(number, mode, adapter)]))
            raise
        definitions = {name: _draft_07(schema) for name, schema in sorted(rest.get("$defs", {}).items())}
        names = _one_name_each(definitions)
        self._written |= {number: _renamed(_draft_07(schema), names) for (number, _), schema in written.items()}
        self.definitions = {names.get(name, name): _renamed(schema, names) for name, schema in definitions.items()}

    def _adapter(self, type_: Type) -> TypeAdapter[Any]:
        def made() -> TypeAdapter[Any]:
            adapter = TypeAdapter[Any](type_.annotation)
            _ = adapter.validator.title  # raises where a model in it is not complete
            return adapter

        return self._check(type_, made)

    def _check(self, type_: Type, call: Callable[[], T]) -> T:
        try:
            return call()
        except Exception as error:
            problem = str(error).partition("\n")[0]
            raise InvalidArgument(
                type_.function,
                f"Pydantic has no JSON schema for {shown(type_.annotation)} ({shown(problem, limit=200)})",
                "a type with a JSON schema. Describe the part that has none: "
                "Annotated[..., WithJsonSchema({'type': 'string'})]; or leave the function out of the "
                "documentation: include_in_schema=False",
            ) from error


def _json_schemas(adapters: list[_Adapter]) -> Any:
    return TypeAdapter.json_schemas(adapters, ref_template=REF + "{model}", schema_generator=_Generator)


def _one_name_each(definitions: Mapping[str, Schema]) -> dict[str, str]:
    """Finds models whose two schemas differ in nothing but in names of such models. Pydantic knows only equal schemas.

    All pairs count as alike until their schemas differ, which is how recursive models are found alike.

    Returns:
        The common names of both schemas, by their names.
    """
    pairs = {
        name.removesuffix("-Input")
        for name in definitions
        if name.endswith("-Input") and name.removesuffix("-Input") + "-Output" in definitions
    }
    pairs -= definitions.keys()
    while True:
        names = {f"{name}-{side}": name for name in pairs for side in ("Input", "Output")}
        different = {
            name
            for name in pairs
            if _renamed(definitions[f"{name}-Input"], names) != _renamed(definitions[f"{name}-Output"], names)
        }
        if not different:
            return names
        pairs -= different


def _renamed(schema: Any, names: Mapping[str, str]) -> Any:
    """A schema with other names in its references."""
    if isinstance(schema, list):
        return [_renamed(each, names) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: REF + names.get(value.removeprefix(REF), value.removeprefix(REF))
        if key == "$ref" and isinstance(value, str)
        else _renamed(value, names)
        for key, value in schema.items()
    }


def _draft_07(schema: Any) -> Any:
    """Translates a schema of Pydantic, whose dialect is 2020-12 with OpenAPI's ``discriminator``."""
    if not isinstance(schema, dict):
        return schema
    result: Schema = {}
    for key, value in schema.items():
        translate = _KEYWORDS.get(key)
        translated = value if translate is None else translate(value)
        if not _is_json(translated):
            continue  # such as the default of `limit: float = inf`
        result[key] = translated
    if "prefixItems" in schema:
        if "items" in result:
            result["additionalItems"] = result.pop("items")
        result["items"] = result.pop("prefixItems")
    if "$ref" in result and len(result) > 1:  # in draft 07, a reference hides everything beside it
        result = {"allOf": [{"$ref": result.pop("$ref")}], **result}
    return result


def _each(schemas: Any) -> Any:
    return [_draft_07(each) for each in schemas] if isinstance(schemas, list) else _draft_07(schemas)


def _by_name(schemas: Any) -> Any:
    return {name: _draft_07(each) for name, each in schemas.items()} if isinstance(schemas, dict) else schemas


def _property(discriminator: Any) -> Any:
    return discriminator["propertyName"] if isinstance(discriminator, dict) else discriminator


_KEYWORDS: Final[Mapping[str, Callable[[Any], Any]]] = {
    **dict.fromkeys(("items", "prefixItems", "allOf", "anyOf", "oneOf"), _each),
    **dict.fromkeys(("properties", "patternProperties", "definitions", "dependentSchemas"), _by_name),
    **dict.fromkeys(
        ("additionalItems", "additionalProperties", "contains", "propertyNames", "not", "if", "then", "else"), _draft_07
    ),
    "discriminator": _property,
}


def _is_json(value: Any) -> bool:
    return not isinstance(value, float) or isfinite(value)
