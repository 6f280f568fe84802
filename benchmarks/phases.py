"""The load generator: what it does to a server. A process of its own, on a core of its own.

Reads a specification (JSON) from standard input and writes one JSON line per phase.
"""

from __future__ import annotations

import gc
import json
import os
import random
import resource
import select
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

from . import wire
from .dialects import DIALECTS
from .load import Client, Group, Load
from .meter import Meter, family, settled
from .storm import storm

Result = dict[str, Any]

_ROUND_S = 15.0  # what a window may take to go once around
_ROUNDS = 2  # that are measured at least
_STEP_S = 0.05
_ANSWERED = 100  # the servers' /read routes answer one message in so many
_WARM_CONNECTIONS = 50


def closed(load: Load, window: int, warm_s: float, measure_s: float, probe: str = "") -> Result:
    """The closed loop, in every group: a message is in flight until every member of its group has it.

    As soon as one is through, the next one is sent, by as many publishers in turn as the window is wide. Where messages
    come in batches, the window is sent again when the batch is through.

    Args:
        load: The clients.
        window: Messages in flight per group.
        warm_s: How long before it is measured; longer where not every group has had a message by then (a server may
            open connections for each of the first).
        measure_s: How long it is measured; longer where a window takes long to go around.
        probe: A path that the server answers with JSON, which is added: asked as it begins to measure, and as it ends.
    """
    if len(load.clients) * window > _ROUND_S * load.rate:
        return {"skipped": f"a window would take longer than {_ROUND_S:.0f} s to go once around"}
    if load.rate:
        measure_s = max(measure_s, _ROUNDS * len(load.clients) * window / load.rate)

    def refill(group: Group) -> None:
        clients = group.clients
        for _ in range(window - (group.sent - group.low)):
            load.send(clients[group.sent % min(window, len(clients))])

    load.begin()
    load.through = refill
    for group in load.groups:
        refill(group)
    _run(load, warm_s, 1)
    if probe:
        _asked(load, probe)
    meter = load.meter()
    _run(load, measure_s, _ROUNDS)
    result = meter.stop()
    if probe:
        result |= _asked(load, probe)
    load.through = lambda group: None
    load.finish()
    load.rate = result["per_s"]
    size = len(load.clients) / len(load.groups)
    return {**result, "publish_us": result["cpu_us"] * size, "publishes_s": result["per_s"] / size}


def _run(load: Load, seconds: float, rounds: int) -> None:
    """Reads for a while, and on until in every group so many messages have been through; with a limit to that."""
    goals = [(group, group.low + rounds) for group in load.groups]
    load.run(seconds)
    deadline = time.perf_counter() + rounds * _ROUND_S
    while any(group.low < goal for group, goal in goals) and time.perf_counter() < deadline:
        load.run(_STEP_S)


def _asked(load: Load, path: str) -> Result:
    with urllib.request.urlopen(f"http://127.0.0.1:{load.address[1]}{path}", timeout=30) as answer:
        result: Result = json.load(answer)
    return result


def paced(
    load: Load,
    publishers: int,
    rate: float,
    warm_s: float,
    measure_s: float,
    seed: int = 1,
    never_reads: str = "",
    patience_s: float = 60.0,
) -> Result:
    """Messages at random times (a Poisson process) from clients of the first group that do not wait for anything.

    Counts until all have arrived, so that a server that does not keep up pays for the same messages as one that does.

    Args:
        load: The clients.
        publishers: How many of them send.
        rate: Messages a second, all together.
        warm_s: How long before it is measured.
        measure_s: How long messages are sent.
        seed: Of the random times.
        never_reads: Where one more client connects that never reads, again and again as it is closed.
        patience_s: How long to wait for the last messages. What is still missing then counts with its age so far.
    """
    chance = random.Random(seed)
    senders = load.groups[0].clients[:publishers]
    guest = NonReader(load, never_reads) if never_reads else None
    try:
        load.begin()
        _send_paced(load, chance, senders, rate, warm_s)
        _finished(load, patience_s)
        load.begin()
        meter = load.meter()
        _send_paced(load, chance, senders, rate, measure_s)
        missing = _finished(load, patience_s)
        result = meter.stop()
    finally:
        closings = guest.stop() if guest else 0
    if guest:
        result["closings"] = closings
    return {**result, "missing": missing}


def across(load: Load, rate: float, warm_s: float, measure_s: float, seed: int = 1) -> Result:
    """Messages at random times from a client of the first worker; how long until the clients of the others have them.

    Args:
        load: The clients, dealt out to several workers.
        rate: Messages a second.
        warm_s: How long before it is measured.
        measure_s: How long messages are sent.
        seed: Of the random times.
    """
    for client in load.clients.values():
        client.watched = client.sock.getpeername() != load.address
    return paced(load, 1, rate, warm_s, measure_s, seed)


def _send_paced(load: Load, chance: random.Random, senders: Sequence[Client], rate: float, seconds: float) -> None:
    now = time.perf_counter()
    deadline, due = now + seconds, now + chance.expovariate(rate)
    while (now := time.perf_counter()) < deadline:
        while due <= now:
            load.send(chance.choice(senders))
            due += chance.expovariate(rate)
        load.turn(max(0.0, min(due, deadline) - now))


def _finished(load: Load, patience_s: float) -> float:
    """Waits until all has arrived. Gives the share that has not."""
    try:
        load.finish(patience_s)
    except TimeoutError:
        if load.problems:
            raise
        now = time.perf_counter()
        for client in load.clients.values():
            if client.watched:
                load.latencies += [now - at for number, at in load.sent_at.items() if number not in client.seen]
    wanted = sum(group.sent * len(group.clients) for group in load.groups)
    return 1 - load.delivered() / wanted if wanted else 0.0


