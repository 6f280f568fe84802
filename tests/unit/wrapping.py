"""A second client protocol, to sit in the same rooms as raw members: each message is wrapped in a JSON array."""

from __future__ import annotations

import base64
from typing import Any

from hubbub.codec import Kind, Payload, decode, dumps, loads
from hubbub.envelope import Envelope, Relabel, Reset
from hubbub.positions import Joined
from hubbub.protocols import ClientProtocol, RoomInfo
from hubbub.protocols.frames import Opcode, frame


class ArrayProtocol(ClientProtocol):
    """Every frame is text and one JSON array: what it is, the room, and what there is to say of it.

    Bytes are base64. It answers ``["ping"]`` and has positions in every room that has them.
    """

    def publication(self, room: RoomInfo, message: Envelope) -> bytes:
        return _array("message", room.label, message.position, _value(message.payload))

    def exclusion(self, room: RoomInfo, message: Envelope) -> bytes | None:
        return None if message.position is None else _array("position", room.label, message.position)

    def renumbering(self, room: RoomInfo, news: Reset | Relabel) -> bytes | None:
        return _array("lost" if isinstance(news, Reset) else "renumbered", room.label, news.position)

    def message(self, payload: Payload) -> bytes:
        return _array("message", None, None, _value(payload))

    def joined(self, room: RoomInfo, joined: Joined, connection_id: str) -> bytes | None:
        return _array("joined", room.label, joined.position, joined.recovered)

    def dropped(self, room: str, count: int) -> bytes | None:
        return _array("dropped", room, None, count)

    def error(self, code: str, problem: str) -> bytes | None:
        return _array("error", code, None, problem)

    def reply(self, text: str | None, data: bytes | None) -> bytes | None:
        return _array("pong") if text == '["ping"]' else None


ARRAYS = ArrayProtocol()


def _value(payload: Payload) -> Any:
    return base64.b64encode(payload.data).decode() if payload.kind is Kind.BINARY else decode(payload)


def _array(*fields: Any) -> bytes:
    return frame(Opcode.TEXT, dumps(fields))


def unwrapped(text: str | bytes) -> list[Any]:
    """What an array says, as a client reads it."""
    fields: list[Any] = loads(text)
    assert isinstance(fields, list)
    return fields


def as_raw(fields: list[Any]) -> Any:
    """What an array says, as a raw client in a room with positions is told it."""
    kind, room, position, *more = fields
    if position is None:
        return more[0]
    place = {"room": room, "epoch": position[0], "offset": position[1]}
    match kind:
        case "message":
            return {**place, "data": more[0]}
        case "position":
            return place
        case "joined":
            return {**place, "type": "sync", "recovered": more[0]}
        case "lost":
            return {**place, "type": "reset"}
        case "renumbered":
            return {**place, "type": "epoch"}
    raise AssertionError(fields)
