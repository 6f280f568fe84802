"""The programs of the pages about moving to hubbub: after it, the app does what it did before."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection

from examples.migrate import broadcaster_after, protocol_mixed, socketio_after
from tests.integration.json_client import Wire, error, rpc, subscribe
from tests.integration.support import LiveServer, client, receive, serving

pytestmark = pytest.mark.anyio

EXAMPLES = Path(__file__).parents[2] / "examples" / "migrate"
STEPS = ("before", "mixed", "after")  # of the protocol by hand


def test_every_program_is_tested() -> None:
    tested = {"socketio_before", "socketio_after", "broadcaster_before", "broadcaster_after"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested | {f"protocol_{step}" for step in STEPS}


def before(name: str, needs: str | None = None) -> Any:
    """The app of the program before. The library that it uses is no dependency of hubbub."""
    if needs is not None:
        pytest.importorskip(needs)
    return import_module(f"examples.migrate.{name}_before").app


@asynccontextmanager
async def wire(server: LiveServer, path: str = "/live") -> AsyncIterator[Wire]:
    async with client(server, path) as socket:
        made = Wire(socket)
        await made.ask(1, connect={})
        yield made


async def post(server: LiveServer, path: str, **query: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        (await http.post(server.http(path), params=query)).raise_for_status()


# What each app answers: Ann joins the lobby and says something that Bob receives, Bob may not join the staff.


class SocketIO:
    """A client of Socket.IO by hand, over a WebSocket."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.events: list[Any] = []
        self.asked = 0

    async def ask(self, event: str, data: Any) -> Any:
        self.asked += 1
        await self.socket.send(f"42{self.asked}{json.dumps([event, data])}")
        while not (frame := str(await self.socket.recv())).startswith(acknowledged := f"43{self.asked}"):
            self.events.append(json.loads(frame.removeprefix("42")))
        return json.loads(frame.removeprefix(acknowledged))[0]

    async def event(self) -> Any:
        if not self.events:
            self.events.append(json.loads(str(await self.socket.recv()).removeprefix("42")))
        return self.events.pop(0)


@asynccontextmanager
async def socketio(server: LiveServer, name: str) -> AsyncIterator[SocketIO]:
    async with client(server, "/socket.io/?EIO=4&transport=websocket") as socket:
        assert str(await socket.recv()).startswith("0")
        await socket.send(f"40{json.dumps({'name': name})}")
        assert str(await socket.recv()).startswith("40")
        yield SocketIO(socket)


async def test_the_chat_with_python_socketio() -> None:
    with serving(before("socketio", "socketio")) as server:
        async with socketio(server, "ann") as ann, socketio(server, "bob") as bob:
            assert await ann.ask("join", "chat:lobby") is True
            assert await bob.ask("join", "chat:staff") is False
            assert await bob.ask("say", {"room": "lobby", "text": "hello"}) == {"error": "join the room first"}
            assert await bob.ask("join", "chat:lobby") is True
            assert await ann.ask("say", {"room": "lobby", "text": ""}) == {"error": "text: 1 to 2000 characters"}
            assert await ann.ask("say", {"room": "lobby", "text": "hello"}) == {"user_id": "ann", "text": "hello"}
            assert await bob.event() == ["said", {"user_id": "ann", "text": "hello"}]
            await post(server, "/rooms/lobby/close")
            assert await bob.event() == ["closed", {"room": "lobby"}]


async def test_the_same_chat_without_python_socketio() -> None:
    with serving(socketio_after.app) as server:
        async with wire(server, "/live?name=ann") as ann, wire(server, "/live?name=bob") as bob:
            assert "subscribe" in await ann.ask(2, **subscribe(2, "chat:lobby"))
            assert error(await bob.ask(2, **subscribe(2, "chat:staff"))) == 103
            assert error(await bob.ask(3, **rpc(3, "say", {"room": "lobby", "text": "hello"}))) == 403
            assert "subscribe" in await bob.ask(4, **subscribe(4, "chat:lobby"))
            assert error(await ann.ask(3, **rpc(3, "say", {"room": "lobby", "text": ""}))) == 422
            answer = await ann.ask(4, **rpc(4, "say", {"room": "lobby", "text": "hello"}))
            said = {"type": "said", "user_id": "ann", "text": "hello"}
            assert answer["rpc"]["data"] == said
            assert (await bob.pushed("chat:lobby"))["data"] == said
            await post(server, "/rooms/lobby/close")
            assert await published(bob, 2) == [said, {"type": "closed", "room": "lobby"}]


async def test_both_servers_can_run_in_one_process_meanwhile() -> None:
    sio = pytest.importorskip("socketio")
    both = sio.ASGIApp(before("socketio", "socketio").engineio_server, socketio_after.app)
    with serving(both) as server:
        async with socketio(server, "ann") as old, wire(server, "/live?name=ann") as new:
            assert await old.ask("join", "chat:lobby") is True
            assert "subscribe" in await new.ask(2, **subscribe(2, "chat:lobby"))


async def published(one: Wire, count: int) -> list[Any]:
    while len(found := one.publications("chat:lobby")) < count:
        await one.next()
    return found


