"""A function of the app, ready to be called once per message.

Everything that can be known when a function is declared is computed then: where each of its parameters comes from, the
validators, the serializer of its reply, the tree of its dependencies. A call without dependencies costs what the same
work costs by hand.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack
from copy import copy
from functools import partial
from types import MappingProxyType
from typing import Any, Final, ForwardRef, Generic, TypeVar, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from starlette.concurrency import run_in_threadpool

from ..claims import Claims
from ..codec import loads_from_client
from ..connections.connection import Connection
from ..errors import InvalidArgument, shown
from .caller import Caller
from .dependencies import (
    Dependencies,
    Security,
    check_filled,
    dependency,
    is_provided,
    name_of,
    plain,
    returned_by,
    signature_of,
)
from .names import Names
from .refusals import MessageInvalid
from .results import Returns, anything

T = TypeVar("T")

MISSING: Final[Any] = object()
"""In the place of a message that a client did not send."""

NO_NAMES: Final[Mapping[str, str]] = MappingProxyType({})
_EMPTY: Final = inspect.Parameter.empty
_DEPENDENCIES: Final = {
    "auth": "a dependency that gives the user: a JWTAuth, or a function itself, without Depends(...)",
    "docs": "True, False, or a dependency that guards the documentation: a function itself, without Depends(...)",
}
_NOT_BY_NAME: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.VAR_POSITIONAL,
    inspect.Parameter.VAR_KEYWORD,
)


class Function(Generic[T]):
    """A function that answers clients. Its parameters say what it is given.

    - A parameter that is annotated `Connection` is the connection.
    - A parameter that is annotated `Claims`, of a rule with ``token=``, is the claims of the subscription token.
    - A parameter that is called like a name of the pattern is that part of the room's name, converted to its
      annotation.
    - A parameter that is called like a path parameter of the endpoint is that part of its path, as in a route.
    - A dependency (`Depends`, `Security`), and all else that FastAPI takes from a request without a body, comes from
      FastAPI.
    - The one that is left is the message, validated by its annotation. Without a default, a message is required.

    Args:
        function: The function, ``async`` or not. One that is not async runs in FastAPI's thread pool.
        returns: The return types of functions of this kind, from `hubbub.endpoints.results`.
        declared: How it is declared, for errors: ``@on('say')``.
        names: The names that the pattern binds. Each needs a parameter, of the function or of a dependency.
        takes_message: Whether there can be a message.
        takes_claims: Whether there is a subscription token.
        path: The path parameters of the endpoint.

    Attributes:
        name: The function in errors: ``say() of @on('say')``.
        message: The annotation of the message; `inspect.Parameter.empty` for a function that takes none.
        returned: The return annotation; `inspect.Signature.empty` where there is none.

    Raises:
        InvalidArgument: The function can't be called like this. Names the function, the problem, and what is accepted.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        returns: Returns[T],
        *,
        declared: str,
        names: Iterable[str] = (),
        takes_message: bool = True,
        takes_claims: bool = False,
        path: frozenset[str] = frozenset(),
    ) -> None:
        if not callable(function):
            raise InvalidArgument(declared, f"got {shown(function)}", "a function")
        self.name: str = f"{name_of(function)} of {declared}"
        self._function = function
        pattern = tuple(names)
        self._on_path = partial(
            Function,
            function,
            returns,
            declared=declared,
            names=pattern,
            takes_message=takes_message,
            takes_claims=takes_claims,
        )
        try:
            parameters = signature_of(function).parameters.values()
            self.returned: Any = returned_by(function)
        except Exception as error:
            raise InvalidArgument(
                self.name, f"its signature can't be read ({shown(str(error))})", "annotations that exist at runtime"
            ) from error
        self._is_async = _is_async(function)
        if _is_generator(function):
            raise InvalidArgument(self.name, "it has a `yield`", "a function that returns; dependencies may yield")
        check_filled(function, (each.name for each in parameters), self.name)
        self._check_path(pattern, path)
        provided: list[inspect.Parameter] = []
        converted: list[tuple[str, Any]] = []
        messages: list[inspect.Parameter] = []
        self._connections: list[str] = []
        self._users: list[str] = []
        self._claims: list[str] = []
        for parameter in parameters:
            if parameter.kind in _NOT_BY_NAME:
                raise InvalidArgument(
                    self.name, f"the parameter {parameter} can't be given by name", "parameters without *, ** and /"
                )
            if is_provided(parameter, self.name) or parameter.name in path:
                provided.append(parameter)
            elif parameter.name in pattern:
                annotation = str if parameter.annotation is _EMPTY else parameter.annotation
                converted.append((parameter.name, _resolved(parameter.name, annotation, self.name)))
            elif _is(Connection, parameter.annotation):
                self._connections.append(parameter.name)
            elif _is(Claims, parameter.annotation):
                self._check_claims(parameter, takes_claims)
                self._claims.append(parameter.name)
            else:
                messages.append(parameter)
        self._names = Names(converted, self.name)
        self._dependencies = Dependencies(provided, pattern, self.name, path) if provided else None
        self._check_names(pattern)
        self._check_messages(messages, pattern, takes_message)
        self._message = messages[0].name if messages else None
        self.message: Any = messages[0].annotation if messages else _EMPTY
        if messages:
            self._default = messages[0].default
            self._is_binary = plain(self.message) is bytes
            self._validate = self._validator()
        self._convert = returns(self.returned, self.name)

    def __repr__(self) -> str:
        return f"<Function {self.name}>"

    @property
    def takes_message(self) -> bool:
        """Whether a client may send a message."""
        return self._message is not None

    @property
    def is_message_required(self) -> bool:
        """Whether a client has to send a message."""
        return self._message is not None and self._default is _EMPTY

    @property
    def annotations(self) -> Mapping[str, Any]:
        """The annotations of the names of the pattern, of the function or of a dependency."""
        others = {} if self._dependencies is None else self._dependencies.annotations
        return {**others, **self._names.annotations}

    @property
    def security(self) -> Mapping[str, Security]:
        """The security schemes of its dependencies, by name."""
        return {} if self._dependencies is None else self._dependencies.security

    @property
    def function(self) -> Callable[..., Any]:
        """The function of the app."""
        return self._function

    def bound(self, auth: Any, path: frozenset[str] = frozenset()) -> Function[T]:
        """The same function on an endpoint, whose ``auth=`` dependency gives the stored user.

        Args:
            auth: The dependency; None if the endpoint has none.
            path: The path parameters of the endpoint.

        Raises:
            InvalidArgument: The function asks that dependency for something that the stored user does not tell, or a
                path parameter is called like a name of the pattern.
        """
        other = self._on_path(path=path) if path else copy(self)
        if auth is not None and other._dependencies is not None:
            other._users, other._dependencies = other._dependencies.bound(auth)
        return other

    def watched(self, watch: Callable[[object, T], None]) -> Function[T]:
        """The same function, with a callable that is given what it returned, and what that was converted to.

        Args:
            watch: The callable. An exception of it is one of the function.
        """
        other, convert = copy(self), self._convert

        def converted(value: object) -> T:
            result = convert(value)
            watch(value, result)
            return result

        other._convert = converted
        return other

    async def __call__(
        self,
        caller: Caller,
        message: Any = MISSING,
        names: Mapping[str, str] = NO_NAMES,
        *,
        is_encoded: bool = False,
    ) -> T:
        """Handles one message: opens the dependencies, calls the function, converts its result, closes them.

        The message is validated before anything of the app runs. Dependencies with ``yield`` see the exception of the
        function, and an error of its result.

        *Cancellation*: closes the dependencies. A function in a thread runs to its end first.

        Args:
            caller: The client.
            message: Its message, as `codec.loads_from_client` gives it; `MISSING` where it sent none.
            names: The parts of the room's name that the pattern binds.
            is_encoded: Whether the message is bytes: of JSON, or those that a function that takes ``bytes`` is given.

        Raises:
            MessageInvalid: The message does not validate.
            RoomUnknown: A name of the pattern does not convert.
            ReplyInvalid: The function returned something that its annotation does not allow.
            Exception: Any exception of the function or of a dependency.
        """
        arguments = self._names.converted(names) if names else {}
        if self._message is not None:
            if is_encoded or message is MISSING:
                message = self._prepared(message, is_encoded)
            try:
                arguments[self._message] = self._default if message is MISSING else self._validate(message)
            except ValidationError as error:
                raise _invalid(error) from None
        for name in self._connections:
            arguments[name] = caller.connection
        for name in self._users:
            arguments[name] = caller.user
        for name in self._claims:
            arguments[name] = caller.claims
        if self._dependencies is None:
            if self._is_async:
                return self._convert(await self._function(**arguments))
            return self._convert(await run_in_threadpool(self._function, **arguments))
        result: Any = MISSING
        async with AsyncExitStack() as outer, AsyncExitStack() as inner:
            arguments.update(await self._dependencies.solve(caller, names, outer, inner))
            returned = (
                await self._function(**arguments)
                if self._is_async
                else await run_in_threadpool(self._function, **arguments)
            )
            result = self._convert(returned)  # which may read what a dependency is about to close
        if result is MISSING:
            raise RuntimeError(
                f"a dependency with yield swallowed an exception of {self.name}: it must raise it again, or another"
            )
        answer: T = result
        return answer

    def _prepared(self, message: Any, is_encoded: bool) -> Any:
        """The message to validate; `MISSING` where the default is taken."""
        if message is MISSING:
            return None if self._default is _EMPTY else MISSING
        if not is_encoded or self._is_binary:
            return message
        try:
            return loads_from_client(message)
        except ValueError as error:
            raise MessageInvalid(str(error)) from None

    def _check_names(self, pattern: tuple[str, ...]) -> None:
        taken = self._names.keys | (self._dependencies.names if self._dependencies is not None else frozenset())
        for name in pattern:
            if name not in taken:
                raise InvalidArgument(
                    self.name,
                    f"no parameter takes {name!r} of its pattern",
                    f"a parameter `{name}: str`, of the function or of a dependency; `*` in a pattern binds no name",
                )

    def _check_path(self, pattern: tuple[str, ...], path: frozenset[str]) -> None:
        for name in pattern:
            if name in path:
                raise InvalidArgument(
                    self.name,
                    f"{name!r} is a name of its pattern, and a path parameter of its endpoint",
                    "another name in the pattern",
                )

    def _check_claims(self, parameter: inspect.Parameter, takes_claims: bool) -> None:
        if not takes_claims:
            raise InvalidArgument(
                self.name,
                f"the parameter {parameter.name} is the claims of a subscription token, and there is none",
                f"@room(..., token=True); for the user: `{parameter.name}: Annotated[Claims, Depends(...)]`",
            )

    def _check_messages(self, messages: list[inspect.Parameter], names: tuple[str, ...], takes_message: bool) -> None:
        those = ", ".join(each.name for each in messages)
        others = f", names of its pattern ({', '.join(names)})" if names else ""
        if len(messages) > (1 if takes_message else 0):
            what = "could be the message" if takes_message else "come from nowhere: there is no message"
            raise InvalidArgument(
                self.name,
                f"the parameters {those} {what}",
                f"{'one message' if takes_message else 'no message'}, a `Connection`{others}, "
                "dependencies, `Depends(...)`, and parameters of the endpoint's path, "
                "which in a `MessageRouter` are written `Annotated[str, Path()]`",
            )
        if messages and isinstance(messages[0].default, FieldInfo):
            raise InvalidArgument(
                self.name,
                f"the default of the message {those} is {shown(messages[0].default)}",
                f"`{those}: Annotated[..., Field(...)]`",
            )

    def _validator(self) -> Callable[[Any], Any]:
        if self.message is _EMPTY or self.message is Any:
            return _unchanged
        annotation = _resolved(self._message, self.message, self.name)
        try:
            adapter = TypeAdapter[Any](annotation)
            _ = adapter.core_schema  # raises where a model in it is not complete
        except Exception as error:
            raise InvalidArgument(
                self.name,
                f"Pydantic can't validate a message as {shown(annotation)} ({shown(str(error), limit=200)})",
                "a model, a dataclass, a TypedDict, str, bytes, a list or a union of these, or another type that "
                "Pydantic knows; for a dependency: Annotated[..., Depends(...)]",
            ) from error
        return adapter.validator.validate_python


