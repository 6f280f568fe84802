"""The same app under every server, started as users start it: fast where the server is known, correct everywhere."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import sys
import sysconfig
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import pytest
import websockets
from websockets.asyncio.client import ClientConnection

import hubbub
from tests.integration.endpoints import free_port, make_certificate
from tests.integration.support import DEADLINE_S, closed, eventually, receive, reset, times_slower

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")]

CHECKOUT = Path(__file__).parents[2]
APPS = "tests.integration.server_apps"
CRASH = "RuntimeError: crashed as it was told to"
AFTER_THE_END = [False, False, "WebSocketDisconnect"]


@dataclass(frozen=True)
class Kind:
    """A way to serve the app.

    Attributes:
        name: What the tests call it.
        command: The command line.
        reason: What the one log line gives as the reason for the fallback; None where the fast path is taken.
        loop: The event loop that it is about.
        tls: Whether it serves TLS.
        tells_code: Whether the app learns the close code of a client.
        own_codes: Whether it has the app close with any code, not with 1000 and 3000 to 4999 only.
        lets_close: Whether the app's sockets still work when it has been told to end.
        quiet_end: Whether it ends without tracebacks of its own.
        warns: Whether the fallback is a fault, so that the line is a warning.
        pings: Whether it notices a client that vanished.
    """

    name: str
    command: str
    reason: str | None = None
    loop: Literal["uvloop", "asyncio", "either"] = "either"
    tls: bool = False
    tells_code: bool = True
    own_codes: bool = True
    lets_close: bool = True
    quiet_end: bool = True
    warns: bool = False
    pings: bool = True


UVICORN = f"uvicorn {APPS}.chat:app --port {{port}}"
FASTAPI = "fastapi run tests/integration/server_apps/chat.py --host 127.0.0.1 --port {port}"
GUNICORN = f"gunicorn {APPS}.chat:app --bind 127.0.0.1:{{port}} --no-control-socket"
DAPHNE = "daphne --bind 127.0.0.1 --port {port}"

FAST = [
    Kind("uvicorn-uvloop", UVICORN, loop="uvloop"),
    Kind("uvicorn-asyncio", f"{UVICORN} --loop asyncio", loop="asyncio"),
    Kind("fastapi-run-uvloop", FASTAPI, loop="uvloop"),
    Kind("fastapi-run-asyncio", FASTAPI, loop="asyncio"),  # it has no option for it: as where uvloop is not installed
    Kind("gunicorn-uvloop", f"{GUNICORN} --worker-class uvicorn_worker.UvicornWorker", loop="uvloop"),
    Kind("gunicorn-asyncio", f"{GUNICORN} --worker-class uvicorn_worker.UvicornH11Worker", loop="asyncio"),
    Kind("wrapped-later", f"uvicorn {APPS}.wrapped_later:app --port {{port}}"),
]
FALLBACK = [
    Kind(
        "uvicorn-tls",
        f"{UVICORN} --ssl-certfile {{folder}}/cert.pem --ssl-keyfile {{folder}}/key.pem",
        "through the server's transport: TLS",
        tls=True,
    ),
    Kind("wrapped-outside", f"uvicorn {APPS}.wrapped_outside:app --port {{port}}", "another middleware wraps send"),
    Kind("uvicorn-websockets", f"{UVICORN} --ws websockets", "websockets_impl.WebSocketProtocol is not uvicorn's"),
    Kind("uvicorn-wsproto", f"{UVICORN} --ws wsproto", "wsproto_impl.WSProtocol is not uvicorn's", pings=False),
    Kind("uvicorn-derived", f"{UVICORN} --ws {APPS}.protocols:Derived", "protocols.Derived is not uvicorn's"),
    Kind(
        "uvicorn-changed",
        f"{UVICORN} --ws {APPS}.protocols:Changed",
        "does not behave as direct writes require: its 'writable' is ",
        warns=True,
    ),
    Kind(
        "hypercorn",
        f"hypercorn {APPS}.chat:app --bind 127.0.0.1:{{port}} --graceful-timeout 1",
        "hypercorn.",
        loop="asyncio",
        tells_code=False,
        quiet_end=False,  # its own cancelled tasks
        pings=False,
    ),
    Kind(
        "granian",
        f"granian --interface asgi {APPS}.chat:app --port {{port}}",
        "granian.",
        lets_close=False,
        pings=False,
    ),
    Kind(
        "daphne",
        f"{DAPHNE} {APPS}.own_lifespan:app",
        "daphne.server.Server is not uvicorn",
        loop="asyncio",
        own_codes=False,
        lets_close=False,
    ),
]


class Server:
    """A server as a process of its own, over one of the apps."""

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.kind = kind
        self.port = free_port()
        self.times_slower = 1.0
        self._output = folder / f"output-{self.port}"
        self._tls = ssl.create_default_context(cafile=folder / "cert.pem") if kind.tls else None
        paths = [Path(hubbub.__file__).parents[1], CHECKOUT]
        if kind.loop == "asyncio" and kind.command == FASTAPI:
            (folder / "uvloop.py").write_text('raise ImportError("not for this test")')
            paths.insert(0, folder)
        program, *arguments = kind.command.format(port=self.port, folder=folder).split()
        with self._output.open("wb") as output:
            self.process = psutil.Popen(
                [Path(sysconfig.get_path("scripts"), program), *arguments],
                cwd=CHECKOUT,
                stdout=output,
                stderr=output,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def lines(self, text: str) -> list[str]:
        return [line for line in self.output.splitlines() if text in line]

    @property
    def excuses(self) -> list[str]:
        """Where the manager says why it does not take the fast path."""
        level = "WARNING" if self.kind.warns else "INFO"
        return [line for line in self.lines(f"[hubbub] {level} ") if "not writing directly to the socket" in line]

    @property
    def surprises(self) -> int:
        """Tracebacks, without those of handlers that were told to crash."""
        output = self.output
        return output.count("Traceback") - output.count(CRASH)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def wait(self) -> None:
        """Waits until the app answers."""
        began = time.monotonic()
        while True:
            with suppress(URLError, ConnectionError, TimeoutError):
                self.get("/loop")
                break
            assert self.alive, self.output
            assert time.monotonic() < began + 40, "it does not answer:\n" + self.output
            time.sleep(0.03)
        self.times_slower = times_slower(time.monotonic() - began, usual_s=2.0)

    def kill(self) -> None:
        if self.alive:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(DEADLINE_S)

    def get(self, path: str) -> Any:
        scheme = "https" if self._tls else "http"
        with urlopen(f"{scheme}://127.0.0.1:{self.port}{path}", timeout=DEADLINE_S, context=self._tls) as response:
            return json.load(response)

    async def stats(self) -> dict[str, Any]:
        counted: dict[str, Any] = await asyncio.to_thread(self.get, "/stats")
        return counted

    async def seen(self, name: str) -> list[Any]:
        """What a handler learnt of its client's end."""
        found: list[Any] = []

        async def there() -> bool:
            found[:] = await asyncio.to_thread(self.get, f"/seen/{name}")
            return bool(found)

        await eventually(there)
        return found

    async def connections(self, count: int) -> None:
        """Waits until the manager has so many connections."""

        async def reached() -> bool:
            return bool((await self.stats())["connections"] == count)

        await eventually(reached)

    @asynccontextmanager
    async def client(self, path: str, **options: Any) -> AsyncIterator[ClientConnection]:
        settings: dict[str, Any] = {"compression": None, "open_timeout": DEADLINE_S, "ssl": self._tls, **options}
        scheme = "wss" if self._tls else "ws"
        async with websockets.connect(f"{scheme}://127.0.0.1:{self.port}{path}", **settings) as connection:
            yield connection

    @asynccontextmanager
    async def chatting(self, user: str, room: str = "lobby", **options: Any) -> AsyncIterator[ClientConnection]:
        """A user in the chat, and past the welcome."""
        async with self.client(f"/ws/{room}/{user}", **options) as connection:
            assert await receive(connection) == {"welcome": user}
            yield connection

    def means(self, wanted: int, code: int | None) -> bool:
        """Whether a close code is the wanted one, or what stands for it where the server lets the app choose few."""
        return code == wanted or (not self.kind.own_codes and code is not None and (code == 1000 or code >= 3000))


