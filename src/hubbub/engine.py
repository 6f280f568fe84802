"""The engine of a manager: its parts, wired together, below the names that an app calls.

It is an object of its own so that a subclass of `ConnectionManager` may define any name: no code of hubbub looks up a
name on the manager; it calls the engine.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final
from weakref import WeakValueDictionary

from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket, WebSocketDisconnect

from . import arguments
from .brokers import Broker
from .brokers.unawaited import Unawaited
from .close import CloseCode
from .codec import Message, encode
from .connections.active import Active
from .connections.admission import Admission
from .connections.connection import Connection, session_of
from .connections.lookup import NOBODY, Exclude, ExcludeUsers, Lookup
from .connections.registry import Registry
from .connections.session import Session
from .connections.socket import Socket
from .connections.sweeper import Sweeper
from .connections.transports import Detours, prepare
from .endpoints import emulation
from .endpoints.documentation import Documentation
from .endpoints.emulation import Emulation
from .endpoints.raw_sockets import RawSocket
from .endpoints.routing import MessageRouter
from .endpoints.sends import Sends
from .envelope import Envelope, Kick, Recorded, Unsubscribe
from .errors import BrokerUnavailable, InvalidArgument, counted, shown
from .lifecycle import Lifecycle
from .metrics.counters import Counters, Stats
from .names import (
    EVERYONE_NAME,
    Everyone,
    RoomName,
    RoomNames,
    UserId,
    channel_of,
    label,
    room_name,
    user_name,
    user_room,
)
from .options import Limits, RefuseWith, RoomTable
from .origin import OriginPolicy
from .positions import Position, as_position
from .presence import Info, Member
from .protocols import ClientProtocol
from .protocols.event_stream import Asked, OneRoom
from .redaction import ServerLogFilter
from .rooms import census
from .rooms.attempts import Attempt
from .rooms.catch_up import Recovery
from .rooms.census import Census
from .rooms.deliveries import Deliveries
from .rooms.fanout import Fanout
from .rooms.gaps import Gaps
from .rooms.memberships import Memberships
from .rooms.refusals import JoinRefused
from .server.development import in_development
from .server.draining import send_away
from .server.workers import warn_of_server
from .tasks import Tasks
from .timers import Timers

logger: Final = logging.getLogger("hubbub")

_NO_POSITIONS: Final[Mapping[str, Position]] = {}


class Engine:
    """The parts of a `ConnectionManager`, and the calls that they make of each other.

    Args:
        broker: Connects the workers.
        options_of: Returns the options of a room, by its channel.
        limits: Bounds on what clients may use.
        origins: Decides which pages may connect.
        origins_given: Whether the app chose the origins. If not, `install` may use those of the app's CORSMiddleware.
        protocol: The protocol of clients, unless their endpoint sets another one.
        refuse_with: The way to answer a handshake that the app refuses.
        flush_interval_s: Seconds that a message may wait to share a write with others.
        thread_timeout_s: Seconds that a call from a thread may take.
        check_sends: Whether messages are checked against ``sends=`` of the rules; None for "in development".
    """

    def __init__(
        self,
        broker: Broker,
        options_of: RoomTable,
        *,
        limits: Limits,
        origins: OriginPolicy,
        origins_given: bool,
        protocol: ClientProtocol,
        refuse_with: RefuseWith,
        flush_interval_s: float,
        thread_timeout_s: float,
        check_sends: bool | None,
    ) -> None:
        self.broker = broker
        self.options_of = options_of
        self.limits = limits
        self.origins = origins
        self.origins_given = origins_given
        self.protocol = protocol
        self.refuse_with: RefuseWith = refuse_with
        self.thread_timeout_s = thread_timeout_s
        self.counters: Counters = Counters()
        self.endpoints: dict[str, WebSocketRoute] = {}
        self.documentation: list[Documentation] = []
        self.raw_sockets: dict[str, RawSocket] = {}
        self.routers: list[MessageRouter] = []
        self.http_apis: list[tuple[object, str]] = []
        self.sends: Sends | None = None
        self._check_sends = check_sends
        self.http_routes: list[Route] = []
        self.detours: Detours = Detours()
        self.one_room_streams: WeakValueDictionary[Asked, OneRoom] = WeakValueDictionary()
        self.app: Starlette | None = None
        self.tasks: Tasks = Tasks()
        self.fanout: Fanout = Fanout(flush_interval_s)
        self.lifecycle: Lifecycle = Lifecycle()
        self.timers: Timers = Timers()
        self.registry: Registry[Connection] = Registry()
        self.lookup: Lookup = Lookup(self.registry)
        self.sweeper: Sweeper = Sweeper(limits, self.lifecycle, self.timers)
        self.admission: Admission = Admission(self, self.registry, self.sweeper)
        self.gaps: Gaps = Gaps(self.tasks, self.counters, limits.handler_timeout_s)
        recovery = Recovery(broker, self.tasks, self.timers, self.gaps.report)
        self.memberships: Memberships = Memberships(
            broker,
            self.fanout,
            self.tasks,
            self.timers,
            options_of,
            self.admission.kick,
            recovery,
            limits.max_rooms_per_connection,
        )
        self.census: Census = Census(broker, self.memberships.rooms, self.registry)
        self.emulation: Emulation = Emulation(broker)
        answers = {census.LETTER: self.census.answer, emulation.LETTER: self.emulation.answer}
        self.deliveries: Deliveries = Deliveries(self.memberships, self.fanout, recovery, self.gaps.report, answers)
        self.unawaited: Unawaited = Unawaited(self.tasks, self.counters)
        self.active: Active = Active(self.lookup)
        self._filter = ServerLogFilter()

    # Start and end

    async def start(self, *, debug: bool = False) -> None:
        """Starts all parts, on the running loop.

        Args:
            debug: Whether the app is in debug mode.

        Raises:
            WrongLoop: The manager already runs.
            BrokerUnavailable: The broker denies access or can't serve, and a retry would not help.
        """
        self.lifecycle.check_stopped()
        loop = asyncio.get_running_loop()
        self.counters.reset()
        await prepare()
        self.fanout.start(loop)
        logging.getLogger("uvicorn.error").addFilter(self._filter)
        self.timers.start(loop)
        try:
            await self.broker.start(self.deliveries, self.options_of)
        except BaseException:
            self._end()
            raise
        if in_development(debug) if self._check_sends is None else self._check_sends:
            self.sends = Sends(self.routers)
            # It hides the method, so that a manager that does not check pays nothing for it.
            self.addressed = self._addressed_and_checked  # type: ignore[method-assign]  # on purpose
        self.lifecycle.start()
        self.census.start()
        self.sweeper.start()
        warn_of_server(self.broker, idle_timeout_s=self.limits.idle_timeout_s)
        logger.debug("the manager runs on %s://", self.broker.name)

    async def drain(self, over_s: float) -> bool:
        """Does what `ConnectionManager.drain` promises."""
        self.lifecycle.check_loop()
        self.lifecycle.draining = True
        sockets = tuple(self.sweeper.sockets)
        if sockets:
            logger.info("draining: closing %s over up to %g s", counted(len(sockets), "connections"), over_s)
        await send_away(sockets, over_s)
        # The sweeper ends handlers that exceed these limits, at its next sweep.
        timeout_s = max(self.limits.close_timeout_s, self.limits.shutdown_timeout_s) + 2.0
        try:
            async with asyncio.timeout(timeout_s):
                while next(self.sweeper.sockets, None) is not None:  # noqa: ASYNC110 - no event: sockets end one by one
                    await asyncio.sleep(0.05)
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """Closes all sockets, and stops all parts."""
        self.lifecycle.draining = True
        sockets = tuple(self.sweeper.sockets)
        for socket in sockets:
            # With other workers, a client that reconnects to one of them within the grace period has not left.
            socket.close_soon(CloseCode.SERVICE_RESTART, grace=self.broker.distributed)
            socket.reader.stop()
        await asyncio.sleep(0)  # lets publishes that are not awaited begin
        # If the broker is away, another worker removes the presence of this one once its lease has expired.
        await self.tasks.close(self.limits.close_timeout_s + 1.0 if sockets or self.broker.state.up else 0.0)
        self.timers.stop()
        await self.broker.close()
        self._end()

    def _end(self) -> None:
        self.fanout.stop()
        self.timers.stop()
        self.memberships.clear()
        self.gaps.clear()
        self.sweeper.stop()
        self.sends = None
        self.__dict__.pop("addressed", None)
        logging.getLogger("uvicorn.error").removeFilter(self._filter)
        self.lifecycle.stop()

    @property
    def running(self) -> bool:
        """Whether the manager has started and not stopped."""
        return self.lifecycle.running

    @property
    def draining(self) -> bool:
        """Whether the manager closes its connections and refuses new ones."""
        return self.lifecycle.draining

    # Connections

    async def connect(
        self,
        websocket: WebSocket,
        user_id: UserId | None,
        *,
        room: RoomName | None,
        rooms: Iterable[RoomName],
        info: Info,
        subprotocol: str | None,
        headers: Iterable[tuple[bytes, bytes]] | None,
        expires_at: datetime | float | None,
        since: Mapping[str, Position] = _NO_POSITIONS,
    ) -> Connection:
        """Does what `ConnectionManager.connect` promises.

        With ``since``, the client recovers the rooms that every connection is in. It has its positions by their labels.
        """
        _check_real(websocket, user_id)
        self.lifecycle.check_loop(websocket)
        socket = self._socket_of(websocket)
        user = None if user_id is None else user_name(user_id)
        names = arguments.room_names(room, rooms)
        detached_info = arguments.detached_info(info)
        expiry = arguments.timestamp(expires_at)
        arguments.check_handshake(subprotocol, headers)
        if socket.closed is not None:
            raise WebSocketDisconnect(*socket.closed)
        socket.expire_at(expiry)
        known = self.lookup.connection_of(socket)
        if known is not None:
            _check_same(known, user, detached_info)
            with self.memberships.attempts.begin(known.user_id, known.id) as attempt:
                await self._join_all(session_of(known), names, since, attempt)
            return known
        with self.memberships.attempts.begin(user) as attempt:
            connection = await self.admission.admit(
                socket,
                websocket,
                user,
                info=detached_info,
                rooms=len(names),
                subprotocol=subprotocol,
                headers=headers,
            )
            attempt.session_id = connection.id
            await self._join_first(connection, names, since, attempt)
        return connection

    async def _join_first(
        self, connection: Connection, names: Sequence[str], since: Mapping[str, Position], attempt: Attempt
    ) -> None:
        """Joins the first rooms of a connection. If that fails, it is not registered any more."""
        session = session_of(connection)
        own = [] if session.user_id is None else [user_room(session.user_id)]
        try:  # the user's own room first: a user who is present can receive messages
            await self._join_all(session, [*own, EVERYONE_NAME, *names], since, attempt)
        except BrokerUnavailable as error:
            self.forget(session, grace=False)
            logger.warning(
                "a connection can't join its rooms: %s", str(error)
            )  # as text: the error itself keeps its stack frames alive
            await self.admission.refuse(session.socket, CloseCode.BROKER_UNAVAILABLE)
        except BaseException:
            self.forget(session, grace=False)
            raise

    def serve(
        self,
        path: str,
        endpoint: Callable[[WebSocket], Awaitable[None]],
        http_apps: Mapping[str, ASGIApp],
        documentation: Documentation,
    ) -> None:
        """Serves a path of the app, now or once the manager is installed on it.

        Args:
            path: The path of the WebSocket.
            endpoint: Serves the WebSocket.
            http_apps: Serve the paths below it, by their last part.
            documentation: The documentation of the endpoint.
        """
        if path in self.endpoints:
            raise InvalidArgument(
                "path", f"there is an endpoint at {shown(path)} already", "one endpoint for each path"
            )
        route = self.endpoints[path] = WebSocketRoute(path, endpoint)
        http_routes = [Route(f"{path.rstrip('/')}/{name}", http_app) for name, http_app in http_apps.items()]
        self.http_routes += http_routes
        self.documentation.append(documentation)
        if self.app is not None:
            self.app.router.routes += [route, *http_routes]
            documentation.mount(self.app)

    def has(self, documentation: Documentation) -> bool:
        """Returns whether the documentation is that of an endpoint here."""
        return any(each is documentation for each in self.documentation)

    def describe(self, socket: RawSocket) -> None:
        """Adds a WebSocket of the app to the documentation of endpoints."""
        key = socket.path if socket.endpoint is None else f"{socket.path} {socket.endpoint}"
        if key in self.raw_sockets:
            raise InvalidArgument(socket.name, "that path is described already", "one description for each path")
        self.raw_sockets[key] = socket

    async def _join_all(
        self, session: Session, names: Sequence[str], since: Mapping[str, Position], attempt: Attempt
    ) -> None:
        await self.admission.make_room(session, self.memberships.full(session, names))
        try:
            await self.memberships.join_all(session, {name: since.get(label(name)) for name in names}, attempt)
        except JoinRefused as refusal:
            await self.admission.refuse(session.socket, refusal.cause)

    def _socket_of(self, websocket: WebSocket) -> Socket:
        socket = websocket.scope.get("hubbub")
        if not isinstance(socket, Socket) or self not in socket.managers:
            raise self.lifecycle.not_installed_here(websocket.url.path)
        return socket

    async def join(self, session: Session, room: RoomName) -> None:
        """Does what `Connection.join` promises."""
        name = room_name(room)
        position = None if session.listener is None else session.listener.presents(name)
        with self.memberships.attempts.begin(session.user_id, session.id) as attempt:
            await self.admission.make_room(session, self.memberships.full(session, [name]))
            try:
                await self.memberships.join(session, name, position, attempt)
            except JoinRefused as refusal:
                await self.admission.refuse(session.socket, refusal.cause)

    async def leave(self, session: Session, room: RoomName) -> None:
        """Does what `Connection.leave` promises."""
        await self.memberships.leave(session, room_name(room))

    def flush(self, session: Session) -> None:
        """Writes the pending messages of a session's rooms to it."""
        self.memberships.flush(session)

    def forget(self, session: Session, *, grace: bool) -> None:
        """Removes a session from the registry and from all its rooms. Idempotent.

        Args:
            session: The session.
            grace: Whether its user stays present for the grace periods of the rooms.
        """
        if session.mark_gone() and self.registry.remove(session.id):
            self.memberships.forget(session, grace=grace)

    def disconnect(self, websocket: object) -> None:
        """Unregisters the connection of a socket. Messages that were sent before are still written. Idempotent."""
        connection = self.lookup.find(websocket)
        if connection is not None:
            session = session_of(connection)
            session.flush()
            self.forget(session, grace=True)

    # Publishing

    def addressed(
        self,
        message: Message,
        room: RoomName | Everyone,
        exclude: Exclude,
        exclude_users: ExcludeUsers,
        key: str | None = None,
    ) -> tuple[str, Envelope]:
        """Returns the channel and the envelope of a broadcast."""
        channel = channel_of(room)
        excluded = NOBODY if exclude is None else self.lookup.excluded(exclude)
        if exclude_users is not None:
            excluded |= arguments.excluded_users(exclude_users)
        key = None if key is None else arguments.message_key(key)
        return channel, Envelope(encode(message), excluded, key)

    def _addressed_and_checked(
        self,
        message: Message,
        room: RoomName | Everyone,
        exclude: Exclude,
        exclude_users: ExcludeUsers,
        key: str | None = None,
    ) -> tuple[str, Envelope]:
        """Does what `addressed` does, and checks the message against ``sends=`` of the rules for the room."""
        channel, envelope = Engine.addressed(self, message, room, exclude, exclude_users, key)
        if self.sends is not None:
            self.sends.check(channel, message, envelope.payload)
        return channel, envelope

    async def publish(
        self, channel: str, envelope: Envelope, *, keep: bool = True, once: str | None = None
    ) -> Position | None:
        """Publishes a message through the broker. Paces the publisher while too much is pending."""
        self.lifecycle.check_loop()
        self.counters.published += 1
        position = await self.broker.publish(channel, envelope, keep=keep, once=once)
        if self.fanout.crowded:
            room = self.memberships.rooms.get(channel)
            if room is not None:
                await self.fanout.pace(room)
        return position

    def publish_nowait(self, channel: str, envelope: Envelope) -> None:
        """Begins to publish a message. A task finishes that, if the broker is remote.

        Raises:
            BrokerUnavailable: Too many messages already wait for the broker, or it refuses immediately.
            NotInstalled: The manager is not installed.
            NotRunning: The manager is not running.
            WrongThread: No event loop runs in this thread.
            WrongLoop: The manager runs on another event loop.
        """
        self.lifecycle.check_thread()
        size = len(envelope.payload.data)
        self.unawaited.check_bounds(size)
        self.counters.published += 1
        rest = self.broker.publish_nowait(channel, envelope)
        if rest is not None:
            self.unawaited.add(rest, size)

    async def is_connected(self, user: str) -> bool:
        """Returns whether a user has an open connection on any worker. Other workers' are known by their presence."""
        room = self.memberships.rooms.get(user_room(user))
        if room is not None and room.size:
            return True
        return self.broker.distributed and await self.broker.connected(EVERYONE_NAME, user)

    async def is_member(self, user: str, room: str) -> bool:
        """Returns whether a user has an open connection in a room, on any worker."""
        if self.memberships.has(user, room):
            return True
        return self.broker.distributed and await self.broker.connected(room, user)

    async def disconnect_user(self, user_id: UserId, kick: Kick) -> bool:
        """Closes connections of a user, on every worker. Returns whether the user had any."""
        user = user_name(user_id)
        self.lifecycle.check_loop()
        had = self.admission.knows(user) or await self.is_connected(user)
        with self.admission.own_kick(user):
            await self.broker.instruct(user_room(user), kick)
        return had

    async def unsubscribe(self, user_id: UserId, room: RoomName) -> bool:
        """Does what `ConnectionManager.unsubscribe` promises."""
        user, name = user_name(user_id), room_name(room)
        self.lifecycle.check_loop()
        try:
            return await self.is_member(user, name)
        finally:
            await self.broker.instruct(user_room(user), Unsubscribe(name))

    # Queries

    async def presence(self, room: RoomName | Everyone) -> list[Member]:
        """Does what `ConnectionManager.presence` promises."""
        name = channel_of(room)
        self.lifecycle.check_loop()
        return await self.broker.members(name)

    async def count_users(self, room: RoomName | Everyone) -> int:
        """Does what `ConnectionManager.count_users` promises."""
        name = channel_of(room)
        self.lifecycle.check_loop()
        return await self.broker.count(name)

    async def history(self, room: RoomName | Everyone, since: Position | None, limit: int | None) -> list[Recorded]:
        """Does what `ConnectionManager.history` promises."""
        name = channel_of(room)
        position = None if since is None else as_position(since)
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise InvalidArgument("limit", f"got {shown(limit)}", "a whole number from 1, or None")
        self.lifecycle.check_loop()
        page = await self.broker.history(name, position, limit)
        return [entry.recorded() for entry in page.entries]

    def connections(self, room: RoomName | Everyone, user: UserId | Everyone) -> list[Connection]:
        """Does what `ConnectionManager.connections` promises. Safe in any thread: it copies each table in one step."""
        name = None if isinstance(room, Everyone) else room_name(room)
        if not isinstance(user, Everyone):
            own = self.registry.of_user(user_name(user, "user"))
            return [each for each in own if name is None or name in session_of(each).memberships]
        if name is None:
            return self.active.copy()
        found = self.memberships.rooms.get(name)
        here = [] if found is None else [self.registry.get(each.id) for each in found.everybody()]
        return [each for each in here if each is not None]

    @property
    def rooms(self) -> frozenset[str]:
        """The names of the rooms that have members here, without the rooms of everyone and of users."""
        return RoomNames(name for name, room in tuple(self.memberships.rooms.items()) if room.size and name[0] != "$")

    def stats(self) -> Stats:
        """Does what `ConnectionManager.stats` promises."""
        counters = self.counters
        sockets = tuple(self.sweeper.sockets)  # copied in one step: a `def` route may call this in a thread
        fast = sum(socket.detour is None for socket in sockets)
        broker = self.broker.state
        return Stats(
            connections=len(self.registry),
            users=self.registry.user_count,
            rooms=len(self.rooms),
            queued_bytes=sum(socket.writer.queued_bytes for socket in sockets),
            published=counters.published,
            failed_publishes=counters.failed_publishes,
            received=counters.received,
            dropped=counters.dropped,
            gaps=counters.gaps,
            slow=counters.slow,
            stalled=counters.stalled,
            vanished=counters.vanished,
            errors=counters.frozen_errors(),
            refused=counters.frozen_refused(),
            fast_path=fast / len(sockets) if sockets else 0.0,
            broker_up=broker.up,
            broker_reconnects=broker.reconnects,
            local_only=broker.local_only,
            broker_skipped=broker.skipped,
        )


def _check_real(websocket: object, user_id: object) -> None:
    """Raises InvalidArgument if the value is not a WebSocket that a server created."""
    if not isinstance(websocket, WebSocket):
        accepted = "the WebSocket that the handler was given"
        if isinstance(user_id, WebSocket):
            accepted += ", first: `connect(websocket, user_id)`"
        raise InvalidArgument("websocket", f"got {shown(websocket)}", accepted)
    if not hasattr(websocket, "scope"):
        raise InvalidArgument(
            "websocket",
            f"got a stand-in ({type(websocket).__name__}), which no server created",
            "the WebSocket that the handler was given; in tests, "
            "`with TestClient(app) as client, client.websocket_connect(path):`",
        )


def _check_same(known: Connection, user: str | None, info: Info) -> None:
    """Raises InvalidArgument if a socket's second `connect` names another user or other info than the first one."""
    if user is not None and user != known.user_id:
        whose = "without a user" if known.user_id is None else "as another user"
        problem = f"this socket is connected {whose}"
        raise InvalidArgument("user_id", problem, "the same user, or none, for a socket that is connected")
    if info is not None and info != known.info:
        raise InvalidArgument("info", "this socket is connected with other info", "the same info, or None")
