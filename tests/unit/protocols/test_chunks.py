"""Chunks: as RFC 9112 section 7.1 has them, and back."""

from __future__ import annotations

import h11
from hypothesis import given
from hypothesis import strategies as st

from hubbub.protocols.chunks import chunk, unchunked


def test_no_data_ends_no_body() -> None:
    assert chunk(b"") == b""
    assert unchunked(b"") == b""


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=5))
def test_chunks_come_back_as_their_data(parts: list[bytes]) -> None:
    assert unchunked(b"".join(map(chunk, parts))) == b"".join(parts)


def test_a_client_reads_what_was_in_the_chunks() -> None:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"one") + chunk(b"x" * 70_000))
    read = b""
    while (event := client.next_event()) is not h11.NEED_DATA:
        if isinstance(event, h11.Data):
            read += bytes(event.data)
    assert read == b"one" + b"x" * 70_000
