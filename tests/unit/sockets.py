"""A fake server below a real `Socket`, and a fake manager above it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from hubbub.connections.checks import check
from hubbub.connections.socket import Socket
from hubbub.connections.transports import Event
from hubbub.metrics.counters import Counters
from hubbub.options import Limits, RefuseWith
from hubbub.protocols import ClientProtocol, RawProtocol
from hubbub.tasks import Tasks

ACCEPT = {"type": "websocket.accept"}


class Sweeper:
    """Notes the sockets that are to be checked."""

    def __init__(self) -> None:
        self.watched: list[Socket] = []

    def watch(self, socket: Socket) -> None:
        self.watched.append(socket)

    def unwatch(self, socket: Socket) -> None:
        self.watched.remove(socket)

    def release(self, socket: Socket) -> None:
        if socket in self.watched:
            self.watched.remove(socket)


class Manager:
    """As much of a manager as a socket needs."""

    def __init__(self, **limits: Any) -> None:
        self.limits = Limits(**limits)
        self.counters = Counters()
        self.tasks = Tasks()
        self.protocol: ClientProtocol = RawProtocol(app_ping=False, client_frames=True)
        self.refuse_with: RefuseWith = "close"
        self.draining = False
        self.sweeper = Sweeper()


class Session:
    """As much of a connection as a socket needs."""

    id = "connection"

    def __init__(self) -> None:
        self.calls: list[str] = []

    def flush(self) -> None:
        self.calls.append("flush")

    def end(self, *, grace: bool) -> None:
        self.calls.append("gone" if grace else "gone without grace")


class Server:
    """A socket of a server.

    Attributes:
        sent: What was sent to it.
        inbox: What it gives to those who receive.
        asked: Set once something was sent, taken or not.
        taking: Cleared, a send does not return.
        gone: Whether its client is, so that a send raises.
    """

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.inbox: asyncio.Queue[Event] = asyncio.Queue()
        self.asked = asyncio.Event()
        self.taking = asyncio.Event()
        self.taking.set()
        self.gone = False

    async def send(self, event: Event) -> None:
        if self.gone:
            raise ConnectionResetError("the client is gone")
        self.asked.set()
        await self.taking.wait()
        self.sent.append(dict(event))

    @property
    def types(self) -> list[str]:
        return [event["type"].removeprefix("websocket.") for event in self.sent]


class Site:
    """A socket on a fake server, with a connection, in the task of its handler."""

    def __init__(self, offered: list[str], limits: dict[str, Any]) -> None:
        self.manager = Manager(**limits)
        self.server = Server()
        receive, send = self.server.inbox.get, self.server.send
        self.socket = Socket([self.manager], receive, send, address="::1", where="'/ws'", offered=offered)
        self.session = Session()
        self.socket.sessions.append(self.session)

    def spare_the_task(self) -> None:
        """Keeps aborts from the task, which is the test's: through ASGI there is nothing else that they could end."""
        self.socket.handler.end()

    async def accept(self) -> None:
        await self.socket.send(dict(ACCEPT))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self.socket.send({"type": "websocket.close", "code": code, "reason": reason})

    def check(self, in_s: float = 0.0) -> None:
        check(self.socket, asyncio.get_running_loop().time() + in_s)


def on_site(test: Callable[[Site], Awaitable[None]], *offered: str, **limits: Any) -> None:
    """Runs a test on a site, and then ends the tasks of its manager."""

    async def main() -> None:
        site = Site(list(offered), limits)
        await test(site)
        await site.manager.tasks.close(5.0)

    asyncio.run(main())
