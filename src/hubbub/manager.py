"""The `ConnectionManager`: the calls of an app. It checks their arguments, and `hubbub.engine` does the work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from math import inf
from typing import TYPE_CHECKING, Any, Final, NoReturn, overload

from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from . import arguments
from .asgi.install import install
from .brokers import Broker, broker_from
from .close import CloseCode
from .codec import Message, encode
from .connections.active import Active
from .connections.connecting import Connecting, Done
from .connections.connection import Connection, session_of
from .connections.lookup import Exclude, ExcludeUsers
from .endpoints.about import about
from .endpoints.endpoint import Endpoint
from .endpoints.raw_sockets import raw_socket
from .engine import Engine
from .envelope import Envelope, Kick, Recorded
from .errors import InvalidArgument, NotInstalled, shown
from .from_thread import FromThread
from .http_api.methods import Methods
from .http_api.router import serve
from .metrics.counters import Stats
from .names import (
    EVERYONE,
    EVERYONE_NAME,
    Everyone,
    RoomName,
    UserId,
    room_name,
    user_name,
    user_room,
)
from .nowait import or_nowait
from .options import Limits, RefuseWith, RoomOptions, RoomTable
from .origin import OriginPolicy
from .paths import Paths
from .positions import Position
from .presence import Info, Member
from .protocols import RawProtocol
from .read_only import read_only
from .rooms.gaps import F
from .server.draining import check_over_s, started, stopped
from .streams.response import event_stream

if TYPE_CHECKING:
    from starlette.applications import Starlette

_DEFAULT_ROOM = RoomOptions()
_DEFAULT_LIMITS = Limits()
_SOCKET_TO_DISCONNECT: Final = (
    "the handler's socket: `manager.disconnect(websocket)`; to close every connection of a user: "
    "`await manager.disconnect_user(user_id)`"
)
_LEFT_OUT: Sequence[str] = []  # a default that is recognized by its identity


class ConnectionManager:
    """The WebSocket connections of this process, and the rooms and users they belong to.

    Keep one manager per app, at module level. It belongs to no event loop until the app's lifespan starts it.

        app = FastAPI()
        manager = ConnectionManager(rooms={"chat:*": RoomOptions(history=100)})
        manager.install(app)

        @app.websocket("/chat/{room}")
        async def chat(websocket: WebSocket, room: str) -> None:
            async with manager.connect(websocket, room=f"chat:{room}") as connection:
                async for text in connection.iter_text():
                    await manager.broadcast(text, room=f"chat:{room}")

    Args:
        broker: The broker that connects the workers: ``"memory://"`` (one process only), ``"redis://host"``, or a
            `Broker`.
        rooms: Options of rooms by name or pattern (``"ticker:*"``, ``"chat:{room}"``). An exact name takes precedence,
            then the first pattern that matches. Other rooms have the defaults.
        everyone: Options of the room that contains every connection.
        users: Options of the rooms that contain the connections of one user each.
        limits: Bounds on what clients may use.
        allowed_origins: Origins of web pages that may connect besides the app's own host: ``"https://app.example"``,
            ``"https://*.example.com"``, or ``"*"`` for all. If it is omitted, `install` uses the ``allow_origins`` of
            the app's CORSMiddleware, provided that it has ``allow_credentials=True`` and lists each origin.
        app_ping: Answer ``{"type": "ping"}`` with ``{"type": "pong"}``, for browsers, which can't send real pings.
        client_frames: Tell clients about messages that are not acceptable, in an ``error`` frame. Set it to False for
            clients with a format of their own: they receive only what the app sends. Such messages are still counted
            and logged at DEBUG, and `Limits.max_errors` still closes.
        refuse_with: The answer to a client that a dependency or a handler refuses before accept. ``"close"`` accepts
            the socket and closes it with the code and reason, because a browser shows a page nothing of a refused
            handshake. ``"http"`` sends the HTTP response: 403, or that of the HTTPException. Both count in
            ``stats().refused["app"]``.
        flush_interval_s: Seconds that a message to a room may wait to share a write with others. 0 means until the end
            of the current pass of the event loop.
        thread_timeout_s: Seconds that a `from_thread` call may take.
        check_sends: Whether a message for a room is checked against the type that ``@live.room(..., sends=)`` declares
            for it; another message raises `InvalidArgument`. By default, messages are checked under pytest, under
            ``fastapi dev`` and other servers that reload on changes, and if the app has ``debug=True``; in production
            they are not, which then costs nothing.

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
        check_sends: bool | None = None,
    ) -> None:
        for argument, options in (("everyone", everyone), ("users", users)):
            if not isinstance(options, RoomOptions):
                raise InvalidArgument(argument, f"got {shown(options)}", "RoomOptions(...)")
        if not isinstance(limits, Limits):
            raise InvalidArgument("limits", f"got {shown(limits)}", "Limits(...)")
        for argument, flag in (("app_ping", app_ping), ("client_frames", client_frames)):
            if not isinstance(flag, bool):
                raise InvalidArgument(argument, f"got {shown(flag)}", "True or False")
        if check_sends is not None and not isinstance(check_sends, bool):
            raise InvalidArgument("check_sends", f"got {shown(check_sends)}", "True, False, or None for in development")
        if refuse_with not in ("close", "http"):
            raise InvalidArgument("refuse_with", f"got {shown(refuse_with)}", "'close' or 'http'")
        for argument, seconds in (("flush_interval_s", flush_interval_s), ("thread_timeout_s", thread_timeout_s)):
            if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < inf:
                raise InvalidArgument(argument, f"got {shown(seconds)}", "seconds, 0 or more")
        # The only attribute: a subclass may use all other names.
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
            check_sends=check_sends,
        )

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            if name == "_hubbub":
                cls = type(self).__name__
                raise NotInstalled(f"{cls}.__init__ has to call super().__init__() before it uses the manager")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    # The app

    def install(self, app: Starlette, *, only: str | Iterable[str] | None = None) -> None:
        """Adds the manager to an app: lifespan, origin check, limits, and the writer of each socket. Idempotent.

        The manager starts before the app's own lifespan and stops after it, so lifespan tasks may publish. The origin
        check and the limits apply to every WebSocket of the app, including routes that never use a manager. ``only``
        excludes the other routes:

            manager.install(app, only=["/ws/{room}", "/notifications/*"])

        Args:
            app: The FastAPI or Starlette app, before it starts.
            only: The paths of the WebSockets that the manager serves, one or several, as in ``@app.websocket(...)``:
                ``{name}`` is one segment, ``*`` anything. Every other WebSocket reaches the app as if the manager were
                not installed, and `connect` refuses it. By default the manager serves all.

        Raises:
            InvalidArgument: ``app`` is not a Starlette app, or ``only`` is empty or differs from that of an earlier
                call.
            NotInstalled: The app has already started. The message says what to do instead.
        """
        install(self, app, None if only is None else Paths(only))

    def endpoint(
        self,
        path: str,
        *,
        auth: Callable[..., Any] | None,
        user_id: Callable[[Any], UserId | None] | None = None,
        docs: bool | Callable[..., Any] = True,
    ) -> Endpoint:
        """Serves functions that answer clients, on one path of the app.

        Clients speak the Centrifugo protocol, for which official SDKs exist in many languages.

            live = manager.endpoint("/live", auth=current_user)

            @live.room("chat:{room}")
            async def may_read(room: str, user: User) -> bool: ...

        Args:
            path: The path of the WebSocket.
            auth: The dependency that yields the user of a client: a `JWTAuth`, or any other FastAPI dependency. None
                lets everybody connect, without a user.
            user_id: Gives the user id for what the dependency yields. By default that is the value itself, or its
                ``sub``, ``user_id`` or ``id``.
            docs: Whether the app serves the endpoint's documentation: a page to read and to try it, at
                ``{path}/docs``, and its AsyncAPI document, at ``{path}/asyncapi.json``. A FastAPI dependency guards
                both: its HTTPException is the answer to those who may not read them.

        Returns:
            The endpoint, whose decorators take the functions.

        Raises:
            InvalidArgument: The path is taken, or is not a path, or FastAPI can't resolve a dependency.
        """
        endpoint = Endpoint(self, path, auth, user_id, docs)
        self._hubbub.serve(path, endpoint._serve, endpoint._http_apps, endpoint._documentation)
        self._hubbub.routers.append(endpoint)
        return endpoint

    def http_api(
        self,
        app: Starlette,
        path: str = "/api",
        *,
        key: str | Sequence[str] | None = None,
        dependency: Callable[..., Any] | None = None,
        include_in_schema: bool = True,
    ) -> None:
        """Adds routes with which programs in any language publish, and manage clients, over HTTP.

            manager.http_api(app, "/api", key=os.environ["API_KEY"])

        The routes are ``POST /api/publish``, ``/api/broadcast``, ``/api/disconnect`` and others: the server API of
        Centrifugo, so its clients for many languages work. A program that may use them can reach every client of the
        app.

        Args:
            app: The FastAPI app.
            path: The beginning of the paths of the routes.
            key: The key that requests carry in the header ``X-API-Key``, of 16 or more characters. Several, in a list,
                while programs change to another one.
            dependency: In the place of a key, a FastAPI dependency that guards the routes. Its HTTPException is the
                answer to those who may not use them.
            include_in_schema: Whether the app's OpenAPI document describes the routes.

        Raises:
            InvalidArgument: There is neither a key nor a dependency, a key is weak, or another argument is not
                acceptable.
        """
        methods, served = Methods(lambda: self._hubbub), self._hubbub.http_apis
        serve(app, methods, path, served, key=key, dependency=dependency, include_in_schema=include_in_schema)

    def describe(
        self,
        path: str,
        *,
        receives: Any = None,
        sends: Any = None,
        endpoint: Endpoint | None = None,
        tags: Sequence[str] | None = None,
        summary: str | None = None,
        description: str | None = None,
        deprecated: bool | None = None,
        include_in_schema: bool = True,
    ) -> None:
        """Describes the WebSocket of a handler, in the AsyncAPI documents of the manager's endpoints.

            manager.describe("/ws/{room}", receives=Stroke, sends=Stroke | Cleared)

        Nothing is checked: the handler receives and sends what it wants.

        Without ``endpoint``, every document shows the description if all documents are public. If the document of
        any endpoint is guarded or is not served (its ``docs`` is not True), the public documents leave it out.

        Args:
            path: The path of the WebSocket route.
            receives: The type of the messages of clients.
            sends: The type of the messages to clients. A union of several models is several messages.
            endpoint: Shows the description in the document of this endpoint only.
            tags: The groups of the documentation to which it belongs.
            summary: One line about it.
            description: The whole text, in Markdown.
            deprecated: Tells clients to stop using it.
            include_in_schema: Whether the documents show it.

        Raises:
            InvalidArgument: The path is described already, or is not a path, or an argument is wrong.
        """
        if endpoint is not None and not (isinstance(endpoint, Endpoint) and self._hubbub.has(endpoint._documentation)):
            raise InvalidArgument(
                f"describe({shown(path)})", f"endpoint is {shown(endpoint)}", "an endpoint of this manager, or None"
            )
        described = about(
            f"describe({shown(path)})",
            tags=tags,
            summary=summary,
            description=description,
            deprecated=deprecated,
            include_in_schema=include_in_schema,
        )
        only = None if endpoint is None else endpoint._documentation.path
        self._hubbub.describe(raw_socket(path, receives, sends, described, only))

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Runs the manager, as an async context manager, for apps that `install` does not fit.

            app = FastAPI(lifespan=manager.lifespan)
            app.add_middleware(HubbubMiddleware, managers=[manager])

        Args:
            app: The app, which Starlette passes to a lifespan. It says whether the app is in debug mode.

        Raises:
            WrongLoop: The manager already runs.
            BrokerUnavailable: The broker denies access or can't serve, and a retry would not help.
        """
        await self._hubbub.start(debug=bool(getattr(app, "debug", False)))
        started(self)
        try:
            yield
        finally:
            stopped(self)
            await self._hubbub.stop()

    async def drain(self, over_s: float = 5.0) -> bool:
        """Closes all connections, a few at a time, so that the clients do not all reconnect at once.

        For code that stops a server by itself; ``hubbub run`` calls it on SIGTERM. `ready` becomes False immediately,
        and new sockets are closed with 1012. The open sockets are closed with 1012 as well, evenly over ``over_s``
        (faster if there are few), and their handlers end. Users stay present for the grace period of their rooms.

        *Cancellation*: sockets that are not closed yet stay open, and new ones are still refused.

        Args:
            over_s: Seconds over which the closes are spread.

        Returns:
            Whether all handlers have ended. The call waits as long as the limits allow for a close and for a handler.

        Raises:
            InvalidArgument: ``over_s`` is not a number of seconds.
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
        subprotocol: str | None = None,
        headers: Iterable[tuple[bytes, bytes]] | None = None,
        expires_at: datetime | float | None = None,
    ) -> Connecting:
        """Accepts a socket, unless the handler already did, and registers it.

        Awaitable, and an async context manager; both give a `Connection`:

            async with manager.connect(websocket, user.id, room="lobby", info={"name": user.name}) as connection:
                async for text in connection.iter_text():
                    await manager.broadcast(text, room="lobby")

        At the end of the block the connection is unregistered, closed and announced, whatever happened inside. The code
        is 1000; that of a WebSocketException; 1008 after an HTTPException below 500; 1013 after BrokerUnavailable; 1011
        after any other exception; and 1012 if the server stops. WebSocketDisconnect is swallowed.

        Args:
            websocket: The handler's WebSocket.
            user_id: The user that the connection belongs to. A connection without a user is in rooms, but not in user
                counts, presence or announcements.
            room: A room to join.
            rooms: More rooms to join.
            info: Data about the user for presence and announcements: a mapping, which is serialized to JSON
                immediately. Later changes to the object have no effect.
            subprotocol: The subprotocol to accept; by default the one that the auth dependency read.
            headers: Headers of the accept response.
            expires_at: When to close the connection (1008, "token expired"), within a second: an aware datetime, a
                naive one in UTC, or seconds since the epoch. The token of an auth dependency also has an end; the
                earliest applies.

        Raises:
            InvalidArgument: An argument is not acceptable. The socket is not accepted yet.
            InvalidName: A name is empty, too long or reserved. Uncaught, it closes the socket with 1008 and the reason.
            NotInstalled: The manager is not installed on this app.
            NotRunning: The app's lifespan has not started the manager.
            WrongLoop: The manager runs on another event loop.
            WebSocketDisconnect: The client is gone, or a limit refused it and the socket is closed.
        """
        return Connecting(
            lambda: self._hubbub.connect(
                websocket,
                user_id,
                room=room,
                rooms=rooms,
                info=info,
                subprotocol=subprotocol,
                headers=headers,
                expires_at=expires_at,
            )
        )

    def event_stream(
        self,
        request: Request,
        user_id: UserId | None = None,
        *,
        rooms: Iterable[RoomName | Everyone],
        info: Info = None,
        expires_at: datetime | float | None = None,
    ) -> Response:
        """Returns the response to a request that streams the messages of rooms, as Server-Sent Events.

            @app.get("/events/{room}")
            async def events(request: Request, room: str, user: CurrentUser) -> Response:
                return manager.event_stream(request, user.id, rooms=[room])

        The client is a connection like one of `connect`, until it is gone. In a room with a history, a client that
        comes back with a ``Last-Event-ID`` receives exactly what it missed. The route decides who may read: it runs
        again each time the client comes back.

        *Order, delivery*: as for the members of these rooms on WebSockets.

        Args:
            request: The request of the route.
            user_id: The user that the connection belongs to.
            rooms: The rooms, at most 128. ``"$user"`` is the user's own, and `EVERYONE` everyone's. Messages of these
                two come also if they are not among the rooms, but then they are not recovered.
            info: Data about the user for presence and announcements, as in `connect`.
            expires_at: When to end the stream, as in `connect`.

        Raises:
            InvalidArgument: An argument is not acceptable.
            InvalidName: A name is empty, too long or reserved.
            NotInstalled: The manager is not installed on this app.
            NotRunning: The app's lifespan has not started the manager.
            WrongLoop: The manager runs on another event loop.
        """
        return event_stream(self._hubbub, request, user_id, rooms, info=info, expires_at=expires_at)

    @overload
    def disconnect(self, websocket: WebSocket | Connection, *others: object, **more: object) -> Done: ...
    @overload
    def disconnect(self, first: UserId, websocket: WebSocket | Connection, *others: object, **more: object) -> Done: ...
    def disconnect(self, *arguments: object, **named: object) -> Done:
        """Unregisters a connection: it leaves all rooms. Idempotent.

            manager.disconnect(websocket)

        It takes effect immediately, and may be awaited, as in many hand-written managers. It does not close the socket;
        the middleware closes it when the handler ends. A socket that is gone or was never connected is no error.

        Args:
            arguments: The WebSocket or its `Connection`, in any place. A user id or a room beside it, which
                hand-written managers often take, is ignored.
            named: The same, by any name.

        Raises:
            InvalidArgument: No argument is a WebSocket or a `Connection`.
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

    async def join(self, websocket: WebSocket | Connection, room: RoomName) -> None:
        """Adds a connected socket to a room, like `Connection.join`. Idempotent.

            await manager.join(websocket, "lobby")

        *Delivery*: every message that is published after the call. In a room with `RoomOptions.replay`, its newest
        messages come first, without a gap or a repeat.

        Args:
            websocket: The WebSocket that was given to `connect`, or its `Connection`.
            room: The name of the room.

        Raises:
            InvalidArgument: The socket was not connected to this manager, or another argument is not acceptable.
            WebSocketDisconnect: The client is gone, the room is full, or the connection is in too many rooms. In the
                last two cases the connection is closed (1008).
        """
        self._hubbub.lifecycle.check_loop()
        await self._hubbub.join(session_of(self._hubbub.lookup.connected(websocket)), room)

    async def leave(self, websocket: WebSocket | Connection, room: RoomName) -> None:
        """Removes a connected socket from a room, like `Connection.leave`. Idempotent.

        No more messages arrive from the room, and the user's presence there ends without a grace period. A client that
        is gone has already left its rooms.

        Args:
            websocket: The WebSocket that was given to `connect`, or its `Connection`.
            room: The name of the room.

        Raises:
            InvalidArgument: The socket was not connected to this manager, or the name is not acceptable.
        """
        self._hubbub.lifecycle.check_loop()
        try:
            connection = self._hubbub.lookup.connected(websocket)
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

            await manager.broadcast({"type": "score", "points": 3}, room="game:7", exclude=connection)

        *Delivery*: at most once, to each current member. *Order*: per room, that of the calls.

        Args:
            message: str, bytes, or anything that can be written as JSON.
            room: The room. An explicit None raises, because a missing room must not reach everyone.
            exclude: Connections, WebSockets or connection ids that do not receive the message. An id is a
                `Connection.id` of any worker. A user's id raises; use ``exclude_users``.
            exclude_users: A user id, or several: none of their connections receives the message, on any worker, now or
                by recovery.
            key: With ``overflow="latest"``, a waiting message with the same key is replaced.

        Returns:
            The position of the message, if the room has positions.

        Raises:
            InvalidArgument: The message can't be encoded, is not what ``sends=`` of the room's rule says (where that is
                checked, see ``check_sends``), or another argument is not acceptable.
            NotInstalled: The manager is not installed.
            NotRunning: The manager is not running.
            BrokerUnavailable: The broker can't be reached in time; the message may have been published.
        """
        return await self._hubbub.publish(*self._hubbub.addressed(message, room, exclude, exclude_users, key))

    @or_nowait("broadcast_nowait")
    async def broadcast_to_room(
        self, room: RoomName, message: Message, *, exclude: Exclude = None, exclude_users: ExcludeUsers = None
    ) -> Position | None:
        """Publishes a message to a room: `broadcast` with the room first, as in many hand-written managers.

        Args:
            room: The room.
            message: str, bytes, or anything that can be written as JSON.
            exclude: Connections, WebSockets or connection ids that do not receive the message.
            exclude_users: A user id, or several: none of their connections receives the message.

        Returns:
            The position of the message, if the room has positions.

        Raises:
            InvalidArgument: The message can't be encoded, is not what ``sends=`` of the room's rule says (where that is
                checked, see ``check_sends``), or another argument is not acceptable.
            NotInstalled: The manager is not installed.
            NotRunning: The manager is not running.
            BrokerUnavailable: The broker can't be reached in time; the message may have been published.
        """
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
        """Publishes a message from a plain function that runs on the event loop: `broadcast` without ``await``.

            loop.call_later(5, manager.broadcast_nowait, {"type": "reminder"})

        *Delivery*: at most once. On ``memory://`` the message is published when the call returns. Through Redis it is
        in flight; if Redis does not accept it, a WARNING is logged (one in 10 s, with the number of messages) and
        ``Stats.failed_publishes`` counts it. Shutdown waits for messages in flight as long as for a closing socket.

        *Order*: per room, that of the calls, including those of `broadcast`.

        Nothing slows down a caller that publishes faster than clients read; `broadcast` does.

        Args:
            message: str, bytes, or anything that can be written as JSON.
            room: The room. An explicit None raises, because a missing room must not reach everyone.
            exclude: Connections, WebSockets or connection ids that do not receive the message.
            exclude_users: A user id, or several: none of their connections receives the message.
            key: With ``overflow="latest"``, a waiting message with the same key is replaced.

        Raises:
            InvalidArgument: The message can't be encoded, is not what ``sends=`` of the room's rule says (where that is
                checked, see ``check_sends``), or another argument is not acceptable.
            NotInstalled: The manager is not installed.
            NotRunning: The manager is not running.
            WrongThread: No event loop runs in this thread; use `from_thread`.
            BrokerUnavailable: 10,000 messages or 16 MiB already wait for the broker, or it refuses immediately. The
                message is not published.
        """
        self._hubbub.publish_nowait(*self._hubbub.addressed(message, room, exclude, exclude_users, key))

    @or_nowait("send_to_user_nowait")
    async def send_to_user(self, user_id: UserId, message: Message) -> bool:
        """Sends a message to every connection of a user, on every worker.

            if not await manager.send_to_user(author.id, {"type": "like"}):
                await send_email(author)

        Without a connection the message is lost, unless the rooms of users keep history (``users=``).

        Args:
            user_id: The user.
            message: str, bytes, or anything that can be written as JSON.

        Returns:
            Whether the user has an open connection on any worker. A user in the grace period has none. The connections
            of a worker that crashed count until its lease ends.

        Raises:
            InvalidArgument: The message can't be encoded, or the id is not acceptable.
            NotInstalled: The manager is not installed.
            NotRunning: The manager is not running.
            BrokerUnavailable: The broker can't be reached in time; the message may have been published.
        """
        user = user_name(user_id)
        await self._hubbub.publish(user_room(user), Envelope(encode(message)))
        return await self._hubbub.is_connected(user)

    def send_to_user_nowait(self, user_id: UserId, message: Message) -> None:
        """Sends a message to every connection of a user from a plain function that runs on the event loop.

        Unlike `send_to_user` it does not return whether the user is connected. Later failures are reported as by
        `broadcast_nowait`.

        Args:
            user_id: The user.
            message: str, bytes, or anything that can be written as JSON.

        Raises:
            InvalidArgument: The message can't be encoded, or the id is not acceptable.
            NotInstalled: The manager is not installed.
            NotRunning: The manager is not running.
            WrongThread: No event loop runs in this thread; use `from_thread`.
            BrokerUnavailable: Too many messages already wait for the broker. The message is not published.
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
        session = self._hubbub.lookup.addressee(websocket)
        return session is not None and await session.send(payload)

    send_personal_message = send_personal
    """The name that FastAPI's tutorial has for `send_personal`."""

    async def disconnect_user(
        self, user_id: UserId, code: int = CloseCode.KICKED.code, reason: str = CloseCode.KICKED.reason
    ) -> bool:
        """Closes all connections of a user, on every worker. The user's presence ends immediately.

            await manager.disconnect_user(user.id, reason="your account was suspended")

        Connections that are being made are closed as well: those whose handshake, or whose ``auth=`` dependency, still
        runs, and for 30 s those that a handler has accepted and not passed to `connect`. Clients that come after the
        call stay. So does the client whose handler or ``auth=`` dependency makes the call before it connects, which
        lets the newest tab replace the others. A worker that is cut off from the broker closes its own clients once it
        is back, before it delivers anything to them.

        Args:
            user_id: The user.
            code: A close code of RFC 6455, or one from 3000 to 4999.
            reason: A text for the client, at most 123 bytes.

        Returns:
            Whether the user had an open connection on any worker whose lease is valid.

        Raises:
            InvalidArgument: An argument is not acceptable.
            NotInstalled: The manager is not installed.
            NotRunning: The manager is not running.
            BrokerUnavailable: The broker can't be reached in time. The connections on this worker are closed; those on
                others may not be.
        """
        user = user_name(user_id)
        kick = Kick(arguments.close_code(code), arguments.close_reason(reason))
        return await self._hubbub.disconnect_user(user, kick)

    async def unsubscribe(self, user_id: UserId, room: RoomName) -> bool:
        """Removes all connections of a user from a room, on every worker. They stay open.

            await manager.unsubscribe(user.id, f"chat:{group.id}")

        Call it after the permission is gone from your database. Connections that are joining the room, and
        subscriptions that an endpoint is authorizing, are kept out as well: their permission may have been looked up
        before. Those that join after the call are not affected. The client of an endpoint is told (2000), and its SDK
        does not subscribe again by itself. Other clients are told nothing. The user's presence in the room ends
        immediately.

        When the call returns, no connection on this worker is in the room. Other workers follow within milliseconds. A
        worker that is cut off from the broker does so once it is back, before it delivers anything to the user.

        Args:
            user_id: The user.
            room: The name of the room.

        Returns:
            Whether the user had a connection in the room, on any worker whose lease is valid.

        Raises:
            InvalidArgument: The id or the name is not acceptable.
            NotInstalled: The manager is not installed.
            NotRunning: The manager is not running.
            BrokerUnavailable: The broker can't be reached in time. The connections on this worker are removed; those on
                others may not be.
        """
        return await self._hubbub.unsubscribe(user_id, room)

    def on_gap(self, function: F) -> F:
        """Registers a function that is called when members of a room lack messages, although the room keeps a history.

        That happens when Redis has lost data, or when a client reads a `RoomOptions.replay` so slowly that the history
        is trimmed before the client has received it. Clients of endpoints are told by their protocol. A raw socket
        carries only what the app sends, so the app says it in its own words:

            @manager.on_gap
            async def reload(room: str) -> None:
                for connection in manager.connections(room=room):
                    await connection.send({"type": "reload"})

        *Delivery*: each worker that has members with raw sockets in the room calls it, after the messages before the
        gap. Later messages do not wait for it. At most one call runs for a room, and at most 16 for all rooms. Gaps of
        a room that come before its call share that call, and those that come during a call share the next one. Each gap
        is counted in ``Stats.gaps``. A warning is logged, at most once in 10 s.

        *Cancellation*: an async function that runs for longer than ``Limits.handler_timeout_s`` is canceled, which is
        logged and counted like an exception. Calls that still run when the manager stops are canceled silently. A plain
        function can't be canceled: one that blocks keeps its thread, and its place among the 16, until it returns.

        Args:
            function: A function of the room's name; a plain one runs in a thread, as FastAPI's routes do. An exception
                is logged, and counted in ``Stats.errors["function"]``. If the room of everyone or those of users keep
                a history, their names are ``"$everyone"`` and ``"$user:<id>"``. `connections` does not accept these
                as a room: use ``connections()`` and ``connections(user=room.removeprefix("$user:"))``.

        Returns:
            The function.

        Raises:
            InvalidArgument: The function can't be called with one argument.
        """
        return self._hubbub.gaps.add(function)

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

    # Queries

    @property
    def active_connections(self) -> Active:
        """The open connections of this process: a live view that reads like a list.

        It contains `Connection` objects, each of which is ``==`` to its own WebSocket, and supports ``len``, iteration,
        ``in`` with a WebSocket, slices and ``copy()``. Changes, and lookups by user or room as in a dict, raise
        `NotSupported` with the line to write instead; see `connections`.
        """
        return self._hubbub.active

    def connections(
        self, *, room: RoomName | Everyone = EVERYONE, user: UserId | Everyone = EVERYONE
    ) -> list[Connection]:
        """Returns the open connections of this process that are in a room, of a user, or both.

            for connection in manager.connections(room="lobby"):
                await connection.leave("lobby")

        The list does not change afterwards. Safe in any thread. Other workers have connections too: for messages use
        `broadcast` and `send_to_user`, for users `presence` and `is_online`.

        Args:
            room: Only connections in this room.
            user: Only connections of this user.

        Raises:
            InvalidArgument: A name is not acceptable. An explicit None raises too, because a missing name must not
                return the connections of everyone.
        """
        return self._hubbub.connections(room, user)

    @property
    def active_user_count(self) -> int:
        """The number of distinct users with an open connection of this process. For all workers use `count_users`."""
        return self._hubbub.registry.user_count

    @property
    def rooms(self) -> frozenset[str]:
        """The names of the rooms that have members on this process."""
        return self._hubbub.rooms

    async def presence(self, room: RoomName | Everyone = EVERYONE) -> list[Member]:
        """Returns the users in a room, or everywhere, on all workers: those connected and those in their grace period.

            names = [member.info["name"] for member in await manager.presence("lobby")]

        Args:
            room: The room; by default the room that contains every connection.

        Raises:
            InvalidArgument: The name of the room is not acceptable.
            NotInstalled: The manager is not installed.
            NotRunning: The manager is not running.
            BrokerUnavailable: The broker can't be reached in time.
        """
        return await self._hubbub.presence(room)

    async def count_users(self, *, room: RoomName | Everyone = EVERYONE) -> int:
        """Counts the distinct users in a room, or everywhere, on all workers: connected or in their grace period.

        Args:
            room: The room; by default the room that contains every connection.

        Raises:
            InvalidArgument: The name of the room is not acceptable.
            NotInstalled: The manager is not installed.
            NotRunning: The manager is not running.
            BrokerUnavailable: The broker can't be reached in time.
        """
        return await self._hubbub.count_users(room)

    async def is_online(self, user_id: UserId) -> bool:
        """Returns whether a user is connected on any worker, or in the grace period after a disconnect.

        Args:
            user_id: The user.

        Raises:
            InvalidArgument: The id is not acceptable.
            NotInstalled: The manager is not installed.
            NotRunning: The manager is not running.
            BrokerUnavailable: The broker can't be reached in time.
        """
        user = user_name(user_id)
        self._hubbub.lifecycle.check_loop()
        return await self._hubbub.broker.present(EVERYONE_NAME, user)

    async def history(
        self, room: RoomName | Everyone, since: Position | None = None, limit: int | None = None
    ) -> list[Recorded]:
        """Returns the recent messages of a room, oldest first.

            latest = [recorded.message for recorded in await manager.history("chat:lobby", limit=20)]

        Args:
            room: The room.
            since: Only messages after this position. If the history does not reach back to it: all that is kept.
            limit: At most this many messages: the newest, or with ``since`` the oldest after it.

        Raises:
            InvalidArgument: An argument is not acceptable.
            NotInstalled: The manager is not installed.
            NotRunning: The manager is not running.
            BrokerUnavailable: The broker can't be reached in time.
        """
        return await self._hubbub.history(room, since, limit)

    def stats(self) -> Stats:
        """Returns a snapshot of this process's connections, and of its counters since the manager started."""
        return self._hubbub.stats()

    @property
    def running(self) -> bool:
        """Whether the manager has started and not stopped."""
        return self._hubbub.running

    @property
    def ready(self) -> bool:
        """Whether the manager has started and is not draining: the answer to a readiness check.

        The state of the broker does not count. If it did, an outage of Redis would take all workers out of service at
        once.
        """
        return self._hubbub.running and not self._hubbub.draining

    async def broker_healthy(self) -> bool:
        """Returns whether the broker answers.

        A broker that does not answer is no reason to take a worker out of service, because its clients stay connected.
        """
        return await self._hubbub.broker.healthy()

    if not TYPE_CHECKING:
        active_connections = read_only(active_connections, "`connect` and `disconnect` keep it")
        active_user_count = read_only(active_user_count, "`connect` and `disconnect` keep it")
        rooms = read_only(rooms, "connections join and leave; an attribute of your own needs another name")
        running = read_only(running, "the app's lifespan starts and stops the manager")
        ready = read_only(ready, "the app's lifespan starts and stops the manager")
        from_thread = read_only(from_thread, "the manager makes it; its timeout is `thread_timeout_s`")
