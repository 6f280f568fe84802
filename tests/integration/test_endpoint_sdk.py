"""Endpoints, with the official SDKs of the Centrifugo protocol for Python and JavaScript, in JSON and in Protobuf."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from tests.integration.live import Cable, Live, live_app, token
from tests.integration.sdk import Client, History, Refused, Sdk
from tests.integration.sdk_js import Node
from tests.integration.sdks import SDKS, sdk_of
from tests.integration.sdks import node as node  # fixtures
from tests.integration.sdks import sdk as sdk
from tests.integration.support import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_sweeps")]


@pytest.fixture(scope="module")
def loop(either_loop: str) -> str:
    return either_loop


@pytest.fixture(scope="module")
def live(loop: str) -> Iterator[Live]:
    with live_app(Live(), loop=loop) as live:
        yield live


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name that no other test has."""
    return str(request.node.name)


async def refused(work: Coroutine[Any, Any, Any]) -> tuple[int, str, bool]:
    with pytest.raises(Refused) as raised:
        await work
    return raised.value.code, raised.value.message, raised.value.temporary


@asynccontextmanager
async def every_sdk(live: Live, node: Node, **options: Any) -> AsyncIterator[list[Client]]:
    """A connected client of each SDK."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(sdk_of(each, node).connected(live, **options)) for each in SDKS]


async def test_a_client_connects_and_is_welcomed(live: Live, sdk: Sdk) -> None:
    async with sdk.connected(live, "ann") as ann:
        assert ann.connected == [{"hello": "ann"}]
        await eventually(lambda: {each.room for each in ann.joined} == {"$user", "$everyone", "ticker:news"})
        await live.publish("ticker:news", {"n": 1})
        await eventually(lambda: ann.published == [("ticker:news", {"n": 1})])
    await eventually(lambda: "ann" in live.ended)


async def test_a_request_has_a_typed_reply_and_what_it_published_comes_first(live: Live, sdk: Sdk) -> None:
    async with sdk.connected(live, "ann") as ann:
        room = await ann.subscribed("chat:typed")
        reply = await ann.rpc("say", {"room": "typed", "text": "hello"})
        assert reply == {"user_id": "ann", "text": "hello"}
        await eventually(lambda: room.got == [reply])


async def test_requests_that_are_refused_are_answers(live: Live, sdk: Sdk) -> None:
    async with sdk.connected(live, "ann") as ann:
        code, message, temporary = await refused(ann.rpc("say", {"room": 1}))
        assert (code, temporary) == (422, False)
        assert message == "room: Input should be a valid string; text: Field required"
        assert await refused(ann.rpc("forbid")) == (403, "not you", False)
        assert await refused(ann.rpc("busy")) == (503, "later", True)
        assert await refused(ann.rpc("nothing")) == (104, "method not found", False)
        assert await refused(ann.rpc("fail")) == (100, "internal server error", True)
        assert await ann.rpc("say", {"room": "x", "text": "still here"}) == {"user_id": "ann", "text": "still here"}
        assert live.manager.stats().errors["function"] > 0


async def test_requests_are_handled_in_order_and_a_slow_one_holds_up_only_the_next(
    live: Live, sdk: Sdk, name: str
) -> None:
    live.gates[name] = asyncio.Event()
    async with sdk.connected(live, "ann") as ann:
        waiting = asyncio.ensure_future(ann.rpc("wait", name))
        await eventually(lambda: name in live.began)
        behind = asyncio.ensure_future(ann.rpc("say", {"room": "x", "text": "behind"}))
        assert await ann.rpc("aside", "beside") == "beside"
        room = await ann.subscribed("chat:beside")
        await room.unsubscribe()
        await eventually(lambda: bool(room.unsubscribed))
        assert not waiting.done()
        assert not behind.done()
        await live.let_go(name)
        assert await waiting == f"waited for {name}"
        assert await behind == {"user_id": "ann", "text": "behind"}


@pytest.mark.parametrize(
    ("room", "code"),
    [
        ("chat:secret", 103),
        ("chat:broken", 100),
        ("nothing", 103),
        ("other:x", 103),
        ("$everyone", 103),
        ("$user", 103),
    ],
)
async def test_nobody_subscribes_without_a_yes(room: str, code: int, live: Live, sdk: Sdk) -> None:
    async with sdk.connected(live, "ann") as ann:
        asked = await ann.room(room)
        await asked.subscribe()
        await eventually(lambda: bool(asked.unsubscribed or asked.errors))
        told = asked.unsubscribed[0][0] if asked.unsubscribed else asked.errors[0]
        assert told == code or code == 100
        assert not asked.subscribed
        await asked.unsubscribe()


async def test_clients_publish_where_there_is_a_rule_and_only_what_it_gives(live: Live, sdk: Sdk) -> None:
    async with sdk.connected(live, "ann") as ann:
        room = await ann.subscribed("chat:published")
        await room.publish({"text": "hi"})
        await eventually(lambda: room.got == [{"text": "hi", "by": "ann"}])
        assert (await refused(ann.publish("chat:elsewhere", {})))[0] == 103
        ticker = await ann.subscribed("ticker:x")
        assert (await refused(ticker.publish({})))[0] == 103


async def test_raw_members_and_subscribers_are_in_one_room(live: Live, sdk: Sdk) -> None:
    async with sdk.connected(live, "ann") as ann:
        room = await ann.subscribed("chat:shared")
        assert {each.user_id for each in live.manager.connections(room="chat:shared")} == {"ann"}
        for message in ({"n": 1}, "text", [1, 2]):
            await live.publish("chat:shared", message)
        await eventually(lambda: room.got == [{"n": 1}, "text", [1, 2]])
        assert await live.server.acall(live.manager.send_to_user("ann", {"for": "ann"}))
        await eventually(lambda: ("$user", {"for": "ann"}) in ann.published)


async def test_presence_and_history_are_for_subscribers(live: Live, sdk: Sdk, name: str) -> None:
    async with sdk.connected(live, "ann") as ann, sdk.connected(live, "bob") as bob:
        room = await ann.subscribed(f"chat:{name}")
        room_of_bob = await bob.subscribed(f"chat:{name}")
        await eventually(lambda: room.joins == ["ann", "bob"])
        assert sorted((await room.presence()).values()) == ["ann", "bob"]
        assert await room.presence_stats() == (2, 2)
        for n in range(5):
            await live.publish(f"chat:{name}", n)
        history = await room.history(limit=-1)
        assert [each.data for each in history.publications] == [0, 1, 2, 3, 4]
        assert [each.offset for each in (await room.history(limit=2, reverse=True)).publications] == [5, 4]
        after_two = await room.history(limit=2, since=(2, history.epoch))
        assert [(each.offset, each.data) for each in after_two.publications] == [(3, 2), (4, 3)]
        assert (await refused(room.history(limit=2, since=(2, "another"))))[0] == 112
        assert await room.history() == History([], 5, history.epoch)
        ticker = await ann.subscribed("ticker:y")
        assert (await refused(ticker.presence()))[0] == 108
        assert (await refused(ticker.history()))[0] == 108
        assert (await refused(ann.history("chat:not-mine")))[0] == 103
        await room_of_bob.unsubscribe()
        await eventually(lambda: room.leaves == ["bob"])


@pytest.mark.parametrize("missed", [0, 1, 100])
async def test_a_client_that_was_cut_off_recovers_exactly_what_it_missed(
    missed: int, live: Live, sdk: Sdk, name: str
) -> None:
    async with Cable(live.server.port) as cable, sdk.connected(live, "ann", port=cable.port) as ann:
        room = await ann.subscribed(f"chat:{name}")
        await live.publish(room.name, "before")
        await eventually(lambda: room.got == ["before"])
        cable.cut()
        await eventually(lambda: not live.manager.connections(room=room.name))

        async def publish_all() -> None:
            for n in range(missed):
                await live.manager.broadcast(n, room=room.name)

        await live.server.acall(publish_all(), 30.0)
        cable.mend()
        await eventually(lambda: len(room.subscribed) == 2)
        assert room.subscribed[1].recovered
        await live.publish(room.name, "after")
        await eventually(lambda: room.got[-1:] == ["after"])
        assert room.got == ["before", *range(missed), "after"]
        assert room.offsets == list(range(1, missed + 3))


@pytest.mark.parametrize(
    "sdk",
    [
        "python-json",
        "python-protobuf",
        "node-json",
        pytest.param("node-protobuf", marks=pytest.mark.slow),
        pytest.param("node-ours", marks=pytest.mark.slow),
    ],
    indirect=True,
)
async def test_a_client_that_was_cut_off_for_long_recovers_too(live: Live, sdk: Sdk, name: str) -> None:
    await test_a_client_that_was_cut_off_recovers_exactly_what_it_missed(10_000, live, sdk, name)


async def test_a_client_that_missed_too_much_is_told(live: Live, sdk: Sdk, name: str) -> None:
    async with Cable(live.server.port) as cable, sdk.connected(live, "ann", port=cable.port) as ann:
        room = await ann.subscribed(f"short:{name}")
        cable.cut()
        await eventually(lambda: not live.manager.connections(room=room.name))
        for n in range(6):
            await live.publish(room.name, n)
        cable.mend()
        await eventually(lambda: len(room.subscribed) == 2)
        assert (room.subscribed[1].was_recovering, room.subscribed[1].recovered) == (True, False)
        await live.publish(room.name, "after")
        await eventually(lambda: room.got == ["after"])


async def test_a_kicked_user_does_not_come_back(live: Live, sdk: Sdk) -> None:
    async with sdk.connected(live, "kim") as kim:
        await live.server.acall(live.manager.disconnect_user("kim"))
        await eventually(lambda: [code for code, _ in kim.disconnected] == [3503])


async def test_a_wrong_token_ends_for_good_and_an_expired_one_is_fetched_again(live: Live, sdk: Sdk) -> None:
    async with sdk.client(live, "ann", tokens=["not.a.token"]) as ann:
        await ann.connect()
        await eventually(lambda: [code for code, _ in ann.disconnected] == [3500])
    async with sdk.connected(live, "ann", tokens=[token("ann", lasts_s=-60)]) as late:
        assert not late.tokens


async def test_a_grant_that_ends_is_asked_for_again(live: Live, node: Node) -> None:
    """All SDKs at once, since the grant lasts for a second."""
    async with every_sdk(live, node) as clients:
        began = time.monotonic()
        rooms = [await each.subscribed("chat:brief") for each in clients]
        assert [room.subscribed[0].data for room in rooms] == [{"granted": True}] * len(SDKS)
        await eventually(lambda: all(len(room.subscribed) == 2 for room in rooms))
        assert time.monotonic() - began >= 0.9
        assert [room.unsubscribed for room in rooms] == [[]] * len(SDKS)


def soon_over() -> str:
    return token("ann", lasts_s=2.5)


async def test_a_token_is_refreshed_in_place(live: Live, node: Node) -> None:
    """All SDKs at once, since a token lasts for a second at least."""
    async with every_sdk(live, node, tokens=[soon_over, token("ann")]) as clients:
        await eventually(lambda: not any(each.tokens for each in clients))
        for each in clients:
            assert await each.rpc("aside", "still here") == "still here"
        assert [len(each.connected) for each in clients] == [1] * len(SDKS)


async def test_a_client_that_does_not_refresh_its_token_is_closed_and_fetches_another(
    live: Live, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All SDKs at once, since a token lasts for a second at least."""
    monkeypatch.setattr("hubbub.endpoints.expiry.REFRESH_GRACE_S", 0.0)
    async with every_sdk(live, node, tokens=[soon_over, None, token("ann")]) as clients:
        await eventually(lambda: all(len(each.connected) == 2 for each in clients))
        assert [each.connecting[1] for each in clients] == [3005] * len(SDKS)
        assert not any(each.tokens for each in clients)


