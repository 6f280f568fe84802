"""The engine of a manager: its start and end, what `connect` leaves behind, and what it publishes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.websockets import WebSocket, WebSocketDisconnect

from hubbub import RoomOptions
from hubbub.brokers import MemoryBroker
from hubbub.brokers.base import Receiver
from hubbub.close import CloseCode
from hubbub.codec import encode
from hubbub.connections.connection import Connection
from hubbub.connections.socket import Socket
from hubbub.engine import Engine
from hubbub.envelope import Envelope
from hubbub.errors import BrokerUnavailable, InvalidArgument, NotInstalled, NotRunning, WrongLoop
from hubbub.names import EVERYONE, EVERYONE_NAME, user_room
from hubbub.options import Limits, RoomTable
from hubbub.origin import OriginPolicy
from hubbub.positions import Position
from hubbub.presence import Info
from hubbub.protocols import RawProtocol
from tests.unit import sockets


class Broker(MemoryBroker):
    """A broker whose next calls fail as a test says.

    Attributes:
        fails: What a call by this name raises, or what a call by this name and channel does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fails: dict[str, BaseException] = {}

    def _ask(self, what: str) -> None:
        if what in self.fails:
            raise self.fails[what]

    async def start(self, receiver: Receiver, rooms: RoomTable) -> None:
        self._ask("start")
        await super().start(receiver, rooms)

    async def subscribe(self, channel: str) -> Position | None:
        self._ask(f"subscribe {channel}")
        return await super().subscribe(channel)

    async def enter(
        self, channel: str, user: str | None, connection_id: str, info: Info, room_info: Info = None
    ) -> None:
        self._ask(f"enter {channel}")
        await super().enter(channel, user, connection_id, info, room_info)


class World:
    """An engine, and clients that ask it for sockets."""

    def __init__(self, **limits: Any) -> None:
        self.broker = Broker()
        options = RoomTable({"kept": RoomOptions(history=5)})
        self.engine = Engine(
            self.broker,
            options,
            limits=Limits(**limits),
            origins=OriginPolicy([]),
            origins_given=True,
            protocol=RawProtocol(app_ping=False, client_frames=True),
            refuse_with="close",
            flush_interval_s=0.0,
            thread_timeout_s=1.0,
            check_sends=None,
        )
        self.engine.lifecycle.installed = True

    def client(self, *engines: Engine) -> Client:
        return Client(self, *(engines or (self.engine,)))


class Client:
    """A client whose socket the app has not answered yet."""

    def __init__(self, world: World, *engines: Engine) -> None:
        self.engine = world.engine
        self.server = sockets.Server()
        self.server.inbox.put_nowait({"type": "websocket.connect"})
        self.socket = Socket(
            engines, self.server.inbox.get, self.server.send, address="192.0.2.1", where="'/ws'", offered=[]
        )
        engines[0].sweeper.watch(self.socket)
        scope = {"type": "websocket", "path": "/ws", "headers": [(b"host", b"app")], "hubbub": self.socket}
        self.websocket = WebSocket(scope, self.socket.receive, self.socket.send)

    async def connect(self, user: Any = None, *rooms: str, **more: Any) -> Connection:
        given = {"info": None, "subprotocol": None, "headers": None, "expires_at": None} | more
        return await self.engine.connect(self.websocket, user, room=None, rooms=rooms, **given)

    def end(self) -> None:
        """The middleware's part: the handler has ended."""
        for session in tuple(self.socket.sessions):
            session.end(grace=False)
        self.engine.sweeper.release(self.socket)


def run(test: Callable[[World], Awaitable[None]], **limits: Any) -> None:
    async def main() -> None:
        world = World(**limits)
        await world.engine.start()
        try:
            await test(world)
        finally:
            await world.engine.stop()
        assert asyncio.all_tasks() == {asyncio.current_task()}, "no task is left"

    asyncio.run(main())


# Start and end


def test_an_engine_runs_from_start_to_stop_and_again() -> None:
    async def main() -> None:
        engine = World().engine
        for _ in range(2):
            assert not engine.running
            await engine.start()
            assert engine.running
            await engine.stop()
        assert not engine.running

    asyncio.run(main())


def test_an_engine_starts_once() -> None:
    async def test(world: World) -> None:
        with pytest.raises(WrongLoop, match="runs already"):
            await world.engine.start()
        assert world.engine.running

    run(test)


def test_a_broker_that_can_not_start_leaves_the_engine_stopped_and_able_to_start() -> None:
    async def main() -> None:
        world = World()
        world.broker.fails["start"] = BrokerUnavailable("access denied")
        filters = list(logging.getLogger("uvicorn.error").filters)
        with pytest.raises(BrokerUnavailable, match="access denied"):
            await world.engine.start()
        assert not world.engine.running
        assert logging.getLogger("uvicorn.error").filters == filters
        world.broker.fails.clear()
        await world.engine.start()
        await world.engine.stop()

    asyncio.run(main())


