"""Subscription tokens: rooms that a client needs a token for, by hand and with the SDKs."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import jwt
import pytest

from hubbub.auth import Claims, JWTAuth
from hubbub.endpoints.results import Grant
from tests.integration.json_client import error, subscribe, wire
from tests.integration.live import KEY, Live, User, live_app, pass_time, token
from tests.integration.sdk_js import Node
from tests.integration.sdks import SDKS, sdk_of
from tests.integration.sdks import node as node  # a fixture
from tests.integration.support import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_sweeps")]

OTHER_KEY = os.urandom(32)
EXPIRY = "hubbub.endpoints.expiry"


def pass_for(
    room: str | None, user: str | None = "ann", *, lasts_s: float = 86_400.0, key: bytes = KEY, **more: Any
) -> str:
    """A subscription token; without a room, a token of a connection."""
    claims = {"sub": user, "channel": room, "exp": time.time() + lasts_s, **more}
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, key, "HS256")


class Tokens(Live):
    """An app with rooms that need a token.

    Attributes:
        claims: What the rule was given, in order.
        grant: What the rule returns.
    """

    def _declare(self) -> None:
        super()._declare()
        self.claims: list[Claims] = []
        self.grant: bool | Grant = True

        @self.live.room("paid:{room}", token=True)
        async def may_read_paid(room: str, user: User, claims: Claims) -> bool | Grant:
            self.claims.append(claims)
            return self.grant

        @self.live.room("own:{room}", token=JWTAuth(OTHER_KEY, algorithms=["HS256"], required=[]))
        async def may_read_own(room: str) -> bool:
            return True

        @self.live.room("keyless:{room}", token=JWTAuth(self._no_key, algorithms=["HS256"]))
        async def may_read_keyless(room: str) -> bool:
            return True

        @self.open.room("paid:{room}", token=JWTAuth(KEY, algorithms=["HS256"]))
        async def may_all_read(room: str) -> bool:
            return True

    @staticmethod
    def _no_key(header: Any) -> bytes:
        raise TimeoutError


@pytest.fixture(scope="module")
def served() -> Iterator[Tokens]:
    with live_app(Tokens()) as live:
        assert isinstance(live, Tokens)
        yield live


@pytest.fixture
async def live(served: Tokens) -> AsyncIterator[Tokens]:
    served.grant = True
    served.claims.clear()
    yield served
    await eventually(lambda: served.manager.stats().connections == 0)


async def test_a_token_opens_its_room_and_the_rule_is_given_its_claims(live: Tokens) -> None:
    async with wire(live) as ann:
        given = pass_for("paid:a", lasts_s=50.0, role="reader")
        answer = (await ann.ask(2, subscribe={"channel": "paid:a", "token": given}))["subscribe"]
        assert answer["expires"]
        assert 45 <= answer["ttl"] <= 50
        assert [claims["role"] for claims in live.claims] == ["reader"]
        await live.publish("paid:a", "hello")
        assert (await ann.pushed("paid:a"))["data"] == "hello"


async def test_a_rule_refuses_after_the_token(live: Tokens) -> None:
    live.grant = False
    async with wire(live) as ann:
        answer = await ann.ask(2, subscribe={"channel": "paid:a", "token": pass_for("paid:a")})
        assert (error(answer), len(live.claims)) == (103, 1)


NEVER = None


@pytest.mark.parametrize(
    ("given", "code"),
    [
        pytest.param("", 103, id="none"),
        pytest.param("junk", 103, id="junk"),
        pytest.param(pass_for("paid:a", key=OTHER_KEY), 103, id="another-key"),
        pytest.param(token("ann"), 103, id="of-a-connection"),
        pytest.param(pass_for("paid:a", exp=NEVER), 103, id="without-exp"),
        pytest.param(pass_for("paid:a", info=["no", "mapping"]), 103, id="bad-info"),
        pytest.param(pass_for("paid:a", info={"much": "x" * 5000}), 103, id="large-info"),
        pytest.param(pass_for("paid:a", expire_at="soon"), 103, id="bad-expire-at"),
        pytest.param(pass_for("paid:a", lasts_s=-5.0), 109, id="expired"),
        pytest.param(pass_for("paid:a", expire_at=5), 110, id="ended"),
    ],
)
async def test_a_wrong_token_opens_nothing_and_harms_nothing_else(given: str, code: int, live: Tokens) -> None:
    async with wire(live) as ann:
        assert error(await ann.ask(2, subscribe={"channel": "paid:a", "token": given})) == code
        assert len(live.claims) == (code == 110)
        assert "subscribe" in await ann.ask(3, subscribe={"channel": "paid:a", "token": pass_for("paid:a")})
        assert error(await ann.ask(4, sub_refresh={"channel": "paid:a", "token": given})) == code
        await live.publish("paid:a", "still there")
        assert (await ann.pushed("paid:a"))["data"] == "still there"


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(pass_for("paid:b"), id="room"),
        pytest.param(pass_for("paid:a", "bob"), id="user"),
        pytest.param(pass_for("paid:a", None), id="nobody"),
        pytest.param(pass_for("paid:a", channel=["paid:a"]), id="list-of-rooms"),
    ],
)
@pytest.mark.parametrize("command", ["subscribe", "sub_refresh"])
async def test_a_token_for_another_room_or_user_ends_the_connection(command: str, given: str, live: Tokens) -> None:
    async with wire(live) as ann:
        if command == "sub_refresh":
            assert "subscribe" in await ann.ask(2, subscribe={"channel": "paid:a", "token": pass_for("paid:a")})
        await ann.send({"id": 3, command: {"channel": "paid:a", "token": given}})
        assert await ann.close_code() == 3500


async def test_a_subscription_token_authenticates_nobody(live: Tokens) -> None:
    async with wire(live, None) as ann:
        await ann.send({"id": 1, "connect": {"token": pass_for("paid:a")}})
        assert await ann.close_code() == 3500
    async with wire(live) as ann:
        await ann.send({"id": 2, "refresh": {"token": pass_for("paid:a")}})
        assert await ann.close_code() == 3500


async def test_a_token_is_ignored_where_the_rule_asks_for_none(live: Tokens) -> None:
    async with wire(live) as ann:
        answer = (await ann.ask(2, subscribe={"channel": "chat:a", "token": "junk"}))["subscribe"]
        assert "expires" not in answer
        assert error(await ann.ask(3, sub_refresh={"channel": "chat:a", "token": "junk"})) == 108
        assert error(await ann.ask(4, sub_refresh={"channel": "no:rule", "token": "junk"})) == 108


@pytest.mark.parametrize("user", [None, ""])
async def test_a_client_without_a_user_has_tokens_for_nobody(user: str | None, live: Tokens) -> None:
    async with wire(live, None, "/open") as somebody:
        await somebody.ask(1, connect={})
        given = pass_for("paid:a", user)
        assert "subscribe" in await somebody.ask(2, subscribe={"channel": "paid:a", "token": given})
        await somebody.send(subscribe(3, "paid:b", token=pass_for("paid:b", "ann")))
        assert await somebody.close_code() == 3500


async def test_the_claims_say_when_the_subscription_expires(live: Tokens) -> None:
    async with wire(live) as ann:
        soon = pass_for("paid:soon", expire_at=time.time() + 90)
        answer = (await ann.ask(2, subscribe={"channel": "paid:soon", "token": soon}))["subscribe"]
        assert 85 <= answer["ttl"] <= 90
        never = pass_for("paid:never", expire_at=0)
        assert "expires" not in (await ann.ask(3, subscribe={"channel": "paid:never", "token": never}))["subscribe"]
        own = pass_for("own:a", key=OTHER_KEY, exp=NEVER)
        assert "expires" not in (await ann.ask(4, subscribe={"channel": "own:a", "token": own}))["subscribe"]
        assert (await ann.ask(5, sub_refresh={"channel": "own:a", "token": own}))["sub_refresh"] == {}


async def test_a_token_is_replaced_in_place_and_one_that_is_not_ends_the_subscription(
    live: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{EXPIRY}.REFRESH_GRACE_S", 0.0)
    async with wire(live) as ann:
        for number, room in ((2, "paid:kept"), (3, "paid:ended")):
            given = pass_for(room, expire_at=time.time() + 600)
            assert "subscribe" in await ann.ask(number, subscribe={"channel": room, "token": given})
        refreshed = await ann.ask(4, sub_refresh={"channel": "paid:kept", "token": pass_for("paid:kept")})
        assert refreshed["sub_refresh"]["expires"]
        pass_time(monkeypatch, 601)
        assert 80_000 < refreshed["sub_refresh"]["ttl"] <= 86_400
        assert (await ann.pushed("paid:ended", "unsubscribe"))["code"] == 2501
        assert error(await ann.ask(5, sub_refresh={"channel": "paid:ended", "token": pass_for("paid:ended")})) == 103
        assert len(live.claims) == 2
        await live.publish("paid:kept", "still there")
        assert (await ann.pushed("paid:kept"))["data"] == "still there"


async def test_a_client_has_a_while_to_replace_its_token(live: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    async with wire(live) as ann:
        given = pass_for("paid:a", expire_at=time.time() + 600)
        assert "subscribe" in await ann.ask(2, subscribe={"channel": "paid:a", "token": given})
        pass_time(monkeypatch, 601)
        answer = await ann.ask(3, sub_refresh={"channel": "paid:a", "token": pass_for("paid:a", lasts_s=-1.0)})
        assert (error(answer), answer["error"]["temporary"]) == (109, True)  # an SDK gives up after any other
        assert "sub_refresh" in await ann.ask(4, sub_refresh={"channel": "paid:a", "token": pass_for("paid:a")})


async def test_refreshes_of_a_subscription_run_one_after_the_other(
    live: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: list[int] = []
    verify = JWTAuth.subscription_claims

    async def verified(auth: JWTAuth, given: str) -> Claims:
        running.append(1)
        await asyncio.sleep(0)
        assert running == [1]
        running.clear()
        return await verify(auth, given)

    async with wire(live) as ann:
        await ann.ask(2, subscribe={"channel": "paid:a", "token": pass_for("paid:a")})
        monkeypatch.setattr(JWTAuth, "subscription_claims", verified)
        refresh = {"channel": "paid:a", "token": pass_for("paid:a")}
        await ann.send(*[{"id": number, "sub_refresh": refresh} for number in range(3, 13)])
        assert all("sub_refresh" in each for each in await ann.answers(*range(3, 13)))


async def test_the_end_of_a_grant_is_not_told_and_no_token_extends_it(
    live: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.grant = Grant(expires_at=time.time() + 600)
    async with wire(live) as ann:
        given = pass_for("paid:a")
        answer = (await ann.ask(2, subscribe={"channel": "paid:a", "token": given}))["subscribe"]
        assert answer["ttl"] > 80_000
        assert "sub_refresh" in await ann.ask(3, sub_refresh={"channel": "paid:a", "token": given})
        pass_time(monkeypatch, 601)
        assert (await ann.pushed("paid:a", "unsubscribe"))["code"] == 2501


async def test_a_key_that_can_not_be_had_is_no_fault_of_the_client(live: Tokens) -> None:
    async with wire(live) as ann:
        answer = await ann.ask(2, subscribe={"channel": "keyless:a", "token": pass_for("keyless:a")})
        assert (error(answer), answer["error"]["temporary"]) == (100, True)


async def test_an_sdk_fetches_tokens_and_refreshes_them(live: Tokens, node: Node) -> None:
    """All SDKs at once, since a token lasts for a second at least."""
    async with AsyncExitStack() as stack:
        rooms = []
        for name in SDKS:
            ann = await stack.enter_async_context(sdk_of(name, node).connected(live, "ann"))
            room = f"paid:{name}"
            tokens = [pass_for(room, lasts_s=-5.0), pass_for(room, lasts_s=1.5), pass_for(room)]
            rooms.append(await ann.subscribed(room, tokens))
        await eventually(lambda: not any(room.tokens for room in rooms))
        for each in rooms:
            await live.publish(each.name, "hello")
            await eventually(lambda each=each: each.got == ["hello"])  # type: ignore[misc]
            assert (len(each.subscribed), each.unsubscribed) == (1, [])
