"""Checks every socket once a second, with the rules of `hubbub.connections.checks`.

There is no timer per socket. One timer checks a part of the sockets at a time, so that even very many sockets do not
block the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import chain
from typing import Final

from ..lifecycle import Lifecycle
from ..options import Limits
from ..timers import Timers
from .checks import check
from .socket import Socket
from .transports import Transport

_SWEEP_S = 1.0
_PARTS: Final = 31  # a prime, because hashes are memory addresses and share small factors


class Sweeper:
    """Checks the sockets of one manager until their handlers end.

    The sockets include those of its app that no manager has connected yet.

    Args:
        limits: The manager's limits. ``close_timeout_s`` bounds how long a socket may outlive its handler.
        lifecycle: The manager's lifecycle, to know whether the manager runs.
        timers: The timers that trigger the checks.
    """

    def __init__(self, limits: Limits, lifecycle: Lifecycle, timers: Timers) -> None:
        self._limits = limits
        self._lifecycle = lifecycle
        self._timers = timers
        self._sockets: tuple[dict[Socket, None], ...] = tuple({} for _ in range(_PARTS))
        self._turn = 0
        self._lingering: dict[Transport, float] = {}

    @property
    def sockets(self) -> Iterator[Socket]:
        """The watched sockets that were accepted."""
        watched = chain.from_iterable(tuple(part) for part in self._sockets)
        return (socket for socket in watched if socket.accepted)

    def _part_of(self, socket: Socket) -> dict[Socket, None]:
        return self._sockets[hash(socket) % _PARTS]

    def watch(self, socket: Socket) -> None:
        """Starts to check a socket. Idempotent."""
        self._part_of(socket)[socket] = None

    def unwatch(self, socket: Socket) -> None:
        """Stops checking a socket. Idempotent."""
        self._part_of(socket).pop(socket, None)

    def release(self, socket: Socket) -> None:
        """Stops checking a socket whose handler has ended. Aborts it if the client keeps it open by not reading."""
        self.unwatch(socket)
        if not socket.transport.lingers:
            return
        if self._lifecycle.running:
            self._lingering[socket.transport] = asyncio.get_running_loop().time() + self._limits.close_timeout_s
        else:
            socket.transport.abort()

    def start(self) -> None:
        """Starts the timer."""
        self._timers.call_later(_SWEEP_S / _PARTS, self._sweep)

    def stop(self) -> None:
        """Aborts every socket with unsent data. The owner of the timers stops them."""
        for transport in (*self._lingering, *(socket.transport for socket in self.sockets)):
            if transport.buffered:
                transport.abort()
        self._lingering.clear()
        for part in self._sockets:
            part.clear()

    def _sweep(self) -> None:
        """Checks one part of the sockets. Every socket has its turn once in `_SWEEP_S`."""
        self._timers.call_later(_SWEEP_S / _PARTS, self._sweep)
        now = asyncio.get_running_loop().time()
        self._turn = (self._turn + 1) % _PARTS
        for socket in tuple(self._sockets[self._turn]):
            check(socket, now)
        for transport, deadline in tuple(self._lingering.items()):
            if not transport.lingers:
                del self._lingering[transport]
            elif now >= deadline:
                del self._lingering[transport]
                if transport.buffered or transport.reading_stopped:  # otherwise the server's own Close timeout applies
                    transport.abort()
