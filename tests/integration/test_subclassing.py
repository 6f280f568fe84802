"""Apps put methods of their own on top of the manager: whatever these are called, the machine below runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.websockets import WebSocket, WebSocketDisconnect

from examples import subclassing
from hubbub import ConnectionManager, Limits, NotInstalled, NotSupported, RoomOptions
from tests.integration.support import client, closed, eventually, receive, running, serving

pytestmark = pytest.mark.anyio

HAND_WRITTEN = """
    join forget limits rooms_of tasks counters release fanout origins broker start stop run close connections_by_user
    users sockets clients lock queue loop redis pubsub heartbeat send send_message send_json send_text receive publish
    subscribe unsubscribe leave join_room leave_room add remove get room_connections user_connections options_of
    installed check_running app_ping session engine _engine _connections _users _lock _loop _broker _tasks _rooms
    _registrar _registry _memberships _timers _draining _filter _start _stop _end _join _leave _socket _publish _pace
    _check_loop _has_members register unregister find ids refuse check_limits deliver settled flush gone
"""


def names_that_are_ours_to_use() -> list[str]:
    """Every name in the machine, and those that hand-written managers have: but for the manager's public names."""
    engine = ConnectionManager()._hubbub
    parts = (engine, engine.admission, engine.lookup, engine.sweeper, engine.lifecycle, engine.memberships)
    machine = {name for part in parts for name in dir(part)}
    names = machine | set(HAND_WRITTEN.split())
    return sorted(name for name in names if not name.startswith("__") and not hasattr(ConnectionManager, name))


def not_to_be_called(name: str) -> Callable[..., Any]:
    def method(self: object, *args: object, **kwargs: object) -> None:
        raise AssertionError(f"the machine calls {name}, which is the subclass's own")

    return method


class Overridden(ConnectionManager):
    """Overrides what is public, with other arguments, as a hand-written manager has it."""

    async def broadcast(self, room: str, text: str) -> None:  # type: ignore[override]  # which is the point
        await super().broadcast({"text": text}, room=room)

    async def join(self, *args: object, **kwargs: object) -> None:
        raise AssertionError("the machine calls join")

    def disconnect(self, *args: object, **kwargs: object) -> None:  # type: ignore[override]
        raise AssertionError("the machine calls disconnect")

    history: dict[str, str] = {}  # type: ignore[assignment]  # noqa: RUF012 - as they are written


ROOMS = {"chat:*": RoomOptions(history=5, announce=True, grace_s=0.0)}


def managers() -> list[ConnectionManager]:
    names = names_that_are_ours_to_use()
    assert {"limits", "broker", "tasks", "counters", "fanout", "origins", "release", "forget"} <= set(names)
    methods = type("Methods", (ConnectionManager,), {name: not_to_be_called(name) for name in names})
    attributes = ConnectionManager(rooms=ROOMS, limits=Limits(max_connections_per_user=1))
    for name in names:
        setattr(attributes, name, not_to_be_called(name))
    return [methods(rooms=ROOMS, limits=Limits(max_connections_per_user=1)), attributes]


@pytest.mark.parametrize("manager", managers(), ids=["methods", "attributes"])
async def test_every_name_but_the_public_ones_is_free_for_a_subclass(manager: ConnectionManager) -> None:
    with running(manager) as live:

        async def handler(websocket: WebSocket) -> None:
            async with manager.connect(websocket, websocket.query_params["user"], room="chat:1") as connection:
                await connection.join("other")
                await connection.leave("other")
                async for text in connection.iter_text():
                    await manager.broadcast_to_room("chat:1", f"{connection.user_id}: {text}")

        path = live.at(handler)
        async with client(live.server, f"{path}?user=ann") as ann:
            assert (await receive(ann))["type"] == "user_joined"
            async with client(live.server, f"{path}?user=bob") as bob:
                assert (await receive(bob))["type"] == (await receive(ann))["type"] == "user_joined"
                await bob.send("hello")
                assert await receive(ann) == await receive(bob) == "bob: hello"
                assert [member.user_id for member in await live.server.acall(manager.presence("chat:1"))] == [
                    "ann",
                    "bob",
                ]
            assert (await receive(ann))["type"] == "user_left"
            async with client(live.server, f"{path}?user=ann") as second:
                assert (await closed(second))[0] == 1008
            assert await asyncio.to_thread(manager.from_thread.send_to_user, "ann", "from a thread")
            assert await receive(ann) == "from a thread"
            assert manager.stats().connections == 1
            assert manager.rooms == {"chat:1"}
            assert await live.server.acall(manager.disconnect_user("ann"))
            assert (await closed(ann))[0] == 1008
        await live.nothing_left()


