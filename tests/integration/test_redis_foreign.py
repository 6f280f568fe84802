"""What is read at Redis is input: what others or another release wrote is skipped and counted, and silences nobody."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import orjson
import pytest

from hubbub import BrokerUnavailable, Publisher, RoomOptions
from hubbub.brokers.redis.channel import Keys, Stamp, pack
from hubbub.codec import Kind, Payload
from hubbub.envelope import Envelope
from hubbub.options import RoomTable
from tests.integration.fleet import Listener, Subscriber, Worker, fleet, listening, subscribing
from tests.integration.redis_server import Proxy, RedisServer
from tests.integration.support import eventually

pytestmark = pytest.mark.anyio

KEPT, TOLD = "kept:a", "prompt:a"
KEYS = Keys("hubbub")
NOT_UTF8 = pack(Envelope(Payload(Kind.TEXT, b"caf\xe9")), Stamp(b"stranger", 1))


def skipped(*workers: Worker) -> int:
    return sum(worker.manager.stats().broker_skipped for worker in workers)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    texts = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    return [text for text in texts if "not of this release" in text]


ENTRIES: dict[str, tuple[object, ...]] = {
    "of other fields": ("1-1", "who", "knows"),
    "of another release": ("1-1", "m", b"N" + bytes(40), "t", "9999999999999"),
    "without a time": ("1-1", "m", b"M", "t", "soon"),
    "past the last message": ("77-0", "m", b"M", "t", "9999999999999"),
    "with an id of Redis' own": ("*", "who", "knows"),
}


@pytest.mark.parametrize("entry", ENTRIES)
async def test_a_foreign_entry_in_a_log_does_not_silence_the_room(own_redis: RedisServer, entry: str) -> None:
    with fleet(own_redis.url(), own_redis.url()) as (one, other):
        back = Subscriber(None, KEPT)
        async with subscribing((None, one), (None, other), rooms=(KEPT,)) as members:
            async with back.on(one):
                await one.publish(KEPT, "before")
                await back.has(KEPT, "before")
            own_redis.command("XADD", KEYS.log(KEPT), *ENTRIES[entry])
            for number in range(3):
                await (one, other)[number % 2].publish(KEPT, number)
            for member in members:
                await member.has(KEPT, 2)
                assert member.data[KEPT] == ["before", 0, 1, 2]
                assert (member.resets, member.faults) == ([], [])
            async with back.on(other):
                await one.publish(KEPT, "after")
                await back.has(KEPT, "after")
            assert back.faults == []
            assert [each.message[1] for each in await one.run(one.manager.history(KEPT))][-4:] == [0, 1, 2, "after"]


async def test_an_unreadable_message_in_a_log_is_a_reset_for_who_missed_it(
    own_redis: RedisServer, canaries: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """As a newer release may have written it."""
    with Proxy(own_redis) as proxy:
        urls = own_redis.url(through=proxy, timeout_s=1), own_redis.url()
        with fleet(*urls) as (one, other):
            async with subscribing((None, one), rooms=(KEPT,)) as (member,):
                await other.publish(KEPT, "before")
                await member.has(KEPT, "before")
                canaries.clear()
                proxy.lose("messages")
                for number in range(3):
                    await other.publish(KEPT, number)
                ((_, fields),) = own_redis.command("XRANGE", KEYS.log(KEPT), "3-0", "3-0")
                own_redis.command("DEL", KEYS.log(KEPT))
                for place in (2, 3, 4):
                    message = b"N" + fields[b"m"][1:] if place == 3 else fields[b"m"]
                    own_redis.command("XADD", KEYS.log(KEPT), f"{place}-0", "m", message, "t", fields[b"t"])
                canaries.set()
                await member.until(lambda: bool(member.resets))
                await member.reaches(KEPT, await other.position(KEPT))
                await other.publish(KEPT, "after")
                await member.has(KEPT, "after")
                assert member.faults == []
                assert skipped(one) > 0
                assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("room", [KEPT, "plain:a"])
async def test_a_published_text_that_is_no_utf_8_cuts_nobody_s_subscription(
    own_redis: RedisServer, room: str, caplog: pytest.LogCaptureFixture
) -> None:
    with fleet(own_redis.url(), own_redis.url()) as workers:
        async with subscribing((None, workers[0]), (None, workers[1]), rooms=(room,)) as members:
            for message in (
                NOT_UTF8,
                b"P" + b"abcdefgh" + bytes(8) + NOT_UTF8,
                b"",
                b"P",
                b"\xff",
                b"M\x07" + bytes(40),
            ):
                own_redis.command("PUBLISH", KEYS.channel(room), message)
            await workers[0].publish(room, "hello")
            for member in members:
                await member.has(room, "hello")
                assert member.data[room] == ["hello"]
                assert (member.resets, member.faults) == ([], [])
        assert [worker.manager.stats().broker_reconnects for worker in workers] == [0, 0]
        assert skipped(*workers) == 12
        assert len(warnings(caplog)) == 2  # of each worker, the first


BAD_ENTRIES = [b"no json", b"[]", b"{}", b'{"s":1,"i":"null","c":{},"g":{}}', b'{"s":"x","i":"null","c":[],"g":7}']


@pytest.mark.parametrize("entry", BAD_ENTRIES)
async def test_a_bad_presence_entry_is_left_out_and_written_anew_when_its_user_comes(
    own_redis: RedisServer, entry: bytes
) -> None:
    with fleet(own_redis.url()) as (worker,):
        async with listening(("ann", worker), rooms=(TOLD,)) as (ann,):
            for user in ("bob", "cyd"):
                own_redis.command("HSET", KEYS.here(TOLD), user, entry)
            assert await worker.present(TOLD) == {"ann": 1}
            assert skipped(worker) == 2
            assert [each.user_id for each in await worker.run(worker.manager._hubbub.broker.connections(TOLD))] == [
                "ann"
            ]
            async with Listener("bob", TOLD).on(worker):
                await ann.hears("user_joined", "bob")
                assert await worker.present(TOLD) == {"ann": 1, "bob": 1}
            await ann.hears("user_left", "bob")
            assert not await worker.run(worker.manager.is_online("cyd"))


@pytest.mark.parametrize("key", [KEYS.head, KEYS.log], ids=["head", "log"])
async def test_a_key_of_another_type_in_the_place_of_ours_does_not_silence_the_room(
    own_redis: RedisServer, key: Callable[[str], str]
) -> None:
    with fleet(own_redis.url()) as (worker,):
        async with (
            listening((None, worker), rooms=(KEPT,)) as (raw,),
            subscribing((None, worker), rooms=(KEPT,)) as (member,),
        ):
            await worker.publish(KEPT, "before")
            own_redis.command("SET", key(KEPT), "mine")
            await worker.publish(KEPT, "after")
            await raw.has(KEPT, "after")
            await member.reaches(KEPT, await worker.position(KEPT))  # it may have to subscribe again
            await worker.publish(KEPT, "later")
            await member.has(KEPT, "later")
            assert member.faults == []


async def test_a_key_of_another_type_in_the_place_of_the_list_of_silent_rooms_keeps_nobody_out(
    own_redis: RedisServer,
) -> None:
    own_redis.command("SET", KEYS.silent, "mine")
    with fleet(own_redis.url()) as (worker,):
        async with subscribing((None, worker), rooms=(KEPT,)) as (member,):
            await worker.publish(KEPT, "hello")
            await member.has(KEPT, "hello")
            assert member.faults == []


async def test_a_publisher_ignores_an_option_that_it_does_not_know_and_says_so_once(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    table = orjson.loads(RoomTable({"kept:*": RoomOptions(history=5)}).to_json())
    table["rooms"][0][1]["sparkle"] = True
    table["everyone"]["shine"] = 3
    own_redis.command("SET", KEYS.rooms, orjson.dumps(table))
    with Publisher(own_redis.url()) as publisher:
        for _ in range(2):
            assert publisher.broadcast("hello", room=KEPT) is not None
            publisher._rooms_at = 0.0  # it reads them again
    said = [record.getMessage() for record in caplog.records if "does not know" in record.getMessage()]
    assert len(said) == 1
    assert "sparkle" in said[0]
    assert "shine" in said[0]


@pytest.mark.parametrize("table", [b"no json", b"[]", b"{}", b'{"v":2,"rooms":[],"everyone":{},"users":{}}'])
async def test_a_publisher_says_that_it_can_not_read_the_rooms_options(own_redis: RedisServer, table: bytes) -> None:
    own_redis.command("SET", KEYS.rooms, table)
    with Publisher(own_redis.url()) as publisher, pytest.raises(BrokerUnavailable, match="same release"):
        publisher.broadcast("hello", room=KEPT)


async def test_who_misses_what_can_not_be_read_is_told_though_reading_fails(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect of ours ends in a reset, and not in silence."""

    async def fail(*_: object) -> object:
        raise RuntimeError("a defect")

    with fleet(own_redis.url()) as (worker,):
        async with subscribing((None, worker), rooms=(KEPT,)) as (member,):
            await worker.publish(KEPT, "before")
            await member.has(KEPT, "before")
            monkeypatch.setattr("hubbub.brokers.redis.logs.Logs.missed", fail)
            own_redis.cut("pubsub")
            await eventually(lambda: worker.manager.stats().broker_reconnects > 0)
            await eventually(lambda: own_redis.connections("pubsub") == 1)
            await worker.publish(KEPT, "after")
            await member.until(lambda: "after" in member.data[KEPT] or bool(member.resets))
            await worker.publish(KEPT, "later")
            await member.has(KEPT, "later")
            assert member.faults == []
