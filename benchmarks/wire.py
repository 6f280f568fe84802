"""The client side of RFC 6455, for a load generator: handshakes, masked frames, and a parser for what comes back.

Plain functions over bytes that never wait. All messages of a run have one size, so the generator does not parse whole
frames of that size. The parser is for everything else: pings, partial frames, and the Close frame.
"""

from __future__ import annotations

from collections.abc import Iterator

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA


def handshake(host: str, path: str) -> bytes:
    """Returns the request, which offers no compression."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def get(host: str, path: str) -> bytes:
    """Returns the request for a stream of events."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Accept: text/event-stream"]
    return "\r\n".join([*lines, "", ""]).encode()


def client_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """Returns a client's frame. The mask is zero, which every server must accept (section 5.3)."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 65536:
        head = bytes((0x80 | opcode, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 0x80 | 127)) + size.to_bytes(8, "big")
    return head + b"\0\0\0\0" + payload


def frames(data: bytes) -> Iterator[tuple[int, int, bytes, int]]:
    """Iterates over the whole frames at the start of ``data``: opcode, wire size, payload, start of the next frame."""
    at, end = 0, len(data)
    while end - at >= 2:
        opcode, size, head = data[at] & 0x0F, data[at + 1], 2
        if size == 126:
            head = 4
        elif size == 127:
            head = 10
        if end - at < head:
            return
        if head > 2:
            size = int.from_bytes(data[at + 2 : at + head], "big")
        if end - at < head + size:
            return
        yield opcode, head + size, data[at + head : at + head + size], at + head + size
        at += head + size
