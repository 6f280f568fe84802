"""Replies of a client of an endpoint."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from hubbub.codec import Kind, Payload
from hubbub.endpoints.client import Client
from hubbub.protocols.centrifugo import CentrifugoProtocol, centrifugo_protobuf
from hubbub.protocols.centrifugo.messages import Error, Reply, RPCResult
from tests.unit.endpoints.support import run


def test_a_reply_that_can_not_be_encoded_does_not_lose_the_others(caplog: pytest.LogCaptureFixture) -> None:
    written: list[bytes] = []
    writer = SimpleNamespace(write=written.append)
    socket = SimpleNamespace(closed=None, flush=lambda: None, writer=writer)
    engine: Any = SimpleNamespace(counters=SimpleNamespace(errors={"function": 0}))
    websocket: Any = SimpleNamespace(scope={"hubbub": socket})
    protocol: CentrifugoProtocol = centrifugo_protobuf()
    fine = Reply(1, RPCResult(Payload(Kind.JSON, b"1")))

    async def reply() -> None:
        client = Client(cast("Any", None), engine, websocket, protocol)
        client.say(fine)
        client.say(Reply(2, Error(cast("Any", 403.0), "x", temporary=False)))
        client.write()

    run(reply())
    internal = Reply(2, Error(100, "internal server error", temporary=True))
    assert written == [protocol.encoding.encode([fine, internal])]
    assert engine.counters.errors == {"function": 1}
    assert "a reply can't be encoded" in caplog.text
