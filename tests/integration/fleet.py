"""Workers that share a broker, in threads or as processes of their own, and clients that read all the time.

As a program it is such a worker: ``python -m tests.integration.fleet DESCRIPTOR URL``, with a bound socket.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

import uvicorn
import websockets
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection

import hubbub
from hubbub import BrokerUnavailable, Connection, ConnectionManager, History, Limits, Position, RoomOptions, Welcome
from tests.integration.support import DEADLINE_S, serving
from tests.wrapping import SPEAKS_ARRAYS, speak, unwrapped

T = TypeVar("T")

CHECKOUT = Path(__file__).parents[2]
LOOPS = ("asyncio", "uvloop")
ROOMS = {
    "kept:*": RoomOptions(history=History(50_000, 600)),
    "short:*": RoomOptions(history=History(5, 600)),
    "told:*": RoomOptions(announce=True, grace_s=60),
    "reload:*": RoomOptions(announce=True, grace_s=2),
    "brief:*": RoomOptions(announce=True, grace_s=0.2),
    "prompt:*": RoomOptions(announce=True, grace_s=0),
    "*": RoomOptions(grace_s=0),
}


def app_of(manager: ConnectionManager) -> Starlette:
    """An app whose clients say who they are, which rooms they want, and what is to be published: on raw sockets at /ws,
    and at /live as clients of an endpoint.
    """

    async def raw(websocket: WebSocket) -> None:
        asked_for = websocket.query_params
        rooms, user = asked_for.get("rooms"), asked_for.get("user")
        speak(websocket)
        names, info = rooms.split(",") if rooms else [], {"tab": int(asked_for.get("tab", 0))}
        async with manager.connect(websocket, user, rooms=names, info=info) as connection:
            await connection.send({"type": "here", "id": connection.id})
            async for asked in connection.iter_json():
                await do(asked, connection)
                await connection.send({"type": "done"})

    async def do(asked: dict[str, Any], connection: Connection) -> None:
        match asked["do"]:
            case "publish":
                await manager.broadcast([asked["room"], asked["body"]], room=asked["room"])
            case "tell others":
                await manager.broadcast([asked["room"], asked["body"]], room=asked["room"], exclude=connection)
            case "leave":
                await connection.leave(asked["room"])
            case "join":
                await connection.join(asked["room"])

    app = Starlette(routes=[WebSocketRoute("/ws", raw)])
    manager.install(app)
    live = manager.endpoint("/live", auth=_user)
    live.on("do")(do)

    @live.connect
    async def hello(connection: Connection) -> Welcome:
        return Welcome(info={"tab": int(connection.websocket.query_params.get("tab", 0))})

    @live.room("{kind}:{name}")
    async def anybody(kind: str, name: str) -> bool:
        return True

    return app


def _user(user: str | None = None) -> str | None:
    """The user, whom the query names."""
    return user


def manager_of(url: str, limits: Limits) -> ConnectionManager:
    return ConnectionManager(url, rooms=ROOMS, everyone=RoomOptions(grace_s=0), limits=limits)


class Worker:
    """A worker in a thread of this process, with its own manager and event loop.

    Attributes:
        gaps: The rooms in which members on raw sockets lost messages, as the app was told.
    """

    def __init__(self, url: str, *, loop: str = "asyncio", limits: Limits | None = None) -> None:
        self.manager = manager_of(url, limits or Limits())
        self.gaps: list[str] = []
        self.manager.on_gap(self._note_gap)
        self._serving = serving(app_of(self.manager), loop=loop)

    def __enter__(self) -> Worker:
        self.server = self._serving.__enter__()
        assert self.manager.ready, "it did not start"
        return self

    def __exit__(self, *exc: Any) -> None:
        self._serving.__exit__(*exc)

    async def _note_gap(self, room: str) -> None:
        self.gaps.append(room)

    @property
    def port(self) -> int:
        return self.server.port

    async def run(self, work: Coroutine[Any, Any, T], timeout_s: float = DEADLINE_S) -> T:
        """Runs a coroutine on the worker's loop."""
        return await self.server.acall(work, timeout_s)

    async def publish(self, room: str, body: Any, **more: Any) -> Position | None:
        return await self.run(self.manager.broadcast([room, body], room=room, **more))

    async def position(self, room: str) -> tuple[str, int]:
        """A room's position at the broker."""
        position = await self.run(self.manager._hubbub.broker.position(room))
        assert position is not None
        return position.epoch, position.offset

    async def present(self, room: str) -> dict[str, int]:
        """Who is in a room, with how many connections."""
        return {each.user_id: each.connections for each in await self.run(self.manager.presence(room))}

    @property
    def empty(self) -> bool:
        stats = self.manager.stats()
        return (stats.connections, stats.rooms, stats.queued_bytes) == (0, 0, 0) and not self.manager.rooms


