"""The Centrifugo protocol in Protobuf, against the classes in Centrifugo's own SDK."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hubbub.codec import Kind, Payload, encode
from hubbub.errors import InvalidArgument
from hubbub.protocols.centrifugo import MAX_COMMANDS, BadRequest, centrifugo_protobuf
from hubbub.protocols.centrifugo.fields import Scalar, Shape
from hubbub.protocols.centrifugo.messages import (
    EVENTS,
    FIELDS,
    REQUESTS,
    RESULTS,
    ClientInfo,
    Command,
    ConnectRequest,
    FilterNode,
    Message,
    Pong,
    Publication,
    PublishResult,
    Push,
    Reply,
    RPCRequest,
    RPCResult,
    SendRequest,
    SubscribeRequest,
)
from hubbub.protocols.frames import Opcode, frame, split
from tests.unit.protocols.centrifugo.said import (
    ANY_DATA,
    BINARY_DATA,
    REPLIES,
    TEXT,
    commands,
    in_protobuf,
    messages,
    parts,
    sdk,
    sized,
    varint,
)

ENCODING = centrifugo_protobuf().encoding


def without_type(said: Command) -> Command:
    """Without the field that the SDK does not know."""
    if isinstance(said.request, SubscribeRequest):
        return Command(said.id, replace(said.request, type=0))
    if isinstance(said.request, ConnectRequest):
        subs = {name: replace(each, type=0) for name, each in said.request.subs.items()}
        return Command(said.id, replace(said.request, subs=subs))
    return said


COMMANDS = commands(BINARY_DATA).map(without_type)


def written(said: list[Command]) -> bytes:
    return b"".join(sized(in_protobuf(each).SerializeToString()) for each in said)


def replies(data: bytes) -> list[Any]:
    """The replies in one binary frame, as objects of the SDK."""
    ((opcode, message),) = split(data)
    assert opcode is Opcode.BINARY
    return [sdk.Reply.FromString(each) for each in parts(message)]


# The schema


@pytest.mark.parametrize("kind", FIELDS, ids=lambda kind: kind.__name__)
def test_fields_have_the_numbers_and_types_that_the_sdk_knows(kind: type[Any]) -> None:
    known = {field.name: field for field in sdk.DESCRIPTOR.message_types_by_name[kind.__name__].fields}
    for field in FIELDS[kind]:
        if (kind, field.name) == (SubscribeRequest, "type"):  # newer than the SDK
            continue
        theirs = known[field.name]
        assert theirs.number == field.number
        assert theirs.is_repeated == (field.shape is not Shape.ONE)
        if field.shape is Shape.BY_NAME:
            assert theirs.message_type.fields_by_name["key"].type == FieldDescriptor.TYPE_STRING
            theirs = theirs.message_type.fields_by_name["value"]
        if isinstance(field.type, Scalar):
            assert theirs.type == getattr(FieldDescriptor, f"TYPE_{field.type.name}")
        else:
            assert theirs.message_type.name == field.type.__name__


@pytest.mark.parametrize(("name", "choices"), [("Command", REQUESTS), ("Reply", RESULTS), ("Push", EVENTS)])
def test_every_command_reply_and_push_of_the_sdk_is_known(name: str, choices: Any) -> None:
    theirs = {
        field.name: (field.number, field.message_type.name)
        for field in sdk.DESCRIPTOR.message_types_by_name[name].fields
        if field.message_type is not None and field.name != "push"
    }
    assert theirs == {name: (number, kind.__name__) for name, (number, kind) in choices.items()}


# Commands


@settings(max_examples=50, deadline=None)
@given(st.lists(COMMANDS, min_size=1, max_size=4))
def test_commands_are_read_as_they_were_said(said: list[Command]) -> None:
    assert ENCODING.decode(written(said)) == said


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x00", Command(0, Pong())),
        (b"\x04\x08\x01\x22\x00", Command(1, ConnectRequest())),
        (b"\x07\x08\x02\x2a\x03\x0a\x01a", Command(2, SubscribeRequest("a"))),
        (b"\x09\x08\x02\x2a\x05\x0a\x01a\x78\x01", Command(2, SubscribeRequest("a", type=1))),
        (b"\x09\x08\x02\x2a\x05\x0a\x01a\x6a\x00", Command(2, SubscribeRequest("a", tf=FilterNode()))),
        (b"\x0a\x08\x03\x6a\x06\x0a\x01\xff\x12\x01m", Command(3, RPCRequest(Payload(Kind.BINARY, b"\xff"), "m"))),
        (b"\x07\x62\x05\x0a\x03{ }", Command(0, SendRequest(Payload(Kind.BINARY, b"{ }")))),
        (b"\x84\x80\x00\x08\x01\x22\x00", Command(1, ConnectRequest())),  # a length with more bytes than it needs
    ],
)
def test_a_command_is_read_as_the_protocol_says(data: bytes, said: Command) -> None:
    assert ENCODING.decode(data) == [said]


def test_unknown_and_experimental_fields_are_ignored() -> None:
    connect = b"\x38\x01" + b"\x42\x01d" + b"\x4a\x01p"  # flag, dict, profile
    subscribe = b"\x0a\x01a" + b"\x62\x06fossil" + b"\x80\x01\x02" + b"\x8a\x01\x01c"  # delta, phase, cursor
    told = b"\x08\x01\x22" + sized(connect), b"\x08\x02\x2a" + sized(subscribe) + b"\xa2\x06\x00"
    assert ENCODING.decode(b"".join(map(sized, told))) == [
        Command(1, ConnectRequest()),
        Command(2, SubscribeRequest("a")),
    ]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("{}", "a text message"),
        (b"", "an empty message"),
        (b"\x01", "cut off"),
        (b"\x80", "the length of a command is cut off"),
        (b"\xff\xff\xff\xff\xff\x00", "over 32 bits"),
        (b"\xff\xff\xff\xff\x0f", "cut off"),
        (b"\x02\x08\x01", "no request that is known"),
        (b"\x06\x08\x01\x22\x00\x5a\x00", "2 requests"),
        (b"\x02\x22\x00", "without an id"),
        (b"\x04\x08\x01\x2a\x00", "without a channel"),
        (b"\x07\x08\x01\x2a\x03\x0a\x01\xff", "not a command"),  # not UTF-8
        (b"\x01\xff", "not a command"),
        (b"\x00" * (MAX_COMMANDS + 1), f"over {MAX_COMMANDS} commands"),
    ],
    ids=lambda value: ascii(value[:20]),
)
def test_a_malformed_command_is_refused_with_the_reason(data: str | bytes, problem: str) -> None:
    with pytest.raises(BadRequest) as refused:
        ENCODING.decode(data)
    assert problem in str(refused.value)
    assert len(str(refused.value)) < 400


def test_as_many_commands_as_a_reconnecting_client_sends_are_read() -> None:
    assert ENCODING.decode(b"\x00" * MAX_COMMANDS) == [Command(0, Pong())] * MAX_COMMANDS


def read(data: bytes) -> list[Command]:
    """The commands, or none if the message is refused; nothing else may happen."""
    try:
        found = ENCODING.decode(data)
    except BadRequest:
        return []
    assert found
    assert all(type(each) is Command for each in found)
    return found


@settings(max_examples=100, deadline=None)
@given(st.binary() | st.binary().map(sized) | st.binary().map(lambda data: sized(b"\x08\x01\x2a" + sized(data))))
@example(sized(b"\x0b" * 1000))  # groups, nested
@example(sized(b"\x08\x01" + b"\x6a\x02" * 500))
@example(varint(2**32 - 1))
def test_any_bytes_are_commands_or_are_refused(data: bytes) -> None:
    read(data)


@settings(max_examples=50, deadline=None)
@given(st.lists(COMMANDS, min_size=1, max_size=3), st.data())
def test_a_message_with_another_byte_is_read_or_refused(said: list[Command], data: st.DataObject) -> None:
    whole = bytearray(written(said))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    read(bytes(whole))


@settings(max_examples=15, deadline=None)
@given(st.lists(COMMANDS, min_size=1, max_size=3))
def test_a_message_that_is_cut_off_is_refused_unless_whole_commands_are_left(said: list[Command]) -> None:
    whole = written(said)
    left = {len(written(said[:count])): said[:count] for count in range(1, len(said))}
    for end in range(len(whole)):
        assert read(whole[:end]) == left.get(end, [])


# Replies and pushes


@settings(max_examples=50, deadline=None)
@given(st.lists(REPLIES, min_size=1, max_size=4))
def test_the_sdk_reads_replies_and_pushes(told: list[Reply | Push]) -> None:
    assert replies(ENCODING.encode(told)) == [in_protobuf(each) for each in told]


def test_an_empty_result_is_there() -> None:
    assert ENCODING.encode([Reply(1, PublishResult()), Reply(2, RPCResult())]) == frame(
        Opcode.BINARY, b"\x04\x08\x01\x42\x00" + b"\x04\x08\x02\x6a\x00"
    )


def test_a_ping_is_an_empty_message() -> None:
    assert ENCODING.ping == frame(Opcode.BINARY, b"\x00")


def test_bytes_go_as_they_are_and_everything_else_as_json() -> None:
    for message, data in ((b"\xff\0", b"\xff\0"), ("hé", '"hé"'.encode()), ({"n": 1}, b'{"n":1}'), (None, b"null")):
        (reply,) = replies(ENCODING.encode([Push("", Message(encode(message)))]))
        (publication,) = replies(ENCODING.publication("a", encode(message)))
        assert reply.push.message.data == publication.push.pub.data == data
        assert not publication.push.pub.tags


# Publications


@settings(max_examples=50, deadline=None)
@given(
    TEXT.filter(bool),
    ANY_DATA | st.sampled_from([0, 1, 127, 128, 2046, 2047, 2048, 20_000, 2**21]).map(lambda n: encode(bytes(n))),
    st.integers(0, 2**64 - 1) | st.integers(0, 3000),
    st.none() | messages(ClientInfo, ANY_DATA),
    st.none() | st.dictionaries(TEXT, TEXT, max_size=3),
)
def test_a_publication_is_the_push_that_it_stands_for(
    channel: str, payload: Payload, offset: int, info: ClientInfo | None, tags: dict[str, str] | None
) -> None:
    push = Push(channel, Publication(payload, info, offset, tags or {}))
    assert replies(ENCODING.publication(channel, payload, offset, info, tags)) == [in_protobuf(push)]
    assert replies(ENCODING.encode([push])) == [in_protobuf(push)]


def test_a_publication_is_written_as_the_protocol_says() -> None:
    assert ENCODING.publication("a", encode(b"hi"), 300) == frame(
        Opcode.BINARY, b"\x0e\x22\x0c\x12\x01a\x22\x07\x22\x02hi\x30\xac\x02"
    )


# Without the package


def test_without_protobuf_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "hubbub.protocols.centrifugo.protobuf")
    for name in [each for each in sys.modules if each == "google" or each.startswith("google.protobuf")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InvalidArgument, match=r"pip install 'hubbub\[protobuf\]'"):
        centrifugo_protobuf.__wrapped__()


def test_protobuf_is_one_protocol_for_all_its_clients() -> None:
    assert centrifugo_protobuf() is centrifugo_protobuf()
