"""The subscriptions of one client: it asks for rooms, and is told when it is in one, and when it is not any more.

Theory of operation. A subscription exists from the request of the client until the client or the server ends it. The
client's token is verified, if the room needs one, and then the room's rule is asked, for a bounded number of
subscriptions at a time. Then the client joins the room. The join writes the reply, so that the reply arrives before any
message from the room.

A subscription has two ends. That of its token is told to the client, which may replace the token until a grace period
after its end. That of the rule's `Grant` is not told, and has no grace.

A client may leave a room before its subscription was granted. Whoever ends a subscription revokes its attempt to join,
which the room checks at the moment it adds the member: so no subscription that has ended joins, however long the broker
takes. A client that subscribes again waits until its former subscription has left the room.

Requests wait for the subscriptions that the client asked for before them. Otherwise, a function that checks whether the
client is in a room would refuse a client that has just reconnected, and whose rule still looks up the permission.

Rooms that the server joined the client to are no subscriptions.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ..claims import InvalidToken, KeyUnavailable
from ..envelope import Entry
from ..errors import InvalidName, shown
from ..names import MAX_NAME_BYTES, room_name
from ..positions import Joined
from ..protocols.centrifugo.codes import DisconnectCode, ErrorCode, UnsubscribeCode
from ..protocols.centrifugo.messages import (
    Error,
    Push,
    Reply,
    SubRefreshRequest,
    SubRefreshResult,
    SubscribeRequest,
    UnsubscribeRequest,
    UnsubscribeResult,
)
from ..rooms.attempts import Attempt
from .client import Client, Ended, Refused, denied
from .expiry import is_over, is_past_grace, ttl_s
from .results import Grant
from .routing import RoomRule
from .streams import completed, presented, subscribed
from .tokens import SubscriptionToken, subscription_token
from .workload import Workload

logger: Final = logging.getLogger("hubbub")

MAX_AUTHORIZING: Final = 16
"""Maximum number of subscriptions of one client that are authorized at the same time."""


@dataclass(slots=True)
class Subscription:
    """A room that the client is subscribed to, or is subscribing to.

    Attributes:
        room: The name of the room.
        is_in: Whether the reply was written, so that the client knows that it is subscribed.
        ends_at: When the permission of the rule ends, in seconds since the epoch; None for never.
        token_ends_at: When the subscription token expires, which the client can replace; None for never.
        decided: Done once the client is in the room, or will not be.
        joining: The task that authorizes it, joins the room, and reports the presence.
        attempt: The attempt to join the room, while it is authorized and joins.
        refreshing: Held while its token is replaced. None if that was never asked for.
    """

    room: str
    decided: asyncio.Future[None]
    is_in: bool = False
    ends_at: float | None = None
    token_ends_at: float | None = None
    joining: asyncio.Task[None] | None = None
    attempt: Attempt | None = None
    refreshing: asyncio.Lock | None = None

    def drop(self) -> None:
        """Keeps it from joining the room, if it has not yet."""
        if self.attempt is not None:
            self.attempt.revoked.add(self.room)


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
        self._undecided: set[asyncio.Future[None]] = set()
        self._authorizing = asyncio.Semaphore(MAX_AUTHORIZING)

    # Subscribing

    def begin(self, number: int, request: SubscribeRequest, size: int) -> None:
        """Refuses a subscription at once, or authorizes it in a task.

        Args:
            number: The id of the command.
            request: The request.
            size: The size of the command, which counts among what waits.
        """
        refusal = self._refusal(request)
        if refusal is not None:
            self._client.say(Reply(number, refusal))
            return
        decided: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        decided.add_done_callback(self._undecided.discard)
        self._undecided.add(decided)
        subscription = self._subscriptions[request.channel] = Subscription(request.channel, decided)
        subscription.joining = self._workload.spawn(self._subscribe(number, request, subscription), size)

    @property
    def undecided(self) -> Collection[asyncio.Future[None]]:
        """The subscriptions that are not decided yet, for what waits for them."""
        return tuple(self._undecided) if self._undecided else ()

    def anticipate(self, name: str) -> None:
        """Lets requests go on that wait for a subscription, since the app has joined the client to the room."""
        subscription = self._subscriptions.get(name)
        if subscription is not None:
            _decide(subscription)

    async def joined(self, name: str) -> None:
        """Waits until the client is present in a room that it was told to be in, so that its presence has an id."""
        subscription = self._subscriptions.get(name)
        if subscription is not None and subscription.is_in and subscription.joining is not None:
            await asyncio.wait([subscription.joining])

    def _refusal(self, request: SubscribeRequest) -> Error | None:
        name = request.channel
        if len(name.encode()) > MAX_NAME_BYTES or request.tf is not None:
            return ErrorCode.BAD_REQUEST.error()
        if request.type:
            return ErrorCode.NOT_AVAILABLE.error()
        if name[:1] == "$":
            return denied(name, "names that start with '$' are the server's own").error
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
            subscription.joining = subscription.attempt = None
            _decide(subscription)
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
            session = self._client.session
            with self._engine.memberships.attempts.begin(session.user_id, session.id) as attempt:
                subscription.attempt = attempt
                grant, token = await self._granted(request)
                if self._subscriptions.get(subscription.room) is not subscription:
                    return _left_early()
                if is_over(grant.expires_at_s) or (token is not None and is_over(token.ends_at)):
                    return ErrorCode.EXPIRED.error()
                return await self._join(number, request, subscription, grant, token, attempt)

    async def _granted(self, request: SubscribeRequest) -> tuple[Grant, SubscriptionToken | None]:
        """Verifies the token, if the room needs one, and asks the room's rule.

        Raises:
            Refused: The rule refuses, or the room has no rule, or the token is not acceptable.
            Ended: The token is for another user or room, so the connection was closed.
        """
        name = request.channel
        match = self._client.served.routes.rooms.match(name)
        if match is None:
            raise denied(name, f"no @room pattern matches; there are: {self._client.served.routes.rooms.patterns}")
        try:
            room_name(name)
        except InvalidName as error:
            raise Refused(ErrorCode.BAD_REQUEST.error(str(error))) from None
        token, caller = await self._verified(match.rule, request), self._client.caller
        if token is not None and caller is not None:
            caller = caller.with_claims(token.claims)
        grant = await self._client.call(match.rule.function, request.data, match.names, caller)
        if grant is None:
            raise denied(name, f"{match.rule.function.name} said no")
        return grant, token

    async def _verified(
        self, rule: RoomRule, request: SubscribeRequest | SubRefreshRequest
    ) -> SubscriptionToken | None:
        """Verifies the token in a request. Returns None if the rule asks for none."""
        tokens = rule.tokens
        if tokens is None:
            return None
        assert tokens is not True, "the endpoint has decided"
        client = self._client
        try:
            if not request.token:
                raise InvalidToken("no token")
            token = subscription_token(await tokens.subscription_claims(request.token))
        except InvalidToken as error:
            logger.info("refused a subscription to %s: %s", shown(request.channel), error.reason)
            if error.expired:
                raise Refused(ErrorCode.TOKEN_EXPIRED.error()) from error
            raise Refused(ErrorCode.PERMISSION_DENIED.error(f"subscription token: {error.cause}")) from error
        except KeyUnavailable as error:
            logger.warning("refused a subscription to %s: no key to check its token with", shown(request.channel))
            raise Refused(ErrorCode.INTERNAL.error(error.reason)) from error
        if token.room != request.channel:
            await client.close(DisconnectCode.INVALID_TOKEN, "the subscription token is for another room")
        if token.user_id != client.session.user_id:
            await client.close(DisconnectCode.INVALID_TOKEN, "the subscription token is for another user")
        return token

    async def _join(
        self,
        number: int,
        request: SubscribeRequest,
        subscription: Subscription,
        grant: Grant,
        token: SubscriptionToken | None,
        attempt: Attempt,
    ) -> Error | None:
        """Joins a room, which writes the reply. Returns an error if it did not."""
        client, name = self._client, request.channel
        # Not the end of the grant: an SDK that has no `getToken` would give up a subscription whose end it is told.
        ends_at = None if token is None else token.ends_at
        info = grant.info if grant.info is not None or token is None else token.info
        data = grant.payload
        recoverable = self._engine.options_of(name).history is not None
        # The client may present a position although the room no longer has a history. Then it does not recover.
        since = presented(request) if recoverable else None
        if since is not None:
            since = await completed(self._engine.broker, name, since)

        def reply(joined: Joined, entries: Sequence[Entry]) -> bytes:
            """Encodes the reply, which the room writes to the client before any of its messages."""
            result = subscribed(joined, request, recoverable=recoverable, entries=entries, data=data, ends_at=ends_at)
            client.write()  # earlier replies come first
            subscription.is_in = True
            subscription.ends_at, subscription.token_ends_at = grant.expires_at_s, ends_at
            _decide(subscription)
            return client.encoding.encode([Reply(number, result)])

        try:
            await self._engine.memberships.join(client.session, name, since, attempt, reply=reply, room_info=info)
        except Exception:
            if not subscription.is_in:
                raise
            # Its presence failed after the reply was written, so the client must be told that it is out again.
            self.end(name, UnsubscribeCode.INSUFFICIENT_STATE)
            return None
        if subscription.is_in:
            return None
        # The app joined the client in the meantime, or the right was taken back, or the client unsubscribed.
        is_current = self._subscriptions.get(name) is subscription
        return ErrorCode.ALREADY_SUBSCRIBED.error() if is_current and client.is_subscribed(name) else _left_early()

    # Refreshing

    async def refresh(self, request: SubRefreshRequest) -> SubRefreshResult:
        """Replaces the token of a subscription, in place. The rule is not asked again."""
        name = request.channel
        match = self._client.served.routes.rooms.match(name)
        if match is None or match.rule.tokens is None:
            raise Refused(ErrorCode.NOT_AVAILABLE.error())
        subscription = self._subscriptions.get(name)
        if subscription is None or not subscription.is_in:
            raise denied(name, "it replaces the token of a subscription that it does not have")
        if subscription.refreshing is None:
            subscription.refreshing = asyncio.Lock()
        async with subscription.refreshing:  # one at a time, so that a client can't start many at once
            return await self._refreshed(subscription, match.rule, request)

    async def _refreshed(
        self, subscription: Subscription, rule: RoomRule, request: SubRefreshRequest
    ) -> SubRefreshResult:
        if self._client.socket.closed is not None:
            raise Ended
        try:
            token = await self._verified(rule, request)
        except Refused as refused:
            if refused.error.code != ErrorCode.TOKEN_EXPIRED.code:
                raise
            # Temporary, so that an SDK fetches another one. After any other error, it ends the subscription.
            raise Refused(replace(refused.error, temporary=True)) from refused
        assert token is not None
        if is_over(token.ends_at):
            raise Refused(ErrorCode.EXPIRED.error())
        if self._subscriptions.get(subscription.room) is not subscription:
            raise Refused(ErrorCode.PERMISSION_DENIED.error("unsubscribed in the meantime"))
        subscription.token_ends_at = token.ends_at
        return SubRefreshResult(token.ends_at is not None, ttl_s(token.ends_at))

    # Ending

    def unsubscribe(self, number: int, request: UnsubscribeRequest) -> None:
        """Leaves a room, and replies once that is done. The client may subscribe again before the reply."""
        client, reply = self._client, Reply(number, UnsubscribeResult())
        subscription = self._pop(request.channel)
        if subscription is None:
            client.say(reply)
        else:
            self._leave(subscription).add_done_callback(lambda task: client.say(reply))

    def end(self, name: str, code: UnsubscribeCode) -> None:
        """Ends a subscription, and tells the client why."""
        subscription = self._pop(name)
        if subscription is not None:
            self._leave(subscription)
            self._client.say(Push(name, code.push()))

    def forget(self, name: str) -> None:
        """Ends a subscription that the room has ended, or one that is being authorized."""
        self._pop(name)

    def _pop(self, name: str) -> Subscription | None:
        subscription = self._subscriptions.pop(name, None)
        if subscription is not None:
            subscription.drop()
            _decide(subscription)
        return subscription

    def end_expired(self) -> None:
        """Ends the subscriptions whose permission has ended, or whose token expired and was not replaced in time."""
        for subscription in tuple(self._subscriptions.values()):
            if is_over(subscription.ends_at) or is_past_grace(subscription.token_ends_at):
                self.end(subscription.room, UnsubscribeCode.EXPIRED)

    def lose_place(self, name: str) -> None:
        """Ends a subscription after messages of its room were lost. The client subscribes again, without recovery.

        A room that the server joined the client to ends with the connection, because an SDK would give it up for good.
        """
        if not self.recover(name) and name not in self._leaving:  # the server joined the client to it
            self._client.socket.close_soon(DisconnectCode.INSUFFICIENT_STATE.closed())

    def recover(self, name: str) -> bool:
        """Ends a subscription, so that the client subscribes again and recovers. Returns False if it has none."""
        subscription = self._subscriptions.get(name)
        if subscription is None or not subscription.is_in:
            return False
        self.end(name, UnsubscribeCode.INSUFFICIENT_STATE)
        return True

    def _leave(self, subscription: Subscription) -> asyncio.Task[None]:
        """Leaves a room, if the client is in it by its subscription. A new subscription to it waits until this is done.

        If the app joins the client to the room meanwhile, the client stays.
        """
        name, session, memberships = subscription.room, self._client.session, self._engine.memberships
        work = memberships.left(session, name) if subscription.is_in else memberships.pending_join(session, name)
        leaving = self._leaving[name] = self._workload.spawn(work)

        def left(task: asyncio.Task[None]) -> None:
            if self._leaving.get(name) is task:
                del self._leaving[name]

        leaving.add_done_callback(left)
        return leaving


def _decide(subscription: Subscription) -> None:
    if not subscription.decided.done():
        subscription.decided.set_result(None)


def _left_early() -> Error:
    return ErrorCode.PERMISSION_DENIED.error("unsubscribed before the subscription was granted")
