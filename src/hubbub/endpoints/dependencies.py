"""FastAPI's dependency injection, per message. No other module touches FastAPI's internals.

Theory of operation. A function's parameters that FastAPI can provide (`is_provided`) are given to FastAPI as the
signature of a stand-in, which FastAPI analyzes into a tree once, when the function is declared. Per message FastAPI
solves that tree, for a Request that is made from the client's handshake: headers, cookies and the query string are
those of the handshake, and the names of a room's pattern are its path parameters. Dependencies with ``yield`` are
closed when the function has returned or raised.

In the tree, the endpoint's ``auth=`` dependency is replaced by one that gives the stored user, so that no token is
checked, and no session opened, per message.
"""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from copy import copy
from typing import Annotated, Any, Final, NamedTuple

import fastapi
from fastapi import UploadFile
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.background import BackgroundTasks
from starlette.requests import HTTPConnection
from starlette.responses import Response

from ..errors import HubbubError, InvalidArgument, shown
from .caller import Caller, caller_of
from .names import Names
from .refusals import MessageInvalid

KNOWN: Final = ("0.115.14", "0.121.3", "0.128.8", "0.142.4", "0.165.0")
"""Releases of FastAPI that the tests of this module were run with."""

_TAKES: Final[Mapping[str, frozenset[str]]] = {
    "get_typed_signature": frozenset({"call"}),
    "get_typed_return_annotation": frozenset({"call"}),
    "get_dependant": frozenset({"path", "call", "name"}),
    "solve_dependencies": frozenset(
        {"request", "dependant", "response", "dependency_overrides_provider", "async_exit_stack", "embed_body_fields"}
    ),
}
_OF_THE_TREE: Final = frozenset(
    ("name", "call", "path", "dependencies", "path_params", "body_params", "response_param_name",
     "background_tasks_param_name", "security_scopes_param_name")
)  # fmt: skip


class UnknownFastAPI(HubbubError, ImportError):
    """The installed FastAPI is none that hubbub's endpoints know how to use.

    Endpoints run the dependencies of an app with functions of FastAPI that FastAPI does not document. Raw sockets need
    none of them.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"hubbub's endpoints can't use FastAPI {fastapi.__version__}: {problem}; accepted: FastAPI {KNOWN[0]} to "
            f"{KNOWN[-1]}. Install one of these, or a newer hubbub: pip install 'fastapi>={KNOWN[0]},<={KNOWN[-1]}'"
        )


def check_fastapi(functions: Iterable[Callable[..., Any]], dependant: type) -> None:
    """Checks that FastAPI's internals have the form that this module uses.

    Args:
        functions: Those of FastAPI that this module calls.
        dependant: The class ``fastapi.dependencies.models.Dependant``.

    Raises:
        UnknownFastAPI: A function lacks a parameter that is passed, or needs one that is not.
    """
    for function in functions:
        name = function.__name__
        passed = _TAKES[name]
        parameters = inspect.signature(function).parameters
        if missing := passed - parameters.keys():
            raise UnknownFastAPI(f"{name}() does not take {', '.join(sorted(missing))}")
        for parameter in parameters.values():
            if parameter.default is parameter.empty and parameter.name not in passed:
                raise UnknownFastAPI(f"{name}() needs {parameter.name}, which is not known here")
    if missing := _OF_THE_TREE - inspect.signature(dependant).parameters.keys():
        raise UnknownFastAPI(f"Dependant does not have {', '.join(sorted(missing))}")


try:
    from fastapi.dependencies.models import Dependant
    from fastapi.dependencies.utils import (
        get_dependant,
        get_typed_return_annotation,
        get_typed_signature,
        solve_dependencies,
    )
    from fastapi.params import Body, Depends, Param
except ImportError as _error:
    raise UnknownFastAPI(str(_error)) from _error
check_fastapi((get_typed_signature, get_typed_return_annotation, get_dependant, solve_dependencies), Dependant)

_PARTS: Final = (Depends, Param)
_OF_A_BODY: Final = "the message is the parameter of the function that has no marker, such as `message: Say`"
_NO_RESPONSE: Final = Response()
"""FastAPI makes a Response per message where none is passed. No dependency can take it (`Dependencies._check_node`)."""


async def _stored_user(request: HTTPConnection) -> Any:
    return caller_of(request).user


class Security(NamedTuple):
    """A security scheme of FastAPI.

    Attributes:
        scheme: Its security scheme object of OpenAPI.
        scopes: The scopes that are needed.
    """

    scheme: Mapping[str, Any]
    scopes: Sequence[str]


class _Overrides(NamedTuple):
    dependency_overrides: dict[Any, Any]


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """The parameters of a function with their annotations evaluated, as FastAPI does it for routes."""
    return get_typed_signature(function)


def returned_by(function: Callable[..., Any]) -> Any:
    """The return annotation of a function, evaluated in the same way; `inspect.Signature.empty` where there is none."""
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        annotation = inspect.signature(function, annotation_format=Format.FORWARDREF).return_annotation
    else:
        annotation = inspect.signature(function).return_annotation
    return annotation if annotation is inspect.Signature.empty else get_typed_return_annotation(function)


def plain(annotation: Any) -> Any:
    """An annotation without ``Annotated``, and without the name that a ``type`` statement gave it."""
    while True:
        if typing.get_origin(annotation) is Annotated:
            annotation = typing.get_args(annotation)[0]
        elif hasattr(annotation, "__value__"):
            annotation = annotation.__value__
        else:
            return annotation


def _markers(parameter: inspect.Parameter) -> Iterator[object]:
    yield parameter.default
    annotation = parameter.annotation
    if hasattr(annotation, "__value__"):
        annotation = annotation.__value__
    if typing.get_origin(annotation) is Annotated:
        yield from typing.get_args(annotation)[1:]


def dependency(name: str, call: Callable[..., Any]) -> inspect.Parameter:
    """A parameter that a dependency gives."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=Depends(call))