@contextmanager
def fleet(*urls: str, limits: Limits | None = None) -> Iterator[list[Worker]]:
    """A worker for each URL, on one kind of event loop after the other."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(Worker(url, loop=LOOPS[number % 2], limits=limits)) for number, url in enumerate(urls)
        ]


class WorkerProcess:
    """A worker that can be killed or frozen."""

    def __init__(self, url: str, folder: Path) -> None:
        self._output = folder / "worker-output"
        paths = [str(Path(hubbub.__file__).parents[1]), str(CHECKOUT)]
        with socket.socket() as listening, self._output.open("ab") as output:
            # Bound and listening before it starts, so that clients need not wait for it.
            listening.bind(("127.0.0.1", 0))
            listening.listen(64)
            self.port: int = listening.getsockname()[1]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.fleet", str(listening.fileno()), url],
                cwd=CHECKOUT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                pass_fds=[listening.fileno()],
                stdout=output,
                stderr=output,
            )

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Idempotent."""
        self._process.kill()
        self._process.wait(DEADLINE_S)

    def terminate(self) -> int:
        """Ends it as a deployment does; gives the exit code."""
        self._process.terminate()
        return self._process.wait(DEADLINE_S)

    def freeze(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)

    def thaw(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)


@contextmanager
def worker_process(url: str, folder: Path) -> Iterator[WorkerProcess]:
    worker = WorkerProcess(url, folder)
    try:
        yield worker
    finally:
        worker.kill()


# Clients


class Listens(Protocol):
    """What a client can connect to."""

    @property
    def port(self) -> int: ...


class Listener:
    """A client on a raw socket that reads all the time.

    Attributes:
        user: Who it is; None for nobody.
        data: What came in each room.
        news: Everything else: who joined, who left.
        id: The id of its connection.
    """

    def __init__(self, user: str | None, *rooms: str) -> None:
        self.user = user
        self._arrays = user is not None and zlib.crc32(user.encode()) % 2 == 0  # bob's browser speaks another protocol
        self.data: defaultdict[str, list[Any]] = defaultdict(list)
        self.news: list[dict[str, Any]] = []
        self.id: str | None = None
        self._rooms = rooms
        self._done = 0
        self._changed = asyncio.Event()
        self._connection: ClientConnection | None = None
        self._reading: asyncio.Task[None] | None = None

    def _path(self) -> str:
        return f"/ws?rooms={quote(','.join(self._rooms))}{f'&{SPEAKS_ARRAYS}' if self._arrays else ''}"

    @asynccontextmanager
    async def on(self, worker: Listens, *, tab: int = 0) -> AsyncIterator[Listener]:
        """Connected to a worker; until it is told that it is, or the socket closed."""
        user = "" if self.user is None else f"&user={quote(self.user)}"
        async with websockets.connect(
            f"ws://127.0.0.1:{worker.port}{self._path()}&tab={tab}{user}",
            compression=None,
            ping_interval=None,
            open_timeout=DEADLINE_S,
            close_timeout=DEADLINE_S,
            max_queue=None,
        ) as connection:
            self.id = None
            self._connection = connection
            await self._greet(connection)
            reading = self._reading = asyncio.create_task(self._read(connection))
            try:
                await self.until(lambda: self._is_here or reading.done())
                yield self
            finally:
                reading.cancel()
                await asyncio.wait([reading])
                if not reading.cancelled():
                    reading.result()

    @property
    def _is_here(self) -> bool:
        return self.id is not None

    async def _greet(self, connection: ClientConnection) -> None:
        """Says what a client has to say first."""

    @property
    def open(self) -> bool:
        return self._reading is not None and not self._reading.done()

    @property
    def closed(self) -> tuple[int | None, str | None]:
        """The code and reason that it was closed with."""
        assert self._connection is not None
        return self._connection.close_code, self._connection.close_reason

    def vanish(self) -> None:
        """Ends the connection without a goodbye."""
        assert self._connection is not None
        self._connection.transport.abort()

    async def until(self, reached: Callable[[], bool], timeout_s: float = DEADLINE_S) -> None:
        """Waits until something that came has made it true."""
        try:
            async with asyncio.timeout(timeout_s):
                while not reached():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not within {timeout_s:g} s; {self!r}") from None

    async def has(self, room: str, body: Any) -> None:
        """Waits for a message; in one room everything before it has come too."""
        await self.until(lambda: body in self.data[room])

    async def hears(self, kind: str, user: str) -> None:
        """Waits to be told of somebody."""
        await self.until(lambda: (kind, user) in self.told)

    @property
    def told(self) -> list[tuple[str, str]]:
        """Who it heard joined and left."""
        return [(each["type"], each["user_id"]) for each in self.news]

    async def tell(self, do: str, room: str, body: Any = None) -> None:
        """Has its worker do something; waits until that is done."""
        assert self._connection is not None
        done = self._done + 1
        await self._connection.send(json.dumps(self._asking({"do": do, "room": room, "body": body})))
        await self.until(lambda: self._done >= done)

    def _asking(self, asked: dict[str, Any]) -> dict[str, Any]:
        return asked

    def __repr__(self) -> str:
        state = "open" if self.open else f"closed {self._connection and self.closed}"
        counts = {room: len(data) for room, data in self.data.items()}
        return f"<{self.user}: {state}, messages={counts}, told={self.told}>"

    async def _read(self, connection: ClientConnection) -> None:
        try:
            with suppress(websockets.ConnectionClosedError):
                async for message in connection:
                    await self._take(unwrapped(message) if self._arrays else message)
                    self._changed.set()
        finally:
            self._changed.set()

    async def _take(self, text: str | bytes) -> None:
        message = json.loads(text)
        if isinstance(message, list):
            room, body = message
            self.data[room].append(body)
            return
        match message["type"]:
            case "here":
                self.id = message["id"]
            case "done":
                self._done += 1
            case _:
                self.news.append(message)


