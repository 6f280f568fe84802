"""Random schedules of failures, over the real worker code and a model of Redis: docs/architecture.md's invariants hold.

And they are not held by luck: where one of the rules that they rest on is taken away, a schedule is found that breaks
them.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hubbub import Position, RoomOptions
from hubbub.options import RoomTable
from hubbub.rooms.room import CatchUp, Room
from tests.unit.brokers.redis.redis_model import RedisModel
from tests.unit.rooms import fleet_sim
from tests.unit.rooms.fleet_sim import CLIENTS, NAMES, Fleet, SimClient, still_fleet

Step = tuple[str, Callable[[Fleet], None]]

LENGTH = 50


@pytest.fixture(autouse=True, scope="module")
def _no_warnings_of_what_is_meant_to_fail() -> Iterator[None]:
    logging.getLogger("hubbub").disabled = True
    yield
    logging.getLogger("hubbub").disabled = False


def schedule(seed: int) -> list[Step]:
    """What happens, in words, and how. Each schedule has some kinds of events only, and some often."""
    dice = random.Random(seed)
    rooms = dice.sample(NAMES, dice.choice((1, 1, 2)))
    clients = [number for number, room in enumerate(CLIENTS) if room in rooms][: dice.randint(1, 4)]
    often = [dice.choice((0, 1, 1, 4)) for _ in range(18)]

    def step() -> Step:
        worker, room, client, number = dice.randrange(2), dice.choice(rooms), dice.choice(clients), dice.randrange(8)
        count, yes, back, seconds = (
            dice.randint(1, 5),
            dice.random() < 0.5,
            dice.choice((0, 1, 1, 2, 3)),
            2.5 * number / 7,
        )
        kinds: list[tuple[int, str, Callable[[Fleet], None]]] = [
            (4, f"{3 * count} moves of connection {number}", lambda f: f.step(number, 3 * count)),
            (8, "all that is on its way arrives", lambda f: f.arrive()),
            (6, f"worker {worker} publishes {count} in {room}", lambda f: f.publish(worker, room, count)),
            (6, f"client {client} comes to worker {worker}", lambda f: f.join(f.clients[client], worker)),
            (4, f"client {client} leaves", lambda f: f.leave(f.clients[client])),
            (1, f"client {client} is slow: {yes}", lambda f: f.be_slow(f.clients[client], yes)),
            (1, f"connection {number} is cut, late: {yes}", lambda f: f.cut(number, late=yes)),
            (1, f"the subscription of worker {worker} is cut", lambda f: f.cut_subscription(worker)),
            (2, f"worker {worker} hears late: {yes}", lambda f: f.hold(worker, subscription=yes)),
            (1, "nothing is late any more", lambda f: f.release()),
            (3, "a snapshot", lambda f: f.snapshot()),
            (1, f"the server goes {back} back, cut: {yes}", lambda f: f.restart(back, cut=yes)),
            (1, "the data is deleted", lambda f: f.flush()),
            (1, "the scripts are forgotten", lambda f: f.forget_scripts()),
            (1, "the scripts are loaded", lambda f: f.load_scripts()),
            (2, f"{seconds:.1f} s", lambda f: f.pass_time(seconds)),
            (1, f"worker {worker} is replaced", lambda f: f.replace_worker(worker)),
            (1, "all is well for a while", _is_well),
        ]
        ((_, name, happen),) = dice.choices(kinds, [kind[0] * much for kind, much in zip(kinds, often, strict=True)])
        return name, happen

    return [step() for _ in range(LENGTH)] if any(often) else []


def _is_well(fleet: Fleet) -> None:
    """What is lost shows with the next message."""
    fleet.heal()
    for room in NAMES:
        fleet.publish(0, room)
    fleet.heal()
    fleet.check()


def play(steps: list[Step], model: type[RedisModel] = RedisModel) -> None:
    """Plays a schedule. In the end all come back, and all is well."""
    with still_fleet(model) as fleet:
        for _, happen in steps:
            happen(fleet)
        _is_well(fleet)
        for number, client in enumerate(fleet.clients):
            fleet.join(client, number % 2)
        _is_well(fleet)


def broken_by(steps: list[Step], model: type[RedisModel] = RedisModel) -> str | None:
    """What a schedule breaks."""
    try:
        play(steps, model)
    except AssertionError as error:
        return str(error) or repr(error)
    return None


def explore(seeds: range) -> None:
    for seed in seeds:
        steps = schedule(seed)
        broken = broken_by(steps)
        if broken is not None:
            for step in tuple(steps):  # what is not needed for it
                if (shorter := broken_by([each for each in steps if each is not step])) is not None:
                    steps.remove(step)
                    broken = shorter
            pytest.fail(f"seed {seed}: {broken}\n" + "\n".join(name for name, _ in steps), pytrace=False)


@pytest.mark.parametrize("first", [0, 20, 40])
def test_no_schedule_of_failures_breaks_an_invariant(first: int) -> None:
    explore(range(first, first + 20))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_schedule_of_many_breaks_an_invariant() -> None:
    explore(range(60, 3000))


def test_no_schedule_of_failures_breaks_an_invariant_where_newcomers_receive_a_replay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client that is told of a loss starts over, so it may receive again what it had before."""
    kept, short = RoomOptions(history=1000, replay=5), RoomOptions(history=2, replay=2)
    monkeypatch.setattr(fleet_sim, "ROOMS", RoomTable({"kept:*": kept, "short:*": short}))
    begin = SimClient._begin

    def start_over(client: SimClient, place: Position) -> None:
        begin(client, place)
        client.all_bodies.clear()

    monkeypatch.setattr(SimClient, "_begin", start_over)
    explore(range(20))


