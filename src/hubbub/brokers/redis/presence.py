"""Who is present, over the fleet: kept at Redis, by what each worker says of its own connections.

Theory of operation. A worker has a name, and a *lease*: one key that it renews, however many clients it has. An entry
at Redis says on which worker each connection is. What a worker says is numbered, and Redis keeps its last number beside
its name. So what comes a second time, or late over a connection that was given up, is known, and what was passed by the
next without being done is said once more; and a worker learns with the next that it says, or the next renewal, when
Redis has lost any of it.

A worker whose lease runs out is taken for dead, and its connections are taken out by another (`leases`). One that was
frozen and comes back before that has lost nothing.

A worker whose name is gone takes a new one, and says all its connections again: aloud where it was claimed, since the
rooms heard that they left; in silence where Redis lost its data, since nobody did. What Redis still has under the
former name is what the worker does not know of any more, and is taken out in silence. Who finds first that data is
lost tells the others, so that nobody is announced who has been here all the time.

A server that evicts keys, or an operator, may take away a room's entries alone. So with each renewal a worker looks
whether its longest connection of some rooms is still there, and says all of a room again, in silence, where it is not.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import orjson

from ...codec import dumps, loads
from ...errors import BrokerUnavailable, counted
from ...options import RoomTable
from ...presence import Info, Member
from ...tasks import Tasks
from .announcing import SILENCE, Announcer
from .channel import Keys, Sender, pack_roll_call
from .foreign import Foreign
from .instructions import Instructions
from .leases import LEASE_SHARE, Leases, pairs
from .link import Link
from .scripts import ENTER, EXIT, LEASE, LINGER, MISSING, Script

logger = logging.getLogger("hubbub")

_ROLL_CALL_S: Final = 0.2
"""What others have, once connected, to say who is with them where Redis lost it. Nobody is announced before."""

_AT_ONCE: Final = 500
_LEAVING_PASSES: Final = 3
"""Of the loop, until a connection that is closed counts as leaving its rooms."""

LOOKED_AFTER: Final = 500
"""Rooms that are looked after with each renewal: all, where there are no more."""

_KEPT: Final = b"kept"
_CLAIMED: Final = b"claimed"

_UNKNOWN: Final = 0
_PASSED: Final = 2

_How: TypeAlias = Literal["comes", "here", "lingers"]
_Announces: TypeAlias = Literal["joined", "left"] | None


class _Mine(NamedTuple):
    """A connection of this worker's in a room."""

    info: bytes
    since: str
    lingers_until: float | None = None