def authenticator(
    auth: Callable[..., Any], path: frozenset[str] = frozenset(), *, argument: str = "auth"
) -> Function[Any]:
    """The function that runs an endpoint's ``auth=`` dependency, and gives the user.

    It is called with a `Caller` that has no connection. Dependencies with ``yield`` are closed when it returns.

    Args:
        auth: The dependency.
        path: The path parameters of the endpoint.
        argument: The argument of `ConnectionManager.endpoint` that it is.

    Raises:
        InvalidArgument: FastAPI can't resolve the dependency.
    """
    if not callable(auth) or get_origin(auth) is not None:  # an annotation can be called
        raise InvalidArgument(
            argument,
            f"got {shown(auth)}",
            _DEPENDENCIES.get(argument, _DEPENDENCIES["auth"]),
        )

    async def identify(user: Any) -> Any:
        return user

    signature = inspect.Signature([dependency("user", auth)])
    identify.__signature__ = signature  # type: ignore[attr-defined]  # PEP 362; not in typeshed
    return Function(identify, anything, declared=f"{argument}={name_of(auth)}", takes_message=False, path=path)


def _invalid(error: ValidationError) -> MessageInvalid:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return MessageInvalid([dict(each) for each in problems])


def _unchanged(value: Any) -> Any:
    return value


