"""The client's side of the protocol in JSON, against the server's side and the JSON of the standard library."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.protocols.centrifugo import CENTRIFUGO_JSON
from hubbub.protocols.centrifugo.json_client import command_text, replies_in
from hubbub.protocols.centrifugo.messages import EVENTS, RESULTS, ClientInfo, Command, Leave, Push, Reply
from hubbub.protocols.frames import split
from tests.unit.protocols.centrifugo.said import JSON_DATA, TEXT, commands, envelope_in_json, messages

ENCODING = CENTRIFUGO_JSON.encoding
REPLIES: st.SearchStrategy[Reply | Push] = st.builds(
    Reply, st.integers(1, 2**32 - 1), st.one_of([messages(each.type, JSON_DATA) for each in RESULTS.values()])
) | st.builds(Push, TEXT, st.one_of([messages(each.type, JSON_DATA) for each in EVENTS.values()]))


@settings(max_examples=50, deadline=None)
@given(commands(JSON_DATA))
def test_a_command_is_written_as_the_protocol_says(said: Command) -> None:
    assert json.loads(command_text(said)) == envelope_in_json(said)
    assert ENCODING.decode(command_text(said)) == [said]


@settings(max_examples=50, deadline=None)
@given(st.lists(REPLIES, min_size=1, max_size=4))
def test_replies_and_pushes_are_read_as_the_server_wrote_them(told: list[Reply | Push]) -> None:
    ((_, data),) = split(ENCODING.encode(told))
    assert list(replies_in(data.decode())) == told


def test_a_ping_is_read_among_replies() -> None:
    assert list(replies_in('{"id":1,"publish":{}}\n{}'))[1] is None


def test_fields_that_are_not_known_are_ignored() -> None:
    text = '{"push":{"channel":"a","new":1,"leave":{"info":{"user":"u","client":"c","new":2}}}}'
    assert list(replies_in(text)) == [Push("a", Leave(ClientInfo("u", "c")))]
