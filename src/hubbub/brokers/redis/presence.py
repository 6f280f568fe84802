"""Presence over the fleet, kept at Redis: each worker reports its own connections.

Theory of operation. A worker has a name and a *lease*: one key that it renews, however many clients it has. An entry at
Redis says on which worker each connection is. `ledger` contains the rules: what is reported, how Redis recognizes
repetitions and late statements, and what is reported again after Redis lost it. This module sends the statements to
Redis, and waits for the answers.

A worker whose lease expires is considered dead, and another worker removes its connections (`leases`). A frozen worker
that continues before that has lost nothing.

The first worker that finds that Redis has lost data tells the others. So all workers report their connections again
before any change is announced, and nobody is announced who was present all the time.

A server that evicts keys, or an operator, may delete the entries of one room alone. So with each renewal the worker
checks the witnesses of some rooms. If a witness is missing, it reports the room again, silently.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias, TypeVar

import orjson

from ...codec import dumps, loads
from ...errors import BrokerUnavailable, counted
from ...options import RoomTable
from ...presence import Info, Member, PresentConnection
from ...tasks import Tasks
from .announcing import SILENCE, Announcer
from .channel import Keys, Sender, pack_roll_call
from .foreign import Foreign
from .instructions import Instructions
from .leases import LEASE_SHARE, Leases, pairs
from .ledger import DONE, Entry, LeaseAnswer, Ledger, Manner, Place
from .link import Link
from .scripts import ENTER, EXIT, LEASE, LINGER, MISSING, Script

logger: Final = logging.getLogger("hubbub")

_ROLL_CALL_S: Final = 0.2
"""Seconds that other workers, once connected, have to report what Redis lost. Until then, nothing is announced."""

_AT_ONCE: Final = 500
_LEAVING_PASSES: Final = 3
"""Passes of the event loop until a closed connection counts as leaving its rooms."""

LOOKED_AFTER: Final = 500
"""Maximum number of rooms that are checked with each renewal."""

_How: TypeAlias = Literal["comes", "here", "lingers"]
T = TypeVar("T")

_Announces: TypeAlias = Literal["joined", "left"] | None


class Presence:
    """Reports one worker's connections to Redis, and reads the presence of the whole fleet.

    Args:
        link: The connection to Redis.
        keys: The names of the keys.
        lease_s: Seconds after which a worker that stops responding is considered dead.
        sender: Stamps the announcements.
        rooms: The options of the rooms, which say whether a room announces.
        tasks: Owns the background tasks.
        instructions: Reads the instructions that this worker missed.
        foreign: Counts entries that can't be read.
    """

    def __init__(
        self,
        link: Link,
        keys: Keys,
        lease_s: float,
        sender: Sender,
        rooms: RoomTable,
        tasks: Tasks,
        instructions: Instructions,
        foreign: Foreign,
    ) -> None:
        self._foreign = foreign
        self._link = link
        self._keys = keys
        self._lease_ms = int(lease_s * 1000 * LEASE_SHARE)
        self._announcer = Announcer(keys, sender, rooms)
        self._leases = Leases(link, keys, lease_s, self._announcer, tasks)
        self._tasks = tasks
        self._instructions = instructions
        self._ledger = Ledger(lambda: secrets.token_urlsafe(9))
        self._recovery: asyncio.Task[None] | None = None
        self._failure = ""  # why the last recovery failed
        self._settling: asyncio.Task[None] | None = None
        self._restoring: asyncio.Task[None] | None = None

    @property
    def worker(self) -> str:
        """The worker's name at Redis. It changes when Redis no longer knows it."""
        return self._ledger.worker

    # This worker's connections

    async def enter(self, room: str, user: str | None, connection_id: str, info: Info, room_info: Info = None) -> None:
        place = Place(room, user, connection_id)
        packed_room_info = b"" if room_info is None else dumps(room_info)
        entry = Entry(dumps(info), datetime.now(UTC).isoformat(), packed_room_info)
        await self._recovered()
        self._ledger.begin_entering(place)
        entered: Entry | None = None
        was_up, reconnects = self._link.up, self._link.reconnects
        try:
            while not await self._enter(place, entry, "comes", aloud=True):
                await self._recover()
            entered = entry
        except BaseException:
            if was_up or self._link.up or self._link.reconnects != reconnects:  # Redis may have executed it
                self._ledger.owe(place, None)
            raise
        finally:
            self._ledger.end_entering(place, entered)

    def presence_id(self, room: str, user: str | None, connection_id: str) -> str:
        return self._ledger.first(Place(room, user, connection_id))

    async def linger(self, room: str, user: str, connection_id: str, grace_s: float) -> None:
        place = Place(room, user, connection_id)
        self._ledger.linger(place, _now() + grace_s)
        try:
            if not await self._say(LINGER, place, patient=True):
                await self._recover()
        except BrokerUnavailable as error:
            logger.debug(
                "can't report a lost connection; it counts as live until its grace period ends: %s", str(error)
            )

    async def exit(self, room: str, user: str | None, connection_id: str) -> None:
        place = Place(room, user, connection_id)
        self._ledger.linger(place, _now())  # before the first await: a report from here on knows that it leaves
        await self._recovered()
        entry = self._ledger.forget(place)
        try:
            while not await self._exit(place):
                # Reported again first, so that its leaving can be announced; not if that was announced already.
                if entry is not None:
                    self._ledger.restore(place, entry, _now())
                await self._recover()
                self._ledger.forget(place)
        except BaseException as error:
            self._ledger.forget(place)
            if not self._ledger.owes and isinstance(error, BrokerUnavailable):
                logger.warning("can't report to Redis which users left; reporting it later: %s", str(error))
            self._ledger.owe(place, entry)
            if not isinstance(error, BrokerUnavailable):
                raise

    async def _enter(self, place: Place, entry: Entry, how: _How, *, aloud: bool) -> bool:
        announces: _Announces = "joined" if aloud else None
        return await self._say(ENTER, place, entry.info, entry.since, entry.room_info, how, announces=announces)

    async def _exit(self, place: Place) -> bool:
        last = "1" if self._ledger.is_last(place.room) else ""
        return await self._say(EXIT, place, last, announces="left", patient=True)

    async def _say(
        self,
        script: Script,
        place: Place,
        *arguments: Any,
        announces: _Announces = None,
        patient: bool = False,
    ) -> bool:
        """Makes a statement about a connection. Numbers and sends it before the first await.

        Returns:
            False if Redis does not know this worker, or not all of its statements, and so did nothing.
        """
        room, user, _ = place
        while True:
            prepared = SILENCE
            if announces is not None:
                prepared = self._announcer.prepare(announces, room, user)
            statement = self._ledger.state()
            keys = self._hash(place), self._keys.workers, self._keys.worker_rooms(statement.worker)
            answer: int | None = None
            try:
                found: int | bytes = await self._link.run(
                    script, keys, *statement, *_named(place), *arguments, *prepared, patient=patient
                )
                if isinstance(found, bytes):
                    self._ledger.note_first(place, found.decode())
                    found = DONE
                answer = found
            finally:
                verdict = self._ledger.answered(statement, answer)
            if verdict != "repeat":
                return verdict == "done"

    # The fleet's connections

    async def members(self, room: str) -> list[Member]:
        members = await self._read(self._keys.here(room), _member)
        return sorted(members, key=lambda member: member.since)

    async def connections(self, room: str) -> list[PresentConnection]:
        keys = self._keys
        of_users, anonymous = await asyncio.gather(
            self._read(keys.here(room), _connections), self._read(keys.anonymous(room), _anonymous_connections)
        )
        return [each for found in (*of_users, *anonymous) for each in found]

    async def _read(self, key: str, read: Callable[[str, dict[str, Any]], T]) -> list[T]:
        """Reads the entries of a hash."""
        found: list[T] = []
        for name, text in pairs(await self._link.call("HGETALL", key)):
            try:
                found.append(read(name.decode(), orjson.loads(text)))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                self._foreign.skip("a presence entry", key, error)
        return found

    async def count(self, room: str) -> int:
        count: int = await self._link.call("HLEN", self._keys.here(room))
        return count

    async def has(self, room: str, user: str) -> bool:
        return bool(await self._link.call("HEXISTS", self._keys.here(room), user))

    # This worker's lease

    async def begin(self) -> None:
        """Takes a lease."""
        await self._lease(new=True)

    async def renew(self) -> None:
        """Renews the lease, and checks the leases of other workers. Called `CHECKS` times per ``lease_s``."""
        ledger = self._ledger
        try:
            known = await self._lease()
        except BaseException:
            self._leases.doubt()
            raise
        for former in ledger.former:  # keeps other workers from clearing it, aloud
            self._ignore(self._link.call("SET", self._keys.lease(former), "1", "PX", self._lease_ms))
        if known != "kept" or ledger.unsaid is not None:
            self._recover_soon()
        elif ledger.owes and (self._settling is None or self._settling.done()):
            self._settling = self._tasks.spawn(self._settle(), "report exits")
        elif self._restoring is None:
            await self._look_after_some()
        await self._leases.look({ledger.worker, *ledger.former})

    def connected_anew(self) -> None:
        """Asks for the lease first, on a new connection: Redis may have lost what it had confirmed.

        Statements that are sent again were made before the loss, and do not carry the newest confirmed number. So they
        alone could not reveal what Redis lost. Other workers get time to reconnect.
        """
        self._leases.connected_anew()
        self._ignore(self._ask_for_lease(first=True))

    async def writable(self) -> None:
        """Raises BrokerUnavailable if the server answers but accepts no writes: it is full, or lacks replicas."""
        await self._link.call("SET", self._keys.lease(self.worker), "1", "XX", "PX", self._lease_ms)

    async def end(self) -> None:
        """Gives up the lease. Another worker removes the users in their grace period who do not return.

        All their grace periods end together, with the longest of them.
        """
        if self._ledger.is_empty:
            await self._leases.forget(self.worker)
            return
        left_ms = max(1, int(1000 * self._ledger.longest_grace_s(_now())))
        await self._link.call("SET", self._keys.lease(self.worker), "1", "PX", left_ms)

    async def _lease(self, *, new: bool = False) -> LeaseAnswer:
        """Takes or renews the lease. Returns the state of the worker's name at Redis."""
        answer: bytes = await self._ask_for_lease(new=new)
        return _LEASE_ANSWERS[answer]

    def _ask_for_lease(self, *, new: bool = False, first: bool = False) -> asyncio.Future[Any]:
        worker = self.worker
        keys = self._keys.lease(worker), self._keys.workers, self._keys.claimed(worker)
        number = self._ledger.newest if new else self._ledger.confirmed
        return self._link.run(LEASE, keys, worker, self._lease_ms, number, "1" if new else "", first=first)

    # Reporting again

    async def _recover(self) -> None:
        """Reports all connections again. Concurrent callers share one recovery.

        Raises:
            BrokerUnavailable: Not all connections could be reported. A later attempt reports the rest.
        """
        recovery = self._recover_soon()
        await asyncio.wait((recovery,))
        if recovery.cancelled() or recovery.exception() is not None:
            raise BrokerUnavailable("the broker is closed, or has failed")
        if self._failure:
            raise BrokerUnavailable(self._failure)

    async def _recovered(self) -> None:
        """Waits for a recovery in progress, so that current changes are announced after it."""
        while self._recovery is not None and not self._recovery.done():
            await asyncio.wait((self._recovery,))

    def _recover_soon(self) -> asyncio.Task[None]:
        if self._recovery is None or self._recovery.done():
            self._failure = ""
            self._recovery = self._tasks.spawn(self._try_to_report_again(), "report again")
        return self._recovery

    async def _try_to_report_again(self) -> None:
        try:
            await self._report_again()
        except BrokerUnavailable as error:
            self._failure = str(error)
            logger.debug("can't report to Redis again what it lost yet: %s", str(error))

    async def _report_again(self) -> None:
        ledger = self._ledger
        known = await self._lease()
        if ledger.lease_answered(known):
            if known == "claimed":
                logger.warning("this worker was considered dead: rooms may have been told that its users left")
            await self._lease(new=True)
            if known == "lost":
                await self._link.call("PUBLISH", self._keys.all_workers, pack_roll_call())
        manner = ledger.unsaid
        if manner is None:
            return
        if manner == "aloud":  # first closes users who were kicked meanwhile, so that they are not reported again
            await self._instructions.catch_up(self._link, subscribed=False)
            for _ in range(_LEAVING_PASSES):
                await asyncio.sleep(0)
        places = ledger.begin_again(_now())
        logger.info("reporting the presence of this worker to Redis again: %s", counted(len(places), "memberships"))
        await _in_batches(lambda place: self._again(place, manner), places)
        if manner == "silently":
            await asyncio.sleep(max(_ROLL_CALL_S, self._leases.settled_at - _now()))
        for former in tuple(ledger.former):
            await self._leases.clear(former, aloud=False)
            await self._leases.forget(former)
            ledger.former.discard(former)
        ledger.end_again()

    async def _again(self, place: Place, manner: Manner) -> None:
        again = self._ledger.again(place, manner)
        if again is not None:
            await self._enter(place, *again, aloud=manner == "aloud")

    async def _look_after_some(self) -> None:
        """Checks whether Redis still has this worker's entries of some rooms."""
        worker, witnesses = self.worker, self._ledger.witnesses(LOOKED_AFTER)
        if not witnesses:
            return
        keys = self._keys.workers, self._keys.worker_rooms(worker), *map(self._hash, witnesses)
        texts = (text for witness in witnesses for text in _named(witness))
        found = await self._link.run(MISSING, keys, worker, *texts)
        missing = [witnesses[place - 1] for place in found]
        lost = list(dict.fromkeys(witness.room for witness in missing if self._ledger.has(witness)))
        if lost and self.worker == worker:
            logger.warning(
                "Redis has lost the connections of this worker in %s; reporting them again. Were keys evicted?",
                counted(len(lost), "rooms"),
            )
            self._restoring = self._tasks.spawn(self._restore(lost, worker), "restore")

    async def _restore(self, rooms: list[str], worker: str) -> None:
        """Reports some rooms again, their witnesses last, so that the next check finds a room that failed.

        Stops when the worker takes another name. The recovery then reports everything, perhaps aloud, and a user whom
        this method had reported silently under the new name would not be announced.
        """

        async def again(place: Place) -> None:
            if self.worker == worker:
                await self._again(place, "silently")

        witnesses = self._ledger.witnesses_of(rooms)
        last = set(witnesses)
        others = [place for room in rooms for place in self._ledger.places(room) if place not in last]
        try:
            await _in_batches(again, others)
            await _in_batches(again, witnesses)
        except BrokerUnavailable as error:
            logger.debug("can't report to Redis again what it lost yet: %s", str(error))
        finally:
            self._restoring = None

    async def _settle(self) -> None:
        """Reports the exits that are owed."""
        try:
            await _in_batches(self._settle_one, self._ledger.debts())
        except BrokerUnavailable as error:
            logger.debug("can't report to Redis which users left yet: %s", str(error))

    async def _settle_one(self, place: Place) -> None:
        if not self._ledger.is_owed(place):
            return
        entry, done = self._ledger.settle(place), False
        self._ledger.forget(place)
        try:
            done = await self._exit(place)
        finally:
            if not done:
                self._ledger.owe(place, entry)

    def _hash(self, place: Place) -> str:
        return self._keys.anonymous(place.room) if place.user is None else self._keys.here(place.room)

    @staticmethod
    def _ignore(answer: asyncio.Future[Any]) -> None:
        """Marks a failure as retrieved, because the call is repeated anyway."""
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())


