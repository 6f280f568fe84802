"""The values that a test client of an endpoint returns: what an SDK hands to the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ..codec import Payload, decode
from ..positions import Position
from ..protocols.centrifugo import messages


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """A client, as other clients see it.

    Attributes:
        user: The user's id; empty if there is none.
        client: The client's id. All connections of a user share one.
        conn_info: The app's data about the user: ``Welcome(info=...)``.
        chan_info: The app's data about the connection in this room: ``Grant(info=...)``.
    """

    user: str
    client: str
    conn_info: Any = None
    chan_info: Any = None


@dataclass(frozen=True, slots=True)
class Publication:
    """A message in a room.

    Attributes:
        room: The room; ``"$user"`` for ``send_to_user``, ``"$everyone"`` for a broadcast to everyone.
        data: The message. Bytes are base64 text, with the tag ``encoding``, as for every client that speaks JSON.
        offset: Its number in the room's history; 0 in a room without history.
        info: The client that published it; None if the server did.
        tags: Its tags.
    """

    room: str
    data: Any
    offset: int = 0
    info: ClientInfo | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Join:
    """A client joined a room that has ``announce=True``.

    Attributes:
        room: The room.
        info: The client.
    """

    room: str
    info: ClientInfo


@dataclass(frozen=True, slots=True)
class Leave:
    """A client left a room that has ``announce=True``.

    Attributes:
        room: The room.
        info: The client.
    """

    room: str
    info: ClientInfo


@dataclass(frozen=True, slots=True)
class PersonalMessage:
    """A message to this connection alone, as ``connection.send`` and ``send_personal`` send it.

    Attributes:
        data: The message.
    """

    data: Any


@dataclass(frozen=True, slots=True)
class Subscribed:
    """A subscription: the result of a request, or made by the server.

    Attributes:
        room: The room.
        data: The app's data about the subscription: ``Grant(data=...)``.
        publications: The messages that the reply carries: those that were missed, or those of `RoomOptions.replay`.
        position: The position of the room, for ``subscribe(since=...)``. None in a room without positions.
        was_recovering: Whether the client asked for the messages after a position.
        recovered: Whether it receives all of them.
    """

    room: str
    data: Any = None
    publications: tuple[Publication, ...] = ()
    position: Position | None = None
    was_recovering: bool = False
    recovered: bool = False


@dataclass(frozen=True, slots=True)
class Unsubscribed:
    """The server ended a subscription.

    Attributes:
        room: The room.
        code: The reason as a number. From 2500 on, an SDK subscribes again by itself.
        reason: The reason as text.
    """

    room: str
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Connected:
    """The reply to a client that connects.

    Attributes:
        client: The id of the connection.
        data: The app's data for the client: ``Welcome(data=...)``.
        rooms: The subscriptions that the server made, by room: ``"$everyone"``, ``"$user"``, ``Welcome(rooms=...)``.
    """

    client: str
    data: Any
    rooms: Mapping[str, Subscribed]


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """A part of a room's history.

    Attributes:
        publications: The messages.
        position: The position of the newest message of the room; None in a room without positions.
    """

    publications: tuple[Publication, ...]
    position: Position | None


Event: TypeAlias = Publication | Join | Leave | PersonalMessage | Subscribed | Unsubscribed
"""An event that the server sends to a client without a request."""


def event_of(push: messages.Push) -> Event:
    """Returns the event in a push.

    Args:
        push: The push.
    """
    room = push.channel
    match push.event:
        case messages.Publication():
            return _publication(room, push.event)
        case messages.Join(info) if info is not None:
            return Join(room, client_info(info))
        case messages.Leave(info) if info is not None:
            return Leave(room, client_info(info))
        case messages.Message(data):
            return PersonalMessage(value_of(data))
        case messages.Subscribe(epoch=epoch, offset=offset, data=data):
            return Subscribed(room, value_of(data), position=_position(epoch, offset))
        case messages.Unsubscribe(code, reason):
            return Unsubscribed(room, code, reason)
    raise AssertionError(f"hubbub sends no such push: {push}")


def connected(result: messages.ConnectResult) -> Connected:
    """Converts the reply to ``connect``."""
    rooms = {room: subscribed(room, each) for room, each in result.subs.items()}
    return Connected(result.client, value_of(result.data), rooms)


def subscribed(room: str, result: messages.SubscribeResult) -> Subscribed:
    """Converts the reply to ``subscribe``."""
    return Subscribed(
        room,
        value_of(result.data),
        tuple(_publication(room, each) for each in result.publications),
        _position(result.epoch, result.offset),
        result.was_recovering,
        result.recovered,
    )


def history_page(room: str, result: messages.HistoryResult) -> HistoryPage:
    """Converts the reply to ``history``."""
    publications = tuple(_publication(room, each) for each in result.publications)
    return HistoryPage(publications, _position(result.epoch, result.offset))


def client_info(info: messages.ClientInfo) -> ClientInfo:
    """Converts a client."""
    return ClientInfo(info.user, info.client, value_of(info.conn_info), value_of(info.chan_info))


def value_of(data: Payload | None) -> Any:
    """Returns the value of data; None if it is absent."""
    return None if data is None else decode(data)


def _publication(room: str, said: messages.Publication) -> Publication:
    info = None if said.info is None else client_info(said.info)
    return Publication(room, value_of(said.data), said.offset, info, said.tags)


def _position(epoch: str, offset: int) -> Position | None:
    return Position(epoch, offset) if epoch else None
