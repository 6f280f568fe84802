"""The event stream of an endpoint: its rooms for clients that only read, over HTTP.

The client names its rooms in the URL, and is authenticated and authorized as a client that sends commands: by the
``auth=`` dependency, by ``@connect``, and by the rule of each room. A client that is refused gets an HTTP status.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, TypeVar

from starlette.exceptions import HTTPException, WebSocketException
from starlette.responses import Response

from ..claims import Claims
from ..close import CloseCode, Closed
from ..codec import Payload
from ..connections.http_request import opened
from ..connections.transports import Event, ServerReceive, ServerSend
from ..connections.transports.stream import status_of
from ..errors import BrokerUnavailable, InvalidName, shown
from ..names import EVERYONE_NAME, USER_LABEL, UserId, room_name
from ..protocols.event_stream import Asked, named
from ..streams.request import preflight, read
from ..streams.stream import Engine as StreamsEngine
from ..streams.stream import Stream, respond
from .app_client import AppClient
from .caller import Caller
from .expiry import end_of, is_over
from .functions import MISSING, Function
from .refusals import RoomUnknown, refusal_of
from .results import Grant, Welcome
from .routing import Match, RoomRule
from .served import Engine as ServedEngine
from .served import Served
from .types_of import type_namer

T = TypeVar("T")

MAX_AUTHORIZING: Final = 16
"""Maximum number of rooms of one stream that are authorized at the same time."""

_OWN: Final = frozenset((EVERYONE_NAME, USER_LABEL))


class Engine(StreamsEngine, ServedEngine, Protocol):
    """The part of a manager's engine that an event stream uses."""


class Events:
    """The ASGI app at the path of the event stream of an endpoint.

    Args:
        engine_of: Returns the engine of the manager.
        served_by: Returns the functions and settings of the endpoint, for the app that serves it.
    """

    def __init__(self, engine_of: Callable[[], Engine], served_by: Callable[[object], Served]) -> None:
        self._engine_of = engine_of
        self._served_by = served_by
        self._namers: dict[str, Callable[[Payload], str] | None] = {}

    async def __call__(self, scope: Event, receive: ServerReceive, send: ServerSend) -> None:
        """Answers one request."""
        engine = self._engine_of()
        http = opened(engine, scope, receive, send)
        if scope["method"] == "OPTIONS":
            await Response(None, 204, headers=preflight(engine, scope))(scope, receive, send)
            return
        served = self._served_by(scope.get("app"))
        request = read(engine, http.scope)
        most = engine.limits.max_rooms_per_connection
        if most is not None and len(_OWN.symmetric_difference(request.rooms) - _OWN) > most:
            raise HTTPException(400, f"too many rooms: at most {most}")
        matches = {name: _match(served, name) for name in request.rooms if name not in _OWN}
        rooms = [Asked(name, self._namer(matches.get(name))) for name in request.rooms]

        async def handle(stream: Stream) -> None:
            await _Client(served, engine, stream, matches).run()

        await respond(engine, http, request, rooms, handle)

    def _namer(self, match: Match[RoomRule] | None) -> Callable[[Payload], str] | None:
        if match is None:
            return None
        pattern = match.rule.pattern.text
        if pattern not in self._namers:
            self._namers[pattern] = type_namer(match.rule.sends)
        return self._namers[pattern]


def _match(served: Served, name: str) -> Match[RoomRule]:
    """Returns the rule of a room.

    Raises:
        HTTPException: There is none, or it needs a token that a stream can't send.
    """
    try:
        room_name(name)
    except InvalidName as error:
        raise HTTPException(400, f"room: {error.problem}") from None
    match = served.routes.rooms.match(name)
    if match is None:
        raise _forbidden(name)
    if match.rule.tokens is not None:
        raise HTTPException(403, f"the room {shown(name)} needs a subscription token, which a stream can't send")
    return match


def _forbidden(name: str) -> HTTPException:
    return HTTPException(403, f"not allowed in the room {shown(name)}")


