"""Detects dead workers by their expired leases, and removes their connections from the rooms.

Theory of operation. If the lease of a worker is missing in three checks in a row, the first worker to notice claims it.
The claim checks the lease once more and ends the name of the dead worker, atomically. The name stays in the set of dead
workers until its connections are removed. If the worker that removes them dies too, another worker continues.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Set
from typing import Any, Final

import orjson

from ...errors import BrokerUnavailable, counted
from ...tasks import Tasks
from .announcing import SILENCE, Announcer
from .channel import Keys
from .link import Link
from .scripts import CLAIM, CLEAR

logger: Final = logging.getLogger("hubbub")

CHECKS: Final = 8
"""Number of times per ``lease_s`` that a worker renews its lease and checks the leases of the others."""

LEASE_SHARE: Final = 5 / 8
"""Lifetime of a lease, as a share of ``lease_s``. The rest is for the checks."""

_MISSED_CHECKS: Final = 3
"""Checks in a row that must miss a lease. After a pause of Redis all leases are gone, but a live worker has renewed its
lease twice by the third check."""

_SETTLES_S: Final = 2.0
"""Seconds until all workers have reconnected after Redis was unavailable: the longest backoff, and time to connect."""

_SCAN: Final = 500


class Leases:
    """Checks the leases of the other workers, and cleans up after dead workers.

    Attributes:
        settled_at: When all workers should be connected again after a lost connection, on the event loop's clock.

    Args:
        link: The connection to Redis.
        keys: The names of the keys.
        lease_s: Seconds after which a worker that stops responding is considered dead.
        announcer: Prepares the announcements.
        tasks: Owns the background tasks.
    """

    def __init__(self, link: Link, keys: Keys, lease_s: float, announcer: Announcer, tasks: Tasks) -> None:
        self.settled_at: float = 0.0
        self._link = link
        self._keys = keys
        self._lease_ms = int(lease_s * 1000 * LEASE_SHARE)
        self._every_s = lease_s / CHECKS
        self._announcer = announcer
        self._tasks = tasks
        self._missed: dict[str, int] = {}  # for each worker without a lease, the checks in a row that missed it
        self._checked_at = 0.0

    def doubt(self) -> None:
        """Discards the missed checks, because other workers may have been unable to renew their leases."""
        self._missed.clear()

    def connected_anew(self) -> None:
        """Gives other workers time to reconnect, after this worker's connection was lost."""
        self.doubt()
        self.settled_at = asyncio.get_running_loop().time() + _SETTLES_S

    async def look(self, own: Set[str]) -> None:
        """Looks for dead workers, and removes their connections, in tasks. Does nothing if called again too soon.

        Args:
            own: The names of this worker, which are skipped.
        """
        now = asyncio.get_running_loop().time()
        if now - self._checked_at < 0.9 * self._every_s:  # other workers had no time to renew their leases
            return
        self._checked_at = now
        known, dead = await asyncio.gather(
            self._link.call("HKEYS", self._keys.workers), self._link.call("SMEMBERS", self._keys.dead)
        )
        early = now < self.settled_at
        others = [worker for each in known if (worker := each.decode()) not in own and not early]
        leases = await self._link.call("MGET", *map(self._keys.lease, others)) if others else []
        missing = [worker for worker, lease in zip(others, leases, strict=True) if lease is None]
        self._missed = {worker: self._missed.get(worker, 0) + 1 for worker in missing}
        gone = [worker for worker, checks in self._missed.items() if checks >= _MISSED_CHECKS]
        for worker in (*gone, *(each.decode() for each in dead)):
            if await self._claimed(worker):
                self._tasks.spawn(self._remove(worker), "remove a dead worker")

    async def clear(self, worker: str, *, aloud: bool) -> None:
        """Removes all connections reported under a worker's name.

        Args:
            worker: The name.
            aloud: Whether to announce the users who leave.
        """
        rooms = [each.decode() for each in await self._link.call("SMEMBERS", self._keys.worker_rooms(worker))]
        if rooms and aloud:
            logger.warning("a worker is gone: removing its users from %s", counted(len(rooms), "rooms"))
        for room in rooms:
            await asyncio.gather(
                self._clear_hash(worker, room, anonymous=False, aloud=aloud),
                self._clear_hash(worker, room, anonymous=True, aloud=aloud),
            )

    async def _clear_hash(self, worker: str, room: str, *, anonymous: bool, aloud: bool) -> None:
        key = self._keys.anonymous(room) if anonymous else self._keys.here(room)

        async def clear_one(name: str, connection_id: str) -> None:
            user = None if anonymous else name
            prepared = self._announcer.prepare("left", room, user) if aloud else SILENCE
            await self._link.run(CLEAR, (key,), worker, name, connection_id, *prepared)

        cursor: bytes | str = "0"
        while True:
            cursor, found = await self._link.call("HSCAN", key, cursor, "COUNT", _SCAN)
            await asyncio.gather(
                *(
                    clear_one(name.decode(), connection_id)
                    for name, text in pairs(found)
                    for connection_id in _connections_on(worker, text)
                )
            )
            if aloud:
                await self._link.call("PEXPIRE", self._keys.cleaner(worker), self._lease_ms)
            if cursor in (b"0", "0", 0):
                break

    async def forget(self, worker: str) -> None:
        """Deletes a worker's name, under which no connections are left."""
        keys = self._keys.lease(worker), self._keys.worker_rooms(worker)
        await asyncio.gather(self._link.call("HDEL", self._keys.workers, worker), self._link.call("DEL", *keys))

    async def _claimed(self, worker: str) -> bool:
        """Claims a worker that has no lease, and ends its name. Returns True for exactly one of several claimants."""
        keys = self._keys
        names = keys.lease(worker), keys.workers, keys.claimed(worker), keys.cleaner(worker), keys.dead
        return bool(await self._link.run(CLAIM, names, worker, self._lease_ms))

    async def _remove(self, worker: str) -> None:
        try:
            await self.clear(worker, aloud=True)
            await asyncio.gather(
                self._link.call("SREM", self._keys.dead, worker),
                self._link.call("DEL", self._keys.worker_rooms(worker), self._keys.cleaner(worker)),
            )
        except BrokerUnavailable as error:
            logger.debug("can't remove the users of a dead worker yet: %s", str(error))


def pairs(answer: Any) -> Iterable[tuple[bytes, bytes]]:
    """Returns the pairs of a hash. RESP3 answers with a map, but scripts and HSCAN with a flat list."""
    if isinstance(answer, dict):
        return answer.items()
    return zip(answer[::2], answer[1::2], strict=True)


def _connections_on(worker: str, text: bytes) -> list[str]:
    try:
        entry = orjson.loads(text)
        return [name for names in (entry["c"], entry["g"]) for name, on in names.items() if on == worker]
    except (ValueError, TypeError, KeyError, AttributeError):  # foreign; `Presence.members` warns of it
        return []
