"""Makes room for a client that comes back while its former socket is half-open.

Theory of operation. A phone changes from Wi-Fi to mobile data: nobody closes the old socket, and the server keeps it
until its pings go unanswered, after 20 to 40 s. Meanwhile the client comes back. Where a limit is one connection, its
own former one would have it refused. So before a limit refuses anybody, the other connections of the same user are
pinged. A connection that gives no sign of life in `PATIENCE_S` is aborted. Those that answer stay, and the wait ends
with the last answer.

Bounds: one probe at a time for each user, and none of a connection that answered less than `FRESH_S` ago. So a client
that keeps on connecting causes at most one ping a second for each of its user's connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from .socket import Socket
from .transports import Question

PATIENCE_S: Final = 1.5
FRESH_S: Final = 1.0
_CATCH_UP_S: Final = 0.05
"""After a standstill of this process: the time in which what came meanwhile is read."""


class Prober:
    """The probes of one manager."""

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Future[None]] = {}

    async def make_room(self, user: str, sockets: Iterable[Socket]) -> None:
        """Aborts the connections of a user that are there no more.

        Args:
            user: Whose they are.
            sockets: The connections.
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
        asked: list[tuple[Socket, Question]] = []
        try:
            for socket in sockets:
                if loop.time() - socket.answered_at < FRESH_S:
                    continue
                question = socket.ask(heard.set)
                if question is not None:
                    asked.append((socket, question))
            try:
                async with asyncio.timeout(PATIENCE_S):
                    while not all(question.answered for _, question in asked):
                        heard.clear()
                        await heard.wait()
            except TimeoutError:
                await asyncio.sleep(_CATCH_UP_S)
        except BaseException:
            for _, question in asked:
                question.end()
            raise
        for socket, question in asked:
            if question.end():
                socket.answered_at = loop.time()
            else:
                socket.vanished()
