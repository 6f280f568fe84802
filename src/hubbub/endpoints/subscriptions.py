"""The subscriptions of one client: it asks for rooms, and is told when it is in one, and when it is not any more.

Theory of operation. A subscription exists from the request of the client until the client or the server ends it. The
room's rule is asked first, for a bounded number of subscriptions at a time. Then the client joins the room. The join
writes the reply, so that the reply arrives before any message from the room.

A client may leave a room before its subscription was granted. A subscription that is no longer the client's current one
for its room must not join. A client that subscribes again waits until its former subscription has left the room.

Rooms that the server joined the client to are no subscriptions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..codec import encode
from ..envelope import Entry
from ..errors import InvalidName
from ..names import MAX_NAME_BYTES, room_name
from ..positions import Joined
from ..protocols.centrifugo.codes import DisconnectCode, ErrorCode, UnsubscribeCode
from ..protocols.centrifugo.messages import (
    Error,
    Push,
    Reply,
    SubscribeRequest,
    UnsubscribeRequest,
    UnsubscribeResult,
)
from .client import Client, Ended, Refused
from .results import Grant
from .streams import completed, presented, subscribed
from .workload import Workload

MAX_AUTHORIZING: Final = 16
"""Maximum number of subscriptions of one client that are authorized at the same time."""


@dataclass(slots=True)
class Subscription:
    """A room that the client is subscribed to, or is subscribing to.

    Attributes:
        room: The name of the room.
        is_in: Whether the reply was written, so that the client knows that it is subscribed.
        ends_at: When the permission expires, in seconds since the epoch; None for never.
    """

    room: str
    is_in: bool = False
    ends_at: float | None = None


class Subscriptions:
    """The subscriptions of one client, by room.

    Args:
        client: The client.
        workload: Runs the authorizations and the joins.
    """

    def __init__(self, client: Client, workload: Workload) -> None:
        self._client = client
        self._engine = client.engine
        self._workload = workload
        self._subscriptions: dict[str, Subscription] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._authorizing = asyncio.Semaphore(MAX_AUTHORIZING)

    # Subscribing

    def begin(self, number: int, request: SubscribeRequest) -> None:
        """Refuses a subscription at once, or authorizes it in a task."""
        refusal = self._refusal(request)
        if refusal is not None:
            self._client.say(Reply(number, refusal))
            return
        subscription = self._subscriptions[request.channel] = Subscription(request.channel)
        self._workload.spawn(self._subscribe(number, request, subscription))

    def _refusal(self, request: SubscribeRequest) -> Error | None:
        name = request.channel
        if len(name.encode()) > MAX_NAME_BYTES or request.tf is not None:
            return ErrorCode.BAD_REQUEST.error()
        if request.type:
            return ErrorCode.NOT_AVAILABLE.error()
        if name[:1] == "$":
            return ErrorCode.PERMISSION_DENIED.error()
        if name in self._subscriptions or (self._client.is_subscribed(name) and name not in self._leaving):
            return ErrorCode.ALREADY_SUBSCRIBED.error()
        most = self._engine.limits.max_rooms_per_connection
        if most is not None and len(self._subscriptions) >= most:
            return ErrorCode.LIMIT_EXCEEDED.error()
        return None

    async def _subscribe(self, number: int, request: SubscribeRequest, subscription: Subscription) -> None:
        try:
            await self._client.answer(number, self._authorized(number, request, subscription))
        finally:
            if not subscription.is_in and self._subscriptions.get(subscription.room) is subscription:
                del self._subscriptions[subscription.room]

    async def _authorized(self, number: int, request: SubscribeRequest, subscription: Subscription) -> Error | None:
        """Asks the room's rule, and joins the room. Returns an error if refused; otherwise the join has replied."""
        leaving = self._leaving.get(subscription.room)
        if leaving is not None:
            await asyncio.wait([leaving])
        async with self._authorizing:
            if self._client.socket.closed is not None:
                raise Ended
            grant = await self._granted(request)
            if self._subscriptions.get(subscription.room) is not subscription:
                return ErrorCode.PERMISSION_DENIED.error("unsubscribed before the subscription was granted")
            if grant is None:
                return ErrorCode.PERMISSION_DENIED.error()
            if grant.expires_at_s is not None and grant.expires_at_s <= time.time():
                return ErrorCode.EXPIRED.error()
            return await self._join(number, request, subscription, grant)

    async def _granted(self, request: SubscribeRequest) -> Grant | None:
        """Asks the room's rule. Returns None if it refuses, or if the room has no rule."""
        name = request.channel
        match = self._client.served.routes.rooms.match(name)
        if match is None:
            return None
        try:
            room_name(name)
        except InvalidName as error:
            raise Refused(ErrorCode.BAD_REQUEST.error(str(error))) from None
        return await self._client.call(match.rule.function, request.data, match.names)

    async def _join(
        self, number: int, request: SubscribeRequest, subscription: Subscription, grant: Grant
    ) -> Error | None:
        """Joins a room, which writes the reply. Returns an error if it did not."""
        client, name = self._client, request.channel
        data = None if grant.data is None else encode(grant.data)
        recoverable = self._engine.options_of(name).history is not None
        # The client may present a position although the room no longer has a history. Then it does not recover.
        since = presented(request) if recoverable else None
        if since is not None:
            since = await completed(self._engine.broker, name, since)

        def reply(joined: Joined, entries: Sequence[Entry]) -> bytes:
            """Encodes the reply, which the room writes to the client before any of its messages."""
            # The end of the grant is not told: an SDK that has no `getToken` would then give up the subscription.
            result = subscribed(joined, request, recoverable=recoverable, entries=entries, data=data)
            client.write()  # earlier replies come first
            subscription.is_in = True
            return client.encoding.encode([Reply(number, result)])

        try:
            await self._engine.memberships.join(client.session, name, since, reply=reply)
        except Exception:
            if not subscription.is_in:
                raise
            # Its presence failed after the reply was written, so the client must be told that it is out again.
            self.end(name, UnsubscribeCode.INSUFFICIENT_STATE)
            return None
        if not subscription.is_in:  # the app joined the client in the meantime
            return ErrorCode.ALREADY_SUBSCRIBED.error()
        subscription.ends_at = grant.expires_at_s  # not earlier: the expiry must not overtake the reply
        return None

    # Ending

    def unsubscribe(self, number: int, request: UnsubscribeRequest) -> None:
        """Leaves a room, and replies once that is done. The client may subscribe again before the reply."""
        client, reply = self._client, Reply(number, UnsubscribeResult())
        if self._subscriptions.pop(request.channel, None) is None:
            client.say(reply)
        else:
            self._leave(request.channel).add_done_callback(lambda task: client.say(reply))

    def end(self, name: str, code: UnsubscribeCode) -> None:
        """Ends a subscription, and tells the client why."""
        if self._subscriptions.pop(name, None) is not None:
            self._leave(name)
            self._client.say(Push(name, code.push()))

    def end_expired(self) -> None:
        """Ends the subscriptions whose permission has expired."""
        now = time.time()
        for subscription in tuple(self._subscriptions.values()):
            if subscription.ends_at is not None and now >= subscription.ends_at:
                self.end(subscription.room, UnsubscribeCode.EXPIRED)

    def lose_place(self, name: str) -> None:
        """Ends a subscription after messages of its room were lost. The client subscribes again, without recovery.

        The subscription ends with the frame that the protocol has for a `Reset` (`renumbering`).
        """
        if self._subscriptions.pop(name, None) is not None:
            self._leave(name)
        elif name not in self._leaving:  # the server joined the client to it
            self._client.socket.close_soon(DisconnectCode.INSUFFICIENT_STATE.closed())

    def _leave(self, name: str) -> asyncio.Task[None]:
        """Leaves a room. A new subscription to it waits until this is done."""
        leaving = self._leaving[name] = self._workload.spawn(self._engine.memberships.leave(self._client.session, name))

        def left(task: asyncio.Task[None]) -> None:
            if self._leaving.get(name) is task:
                del self._leaving[name]

        leaving.add_done_callback(left)
        return leaving
