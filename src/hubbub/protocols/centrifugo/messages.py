"""The messages of the Centrifugo client protocol, as frozen dataclasses.

Theory of operation. A field is declared once, with its name, its type, its default and its number. Both encodings read
these declarations (`FIELDS`), so that they can't differ: JSON goes by the names, Protobuf by the numbers. A zero, an
empty text and None mean that the field is absent.

Data of the app is a `Payload`. Data from a JSON client is JSON. Data from a Protobuf client is bytes, which may hold
JSON text: only the function that takes the message knows.

Fields that are experimental in 2026 (map and shared-poll subscriptions, dictionary compression, keys, versions,
cursors) and those of features that are not served (delta compression) have no declaration. They are ignored on input
and never sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, NamedTuple, TypeAlias

from ...codec import Payload
from .fields import Field, Scalar, with_parts

_I32, _U32, _I64, _U64 = Scalar.INT32, Scalar.UINT32, Scalar.INT64, Scalar.UINT64


# Parts


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """A connection: its user and id, which are always sent, and the info of the connection and of the subscription."""

    user: Annotated[str, 1] = ""
    client: Annotated[str, 2] = ""
    conn_info: Annotated[Payload | None, 3] = None
    chan_info: Annotated[Payload | None, 4] = None


@dataclass(frozen=True, slots=True)
class StreamPosition:
    """A place in the stream of a room."""

    offset: Annotated[int, 1, _U64] = 0
    epoch: Annotated[str, 2] = ""


@dataclass(frozen=True, slots=True)
class FilterNode:
    """A filter of tags. It is not served: only its presence matters."""


# Requests


@dataclass(frozen=True, slots=True)
class SubscribeRequest:
    channel: Annotated[str, 1] = ""
    token: Annotated[str, 2] = ""
    recover: Annotated[bool, 3] = False
    epoch: Annotated[str, 6] = ""
    offset: Annotated[int, 7, _U64] = 0
    data: Annotated[Payload | None, 8] = None
    positioned: Annotated[bool, 9] = False
    recoverable: Annotated[bool, 10] = False
    join_leave: Annotated[bool, 11] = False
    tf: Annotated[FilterNode | None, 13] = None
    flag: Annotated[int, 14, _I64] = 0
    type: Annotated[int, 15, _I32] = 0


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    token: Annotated[str, 1] = ""
    data: Annotated[Payload | None, 2] = None
    subs: Annotated[Mapping[str, SubscribeRequest], 3] = field(default_factory=dict)
    name: Annotated[str, 4] = ""
    version: Annotated[str, 5] = ""
    headers: Annotated[Mapping[str, str], 6] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UnsubscribeRequest:
    channel: Annotated[str, 1] = ""


@dataclass(frozen=True, slots=True)
class PublishRequest:
    channel: Annotated[str, 1] = ""
    data: Annotated[Payload | None, 2] = None


@dataclass(frozen=True, slots=True)
class PresenceRequest:
    channel: Annotated[str, 1] = ""


@dataclass(frozen=True, slots=True)
class PresenceStatsRequest:
    channel: Annotated[str, 1] = ""


@dataclass(frozen=True, slots=True)
class HistoryRequest:
    """A limit of 0 asks for the position alone, -1 for everything. `since` is exclusive."""

    channel: Annotated[str, 1] = ""
    limit: Annotated[int, 7, _I32] = 0
    since: Annotated[StreamPosition | None, 8] = None
    reverse: Annotated[bool, 9] = False


@dataclass(frozen=True, slots=True)
class PingRequest:
    pass


@dataclass(frozen=True, slots=True)
class SendRequest:
    """A message without an answer."""

    data: Annotated[Payload | None, 1] = None


@dataclass(frozen=True, slots=True)
class RPCRequest:
    data: Annotated[Payload | None, 1] = None
    method: Annotated[str, 2] = ""


@dataclass(frozen=True, slots=True)
class RefreshRequest:
    token: Annotated[str, 1] = ""


@dataclass(frozen=True, slots=True)
class SubRefreshRequest:
    channel: Annotated[str, 1] = ""
    token: Annotated[str, 2] = ""


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a ping of the server: a command without id and request."""


Request: TypeAlias = (
    ConnectRequest
    | SubscribeRequest
    | UnsubscribeRequest
    | PublishRequest
    | PresenceRequest
    | PresenceStatsRequest
    | HistoryRequest
    | PingRequest
    | SendRequest
    | RPCRequest
    | RefreshRequest
    | SubRefreshRequest
    | Pong
)