class Starter:
    """Starts a server once for all tests of it, and again after a test that ended it."""

    def __init__(self, kind: Kind, folder: Path) -> None:
        self._kind = kind
        self._folder = folder
        self._server: Server | None = None
        self._failed = False

    def server(self) -> Server:
        if self._failed:
            pytest.fail("it did not start for the test before")
        if self._server is None or not self._server.alive:
            self._failed = True
            self._server = Server(self._kind, self._folder)
            self._server.wait()
            self._failed = False
        return self._server

    def stop(self) -> None:
        if self._server is not None:
            self._server.kill()


# Each of what they are made of is in another one too.
SLOW = {"fastapi-run-asyncio", "gunicorn-asyncio", "uvicorn-derived", "uvicorn-wsproto"}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(kind, id=kind.name, marks=[pytest.mark.slow] * (kind.name in SLOW)) for kind in (*FAST, *FALLBACK)
    ],
)
def starter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    kind: Kind = request.param
    folder = tmp_path_factory.mktemp(kind.name)
    if kind.tls:
        make_certificate(folder)
    starter = Starter(kind, folder)
    yield starter
    starter.stop()


@pytest.fixture
def server(starter: Starter) -> Server:
    return starter.server()


def asks(do: str, body: object = None, **more: object) -> str:
    """What a client of the chat says."""
    return json.dumps({"do": do, "body": body, **more})


