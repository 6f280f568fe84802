"""``hubbub run``, and who drains by hand: a server that is told to end sends its clients away over a while."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import jwt
import psutil
import pytest
import websockets
from websockets.asyncio.client import ClientConnection

import hubbub
from tests.integration.endpoints import free_port
from tests.integration.redis_server import RedisServer, fresh_prefix
from tests.integration.support import DEADLINE_S, closed, eventually, receive, times_slower
from tests.integration.test_shutdown import accepts

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")]

CHECKOUT = Path(__file__).parents[2]
RUN = ("hubbub", "run", "app:app", "--port", "0")
LISTENING = re.compile(r"(?:running on|Listening at:) http://(?:127\.0\.0\.1|0\.0\.0\.0):(\d+)")

APP = """
import os

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute

from hubbub import ConnectionManager, RoomOptions

manager = ConnectionManager(rooms={"announcing": RoomOptions(announce=True)})


async def ready(request):
    return JSONResponse(manager.ready, 200 if manager.ready else 503)


async def announced(websocket):
    user = websocket.path_params["user"]
    try:
        async with manager.connect(websocket, user, room="announcing") as connection:
            await connection.send({"type": "welcome", "worker": os.getpid(), "address": websocket.client.host})
            async for _ in connection:
                pass
    finally:
        print(user, "has left its handler", flush=True)


