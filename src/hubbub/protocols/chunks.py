"""The frames of HTTP streams: chunks of the chunked transfer coding (RFC 9112 section 7.1), without extensions.

A message to the readers of a stream is framed once, for all of them. Over HTTP/1.1 that includes the chunk around it,
so that the same bytes can be written to every socket. A transport that does not write chunks itself takes them off.
"""

from __future__ import annotations


def chunk(data: bytes) -> bytes:
    """Returns data as one chunk. Empty data would end the body, so it gives no bytes at all."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def unchunked(chunks: bytes) -> bytes:
    """Returns the data of chunks that `chunk` made, which follow each other."""
    parts: list[bytes] = []
    at = 0
    while at < len(chunks):
        line = chunks.index(b"\r\n", at)
        begin = line + 2
        end = begin + int(chunks[at:line], 16)
        parts.append(chunks[begin:end])
        at = end + 2
    return parts[0] if len(parts) == 1 else b"".join(parts)