async def test_public_methods_that_a_subclass_overrides_are_not_called_by_the_others() -> None:
    manager = Overridden()
    with running(manager) as live:

        async def handler(websocket: WebSocket) -> None:
            connection = await manager.connect(websocket, "ann", room="lobby")
            await connection.join("other")
            try:
                async for text in connection.iter_text():
                    await manager.broadcast_to_room("lobby", text)
                    await manager.broadcast("lobby", text)
            except WebSocketDisconnect:
                pass

        async with client(live.server, live.at(handler)) as ann:
            await ann.send("hello")
            assert await receive(ann) == "hello"
            assert await receive(ann) == {"text": "hello"}
        await live.nothing_left()


async def test_from_thread_calls_what_a_subclass_overrides() -> None:
    manager = Overridden()
    with running(manager) as live:

        async def handler(websocket: WebSocket) -> None:
            async with manager.connect(websocket, room="lobby") as connection:
                await connection.send("ready")
                await connection.wait_gone()

        broadcast: Callable[..., Any] = manager.from_thread.broadcast
        async with client(live.server, live.at(handler)) as ann:
            assert await receive(ann) == "ready"
            await asyncio.to_thread(broadcast, "lobby", "hello")
            assert await receive(ann) == {"text": "hello"}


async def test_the_lifespan_of_a_subclass_runs() -> None:
    happened: list[str] = []

    class Manager(ConnectionManager):
        def lifespan(self, app: object = None) -> Any:
            happened.append("lifespan")
            return super().lifespan(app)

    app = FastAPI()
    manager = Manager()
    manager.install(app)
    with serving(app):
        await eventually(lambda: manager.ready)
    assert happened == ["lifespan"]


def test_a_subclass_that_does_not_call_init_is_told() -> None:
    class Manager(ConnectionManager):
        def __init__(self) -> None:
            self.users: dict[str, str] = {}

    with pytest.raises(NotInstalled, match=r"Manager.__init__ has to call super\(\).__init__\(\)"):
        Manager().install(FastAPI())
    assert not hasattr(Manager(), "nothing")


@pytest.mark.parametrize(
    "name", ["active_connections", "active_user_count", "rooms", "running", "ready", "from_thread"]
)
def test_what_the_manager_keeps_can_not_be_assigned(name: str) -> None:
    manager = ConnectionManager()
    with pytest.raises(NotSupported, match=f"^ConnectionManager.{name} can't be assigned: "):
        setattr(manager, name, {})
    with pytest.raises(NotSupported, match=name):
        delattr(manager, name)


async def test_what_a_connection_is_can_not_be_assigned() -> None:
    manager = ConnectionManager()
    with running(manager) as live:
        refused: set[str] = set()

        async def handler(websocket: WebSocket) -> None:
            async with manager.connect(websocket, "ann", info={"name": "Ann"}) as connection:
                for name, attribute in vars(type(connection)).items():
                    if isinstance(attribute, property):
                        before = getattr(connection, name)
                        with pytest.raises(NotSupported, match=f"^Connection.{name} can't be assigned: "):
                            setattr(connection, name, "bob")
                        assert getattr(connection, name) == before
                        refused.add(name)

        async with client(live.server, live.at(handler)) as ann:
            await closed(ann)
        assert refused == {"address", "id", "info", "is_open", "network", "rooms", "user_id", "websocket"}
        await live.nothing_left()


async def test_the_example_of_a_subclass_counts_and_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subclassing.manager, "scores", {})  # other tests of this process play it too
    with serving(subclassing.app) as server:
        async with client(server, "/games/1") as ann:
            await ann.send("a point")
            assert await receive(ann) == {"type": "score", "points": 1}
        await eventually(lambda: not subclassing.manager.active_connections)