@dataclass(frozen=True, slots=True)
class Command:
    """A message from a client.

    Attributes:
        id: The number that its reply carries. 0 for a `Pong`, and for a `SendRequest`, which has no reply.
        request: Its content.
        size: How many bytes it took in its message. Commands with the same content are equal.
    """

    id: int
    request: Request
    size: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class EmulationRequest:
    """The body of an HTTP request with commands, of a client that has a stream in the place of a WebSocket."""

    node: Annotated[str, 1] = ""
    session: Annotated[str, 2] = ""
    data: Annotated[Payload | None, 3] = None


# Events


@dataclass(frozen=True, slots=True)
class Publication:
    """A message in a room. In JSON, `bytes` are base64 and the tag ``encoding`` says so."""

    data: Annotated[Payload | None, 4] = None
    info: Annotated[ClientInfo | None, 5] = None
    offset: Annotated[int, 6, _U64] = 0
    tags: Annotated[Mapping[str, str], 7] = field(default_factory=dict)
    time: Annotated[int, 9, _I64] = 0


@dataclass(frozen=True, slots=True)
class Join:
    info: Annotated[ClientInfo | None, 1] = None


@dataclass(frozen=True, slots=True)
class Leave:
    info: Annotated[ClientInfo | None, 1] = None


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """The server ends a subscription; the codes are `UnsubscribeCode`."""

    code: Annotated[int, 2, _U32] = 0
    reason: Annotated[str, 3] = ""


@dataclass(frozen=True, slots=True)
class Message:
    """A message to this connection alone."""

    data: Annotated[Payload | None, 1] = None


@dataclass(frozen=True, slots=True)
class Subscribe:
    """The server subscribes the connection to a room."""

    recoverable: Annotated[bool, 1] = False
    epoch: Annotated[str, 4] = ""
    offset: Annotated[int, 5, _U64] = 0
    positioned: Annotated[bool, 6] = False
    data: Annotated[Payload | None, 7] = None


@dataclass(frozen=True, slots=True)
class Disconnect:
    code: Annotated[int, 1, _U32] = 0
    reason: Annotated[str, 2] = ""
    reconnect: Annotated[bool, 3] = False


@dataclass(frozen=True, slots=True)
class Refresh:
    expires: Annotated[bool, 1] = False
    ttl: Annotated[int, 2, _U32] = 0


# Results


@dataclass(frozen=True, slots=True)
class Error:
    """A request was refused; the codes are `ErrorCode` and, from 400 to 1999, the app's."""

    code: Annotated[int, 1, _U32] = 0
    message: Annotated[str, 2] = ""
    temporary: Annotated[bool, 3] = False


@dataclass(frozen=True, slots=True)
class SubscribeResult:
    expires: Annotated[bool, 1] = False
    ttl: Annotated[int, 2, _U32] = 0
    recoverable: Annotated[bool, 3] = False
    epoch: Annotated[str, 6] = ""
    publications: Annotated[tuple[Publication, ...], 7] = ()
    recovered: Annotated[bool, 8] = False
    offset: Annotated[int, 9, _U64] = 0
    positioned: Annotated[bool, 10] = False
    data: Annotated[Payload | None, 11] = None
    was_recovering: Annotated[bool, 12] = False


@dataclass(frozen=True, slots=True)
class ConnectResult:
    """`session` and `node` are for the fallback transports."""

    client: Annotated[str, 1] = ""
    version: Annotated[str, 2] = ""
    expires: Annotated[bool, 3] = False
    ttl: Annotated[int, 4, _U32] = 0
    data: Annotated[Payload | None, 5] = None
    subs: Annotated[Mapping[str, SubscribeResult], 6] = field(default_factory=dict)
    ping: Annotated[int, 7, _U32] = 0
    pong: Annotated[bool, 8] = False
    session: Annotated[str, 9] = ""
    node: Annotated[str, 10] = ""
    time: Annotated[int, 11, _I64] = 0


@dataclass(frozen=True, slots=True)
class Connect:
    """The push that opens a connection on which the client sends no commands."""

    client: Annotated[str, 1] = ""
    version: Annotated[str, 2] = ""
    data: Annotated[Payload | None, 3] = None
    subs: Annotated[Mapping[str, SubscribeResult], 4] = field(default_factory=dict)
    expires: Annotated[bool, 5] = False
    ttl: Annotated[int, 6, _U32] = 0
    ping: Annotated[int, 7, _U32] = 0
    pong: Annotated[bool, 8] = False
    session: Annotated[str, 9] = ""
    node: Annotated[str, 10] = ""
    time: Annotated[int, 11, _I64] = 0


