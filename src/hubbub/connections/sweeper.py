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
from .socket import Wire
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
        self._wires: tuple[dict[Wire, None], ...] = tuple({} for _ in range(_PARTS))
        self._turn = 0
        self._lingering: dict[Transport, float] = {}

    @property
    def wires(self) -> Iterator[Wire]:
        """The sockets from accept to the end of their handler: this manager's, and those that none has connected."""
        watched = chain.from_iterable(tuple(part) for part in self._wires)
        return (wire for wire in watched if wire.accepted)

    def _part_of(self, wire: Wire) -> dict[Wire, None]:
        return self._wires[hash(wire) % _PARTS]

    def watch(self, wire: Wire) -> None:
        """Checks a socket regularly from here on. Idempotent."""
        self._part_of(wire)[wire] = None

    def unwatch(self, wire: Wire) -> None:
        """Stops checking a socket. Idempotent."""
        self._part_of(wire).pop(wire, None)

    def release(self, wire: Wire) -> None:
        """The handler of a socket ended. Sees to it that a client that does not read can't hold the socket open."""
        self.unwatch(wire)
        if not wire.transport.lingers:
            return
        if self._lifecycle.running:
            self._lingering[wire.transport] = asyncio.get_running_loop().time() + self._limits.close_timeout_s
        else:
            wire.transport.abort()

    def start(self) -> None:
        """Begins to look."""
        self._timers.call_later(_SWEEP_S / _PARTS, self._sweep)

    def stop(self) -> None:
        """Ends every socket that is still there. The timers are stopped by their owner."""
        for transport in (*self._lingering, *(wire.transport for wire in self.wires)):
            if transport.buffered:
                transport.abort()
        self._lingering.clear()
        for part in self._wires:
            part.clear()

    def _sweep(self) -> None:
        """Looks at a part of the sockets: at each once in `_SWEEP_S`."""
        self._timers.call_later(_SWEEP_S / _PARTS, self._sweep)
        now = asyncio.get_running_loop().time()
        self._turn = (self._turn + 1) % _PARTS
        for wire in tuple(self._wires[self._turn]):
            wire.check(now)
        for transport, deadline in tuple(self._lingering.items()):
            if not transport.lingers:
                del self._lingering[transport]
            elif now >= deadline:
                del self._lingering[transport]
                if transport.buffered or transport.deaf:  # else the server waits for the peer's Close, with a bound
                    transport.abort()
