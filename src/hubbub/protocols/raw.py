"""The raw protocol: clients receive the messages of the app unchanged. It is the default.

A message is one frame: ``str`` and JSON are text, ``bytes`` are binary. Depending on the manager's options, hubbub also
sends small JSON objects with a ``type``: ``pong``, ``error``, and in a room with ``announce=True`` ``user_joined`` and
``user_left``.
"""

from __future__ import annotations

from typing import Final

from ..codec import Kind, Payload, dumps, loads
from ..envelope import Announcement, Envelope
from .base import ClientProtocol, RoomInfo
from .frames import Opcode, frame

_MAX_PING_CHARS: Final = 64
_PONG: Final = frame(Opcode.TEXT, b'{"type":"pong"}')


class RawProtocol(ClientProtocol):
    """The protocol of clients that receive the messages of the app unchanged.

    Args:
        app_ping: Answer a client's ``{"type":"ping"}`` with ``{"type":"pong"}`` instead of passing it to the app.
        client_frames: Send ``error`` objects.
    """

    __slots__ = ("_app_ping", "_client_frames")

    def __init__(self, *, app_ping: bool, client_frames: bool) -> None:
        self._app_ping = app_ping
        self._client_frames = client_frames

    def publication(self, room: RoomInfo, message: Envelope) -> bytes:
        return self.message(message.payload)

    def announcement(self, room: RoomInfo, event: Announcement) -> bytes | None:
        if event.user_id is None:  # raw clients hear of users
            return None
        # The info is JSON already.
        start = b'{"type":"user_%b","room":%b,"user_id":%b' % (
            event.kind.encode(),
            dumps(room.label),
            dumps(event.user_id),
        )
        end = b',"info":%b,"count":%d,"timestamp":%b}' % (event.info, event.count, dumps(event.at))
        return frame(Opcode.TEXT, start + end)

    def message(self, payload: Payload) -> bytes:
        return frame(Opcode.BINARY if payload.kind is Kind.BINARY else Opcode.TEXT, payload.data)

    def error(self, code: str, problem: str) -> bytes | None:
        if not self._client_frames:
            return None
        return frame(Opcode.TEXT, dumps({"type": "error", "code": code, "message": problem}))

    def reply(self, text: str | None, data: bytes | None) -> bytes | None:
        if self._app_ping and text is not None and len(text) < _MAX_PING_CHARS and _is_ping(text):
            return _PONG
        return None


def _is_ping(text: str) -> bool:
    if '"ping"' not in text:
        return False
    try:
        return bool(loads(text) == {"type": "ping"})
    except ValueError:
        return False
