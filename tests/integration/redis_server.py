"""A Redis server of the tests' own, which they start, kill, freeze and cut; and a proxy that makes one slow or deaf."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import quote, urlencode

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from hubbub.brokers.redis.channel import Keys
from hubbub.brokers.redis.inbox import Inbox
from tests.integration.endpoints import free_port, make_certificate
from tests.integration.fleet import Worker, WorkerProcess, fleet, worker_process
from tests.integration.support import DEADLINE_S, eventually

_PROGRAMS = tuple(filter(None, (os.environ.get("HUBBUB_REDIS_SERVER"), "redis-server", "valkey-server")))
_READERS: dict[bytes, tuple[str, tuple[object, ...]]] = {
    b"string": ("GET", ()),
    b"hash": ("HGETALL", ()),
    b"set": ("SMEMBERS", ()),
    b"list": ("LRANGE", (0, -1)),
    b"zset": ("ZRANGE", (0, -1)),
    b"stream": ("XRANGE", ("-", "+")),
}
_numbers = count(1)
Mode: TypeAlias = Literal["standalone", "cluster", "sentinel"]


def fresh_prefix() -> str:
    """A prefix that no other test has: tests that share a server don't meet."""
    return f"test-{next(_numbers)}"


def as_text(value: Any) -> str:
    """What Redis gave, or a key of ours, as text."""
    return value.decode() if isinstance(value, bytes) else str(value)


