"""The types of TypeScript for JSON schemas: one interface or alias for each model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ..schemas import REF, Schema
from .text import INDENT, WIDTH, comment, key_of, literal, paragraphs, tagged

_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_$]+(.?)")
_WORDS: Final = frozenset(
    # Words of the language, types that it has, and the globals that the module uses
    re.findall(
        r"\w+",
        """
        any as asserts async await bigint boolean break case catch class const continue debugger declare default delete
        do else enum export extends false finally for function if implements import in infer instanceof interface is
        keyof let never new null number object package private protected public readonly return static string super
        switch symbol this throw true try type typeof undefined unique unknown var void while with yield Promise
        """,
    )
)
_SCALARS: Final[Mapping[str, str]] = {
    "string": "string",
    "integer": "number",
    "number": "number",
    "boolean": "boolean",
    "null": "null",
}
_UNKNOWN: Final = "unknown"


class Type(NamedTuple):
    """A type as text.

    Attributes:
        text: The text.
        joins: The sign that joins its parts, if it is a union or an intersection.
        parts: These parts.
    """

    text: str
    joins: str = ""
    parts: tuple[str, ...] = ()

    def within(self, sign: str) -> str:
        """The text as a part of what another sign joins."""
        return f"({self.text})" if self.joins and self.joins != sign else self.text


class Models:
    """Writes the types of the schemas of a document.

    Args:
        definitions: The schemas by name.
        taken: The names that no model may have.
    """

    def __init__(self, definitions: Mapping[str, Schema], taken: Iterable[str]) -> None:
        self._definitions = definitions
        self._names = _names(definitions, taken)

    def written(self) -> list[str]:
        """Returns the declarations of all models."""
        return [self._declaration(self._names[name], schema) for name, schema in self._definitions.items()]

    def type_of(self, schema: Any, indent: str = "") -> Type:
        """Returns the type of the values of a schema.

        Args:
            schema: The schema.
            indent: The indentation of the line that the type is in.
        """
        if not isinstance(schema, dict):
            return Type("never" if schema is False else _UNKNOWN)
        parts = []
        if "$ref" in schema:
            name = self._names.get(schema["$ref"].removeprefix(REF))  # a schema elsewhere may be anything
            parts.append(Type(_UNKNOWN if name is None else name))
        if "const" in schema:
            parts.append(Type(literal(schema["const"])))
        elif "enum" in schema:
            parts.append(_union(Type(literal(each)) for each in schema["enum"]))
        else:
            for key in ("anyOf", "oneOf"):
                if key in schema:
                    parts.append(self._one_of(schema[key], schema.get("discriminator"), indent))
            parts += [self.type_of(each, indent) for each in schema.get("allOf", ())]
            if "type" in schema or "properties" in schema:
                parts.append(self._of_kinds(schema, indent))
        return _intersection(parts)

    def scalar(self, schema: Schema) -> Type | None:
        """Returns the type of a parameter, for which text stands; None if it is not one of scalars."""
        known = self._resolved(schema)
        if any(key in known for key in ("anyOf", "oneOf", "allOf")):
            members = [self.scalar(each) for key in ("anyOf", "oneOf", "allOf") for each in known.get(key, ())]
            return None if None in members else _union(each for each in members if each is not None)
        values = [known["const"]] if "const" in known else known.get("enum")
        if values is None:
            is_scalar = known.get("type") in ("string", "integer", "number", "boolean")
        else:
            is_scalar = all(isinstance(each, (str, int, float)) for each in values)
        return self.type_of(schema) if is_scalar else None

    def _resolved(self, schema: Schema) -> Schema:
        while "$ref" in schema:
            schema = self._definitions.get(schema["$ref"].removeprefix(REF), {})
        return schema

    def _declaration(self, name: str, schema: Schema) -> str:
        about = comment(tagged(paragraphs(schema.get("description")), _tags(schema)))
        kinds = {"type", "properties", "required", "additionalProperties"}
        others = {"$ref", "anyOf", "oneOf", "allOf", "enum", "const"}
        if schema.get("type") == "object" and schema.get("properties") and not others & schema.keys():
            body = self._object({key: schema[key] for key in kinds & schema.keys()}, "")
            return f"{about}export interface {name} {body}\n"
        found = self.type_of(schema)
        line = f"export type {name} = {found.text};"
        if len(line) > WIDTH and found.joins and "\n" not in line:
            line = f"export type {name} =" + "".join(f"\n{INDENT}{found.joins} {part}" for part in found.parts) + ";"
        return f"{about}{line}\n"

    def _one_of(self, members: Sequence[Any], tag: str | None, indent: str) -> Type:
        types = []
        for each in members:
            found = self.type_of(each, indent)
            known = self._resolved(each) if isinstance(each, dict) else {}
            if tag is not None and tag in known.get("properties", {}) and tag not in known.get("required", ()):
                # By its tag the server knows the member, so the tag is needed even where it has a default.
                value = self.type_of(known["properties"][tag], indent)
                found = _intersection([found, Type(f"{{ {key_of(tag)}: {value.text} }}")])
            types.append(found)
        return _union(types)

    def _of_kinds(self, schema: Schema, indent: str) -> Type:
        kinds = schema.get("type", "object")
        return _union(self._of_kind(kind, schema, indent) for kind in ([kinds] if isinstance(kinds, str) else kinds))

    def _of_kind(self, kind: str, schema: Schema, indent: str) -> Type:
        if kind == "array":
            return Type(self._array(schema, indent))
        if kind == "object":
            return Type(self._object(schema, indent))
        return Type(_SCALARS.get(kind, _UNKNOWN))

    def _array(self, schema: Schema, indent: str) -> str:
        items = schema.get("items")
        if schema.get("maxItems") == 0:
            return "[]"
        if not isinstance(items, list):
            return f"{self.type_of(True if items is None else items, indent).within('[]')}[]"
        least = schema.get("minItems", 0)
        parts = [self.type_of(each, indent) for each in items]
        texts = [part.text if at < least else f"{part.within('?')}?" for at, part in enumerate(parts)]
        if "additionalItems" in schema or schema.get("maxItems") is None:
            rest = schema.get("additionalItems", True)
            if rest is not False:
                texts.append(f"...{self.type_of(rest, indent).within('[]')}[]")
        return f"[{', '.join(texts)}]"

    def _object(self, schema: Schema, indent: str) -> str:
        properties, required = schema.get("properties", {}), schema.get("required", ())
        extra = schema.get("additionalProperties", not properties and "properties" not in schema)
        if not properties:
            return self._mapping(schema, extra, indent)
        inner = indent + INDENT
        text = ""
        for name, each in properties.items():
            about = paragraphs(each.get("description")) if isinstance(each, dict) else []
            optional = name not in required
            tags = _tags(each, with_default=optional) if isinstance(each, dict) else []
            text += comment(tagged(about, tags), inner)
            text += f"{inner}{key_of(name)}{'?' if optional else ''}: {self.type_of(each, inner).text};\n"
        if extra is not False and "additionalProperties" in schema:
            text += f"{inner}[key: string]: {_UNKNOWN};\n"
        return f"{{\n{text}{indent}}}"

    def _mapping(self, schema: Schema, extra: Any, indent: str) -> str:
        """A mapping. With an alias such as Record, it could not be recursive."""
        patterns = schema.get("patternProperties")
        if patterns:
            values = _union(self.type_of(each, indent) for each in patterns.values())
        elif extra is False or ("properties" in schema and "additionalProperties" not in schema):
            return "{ [key: string]: never }"
        else:
            values = self.type_of(extra, indent)
        names = schema.get("propertyNames", {})
        known = self._resolved(names)
        keys = [known["const"]] if "const" in known else known.get("enum", ())
        if keys and all(isinstance(key, (str, int)) and not isinstance(key, bool) for key in keys):
            return f"{{ [key in {self.type_of(names).text}]?: {values.text} }}"
        return f"{{ [key: string]: {values.text} }}"


def _union(types: Iterable[Type]) -> Type:
    members = list(types)
    return Type(_UNKNOWN) if Type(_UNKNOWN) in members else _joined("|", members)


def _intersection(types: Iterable[Type]) -> Type:
    return _joined("&", [each for each in types if each != Type(_UNKNOWN)])


def _joined(sign: str, types: Sequence[Type]) -> Type:
    different = list(dict.fromkeys(types))
    if len(different) < 2:
        return different[0] if different else Type(_UNKNOWN)
    nested = (each.parts if each.joins == sign else (each.within(sign),) for each in different)
    parts = tuple(dict.fromkeys(part for parts in nested for part in parts))
    return Type(f" {sign} ".join(parts), sign, parts) if len(parts) > 1 else Type(parts[0])


def _tags(schema: Schema, *, with_default: bool = False) -> list[str]:
    """The tags of a comment about what the type does not say."""
    tags = [f"@{key} {value}" for key, value in dict.fromkeys(_formats(schema))]
    if with_default and schema.get("default") is not None and "const" not in schema:
        text = literal(schema["default"])
        tags += [f"@default {text}"] if len(text) <= WIDTH else []
    if schema.get("deprecated"):
        tags.append("@deprecated")
    return tags


def _formats(schema: Any) -> Iterable[tuple[str, str]]:
    """The formats of the texts in a schema, and the patterns that they match, without those of other models."""
    if not isinstance(schema, dict):
        return
    for key, tag in (("format", "format"), ("contentEncoding", "format"), ("pattern", "pattern")):
        if isinstance(schema.get(key), str) and not (key == "pattern" and "format" in schema):
            yield tag, " ".join(schema[key].splitlines())
    for key in ("anyOf", "oneOf", "allOf"):
        for each in schema.get(key, ()):
            yield from _formats(each)
    items = schema.get("items", ())
    for each in items if isinstance(items, (list, tuple)) else [items]:
        yield from _formats(each)
    yield from _formats(schema.get("additionalProperties"))


def _names(definitions: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """Names the models. Those whose names are no identifiers come last, so no other changes its name for them."""
    used = {*taken, *_WORDS}
    names: dict[str, str] = {}
    wanted = {name: _identifier(name) for name in definitions}
    for name in sorted(wanted, key=lambda name: (wanted[name] != name, name)):
        found = wanted[name] if wanted[name] not in used else f"{wanted[name]}Model"
        number = 2
        while found in used:
            found = f"{wanted[name]}{number}"
            number += 1
        used.add(found)
        names[name] = found
    return names


def _identifier(name: str) -> str:
    text = _NOT_IN_NAMES.sub(lambda found: found[1].upper(), name)
    return text if text and not text[0].isdigit() else f"_{text}"