async def test_fast_path_is_taken_or_one_log_line_says_why_not(server: Server) -> None:
    async with AsyncExitStack() as stack:
        for user in ("ann", "bob", "cyd"):
            await stack.enter_async_context(server.chatting(user))
        stats = await server.stats()
    fast = server.kind.reason is None
    assert (stats["connections"], stats["fast_path"]) == (3, 1.0 if fast else 0.0)
    assert len(server.excuses) == (0 if fast else 1), server.excuses
    assert not server.lines("workers on memory://")
    vanished = f"stays connected and online: {server.kind.name.partition('-')[0]} sends no WebSocket pings"
    assert len(server.lines("stays connected and online")) == len(server.lines(vanished)) == (not server.kind.pings)
    assert all((server.kind.reason or "") in line for line in server.excuses)
    loop = await asyncio.to_thread(server.get, "/loop")
    assert server.kind.loop in ("either", loop.split(".")[0])


async def test_two_clients_chat(server: Server) -> None:
    async with server.chatting("ann") as ann, server.chatting("bob", compression="deflate") as bob:
        await ann.send(asks("broadcast", "to the room"))
        assert await receive(ann) == await receive(bob) == {"from": "ann", "body": "to the room"}

        await ann.send(asks("tell others", "not to me"))
        assert await receive(bob) == {"from": "ann", "body": "not to me"}

        await bob.send(asks("tell", "for you alone", to="ann"))
        assert await receive(ann) == {"from": "bob", "body": "for you alone"}
        assert await receive(bob) == {"reached": True}
        await bob.send(asks("tell", "anyone?", to="nobody"))
        assert await receive(bob) == {"reached": False}

        await ann.send(asks("echo", "äöü €"))
        assert await receive(ann) == {"from": "ann", "body": "äöü €"}
        await ann.send(asks("echo by hand", 1))
        assert await receive(ann) == {"from": "ann", "body": 1}

        for data in (bytes(range(256)), os.urandom(65536)):
            await bob.send(data)
            assert await receive(ann) == await receive(bob) == data
        text = "x" * 65536
        await bob.send(asks("broadcast", text))
        assert await receive(ann) == await receive(bob) == {"from": "bob", "body": text}

        for number in range(200):
            await ann.send(asks("broadcast" if number % 2 else "echo by hand", number))
        assert [(await receive(ann))["body"] for _ in range(200)] == list(range(200))
        assert [(await receive(bob))["body"] for _ in range(100)] == list(range(1, 200, 2))
    await server.connections(0)


async def test_handler_that_crashes_closes_with_1011(server: Server) -> None:
    async with server.chatting("ann") as ann, server.client("/crashing") as bob:
        await ann.send(asks("crash"))
        await bob.send("now")
        assert server.means(1011, (await closed(ann))[0])
        assert server.means(1011, (await closed(bob))[0])
    await server.connections(0)


async def test_handler_that_closes_is_told_that_it_did(server: Server) -> None:
    async with server.client("/closing/told") as ann:
        assert (await closed(ann))[0] == 4001
        assert await server.seen("told") == AFTER_THE_END
    await server.connections(0)


async def test_client_that_a_handler_refuses_can_read_why(server: Server) -> None:
    async with server.client("/refusing", subprotocols=["chat"]) as ann:
        assert ann.subprotocol == "chat"
        assert await closed(ann) == (4003, "not your room" if server.kind.own_codes else "")  # daphne has no reasons