@pytest.mark.parametrize("program", ["before", "after"])
async def test_the_sockets_with_and_without_broadcaster(program: str) -> None:
    app = before("broadcaster", "broadcaster") if program == "before" else broadcaster_after.app
    with serving(app) as server:
        async with client(server, "/ws/lobby") as one, client(server, "/ws/lobby") as other:
            for each in (one, other):  # an own message means that it is subscribed
                await each.send("here")
            while await other.recv() != "here":
                pass
            await one.send("hello")
            await post(server, "/rooms/lobby/news", text="news")
            for each in (one, other):
                heard = [await each.recv()]
                while "news" not in heard or "hello" not in heard:
                    heard.append(await each.recv())
                assert set(heard) <= {"here", "hello", "news"}


async def test_sockets_and_clients_of_an_sdk_are_in_the_same_room() -> None:
    with serving(broadcaster_after.app) as server:
        async with client(server, "/ws/lobby") as raw, wire(server) as one:
            await raw.send("here")
            assert await raw.recv() == "here"
            await one.ask(2, **subscribe(2, "chat:lobby"))
            await one.ask(3, publish={"channel": "chat:lobby", "data": "from the SDK"})
            assert await raw.recv() == "from the SDK"
            await raw.send("from the socket")
            assert await published(one, 2) == ["from the SDK", "from the socket"]


@pytest.mark.parametrize("step", ["before", "mixed"])
async def test_a_protocol_by_hand(step: str) -> None:
    with serving(import_module(f"examples.migrate.protocol_{step}").app) as server:
        async with client(server, "/ws?name=ann") as ann, client(server, "/ws?name=bob") as bob:
            await ann.send(json.dumps({"type": "join", "id": 1, "room": "lobby"}))
            assert await receive(ann) == {"type": "joined", "id": 1, "room": "lobby"}
            await bob.send(json.dumps({"type": "join", "id": 1, "room": "staff"}))
            assert (await receive(bob))["error"] == "forbidden"
            await bob.send(json.dumps({"type": "say", "id": 2, "room": "lobby", "text": "hello"}))
            assert (await receive(bob))["error"] == "join first"
            await ann.send(json.dumps({"type": "say", "id": 2, "room": "lobby", "text": ""}))
            assert (await receive(ann))["error"] == "no text"
            await ann.send(json.dumps({"type": "say", "id": 3, "room": "lobby", "text": "hello"}))
            assert await receive(ann) == {"type": "said", "user_id": "ann", "text": "hello"}
            await ann.send(json.dumps({"type": "leave", "room": "lobby"}))
            await ann.send(json.dumps({"type": "say", "id": 4, "room": "lobby", "text": "hello"}))
            assert await receive(ann) == {"type": "error", "id": 4, "error": "join first"}
            for sent, answer in (
                ("ping", {"type": "pong"}),
                ("x", {"type": "error", "id": 5, "error": "unknown type"}),
            ):
                await ann.send(json.dumps({"type": sent, "id": 5}))
                assert await receive(ann) == answer


@pytest.mark.parametrize("step", ["mixed", "after"])
async def test_the_same_protocol_as_an_endpoint(step: str) -> None:
    said = {"user_id": "ann", "text": "hello"} | ({"type": "said"} if step == "mixed" else {})
    with serving(import_module(f"examples.migrate.protocol_{step}").app) as server:
        async with wire(server, "/live?name=ann") as ann, wire(server, "/live?name=bob") as bob:
            assert "subscribe" in await ann.ask(2, **subscribe(2, "chat:lobby"))
            assert error(await bob.ask(2, **subscribe(2, "chat:staff"))) == 103
            assert error(await bob.ask(3, **rpc(3, "say", {"room": "lobby", "text": "hello"}))) == 403
            assert error(await ann.ask(3, **rpc(3, "say", {"room": "lobby", "text": ""}))) == 422
            assert error(await ann.ask(4, **rpc(4, "nonsense"))) == 104
            assert "rpc" in await ann.ask(5, **rpc(5, "say", {"room": "lobby", "text": "hello"}))
            assert await published(ann, 1) == [said]


async def test_old_and_new_clients_of_a_protocol_are_in_the_same_room() -> None:
    with serving(protocol_mixed.app) as server:
        async with client(server, "/ws?name=ann") as old, wire(server, "/live?name=bob") as new:
            await old.send(json.dumps({"type": "join", "id": 1, "room": "lobby"}))
            assert (await receive(old))["type"] == "joined"
            assert "subscribe" in await new.ask(2, **subscribe(2, "chat:lobby"))
            await old.send(json.dumps({"type": "say", "id": 2, "room": "lobby", "text": "old"}))
            assert "rpc" in await new.ask(3, **rpc(3, "say", {"room": "lobby", "text": "new"}))
            both = [{"type": "said", "user_id": name, "text": text} for name, text in (("ann", "old"), ("bob", "new"))]
            heard = [await receive(old), await receive(old)]
            assert sorted(heard, key=str) == sorted(both, key=str)
            assert await published(new, 2) == heard
            present = await asyncio.to_thread(protocol_mixed.manager.from_thread.presence, "chat:lobby")
            assert {member.user_id for member in present} == {"ann", "bob"}
