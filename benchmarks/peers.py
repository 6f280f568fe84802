"""The servers that are measured: how each is started, its version, and the reason if it is unavailable."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .server import ROOT, open_files

SERVERS = Path(__file__).parent / "servers"
NODE_MODULES = ROOT / ".bench-node" / "node_modules"
_REDIS_PY = ("redis", "hiredis")


class NotToBeHad(Exception):
    """A peer is unavailable. The text says what is missing."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A server that can be started.

    Attributes:
        command: The command that starts it, with the placeholder ``{port}``.
        version: The version, for the results.
        environment: Additions to the environment; ``{redis}`` is the URL of a Redis server that is started for it.
    """

    command: tuple[str, ...]
    version: str
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that implements the same chat room.

    Attributes:
        name: The name in the results and on the command line.
        what: A short description.
        prepare: Prepares it in a given directory, and returns how to start it. Raises `NotToBeHad`.
        dialect: The protocol of its clients.
    """

    name: str
    what: str
    prepare: Callable[[Path], Ready]
    dialect: str = "plain"


def _asgi(app: str, *packages: str) -> Callable[[Path], Ready]:
    """Prepares an ASGI app on uvicorn with its defaults, but without a log line per connection."""
    command = ("-m", "uvicorn", "--host", "127.0.0.1", "--port", "{port}", "--log-level", "warning", app)
    return _python(command, *packages, "uvicorn", "uvloop")


def _daphne(*packages: str) -> Callable[[Path], Ready]:
    app = "benchmarks.servers.channels_app:application"
    return _python(("-m", "daphne", "-v", "0", "-b", "127.0.0.1", "-p", "{port}", app), *packages)


def _python(command: tuple[str, ...], *packages: str) -> Callable[[Path], Ready]:
    def prepare(place: Path) -> Ready:
        versions = " · ".join(f"{package} {_installed(package)}" for package in packages)
        return Ready((sys.executable, *command), versions)

    return prepare


def _on_redis(prepare: Callable[[Path], Ready], **environment: str) -> Callable[[Path], Ready]:
    """Prepares the same server with a Redis server, whose URL is in the environment."""

    def prepared(place: Path) -> Ready:
        redis, ready = redis_server(), prepare(place)
        number = _match(r"v=(\S+)", _said(redis, "--version")) or "of an unknown version"
        versions = f"{ready.version} · {Path(redis).name} {number}"
        added = {"HUBBUB_BENCH_REDIS": "{redis}", **environment}
        return replace(ready, version=versions, environment={**ready.environment, **added})

    return prepared


def redis_server() -> str:
    """Returns the Redis server program.

    Raises:
        NotToBeHad: There is none.
    """
    return _program("redis-server", "valkey-server")


def redis_command() -> tuple[str, ...]:
    """Returns the command that starts an empty Redis server without persistence."""
    options = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--loglevel", "warning")
    return (redis_server(), "--port", "{port}", *options)


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        raise NotToBeHad(f"the package {package} is not installed in this Python's environment") from None


def _node(script: str, package: str) -> Callable[[Path], Ready]:
    def prepare(place: Path) -> Ready:
        node = _program("node")
        description = NODE_MODULES / package / "package.json"
        if not description.exists():
            raise NotToBeHad(f"the npm package {package} is not in {NODE_MODULES.relative_to(ROOT)}")
        versions = f"{package} {json.loads(description.read_text())['version']} · node {_said(node, '--version')}"
        return Ready((node, str(SERVERS / script), "{port}"), versions, {"NODE_PATH": str(NODE_MODULES)})

    return prepare


def _floor(place: Path) -> Ready:
    compiler = shutil.which("cc") or _program("gcc", "clang")
    target = place / "floor"
    subprocess.run([compiler, "-O2", "-o", str(target), str(SERVERS / "floor.c")], check=True)
    return Ready((str(target), "{port}"), _said(compiler, "--version"))


def _nchan(place: Path) -> Ready:
    nginx = _program("nginx")
    built = _said(nginx, "-V", lines=9)
    module = Path(_match(r"--modules-path=(\S+)", built) or "/usr/lib/nginx/modules") / "ngx_nchan_module.so"
    if not module.exists() and "nchan" not in built:
        raise NotToBeHad("nginx is installed, but its module nchan is not")
    load = f"load_module {module};" if module.exists() else ""
    start = _configured(place, "nchan.conf", f'exec "{nginx}" -e stderr -p "{place}" -c "$1"', {"module": load})
    return Ready(start, built.splitlines()[0].removeprefix("nginx version: "))


def _nats(place: Path) -> Ready:
    nats = _program("nats-server")
    return Ready(_configured(place, "nats.conf", f'exec "{nats}" -c "$1"', {}), _said(nats, "--version"))


def _configured(place: Path, name: str, start: str, values: Mapping[str, str]) -> tuple[str, ...]:
    """Returns a command that writes the port into a configuration before it starts the server."""
    text = (SERVERS / name).read_text()
    for key, value in {"files": str(open_files()), **values}.items():
        text = text.replace(f"{{{key}}}", value)
    template = place / f"{name}.in"
    template.write_text(text)
    script = f'sed "s/[{{]port[}}]/$2/" "$0" >"$1" && {start}'
    return ("sh", "-c", script, str(template), str(place / name), "{port}")


