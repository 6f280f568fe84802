"""The parts of an AsyncAPI document: channels, operations and messages, which refer to each other by their keys.

The schemas come last, because Pydantic names them all at once. A message is named after its schema. So channels are
added first, then the types of their messages, and the operations once the schemas are written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from inspect import Signature
from typing import Any, Final, NamedTuple

from .about import About
from .functions import Function
from .raw_sockets import NAME_IN_PATH
from .schemas import REF, Mode, Schema, Schemas

ERROR: Final = "hubbub.Error"
"""The message, and its schema, with which a request is refused. No type of an app has a dot in its name."""

_NOT_WORDS: Final = re.compile(r"[^A-Za-z0-9_]+")
_NOT_IN_KEYS: Final = re.compile(r"[^A-Za-z0-9_.-]+")
_NOT_IN_ADDRESSES: Final = re.compile(r"[{}?#]")  # braces enclose parameters, and there is no query and no fragment
_EMPTY: Final = Signature.empty

_ERROR_SCHEMA: Final[Schema] = {
    "title": "Error",
    "description": "The reason for which a request is refused.",
    "type": "object",
    "properties": {
        "code": {"type": "integer", "description": "The status of the HTTPException, or a code of the protocol."},
        "message": {"type": "string"},
        "temporary": {"type": "boolean", "description": "Whether the same request may succeed later."},
    },
    "required": ["code", "message"],
}


class Part(NamedTuple):
    """A message of a channel.

    Attributes:
        key: Its key in the channel; None to take its name.
        place: Its name if its type has none.
        schema: The number of its schema.
    """

    key: str | None
    place: str
    schema: int


class Parts:
    """The parts of one document.

    Args:
        server: The key of the server that channels have.

    Attributes:
        schemas: The schemas of the messages.
        channels: By key.
        operations: By key.
    """

    def __init__(self, server: str) -> None:
        self._server = server
        self._messages: dict[str, Schema] = {}
        self.schemas: Schemas = Schemas()
        self.channels: dict[str, Schema] = {}
        self.operations: dict[str, Schema] = {}

    def written(self) -> Schema:
        """All parts."""
        schemas = self.schemas.definitions
        if ERROR in self._messages:
            schemas = {**schemas, ERROR: _ERROR_SCHEMA}
        return {
            "channels": self.channels,
            "operations": self.operations,
            "components": {"messages": dict(sorted(self._messages.items())), "schemas": schemas},
        }

    def channel(self, key: str, address: str | None, extension: Schema, server: str | None = None) -> str:
        """Adds a channel, and returns its key: the one that is wanted, or one like it if that is taken."""
        key = _unique(key, self.channels)
        servers = [{"$ref": f"#/servers/{server or self._server}"}]
        self.channels[key] = {"address": address, "servers": servers, "messages": {}, "x-hubbub": extension}
        return key

    def operation(
        self,
        key: str,
        channel: str,
        action: str,
        about: About | None,
        extension: Schema,
        messages: Iterable[Part | None],
        answers: Iterable[Part] | None = None,
    ) -> None:
        """Adds an operation, and its messages to the channel. With answers, it may be refused, too."""
        operation: Schema = {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel}"},
            **({} if about is None else prose(about)),
            "messages": _distinct(self._added(channel, each) for each in messages if each is not None),
        }
        if answers is not None:
            replies = [self._added(channel, each) for each in answers]
            self._messages[ERROR] = {"name": "Error", "title": "Error", "payload": {"$ref": REF + ERROR}}
            self.channels[channel]["messages"]["error"] = {"$ref": f"#/components/messages/{ERROR}"}
            error = {"$ref": f"#/channels/{channel}/messages/error"}
            operation["reply"] = {"channel": {"$ref": f"#/channels/{channel}"}, "messages": [*replies, error]}
        self.operations[key] = {**operation, "x-hubbub": extension}

    def part(self, key: str | None, place: str, annotation: Any, mode: Mode, function: str) -> Part:
        """Makes a message of a type."""
        return Part(key, place, self.schemas.add(Any if annotation is _EMPTY else annotation, mode, function))

    def message(self, function: Function[Any], key: str, place: str) -> Part | None:
        """Makes the message that a function takes; None if it takes none."""
        if not function.takes_message:
            return None
        return self.part(key, place, function.message, "validation", function.name)

    def _added(self, channel: str, part: Part) -> Schema:
        """Adds a message to a channel, and returns the reference to it there."""
        schema = self.schemas[part.schema]
        reference: str = schema.get("$ref", "")
        is_named = reference.startswith(REF)
        name = reference.removeprefix(REF) if is_named else part.place
        definition = self.schemas.definitions[name] if is_named else schema
        message: Schema = {"name": name, "payload": schema}
        if "title" in definition:
            message["title"] = definition["title"]
        if examples := definition.get("examples"):
            message["examples"] = [{"payload": each} for each in examples]
        if not is_named:
            name = next(each for each in _names(name) if self._messages.get(each, message) == message)
        self._messages[name] = message
        messages = self.channels[channel]["messages"]
        key = part.key or (name if is_named else part.place.rpartition(".")[2])
        reference = f"#/components/messages/{name}"
        key = next(each for each in _names(key) if messages.get(each, {"$ref": reference}) == {"$ref": reference})
        messages[key] = {"$ref": reference}
        return {"$ref": f"#/channels/{channel}/messages/{key}"}

    def parameter(self, schema: Schema) -> Schema:
        """A parameter of a channel, which AsyncAPI knows only as text."""
        parts = [schema, *schema.get("allOf", ())]  # a reference with a description is in `allOf`
        named = [self.schemas.definitions.get(each.get("$ref", "").removeprefix(REF), {}) for each in parts]
        known: Schema = {key: value for each in (*named, *parts) for key, value in each.items()}
        parameter: Schema = {}
        if "description" in known:
            parameter["description"] = known["description"]
        if "enum" in known or "const" in known:
            parameter["enum"] = [str(each) for each in known.get("enum", [known.get("const")])]
        if "examples" in known:
            parameter["examples"] = [str(each) for each in known["examples"]]
        return parameter


def prose(about: About) -> Schema:
    """The texts of a description."""
    prose: Schema = {}
    if about.summary:
        prose["summary"] = about.summary
    if about.description:
        prose["description"] = about.description
    if about.tags:
        prose["tags"] = [{"name": tag} for tag in about.tags]
    return prose


def key_of(method: str) -> str:
    """The name of a method as a part of keys."""
    return _NOT_IN_KEYS.sub("_", method)


def words(pattern: str) -> str:
    """A pattern as a part of keys: ``chat_room`` of ``chat:{room}``."""
    text = NAME_IN_PATH.sub(r" \1 ", pattern.replace("*", " any "))
    return _NOT_WORDS.sub("_", text).strip("_") or "any"


def address_of(pattern: str) -> str:
    """A pattern as the address of a channel, in which braces enclose parameters."""
    address, at = "", 0
    for found in NAME_IN_PATH.finditer(pattern):
        address += f"{escaped(pattern[at : found.start()])}{{{found[1]}}}"
        at = found.end()
    return address + escaped(pattern[at:])


def escaped(text: str) -> str:
    """A text without a meaning of its own in an address."""
    return _NOT_IN_ADDRESSES.sub(lambda found: f"%{ord(found[0]):02X}", text)


def _names(name: str) -> Iterable[str]:
    yield name
    number = 2
    while True:
        yield f"{name}_{number}"
        number += 1


def _unique(key: str, taken: Mapping[str, object]) -> str:
    return next(each for each in _names(key) if each not in taken)


def _distinct(items: Iterable[Schema]) -> list[Schema]:
    return list({each["$ref"]: each for each in items}.values())
