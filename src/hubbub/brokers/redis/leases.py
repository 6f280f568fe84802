"""The leases of the other workers: who has none any more is taken for dead, and its connections are taken out.

Theory of operation. A worker whose lease is missing in three looks in a row is claimed by whoever is first. The claim
looks at the lease once more and ends the name, in one step, and who it was is among the dead until its connections are
taken out. Should the one that does it die as well, another goes on.
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
"""How often a lease is renewed, and those of others are looked at, in ``lease_s``."""

LEASE_SHARE: Final = 5 / 8
"""What of ``lease_s`` a lease lasts. The rest is for the looks."""

_LOOKS: Final = 3
"""After a pause of Redis itself all leases are gone: who works has renewed its own twice by the third look."""

_SETTLES_S: Final = 2.0
"""After Redis was away: until all are connected again. The longest backoff, and time to connect."""

_SCAN: Final = 500


class Leases:
    """Looks after the other workers' leases.

    Attributes:
        settled_at: When all are connected again, after a connection was lost; on the loop's clock.

    Args:
        link: Where to.
        keys: How the keys are called.
        lease_s: Seconds after which a worker that says nothing is taken for dead.
        announcer: Prepares the announcements.
        tasks: Who owns what goes on in between.
    """

    def __init__(self, link: Link, keys: Keys, lease_s: float, announcer: Announcer, tasks: Tasks) -> None:
        self.settled_at: float = 0.0
        self._link = link
        self._keys = keys
        self._lease_ms = int(lease_s * 1000 * LEASE_SHARE)
        self._every_s = lease_s / CHECKS
        self._announcer = announcer
        self._tasks = tasks
        self._missed: dict[str, int] = {}  # workers without a lease: in how many looks
        self._looked_at = 0.0

    def doubt(self) -> None:
        """They could not renew theirs, perhaps: what was missed does not count."""
        self._missed.clear()

    def connected_anew(self) -> None:
        """The connection was lost: others may be without theirs still."""
        self.doubt()
        self.settled_at = asyncio.get_running_loop().time() + _SETTLES_S

    async def look(self, own: Set[str]) -> None:
        """Looks for workers that are gone, unless the last look was a moment ago, and has them taken out.

        Args:
            own: The names that are not to be looked for.
        """
        now = asyncio.get_running_loop().time()
        if now - self._looked_at < 0.9 * self._every_s:  # the others have not had the time to renew theirs
            return
        self._looked_at = now
        known, dead = await asyncio.gather(
            self._link.call("HKEYS", self._keys.workers), self._link.call("SMEMBERS", self._keys.dead)
        )
        early = now < self.settled_at
        others = [worker for each in known if (worker := each.decode()) not in own and not early]
        leases = await self._link.call("MGET", *map(self._keys.lease, others)) if others else []
        missing = [worker for worker, lease in zip(others, leases, strict=True) if lease is None]
        self._missed = {worker: self._missed.get(worker, 0) + 1 for worker in missing}
        gone = [worker for worker, looks in self._missed.items() if looks >= _LOOKS]
        for worker in (*gone, *(each.decode() for each in dead)):
            if await self._claimed(worker):
                self._tasks.spawn(self._take_out(worker), "take out")

    async def clear(self, worker: str, *, aloud: bool) -> None:
        """Takes out what is kept under a name."""
        rooms = [each.decode() for each in await self._link.call("SMEMBERS", self._keys.worker_rooms(worker))]
        if rooms and aloud:
            logger.warning("a worker is gone: taking its users out of %s", counted(len(rooms), "rooms"))
        for room in rooms:
            await asyncio.gather(
                self._clear_hash(worker, self._keys.here(room), room if aloud else None, aloud=aloud),
                self._clear_hash(worker, self._keys.anonymous(room), None, aloud=aloud),
            )

    async def _clear_hash(self, worker: str, key: str, announced_in: str | None, *, aloud: bool) -> None:
        cursor: bytes | str = "0"
        while True:
            cursor, found = await self._link.call("HSCAN", key, cursor, "COUNT", _SCAN)
            await asyncio.gather(
                *(
                    self._clear_one(worker, key, user.decode(), connection_id, announced_in)
                    for user, text in pairs(found)
                    for connection_id in _connections_on(worker, text)
                )
            )
            if aloud:
                await self._link.call("PEXPIRE", self._keys.cleaner(worker), self._lease_ms)
            if cursor in (b"0", "0", 0):
                break

    async def forget(self, worker: str) -> None:
        """Ends a name that nothing is kept under."""
        keys = self._keys.lease(worker), self._keys.worker_rooms(worker)
        await asyncio.gather(self._link.call("HDEL", self._keys.workers, worker), self._link.call("DEL", *keys))

    async def _claimed(self, worker: str) -> bool:
        """Ends the name of a worker that has no lease; of several who would, one does."""
        keys = self._keys
        names = keys.lease(worker), keys.workers, keys.claimed(worker), keys.cleaner(worker), keys.dead
        return bool(await self._link.run(CLAIM, names, worker, self._lease_ms))

    async def _take_out(self, worker: str) -> None:
        try:
            await self.clear(worker, aloud=True)
            await asyncio.gather(
                self._link.call("SREM", self._keys.dead, worker),
                self._link.call("DEL", self._keys.worker_rooms(worker), self._keys.cleaner(worker)),
            )
        except BrokerUnavailable as error:
            logger.debug("a worker that is gone is not taken out yet: %s", str(error))

    async def _clear_one(self, worker: str, key: str, user: str, connection_id: str, announced_in: str | None) -> None:
        prepared = SILENCE if announced_in is None else self._announcer.prepare("left", announced_in, user)
        await self._link.run(CLEAR, (key,), worker, user, connection_id, *prepared)


def pairs(answer: Any) -> Iterable[tuple[bytes, bytes]]:
    """The pairs of a hash, which RESP3 gives as a map and scripts and scans as a list."""
    if isinstance(answer, dict):
        return answer.items()
    return zip(answer[::2], answer[1::2], strict=True)


def _connections_on(worker: str, text: bytes) -> list[str]:
    try:
        entry = orjson.loads(text)
        return [name for names in (entry["c"], entry["g"]) for name, on in names.items() if on == worker]
    except (ValueError, TypeError, KeyError, AttributeError):  # none of ours: `Presence.members` says so
        return []
