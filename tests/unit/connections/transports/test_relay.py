"""A relay: the server's protocol notices no difference."""

from __future__ import annotations

import pytest

from hubbub.connections.transports.relay import Relay
from tests.unit.connections.transports.fakes import FakeProtocol


def test_every_call_reaches_the_servers_protocol_in_order() -> None:
    server = FakeProtocol()
    relay = Relay(server)
    relay.data_received(b"one")
    relay.pause_writing()
    relay.data_received(b"")
    relay.resume_writing()
    relay.eof_received()
    relay.connection_lost(None)
    assert server.calls == [
        ("data_received", b"one"),
        ("pause_writing",),
        ("data_received", b""),
        ("resume_writing",),
        ("eof_received",),
        ("connection_lost", None),
    ]


@pytest.mark.parametrize("keeps_open", [True, False, None])
def test_the_server_decides_whether_a_half_closed_socket_stays_open(keeps_open: bool | None) -> None:
    server = FakeProtocol()
    server.keeps_open = keeps_open
    assert Relay(server).eof_received() is keeps_open


def test_the_server_learns_why_the_socket_was_lost() -> None:
    server, reason = FakeProtocol(), ConnectionResetError("by the peer")
    Relay(server).connection_lost(reason)
    assert server.calls == [("connection_lost", reason)]


def test_an_error_of_the_servers_protocol_is_not_swallowed() -> None:
    class Broken(FakeProtocol):
        def data_received(self, data: bytes) -> None:
            raise ValueError("not a frame")

    with pytest.raises(ValueError, match="not a frame"):
        Relay(Broken()).data_received(b"?")
