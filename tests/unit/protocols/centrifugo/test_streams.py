"""The protocol on HTTP streams: the frames that a client without a WebSocket reads, and the posts that it sends."""

from __future__ import annotations

import json

import pytest

from hubbub.close import Closed
from hubbub.codec import Kind, Payload
from hubbub.protocols.centrifugo import CENTRIFUGO_JSON, BadRequest, centrifugo_protobuf
from hubbub.protocols.centrifugo.encoding import Post
from hubbub.protocols.centrifugo.messages import Error, Reply
from hubbub.protocols.centrifugo.protobuf import _CLASSES
from hubbub.protocols.centrifugo.streams import JSON_EVENTS, JSON_LINES, protobuf_stream
from hubbub.protocols.chunks import unchunked

REPLIES = [Reply(1, Error(100)), Reply(2, Error(101))]


def test_json_lines_are_one_reply_each() -> None:
    encoding = JSON_LINES.encoding
    assert unchunked(encoding.encode(REPLIES)) == (b'{"id":1,"error":{"code":100}}\n{"id":2,"error":{"code":101}}\n')
    assert unchunked(encoding.ping) == b"{}\n"


def test_json_events_are_one_reply_each() -> None:
    encoding = JSON_EVENTS.encoding
    assert unchunked(encoding.encode(REPLIES)) == (
        b'data: {"id":1,"error":{"code":100}}\n\ndata: {"id":2,"error":{"code":101}}\n\n'
    )
    assert unchunked(encoding.ping) == b"data: {}\n\n"


@pytest.mark.parametrize("stream", [JSON_LINES, JSON_EVENTS], ids=["lines", "events"])
@pytest.mark.parametrize("space", ["\n", "\r", "\r\n", "\n\n\r"])
def test_white_space_in_json_of_the_app_ends_nothing(stream: object, space: str) -> None:
    encoding = JSON_LINES.encoding if stream is JSON_LINES else JSON_EVENTS.encoding
    frame = encoding.publication("room", Payload(Kind.JSON, f'{{"a":{space}1,{space}"b":"\\r\\n"}}'.encode()))
    text = unchunked(frame).decode().removeprefix("data: ").rstrip("\n")
    assert "\n" not in text
    assert stream is JSON_LINES or "\r" not in text
    assert json.loads(text)["push"]["pub"]["data"] == {"a": 1, "b": "\r\n"}


def test_protobuf_on_a_stream_is_that_of_a_websocket_in_chunks() -> None:
    stream, socket = protobuf_stream().encoding, centrifugo_protobuf().encoding
    joined = socket.joined([socket.written(each) for each in REPLIES])
    assert unchunked(stream.encode(REPLIES)) == joined
    assert unchunked(stream.ping) == b"\0"
    assert protobuf_stream() is protobuf_stream()


def test_the_last_frame_has_the_code_and_the_reason() -> None:
    last = unchunked(JSON_LINES.ending(Closed(3503, "force disconnect"), 0))
    assert json.loads(last) == {"push": {"disconnect": {"code": 3503, "reason": "force disconnect"}}}


def test_posts_are_parsed_in_both_encodings() -> None:
    body = json.dumps({"session": "s", "node": "n", "data": '{"id":1}', "more": 1}).encode()
    assert CENTRIFUGO_JSON.encoding.posted(body) == Post("s", "n", '{"id":1}')
    record = _CLASSES["EmulationRequest"](session="s", node="n", data=b"\0\xff")
    assert centrifugo_protobuf().encoding.posted(record.SerializeToString()) == Post("s", "n", b"\0\xff")
    for malformed in (b"", b"[]", b"{}", b'{"session":"s","node":"n"}', b'{"session":1,"node":"n","data":""}', b"\xff"):
        with pytest.raises(BadRequest):
            CENTRIFUGO_JSON.encoding.posted(malformed)
    with pytest.raises(BadRequest):
        centrifugo_protobuf().encoding.posted(b"\xff")
