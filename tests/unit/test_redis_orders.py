"""What a worker that was cut off makes of the orders that were given meanwhile, whatever the server's clock does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from hubbub.brokers.base import Delivery, Receiver
from hubbub.brokers.redis.channel import Keys, Order, pack_order
from hubbub.brokers.redis.foreign import Foreign
from hubbub.brokers.redis.link import Link
from hubbub.brokers.redis.orders import Orders
from hubbub.envelope import Kick

KEYS = Keys("app")
KICK = Kick(4001, "out")
NOON_MS = 1_800_000_000_000


class Server(Receiver):
    """Redis, as far as orders go; and the worker that obeys."""

    def __init__(self) -> None:
        self.clock_ms = NOON_MS
        self.orders: list[tuple[bytes, int]] = []
        self.forgotten: bytes | None = None
        self.obeyed: list[tuple[str, float]] = []

    def give(self, user: str) -> Order:
        self.clock_ms += 1
        newest = self.orders[-1][1] if self.orders else 0
        order = Order(f"$user:{user}", KICK, max(self.clock_ms, newest + 1))
        self.orders.append((pack_order(order), order.at))
        return order

    async def call(self, *command: Any) -> Any:
        match command:
            case ("TIME",):
                return [str(self.clock_ms // 1000).encode(), str(self.clock_ms % 1000 * 1000).encode()]
            case ("GET", KEYS.forgotten):
                return self.forgotten
            case ("ZRANGEBYSCORE", KEYS.orders, str(after), "+inf", "WITHSCORES", "LIMIT", 0, int(limit)):
                return [[order, float(at)] for order, at in self.orders if at > int(after.removeprefix("("))][:limit]
        raise AssertionError(command)

    def deliver(self, channel: str, delivery: Delivery) -> None:
        assert isinstance(delivery, Kick)
        self.obeyed.append((channel.removeprefix("$user:"), delivery.age_s))

    async def settled(self) -> None:
        return

    @property
    def users(self) -> list[str]:
        return [user for user, _ in self.obeyed]


def run(test: Callable[[Server, Orders], Any]) -> None:
    async def main() -> None:
        server = Server()
        await test(server, Orders(KEYS, server, Foreign()))

    asyncio.run(main())


async def catch_up(server: Server, orders: Orders, *, subscribed: bool = True) -> None:
    await orders.catch_up(cast("Link", server), subscribed=subscribed)


def cut(orders: Orders, seconds: float) -> None:
    """Cuts the subscription, which worked last so many seconds ago."""
    orders._known_at = asyncio.get_running_loop().time() - seconds
    orders.cut()


def test_each_order_is_obeyed_once_whether_it_was_heard_or_read() -> None:
    async def test(server: Server, orders: Orders) -> None:
        server.clock_ms -= 60_000
        server.give("before the worker began")
        server.clock_ms += 60_000
        await catch_up(server, orders)
        orders.came(server.give("heard"))
        cut(orders, 30)
        server.give("missed")
        await catch_up(server, orders, subscribed=False)
        await catch_up(server, orders)
        orders.came(server.give("heard again"))
        cut(orders, 10)
        await catch_up(server, orders)
        assert server.users == ["heard", "missed", "heard again"]

    run(test)


def test_orders_of_a_cut_that_ended_before_they_were_read_are_read_after_the_next() -> None:
    """Though a later one was heard in between."""

    async def test(server: Server, orders: Orders) -> None:
        await catch_up(server, orders)
        cut(orders, 30)
        server.give("missed")
        orders.came(server.give("heard"))
        cut(orders, 10)
        await catch_up(server, orders)
        assert server.users == ["heard", "missed", "heard"]

    run(test)


def test_orders_are_read_also_before_it_is_noticed_that_the_subscription_is_lost() -> None:
    async def test(server: Server, orders: Orders) -> None:
        await catch_up(server, orders)
        orders.came(server.give("heard"))
        server.give("missed")
        await catch_up(server, orders, subscribed=False)
        assert server.users == ["heard", "missed"]

    run(test)


@pytest.mark.parametrize("number", [499, 500, 501, 1200])
def test_any_number_is_read(number: int) -> None:
    async def test(server: Server, orders: Orders) -> None:
        await catch_up(server, orders)
        cut(orders, 30)
        users = [str(each) for each in range(number)]
        for user in users:
            server.give(user)
        await catch_up(server, orders)
        assert server.users == users

    run(test)


@pytest.mark.parametrize(
    ("clock_moved_s", "age_s"),
    [(0.0, 4.0), (-3600.0, 0.0), (3600.0, 30.0)],  # 30 s is for how long it has not heard
)
def test_an_age_is_that_of_the_order_within_the_time_of_the_cut(clock_moved_s: float, age_s: float) -> None:
    """So that connections of before the cut are never spared."""

    async def test(server: Server, orders: Orders) -> None:
        await catch_up(server, orders)
        cut(orders, 30)
        server.give("ann")
        server.clock_ms += int((4.0 + clock_moved_s) * 1000)
        await catch_up(server, orders)
        ((user, found_s),) = server.obeyed
        assert user == "ann"
        assert found_s == pytest.approx(age_s, abs=1.0)

    run(test)


def test_a_clock_that_is_set_back_hides_no_order() -> None:
    async def test(server: Server, orders: Orders) -> None:
        await catch_up(server, orders)
        orders.came(server.give("ann"))
        cut(orders, 30)
        server.clock_ms -= 3_600_000
        server.give("bob")
        await catch_up(server, orders)
        assert server.users == ["ann", "bob"]

    run(test)


@pytest.mark.parametrize(("forgotten_ms", "everybody"), [(None, False), (-31_000, False), (10, True)])
def test_everybody_is_sent_away_only_where_what_is_forgotten_may_have_been_missed(
    forgotten_ms: int | None, everybody: bool
) -> None:
    async def test(server: Server, orders: Orders) -> None:
        await catch_up(server, orders)
        orders.came(server.give("ann"))
        cut(orders, 30)
        if forgotten_ms is not None:
            server.forgotten = str(NOON_MS + forgotten_ms).encode()
        await catch_up(server, orders)
        assert server.users == ["ann", *(["$everyone"] if everybody else [])]

    run(test)


def test_everybody_is_sent_away_after_a_cut_for_longer_than_orders_are_kept() -> None:
    async def test(server: Server, orders: Orders) -> None:
        await catch_up(server, orders)
        cut(orders, 25 * 3600)
        await catch_up(server, orders)
        assert server.users == ["$everyone"]

    run(test)
