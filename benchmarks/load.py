"""The clients of the load generator.

Theory of operation. All clients run in one loop over epoll that does little work per received buffer: whole frames of
the known size are counted without parsing. A sample of the clients parses every frame, checks for duplicates, and
measures latencies. At the end of a phase, every client must have every message. `phases` defines the load.

Reads a specification (JSON) from standard input and writes one JSON line per phase.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from math import inf

import psutil

from . import wire
from .dialects import DIALECTS, Dialect
from .meter import Meter, settled

_BUFFER = bytearray(1024 * 1024)
_VIEW = memoryview(_BUFFER)
_WATCHED = 24
_UNKNOWN = 1 << 62
_QUIET_S = 0.2
_TIMEOUT_S = 60.0
_GREETING_S = 15.0
_SUBSCRIBED_S = 3.0  # a server that polls is never idle
MARK = b"#"  # occurs once in each message, and in nothing else that servers send
NUMBER = re.compile(rb"#\d{8}")
_NUMBER_BYTES = 9


class Client:
    """One socket."""

    __slots__ = (
        "after",
        "before",
        "count",
        "dialect",
        "fd",
        "group",
        "recv",
        "rest",
        "seen",
        "size",
        "sock",
        "watched",
    )

    group: Group

    def __init__(self, sock: socket.socket, dialect: Dialect, around: tuple[bytes, bytes]) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.fd = sock.fileno()
        self.recv = sock.recv_into
        self.dialect = dialect
        self.before, self.after = around  # the bytes around a payload
        self.size = _UNKNOWN  # of a message on the wire
        self.rest = b""
        self.count = 0
        self.watched = False
        self.seen: set[bytes] = set()


class Group:
    """Clients that receive the same messages.

    Attributes:
        clients: The clients that receive them.
        senders: The clients that send them.
        sent: The number of messages that were sent to the group.
        low: The number of messages that all clients have received.
        at: For each number of messages, how many clients have received that many.
    """

    __slots__ = ("at", "clients", "low", "senders", "sent")

    def __init__(self, clients: list[Client]) -> None:
        self.clients = self.senders = clients
        self.reset()

    def reset(self) -> None:
        """Resets the counts."""
        self.sent = self.low = 0
        self.at = {0: len(self.clients)}
        for client in self.clients:
            client.count = 0
            client.seen.clear()

    def moved(self, before: int, after: int) -> bool:
        """Records the progress of a client. Returns whether a message has now reached all clients."""
        at = self.at
        left = at[before] - 1
        at[after] = at.get(after, 0) + 1
        if left:
            at[before] = left
            return False
        del at[before]
        if before != self.low:
            return False
        self.low = min(at)
        return True


class Load:
    """The clients of one server.

    Args:
        ports: The ports of its workers. Clients are assigned to them in turn.
        pid: The process id of the first worker.
        dialect: The protocol of its clients, except of those whose path is ``"{dialect}:{path}"``.
        payload: The size of a message in bytes.
        redis: The process id of its Redis server.
    """

    def __init__(
        self, ports: Sequence[int], pid: int, dialect: Dialect, payload: int, redis: int | None = None
    ) -> None:
        addresses = [("127.0.0.1", port) for port in ports]
        self.address = addresses[0]
        self.server = psutil.Process(pid)
        self.redis = None if redis is None else psutil.Process(redis)
        self.dialect = dialect
        self.filler = b"x" * (payload - 9)
        self.groups: list[Group] = []
        self.clients: dict[int, Client] = {}
        self.poll = select.epoll()
        self.sent_at: dict[bytes, float] = {}
        self.latencies: list[float] = []
        self.problems: list[str] = []
        self.sequence = 0
        self._turns = cycle(addresses)
        self.rate = inf  # deliveries per second in the last phase
        self.through: Callable[[Group], None] = _nothing  # a message has reached all

    # Connecting

    def connect(self, paths: Sequence[str], at_once: int = 64) -> list[socket.socket]:
        """Opens sockets, a few at a time, and waits until each is accepted."""
        opened: list[socket.socket] = []
        for start in range(0, len(paths), at_once):
            batch = [(self.dial(path), path) for path in paths[start : start + at_once]]
            for sock, path in batch:
                self.accepted(sock, path)
            opened += [sock for sock, _ in batch]
        return opened

    def dial(self, path: str, receive_buffer: int = 0) -> socket.socket:
        """Connects, and sends the handshake."""
        address = next(self._turns)
        sock = socket.socket()
        sock.settimeout(_TIMEOUT_S)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.connect(address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        dialect, path = self._spoken(path)
        request = wire.get if dialect.is_stream else wire.handshake
        sock.sendall(request(f"127.0.0.1:{address[1]}", dialect.path.replace("{path}", path)))
        return sock

    def _spoken(self, path: str) -> tuple[Dialect, str]:
        """Returns the dialect of a client, and its path without the name of the dialect."""
        name, is_named, rest = path.partition(":")
        return (DIALECTS[name], rest) if is_named and name in DIALECTS else (self.dialect, path)

    def accepted(self, sock: socket.socket, path: str) -> None:
        """Waits for the answer, and sends the first messages of the dialect."""
        head = b""
        while b"\r\n\r\n" not in head:
            seen = sock.recv(4096, socket.MSG_PEEK)
            end = (head + seen).find(b"\r\n\r\n")  # the bytes after the head stay in the socket
            head += sock.recv(len(seen) if end < 0 else end + 4 - len(head))
            if not seen:
                raise ConnectionError(f"the server closed during the handshake, after {head[:80]!r}")
        dialect, path = self._spoken(path)
        if (b" 200 " if dialect.is_stream else b" 101 ") not in head.split(b"\r\n", 1)[0]:
            raise ConnectionError(f"the server answered {head[:80]!r}")
        for hello in dialect.opening(path):
            if dialect.server_first:
                self.message(sock)
            sock.sendall(wire.client_frame(hello, dialect.opcode))
        if dialect.hello:
            while dialect.ready not in self.message(sock):
                pass

    @staticmethod
    def message(sock: socket.socket) -> bytes:
        """Waits for a message, and reads nothing past it."""
        data = b""
        while True:
            byte = sock.recv(1)
            if not byte:
                raise ConnectionError(f"the server closed during the first messages, after {data[:80]!r}")
            data += byte
            for _, _, payload, _ in wire.frames(data):
                return payload

    def add_groups(self, paths: list[list[str]]) -> None:
        """Connects the clients of each group."""
        sockets = iter(self.connect([path for group in paths for path in group]))
        for group_paths in paths:
            group = Group([self._client(next(sockets), path) for path in group_paths])
            for client in group.clients:
                client.group = group
            self.groups.append(group)
        everybody = list(self.clients.values())
        for client in everybody[:: max(1, len(everybody) // _WATCHED)]:
            client.watched = True

    def add_senders(self, paths: list[str]) -> None:
        """Connects clients that send the messages of the first group, and do not receive them."""
        (group,) = self.groups
        group.senders = [self._client(sock, path) for sock, path in zip(self.connect(paths), paths, strict=True)]
        for client in group.senders:
            client.group = group

    def _client(self, sock: socket.socket, path: str) -> Client:
        dialect, path = self._spoken(path)
        client = Client(sock, dialect, dialect.around(path, len(self.filler) + 9))
        self.clients[client.fd] = client
        self.poll.register(client.fd, select.EPOLLIN)
        return client

    # Messages

    def send(self, client: Client) -> None:
        """Sends the next message."""
        self.sequence += 1
        number = b"#%08d" % self.sequence
        client.group.sent += 1
        self.sent_at[number] = time.perf_counter()
        payload = client.before + number + self.filler + client.after
        self.write(client, wire.client_frame(payload, client.dialect.opcode))

    @staticmethod
    def write(client: Client, data: bytes) -> None:
        """Writes a frame. Waits if the server does not read, as a client would."""
        try:
            done = client.sock.send(data)
        except BlockingIOError:
            done = 0
        if done < len(data):
            client.sock.settimeout(_TIMEOUT_S)
            client.sock.sendall(data[done:])
            client.sock.setblocking(False)

    def receive(self, client: Client) -> int:
        """Reads the available data. Returns the number of messages."""
        try:
            size = client.recv(_BUFFER)
        except (BlockingIOError, InterruptedError):
            return 0
        except ConnectionResetError:
            size = 0
        if client.dialect.is_stream and size:
            return self._events(client, size)
        if not client.rest and not client.watched and not size % client.size and size and _BUFFER[0] < 0x83:
            return size // client.size
        return self._parse(client, size)

    def _parse(self, client: Client, size: int) -> int:
        if not size:
            self.problems.append("the server closed a client")
            self.poll.unregister(client.fd)
            return 0
        now = time.perf_counter()
        data = client.rest + bytes(_VIEW[:size])
        found, end, dialect = 0, 0, client.dialect
        for opcode, wire_size, payload, end in wire.frames(data):  # noqa: B007 - where the last one ended
            if opcode == wire.PING:
                self.write(client, wire.client_frame(payload, wire.PONG))
            elif opcode == wire.CLOSE:
                self.problems.append(f"the server closed a client with {payload!r}")
            elif dialect.ping is not None and payload == dialect.ping[0]:
                self.write(client, wire.client_frame(dialect.ping[1], dialect.opcode))
            else:
                messages = payload.count(MARK)
                found += messages
                if not dialect.coalesces:
                    self._check(client, wire_size, messages, payload)
                if client.watched:
                    self._note(client, payload, now)
        client.rest = data[end:]
        return found

    def _events(self, client: Client, size: int) -> int:
        """Counts the messages in a part of a stream. Each has one mark; whatever is around it is not parsed."""
        found = _BUFFER.count(MARK, 0, size)
        if client.watched:
            data = client.rest + bytes(_VIEW[:size])
            last = data.rfind(MARK)
            is_cut = last >= 0 and len(data) - last < _NUMBER_BYTES
            self._note(client, data[:last] if is_cut else data, time.perf_counter())
            client.rest = data[last:] if is_cut else b""
        return found

    def _check(self, client: Client, wire_size: int, messages: int, payload: bytes) -> None:
        if client.size == _UNKNOWN:
            client.size = wire_size
        if messages != 1 or wire_size != client.size:
            self.problems.append(f"a frame of {wire_size} bytes, not {client.size}: {payload[:80]!r}")

    def _note(self, client: Client, payload: bytes, now: float) -> None:
        for number in NUMBER.findall(payload):
            sent_at = self.sent_at.get(number)
            if sent_at is None:
                self.problems.append(f"a message that was not sent: {payload[:80]!r}")
            elif number in client.seen:
                self.problems.append(f"a message came twice: {payload[:80]!r}")
            else:
                client.seen.add(number)
                self.latencies.append(now - sent_at)

    # Time

    def settle(self) -> None:
        """Discards what the server sends unasked, then learns the size of a message from a first one."""
        if self.redis is not None:  # with Redis, a client may be accepted before its room is subscribed
            settled(self.server, timeout_s=_SUBSCRIBED_S)
        while events := self.poll.poll(_QUIET_S):
            for fd, _ in events:
                self.receive(self.clients[fd])
        self.problems.clear()
        for client in self.clients.values():
            client.size = _UNKNOWN
        self.begin()
        self.send(self.groups[0].senders[0])
        self.finish(_GREETING_S)

    def begin(self) -> None:
        """Resets the counts for a new phase."""
        self.sent_at.clear()
        for group in self.groups:
            group.reset()

    def turn(self, timeout_s: float) -> None:
        """Reads the sockets that are ready, once."""
        clients, receive, through = self.clients, self.receive, self.through
        for fd, _ in self.poll.poll(timeout_s):
            client = clients[fd]
            found = receive(client)
            if found:
                before = client.count
                client.count = before + found
                if client.group.moved(before, before + found):
                    through(client.group)

    def run(self, seconds: float) -> None:
        """Reads for a while."""
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            self.turn(min(1.0, seconds))

    def finish(self, patience_s: float = _TIMEOUT_S) -> None:
        """Waits until every client has every message.

        Raises:
            TimeoutError: Messages are missing.
        """
        deadline = time.perf_counter() + patience_s
        while any(group.low != group.sent for group in self.groups):
            if time.perf_counter() > deadline or self.problems:
                raise TimeoutError(f"messages are missing after {patience_s:.0f} s")
            self.turn(0.01)

    def delivered(self) -> int:
        """The number of messages that the clients have received in this phase."""
        return sum([client.count for client in self.clients.values()])

    def meter(self) -> Meter:
        return Meter(self.server, self.delivered, self.latencies, self.redis)

    def close(self) -> None:
        for client in self.clients.values():
            client.sock.close()
        self.poll.close()


def _nothing(group: Group) -> None:
    pass
