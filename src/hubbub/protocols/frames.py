"""RFC 6455 server frames (section 5.2): complete, unfragmented, unmasked, without extensions.

A frame with RSV1=0 is legal on a connection that negotiated permessage-deflate (RFC 7692 section 6), so the same frame
can be written to every connection, whatever it negotiated.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from struct import Struct


class Opcode(IntEnum):
    """The opcodes of the data frames that an application sends."""

    TEXT = 0x1
    BINARY = 0x2


_TINY, _SMALL, _LARGE = Struct("!BB").pack, Struct("!BBH").pack, Struct("!BBQ").pack
"""The three forms of a header, by the size of the payload."""


def frame(opcode: Opcode, payload: bytes) -> bytes:
    """Returns the frame of a whole message."""
    size = len(payload)
    first = 0x80 | opcode
    if size < 126:
        return _TINY(first, size) + payload
    if size < 65536:
        return _SMALL(first, 126, size) + payload
    return _LARGE(first, 127, size) + payload


def split(data: bytes) -> Iterator[tuple[Opcode, bytes]]:
    """Yields the messages of frames that `frame` made, which follow each other in ``data``."""
    at = 0
    while at < len(data):
        opcode = Opcode(data[at] & 0x0F)
        size = data[at + 1]
        at += 2
        if size >= 126:
            width = 2 if size == 126 else 8
            size = int.from_bytes(data[at : at + width], "big")
            at += width
        yield opcode, data[at : at + size]
        at += size
