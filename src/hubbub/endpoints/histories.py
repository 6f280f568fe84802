"""Reads a part of a room's history, as clients and other servers ask for it."""

from __future__ import annotations

from ..brokers.base import Log
from ..envelope import Entry
from ..errors import HubbubError
from ..positions import Position
from ..protocols.centrifugo.messages import HistoryRequest
from .streams import completed


class Unrecoverable(HubbubError, LookupError):
    """The requested position is in an epoch that the room is not in."""


async def read_history(
    log: Log, request: HistoryRequest, *, channel: str, most: int, most_bytes: int
) -> tuple[list[Entry], Position | None]:
    """Returns messages of a room, in the requested order, and the room's position.

    Args:
        log: The histories.
        request: What to read.
        channel: The channel of the room at the broker.
        most: The maximum number of messages.
        most_bytes: The maximum size of their payloads together. One message is returned whatever its size.

    Raises:
        Unrecoverable: The position to read from is in another epoch.
        BrokerUnavailable: The broker can't be reached.
    """
    if not request.limit:
        return [], await log.position(channel)
    since = None
    if request.since is not None:
        since = await completed(log, channel, Position(request.since.epoch, request.since.offset))
    most = min(request.limit, most) if request.limit > 0 else most
    if not request.reverse:  # from the oldest message, unless the request says where
        page = await log.history(channel, since or await completed(log, channel, Position("", 0)), most)
    elif since is None:
        page = await log.history(channel, None, most)
    else:
        head = await log.position(channel)
        newest = min(since.offset - 1, head.offset if head is not None else 0)
        page = await log.history(channel, Position(since.epoch, max(0, newest - most)), most)
    if since is not None and page.head is not None and since.epoch not in ("", page.head.epoch):
        raise Unrecoverable
    entries = list(page.entries)
    if request.reverse:
        entries.reverse()
        if since is not None:
            entries = [each for each in entries if each.offset < since.offset]
    elif since is not None:  # a position that does not exist yet has nothing after it
        entries = [each for each in entries if each.offset > since.offset]
    return _bounded(entries, most_bytes), page.head


def _bounded(entries: list[Entry], most_bytes: int) -> list[Entry]:
    for place, entry in enumerate(entries):
        most_bytes -= len(entry.envelope.payload.data)
        if most_bytes < 0 and place:
            return entries[:place]
    return entries
