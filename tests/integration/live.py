"""An app with an endpoint, a client of it that writes its own JSON, and a cable that can be cut."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar

import jwt
import pytest
from fastapi import Depends, FastAPI, HTTPException, WebSocketException
from pydantic import BaseModel
from websockets.asyncio.client import ClientConnection

from hubbub import Connection, ConnectionManager, History, Limits, RoomOptions
from hubbub.auth import Claims, JWTAuth
from hubbub.endpoints.endpoint import Endpoint
from hubbub.endpoints.results import Grant, Welcome
from tests.integration.support import LiveServer, client, may_be_reset, receive, serving

KEY = os.urandom(32)
ROOMS = {
    "chat:*": RoomOptions(
        history=History(20_000, 600), announce=True, client_presence=True, client_history=True, grace_s=60
    ),
    "short:*": RoomOptions(history=History(5, 600)),
    "ticker:*": RoomOptions(),
    "small:*": RoomOptions(max_members=1),
}


current_user = JWTAuth(KEY, algorithms=["HS256"])
User = Annotated[Claims, Depends(current_user)]


def token(user: str, *, lasts_s: float = 86_400.0) -> str:
    """A token of a user."""
    return jwt.encode({"sub": user, "exp": time.time() + lasts_s}, KEY, "HS256")


def pass_time(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Moves the time by which the endpoints of this process let tokens and permissions end."""
    moved = SimpleNamespace(time=lambda: time.time() + seconds)
    monkeypatch.setattr("hubbub.endpoints.expiry.time", moved)


class Say(BaseModel):
    room: str
    text: str


class Said(BaseModel):
    user_id: str
    text: str


class Live:
    """The app.

    Attributes:
        rooms: The options of its rooms.
        users: The options of its users' own rooms.
        gates: What `wait` waits for, by name.
        ended: The users whose connections ended.
        began: What `wait` was called with.
    """

    rooms: ClassVar[Mapping[str, RoomOptions]] = ROOMS
    users: ClassVar[RoomOptions] = RoomOptions()

    def __init__(self, url: str = "memory://", **limits: Any) -> None:
        self.manager = ConnectionManager(url, rooms=self.rooms, users=self.users, limits=Limits(**limits))
        self.app = FastAPI()
        self.manager.install(self.app)
        self.live: Endpoint = self.manager.endpoint("/live", auth=current_user)
        self.open: Endpoint = self.manager.endpoint("/open", auth=None)
        self.gates: dict[str, asyncio.Event] = {}
        self.ended: list[str] = []
        self.began: list[str] = []
        self.server: LiveServer
        self._declare()

    def _declare(self) -> None:
        manager, live = self.manager, self.live

        @live.connect
        async def hello(connection: Connection, user: User) -> Welcome:
            return Welcome(data={"hello": user.sub}, rooms=["ticker:news"])

        @live.disconnect
        async def bye(user: User) -> None:
            self.ended.append(user.sub)

        @live.room("chat:{room}")
        async def may_chat(room: str, user: User) -> bool | Grant:
            if room == "broken":
                raise ZeroDivisionError
            if room == "brief":
                return Grant(data={"granted": True}, expires_at=time.time() + 1.0)
            return room != "secret"

        @live.room("{kind}:{room}")
        async def may_read(kind: str, room: str) -> bool:
            return kind in {"short", "ticker", "small"}

        @live.on("say")
        async def say(message: Say, user: User) -> Said:
            said = Said(user_id=user.sub, text=message.text)
            await manager.broadcast(said, room=f"chat:{message.room}")
            return said

        @live.on("wait")
        async def wait(message: str) -> str:
            self.began.append(message)
            await self.gates[message].wait()
            return f"waited for {message}"

        @live.on("aside", concurrent=True)
        async def aside(message: str) -> str:
            return message

        @live.on("forbid")
        async def forbid() -> None:
            raise HTTPException(403, "not you")

        @live.on("busy")
        async def busy() -> None:
            raise HTTPException(503, "later")

        @live.on("fail")
        async def fail() -> None:
            raise ZeroDivisionError

        @live.on("close")
        async def close(message: int) -> None:
            raise WebSocketException(message)

        @live.publish("chat:{room}")
        async def publish(message: dict[str, Any], room: str, user: User) -> dict[str, Any]:
            return {**message, "by": user.sub}

        @self.open.connect
        async def greet(message: dict[str, Any] | None = None) -> Welcome:
            return Welcome(data=message)

        @self.open.room("ticker:{room}")
        async def everybody(room: str) -> bool:
            return True

    async def publish(self, room: str, message: Any) -> None:
        await self.server.acall(self.manager.broadcast(message, room=room))

    async def let_go(self, name: str) -> None:
        """Opens a gate."""

        async def opened() -> None:
            self.gates[name].set()

        await self.server.acall(opened())


@contextmanager
def live_app(live: Live, **config: Any) -> Iterator[Live]:
    with serving(live.app, **config) as server:
        live.server = server
        yield live


@asynccontextmanager
async def by_hand(live: Live, user: str | None = "ann", path: str = "/live") -> AsyncIterator[ClientConnection]:
    """A client that writes its own JSON. With a user, it has connected."""
    async with client(live.server, path) as websocket:
        if user is not None:
            await websocket.send(json.dumps({"id": 1, "connect": {"token": token(user)}}))
            assert (await receive(websocket))["id"] == 1
        yield websocket


class Cable:
    """Passes bytes between clients and a server. It can be cut, and mended.

    Attributes:
        leads_to: The port of the server. It may lead elsewhere after it is mended.
        left: How many bytes of the server still arrive; None if all do. Reset by `mend`.
        port: The port to connect to.
    """

    def __init__(self, port: int) -> None:
        self.leads_to = port
        self.left: int | None = None
        self._is_cut = False
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __aenter__(self) -> Cable:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        self.cut()
        while self._tasks:  # one that relays begins others
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Resets all connections, and refuses others until `mend`."""
        self._is_cut = True
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def mend(self) -> None:
        self._is_cut, self.left = False, None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        may_be_reset(writer)
        if self._is_cut:
            writer.transport.abort()
            return
        self._writers.append(writer)
        self._spawn(self._relay(reader, writer))

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self.leads_to)
        except OSError:
            writer.transport.abort()
            return
        may_be_reset(to_server)
        if writer not in self._writers:  # it was cut meanwhile
            to_server.transport.abort()
            return
        self._writers.append(to_server)
        for source, target in ((reader, to_server), (from_server, writer)):
            self._spawn(self._pass(source, target, bounded=target is writer))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, bounded: bool) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                if bounded and self.left is not None:
                    data = data[: self.left]
                    self.left -= len(data)
                target.write(data)
                await target.drain()
        target.close()


class Hostile(Cable):
    """A proxy that breaks WebSockets: it refuses the handshake, and passes everything else."""

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, OSError):  # a browser opens connections ahead of need
            writer.close()
            return
        if b"upgrade: websocket" in head.lower():
            writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()
            return
        reader._buffer[:0] = head  # type: ignore[attr-defined]  # read again by the relay
        await super()._relay(reader, writer)
