"""Messages of clients and servers: strategies, and their wire formats by code other than ours.

JSON is written and read by the standard library, Protobuf by the classes in Centrifugo's own SDK for Python.
"""

from __future__ import annotations

import importlib
import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from hypothesis import strategies as st

from hubbub.codec import Kind, Payload, dumps
from hubbub.protocols.centrifugo.fields import Field, Scalar, Shape
from hubbub.protocols.centrifugo.messages import (
    EVENTS,
    FIELDS,
    NAMES,
    REQUESTS,
    RESULTS,
    ClientInfo,
    Command,
    FilterNode,
    Pong,
    Publication,
    Push,
    Reply,
    SendRequest,
    SubscribeRequest,
)

sdk: Any = importlib.import_module("centrifuge.protocol.client_pb2")  # it is not typed

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
JSON_DATA = JSON.map(lambda value: Payload(Kind.JSON, dumps(value)))
TEXT_DATA = TEXT.map(lambda text: Payload(Kind.TEXT, text.encode()))
BINARY_DATA = st.binary(min_size=1, max_size=200).map(lambda data: Payload(Kind.BINARY, data))
ANY_DATA = JSON_DATA | TEXT_DATA | BINARY_DATA

_NUMBERS = {
    Scalar.INT32: st.integers(-(2**31), 2**31 - 1),
    Scalar.UINT32: st.integers(0, 2**32 - 1),
    Scalar.INT64: st.integers(-(2**63), 2**63 - 1),
    Scalar.UINT64: st.integers(0, 2**64 - 1),
}


def messages(kind: type[Any], data: st.SearchStrategy[Payload]) -> st.SearchStrategy[Any]:
    """Messages of a type, with any of their fields."""
    optional = {each.name: _values(each, data) for each in FIELDS[kind]}
    return st.fixed_dictionaries({}, optional=optional).map(lambda values: kind(**values))


def _values(field: Field, data: st.SearchStrategy[Payload]) -> st.SearchStrategy[Any]:
    one: st.SearchStrategy[Any]
    if field.type is Scalar.BYTES:
        one = data
    elif field.type is Scalar.STRING:
        one = TEXT.filter(bool) if field.name == "channel" else TEXT
    elif isinstance(field.type, Scalar):
        one = _NUMBERS.get(field.type, st.booleans())
    else:
        one = messages(field.type, data)
    if field.shape is Shape.MANY:
        return st.lists(one, max_size=3).map(tuple)
    return st.dictionaries(TEXT, one, max_size=3) if field.shape is Shape.BY_NAME else one


def commands(data: st.SearchStrategy[Payload]) -> st.SearchStrategy[Command]:
    requests = st.one_of(
        [
            messages(choice.type, data).filter(lambda request: getattr(request, "channel", None) != "")
            for choice in REQUESTS.values()
        ]
    )
    ids = st.integers(1, 2**32 - 1)
    return (
        st.builds(Command, ids, requests)
        | st.builds(Command, st.just(0), messages(SendRequest, data))
        | st.just(Command(0, Pong()))
    )


REPLIES: st.SearchStrategy[Reply | Push] = st.builds(
    Reply, st.integers(1, 2**32 - 1), st.one_of([messages(each.type, ANY_DATA) for each in RESULTS.values()])
) | st.builds(Push, TEXT, st.one_of([messages(each.type, ANY_DATA) for each in EVENTS.values()]))


# Wire formats


def in_json(message: Any) -> dict[str, Any]:
    """A message as the value of its JSON, without absent fields."""
    plain = {
        field.name: _json_value(getattr(message, field.name))
        for field in fields(message)
        if getattr(message, field.name) or (isinstance(message, ClientInfo) and field.name in ("user", "client"))
    }
    if isinstance(message, Publication) and message.data is not None and message.data.kind is Kind.BINARY:
        plain["tags"] = {**message.tags, "encoding": "base64"}
    return plain


def _json_value(value: Any) -> Any:
    if isinstance(value, Payload):
        if value.kind is Kind.JSON:
            return json.loads(value.data)
        return b64encode(value.data).decode() if value.kind is Kind.BINARY else value.data.decode()
    if isinstance(value, Mapping):
        return {name: _json_value(each) for name, each in value.items()}
    if isinstance(value, tuple):
        return [_json_value(each) for each in value]
    return in_json(value) if type(value) in FIELDS else value


def envelope_in_json(said: Command | Reply | Push) -> dict[str, Any]:
    if isinstance(said, Push):
        push = {NAMES[type(said.event)]: in_json(said.event)}
        return {"push": {"channel": said.channel, **push} if said.channel else push}
    content = said.request if isinstance(said, Command) else said.result
    number = {"id": said.id} if said.id else {}
    return number if isinstance(content, Pong) else {**number, NAMES[type(content)]: in_json(content)}


def fill(record: Any, message: Any) -> None:
    """Puts a message into an object of the SDK."""
    record.SetInParent()
    for field in fields(message):
        value = getattr(message, field.name)
        if not value and not isinstance(value, FilterNode):
            continue
        if isinstance(value, Payload):
            as_json = value.kind is Kind.TEXT
            setattr(record, field.name, _string_in_json(value.data) if as_json else value.data)
        elif isinstance(value, Mapping):
            for name, each in value.items():
                if isinstance(each, str):
                    getattr(record, field.name)[name] = each
                else:
                    fill(getattr(record, field.name)[name], each)
        elif isinstance(value, tuple):
            for each in value:
                fill(getattr(record, field.name).add(), each)
        elif type(value) in FIELDS:
            fill(getattr(record, field.name), value)
        elif not (isinstance(message, SubscribeRequest) and field.name == "type"):  # the SDK does not know it
            setattr(record, field.name, value)


def _string_in_json(data: bytes) -> bytes:
    return json.dumps(data.decode(), ensure_ascii=False).encode()


def in_protobuf(said: Command | Reply | Push) -> Any:
    """The SDK's object for a command, reply or push."""
    if isinstance(said, Push):
        reply = sdk.Reply()
        reply.push.channel = said.channel
        fill(getattr(reply.push, NAMES[type(said.event)]), said.event)
        return reply
    record = sdk.Command() if isinstance(said, Command) else sdk.Reply()
    record.id = said.id
    content = said.request if isinstance(said, Command) else said.result
    if not isinstance(content, Pong):
        fill(getattr(record, NAMES[type(content)]), content)
    return record


def varint(number: int) -> bytes:
    written = b""
    while number >= 0x80:
        written += bytes((number & 0x7F | 0x80,))
        number >>= 7
    return written + bytes((number,))


def sized(data: bytes) -> bytes:
    return varint(len(data)) + data


def parts(data: bytes) -> list[bytes]:
    """The messages that stand behind their lengths."""
    found = []
    while data:
        size = shift = 0
        while True:
            byte, data = data[0], data[1:]
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        assert size <= len(data)
        found.append(data[:size])
        data = data[size:]
    return found
