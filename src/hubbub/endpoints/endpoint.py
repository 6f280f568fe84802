"""`Endpoint`: functions of an app that answer clients, served on one WebSocket path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NoReturn, Protocol

from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from ..connections.connection import refuse_to_receive
from ..errors import InvalidArgument, shown
from ..names import UserId, is_name
from .asyncapi import Declared
from .conversation import Conversation
from .documentation import Docs, Documentation
from .documentation import Engine as DocumentedEngine
from .entrance import accept
from .events import Events
from .fallback import Engine as ServingEngine
from .fallback import Fallback
from .functions import Function, authenticator
from .handles import Naming, Room
from .routing import MessageRouter, RoomRule
from .served import Served
from .tokens import SubscriptionTokens


class Engine(ServingEngine, DocumentedEngine, Protocol):
    """The part of a manager's engine that an endpoint uses."""


class Manager(Protocol):
    """The part of a `ConnectionManager` that an endpoint uses."""

    @property
    def _hubbub(self) -> Engine: ...


class Endpoint(MessageRouter):
    """Functions that answer clients of the Centrifugo protocol. `ConnectionManager.endpoint` creates it.

    ```python
    live = manager.endpoint("/live", auth=current_user)


    @live.room("chat:{room}")
    async def may_read(room: str, user: User) -> bool: ...


    @live.on("say")
    async def say(message: Say, user: User) -> Said: ...
    ```

    Attributes:
        path: The path of the WebSocket.
    """

    def __init__(
        self,
        manager: Manager,
        path: str,
        auth: Callable[..., Any] | None,
        user_id: Callable[[Any], UserId | None] | None,
        docs: Docs = True,
    ) -> None:
        if not isinstance(path, str) or not path.startswith("/"):
            raise InvalidArgument("path", f"got {shown(path)}", "the path of a WebSocket, such as '/live'")
        try:
            path_params = WebSocketRoute(path, self._serve).param_convertors
        except (AssertionError, ValueError) as error:
            raise InvalidArgument("path", f"got {shown(path)} ({error})", "a path, such as '/live/{tenant}'") from None
        super().__init__()
        self.path: str = path
        self._auth = auth
        self._path_params = frozenset(path_params)
        self._manager = manager
        self._authenticate: Function[Any] | None = None if auth is None else authenticator(auth, self._path_params)
        self._user_id_of = user_id or user_id_of
        self._served: Served | None = None
        self._http_apps: Mapping[str, ASGIApp] = {
            "events": Events(lambda: manager._hubbub, self._serving),
            **Fallback(path, lambda: manager._hubbub, self._serving).apps,
        }
        self._namings: dict[str, Naming] = {}
        self._documentation = Documentation(
            path, self._path_params, docs, lambda: manager._hubbub, self._declared, self._authenticate
        )

    def room_of(self, pattern: str, /, **names: Any) -> Room[Any]:
        """Returns a room of a pattern, with the calls that concern it.

        The name of the room is built here and nowhere else, and ``Room[Said]`` lets type checkers check the messages:

        ```python
        def chat(room: str) -> Room[Said]:
            return live.room_of("chat:{room}", room=room)


        await chat("lobby").broadcast(Said(user_id="ann", text="hello"))
        ```

        Args:
            pattern: A pattern that ``@live.room(...)`` has declared before this call, as it is written there.
            names: A value for each name in the pattern, of the type that the function under ``@live.room`` takes.

        Raises:
            InvalidArgument: No such pattern is declared, a name is missing, unknown or comes twice, or the pattern has
                a part without a name, such as ``*``.
            InvalidName: There is no room with these values, such as one with ``:`` in a part. Values that come from a
                client are an error of the client, as everywhere.
        """
        naming = self._namings.get(pattern)
        if naming is None:
            rule = next((each for each in self._rooms.values() if each.pattern.text == pattern), None)
            if rule is None:
                there_are = ", ".join(shown(each.pattern.text) for each in self._rooms.values()) or "none yet"
                raise InvalidArgument("room_of()", f"there is no @room({shown(pattern)})", f"the patterns {there_are}")
            naming = self._namings[pattern] = Naming(rule.pattern, rule.function.annotations, rule.function.name)
        return Room(self._manager._hubbub, naming.name_of(names))

    def _add_room(self, rule: RoomRule) -> None:
        if rule.tokens is True:
            if not isinstance(self._auth, SubscriptionTokens):
                raise InvalidArgument(
                    rule.function.name,
                    f"token=True has nothing to verify tokens with: the endpoint has auth={shown(self._auth)}",
                    "auth=JWTAuth(...) on the endpoint, or token=JWTAuth(...) on the rule",
                )
            rule = replace(rule, tokens=self._auth)
        super()._add_room(rule)

    def _declared(self) -> Declared:
        """All functions, in the order in which they were declared. From then on no others can be."""
        self._closed = "the endpoint has been documented"
        return Declared(
            methods=tuple(self._methods.values()),
            rooms=tuple(self._rooms.values()),
            publishing=tuple(self._publishing.values()),
            connect=None if self._connect is None else (self._connect, self._about_connect),
        )

    def _checked_user_id(self, user: Any) -> UserId | None:
        found: object = self._user_id_of(user)
        if found is None or is_name(found):
            return found
        raise InvalidArgument(
            "auth",
            f"it yields {_a(user)}, whose user id is {shown(found)}",
            "None for no user, or an id that is a str, an int or a UUID",
        )

    async def _serve(self, websocket: WebSocket) -> None:
        """Serves one client. This is the function behind the endpoint's WebSocket route."""
        engine = self._manager._hubbub
        protocol = await accept(websocket, engine)
        if protocol is None:
            return
        websocket._receive = _receive
        await Conversation(self._serving(websocket.scope.get("app")), engine, websocket, protocol).run()

    def _serving(self, app: object) -> Served:
        """Returns the functions and settings, which are fixed when the first client comes."""
        if self._served is None:
            self._served = Served(self._routes(), self._authenticate, self._checked_user_id, app)
        return self._served


async def _receive() -> NoReturn:
    """Stands in the place of the WebSocket's own ``receive``, so that no function takes a command of the client."""
    refuse_to_receive()


def _a(value: object) -> str:
    return f"a value of the type {type(value).__name__}"


def user_id_of(user: Any) -> UserId | None:
    """Returns the user id of what an ``auth=`` dependency yields: itself, or its ``sub``, ``user_id`` or ``id``.

    Raises:
        InvalidArgument: The value has none of these.
    """
    if user is None or isinstance(user, (str, int)):
        return user
    for name in ("sub", "user_id", "id"):
        found = user.get(name) if isinstance(user, Mapping) else getattr(user, name, None)
        if found is not None:
            return found  # type: ignore[no-any-return]  # `connect` checks it
    raise InvalidArgument(
        "auth",
        f"it yields {_a(user)}, which has no user id ({shown(user)})",
        "a str, an object with sub, user_id or id, or user_id=",
    )
