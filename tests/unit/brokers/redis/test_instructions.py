"""What a worker that was cut off makes of the instructions given meanwhile, whatever the server's clock does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from hubbub.brokers.base import Delivery, Receiver
from hubbub.brokers.redis.channel import Instructed, Keys, pack_instruction
from hubbub.brokers.redis.foreign import Foreign
from hubbub.brokers.redis.instructions import Instructions
from hubbub.brokers.redis.link import Link
from hubbub.envelope import Kick

KEYS = Keys("app")
KICK = Kick(4001, "out")
NOON_MS = 1_800_000_000_000


class Server(Receiver):
    """Redis, as far as instructions go; and the worker that takes them."""

    def __init__(self) -> None:
        self.clock_ms = NOON_MS
        self.instructions: list[tuple[bytes, int]] = []
        self.forgotten: bytes | None = None
        self.obeyed: list[tuple[str, float]] = []

    def give(self, user: str) -> Instructed:
        self.clock_ms += 1
        newest = self.instructions[-1][1] if self.instructions else 0
        given = Instructed(f"$user:{user}", KICK, max(self.clock_ms, newest + 1))
        self.instructions.append((pack_instruction(given.channel, given.instruction), given.at))
        return given

    async def call(self, *command: Any) -> Any:
        match command:
            case ("TIME",):
                return [str(self.clock_ms // 1000).encode(), str(self.clock_ms % 1000 * 1000).encode()]
            case ("GET", KEYS.forgotten):
                return self.forgotten
            case ("ZRANGEBYSCORE", KEYS.instructions, str(after), "+inf", "WITHSCORES", "LIMIT", 0, int(limit)):
                return [[packed, float(at)] for packed, at in self.instructions if at > int(after.removeprefix("("))][
                    :limit
                ]
        raise AssertionError(command)

    def deliver(self, channel: str, delivery: Delivery) -> None:
        assert isinstance(delivery, Kick)
        self.obeyed.append((channel.removeprefix("$user:"), delivery.age_s))

    async def settled(self) -> None:
        return

    @property
    def users(self) -> list[str]:
        return [user for user, _ in self.obeyed]


def run(test: Callable[[Server, Instructions], Any]) -> None:
    async def main() -> None:
        server = Server()
        await test(server, Instructions(KEYS, server, Foreign()))

    asyncio.run(main())


async def catch_up(server: Server, instructions: Instructions, *, subscribed: bool = True) -> None:
    await instructions.catch_up(cast("Link", server), subscribed=subscribed)


def cut(instructions: Instructions, seconds: float) -> None:
    """Cuts the subscription, which worked last so many seconds ago."""
    instructions._known_at = asyncio.get_running_loop().time() - seconds
    instructions.cut()


def test_each_instruction_is_obeyed_once_whether_it_was_heard_or_read() -> None:
    async def test(server: Server, instructions: Instructions) -> None:
        server.clock_ms -= 60_000
        server.give("before the worker began")
        server.clock_ms += 60_000
        await catch_up(server, instructions)
        instructions.receive(server.give("heard"))
        cut(instructions, 30)
        server.give("missed")
        await catch_up(server, instructions, subscribed=False)
        await catch_up(server, instructions)
        instructions.receive(server.give("heard again"))
        cut(instructions, 10)
        await catch_up(server, instructions)
        assert server.users == ["heard", "missed", "heard again"]

    run(test)


def test_instructions_of_a_cut_that_ended_before_they_were_read_are_read_after_the_next() -> None:
    """Though a later one was heard in between."""

    async def test(server: Server, instructions: Instructions) -> None:
        await catch_up(server, instructions)
        cut(instructions, 30)
        server.give("missed")
        instructions.receive(server.give("heard"))
        cut(instructions, 10)
        await catch_up(server, instructions)
        assert server.users == ["heard", "missed", "heard"]

    run(test)


def test_instructions_are_read_also_before_it_is_noticed_that_the_subscription_is_lost() -> None:
    async def test(server: Server, instructions: Instructions) -> None:
        await catch_up(server, instructions)
        instructions.receive(server.give("heard"))
        server.give("missed")
        await catch_up(server, instructions, subscribed=False)
        assert server.users == ["heard", "missed"]

    run(test)


@pytest.mark.parametrize("number", [499, 500, 501, 1200])
def test_any_number_is_read(number: int) -> None:
    async def test(server: Server, instructions: Instructions) -> None:
        await catch_up(server, instructions)
        cut(instructions, 30)
        users = [str(each) for each in range(number)]
        for user in users:
            server.give(user)
        await catch_up(server, instructions)
        assert server.users == users

    run(test)


@pytest.mark.parametrize(
    ("clock_moved_s", "age_s"),
    [(0.0, 4.0), (-3600.0, 0.0), (3600.0, 30.0)],  # 30 s is for how long it has not heard
)
def test_an_age_is_that_of_the_instruction_within_the_time_of_the_cut(clock_moved_s: float, age_s: float) -> None:
    """So that connections of before the cut are never spared."""

    async def test(server: Server, instructions: Instructions) -> None:
        await catch_up(server, instructions)
        cut(instructions, 30)
        server.give("ann")
        server.clock_ms += int((4.0 + clock_moved_s) * 1000)
        await catch_up(server, instructions)
        ((user, found_s),) = server.obeyed
        assert user == "ann"
        assert found_s == pytest.approx(age_s, abs=1.0)

    run(test)


def test_a_clock_that_is_set_back_hides_no_instruction() -> None:
    async def test(server: Server, instructions: Instructions) -> None:
        await catch_up(server, instructions)
        instructions.receive(server.give("ann"))
        cut(instructions, 30)
        server.clock_ms -= 3_600_000
        server.give("bob")
        await catch_up(server, instructions)
        assert server.users == ["ann", "bob"]

    run(test)


@pytest.mark.parametrize(("forgotten_ms", "everybody"), [(None, False), (-31_000, False), (10, True)])
def test_everybody_is_sent_away_only_where_what_is_forgotten_may_have_been_missed(
    forgotten_ms: int | None, everybody: bool
) -> None:
    async def test(server: Server, instructions: Instructions) -> None:
        await catch_up(server, instructions)
        instructions.receive(server.give("ann"))
        cut(instructions, 30)
        if forgotten_ms is not None:
            server.forgotten = str(NOON_MS + forgotten_ms).encode()
        await catch_up(server, instructions)
        assert server.users == ["ann", *(["$everyone"] if everybody else [])]

    run(test)


def test_everybody_is_sent_away_after_a_cut_for_longer_than_instructions_are_kept() -> None:
    async def test(server: Server, instructions: Instructions) -> None:
        await catch_up(server, instructions)
        cut(instructions, 25 * 3600)
        await catch_up(server, instructions)
        assert server.users == ["$everyone"]

    run(test)


def test_an_instruction_that_redis_published_is_waited_for() -> None:
    async def test(server: Server, instructions: Instructions) -> None:
        given = server.give("before the worker listens")
        assert not await instructions.received(given.at, 5.0)
        await catch_up(server, instructions)
        assert await instructions.received(given.at, 5.0), "it was read"
        given = server.give("heard")
        waiting = asyncio.create_task(instructions.received(given.at, 5.0))
        await asyncio.sleep(0)
        assert not waiting.done()
        instructions.receive(given)
        assert server.users[-1] == "heard"
        assert await waiting
        assert await instructions.received(given.at, 5.0), "it was heard"

    run(test)


def test_an_instruction_is_not_waited_for_when_the_subscription_is_lost_or_silent() -> None:
    async def test(server: Server, instructions: Instructions) -> None:
        await catch_up(server, instructions)
        given = server.give("missed")
        assert not await instructions.received(given.at, 0.001)
        waiting = asyncio.create_task(instructions.received(given.at, 5.0))
        await asyncio.sleep(0)
        cut(instructions, 1)
        assert not await waiting

    run(test)