class Presence:
    """The presence at Redis, as one worker takes part in it.

    Args:
        link: Where to.
        keys: How the keys are called.
        lease_s: Seconds after which a worker that says nothing is taken for dead.
        sender: Who announces.
        rooms: The options of the rooms: which are told.
        tasks: Who owns what goes on in between.
        instructions: Reads which users were sent away meanwhile.
        foreign: Counts what can't be read.
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
        self.node = _new_name()
        self._link = link
        self._keys = keys
        self._lease_ms = int(lease_s * 1000 * LEASE_SHARE)
        self._announcer = Announcer(keys, sender, rooms)
        self._leases = Leases(link, keys, lease_s, self._announcer, tasks)
        self._tasks = tasks
        self._instructions = instructions
        self._said = 0  # the number of what was said last
        self._heard = 0  # the last one that Redis confirmed
        self._saying = 0  # how much waits to be confirmed
        self._mine: dict[str, dict[str, dict[str, _Mine]]] = {}  # by room, user and connection
        self._entering: Counter[str] = Counter()
        self._owed: dict[str, dict[tuple[str, str], _Mine | None]] = {}  # exits that were refused, by room
        self._unsaid: Literal["aloud", "silently"] | None = None  # how all is to be said again, until it is
        self._former: set[str] = set()  # names under which Redis may have what is not so any more
        self._recovery: asyncio.Task[None] | None = None
        self._failure = ""  # of the recovery
        self._settling: asyncio.Task[None] | None = None
        self._restoring: asyncio.Task[None] | None = None
        self._to_look_after: list[str] = []  # rooms, until all had their turn

    # This worker's connections

    async def enter(self, room: str, user: str, connection_id: str, info: Info) -> None:
        mine = _Mine(dumps(info), datetime.now(UTC).isoformat())
        await self._recovered()
        self._pay(room, user, connection_id)
        self._entering[room] += 1
        was_up, reconnects = self._link.up, self._link.reconnects
        try:
            while not await self._enter(room, user, connection_id, mine, "comes", aloud=True):
                await self._recover()
        except BaseException:
            if was_up or self._link.up or self._link.reconnects != reconnects:  # it may have got there
                self._owe(room, user, connection_id, None)
            raise
        finally:
            self._entering[room] -= 1
            if not self._entering[room]:
                del self._entering[room]
        # A user that comes again is no longer in grace; the exits that would end it find nothing.
        for name, each in tuple(self._names(room, user).items()):
            if each.lingers_until is not None:
                self._forget(room, user, name)
        self._remember(room, user, connection_id, mine)

    async def linger(self, room: str, user: str, connection_id: str, grace_s: float) -> None:
        names = self._names(room, user)
        if connection_id in names:
            names[connection_id] = _lingering(names[connection_id], grace_s)
        try:
            if not await self._say(LINGER, room, user, connection_id, patient=True):
                await self._recover()
        except BrokerUnavailable as error:
            logger.debug("a lost connection counts until its grace is over: %s", str(error))

    async def exit(self, room: str, user: str, connection_id: str) -> None:
        names = self._names(room, user)
        if connection_id in names:  # at once: what is said again from here on is that it is going
            names[connection_id] = _lingering(names[connection_id], 0.0)
        await self._recovered()
        mine = self._forget(room, user, connection_id)
        try:
            while not await self._exit(room, user, connection_id):
                # Said again first, where it can be heard that it leaves; not, where that was heard already.
                if mine is not None:
                    self._remember(room, user, connection_id, _lingering(mine, 0.0))
                await self._recover()
                self._forget(room, user, connection_id)
        except BaseException as error:
            self._forget(room, user, connection_id)
            if not self._owed and isinstance(error, BrokerUnavailable):
                logger.warning("who leaves can't be said now, and will be: %s", str(error))
            self._owe(room, user, connection_id, mine)
            if not isinstance(error, BrokerUnavailable):
                raise

    async def _enter(self, room: str, user: str, connection_id: str, mine: _Mine, how: _How, *, aloud: bool) -> bool:
        announces: _Announces = "joined" if aloud else None
        return await self._say(ENTER, room, user, connection_id, mine.info, mine.since, how, announces=announces)

    async def _exit(self, room: str, user: str, connection_id: str) -> bool:
        last = "" if room in self._mine or room in self._entering or room in self._owed else "1"
        return await self._say(EXIT, room, user, connection_id, last, announces="left", patient=True)

    async def _say(
        self,
        script: Script,
        room: str,
        user: str,
        connection_id: str,
        *arguments: Any,
        announces: _Announces = None,
        patient: bool = False,
    ) -> bool:
        """Says something of a connection. It is numbered and on its way before the first await.

        Returns:
            False where Redis does not know this worker, or not all that it said: nothing was done.
        """
        while True:
            prepared = SILENCE if announces is None else self._announcer.prepare(announces, room, user)
            self._said += 1
            node, number = self.node, self._said
            keys = self._keys.here(room), self._keys.nodes, self._keys.node_rooms(node)
            numbers = node, number, self._heard
            self._saying += 1
            try:
                answer = await self._link.run(
                    script, keys, *numbers, room, user, connection_id, *arguments, *prepared, patient=patient
                )
            finally:
                self._saying -= 1
            if answer == _UNKNOWN:
                return False
            self._heard = max(self._heard, number)
            if answer != _PASSED:
                return True

    def _names(self, room: str, user: str) -> dict[str, _Mine]:
        return self._mine.get(room, {}).get(user, {})

    def _remember(self, room: str, user: str, connection_id: str, mine: _Mine) -> None:
        self._mine.setdefault(room, {}).setdefault(user, {})[connection_id] = mine

    def _forget(self, room: str, user: str, connection_id: str) -> _Mine | None:
        users = self._mine.get(room, {})
        names = users.get(user, {})
        mine = names.pop(connection_id, None)
        if mine is not None and not names:
            del users[user]
            if not users:
                del self._mine[room]
        return mine

    def _owe(self, room: str, user: str, connection_id: str, mine: _Mine | None) -> None:
        self._owed.setdefault(room, {})[user, connection_id] = mine

    def _pay(self, room: str, user: str, connection_id: str) -> _Mine | None:
        owed = self._owed.get(room, {})
        mine = owed.pop((user, connection_id), None)
        if not owed:
            self._owed.pop(room, None)
        return mine

    # The fleet's

    async def members(self, room: str) -> list[Member]:
        entries = pairs(await self._link.call("HGETALL", self._keys.here(room)))
        members: list[Member] = []
        for user, text in entries:
            try:
                members.append(_member(user.decode(), orjson.loads(text)))
            except (ValueError, TypeError, KeyError) as error:
                self._foreign.skip("a presence entry", self._keys.here(room), error)
        return sorted(members, key=lambda member: member.since)

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
        """Renews the lease, and looks whether others have theirs. To be called `CHECKS` times in ``lease_s``."""
        try:
            known = await self._lease()
        except BaseException:
            self._leases.doubt()
            raise
        for former in self._former:  # until it is cleared, nobody else is to
            self._ignore(self._link.call("SET", self._keys.node(former), "1", "PX", self._lease_ms))
        if known != _KEPT or self._unsaid is not None:
            self._recover_soon()
        elif self._owed and (self._settling is None or self._settling.done()):
            self._settling = self._tasks.spawn(self._settle(), "say who left")
        elif self._restoring is None:
            await self._look_after_some()
        await self._leases.look({self.node, *self._former})

    def connected_anew(self) -> None:
        """The connection was lost: Redis may have lost what it had confirmed, and others may be without theirs still.

        What is sent again was numbered long ago, and does not say what was confirmed since. So the lease comes first.
        """
        self._leases.connected_anew()
        self._ignore(self._ask_for_lease(first=True))

    async def writable(self) -> None:
        """Raises BrokerUnavailable where the server answers but takes nothing: it is full, or has no replicas."""
        await self._link.call("SET", self._keys.node(self.node), "1", "XX", "PX", self._lease_ms)

    async def end(self) -> None:
        """Gives the lease back. Who is in grace, and comes back to no other worker, is taken out by one of them.

        They see one end for all, that of the longest grace.
        """
        if not self._mine and not self._owed and not self._saying:
            await self._leases.forget(self.node)
            return
        now = asyncio.get_running_loop().time()
        left_s = [
            mine.lingers_until - now
            for users in self._mine.values()
            for names in users.values()
            for mine in names.values()
            if mine.lingers_until is not None
        ]
        await self._link.call("SET", self._keys.node(self.node), "1", "PX", max(1, int(1000 * max(left_s, default=0))))

    async def _lease(self, *, new: bool = False) -> bytes:
        """Takes or renews the lease; gives what became of the name."""
        answer: bytes = await self._ask_for_lease(new=new)
        return answer

    def _ask_for_lease(self, *, new: bool = False, first: bool = False) -> asyncio.Future[Any]:
        keys = self._keys.node(self.node), self._keys.nodes, self._keys.claimed(self.node)
        number = self._said if new else self._heard
        return self._link.run(LEASE, keys, self.node, self._lease_ms, number, "1" if new else "", first=first)

    # Saying it again

    async def _recover(self) -> None:
        """Says all again, once for all who find that it is needed.

        Raises:
            BrokerUnavailable: It could not all be said; what is left will be.
        """
        recovery = self._recover_soon()
        await asyncio.wait((recovery,))
        if recovery.cancelled() or recovery.exception() is not None:
            raise BrokerUnavailable("the broker is closed, or has failed")
        if self._failure:
            raise BrokerUnavailable(self._failure)

    async def _recovered(self) -> None:
        """Waits where all is being said again: who comes and goes is announced after that."""
        while self._recovery is not None and not self._recovery.done():
            await asyncio.wait((self._recovery,))

    def _recover_soon(self) -> asyncio.Task[None]:
        if self._recovery is None or self._recovery.done():
            self._failure = ""
            self._recovery = self._tasks.spawn(self._try_to_say_again(), "say again")
        return self._recovery

    async def _try_to_say_again(self) -> None:
        try:
            await self._say_again()
        except BrokerUnavailable as error:
            self._failure = str(error)
            logger.debug("what Redis lost can't be said again yet: %s", str(error))

    async def _say_again(self) -> None:
        known = await self._lease()
        if known != _KEPT:
            if known == _CLAIMED:
                self._unsaid = "aloud"
                logger.warning("this worker was taken for dead: its users may have been said to have left")
            else:
                self._unsaid = self._unsaid or "silently"
                self._former.add(self.node)
            self.node = _new_name()
            await self._lease(new=True)
            if known != _CLAIMED:
                await self._link.call("PUBLISH", self._keys.workers, pack_roll_call())
        if self._unsaid is None:
            return
        aloud = self._unsaid == "aloud"
        if aloud:  # whoever was sent away meanwhile does not come back
            await self._instructions.catch_up(self._link, subscribed=False)
            for _ in range(_LEAVING_PASSES):
                await asyncio.sleep(0)
        else:  # said again, so that it can be heard that they leave
            for room, owed in self._owed.items():
                for (user, name), mine in owed.items():
                    if mine is not None:
                        self._remember(room, user, name, _lingering(mine, 0.0))
        all_ = [
            (room, user, name) for room, users in self._mine.items() for user, names in users.items() for name in names
        ]
        logger.info("telling Redis again who is in which room: %s", counted(len(all_), "memberships"))
        for first in range(0, len(all_), _AT_ONCE):
            await asyncio.gather(*(self._again(*each, aloud=aloud) for each in all_[first : first + _AT_ONCE]))
        if not aloud:
            now = asyncio.get_running_loop().time()
            await asyncio.sleep(max(_ROLL_CALL_S, self._leases.settled_at - now))
        for former in tuple(self._former):
            await self._leases.clear(former, aloud=False)
            await self._leases.forget(former)
            self._former.discard(former)
        self._unsaid = None

    async def _again(self, room: str, user: str, name: str, *, aloud: bool) -> None:
        mine = self._names(room, user).get(name)
        if mine is None:
            return  # it has left meanwhile
        if mine.lingers_until is None:
            await self._enter(room, user, name, mine, "here", aloud=aloud)
        elif aloud:
            self._forget(room, user, name)  # the rooms heard that it left, and it has
        else:
            await self._enter(room, user, name, mine, "lingers", aloud=False)

    async def _look_after_some(self) -> None:
        """Looks whether Redis still has this worker's entries of some rooms."""
        if not self._to_look_after:
            self._to_look_after = list(self._mine)
        rooms = [room for room in self._to_look_after[-LOOKED_AFTER:] if room in self._mine]
        del self._to_look_after[-LOOKED_AFTER:]
        node = self.node
        # A room's entries go together, so that those said before are gone if any of them is: the first is said longest.
        # One that lingers is no witness: it ends, rightly, when its user comes back to another worker.
        firsts = [(room, *first) for room in rooms if (first := _first_live(self._mine[room])) is not None]
        keys = self._keys.node_rooms(node), *(self._keys.here(room) for room, _, _ in firsts)
        if not firsts:
            return
        places = await self._link.run(MISSING, keys, *(text for first in firsts for text in first))
        missing = [firsts[place - 1] for place in places]
        rooms = [room for room, user, name in missing if name in self._names(room, user)]
        if rooms and self.node == node:
            logger.warning(
                "Redis has lost who of this worker is present in %s, and is told again. Were keys evicted?",
                counted(len(rooms), "rooms"),
            )
            self._restoring = self._tasks.spawn(self._restore(rooms), "restore")

    async def _restore(self, rooms: list[str]) -> None:
        """Says again who is in some rooms. Where that fails, the next look finds it."""
        try:
            for room in rooms:
                users = self._mine.get(room, {})
                all_ = [(room, user, name) for user, names in users.items() for name in names]
                for first in range(0, len(all_), _AT_ONCE):
                    again = (self._again(*each, aloud=False) for each in all_[first : first + _AT_ONCE])
                    await asyncio.gather(*again)
        except BrokerUnavailable as error:
            logger.debug("what Redis lost can't be said again yet: %s", str(error))
        finally:
            self._restoring = None

    async def _settle(self) -> None:
        """Says who left when Redis could not be told."""
        owed = [(room, *each) for room, owed in self._owed.items() for each in owed]
        try:
            for first in range(0, len(owed), _AT_ONCE):
                await asyncio.gather(*(self._settle_one(*each) for each in owed[first : first + _AT_ONCE]))
        except BrokerUnavailable as error:
            logger.debug("who left can't be said yet: %s", str(error))

    async def _settle_one(self, room: str, user: str, connection_id: str) -> None:
        if (user, connection_id) not in self._owed.get(room, {}):
            return
        mine, done = self._pay(room, user, connection_id), False
        self._forget(room, user, connection_id)
        try:
            done = await self._exit(room, user, connection_id)
        finally:
            if not done:
                self._owe(room, user, connection_id, mine)

    @staticmethod
    def _ignore(answer: asyncio.Future[Any]) -> None:
        """Marks a failure as seen: what it was for is done again."""
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())


def _new_name() -> str:
    return secrets.token_urlsafe(9)


def _first_live(users: dict[str, dict[str, _Mine]]) -> tuple[str, str] | None:
    """The user and connection that are in a room longest."""
    live = ((user, name) for user, names in users.items() for name, mine in names.items() if mine.lingers_until is None)
    return next(live, None)


def _lingering(mine: _Mine, grace_s: float) -> _Mine:
    return mine._replace(lingers_until=asyncio.get_running_loop().time() + grace_s)


def _member(user: str, entry: dict[str, Any]) -> Member:
    since = datetime.fromisoformat(entry["s"])
    return Member(user, loads(entry["i"]), len(entry["c"]), since)
