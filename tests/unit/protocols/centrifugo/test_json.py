"""The Centrifugo protocol in JSON, against the JSON of the standard library."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from orjson import Fragment

from hubbub.codec import MAX_DEPTH, Kind, Payload, dumps, encode
from hubbub.protocols.centrifugo import CENTRIFUGO_JSON, MAX_COMMANDS, BadRequest
from hubbub.protocols.centrifugo.messages import (
    ClientInfo,
    Command,
    ConnectRequest,
    ConnectResult,
    Error,
    FilterNode,
    HistoryRequest,
    HistoryResult,
    Join,
    Leave,
    Message,
    PingRequest,
    Pong,
    PresenceResult,
    PresenceStatsResult,
    Publication,
    PublishRequest,
    PublishResult,
    Push,
    Reply,
    RPCRequest,
    RPCResult,
    SendRequest,
    StreamPosition,
    SubRefreshRequest,
    SubscribeRequest,
    SubscribeResult,
    Unsubscribe,
    UnsubscribeRequest,
)
from hubbub.protocols.frames import Opcode, frame, split
from tests.unit.protocols.centrifugo.said import (
    ANY_DATA,
    JSON_DATA,
    REPLIES,
    TEXT,
    commands,
    envelope_in_json,
    messages,
)

ENCODING = CENTRIFUGO_JSON.encoding
COMMANDS = st.lists(commands(JSON_DATA), min_size=1, max_size=4)


def lines(data: bytes) -> list[str]:
    """The lines in one text frame."""
    ((opcode, text),) = split(data)
    assert opcode is Opcode.TEXT
    return text.decode().split("\n")


def only(data: bytes) -> str:
    (line,) = lines(data)
    return line


def written(said: list[Command]) -> str:
    return "\n".join(json.dumps(envelope_in_json(each)) for each in said)


# Commands


@settings(max_examples=50, deadline=None)
@given(COMMANDS)
def test_commands_are_read_as_they_were_said(said: list[Command]) -> None:
    assert ENCODING.decode(written(said)) == said
    assert ENCODING.decode(written(said).encode()) == said
    assert ENCODING.decode(written(said) + "\n") == said


GOLDEN_COMMANDS: list[tuple[str, Command]] = [
    ('{"id":1,"connect":{}}', Command(1, ConnectRequest())),
    (
        '{"connect":{"token":"t","data":{"a": [1]},"name":"js","version":"5","headers":{"h":"v"},'
        '"subs":{"news":{"recover":true,"epoch":"abcdefgh","offset":7}}},"id":1}',
        Command(
            1,
            ConnectRequest(
                token="t",
                data=Payload(Kind.JSON, b'{"a":[1]}'),
                name="js",
                version="5",
                headers={"h": "v"},
                subs={"news": SubscribeRequest(recover=True, epoch="abcdefgh", offset=7)},
            ),
        ),
    ),
    (
        '{"id":2,"subscribe":{"channel":"a","token":"t","recoverable":true,"positioned":true,"join_leave":true,'
        '"flag":3,"type":1,"tf":{"op":"and","nodes":[]}}}',
        Command(
            2,
            SubscribeRequest(
                "a", "t", recoverable=True, positioned=True, join_leave=True, flag=3, type=1, tf=FilterNode()
            ),
        ),
    ),
    ('{"id":3,"unsubscribe":{"channel":"a"}}', Command(3, UnsubscribeRequest("a"))),
    (
        '{"id":4,"publish":{"channel":"a","data":"text"}}',
        Command(4, PublishRequest("a", Payload(Kind.JSON, b'"text"'))),
    ),
    ('{"id":5,"rpc":{"method":"say","data":null}}', Command(5, RPCRequest(Payload(Kind.JSON, b"null"), "say"))),
    ('{"id":5,"rpc":{"method":"say"}}', Command(5, RPCRequest(method="say"))),
    (
        '{"id":6,"history":{"channel":"a","limit":-1,"since":{"offset":18446744073709551615,"epoch":"e"}}}',
        Command(6, HistoryRequest("a", -1, StreamPosition(2**64 - 1, "e"))),
    ),
    ('{"id":7,"sub_refresh":{"channel":"a","token":"t"}}', Command(7, SubRefreshRequest("a", "t"))),
    ('{"id":8,"ping":{}}', Command(8, PingRequest())),
    ('{"send":{"data":1}}', Command(0, SendRequest(Payload(Kind.JSON, b"1")))),
    ("{}", Command(0, Pong())),
    (' { "id" : null } ', Command(0, Pong())),
]


@pytest.mark.parametrize(("text", "said"), GOLDEN_COMMANDS, ids=[text[:40] for text, _ in GOLDEN_COMMANDS])
def test_a_command_is_read_as_the_protocol_says(text: str, said: Command) -> None:
    assert ENCODING.decode(text) == [said]


def test_unknown_and_experimental_fields_are_ignored() -> None:
    text = (
        '{"id":1,"method":3,"params":{},"subscribe":{"channel":"a","delta":"fossil","phase":"x","cursor":7,"limit":[],'
        '"asc":null,"new":{}},"map_subscribe":null,"rpc":null}'
    )
    assert ENCODING.decode(text) == [Command(1, SubscribeRequest("a"))]


def test_a_null_is_as_if_it_was_not_there() -> None:
    text = '{"id":1,"subscribe":{"channel":"a","token":null,"offset":null,"tf":null,"recover":null}}'
    assert ENCODING.decode(text) == [Command(1, SubscribeRequest("a"))]


def test_data_is_written_anew_without_line_breaks() -> None:
    (said,) = ENCODING.decode('{"id":1,"rpc":{"data":[1, \r "a\\nb" ]}}')
    assert said.request == RPCRequest(Payload(Kind.JSON, b'[1,"a\\nb"]'))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not JSON"),
        ("\n", "not JSON"),
        ("{}\n\n{}", "not JSON"),
        ("[]", "a command is an object"),
        ("null", "a command is an object"),
        ("{", "not JSON"),
        ('{"id":1}', "no request that is known"),
        ('{"id":1,"subscribe_map":{"channel":"a"}}', "no request that is known"),
        ('{"id":1,"rpc":{},"ping":{}}', "2 requests"),
        ('{"rpc":{"method":"say"}}', "without an id"),
        ('{"id":0,"connect":{}}', "without an id"),
        ('{"id":1,"subscribe":{}}', "without a channel"),
        ('{"id":1,"publish":{"channel":"","data":1}}', "without a channel"),
        ('{"id":"1","ping":{}}', "id: got '1'; accepted: a whole number"),
        ('{"id":true,"ping":{}}', "id: got True"),
        ('{"id":1.0,"ping":{}}', "id: got 1.0"),
        ('{"id":-1,"ping":{}}', "id: got -1"),
        ('{"id":4294967296,"ping":{}}', "id: got 4294967296"),
        ('{"id":1,"rpc":[]}', "rpc: got []; accepted: an object"),
        ('{"id":1,"rpc":{"method":7}}', "rpc.method: got 7; accepted: a string"),
        ('{"id":1,"subscribe":{"channel":"a","recover":1}}', "subscribe.recover: got 1; accepted: true or false"),
        ('{"id":1,"subscribe":{"channel":"a","offset":-1}}', "subscribe.offset: got -1; accepted: a whole number"),
        ('{"id":1,"subscribe":{"channel":"a","tf":[]}}', "tf: got []; accepted: an object"),
        ('{"id":1,"history":{"channel":"a","limit":2147483648}}', "history.limit: got 2147483648"),
        ('{"id":1,"history":{"channel":"a","since":{"offset":"7"}}}', "since.offset: got '7'"),
        ('{"id":1,"connect":{"headers":{"a":1}}}', "connect.headers: got"),
        ('{"id":1,"connect":{"headers":[]}}', "connect.headers: got []; accepted: an object"),
        ('{"id":1,"connect":{"subs":{"a":{"offset":1.5}}}}', "subs.offset: got 1.5"),
        ('{"id":1,"rpc":{"data":NaN}}', "not JSON"),
        ("\ud800", "surrogates"),
        ('{"id":1,"rpc":{"data":' + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1) + "}}", "nested over"),
        ("[" * 100_000, "not JSON"),
        ("{}\n" * MAX_COMMANDS + "{}", f"over {MAX_COMMANDS} commands"),
    ],
    ids=lambda text: ascii(text[:40]),
)
def test_a_malformed_command_is_refused_with_the_reason(text: str, problem: str) -> None:
    with pytest.raises(BadRequest) as refused:
        ENCODING.decode(text)
    assert problem in str(refused.value)
    assert len(str(refused.value)) < 400


def test_as_many_commands_as_a_reconnecting_client_sends_are_read() -> None:
    assert ENCODING.decode("{}\n" * MAX_COMMANDS) == [Command(0, Pong())] * MAX_COMMANDS


def read(data: str | bytes) -> list[Command]:
    """The commands, or none if the message is refused; nothing else may happen."""
    try:
        found = ENCODING.decode(data)
    except BadRequest:
        return []
    assert found
    assert all(type(each) is Command for each in found)
    return found


@settings(max_examples=100, deadline=None)
@given(st.binary() | st.text())
@example(b"\xff")
@example(b'{"id":1,"rpc":{"data":"\xff"}}')
@example(b'{"id":1,"rpc":{"data":' + b"9" * 5000 + b"}}")
@example(b'{"id":1,"rpc":{"data":1e999}}')
@example('{"id":1,"rpc":{"data":"\\ud800"}}')
def test_any_bytes_are_commands_or_are_refused(data: str | bytes) -> None:
    read(data)


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["id", "rpc", "connect", "subscribe", "history", "send", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["channel", "data", "subs", "offset", "since", "tf", "headers"]), inner, max_size=3
                )
            ),
        ),
    )
)
def test_objects_with_fields_of_any_type_are_commands_or_are_refused(value: Any) -> None:
    read(json.dumps(value))


@settings(max_examples=15, deadline=None)
@given(st.lists(commands(JSON_DATA), min_size=1, max_size=2))
def test_a_message_that_is_cut_off_is_refused_unless_whole_commands_are_left(said: list[Command]) -> None:
    text = written(said)
    left = {"\n".join(text.split("\n")[:count]): said[:count] for count in range(1, len(said))}
    for end in range(len(text)):
        assert read(text[:end]) == left.get(text[:end].removesuffix("\n"), [])


# Replies and pushes


@settings(max_examples=50, deadline=None)
@given(st.lists(REPLIES, min_size=1, max_size=4))
def test_replies_and_pushes_say_what_they_are(told: list[Reply | Push]) -> None:
    assert [json.loads(line) for line in lines(ENCODING.encode(told))] == [envelope_in_json(each) for each in told]


GOLDEN_REPLIES: list[tuple[Reply | Push, str]] = [
    (
        Reply(1, ConnectResult(client="c", version="0", ping=25, pong=True)),
        '{"id":1,"connect":{"client":"c","version":"0","ping":25,"pong":true}}',
    ),
    (
        Reply(2, SubscribeResult(recoverable=True, positioned=True, epoch="abcdefgh", offset=7, recovered=True,
                                 was_recovering=True, publications=(Publication(encode({"n": 1}), offset=8),))),
        '{"id":2,"subscribe":{"recoverable":true,"epoch":"abcdefgh","publications":[{"data":{"n":1},"offset":8}],'
        '"recovered":true,"offset":7,"positioned":true,"was_recovering":true}}',
    ),
    (Reply(3, SubscribeResult()), '{"id":3,"subscribe":{}}'),
    (Reply(4, PublishResult()), '{"id":4,"publish":{}}'),
    (Reply(5, RPCResult(encode(None))), '{"id":5,"rpc":{"data":null}}'),
    (Reply(5, RPCResult(encode("hé"))), '{"id":5,"rpc":{"data":"hé"}}'),
    (Reply(5, RPCResult(encode(b"\xff\0"))), '{"id":5,"rpc":{"data":"/wA="}}'),
    (Reply(5, RPCResult()), '{"id":5,"rpc":{}}'),
    (Reply(6, Error(103, "permission denied")), '{"id":6,"error":{"code":103,"message":"permission denied"}}'),
    (Reply(6, Error(100, "x", True)), '{"id":6,"error":{"code":100,"message":"x","temporary":true}}'),
    (
        Reply(7, PresenceResult({"c": ClientInfo("", "c", encode({"n": 1}), encode([]))})),
        '{"id":7,"presence":{"presence":{"c":{"user":"","client":"c","conn_info":{"n":1},"chan_info":[]}}}}',
    ),
    (Reply(8, PresenceStatsResult(3, 2)), '{"id":8,"presence_stats":{"num_clients":3,"num_users":2}}'),
    (Reply(9, HistoryResult((), "e", 4)), '{"id":9,"history":{"epoch":"e","offset":4}}'),
    (Push("a", Join(ClientInfo("u", "c"))), '{"push":{"channel":"a","join":{"info":{"user":"u","client":"c"}}}}'),
    (Push("a", Leave(ClientInfo())), '{"push":{"channel":"a","leave":{"info":{"user":"","client":""}}}}'),
    (Push("a", Unsubscribe(2500, "x")), '{"push":{"channel":"a","unsubscribe":{"code":2500,"reason":"x"}}}'),
    (Push("", Message(encode([1]))), '{"push":{"message":{"data":[1]}}}'),
]  # fmt: skip


@pytest.mark.parametrize(("told", "text"), GOLDEN_REPLIES, ids=[text[:40] for _, text in GOLDEN_REPLIES])
def test_a_reply_is_written_as_the_protocol_says(told: Reply | Push, text: str) -> None:
    assert ENCODING.encode([told]) == frame(Opcode.TEXT, text.encode())


def test_replies_share_a_frame_a_line_each() -> None:
    assert lines(ENCODING.encode([Reply(1, PublishResult()), Reply(2, RPCResult(encode(7)))])) == [
        '{"id":1,"publish":{}}',
        '{"id":2,"rpc":{"data":7}}',
    ]


def test_a_ping_is_an_empty_object() -> None:
    assert ENCODING.ping == frame(Opcode.TEXT, b"{}")


# Publications


@settings(max_examples=50, deadline=None)
@given(
    TEXT.filter(bool),
    ANY_DATA,
    st.integers(0, 2**64 - 1),
    st.none() | messages(ClientInfo, ANY_DATA),
    st.none() | st.dictionaries(TEXT, TEXT, max_size=3),
)
def test_a_publication_is_the_push_that_it_stands_for(
    channel: str, payload: Payload, offset: int, info: ClientInfo | None, tags: dict[str, str] | None
) -> None:
    data = ENCODING.publication(channel, payload, offset, info, tags)
    push = Push(channel, Publication(payload, info, offset, tags or {}))
    assert json.loads(only(data)) == json.loads(only(ENCODING.encode([push]))) == envelope_in_json(push)


def test_a_publication_is_written_as_the_protocol_says() -> None:
    assert ENCODING.publication('ä"', encode({"text": "hi"}), 12) == frame(
        Opcode.TEXT, '{"push":{"channel":"ä\\"","pub":{"data":{"text":"hi"},"offset":12}}}'.encode()
    )
    assert only(ENCODING.publication("a", encode("hi"))) == '{"push":{"channel":"a","pub":{"data":"hi"}}}'
    assert only(ENCODING.publication("a", encode(b"\xff"), 1, tags={"k": "v"})) == (
        '{"push":{"channel":"a","pub":{"data":"/w==","offset":1,"tags":{"k":"v","encoding":"base64"}}}}'
    )


@pytest.mark.parametrize("told", [Publication, Message, RPCResult])
def test_json_that_the_app_wrote_over_several_lines_stays_one_line(told: type[Any]) -> None:
    payload = encode(Fragment(b'{\n "a":\r\n "b\\n"\n}'))
    assert payload.data.count(b"\n") == 3
    replies: list[bytes] = [ENCODING.publication("a", payload)]
    replies.append(ENCODING.encode([Reply(1, told(payload)) if told is RPCResult else Push("a", told(payload))]))
    for data in replies:
        assert '"data":{' in only(data)
        assert '"b\\n"' in json.dumps(json.loads(only(data)))


def test_a_client_s_message_can_be_sent_on_as_deep_as_it_may_be() -> None:
    nested = "[" * (MAX_DEPTH - 2) + "]" * (MAX_DEPTH - 2)
    (said,) = ENCODING.decode('{"id":1,"publish":{"channel":"a","data":' + nested + "}}")
    assert isinstance(said.request, PublishRequest)
    assert said.request.data == Payload(Kind.JSON, nested.encode())
    assert nested in only(ENCODING.publication("a", said.request.data))
    assert dumps([Fragment(said.request.data.data)])