def test_a_stop_closes_every_socket_with_1012() -> None:
    async def main() -> None:
        world = World()
        await world.engine.start()
        clients = [world.client(), world.client()]
        for client in clients:
            await client.connect("ann", "lobby")
        await world.engine.stop()
        assert [client.socket.closed for client in clients] == [(CloseCode.SERVICE_RESTART.code, "")] * 2
        assert [client.server.types[-1] for client in clients] == ["close", "close"]
        assert world.engine.stats().connections == 0

    asyncio.run(main())


def test_a_drain_ends_when_every_handler_has_and_lets_no_others_in() -> None:
    async def test(world: World) -> None:
        client = world.client()
        await client.connect("ann")
        draining = asyncio.create_task(world.engine.drain(0.0))
        async with asyncio.timeout(30):
            while client.socket.closed is None:  # noqa: ASYNC110 - it takes a few passes
                await asyncio.sleep(0)
        with pytest.raises(WebSocketDisconnect) as caught:
            await world.client().connect("bob")
        assert caught.value.code == CloseCode.SERVICE_RESTART.code
        for socket in tuple(world.engine.sweeper.sockets):
            world.engine.sweeper.release(socket)
        assert await draining

    run(test)


# Connecting


def test_a_connection_is_in_its_own_room_and_everyones_and_those_it_named() -> None:
    async def test(world: World) -> None:
        connection = await world.client().connect(7, "lobby", "hall", info={"name": "Ann"})
        assert (connection.user_id, connection.info) == ("7", {"name": "Ann"})
        assert connection.rooms == {"lobby", "hall"}
        assert world.engine.memberships.rooms.keys() == {user_room("7"), EVERYONE_NAME, "lobby", "hall"}
        assert world.engine.rooms == {"lobby", "hall"}
        assert world.engine.connections("lobby", EVERYONE) == [connection]
        assert world.engine.connections("hall", "7") == [connection]
        assert world.engine.connections("empty", EVERYONE) == world.engine.connections("empty", "7") == []

    run(test)


@pytest.mark.parametrize(
    ("user", "rooms", "more", "argument"),
    [
        ("", [], {}, "user_id"),
        (None, [""], {}, "rooms[0]"),
        (None, [], {"info": object()}, "info"),
        (None, [], {"subprotocol": ""}, "subprotocol"),
        (None, [], {"expires_at": "tomorrow"}, "expires_at"),
    ],
)
def test_a_wrong_argument_is_found_before_the_socket_is_accepted(
    user: Any, rooms: list[str], more: dict[str, Any], argument: str
) -> None:
    async def test(world: World) -> None:
        client = world.client()
        with pytest.raises(InvalidArgument) as caught:
            await client.connect(user, *rooms, **more)
        assert caught.value.argument == argument
        assert client.server.types == []

    run(test)


def test_a_second_connect_joins_more_rooms_with_the_same_connection() -> None:
    async def test(world: World) -> None:
        client = world.client()
        connection = await client.connect("ann", "lobby", info={"n": 1})
        assert await client.connect(None, "hall") is connection
        assert await client.connect("ann", info={"n": 1}) is connection
        assert connection.rooms == {"lobby", "hall"}
        for user, info, argument in (("bob", None, "user_id"), ("ann", {"n": 2}, "info")):
            with pytest.raises(InvalidArgument) as caught:
                await client.connect(user, "attic", info=info)
            assert caught.value.argument == argument
        assert connection.rooms == {"lobby", "hall"}

    run(test)


@pytest.mark.parametrize("what", ["subscribe lobby", "enter lobby", f"enter {EVERYONE_NAME}"])
def test_a_connect_while_the_broker_is_away_closes_the_socket_and_leaves_nothing(what: str) -> None:
    async def test(world: World) -> None:
        world.broker.fails[what] = BrokerUnavailable("away")
        client = world.client()
        with pytest.raises(WebSocketDisconnect) as caught:
            await client.connect("ann", "lobby")
        assert caught.value.code == CloseCode.BROKER_UNAVAILABLE.code
        assert client.server.types == ["accept", "close"]
        assert world.engine.counters.refused == {"broker_unavailable": 1}
        stats = world.engine.stats()
        assert (stats.connections, stats.users, stats.rooms) == (0, 0, 0)

    run(test)


def test_a_connect_that_fails_in_another_way_raises_and_leaves_nothing() -> None:
    async def test(world: World) -> None:
        world.broker.fails["subscribe lobby"] = ValueError("a fault of ours")
        with pytest.raises(ValueError, match="a fault of ours"):
            await world.client().connect("ann", "lobby")
        assert world.engine.stats().connections == 0
        assert world.engine.rooms == frozenset()

    run(test)


