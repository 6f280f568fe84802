"""The registry: who is here, and nobody else."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from hubbub.connections.registry import Registry


@dataclass(frozen=True, eq=False)
class Peer:
    id: str
    user_id: str | None = None
    network: str | None = None


def test_a_connection_is_found_by_user_and_network() -> None:
    registry: Registry[Peer] = Registry()
    one, two, nobody = Peer("1", "ann", "::1"), Peer("2", "ann", "::1"), Peer("3", None, None)
    for each in (one, two, nobody):
        registry.add(each)
    assert list(registry) == [one, two, nobody]
    assert len(registry) == 3
    assert registry.of_user("ann") == [one, two]
    assert registry.count_of_user("ann") == registry.count_of_network("::1") == 2
    assert registry.user_count == 1, "nobody is no user"
    assert registry.of_user("bob") == []
    assert registry.count_of_user("bob") == registry.count_of_network("::2") == 0


def test_removing_is_idempotent() -> None:
    registry: Registry[Peer] = Registry()
    one = Peer("1", "ann", "::1")
    registry.add(one)
    assert one in registry
    assert registry.remove(one.id)
    assert not registry.remove(one.id)
    assert one not in registry
    assert registry.user_count == registry.count_of_network("::1") == len(registry) == 0


def test_a_connection_is_registered_once() -> None:
    registry: Registry[Peer] = Registry()
    one = Peer("1", "ann")
    registry.add(one)
    with pytest.raises(ValueError, match="registered already"):
        registry.add(one)
    assert registry.count_of_user("ann") == 1


def test_what_is_no_connection_is_not_in_it() -> None:
    registry: Registry[Peer] = Registry()
    registry.add(Peer("1"))
    for each in (None, "1", 1, object(), Peer("2")):
        assert each not in registry


def test_it_can_change_while_it_is_iterated_over() -> None:
    """A broadcast finds out that peers are gone, and takes them out."""
    registry: Registry[Peer] = Registry()
    for number in range(5):
        registry.add(Peer(str(number), "ann"))
    for each in registry:
        registry.remove(each.id)
    for number in range(5):
        registry.add(Peer(str(number), "ann"))
    for each in registry.of_user("ann"):
        registry.remove(each.id)
    assert len(registry) == 0


# Against a model


class RegistryMachine(RuleBasedStateMachine):
    """Connections come and go, some go twice; the model is a list."""

    def __init__(self) -> None:
        super().__init__()
        self.registry: Registry[Peer] = Registry()
        self.here: list[Peer] = []
        self.gone: list[Peer] = []
        self.names = 0

    @rule(user=st.none() | st.sampled_from("abc"), address=st.none() | st.sampled_from(["::1", "::2"]))
    def add(self, user: str | None, address: str | None) -> None:
        self.names += 1
        peer = Peer(str(self.names), user, address)
        assert peer not in self.registry
        self.registry.add(peer)
        self.here.append(peer)

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        peer = data.draw(st.sampled_from(self.here))
        assert self.registry.remove(peer.id)
        self.here.remove(peer)
        self.gone.append(peer)

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def remove_again(self, data: st.DataObject) -> None:
        assert not self.registry.remove(data.draw(st.sampled_from(self.gone)).id)

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def add_again(self, data: st.DataObject) -> None:
        with pytest.raises(ValueError, match="registered already"):
            self.registry.add(data.draw(st.sampled_from(self.here)))

    @invariant()
    def it_is_as_the_model(self) -> None:
        assert list(self.registry) == self.here
        assert len(self.registry) == len(self.here)
        assert all(peer in self.registry for peer in self.here)
        assert not any(peer in self.registry for peer in self.gone)
        assert self.registry.user_count == len({peer.user_id for peer in self.here} - {None})
        for user in "abc":
            own = [peer for peer in self.here if peer.user_id == user]
            assert self.registry.of_user(user) == own
            assert self.registry.count_of_user(user) == len(own)
        for address in ("::1", "::2"):
            assert self.registry.count_of_network(address) == sum(peer.network == address for peer in self.here)

    @invariant()
    def nothing_of_those_who_are_gone_is_kept(self) -> None:
        users = {peer.user_id for peer in self.here if peer.user_id is not None}
        assert self.registry._by_user.keys() == users
        assert self.registry._per_network.keys() == {peer.network for peer in self.here if peer.network is not None}


def test_whoever_comes_and_goes_the_registry_is_that_of_the_model() -> None:
    run_state_machine_as_test(
        RegistryMachine, settings=settings(max_examples=25, stateful_step_count=30, deadline=None)
    )


@pytest.mark.slow
def test_however_long_they_come_and_go_the_registry_is_that_of_the_model() -> None:
    run_state_machine_as_test(
        RegistryMachine, settings=settings(max_examples=200, stateful_step_count=60, deadline=None)
    )
