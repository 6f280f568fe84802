"""The requests and answers of the HTTP API. Their fields are those of Centrifugo's server API.

The names begin with ``Api``, because the app's OpenAPI document has them beside the app's own.

A request with a field that is not served here is refused, so that nothing is silently ignored. A field without effect,
which some clients always send (``"tags": null``, ``"client": ""``), is accepted.
"""

from __future__ import annotations

from base64 import b64decode
from typing import Annotated, Any, ClassVar, Final, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from ..names import MAX_NAME_BYTES

MAX_CHANNELS: Final = 1000
"""Maximum number of channels of one broadcast."""

MAX_COMMANDS: Final = 1000
"""Maximum number of commands of one batch."""

MAX_SPARED: Final = 1000
"""Maximum number of connections that a disconnect may spare."""

NOT_SERVED: Final = "not_served"
"""The type of the validation error for a field of Centrifugo's that is not served here."""

T = TypeVar("T")


def _base64(text: str) -> str:
    try:
        b64decode(text, validate=True)
    except ValueError:
        raise PydanticCustomError("base64", "it is not base64") from None
    return text


Channel = Annotated[
    str,
    Field(
        min_length=1,
        description="The name of a room. `$everyone` is the room of all connections, and `$user:<id>` that of a user.",
    ),
]
Room = Annotated[str, Field(min_length=1, description="The name of a room.")]
User = Annotated[str, Field(min_length=1, description="The id of a user.")]
Client = Annotated[
    str,
    Field(
        max_length=MAX_NAME_BYTES, description="Only this connection of the user, by its id. By default all of them."
    ),
]
Key = Annotated[
    str,
    Field(
        max_length=1024,
        description="A request that repeats the key within 5 minutes publishes nothing, and is answered as the first.",
    ),
]
Base64 = Annotated[str, AfterValidator(_base64)]


class Request(BaseModel):
    """A request."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    not_served: ClassVar[frozenset[str]] = frozenset()
    """Fields of Centrifugo's that are refused unless they have no effect."""

    @model_validator(mode="before")
    @classmethod
    def _check_served(cls, data: Any) -> Any:
        if not isinstance(data, dict) or cls.not_served.isdisjoint(data):
            return data
        if asked := sorted(name for name in cls.not_served.intersection(data) if data[name]):
            raise PydanticCustomError(NOT_SERVED, "{names} can't be served here", {"names": ", ".join(asked)})
        return {name: value for name, value in data.items() if name not in cls.not_served}


class _Publishing(Request):
    not_served: ClassVar[frozenset[str]] = frozenset({"tags", "delta", "version", "version_epoch"})

    data: Annotated[Any, Field(description="The message: any JSON value.")] = None
    b64data: Annotated[Base64 | None, Field(description="In the place of `data`: a message of bytes, in base64.")] = (
        None
    )
    skip_history: Annotated[bool, Field(description="Do not number the message, and keep it in no history.")] = False
    idempotency_key: Key | None = None

    @model_validator(mode="after")
    def _check_data(self) -> _Publishing:
        given = "data" in self.model_fields_set
        if self.b64data is None and not given:
            raise PydanticCustomError("missing", "data is required")
        if self.b64data is not None and self.data is not None:
            raise PydanticCustomError("both", "data and b64data can't both be given")
        return self


class ApiPublishRequest(_Publishing):
    """A message for one channel."""

    channel: Channel


class ApiBroadcastRequest(_Publishing):
    """A message for several channels."""

    channels: Annotated[list[Channel], Field(min_length=1, max_length=MAX_CHANNELS)]


class ApiSubscribeRequest(Request):
    """A user, and the room that the user's connections join."""

    not_served: ClassVar[frozenset[str]] = frozenset(
        {"session", "b64info", "data", "b64data", "recover_since", "override", "tagsFilter"}
    )

    user: User
    channel: Room
    client: Client = ""
    info: Annotated[
        dict[str, Any] | None, Field(description="Data about the connections in this room, for its presence.")
    ] = None


class ApiUnsubscribeRequest(Request):
    """A user, and the room that the user's connections leave."""

    not_served: ClassVar[frozenset[str]] = frozenset({"session"})

    user: User
    channel: Room
    client: Client = ""


class ApiDisconnect(Request):
    """The close code and reason of closed connections."""

    not_served: ClassVar[frozenset[str]] = frozenset({"reconnect"})

    code: Annotated[int, Field(description="A close code, from 3000 to 4999. Clients do not reconnect after 3500.")] = 0
    reason: str = ""


class ApiDisconnectRequest(Request):
    """A user whose connections are closed."""

    not_served: ClassVar[frozenset[str]] = frozenset({"session"})

    user: User
    client: Client = ""
    whitelist: Annotated[
        list[str] | None, Field(max_length=MAX_SPARED, description="The ids of connections that stay open.")
    ] = None
    disconnect: ApiDisconnect | None = None


class ApiRefreshRequest(Request):
    """A user whose connections are authorized for longer, or shorter. One of the last two fields is needed."""

    not_served: ClassVar[frozenset[str]] = frozenset({"session"})

    user: User
    client: Client = ""
    expired: Annotated[bool, Field(description="The authorization ends now. Clients fetch another token.")] = False
    expire_at: Annotated[int, Field(ge=0, description="When the authorization ends, as a Unix time in seconds.")] = 0