def is_provided(parameter: inspect.Parameter, function: str) -> bool:
    """Whether FastAPI provides a parameter: a dependency, a header, cookie or query parameter, or a Request.

    Args:
        parameter: One of `signature_of`.
        function: Names the function in errors.

    Raises:
        InvalidArgument: The parameter is of a kind that only an HTTP request has.
    """
    for marker in _markers(parameter):
        if isinstance(marker, Body):
            raise InvalidArgument(
                function, f"the parameter {parameter.name} is marked as {type(marker).__name__}", _OF_A_BODY
            )
        if isinstance(marker, _PARTS):
            return True
    kind = plain(parameter.annotation)
    if _mentions(parameter.annotation, UploadFile):
        raise InvalidArgument(
            function,
            f"the parameter {parameter.name} is an uploaded file, which only a form has",
            "`bytes`, which a client that speaks Protobuf sends as they are",
        )
    if not isinstance(kind, type):
        return False
    if issubclass(kind, (Response, BackgroundTasks)):
        raise InvalidArgument(function, f"the parameter {parameter.name} is a {kind.__name__}", _NO_HTTP)
    return issubclass(kind, (HTTPConnection, SecurityScopes))


def _mentions(annotation: Any, kind: type) -> bool:
    """Whether a type is, or is made of, another: ``list[UploadFile]``."""
    annotation = plain(annotation)
    if isinstance(annotation, type) and issubclass(annotation, kind):
        return True
    parts = typing.get_args(annotation)
    return any(_mentions(each, kind) for each in parts if not hasattr(each, "__value__"))  # these may be recursive


def check_filled(call: object, parameters: Iterable[str], function: str) -> None:
    """Refuses a method of a class, whose ``self`` nothing fills.

    Args:
        call: The function, or a dependency of it.
        parameters: Its parameters, apart from those with a marker.
        function: Names the function in errors.
    """
    first = next(iter(parameters), None)
    if first in ("self", "cls"):
        raise InvalidArgument(
            function,
            f"nothing fills {first!r} of {name_of(call)}, a method of a class",
            "a function, or the method of an object, such as `service.say`",
        )


_NO_HTTP: Final = "no Response and no BackgroundTasks: a message has no HTTP response; `return` the reply"