def test_a_connect_of_a_client_that_is_gone_raises_how_it_went() -> None:
    async def test(world: World) -> None:
        client = world.client()
        client.socket.on_lost()
        with pytest.raises(WebSocketDisconnect) as caught:
            await client.connect("ann")
        assert caught.value.code == 1006

    run(test)


def test_a_socket_of_an_app_that_another_manager_serves_says_so() -> None:
    async def test(world: World) -> None:
        with pytest.raises(NotInstalled, match="not installed on the app that serves this socket"):
            await world.client(World().engine).connect()

    run(test)


def test_a_manager_that_does_not_run_connects_nothing() -> None:
    async def main() -> None:
        client = World().client()
        with pytest.raises(NotRunning):
            await client.connect()
        assert client.server.types == []

    asyncio.run(main())


@pytest.mark.parametrize(
    ("websocket", "user", "match"),
    [
        ("ann", None, "accepted: the WebSocket that the handler was given$"),
        (object.__new__(WebSocket), None, "a stand-in"),
    ],
)
def test_what_is_no_socket_of_a_server_is_refused(websocket: Any, user: Any, match: str) -> None:
    async def test(world: World) -> None:
        client = world.client()
        client.websocket = websocket
        with pytest.raises(InvalidArgument, match=match):
            await client.connect(user)

    run(test)


def test_arguments_in_the_wrong_order_are_told_the_right_one() -> None:
    async def test(world: World) -> None:
        client = world.client()
        websocket, client.websocket = client.websocket, "ann"  # type: ignore[assignment]  # which is the mistake
        with pytest.raises(InvalidArgument, match=r"first: `connect\(websocket, user_id\)`"):
            await client.connect(websocket)

    run(test)


def test_a_disconnect_takes_the_connection_out_once_and_leaves_the_socket_open() -> None:
    async def test(world: World) -> None:
        client = world.client()
        connection = await client.connect("ann", "lobby")
        for _ in range(2):
            world.engine.disconnect(client.websocket)
        assert (connection.is_open, client.socket.closed) == (False, None)
        assert world.engine.stats().connections == 0
        world.engine.disconnect("no socket")

    run(test)


@pytest.mark.parametrize("how", ["join", "connect"])
def test_a_room_over_the_limit_closes_the_connection(how: str) -> None:
    async def test(world: World) -> None:
        client = world.client()
        connection = await client.connect("ann", "lobby", "hall")
        with pytest.raises(WebSocketDisconnect) as caught:
            await (connection.join("attic") if how == "join" else client.connect(None, "attic"))
        assert caught.value.code == CloseCode.TOO_MANY_ROOMS.code
        assert not connection.is_open

    run(test, max_rooms_per_connection=2)


# Publishing


def test_a_message_reaches_the_members_of_its_room_and_has_a_position_where_there_are_positions() -> None:
    async def test(world: World) -> None:
        engine, client = world.engine, world.client()
        connection = await client.connect("ann", "kept")
        position = await engine.publish(*engine.addressed("hello", "kept", None, None))
        assert position is not None
        assert position.offset == 1
        assert await engine.publish(*engine.addressed("elsewhere", "lobby", None, None)) is None
        await connection.close()
        texts = [event["text"] for event in client.server.sent if event["type"] == "websocket.send"]
        assert texts == ["hello"]
        assert engine.stats().published == 2

    run(test)


def test_exclusions_are_connections_and_users_in_one_set() -> None:
    async def test(world: World) -> None:
        connection = await world.client().connect("ann")
        name, envelope = world.engine.addressed({"n": 1}, EVERYONE, connection, ["bob", 7], "key")
        assert name == EVERYONE_NAME
        assert envelope == Envelope(
            encode({"n": 1}), frozenset({connection.id, user_room("bob"), user_room("7")}), "key"
        )

    run(test)


def test_a_publish_of_a_manager_that_does_not_run_is_not_counted() -> None:
    async def main() -> None:
        engine = World().engine
        for publish in (engine.publish_nowait, engine.publish):
            with pytest.raises(NotRunning):
                await publish("lobby", Envelope(encode("hello")))  # type: ignore[misc]  # one of them raises at once
        assert engine.stats().published == 0

    asyncio.run(main())


def test_a_user_is_connected_exactly_while_it_has_a_connection() -> None:
    async def test(world: World) -> None:
        client = world.client()
        assert not await world.engine.is_connected("ann")
        await client.connect("ann")
        assert await world.engine.is_connected("ann")
        world.engine.disconnect(client.websocket)
        assert not await world.engine.is_connected("ann")

    run(test)
