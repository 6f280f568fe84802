"""Counts what there is on all workers: the workers themselves, and the rooms that have members.

Theory of operation. No store lists the members of all rooms, so each worker is asked for its own. A worker answers with
a page of rooms, in the order of their names, that fits a reply; it is asked again from the last name. A worker that
does not answer in time, because its machine has failed, is left out.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from heapq import nsmallest
from typing import Any, Final, Protocol, TypeVar

from ..__about__ import __version__
from ..brokers.base import MAX_REQUEST_BYTES, PubSub
from ..codec import dumps, loads
from ..errors import BrokerUnavailable, HubbubError, NoSuchWorker, counted
from ..patterns import Pattern
from ..tasks import together

logger: Final = logging.getLogger("hubbub")

LETTER: Final = b"c"
"""The first byte of the requests that a `Census` answers."""

_ANSWER_S: Final = 2.0
_AT_ONCE: Final = 32
_PER_SLICE: Final = 2000
_PER_PAGE: Final = 1000
_ROOM_FOR_NEXT: Final = 2048
"""More than the longest name takes in JSON."""

T = TypeVar("T")


class TooMany(HubbubError, ValueError):
    """More rooms match than may be listed."""


class Sized(Protocol):
    """A room of this worker."""

    @property
    def size(self) -> int: ...


class Registered(Protocol):
    """The connections of this worker."""

    @property
    def user_count(self) -> int: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Node:
    """A worker.

    Attributes:
        uid: Its unique name at the broker.
        name: Its host and process.
        version: Its release of hubbub.
        num_clients: Its open connections.
        num_users: The distinct users of these.
        num_subs: The memberships of these in rooms.
        num_channels: The rooms that have members on it.
        uptime: Seconds since it started.
    """

    uid: str
    name: str
    version: str
    num_clients: int
    num_users: int
    num_subs: int
    num_channels: int
    uptime: int


class Census:
    """Asks all workers, and answers for this one.

    Args:
        broker: Connects the workers.
        rooms: The rooms of this worker, by channel.
        registry: The connections of this worker.
    """

    def __init__(self, broker: PubSub, rooms: Mapping[str, Sized], registry: Registered) -> None:
        self._broker = broker
        self._rooms = rooms
        self._registry = registry
        self._started_at = time.monotonic()

    def start(self) -> None:
        """Notes when this worker started."""
        self._started_at = time.monotonic()

    async def nodes(self) -> list[Node]:
        """Lists the workers, by name.

        Raises:
            BrokerUnavailable: The broker can't be reached.
        """
        nodes: list[Node] = []

        async def count(worker: str) -> None:
            nodes.append(Node(**await self._ask(worker, {"about": "node"})))

        await self._ask_all(count)
        return sorted(nodes, key=lambda node: (node.name, node.uid))

    async def rooms(self, pattern: str, most: int) -> dict[str, int]:
        """Counts the connections in each room that matches a pattern, without the rooms of everyone and of users.

        Args:
            pattern: A pattern of names; empty for all rooms.
            most: The maximum number of rooms.

        Raises:
            TooMany: More rooms match.
            InvalidArgument: The pattern is malformed.
            BrokerUnavailable: The broker can't be reached.
        """
        sizes: dict[str, int] = {}
        if pattern:
            Pattern(pattern)

        async def count(worker: str) -> None:
            after: str | None = ""
            while after is not None:
                page = await self._ask(worker, {"about": "rooms", "pattern": pattern, "after": after})
                for name, size in page["rooms"]:
                    sizes[name] = sizes.get(name, 0) + size
                if len(sizes) > most:
                    raise TooMany(f"over {most} channels match; ask with a pattern that fewer match")
                after = page["next"]

        await self._ask_all(count)
        return dict(sorted(sizes.items()))

    async def _ask_all(self, count: Callable[[str], Awaitable[None]]) -> None:
        turn, silent = asyncio.Semaphore(_AT_ONCE), 0

        async def one(worker: str) -> None:
            nonlocal silent
            async with turn:
                try:
                    await count(worker)
                except NoSuchWorker:  # it has just stopped
                    pass
                except BrokerUnavailable as error:
                    silent += 1
                    logger.debug("left out a worker that did not answer: %s", str(error))

        workers = await self._broker.workers()
        await together(map(one, workers))
        if silent:
            logger.warning("%s did not answer, and the answer is without them", counted(silent, "workers"))
        if workers and silent == len(workers):
            raise BrokerUnavailable("no worker answered in time; try again later")

    async def _ask(self, worker: str, question: Mapping[str, str]) -> Any:
        if worker == self._broker.worker:
            return await self._answered(question)
        return loads(await self._broker.ask(worker, LETTER + dumps(question), _ANSWER_S))

    async def answer(self, payload: bytes) -> bytes:
        """Answers a request of another worker, without its first byte."""
        return dumps(await self._answered(loads(payload)))

    async def _answered(self, question: Mapping[str, str]) -> Any:
        match question:
            case {"about": "node"}:
                return asdict(self._node())
            case {"about": "rooms", "pattern": str(pattern), "after": str(after)}:
                return await self._page(pattern, after)
        raise ValueError("a question of another release")

    def _node(self) -> Node:
        sizes = [room.size for name, room in self._rooms.items() if name[0] != "$" and room.size]
        return Node(
            uid=self._broker.worker,
            name=f"{platform.node()}:{os.getpid()}",
            version=__version__,
            num_clients=len(self._registry),
            num_users=self._registry.user_count,
            num_subs=sum(sizes),
            num_channels=len(sizes),
            uptime=int(time.monotonic() - self._started_at),
        )

    async def _page(self, pattern: str, after: str) -> dict[str, Any]:
        """Returns the next rooms by name, and the name after which to ask for more; None at the end."""
        names = await self._matching(pattern, after)
        page: list[tuple[str, int]] = []
        left = MAX_REQUEST_BYTES - _ROOM_FOR_NEXT
        for name in names:
            size = self._rooms[name].size if name in self._rooms else 0
            left -= len(dumps((name, size))) + 1
            if left < 0:
                return {"rooms": page, "next": after}
            after = name
            if size:
                page.append((name, size))
        return {"rooms": page, "next": after if len(names) == _PER_PAGE else None}

    async def _matching(self, pattern: str, after: str) -> list[str]:
        match = Pattern(pattern).match if pattern else None
        names: list[str] = []
        everything = tuple(self._rooms)
        for first in range(0, len(everything), _PER_SLICE):
            if first:
                await asyncio.sleep(0)  # many rooms must not hold up the clients
            found: Iterable[str] = everything[first : first + _PER_SLICE]
            names += [
                each for each in found if each > after and each[0] != "$" and (match is None or match(each) is not None)
            ]
        return nsmallest(_PER_PAGE, names)