async def test_a_code_says_whether_the_client_comes_back(live: Live, sdk: Sdk) -> None:
    codes = [(1011, 3004), (1012, 3001), (3011, 3011), (4000, 4000), (1008, 3507), (3999, 3999), (4500, 4500)]
    await asyncio.gather(*(is_closed(live, sdk, code, told) for code, told in codes))


async def is_closed(live: Live, sdk: Sdk, code: int, told: int) -> None:
    async with sdk.connected(live, "ann") as ann:
        closing = asyncio.ensure_future(ann.rpc("close", code))
        if 3500 <= told <= 3999 or told >= 4500:
            await eventually(lambda: [each for each, _ in ann.disconnected] == [told])
        else:
            await eventually(lambda: len(ann.connected) == 2)
            assert ann.connecting[1:] == [told]
            assert not ann.disconnected
        await asyncio.wait([closing])
        assert closing.exception() is not None


async def test_bytes_are_raw_in_protobuf_and_base64_in_json(live: Live, sdk: Sdk, name: str) -> None:
    message = b"\x00\xff not UTF-8"
    async with sdk.connected(live, "ann") as ann:
        room = await ann.subscribed(f"chat:{name}")
        await live.publish(room.name, message)
        await eventually(lambda: bool(room.publications))
        (found,) = (await room.history(limit=1)).publications
        assert found == room.publications[0]
        if ann.protobuf:
            assert (found.data, found.tags) == (message, {})
        else:
            assert (base64.b64decode(found.data), found.tags) == (message, {"encoding": "base64"})


