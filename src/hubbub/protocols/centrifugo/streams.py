"""The protocol on HTTP streams, for clients of networks that break WebSockets: the fallbacks of the JavaScript SDK.

Replies and pushes are those of a WebSocket. Their frames are chunks of an HTTP response:

* ``http_stream`` in JSON: one reply a line. In Protobuf: each behind its length, as in a WebSocket's frame.
* ``sse``: each in a server-sent event of its own. JSON only.

A stream has no Close frame. So the last frame is the push of a `Disconnect`, which has its code and reason.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from ...close import Closed
from ..base import StreamProtocol
from ..chunks import chunk
from . import centrifugo_protobuf
from .encoding import Encoding
from .json import JsonEncoding
from .messages import Disconnect, Push
from .protocol import CentrifugoProtocol


class CentrifugoStream(CentrifugoProtocol, StreamProtocol):
    """One encoding of the protocol, on a stream.

    Args:
        encoding: The encoding, whose frames are chunks.
        media_type: The ``Content-Type`` of the response.
    """

    __slots__ = ("_media_type",)

    def __init__(self, encoding: Encoding, media_type: str) -> None:
        super().__init__(encoding)
        self._media_type = media_type

    @property
    def media_type(self) -> str:
        return self._media_type

    def ending(self, closed: Closed, retry_ms: int) -> bytes:
        return self.encoding.encode([Push("", Disconnect(closed.code, closed.reason))])


def _line(message: bytes) -> bytes:
    return chunk(message + b"\n")


def _events(message: bytes) -> bytes:
    # JSON of the app may have a carriage return between its tokens, which ends a line of an event.
    return chunk(b"data: %b\n\n" % message.replace(b"\r", b" ").replace(b"\n", b"\n\ndata: "))


JSON_LINES: Final = CentrifugoStream(JsonEncoding(_line), "application/json")
"""``http_stream`` in JSON."""

JSON_EVENTS: Final = CentrifugoStream(JsonEncoding(_events), "text/event-stream")
"""``sse``."""


@cache
def protobuf_stream() -> CentrifugoStream:
    """Returns ``http_stream`` in Protobuf. It is always the same object, made on the first call.

    Raises:
        InvalidArgument: protobuf is not installed.
    """
    encoding = type(centrifugo_protobuf().encoding)
    return CentrifugoStream(encoding(chunk), encoding.media_type)
