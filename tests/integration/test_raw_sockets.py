"""A handler that uses Starlette's WebSocket sees under `install` what it sees without.

Each shape of handler runs against two apps on uvicorn: a bare one, and one with a manager installed that the handler
does not use. What the client and the handler saw is the same, but for `DIFFERENT`, which the docs list.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote

import pytest
from fastapi import FastAPI, HTTPException, WebSocket, WebSocketDisconnect, WebSocketException
from fastapi.responses import PlainTextResponse
from starlette.endpoints import WebSocketEndpoint
from starlette.websockets import WebSocketState
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from hubbub import ConnectionManager
from tests.integration.support import DEADLINE_S, LiveServer, client, eventually, reset, serving, through_asgi

pytestmark = pytest.mark.anyio

TICK_S = 0.005
KINDS = (WebSocketDisconnect, OSError, asyncio.CancelledError, KeyError, ValueError, TypeError, RuntimeError)


def described(error: BaseException) -> tuple[Any, ...]:
    """An error as a handler can tell it from others."""
    if isinstance(error, BaseExceptionGroup):
        return ("group", *sorted(described(each) for each in error.exceptions))
    if isinstance(error, OSError):
        return ("OSError",)
    if isinstance(error, WebSocketDisconnect):
        return ("WebSocketDisconnect", error.code, error.reason)
    kind = next((kind.__name__ for kind in KINDS if isinstance(error, kind)), type(error).__name__)
    return (kind, str(error)) if isinstance(error, RuntimeError) else (kind,)


class Run:
    """What one handler saw."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.ended: tuple[Any, ...] | None = None
        self.left = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    async def tries(self, *awaitables: Awaitable[Any]) -> None:
        """Awaits each, and notes what it gave or raised."""
        for awaitable in awaitables:
            try:
                result = await awaitable
            except Exception as error:
                self.seen.append(described(error))
            else:
                self.seen.append(dict(result) if isinstance(result, Mapping) else result)

    def states(self, ws: WebSocket) -> None:
        self.seen.append((ws.client_state.name, ws.application_state.name))


Shape: TypeAlias = Callable[[WebSocket, Run], Awaitable[None]]
Side: TypeAlias = Callable[[ClientConnection, list[Any]], Awaitable[None]]


# What clients do


async def listens(ws: ClientConnection, got: list[Any]) -> None:
    with suppress(ConnectionClosed):
        while True:
            got.append(await asyncio.wait_for(ws.recv(), DEADLINE_S))


async def leaves(ws: ClientConnection, got: list[Any]) -> None:
    got.append(await asyncio.wait_for(ws.recv(), DEADLINE_S))
    await ws.close(4007, "bye")


async def vanishes(ws: ClientConnection, got: list[Any]) -> None:
    got.append(await asyncio.wait_for(ws.recv(), DEADLINE_S))
    reset(ws.transport)
    await ws.wait_closed()


async def hangs_up(ws: ClientConnection, got: list[Any]) -> None:
    """TCP ends without a Close frame."""
    got.append(await asyncio.wait_for(ws.recv(), DEADLINE_S))
    ws.transport.close()
    await ws.wait_closed()


def says(*messages: str | bytes, then: Side = listens) -> Side:
    async def side(ws: ClientConnection, got: list[Any]) -> None:
        for message in messages:
            await ws.send(message)
        await then(ws, got)

    return side


def answers(*messages: str | bytes, then: Side = listens) -> Side:
    """Says something once the handler did."""

    async def side(ws: ClientConnection, got: list[Any]) -> None:
        got.append(await asyncio.wait_for(ws.recv(), DEADLINE_S))
        await says(*messages, then=then)(ws, got)

    return side


# What handlers do

SHAPES: dict[str, tuple[Shape, Side]] = {}


def shape(*sides: Side) -> Callable[[Shape], Shape]:
    """A shape of handler, and what its client does: one shape for each."""

    def add(handler: Shape) -> Shape:
        name = handler.__name__.replace("_", " ").strip()
        for side in sides or (listens,):
            SHAPES[name if len(sides) < 2 else f"{name}, client {side.__name__.replace('_', ' ')}"] = handler, side
        return handler

    return add


LOST = (leaves, vanishes, hangs_up)


