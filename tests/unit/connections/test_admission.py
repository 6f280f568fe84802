"""How a socket becomes a connection: each limit, each order of events on the way in, and sending users away.

The server is a fake, below a real socket and Starlette's own WebSocket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.websockets import WebSocket, WebSocketDisconnect

from hubbub.close import CloseCode, Closed
from hubbub.connections.admission import Admission
from hubbub.connections.connection import Connection, session_of
from hubbub.connections.registry import Registry
from hubbub.connections.session import Session
from hubbub.connections.socket import Socket, State
from hubbub.connections.sweeper import Sweeper
from hubbub.envelope import Kick
from hubbub.lifecycle import Lifecycle
from hubbub.names import RoomName
from hubbub.options import Limits
from hubbub.origin import OriginPolicy
from hubbub.timers import Timers
from tests.unit import sockets

OUT = Kick(4005, "out")
HEADERS = [(b"host", b"app.example"), (b"origin", b"https://evil.example")]


class Manager(sockets.Manager):
    """As much of a manager as an admission needs."""

    def __init__(self, **limits: Any) -> None:
        super().__init__(**limits)
        self.origins = OriginPolicy([])
        self.registry: Registry[Connection] = Registry()
        self.looking = Sweeper(Limits(**limits), Lifecycle(), Timers())
        self.admission = Admission(self, self.registry, self.looking)

    async def join(self, session: Session, room: RoomName) -> None:
        raise AssertionError("an admission joins nothing")

    async def leave(self, session: Session, room: RoomName) -> None:
        raise AssertionError("an admission leaves nothing")

    def flush(self, session: Session) -> None:
        pass

    def forget(self, session: Session, *, grace: bool) -> None:
        session.mark_gone()
        self.registry.remove(session.id)


class Client:
    """A client that has asked for a socket, and the calls that its handler makes."""

    def __init__(self, manager: Manager, *others: sockets.Manager, address: str = "192.0.2.1") -> None:
        self.manager = manager
        self.server = sockets.Server()
        self.server.inbox.put_nowait({"type": "websocket.connect"})
        receive, send = self.server.inbox.get, self.server.send
        self.socket = Socket([manager, *others], receive, send, address=address, where="'/ws'", offered=[])
        manager.sweeper.watch(self.socket)
        scope = {"type": "websocket", "path": "/ws", "headers": HEADERS, "query_string": b"", "hubbub": self.socket}
        self.websocket = WebSocket(scope, self.socket.receive, self.socket.send)

    async def admit(self, user: str | None = None, *, rooms: int = 0) -> Connection:
        return await self.manager.admission.admit(
            self.socket,
            self.websocket,
            user,
            info={"name": "Ann"},
            rooms=rooms,
            subprotocol=None,
            headers=None,
        )

    async def refused(self, user: str | None = None, *, rooms: int = 0) -> Closed:
        """What a refusal raises, which is also what the client was closed with."""
        with pytest.raises(WebSocketDisconnect) as caught:
            await self.admit(user, rooms=rooms)
        closed = Closed(caught.value.code, caught.value.reason)
        assert self.socket.closed == closed
        assert self.socket.sessions == []
        return closed


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    asyncio.run(main())


def test_a_socket_is_accepted_and_registered_and_looked_after() -> None:
    async def test() -> None:
        manager = Manager()
        client = Client(manager)
        connection = await client.admit("ann")
        assert client.server.types == ["accept"]
        assert (connection.user_id, connection.info, connection.is_open) == ("ann", {"name": "Ann"}, True)
        assert list(manager.registry) == [connection]
        assert client.socket.sessions == [session_of(connection)]
        assert list(manager.looking.sockets) == [client.socket]
        assert manager.sweeper.watched == []  # by the manager that connected it, and no other
        assert not manager.counters.refused

    run(test)


def test_a_socket_that_the_handler_accepted_is_not_accepted_again() -> None:
    async def test() -> None:
        client = Client(Manager())
        await client.websocket.accept()
        await client.admit()
        assert client.server.types == ["accept"]

    run(test)


@pytest.mark.parametrize(
    ("limits", "rooms", "cause"),
    [
        ({"max_connections": 1}, 0, CloseCode.TOO_MANY_CONNECTIONS),
        ({"max_connections_per_user": 1}, 0, CloseCode.TOO_MANY_USER_CONNECTIONS),
        ({"max_connections_per_address": 1}, 0, CloseCode.TOO_MANY_ADDRESS_CONNECTIONS),
        ({"max_rooms_per_connection": 2}, 3, CloseCode.TOO_MANY_ROOMS),
    ],
    ids=str,
)
def test_a_socket_over_a_limit_is_accepted_then_closed_with_the_reason(
    limits: dict[str, Any], rooms: int, cause: CloseCode
) -> None:
    async def test() -> None:
        manager = Manager(**limits)
        await Client(manager).admit("ann")
        client = Client(manager)
        assert await client.refused("ann", rooms=rooms) == (cause.code, cause.reason)
        assert client.server.types == ["accept", "close"]
        assert manager.counters.refused == {cause.name.lower(): 1}
        assert len(manager.registry) == 1

    run(test)


def test_a_limit_of_one_user_or_address_is_not_anothers() -> None:
    async def test() -> None:
        manager = Manager(max_connections_per_user=1, max_connections_per_address=1, max_rooms_per_connection=2)
        await Client(manager).admit("ann", rooms=2)
        await Client(manager, address="192.0.2.2").admit("bob")
        await Client(manager, address="192.0.2.3").admit(None)
        assert len(manager.registry) == 3

    run(test)


def test_a_manager_that_drains_and_a_token_that_ran_out_refuse() -> None:
    async def test() -> None:
        manager = Manager()
        expired = Client(manager)
        expired.socket.expire_at(1.0)
        assert await expired.refused() == (1008, "token expired")
        accepted = Client(manager)
        await accepted.websocket.accept()
        manager.draining = True
        assert await accepted.refused() == (1012, "")
        assert manager.counters.refused == {"token_expired": 1, "service_restart": 1}

    run(test)


def test_an_origin_that_only_another_manager_of_the_app_lets_in_is_refused_with_403() -> None:
    async def test() -> None:
        manager = Manager()
        client = Client(manager, sockets.Manager())
        assert await client.refused() == (1008, "origin not allowed")
        assert client.server.types == ["close"]
        assert client.socket.state is State.REFUSED
        assert manager.counters.refused == {"origin": 1}

    run(test)


def test_an_origin_is_refused_with_a_close_where_the_handler_has_accepted() -> None:
    async def test() -> None:
        client = Client(Manager(), sockets.Manager())
        await client.websocket.accept()
        assert await client.refused() == (1008, "origin not allowed")
        assert client.server.types == ["accept", "close"]

    run(test)


def test_the_middleware_has_asked_for_the_origin_where_there_is_one_manager() -> None:
    async def test() -> None:
        assert (await Client(Manager()).admit()).is_open

    run(test)


def test_a_client_that_leaves_while_it_is_accepted_is_not_registered() -> None:
    async def test() -> None:
        manager = Manager()
        client = Client(manager)
        client.server.gone = True
        assert await client.refused("ann") == (1006, "")
        assert len(manager.registry) == 0
        assert not manager.admission.knows("ann")

    run(test)


@pytest.mark.parametrize("whom", ["ann", None])
def test_an_instruction_that_comes_while_a_socket_is_accepted_reaches_it(whom: str | None) -> None:
    async def test() -> None:
        manager = Manager()
        client = Client(manager)
        client.server.taking.clear()
        arriving = asyncio.create_task(client.refused("ann"))
        await client.server.asked.wait()
        assert manager.admission.knows("ann")
        assert len(manager.registry) == 0
        manager.admission.kick(whom, OUT)
        client.server.taking.set()
        assert await arriving == (4005, "out")
        assert not manager.admission.knows("ann")

    run(test)


def test_an_instruction_closes_the_one_connection_that_it_names_or_all_but_those_that_it_spares() -> None:
    async def test() -> None:
        manager = Manager()
        one, other, third = [await Client(manager).admit("ann") for _ in range(3)]
        client = Client(manager)
        client.server.taking.clear()
        arriving = asyncio.create_task(client.admit("ann"))
        await client.server.asked.wait()
        manager.admission.kick("ann", Kick(4005, "out", only=one.id))
        assert [each.is_open for each in (one, other, third)] == [False, True, True]
        client.server.taking.set()
        arrived = await arriving
        assert arrived.is_open, "it had no id that anybody could name"
        manager.admission.kick("ann", Kick(4005, "out", spared=(other.id, arrived.id)))
        assert [each.is_open for each in (one, other, third, arrived)] == [False, True, False, True]
        manager.admission.kick(None, OUT)
        await manager.tasks.close(5.0)

    run(test)


def test_an_instruction_closes_what_its_user_had_and_nothing_of_others_or_of_later() -> None:
    async def test() -> None:
        manager = Manager()
        ann, bob = await Client(manager).admit("ann"), await Client(manager).admit("bob")
        manager.admission.kick("ann", Kick(4005, "out", age_s=60.0))  # given before either was there
        assert ann.is_open
        manager.admission.kick("ann", OUT)
        assert (ann.is_open, bob.is_open) == (False, True)
        assert session_of(ann).socket.closed == Closed(4005, "out")
        assert not manager.admission.knows("ann")
        assert manager.admission.knows("bob")
        manager.admission.kick(None, OUT)
        assert not bob.is_open
        await manager.tasks.close(5.0)

    run(test)
