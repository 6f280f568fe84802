"""The conversation with one client of an endpoint: accepts it, reads its commands, and has each handled in its turn.

Theory of operation. The first command is ``connect``. It authenticates the client, connects it to the manager, and runs
``@connect``. Nothing else is read until it is answered. Afterwards, three kinds of work run concurrently:

* Requests, messages and publications wait in a queue, and are handled one after the other (`Workload`), after the
  subscriptions that the client asked for before them.
* Subscriptions are authorized concurrently, a bounded number at a time (`Subscriptions`).
* Pongs, refreshes and unsubscribes are handled as they arrive.

While the queue of a client is full, nothing more is read from that client, and its deadline for a pong is suspended.

The conversation ends with its session. Queued commands are dropped. Functions that are still running have
``Limits.handler_timeout_s`` to finish, and are then canceled.

The sweeper, which checks every socket once a second, also has the pings sent, and the expired tokens and permissions
ended. So an idle client has no task and no timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from ..close import CloseCode
from ..codec import Payload
from ..connections.connection import session_of
from ..errors import BrokerUnavailable
from ..names import label
from ..positions import Joined, Position
from ..protocols.centrifugo import BadRequest, CentrifugoProtocol
from ..protocols.centrifugo.codes import DisconnectCode, ErrorCode, UnsubscribeCode, closed_as
from ..protocols.centrifugo.messages import (
    Command,
    ConnectRequest,
    ConnectResult,
    HistoryRequest,
    PingRequest,
    Pong,
    PresenceRequest,
    PresenceStatsRequest,
    PublishRequest,
    Push,
    Refresh,
    RefreshRequest,
    Reply,
    Result,
    RPCRequest,
    SendRequest,
    SubRefreshRequest,
    Subscribe,
    SubscribeRequest,
    SubscribeResult,
    Unsubscribe,
    UnsubscribeRequest,
)
from ..rooms.refusals import JoinRefused
from .authentication import VERSION, Authentication
from .caller import Caller
from .calls import Calls
from .client import Client, Ended, Refused
from .emulation import Mailbox
from .expiry import ttl_s
from .heartbeat import PING_S, Heartbeat
from .queries import Queries
from .results import Welcome
from .served import Engine, Served
from .streams import presented, subscribed
from .subscriptions import Subscriptions
from .workload import Workload

CONNECT_S: Final = 15.0
"""Seconds that a client has to connect, except for those that the app takes to answer."""


class Conversation:
    """Reads the commands of one client, and has them handled.

    Args:
        served: The functions and settings of the endpoint.
        engine: The engine of the manager.
        websocket: The client's socket, accepted.
        protocol: The protocol of the client.
        mailbox: Gives the client's commands, if it has a stream in the place of a WebSocket.
    """

    def __init__(
        self,
        served: Served,
        engine: Engine,
        websocket: WebSocket,
        protocol: CentrifugoProtocol,
        mailbox: Mailbox | None = None,
    ) -> None:
        client = self._client = Client(served, engine, websocket, protocol)
        self._engine = engine
        self._routes = served.routes
        self._socket = client.socket
        self._protocol = protocol
        self._mailbox = mailbox
        self._is_connecting = False
        self._is_connected = False
        self._presented: Mapping[str, SubscribeRequest] = {}
        self._began_at = asyncio.get_running_loop().time()
        self._authentication = Authentication(client)
        self._heartbeat = Heartbeat(self._socket, client.encoding.ping)
        self._workload = Workload(engine.tasks, self._socket, self._answer, engine.limits.max_message_bytes)
        self._subscriptions = Subscriptions(client, self._workload)
        self._calls = Calls(client, self._subscriptions)
        self._queries = Queries(client)

    async def run(self) -> None:
        """Serves the client until it is gone."""
        self._socket.listener = self
        try:
            await self._listen()
        except (Ended, WebSocketDisconnect):
            pass
        finally:
            self._socket.listener = None
            await self._client.end()

    async def _listen(self) -> None:
        receive, decode = self._socket.receive, self._client.encoding.decode
        while (event := await receive())["type"] != "websocket.disconnect":
            text = event.get("text")
            try:
                commands = decode(event["bytes"] if text is None else text)
            except BadRequest as error:
                await self._client.close(DisconnectCode.BAD_REQUEST, str(error))
            if len(commands) > 1 and not self._socket.admits(len(commands) - 1):
                break  # too many in too short a time, so the socket is closed
            for command in commands:
                if self._socket.closed is not None:
                    break  # sent before the client saw our Close frame
                if self._is_connected:
                    await self._take(command)
                elif isinstance(command.request, ConnectRequest):
                    self._is_connecting = True
                    try:
                        with self._engine.admission.authenticating(self._socket):
                            if not await self._connect(command.id, command.request):
                                break
                    finally:
                        self._is_connecting = False
                else:
                    await self._client.close(
                        DisconnectCode.BAD_REQUEST,
                        "this path speaks the Centrifugo protocol, whose first command is connect",
                    )

    # Connecting

    async def _connect(self, number: int, request: ConnectRequest) -> bool:
        """Answers ``connect``. Returns False if it was refused; the rest of its frame is then ignored."""
        client = self._client
        try:
            user, user_id, ends_at = await self._authentication.authenticate(request.token)
        except Refused as refused:
            client.say(Reply(number, refused.error))
            return False
        writer = self._socket.writer
        writer.cork()  # so that no message of a room arrives before the reply
        try:
            connection = await self._engine.connect(
                client.websocket,
                user_id,
                room=None,
                rooms=(),
                info=None,
                since=_presented_to_own_rooms(request),
                subprotocol=None,
                headers=None,
                expires_at=None,
            )
            session = client.session = session_of(connection)
            session.listener = self
            self._presented = request.subs
            caller = Caller(client.websocket.scope, connection=connection, user=user, app=client.served.app)
            data = await self._welcome(caller, request)
        except Refused as refused:
            error = refused.error
            writer.uncork(client.encoding.encode([Reply(number, error)]))
            cause = DisconnectCode.INTERNAL if error.temporary else DisconnectCode.PERMISSION_DENIED
            await client.close(cause, error.message)
        except JoinRefused as refusal:
            await client.close(closed_as(refusal.cause.code, refusal.cause.reason))
        except BrokerUnavailable:
            await client.close(DisconnectCode.INTERNAL)
        session_secret = ""
        if self._mailbox is not None:
            session_secret = self._mailbox.bind(session.user_id, by_handshake=not request.token)
        result = ConnectResult(
            client=session.id,
            version=VERSION,
            expires=ends_at is not None,
            ttl=ttl_s(ends_at),
            data=data,
            subs=self._subscribed_by_the_server(),
            ping=int(PING_S),
            pong=True,
            session=session_secret,
            node="" if self._mailbox is None else self._mailbox.node,
        )
        self._is_connected, self._presented = True, {}
        writer.uncork(client.encoding.encode([Reply(number, result)]))
        return True

    async def _welcome(self, caller: Caller, request: ConnectRequest) -> Payload | None:
        """Runs ``@connect``, and joins the rooms of its `Welcome`. Returns the encoded data for the client."""
        client, function, memberships = self._client, self._routes.connect, self._engine.memberships
        with memberships.attempts.begin(client.session.user_id, client.session.id) as attempt:
            welcome = Welcome() if function is None else await client.call(function, request.data, caller=caller)
            if welcome.info is not None:
                await memberships.describe(client.session, welcome.info)
            client.caller = caller  # from now on, @disconnect runs at the end
            for name in welcome.names:
                await memberships.join(client.session, name, self.presents(name), attempt)
        return welcome.payload

    def _subscribed_by_the_server(self) -> dict[str, SubscribeResult]:
        """Returns the part of the reply to ``connect`` about the rooms that the server joined the client to."""
        joined = {name: each.joined for name, each in self._client.session.memberships.items()}
        return {label(name): self._subscribed(name, each) for name, each in joined.items() if each is not None}

    def _subscribed(self, name: str, joined: Joined) -> SubscribeResult:
        """Returns the part of the reply to ``connect`` about a room that the server joined the client to."""
        if joined.position is None:
            return SubscribeResult()
        return subscribed(joined, self._presented.get(label(name)), recoverable=self._is_recoverable(name))

    def _is_recoverable(self, name: str) -> bool:
        return self._engine.options_of(name).history is not None

    # Commands

    async def _take(self, command: Command) -> None:
        """Handles a command as it arrives, or has it wait for its turn. Waits itself where that is bounded."""
        request, client, workload = command.request, self._client, self._workload
        match request:  # the most frequent ones first
            case RPCRequest() | SendRequest() if self._calls.is_concurrent(request):
                await self._until(workload.has_turn)
                workload.begin(command)
            case RPCRequest() | SendRequest() | PublishRequest():
                await self._until(workload.has_turn)
                workload.queue(command, self._subscriptions.undecided)
            case Pong():
                if not self._heartbeat.pong():
                    await client.close(DisconnectCode.BAD_REQUEST, "a pong without a ping")
            case SubscribeRequest():
                await self._until(workload.has_room)
                self._subscriptions.begin(command.id, request, command.size)
            case UnsubscribeRequest():
                await self._until(workload.has_room)
                self._subscriptions.unsubscribe(command.id, request)
            case RefreshRequest():
                await self._until(workload.has_room)
                workload.spawn(client.answer(command.id, self._authentication.refresh(request)), command.size)
            case ConnectRequest():
                await client.close(DisconnectCode.BAD_REQUEST, "already connected")
            case SubRefreshRequest():
                await self._until(workload.has_room)
                workload.spawn(client.answer(command.id, self._subscriptions.refresh(request)), command.size)
            case PingRequest():
                client.say(Reply(command.id, ErrorCode.NOT_AVAILABLE.error()))
            case _:
                await self._until(workload.has_turn)
                workload.queue(command, self._subscriptions.undecided)

    async def _until(self, may_begin: Callable[[], bool]) -> None:
        """Waits until a command may begin. Until then, nothing is read from the client.

        Raises:
            Ended: The connection has ended.
        """
        if may_begin():
            return
        self._heartbeat.pause()
        await self._workload.until(may_begin)
        self._heartbeat.unpause()

    def _answer(self, command: Command) -> Coroutine[Any, Any, None]:
        """Handles a command whose turn it is, and replies to it."""
        request = command.request
        work: Coroutine[Any, Any, Result | None]
        match request:
            case RPCRequest():
                work = self._calls.rpc(request)
            case SendRequest():
                work = self._calls.send(request)
            case PublishRequest():
                work = self._calls.publish(request)
            case PresenceRequest():
                work = self._queries.presence(request)
            case PresenceStatsRequest():
                work = self._queries.presence_stats(request)
            case HistoryRequest():
                work = self._queries.history(request)
            case _:
                raise AssertionError(f"{request} does not wait for its turn")
        return self._client.answer(command.id, work)

    # From the session, and from the sweeper

    def check(self, now: float) -> None:
        """Sends pings, and ends what has expired. Called once a second.

        Args:
            now: The event loop's time.
        """
        if self._mailbox is not None and self._socket.transport.restarting:  # a server tells only WebSockets of it
            self._socket.close_soon(CloseCode.SERVICE_RESTART)
        if not self._is_connected:
            if now - self._began_at >= CONNECT_S and not self._is_connecting:
                self._socket.close_soon(DisconnectCode.STALE.closed())
            return
        self._heartbeat.check(now)
        self._authentication.end_if_expired()
        self._subscriptions.end_expired()

    def presents(self, channel: str) -> Position | None:
        """Returns the position that the client presented in ``connect`` for a room that the server joins it to."""
        return presented(self._presented.get(channel))

    def joined(self, channel: str, position: Position | None) -> bytes | None:
        """Returns the push for a room that the server joined the client to; None if the reply to ``connect`` says so.

        Args:
            channel: The name of the room.
            position: The position after which the client receives every message.
        """
        if not self._is_connected:
            return None
        self._subscriptions.anticipate(channel)
        return self._pushed(channel, self._place(channel, position))

    def _place(self, channel: str, position: Position | None) -> Subscribe:
        return Subscribe() if position is None else Subscribe(self._is_recoverable(channel), *position, positioned=True)

    def renumbered(self, channel: str, position: Position) -> bytes | None:
        """Has the client subscribe again, and recover, because nothing else tells an SDK the new epoch.

        Otherwise, it would present its old epoch after its next reconnect, with an offset that this epoch never had.

        Returns:
            The push with the new position, for a room that the server joined the client to.
        """
        if self._subscriptions.recover(channel) or not self._is_connected:
            return None
        return self._pushed(channel, self._place(channel, position))

    def authorized_until(self, ends_at: float | None) -> bool:
        """Handles that an instruction changed how long the client is authorized, and tells the client.

        Returns:
            Whether the client has a token that it can replace. Otherwise, the socket ends then.
        """
        if not self._authentication.extend(ends_at):
            return False
        if self._is_connected:
            self._client.say(Push("", Refresh(ends_at is not None, ttl_s(ends_at))))
        return True

    def left(self, channel: str) -> bytes | None:
        """Forgets a subscription that the app or an instruction ended. Returns the push that tells the client."""
        self._subscriptions.forget(channel)
        return self._pushed(channel, UnsubscribeCode.SERVER.push()) if self._is_connected else None

    def _pushed(self, channel: str, event: Subscribe | Unsubscribe) -> bytes:
        """Encodes a push for the room to write."""
        self._client.write()  # earlier replies and pushes come first
        return self._client.encoding.encode([Push(label(channel), event)])

    def lost_place(self, channel: str) -> None:
        """Ends a subscription after messages of its room were lost."""
        self._subscriptions.lose_place(channel)

    def ended(self) -> None:
        """Handles the end of the session: nothing new is started."""
        self._workload.stop(self._engine.limits.handler_timeout_s)


def _presented_to_own_rooms(request: ConnectRequest) -> dict[str, Position]:
    """Returns the positions that a client presents to the rooms that every connection is in, by their labels."""
    positions = {name: presented(asked) for name, asked in request.subs.items() if name[:1] == "$"}
    return {name: position for name, position in positions.items() if position is not None}
