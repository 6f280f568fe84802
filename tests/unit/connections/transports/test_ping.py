"""A ping: what counts as a sign of life, and that the server's protocol is back when it ends."""

from __future__ import annotations

import asyncio
import socket
import sys

import pytest

from hubbub.connections.transports.ping import PING, OpenPing, pingable
from tests.unit.connections.transports.fakes import FakeProtocol, FakeTransport


class Asked:
    """A ping to a peer that has sent nothing yet."""

    def __init__(self, *, waiting: int = 0) -> None:
        self.server = FakeProtocol()
        self.transport = FakeTransport(self.server)
        self.transport.waiting = waiting
        self.heard = 0
        self.ping = OpenPing(self.transport, self.server, self._hear)

    def _hear(self) -> None:
        self.heard += 1

    def comes(self, data: bytes) -> None:
        protocol = self.transport.get_protocol()
        assert isinstance(protocol, asyncio.Protocol)
        protocol.data_received(data)


def test_a_silent_peer_gives_no_sign_of_life() -> None:
    asked = Asked()
    assert asked.transport.written == [PING]
    assert not asked.ping.end()
    assert asked.heard == 0
    assert asked.transport.get_protocol() is asked.server


def test_whatever_the_peer_sends_is_a_sign_of_life_and_still_reaches_the_server() -> None:
    asked = Asked()
    asked.comes(b"a message")
    assert asked.ping.answered
    assert asked.heard == 1
    assert asked.server.received == [b"a message"]
    assert asked.ping.end()


def test_after_the_end_of_a_ping_nothing_is_heard() -> None:
    asked = Asked()
    asked.ping.end()
    asked.comes(b"late")
    assert (asked.heard, asked.ping.answered) == (0, False)
    assert asked.server.received == [b"late"]


@pytest.mark.parametrize(("left", "alive"), [(101, False), (100, False), (99, True)])
def test_a_peer_that_takes_what_waits_for_it_is_alive(left: int, alive: bool) -> None:
    asked = Asked(waiting=100)
    asked.transport.waiting = left
    assert asked.ping.end() is alive


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what its queue holds")
def test_a_peer_that_empties_the_kernels_queue_is_alive() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.send(b"x" * 1000)
        server = FakeProtocol()
        transport = FakeTransport(server, socket=ours)
        assert not OpenPing(transport, server, lambda: None).end()
        ping = OpenPing(transport, server, lambda: None)
        theirs.recv(1000)
        assert ping.end()


def test_a_protocol_that_was_set_during_the_ping_stays() -> None:
    asked, upgraded = Asked(), FakeProtocol()
    asked.transport.set_protocol(upgraded)
    asked.ping.end()
    assert asked.transport.get_protocol() is upgraded


@pytest.mark.parametrize("answered", [True, False])
def test_a_socket_that_closes_meanwhile_keeps_its_answer_and_is_left_alone(answered: bool) -> None:
    asked = Asked(waiting=100)
    if answered:
        asked.comes(b"bye")
    asked.transport.closing = True
    asked.transport.waiting = 0
    during = asked.transport.get_protocol()
    assert asked.ping.end() is answered
    assert asked.transport.get_protocol() is during


def test_a_peer_that_the_server_does_not_read_from_can_not_be_asked() -> None:
    transport = FakeTransport(server := FakeProtocol())
    assert pingable(transport) is server
    transport.reading = False
    assert pingable(transport) is None


def test_a_protocol_of_another_kind_can_not_be_asked() -> None:
    assert pingable(FakeTransport(asyncio.BufferedProtocol())) is None
