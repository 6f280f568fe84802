"""The protocols of the servers' clients: their first messages, and the envelope of a message."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dialect:
    """A protocol on top of WebSocket. ``{path}`` stands for the path of the scenario.

    Attributes:
        path: The path of the handshake.
        hello: The client's first messages. Each is sent after a message of the server, and the last one is answered.
        before: The text before a payload; ``{size}`` is the size of the payload.
        after: The text after a payload.
        ping: The server's ping message, and its answer.
        coalesces: Whether one WebSocket message may contain several messages, or parts of them.
    """

    path: str = "{path}"
    hello: tuple[str, ...] = ()
    before: str = ""
    after: str = ""
    ping: tuple[bytes, bytes] | None = None
    coalesces: bool = False

    def around(self, path: str, size: int) -> tuple[bytes, bytes]:
        """Returns the bytes before and after a payload of a size."""
        return self.before.replace("{path}", path).replace("{size}", str(size)).encode(), self.after.encode()


PLAIN = Dialect()

SOCKETIO = Dialect(
    path="/socket.io/?EIO=4&transport=websocket&path={path}",
    hello=("40",),
    before='42["message","',
    after='"]',
    ping=(b"2", b"3"),
)
"""Engine.IO 4 and Socket.IO 5, over WebSocket only: the server opens with ``0{...}``, the client answers ``40``."""

NATS = Dialect(
    path="/",
    hello=('CONNECT {"verbose":false}\r\nSUB {path} 1\r\nPING\r\n',),
    before="PUB {path} {size}\r\n",
    after="\r\n",
    ping=(b"PING\r\n", b"PONG\r\n"),
    coalesces=True,
)
"""The NATS protocol in WebSocket messages: the server opens with INFO, and answers PONG to the client's PING."""

DIALECTS = {"plain": PLAIN, "socketio": SOCKETIO, "nats": NATS}
