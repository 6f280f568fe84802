"""The AsyncAPI document of an endpoint: its rooms and methods, and the schemas of their messages.

AsyncAPI has no words for some of what a client needs to know: which rooms a pattern stands for, whether a room has a
history, which codes a method refuses with. The extension ``x-hubbub`` of channels and operations says it. So nobody has
to read the keys of the document, which only have to be unique.

A document is read from the side of the app: what clients send, the app receives.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from inspect import Signature
from types import NoneType, UnionType
from typing import Any, Final, NamedTuple, Union, get_args, get_origin

from ..options import RoomOptions
from ..patterns import NAME, Pattern
from .about import About
from .dependencies import plain
from .functions import Function
from .raw_sockets import NAME_IN_PATH, RawSocket
from .results import members
from .routing import Method, PublishRule, RoomRule
from .schemas import REF, Schema, Schemas

VERSION: Final = "3.0.0"
ERROR: Final = "hubbub.Error"
"""The message, and its schema, with which a request is refused. No type of an app has a dot in its name."""

_UNPROCESSABLE: Final = {"422": "the message does not validate"}
_DENIED: Final = {"103": "the function says no"}
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """The functions of an endpoint, in the order in which they were declared.

    Attributes:
        methods: Those that answer requests.
        rooms: Those that authorize subscriptions.
        publishing: Those that handle publications.
        connect: The one that runs when a client has connected, and its description.
    """

    methods: tuple[Method, ...]
    rooms: tuple[RoomRule, ...]
    publishing: tuple[PublishRule, ...]
    connect: tuple[Function[Any], About] | None


class _Part(NamedTuple):
    """A message of a channel.

    Attributes:
        key: Its key in the channel; None to take its name.
        place: Its name if its type has none.
        schema: The number of its schema.
    """

    key: str | None
    place: str
    schema: int


def described(
    declared: Declared,
    *,
    server: str,
    raw_server: str,
    sockets: Iterable[RawSocket] = (),
    options_of: Callable[[str], RoomOptions],
) -> Schema:
    """Describes an endpoint: the parts ``channels``, ``operations`` and ``components`` of its document.

    Args:
        declared: The functions of the endpoint.
        server: The key of the endpoint's server.
        raw_server: The key of the server of raw sockets.
        sockets: The raw sockets.
        options_of: Returns the options of a room.

    Raises:
        InvalidArgument: The type of a message has no JSON schema. Names the function.
    """
    writer = _Writer(server, options_of)
    for method in declared.methods:
        if method.about.is_included:
            writer.add_method(method)
    rules: dict[str, tuple[RoomRule | None, PublishRule | None]] = {}
    for rule in declared.rooms:
        if rule.about.is_included:
            rules[rule.pattern.shape] = rule, None
    for each in declared.publishing:
        if each.about.is_included:
            rules[each.pattern.shape] = rules.get(each.pattern.shape, (None, None))[0], each
    for subscribing, publishing in rules.values():
        writer.add_room(subscribing, publishing)
    if declared.connect is not None and declared.connect[1].is_included:
        writer.add_connect(*declared.connect)
    for socket in sockets:
        if socket.about.is_included:
            writer.add_socket(socket, raw_server)
    return writer.written()


class _Writer:
    """Writes the parts of a document. The schemas come last, because Pydantic names them all at once."""

    def __init__(self, server: str, options_of: Callable[[str], RoomOptions]) -> None:
        self._server = server
        self._options_of = options_of
        self._schemas = Schemas()
        self._messages: dict[str, Schema] = {}
        self._channels: dict[str, Schema] = {}
        self._operations: dict[str, Schema] = {}
        self._later: list[Callable[[], None]] = []

    def written(self) -> Schema:
        self._schemas.write()
        for write in self._later:
            write()
        schemas = self._schemas.definitions
        if ERROR in self._messages:
            schemas = {**schemas, ERROR: _ERROR_SCHEMA}
        return {
            "channels": self._channels,
            "operations": self._operations,
            "components": {"messages": dict(sorted(self._messages.items())), "schemas": schemas},
        }

    # Declarations

    def add_method(self, method: Method) -> None:
        function, about = method.function, method.about
        key = self._channel(
            f"method.{_NOT_IN_KEYS.sub('_', method.name)}",
            _escaped(method.name),
            {"kind": "method", "method": method.name},
        )
        request = self._message(function, "request", f"{key}.request")
        returned = plain(function.returned)
        replies = function.returned is not None and returned is not NoneType
        reply = self._part("reply", f"{key}.reply", function.returned, "serialization", function.name)

        def write() -> None:
            extension = {
                "kind": "rpc",
                "concurrent": method.concurrent,
                "message": _required(function),
                "reply": replies,
                "errors": _errors(function, about),
                "deprecated": about.deprecated,
            }
            self._operation(key, key, "receive", about, extension, [request], [reply] if replies else [])

        self._later.append(write)

    def add_room(self, rule: RoomRule | None, publishing: PublishRule | None) -> None:
        first = rule or publishing
        assert first is not None
        pattern = first.pattern
        extension: Schema = {"kind": "room", "pattern": pattern.text}
        key = self._channel(f"room.{_words(pattern.text)}", _address(pattern.text), extension)
        names = {
            name: self._schemas.add(first.function.annotations.get(name, str), "serialization", first.function.name)
            for name in pattern.names
        }
        published = [] if rule is None or rule.sends is None else [(rule.sends, rule.function.name)]
        if publishing is not None:
            published.append((publishing.function.returned, publishing.function.name))
        publications = [
            self._part(None, f"{key}.publication", member, "serialization", name)
            for annotation, name in published
            for member in _alternatives(annotation)
        ]
        publish = None if publishing is None else self._message(publishing.function, "publish", f"{key}.publish")
        subscribe = None if rule is None else self._message(rule.function, "subscribe", f"{key}.subscribe")

        def write() -> None:
            about = About() if rule is None else rule.about
            channel = self._channels[key]
            channel |= _prose(about)
            schemas = {name: self._schemas[number] for name, number in names.items()}
            if schemas:
                channel["parameters"] = {name: self._parameter(schema) for name, schema in schemas.items()}
            extension["parameters"] = schemas
            extension["subscribe"] = None if rule is None else _subscribe(rule)
            extension["deprecated"] = all(each.about.deprecated for each in (rule, publishing) if each is not None)
            extension["options"] = self._options(pattern)
            if publications:
                shown = {"kind": "publications", "errors": {}, "deprecated": about.deprecated}
                self._operation(f"{key}.publications", key, "send", None, shown, publications)
            if publishing is not None:
                shown = {
                    "kind": "publish",
                    "message": _required(publishing.function),
                    "errors": _errors(publishing.function, publishing.about),
                    "deprecated": publishing.about.deprecated,
                }
                self._operation(f"{key}.publish", key, "receive", publishing.about, shown, [publish], [])
            if rule is not None and subscribe is not None:
                shown = {
                    "kind": "subscribe",
                    "message": _required(rule.function),
                    "errors": _subscribe(rule)["errors"],
                    "deprecated": rule.about.deprecated,
                }
                self._operation(f"{key}.subscribe", key, "receive", rule.about, shown, [subscribe], [])

        self._later.append(write)

    def add_connect(self, function: Function[Any], about: About) -> None:
        key = self._channel("connect", None, {"kind": "connect"})
        data = self._message(function, "data", "connect.data")

        def write() -> None:
            extension = {
                "kind": "connect",
                "message": _required(function),
                "errors": _errors(function, about),
                "deprecated": about.deprecated,
            }
            self._operation(key, key, "receive", about, extension, [data], [])

        self._later.append(write)

    def add_socket(self, socket: RawSocket, server: str) -> None:
        key = self._channel(
            f"raw.{_words(socket.path)}", _address(socket.path), {"kind": "raw", "pattern": socket.path}, server
        )
        sides = []
        for action, annotation, mode in (
            ("receive", socket.receives, "validation"),
            ("send", socket.sends, "serialization"),
        ):
            if annotation is not None:
                parts = [
                    self._part(None, f"{key}.{action}", member, mode, socket.name)
                    for member in _alternatives(annotation)
                ]
                sides.append((action, parts))

        def write() -> None:
            channel = self._channels[key]
            channel |= _prose(socket.about)
            if socket.parameters:
                channel["parameters"] = {name: {} for name in socket.parameters}
            channel["x-hubbub"] |= {"parameters": socket.parameters, "deprecated": socket.about.deprecated}
            for action, parts in sides:
                shown = {"kind": action, "errors": {}, "deprecated": socket.about.deprecated}
                self._operation(f"{key}.{action}", key, action, None, shown, parts)

        self._later.append(write)

    # Parts of the document

    def _channel(self, key: str, address: str | None, extension: Schema, server: str | None = None) -> str:
        key = _unique(key, self._channels)
        servers = [{"$ref": f"#/servers/{server or self._server}"}]
        self._channels[key] = {"address": address, "servers": servers, "messages": {}, "x-hubbub": extension}
        return key

    def _operation(
        self,
        key: str,
        channel: str,
        action: str,
        about: About | None,
        extension: Schema,
        messages: Iterable[_Part | None],
        answers: Iterable[_Part] | None = None,
    ) -> None:
        """Adds an operation, and its messages to the channel. With answers, it may be refused, too."""
        operation: Schema = {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel}"},
            **({} if about is None else _prose(about)),
            "messages": _distinct(self._added(channel, each) for each in messages if each is not None),
        }
        if answers is not None:
            replies = [self._added(channel, each) for each in answers]
            self._messages[ERROR] = {"name": "Error", "title": "Error", "payload": {"$ref": REF + ERROR}}
            self._channels[channel]["messages"]["error"] = {"$ref": f"#/components/messages/{ERROR}"}
            error = {"$ref": f"#/channels/{channel}/messages/error"}
            operation["reply"] = {"channel": {"$ref": f"#/channels/{channel}"}, "messages": [*replies, error]}
        self._operations[key] = {**operation, "x-hubbub": extension}

    def _part(self, key: str | None, place: str, annotation: Any, mode: Any, function: str) -> _Part:
        return _Part(key, place, self._schemas.add(Any if annotation is _EMPTY else annotation, mode, function))

    def _message(self, function: Function[Any], key: str, place: str) -> _Part | None:
        if not function.takes_message:
            return None
        return self._part(key, place, function.message, "validation", function.name)

    def _added(self, channel: str, part: _Part) -> Schema:
        """Adds a message to a channel, and returns the reference to it there."""
        schema = self._schemas[part.schema]
        reference: str = schema.get("$ref", "")
        is_named = reference.startswith(REF)
        name = reference.removeprefix(REF) if is_named else part.place
        definition = self._schemas.definitions[name] if is_named else schema
        message: Schema = {"name": name, "payload": schema}
        if "title" in definition:
            message["title"] = definition["title"]
        if examples := definition.get("examples"):
            message["examples"] = [{"payload": each} for each in examples]
        if not is_named:
            name = next(each for each in _names(name) if self._messages.get(each, message) == message)
        self._messages[name] = message
        messages = self._channels[channel]["messages"]
        key = part.key or (name if is_named else part.place.rpartition(".")[2])
        reference = f"#/components/messages/{name}"
        key = next(each for each in _names(key) if messages.get(each, {"$ref": reference}) == {"$ref": reference})
        messages[key] = {"$ref": reference}
        return {"$ref": f"#/channels/{channel}/messages/{key}"}

    def _parameter(self, schema: Schema) -> Schema:
        """A parameter of a channel, which AsyncAPI knows only as text."""
        parts = [schema, *schema.get("allOf", ())]  # a reference with a description is in `allOf`
        named = [self._schemas.definitions.get(each.get("$ref", "").removeprefix(REF), {}) for each in parts]
        known: Schema = {key: value for each in (*named, *parts) for key, value in each.items()}
        parameter: Schema = {}
        if "description" in known:
            parameter["description"] = known["description"]
        if "enum" in known or "const" in known:
            parameter["enum"] = [str(each) for each in known.get("enum", [known.get("const")])]
        if "examples" in known:
            parameter["examples"] = [str(each) for each in known["examples"]]
        return parameter

    def _options(self, pattern: Pattern) -> Schema:
        """The options of a room of the pattern."""
        name = NAME.sub(r"\1", pattern.text)
        options = self._options_of(name)
        return {
            "history": None if options.kept is None else options.kept.size,
            "replay": options.replay,
            "announce": options.announce,
            "client_presence": options.client_presence,
            "client_history": options.client_history,
        }


def _required(function: Function[Any]) -> Schema | None:
    return {"required": function.is_message_required} if function.takes_message else None


def _errors(function: Function[Any], about: About) -> dict[str, str]:
    always = _UNPROCESSABLE if function.takes_message and plain(function.message) not in (Any, _EMPTY, bytes) else {}
    return dict(sorted({**always, **{str(code): text for code, text in about.errors.items()}}.items()))


def _subscribe(rule: RoomRule) -> Schema:
    denies = any(each is not NoneType and each is not None for each in members(rule.function.returned))
    return {
        "data": rule.function.takes_message,
        "required": rule.function.is_message_required,
        "token": rule.tokens is not None,
        "errors": {**(_DENIED if denies else {}), **_errors(rule.function, rule.about)},
    }


def _prose(about: About) -> Schema:
    prose: Schema = {}
    if about.summary:
        prose["summary"] = about.summary
    if about.description:
        prose["description"] = about.description
    if about.tags:
        prose["tags"] = [{"name": tag} for tag in about.tags]
    return prose


def _alternatives(annotation: Any) -> list[Any]:
    """The types of the messages that a type stands for: the members of a union, without None."""
    bare = plain(annotation)
    if get_origin(bare) in (Union, UnionType):
        return [each for member in get_args(bare) for each in _alternatives(member)]
    return [] if bare in (_EMPTY, Any, None, NoneType) else [annotation]


def _words(pattern: str) -> str:
    text = NAME_IN_PATH.sub(r" \1 ", pattern.replace("*", " any "))
    return _NOT_WORDS.sub("_", text).strip("_") or "any"


def _address(pattern: str) -> str:
    """A pattern as the address of a channel, in which braces enclose parameters."""
    address, at = "", 0
    for found in NAME_IN_PATH.finditer(pattern):
        address += f"{_escaped(pattern[at : found.start()])}{{{found[1]}}}"
        at = found.end()
    return address + _escaped(pattern[at:])


def _escaped(text: str) -> str:
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
