"""The scenarios of the benchmark, the peers in each, and the targets for hubbub."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .peers import PEERS
from .server import open_files

PAYLOAD_BYTES = 128
_LARGE_BYTES = 4096
_WARM_S = 0.5
_SPARE_FILES = 64


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a benchmark.

    Attributes:
        members: The members of the room. The sizes of the other scenarios follow from it.
        seconds: The measuring time of each case.
    """

    members: int = 1000
    seconds: float = 3.0

    @property
    def timing(self) -> dict[str, float]:
        return {"warm_s": min(_WARM_S, self.seconds / 4), "measure_s": self.seconds}

    @property
    def connections(self) -> int:
        """The number of connections that are held idle, or opened and closed."""
        return self.members * 5


@dataclass(frozen=True, slots=True)
class Trial:
    """The life of a server: it is started, loaded in one or more phases, and stopped.

    Attributes:
        peer: The name of the server.
        phases: The phases of load, each with its case.
        groups: The paths of the clients, group by group. A client that speaks another dialect than the others of the
            server has the path ``"{dialect}:{path}"``.
        subject: The row of the results, if it is not named after the peer.
        payload: The size of a message in bytes.
        environment: Additions to the server's environment.
        files: The number of sockets that each side needs.
        workers: The number of workers, each on its own port. The clients are assigned to them in turn.
        senders: The paths of clients outside of the only group that send its messages. Without any, its clients do.
    """

    peer: str
    phases: Sequence[tuple[str, Mapping[str, Any]]]
    groups: Sequence[Sequence[str]] = ()
    subject: str = ""
    payload: int = PAYLOAD_BYTES
    environment: Mapping[str, str] = field(default_factory=dict)
    files: int = 0
    workers: int = 1
    senders: Sequence[str] = ()

    @property
    def row(self) -> str:
        return self.subject or self.peer

    @property
    def name(self) -> str:
        return f"{self.peer}, {self.subject}" if self.subject else self.peer

    @property
    def sockets(self) -> int:
        return _SPARE_FILES + (self.files or sum(map(len, self.groups)) + len(self.senders))


How = Literal["ratio", "pairs", "more", "median", "worst"]


@dataclass(frozen=True, slots=True)
class Target:
    """A target for hubbub.

    Attributes:
        text: The description in the results.
        case: The case of the scenario.
        metric: The metric that is compared.
        of: The row that is judged.
        limit: The highest value that meets the target.
        over: The row that it is compared with.
        how: The value that is judged: the ``"ratio"`` of the medians, the median of the ratios of the ``"pairs"``, the
            difference (``"more"``) of the medians, the ``"median"`` itself, or the ``"worst"`` of all runs.
        unit: The unit of that value.
    """

    text: str
    case: str
    metric: str
    of: str
    limit: float
    over: str = ""
    how: How = "ratio"
    unit: str = ""


_COST: Mapping[str, str] = {
    "cpu_us": "CPU per delivery, µs",
    "per_s": "deliveries/s",
    "p50_ms": "p50, ms",
    "p99_ms": "p99, ms",
    "server_busy": "server busy",
    "load_busy": "generator busy",
}
_COST_ON_REDIS = {**_COST, "redis_busy": "Redis busy"}


@dataclass(frozen=True, slots=True)
class Scenario:
    """A kind of load.

    Attributes:
        name: The name on the command line.
        text: The description in the results.
        trials: The trials of one run.
        metric: The metric of the ratios.
        metrics: The metrics of the cases in which that is another one.
        of: The row that the others are compared with.
        columns: The metrics in the table, with their titles.
        targets: The targets for hubbub.
    """

    name: str
    text: str
    trials: Callable[[Size], list[Trial]]
    metric: str = "cpu_us"
    of: str = "hubbub"
    columns: Mapping[str, str] = field(default_factory=lambda: _COST)
    targets: Sequence[Target] = ()
    metrics: Mapping[str, str] = field(default_factory=dict)

    def metric_of(self, case: str) -> str:
        """Returns the metric of the ratios of a case."""
        return self.metrics.get(case, self.metric)


