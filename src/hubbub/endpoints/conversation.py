"""The conversation with one client of an endpoint: reads its commands, handles them, and answers.

Theory of operation. The first command is ``connect``. It authenticates the client, connects it to the manager, and runs
``@connect``. Nothing else is read until it is answered. Afterwards, three kinds of work run concurrently:

* Requests, messages and publications wait in a queue. One task handles them one after the other, in order. The task
  lives only while the queue is not empty.
* Subscriptions are authorized concurrently, a bounded number at a time. The reply to a subscribe arrives before any
  message from its room.
* Pongs, refreshes and unsubscribes are handled as they arrive.

While the queue of a client is full, nothing more is read from that client, and its deadline for a pong is suspended.

The conversation ends with its session. Queued commands are dropped. Functions that are still running have
``Limits.handler_timeout_s`` to finish, and are then canceled.

The sweeper, which checks every socket once a second, also sends the pings, and ends expired tokens and grants. So an
idle client has no task and no timer.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NoReturn, Protocol, TypeVar

from starlette.exceptions import HTTPException, WebSocketException
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..brokers.base import Broker
from ..close import Closed
from ..codec import Kind, Payload, dumps, encode, loads_from_client
from ..connections.connection import Connection, session_of
from ..connections.session import Session
from ..connections.socket import Socket
from ..envelope import Entry, Envelope
from ..errors import BrokerUnavailable, InvalidName, shown
from ..metrics.counters import Counters
from ..names import EVERYONE_NAME, MAX_NAME_BYTES, RoomName, UserId, label, room_name, user_room
from ..options import Limits, RoomOptions
from ..positions import Joined, Position
from ..presence import Info
from ..protocols.centrifugo import BadRequest, CentrifugoProtocol
from ..protocols.centrifugo.codes import DisconnectCode, ErrorCode, UnsubscribeCode, closed_as
from ..protocols.centrifugo.messages import (
    ClientInfo,
    Command,
    ConnectRequest,
    ConnectResult,
    Error,
    HistoryRequest,
    HistoryResult,
    PingRequest,
    Pong,
    PresenceRequest,
    PresenceResult,
    PresenceStatsRequest,
    PresenceStatsResult,
    Publication,
    PublishRequest,
    PublishResult,
    Push,
    RefreshRequest,
    RefreshResult,
    Reply,
    Result,
    RPCRequest,
    RPCResult,
    SendRequest,
    SubRefreshRequest,
    SubscribeRequest,
    SubscribeResult,
    UnsubscribeRequest,
    UnsubscribeResult,
)
from ..rooms.memberships import JoinRefused, Memberships
from ..subprotocols import answer_to
from ..tasks import Tasks
from .dependencies import Caller
from .functions import MISSING, Function
from .refusals import RoomUnknown, refusal_of
from .results import Grant, Welcome
from .routing import Routes

logger: Final = logging.getLogger("hubbub")

T = TypeVar("T")

PING_S: Final = 25.0
PONG_S: Final = 10.0
CONNECT_S: Final = 15.0
REFRESH_GRACE_S: Final = 25.0
"""Seconds after its expiry for which the client may still replace a token."""

MAX_WAITING: Final = 64
"""Maximum number of requests of one client that are queued or run concurrently."""

MAX_TASKS: Final = 512
"""Maximum number of tasks of one client, including those of subscriptions and refreshes."""

MAX_TTL_S: Final = 2**31 - 1

MAX_SUBSCRIBING: Final = 16
"""Maximum number of subscriptions of one client that are authorized at the same time."""

_VERSION: Final = "hubbub"


class Engine(Protocol):
    """The part of a manager's engine that a conversation uses."""

    limits: Limits
    counters: Counters
    tasks: Tasks
    broker: Broker
    memberships: Memberships

    def options_of(self, channel: str) -> RoomOptions:
        """Returns the options of a room."""

    async def connect(
        self,
        websocket: WebSocket,
        user_id: UserId | None,
        *,
        room: RoomName | None,
        rooms: Iterable[RoomName],
        info: Info,
        since: Position | Mapping[str, Position] | None,
        subprotocol: str | None,
        headers: Iterable[tuple[bytes, bytes]] | None,
        expires_at: datetime | float | None,
    ) -> Connection:
        """Connects a WebSocket, as `ConnectionManager.connect` does."""

    async def publish(self, name: str, envelope: Envelope) -> Position | None:
        """Publishes a message."""


