"""JSON schemas of the types of messages, in the dialect of AsyncAPI, which is a superset of draft 07.

Pydantic writes the schemas of all types at once. So a model that several messages have in common is written once, and
two models of one name are told apart. The schema of a type differs between what clients send (the mode "validation")
and what they receive ("serialization"), where a model has defaults or computed fields. Only such a model is written
twice, as ``Order-Input`` and ``Order-Output``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from math import isfinite
from typing import Any, Final, ForwardRef, Literal, NamedTuple, TypeVar

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, JsonSchemaWarningKind
from pydantic_core import PydanticSerializationError, core_schema, to_jsonable_python

from ..codec import dumps, loads
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

    def normalize_name(self, name: str) -> str:
        """Leaves no hyphen in the name of a model, because Pydantic has ``-Input`` and ``-Output`` of its own."""
        return super().normalize_name(name).replace("-", "_")

    def encode_default(self, dft: Any) -> Any:
        """Refuses a default that is not finite at any depth. Pydantic would write null for it."""
        try:
            is_whole = _is_finite(to_jsonable_python(dft, by_alias=self.by_alias))
        except Exception:  # a default of a type with its own serializer
            is_whole = True
        if not is_whole:
            raise PydanticSerializationError("the default is not finite")
        return super().encode_default(dft)

    def named_tuple_schema(self, schema: Any) -> JsonSchemaValue:
        return self._whole(super().named_tuple_schema(schema))

    def p_arguments_schema(self, arguments: Any, var_args_schema: Any) -> JsonSchemaValue:  # older releases of Pydantic
        return self._whole(super().p_arguments_schema(arguments, var_args_schema))

    def _whole(self, array: JsonSchemaValue) -> JsonSchemaValue:
        """Requires what the server always sends: an item of a NamedTuple with a default, too."""
        if self.mode == "serialization" and "prefixItems" in array:
            array["minItems"] = len(array["prefixItems"])
        return array

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
        definitions = {
            name: _translated(schema, f"the model {name}") for name, schema in sorted(rest.get("$defs", {}).items())
        }
        names = _one_name_each(definitions)
        self._written |= {
            number: _renamed(_translated(schema, self._types[number].function), names)
            for (number, _), schema in written.items()
        }
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
    if not isinstance(schema, dict):
        return schema
    result = _within(schema, lambda each: _renamed(each, names))
    if isinstance(reference := result.get("$ref"), str) and reference.startswith(REF):
        name = reference.removeprefix(REF)
        result["$ref"] = REF + names.get(name, name)
    return result


def _translated(schema: Any, where: str) -> Any:
    """Translates a schema of Pydantic to values of JSON.

    Raises:
        InvalidArgument: JSON can't represent a value in it, such as an example. Says where.
    """
    try:
        translated = _draft_07(schema)
        _ = dumps(translated)  # the texts, too
    except InvalidArgument as error:
        raise InvalidArgument(
            where,
            f"its JSON schema {error.problem}",
            "examples, descriptions and other parts of schemas that JSON can represent",
        ) from error
    return translated


def _draft_07(schema: Any) -> Any:
    """Translates a schema of Pydantic, whose dialect is 2020-12 with OpenAPI's ``discriminator``."""
    if not isinstance(schema, dict):
        return _data(schema)
    result: Schema = {}
    for key, value in _within(schema, _draft_07).items():
        if key in _SCHEMAS or key in _SCHEMAS_BY_NAME:
            result[key] = value
        elif key == "discriminator" and isinstance(value, dict):
            result[key] = value["propertyName"]
        elif key in ("examples", "enum") and isinstance(value, (list, tuple)):
            result[key] = [_data(each) for each in value if _is_finite(each)]
        elif _is_finite(value):
            result[key] = _data(value)
    if "prefixItems" in schema:
        if "items" in result:
            result["additionalItems"] = result.pop("items")
        result["items"] = result.pop("prefixItems")
    if "$ref" in result and len(result) > 1:  # in draft 07, a reference hides everything beside it
        result = {"allOf": [{"$ref": result.pop("$ref")}], **result}
    return result


def _within(schema: Schema, change: Callable[[Any], Any]) -> Schema:
    """A schema with the schemas in it changed. All else in it is data, even where it looks like a schema."""
    result: Schema = {}
    for key, value in schema.items():
        if key in _SCHEMAS:
            result[key] = [change(each) for each in value] if isinstance(value, list) else change(value)
        elif key in _SCHEMAS_BY_NAME and isinstance(value, dict):
            result[key] = {name: change(each) for name, each in value.items()}
        else:
            result[key] = value
    return result


_SCHEMAS: Final = frozenset(
    (
        *("items", "prefixItems", "additionalItems", "unevaluatedItems", "contains"),
        *("additionalProperties", "unevaluatedProperties", "propertyNames", "contentSchema"),
        *("allOf", "anyOf", "oneOf", "not", "if", "then", "else"),
    )
)
_SCHEMAS_BY_NAME: Final = frozenset(
    ("properties", "patternProperties", "definitions", "$defs", "dependentSchemas", "dependencies")
)


def _data(value: Any) -> Any:
    """A value as JSON has it, the same in a file and in an answer."""
    return value if value is None or isinstance(value, bool) else loads(dumps(value))


def _is_finite(value: Any) -> bool:
    """Whether a value is without NaN and infinity, such as the default of ``limit: float = inf``, at any depth."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or isfinite(value)