async def test_client_that_is_sent_away_goes(server: Server) -> None:
    async with server.chatting("ann") as ann, server.chatting("bob") as bob:
        await ann.send(asks("kick", to="bob"))
        assert server.means(1008, (await closed(bob))[0])
        await server.connections(1)


@pytest.mark.parametrize("way", ["closes", "vanishes"])
async def test_handlers_hear_of_a_client_that(way: str, server: Server) -> None:
    handlers = ("receiving", "pushing", "pushing-by-hand")
    for handler in handlers:
        # Granian does not answer the close where nobody receives.
        async with server.client(f"/{handler}/{handler}-{way}", close_timeout=0.3) as ann:
            if handler != "receiving":
                assert await receive(ann) == "tick"
            if way == "closes":
                await ann.close(4321, "bye")
            else:
                reset(ann.transport)
    code, *given = await server.seen(f"receiving-{way}")
    assert given == AFTER_THE_END
    if way == "closes":
        assert code == 4321 or not server.kind.tells_code
    else:
        assert code in (1005, 1006)
    assert await server.seen(f"pushing-{way}") == AFTER_THE_END
    assert await server.seen(f"pushing-by-hand-{way}") == [
        False,
        False,
        "RuntimeError",
    ]  # Starlette's, for a second send
    await server.connections(0)


async def test_sigterm_sends_clients_away_and_ends_the_server(server: Server) -> None:
    async with (
        server.chatting("ann") as ann,
        server.client("/receiving/at-the-end") as bob,
        server.client("/pushing/at-the-end") as cyd,
    ):
        await server.connections(3)
        await eventually(lambda: server.surprises == 0)
        family = [server.process, *server.process.children(recursive=True)]
        since = time.monotonic()
        server.process.terminate()
        codes = await asyncio.gather(*map(code_of, (ann, bob, cyd)))
        await eventually(lambda: not server.alive)
        assert (time.monotonic() - since) / server.times_slower < 8, server.output
        assert not server.kind.lets_close or all(server.means(1012, code) for code in codes), codes
    await eventually(lambda: not any(process.is_running() for process in family))
    assert server.surprises == 0 or not server.kind.quiet_end, server.output
    assert len(server.excuses) == (0 if server.kind.reason is None else 1)


async def code_of(connection: ClientConnection) -> int | None:
    """Reads to the end; gives the close code."""
    with suppress(websockets.ConnectionClosed):
        async for _ in connection:
            pass
    return (await closed(connection))[0]


async def test_server_without_lifespan_is_told_what_to_do(tmp_path: Path) -> None:
    server = Server(Kind("daphne", f"{DAPHNE} {APPS}.chat:app"), tmp_path)
    try:
        server.wait()
        with pytest.raises(websockets.InvalidStatus, match="500"):
            async with server.chatting("ann"):
                pass
        await eventually(lambda: bool(server.lines("hubbub.errors.NotRunning: ")))
        assert "A server has to run the lifespan (not daphne" in server.lines("hubbub.errors.NotRunning: ")[0]
        assert (await server.stats())["connections"] == 0  # the rest of the app is served
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("command", "warnings"),
    [
        pytest.param(f"granian --interface asgi {APPS}.chat:app --port {{port}} --workers 2", 2, id="granian"),
        # A worker that was spawned knows its own number only, so that it is the second one which says it.
        pytest.param(f"python -m {APPS}.granian_spawns {{port}}", 1, id="granian-spawn"),
        pytest.param(f"hypercorn {APPS}.chat:app --bind 127.0.0.1:{{port}} --workers 2", 2, id="hypercorn"),
        pytest.param(f"{GUNICORN} --worker-class uvicorn_worker.UvicornWorker --workers 2", 2, id="gunicorn"),
    ],
)
async def test_several_workers_that_would_lose_messages_say_so(command: str, warnings: int, tmp_path: Path) -> None:
    server = Server(Kind("workers", command), tmp_path)
    try:
        await eventually(lambda: len(server.lines("[hubbub] WARNING 2 workers on memory://")) >= warnings)
        assert len(server.lines("LOST")) == warnings
    finally:
        server.kill()


async def test_hypercorn_that_pings_is_not_warned_of(tmp_path: Path) -> None:
    command = f"hypercorn {APPS}.chat:app --bind 127.0.0.1:{{port}} --websocket-ping-interval 20"
    server = Server(Kind("hypercorn", command), tmp_path)
    try:
        server.wait()
        assert not server.lines("[hubbub] WARNING")
    finally:
        server.kill()