app = Starlette(routes=[Route("/ready", ready), WebSocketRoute("/ws/{user}", announced)])
manager.install(app)
"""

PATIENT = APP.replace("import os\n", "import os\n\nimport hubbub.server.draining\n", 1)
PATIENT += "\nhubbub.server.draining._MAX_GAP_S = 600.0\n"
"""An app whose sockets are sent away so far apart that the drain lasts until a second signal."""


@dataclass(frozen=True)
class End:
    """How a socket ended for its client.

    Attributes:
        code: The close code.
        at: When, in seconds.
        heard: The types of what it was told before.
    """

    code: int | None
    at: float
    heard: list[Any]


class Server:
    """A server as a process of its own, with workers or without."""

    def __init__(self, process: asyncio.subprocess.Process, output: Path) -> None:
        self.process = process
        self.port = 0
        self._output = output
        self._began = time.monotonic()
        self._times_slower = 1.0
        self._family: list[psutil.Process] = []

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    async def listening(self, workers: int) -> None:
        def up() -> bool:
            assert self.process.returncode is None, self.output
            return self.output.count("Application startup complete.") == workers and bool(LISTENING.search(self.output))

        await eventually(up)  # each imports all that it needs, on a machine that may be busy
        self._times_slower = times_slower(time.monotonic() - self._began, usual_s=1.0 + workers)
        self.port = int(LISTENING.findall(self.output)[0])
        await eventually(lambda: accepts(self.port))
        self._family = psutil.Process(self.process.pid).children(recursive=True)

    @asynccontextmanager
    async def client(self, path: str, **options: Any) -> AsyncIterator[ClientConnection]:
        settings: dict[str, Any] = {"compression": None, "ping_interval": None, "open_timeout": DEADLINE_S, **options}
        async with websockets.connect(f"ws://127.0.0.1:{self.port}{path}", **settings) as connection:
            yield connection

    @asynccontextmanager
    async def crowd(self, count: int, path: str = "/ws/{}") -> AsyncIterator[list[ClientConnection]]:
        async with AsyncExitStack() as stack:
            opening = (stack.enter_async_context(self.client(path.format(number))) for number in range(count))
            yield await asyncio.gather(*opening)

    async def get(self, path: str) -> tuple[int, str]:
        def answer() -> tuple[int, str]:
            try:
                with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=DEADLINE_S) as response:
                    return response.status, response.read().decode()
            except HTTPError as error:
                with error:
                    return error.code, error.read().decode()

        return await asyncio.to_thread(answer)

    async def post(self, path: str, bearer: str) -> Any:
        url, headers = f"http://127.0.0.1:{self.port}{path}", {"Authorization": f"Bearer {bearer}"}

        def answer() -> Any:
            with urlopen(Request(url, method="POST", headers=headers), timeout=DEADLINE_S) as response:
                return json.load(response)

        return await asyncio.to_thread(answer)

    def took_s(self, since: float) -> float:
        """The seconds since then, as they would be on a machine where it starts as fast as usual."""
        return (time.monotonic() - since) / self._times_slower

    def workers_of(self, connections: list[ClientConnection]) -> set[int]:
        """The processes that connections are on."""
        ports = {connection.local_address[1] for connection in connections}
        return {
            process.pid
            for process in self._family
            for each in process.net_connections("tcp")
            if each.raddr and each.raddr.port in ports
        }

    async def ended(self) -> None:
        """Waits until it has ended, and so have its workers."""
        await asyncio.wait_for(self.process.wait(), 30)
        await eventually(lambda: not any(map(alive, self._family)))


def alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


@asynccontextmanager
async def serving(
    folder: Path, program: str, *arguments: str, workers: int = 1, app: str = APP
) -> AsyncIterator[Server]:
    (folder / "app.py").write_text(app)
    paths = [Path(hubbub.__file__).parents[1], CHECKOUT]
    with (folder / "output").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", program, *arguments),
            cwd=folder,
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
    server = Server(process, folder / "output")
    try:
        await server.listening(workers)
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def welcomed(connection: ClientConnection) -> dict[str, Any]:
    """Reads up to the welcome."""
    while True:
        message: dict[str, Any] = await receive(connection)
        if message["type"] == "welcome":
            return message


async def heard(connection: ClientConnection, body: str) -> None:
    """Reads up to a message."""
    while (await receive(connection))["body"] != body:
        pass


async def end_of(connection: ClientConnection) -> End:
    """Reads to the end."""
    heard = []
    with suppress(websockets.ConnectionClosed):
        while True:
            message = await receive(connection)
            heard.append(message["type"])
    return End((await closed(connection))[0], time.monotonic(), heard)


def spread(ends: list[End]) -> tuple[float, float]:
    """How long it took from the first end to the last one, and at which part of it half of them were over."""
    times = sorted(end.at for end in ends)
    over_s = times[-1] - times[0]
    return over_s, (times[len(times) // 2] - times[0]) / over_s


async def test_sigterm_drains_every_worker_and_lets_nobody_in(tmp_path: Path) -> None:
    program, *arguments = RUN
    async with (
        serving(tmp_path, program, *arguments, "--workers", "2", "--drain-s", "600", workers=2, app=PATIENT) as server,
        server.crowd(20) as crowd,
    ):
        assert await server.get("/ready") == (200, "true")
        workers = [(await welcomed(connection))["worker"] for connection in crowd]
        ending = [asyncio.ensure_future(end_of(connection)) for connection in crowd]
        server.process.terminate()

        def all_workers_drain() -> bool:
            return {workers[number] for number, end in enumerate(ending) if end.done()} == set(workers)

        await eventually(all_workers_drain)
        assert not all(end.done() for end in ending)
        assert await server.get("/ready") == (503, "false")
        async with server.crowd(5, "/ws/late-{}") as late:
            refused = await asyncio.gather(*map(end_of, late))
        assert [(end.code, end.heard) for end in refused] == [(1012, [])] * 5
        await hastened(server, ending)
        assert server.process.returncode == 0


async def test_sigterm_spreads_the_closes(tmp_path: Path) -> None:
    program, *arguments = RUN
    drain_s = 2.5
    async with (
        serving(tmp_path, program, *arguments, "--workers", "2", "--drain-s", str(drain_s), workers=2) as server,
        server.crowd(60) as crowd,
    ):
        since = time.monotonic()
        server.process.terminate()
        ends = await asyncio.gather(*map(end_of, crowd))
        assert {end.code for end in ends} == {1012}
        over_s, half = spread(ends)
        assert 0.6 * drain_s < over_s < drain_s + 3
        assert 0.2 < half < 0.8
        # They were told to come back, and nobody is told that they went.
        assert "user_left" not in {kind for end in ends for kind in end.heard}

        await server.ended()
        assert server.took_s(since) < drain_s + 6
        assert server.process.returncode == 0
        assert server.output.count("has left its handler") >= 60
        assert "Traceback" not in server.output, server.output


async def test_second_signal_hastens(tmp_path: Path) -> None:
    program, *arguments = RUN
    async with (
        serving(tmp_path, program, *arguments, "--drain-s", "600", app=PATIENT) as server,
        server.crowd(60) as crowd,
    ):
        ending = [asyncio.ensure_future(end_of(connection)) for connection in crowd]
        server.process.send_signal(signal.SIGINT)
        done, _ = await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) < 30
        server.process.terminate()
        since = time.monotonic()
        ends = await asyncio.gather(*ending)
        await server.ended()
        assert server.took_s(since) < 15
        assert {end.code for end in ends} == {1012}
        assert server.process.returncode == 0
        assert "Traceback" not in server.output, server.output


async def hastened(server: Server, ending: Sequence[asyncio.Future[End]]) -> None:
    """Signals a server that drains until it hastens: a signal counts once it is too late to be the same word."""
    while (await asyncio.wait(ending, timeout=0.3))[1]:
        with suppress(ProcessLookupError):  # it has ended, and its last words are still being read
            server.process.terminate()
    assert {end.result().code for end in ending} == {1012}
    # They were told to come back, and nobody is told that they went.
    assert "user_left" not in {kind for end in ending for kind in end.result().heard}
    await server.ended()


async def test_a_terminal_that_is_closed_ends_it_as_well(tmp_path: Path) -> None:
    program, *arguments = RUN
    async with serving(tmp_path, program, *arguments, "--drain-s", "1") as server, server.crowd(3) as crowd:
        server.process.send_signal(signal.SIGHUP)
        assert {end.code for end in await asyncio.gather(*map(end_of, crowd))} == {1012}
        await server.ended()
        assert server.process.returncode == 0


async def test_a_thread_that_hangs_does_not_keep_it(tmp_path: Path) -> None:
    hangs = APP.replace("import os\n", "import os\nimport threading\n\nimport hubbub.server.serve\n", 1)
    hangs += (
        "\nhubbub.server.serve._SHUTDOWN_TIMEOUT_S = 0.5\nthreading.Thread(target=threading.Event().wait).start()\n"
    )
    program, *arguments = RUN
    async with serving(tmp_path, program, *arguments, app=hangs) as server:
        server.process.terminate()
        await server.ended()
        assert server.process.returncode == 1
        assert "does a thread hang?" in server.output


async def test_signal_that_a_terminal_and_the_supervisor_both_send_is_one(tmp_path: Path) -> None:
    program, *arguments = RUN
    async with (
        serving(tmp_path, program, *arguments, "--workers", "2", "--drain-s", "600", workers=2, app=PATIENT) as server,
        server.crowd(100) as crowd,
    ):
        ending = [asyncio.ensure_future(end_of(connection)) for connection in crowd]
        since = time.monotonic()
        os.killpg(server.process.pid, signal.SIGINT)  # as Ctrl+C; the supervisor passes it on
        await hastened(server, ending)
        assert server.took_s(since) < 15
        assert time.monotonic() - since >= 1.0
        assert server.process.returncode == 0
        assert "Traceback" not in server.output, server.output


@pytest.mark.parametrize(
    ("command", "workers"),
    [
        ("uvicorn examples.draining:app --port 0 --workers 2 --timeout-graceful-shutdown 5", 2),
        (
            "gunicorn examples.draining:app --bind 127.0.0.1:0 --no-control-socket"
            " --worker-class uvicorn_worker.UvicornWorker",
            1,
        ),
    ],
    ids=["uvicorn", "gunicorn"],
)
async def test_drain_by_hand(command: str, workers: int, tmp_path: Path) -> None:
    async with serving(tmp_path, *command.split(), workers=workers) as server, server.crowd(16 * workers) as crowd:
        assert await server.get("/ready") == (200, "true")
        server.process.terminate()
        ends = await asyncio.gather(*map(end_of, crowd))
        assert {end.code for end in ends} == {1012}
        assert spread(ends)[0] > 0.4
        await server.ended()
        assert server.process.returncode == 0
        assert "Traceback" not in server.output, server.output


# The first example, on many


@pytest.fixture
def quickstart(redis: RedisServer) -> str:
    """The README's app, with nothing changed but the URL."""
    app = (CHECKOUT / "examples" / "quickstart.py").read_text()
    assert app.count("ConnectionManager()") == 1
    return app.replace("ConnectionManager()", f"ConnectionManager({redis.url(prefix=fresh_prefix())!r})")