_REDIS = [
    "hubbub-redis",
    "handwritten-redis",
    "litestar-redis",
    "python-socketio-redis",
    "channels-redis",
]
_STREAMS = "litestar-streams"
_SSE = ("sse-starlette", "streaming")
_ALL = [name for name in PEERS if name not in ("hubbub-endpoint", "bare", "chanx", *_SSE, _STREAMS, *_REDIS)]
_PACED = {"hubbub", "handwritten", "websockets", "socketify", "ws"}
_SOME = ["hubbub", "handwritten", "socketify", "ws"]


def _fanout(size: Size) -> list[Trial]:
    windows = [(f"window {window}", {"kind": "closed", "window": window, **size.timing}) for window in (1, 16, 64)]
    paced = ("200 messages/s", {"kind": "paced", "publishers": 16, "rate": 200, **size.timing})
    return [
        Trial(peer, [*windows, paced] if peer in _PACED else windows, [["/room/r"] * size.members]) for peer in _ALL
    ]


def _rooms(size: Size) -> list[Trial]:
    rooms = [[f"/room/r{number:04}"] * 10 for number in range(size.members // 10)]
    windows = [(f"window {window}", {"kind": "closed", "window": window, **size.timing}) for window in (1, 4)]
    return [Trial(peer, windows, rooms) for peer in [*_SOME, "litestar"]]


def _users(size: Size) -> list[Trial]:
    users = [[f"/user/u{number:04}"] * 2 for number in range(size.members // 2)]
    return [Trial(peer, [("window 1", {"kind": "closed", "window": 1, **size.timing})], users) for peer in _SOME]


def _echo(size: Size) -> list[Trial]:
    echo = [("echo", {"kind": "closed", "window": 1, **size.timing})]
    read = {"text": "x" * PAYLOAD_BYTES, "json": f'{{"body":"{"x" * (PAYLOAD_BYTES - 11)}"}}'}
    phases = {
        kind: {"kind": "inbound", "path": f"/read/{kind}", "clients": 200, "payload": payload, **size.timing}
        for kind, payload in read.items()
    }
    return [
        *[
            Trial(peer, echo, [["/echo"]] * (size.members // 5))
            for peer in ("hubbub", "bare", "websockets", *_SOME[2:])
        ],
        *[Trial(peer, [(f"{kind}, only read", phases[kind])]) for kind in phases for peer in ("hubbub", "bare")],
    ]


_SHAPES = {"a room": "/room/r", "a room, each a user": "/member/r/u{number:05}"}


def _paths(size: Size, shape: str) -> list[str]:
    return [_SHAPES[shape].format(number=number) for number in range(size.connections)]


def _connect(size: Size) -> list[Trial]:
    return [
        Trial(peer, [(shape, {"kind": "connect", "paths": _paths(size, shape), "at_once": 64})], files=size.connections)
        for shape in _SHAPES
        for peer in ("hubbub", "bare", *(["handwritten"] if shape == "a room" else []))
    ]


def _memory(size: Size) -> list[Trial]:
    return [
        Trial(
            peer,
            [(shape, {"kind": "memory", "paths": _paths(size, shape), "settle_s": size.seconds})],
            files=size.connections,
        )
        for shape in _SHAPES
        for peer in ("hubbub", "bare", *(["handwritten"] if shape == "a room" else []))
    ]


def _slow(size: Size) -> list[Trial]:
    paced = {
        "kind": "paced",
        "publishers": 4,
        "rate": 200,
        "warm_s": size.seconds / 3,
        "measure_s": size.seconds * 3,  # long enough for an outbox to fill, and for the closed client to reconnect
        "patience_s": 3.0,
    }
    return [
        Trial(peer, [(peer, {**paced, "never_reads": path})], [["/room/r"] * (size.members // 4)], row, _LARGE_BYTES)
        for peer in ("hubbub", "handwritten")
        for row, path in (("one never reads", "/room/r"), ("all read", ""))
    ]


def _scale(size: Size) -> list[Trial]:
    def trial(peer: str, factor: int, watched: bool) -> Trial:
        return Trial(
            peer,
            [(peer, {"kind": "closed", "window": 1, **size.timing, "probe": "/loop" if watched else ""})],
            [["/room/r"] * (size.members * factor)],
            f"members × {factor}{', loop watched' if watched else ''}",
            environment={"HUBBUB_BENCH_TICKER": "1"} if watched else {},
        )

    return [
        trial("hubbub", 1, False),
        trial("hubbub", 10, False),
        trial("hubbub", 10, True),
        trial("handwritten", 10, True),
    ]


def _redis_fanout(size: Size) -> list[Trial]:
    windows = [(f"window {window}", {"kind": "closed", "window": window, **size.timing}) for window in (1, 16, 64)]
    return [Trial(peer, windows, [["/room/r"] * size.members]) for peer in [*_REDIS, "hubbub"]]


_ENDPOINT = "hubbub-endpoint"
_JSON, _PROTOBUF, _RAW, _MIXED = "JSON", "Protobuf", "raw", "half raw, half JSON"
_MEMBERS = {_RAW: "/room/r", _JSON: "subscriber:r", _PROTOBUF: "subscriber-protobuf:r"}
_REQUEST, _SAY, _SUBSCRIBING = "a request", "a typed message to all", "connecting"
_ASKING = {
    _RAW: ("bare", "typed:/ask"),
    _JSON: (_ENDPOINT, "asking:ask"),
    _PROTOBUF: (_ENDPOINT, "asking-protobuf:ask"),
    "JSON, one dependency": (_ENDPOINT, "asking:ask, one dependency"),
    "JSON, a dependency of a dependency": (_ENDPOINT, "asking:ask, a dependency of a dependency"),
    "JSON, a dependency with yield": (_ENDPOINT, "asking:ask, a dependency with yield"),
    "JSON, a dependency in a thread": (_ENDPOINT, "asking:ask, a dependency in a thread"),
    "chanx": ("chanx", "ask"),
    "python-socketio": ("python-socketio", "socketio-asking:ask"),
}
_SAYING = {
    _JSON: (_ENDPOINT, "subscriber:r"),
    _PROTOBUF: (_ENDPOINT, "subscriber-protobuf:r"),
    "chanx": ("chanx", "say"),
    "python-socketio": ("python-socketio", "socketio-typed:say"),
}


def _endpoint(size: Size) -> list[Trial]:
    def closed(window: int) -> dict[str, Any]:
        return {"kind": "closed", "window": window, **size.timing}

    half = size.members // 2
    rooms = {row: [path] * size.members for row, path in _MEMBERS.items()}
    rooms[_MIXED] = [_MEMBERS[_RAW], _MEMBERS[_JSON]] * half
    windows = [(f"window {window}", closed(window)) for window in (1, 16)]
    return [
        *[
            Trial(_ENDPOINT, windows, [paths], row, senders=["/publish/r"] * min(16, size.members))
            for row, paths in rooms.items()
        ],
        *[
            Trial(peer, [(_REQUEST, closed(1))], [[path]] * (size.members // 5), row)
            for row, (peer, path) in _ASKING.items()
        ],
        *[Trial(peer, [(_SAY, closed(1))], [[path] * size.members], row) for row, (peer, path) in _SAYING.items()],
        *[
            Trial(
                _ENDPOINT,
                [(_SUBSCRIBING, {"kind": "connect", "paths": [path] * size.members, "at_once": 64})],
                subject=row,
                files=size.members,
            )
            for row, path in _MEMBERS.items()
        ],
    ]


_EVENT_STREAMS = "event streams"
_READERS = {
    _RAW: (_ENDPOINT, _MEMBERS[_RAW]),
    _EVENT_STREAMS: (_ENDPOINT, "events:r"),
    "sse-starlette": ("sse-starlette", "events:r"),
    "StreamingResponse": ("streaming", "events:r"),
}
_HELD = "held idle"


def _events(size: Size) -> list[Trial]:
    windows = [(f"window {window}", {"kind": "closed", "window": window, **size.timing}) for window in (1, 16)]
    return [
        *[
            Trial(peer, windows, [[path] * size.members], row, senders=["/publish/r"] * min(16, size.members))
            for row, (peer, path) in _READERS.items()
        ],
        *[
            Trial(
                peer,
                [(_HELD, {"kind": "memory", "paths": [path] * size.connections, "settle_s": size.seconds})],
                subject=row,
                files=size.connections,
            )
            for row, (peer, path) in _READERS.items()
        ],
    ]


_KEPT = {"HUBBUB_BENCH_ROOMS": json.dumps({"*": {"history": 100}})}
_MISSED = 1000
_NUMBERED = {"HUBBUB_BENCH_ROOMS": json.dumps({"*": {"history": _MISSED, "replay": _MISSED}})}
_LATENCY_TIMES = 4  # longer than the others: 50 messages a second need that much time for a p99


def _redis_rooms(size: Size) -> list[Trial]:
    rooms = [[f"/room/r{number:04}"] * 2 for number in range(size.members)]
    window = {"kind": "closed", "window": 1, **size.timing}
    return [
        *[Trial(peer, [("without history", window)], rooms) for peer in [*_REDIS, "hubbub"]],
        *[
            Trial(peer, [("with history", window)], rooms, environment=_KEPT if peer != _STREAMS else {})
            for peer in ("hubbub-redis", "hubbub", _STREAMS)
        ],
    ]


def _redis_latency(size: Size) -> list[Trial]:
    timing = {"warm_s": size.timing["warm_s"], "measure_s": size.seconds * _LATENCY_TIMES}
    phases = [("idle", {"kind": "across", "rate": 50, **timing})]
    return [Trial(peer, phases, [["/room/r"] * 2], workers=2) for peer in _REDIS]


def _redis_recovery(size: Size) -> list[Trial]:
    clients = min(size.connections, open_files() - _SPARE_FILES)

    def trial(peer: str, case: str, path: str) -> Trial:
        paths = [path.format(number=number) for number in range(clients)]
        phase = {"kind": "storm", "path": "/room/r", "paths": paths, "messages": _MISSED}
        return Trial(peer, [(case, phase)], environment=_NUMBERED, files=clients)

    cases = {f"{clients:,} clients": "/room/r", f"{clients:,} clients, each a user": "/member/r/u{number:05}"}
    return [trial(peer, case, path) for case, path in cases.items() for peer in ("hubbub-redis", "hubbub")]


_FANOUT_TARGETS = [
    Target("window 1: CPU per delivery, against the C floor", "window 1", "cpu_us", "hubbub", 1.35, "floor"),
    Target("window 16: against the hand-written manager", "window 16", "cpu_us", "hubbub", 0.13, "handwritten"),
    Target("window 16: against socketify (uWebSockets)", "window 16", "cpu_us", "hubbub", 2.0, "socketify"),
    Target("window 64: against socketify (uWebSockets)", "window 64", "cpu_us", "hubbub", 1.3, "socketify"),
    Target(
        "16 publishers, 200 messages/s: CPU used, against the hand-written manager",
        "200 messages/s",
        "cpu_us",
        "hubbub",
        0.6,
        "handwritten",
    ),
    Target("the same: p99", "200 messages/s", "p99_ms", "hubbub", 0.6, "handwritten"),
]

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "fanout",
            "One room. Each message of a member goes to all members. First a closed loop: a fixed number of messages "
            "(the window) is in flight, each from another member, and the next is sent when one has reached all. Then "
            "a paced load: 16 publishers send 200 messages a second in total, at random times and without waiting, and "
            "CPU is counted until the last has arrived.",
            _fanout,
            targets=_FANOUT_TARGETS,
        ),
        Scenario(
            "rooms",
            "The same members in rooms of ten, a window in each room.",
            _rooms,
            targets=[
                Target(
                    "100 rooms of 10: CPU per delivery, against the hand-written manager",
                    "window 1",
                    "cpu_us",
                    "hubbub",
                    0.6,
                    "handwritten",
                )
            ],
        ),
        Scenario("users", "Users with two tabs each. Each message of a tab goes to both tabs of its user.", _users),
        Scenario(
            "echo",
            "Each client receives its own messages back. Then 200 clients send messages that the server only reads: "
            "with `async for` and `iter_json` of a connection, compared with Starlette's `iter_text` and `iter_json` "
            "on bare FastAPI. In these cases a delivery is one to the server, which answers one message in a hundred.",
            _echo,
            targets=[
                Target(f"one received message ({kind}), against bare FastAPI", case, "cpu_us", "hubbub", 1.1, "bare")
                for kind, case in (("`async for`", "text, only read"), ("`iter_json`", "json, only read"))
            ],
        ),
        Scenario(
            "connect",
            "Connections are opened, 64 at a time, held, and closed with a Close frame.",
            _connect,
            metric="open_us",
            columns={"open_us": "CPU to accept, µs", "life_us": "CPU with the close, µs", "per_s": "accepted/s"},
            targets=[
                Target(
                    "CPU of an accepted connection, against bare FastAPI", "a room", "open_us", "hubbub", 1.2, "bare"
                ),
                Target(
                    "the same, each a user (for comparison)", "a room, each a user", "open_us", "hubbub", 1.2, "bare"
                ),
            ],
        ),
        Scenario(
            "memory",
            "Connections are opened and stay idle. The table shows how much each adds to the server's own memory (USS) "
            "and resident memory (RSS), immediately and after it has settled.",
            _memory,
            metric="uss_kb",
            columns={
                "uss_kb": "USS, KiB",
                "rss_kb": "RSS, KiB",
                "uss_opened_kb": "USS at once, KiB",
                "rss_opened_kb": "RSS at once, KiB",
            },
            targets=[
                Target(text, shape, "uss_kb", "hubbub", 2.5, "bare", "more", " KiB")
                for text, shape in (
                    ("memory of an idle connection, over bare FastAPI", "a room"),
                    ("the same, each a user (for comparison)", "a room, each a user"),
                )
            ],
        ),
        Scenario(
            "slow",
            "One room with a quarter of the members. Four of them send 200 messages of 4 KiB a second in total, paced. "
            "In one case another member never reads, has almost no receive buffer, and reconnects whenever it is "
            "closed. Latencies are those of the other members. A message that has not arrived after 3 seconds counts "
            "with its age.",
            _slow,
            metric="p99_ms",
            of="one never reads",
            columns={
                "p50_ms": "p50, ms",
                "p99_ms": "p99, ms",
                "max_ms": "longest, ms",
                "missing": "share not arrived",
                "closings": "closed by the server",
                "server_busy": "server busy",
                "load_busy": "generator busy",
            },
            targets=[
                Target(
                    "one member that never reads: p99 of the others, against none",
                    "hubbub",
                    "p99_ms",
                    "one never reads",
                    1.1,
                    "all read",
                    "pairs",
                ),
                Target(
                    "the same: longest latency of all runs",
                    "hubbub",
                    "max_ms",
                    "one never reads",
                    50,
                    how="worst",
                    unit=" ms",
                ),
            ],
        ),
        Scenario(
            "scale",
            "One room, window 1, and the same with ten times the members. In separate runs, a ticker of 1 ms in the "
            "server measures the longest time for which its event loop was blocked.",
            _scale,
            of="members × 10",
            columns={**_COST, "loop_ms": "loop blocked, ms"},
            targets=[
                Target(
                    "10,000 members: CPU per delivery, against 1,000",
                    "hubbub",
                    "cpu_us",
                    "members × 10",
                    1.2,
                    "members × 1",
                ),
                Target(
                    "10,000 members: longest time that the loop is blocked (median of the runs)",
                    "hubbub",
                    "loop_ms",
                    "members × 10, loop watched",
                    10,
                    how="median",
                    unit=" ms",
                ),
            ],
        ),
        Scenario(
            "endpoint",
            "An endpoint, which speaks the Centrifugo protocol, compared with raw sockets. First a room of raw "
            "members, of JSON or Protobuf subscribers, or of both, with a window of messages in flight. They are "
            "published by 16 raw sockets outside of the room, the same for all. "
            f"*{_REQUEST.capitalize()}*: a fifth as many clients each have one request in flight, with a Pydantic "
            "model in and one out. *raw* is FastAPI alone, with the same models by hand: `json.loads`, "
            "`model_validate`, `model_dump_json`, `send_text`. A delivery is an answer. The functions with "
            "dependencies do the same. "
            f"*{_SAY.capitalize()}*: each message is validated, and a model made of it is sent to all members, "
            f"without an answer. *{_SUBSCRIBING.capitalize()}*: as in `connect`, with one subscription each, in the "
            "frame of the `connect` command; raw sockets are put into one room.",
            _endpoint,
            of=_JSON,
            columns={**_COST, "open_us": "CPU to accept, µs", "life_us": "CPU with the close, µs"},
            metrics={_SUBSCRIBING: "open_us"},
            targets=[
                *[
                    Target(f"{case}: CPU per delivery, {row} against raw members", case, "cpu_us", row, limit, _RAW)
                    for case in ("window 1", "window 16")
                    for row, limit in ((_JSON, 1.1), (_PROTOBUF, 1.15), (_MIXED, 1.15))
                ],
                Target("a request in JSON, against a raw handler by hand", _REQUEST, "cpu_us", _JSON, 1.6, _RAW),
                Target("the same in Protobuf (for comparison)", _REQUEST, "cpu_us", _PROTOBUF, 1.6, _RAW),
                Target(
                    "CPU of an accepted connection with one subscription in JSON, against a raw one in one room",
                    _SUBSCRIBING,
                    "open_us",
                    _JSON,
                    1.5,
                    _RAW,
                ),
            ],
        ),
        Scenario(
            "events",
            "Readers of one room over HTTP, as Server-Sent Events, compared with raw WebSocket members of the same "
            "room, and with streams that are written by hand. Messages are published by 16 raw sockets outside of the "
            "room, with a window of messages in flight. "
            f"*{_HELD.capitalize()}*: the memory of a reader that is told nothing.",
            _events,
            of=_EVENT_STREAMS,
            columns={**_COST, "uss_kb": "USS, KiB", "rss_kb": "RSS, KiB"},
            metrics={_HELD: "uss_kb"},
            targets=[
                Target(
                    f"{case}: CPU per delivery, event streams against raw members",
                    case,
                    "cpu_us",
                    _EVENT_STREAMS,
                    1.5,
                    _RAW,
                )
                for case in ("window 1", "window 16")
            ],
        ),
        Scenario(
            "redis_fanout",
            "The fan-out again, but each message goes through a Redis server to all members. Only the worker's CPU "
            "counts. For comparison, hubbub also runs on `memory://`.",
            _redis_fanout,
            of="hubbub-redis",
            columns=_COST_ON_REDIS,
            targets=[
                Target(
                    "window 16: CPU per delivery through Redis, against the same on `memory://`",
                    "window 16",
                    "cpu_us",
                    "hubbub-redis",
                    1.25,
                    "hubbub",
                ),
                Target(
                    "window 16: against the hand-written manager with redis-py's Pub/Sub",
                    "window 16",
                    "cpu_us",
                    "hubbub-redis",
                    0.15,
                    "handwritten-redis",
                ),
            ],
        ),
        Scenario(
            "redis_rooms",
            "As many rooms as the other scenarios have members, with two members and one message in flight in each. "
            "The table shows the publishes per second of one worker, and the cost of each. Then the same with a "
            "history of 100 messages in each room, for the peers that have one.",
            _redis_rooms,
            metric="publish_us",
            of="hubbub-redis",
            columns={
                "publish_us": "CPU per publish, µs",
                "publishes_s": "publishes/s",
                **{name: title for name, title in _COST_ON_REDIS.items() if name not in ("cpu_us", "per_s")},
            },
        ),
        Scenario(
            "redis_latency",
            "Two idle workers, each with one client in the same room. One client sends 50 messages a second at random "
            "times. The latency is the time until the other has a message.",
            _redis_latency,
            metric="p50_ms",
            of="hubbub-redis",
            columns={"p50_ms": "p50, ms", "p99_ms": "p99, ms", "max_ms": "longest, ms", "missing": "share not arrived"},
        ),
        Scenario(
            "redis_recovery",
            f"A room with {_MISSED:,} messages in its history. All clients reconnect at once, as fast as the server's "
            "listen queue accepts them, each with the position before the first message. The table shows the time "
            "until the last client has every message. A sample of the clients is checked message by message.",
            _redis_recovery,
            metric="max_ms",
            of="hubbub-redis",
            columns={
                "max_ms": "all complete, ms",
                "p50_ms": "half complete, ms",
                "accepted_ms": "all accepted, ms",
                "per_s": "messages/s",
                "cpu_us": "CPU per message, µs",
                "peak_mb": "peak memory, MiB",
                "server_busy": "server busy",
                "load_busy": "generator busy",
                "redis_busy": "Redis busy",
            },
        ),
    )
}

GROUPS = {"redis": [name for name in SCENARIOS if name.startswith("redis_")]}
"""The groups of scenarios that have a name on the command line."""