@shape(says("a", "", "é", then=leaves))
async def receive_text(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    for _ in range(3):
        run.seen.append(await ws.receive_text())
    await ws.send_text("got them")
    await run.tries(ws.receive_text())


@shape(says(b"a", b"", then=leaves))
async def receive_bytes(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    for _ in range(2):
        run.seen.append(await ws.receive_bytes())
    await ws.send_bytes(b"got them")
    await run.tries(ws.receive_bytes())


@shape(says('{"a": 1}', b"[1]", "{", then=leaves))
async def receive_json(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    await run.tries(ws.receive_json(), ws.receive_json("binary"), ws.receive_json())
    await ws.send_json({"é": [1, None]})
    await run.tries(ws.receive_json())


@shape(says(b"a", "a", b"{}", then=listens))
async def receive_the_other_kind(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    await run.tries(ws.receive_text(), ws.receive_bytes(), ws.receive_json())
    await ws.close()


@shape(says("a", "b"))
async def iter_text(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    async for text in ws.iter_text():
        run.seen.append(text)
        if text == "b":
            await ws.close(4000)
            break


@shape(answers(b"a", b"b", then=leaves))
async def iter_bytes(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    await ws.send_bytes(b"hello")
    async for data in ws.iter_bytes():
        run.seen.append(data)
        await ws.send_bytes(data)
        break
    async for data in ws.iter_bytes():
        run.seen.append(data)
    run.states(ws)


@shape(answers("[1]", then=leaves))
async def iter_json(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    await ws.send_json("hello", mode="binary")
    async for value in ws.iter_json():
        run.seen.append(value)
        await ws.send_json(value)
    run.states(ws)


@shape(says("a", b"b", then=leaves))
async def receive_raw(ws: WebSocket, run: Run) -> None:
    await run.tries(ws.receive())
    await ws.send({"type": "websocket.accept"})
    await run.tries(ws.receive(), ws.receive())
    await ws.send({"type": "websocket.send", "text": "x"})
    await run.tries(ws.receive(), ws.receive(), ws.receive())
    run.states(ws)


@shape()
async def send_what_is_no_message(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    wrong: tuple[Any, ...] = (5, 0, 1.5, b"a", None, ["a"])
    for value in wrong:
        await run.tries(ws.send_text(value))
    await run.tries(ws.send_bytes("a"), ws.send_bytes(5))  # type: ignore[arg-type]  # the mistake
    await ws.send_text("still here")
    await ws.close(4000)


@shape(*LOST)
async def receive_when_the_client_is_gone(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    await ws.send_text("hello")
    await run.left.wait()
    await run.tries(ws.receive_text(), ws.receive_text(), ws.receive_json(), ws.receive())
    run.states(ws)


@shape(*LOST)
async def receive_raw_when_the_client_is_gone(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    await ws.send_text("hello")
    event = await ws.receive()
    run.seen.append((event["type"], event["code"], event.get("reason") or ""))
    await run.tries(ws.receive())


@shape(*LOST)
async def send_when_the_client_is_gone(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    await ws.send_text("hello")
    await run.left.wait()
    run.states(ws)
    await run.tries(ws.send_text("a"))
    run.states(ws)
    await run.tries(ws.send_text("a"), ws.send_bytes(b"a"), ws.send_json({}))
    await run.tries(ws.send({"type": "websocket.send", "text": "a"}), ws.close())
    await run.tries(ws.receive_text(), ws.receive())
    run.states(ws)


@shape(leaves, vanishes)
async def send_after_it_received_the_disconnect(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    await ws.send_text("hello")
    await run.tries(ws.receive_text())
    run.states(ws)
    await run.left.wait()
    await run.tries(ws.send_bytes(b"a"), ws.send_bytes(b"b"))
    run.states(ws)


@shape(leaves, vanishes)
async def close_when_the_client_is_gone(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    await ws.send_text("hello")
    await run.left.wait()
    await run.tries(ws.close(4000, "late"))
    run.states(ws)
    await run.tries(ws.close(), ws.send_text("a"))


@shape(leaves, vanishes)
async def raise_out_of_a_send(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    while True:
        await ws.send_text("tick")
        await asyncio.sleep(TICK_S)


@shape(leaves, vanishes)
async def raise_out_of_a_receive(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    await ws.send_text("hello")
    await ws.receive_text()


@shape(leaves)
async def raise_when_the_client_is_gone(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    await ws.send_text("hello")
    await run.left.wait()
    raise ZeroDivisionError


@shape(*LOST)
async def loop_on_the_application_state(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    while ws.application_state == WebSocketState.CONNECTED:
        with suppress(Exception):
            await ws.send_text("tick")
        await asyncio.sleep(TICK_S)
    run.states(ws)


@shape(*LOST)
async def loop_on_the_client_state(ws: WebSocket, run: Run) -> None:
    await ws.accept()

    async def receive() -> None:
        await run.tries(ws.receive_text())

    receiving = asyncio.create_task(receive())
    while ws.client_state == WebSocketState.CONNECTED:
        with suppress(Exception):
            await ws.send_text("tick")
        await asyncio.sleep(TICK_S)
    await receiving
    run.seen[0] = run.seen[0][0]  # the code depends on which of the two was first


@shape(*LOST)
async def loop_until_a_send_raises(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    try:
        while True:
            await ws.send_json({"tick": 1})
            await asyncio.sleep(TICK_S)
    except WebSocketDisconnect as error:
        run.seen.append(described(error))
    run.states(ws)


@shape(answers("a", "b", then=leaves))
async def send_in_a_background_task(ws: WebSocket, run: Run) -> None:
    await ws.accept()

    async def tick() -> None:
        await ws.send_text("tick")
        await asyncio.Event().wait()

    ticking = asyncio.create_task(tick())
    with suppress(WebSocketDisconnect):
        while True:
            run.seen.append(await ws.receive_text())
            await ws.send_text("echo")
    ticking.cancel()
    await asyncio.wait([ticking])


@shape(listens)
async def leave_a_task_behind_that_sends(ws: WebSocket, run: Run) -> None:
    await ws.accept()

    async def late() -> None:
        await run.left.wait()
        await run.tries(ws.send_text("late"), ws.send_text("later"))
        run.states(ws)

    run.tasks.append(asyncio.create_task(late()))


@shape(listens)
async def leave_a_task_behind_that_receives(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    receiving = asyncio.Event()

    async def late() -> None:
        receiving.set()
        await run.tries(ws.receive_text(), ws.receive_text())

    run.tasks.append(asyncio.create_task(late()))
    await receiving.wait()


@shape(answers("a", "b", then=leaves))
async def receive_in_two_tasks(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    receiving = [asyncio.create_task(ws.receive_text()) for _ in range(2)]
    await ws.send_text("hello")
    run.seen.append(sorted(await asyncio.gather(*receiving)))
    receiving = [asyncio.create_task(ws.receive_text()) for _ in range(2)]
    await ws.send_text("more")
    results = await asyncio.gather(*receiving, return_exceptions=True)
    # The second is told by uvicorn, or by Starlette, which remembers what the first was told.
    run.seen.append(any(isinstance(each, WebSocketDisconnect) for each in results))
    run.seen += [isinstance(each, (WebSocketDisconnect, RuntimeError)) for each in results]


@shape(listens)
async def receive_in_two_tasks_and_close(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    receiving = [asyncio.create_task(ws.receive_text()) for _ in range(2)]
    await asyncio.sleep(0)
    await ws.close(4001)
    results = await asyncio.gather(*receiving, return_exceptions=True)
    run.seen += [isinstance(each, (WebSocketDisconnect, RuntimeError)) for each in results]


@shape(leaves, vanishes)
async def use_a_task_group(ws: WebSocket, run: Run) -> None:
    await ws.accept()

    async def push() -> None:
        await ws.send_text("tick")
        await asyncio.Event().wait()

    async def pull() -> None:
        while True:
            await ws.receive_text()

    async with asyncio.TaskGroup() as group:
        group.create_task(push())
        group.create_task(pull())


@shape(listens)
async def send_in_many_tasks(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    await asyncio.gather(*(ws.send_text(str(number)) for number in range(20)))
    await ws.close()


@shape(answers("a", "b"))
async def give_up_a_receive(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    for _ in range(3):
        receiving = asyncio.create_task(ws.receive_text())
        await asyncio.sleep(0)
        receiving.cancel()
        await asyncio.wait([receiving])
    await ws.send_text("now")
    await run.tries(ws.receive_text(), ws.receive_text())
    await ws.close()


@shape(listens)
async def is_cancelled(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await ws.receive_text()


@shape(listens)
async def accept_twice(ws: WebSocket, run: Run) -> None:
    await run.tries(ws.accept(), ws.accept())
    run.states(ws)
    await ws.close()


@shape(listens)
async def accept_after_close(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    await ws.close(4000)
    await run.tries(ws.accept())


@shape(listens)
async def accept_with_a_subprotocol_and_headers(ws: WebSocket, run: Run) -> None:
    run.seen += [ws.scope["subprotocols"], ws.query_params.multi_items(), ws.url.path.rpartition("/")[2]]
    await ws.accept("two", headers=[(b"x-by", b"hand")])
    await ws.close()


@shape(listens)
async def send_before_accept(ws: WebSocket, run: Run) -> None:
    await run.tries(ws.send_text("a"), ws.send_bytes(b"a"), ws.send_json(1))
    run.states(ws)
    await ws.accept()
    await ws.close()


@shape(says("a"))
async def receive_before_accept(ws: WebSocket, run: Run) -> None:
    await run.tries(ws.receive_text(), ws.receive_bytes(), ws.receive_json(), ws.receive())
    await ws.accept()
    await run.tries(ws.receive_text())
    await ws.close()


@shape(listens)
async def close_before_accept(ws: WebSocket, run: Run) -> None:
    await ws.close(4003, "not you")
    run.states(ws)
    await run.tries(ws.accept(), ws.send_text("a"), ws.close())


@shape(listens)
async def deny(ws: WebSocket, run: Run) -> None:
    await run.tries(ws.send_denial_response(PlainTextResponse("who are you?", 401)))
    run.states(ws)


@shape(listens)
async def raise_before_accept(ws: WebSocket, run: Run) -> None:
    raise ZeroDivisionError


@shape(listens)
async def raise_a_websocket_exception_before_accept(ws: WebSocket, run: Run) -> None:
    raise WebSocketException(1008, "not your room")


@shape(listens)
async def raise_an_http_exception_before_accept(ws: WebSocket, run: Run) -> None:
    raise HTTPException(404, "no such room")


@shape(listens)
async def return_before_accept(ws: WebSocket, run: Run) -> None:
    pass


@shape(listens)
async def return_after_accept(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    await ws.send_text("bye")


@shape(listens)
async def raise_after_accept(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    raise ZeroDivisionError


@shape(listens)
async def raise_a_websocket_exception(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    raise WebSocketException(4001, "not you")


@shape(listens)
async def raise_an_http_exception(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    raise HTTPException(403, "too late for a status")


@shape(listens)
async def raise_a_disconnect_of_its_own(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    raise WebSocketDisconnect(1001)


@shape(listens)
async def close_twice(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    await run.tries(ws.close(4001, "once"), ws.close(4002, "twice"))
    run.states(ws)


@shape(listens)
async def send_after_close(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    await ws.close(4001, "enough")
    await run.tries(ws.send_text("a"), ws.send_bytes(b"a"), ws.send({"type": "websocket.send", "text": "a"}))
    run.states(ws)


@shape(listens)
async def receive_after_close(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    await ws.close(4001, "enough")
    await run.tries(ws.receive_text(), ws.receive(), ws.receive())
    run.states(ws)


@shape(says("a", "b", "c"))
async def receive_after_close_what_came_before(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    await ws.receive_text()
    await ws.close(4001, "enough")
    while (event := await ws.receive())["type"] != "websocket.disconnect":
        pass
    run.seen.append(event)


@shape(listens)
async def work_on_after_close(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    await ws.close(4001, "enough")
    await run.left.wait()
    run.seen.append("worked")


@shape(listens)
async def close_with_what_no_close_frame_carries(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    await run.tries(ws.close(999))


@shape(listens)
async def close_with_a_long_reason(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    await run.tries(ws.close(4000, "é" * 62))


@shape(listens)
async def send_what_can_not_be_sent(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    await run.tries(ws.send_text("\ud800"), ws.send_json({"a": object()}), ws.send_json("\ud800"))
    await run.tries(ws.send({"type": "websocket.nonsense"}), ws.send({"type": "websocket.http.response.start"}))
    await ws.send_text("still here")
    await ws.close()


@shape(listens)
async def send_at_length(ws: WebSocket, run: Run) -> None:
    await ws.accept()
    for size in (0, 125, 126, 65_535, 65_536, 2**20):
        await ws.send_text("x" * size)
        await ws.send_bytes(b"x" * size)
    await ws.close()


class Endpoint(WebSocketEndpoint):
    encoding = "text"

    async def on_connect(self, websocket: WebSocket) -> None:
        self.run: Run = websocket.scope["run"]
        await websocket.accept()

    async def on_receive(self, websocket: WebSocket, data: Any) -> None:
        await websocket.send_text(f"echo {data}")

    async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
        self.run.seen.append(close_code)


@shape(says("a", then=leaves), says("a", b"b"))
async def class_of_handlers(ws: WebSocket, run: Run) -> None:
    ws.scope["run"] = run
    await Endpoint(ws.scope, ws.receive, ws.send)


# Where they run


class Outcome(NamedTuple):
    """What both sides saw."""

    status: int
    subprotocol: str | None
    got: list[Any]
    close: tuple[int | None, str | None]
    seen: list[Any]
    ended: tuple[Any, ...] | None


@dataclass
class Place:
    """A server, and what runs there."""

    server: LiveServer
    runs: list[Run]
    through_asgi: bool = False

    async def outcome(self, name: str) -> Outcome:
        """Runs a shape there."""
        _, side = SHAPES[name]
        run = Run()
        self.runs.append(run)
        got: list[Any] = []
        path = f"/{len(self.runs) - 1}/{quote(name)}?a=1&token=secret"
        status, subprotocol = 101, None
        close: tuple[int | None, str | None] = None, None
        try:
            async with client(self.server, path, subprotocols=["one", "two"]) as ws:
                await side(ws, got)
                subprotocol, close = ws.subprotocol, (ws.close_code, ws.close_reason)
        except InvalidStatus as refused:
            status = refused.response.status_code
        state = self.server.server.server_state
        await eventually(lambda: not state.connections)
        await self.server.acall(_set(run.left))
        await eventually(lambda: run.ended is not None and all(task.done() for task in run.tasks))
        await eventually(lambda: not state.tasks)
        return Outcome(status, subprotocol, [each for each in got if each != "tick"], close, run.seen, run.ended)


async def _set(event: asyncio.Event) -> None:
    event.set()


def app_of(runs: list[Run], manager: ConnectionManager | None) -> FastAPI:
    app = FastAPI()
    if manager is not None:
        manager.install(app)

    @app.websocket("/{number}/{name}")
    async def endpoint(websocket: WebSocket, number: int, name: str) -> None:
        run = runs[number]
        try:
            await SHAPES[name][0](websocket, run)
        except BaseException as error:
            run.ended = described(error)
            raise
        run.ended = ("returned",)

    return app


@pytest.fixture(scope="module")
def loop(either_loop: str) -> str:
    return either_loop


@pytest.fixture(scope="module")
def bare(loop: str) -> Iterator[Place]:
    runs: list[Run] = []
    with serving(app_of(runs, None), loop=loop) as server:
        yield Place(server, runs)


@pytest.fixture(scope="module", params=["direct", "asgi"])
def installed(request: pytest.FixtureRequest, loop: str) -> Iterator[Place]:
    runs: list[Run] = []
    app: Any = app_of(runs, ConnectionManager())
    with serving(app if request.param == "direct" else through_asgi(app), loop=loop) as server:
        yield Place(server, runs, through_asgi=request.param == "asgi")


# The differences, as docs/replace-your-manager.md has them

USED_AGAIN = ("RuntimeError", 'Cannot call "send" once a close message has been sent.')
RECEIVED_AGAIN = ("RuntimeError", 'Cannot call "receive" once a disconnect message has been received.')
ACCEPTED = {"status": 101, "subprotocol": "one"}
NORMAL, FAILED = (1000, ""), (1011, "")
CLOSED_LATE = {"seen": [None, ("CONNECTED", "DISCONNECTED"), USED_AGAIN, USED_AGAIN]}
DIFFERENT: dict[str, dict[str, Any]] = {
    # The socket ends with a Close frame, however the handler ends.
    "return after accept": {"close": NORMAL},
    "leave a task behind that sends": {"close": NORMAL},
    "leave a task behind that receives": {
        "close": NORMAL,
        "seen": [("WebSocketDisconnect", 1000, ""), RECEIVED_AGAIN],
    },
    "raise a disconnect of its own": {"close": NORMAL},
    "raise after accept": {"close": FAILED},
    "is cancelled": {"close": FAILED},
    "raise an http exception": {"close": (1008, "too late for a status")},
    # A close after the client's does nothing.
    "close when the client is gone, client leaves": CLOSED_LATE,
    "close when the client is gone, client vanishes": CLOSED_LATE,
    # A client that is refused is accepted first, so that it can read why.
    "close before accept": {**ACCEPTED, "close": (4003, "not you")},
    "raise a websocket exception before accept": {**ACCEPTED, "close": (1008, "not your room")},
    "raise an http exception before accept": {**ACCEPTED, "close": (1008, "no such room")},
    # A code or a reason that no Close frame carries is put right.
    "close with what no close frame carries": {"close": FAILED, "seen": [None]},
    "close with a long reason": {"close": (4000, "é" * 61), "seen": [None]},
}
THROUGH_ASGI: dict[str, dict[str, Any]] = {
    # Where the server can't be asked whether it stops, it may be why a handler is cancelled.
    "is cancelled": {"close": (1012, "")},
}


@pytest.mark.parametrize("name", SHAPES)
async def test_a_handler_and_its_client_see_what_they_see_without_a_manager(
    bare: Place, installed: Place, name: str
) -> None:
    expected, found = await bare.outcome(name), await installed.outcome(name)
    changes = DIFFERENT.get(name, {}) | (THROUGH_ASGI.get(name, {}) if installed.through_asgi else {})
    assert found == expected._replace(**changes)
    assert all(getattr(expected, key) != value for key, value in changes.items()), "no difference any more"


async def accepted_late(place: Place) -> tuple[list[Any], Any]:
    """What a handler sees that accepts a client that has gone in the meantime."""
    run = Run()
    place.runs.append(run)
    _, writer = await asyncio.open_connection("127.0.0.1", place.server.port)
    path = f"/{len(place.runs) - 1}/{quote('accept when the client is gone')}"
    headers = f"Host: 127.0.0.1:{place.server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    headers += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    writer.write(f"GET {path} HTTP/1.1\r\n{headers}".encode())
    await eventually(lambda: run.seen == ["waiting"])
    reset(writer.transport)
    await eventually(lambda: not place.server.server.server_state.connections)
    await place.server.acall(_set(run.left))
    await eventually(lambda: run.ended is not None)
    return run.seen, run.ended


async def accept_when_the_client_is_gone(ws: WebSocket, run: Run) -> None:
    run.seen.append("waiting")
    await run.left.wait()
    await run.tries(ws.accept(), ws.send_text("a"))
    run.states(ws)
    await run.tries(ws.send_text("a"), ws.receive_text())
    await ws.send_text("unguarded")


async def test_a_handler_that_accepts_a_client_that_is_gone_sees_what_it_sees_without_a_manager(
    bare: Place, installed: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SHAPES, "accept when the client is gone", (accept_when_the_client_is_gone, listens))
    assert await accepted_late(installed) == await accepted_late(bare)


STAYING = [
    "loop on the application state, client leaves",
    "loop on the client state, client leaves",
    "loop until a send raises, client leaves",
    "raise out of a send, client leaves",
    "raise out of a receive, client leaves",
    "receive raw when the client is gone, client leaves",
    "iter json",
    "send in a background task",
    "use a task group, client leaves",
    "receive in two tasks",
]


async def seen_at_a_stop(manager: ConnectionManager | None, loop: str) -> dict[str, Any]:
    """What the handlers and clients of a server see that is told to stop, and waits for its handlers without end."""
    runs: list[Run] = [Run() for _ in STAYING]
    got: dict[str, Any] = {}
    with serving(app_of(runs, manager), loop=loop, timeout_graceful_shutdown=None) as server:
        async with AsyncExitStack() as stack:
            clients = []
            for number, name in enumerate(STAYING):
                clients.append(await stack.enter_async_context(client(server, f"/{number}/{quote(name)}")))
                await asyncio.wait_for(clients[-1].recv(), DEADLINE_S)
            server.server.should_exit = True  # what uvicorn does on SIGTERM
            for name, ws in zip(STAYING, clients, strict=True):
                await listens(ws, [])
                got[name] = ws.close_code, ws.close_reason
    return {name: (*got[name], run.seen, run.ended) for name, run in zip(STAYING, runs, strict=True)}


async def test_a_server_that_is_told_to_stop_stops_and_handlers_see_it_as_without_a_manager(loop: str) -> None:
    expected = await seen_at_a_stop(None, loop)
    assert await seen_at_a_stop(ConnectionManager(), loop) == expected
    assert {(code, reason) for code, reason, _, _ in expected.values()} == {(1012, "")}
    assert all(ended is not None for _, _, _, ended in expected.values())