def token(user: str) -> str:
    claims = {"sub": user, "name": f"User {user}", "exp": time.time() + 600}
    return jwt.encode(claims, os.environ["JWT_KEY"], "HS256")


@pytest.mark.parametrize(
    ("command", "workers"),
    [
        ("hubbub run app:app --port 0 --workers 4", 4),
        pytest.param("uvicorn app:app --port 0 --workers 2", 2, marks=pytest.mark.slow),
        pytest.param(
            "gunicorn app:app --bind 127.0.0.1:0 --no-control-socket -w 2 -k uvicorn_worker.UvicornWorker",
            2,
            marks=pytest.mark.slow,
        ),
    ],
    ids=["hubbub run", "uvicorn", "gunicorn"],
)
async def test_the_quickstart_on_many_workers_needs_but_another_url(
    quickstart: str, command: str, workers: int, tmp_path: Path
) -> None:
    async with (
        serving(tmp_path, *command.split(), workers=workers, app=quickstart) as server,
        AsyncExitStack() as stack,
    ):
        people: list[ClientConnection] = []
        while len(server.workers_of(people)) < workers:  # the system decides who accepts
            assert len(people) < 200, "some worker gets nobody"
            user = str(1 + len(people) % 2)
            room = server.client("/ws/lobby", subprotocols=["bearer", token(user)])
            people.append(await stack.enter_async_context(room))
            await people[-1].send(json.dumps({"body": "I am in"}))  # an answer means that it has joined
            await heard(people[-1], "I am in")
        await people[0].send(json.dumps({"body": "all are in"}))
        for person in people:
            await heard(person, "all are in")

        for number, person in enumerate(people[:6]):
            await person.send(json.dumps({"body": str(number)}))
            messages = [await receive(each) for each in people]
            user = str(1 + number % 2)
            assert messages == [{"type": "message", "user_id": user, "body": str(number)}] * len(people)

        tabs, others = people[::2], people[1::2]
        assert await server.post("/users/1/notify", token("2")) == {"online": True}
        assert await server.post("/users/3/notify", token("2")) == {"online": False}
        assert [await receive(tab) for tab in tabs] == [{"type": "notification", "by": "2"}] * len(tabs)
        await people[0].send(json.dumps({"body": "bye"}))
        assert [(await receive(other))["body"] for other in others] == ["bye"] * len(others)
        assert "LOST" not in server.output
        assert "Traceback" not in server.output, server.output


