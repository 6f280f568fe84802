"""The load generator: the phases of load on a server. It is a separate process, on its own core.

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

_ROUND_S = 15.0  # the longest time for one round of a window
_ROUNDS = 2  # the minimum number of measured rounds
_STEP_S = 0.05
_ANSWERED = 100  # the servers' /read routes answer one message in so many
_WARM_CONNECTIONS = 50


def closed(load: Load, window: int, warm_s: float, measure_s: float, probe: str = "") -> Result:
    """Runs a closed loop in every group: a message is in flight until every member of its group has it.

    As soon as one message has arrived, the next is sent, by as many senders in turn as the window is wide. If messages
    arrive in batches, the whole window is sent again when the batch has arrived.

    Args:
        load: The clients.
        window: The number of messages in flight per group.
        warm_s: The time before measuring; longer if a group has had no message by then, because a server may open
            connections for each group's first message.
        measure_s: The measuring time; longer if a round of the window takes long.
        probe: A path that the server answers with JSON, which is added to the result. It is requested when measuring
            starts and ends.
    """
    members = sum(len(group.clients) for group in load.groups)
    if members * window > _ROUND_S * load.rate:
        return {"skipped": f"a window would take longer than {_ROUND_S:.0f} s to go once around"}
    if load.rate:
        measure_s = max(measure_s, _ROUNDS * members * window / load.rate)

    def refill(group: Group) -> None:
        senders = group.senders
        for _ in range(window - (group.sent - group.low)):
            load.send(senders[group.sent % min(window, len(senders))])

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
    size = members / len(load.groups)
    return {**result, "publish_us": result["cpu_us"] * size, "publishes_s": result["per_s"] / size}


def _run(load: Load, seconds: float, rounds: int) -> None:
    """Reads for some time, and then until every group has completed a number of rounds, up to a limit."""
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
    """Sends messages at random times (a Poisson process) from clients of the first group, without waiting.

    Measures until all have arrived, so that slow and fast servers are measured over the same messages.

    Args:
        load: The clients.
        publishers: The number of clients that send.
        rate: Messages per second, in total.
        warm_s: The time before measuring.
        measure_s: The time for which messages are sent.
        seed: The seed of the random times.
        never_reads: The path of another client that never reads, and reconnects whenever it is closed.
        patience_s: The time to wait for the last messages. Missing messages then count with their age.
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
    """Sends messages at random times from a client of the first worker, and measures when clients of others have them.

    Args:
        load: The clients, spread over several workers.
        rate: Messages per second.
        warm_s: The time before measuring.
        measure_s: The time for which messages are sent.
        seed: The seed of the random times.
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
    """Waits until all messages have arrived. Returns the share that is missing."""
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
    """A client that never reads, with almost no receive buffer. It reconnects whenever it is closed.

    It can't see the close, which the server's kernel sends after the unread data. So it sends an unsolicited pong now
    and then, and detects the reset.

    Args:
        load: The load, whose server it connects to.
        path: The path to connect to.
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
        """Stops the client. Returns how often the server has closed it."""
        self._ended.set()
        self.join(10)
        self._sock.close()
        if self._error is not None:
            raise self._error
        return self._closings

    def _stay(self) -> None:
        poll = select.poll()
        poll.register(self._sock, 0)  # only the events that are always reported: errors and hang-ups
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
    """Sends messages that the server only reads, from one client after another.

    The server counts them, and answers one in a hundred, from any client. So two hundred are in flight, at most one per
    client if there are that many clients.

    Args:
        load: A load without clients.
        path: The path to connect to.
        clients: The number of clients.
        payload: The message.
        warm_s: The time before measuring.
        measure_s: The measuring time.
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
    """Opens connections, a few at a time, holds and closes them. Measures the CPU to accept, and of the whole life."""
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
    """Closes as browsers do: sends a Close frame, waits for the server's, and closes the socket."""
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
    """Opens connections and holds them. Measures the memory of each, immediately and after the server has settled."""
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
    gc.disable()  # there are no reference cycles here, and its pauses would look like the server's
    load = Load(spec["ports"], spec["pid"], DIALECTS[spec["dialect"]], spec["payload"], spec["redis"])
    if spec["groups"]:
        load.add_groups(spec["groups"])
        if spec["senders"]:
            load.add_senders(spec["senders"])
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