async def test_data_of_the_client_reaches_connect_and_a_token_needs_no_callback(live: Live, sdk: Sdk) -> None:
    async with sdk.connected(live, None, path="/open", data={"page": "/"}) as somebody:
        assert somebody.connected == [{"page": "/"}]
    async with sdk.connected(live, None, token=token("ann")) as ann:
        assert ann.connected == [{"hello": "ann"}]


async def test_a_full_room_is_a_limit(live: Live, sdk: Sdk) -> None:
    async with sdk.connected(live, "ann") as ann, sdk.connected(live, "bob") as bob:
        await ann.subscribed("small:room")
        room = await bob.room("small:room")
        await room.subscribe()
        await eventually(lambda: [code for code, _ in room.unsubscribed] == [106])
    await eventually(lambda: not live.manager.connections(room="small:room"))


async def test_a_user_without_a_name_may_read_what_is_open(live: Live, sdk: Sdk) -> None:
    async with sdk.connected(live, None, path="/open") as somebody:
        room = await somebody.subscribed("ticker:open")
        await live.publish("ticker:open", {"n": 1})
        await eventually(lambda: room.got == [{"n": 1}])


async def test_256_subscriptions_in_one_frame_are_all_answered(live: Live, sdk: Sdk) -> None:
    async with sdk.client(live, "ann") as ann:
        rooms = await asyncio.gather(*(ann.room(f"chat:many-{n}") for n in range(256)))
        await asyncio.gather(*(room.subscribe() for room in rooms))
        await ann.connect()
        await eventually(lambda: all(room.subscribed for room in rooms))
