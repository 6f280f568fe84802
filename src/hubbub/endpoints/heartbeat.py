"""The pings to one client, and the deadline for its pongs.

The server sends pings, in a regular interval whose first one is random, so that clients that connected together are not
pinged together. There is no timer: the check of the sockets once a second sends them.
"""

from __future__ import annotations

import asyncio
import random
from typing import Final

from ..connections.socket import Socket
from ..protocols.centrifugo.codes import DisconnectCode

PING_S: Final = 25.0
PONG_S: Final = 10.0


class Heartbeat:
    """Pings a client, and closes its socket if it does not answer.

    Args:
        socket: The client's socket.
        ping: The frame of a ping.
    """

    def __init__(self, socket: Socket, ping: bytes) -> None:
        self._socket = socket
        self._ping = ping
        self._ping_at = _now() + random.uniform(PING_S / 2, PING_S)  # noqa: S311 - spreads load, no secret
        self._pong_by: float | None = None
        self._pongs_due = 0
        self._is_paused = False

    def check(self, now: float) -> None:
        """Sends a ping if it is time, and closes the socket if a pong is late. Called once a second.

        Args:
            now: The event loop's time.
        """
        if self._pong_by is not None and now >= self._pong_by and not self._is_paused:
            self._socket.close_soon(DisconnectCode.NO_PONG.closed())
        elif now >= self._ping_at:
            self._ping_at = now + PING_S
            self._pongs_due += 1
            if self._pong_by is None:
                self._pong_by = now + PONG_S
            self._socket.writer.write(self._ping)

    def pong(self) -> bool:
        """Handles a pong. Returns False if no ping waits for one."""
        if not self._pongs_due:
            return False
        self._pongs_due -= 1
        self._pong_by = _now() + PONG_S if self._pongs_due else None
        return True

    def pause(self) -> None:
        """Suspends the deadline, while nothing is read from the client."""
        self._is_paused = True

    def unpause(self) -> None:
        """Restarts the deadline: the pong may be among the frames that were not read."""
        self._is_paused = False
        if self._pongs_due:
            self._pong_by = _now() + PONG_S


def _now() -> float:
    return asyncio.get_running_loop().time()
