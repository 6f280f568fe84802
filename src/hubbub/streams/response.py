"""The response with which a route of the app answers a request with a stream of events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..arguments import detached_info, timestamp
from ..connections.http_request import exchange_of, opened
from ..errors import InvalidArgument, shown
from ..names import EVERYONE_NAME, USER_LABEL, Everyone, RoomName, UserId, room_name, user_name
from ..presence import Info
from ..protocols.event_stream import MAX_ROOMS, Asked
from .request import read
from .stream import Engine, Stream, respond


def event_stream(
    engine: Engine,
    request: Request,
    user_id: UserId | None,
    rooms: Iterable[RoomName | Everyone],
    *,
    info: Info,
    expires_at: datetime | float | None,
) -> Response:
    """Does what `ConnectionManager.event_stream` promises."""
    if not isinstance(request, Request):
        raise InvalidArgument("request", f"got {shown(request)}", "the Request that the route was given")
    exchange_of(engine, request.scope)
    if isinstance(rooms, (str, bytes)) or not isinstance(rooms, Iterable):
        raise InvalidArgument("rooms", f"got {shown(rooms)}", "a list of room names")
    names = list(dict.fromkeys(_name(room, index, user_id) for index, room in enumerate(rooms)))
    if not 1 <= len(names) <= MAX_ROOMS:
        raise InvalidArgument("rooms", f"got {len(names)} rooms", f"1 to {MAX_ROOMS}")
    if user_id is not None:
        user_name(user_id)
    return EventStreamResponse(engine, user_id, names, info=detached_info(info), expires_at=timestamp(expires_at))


def _name(room: object, index: int, user_id: UserId | None) -> str:
    if room == USER_LABEL:
        if user_id is None:
            raise InvalidArgument(f"rooms[{index}]", f"{USER_LABEL} is the room of a user", "a user_id")
        return USER_LABEL
    return EVERYONE_NAME if isinstance(room, Everyone) else room_name(room, f"rooms[{index}]")


class EventStreamResponse(Response):
    """A stream of the messages of rooms, as Server-Sent Events. `ConnectionManager.event_stream` creates it."""

    media_type = "text/event-stream"

    def __init__(
        self,
        engine: Engine,
        user_id: UserId | None,
        rooms: Sequence[str],
        *,
        info: Info,
        expires_at: datetime | float | None,
    ) -> None:
        super().__init__()
        self._engine = engine
        self._user_id = user_id
        self._rooms = rooms
        self._info = info
        self._expires_at = expires_at

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers the request, and returns when the client is gone.

        Args:
            scope: The ASGI scope.
            receive: The ASGI ``receive``.
            send: The ASGI ``send``.

        Raises:
            HTTPException: The request can't be answered with a stream, or a limit refuses the client.
            NotInstalled: The manager is not installed on the app.
        """
        http = opened(self._engine, scope, receive, send)
        request = read(self._engine, http.scope, self._rooms)
        await respond(self._engine, http, request, [Asked(name) for name in self._rooms], self._serve)

    async def _serve(self, stream: Stream) -> None:
        await stream.connect(self._user_id, info=self._info, expires_at=self._expires_at)
        infos: dict[str, Any] = {name: None for name in self._rooms if name[0] != "$"}
        with self._engine.memberships.attempts.begin(stream.session.user_id, stream.session.id) as attempt:
            await stream.join(infos, attempt)
        await stream.run()