@dataclass(frozen=True, slots=True)
class Served:
    """The functions and settings of an endpoint, shared by the conversations with all its clients.

    Attributes:
        routes: The functions of the endpoint.
        authenticate: Runs the ``auth=`` dependency. None if everyone may connect.
        user_id_of: Returns the id of the user that the dependency yields.
        app: The app, for its ``dependency_overrides``.
    """

    routes: Routes
    authenticate: Function[Any] | None
    user_id_of: Callable[[Any], UserId | None]
    app: object


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


class Ended(Exception):
    """Raised to end the conversation."""


class Conversation:
    """Reads, handles and answers the commands of one client.

    Args:
        served: The functions and settings of the endpoint.
        engine: The engine of the manager.
        websocket: The client's socket, before it is accepted.
        protocol: The protocol of the client.
    """

    def __init__(self, served: Served, engine: Engine, websocket: WebSocket, protocol: CentrifugoProtocol) -> None:
        self._served = served
        self._engine = engine
        self._websocket = websocket
        self._encoding = protocol.encoding
        self._protocol = protocol
        self._socket: Socket = websocket.scope["hubbub"]
        self._session: Session | None = None
        self._is_connecting = False
        self._is_connected = False
        self._caller: Caller | None = None
        self._began_at = asyncio.get_running_loop().time()
        self._ping_at = self._began_at + random.uniform(PING_S / 2, PING_S)  # noqa: S311 - spreads load, no secret
        self._pong_by: float | None = None
        self._pongs_due = 0
        self._token_ends_at: float | None = None
        self._subscriptions: dict[str, Subscription] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._authorizing = asyncio.Semaphore(MAX_SUBSCRIBING)
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: deque[Command] = deque()
        self._working = False
        self._concurrent = 0
        self._room_for_more: asyncio.Event | None = None
        self._replies: list[Reply | Push] = []

    async def run(self) -> None:
        """Accepts the client, and serves it until it is gone."""
        self._socket.speak(self._protocol)
        offered: Sequence[str] = self._websocket.scope.get("subprotocols") or ()
        mine = self._encoding.subprotocol
        # One that offers a token (`bearer`) is answered too: a browser drops a socket that selects none of its offers.
        await self._websocket.accept(mine if mine in offered else answer_to(offered))
        self._socket.listener = self
        try:
            await self._listen()
        except (Ended, WebSocketDisconnect):
            pass
        finally:
            self._socket.listener = None
            await self._end()

    async def _listen(self) -> None:
        receive = self._socket.receive
        while (event := await receive())["type"] != "websocket.disconnect":
            text = event.get("text")
            try:
                commands = self._encoding.decode(event["bytes"] if text is None else text)
            except BadRequest as error:
                await self._close(DisconnectCode.BAD_REQUEST, str(error))
            for command in commands:
                if self._socket.closed is not None:
                    break  # sent before the client saw our Close frame
                if self._is_connected:
                    await self._take(command)
                elif isinstance(command.request, ConnectRequest):
                    self._is_connecting = True
                    try:
                        if not await self._connect(command.id, command.request):
                            break
                    finally:
                        self._is_connecting = False
                else:
                    await self._close(DisconnectCode.BAD_REQUEST, "the first command must be connect")

    # Connecting

    async def _connect(self, number: int, request: ConnectRequest) -> bool:
        """Answers ``connect``. Returns False if it was refused; the rest of its frame is then ignored."""
        try:
            user, user_id, ends_at = await self._authenticated(request.token)
        except _Refused as refused:
            self._say(Reply(number, refused.error))
            return False
        self._token_ends_at = ends_at
        writer = self._socket.writer
        writer.cork()  # so that no message of a room arrives before the reply
        try:
            connection = await self._engine.connect(
                self._websocket,
                user_id,
                room=None,
                rooms=(),
                info=None,
                since=None,
                subprotocol=None,
                headers=None,
                expires_at=None,
            )
            session = self._session = session_of(connection)
            session.listener = self
            caller = Caller(self._websocket.scope, connection=connection, user=user, app=self._served.app)
            welcome, data = await self._welcome(caller, request)
            self._caller = caller  # from now on, @disconnect runs at the end
            names = [*([] if user_id is None else [user_room(session.user_id or "")]), EVERYONE_NAME]
            for name in welcome.names:
                if name not in session.memberships:
                    await self._engine.memberships.join(session, name, _presented(request.subs.get(name)))
                names.append(name)
        except _Refused as refused:
            error = refused.error
            writer.uncork(self._encoding.encode([Reply(number, error)]))
            cause = DisconnectCode.INTERNAL if error.temporary else DisconnectCode.PERMISSION_DENIED
            await self._close(cause, error.message)
        except JoinRefused as refusal:
            await self._close(closed_as(refusal.cause.code, refusal.cause.reason))
        except BrokerUnavailable:
            await self._close(DisconnectCode.INTERNAL)
        result = ConnectResult(
            client=session.id,
            version=_VERSION,
            expires=ends_at is not None,
            ttl=_ttl(ends_at),
            data=data,
            subs={label(name): self._joined(session, name, request.subs.get(name)) for name in names},
            ping=int(PING_S),
            pong=True,
        )
        self._is_connected = True
        writer.uncork(self._encoding.encode([Reply(number, result)]))
        return True

    async def _welcome(self, caller: Caller, request: ConnectRequest) -> tuple[Welcome, Payload | None]:
        """Runs ``@connect``. Returns its result, and the encoded data for the client."""
        function = self._served.routes.connect
        if function is None:
            return Welcome(), None
        try:
            welcome = await _awaited(function(caller, _message(request.data), is_encoded=request.data is not None))
            return welcome, None if welcome.data is None else encode(welcome.data)
        except Exception as error:
            raise _Refused(await self._error(error, function)) from error

    async def _authenticated(self, token: str) -> tuple[Any, UserId | None, float | None]:
        """Runs the ``auth=`` dependency. Returns the user, its id, and when the token of the command expires."""
        function = self._served.authenticate
        if function is None:
            return None, None, None
        scope = self._websocket.scope
        if token:  # the conversation watches its expiry, not the socket, because the client can replace it
            scope = {key: value for key, value in scope.items() if key != "hubbub"}
        try:
            user = await _awaited(function(Caller(scope, app=self._served.app, token=token or None)))
            user_id = self._served.user_id_of(user)
        except HTTPException as error:
            if getattr(error, "expired", False) and token:
                raise _Refused(ErrorCode.TOKEN_EXPIRED.error()) from error
            if error.status_code == 401:
                await self._close(DisconnectCode.INVALID_TOKEN, str(error.detail))
            if error.status_code == 403:
                await self._close(DisconnectCode.PERMISSION_DENIED, str(error.detail))
            raise _Refused(await self._error(error, function)) from error
        except Exception as error:
            raise _Refused(await self._error(error, function)) from error
        return user, user_id, _end_of(user) if token else None

    def _joined(self, session: Session, name: str, asked: SubscribeRequest | None) -> SubscribeResult:
        """Returns the part of the reply to ``connect`` about a room that the server subscribed the client to."""
        membership = session.memberships.get(name)
        joined = None if membership is None else membership.joined
        if joined is None or joined.position is None:
            return SubscribeResult()
        recovers = asked is not None and asked.recover
        position = joined.position
        offset = asked.offset if recovers and joined.recovered and asked is not None else position.offset
        return SubscribeResult(
            recoverable=self._engine.options_of(name).history is not None,
            positioned=True,
            epoch=position.epoch,
            offset=offset,
            was_recovering=recovers,
            recovered=recovers and joined.recovered,
        )

    # Commands

    async def _take(self, command: Command) -> None:
        request = command.request
        match request:
            case Pong():
                await self._ponged()
            case SubscribeRequest():
                await self._begin_subscribing(command.id, request)
            case UnsubscribeRequest():
                await self._until(self._has_room)
                self._unsubscribe(command.id, request)
            case RefreshRequest():
                await self._until(self._has_room)
                self._spawn(self._refresh(command.id, request))
            case ConnectRequest():
                await self._close(DisconnectCode.BAD_REQUEST, "already connected")
            case PingRequest() | SubRefreshRequest():
                self._say(Reply(command.id, ErrorCode.NOT_AVAILABLE.error()))
            case RPCRequest() if self._is_concurrent(request):
                await self._until(self._has_turn)
                self._concurrent += 1
                self._spawn(self._answer(command)).add_done_callback(self._answered_beside)
            case _:
                await self._until(self._has_turn)
                self._queue(command)

    def _is_concurrent(self, request: RPCRequest) -> bool:
        method = self._served.routes.methods.get(request.method)
        return method is not None and method.concurrent

    def _has_turn(self) -> bool:
        return len(self._waiting) + self._concurrent < MAX_WAITING

    def _has_room(self) -> bool:
        return len(self._tasks) < MAX_TASKS

    async def _until(self, has_room: Callable[[], bool]) -> None:
        """Waits until there is room for a command. Until then, nothing is read from the client.

        Raises:
            Ended: The connection has ended.
        """
        if has_room():
            return
        try:
            while not has_room():
                if self._socket.closed is not None:
                    raise Ended
                self._room_for_more = asyncio.Event()
                await self._room_for_more.wait()
        finally:
            self._room_for_more = None
        if self._pongs_due:  # the pong may be among the frames that were not read
            self._pong_by = asyncio.get_running_loop().time() + PONG_S

    def _wake(self) -> None:
        if self._room_for_more is not None:
            self._room_for_more.set()

    def _answered_beside(self, task: asyncio.Task[None]) -> None:
        self._concurrent -= 1
        self._wake()

    def _queue(self, command: Command) -> None:
        """Appends a command to the queue."""
        self._waiting.append(command)
        if not self._working:
            self._working = True
            self._spawn(self._work())

    async def _work(self) -> None:
        try:
            while self._waiting and self._socket.closed is None:
                command = self._waiting.popleft()
                self._wake()
                await self._answer(command)
        finally:
            self._working = False

    async def _answer(self, command: Command) -> None:
        """Handles a request, and replies with its result."""
        request = command.request
        work: Coroutine[Any, Any, Result | None]
        match request:
            case RPCRequest():
                work = self._rpc(request)
            case SendRequest():
                work = self._sent(request)
            case PublishRequest():
                work = self._publish(request)
            case PresenceRequest():
                work = self._presence(request)
            case PresenceStatsRequest():
                work = self._presence_stats(request)
            case HistoryRequest():
                work = self._history(request)
            case _:
                self._say(Reply(command.id, ErrorCode.NOT_AVAILABLE.error()))
                return
        await self._handle(command.id, work)

    async def _handle(self, number: int, work: Coroutine[Any, Any, Result | Error | None]) -> None:
        """Replies to a command with the result of its work, or with the error that the work raises.

        Args:
            number: The id of the command.
            work: Returns None if no reply is needed, or if it has replied itself.
        """
        try:
            result = await work
        except (Ended, WebSocketDisconnect):
            return
        except _Refused as refused:
            result = refused.error
        except JoinRefused:
            result = ErrorCode.LIMIT_EXCEEDED.error()
        except BrokerUnavailable:
            result = ErrorCode.INTERNAL.error("the broker is unavailable")
        except Exception as error:
            self._engine.counters.errors["function"] += 1
            logger.error("a command can't be answered", exc_info=error)
            result = ErrorCode.INTERNAL.error()
        if result is not None:
            self._say(Reply(number, result))

    async def _call(self, function: Function[Any], data: Payload | None, names: Mapping[str, str] | None = None) -> Any:
        """Calls a function of the app.

        Raises:
            _Refused: The function refused or failed. The exception holds the reply.
        """
        assert self._caller is not None
        try:
            return await _awaited(function(self._caller, _message(data), names or {}, is_encoded=data is not None))
        except Exception as error:
            raise _Refused(await self._error(error, function)) from error

    async def _error(self, error: Exception, function: Function[Any]) -> Error:
        """Converts an exception of a function into the error that the client receives."""
        if isinstance(error, WebSocketDisconnect) and self._socket.closed is not None:
            raise Ended from error
        if isinstance(error, WebSocketException):
            await self._close(closed_as(error.code, error.reason))
        if isinstance(error, RoomUnknown):
            return ErrorCode.UNKNOWN_CHANNEL.error()
        refusal = refusal_of(error)
        if refusal is not None:
            return Error(refusal.code, refusal.reason, refusal.temporary)
        if isinstance(error, (InvalidName, BrokerUnavailable)):
            return (
                ErrorCode.BAD_REQUEST.error(str(error))
                if isinstance(error, InvalidName)
                else ErrorCode.INTERNAL.error()
            )
        self._engine.counters.errors["function"] += 1
        logger.error("%s failed", function.name, exc_info=error)
        return ErrorCode.INTERNAL.error()

    async def _rpc(self, request: RPCRequest) -> RPCResult:
        method = self._served.routes.methods.get(request.method)
        if method is None:
            methods = self._served.routes.methods
            raise _Refused((ErrorCode.METHOD_NOT_FOUND if methods else ErrorCode.NOT_AVAILABLE).error())
        return RPCResult(await self._call(method.function, request.data))

    async def _sent(self, request: SendRequest) -> None:
        """Handles a message without an answer: an object with the ``method`` and its ``data``."""
        try:
            message = loads_from_client((request.data or Payload(Kind.JSON, b"null")).data)
            name = message["method"]
            method = self._served.routes.methods[name]
            data = message.get("data")
        except (ValueError, TypeError, KeyError, AttributeError):
            await self._close(DisconnectCode.NOT_AVAILABLE)
        try:
            await self._call(method.function, None if data is None else Payload(Kind.JSON, dumps(data)))
        except _Refused as refused:
            logger.debug("a message to %s was refused: %s", shown(name), shown(refused.error.message))

    async def _publish(self, request: PublishRequest) -> PublishResult:
        name = request.channel
        match = self._served.routes.publishing.match(name)
        if match is None or not self._is_subscribed(name):
            raise _Refused(ErrorCode.PERMISSION_DENIED.error())
        payload = await self._call(match.rule.function, request.data, match.names)
        if payload is not None:
            await self._engine.publish(name, Envelope(payload))
        return PublishResult()

    async def _presence(self, request: PresenceRequest) -> PresenceResult:
        self._check_may_ask(request.channel, self._engine.options_of(request.channel).client_presence)
        clients = {}
        for each in await self._engine.broker.connections(request.channel):  # a user's connections share one entry
            name = each.presence_id
            clients[name] = ClientInfo(each.user_id or "", name, _info(each.info), _info(each.room_info))
        return PresenceResult(clients)

    async def _presence_stats(self, request: PresenceStatsRequest) -> PresenceStatsResult:
        self._check_may_ask(request.channel, self._engine.options_of(request.channel).client_presence)
        entries = await self._engine.broker.connections(request.channel)
        return PresenceStatsResult(sum(each.live for each in entries), len({each.user_id or "" for each in entries}))

    async def _history(self, request: HistoryRequest) -> HistoryResult:
        options = self._engine.options_of(request.channel)
        self._check_may_ask(request.channel, options.client_history and options.history is not None)
        broker, name = self._engine.broker, request.channel
        if not request.limit:
            return _history_of((), await broker.position(name))
        since = None
        if request.since is not None:
            since = await self._completed(name, Position(request.since.epoch, request.since.offset))
        forward = since is not None and not request.reverse
        most = request.limit if request.limit > 0 else None
        page = await broker.history(name, since if forward else None, most if forward or since is None else None)
        if since is not None and page.head is not None and since.epoch not in ("", page.head.epoch):
            raise _Refused(ErrorCode.UNRECOVERABLE_POSITION.error())
        entries = list(page.entries)
        if request.reverse:
            entries.reverse()
            if since is not None:
                entries = [each for each in entries if each.recorded().position.offset < since.offset]
        elif since is not None:  # a position that does not exist yet has nothing after it
            entries = [each for each in entries if each.recorded().position.offset > since.offset]
        return _history_of(entries[:most], page.head)

    async def _completed(self, name: str, since: Position) -> Position:
        """Returns a position with its epoch: the current one, if the client gave none."""
        if since.epoch:
            return since
        head = await self._engine.broker.position(name)
        return since if head is None else Position(head.epoch, since.offset)

    def _check_may_ask(self, name: str, allowed: bool) -> None:
        if not self._is_subscribed(name):
            raise _Refused(ErrorCode.PERMISSION_DENIED.error())
        if not allowed:
            raise _Refused(ErrorCode.NOT_AVAILABLE.error())

    def _is_subscribed(self, name: str) -> bool:
        return self._session is not None and name[:1] != "$" and name in self._session.memberships

    # Subscribing

    async def _begin_subscribing(self, number: int, request: SubscribeRequest) -> None:
        """Refuses a subscription at once, or authorizes it in a task."""
        name = request.channel
        refusal = self._refusal(request)
        if refusal is not None:
            self._say(Reply(number, refusal))
            return
        await self._until(self._has_room)
        subscription = self._subscriptions[name] = Subscription(name)
        self._spawn(self._subscribe(number, request, subscription))

    def _refusal(self, request: SubscribeRequest) -> Error | None:
        name = request.channel
        if len(name.encode()) > MAX_NAME_BYTES or request.tf is not None:
            return ErrorCode.BAD_REQUEST.error()
        if request.type:
            return ErrorCode.NOT_AVAILABLE.error()
        if name[:1] == "$":
            return ErrorCode.PERMISSION_DENIED.error()
        if name in self._subscriptions or (self._is_subscribed(name) and name not in self._leaving):
            return ErrorCode.ALREADY_SUBSCRIBED.error()
        most = self._engine.limits.max_rooms_per_connection
        if most is not None and len(self._subscriptions) >= most:
            return ErrorCode.LIMIT_EXCEEDED.error()
        return None

    async def _subscribe(self, number: int, request: SubscribeRequest, subscription: Subscription) -> None:
        try:
            await self._handle(number, self._authorized(number, request, subscription))
        finally:
            if not subscription.is_in and self._subscriptions.get(subscription.room) is subscription:
                del self._subscriptions[subscription.room]

    async def _authorized(self, number: int, request: SubscribeRequest, subscription: Subscription) -> Error | None:
        """Asks the room's rule, and joins the room. Returns an error if refused; otherwise the join has replied."""
        leaving = self._leaving.get(subscription.room)
        if leaving is not None:
            await asyncio.wait([leaving])
        async with self._authorizing:
            if self._socket.closed is not None:
                raise Ended
            grant = await self._granted(request)
            if self._subscriptions.get(subscription.room) is not subscription:
                return ErrorCode.PERMISSION_DENIED.error("unsubscribed before the subscription was granted")
            if grant is None:
                return ErrorCode.PERMISSION_DENIED.error()
            if grant.expires_at_s is not None and grant.expires_at_s <= time.time():
                return ErrorCode.EXPIRED.error()
            return await self._joining(number, request, subscription, grant)

    async def _granted(self, request: SubscribeRequest) -> Grant | None:
        """Asks the room's rule. Returns None if it refuses, or if the room has no rule."""
        name = request.channel
        match = self._served.routes.rooms.match(name)
        if match is None:
            return None
        try:
            room_name(name)
        except InvalidName as error:
            raise _Refused(ErrorCode.BAD_REQUEST.error(str(error))) from None
        grant: Grant | None = await self._call(match.rule.function, request.data, match.names)
        return grant

    async def _joining(
        self, number: int, request: SubscribeRequest, subscription: Subscription, grant: Grant
    ) -> Error | None:
        """Joins a room, which writes the reply. Returns an error if it did not."""
        assert self._session is not None
        name, ends_at = request.channel, grant.expires_at_s
        data = None if grant.data is None else encode(grant.data)
        options = self._engine.options_of(name)
        # The client may present a position although the room no longer has a history. Then it does not recover.
        since = _presented(request) if options.history is not None else None
        if since is not None:
            since = await self._completed(name, since)

        def reply(joined: Joined, entries: Sequence[Entry]) -> bytes:
            """Encodes the reply, which the room writes to the client before any of its messages."""
            position = joined.position
            recovered = request.recover and joined.recovered
            result = SubscribeResult(
                expires=ends_at is not None,
                ttl=_ttl(ends_at),
                recoverable=options.history is not None,
                epoch="" if position is None else position.epoch,
                publications=_publications(entries),
                recovered=recovered,
                offset=0 if position is None else request.offset if recovered else position.offset,
                positioned=position is not None,
                data=data,
                was_recovering=request.recover,
            )
            self._write()  # earlier replies come first
            subscription.is_in = True
            return self._encoding.encode([Reply(number, result)])

        try:
            await self._engine.memberships.join(self._session, name, since, reply=reply)
        except Exception:
            if not subscription.is_in:
                raise
            # Its presence failed after the reply was written, so the client must be told that it is out again.
            self.unsubscribe(name, UnsubscribeCode.INSUFFICIENT_STATE)
            return None
        if not subscription.is_in:  # the app joined the client in the meantime
            return ErrorCode.ALREADY_SUBSCRIBED.error()
        subscription.ends_at = ends_at  # not earlier: the expiry must not overtake the reply
        return None

    def _unsubscribe(self, number: int, request: UnsubscribeRequest) -> None:
        """Leaves a room, and replies once that is done. The client may subscribe again before the reply."""
        reply = Reply(number, UnsubscribeResult())
        if self._subscriptions.pop(request.channel, None) is None:
            self._say(reply)
        else:
            self._leave(request.channel).add_done_callback(lambda task: self._say(reply))

    def unsubscribe(self, name: str, code: UnsubscribeCode) -> None:
        """Ends a subscription of the client, and tells it why."""
        if self._subscriptions.pop(name, None) is not None:
            self._leave(name)
            self._say(Push(name, code.push()))

    def _leave(self, name: str) -> asyncio.Task[None]:
        """Leaves a room. A new subscription to it waits until this is done."""
        assert self._session is not None
        leaving = self._leaving[name] = self._spawn(self._engine.memberships.leave(self._session, name))

        def left(task: asyncio.Task[None]) -> None:
            if self._leaving.get(name) is task:
                del self._leaving[name]

        leaving.add_done_callback(left)
        return leaving

    def lost_place(self, name: str) -> None:
        """Ends a subscription after messages of its room were lost. The client subscribes again, without recovery.

        The subscription ends with the frame that the protocol has for a `Reset` (`renumbering`).
        """
        if self._subscriptions.pop(name, None) is not None:
            self._leave(name)
        elif name not in self._leaving:  # the server joined the client to it
            self._socket.close_soon(DisconnectCode.INSUFFICIENT_STATE.closed())

    def ended(self) -> None:
        """Handles the end of the session: nothing new is started."""
        self._waiting.clear()
        self._wake()
        if self._tasks:
            self._engine.tasks.spawn(self._abandon(), "endpoint")

    async def _abandon(self) -> None:
        """Cancels functions that are still running too long after their client is gone."""
        await asyncio.wait(tuple(self._tasks), timeout=self._engine.limits.handler_timeout_s)
        for task in tuple(self._tasks):
            task.cancel()

    # Tokens

    async def _refresh(self, number: int, request: RefreshRequest) -> None:
        await self._handle(number, self._refreshed(request))

    async def _refreshed(self, request: RefreshRequest) -> RefreshResult:
        assert self._session is not None
        assert self._caller is not None
        try:
            user, user_id, ends_at = await self._authenticated(request.token)
        except _Refused as refused:
            if refused.error.code != ErrorCode.TOKEN_EXPIRED.code:
                raise
            await self._close(DisconnectCode.EXPIRED)
        if (None if user_id is None else str(user_id)) != self._session.user_id:
            await self._close(DisconnectCode.INVALID_TOKEN, "the token belongs to another user")
        self._caller.user = user
        self._token_ends_at = ends_at
        return RefreshResult(self._session.id, _VERSION, ends_at is not None, _ttl(ends_at))

    # Once a second

    def check(self, now: float) -> None:
        """Sends pings, and ends what has expired. Called once a second.

        Args:
            now: The event loop's time.
        """
        if not self._is_connected:
            if now - self._began_at >= CONNECT_S and not self._is_connecting:
                self._socket.close_soon(DisconnectCode.STALE.closed())
            return
        if self._pong_by is not None and now >= self._pong_by and self._room_for_more is None:
            self._socket.close_soon(DisconnectCode.NO_PONG.closed())
        elif now >= self._ping_at:
            self._ping_at = now + PING_S
            self._pongs_due += 1
            if self._pong_by is None:
                self._pong_by = now + PONG_S
            self._socket.writer.write(self._encoding.ping)
        wall = time.time()
        if self._token_ends_at is not None and wall >= self._token_ends_at + REFRESH_GRACE_S:
            self._socket.close_soon(DisconnectCode.EXPIRED.closed(), grace=False)
        for subscription in tuple(self._subscriptions.values()):
            if subscription.ends_at is not None and wall >= subscription.ends_at:
                self.unsubscribe(subscription.room, UnsubscribeCode.EXPIRED)

    async def _ponged(self) -> None:
        if not self._pongs_due:
            await self._close(DisconnectCode.BAD_REQUEST, "a pong without a ping")
        self._pongs_due -= 1
        self._pong_by = asyncio.get_running_loop().time() + PONG_S if self._pongs_due else None

    # Out

    def _say(self, reply: Reply | Push) -> None:
        """Queues a reply or push. All of one pass of the event loop are written together, at its end."""
        if not self._replies:
            asyncio.get_running_loop().call_soon(self._write)
        self._replies.append(reply)

    def _write(self) -> None:
        if self._replies and self._socket.closed is None:
            self._socket.flush()  # so that the replies arrive after the messages that the functions published
            replies, self._replies = self._replies, []
            self._socket.writer.write(self._encoding.encode(replies))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._engine.tasks.spawn(work, "endpoint")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._wake()

    async def _close(self, cause: DisconnectCode | Closed, reason: str = "") -> NoReturn:
        """Closes the socket, and ends the conversation.

        Raises:
            Ended: Always.
        """
        self._write()
        await self._socket.close(*(cause.closed(reason) if isinstance(cause, DisconnectCode) else cause))
        raise Ended

    async def _end(self) -> None:
        """Runs ``@disconnect``, if ``@connect`` returned. Called once, after the socket is gone."""
        function = self._served.routes.disconnect
        if function is not None and self._caller is not None:
            try:
                await _awaited(function(self._caller))
            except Exception as error:
                self._engine.counters.errors["function"] += 1
                logger.error("%s failed", function.name, exc_info=error)


