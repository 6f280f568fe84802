"""The storm after a restart: clients that reconnect all at once, to a room that replays its messages to them.

Theory of operation. A first client publishes the messages that the others will receive. Then the others connect as fast
as the server's listen queue accepts them, and run in one loop over epoll. The received data is not parsed: counting the
marks of the messages keeps the generator fast. A sample of the clients stores everything, and must have every message
once and in order at the end.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import wire
from .load import MARK, NUMBER, Load
from .meter import Meter

_BUFFER = bytearray(1024 * 1024)
_VIEW = memoryview(_BUFFER)
_BATCH = 50
_SAMPLE = 24
_PING = bytes((0x80 | wire.PING,))  # occurs only in pings: texts are ASCII, and their sizes differ


def storm(
    load: Load, path: str, paths: Sequence[str], messages: int, at_once: int = 2000, patience_s: float = 600.0
) -> dict[str, Any]:
    """Reconnects clients to a room that replays its last messages, and measures until each has them all.

    Args:
        load: A load without clients.
        path: The path on which the first client publishes.
        paths: The paths on which the others reconnect.
        messages: The number of messages that the room replays.
        at_once: The number of handshakes in flight: a little less than uvicorn's listen queue holds.
        patience_s: The time to wait for the last client.
    """
    guest = load.dial(path)
    load.accepted(guest, path)
    numbers = _published(load, guest, messages)
    coming = Storm(load, paths, len(numbers))
    meter = Meter(load.server, coming.arrived, load.latencies, load.redis)
    coming.run(at_once, patience_s)
    result = meter.stop()
    coming.check(numbers)
    coming.close()
    guest.close()
    return {**result, "accepted_ms": coming.accepted_s * 1000, "peak_mb": _peak_mb(load.server.pid)}


def _published(load: Load, guest: socket.socket, messages: int) -> list[bytes]:
    """Publishes messages, a few at a time, and waits until they have come back. Returns their numbers."""
    numbers = [b"#%08d" % number for number in range(messages)]
    for start in range(0, messages, _BATCH):
        batch = numbers[start : start + _BATCH]
        guest.sendall(b"".join([wire.client_frame(number + load.filler) for number in batch]))
        missing = len(batch)
        while missing:
            data = guest.recv(len(_BUFFER))
            if not data:
                raise ConnectionError("the server closed the client that publishes")
            missing -= data.count(MARK)
    return numbers


class _Returning:
    """A client that reconnects: its number of messages, and, in the sample, all data that it received."""

    __slots__ = ("accepted", "count", "data", "sock")

    def __init__(self, sock: socket.socket, data: list[bytes] | None) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.accepted = False
        self.count = 0
        self.data = data


class Storm:
    """The clients that reconnect.

    Args:
        load: The load, which has the server, and stores the latencies since the first client connected.
        paths: The paths of the clients.
        messages: The number of messages that each one waits for.
    """

    def __init__(self, load: Load, paths: Sequence[str], messages: int) -> None:
        self.accepted_s = 0.0  # when the last client was accepted
        self._began = 0.0
        self._load, self._paths, self._messages = load, paths, messages
        self._clients: dict[int, _Returning] = {}
        self._poll = select.epoll()
        self._accepted = 0

    def arrived(self) -> int:
        """The number of messages that have arrived so far."""
        return sum([client.count for client in self._clients.values()])

    def run(self, at_once: int, patience_s: float) -> None:
        """Runs until every client has every message.

        Raises:
            TimeoutError: Some clients lack messages after the time.
            ConnectionError: The server refused or closed one, or sent one too many.
        """
        latencies, wanted = self._load.latencies, len(self._paths)
        self._began = time.perf_counter()
        while len(latencies) < wanted:
            while len(self._clients) < min(wanted, self._accepted + at_once):
                self._dial()
            if time.perf_counter() - self._began > patience_s:
                raise TimeoutError(f"{len(latencies)} of {wanted} clients have every message after {patience_s:.0f} s")
            for fd, _ in self._poll.poll(1.0):
                self._receive(self._clients[fd])

    def check(self, numbers: list[bytes]) -> None:
        """Checks that each client of the sample received every message once and in order.

        Raises:
            ConnectionError: A client did not.
        """
        for client in self._clients.values():
            if client.data is None:
                continue
            _, _, said = b"".join(client.data).partition(b"\r\n\r\n")
            texts = [payload for opcode, _, payload, _ in wire.frames(said) if opcode == wire.TEXT]
            if [number for text in texts for number in NUMBER.findall(text)] != numbers:
                raise ConnectionError(
                    "a client that reconnected received other messages than it missed, or in another order"
                )

    def close(self) -> None:
        for client in self._clients.values():
            client.sock.close()
        self._poll.close()

    def _dial(self) -> None:
        number = len(self._clients)
        sampled = number % max(1, len(self._paths) // _SAMPLE) == 0
        client = _Returning(self._load.dial(self._paths[number]), [] if sampled else None)
        self._clients[client.sock.fileno()] = client
        self._poll.register(client.sock.fileno(), select.EPOLLIN)

    def _receive(self, client: _Returning) -> None:
        size = client.sock.recv_into(_BUFFER)
        if not client.accepted:
            self._accept(client, size)
        if not size:
            raise ConnectionError(f"the server closed a client that had {client.count} messages")
        if client.data is not None:
            client.data.append(bytes(_VIEW[:size]))
        found = _BUFFER.count(MARK, 0, size) - self._answer(client, size)
        if found:
            client.count += found
            if client.count > self._messages:
                raise ConnectionError(
                    f"a client that reconnected received {client.count} messages instead of {self._messages}"
                )
            if client.count == self._messages:
                self._load.latencies.append(time.perf_counter() - self._began)

    def _accept(self, client: _Returning, size: int) -> None:
        head = bytes(_VIEW[: min(size, 80)])
        if b" 101 " not in head.partition(b"\r\n")[0]:
            raise ConnectionError(f"the server answered {head!r} to a client that reconnected")
        client.accepted = True
        self._accepted += 1
        self.accepted_s = time.perf_counter() - self._began

    def _answer(self, client: _Returning, size: int) -> int:
        """Answers a ping, if there is one. Returns the number of marks in it."""
        at = _BUFFER.find(_PING, 0, size)
        if at < 0:
            return 0
        for opcode, _, payload, _ in wire.frames(bytes(_VIEW[at : min(size, at + 200)])):
            if opcode == wire.PING:
                client.sock.sendall(wire.client_frame(payload, wire.PONG))
                return payload.count(MARK)
            break
        return 0


def _peak_mb(pid: int) -> float:
    """Returns the peak memory of a process, in MiB."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0