class Subscriber(Listener):
    """A client of an endpoint that reads all the time, keeps its positions as the SDKs do, and comes back with them.

    When it is told that a subscription ended for want of messages (2500), it subscribes again, with its position.

    Attributes:
        positions: Where it is in each room that has positions.
        recovered: What it was told each time it came to a room: whether it has everything since its position.
        again: The rooms to which it was told to subscribe again.
        resets: The rooms of which it was told then that messages are lost.
        faults: Every gap and repeat in the offsets.
    """

    def __init__(self, user: str | None, *rooms: str) -> None:
        super().__init__(user, *rooms)
        self._arrays = False
        self.positions: dict[str, tuple[str, int]] = {}
        self.recovered: list[bool] = []
        self.again: list[str] = []
        self.resets: list[str] = []
        self.faults: list[str] = []
        self._asked: dict[
            int, tuple[str, bool]
        ] = {}  # the room by the number of its subscribe, and whether it is again
        self._number = 0

    def _path(self) -> str:
        return "/live?"

    @property
    def _is_here(self) -> bool:
        return self.id is not None and not self._asked

    async def _greet(self, connection: ClientConnection) -> None:
        self._asked.clear()
        self._number += 1
        commands = [{"id": self._number, "connect": {}}, *[self._subscribe(room, again=False) for room in self._rooms]]
        await connection.send("\n".join(map(json.dumps, commands)))

    def _subscribe(self, room: str, *, again: bool) -> dict[str, Any]:
        self._number += 1
        self._asked[self._number] = room, again
        request: dict[str, Any] = {"channel": room, "join_leave": True}
        if room in self.positions:
            epoch, offset = self.positions[room]
            request |= {"recover": True, "epoch": epoch, "offset": offset}
        return {"id": self._number, "subscribe": request}

    async def reaches(self, room: str, position: tuple[str, int]) -> None:
        """Waits until it is at a position."""
        await self.until(lambda: self.positions.get(room) == position)

    def _asking(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        return {"id": self._number, "rpc": {"method": "do", "data": asked}}

    def __repr__(self) -> str:
        return (
            f"{super().__repr__()[:-1]}, positions={self.positions}, recovered={self.recovered}, again={self.again}, "
            f"resets={self.resets}, faults={self.faults}>"
        )

    async def _take(self, text: str | bytes) -> None:
        assert isinstance(text, str)
        for line in text.splitlines():
            message = json.loads(line)
            if not message:
                await self._say({})  # a pong
            elif "push" in message:
                await self._take_push(message["push"])
            elif "error" in message:
                raise AssertionError(f"{self!r} was answered {message}")
            elif "connect" in message:
                self.id = message["connect"]["client"]
            elif "subscribe" in message:
                self._take_place(*self._asked.pop(message["id"]), message["subscribe"])
            else:
                self._done += 1

    async def _say(self, command: dict[str, Any]) -> None:
        assert self._connection is not None
        with suppress(websockets.ConnectionClosed):
            await self._connection.send(json.dumps(command))

    def _take_place(self, room: str, again: bool, place: dict[str, Any]) -> None:
        recovered = place.get("recovered", False)
        if again and not recovered:
            self.resets.append(room)
        elif not again:
            self.recovered.append(recovered)
        if place.get("positioned"):
            offset = place.get("offset", 0)
            if recovered and offset != self.positions[room][1]:
                self.faults.append(f"{room}: recovered from {self.positions[room]} to {offset}")
            self.positions[room] = place["epoch"], offset
        for publication in place.get("publications", ()):
            self._take_publication(room, publication)

    def _take_publication(self, room: str, publication: dict[str, Any]) -> None:
        offset = publication.get("offset")
        if offset is not None:
            epoch, before = self.positions[room]
            if offset != before + 1:
                self.faults.append(f"{room}: from {before} to {offset}")
            self.positions[room] = epoch, offset
        into, body = publication["data"]
        self.data[into].append(body)

    async def _take_push(self, push: dict[str, Any]) -> None:
        room = push.get("channel", "")
        match push:
            case {"pub": publication}:
                self._take_publication(room, publication)
            case {"join": event} | {"leave": event}:
                kind = "user_joined" if "join" in push else "user_left"
                self.news.append({"type": kind, "room": room, "user_id": event["info"].get("user")})
            case {"unsubscribe": {"code": 2500}}:
                self.again.append(room)
                await self._say(self._subscribe(room, again=True))
            case _:
                raise AssertionError(f"{self!r} was told {push}")


C = TypeVar("C", bound=Listener)


@asynccontextmanager
async def listening(*places: tuple[str | None, Listens], rooms: tuple[str, ...] = ()) -> AsyncIterator[list[Listener]]:
    """Clients on raw sockets, each on a worker of its own choice, all in the same rooms."""
    async with coming([(Listener(user, *rooms), worker) for user, worker in places]) as listeners:
        yield listeners


@asynccontextmanager
async def subscribing(
    *places: tuple[str | None, Listens], rooms: tuple[str, ...] = ()
) -> AsyncIterator[list[Subscriber]]:
    """Clients of the endpoint, each on a worker of its own choice, all in the same rooms."""
    async with coming([(Subscriber(user, *rooms), worker) for user, worker in places]) as subscribers:
        yield subscribers


@asynccontextmanager
async def coming(places: list[tuple[C, Listens]]) -> AsyncIterator[list[C]]:
    """Clients, each on a worker."""
    async with AsyncExitStack() as stack:
        for client, worker in places:
            await stack.enter_async_context(client.on(worker))
        yield [client for client, _ in places]


# Publishing all the time


class Stream:
    """Publishes numbers into a room, one after the other, until it is told to end.

    Attributes:
        accepted: The messages whose publish returned.
        refused: Those whose publish raised BrokerUnavailable.
    """

    def __init__(self, worker: Worker, room: str, name: str) -> None:
        self.room = room
        self.accepted: list[str] = []
        self.refused: list[str] = []
        self._worker = worker
        self._name = name
        self._going = True
        self._ended: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Stream:
        self._ended = asyncio.ensure_future(self._worker.run(self._go(), 60.0))
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._going = False
        assert self._ended is not None
        await self._ended

    async def _go(self) -> None:
        number = 0
        while self._going:
            body = f"{self._name} {number}"
            number += 1
            try:
                await self._worker.manager.broadcast([self.room, body], room=self.room)
                self.accepted.append(body)
            except BrokerUnavailable:
                self.refused.append(body)
            await asyncio.sleep(0.002)  # the pace

    def check(self, listener: Listener) -> None:
        """Whether what a client got of it is in order and without repeats."""
        mine = [int(body.split()[1]) for body in listener.data[self.room] if str(body).startswith(f"{self._name} ")]
        assert mine == sorted(set(mine)), f"{listener.user} got {mine}"

    def check_whole(self, listener: Listener) -> None:
        """Whether a client got all that was accepted, too."""
        self.check(listener)
        missing = set(self.accepted) - set(listener.data[self.room])
        assert not missing, f"{listener.user} lacks {sorted(missing)}"


def main() -> None:
    descriptor, url = sys.argv[1:]
    config = uvicorn.Config(app_of(manager_of(url, Limits())), timeout_graceful_shutdown=5)
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(descriptor))])


if __name__ == "__main__":
    main()