# nginx


@pytest.fixture
def need_nginx() -> str:
    """Where nginx is. Without one these tests fail: what the docs print is tested, or it is not."""
    path = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")
    if path is None:
        pytest.fail("no nginx: sudo apt-get install -y --no-install-recommends nginx")
    return path


@asynccontextmanager
async def behind_nginx(nginx: str, server: Server, folder: Path, *, machines: int = 1) -> AsyncIterator[Server]:
    """nginx with the configuration of the docs, but for the ports.

    With two machines, the second one is the same server at another address.
    """
    site = (CHECKOUT / "examples" / "nginx.conf").read_text()
    replaced = [("listen 80;", "listen 127.0.0.1:{nginx};"), ("server 127.0.0.1:8000", "server 127.0.0.1:{app}")]
    if machines == 2:
        replaced.append(("# server 10.0.0.2:8000", "server 127.0.0.2:{app}"))
    port = free_port()
    for printed, ours in replaced:
        assert printed in site
        site = site.replace(printed, ours.format(nginx=port, app=server.port))
    (folder / "site.conf").write_text(site)
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}include {folder}/site.conf;\n}}\n"
    )
    with (folder / "nginx").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(nginx, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")), stdout=output, stderr=output
        )
    proxy = Server(process, folder / "nginx")
    proxy.port = port
    try:

        async def up() -> bool:
            assert process.returncode is None, proxy.output
            with suppress(OSError):
                return (await proxy.get("/ready"))[0] == 200
            return False

        await eventually(up)
        yield proxy
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def test_behind_nginx(need_nginx: str, tmp_path: Path) -> None:
    program, *arguments = RUN
    async with (
        serving(tmp_path, program, *arguments, "--drain-s", "1") as server,
        behind_nginx(need_nginx, server, tmp_path) as proxy,
    ):
        page = f"http://127.0.0.1:{proxy.port}"
        async with proxy.client("/ws/ann", origin=page, local_addr=("127.0.0.2", 0)) as ann:
            assert (await welcomed(ann))["address"] == "127.0.0.2"  # and not nginx's
            async with proxy.client("/ws/bob", additional_headers={"X-Forwarded-For": "203.0.113.9"}) as bob:
                assert (await welcomed(bob))["address"] == "127.0.0.1"  # and not what it says of itself
                assert (await receive(ann))["user_id"] == "bob"
                with pytest.raises(websockets.InvalidStatus, match="403"):
                    async with proxy.client("/ws/cyd", origin="http://elsewhere.example"):
                        pass

                server.process.terminate()
                assert [end.code for end in await asyncio.gather(end_of(ann), end_of(bob))] == [1012, 1012]
        await server.ended()
        assert (await proxy.get("/ready"))[0] == 502
        assert "Traceback" not in server.output, server.output


