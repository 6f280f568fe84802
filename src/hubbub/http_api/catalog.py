"""The methods of the HTTP API by their names, with the models of their requests and answers, and what OpenAPI says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from pydantic import BaseModel

from . import models

MAX_MESSAGES: Final = 1000
MAX_MESSAGES_BYTES: Final = 4 * 1024 * 1024
"""Maximum number and size of the messages of one answer. The next ones are after the last one's position."""

MAX_LISTED: Final = 10_000
"""Maximum number of channels of one answer."""


class Method(NamedTuple):
    """A method of the API.

    Attributes:
        request: The model of its request.
        answer: The model of its answer.
        summary: One line about it.
        description: More about it, in Markdown.
    """

    request: type[models.Request]
    answer: type[BaseModel]
    summary: str
    description: str


METHODS: Final[Mapping[str, Method]] = {
    "publish": Method(
        models.ApiPublishRequest,
        models.ApiPublishAnswer,
        "Publish a message to a channel",
        "The answer has the position of the message, where the room keeps a history.",
    ),
    "broadcast": Method(
        models.ApiBroadcastRequest,
        models.ApiBroadcastAnswer,
        "Publish a message to several channels",
        "Each channel has an answer of its own: some may fail.",
    ),
    "subscribe": Method(
        models.ApiSubscribeRequest,
        models.ApiEmptyAnswer,
        "Put a user into a room",
        "Its open connections join, on every worker; those that come later do not. The room's rule is not "
        "asked. The answer does not wait for the joins.",
    ),
    "unsubscribe": Method(
        models.ApiUnsubscribeRequest,
        models.ApiEmptyAnswer,
        "Take a user out of a room",
        "Its connections leave, on every worker, and stay open.",
    ),
    "disconnect": Method(
        models.ApiDisconnectRequest,
        models.ApiEmptyAnswer,
        "Close the connections of a user",
        "On every worker. By default clients do not reconnect by themselves.",
    ),
    "refresh": Method(
        models.ApiRefreshRequest,
        models.ApiEmptyAnswer,
        "Change how long a user is authorized",
        "For all open connections of the user, on every worker.",
    ),
    "presence": Method(
        models.ApiPresenceRequest,
        models.ApiPresenceAnswer,
        "List the clients in a channel",
        "Connections that were just lost are listed until the grace period of their user is over.",
    ),
    "presence_stats": Method(
        models.ApiPresenceStatsRequest,
        models.ApiPresenceStatsAnswer,
        "Count the clients and users in a channel",
        "On all workers.",
    ),
    "history": Method(
        models.ApiHistoryRequest,
        models.ApiHistoryAnswer,
        "Read the history of a channel",
        f"At most {MAX_MESSAGES} messages and {MAX_MESSAGES_BYTES // 2**20} MiB in one answer; `since` with the "
        "position of the last one reads on.",
    ),
    "history_remove": Method(
        models.ApiHistoryRemoveRequest,
        models.ApiEmptyAnswer,
        "Remove the history of a channel",
        "The numbering of its messages continues.",
    ),
    "channels": Method(
        models.ApiChannelsRequest,
        models.ApiChannelsAnswer,
        "List the rooms that have members",
        f"On all workers, at most {MAX_LISTED:,}.",
    ),
    "info": Method(
        models.ApiInfoRequest, models.ApiInfoAnswer, "List the workers", "Those that answer within 2 seconds."
    ),
    "batch": Method(
        models.ApiBatchRequest,
        models.ApiBatchAnswer,
        "Do several commands",
        "In order, or with `parallel` all at once. A command that fails does not stop the others.",
    ),
}
