"""Frames: what we write is what RFC 6455 says, as the websockets library reads it."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.frames import Frame
from websockets.streams import StreamReader

from hubbub.protocols.frames import Opcode, frame, split

OPCODES = st.sampled_from(Opcode)
PAYLOADS = st.binary(max_size=300) | st.sampled_from([125, 126, 127, 65535, 65536, 65537]).map(bytes)


def parse(data: bytes) -> list[Frame]:
    """Reads frames with the parser that websockets' clients have."""
    reader = StreamReader()
    reader.feed_data(data)
    frames = []
    while reader.buffer:
        parsing = Frame.parse(reader.read_exact, mask=False, max_size=None)
        try:
            next(parsing)
        except StopIteration as stop:
            frames.append(stop.value)
        else:
            raise AssertionError("the frame is not complete")
    return frames


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, "82 00"),
        (1, "82 01"),
        (125, "82 7d"),
        (126, "82 7e 00 7e"),
        (127, "82 7e 00 7f"),
        (65535, "82 7e ff ff"),
        (65536, "82 7f 00 00 00 00 00 01 00 00"),
        (1 << 24, "82 7f 00 00 00 00 01 00 00 00"),
    ],
)
def test_the_header_is_as_short_as_the_rfc_asks(size: int, header: str) -> None:
    payload = bytes(size)
    assert frame(Opcode.BINARY, payload) == bytes.fromhex(header) + payload


def test_the_opcodes_are_those_of_the_rfc() -> None:
    assert frame(Opcode.TEXT, b"hi") == b"\x81\x02hi"
    assert frame(Opcode.BINARY, b"hi") == b"\x82\x02hi"


@given(OPCODES, PAYLOADS)
@example(Opcode.TEXT, b"")
def test_another_library_reads_the_same_message(opcode: Opcode, payload: bytes) -> None:
    (found,) = parse(frame(opcode, payload))
    assert int(found.opcode) == opcode
    assert bytes(found.data) == payload
    assert found.fin
    assert (found.rsv1, found.rsv2, found.rsv3) == (False, False, False)


@given(st.lists(st.tuples(OPCODES, PAYLOADS), max_size=8))
def test_split_gives_back_what_was_framed(messages: list[tuple[Opcode, bytes]]) -> None:
    data = b"".join(frame(opcode, payload) for opcode, payload in messages)
    assert list(split(data)) == messages
    assert [(Opcode(each.opcode), bytes(each.data)) for each in parse(data)] == messages
