"""The `ConnectionManager`: the public calls of an app, each checked here and done by the engine (`hubbub.engine`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from math import inf
from typing import TYPE_CHECKING, Final, NoReturn, overload

from starlette.websockets import WebSocket, WebSocketDisconnect

from . import arguments
from .active import Active
from .brokers import Broker, broker_from
from .close import CloseCode
from .codec import Message, encode
from .connecting import Connecting, Done
from .connection import Connection, session_of
from .draining import check_over_s, started, stopped
from .engine import Engine
from .envelope import Envelope, Kick, Recorded
from .errors import InvalidArgument, NotInstalled, shown
from .install import install
from .names import (
    EVERYONE,
    EVERYONE_NAME,
    Everyone,
    RoomName,
    UserId,
    channel_of,
    label,
    room_name,
    user_name,
    user_room,
)
from .nowait import or_nowait
from .options import Limits, RefuseWith, RoomOptions, RoomTable
from .origin import OriginPolicy
from .paths import Paths
from .positions import Joined, Position, since_for
from .presence import Info, Member
from .protocols import RawProtocol
from .read_only import read_only
from .registrar import Exclude, ExcludeUsers
from .stats import Stats
from .threads import FromThread

if TYPE_CHECKING:
    from starlette.applications import Starlette

_DEFAULT_ROOM = RoomOptions()
_DEFAULT_LIMITS = Limits()
_SOCKET_TO_DISCONNECT: Final = (
    "the handler's socket: `manager.disconnect(websocket)`; to close every connection of a user: "
    "`await manager.disconnect_user(user_id)`"
)
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
        client_frames: Tell clients of messages that were dropped (a ``dropped`` frame) or not acceptable (an ``error``
            frame). False is for clients with a format of their own: nothing is sent then that the app did not send.
            Both stay counted, and are logged at DEBUG; `Limits.max_errors` still closes.
        refuse_with: The answer to a client that a dependency or a handler refuses before accept. ``"close"``: the
            socket is accepted, then closed with the code and reason, since a browser shows a page nothing of a refused
            handshake. ``"http"``: the HTTP response, 403 or that of the HTTPException. It counts in
            ``stats().refused["app"]``.
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
        client_frames: bool = True,
        refuse_with: RefuseWith = "close",
        flush_interval_s: float = 0.0,
        thread_timeout_s: float = 10.0,
    ) -> None:
        for argument, options in (("everyone", everyone), ("users", users)):
            if not isinstance(options, RoomOptions):
                raise InvalidArgument(argument, f"got {shown(options)}", "RoomOptions(...)")
        if not isinstance(limits, Limits):
            raise InvalidArgument("limits", f"got {shown(limits)}", "Limits(...)")
        for argument, flag in (("app_ping", app_ping), ("client_frames", client_frames)):
            if not isinstance(flag, bool):
                raise InvalidArgument(argument, f"got {shown(flag)}", "True or False")
        if refuse_with not in ("close", "http"):
            raise InvalidArgument("refuse_with", f"got {shown(refuse_with)}", "'close' or 'http'")
        for argument, seconds in (("flush_interval_s", flush_interval_s), ("thread_timeout_s", thread_timeout_s)):
            if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < inf:
                raise InvalidArgument(argument, f"got {shown(seconds)}", "seconds, 0 or more")
        # All that is ours is in here and nothing on the manager, so that a subclass may have any name.
        self._hubbub = Engine(
            broker_from(broker),
            RoomTable(rooms, everyone, users),
            limits=limits,
            origins=OriginPolicy(allowed_origins),
            origins_given=allowed_origins is not _LEFT_OUT,
            protocol=RawProtocol(app_ping=app_ping, client_frames=client_frames),
            refuse_with=refuse_with,
            flush_interval_s=flush_interval_s,
            thread_timeout_s=thread_timeout_s,
        )

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            if name == "_hubbub":
                cls = type(self).__name__
                raise NotInstalled(f"{cls}.__init__ has to call super().__init__() before it uses the manager")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

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
        await self._hubbub.start()
        started(self)
        try:
            yield
        finally:
            stopped(self)
            await self._hubbub.stop()

    async def drain(self, over_s: float = 5.0) -> bool:
        """Closes all connections a few at a time, so that the clients do not reconnect all at once.

        For code that stops a server by hand; ``hubbub run`` does it on SIGTERM. At once `ready` is False, and new
        sockets are closed with 1012. The open sockets are closed with 1012 too, evenly over ``over_s`` (faster if there
        are few), and their handlers end. Users stay present for the rooms' grace.

        *Cancellation*: sockets that are not closed yet stay open, and new ones are still refused.

        Args:
            over_s: Seconds to spread the closes over.

        Returns:
            Whether all handlers have ended. The call waits as long as the limits let a close and a handler take.

        Raises:
            InvalidArgument: ``over_s`` is no time.
            NotRunning: The manager is not running.
        """
        check_over_s(over_s)
        return await self._hubbub.drain(over_s)

    # Connecting

    def connect(
        self,
        websocket: WebSocket,
        user_id: UserId | None = None,
        *,
        room: RoomName | None = None,
        rooms: Iterable[RoomName] = (),
        info: Info = None,
        since: Position | Mapping[str, Position] | None = None,
        subprotocol: str | None = None,
        headers: Iterable[tuple[bytes, bytes]] | None = None,
        expires_at: datetime | float | None = None,
    ) -> Connecting:
        """Accepts a socket, unless the handler did, and registers it.

        Awaitable, and an async context manager; both give a `Connection`. Leaving the block unregisters, closes and
        announces, whatever happened inside: with 1000; with a WebSocketException's own code; with 1008 after an
        HTTPException below 500, 1013 after BrokerUnavailable, and 1011 after anything else; with 1012 when the server
        stops. WebSocketDisconnect is swallowed.

        Args:
            websocket: What the handler was given.
            user_id: Whose it is; None for nobody: it is in rooms, but not in user counts, presence or announcements.
            room: A room to join.
            rooms: More rooms to join.
            info: Data about the user for presence and announcements: a mapping, which is serialized to JSON at once.
                Later changes to the object have no effect.
            since: The position that the client comes back from, or a mapping of room to `Position` (`Resume`).
            subprotocol: What to answer; by default what the auth dependency learnt.
            headers: Of the accept response.
            expires_at: When to close it (1008, "token expired"), within a second: aware or UTC datetime, or seconds
                since the epoch. The token of an auth dependency ends it too, and of all these times the earliest.

        Raises:
            InvalidArgument: An argument is not acceptable; the socket is not accepted yet.
            InvalidName: A name is empty, too long or reserved. Uncaught, it closes the socket with 1008 and the reason.
            NotInstalled: The manager is not installed on this app.
            NotRunning: The app's lifespan has not started the manager.
            WrongLoop: The manager runs on another event loop.
            WebSocketDisconnect: The client is gone, or a limit refused it (and the socket is closed).
        """
        return Connecting(
            lambda: self._hubbub.connect(
                websocket,
                user_id,
                room=room,
                rooms=rooms,
                info=info,
                since=since,
                subprotocol=subprotocol,
                headers=headers,
                expires_at=expires_at,
            )
        )

    @overload
    def disconnect(self, websocket: WebSocket | Connection, *others: object, **more: object) -> Done: ...
    @overload
    def disconnect(self, first: UserId, websocket: WebSocket | Connection, *others: object, **more: object) -> Done: ...
    def disconnect(self, *arguments: object, **named: object) -> Done:
        """Unregister a connection: it is in no room any more. Idempotent.

        Takes effect at once; it may be awaited, as those of hand-written managers often are. Does not close the socket:
        the middleware closes it when the handler ends. A socket that is gone, or was never connected, is no error.

        Args:
            arguments: The WebSocket or its `Connection`, in any place. Hand-written managers also take a user id or a
                room, before or after it; these are ignored.
            named: The same, by any name.

        Raises:
            InvalidArgument: There is no WebSocket and no `Connection` among the arguments.
        """
        given = (*arguments, *named.values())
        sockets = [each for each in given if isinstance(each, (WebSocket, Connection))]
        if not sockets:
            problem = f"got {', '.join(map(shown, given))}, and no socket" if given else "is missing"
            raise InvalidArgument("websocket", problem, _SOCKET_TO_DISCONNECT)
        for each in sockets:
            self._hubbub.disconnect(each)
        return Done()

    # Rooms

    async def join(
        self,
        websocket: WebSocket | Connection,
        room: RoomName,
        since: Position | Mapping[str, Position] | None = None,
    ) -> Joined:
        """Puts a connected socket into a room, as `Connection.join` does. Idempotent.

        *Delivery*: what is published after this. With ``since``, and where the room's history reaches back, first
        exactly what was published after that position.

        Args:
            websocket: The WebSocket that `connect` was given, or its `Connection`.
            room: The room's name.
            since: The position that the client presents, or a mapping of room to `Position`.

        Returns:
            The room's position, and whether everything since the presented one is delivered.

        Raises:
            InvalidArgument: The socket was not connected to this manager, or another argument is not acceptable.
            WebSocketDisconnect: The client is gone, the room is full, or the connection is in too many rooms; in the
                last two cases the connection is closed (1008).
        """
        self._hubbub.lifecycle.check_loop()
        return await self._hubbub.join(session_of(self._hubbub.connected(websocket)), room, since)

    async def leave(self, websocket: WebSocket | Connection, room: RoomName) -> None:
        """Takes a connected socket out of a room, as `Connection.leave` does. Idempotent.

        Nothing more comes from the room, and the user's presence there ends without grace. A client that is gone has
        left its rooms already.

        Args:
            websocket: The WebSocket that `connect` was given, or its `Connection`.
            room: The room's name.

        Raises:
            InvalidArgument: The socket was not connected to this manager, or the name is not acceptable.
        """
        self._hubbub.lifecycle.check_loop()
        try:
            connection = self._hubbub.connected(websocket)
        except WebSocketDisconnect:
            room_name(room)
        else:
            await self._hubbub.leave(session_of(connection), room)

    # Sending

    @or_nowait("broadcast_nowait")
    async def broadcast(
        self,
        message: Message,
        *,
        room: RoomName | Everyone = EVERYONE,
        exclude: Exclude = None,
        exclude_users: ExcludeUsers = None,
        key: str | None = None,
    ) -> Position | None:
        """Publishes a message to everyone, or to a room.

        *Delivery*: at most once, to whoever is a member now. *Order*: per room that of the calls.

        Args:
            message: str, bytes, or what goes to JSON.
            room: The room; an explicit None raises, since a missing room must not reach everybody.
            exclude: Connections, WebSockets or connection ids that are not to get it. An id is a `Connection.id` of any
                worker, also a former one of a client that came back; a user's id raises.
            exclude_users: A user id, or several: none of their connections gets it, on any worker, now or by recovery.
            key: What ``overflow="latest"`` replaces by.

        Returns:
            Its position, where the room has positions.

        Raises:
            InvalidArgument: The message can't be encoded, or another argument is not acceptable.
            NotInstalled: The manager is not installed.
            NotRunning: The manager is not running.
            BrokerUnavailable: The broker can't be reached in time; the message may have been published.
        """
        return await self._hubbub.publish(*self._hubbub.addressed(message, room, exclude, exclude_users, key))

    @or_nowait("broadcast_nowait")
    async def broadcast_to_room(
        self, room: RoomName, message: Message, *, exclude: Exclude = None, exclude_users: ExcludeUsers = None
    ) -> Position | None:
        """`broadcast` to a room, in the order that people know."""
        return await self._hubbub.publish(*self._hubbub.addressed(message, room, exclude, exclude_users))

    def broadcast_nowait(
        self,
        message: Message,
        *,
        room: RoomName | Everyone = EVERYONE,
        exclude: Exclude = None,
        exclude_users: ExcludeUsers = None,
        key: str | None = None,
    ) -> None:
        """`broadcast`, for plain functions that run on the event loop.

        *Delivery*: at most once. On ``memory://`` the message is published when the call returns. Through Redis it is
        under way; if Redis does not take it, a WARNING is logged (one in 10 s, with the number of messages) and
        ``Stats.failed_publishes`` counts it. Shutdown waits for what is under way as long as for a closing socket.

        *Order*: per room that of the calls, those of `broadcast` included.

        Nothing slows down a caller that publishes faster than clients read; `broadcast` does.

        Args:
            message: str, bytes, or what goes to JSON.
            room: The room; an explicit None raises, since a missing room must not reach everybody.
            exclude: As for `broadcast`.
            exclude_users: As for `broadcast`.
            key: What ``overflow="latest"`` replaces by.

        Raises:
            InvalidArgument: The message can't be encoded, or another argument is not acceptable.
            NotInstalled: The manager is not installed.
            NotRunning: The manager is not running.
            WrongThread: No event loop runs in this thread; `from_thread` is for threads.
            BrokerUnavailable: 10,000 messages or 16 MiB wait for the broker already, or it refuses at once. The message
                is not published.
        """
        self._hubbub.publish_nowait(*self._hubbub.addressed(message, room, exclude, exclude_users, key))

    @or_nowait("send_to_user_nowait")
    async def send_to_user(self, user_id: UserId, message: Message) -> bool:
        """Sends a message to every connection of a user, on every worker.

        Returns:
            Whether the user has a live connection anywhere; a user in its grace has none. Where there is none the
            message is lost, unless ``users`` keeps history. A worker that vanishes without a word counts until its
            lease ends.
        """
        user = user_name(user_id)
        await self._hubbub.publish(user_room(user), Envelope(encode(message)))
        return await self._hubbub.is_connected(user)

    def send_to_user_nowait(self, user_id: UserId, message: Message) -> None:
        """`send_to_user`, for plain functions that run on the event loop: does not say whether the user is connected.

        Later failures are reported as by `broadcast_nowait`.

        Raises:
            InvalidArgument: The message can't be encoded, or the id is not acceptable.
            NotInstalled: The manager is not installed.
            NotRunning: The manager is not running.
            WrongThread: No event loop runs in this thread; `from_thread` is for threads.
            BrokerUnavailable: Too much waits for the broker already. The message is not published.
        """
        self._hubbub.publish_nowait(user_room(user_name(user_id)), Envelope(encode(message)))

    @overload
    async def send_personal(self, message: Message, websocket: WebSocket | Connection) -> bool: ...
    @overload
    async def send_personal(self, websocket: WebSocket | Connection, message: Message, /) -> bool: ...
    @or_nowait("Connection.send_nowait")
    async def send_personal(
        self, message: Message | WebSocket | Connection, websocket: Message | WebSocket | Connection
    ) -> bool:
        """Sends a message to one connection of this process. The two arguments may come in either order.

            await manager.send_personal({"type": "welcome"}, websocket)

        Args:
            message: str, bytes, or anything that can be written as JSON.
            websocket: The WebSocket or its `Connection`.

        Returns:
            False if the client is gone or the message was dropped.

        Raises:
            InvalidArgument: Neither is a WebSocket or a `Connection`, the socket is open and was not connected yet, or
                the message can't be encoded.
        """
        if isinstance(message, (WebSocket, Connection)):
            message, websocket = websocket, message
        if not isinstance(websocket, (WebSocket, Connection)):
            raise InvalidArgument(
                "websocket",
                f"got {shown(websocket)}",
                "a WebSocket or a Connection; for all connections of a user: "
                "`await manager.send_to_user(user_id, message)`",
            )
        payload = encode(message)
        self._hubbub.lifecycle.check_loop()
        session = self._hubbub.addressee(websocket)
        return session is not None and await session.send(payload)

    send_personal_message = send_personal
    """The name that FastAPI's tutorial has for `send_personal`."""

    async def disconnect_user(
        self, user_id: UserId, code: int = CloseCode.KICKED.code, reason: str = CloseCode.KICKED.reason
    ) -> bool:
        """Closes all connections of a user, on every worker. Their presence ends at once.

        Connections that are just being made are closed too; those that are made after the call stay. A worker that is
        cut off from the broker closes its own when it is back, before it delivers anything to them.

        Returns:
            Whether there was one anywhere: a live one, on a worker whose lease holds.

        Raises:
            InvalidArgument: An argument is not acceptable.
            NotInstalled: The manager is not installed.
            NotRunning: The manager is not running.
            BrokerUnavailable: The broker can't be reached in time. The connections on this worker are closed; those on
                others may not be.
        """
        user = user_name(user_id)
        kick = Kick(arguments.close_code(code), arguments.close_reason(reason))
        self._hubbub.lifecycle.check_loop()
        had = self._hubbub.registrar.knows(user) or await self._hubbub.is_connected(user)
        await self._hubbub.broker.instruct(user_room(user), kick)
        return had

    @property
    def from_thread(self) -> FromThread:
        """Blocking versions of the calls that publish and query, for ``def`` routes and threads.

            @app.post("/alarm")
            def alarm() -> None:
                manager.from_thread.broadcast({"type": "alarm"})

        A call waits at most ``thread_timeout_s``, then raises `ThreadTimeout`. In a thread that runs an event loop it
        raises `WrongThread`.
        """
        return FromThread(self, self._hubbub.lifecycle, self._hubbub.thread_timeout_s)

    # Who is here

    @property
    def active_connections(self) -> Active:
        """The open connections of this process: a live view.

        It reads like a list of `Connection` objects, each of which is ``==`` to its own WebSocket: ``len``, iteration,
        ``in`` with a WebSocket, slices, ``copy()``. Lookups by user or room, as in a hand-written manager's dict, and
        changes raise `NotSupported` with the line to write instead; see `connections`.
        """
        return self._hubbub.active

    def connections(
        self, *, room: RoomName | Everyone = EVERYONE, user: UserId | Everyone = EVERYONE
    ) -> list[Connection]:
        """The open connections of this process that are in a room, a user's, or both.

        A list of its own, which no later connection changes. Safe in any thread. Other workers have connections too:
        for messages there are `broadcast` and `send_to_user`, and for users `presence` and `is_online`.

        Args:
            room: Only connections in this room.
            user: Only connections of this user.

        Raises:
            InvalidArgument: A name is not acceptable. An explicit None raises too, since a missing name must not give
                everybody's connections.
        """
        return self._hubbub.connections(room, user)

    @property
    def active_user_count(self) -> int:
        """Distinct users with an open connection of this process."""
        return self._hubbub.registrar.registry.user_count

    @property
    def rooms(self) -> frozenset[str]:
        """The rooms that have members on this process."""
        return self._hubbub.rooms

    async def presence(self, room: RoomName | Everyone = EVERYONE) -> list[Member]:
        """The users in a room, on all workers, connected or in grace."""
        name = channel_of(room)
        self._hubbub.lifecycle.check_loop()
        return await self._hubbub.broker.members(name)

    async def count_users(self, *, room: RoomName | Everyone = EVERYONE) -> int:
        """Distinct users, in a room or anywhere, on all workers, connected or in grace."""
        name = channel_of(room)
        self._hubbub.lifecycle.check_loop()
        return await self._hubbub.broker.count(name)

    async def is_online(self, user_id: UserId) -> bool:
        """Whether a user is connected anywhere, or in grace."""
        user = user_name(user_id)
        self._hubbub.lifecycle.check_loop()
        return await self._hubbub.broker.present(EVERYONE_NAME, user)

    async def history(
        self, room: RoomName | Everyone, since: Position | None = None, limit: int | None = None
    ) -> list[Recorded]:
        """A room's recent messages, oldest first.

        Args:
            room: The room.
            since: Only what came after this position. Where the history doesn't reach back to it: what is kept.
            limit: At most so many: the newest, or with ``since`` the oldest after it.
        """
        name = channel_of(room)
        place = since_for(since, label(name))
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise InvalidArgument("limit", f"got {shown(limit)}", "a whole number from 1, or None")
        self._hubbub.lifecycle.check_loop()
        page = await self._hubbub.broker.history(name, place, limit)
        return [entry.recorded() for entry in page.entries]

    def stats(self) -> Stats:
        """A snapshot of what this process holds and has counted since it started."""
        return self._hubbub.stats()

    @property
    def running(self) -> bool:
        """Whether it is between start and stop."""
        return self._hubbub.running

    @property
    def ready(self) -> bool:
        """Whether it is started and not draining. The broker's state is not part of it."""
        return self._hubbub.running and not self._hubbub.draining

    async def broker_healthy(self) -> bool:
        """Whether the broker answers. Not a reason to take a worker out of service: its clients are well."""
        return await self._hubbub.broker.healthy()

    if not TYPE_CHECKING:
        active_connections = read_only(active_connections, "`connect` and `disconnect` keep it")
        active_user_count = read_only(active_user_count, "`connect` and `disconnect` keep it")
        rooms = read_only(rooms, "connections join and leave; an attribute of your own needs another name")
        running = read_only(running, "the app's lifespan starts and stops the manager")
        ready = read_only(ready, "the app's lifespan starts and stops the manager")
        from_thread = read_only(from_thread, "the manager makes it; its timeout is `thread_timeout_s`")