@dataclass(frozen=True, slots=True)
class UnsubscribeResult:
    pass


@dataclass(frozen=True, slots=True)
class PublishResult:
    pass


@dataclass(frozen=True, slots=True)
class PresenceResult:
    """Clients by their ids."""

    presence: Annotated[Mapping[str, ClientInfo], 1] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PresenceStatsResult:
    num_clients: Annotated[int, 1, _U32] = 0
    num_users: Annotated[int, 2, _U32] = 0


@dataclass(frozen=True, slots=True)
class HistoryResult:
    publications: Annotated[tuple[Publication, ...], 1] = ()
    epoch: Annotated[str, 2] = ""
    offset: Annotated[int, 3, _U64] = 0


@dataclass(frozen=True, slots=True)
class PingResult:
    pass


@dataclass(frozen=True, slots=True)
class RPCResult:
    data: Annotated[Payload | None, 1] = None


@dataclass(frozen=True, slots=True)
class RefreshResult:
    client: Annotated[str, 1] = ""
    version: Annotated[str, 2] = ""
    expires: Annotated[bool, 3] = False
    ttl: Annotated[int, 4, _U32] = 0


@dataclass(frozen=True, slots=True)
class SubRefreshResult:
    expires: Annotated[bool, 1] = False
    ttl: Annotated[int, 2, _U32] = 0


Event: TypeAlias = Publication | Join | Leave | Unsubscribe | Message | Subscribe | Connect | Disconnect | Refresh
Result: TypeAlias = (
    ConnectResult
    | SubscribeResult
    | UnsubscribeResult
    | PublishResult
    | PresenceResult
    | PresenceStatsResult
    | HistoryResult
    | PingResult
    | RPCResult
    | RefreshResult
    | SubRefreshResult
)


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to the command with the same id."""

    id: int
    result: Result | Error


@dataclass(frozen=True, slots=True)
class Push:
    """An event that the server sends to a client. The channel is empty if the event belongs to no room."""

    channel: str
    event: Event


class Choice(NamedTuple):
    """One of the messages that a command, a reply or a push holds."""

    number: int
    type: type[Any]


REQUESTS: Final[Mapping[str, Choice]] = {
    "connect": Choice(4, ConnectRequest),
    "subscribe": Choice(5, SubscribeRequest),
    "unsubscribe": Choice(6, UnsubscribeRequest),
    "publish": Choice(7, PublishRequest),
    "presence": Choice(8, PresenceRequest),
    "presence_stats": Choice(9, PresenceStatsRequest),
    "history": Choice(10, HistoryRequest),
    "ping": Choice(11, PingRequest),
    "send": Choice(12, SendRequest),
    "rpc": Choice(13, RPCRequest),
    "refresh": Choice(14, RefreshRequest),
    "sub_refresh": Choice(15, SubRefreshRequest),
}
RESULTS: Final[Mapping[str, Choice]] = {
    "error": Choice(2, Error),
    "connect": Choice(5, ConnectResult),
    "subscribe": Choice(6, SubscribeResult),
    "unsubscribe": Choice(7, UnsubscribeResult),
    "publish": Choice(8, PublishResult),
    "presence": Choice(9, PresenceResult),
    "presence_stats": Choice(10, PresenceStatsResult),
    "history": Choice(11, HistoryResult),
    "ping": Choice(12, PingResult),
    "rpc": Choice(13, RPCResult),
    "refresh": Choice(14, RefreshResult),
    "sub_refresh": Choice(15, SubRefreshResult),
}
EVENTS: Final[Mapping[str, Choice]] = {
    "pub": Choice(4, Publication),
    "join": Choice(5, Join),
    "leave": Choice(6, Leave),
    "unsubscribe": Choice(7, Unsubscribe),
    "message": Choice(8, Message),
    "subscribe": Choice(9, Subscribe),
    "connect": Choice(10, Connect),
    "disconnect": Choice(11, Disconnect),
    "refresh": Choice(12, Refresh),
}
NAMES: Final[Mapping[type[Any], str]] = {
    choice.type: name for choices in (REQUESTS, RESULTS, EVENTS) for name, choice in choices.items()
}
"""The name of the field that a message of each type goes in."""

FIELDS: Final[Mapping[type[Any], tuple[Field, ...]]] = with_parts([*NAMES, EmulationRequest])
"""The fields of each type of messages."""
