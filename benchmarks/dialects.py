"""How the clients of a server speak: what they say first, and what they wrap a message in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dialect:
    """What goes over the WebSocket besides the messages. ``{path}`` stands for the path of the scenario.

    Attributes:
        path: Path of the handshake.
        hello: What a client says, each after it has got a message; and after the last one it gets another.
        before: What stands before a message; ``{size}`` is that of the payload.
        after: What stands behind it.
        ping: A message that is a ping, and what it is answered with.
        coalesces: Whether one WebSocket message may hold several of ours, or parts of them.
    """

    path: str = "{path}"
    hello: tuple[str, ...] = ()
    before: str = ""
    after: str = ""
    ping: tuple[bytes, bytes] | None = None
    coalesces: bool = False

    def around(self, path: str, size: int) -> tuple[bytes, bytes]:
        """What a payload of that size stands between."""
        return self.before.replace("{path}", path).replace("{size}", str(size)).encode(), self.after.encode()


PLAIN = Dialect()

SOCKETIO = Dialect(
    path="/socket.io/?EIO=4&transport=websocket&path={path}",
    hello=("40",),
    before='42["message","',
    after='"]',
    ping=(b"2", b"3"),
)
"""Engine.IO 4 and Socket.IO 5, over a WebSocket from the start: the server opens with ``0{...}``, we answer ``40``."""

NATS = Dialect(
    path="/",
    hello=('CONNECT {"verbose":false}\r\nSUB {path} 1\r\nPING\r\n',),
    before="PUB {path} {size}\r\n",
    after="\r\n",
    ping=(b"PING\r\n", b"PONG\r\n"),
    coalesces=True,
)
"""The protocol of NATS inside of WebSocket messages: the server opens with INFO, and answers PONG to our PING."""

DIALECTS = {"plain": PLAIN, "socketio": SOCKETIO, "nats": NATS}