class ApiPresenceRequest(Request):
    """A channel."""

    channel: Channel


class ApiPresenceStatsRequest(Request):
    """A channel."""

    channel: Channel


class ApiStreamPosition(Request):
    """A place in the messages of a channel."""

    offset: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    epoch: Annotated[str, Field(max_length=64)] = ""


class ApiHistoryRequest(Request):
    """A channel, and the part of its history to read."""

    channel: Channel
    limit: Annotated[
        int, Field(ge=-1, le=2**31 - 1, description="0 reads the position alone, -1 as much as an answer holds.")
    ] = 0
    since: Annotated[ApiStreamPosition | None, Field(description="Only messages after it; with `reverse`, before.")] = (
        None
    )
    reverse: Annotated[bool, Field(description="From the newest message to the oldest.")] = False


class ApiHistoryRemoveRequest(Request):
    """A channel."""

    channel: Channel


class ApiChannelsRequest(Request):
    """Channels by a pattern."""

    pattern: Annotated[str | None, Field(description="Such as `chat:*`. By default all channels.")] = None


class ApiInfoRequest(Request):
    """Nothing."""


class ApiBatchRequest(Request):
    """Commands, which are done in order, or all at once."""

    commands: Annotated[
        list[dict[str, Any]],
        Field(
            max_length=MAX_COMMANDS,
            description="Each is an object with one field: the name of a method, and its request.",
            examples=[[{"publish": {"channel": "news", "data": {"text": "hello"}}}, {"info": {}}]],
        ),
    ]
    parallel: bool = False


class ApiError(BaseModel):
    """The reason why a request was refused."""

    code: Annotated[int, Field(description="The number of the error, such as 107 for a bad request.")]
    message: str
    temporary: Annotated[bool, Field(description="Whether the same request may succeed later.")] = False


class ApiRefusal(BaseModel):
    """The answer to a request that never reached its method."""

    error: ApiError


class Answer(BaseModel, Generic[T]):
    """The result of a request, or an error."""

    result: T | None = None
    error: ApiError | None = None


class ApiEmpty(BaseModel):
    """Done."""


class ApiPublishResult(BaseModel):
    """The position of the message. 0 and empty in a room without history."""

    offset: int = 0
    epoch: str = ""


class ApiPublishAnswer(Answer[ApiPublishResult]):
    """The position of the message, or an error."""


class ApiBroadcastResult(BaseModel):
    """An answer for each channel, in their order."""

    responses: list[ApiPublishAnswer]


class ApiClientInfo(BaseModel):
    """A client."""

    user: Annotated[str, Field(description="The id of its user. Empty if it has none.")]
    client: Annotated[str, Field(description="The id of the connection.")]
    conn_info: Annotated[Any, Field(description="The app's data about the client.")] = None
    chan_info: Annotated[Any, Field(description="The app's data about the client in this channel.")] = None


class ApiPresenceResult(BaseModel):
    """The connections in a channel by their ids, on all workers."""

    presence: dict[str, ApiClientInfo]


class ApiPresenceStatsResult(BaseModel):
    """The numbers of open connections, and of distinct users, on all workers."""

    num_clients: int
    num_users: int


class ApiPublication(BaseModel):
    """A message of a history."""

    offset: int
    data: Annotated[Any, Field(description="The message. Bytes are base64, and the tag `encoding` says so.")]
    tags: dict[str, str] | None = None
    info: Annotated[ApiClientInfo | None, Field(description="The client that published it, unless the server did.")] = (
        None
    )


class ApiHistoryResult(BaseModel):
    """The position of a channel, and messages."""

    publications: list[ApiPublication]
    offset: int
    epoch: str


class ApiChannelInfo(BaseModel):
    """A channel."""

    num_clients: int


class ApiChannelsResult(BaseModel):
    """The rooms that have members, on all workers. Not the rooms of everyone and of users."""

    channels: dict[str, ApiChannelInfo]


class ApiNodeInfo(BaseModel):
    """A worker."""

    uid: str
    name: str
    version: str
    num_clients: int
    num_users: int
    num_subs: int
    num_channels: int
    uptime: int


class ApiInfoResult(BaseModel):
    """The workers."""

    nodes: list[ApiNodeInfo]


class ApiEmptyAnswer(Answer[ApiEmpty]):
    """An empty result, or an error."""


class ApiBroadcastAnswer(Answer[ApiBroadcastResult]):
    """An answer for each channel, or an error."""


class ApiPresenceAnswer(Answer[ApiPresenceResult]):
    """The presence, or an error."""


class ApiPresenceStatsAnswer(Answer[ApiPresenceStatsResult]):
    """The numbers, or an error."""


class ApiHistoryAnswer(Answer[ApiHistoryResult]):
    """The history, or an error."""


class ApiChannelsAnswer(Answer[ApiChannelsResult]):
    """The channels, or an error."""


class ApiInfoAnswer(Answer[ApiInfoResult]):
    """The workers, or an error."""


class ApiBatchAnswer(BaseModel):
    """A reply for each command, in their order: `{method: result}`, or `{"error": ...}`."""

    replies: list[dict[str, Any]] | None = None
    error: ApiError | None = None