_LEASE_ANSWERS: Final[dict[bytes, LeaseAnswer]] = {b"kept": "kept", b"claimed": "claimed", b"lost": "lost"}


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _in_batches(do: Callable[[Place], Awaitable[None]], places: list[Place]) -> None:
    for first in range(0, len(places), _AT_ONCE):
        await asyncio.gather(*map(do, places[first : first + _AT_ONCE]))


def _named(place: Place) -> tuple[str, str, str]:
    """Returns the room, user and connection as Redis stores them: an anonymous connection is its own user."""
    room, user, connection_id = place
    return room, connection_id if user is None else user, connection_id


def _connections(user: str, entry: dict[str, Any]) -> list[PresentConnection]:
    plain, apart = {"i": entry["i"]}, entry.get("x", {})
    found = []
    for connection_id in (*entry["c"], *entry["g"]):
        own = apart.get(connection_id, plain)
        infos = loads(own["i"]), loads(own.get("r", "null"))
        found.append(PresentConnection(connection_id, user, *infos, connection_id in entry["c"], entry["n"]))
    return found


def _anonymous_connections(name: str, entry: dict[str, Any]) -> list[PresentConnection]:
    return [replace(each, user_id=None) for each in _connections(name, entry) if each.live]


def _member(user: str, entry: dict[str, Any]) -> Member:
    since = datetime.fromisoformat(entry["s"])
    return Member(user, loads(entry["i"]), len(entry["c"]), since)