class NonReader(threading.Thread):
    """A client that never reads, with room for next to nothing; it comes back whenever it is closed.

    It can't see that: the server's kernel holds the end back behind what is not read. So it says now and then that it
    is there (a pong that nobody asked for), and finds itself reset.

    Args:
        load: Whose server it connects to.
        path: Where.
    """

    def __init__(self, load: Load, path: str) -> None:
        super().__init__(daemon=True)
        self._load, self._path = load, path
        self._ended = threading.Event()
        self._closings = 0
        self._error: Exception | None = None
        self._sock = self._opened()
        self.start()

    def run(self) -> None:
        try:
            while not self._ended.is_set():
                self._stay()
        except OSError as error:
            self._error = error

    def stop(self) -> int:
        """Ends it. Gives how often the server has closed it."""
        self._ended.set()
        self.join(10)
        self._sock.close()
        if self._error is not None:
            raise self._error
        return self._closings

    def _stay(self) -> None:
        poll = select.poll()
        poll.register(self._sock, 0)  # only what is always told: that it is over
        if not poll.poll(200):
            try:
                self._sock.sendall(wire.client_frame(b"", wire.PONG))
                return
            except (BrokenPipeError, ConnectionResetError):
                pass
        self._closings += 1
        self._sock.close()
        self._sock = self._opened()

    def _opened(self) -> socket.socket:
        sock = self._load.dial(self._path, receive_buffer=1)
        self._load.accepted(sock, self._path)
        return sock


def inbound(load: Load, path: str, clients: int, payload: str, warm_s: float, measure_s: float) -> Result:
    """Messages that the server only reads, by one client after the other.

    The server counts, and answers one in a hundred, whoever sent it: so two hundred are on their way, not more than one
    from each client where there are so many.

    Args:
        load: Has no clients yet.
        path: Where they connect.
        clients: How many.
        payload: Each message.
        warm_s: How long before it is measured.
        measure_s: How long it is measured.
    """
    load.add_groups([[path] * clients])
    data, senders, sent = wire.client_frame(payload.encode()), list(load.clients.values()), 0
    answers = 0

    def run(seconds: float) -> None:
        nonlocal answers, sent
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            while sent < (answers + 2) * _ANSWERED:
                load.write(senders[sent % clients], data)
                sent += 1
            for fd, _ in load.poll.poll(1):
                answers += load.receive(load.clients[fd])

    run(warm_s)
    meter = Meter(load.server, lambda: answers * _ANSWERED, load.latencies)
    run(measure_s)
    return meter.stop()


def connect(load: Load, paths: Sequence[str], at_once: int) -> Result:
    """Opens connections, some at a time, holds them, and closes them. CPU of the accepting, and of the whole life."""
    _leave(load.connect(paths[:_WARM_CONNECTIONS], at_once), at_once)
    before = settled(load.server)
    began = time.perf_counter()
    sockets = load.connect(paths, at_once)
    took_s = time.perf_counter() - began
    opened = settled(load.server)
    _leave(sockets, at_once)
    closed = settled(load.server)
    return {
        "open_us": (opened - before) / len(paths) * 1e6,
        "life_us": (closed - before) / len(paths) * 1e6,
        "per_s": len(paths) / took_s,
    }


def _leave(sockets: Sequence[socket.socket], at_once: int) -> None:
    """Closes as browsers do: a Close frame, and the server's, and the end."""
    goodbye = wire.client_frame((1000).to_bytes(2, "big"), wire.CLOSE)
    for start in range(0, len(sockets), at_once):
        batch = sockets[start : start + at_once]
        for sock in batch:
            sock.sendall(goodbye)
        for sock in batch:
            while sock.recv(4096):
                pass
            sock.close()


def memory(load: Load, paths: Sequence[str], settle_s: float) -> Result:
    """Opens connections and holds them. What each costs in memory: at once, and when the server has settled."""
    first = load.connect(paths[:_WARM_CONNECTIONS])
    settled(load.server)
    before = _memory(load)
    sockets = load.connect(paths)
    opened = _memory(load)
    time.sleep(settle_s)
    settled(load.server)
    rest = _memory(load)
    for sock in (*first, *sockets):
        sock.close()
    return {
        f"{kind}{suffix}_kb": (after[kind] - before[kind]) / len(paths) / 1024
        for after, suffix in ((opened, "_opened"), (rest, ""))
        for kind in ("uss", "rss")
    }


def _memory(load: Load) -> dict[str, int]:
    found = [process.memory_full_info() for process in family(load.server)]
    return {"uss": sum(each.uss for each in found), "rss": sum(each.rss for each in found)}


PHASES: dict[str, Callable[..., Result]] = {
    "closed": closed,
    "paced": paced,
    "across": across,
    "inbound": inbound,
    "connect": connect,
    "memory": memory,
    "storm": storm,
}


def main() -> None:
    """Runs a specification."""
    spec = json.load(sys.stdin)
    if spec["core"] is not None:
        os.sched_setaffinity(0, {spec["core"]})
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.disable()  # no circles are made here, and its pauses would look like the server's
    load = Load(spec["ports"], spec["pid"], DIALECTS[spec["dialect"]], spec["payload"], spec["redis"])
    if spec["groups"]:
        load.add_groups(spec["groups"])
        load.settle()
    for phase in spec["phases"]:
        try:
            result = PHASES[phase.pop("kind")](load, **phase)
        except (TimeoutError, OSError) as error:
            result = {"failed": str(error)}
        if load.problems:
            result = {"failed": f"the load generator saw {load.problems[:3]}"}
        print(json.dumps(result), flush=True)
        if "failed" in result:
            break
    load.close()


if __name__ == "__main__":
    main()
