"""Makes room for a client that reconnects while its former socket is half-open.

Theory of operation. When a phone changes from Wi-Fi to mobile data, nobody closes the old socket. The server keeps it
until a keepalive ping goes unanswered, which takes 20 to 40 s. Meanwhile the client reconnects. With a limit of one
connection per user, its own dead connection would get it refused. So before a limit refuses a connection, the other
connections of the same user are pinged. Connections that show no sign of life within `PATIENCE_S` are aborted, and
those that answer stay. The wait ends with the last answer.

Bounds: one round of probes at a time per user, and no probe of a connection that answered less than `FRESH_S` ago. A
client that connects in a loop causes at most one ping per second for each connection of its user.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from .socket import Socket
from .transports import OpenPing

PATIENCE_S: Final = 1.5
FRESH_S: Final = 1.0
_CATCH_UP_S: Final = 0.05
"""Extra time after the deadline, to read answers that arrived while this process was frozen."""


class Prober:
    """The probes of one manager."""

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Future[None]] = {}

    async def make_room(self, user: str, sockets: Iterable[Socket]) -> None:
        """Aborts the connections of a user whose clients no longer answer.

        Args:
            user: The id of the user.
            sockets: The sockets of the user's connections.
        """
        while (other := self._under_way.get(user)) is not None:
            await asyncio.wait((other,))
        done = self._under_way[user] = asyncio.get_running_loop().create_future()
        try:
            await self._probe(sockets)
        finally:
            del self._under_way[user]
            done.set_result(None)

    async def _probe(self, sockets: Iterable[Socket]) -> None:
        loop = asyncio.get_running_loop()
        heard = asyncio.Event()
        asked: list[tuple[Socket, OpenPing]] = []
        try:
            for socket in sockets:
                if loop.time() - socket.answered_at < FRESH_S:
                    continue
                ping = socket.ping(heard.set)
                if ping is not None:
                    asked.append((socket, ping))
            try:
                async with asyncio.timeout(PATIENCE_S):
                    while not all(ping.answered for _, ping in asked):
                        heard.clear()
                        await heard.wait()
            except TimeoutError:
                await asyncio.sleep(_CATCH_UP_S)
        except BaseException:
            for _, ping in asked:
                ping.end()
            raise
        for socket, ping in asked:
            if ping.end():
                socket.answered_at = loop.time()
            else:
                socket.on_vanished()