class _Client(AppClient):
    """One client that reads a stream.

    Args:
        served: The functions and settings of the endpoint.
        engine: The engine of the manager.
        stream: The stream.
        matches: The rules of the rooms that the client named.
    """

    def __init__(self, served: Served, engine: Engine, stream: Stream, matches: Mapping[str, Match[RoomRule]]) -> None:
        super().__init__(served, engine, stream.websocket)
        self._stream = stream
        self._matches = matches
        self._authorizing = asyncio.Semaphore(MAX_AUTHORIZING)

    async def run(self) -> None:
        """Serves the client until it is gone.

        Raises:
            HTTPException: The client is refused.
        """
        user, user_id = await self._identified()
        await self._stream.connect(user_id)
        self.session = self._stream.session
        caller = Caller(self.websocket.scope, connection=self._stream.connection, user=user, app=self.served.app)
        try:
            with self.engine.memberships.attempts.begin(self.session.user_id, self.session.id) as attempt:
                welcome = await self._welcome(caller)
                self.caller = caller  # from now on, @disconnect runs at the end
                for name in welcome.names:
                    await self.engine.memberships.join(self.session, name, None, attempt)
                grants = await self._grants(caller)
                ends = [grant.expires_at_s for grant in grants.values() if grant.expires_at_s is not None]
                infos = {name: grant.info for name, grant in grants.items()}
                await self._stream.join(infos, attempt, ends_at=min(ends, default=None))
            first = () if welcome.payload is None else (named("connected", welcome.payload),)
            await self._stream.run(*first)
        finally:
            await self.end()

    async def _identified(self) -> tuple[Any, UserId | None]:
        authenticate = self.served.authenticate
        if authenticate is None:
            return None, None
        user, user_id = await self._called(authenticate, self.identify(authenticate, self.websocket.scope))
        if self.socket.expires_at is None or not isinstance(user, Claims):  # a JWTAuth has set it, with its leeway
            self.socket.expire_at(end_of(user))
        return user, user_id

    async def _welcome(self, caller: Caller) -> Welcome:
        function = self.served.routes.connect
        if function is None:
            return Welcome()
        welcome = await self._called(function, self.awaited(function, function(caller)))
        if welcome.info is not None:
            await self.engine.memberships.describe(self.session, welcome.info)
        return welcome

    async def _grants(self, caller: Caller) -> Mapping[str, Grant]:
        """Asks the rules of all rooms, at once.

        Raises:
            HTTPException: One of them refuses.
        """
        names = tuple(self._matches)
        answers = await asyncio.gather(*[self._grant(name, caller) for name in names], return_exceptions=True)
        answer: Grant | BaseException | None = None
        try:
            for answer in answers:
                if isinstance(answer, BaseException):
                    raise answer
            return {name: grant for name, grant in zip(names, answers, strict=True) if isinstance(grant, Grant)}
        finally:
            answers.clear()  # breaks a cycle: a traceback refers to this frame
            del answer

    async def _grant(self, name: str, caller: Caller) -> Grant:
        rule, names = self._matches[name]
        async with self._authorizing:
            call = rule.function(caller, MISSING, names)
            grant = await self._called(rule.function, self.awaited(rule.function, call), name)
        if grant is None or is_over(grant.expires_at_s):
            raise _forbidden(name)
        return grant

    async def _called(self, function: Function[Any], call: Awaitable[T], room: str = "") -> T:
        """Awaits a function of the app, and turns its exceptions into those that answer a request.

        Raises:
            HTTPException: The client is refused.
        """
        try:
            return await call
        except HTTPException:
            raise
        except RoomUnknown:
            raise HTTPException(404, f"no such room: {shown(room)}") from None
        except WebSocketException as error:
            closed = Closed(error.code, error.reason)
            raise HTTPException(status_of(closed), closed.reason or None) from error
        except BrokerUnavailable:
            await self.engine.admission.refuse(self.socket, CloseCode.BROKER_UNAVAILABLE)
        except InvalidName:
            raise
        except Exception as error:
            refusal = refusal_of(error)
            if refusal is not None:
                raise HTTPException(refusal.code, refusal.reason) from error
            self.engine.counters.errors["function"] += 1
            raise
