"""Any order of what clients and an app do at an endpoint, against a model of its rooms."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from hubbub.envelope import Page
from tests.unit.endpoints.live_sim import NAMES, PEOPLE, SHORT, Peer, World

PEERS = st.integers(0, len(PEOPLE) - 1)
ROOM = st.sampled_from(NAMES)
WORKER = st.integers(0, 1)
REST = st.booleans()


class Clients(RuleBasedStateMachine):
    """Clients come, go, come back, subscribe, leave, publish and ask, while the app publishes.

    After each step everything may come to rest, or not: then the next one happens in the middle of it.
    """

    workers = 1

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.workers)

    def peer(self, number: int, *, gone: bool, name: str | None = None, wanted: bool = True) -> Peer | None:
        """One of the clients that are gone or not, and that want to be in a room or not."""
        peers = [
            peer
            for peer in self.world.peers
            if peer.gone == gone and (name is None or peer.places[name].wanted == wanted)
        ]
        return peers[number % len(peers)] if peers else None

    def after(self, rest: bool) -> None:
        if rest:
            self.world.settle()

    @initialize(absent=st.sets(PEERS, max_size=2), outside=st.sets(st.tuples(PEERS, ROOM), max_size=6))
    def most_are_in_all_rooms(self, absent: set[int], outside: set[tuple[int, str]]) -> None:
        for peer in self.world.peers:
            for name in NAMES:
                peer.places[name].wanted = (peer.number, name) not in outside
            if peer.number not in absent:
                peer.connect(peer.number // 2 % self.workers)

    @rule(number=PEERS, worker=WORKER, name=ROOM, missed=st.integers(0, 2 * SHORT), rests=st.tuples(REST, REST))
    def comes_back(self, number: int, worker: int, name: str, missed: int, rests: tuple[bool, bool]) -> None:
        peer = self.peer(number, gone=False)
        if peer is not None:
            self.world.settle()
            peer.leave(politely=False)
            self.after(rests[0])
            self.app_publishes(name, missed, worker, rests[1])
            peer.connect(worker % self.workers)

    @rule(number=PEERS, name=ROOM, recover=st.booleans(), times=st.integers(1, 3), rest=REST)
    def leaves_and_enters(self, number: int, name: str, recover: bool, times: int, rest: bool) -> None:
        peer = self.peer(number, gone=False, name=name)
        if peer is not None:
            for _ in range(times):
                peer.unsubscribe(name)
                peer.subscribe(name, recover=recover)
        self.after(rest)

    @rule(number=PEERS, worker=WORKER, rest=REST)
    def connects(self, number: int, worker: int, rest: bool) -> None:
        peer = self.peer(number, gone=True)
        if peer is not None:
            peer.connect(worker % self.workers)
        self.after(rest)

    @rule(number=PEERS, politely=st.booleans(), rest=REST)
    def goes(self, number: int, politely: bool, rest: bool) -> None:
        peer = self.peer(number, gone=False)
        if peer is not None:
            self.world.settle()  # the model knows of whom the grace period begins
            peer.leave(politely=politely)
        self.after(rest)

    @rule(number=PEERS, name=ROOM, recover=st.booleans(), rest=REST)
    def subscribes(self, number: int, name: str, recover: bool, rest: bool) -> None:
        peer = self.peer(number, gone=False, name=name, wanted=False)
        if peer is not None:
            peer.subscribe(name, recover=recover)
        self.after(rest)

    @rule(number=PEERS, name=ROOM, rest=REST)
    def unsubscribes(self, number: int, name: str, rest: bool) -> None:
        peer = self.peer(number, gone=False, name=name) or self.peer(number, gone=False)
        if peer is not None:
            peer.unsubscribe(name)
        self.after(rest)

    @rule(name=ROOM, count=st.integers(1, 2 * SHORT), worker=WORKER, rest=REST)
    def app_publishes(self, name: str, count: int, worker: int, rest: bool) -> None:
        for _ in range(count):
            self.world.publish(worker % self.workers, name)
        self.after(rest)

    @rule(count=st.sampled_from([130, 260]))
    def app_publishes_much(self, count: int) -> None:
        for _ in range(count):
            self.world.publish(0, "kept:a")

    @rule(number=PEERS, name=ROOM, rest=REST)
    def publishes(self, number: int, name: str, rest: bool) -> None:
        peer = self.peer(number, gone=False)
        if peer is not None:
            peer.publish(name, self.world.number())
        self.after(rest)

    @rule(user=st.sampled_from(sorted({*PEOPLE} - {""})), name=ROOM, worker=WORKER)
    def app_takes_back_a_right(self, user: str, name: str, worker: int) -> None:
        self.world.take_back(worker % self.workers, user, name)

    @rule(number=PEERS, name=ROOM)
    def asks_who_is_there(self, number: int, name: str) -> None:
        peer = self.peer(number, gone=False, name=name)
        if peer is not None:
            self.world.ask(lambda: peer.ask_who(name))

    @rule(
        number=PEERS, limit=st.sampled_from([-1, 0, 1, 5]), since=st.none() | st.integers(0, 9), reverse=st.booleans()
    )
    def asks_for_history(self, number: int, limit: int, since: int | None, reverse: bool) -> None:
        peer = self.peer(number, gone=False, name="kept:a")
        if peer is not None:
            self.world.ask(lambda: peer.ask_history(limit, since, reverse=reverse))

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.settle()
        self.world.pass_time(seconds)
        self.world.settle()

    def teardown(self) -> None:
        self.world.close()


class ClientsOfAFleet(Clients):
    workers = 2


QUICK = settings(max_examples=8, stateful_step_count=25, deadline=None)
TestClients = Clients.TestCase
TestClients.settings = QUICK
TestClientsOfAFleet = ClientsOfAFleet.TestCase
TestClientsOfAFleet.settings = QUICK


def test_nothing_of_a_room_comes_before_the_reply_while_its_history_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    ann, bob = world.peers[0], world.peers[2]
    for peer in (ann, bob):
        peer.connect(0)
        peer.subscribe("kept:a")
    world.publish(0, "kept:a")
    world.settle()
    ann.leave(politely=False)
    world.settle()
    going = asyncio.Event()
    history = world.broker.history

    async def slow_history(*arguments: Any) -> Page:
        await going.wait()
        return await history(*arguments)

    monkeypatch.setattr(world.broker, "history", slow_history)
    ann.connect(0)
    world.loop.settle()
    bob.unsubscribe("kept:a")
    bob.subscribe("kept:a")
    world.publish(0, "kept:a")
    world.loop.settle()
    going.set()
    world.settle()
    world.ask(lambda: ann.ask_who("kept:a"))
    world.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("machine", [Clients, ClientsOfAFleet])
def test_no_order_of_many_breaks_the_model(machine: type[Clients]) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=300, stateful_step_count=60, deadline=None))