@pytest.mark.parametrize("machines", [1, 2])
async def test_every_socket_comes_back_through_nginx_once_the_servers_are_restarted(
    machines: int, need_nginx: str, tmp_path: Path
) -> None:
    """Also where they tried while all servers were down, and nothing but sockets was asked for since."""
    program, *_ = RUN
    arguments = ["run", "app:app", "--host", "0.0.0.0", "--port", str(free_port()), "--drain-s", "0"]
    async with AsyncExitStack() as stack:
        async with serving(tmp_path, program, *arguments) as server:
            behind = behind_nginx(need_nginx, server, tmp_path, machines=machines)
            proxy = await stack.enter_async_context(behind)
            async with proxy.crowd(6) as crowd:
                for each in crowd:
                    await welcomed(each)
                server.process.terminate()
                assert [end.code for end in await asyncio.gather(*map(end_of, crowd))] == [1012] * 6
            await server.ended()
        for _ in range(6):
            with pytest.raises(websockets.InvalidStatus, match="502"):
                async with proxy.client("/ws/early"):
                    pass
        async with serving(tmp_path, program, *arguments), proxy.crowd(6) as crowd:
            for each in crowd:
                await welcomed(each)


def test_the_docs_print_the_configuration_that_is_tested() -> None:
    (printed,) = re.findall(r"```nginx\n(.*?)```", (CHECKOUT / "docs" / "deployment.md").read_text(), re.DOTALL)
    assert printed in (CHECKOUT / "examples" / "nginx.conf").read_text()
