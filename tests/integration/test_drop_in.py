"""An app with a hand-written connection manager swaps its class for ours, and nobody can tell."""

from __future__ import annotations

import asyncio
import difflib
import importlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from starlette.testclient import TestClient, WebSocketTestSession
from websockets.asyncio.client import ClientConnection

from hubbub import ConnectionManager, NotRunning, WrongLoop
from tests.integration.support import (
    DEADLINE_S,
    LiveServer,
    assert_nothing_left,
    client,
    closed,
    eventually,
)

pytestmark = pytest.mark.anyio

REPLACE = Path(__file__).parents[2] / "examples" / "replace"
T = TypeVar("T")
Frame = str | bytes


# Two apps, one conversation


class Tab:
    """A client that notes every frame it gets, as it is on the wire."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.heard: list[Frame] = []

    async def says(self, frame: Frame) -> None:
        await self.connection.send(frame)

    async def hears(self, count: int = 1) -> None:
        for _ in range(count):
            self.heard.append(await asyncio.wait_for(self.connection.recv(), DEADLINE_S))


class Talk:
    """A conversation with one app: its tabs, and what HTTP routes answered."""

    def __init__(self, server: LiveServer) -> None:
        self.server = server
        self.tabs: dict[str, Tab] = {}
        self.answers: list[Any] = []

    @asynccontextmanager
    async def tab(self, name: str, path: str) -> AsyncIterator[Tab]:
        async with client(self.server, path) as connection:
            self.tabs[name] = Tab(connection)
            yield self.tabs[name]

    async def asks(self, path: str, method: str = "GET") -> Any:
        async with httpx.AsyncClient(trust_env=False) as http:
            response = await http.request(method, self.server.http(path))
        self.answers.append(response.json())
        return self.answers[-1]

    def transcript(self) -> dict[str, list[Any]]:
        return {name: tab.heard for name, tab in self.tabs.items()} | {"answers": self.answers}


async def in_a_list_of_sockets(talk: Talk) -> None:
    async with talk.tab("one", "/ws/1") as one:
        await one.says("hello")
        await one.hears(2)
        async with talk.tab("two", "/ws/2") as two:
            await two.says("hi, ünï ✓")
            await asyncio.gather(two.hears(2), one.hears())
            await talk.asks("/count")
            await one.says("")
            await asyncio.gather(one.hears(2), two.hears())
        await one.hears()
        await talk.asks("/count")
        await one.says("alone again")
        await one.hears(2)


async def in_a_dict_of_users(talk: Talk) -> None:
    async with talk.tab("ann", "/ws/ann") as ann:
        await ann.says('{"text": "anybody here?"}')
        await ann.hears()
        await talk.asks("/online/ann")
        await talk.asks("/online/bob")
        async with talk.tab("bob", "/ws/bob") as bob:
            await bob.says('{"text": "hi, ünï ✓"}')
            await asyncio.gather(ann.hears(), bob.hears())
            await talk.asks("/online/bob")
            await bob.says('{"to": "ann", "text": "only you"}')
            await ann.hears()
            await ann.says('{"to": "cid", "text": "nobody there"}')
            await ann.says('{"to": "bob", "text": "the same to you"}')
            await bob.hears()
        await ann.hears()
        await ann.says('{"text": "alone again"}')
        await ann.hears()


async def in_rooms(talk: Talk) -> None:
    async with talk.tab("red 1", "/ws/red") as red1, talk.tab("blue", "/ws/blue") as blue:
        await asyncio.gather(red1.hears(), blue.hears())
        async with talk.tab("red 2", "/ws/red") as red2, talk.tab("green", "/ws/green/json") as green:
            await asyncio.gather(red1.hears(), red2.hears())
            await red2.says("only red")
            await asyncio.gather(red1.hears(), red2.hears())
            await blue.says("only blue")
            await blue.hears()
            await green.says('{"text": "grün", "n": [1, 2.5, null]}')
            await green.hears(2)
            await talk.asks("/rooms")
        await red1.hears()
        await red1.says("bye")
        await red1.hears()


async def in_tabs_of_users(talk: Talk) -> None:
    async with AsyncExitStack() as stack:
        ann1 = await stack.enter_async_context(talk.tab("ann 1", "/ws/1"))
        await ann1.hears()
        ann2 = await stack.enter_async_context(talk.tab("ann 2", "/ws/1"))
        await asyncio.gather(ann1.hears(), ann2.hears())
        async with talk.tab("bob", "/ws/2") as bob:
            await asyncio.gather(ann1.hears(), ann2.hears(), bob.hears())
            await bob.says('{"to": 1, "text": "to both of your tabs, Änn"}')
            await asyncio.gather(ann1.hears(), ann2.hears(), bob.hears())
            await ann2.says('{"to": 2, "text": "thanks"}')
            await asyncio.gather(bob.hears(), ann2.hears())
            await talk.asks("/users/1/poke", "POST")
            await asyncio.gather(ann1.hears(), ann2.hears())
            await bob.says('{"to": 3, "text": "nobody there"}')
            await bob.hears()
        await asyncio.gather(ann1.hears(), ann2.hears())
        await talk.asks("/users/1/poke", "POST")
        await asyncio.gather(ann1.hears(), ann2.hears())


async def in_rooms_with_users(talk: Talk) -> None:
    async with talk.tab("ann", "/ws/red/ann") as ann:
        await ann.hears()
        async with talk.tab("bob", "/ws/blue/bob") as bob:
            await bob.hears()
            async with talk.tab("bob too", "/ws/red/bob") as bob2:
                await asyncio.gather(ann.hears(), bob2.hears())
                await ann.says('{"text": "red only"}')
                await asyncio.gather(ann.hears(), bob2.hears())
                await ann.says('{"to": "bob", "text": "wherever you are"}')
                await asyncio.gather(bob.hears(), bob2.hears())
                await bob.says('{"text": "blue only"}')
                await bob.hears()
            await ann.hears()
        await ann.says('{"text": "still here"}')
        await ann.hears()


SHAPES: dict[str, Callable[[Talk], Awaitable[None]]] = {
    "sockets": in_a_list_of_sockets,
    "dict": in_a_dict_of_users,
    "rooms": in_rooms,
    "users": in_tabs_of_users,
    "both": in_rooms_with_users,
}


async def transcript(app: FastAPI, conversation: Callable[[Talk], Awaitable[None]]) -> dict[str, list[Any]]:
    async with live(app) as server:
        talk = Talk(server)
        await conversation(talk)
        return talk.transcript()


@pytest.mark.parametrize("shape", SHAPES)
async def test_clients_see_the_same_frames_from_the_hand_written_manager_and_from_ours(shape: str) -> None:
    before = importlib.import_module(f"examples.replace.{shape}_before")
    after = importlib.import_module(f"examples.replace.{shape}_after")

    expected = await transcript(before.app, SHAPES[shape])
    got = await transcript(after.app, SHAPES[shape])

    assert all(expected.values()) or shape == "both"
    assert got == expected
    assert_nothing_left(after.manager)


# What handlers change besides the class, by shape.
CHANGED_LINES = {
    "sockets": [],
    "dict": [
        """-                await manager.send_personal_message(f"{user_id} to you: {data['text']}", data["to"])""",
        """+                await manager.send_to_user(data["to"], f"{user_id} to you: {data['text']}")""",
        "-        manager.disconnect(user_id)",
        "+        manager.disconnect(websocket)",
        "-    return user_id in manager.active_connections",
        "+    return await manager.is_online(user_id)",
    ],
    "users": [],
    "rooms": [
        "-    await manager.connect(websocket, room)",
        "+    await manager.connect(websocket, room=room)",
        "-    await manager.connect(websocket, room)",
        "+    await manager.connect(websocket, room=room)",
    ],
    "both": [
        "-    await manager.connect(websocket, room, user_id)",
        "+    await manager.connect(websocket, user_id, room=room)",
        "-        manager.disconnect(websocket, room, user_id)",
        "+        manager.disconnect(websocket)",
    ],
}


def handlers(name: str) -> list[str]:
    """The lines of an example after its manager was made."""
    _, _, rest = (REPLACE / f"{name}.py").read_text().partition("\nmanager = ConnectionManager()\n")
    assert rest
    return rest.removeprefix("manager.install(app)\n").splitlines()


@pytest.mark.parametrize("shape", SHAPES)
def test_handlers_change_no_more_than_the_docs_say(shape: str) -> None:
    diff = difflib.unified_diff(handlers(f"{shape}_before"), handlers(f"{shape}_after"), lineterm="", n=0)
    assert [line for line in diff if not line.startswith(("---", "+++", "@@"))] == CHANGED_LINES[shape]


# Handlers that go on using the websocket


Handler = Callable[[WebSocket, list[ConnectionManager]], Awaitable[None]]


async def echo_text(websocket: WebSocket, managers: list[ConnectionManager]) -> None:
    try:
        while True:
            text = await websocket.receive_text()
            await websocket.send_text(f"echo {text}")
            for manager in managers:
                await manager.broadcast(text)
    except WebSocketDisconnect:
        for manager in managers:
            manager.disconnect(websocket)


async def echo_json(websocket: WebSocket, managers: list[ConnectionManager]) -> None:
    try:
        while True:
            data = await websocket.receive_json()
            await websocket.send_json({"echo": data})
            for manager in managers:
                await manager.broadcast(data)
    except WebSocketDisconnect:
        for manager in managers:
            manager.disconnect(websocket)


async def echo_bytes(websocket: WebSocket, managers: list[ConnectionManager]) -> None:
    try:
        while True:
            data = await websocket.receive_bytes()
            await websocket.send_bytes(b"echo " + data)
            for manager in managers:
                await manager.broadcast(data)
    except WebSocketDisconnect:
        for manager in managers:
            manager.disconnect(websocket)


async def echo_iterated(websocket: WebSocket, managers: list[ConnectionManager]) -> None:
    async for text in websocket.iter_text():
        await websocket.send_text(f"echo {text}")
        for manager in managers:
            await manager.broadcast(text)
    for manager in managers:
        manager.disconnect(websocket)


async def echo_raw(websocket: WebSocket, managers: list[ConnectionManager]) -> None:
    while True:
        event = await websocket.receive()
        if event["type"] == "websocket.disconnect":
            break
        text = event["text"]
        await websocket.send({"type": "websocket.send", "text": f"echo {text}"})
        for manager in managers:
            await manager.broadcast(text)
    for manager in managers:
        manager.disconnect(websocket)


ECHOES: dict[str, tuple[Handler, Frame, Frame, Frame]] = {
    "receive_text": (echo_text, "a", "echo a", "a"),
    "receive_json": (echo_json, '{"a":1}', '{"echo":{"a":1}}', '{"a":1}'),
    "receive_bytes": (echo_bytes, b"a", b"echo a", b"a"),
    "iter_text": (echo_iterated, "a", "echo a", "a"),
    "receive": (echo_raw, "a", "echo a", "a"),
}


@pytest.mark.parametrize("accepts", [False, True], ids=["manager accepts", "handler accepts"])
@pytest.mark.parametrize("count", [1, 5], ids=["one manager", "five managers"])
@pytest.mark.parametrize("echo", ECHOES)
async def test_handler_goes_on_using_the_websocket(echo: str, count: int, accepts: bool) -> None:
    handler, said, answer, broadcast = ECHOES[echo]
    app = FastAPI()
    managers = [ConnectionManager() for _ in range(count)]
    for manager in managers:
        manager.install(app)

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        if accepts:
            await websocket.accept(subprotocol="chat")
        for manager in managers:
            await manager.connect(websocket)
        await handler(websocket, managers)

    async with live(app) as server, client(server, "/ws", subprotocols=["chat"]) as one:
        assert one.subprotocol == ("chat" if accepts else None)
        for _ in range(3):
            await one.send(said)
            assert await frames(one, 1 + count) == [answer, *[broadcast] * count]
        async with client(server, "/ws", subprotocols=["chat"]) as two:
            await two.send(said)
            assert await frames(two, 1 + count) == [answer, *[broadcast] * count]
            assert await frames(one, count) == [broadcast] * count
        await eventually(lambda: all(len(manager.active_connections) == 1 for manager in managers))
        await one.send(said)
        assert await frames(one, 1 + count) == [answer, *[broadcast] * count]
    for manager in managers:
        assert_nothing_left(manager)


async def test_each_of_five_managers_serves_its_own_route() -> None:
    app = FastAPI()
    managers = [ConnectionManager() for _ in range(5)]
    for manager in managers:
        manager.install(app)

    @app.websocket("/ws/{number}")
    async def endpoint(websocket: WebSocket, number: int) -> None:
        manager = managers[number]
        await manager.connect(websocket)
        try:
            while True:
                await manager.broadcast(f"{number}: {await websocket.receive_text()}")
        except WebSocketDisconnect:
            manager.disconnect(websocket)

    async with live(app) as server, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client(server, f"/ws/{number}")) for number in range(5)]
        for one in clients:
            await one.send("hello")
        for number, one in enumerate(clients):
            assert await frames(one, 1) == [f"{number}: hello"]
        assert [len(manager.active_connections) for manager in managers] == [1] * 5


async def test_handler_goes_through_active_connections() -> None:
    app = FastAPI()
    manager = ConnectionManager()
    manager.install(app)
    seen: list[bool] = []

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        await manager.connect(websocket)
        seen.append(websocket in manager.active_connections)
        try:
            while True:
                text = await websocket.receive_text()
                for connection in manager.active_connections:
                    await connection.send_text(f"{len(manager.active_connections)} here: {text}")
                    await connection.send_json({"text": text})
        except WebSocketDisconnect:
            manager.disconnect(websocket)
            seen.append(websocket in manager.active_connections)

    async with live(app) as server:
        async with client(server, "/ws") as one, client(server, "/ws") as two:
            await eventually(lambda: len(manager.active_connections) == 2)
            await one.send("hello")
            for each in (one, two):
                assert await frames(each, 2) == ["2 here: hello", '{"text":"hello"}']
        await eventually(lambda: seen == [True, True, False, False])


async def test_second_disconnect_is_nothing() -> None:
    app = FastAPI()
    manager = ConnectionManager()
    manager.install(app)
    done = threading.Event()

    @app.websocket("/ws/{user_id}")
    async def endpoint(websocket: WebSocket, user_id: int) -> None:
        await manager.connect(websocket, user_id)
        try:
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect:
            manager.disconnect(websocket, user_id)
            await manager.broadcast("somebody left")
        finally:
            manager.disconnect(websocket, user_id)
            manager.disconnect(websocket)
            done.set()

    async with live(app) as server:
        async with client(server, "/ws/1"):
            pass
        await eventually(done.is_set)
    assert_nothing_left(manager)


async def test_handler_that_disconnects_and_returns_is_closed_with_a_close_frame() -> None:
    app = FastAPI()
    manager = ConnectionManager()
    manager.install(app)

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        await manager.connect(websocket)
        await manager.send_personal_message(await websocket.receive_text(), websocket)
        manager.disconnect(websocket)

    async with live(app) as server, client(server, "/ws") as one:
        await one.send("bye")
        assert await frames(one, 1) == ["bye"]
        assert await closed(one) == (1000, "")


async def test_handler_closes_the_websocket_itself() -> None:
    app = FastAPI()
    manager = ConnectionManager()
    manager.install(app)

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        await manager.connect(websocket)
        await manager.broadcast("before the close")
        await websocket.close(4001, "no such thing")
        manager.disconnect(websocket)

    async with live(app) as server, client(server, "/ws") as one:
        assert await frames(one, 1) == ["before the close"]
        assert await closed(one) == (4001, "no such thing")
    assert_nothing_left(manager)


async def test_what_the_handler_sends_comes_after_what_it_broadcast() -> None:
    app = FastAPI()
    manager = ConnectionManager()
    manager.install(app)

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        await manager.connect(websocket)
        for number in range(100):
            await manager.broadcast(f"broadcast {number}")
            await websocket.send_text(f"own {number}")
            await manager.send_personal(f"personal {number}", websocket)
        await websocket.receive_text()

    async with live(app) as server, client(server, "/ws") as one:
        expected = [f"{kind} {number}" for number in range(100) for kind in ("broadcast", "own", "personal")]
        assert await frames(one, 300) == expected


async def test_send_personal_takes_its_arguments_in_either_order_and_knows_who_is_gone() -> None:
    app = FastAPI()
    manager = ConnectionManager()
    manager.install(app)
    kept: list[WebSocket] = []
    send_personal = manager.send_personal

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        await manager.connect(websocket)
        kept.append(websocket)
        assert await send_personal("first", websocket)
        assert await send_personal(websocket, "second")
        await websocket.receive()

    async with live(app) as server:
        async with client(server, "/ws") as one:
            assert await frames(one, 2) == ["first", "second"]
        await eventually(lambda: not manager.active_connections)
        assert await server.acall(manager.send_personal("third", kept[0])) is False


# Starlette's TestClient


def chat_app() -> tuple[FastAPI, ConnectionManager]:
    app = FastAPI()
    manager = ConnectionManager()
    manager.install(app)

    @app.websocket("/ws/{user_id}")
    async def endpoint(websocket: WebSocket, user_id: int) -> None:
        await manager.connect(websocket, user_id)
        try:
            while True:
                await manager.broadcast({"from": user_id, "data": await websocket.receive_json()})
        except WebSocketDisconnect:
            manager.disconnect(websocket, user_id)

    @app.post("/poke/{user_id}")
    def poke(user_id: int) -> bool:
        return manager.from_thread.send_to_user(user_id, {"type": "poke"})

    return app, manager


def within(work: Callable[[], T], timeout_s: float = DEADLINE_S) -> T:
    """Runs a test's work in a thread, so that a hang is a failure and not the end of the run."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout_s)
    assert not thread.is_alive(), f"it hangs: not done in {timeout_s:g} s"
    if errors:
        raise errors[0]
    return results[0]


