"""The protocols of the servers' clients: their first messages, and the envelope of a message."""

from __future__ import annotations

from dataclasses import dataclass

from .wire import BINARY, TEXT


@dataclass(frozen=True, slots=True)
class Dialect:
    """A protocol on top of WebSocket. ``{path}`` stands for the path of the scenario.

    Attributes:
        path: The path of the handshake.
        hello: The client's first messages. The last one is answered.
        server_first: Whether the server sends a message before each of them.
        ready: Bytes that occur in the answer after which the client is ready. Answers without them are skipped.
        before: The text before a payload; ``{size}`` is the size of the payload.
        after: The text after a payload.
        ping: The server's ping message, and its answer.
        coalesces: Whether one WebSocket message may contain several messages, or parts of them.
        opcode: The opcode of the client's frames.
        is_stream: Whether the client is no WebSocket, but reads the answer to an HTTP request.
    """

    path: str = "{path}"
    hello: tuple[str, ...] = ()
    server_first: bool = True
    ready: bytes = b""
    before: str = ""
    after: str = ""
    ping: tuple[bytes, bytes] | None = None
    coalesces: bool = False
    opcode: int = TEXT
    is_stream: bool = False

    def opening(self, path: str) -> list[bytes]:
        """Returns the client's first messages."""
        return [hello.replace("{path}", path).encode() for hello in self.hello]

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


# The scenario `endpoint`: a payload is the text of a typed message, and the path is the name of the request

_TEXT, _END = '{"text":"', '"}'

TYPED = Dialect(before=_TEXT, after=_END)
"""A typed message as JSON, with nothing around it. The path of the handshake says what it is."""

TYPED_SOCKETIO = Dialect(
    path="/socket.io/?EIO=4&transport=websocket&path={path}",
    hello=("40",),
    before='42["{path}",' + _TEXT,
    after=_END + "]",
    ping=(b"2", b"3"),
)
"""Socket.IO: a typed message without an acknowledgement."""

ASKING_SOCKETIO = Dialect(
    path="/socket.io/?EIO=4&transport=websocket&path={path}",
    hello=("40",),
    before='421["{path}",' + _TEXT,
    after=_END + "]",
    ping=(b"2", b"3"),
)
"""Socket.IO: a typed message that the server acknowledges with its answer."""

CHANX = Dialect(
    path="/live",
    before='{"action":"{path}","payload":' + _TEXT,
    after=_END + "}",
)
"""chanx: a typed message in its envelope."""

_MEMBER = '{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"{path}"}}'

SUBSCRIBER = Dialect(
    path="/live",
    hello=(_MEMBER,),
    server_first=False,
    ready=b'"subscribe"',
    before='{"send":{"data":{"method":"say","data":' + _TEXT,
    after=_END + "}}}",
    ping=(b"{}", b"{}"),
)
"""The Centrifugo protocol in JSON: subscribes to the room that the path names, and sends messages without an answer."""

ASKING = Dialect(
    path="/live",
    hello=('{"id":1,"connect":{}}',),
    server_first=False,
    before='{"id":2,"rpc":{"method":"{path}","data":' + _TEXT,
    after=_END + "}}",
    ping=(b"{}", b"{}"),
)
"""The Centrifugo protocol in JSON: sends requests of the method that the path names."""


def _varint(number: int) -> bytes:
    low, number = number & 0x7F, number >> 7
    return bytes((low | 0x80,)) + _varint(number) if number else bytes((low,))


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _command(number: int, request: int, *fields: bytes) -> bytes:
    """Returns a command: its length, its id if it has one, and its request."""
    command = (b"\x08" + _varint(number) if number else b"") + _field(request, b"".join(fields))
    return _varint(len(command)) + command


_CONNECT, _SUBSCRIBE, _SEND, _RPC = 4, 5, 12, 13


@dataclass(frozen=True, slots=True)
class Protobuf(Dialect):
    """The Centrifugo protocol in Protobuf.

    Attributes:
        subscribes: Whether the client subscribes to the room that the path names, and sends messages without an answer.
            Otherwise it sends requests of the method that the path names.
    """

    subscribes: bool = False

    def opening(self, path: str) -> list[bytes]:
        connect = _command(1, _CONNECT)
        return [connect + _command(2, _SUBSCRIBE, _field(1, path.encode()))] if self.subscribes else [connect]

    def around(self, path: str, size: int) -> tuple[bytes, bytes]:
        payload = b"\0" * size
        data = _TEXT.encode() + payload + _END.encode()
        if self.subscribes:
            message = _command(0, _SEND, _field(1, b'{"method":"say","data":%b}' % data))
        else:
            message = _command(2, _RPC, _field(2, path.encode()), _field(1, data))
        before, _, after = message.partition(payload)
        return before, after


EVENTS = Dialect(path="/live/events?room={path}", is_stream=True)
"""Server-Sent Events of the room that the path names."""


def _protobuf(ready: bytes, subscribes: bool) -> Protobuf:
    path = "/live?format=protobuf"
    hello, ping = ("",), (b"\0", b"\0")
    return Protobuf(path, hello, False, ready, ping=ping, opcode=BINARY, subscribes=subscribes)


DIALECTS = {
    "plain": PLAIN,
    "socketio": SOCKETIO,
    "nats": NATS,
    "typed": TYPED,
    "socketio-typed": TYPED_SOCKETIO,
    "socketio-asking": ASKING_SOCKETIO,
    "chanx": CHANX,
    "subscriber": SUBSCRIBER,
    "asking": ASKING,
    # The reply to the subscribe command begins with its id and its field 6.
    "subscriber-protobuf": _protobuf(b"\x08\x022", subscribes=True),
    "asking-protobuf": _protobuf(b"", subscribes=False),
    "events": EVENTS,
}
