"""The AsyncAPI document of an endpoint: its rooms and methods, and the schemas of their messages.

AsyncAPI has no words for some of what a client needs to know: which rooms a pattern stands for, whether a room has a
history, which codes a method refuses with. The extension ``x-hubbub`` of channels and operations says it. So nobody has
to read the keys of the document, which only have to be unique.

A document is read from the side of the app: what clients send, the app receives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from inspect import Signature
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin

from ..options import RoomOptions
from ..patterns import NAME, Pattern
from .about import About
from .asyncapi_parts import Parts, address_of, escaped, key_of, prose, words
from .dependencies import plain
from .functions import Function
from .raw_sockets import RawSocket
from .results import members
from .routing import Method, PublishRule, RoomRule
from .schemas import Schema

VERSION: Final = "3.0.0"
_UNPROCESSABLE: Final = {"422": "the message does not validate"}
_DENIED: Final = {"103": "the function says no"}
_EMPTY: Final = Signature.empty


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
        self._parts = Parts(server)
        self._options_of = options_of
        self._later: list[Callable[[], None]] = []

    def written(self) -> Schema:
        self._parts.schemas.write()
        for write in self._later:
            write()
        return self._parts.written()

    def add_method(self, method: Method) -> None:
        function, about = method.function, method.about
        key = self._parts.channel(
            f"method.{key_of(method.name)}",
            escaped(method.name),
            {"kind": "method", "method": method.name},
        )
        request = self._parts.message(function, "request", f"{key}.request")
        returned = plain(function.returned)
        replies = function.returned is not None and returned is not NoneType
        reply = self._parts.part("reply", f"{key}.reply", function.returned, "serialization", function.name)

        def write() -> None:
            extension = {**_extension("rpc", function, about), "concurrent": method.concurrent, "reply": replies}
            self._parts.operation(key, key, "receive", about, extension, [request], [reply] if replies else [])

        self._later.append(write)

    def add_room(self, rule: RoomRule | None, publishing: PublishRule | None) -> None:
        first = rule or publishing
        assert first is not None
        pattern = first.pattern
        extension: Schema = {"kind": "room", "pattern": pattern.text}
        key = self._parts.channel(f"room.{words(pattern.text)}", address_of(pattern.text), extension)
        types, schemas = first.function.annotations, self._parts.schemas
        names = {
            name: schemas.add(types.get(name, str), "serialization", first.function.name) for name in pattern.names
        }
        publications = [
            self._parts.part(None, f"{key}.publication", member, "serialization", name)
            for annotation, name in _published(rule, publishing)
            for member in _alternatives(annotation)
        ]
        publish = None if publishing is None else self._parts.message(publishing.function, "publish", f"{key}.publish")
        subscribe = None if rule is None else self._parts.message(rule.function, "subscribe", f"{key}.subscribe")

        def write() -> None:
            about = About() if rule is None else rule.about
            channel = self._parts.channels[key]
            channel |= prose(about)
            parameters = {name: schemas[number] for name, number in names.items()}
            if parameters:
                channel["parameters"] = {name: self._parts.parameter(schema) for name, schema in parameters.items()}
            extension["parameters"] = parameters
            extension["subscribe"] = None if rule is None else _subscribe(rule)
            extension["deprecated"] = all(each.about.deprecated for each in (rule, publishing) if each is not None)
            extension["options"] = self._options(pattern)
            if publications:
                shown = {"kind": "publications", "errors": {}, "deprecated": about.deprecated}
                self._parts.operation(f"{key}.publications", key, "send", None, shown, publications)
            if publishing is not None:
                shown = _extension("publish", publishing.function, publishing.about)
                self._parts.operation(f"{key}.publish", key, "receive", publishing.about, shown, [publish], [])
            if rule is not None and subscribe is not None:
                errors = _subscribe(rule)["errors"]
                shown = {**_extension("subscribe", rule.function, rule.about), "errors": errors}
                self._parts.operation(f"{key}.subscribe", key, "receive", rule.about, shown, [subscribe], [])

        self._later.append(write)

    def add_connect(self, function: Function[Any], about: About) -> None:
        key = self._parts.channel("connect", None, {"kind": "connect"})
        data = self._parts.message(function, "data", "connect.data")

        def write() -> None:
            self._parts.operation(key, key, "receive", about, _extension("connect", function, about), [data], [])

        self._later.append(write)

    def add_socket(self, socket: RawSocket, server: str) -> None:
        key = self._parts.channel(
            f"raw.{words(socket.path)}", address_of(socket.path), {"kind": "raw", "pattern": socket.path}, server
        )
        sides = [
            (
                action,
                [self._parts.part(None, f"{key}.{action}", each, mode, socket.name) for each in _alternatives(type_)],
            )
            for action, mode, type_ in socket.sides
        ]

        def write() -> None:
            channel = self._parts.channels[key]
            channel |= prose(socket.about)
            if socket.parameters:
                channel["parameters"] = {name: {} for name in socket.parameters}
            channel["x-hubbub"] |= {"parameters": socket.parameters, "deprecated": socket.about.deprecated}
            for action, parts in sides:
                shown = {"kind": action, "errors": {}, "deprecated": socket.about.deprecated}
                self._parts.operation(f"{key}.{action}", key, action, None, shown, parts)

        self._later.append(write)

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


def _published(rule: RoomRule | None, publishing: PublishRule | None) -> list[tuple[Any, str]]:
    """The types of the messages in a room, each with the function that tells it."""
    told = [] if rule is None or rule.sends is None else [(rule.sends, rule.function.name)]
    return told if publishing is None else [*told, (publishing.function.returned, publishing.function.name)]


def _extension(kind: str, function: Function[Any], about: About) -> Schema:
    """Returns the details of an operation that AsyncAPI has no field for."""
    return {
        "kind": kind,
        "message": {"required": function.is_message_required} if function.takes_message else None,
        "errors": _errors(function, about),
        "deprecated": about.deprecated,
    }


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


def _alternatives(annotation: Any) -> list[Any]:
    """The types of the messages that a type stands for: the members of a union, without None."""
    bare = plain(annotation)
    if get_origin(bare) in (Union, UnionType):
        return [each for member in get_args(bare) for each in _alternatives(member)]
    return [] if bare in (_EMPTY, Any, None, NoneType) else [annotation]
