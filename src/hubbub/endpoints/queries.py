"""The questions of a client about a room that it is subscribed to: its presence and its history.

The broker may take long to answer. So whether the client may ask is checked again before it is told the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..codec import Payload, encode
from ..envelope import Entry
from ..positions import Position
from ..presence import PresentConnection
from ..protocols.centrifugo.codes import ErrorCode
from ..protocols.centrifugo.messages import (
    ClientInfo,
    HistoryRequest,
    HistoryResult,
    PresenceRequest,
    PresenceResult,
    PresenceStatsRequest,
    PresenceStatsResult,
)
from .client import Client, Refused, denied
from .histories import Unrecoverable, read_history
from .streams import publications

_MOST_MESSAGES: Final = 300  # that one reply holds; the client asks for the next from the last one's position


class Queries:
    """Answers questions of one client, where the options of the room allow them.

    Args:
        client: The client.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._engine = client.engine

    async def presence(self, request: PresenceRequest) -> PresenceResult:
        """Lists the clients in a room. All connections of a user share one entry."""
        clients = {}
        for each in await self._present(request.channel):
            name = each.presence_id
            clients[name] = ClientInfo(each.user_id or "", name, _info(each.info), _info(each.room_info))
        return PresenceResult(clients)

    async def presence_stats(self, request: PresenceStatsRequest) -> PresenceStatsResult:
        """Counts the live connections and the users in a room."""
        entries = await self._present(request.channel)
        return PresenceStatsResult(sum(each.live for each in entries), len({each.user_id or "" for each in entries}))

    async def history(self, request: HistoryRequest) -> HistoryResult:
        """Returns the position of a room, and as many of its messages as the client asks for."""
        options = self._engine.options_of(request.channel)
        self._check_allowed(request.channel, options.client_history and options.history is not None)
        result = await self._read(request)
        self._check_subscribed(request.channel)
        return result

    async def _present(self, name: str) -> list[PresentConnection]:
        self._check_allowed(name, self._engine.options_of(name).client_presence)
        entries = await self._engine.broker.connections(name)
        self._check_subscribed(name)
        return entries

    async def _read(self, request: HistoryRequest) -> HistoryResult:
        # Part of what an outbox holds.
        most_bytes = self._engine.limits.max_outbox_bytes // 4
        try:
            entries, head = await read_history(
                self._engine.broker, request, channel=request.channel, most=_MOST_MESSAGES, most_bytes=most_bytes
            )
        except Unrecoverable:
            raise Refused(ErrorCode.UNRECOVERABLE_POSITION.error()) from None
        return _result(entries, head)

    def _check_allowed(self, name: str, allowed: bool) -> None:
        self._check_subscribed(name)
        if not allowed:
            raise Refused(ErrorCode.NOT_AVAILABLE.error())

    def _check_subscribed(self, name: str) -> None:
        if not self._client.is_subscribed(name):
            raise denied(name, "it asks for the presence or history, and is not subscribed")


def _result(entries: Sequence[Entry], head: Position | None) -> HistoryResult:
    return HistoryResult(publications(entries), *(("", 0) if head is None else head))


def _info(info: object) -> Payload | None:
    return None if info is None else encode(info)
