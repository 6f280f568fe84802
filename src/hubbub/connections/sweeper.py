"""The look at every socket once a second: is its client there, does it read, may it still, does its handler know?

There is no timer per socket. One timer takes a part of the sockets each time, so that a look at very many of them does
not hold the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import chain
from typing import Final

from ..lifecycle import Lifecycle
from ..options import Limits
from ..timers import Timers
from .socket import Socket
from .transports import Transport

_SWEEP_S = 1.0
_PARTS: Final = 31  # a prime, since hashes are addresses


class Sweeper:
    """The sockets of one manager, and those of its app that none has connected, until their handlers end.

    Args:
        limits: How long what lingers may take.
        lifecycle: Whether the manager runs.
        timers: When to look.
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
        """The sockets from accept to the end of their handler: this manager's, and those that none has connected."""
        watched = chain.from_iterable(tuple(part) for part in self._sockets)
        return (socket for socket in watched if socket.accepted)

    def _part_of(self, socket: Socket) -> dict[Socket, None]:
        return self._sockets[hash(socket) % _PARTS]

    def watch(self, socket: Socket) -> None:
        """Checks a socket regularly from here on. Idempotent."""
        self._part_of(socket)[socket] = None

    def unwatch(self, socket: Socket) -> None:
        """Stops checking a socket. Idempotent."""
        self._part_of(socket).pop(socket, None)

    def release(self, socket: Socket) -> None:
        """The handler of a socket ended. Sees to it that a client that does not read can't hold the socket open."""
        self.unwatch(socket)
        if not socket.transport.lingers:
            return
        if self._lifecycle.running:
            self._lingering[socket.transport] = asyncio.get_running_loop().time() + self._limits.close_timeout_s
        else:
            socket.transport.abort()

    def start(self) -> None:
        """Begins to look."""
        self._timers.call_later(_SWEEP_S / _PARTS, self._sweep)

    def stop(self) -> None:
        """Ends every socket that is still there. The timers are stopped by their owner."""
        for transport in (*self._lingering, *(socket.transport for socket in self.sockets)):
            if transport.buffered:
                transport.abort()
        self._lingering.clear()
        for part in self._sockets:
            part.clear()

    def _sweep(self) -> None:
        """Looks at a part of the sockets: at each once in `_SWEEP_S`."""
        self._timers.call_later(_SWEEP_S / _PARTS, self._sweep)
        now = asyncio.get_running_loop().time()
        self._turn = (self._turn + 1) % _PARTS
        for socket in tuple(self._sockets[self._turn]):
            socket.check(now)
        for transport, deadline in tuple(self._lingering.items()):
            if not transport.lingers:
                del self._lingering[transport]
            elif now >= deadline:
                del self._lingering[transport]
                if transport.buffered or transport.deaf:  # else the server waits for the peer's Close, with a bound
                    transport.abort()
