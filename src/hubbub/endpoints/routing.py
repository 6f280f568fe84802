"""Finds the function for a message: apps declare functions on a `MessageRouter`, and `Routes` holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NamedTuple, Protocol, TypeVar

from ..arguments import is_text
from ..codec import Payload
from ..errors import InvalidArgument, shown
from ..names import MAX_NAME_BYTES
from ..patterns import Pattern
from .about import About, about
from .dependencies import name_of
from .functions import Function
from .results import Grant, Returns, Welcome, grant, nothing, reply, welcome
from .schemas import check_type
from .tokens import SubscriptionTokens

if TYPE_CHECKING:
    from functools import _lru_cache_wrapper

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_MAX_METHOD_BYTES: Final = 255
_CACHED_NAMES: Final = 4096


class _Required:
    """The default of a parameter that has to be given; `help` shows it."""

    def __repr__(self) -> str:
        return "<required>"


_REQUIRED: Final[Any] = _Required()
_PLAIN: Final = About()
_EARLIER: Final = "declarations while the app is imported, before it starts and before the router is included"


@dataclass(frozen=True, slots=True)
class Method:
    """A function that answers the requests, and takes the messages, of one method.

    Attributes:
        name: The method, with the prefixes of the routers that it came through.
        function: The function.
        concurrent: Whether it runs beside the other messages of its connection.
        about: Its description.
    """

    name: str
    function: Function[Payload | None]
    concurrent: bool = False
    about: About = _PLAIN


@dataclass(frozen=True, slots=True)
class RoomRule:
    """A function that says who may subscribe to the rooms of a pattern.

    Attributes:
        pattern: The rooms.
        function: The function.
        sends: The type of the messages in these rooms; None where it is not told.
        tokens: Verifies the token that a client needs for these rooms. None if it needs none, and True where the
            endpoint, of which this router becomes a part, decides.
        about: Its description.
    """

    pattern: Pattern
    function: Function[Grant | None]
    sends: Any = None
    tokens: SubscriptionTokens | Literal[True] | None = None
    about: About = _PLAIN


@dataclass(frozen=True, slots=True)
class PublishRule:
    """A function that takes what clients publish into the rooms of a pattern.

    Attributes:
        pattern: The rooms.
        function: The function.
        about: Its description.
    """

    pattern: Pattern
    function: Function[Payload | None]
    about: About = _PLAIN


class _Ruled(Protocol):
    @property
    def pattern(self) -> Pattern: ...


R = TypeVar("R", bound=_Ruled)


class Match(NamedTuple, Generic[R]):
    """The rule for a room, and what the names of its pattern stand for."""

    rule: R
    names: Mapping[str, str]


class Rules(Generic[R]):
    """Finds the rule for a room. Of several that match, the most specific applies (`Pattern.rank`).

    Args:
        rules: No two of them with patterns of one shape.

    Attributes:
        all: The rules, the most specific first.
        patterns: Their patterns, for log lines.
    """

    def __init__(self, rules: Iterable[R]) -> None:
        self.all: tuple[R, ...] = tuple(sorted(rules, key=lambda rule: rule.pattern.rank))
        self.patterns: str = ", ".join(rule.pattern.text for rule in self.all) or "none"
        self._literal = {rule.pattern.text: rule for rule in self.all if rule.pattern.is_literal}
        self._others = [rule for rule in self.all if not rule.pattern.is_literal]
        self._found: _lru_cache_wrapper[Match[R] | None] = lru_cache(maxsize=_CACHED_NAMES)(self._match)

    def __len__(self) -> int:
        return len(self.all)

    def match(self, name: str) -> Match[R] | None:
        """Gives the `Match` for a room's name, or None where no rule applies. The last few thousand are kept."""
        return self._found(name) if len(name) <= MAX_NAME_BYTES else None  # no room has a longer name

    def _match(self, name: str) -> Match[R] | None:
        if name[:1] == "$":  # the server's own: no client subscribes to these
            return None
        literal = self._literal.get(name)
        if literal is not None:
            return Match(literal, {})
        for rule in self._others:
            names = rule.pattern.match(name)
            if names is not None:
                return Match(rule, names)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """The functions of an endpoint, once all are declared.

    Attributes:
        methods: By method.
        rooms: The functions that authorize subscriptions.
        publishing: The functions that handle publications of clients.
        connect: Runs when a client has connected.
        disconnect: Runs when a client is gone.
    """

    methods: Mapping[str, Method]
    rooms: Rules[RoomRule]
    publishing: Rules[PublishRule]
    connect: Function[Welcome] | None
    disconnect: Function[None] | None