def both_hear(sockets: tuple[WebSocketTestSession, ...], expected: Any) -> None:
    for socket in sockets:
        assert socket.receive_json() == expected


def test_several_test_sockets_in_one_client() -> None:
    app, manager = chat_app()

    def work() -> None:
        with TestClient(app) as test_client:
            with (
                test_client.websocket_connect("/ws/1") as one,
                test_client.websocket_connect("/ws/2") as two,
                test_client.websocket_connect("/ws/2") as three,
            ):
                one.send_json("hello")
                both_hear((one, two, three), {"from": 1, "data": "hello"})
                assert test_client.post("/poke/2").json() is True
                both_hear((two, three), {"type": "poke"})
                assert manager.active_user_count == 2
            assert test_client.post("/poke/2").json() is False

    within(work)
    assert_nothing_left(manager)


def test_two_test_sockets_interleaved() -> None:
    app, manager = chat_app()

    def work() -> None:
        with TestClient(app) as test_client:
            first = test_client.websocket_connect("/ws/1")
            second = test_client.websocket_connect("/ws/2")
            first.__enter__()
            second.__enter__()
            second.send_json("both")
            both_hear((first, second), {"from": 2, "data": "both"})
            first.__exit__(None, None, None)  # the one that came first goes first
            second.send_json("alone")
            both_hear((second,), {"from": 2, "data": "alone"})
            second.__exit__(None, None, None)

    within(work)
    assert_nothing_left(manager)


