"""Who is present, over the fleet: kept at Redis, by what each worker says of its own connections.

Theory of operation. A worker has a name of its own and a *lease*: one key that it renews, however many clients it has.
Each entry at Redis says which worker a connection is on. A worker whose lease ran out is taken for dead: whoever sees
it first claims it, takes its connections out, and says who left by that.

A worker also remembers its own entries. Where Redis came back without its data, it says them again, in silence, since
nobody heard that anybody left. A worker that was only frozen finds its lease gone: it takes a new name, so that who
cleans up after the old one does not touch the new entries, and says them again aloud, since others heard that they
left.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import orjson

from ...codec import Kind, Payload, dumps
from ...envelope import Envelope
from ...errors import BrokerUnavailable
from ...options import RoomTable
from ...presence import Info, Member, announcement
from .channel import Keys, Sender, pack
from .link import Link
from .scripts import ENTER, EXIT, LINGER

logger = logging.getLogger("hubbub")

CHECKS: Final = 6
"""How often a lease is renewed, and those of others are looked at, in ``lease_s``."""

_LEASE_SHARE: Final = 2 / 3
"""What of ``lease_s`` a lease lasts. The rest is for two looks: after a pause of Redis itself all leases are gone."""

_SCAN: Final = 500
_AT_ONCE: Final = 500


_Told: TypeAlias = tuple[str, bytes, bytes]
"""Of an announcement the channel, head and tail."""

_SILENCE: Final[_Told] = ("", b"", b"")


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
    """

    def __init__(self, link: Link, keys: Keys, lease_s: float, sender: Sender, rooms: RoomTable) -> None:
        self.node = _new_name()
        self._link = link
        self._keys = keys
        self._lease_ms = int(lease_s * 1000 * _LEASE_SHARE)
        self._missing: set[str] = set()
        self._sender = sender
        self._rooms = rooms
        self._mine: dict[str, dict[str, dict[str, _Mine]]] = {}  # by room, user and connection
        self._owed: list[tuple[str, str, str]] = []  # exits that Redis refused: room, user, connection
        self._generation: str | None = None
        self._unsaid: Literal["aloud", "silently"] | None = None  # how all is to be said again, until it is

    # This worker's connections

    async def enter(self, room: str, user: str, connection_id: str, info: Info) -> None:
        mine = _Mine(dumps(info), datetime.now(UTC).isoformat())
        if room not in self._mine:
            self._mine[room] = {}
            self._note_room(room)
        known = self._mine[room].get(user, {})
        # A user that comes again is no longer in grace; the exits that would end it find nothing.
        self._mine[room][user] = {name: each for name, each in known.items() if each.lingers_until is None}
        self._mine[room][user][connection_id] = mine
        await self._enter(room, user, connection_id, mine, "1", self._announcement("user_joined", room, user))

    async def linger(self, room: str, user: str, connection_id: str, grace_s: float) -> None:
        names = self._mine.get(room, {}).get(user, {})
        if connection_id in names:
            until = asyncio.get_running_loop().time() + grace_s
            names[connection_id] = names[connection_id]._replace(lingers_until=until)
        try:
            await self._link.run(LINGER, (self._keys.here(room),), user, connection_id, patient=True)
        except BrokerUnavailable as error:
            logger.debug("a lost connection counts until its grace is over: %s", str(error))

    async def exit(self, room: str, user: str, connection_id: str) -> None:
        self._forget(room, user, connection_id)  # before Redis has it: what is said again from here on is without it
        try:
            await self._exit(room, user, connection_id, "")
        except BrokerUnavailable as error:
            if not self._owed:
                logger.warning("who leaves can't be said now, and will be: %s", str(error))
            self._owed.append((room, user, connection_id))
        else:
            if room not in self._mine:
                self._ignore(self._link.call("SREM", self._keys.node_rooms(self.node), room))

    def _note_room(self, room: str) -> None:
        """Where to look for entries of this worker, should it die."""
        self._ignore(self._link.call("SADD", self._keys.node_rooms(self.node), room))

    def _announcement(self, kind: Literal["user_joined", "user_left"], room: str, user: str) -> _Told:
        if not self._rooms(room).announce:
            return _SILENCE
        told = announcement(kind, room, user)
        head = pack(Envelope(Payload(Kind.JSON, told.head)), self._sender.stamp())  # the payload is last, and goes on
        return self._keys.channel(room), head, told.tail

    def _enter(
        self, room: str, user: str, connection_id: str, mine: _Mine, comes: Literal["0", "1"], told: _Told
    ) -> asyncio.Future[Any]:
        arguments = (user, connection_id, self.node, mine.info, mine.since, comes, *told)
        return self._link.run(ENTER, (self._keys.here(room),), *arguments)

    def _exit(self, room: str, user: str, connection_id: str, node: str) -> asyncio.Future[Any]:
        told = self._announcement("user_left", room, user)
        return self._link.run(EXIT, (self._keys.here(room),), user, connection_id, node, *told, patient=True)

    def _forget(self, room: str, user: str, connection_id: str) -> None:
        users = self._mine.get(room, {})
        names = users.get(user, {})
        if names.pop(connection_id, None) is None or names:
            return
        del users[user]
        if not users:
            del self._mine[room]

    # The fleet's

    async def members(self, room: str) -> list[Member]:
        entries = _pairs(await self._link.call("HGETALL", self._keys.here(room)))
        members = [_member(user.decode(), orjson.loads(text)) for user, text in entries]
        return sorted(members, key=lambda member: member.since)

    async def count(self, room: str) -> int:
        count: int = await self._link.call("HLEN", self._keys.here(room))
        return count

    async def has(self, room: str, user: str) -> bool:
        return bool(await self._link.call("HEXISTS", self._keys.here(room), user))

    # Leases

    async def begin(self) -> None:
        """Takes a lease, and notes which generation of data is there."""
        self._generation = await self._data_generation()
        await self._take_lease()

    async def renew(self, *, doubtful: bool = False) -> None:
        """Renews the lease, and says again what may no longer be there. To be called `CHECKS` times in ``lease_s``.

        Args:
            doubtful: Whether it may be another server, or one that was started anew.
        """
        generation = await self._data_generation()
        kept = await self._link.call("SET", self._keys.node(self.node), "1", "XX", "PX", self._lease_ms)
        if doubtful or generation != self._generation:
            self._unsaid = self._unsaid or "silently"
        elif kept is None:
            logger.warning("this worker's lease at Redis ran out: its users may have been said to have left")
            self.node = _new_name()
            self._unsaid = "aloud"
        if self._unsaid is None:
            await self._link.call("SADD", self._keys.nodes, self.node)
        else:
            await self._take_lease()
            await self._say_again(aloud=self._unsaid == "aloud")
            self._generation, self._unsaid = generation, None
        owed, self._owed = self._owed, []
        for each in owed:
            await self.exit(*each)

    async def writable(self) -> None:
        """Raises BrokerUnavailable where the server answers but takes nothing: it is full, or has no replicas."""
        await self._link.call("SET", self._keys.node(self.node), "1", "XX", "PX", self._lease_ms)

    async def end(self) -> None:
        """Gives the lease back. Who is in grace, and comes back to no other worker, is taken out by one of them.

        They see one end for all, that of the longest grace.
        """
        if not self._mine and not self._owed:
            await self._forget_node(self.node)
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

    async def _data_generation(self) -> str:
        """A random string that lives and dies with the data at Redis."""
        known: bytes | None = await self._link.call("GET", self._keys.generation)
        if known is None:
            await self._link.call("SET", self._keys.generation, _new_name(), "NX")
            known = await self._link.call("GET", self._keys.generation)
        return (known or b"").decode()

    async def _take_lease(self) -> None:
        lease = self._link.call("SET", self._keys.node(self.node), "1", "PX", self._lease_ms)
        await asyncio.gather(lease, self._link.call("SADD", self._keys.nodes, self.node))

    async def _say_again(self, *, aloud: bool) -> None:
        for room in self._mine:
            self._note_room(room)
        all_ = [
            (room, user, name, mine)
            for room, users in self._mine.items()
            for user, names in users.items()
            for name, mine in names.items()
        ]
        logger.info("telling Redis again of %d connections in rooms", len(all_))
        for first in range(0, len(all_), _AT_ONCE):
            part = [each for each in all_[first : first + _AT_ONCE] if self._knows(*each[:3])]
            answers = []
            for room, user, name, mine in part:
                told = self._announcement("user_joined", room, user) if aloud else _SILENCE
                answers.append(self._enter(room, user, name, mine, "0", told))
                if mine.lingers_until is not None:
                    answers.append(self._link.run(LINGER, (self._keys.here(room),), user, name))
            await asyncio.gather(*answers)

    def _knows(self, room: str, user: str, name: str) -> bool:
        return name in self._mine.get(room, {}).get(user, {})

    async def clean_up(self) -> None:
        """Looks for workers that are gone, and takes their connections out."""
        nodes = [each.decode() for each in await self._link.call("SMEMBERS", self._keys.nodes)]
        others = [each for each in nodes if each != self.node]
        if not others:
            self._missing = set()
            return
        leases = await self._link.call("MGET", *(self._keys.node(each) for each in others))
        missing = {node for node, lease in zip(others, leases, strict=True) if lease is None}
        dead, self._missing = missing & self._missing, missing
        for node in dead:
            if await self._claimed(node):
                await self._take_out(node)

    async def _claimed(self, node: str) -> bool:
        claim = await self._link.call("SET", self._keys.claim(node), self.node, "NX", "PX", self._lease_ms)
        return claim is not None

    async def _take_out(self, node: str) -> None:
        rooms = [each.decode() for each in await self._link.call("SMEMBERS", self._keys.node_rooms(node))]
        if rooms:
            logger.warning("a worker is gone: taking its users out of %d rooms", len(rooms))
        for room in rooms:
            cursor: bytes | str = "0"
            while True:
                cursor, found = await self._link.call("HSCAN", self._keys.here(room), cursor, "COUNT", _SCAN)
                exits = [
                    self._exit(room, user.decode(), connection_id, node)
                    for user, text in _pairs(found)
                    for connection_id in _connections_on(node, text)
                ]
                await asyncio.gather(*exits)
                await self._link.call("SET", self._keys.claim(node), self.node, "PX", self._lease_ms)
                if cursor in (b"0", "0", 0):
                    break
        await self._forget_node(node)

    async def _forget_node(self, node: str) -> None:
        keys = (self._keys.node(node), self._keys.node_rooms(node), self._keys.claim(node))
        await asyncio.gather(self._link.call("SREM", self._keys.nodes, node), self._link.call("DEL", *keys))

    # Calls

    @staticmethod
    def _ignore(answer: asyncio.Future[Any]) -> None:
        """Marks a failure as seen: what it was for is done again or runs out by itself."""
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())


def _new_name() -> str:
    return secrets.token_urlsafe(9)


def _pairs(answer: Any) -> Iterable[tuple[bytes, bytes]]:
    """The pairs of a hash, which RESP3 gives as a map and scripts and scans as a list."""
    if isinstance(answer, dict):
        return answer.items()
    return zip(answer[::2], answer[1::2], strict=True)


def _connections_on(node: str, text: bytes) -> list[str]:
    entry = orjson.loads(text)
    return [name for names in (entry["c"], entry["g"]) for name, on in names.items() if on == node]


def _member(user: str, entry: dict[str, Any]) -> Member:
    since = datetime.fromisoformat(entry["s"])
    return Member(user, orjson.loads(entry["i"]), len(entry["c"]), since)