class RedisServer:
    """A server on a port of this machine. It keeps its port, so that it can come back.

    Args:
        folder: For its data and what it prints.
        durable: Whether what it acknowledged is there after `kill` and `start`; else nothing is.
        tls: Whether it speaks TLS only, with a certificate that ``folder/cert.pem`` vouches for.
        password: What clients have to say.
        mode: Whether it is a server that can serve, or the only node of a cluster, or a sentinel that watches nothing.
    """

    def __init__(
        self,
        folder: Path,
        *,
        durable: bool = False,
        tls: bool = False,
        password: str | None = None,
        mode: Mode = "standalone",
    ) -> None:
        self.port = free_port()
        self._mode = mode
        self.folder = folder
        self._durable = durable
        self._tls = tls
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None
        if tls:
            make_certificate(folder)
        self._client = Redis(
            host="127.0.0.1",
            port=self.port,
            password=password,
            socket_timeout=DEADLINE_S,
            retry=Retry(NoBackoff(), 0),
            ssl=tls,
            ssl_ca_certs=str(folder / "cert.pem") if tls else None,
        )

    @property
    def certificate(self) -> Path:
        return self.folder / "cert.pem"

    @property
    def socket(self) -> Path:
        """Its socket in the file system, where it speaks no TLS."""
        return self.folder / "socket"

    def url(self, *, through: Proxy | None = None, database: int = 0, **options: object) -> str:
        """Its URL, for a broker with these options."""
        scheme = "rediss" if self._tls else "redis"
        credentials = "" if self._password is None else f":{quote(self._password, safe='')}@"
        port = self.port if through is None else through.port
        query = f"?{urlencode(options)}" if options else ""
        return f"{scheme}://{credentials}127.0.0.1:{port}/{database}{query}"

    # Its life

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
        if program is None:
            pytest.fail("no redis-server on PATH; install it with: sudo apt-get install redis-server", pytrace=False)
        output = self.folder / "output"
        with output.open("ab") as file:
            self._process = subprocess.Popen([program, *self._arguments()], stdout=file, stderr=file)
        deadline = time.monotonic() + DEADLINE_S
        while not self._answers():
            assert self._process.poll() is None, output.read_text(errors="replace")
            assert time.monotonic() < deadline, output.read_text(errors="replace")
            time.sleep(0.005)
        if self._mode == "cluster":
            self.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)

    def _arguments(self) -> list[str]:
        if self._mode == "sentinel":
            configuration = self.folder / "sentinel.conf"
            configuration.touch()  # which it writes
            return [str(configuration), "--sentinel", "--bind", "127.0.0.1", "--port", str(self.port)]
        arguments = ["--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "", "--databases", "4"]
        if self._mode == "cluster":
            arguments += ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
        if self._tls:
            arguments += ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
            for option, name in (("cert", "cert"), ("key", "key"), ("ca-cert", "cert")):
                arguments += [f"--tls-{option}-file", str(self.folder / f"{name}.pem")]
        else:
            arguments += ["--port", str(self.port), "--unixsocket", self.socket.name]
        if self._password is not None:
            arguments += ["--requirepass", self._password]
        return [*arguments, "--appendonly", "yes" if self._durable else "no", "--appendfsync", "always"]

    def _answers(self) -> bool:
        with suppress(RedisError, OSError):
            return bool(self._pid == self.command("INFO", "server")["process_id"])
        return False

    @property
    def _pid(self) -> int:
        assert self._process is not None, "the server does not run"
        return self._process.pid

    def kill(self) -> None:
        """Ends it without a word. Idempotent."""
        self._client.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait(DEADLINE_S)
            self._process = None

    def freeze(self) -> None:
        """Stops it where it is: connections stay, nothing is answered."""
        os.kill(self._pid, signal.SIGSTOP)
        os.waitpid(self._pid, os.WUNTRACED)

    def thaw(self) -> None:
        os.kill(self._pid, signal.SIGCONT)

    def backup(self, folder: Path) -> None:
        """Copies the data of a durable one."""
        shutil.copytree(self.folder / "appendonlydir", folder)

    def restore(self, folder: Path) -> None:
        """Puts a copy in the place of the data, while it does not run."""
        shutil.rmtree(self.folder / "appendonlydir")
        shutil.copytree(folder, self.folder / "appendonlydir")

    # What it is told and asked

    def command(self, *arguments: object) -> Any:
        return self._client.execute_command(*arguments)

    def cut(self, kind: Literal["pubsub", "normal"]) -> int:
        """Cuts the connections of a kind, but not the tests' own; gives how many."""
        return int(self.command("CLIENT", "KILL", "TYPE", kind))

    def command_counts(self) -> dict[str, int]:
        """How often each command was called since it started."""
        found: dict[str, dict[str, int]] = self.command("INFO", "commandstats")
        return {name.removeprefix("cmdstat_"): each["calls"] for name, each in found.items()}

    def errors(self, kind: str) -> int:
        """How often it has answered with an error."""
        found: dict[str, Any] = self.command("INFO", "errorstats")
        return int(found.get(f"errorstat_{kind}", {"count": 0})["count"])

    def channels(self, prefix: str) -> set[str]:
        """The channels of rooms, in the first database, that somebody subscribes to."""
        return {
            as_text(each) for each in self.command("PUBSUB", "CHANNELS", f"{as_text(Keys(prefix).channel(''))[:-1]}*")
        }

    def workers(self, key: object) -> set[str]:
        """The names of the workers."""
        return {as_text(each) for each in self.command("HKEYS", key)}

    def subscribers(self, channel: object) -> int:
        """How many connections subscribe to a channel."""
        return int(self.command("PUBSUB", "NUMSUB", channel)[1])

    def connections(self, kind: Literal["pubsub", "normal"]) -> int:
        """How many connections of a kind there are, the tests' own among the normal ones."""
        listed: bytes = self.command("CLIENT", "LIST", "TYPE", kind)
        return len(listed.splitlines())

    def mentions(self, worker: str, prefix: str) -> list[str]:
        """The keys that say something of a worker, other than that it was taken for dead."""
        whole = re.compile(rf"{re.escape(worker)}(?![\w:-])")
        return [
            name
            for name in map(as_text, self.command("KEYS", f"{prefix}:*"))
            if not name.endswith(":claimed") and (worker in name or whole.search(repr(self._value(name))))
        ]

    def _value(self, key: str) -> Any:
        reader, arguments = _READERS.get(self.command("TYPE", key), ("GET", ()))  # it may have run out since
        return self.command(reader, key, *arguments)


@contextmanager
def running_redis(
    folder: Path,
    *,
    durable: bool = False,
    tls: bool = False,
    password: str | None = None,
    mode: Mode = "standalone",
) -> Iterator[RedisServer]:
    """A server for as long as the block lasts."""
    server = RedisServer(folder, durable=durable, tls=tls, password=password, mode=mode)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module", name="redis")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One for the tests of a module that do it no harm; each uses a prefix of its own."""
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def prefix() -> str:
    """What the keys of a module's fleet begin with."""
    return fresh_prefix()


@pytest.fixture(scope="module")
def served(redis: RedisServer, prefix: str) -> Iterator[list[Worker]]:
    """Three workers for the tests of a module that leave them as they were."""
    with fleet(*[redis.url(prefix=prefix)] * 3) as workers:
        yield workers


@pytest.fixture(name="workers")
async def workers_that_are_left_empty(served: list[Worker]) -> AsyncIterator[list[Worker]]:
    yield served
    await eventually(lambda: all(worker.empty for worker in served))


@pytest.fixture
def canaries(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """While this is set, as at first, workers find and replace a deaf subscription. A test clears it to keep one."""
    sends, going = Inbox.send_canary, threading.Event()
    going.set()

    async def send_canary(inbox: Inbox) -> None:
        if going.is_set():
            await sends(inbox)

    monkeypatch.setattr(Inbox, "send_canary", send_canary)
    return going


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """For a room of the test's own: the graces of another test's users are not over yet."""
    test: str = request.node.name
    return test.removeprefix("test_")[:80]


@pytest.fixture(name="own_redis")
def redis_that_forgets(tmp_path: Path) -> Iterator[RedisServer]:
    """One for a test that ends it or cuts it: it comes back without its data."""
    with running_redis(tmp_path) as server:
        yield server


@pytest.fixture(name="durable_redis")
def redis_that_remembers(tmp_path: Path) -> Iterator[RedisServer]:
    """One for a test that ends it: it comes back with all that it had acknowledged."""
    with running_redis(tmp_path, durable=True) as server:
        yield server


@asynccontextmanager
async def one_more(
    redis: RedisServer, folder: Path, *, count: int = 1, lease_s: float = 15.0
) -> AsyncIterator[tuple[list[Worker], WorkerProcess, str, str]]:
    """Workers in this process, and one that is a process of its own; with the prefix, and that one's name at Redis."""
    prefix = fresh_prefix()
    names = Keys(prefix).workers
    url = redis.url(prefix=prefix, lease_s=lease_s)
    with fleet(*[url] * count) as workers:
        before = redis.workers(names)
        assert len(before) == count
        with worker_process(url, folder) as process:

            def started() -> bool:
                assert process.alive, process.output
                return len(redis.workers(names)) > count

            await eventually(started)
            (name,) = redis.workers(names) - before
            yield workers, process, prefix, name


# Between a worker and Redis


class _Pair:
    """A connection of a worker, and the one to Redis that goes with it.

    Attributes:
        subscribes: Whether it is a subscriber's.
        deaf: Whether what Redis says is lost.
        swallows: Whether what either says is lost, as behind a firewall that has forgotten the connection.
        flowing: Whether what Redis says is read.
        answered: Whether Redis spoke last.
        passing: Whether what is said to Redis gets there.
    """

    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self.subscribes = False
        self.deaf = False
        self.swallows = False
        self.answered = True
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.passing = asyncio.Event()
        self.passing.set()
        self._writers = writers

    def close(self) -> None:
        """Ends both, after what is written."""
        for writer in self._writers:
            writer.close()

    def abort(self) -> None:
        self.flowing.set()
        self.passing.set()
        for writer in self._writers:
            writer.transport.abort()


class Proxy:
    """Stands between a worker and Redis, in a thread of its own.

    Attributes:
        port: Where workers connect to.
        delay_s: How long what goes either way is held up, at least (twice as long at most).
        closed: Whether it takes no connections.
        leads_to: The port of the server that connections made from now on lead to.
        rewrites: What is put in the place of what, in what Redis says.
        round_trips: How often a worker said something after Redis had answered, over all connections.
    """

    def __init__(self, server: RedisServer) -> None:
        self.port = 0
        self.closed = False
        self.delay_s = 0.0
        self.leads_to = server.port
        self.rewrites: tuple[bytes, bytes] = b"", b""
        self.round_trips = 0
        self._pairs: set[_Pair] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending = asyncio.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="proxy", daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        assert self._started.wait(DEADLINE_S)
        return self

    def __exit__(self, *exc: object) -> None:
        self._do(self._ending.set)
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()

    # What it does to the connections that there are; those made later are well

    def lose(self, what: Literal["messages", "answers"]) -> None:
        """What Redis says goes nowhere: to subscribers, or to the others. The connections stay."""

        def lose() -> None:
            for pair in self._pairs:
                pair.deaf = pair.deaf or pair.subscribes == (what == "messages")

        self._do(lose)

    def swallow(self) -> None:
        """What is said over the connections goes nowhere, either way. They stay."""

        def swallow() -> None:
            for pair in self._pairs:
                pair.swallows = True

        self._do(swallow)

    def hold(self, what: Literal["messages", "answers", "requests"] = "messages") -> None:
        """Takes nothing more from Redis for subscribers, as a worker does whose loop is blocked; or for the others.

        Or keeps what the others say, also when they have given up; `release` lets it arrive late.
        """

        def hold() -> None:
            for pair in self._pairs:
                if pair.subscribes == (what == "messages"):
                    (pair.passing if what == "requests" else pair.flowing).clear()

        self._do(hold)

    def release(self) -> None:
        """Ends `hold`."""

        def release() -> None:
            for pair in self._pairs:
                pair.flowing.set()
                pair.passing.set()

        self._do(release)

    def cut_off(self) -> None:
        """Cuts all connections, and lets none be made until `closed` is False again."""
        self.closed = True
        self.sever()

    def sever(self) -> None:
        """Cuts all connections."""

        def sever() -> None:
            for pair in tuple(self._pairs):
                pair.abort()

        self._do(sever)

    def _do(self, action: Callable[[], None]) -> None:
        async def do() -> None:
            action()

        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(do(), self._loop).result(DEADLINE_S)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._ending.wait()
        server.close()
        for pair in tuple(self._pairs):
            pair.abort()
        while self._pairs:  # noqa: ASYNC110 - each ends at once
            await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.closed:
                raise ConnectionRefusedError
            from_redis, to_redis = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        pair = _Pair(writer, to_redis)
        self._pairs.add(pair)
        try:
            await asyncio.gather(
                self._carry(reader, to_redis, pair, answers=False),
                self._carry(from_redis, writer, pair, answers=True),
            )
        finally:
            self._pairs.discard(pair)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """With a small buffer: what is not read is to wait at Redis, not here."""
        plain = socket.socket()
        try:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
            plain.setblocking(False)
            await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", self.leads_to))
        except BaseException:
            plain.close()
            raise
        return await asyncio.open_connection(sock=plain)

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pair: _Pair, *, answers: bool
    ) -> None:
        with suppress(OSError):
            while True:
                data = await reader.read(65536)
                if not data:
                    break
                await (pair.flowing if answers else pair.passing).wait()
                if pair.swallows or (answers and pair.deaf):
                    continue
                if not answers and b"\r\nSUBSCRIBE\r\n" in data:  # the command, and no word in a script
                    pair.subscribes = True
                self.round_trips += pair.answered and not answers
                pair.answered = answers
                if answers and self.rewrites[0]:
                    data = data.replace(*self.rewrites)
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(data)
                await writer.drain()
        pair.flowing.set()
        pair.close()
