"""Servers for the tests of clients in a page: one whose every word comes from the test, one that says nothing, and one
for the pages.
"""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as Handshake
from websockets.http11 import Response as Refusal
from websockets.sync.server import Server, ServerConnection, serve

DEADLINE_S = 30


class Peer:
    """One socket of the page, as the server has it."""

    def __init__(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.connection = connection
        self.url = urlsplit(connection.request.path)
        self.received: queue.Queue[str | bytes] = queue.Queue()
        self.gone = threading.Event()

    def send(self, *messages: object) -> None:
        """Strings and bytes as they are, others as JSON."""
        for message in messages:
            self.connection.send(message if isinstance(message, (str, bytes)) else json.dumps(message))

    def receive(self) -> str | bytes:
        return self.received.get(timeout=DEADLINE_S)

    def close(self, code: int, reason: str = "") -> None:
        self.connection.close(code, reason)

    def close_without_code(self) -> None:
        with self.connection.send_context():
            self.connection.protocol.send_close()

    def cut(self) -> None:
        self.connection.socket.shutdown(socket.SHUT_RDWR)


AnyPeer = TypeVar("AnyPeer", bound=Peer)


class ScriptedServer(Generic[AnyPeer]):
    """A WebSocket server whose every word comes from the test.

    Args:
        peer: Makes the peer of a socket.

    Attributes:
        refusals: The statuses with which it refuses the next handshakes.
    """

    def __init__(self, peer: Callable[[ServerConnection], AnyPeer]) -> None:
        self.refusals: list[int] = []
        self._peer = peer
        self._accepted: queue.Queue[AnyPeer] = queue.Queue()
        self._peers: list[AnyPeer] = []
        self._server: Server = serve(
            self._handle,
            "127.0.0.1",
            0,
            process_request=self._admit,
            compression=None,
            ping_interval=None,
            close_timeout=1,
        )
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}/ws"

    def accept(self) -> AnyPeer:
        """The next socket that opens."""
        return self._accepted.get(timeout=DEADLINE_S)

    @property
    def idle(self) -> bool:
        """Whether every socket that opened was taken by the test."""
        return self._accepted.empty()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        for peer in self._peers:
            if not peer.gone.is_set():
                peer.cut()
            assert peer.gone.wait(DEADLINE_S)

    def _admit(self, connection: ServerConnection, request: Handshake) -> Refusal | None:
        return connection.respond(self.refusals.pop(0), "not now\n") if self.refusals else None

    def _handle(self, connection: ServerConnection) -> None:
        peer = self._peer(connection)
        self._peers.append(peer)
        self._accepted.put(peer)
        try:
            for message in connection:
                peer.received.put(message)
        except ConnectionClosed:
            pass
        finally:
            peer.gone.set()


@contextmanager
def serving(app: Starlette) -> Iterator[str]:
    config = uvicorn.Config(app, lifespan="off", log_level="warning")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@contextmanager
def mute_server() -> Iterator[tuple[str, socket.socket]]:
    """The address of a server that takes connections and never says a word, and its listening socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE_S)
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}", listener