class _Refused(Exception):
    """Raised to answer a request with an error."""

    def __init__(self, error: Error) -> None:
        self.error = error


async def _awaited(work: Awaitable[T]) -> T:
    """Awaits a function of the app. If the function raises CancelledError on its own, that is an error of the app."""
    try:
        return await work
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise RuntimeError("it awaited something that was canceled") from error


def _message(data: Payload | None) -> Any:
    return MISSING if data is None else data.data


def _presented(request: SubscribeRequest | None) -> Position | None:
    """Returns the position from which a client wants to recover, or None."""
    if request is None or not request.recover:
        return None
    return Position(request.epoch, request.offset)


def _ttl(ends_at: float | None) -> int:
    return 0 if ends_at is None else int(min(max(1.0, ends_at - time.time()), MAX_TTL_S))


def _end_of(user: object) -> float | None:
    """Returns when the token expires from which a user was made, if the user has its ``exp`` claim."""
    ends_at = user.get("exp") if isinstance(user, Mapping) else getattr(user, "exp", None)
    return float(ends_at) if isinstance(ends_at, (int, float)) else None


def _publications(entries: Sequence[Entry]) -> tuple[Publication, ...]:
    return tuple(Publication(each.envelope.payload, offset=each.recorded().position.offset) for each in entries)


def _history_of(entries: Sequence[Entry], head: Position | None) -> HistoryResult:
    return HistoryResult(_publications(entries), *(("", 0) if head is None else head))


def _info(info: object) -> Payload | None:
    return None if info is None else encode(info)