class MessageRouter:
    """A part of an endpoint's functions, declared in a module of its own.

    ```python
    router = MessageRouter()


    @router.on("create")
    async def create(order: Order, user: User) -> Created: ...


    live.include_router(router, prefix="orders.")  # clients call "orders.create"
    ```

    Functions have FastAPI's dependency injection, as routes have it, once per message. A parameter annotated
    `Connection` is the client's connection. A parameter named like a part of the pattern is that part of the room's
    name. One named like a path parameter of the endpoint, as in ``"/live/{tenant}"``, comes from the path. The
    remaining parameter is the message, of any type that Pydantic validates.

    Wrong declarations raise `InvalidArgument` when the module is imported.
    """

    _auth: Any = None
    _path_params: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self._methods: dict[str, Method] = {}
        self._rooms: dict[str, RoomRule] = {}
        self._publishing: dict[str, PublishRule] = {}
        self._connect: Function[Welcome] | None = None
        self._about_connect: About = _PLAIN
        self._disconnect: Function[None] | None = None
        self._closed: str | None = None

    def on(
        self,
        method: str,
        *,
        concurrent: bool = False,
        tags: Sequence[str] | None = None,
        summary: str | None = None,
        description: str | None = None,
        deprecated: bool | None = None,
        errors: Mapping[int, str] | None = None,
        include_in_schema: bool = True,
    ) -> Callable[[F], F]:
        """Declares the function that answers one kind of request, or handles one kind of message without an answer.

        ```python
        @live.on("say")
        async def say(message: Say, connection: Connection, user: User) -> Said: ...
        ```

        A client calls it with ``client.rpc("say", {...})`` and receives the reply, which the function's return
        annotation validates and serializes. The message is the parameter that is neither a `Connection` nor a
        dependency. No room is checked: a function that takes a room's name from the message has to call
        ``connection.is_subscribed(room)``.

        *Errors*: a message that does not validate is answered with 422, an `HTTPException` with its status and detail.

        *Order*: the messages of one connection are handled one after the other, in the order in which they were sent.

        Args:
            method: The name that clients use.
            concurrent: Lets the function run at once, beside the other messages of its connection, in no order.
            tags: The groups of the documentation to which the function belongs. This and the following arguments
                describe the function to the readers of the endpoint's AsyncAPI document.
            summary: One line about it.
            description: The whole text, in Markdown. By default, the docstring.
            deprecated: Tells clients to stop using it.
            errors: The codes with which the function refuses, and when: ``{403: "not a member of the room"}``.
            include_in_schema: Whether the documentation shows it.

        Raises:
            InvalidArgument: The method is taken, or the function can't be called with a message.
        """
        declared = f"@on({shown(method)})"
        if not is_text(method) or not 0 < len(method.encode()) <= _MAX_METHOD_BYTES:
            raise InvalidArgument(declared, f"the method is {shown(method)}", "a str of 1 to 255 bytes")
        if not isinstance(concurrent, bool):
            raise InvalidArgument(declared, f"concurrent is {shown(concurrent)}", "True or False")
        described = about(
            declared,
            tags=tags,
            summary=summary,
            description=description,
            deprecated=deprecated,
            errors=errors,
            include_in_schema=include_in_schema,
        )

        def declare(function: F) -> F:
            self._open_for(declared, function)
            made = self._function(function, reply, declared=declared)
            self._add_method(Method(method, made, concurrent, described.of(function)))
            return function

        return declare

    def room(
        self,
        pattern: str,
        *,
        sends: Any = None,
        token: SubscriptionTokens | bool = False,
        tags: Sequence[str] | None = None,
        summary: str | None = None,
        description: str | None = None,
        deprecated: bool | None = None,
        errors: Mapping[int, str] | None = None,
        include_in_schema: bool = True,
    ) -> Callable[[F], F]:
        """Declares the function that authorizes subscriptions to rooms. Clients can't subscribe to a room without one.

        ```python
        @live.room("chat:{room}")
        async def may_read(room: str, user: User) -> bool: ...
        ```

        The function returns True or None to allow the subscription, False to refuse it, or a `Grant`. It runs for each
        subscription, also when a client subscribes again after a lost connection. If the client sends data with the
        subscription, that data is the message. History, replay and presence of the rooms are `RoomOptions` of the
        manager: ``ConnectionManager(rooms={"chat:*": RoomOptions(...)})``.

        Args:
            pattern: The rooms: ``"chat:{room}"`` binds a name, which the function takes as a parameter, and
                ``"ticker:*"`` matches anything. If several patterns match a room, the most specific one applies.
            sends: The type of the messages in these rooms, for the documentation of the endpoint: a model, a union, or
                any other type that Pydantic knows. Under development and in tests, what the app broadcasts into the
                rooms is checked against it (``check_sends`` of the manager).
            token: Whether a client also needs a subscription token, which an SDK fetches with ``getToken`` of the
                subscription. With True, the `JWTAuth` of the endpoint's ``auth=`` verifies it; another `JWTAuth` may
                have another key. The token has the claims ``channel``, the room, and ``sub``, the user's id. The
                function runs after the token was verified. It may still refuse, and a parameter that is annotated
                `Claims` is the token's claims.
            tags: This and the following arguments describe the function, as in `on`.
            summary: One line about it.
            description: The whole text, in Markdown. By default, the docstring.
            deprecated: Tells clients to stop using it.
            errors: The codes with which the function refuses, and when.
            include_in_schema: Whether the documentation shows it.

        Raises:
            InvalidArgument: The pattern is taken or wrong, the function lacks a parameter for a name in it, or there is
                no `JWTAuth` to verify tokens with.
        """
        declared = f"@room({shown(pattern)})"
        compiled = _rule_pattern(pattern, declared)
        if sends is not None:
            check_type(sends, declared, "sends")
        if not isinstance(token, (bool, SubscriptionTokens)):
            raise InvalidArgument(declared, f"token is {shown(token)}", "True, False, or a JWTAuth")
        described = about(
            declared,
            tags=tags,
            summary=summary,
            description=description,
            deprecated=deprecated,
            errors=errors,
            include_in_schema=include_in_schema,
        )

        def declare(function: F) -> F:
            self._open_for(declared, function)
            takes_claims = token is not False
            made = self._function(function, grant, declared=declared, names=compiled.names, takes_claims=takes_claims)
            self._add_room(RoomRule(compiled, made, sends, token or None, described.of(function)))
            return function

        return declare

    def publish(
        self,
        pattern: str,
        *,
        tags: Sequence[str] | None = None,
        summary: str | None = None,
        description: str | None = None,
        deprecated: bool | None = None,
        errors: Mapping[int, str] | None = None,
        include_in_schema: bool = True,
    ) -> Callable[[F], F]:
        """Declares the function that handles what clients publish into rooms they are subscribed to.

        ```python
        @live.publish("chat:{room}")
        async def publish(message: Say, room: str, user: User) -> Said: ...
        ```

        The value that the function returns is published instead of what the client sent. None publishes nothing.
        Clients can't publish into a room without such a function.

        Args:
            pattern: The rooms, as in `room`.
            tags: This and the following arguments describe the function, as in `on`.
            summary: One line about it.
            description: The whole text, in Markdown. By default, the docstring.
            deprecated: Tells clients to stop using it.
            errors: The codes with which the function refuses, and when.
            include_in_schema: Whether the documentation shows it.

        Raises:
            InvalidArgument: As in `room`.
        """
        declared = f"@publish({shown(pattern)})"
        compiled = _rule_pattern(pattern, declared)
        described = about(
            declared,
            tags=tags,
            summary=summary,
            description=description,
            deprecated=deprecated,
            errors=errors,
            include_in_schema=include_in_schema,
        )

        def declare(function: F) -> F:
            self._open_for(declared, function)
            made = self._function(function, reply, declared=declared, names=compiled.names)
            self._add_publishing(PublishRule(compiled, made, described.of(function)))
            return function

        return declare

    def connect(self, function: F = _REQUIRED) -> F:
        """Declares the function that runs once per connection, after authentication: ``@live.connect``.

        The function returns nothing, or a `Welcome` with data for the client and rooms that the server joins it to. If
        the client sends data when it connects, that data is the message.

        Args:
            function: The function.

        Raises:
            InvalidArgument: There is such a function already, or it can't be called.
        """
        _check_given(function, "@connect")
        self._open_for("@connect", function)
        self._set_connect(self._function(function, welcome, declared="@connect"), _PLAIN.of(function))
        return function

    def disconnect(self, function: F = _REQUIRED) -> F:
        """Declares the function that runs once when a connection has ended, whatever the reason: ``@live.disconnect``.

        Args:
            function: The function.

        Raises:
            InvalidArgument: There is such a function already, or it can't be called.
        """
        _check_given(function, "@disconnect")
        self._open_for("@disconnect", function)
        self._set_disconnect(self._function(function, nothing, declared="@disconnect", takes_message=False))
        return function

    def include_router(
        self,
        router: MessageRouter,
        *,
        prefix: str = "",
        tags: Sequence[str] | None = None,
        deprecated: bool | None = None,
        include_in_schema: bool = True,
    ) -> None:
        """Takes over the functions of another router, which takes no more of them from then on.

        Args:
            router: The other router. It can be included several times, with different prefixes.
            prefix: Stands before the methods of the router: ``"orders."``. Rooms keep their names, which the whole app
                uses.
            tags: Groups of the documentation, before those of each function.
            deprecated: Tells clients to stop using all functions of the router.
            include_in_schema: Whether the documentation shows the functions of the router.

        Raises:
            InvalidArgument: A method or a pattern of the router is taken, or an argument is wrong.
        """
        declared = "include_router()"
        if not isinstance(router, MessageRouter) or router is self:
            problem = "got the router itself" if router is self else f"got {shown(router)}"
            raise InvalidArgument(declared, problem, "another MessageRouter")
        if not is_text(prefix):
            raise InvalidArgument(declared, f"prefix is {shown(prefix)}", "a str, such as 'orders.'")
        described = about(declared, tags=tags, deprecated=deprecated, include_in_schema=include_in_schema)
        self._open_for(declared)
        kept = dict(self.__dict__)
        self._methods, self._rooms, self._publishing = {**self._methods}, {**self._rooms}, {**self._publishing}
        try:
            self._take_over(router, prefix, described)
        except Exception:
            self.__dict__.update(kept)  # all of the router, or nothing
            raise
        router._closed = "its router is included already"

    def _take_over(self, router: MessageRouter, prefix: str, within: About) -> None:
        for method in router._methods.values():
            name, described = prefix + method.name, method.about.within(within)
            self._add_method(replace(method, name=name, function=self._bound(method.function), about=described))
        for rule in router._rooms.values():
            self._add_room(replace(rule, function=self._bound(rule.function), about=rule.about.within(within)))
        for each in router._publishing.values():
            self._add_publishing(replace(each, function=self._bound(each.function), about=each.about.within(within)))
        if router._connect is not None:
            self._set_connect(self._bound(router._connect), router._about_connect.within(within))
        if router._disconnect is not None:
            self._set_disconnect(self._bound(router._disconnect))

    def _routes(self) -> Routes:
        """All that is declared. From then on nothing can be."""
        self._closed = "the app has started"
        return Routes(
            methods=dict(self._methods),
            rooms=Rules(self._rooms.values()),
            publishing=Rules(self._publishing.values()),
            connect=self._connect,
            disconnect=self._disconnect,
        )

    def _function(self, function: F, returns: Returns[T], **arguments: Any) -> Function[T]:
        return Function(function, returns, path=self._path_params, **arguments).bound(self._auth)

    def _bound(self, function: Function[T]) -> Function[T]:
        return function.bound(self._auth, self._path_params)

    def _open_for(self, declared: str, function: object = None) -> None:
        if self._closed is not None:
            where = declared if function is None else f"{name_of(function)} of {declared}"
            raise InvalidArgument(where, f"comes too late: {self._closed}", _EARLIER)

    def _add_method(self, method: Method) -> None:
        _check_free(self._methods.get(method.name), method, f"the method {shown(method.name)}")
        self._methods[method.name] = method

    def _add_room(self, rule: RoomRule) -> None:
        _check_free(self._rooms.get(rule.pattern.shape), rule, f"the pattern {shown(rule.pattern.text)}")
        self._rooms[rule.pattern.shape] = rule

    def _add_publishing(self, rule: PublishRule) -> None:
        _check_free(self._publishing.get(rule.pattern.shape), rule, f"the pattern {shown(rule.pattern.text)}")
        self._publishing[rule.pattern.shape] = rule

    def _set_connect(self, function: Function[Welcome], described: About) -> None:
        _check_first(self._connect, function)
        self._connect, self._about_connect = function, described

    def _set_disconnect(self, function: Function[None]) -> None:
        _check_first(self._disconnect, function)
        self._disconnect = function


def _check_given(function: Any, declared: str) -> None:
    if function is _REQUIRED:
        raise InvalidArgument(
            declared, "it is called without a function", f"write it without parentheses: `@live.{declared[1:]}`"
        )


class _Declared(Protocol):
    @property
    def function(self) -> Function[Any]: ...


def _check_free(taken: _Declared | None, new: _Declared, what: str) -> None:
    if taken is not None:
        raise InvalidArgument(new.function.name, f"{what} is taken by {taken.function.name}", "one function for each")


def _check_first(taken: Function[Any] | None, new: Function[Any]) -> None:
    if taken is not None:
        raise InvalidArgument(new.name, f"there is {taken.name} already", "one such function on an endpoint")


def _rule_pattern(text: str, declared: str) -> Pattern:
    try:
        pattern = Pattern(text)
    except InvalidArgument as error:
        raise InvalidArgument(declared, error.problem, error.accepted) from None
    if text.startswith("$"):
        raise InvalidArgument(declared, "names that start with '$' are the server's own", "another pattern")
    return pattern
