"""The model of Redis that the exploration of failures rests on does what the scripts do on a real server."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from hubbub.brokers.redis.channel import Keys, Stamp, pack
from hubbub.brokers.redis.scripts import ALL, HEAD, LINE, PUBLISH, READ, RENUMBER, Script
from hubbub.codec import encode
from hubbub.envelope import Envelope
from tests.integration.redis_server import RedisServer, fresh_prefix
from tests.integration.support import DEADLINE_S
from tests.unit.brokers.redis.redis_model import RedisModel

ROOMS, SENDERS = ("a", "b"), (b"senderno", b"another1")
SIZES = {"a": 3, "b": 2}


class Both:
    """The model and a server, which are told the same."""

    def __init__(self, redis: RedisServer) -> None:
        self._redis = redis
        self._keys = Keys(fresh_prefix())
        self._model = RedisModel(lambda channel, message: self.published.append((channel, message)))
        self.published: list[tuple[str, bytes]] = []
        self._client = Redis(port=redis.port, socket_timeout=DEADLINE_S)
        self._heard = self._client.pubsub(ignore_subscribe_messages=True)
        self._heard.subscribe(*map(self._keys.channel, ROOMS))
        self._epochs = 0
        for script in ALL:
            redis.command("SCRIPT", "LOAD", script.text)
            self._model.load(script)

    def epoch(self) -> str:
        self._epochs += 1
        return f"epoch{self._epochs:03}"

    def run(self, script: Script, keys: Sequence[str], *arguments: Any) -> Any:
        command = ("EVALSHA", script.sha, len(keys), *keys, *arguments)
        answers: list[Any] = []
        for model in (True, False):
            try:
                answers.append(self._model.execute(command) if model else self._redis.command(*command))
            except ResponseError as error:
                answers.append(str(error).split()[0])
        expected, answer = answers
        if script is READ:
            answer = [*answer[:5], [[*entry[:2], 0] for entry in answer[5]], answer[6]]
        assert answer == expected, f"{command} gave {answer}, and the model {expected}"
        return answer

    def head(self, room: str) -> Any:
        keys = self._keys.head(room), self._keys.log(room), self._keys.silent
        names = room, self._keys.room_prefix, self._keys.channel_prefix
        return self.run(HEAD, keys, self.epoch(), 60_000, *names, 4096)

    def line(self, sender: bytes, line: int) -> Any:
        return self.run(LINE, (self._keys.sender(sender),), line, 60_000)

    def publish(self, room: str, stamp: Stamp, line: int, before: int) -> Any:
        keys = self._keys.head(room), self._keys.log(room), self._keys.sender(stamp.sender)
        message = pack(Envelope(encode(f"{stamp.number}")), stamp)
        numbers = stamp.number, self.epoch(), 60_000, SIZES[room], 60_000, line, before
        return self.run(PUBLISH, keys, self._keys.channel(room), message, *numbers)

    def read(self, room: str, epoch: str, offset: int, limit: int, stamp: bytes) -> Any:
        return self.run(READ, (self._keys.head(room), self._keys.log(room)), 60_000, epoch, offset, limit, stamp)

    def renumber(self, room: str, epoch: str) -> Any:
        return self.run(RENUMBER, (self._keys.head(room),), self._keys.channel(room), epoch, self.epoch())

    def begin_another_run(self) -> None:
        """As a promotion does."""
        self._redis.command("REPLICAOF", "127.0.0.1", 1)
        self._redis.command("REPLICAOF", "NO", "ONE")
        self._model.renew_run()

    def lose(self, room: str) -> None:
        self._redis.command("DEL", self._keys.head(room))
        self._model.data.heads.pop(self._keys.head(room), None)

    def compare_published(self) -> None:
        heard: list[tuple[str, bytes]] = []
        while len(heard) < len(self.published):
            message = self._heard.get_message(timeout=DEADLINE_S)
            if message is not None:
                heard.append((message["channel"].decode(), message["data"]))
        assert heard == self.published

    def close(self) -> None:
        self._heard.close()
        self._client.close()


@pytest.fixture
def both(redis: RedisServer) -> Iterator[Both]:
    told = Both(redis)
    yield told
    told.close()


@pytest.mark.parametrize("seed", range(8))
def test_the_model_of_redis_does_what_the_scripts_do(both: Both, seed: int) -> None:
    dice = random.Random(seed)
    lines = dict.fromkeys(SENDERS, 0)
    last = dict.fromkeys(SENDERS, 0)
    numbers = dict.fromkeys(SENDERS, 0)
    epochs = ["", "unknown"]
    for _ in range(150):
        room, sender = dice.choice(ROOMS), dice.choice(SENDERS)
        match dice.choices(
            ("publish", "again", "gap", "line", "head", "read", "run", "renumber", "lose"), (8, 1, 1, 2, 2, 6, 2, 1, 1)
        )[0]:
            case "publish" | "again" | "gap" as kind:
                numbers[sender] += kind == "publish"
                before = last[sender] + (kind == "gap")
                answer = both.publish(room, Stamp(sender, max(1, numbers[sender])), lines[sender], before)
                if answer != "LINE":
                    last[sender] = max(1, numbers[sender])
                    epochs.append(answer[0].decode())
            case "line":
                line = lines[sender] + dice.choice((0, 1, 1))
                if both.line(sender, line) != "LINE":
                    lines[sender], last[sender] = line, 0
            case "head":
                epochs.append(both.head(room)[0].decode())
            case "read":
                stamp = dice.choice((b"", Stamp(sender, dice.randint(1, 9)).packed()))
                both.read(room, dice.choice(epochs[-6:]), dice.randrange(12), dice.randrange(4), stamp)
            case "run":
                both.begin_another_run()
            case "renumber":
                both.renumber(room, dice.choice(epochs[-2:]))
            case "lose":
                both.lose(room)
    both.compare_published()


def test_a_position_is_of_the_numbering_for_as_many_runs_as_the_model_says(both: Both) -> None:
    positions = [both.head("a")]
    for number in range(40):
        both.begin_another_run()
        both.line(SENDERS[0], number + 1)
        positions.append(both.publish("a", Stamp(SENDERS[0], number + 1), number + 1, 0))
    known = [both.read("a", epoch.decode(), offset, 0, b"")[2] for epoch, offset in positions]
    assert known == sorted(known)
    assert 20 <= sum(known) < len(known)
