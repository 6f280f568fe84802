"""A model of Redis, as far as positions go: what its scripts do, and what can happen to the server.

`tests/integration/test_redis_model.py` holds it against the scripts on a real server. Presence, leases and time are not
a part of it: nothing is trimmed by age here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from redis.exceptions import NoScriptError, ResponseError

from hubbub.brokers.redis.scripts import ALL, CONNECTED, HEAD, LEASE, LINE, MISSING, PUBLISH, READ, RENUMBER, Script

FORMER_BYTES = 400
_runs = count(1)


@dataclass
class Head:
    """A room's numbering."""

    epoch: str
    offset: int
    run: str
    former: list[tuple[str, int]] = field(default_factory=list)

    def common_offset(self, epoch: str) -> int | None:
        """The last offset that an epoch has in common with the numbering."""
        return self.offset if epoch == self.epoch else dict(reversed(self.former)).get(epoch)


@dataclass
class Data:
    """What the server keeps.

    Attributes:
        heads: By key.
        logs: By key: offset and message.
        senders: By key: line, the last number taken in it, the last that was published.
        truth: By head: every message of the numbering, whether it is kept or not.
    """

    heads: dict[str, Head] = field(default_factory=dict)
    logs: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)
    senders: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    truth: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)


class RedisModel:
    """The server.

    Attributes:
        data: What it keeps.
        run: Names this run of it.
        scripts: The scripts that it knows, by their SHA-1.
        published: Takes channel and message of each PUBLISH.
    """

    def __init__(self, published: Callable[[str, bytes], None]) -> None:
        self.data = Data()
        self.scripts: set[str] = set()
        self.published = published
        self.run = ""
        self.renew_run()
        self._by_sha: dict[str, Callable[[list[str], list[bytes]], Any]] = {
            PUBLISH.sha: self._publish,
            LINE.sha: self._line,
            HEAD.sha: self._head,
            READ.sha: self._read,
            RENUMBER.sha: self._renumber,
            LEASE.sha: lambda keys, arguments: b"kept",
            CONNECTED.sha: lambda keys, arguments: 0,
            MISSING.sha: lambda keys, arguments: [],
        }

    # What can happen to it

    def renew_run(self) -> None:
        """It was restarted, or promoted."""
        self.run = f"{next(_runs):08x}"

    def snapshot(self) -> Data:
        return copy.deepcopy(self.data)

    def execute(self, arguments: Sequence[Any]) -> Any:
        """Executes a command; gives the answer, or raises the error that is one."""
        name = _text(arguments[0])
        if name == "EVALSHA":
            sha, keys = _text(arguments[1]), int(arguments[2])
            if sha not in self.scripts:
                raise NoScriptError("No matching script. Please use EVAL.")
            script = self._by_sha.get(sha, _done)
            rest = [each if isinstance(each, bytes) else str(each).encode() for each in arguments[3:]]
            return script([_text(each) for each in rest[:keys]], rest[keys:])
        if name == "SCRIPT":
            self.load(next(script for script in ALL if script.text == _text(arguments[2])))
            return b""
        if name == "PUBLISH":
            self.published(_text(arguments[1]), arguments[2])
            return 1
        if name == "HMGET":
            head = self.data.heads.get(_text(arguments[1]))
            return [None, None] if head is None else [head.epoch.encode(), b"%d" % head.offset]
        return copy.copy(_ANSWERS.get(name, b"OK"))

    def load(self, script: Script) -> None:
        self.scripts.add(script.sha)

    # Its scripts

    def _head_of(self, key: str, log: str, epoch: str) -> Head:
        head = self.data.heads.get(key)
        if head is None:
            self.data.logs.pop(log, None)
            head = self.data.heads[key] = Head(epoch, 0, self.run)
            self.data.truth[key] = []
        elif head.run != self.run:
            head.former = _that_fit([(head.epoch, head.offset), *head.former])
            head.epoch, head.run = epoch, self.run
        return head

    def _head(self, keys: list[str], arguments: list[bytes]) -> Any:
        head = self._head_of(keys[0], keys[1], _text(arguments[0]))
        return [head.epoch.encode(), head.offset]

    def _line(self, keys: list[str], arguments: list[bytes]) -> Any:
        line, _, last = self.data.senders.get(keys[0], (-1, 0, 0))
        if line >= int(arguments[0]):
            raise ResponseError("LINE a later one has begun")
        self.data.senders[keys[0]] = int(arguments[0]), 0, last
        return 1

    def in_line(self, known: tuple[int, int, int] | None, line: int, before: int) -> bool:
        """Whether a message is the next of its line."""
        return known is not None and known[:2] == (line, before)

    def _publish(self, keys: list[str], arguments: list[bytes]) -> Any:
        channel, message, number, epoch, _, size, _, line, before = arguments
        known = self.data.senders.get(keys[2])
        if not self.in_line(known, int(line), int(before)):
            raise ResponseError("LINE the message before it did not come")
        last = known[2] if known is not None else 0
        head = self._head_of(keys[0], keys[1], _text(epoch))
        log = self.data.logs.setdefault(keys[1], [])
        if last >= int(number):
            self.data.senders[keys[2]] = int(line), int(number), last
            for offset, kept in reversed(log):
                if kept[2:18] == message[2:18]:
                    return [head.epoch.encode(), offset]
            return [head.epoch.encode(), head.offset]
        head.offset += 1
        self.data.truth[keys[0]].append((head.offset, message))
        log.append((head.offset, message))
        del log[: -int(size)]
        self.data.senders[keys[2]] = int(line), int(number), int(number)
        self.published(_text(channel), b"P%b%b%b" % (head.epoch.encode(), head.offset.to_bytes(8, "big"), message))
        return [head.epoch.encode(), head.offset]

    def _read(self, keys: list[str], arguments: list[bytes]) -> Any:
        _, epoch, offset, limit, stamp = arguments
        head, log = self.data.heads.get(keys[0]), self.data.logs.get(keys[1], [])
        if head is None:
            return [b"", 0, 0, 0, 1, [], 0]
        most = int(limit) or None
        if not epoch:
            return self._answer(head, log[-most if most else 0 :])
        after, common = int(offset), head.common_offset(_text(epoch))
        known = common is not None and after <= common
        same = common is None or not stamp or all(kept[2:18] == stamp for place, kept in log if place == after)
        found = [each for each in log if each[0] > after][:most]
        whole = known and (after == head.offset or (bool(found) and found[0][0] == after + 1))
        return self._answer(head, found if whole else log[:most], known=known, whole=whole, same=same)

    def _answer(
        self,
        head: Head,
        found: list[tuple[int, bytes]],
        *,
        known: bool = False,
        whole: bool = False,
        same: bool = True,
    ) -> Any:
        entries = [[offset, message, 0] for offset, message in found]
        return [head.epoch.encode(), head.offset, int(known), int(whole), int(same), entries, 0]

    def _renumber(self, keys: list[str], arguments: list[bytes]) -> Any:
        head = self.data.heads.get(keys[0])
        if head is None or head.epoch != _text(arguments[1]):
            return 0
        head.epoch, head.former = _text(arguments[2]), []
        self.published(_text(arguments[0]), b"R%b%b" % (head.epoch.encode(), head.offset.to_bytes(8, "big")))
        return 1


_ANSWERS: dict[str, Any] = {
    "HELLO": {},
    "INFO": b"",
    "HGETALL": {},
    "HKEYS": [],
    "SMEMBERS": [],
    "MGET": [],
    "ZRANGEBYSCORE": [],
    "TIME": [b"1000", b"0"],
    "GET": None,
}


def _that_fit(former: list[tuple[str, int]]) -> list[tuple[str, int]]:
    kept: list[tuple[str, int]] = []
    size = 0
    for epoch, offset in former:
        size += len(f"{epoch} {offset},")
        if size > FORMER_BYTES:
            break
        kept.append((epoch, offset))
    return kept


def _done(keys: list[str], arguments: list[bytes]) -> int:
    return 1


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
