"""Dependencies of functions: FastAPI's, once per message, with what a client's handshake holds."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from importlib.util import module_from_spec, spec_from_file_location
from typing import Annotated, Any

import fastapi
import jwt
import pytest
from fastapi import (
    BackgroundTasks,
    Body,
    Cookie,
    Depends,
    FastAPI,
    Form,
    Header,
    HTTPException,
    Path,
    Query,
    Request,
    Response,
    Security,
    WebSocket,
)
from fastapi.dependencies.models import Dependant
from fastapi.security import HTTPBearer, SecurityScopes
from fastapi.testclient import TestClient
from pydantic import AfterValidator, BaseModel, StringConstraints
from starlette.exceptions import WebSocketException
from starlette.requests import HTTPConnection

from hubbub import Connection, InvalidArgument
from hubbub.auth import JWTAuth
from hubbub.endpoints import dependencies
from hubbub.endpoints.caller import Caller, current_connection
from hubbub.endpoints.dependencies import UnknownFastAPI, check_fastapi
from hubbub.endpoints.functions import Function, authenticator
from hubbub.endpoints.refusals import MessageInvalid, RoomUnknown, refusal_of
from hubbub.endpoints.results import anything, reply
from hubbub.errors import NotSupported
from tests.unit.endpoints.support import a_caller, a_connection, run


def made(function: Callable[..., Any], *names: str) -> Function[Any]:
    return Function(function, anything, declared="@on('say')", names=names)


def refused(function: Callable[..., Any], *names: str) -> str:
    with pytest.raises(InvalidArgument) as caught:
        made(function, *names)
    assert function.__name__ in caught.value.argument
    return str(caught.value)


log: list[str] = []


@pytest.fixture(autouse=True)
def _empty_log() -> None:
    log.clear()


def plain() -> str:
    log.append("plain")
    return "p"


async def asynchronous(p: Annotated[str, Depends(plain)]) -> str:
    log.append("asynchronous")
    return f"a({p})"


def session() -> Iterator[str]:
    log.append("session opens")
    try:
        yield "s"
    except ValueError as error:
        log.append(f"session sees {error}")
        raise
    finally:
        log.append("session closes")


async def transaction(s: Annotated[str, Depends(session)]) -> AsyncIterator[str]:
    log.append("transaction opens")
    try:
        yield f"t({s})"
    except ValueError as error:
        log.append(f"transaction sees {error}")
        raise
    finally:
        log.append("transaction closes")


async def translating() -> AsyncIterator[str]:
    try:
        yield "translating"
    except ValueError as error:
        raise HTTPException(409, str(error)) from error


class Repository:
    def __init__(self, s: Annotated[str, Depends(session)]) -> None:
        log.append("repository")
        self.name = f"r({s})"


# The same as in a route


async def simple(a: Annotated[str, Depends(asynchronous)]) -> str:
    log.append("function")
    return a


async def shared(p: Annotated[str, Depends(plain)], a: Annotated[str, Depends(asynchronous)]) -> str:
    log.append("function")
    return p + a


async def uncached(p: Annotated[str, Depends(plain, use_cache=False)], a: str = Depends(asynchronous)) -> str:
    log.append("function")
    return p + a


async def yielding(t: Annotated[str, Depends(transaction)], s: Annotated[str, Depends(session)]) -> str:
    log.append("function")
    return t + s


async def raising(t: Annotated[str, Depends(transaction)]) -> str:
    log.append("function")
    raise ValueError("a fault")


async def answering(t: Annotated[str, Depends(transaction)]) -> str:
    log.append("function")
    raise HTTPException(404, "nothing")


async def translated(t: Annotated[str, Depends(translating)]) -> str:
    raise ValueError("taken")


def synchronous(t: Annotated[str, Depends(transaction)]) -> str:
    log.append("function")
    return t


async def of_a_class(r: Annotated[Repository, Depends()]) -> str:
    return r.name


async def of_the_handshake(
    request: Request,
    x_key: Annotated[str, Header()],
    theme: Annotated[str, Cookie()],
    lang: Annotated[str, Query()],
    tenant: Annotated[str, Path()],
) -> str:
    return f"{x_key} {theme} {lang} {tenant} {request.url.path}"


@pytest.mark.parametrize(
    "function",
    [simple, shared, uncached, yielding, raising, answering, translated, synchronous, of_a_class, of_the_handshake],
    ids=lambda function: function.__name__,
)
@pytest.mark.parametrize("is_overridden", [False, True], ids=["", "overridden"])
def test_dependencies_do_what_they_do_in_a_route(function: Any, is_overridden: bool) -> None:
    def other() -> str:
        log.append("other")
        return "o"

    app = FastAPI()
    app.get("/live/{tenant}")(function)
    if is_overridden:
        app.dependency_overrides[plain] = other
    client = TestClient(app, raise_server_exceptions=False, cookies={"theme": "dark"})
    response = client.get("/live/acme?lang=de", headers={"x-key": "secret"})
    in_route, status = [*log], response.status_code
    log.clear()
    try:
        result, code = run(made(function)(a_caller(app=app))), 200
    except (ValueError, HTTPException) as error:
        refusal = refusal_of(error)
        result, code = error, 500 if refusal is None else refusal.code
    assert log == in_route
    assert code == status
    if code == 200:
        assert result == response.json()


# What a route has not


def test_each_message_has_its_own_dependencies() -> None:
    function = made(yielding)
    caller = a_caller()
    run(function(caller))
    assert (first := [*log]).count("session opens") == 1
    run(function(caller))
    assert log == first * 2


def test_a_message_that_does_not_validate_opens_nothing() -> None:
    async def say(message: int, t: Annotated[str, Depends(transaction)]) -> None: ...

    with pytest.raises(MessageInvalid):
        run(made(say)(a_caller(), "x"))
    assert log == []


def test_a_reply_is_written_before_the_dependencies_are_closed() -> None:
    class Row:
        @property
        def text(self) -> str:
            log.append("read")
            return "hi"

    async def say(t: Annotated[str, Depends(transaction)]) -> Any:
        return Row()

    say.__annotations__["return"] = Text
    run(Function(say, reply, declared="@on('say')")(a_caller()))
    assert log.index("read") < log.index("transaction closes")


class Text(BaseModel):
    text: str


def test_dependencies_see_a_reply_that_is_not_allowed() -> None:
    seen: list[BaseException] = []

    async def watching() -> AsyncIterator[None]:
        try:
            yield
        except BaseException as error:
            seen.append(error)
            raise

    async def say(w: Annotated[None, Depends(watching)]) -> int:
        return "x"  # type: ignore[return-value]  # that is the point

    say.__annotations__["w"] = Annotated[None, Depends(watching)]
    with pytest.raises(TypeError):
        run(Function(say, reply, declared="@on('say')")(a_caller()))
    assert len(seen) == 1


def test_a_dependency_that_swallows_an_exception_is_told_of() -> None:
    async def swallowing() -> AsyncIterator[None]:
        try:
            yield
        except ValueError:
            pass

    async def say(s: Any = Depends(swallowing)) -> None:
        raise ValueError("lost")

    with pytest.raises(RuntimeError, match="swallowed"):
        run(made(say)(a_caller()))


def test_dependencies_are_closed_when_a_call_is_cancelled() -> None:
    async def closing() -> AsyncIterator[None]:
        try:
            yield
        except asyncio.CancelledError:
            log.append("cancelled")
            raise
        finally:
            log.append("closed")

    async def say(c: Any = Depends(closing)) -> None:
        started.set()
        await asyncio.Event().wait()

    async def call() -> None:
        task = asyncio.create_task(made(say)(a_caller()))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    started = asyncio.Event()
    run(call())
    assert log == ["cancelled", "closed"]


def test_messages_of_one_connection_can_be_handled_at_the_same_time() -> None:
    async def say(message: int, t: Annotated[str, Depends(transaction)], request: Request) -> Any:
        arrived.append(message)
        if len(arrived) == 2:
            both.set()
        await both.wait()
        return id(request.scope["fastapi_inner_astack"])

    async def call() -> Any:
        function, caller = made(say), a_caller()
        return await asyncio.gather(function(caller, 1), function(caller, 2))

    arrived: list[int] = []
    both = asyncio.Event()
    first, second = run(call())
    assert first != second
    assert log.count("transaction closes") == 2


def test_contexts_reach_from_dependencies_into_the_function() -> None:
    tenant: ContextVar[str] = ContextVar("tenant", default="none")

    async def setting() -> AsyncIterator[None]:
        token = tenant.set("acme")
        yield
        tenant.reset(token)

    def reading() -> Any:
        return tenant.get(), threading.get_ident()

    async def say(s: Any = Depends(setting), r: Any = Depends(reading)) -> Any:
        return tenant.get(), r

    async def call() -> Any:
        return await made(say)(a_caller()), tenant.get()

    ((inside, (in_thread, thread)), after) = run(call())
    assert (inside, in_thread, after) == ("acme", "acme", "none")
    assert thread != threading.get_ident()


# The client


async def of_the_connection(connection: Annotated[Connection, Depends(current_connection)]) -> Connection:
    return connection


def test_a_dependency_can_depend_on_the_connection() -> None:
    async def say(connection: Connection, same: Annotated[Connection, Depends(of_the_connection)]) -> bool:
        return connection is same

    assert run(made(say)(a_caller(connection=a_connection())))


def test_a_dependency_that_takes_the_connection_itself_is_told_how() -> None:
    async def wrong(connection: Connection) -> None: ...

    async def say(w: Any = Depends(wrong)) -> None: ...

    assert "current_connection" in refused(say)


def test_dependencies_written_for_sockets_are_given_the_handshake() -> None:
    async def of_socket(websocket: WebSocket) -> str:
        return websocket.headers["x-key"] + websocket.cookies["theme"] + websocket.query_params["lang"]

    async def of_any(connection: HTTPConnection) -> str:
        return connection.headers["host"]

    async def say(s: str = Depends(of_socket), a: str = Depends(of_any)) -> str:
        return f"{s} {a}"

    app = FastAPI()
    assert run(made(say)(a_caller(app=app))) == "secretdarkde app.example"
    app.dependency_overrides[of_any] = of_socket
    assert run(made(say)(a_caller(app=app))) == "secretdarkde secretdarkde"


@pytest.mark.parametrize("given", [{}, {"code": 4403, "reason": "no"}])
def test_a_dependency_that_closes_its_socket_ends_the_connection(given: dict[str, Any]) -> None:
    async def of_socket(websocket: WebSocket) -> None:
        await websocket.close(**given)

    with pytest.raises(WebSocketException) as caught:
        run(authenticator(of_socket)(a_caller()))
    assert (caught.value.code, caught.value.reason) == (given.get("code", 1000), given.get("reason", ""))


@pytest.mark.parametrize(
    "method",
    [each for each in dir(WebSocket) if each == "accept" or each.startswith(("send", "receive", "iter_"))],
)
def test_a_dependency_neither_accepts_nor_sends_nor_receives(method: str) -> None:
    async def of_socket(websocket: WebSocket) -> None:
        call = getattr(websocket, method)
        if method.startswith("iter_"):
            async for _ in call():
                pass
        await call(*("x",) * method.startswith("send"))

    with pytest.raises(NotSupported, match="the endpoint itself receives from the client"):
        run(authenticator(of_socket)(a_caller()))


def test_a_request_without_a_body_says_so() -> None:
    async def of_request(request: Request) -> None:
        await request.json()

    with pytest.raises(NotSupported, match="the message as the parameter of the function"):
        run(authenticator(of_request)(a_caller()))


def test_a_handshake_without_what_a_dependency_needs_is_answered() -> None:
    async def of_key(x_other: Annotated[str, Header()]) -> str:
        return x_other

    async def say(k: str = Depends(of_key)) -> None: ...

    with pytest.raises(MessageInvalid, match=r"^header\.x-other: Field required$"):
        run(made(say)(a_caller()))


def test_state_of_the_handshake_is_kept_from_message_to_message() -> None:
    async def counting(request: Request) -> int:
        request.state.count = getattr(request.state, "count", 0) + 1
        return int(request.state.count)

    async def say(c: int = Depends(counting)) -> int:
        return c

    scope: dict[str, Any] = {"type": "websocket", "headers": []}
    function, first, second = made(say), Caller(scope), Caller(scope)
    assert [run(function(first)), run(function(first)), run(function(second))] == [1, 2, 3]


def test_the_request_is_one_of_http() -> None:
    async def say(request: Request) -> Any:
        return request.url.scheme, request.method, request.app

    app = object()
    for scheme, told in [("ws", "http"), ("wss", "https")]:
        scope = {"type": "websocket", "scheme": scheme, "path": "/", "headers": [(b"host", b"a")], "app": app}
        assert run(made(say)(Caller(scope))) == (told, "GET", app)


# The user


async def stored() -> str:
    log.append("authenticated")
    return "ann"


async def current_user(token: Annotated[Any, Depends(HTTPBearer())], s: Annotated[str, Depends(session)]) -> str:
    log.append("authenticated")
    return str(token.credentials)


def test_the_user_is_what_the_dependency_gives_with_the_token_of_the_command() -> None:
    function = authenticator(current_user)
    assert run(function(a_caller(token="ann"))) == "ann"
    assert log == ["session opens", "authenticated", "session closes"]
    with pytest.raises(HTTPException) as caught:
        run(function(a_caller()))
    assert caught.value.status_code in (401, 403)  # FastAPI changed it


def test_a_token_replaces_that_of_the_handshake() -> None:
    caller = Caller({"type": "websocket", "headers": [(b"Authorization", b"Bearer old")]}, token="new")
    assert run(authenticator(current_user)(caller)) == "new"


def test_a_jwt_auth_is_a_dependency_too() -> None:
    key = "0123456789abcdef0123456789abcdef"
    auth = JWTAuth(key=key, algorithms=["HS256"])
    token = jwt.encode({"sub": "ann", "exp": time.time() + 60}, key, "HS256")
    assert run(authenticator(auth)(a_caller(token=token)))["sub"] == "ann"
    with pytest.raises(HTTPException) as caught:
        run(authenticator(auth)(a_caller(token="wrong")))
    assert caught.value.status_code == 401


def test_functions_are_given_the_stored_user_and_nothing_is_authenticated_again() -> None:
    async def member(user: Annotated[str, Depends(current_user)]) -> str:
        return f"member {user}"

    async def say(user: Annotated[str, Depends(current_user)], m: Annotated[str, Depends(member)]) -> str:
        return f"{user}, {m}"

    say.__annotations__["m"] = Annotated[str, Depends(member)]
    app = FastAPI()
    function = made(say).bound(current_user)
    assert run(function(a_caller(user="ann", app=app))) == "ann, member ann"
    app.dependency_overrides[plain] = stored  # any override makes FastAPI analyze the tree anew
    assert run(function(a_caller(user="ann", app=app))) == "ann, member ann"
    app.dependency_overrides[current_user] = stored
    assert run(function(a_caller(user="ann", app=app))) == "ann, member ann"
    assert log == []


def test_the_user_of_a_test_is_that_of_the_override() -> None:
    app = FastAPI()
    app.dependency_overrides[current_user] = stored
    assert run(authenticator(current_user)(a_caller(app=app))) == "ann"


def test_a_function_is_not_changed_when_it_is_bound() -> None:
    async def say(user: Annotated[str, Depends(current_user)]) -> str:
        return user

    function = made(say)
    assert run(function.bound(current_user)(a_caller(user="ann"))) == "ann"
    assert run(function(a_caller(token="bob"))) == "bob"


async def scoped_user(scopes: SecurityScopes) -> str:
    if "admin" in scopes.scopes:
        raise HTTPException(403)
    return "ann"


def test_scopes_that_the_stored_user_would_not_be_checked_for_are_refused() -> None:
    async def say(user: Annotated[str, Security(scoped_user, scopes=["admin"])]) -> str:
        return user

    async def deeper(u: Annotated[str, Depends(scoped_user)]) -> str:
        return u

    async def nested(user: str = Security(deeper, scopes=["admin"])) -> str:
        return user

    for function in (say, nested):
        with pytest.raises(InvalidArgument, match="admin"):
            made(function).bound(scoped_user)
    with pytest.raises(HTTPException):
        run(made(say)(a_caller()))


def test_a_dependency_that_checks_scopes_sees_the_stored_user() -> None:
    async def allowed(scopes: SecurityScopes, user: Annotated[str, Depends(current_user)]) -> str:
        return f"{user} {scopes.scopes}"

    async def say(user: str = Security(allowed, scopes=["admin"])) -> str:
        return user

    assert run(made(say).bound(current_user)(a_caller(user="ann"))) == "ann ['admin']"


# Rooms


async def document(room: int) -> str:
    return f"document {room + 1}"


def test_dependencies_take_the_names_of_the_pattern_as_path_parameters() -> None:
    async def may(d: Annotated[str, Depends(document)], tenant: Annotated[str, Path()]) -> str:
        return f"{d} of {tenant}"

    assert run(made(may, "room")(a_caller(), names={"room": "7"})) == "document 8 of acme"


@pytest.mark.parametrize("text", ["07", "x", "+7"])
def test_names_that_only_dependencies_take_must_give_their_text_back_too(text: str) -> None:
    async def may(d: Annotated[str, Depends(document)]) -> None: ...

    with pytest.raises(RoomUnknown):
        run(made(may, "room")(a_caller(), names={"room": text}))


async def lowered(room: Annotated[str, StringConstraints(to_lower=True)]) -> str:
    return room


async def stripped(room: Annotated[str, StringConstraints(strip_whitespace=True), Path()]) -> str:
    return room


async def without_a_sign(room: Annotated[int, AfterValidator(abs)]) -> int:
    return room


async def renamed(name: Annotated[str, Path(alias="room"), StringConstraints(to_upper=True)]) -> str:
    return name


async def nested(name: Annotated[str, Depends(lowered)]) -> str:
    return name


class Lowered:
    def __init__(self, room: str) -> None:
        self.room = room


Lowered.__init__.__annotations__["room"] = Annotated[str, StringConstraints(to_lower=True)]  # as FastAPI 0.115 reads it


@pytest.mark.parametrize(
    ("dependency", "text", "other"),
    [
        (lowered, "abc", "ABC"),
        (stripped, "abc", " abc"),
        (without_a_sign, "5", "-5"),
        (renamed, "ABC", "abc"),
        (nested, "abc", "Abc"),
        (Lowered, "abc", "aBc"),
    ],
)
def test_a_name_that_the_metadata_of_a_dependency_changes_must_give_its_text_back(
    dependency: Any, text: str, other: str
) -> None:
    async def may(d: Any = Depends(dependency)) -> bool:
        return True

    assert run(made(may, "room")(a_caller(), names={"room": text}))
    with pytest.raises(RoomUnknown):
        run(made(may, "room")(a_caller(), names={"room": other}))


def test_a_name_can_be_marked_as_in_a_route() -> None:
    async def may(room: Annotated[int, Path(ge=1)]) -> int:
        return room

    assert run(made(may, "room")(a_caller(), names={"room": "7"})) == 7
    with pytest.raises(MessageInvalid):
        run(made(may, "room")(a_caller(), names={"room": "0"}))


# Declarations


class Item(BaseModel):
    id: int


async def of_model(item: Item) -> None: ...


async def of_body(item: Annotated[str, Body()]) -> None: ...


async def of_response(response: Response) -> None: ...


async def of_tasks(tasks: BackgroundTasks) -> None: ...


async def deep(m: Annotated[None, Depends(of_model)]) -> None: ...


async def of_nothing(thing: threading.Thread) -> None: ...


@pytest.mark.parametrize("dependency", [of_model, of_body, of_response, of_tasks, deep, of_nothing])
def test_dependencies_that_need_a_request_of_http_are_refused(dependency: Any) -> None:
    async def say(d: Any = Depends(dependency)) -> None: ...

    message = refused(say)
    name = {deep: of_model}.get(dependency, dependency).__name__
    assert name in message or dependency is of_nothing


def test_a_dependency_that_is_not_callable_is_refused() -> None:
    async def say(d: Any = Depends(5)) -> None: ...  # type: ignore[arg-type]  # that is the point

    refused(say)
    with pytest.raises(InvalidArgument):
        authenticator(5)  # type: ignore[arg-type]  # the same


def test_forms_are_refused_in_dependencies() -> None:
    async def of_form(name: Annotated[str, Form()]) -> None: ...

    async def say(d: Any = Depends(of_form)) -> None: ...

    refused(say)


# FastAPI's internals


def get_dependant(*, path: str, call: Any, name: str | None = None) -> None: ...


def solve_dependencies(*, request: Any, dependant: Any, dependency_overrides_provider: Any, needed: Any) -> None: ...


def test_a_fastapi_of_another_form_is_refused_with_the_versions_that_work() -> None:
    check_fastapi([get_dependant], Dependant)
    with pytest.raises(UnknownFastAPI) as caught:
        check_fastapi([solve_dependencies], Dependant)
    text = str(caught.value)
    for part in (fastapi.__version__, "async_exit_stack", dependencies.KNOWN[0], dependencies.KNOWN[-1]):
        assert part in text
    assert isinstance(caught.value, ImportError)


@pytest.mark.parametrize(
    "name", ["get_dependant", "get_typed_signature", "get_typed_return_annotation", "solve_dependencies"]
)
def test_a_fastapi_without_one_of_the_functions_is_refused_at_import(name: str, monkeypatch: Any) -> None:
    monkeypatch.delattr(f"fastapi.dependencies.utils.{name}")
    spec = spec_from_file_location("hubbub.endpoints.dependencies_again", dependencies.__file__)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match=f"can't use FastAPI .*{name}.* pip install"):
        spec.loader.exec_module(module_from_spec(spec))


def test_a_fastapi_that_needs_more_than_is_passed_is_refused() -> None:
    def get_typed_signature(call: Any, other: Any) -> None: ...

    with pytest.raises(UnknownFastAPI, match="other"):
        check_fastapi([get_typed_signature], Dependant)


def test_a_fastapi_whose_tree_has_another_form_is_refused() -> None:
    class Other:
        def __init__(self, name: str) -> None: ...

    with pytest.raises(UnknownFastAPI, match="body_params"):
        check_fastapi([], Other)