def _is(type_: type[Any], annotation: Any) -> bool:
    kind = plain(annotation)
    return isinstance(kind, type) and issubclass(kind, type_)


def _resolved(name: str | None, annotation: Any, function: str) -> Any:
    if isinstance(annotation, (str, ForwardRef)):
        raise InvalidArgument(
            function,
            f"the annotation {shown(annotation)} of the parameter {name} can't be resolved",
            "a type that is imported at runtime, not only under TYPE_CHECKING or inside another function",
        )
    return annotation


def _layers(function: Any) -> Iterator[Any]:
    """A function, and what is inside it: that of a partial, what a decorator wraps, the ``__call__`` of an object."""
    while function is not None:
        yield function
        if isinstance(function, partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        else:
            function = None if inspect.isroutine(function) or inspect.isclass(function) else type(function).__call__


def _is_async(function: Callable[..., Any]) -> bool:
    """Whether the result of a call is awaited, as FastAPI decides it for a route."""
    return any(map(inspect.iscoroutinefunction, _layers(function)))


def _is_generator(function: Callable[..., Any]) -> bool:
    """Whether a call gives a generator: of the layers, the outermost that says what it gives decides."""
    for layer in _layers(function):
        if inspect.isgeneratorfunction(layer) or inspect.isasyncgenfunction(layer):
            return True
        if inspect.iscoroutinefunction(layer):
            return False
    return False
