"""A second client protocol, for members beside raw ones in the same rooms: each message is wrapped in a JSON array."""

from __future__ import annotations

import base64
import json

from starlette.websockets import WebSocket

from hubbub.codec import Payload, dumps
from hubbub.envelope import Announcement, Envelope
from hubbub.protocols import ClientProtocol, RawProtocol, RoomInfo
from hubbub.protocols.frames import Opcode, frame, split

SPEAKS_ARRAYS = "speaks=arrays"
"""What a client that speaks it says in the query."""

RAW = RawProtocol(app_ping=False, client_frames=True)


class ArrayProtocol(ClientProtocol):
    """Text is ``["the text"]``, bytes are ``["", "in base64"]``; what it says and when is as in the raw protocol."""

    def publication(self, room: RoomInfo, message: Envelope) -> bytes:
        return wrapped(RAW.publication(room, message))

    def announcement(self, room: RoomInfo, event: Announcement) -> bytes | None:
        raw = RAW.announcement(room, event)
        return None if raw is None else wrapped(raw)

    def message(self, payload: Payload) -> bytes:
        return wrapped(RAW.message(payload))

    def error(self, code: str, problem: str) -> bytes | None:
        raw = RAW.error(code, problem)
        return None if raw is None else wrapped(raw)

    def reply(self, text: str | None, data: bytes | None) -> bytes | None:
        return frame(Opcode.TEXT, b'["pong"]') if text == '["ping"]' else None


ARRAYS = ArrayProtocol()


def wrapped(raw: bytes) -> bytes:
    ((opcode, payload),) = split(raw)
    fields = [payload.decode()] if opcode is Opcode.TEXT else ["", base64.b64encode(payload).decode()]
    return frame(Opcode.TEXT, dumps(fields))


def unwrapped(message: str | bytes) -> str | bytes:
    """What a raw client would have got in place of an array."""
    assert isinstance(message, str), "an array is text"
    text, *data = json.loads(message)
    assert isinstance(text, str)
    return base64.b64decode(data[0]) if data else text


def speak(websocket: WebSocket) -> None:
    """Lets a client that asks for it speak in arrays. To be called before the manager connects it."""
    if websocket.query_params.get("speaks") == "arrays":
        websocket.scope["hubbub"].speak(ARRAYS)
