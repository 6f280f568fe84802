"""Endpoints, with the official Python SDK of the Centrifugo protocol in JSON and in Protobuf."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from centrifuge import CentrifugeError

from tests.integration.live import Cable, Live, Sdk, live_app, sdk, token
from tests.integration.support import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_sweeps")]


@pytest.fixture(scope="module")
def loop(either_loop: str) -> str:
    return either_loop


@pytest.fixture(scope="module")
def live(loop: str) -> Iterator[Live]:
    with live_app(Live(), loop=loop) as live:
        yield live


@pytest.fixture(params=[False, True], ids=["json", "protobuf"])
def protobuf(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


async def refused(work: Any) -> tuple[int, str, bool]:
    with pytest.raises(CentrifugeError) as raised:
        await work
    error: Any = raised.value
    return error.code, error.message, error.temporary


async def test_a_client_connects_and_is_welcomed(live: Live, protobuf: bool) -> None:
    async with sdk(live, "ann", protobuf=protobuf) as ann:
        (connected,) = ann.events.connected
        assert ann.parsed(connected.data) == {"hello": "ann"}
        assert {each.channel for each in ann.events.subscribed} == {"$user", "$everyone", "ticker:news"}
        await live.publish("ticker:news", {"n": 1})
        await eventually(
            lambda: [(room, ann.parsed(data)) for room, data in ann.events.publications] == [("ticker:news", {"n": 1})]
        )
    await eventually(lambda: "ann" in live.ended)


async def test_a_request_has_a_typed_reply_and_what_it_published_comes_first(live: Live, protobuf: bool) -> None:
    async with sdk(live, "ann", protobuf=protobuf) as ann:
        _, room = await ann.subscribed("chat:typed")
        reply = await ann.rpc("say", {"room": "typed", "text": "hello"})
        assert reply == {"user_id": "ann", "text": "hello"}
        await eventually(lambda: room.got == [reply])


async def test_requests_that_are_refused_are_answers(live: Live, protobuf: bool) -> None:
    async with sdk(live, "ann", protobuf=protobuf) as ann:
        code, message, temporary = await refused(ann.rpc("say", {"room": 1}))
        assert (code, temporary) == (422, False)
        assert message == "room: Input should be a valid string; text: Field required"
        assert await refused(ann.rpc("forbid")) == (403, "not you", False)
        assert await refused(ann.rpc("busy")) == (503, "later", True)
        assert await refused(ann.rpc("nothing")) == (104, "method not found", False)
        assert await refused(ann.rpc("fail")) == (100, "internal server error", True)
        assert await ann.rpc("say", {"room": "x", "text": "still here"}) == {"user_id": "ann", "text": "still here"}
        assert live.manager.stats().errors["function"] > 0


async def test_requests_are_handled_in_order_and_a_slow_one_holds_up_only_the_next(live: Live, protobuf: bool) -> None:
    name = f"gate {protobuf}"
    live.gates[name] = asyncio.Event()
    async with sdk(live, "ann", protobuf=protobuf) as ann:
        waiting = asyncio.ensure_future(ann.rpc("wait", name))
        await eventually(lambda: name in live.began)
        behind = asyncio.ensure_future(ann.rpc("say", {"room": "x", "text": "behind"}))
        assert await ann.rpc("aside", "beside") == "beside"
        subscription, room = await ann.subscribed("chat:beside")
        await subscription.unsubscribe()
        await eventually(lambda: bool(room.unsubscribed))
        assert not waiting.done()
        assert not behind.done()
        await live.server.acall(_set(live.gates[name]))
        assert await waiting == f"waited for {name}"
        assert await behind == {"user_id": "ann", "text": "behind"}


async def _set(event: asyncio.Event) -> None:
    event.set()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("chat:secret", 103),
        ("chat:broken", 100),
        ("nothing", 103),
        ("other:x", 103),
        ("$everyone", 103),
        ("$user", 103),
    ],
)
async def test_nobody_subscribes_without_a_yes(name: str, code: int, live: Live, protobuf: bool) -> None:
    async with sdk(live, "ann", protobuf=protobuf) as ann:
        subscription, room = ann.room(name)
        await subscription.subscribe()
        await eventually(lambda: bool(room.unsubscribed or room.errors))
        told = room.unsubscribed[0][0] if room.unsubscribed else room.errors[0].code
        assert told == code or code == 100
        assert not room.subscribed
        await subscription.unsubscribe()


async def test_clients_publish_where_there_is_a_rule_and_only_what_it_gives(live: Live, protobuf: bool) -> None:
    async with sdk(live, "ann", protobuf=protobuf) as ann:
        subscription, room = await ann.subscribed("chat:published")
        await subscription.publish(ann.sent({"text": "hi"}))
        await eventually(lambda: room.got == [{"text": "hi", "by": "ann"}])
        assert (await refused(ann.client.publish("chat:elsewhere", ann.sent({}))))[0] == 103
        ticker, _ = await ann.subscribed("ticker:x")
        assert (await refused(ticker.publish(ann.sent({}))))[0] == 103


async def test_raw_members_and_subscribers_are_in_one_room(live: Live, protobuf: bool) -> None:
    async with sdk(live, "ann", protobuf=protobuf) as ann:
        _, room = await ann.subscribed("chat:shared")
        assert {each.user_id for each in live.manager.connections(room="chat:shared")} == {"ann"}
        for message in ({"n": 1}, "text", [1, 2]):
            await live.publish("chat:shared", message)
        await eventually(lambda: room.got == [{"n": 1}, "text", [1, 2]])
        assert await live.server.acall(live.manager.send_to_user("ann", {"for": "ann"}))
        await eventually(
            lambda: ("$user", {"for": "ann"}) in [(name, ann.parsed(data)) for name, data in ann.events.publications]
        )


async def test_presence_and_history_are_for_subscribers(live: Live, protobuf: bool) -> None:
    name = f"chat:asked-{protobuf}"
    async with sdk(live, "ann", protobuf=protobuf) as ann, sdk(live, "bob", protobuf=protobuf) as bob:
        subscription, room = await ann.subscribed(name)
        await bob.subscribed(name)
        await eventually(lambda: room.joins == ["ann", "bob"])
        presence = (await subscription.presence()).clients
        assert sorted(each.user for each in presence.values()) == ["ann", "bob"]
        stats = await subscription.presence_stats()
        assert (stats.num_clients, stats.num_users) == (2, 2)
        for n in range(5):
            await live.publish(name, n)
        history = await subscription.history(limit=-1)
        assert [ann.parsed(each.data) for each in history.publications] == [0, 1, 2, 3, 4]
        assert [each.offset for each in (await subscription.history(limit=2, reverse=True)).publications] == [5, 4]
        assert (await subscription.history()).offset == 5
        ticker, _ = await ann.subscribed("ticker:y")
        assert (await refused(ticker.presence()))[0] == 108
        assert (await refused(ticker.history()))[0] == 108
        assert (await refused(ann.client.history("chat:not-mine")))[0] == 103


@pytest.mark.parametrize("missed", [0, 1, 100, 10_000])
async def test_a_client_that_was_cut_off_recovers_exactly_what_it_missed(
    missed: int, live: Live, protobuf: bool
) -> None:
    name = f"chat:cut-{missed}-{protobuf}"
    async with Cable(live.server.port) as cable, sdk(live, "ann", protobuf=protobuf, port=cable.port) as ann:
        _, room = await ann.subscribed(name)
        await live.publish(name, "before")
        await eventually(lambda: room.got == ["before"])
        cable.cut()
        await eventually(lambda: not live.manager.connections(room=name))

        async def publish_all() -> None:
            for n in range(missed):
                await live.manager.broadcast(n, room=name)

        await live.server.acall(publish_all(), 30.0)
        cable.mend()
        await eventually(lambda: len(room.subscribed) == 2)
        assert room.subscribed[1].recovered
        await live.publish(name, "after")
        await eventually(lambda: room.got[-1:] == ["after"], 30.0)
        assert room.got == ["before", *range(missed), "after"]
        assert room.offsets == list(range(1, missed + 3))


async def test_a_client_that_missed_too_much_is_told(live: Live, protobuf: bool) -> None:
    name = f"short:{protobuf}"
    async with Cable(live.server.port) as cable, sdk(live, "ann", protobuf=protobuf, port=cable.port) as ann:
        _, room = await ann.subscribed(name)
        cable.cut()
        await eventually(lambda: not live.manager.connections(room=name))
        for n in range(6):
            await live.publish(name, n)
        cable.mend()
        await eventually(lambda: len(room.subscribed) == 2)
        assert (room.subscribed[1].was_recovering, room.subscribed[1].recovered) == (True, False)
        await live.publish(name, "after")
        await eventually(lambda: room.got == ["after"])


async def test_a_kicked_user_does_not_come_back(live: Live, protobuf: bool) -> None:
    async with sdk(live, "kim", protobuf=protobuf) as kim:
        await live.server.acall(live.manager.disconnect_user("kim"))
        await eventually(lambda: [code for code, _ in kim.events.disconnected] == [3503])


async def test_a_wrong_token_ends_for_good_and_an_expired_one_is_fetched_again(live: Live, protobuf: bool) -> None:
    ann = Sdk(live, "ann", protobuf=protobuf, tokens=["not.a.token"])
    with suppress(CentrifugeError):
        await ann.client.connect()
    await eventually(lambda: [code for code, _ in ann.events.disconnected] == [3500])
    async with sdk(live, "ann", protobuf=protobuf, tokens=[token("ann", lasts_s=-60)]) as late:
        assert not late.tokens


async def test_a_grant_that_ends_is_asked_for_again(live: Live, protobuf: bool) -> None:
    async with sdk(live, "ann", protobuf=protobuf) as ann:
        began = time.monotonic()
        _, room = await ann.subscribed("chat:brief")
        assert ann.parsed(room.subscribed[0].data) == {"granted": True}
        await eventually(lambda: len(room.subscribed) == 2)
        assert time.monotonic() - began >= 0.9


async def test_a_full_room_is_a_limit(live: Live, protobuf: bool) -> None:
    async with sdk(live, "ann", protobuf=protobuf) as ann, sdk(live, "bob", protobuf=protobuf) as bob:
        await ann.subscribed("small:room")
        subscription, room = bob.room("small:room")
        await subscription.subscribe()
        await eventually(lambda: [code for code, _ in room.unsubscribed] == [106])
    await eventually(lambda: not live.manager.connections(room="small:room"))


async def test_a_user_without_a_name_may_read_what_is_open(live: Live, protobuf: bool) -> None:
    async with sdk(live, None, protobuf=protobuf, path="/open") as somebody:
        _, room = await somebody.subscribed("ticker:open")
        await live.publish("ticker:open", {"n": 1})
        await eventually(lambda: room.got == [{"n": 1}])


async def test_256_subscriptions_in_one_frame_are_all_answered(live: Live, protobuf: bool) -> None:
    async with sdk(live, "ann", protobuf=protobuf) as ann:
        rooms = [ann.room(f"chat:many-{n}") for n in range(200)]
        await asyncio.gather(*(subscription.subscribe() for subscription, _ in rooms))
        await eventually(lambda: all(room.subscribed for _, room in rooms), 20.0)