def test_what_was_published_while_a_subscription_was_made_anew_in_the_middle_of_a_read_is_read_too() -> None:
    """The history was read before the message, and the channel is heard after it: no other message shows the gap."""
    with still_fleet() as fleet:
        client = fleet.clients[0]
        fleet.join(client, 0)
        fleet.arrive()
        fleet.hold(0, subscription=False)  # the answers of the histories
        fleet.cut_subscription(0)
        fleet.pass_time(1.0)
        fleet.arrive()
        fleet.cut_subscription(0)
        fleet.publish(1, client.room)
        fleet.arrive()
        fleet.pass_time(1.0)
        fleet.arrive()
        assert client.bodies == []
        fleet.release()
        fleet.arrive()
        assert client.bodies == [f"{client.room} 1 of 1"]


# Without a rule


class OneRun(RedisModel):
    """A restart is not noticed."""

    def renew_run(self) -> None:
        self.run = "the only"


class NoLines(RedisModel):
    """A message is taken whatever came before it, and over whichever connection."""

    def in_line(self, known: tuple[int, int, int] | None, line: int, before: int) -> bool:
        return True


def _tells_no_catch_up(room: Room, position: Any) -> list[CatchUp]:
    room.head = position
    return []


RULES: dict[str, tuple[int, type[RedisModel], str | None, Any]] = {
    "each run of the server has epochs of its own": (220, OneRun, None, None),
    "messages are taken in lines": (51, NoLines, None, None),
    "who catches up reads again after a change of epoch": (
        65,
        RedisModel,
        "hubbub.rooms.room.Room.change_epoch",
        _tells_no_catch_up,
    ),
}
"""Each with a seed near which it shows, so that the search is short."""


@pytest.mark.parametrize("rule", RULES)
def test_without_a_rule_a_schedule_breaks_an_invariant(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seed, model, name, instead = RULES[rule]
    if name is not None:
        monkeypatch.setattr(name, instead)
    assert any(broken_by(schedule(number), model) is not None for number in range(seed, seed + 500))