def _program(*names: str) -> str:
    for name in names:
        if path := shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin"):
            return path
    raise NotToBeHad(f"no {' or '.join(names)} on the PATH")


def _said(*command: str, lines: int = 1) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    return "\n".join((done.stdout or done.stderr).strip().splitlines()[:lines])


def _match(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return found[1] if found else None


PEERS = {
    peer.name: peer
    for peer in (
        Peer("hubbub", "this library on uvicorn", _asgi("benchmarks.servers.hubbub_app:app", "hubbub", "fastapi")),
        Peer("floor", "a C loop of `send()`, one for each message and member", _floor),
        Peer(
            "handwritten",
            "the usual hand-written manager, on FastAPI and uvicorn",
            _asgi("benchmarks.servers.handwritten:app", "fastapi"),
        ),
        Peer(
            "hubbub-endpoint",
            "this library on uvicorn: an endpoint, and raw sockets in the same rooms",
            _asgi("benchmarks.servers.endpoint_app:app", "hubbub", "fastapi", "pydantic", "protobuf"),
        ),
        Peer(
            "sse-starlette",
            "sse-starlette on FastAPI and uvicorn, a queue per client",
            _asgi("benchmarks.servers.sse_starlette_app:app", "sse-starlette", "fastapi"),
        ),
        Peer(
            "streaming",
            "FastAPI's StreamingResponse on uvicorn, a queue per client",
            _asgi("benchmarks.servers.streaming_app:app", "fastapi"),
        ),
        Peer("bare", "the same routes on FastAPI alone", _asgi("benchmarks.servers.bare:app", "fastapi")),
        Peer(
            "websockets",
            "`websockets.broadcast` on uvloop",
            _python(("-m", "benchmarks.servers.websockets_broadcast", "{port}"), "websockets", "uvloop"),
        ),
        Peer(
            "picows",
            "picows (Cython) and a loop over the room, on uvloop",
            _python(("-m", "benchmarks.servers.picows_server", "{port}"), "picows", "uvloop"),
        ),
        Peer(
            "socketify",
            "socketify: uWebSockets (C++) from Python",
            _python(("-m", "benchmarks.servers.socketify_app", "{port}"), "socketify"),
        ),
        Peer("litestar", "Litestar channels on uvicorn", _asgi("benchmarks.servers.litestar_app:app", "litestar")),
        Peer(
            "broadcaster",
            "broadcaster with Starlette on uvicorn",
            _asgi("benchmarks.servers.broadcaster_app:app", "broadcaster", "starlette"),
        ),
        Peer(
            "python-socketio",
            "python-socketio on uvicorn",
            _asgi("benchmarks.servers.socketio_app:app", "python-socketio"),
            "socketio",
        ),
        Peer(
            "chanx",
            "chanx with fast-channels on FastAPI and uvicorn, in-memory layer",
            _asgi("benchmarks.servers.chanx_app:app", "chanx", "fast-channels", "fastapi", "pydantic"),
            "chanx",
        ),
        Peer("channels", "Django Channels on daphne, in-memory layer", _daphne("channels", "daphne", "django")),
        Peer("ws", "ws on Node", _node("ws_server.js", "ws")),
        Peer("socket.io", "Socket.IO on Node", _node("socketio_server.js", "socket.io"), "socketio"),
        Peer("nchan", "nchan, a module of nginx (C)", _nchan),
        Peer("nats", "nats-server (Go), over WebSocket", _nats, "nats"),
        Peer(
            "hubbub-redis",
            "this library on uvicorn, on `redis://`",
            _on_redis(_asgi("benchmarks.servers.hubbub_app:app", "hubbub", "fastapi", *_REDIS_PY)),
        ),
        Peer(
            "handwritten-redis",
            "the usual hand-written manager, with redis-py's Pub/Sub",
            _on_redis(_asgi("benchmarks.servers.handwritten_redis:app", "fastapi", *_REDIS_PY)),
        ),
        Peer(
            "litestar-redis",
            "Litestar channels, their Redis Pub/Sub backend",
            _on_redis(_asgi("benchmarks.servers.litestar_app:app", "litestar", *_REDIS_PY)),
        ),
        Peer(
            "litestar-streams",
            "Litestar channels, their backend of Redis streams, which keeps history",
            _on_redis(
                _asgi("benchmarks.servers.litestar_app:app", "litestar", *_REDIS_PY),
                HUBBUB_BENCH_HISTORY="100",
            ),
        ),
        Peer(
            "python-socketio-redis",
            "python-socketio with its AsyncRedisManager, which sends to local clients without waiting for Redis",
            _on_redis(_asgi("benchmarks.servers.socketio_app:app", "python-socketio", *_REDIS_PY)),
            "socketio",
        ),
        Peer(
            "channels-redis",
            "Django Channels on daphne, the Pub/Sub layer of channels_redis",
            _on_redis(_daphne("channels", "daphne", "django", "channels-redis", *_REDIS_PY)),
        ),
    )
}