def test_test_client_that_is_not_entered_gets_an_error_that_says_so() -> None:
    app, _ = chat_app()

    def work() -> None:
        with TestClient(app).websocket_connect("/ws/1"):
            pass

    with pytest.raises(NotRunning, match=r"with TestClient\(app\)"):
        within(work)


def test_route_of_a_test_client_that_is_not_entered_gets_the_error_too() -> None:
    app, _ = chat_app()
    with pytest.raises(NotRunning, match=r"with TestClient\(app\)"):
        within(lambda: TestClient(app).post("/poke/1"))


def test_sockets_on_loops_of_their_own_get_an_error_that_says_so() -> None:
    app, _ = chat_app()

    def work() -> None:
        # The lifespan runs on one client's loop, the socket of the other one on its own.
        with TestClient(app), TestClient(app).websocket_connect("/ws/1"):
            pass

    with pytest.raises(WrongLoop, match=r"with TestClient\(app\)"):
        within(work)


def test_manager_of_a_module_serves_one_test_client_after_another() -> None:
    app, manager = chat_app()

    def work() -> None:
        for number in range(5):
            with TestClient(app) as test_client, test_client.websocket_connect("/ws/1") as one:
                one.send_json(number)
                both_hear((one,), {"from": 1, "data": number})
                assert test_client.post("/poke/1").json() is True
                both_hear((one,), {"type": "poke"})

    within(work)
    assert_nothing_left(manager)


def test_two_test_clients_at_once_get_a_clear_error() -> None:
    app, manager = chat_app()

    def work() -> None:
        with TestClient(app) as first, first.websocket_connect("/ws/1") as one:
            with pytest.raises(WrongLoop, match="runs already"), TestClient(app):
                pass
            one.send_json("the first goes on")
            both_hear((one,), {"from": 1, "data": "the first goes on"})

    within(work)
    assert_nothing_left(manager)


# Helpers


@asynccontextmanager
async def live(app: FastAPI) -> AsyncIterator[LiveServer]:
    """Serves an app; starting and stopping do not block this loop, on which the clients are."""
    server = LiveServer(app)
    await asyncio.to_thread(server.start)
    try:
        yield server
    finally:
        await asyncio.to_thread(server.stop)


async def frames(connection: ClientConnection, count: int) -> list[Frame]:
    return [await asyncio.wait_for(connection.recv(), DEADLINE_S) for _ in range(count)]
