"""The streams of rooms, as clients read them: positions that clients present and are told, and publications.

A stream is the sequence of messages of a room that has positions. A position of a client may lack its epoch: it is then
in the current one.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..brokers.base import Log
from ..codec import Payload
from ..envelope import Entry
from ..errors import InvalidArgument
from ..positions import Joined, Position, as_position
from ..protocols.centrifugo.infos import author_info
from ..protocols.centrifugo.messages import Publication, SubscribeRequest, SubscribeResult
from .expiry import ttl_s


def presented(request: SubscribeRequest | None) -> Position | None:
    """Returns the position from which a client wants to recover. None if it does not, or if it can be no position."""
    if request is None or not request.recover:
        return None
    try:
        return as_position((request.epoch, request.offset))
    except InvalidArgument:
        return None


async def completed(log: Log, name: str, since: Position) -> Position:
    """Returns a position in a room with its epoch: the current one, if the client gave none."""
    if since.epoch:
        return since
    head = await log.position(name)
    return since if head is None else Position(head.epoch, since.offset)


def subscribed(
    joined: Joined,
    request: SubscribeRequest | None,
    *,
    recoverable: bool,
    entries: Sequence[Entry] = (),
    data: Payload | None = None,
    ends_at: float | None = None,
) -> SubscribeResult:
    """Makes the reply that tells a client its place in the stream of a room that it has joined.

    Args:
        joined: The result of the join.
        request: The request of the client. None if the server joined it, and the client did not know of the room.
        recoverable: Whether the room has a history.
        entries: The first messages that the client missed, or that the room replays. They follow the offset of the
            reply: a recovered client counts on from its own.
        data: The app's data for the client.
        ends_at: When its token expires, which it is told so that it replaces the token.
    """
    position = joined.position
    recovers = request is not None and request.recover
    offset = 0 if position is None else position.offset
    if request is not None and position is not None and recovers and joined.recovered:
        offset = request.offset
    return SubscribeResult(
        expires=ends_at is not None,
        ttl=ttl_s(ends_at),
        recoverable=recoverable,
        epoch="" if position is None else position.epoch,
        publications=publications(entries),
        recovered=recovers and joined.recovered,
        offset=offset,
        positioned=position is not None,
        data=data,
        was_recovering=recovers,
    )


def publications(entries: Sequence[Entry]) -> tuple[Publication, ...]:
    """Makes publications of the messages of a history."""
    return tuple(Publication(each.envelope.payload, author_info(each.envelope.author), each.offset) for each in entries)