class Dependencies:
    """What FastAPI provides to one function.

    Args:
        parameters: Those parameters for which `is_provided` says so.
        names: The names of the pattern, which dependencies may take as path parameters.
        function: Names the function in errors.
        path: The path parameters of the endpoint, which both the function and dependencies may take.

    Raises:
        InvalidArgument: FastAPI can't resolve a parameter, or a dependency asks for something that a message has not.
    """

    def __init__(
        self, parameters: Iterable[inspect.Parameter], names: Iterable[str], function: str, path: Iterable[str] = ()
    ) -> None:
        def stand_in() -> None: ...

        keyword = inspect.Parameter.KEYWORD_ONLY
        signature = inspect.Signature([each.replace(kind=keyword) for each in parameters])
        stand_in.__signature__ = signature  # type: ignore[attr-defined]  # PEP 362; not in typeshed
        self._stand_in = stand_in
        self._path = "".join(f"/{{{name}}}" for name in (*names, *path))
        self._function = function
        self._auth: Any = None
        self._tree = self._analyzed()
        self._names = Names(self._of_pattern(frozenset(names)), function)

    def bound(self, auth: Any) -> tuple[list[str], Dependencies | None]:
        """The same for an endpoint: its ``auth=`` dependency gives the stored user.

        Returns:
            The parameters of the function that are the user, and what is left for FastAPI to provide, if anything is.

        Raises:
            InvalidArgument: `Security` with scopes is to run that dependency, which would not check them.
        """
        other = copy(self)
        other._auth = auth
        other._tree = other._analyzed()
        takes_scopes = any(node.security_scopes_param_name for node in _nodes(other._analyzed(auth)))
        users = [str(each.name) for each in other._tree.dependencies if each.call == auth]
        other._replace_auth(other._tree, takes_scopes)
        other._tree.dependencies = [each for each in other._tree.dependencies if each.name not in users]
        return users, other if len(users) < len(inspect.signature(self._stand_in).parameters) else None

    @property
    def annotations(self) -> Mapping[str, Any]:
        """The annotations of the names of the pattern that dependencies take."""
        return self._names.annotations

    @property
    def security(self) -> Mapping[str, Security]:
        """FastAPI's security schemes among the dependencies, as OpenAPI describes them, by name.

        A dependency that knows several places for one credential has them in ``models``, by name (`JWTAuth`).
        """
        found: dict[str, Security] = {}
        for node in _nodes(self._tree):
            scheme = node.call
            if isinstance(scheme, SecurityBase):
                model = getattr(scheme, "model", None)
                models = getattr(scheme, "models", None) or ({} if model is None else {scheme.scheme_name: model})
                for name, each in models.items():
                    openapi = each.model_dump(mode="json", by_alias=True, exclude_none=True)
                    found.setdefault(re.sub(r"[^\w.-]", "_", name, flags=re.ASCII), Security(openapi, _scopes(node)))
        return found

    @property
    def names(self) -> frozenset[str]:
        """The names of the pattern that dependencies take."""
        return self._names.keys

    async def solve(
        self, caller: Caller, names: Mapping[str, str], outer: AsyncExitStack, inner: AsyncExitStack
    ) -> dict[str, Any]:
        """Runs the dependencies, and gives the arguments for the function. `Caller.request` says what the stacks are.

        Raises:
            RoomUnknown: A name does not give its text back when a dependency's annotation converts it.
            MessageInvalid: The handshake lacks a header, cookie or query parameter, or has a wrong one.
        """
        self._names.check(names)
        overrides = caller.overrides
        if overrides and self._auth is not None:
            overrides = {**overrides, self._auth: _stored_user}
        solved = await solve_dependencies(
            request=caller.request(names, outer, inner),
            dependant=self._tree,
            response=_NO_RESPONSE,
            dependency_overrides_provider=_Overrides(overrides) if overrides else None,
            async_exit_stack=outer,
            embed_body_fields=False,
        )
        if solved.errors:
            raise MessageInvalid(solved.errors)
        return solved.values

    def _analyzed(self, call: Callable[..., Any] | None = None) -> Dependant:
        try:
            tree = get_dependant(path=self._path, call=call or self._stand_in)
        except Exception as error:  # FastAPI raises AssertionError, FastAPIError, RuntimeError, and what Pydantic does
            raise InvalidArgument(
                self._function,
                f"FastAPI can't resolve its dependencies ({shown(str(error), limit=300)})",
                "dependencies as a route takes them; one that needs the connection takes "
                "`Annotated[Connection, Depends(current_connection)]`",
            ) from error
        for node in _nodes(tree):
            self._check_node(node)
        return tree

    def _check_node(self, node: Dependant) -> None:
        check_filled(node.call, (field.name for field in node.query_params), self._function)
        if node.body_params:
            names = ", ".join(field.name for field in node.body_params)
            problem, accepted = f"takes {names} from a request's body", _OF_A_BODY
        elif node.response_param_name or node.background_tasks_param_name:
            name = node.response_param_name or node.background_tasks_param_name
            problem, accepted = f"takes {name}, which belongs to an HTTP response", _NO_HTTP
        else:
            return
        raise InvalidArgument(self._function, f"its dependency {name_of(node.call)} {problem}", accepted)

    def _of_pattern(self, names: frozenset[str]) -> Iterator[tuple[str, Any]]:
        """The names that dependencies take, with the annotations that convert them."""
        for node in _nodes(self._tree):
            for field in node.path_params:
                if field.alias in names:
                    info = field.field_info  # which has the arguments of Annotated apart
                    yield (
                        field.alias,
                        Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation,
                    )

    def _replace_auth(self, node: Dependant, auth_takes_scopes: bool) -> None:
        for index, each in enumerate(node.dependencies):
            if each.call != self._auth:
                self._replace_auth(each, auth_takes_scopes)
                continue
            if auth_takes_scopes and _scopes(each):
                raise InvalidArgument(
                    self._function,
                    f"Security({name_of(self._auth)}, scopes={_scopes(each)}) would not be checked: the endpoint has "
                    "stored its user",
                    f"a dependency of its own that takes SecurityScopes and Depends({name_of(self._auth)})",
                )
            stored = get_dependant(path=self._path, call=_stored_user, name=each.name)
            node.dependencies[index] = stored


def _nodes(tree: Dependant) -> Iterator[Dependant]:
    yield tree
    for each in tree.dependencies:
        yield from _nodes(each)


def _scopes(node: Dependant) -> list[str]:
    """The scopes of `Security` that hold for a node. The attribute has another name since about FastAPI 0.122."""
    attributes = ("security_scopes", "parent_oauth_scopes", "own_oauth_scopes")
    return [scope for attribute in attributes for scope in getattr(node, attribute, None) or ()]


def name_of(function: object) -> str:
    """The name of a function in errors: ``say()``."""
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{name.replace('<locals>.', '')}()"
