"""The `ConnectionManager`: who is connected, in which rooms and as which user, and how messages get to them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from math import inf
from typing import TYPE_CHECKING

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from . import arguments
from .brokers import Broker, broker_from
from .close import CloseCode
from .codec import Message, encode
from .connecting import Connecting
from .connection import Connection
from .draining import check_over_s, send_away, started, stopped
from .envelope import Envelope, Kick, Recorded
from .errors import BrokerUnavailable, InvalidArgument, WrongLoop, counted, shown
from .fanout import Fanout
from .install import install, not_installed_here, why_not_running
from .membership import Memberships, RoomIsFull
from .names import EVERYONE, EVERYONE_NAME, Everyone, UserId, label, room_name, user_name, user_room
from .options import Limits, RoomOptions, RoomTable
from .origin import OriginPolicy
from .paths import Paths
from .positions import Joined, Position, since_for
from .presence import Info, Member
from .redaction import HandshakeFilter
from .registrar import NOBODY, Active, Exclude, Registrar
from .stats import Counters, Stats
from .tasks import Tasks
from .threads import FromThread
from .timers import Timers
from .transports import prepare
from .wire import Wire
from .workers import sibling_workers

if TYPE_CHECKING:
    from starlette.applications import Starlette

logger = logging.getLogger("hubbub")

_DEFAULT_ROOM = RoomOptions()
_DEFAULT_LIMITS = Limits()
_LEFT_OUT: Sequence[str] = []  # told by its identity from a list that is given


class ConnectionManager:
    """The connections of this process, and the rooms and users they belong to.

    Keep one per app, at module level; it binds to no event loop until the app's lifespan starts it.

    Args:
        broker: Where rooms live: ``"memory://"`` (this process only), ``"redis://host"`` (many), or a `Broker`.
        rooms: Options of rooms by name or pattern (``"ticker:*"``); the first that fits. Others have the defaults.
        everyone: Options of the room that everybody is in.
        users: Options of the rooms that each user's connections are.
        limits: Bounds on what clients may use.
        allowed_origins: Origins of web pages that may connect besides the app's own host: ``"https://app.example"``,
            ``"https://*.example.com"``, or ``"*"`` for all. When it is left out, `install` takes over the
            ``allow_origins`` of the app's CORSMiddleware, if that has ``allow_credentials=True`` and names each origin.
        app_ping: Answer ``{"type": "ping"}`` with ``{"type": "pong"}``, for browsers, which can't send real pings.
        flush_interval_s: How long a message to a room may wait for others to share a write with. 0 is the end of the
            current pass of the event loop.
        thread_timeout_s: How long a `from_thread` call may take.

    Raises:
        InvalidArgument: An argument is not acceptable.
    """

    def __init__(
        self,
        broker: str | Broker = "memory://",
        *,
        rooms: Mapping[str, RoomOptions] | None = None,
        everyone: RoomOptions = _DEFAULT_ROOM,
        users: RoomOptions = _DEFAULT_ROOM,
        limits: Limits = _DEFAULT_LIMITS,
        allowed_origins: Sequence[str] = _LEFT_OUT,
        app_ping: bool = False,
        flush_interval_s: float = 0.0,
        thread_timeout_s: float = 10.0,
    ) -> None:
        for argument, options in (("everyone", everyone), ("users", users)):
            if not isinstance(options, RoomOptions):
                raise InvalidArgument(argument, f"got {shown(options)}", "RoomOptions(...)")
        if not isinstance(limits, Limits):
            raise InvalidArgument("limits", f"got {shown(limits)}", "Limits(...)")
        if not isinstance(app_ping, bool):
            raise InvalidArgument("app_ping", f"got {shown(app_ping)}", "True or False")
        for argument, seconds in (("flush_interval_s", flush_interval_s), ("thread_timeout_s", thread_timeout_s)):
            if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < inf:
                raise InvalidArgument(argument, f"got {shown(seconds)}", "seconds, 0 or more")
        self.broker = broker_from(broker)
        self.limits = limits
        self.origins = OriginPolicy(allowed_origins)
        self.origins_given = allowed_origins is not _LEFT_OUT
        self.app_ping = app_ping
        self.counters = Counters()
        self.tasks = Tasks()
        self.fanout = Fanout(flush_interval_s)
        self.from_thread = FromThread(self, thread_timeout_s)
        self.installed = False
        self.only: Paths | None = None
        self.options_of = RoomTable(rooms, everyone, users)
        self._timers = Timers()
        self._registrar = Registrar(self, self._timers)
        self._registry = self._registrar.registry
        self._memberships = Memberships(self.broker, self.fanout, self.tasks, self._timers, self.options_of)
        self._filter = HandshakeFilter()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining = False

    # The app

    def install(self, app: Starlette, *, only: str | Iterable[str] | None = None) -> None:
        """Joins an app: its lifespan, the origin check, the limits, the writer of each socket. Idempotent.

        The manager starts before the app's own lifespan and stops after it, so lifespan tasks may publish. The origin
        check and the limits hold for every WebSocket of the app, also for routes that never use a manager. ``only``
        leaves the other routes alone:

            manager.install(app, only=["/ws/{room}", "/notifications/*"])

        Args:
            app: FastAPI or Starlette, not started yet.
            only: The paths of the WebSockets that the manager serves, one or several, as in ``@app.websocket(...)``:
                ``{name}`` is one segment, ``*`` anything. Every other WebSocket reaches the app as if the manager were
                not installed, and `connect` refuses it. By default the manager serves all.

        Raises:
            InvalidArgument: ``app`` is no Starlette app, or ``only`` has no paths or others than an earlier call.
            NotInstalled: The app has started; says what to do instead.
        """
        install(self, app, None if only is None else Paths(only))

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Runs the manager. For those who compose by hand: ``FastAPI(lifespan=manager.lifespan)``, with the middleware.

        Args:
            app: Ignored; what Starlette passes to a lifespan.
        """
        await self._start()
        try:
            yield
        finally:
            await self._stop()

    async def _start(self) -> None:
        if self._loop is not None:
            raise WrongLoop(
                "this manager runs already: two apps, or two `with TestClient(app)` at once, would share one event "
                "loop's sockets; use one client, or a manager for each app"
            )
        loop = asyncio.get_running_loop()
        self.counters = Counters()
        await prepare()
        self.fanout.start(loop)
        logging.getLogger("uvicorn.error").addFilter(self._filter)
        self._timers.start(loop)
        try:
            await self.broker.start(self._memberships, self.options_of)
        except BaseException:
            self._end()
            raise
        self._loop = loop
        self._draining = False
        self._registrar.start()
        workers = sibling_workers()
        if workers > 1 and not self.broker.distributed:
            logger.warning(
                "%d workers on %s://: each knows its own clients only. What one of them publishes is LOST for the "
                "clients of the others; who is here, who is online and what is replayed is wrong. Run one worker, or "
                'let them share a Redis: ConnectionManager("redis://localhost")',
                workers,
                self.broker.name,
            )
        started(self)
        logger.debug("the manager runs on %s://", self.broker.name)

    async def drain(self, over_s: float = 5.0) -> bool:
        """Sends everybody away a few at a time, so that who they come back to is not stormed.

        For who ends a server by hand; ``hubbub run`` does it on SIGTERM. At once `ready` is False, and new sockets are
        closed with 1012. The open ones are too, evenly over ``over_s`` (sooner where they are few), and their handlers
        end. Users stay present for the rooms' grace.

        *Cancellation*: who is not closed yet stays, and new ones go on being refused.

        Args:
            over_s: Seconds to spread the closes over.

        Returns:
            Whether all handlers have ended, which is waited for as long as the limits let a close and a handler take.

        Raises:
            InvalidArgument: ``over_s`` is no time.
            NotRunning: The manager is not running.
        """
        check_over_s(over_s)
        self._check_loop()
        self._draining = True
        wires = tuple(self._registrar.wires)
        if wires:
            logger.info("draining: closing %s over up to %g s", counted(len(wires), "connections"), over_s)
        await send_away(wires, over_s)
        patience_s = max(self.limits.close_timeout_s, self.limits.shutdown_timeout_s) + 2.0  # who is late, a sweep ends
        try:
            async with asyncio.timeout(patience_s):
                while next(self._registrar.wires, None) is not None:  # noqa: ASYNC110 - no event: they end one by one
                    await asyncio.sleep(0.05)
        except TimeoutError:
            return False
        return True

    async def _stop(self) -> None:
        stopped(self)
        self._draining = True
        wires = tuple(self._registrar.wires)
        for wire in wires:
            # Where there are other workers, who comes back to one of them in time has not left.
            wire.close_soon(CloseCode.SERVICE_RESTART, grace=self.broker.distributed)
            wire.stop_reading()
        # Presence that can't be told now is taken out by another worker, once this one's lease is over.
        await self.tasks.close(self.limits.close_timeout_s + 1.0 if wires or self.broker.state.up else 0.0)
        self._timers.stop()
        await self.broker.close()
        self._end()

    def _end(self) -> None:
        self.fanout.stop()
        self._timers.stop()
        self._memberships.clear()
        self._registrar.stop()
        logging.getLogger("uvicorn.error").removeFilter(self._filter)
        self._loop = None

    def check_running(self, websocket: WebSocket | None = None) -> asyncio.AbstractEventLoop:
        """The loop that the manager runs on.

        Raises:
            NotInstalled: Neither `install` nor `lifespan` was used; says which line to add.
            NotRunning: The app's lifespan did not start it.
        """
        if self._loop is not None:
            return self._loop
        scope = websocket.scope if isinstance(websocket, WebSocket) else {}
        mounted = scope.get("app_root_path", scope.get("root_path")) != scope.get("root_path")  # Starlette's Mount
        raise why_not_running(installed=self.installed, mounted=mounted)

    def _check_loop(self, websocket: WebSocket | None = None) -> None:
        running = asyncio.get_running_loop()
        if running is not self._loop and running is not self.check_running(websocket):
            raise WrongLoop(
                "this ConnectionManager runs on another event loop. In tests, use one client for all sockets: "
                "`with TestClient(app) as client:`; from a thread, use `manager.from_thread`"
            )

    # Connecting

    def connect(
        self,
        websocket: WebSocket,
        user_id: UserId | None = None,
        *,
        room: str | None = None,
        rooms: Iterable[str] = (),
        info: Info = None,
        since: Position | Mapping[str, Position] | None = None,
        subprotocol: str | None = None,
        headers: Iterable[tuple[bytes, bytes]] | None = None,
        expires_at: datetime | float | None = None,
    ) -> Connecting:
        """Accepts a socket, unless the handler did, and registers it.

        Awaitable, and an async context manager; both give a `Connection`. Leaving the block unregisters, closes and
        announces, whatever happened inside: with 1000; with a WebSocketException's own code; with 1008 after another
        HTTPException below 500, 1013 after BrokerUnavailable, and 1011 after anything else; with 1012 when the server
        stops. WebSocketDisconnect is swallowed.

        Args:
            websocket: What the handler was given.
            user_id: Whose it is; None for nobody: it is in rooms, but not in user counts, presence or announcements.
            room: A room to join.
            rooms: More rooms to join.
            info: What to say of the user in presence and announcements: a mapping, which goes to JSON here and now.
                Later changes of the object change nothing.
            since: The position that the client comes back from, or a mapping of room to `Position` (`Resume`).
            subprotocol: What to answer; by default what the auth dependency learnt.
            headers: Of the accept response.
            expires_at: When to close it (1008, "token expired"): aware or UTC datetime, or seconds since the epoch. By
                default when the auth dependency's token expires.

        Raises:
            InvalidArgument: An argument is not acceptable; the socket is not accepted yet.
            NotInstalled: The manager is not installed on this app.
            NotRunning: The app's lifespan has not started the manager.
            WrongLoop: The manager runs on another event loop.
            WebSocketDisconnect: The client is gone, or a limit refused it (and the socket is closed).
        """

        async def connected() -> Connection:
            self._check_loop(websocket)
            wire = self._wire(websocket)
            user = None if user_id is None else user_name(user_id)
            names = arguments.room_names(room, rooms)
            places = arguments.places(since, names)
            said_of_user = arguments.detached_info(info)
            expiry = arguments.timestamp(expires_at)
            arguments.check_handshake(subprotocol, headers)
            if wire.closed is not None:
                raise WebSocketDisconnect(*wire.closed)
            if len(wire.owners) > 1:  # else the middleware has asked this manager alone
                await self._check_origin(wire, websocket)
            known = self._registrar.connection_of(wire)
            new = known is None
            if known is None:
                if websocket.application_state is WebSocketState.CONNECTING:
                    await websocket.accept(subprotocol, headers)
                if self._draining:
                    await self._registrar.refuse(wire, CloseCode.SERVICE_RESTART)
                # The dependency's token is known by now, also where it is the handler that accepted.
                ends_at = min((at for at in (expiry, wire.expires_at) if at is not None), default=None)
                await self._registrar.check_limits(wire, user, names, ends_at)
                known = self._registrar.register(wire, websocket, user, said_of_user, since, ends_at)
                own = [] if user is None else [user_room(user)]
                names = [*own, EVERYONE_NAME, *names]  # its own first: it is present once it can be sent to
            elif user != known.user_id:
                raise InvalidArgument("user_id", "this socket is connected as another user", "one user for a socket")
            try:
                for name in names:
                    await self._join(known, name, places.get(label(name)) if places else None)
            except BaseException as error:
                if new:
                    self.forget(known, grace=False)
                    if isinstance(error, BrokerUnavailable):
                        logger.warning(
                            "a connection can't join its rooms: %s", str(error)
                        )  # the error holds its frames
                        await self._registrar.refuse(wire, CloseCode.BROKER_UNAVAILABLE)
                raise
            return known

        return Connecting(connected)

    def _wire(self, websocket: WebSocket) -> Wire:
        if not isinstance(websocket, WebSocket):
            raise InvalidArgument("websocket", f"got {shown(websocket)}", "the WebSocket that the handler was given")
        wire = websocket.scope.get("hubbub")
        if not isinstance(wire, Wire) or self not in wire.owners:
            raise not_installed_here(websocket.url.path, self.only)
        return wire

    async def _check_origin(self, wire: Wire, websocket: WebSocket) -> None:
        """Refuses a page that another manager of the app lets in, and this one does not.

        Raises:
            WebSocketDisconnect: It was refused: with 403, or closed where the handler has accepted.
        """
        refusal = self.origins.refusal(websocket.scope["headers"])
        if refusal is None:
            return
        cause = CloseCode.ORIGIN
        logger.warning("refused a WebSocket on %s: %s", wire.where, refusal)
        self.counters.refused["origin"] += 1
        if websocket.client_state is WebSocketState.CONNECTING:
            await websocket.receive()
        if wire.accepted:
            await wire.close(cause.code, cause.reason)
        else:
            await wire.deny(cause)
        raise WebSocketDisconnect(cause.code, cause.reason)

    async def join(self, connection: Connection, room: str, since: object) -> Joined:
        """What `Connection.join` does."""
        name = room_name(room)
        place = since_for(since, label(name))
        limit = self.limits.max_rooms_per_connection
        if limit is not None and name not in connection.memberships and len(connection.rooms) >= limit:
            await self._registrar.refuse(connection.wire, CloseCode.TOO_MANY_ROOMS)
        return await self._join(connection, name, place)

    async def _join(self, connection: Connection, name: str, place: Position | None) -> Joined:
        try:
            return await self._memberships.join(connection, name, place)
        except RoomIsFull:
            return await self._registrar.refuse(connection.wire, CloseCode.ROOM_FULL)

    async def leave(self, connection: Connection, room: str) -> None:
        """What `Connection.leave` does."""
        await self._memberships.leave(connection, room_name(room))

    def forget(self, connection: Connection, *, grace: bool) -> None:
        """Takes a connection out of everything. Idempotent."""
        if self._registrar.unregister(connection):
            self._memberships.forget(connection, grace=grace)

    def release(self, wire: Wire) -> None:
        """The handler of a socket ended."""
        self._registrar.release(wire)

    def disconnect(self, websocket: WebSocket | Connection, user_id: UserId | None = None) -> None:
        """Unregisters a connection and drops what is queued for it. Idempotent, never raises.

        Does not close: the middleware closes when the handler ends.

        Args:
            websocket: The WebSocket, or its `Connection`.
            user_id: Ignored; hand-written managers have it.
        """
        connection = self._registrar.find(websocket)
        if connection is not None:
            connection.flush()
            self.forget(connection, grace=True)
            if not connection.wire.connections:
                connection.writer.drop()

    # Sending

    async def broadcast(
        self,
        message: Message,
        *,
        room: str | Everyone = EVERYONE,
        exclude: Exclude = None,
        key: str | None = None,
    ) -> Position | None:
        """Publishes a message to everyone, or to a room.

        *Delivery*: at most once, to whoever is a member now. *Order*: per room that of the calls.

        Args:
            message: str, bytes, or what goes to JSON.
            room: The room; an explicit None raises, since a missing room must not reach everybody.
            exclude: Connections, WebSockets or connection ids that are not to get it.
            key: What ``overflow="latest"`` replaces by.

        Returns:
            Its position, where the room has positions.

        Raises:
            InvalidArgument: The message can't be encoded, or another argument is not acceptable.
            NotInstalled: The manager is not installed.
            NotRunning: The manager is not running.
            BrokerUnavailable: The broker can't be reached in time; the message may have been published.
        """
        name = EVERYONE_NAME if isinstance(room, Everyone) else room_name(room)
        excluded = NOBODY if exclude is None else self._registrar.ids(exclude)
        key = None if key is None else arguments.message_key(key)
        position = await self._publish(name, Envelope(encode(message), excluded, key))
        if self.fanout.crowded:
            await self._pace(name)
        return position

    async def broadcast_to_room(self, room: str, message: Message, *, exclude: Exclude = None) -> Position | None:
        """`broadcast` to a room, in the order that people know."""
        return await self.broadcast(message, room=room, exclude=exclude)

    async def send_to_user(self, user_id: UserId, message: Message) -> bool:
        """Sends a message to every connection of a user, on every worker.

        Returns:
            Whether the user has a live connection anywhere; a user in its grace has none. Where there is none the
            message is lost, unless ``users`` keeps history. A worker that vanishes without a word counts until its
            lease ends.
        """
        user = user_name(user_id)
        name = user_room(user)
        await self._publish(name, Envelope(encode(message)))
        if self.fanout.crowded:
            await self._pace(name)
        return await self._is_connected(user)

    async def send_personal(self, message: Message, websocket: Message) -> bool:
        """Sends a message to one connection.

        Args:
            message: str, bytes, or what goes to JSON.
            websocket: The WebSocket or `Connection`. The two arguments may come in either order.

        Returns:
            False when it is gone.

        Raises:
            InvalidArgument: Neither is a WebSocket or a `Connection`, or the message can't be encoded.
        """
        if isinstance(message, (WebSocket, Connection)):
            message, websocket = websocket, message
        if not isinstance(websocket, (WebSocket, Connection)):
            raise InvalidArgument("websocket", f"got {shown(websocket)}", "a WebSocket or a Connection")
        payload = encode(message)
        self._check_loop()
        connection = self._registrar.find(websocket)
        return connection is not None and await connection.send_payload(payload)

    send_personal_message = send_personal
    """The name that FastAPI's tutorial has for `send_personal`."""

    async def disconnect_user(
        self, user_id: UserId, code: int = CloseCode.KICKED.code, reason: str = CloseCode.KICKED.reason
    ) -> bool:
        """Closes all connections of a user, on every worker. Their presence ends at once.

        Returns:
            Whether there was one anywhere.
        """
        user = user_name(user_id)
        kick = Kick(arguments.close_code(code), arguments.close_reason(reason))
        self._check_loop()
        had = await self._is_connected(user)
        await self.broker.order(user_room(user), kick)
        return had

    def _publish(self, name: str, envelope: Envelope) -> Awaitable[Position | None]:
        self._check_loop()
        self.counters.published += 1
        return self.broker.publish(name, envelope)

    async def _pace(self, name: str) -> None:
        room = self._memberships.rooms.get(name)
        if room is not None:
            await self.fanout.pace(room)

    async def _is_connected(self, user: str) -> bool:
        """Whether a user has a connection anywhere. Of another worker's, presence tells: by leases."""
        room = self._memberships.rooms.get(user_room(user))
        if room is not None and room.size:
            return True
        return self.broker.distributed and await self.broker.connected(EVERYONE_NAME, user)

    # Who is here

    @property
    def active_connections(self) -> Collection[Connection]:
        """The open connections of this process; ``in`` takes a WebSocket too."""
        return Active(self._registrar)

    @property
    def active_user_count(self) -> int:
        """Distinct users with an open connection of this process."""
        return self._registry.user_count

    @property
    def rooms(self) -> frozenset[str]:
        """The rooms that have members on this process."""
        return frozenset(name for name, room in tuple(self._memberships.rooms.items()) if room.size and name[0] != "$")

    async def presence(self, room: str | Everyone = EVERYONE) -> list[Member]:
        """The users in a room, on all workers, connected or in grace."""
        name = EVERYONE_NAME if isinstance(room, Everyone) else room_name(room)
        self._check_loop()
        return await self.broker.members(name)

    async def count_users(self, *, room: str | Everyone = EVERYONE) -> int:
        """Distinct users, in a room or anywhere, on all workers, connected or in grace."""
        name = EVERYONE_NAME if isinstance(room, Everyone) else room_name(room)
        self._check_loop()
        return await self.broker.count(name)

    async def is_online(self, user_id: UserId) -> bool:
        """Whether a user is connected anywhere, or in grace."""
        user = user_name(user_id)
        self._check_loop()
        return await self.broker.present(EVERYONE_NAME, user)

    async def history(
        self, room: str | Everyone, since: Position | None = None, limit: int | None = None
    ) -> list[Recorded]:
        """A room's recent messages, oldest first.

        Args:
            room: The room.
            since: Only what came after this position. Where the history doesn't reach back to it: what is kept.
            limit: At most so many: the newest, or with ``since`` the oldest after it.
        """
        name = EVERYONE_NAME if isinstance(room, Everyone) else room_name(room)
        place = since_for(since, label(name))
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise InvalidArgument("limit", f"got {shown(limit)}", "a whole number from 1, or None")
        self._check_loop()
        page = await self.broker.history(name, place, limit)
        return [entry.recorded() for entry in page.entries]

    def stats(self) -> Stats:
        """A snapshot of what this process holds and has counted since it started."""
        counters = self.counters
        wires = tuple(self._registrar.wires)  # a `def` route may ask, in a thread
        fast = sum(wire.detour is None for wire in wires)
        broker = self.broker.state
        return Stats(
            connections=len(self._registry),
            users=self._registry.user_count,
            rooms=len(self.rooms),
            queued_bytes=sum(wire.writer.queued_bytes for wire in wires),
            published=counters.published,
            received=counters.received,
            dropped=counters.dropped,
            slow=counters.slow,
            stalled=counters.stalled,
            errors=counters.frozen_errors(),
            refused=counters.frozen_refused(),
            fast_path=fast / len(wires) if wires else 0.0,
            broker_up=broker.up,
            broker_reconnects=broker.reconnects,
            local_only=broker.local_only,
        )

    @property
    def running(self) -> bool:
        """Whether it is between start and stop."""
        return self._loop is not None

    @property
    def ready(self) -> bool:
        """Whether it is started and not draining. The broker's state is not part of it."""
        return self._loop is not None and not self._draining

    async def broker_healthy(self) -> bool:
        """Whether the broker answers. Not a reason to take a worker out of service: its clients are well."""
        return await self.broker.healthy()
